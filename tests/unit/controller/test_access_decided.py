"""What may become of users, tokens and roles."""

from __future__ import annotations

import pytest

from ssgovern import limits
from ssgovern.controller.access import (
    NOBODY_YET,
    AccessChange,
    AccessCommand,
    AccessState,
    AddToken,
    Grant,
    RemoveRole,
    RemoveUser,
    RevokeToken,
    Role,
    SetRole,
    SetUser,
    Token,
    User,
    decide_access,
)
from ssgovern.errors import InvalidArgumentError, LimitExceededError, NotFoundError

NOW_MS = 1_000_000
HASH = bytes(range(32))
ANN = User("ann", "$argon2id$", ("admin",))


def governed() -> AccessState:
    return AccessState({"ann": ANN})


def after(state: AccessState, *commands: AccessCommand) -> AccessState:
    for command in commands:
        change = decide_access(state, command, NOW_MS).change
        if change is not None:
            state = state.changed(change)
    return state


def test_the_first_one_has_to_be_able_to_administer() -> None:
    """A first user or token without the role admin would lock everybody out, and is refused."""
    with pytest.raises(InvalidArgumentError, match="role admin"):
        decide_access(NOBODY_YET, SetUser("ann", create=True, roles=("reader",)), NOW_MS)
    with pytest.raises(InvalidArgumentError, match="role admin"):
        decide_access(NOBODY_YET, AddToken(Token("t1", HASH, roles=("reader",))), NOW_MS)
    assert after(NOBODY_YET, AddToken(Token("t1", HASH, roles=("admin",)))).tokens


@pytest.mark.parametrize(
    "command",
    [
        RemoveUser("ann"),
        SetUser("ann", disabled=True),
        SetUser("ann", roles=("reader",)),
        SetUser("ann", password_hash=""),
    ],
)
def test_the_last_admin_stays(command: AccessCommand) -> None:
    """Nothing takes away the last one who may administer; with another one it may go."""
    state = governed()
    with pytest.raises(InvalidArgumentError):
        decide_access(state, command, NOW_MS)
    two = after(state, AddToken(Token("t1", HASH, roles=("admin",))))
    assert decide_access(two, command, NOW_MS).change is not None


def test_an_expiring_token_is_no_last_admin() -> None:
    """A token that will expire does not count as somebody who is left."""
    state = after(
        governed(), AddToken(Token("t1", HASH, roles=("admin",), expires_at_ms=NOW_MS * 2))
    )
    with pytest.raises(InvalidArgumentError):
        decide_access(state, RemoveUser("ann"), NOW_MS)


def test_a_user_goes_with_its_tokens() -> None:
    """Tokens that speak for a user are gone when the user is."""
    state = after(
        governed(),
        SetUser("bob", create=True, roles=("reader",)),
        AddToken(Token("t1", HASH, owner="bob")),
        RemoveUser("bob"),
    )
    assert (dict(state.users), dict(state.tokens)) == ({"ann": ANN}, {})


def test_a_token_has_no_role_that_its_owner_lost() -> None:
    """What a token may is looked up in its owner's roles as they are now."""
    state = after(
        governed(),
        SetUser("bob", create=True, roles=("reader", "operator")),
        AddToken(Token("t1", HASH, owner="bob", roles=("operator",))),
        AddToken(Token("t2", HASH, owner="bob")),
    )
    assert state.roles_of(state.tokens["t1"]) == ("operator",)
    state = after(state, SetUser("bob", roles=("reader",)))
    assert state.roles_of(state.tokens["t1"]) == ()
    assert state.roles_of(state.tokens["t2"]) == ("reader",)
    state = after(state, SetUser("bob", disabled=True))
    assert state.roles_of(state.tokens["t2"]) == ()


def test_revoking_twice_is_revoking_once() -> None:
    """A token that was revoked stays as such, and saying so again changes nothing."""
    state = after(governed(), AddToken(Token("t1", HASH, roles=("reader",))), RevokeToken("t1"))
    assert state.tokens["t1"].revoked
    assert decide_access(state, RevokeToken("t1"), NOW_MS).change is None


def test_tokens_that_are_over_make_room() -> None:
    """With as many tokens as there may be, those that are over go; if none is, it is said."""
    tokens = {
        f"t{n}": Token(f"t{n}", HASH, roles=("reader",)) for n in range(limits.ACCESS_TOKENS_MAX)
    }
    state = AccessState({"ann": ANN}, tokens)
    new = AddToken(Token("new", HASH, roles=("reader",)))
    with pytest.raises(LimitExceededError):
        decide_access(state, new, NOW_MS)
    state = after(state, RevokeToken("t7"), new)
    assert "new" in state.tokens
    assert "t7" not in state.tokens
    assert len(state.tokens) == limits.ACCESS_TOKENS_MAX


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (SetUser("ann", create=True, roles=("admin",)), InvalidArgumentError),
        (SetUser("bob", roles=()), NotFoundError),
        (SetUser("b/b", create=True), InvalidArgumentError),
        (SetUser("", create=True), InvalidArgumentError),
        (SetUser("x" * 65, create=True), LimitExceededError),
        (SetUser("bob", create=True, roles=("nosuch",)), NotFoundError),
        (SetUser("bob", create=True, roles=("reader",) * 17), LimitExceededError),
        (RemoveUser("bob"), NotFoundError),
        (RevokeToken("t1"), NotFoundError),
        (AddToken(Token("t1", HASH)), InvalidArgumentError),
        (AddToken(Token("t1", b"short", roles=("reader",))), InvalidArgumentError),
        (AddToken(Token("t1", HASH, owner="bob")), NotFoundError),
        (AddToken(Token("t1", HASH, roles=("reader",), expires_at_ms=1)), InvalidArgumentError),
        (AddToken(Token("t_1", HASH, roles=("reader",))), InvalidArgumentError),
        (AddToken(Token("t1", HASH, roles=("reader",), note="a\nb")), InvalidArgumentError),
        (SetRole(Role("admin", (Grant("*", "*", ("read",)),))), InvalidArgumentError),
        (SetRole(Role("r", ())), LimitExceededError),
        (SetRole(Role("r", (Grant("*", "*", ("fly",)),))), InvalidArgumentError),
        (SetRole(Role("r", (Grant("*", "*", ()),))), InvalidArgumentError),
        (SetRole(Role("r", (Grant("", "*", ("read",)),))), InvalidArgumentError),
        (RemoveRole("reader"), InvalidArgumentError),
        (RemoveRole("r"), NotFoundError),
    ],
)
def test_refusals(command: AccessCommand, error: type[Exception]) -> None:
    """What cannot be is refused, and names why."""
    with pytest.raises(error):
        decide_access(governed(), command, NOW_MS)


def test_a_role_in_use_stays() -> None:
    """A role that somebody has is not removed from under them."""
    role = Role("shop", (Grant("prod", "default/shop-*", ("read",)),))
    state = after(governed(), SetRole(role), SetUser("bob", create=True, roles=("shop",)))
    with pytest.raises(InvalidArgumentError, match="bob"):
        decide_access(state, RemoveRole("shop"), NOW_MS)
    state = after(state, RemoveUser("bob"), RemoveRole("shop"))
    assert not state.roles


def test_all_of_it_is_one_change_from_nothing() -> None:
    """A state is what its own `whole` makes of nothing."""
    state = after(
        governed(),
        SetRole(Role("shop", (Grant("prod", "*", ("read",)),))),
        AddToken(Token("t1", HASH, roles=("shop",))),
    )
    again = NOBODY_YET.changed(state.whole())
    assert again.whole() == state.whole()
    assert NOBODY_YET.changed(AccessChange()).whole() == AccessChange()


def test_secrets_are_not_shown() -> None:
    """Hashes are in no repr, so in no log line either."""
    assert "argon2id" not in repr(ANN)
    assert HASH.hex() not in repr(Token("t1", HASH)).encode().hex()
    assert "\\x" not in repr(Token("t1", HASH))
