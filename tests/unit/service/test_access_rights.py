"""Who is recognised, and what they may."""

from __future__ import annotations

import hmac

import pytest

from ssgovern.controller.access import NOBODY_YET, AccessState, Grant, Role, Token, User
from ssgovern.errors import PermissionDeniedError, UnauthenticatedError
from ssgovern.service import access as module
from ssgovern.service.access import Access, Principal, new_token, token_hash

SECRET = bytes(range(32)).hex()
HASH = token_hash(SECRET)
SHOP = Role("shop", (Grant("prod", "default/shop-*", ("read", "register")),))


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


def state_of(*tokens: Token, users: tuple[User, ...] = (), roles: tuple[Role, ...] = (SHOP,)):
    return AccessState(
        {user.name: user for user in users},
        {token.id: token for token in tokens},
        {role.name: role for role in roles},
    )


def controlled(*tokens: Token, clock: Clock | None = None, **more: object) -> Access:
    access = Access(clock or Clock(), lambda: b"key")
    access.replace(state_of(*tokens, **more))  # type: ignore[arg-type]
    return access


def shown(id_: str = "t1", secret: str = SECRET) -> str:
    return f"ssg_{id_}_{secret}"


def test_nothing_is_asked_while_nothing_is_set_up() -> None:
    """Without users, tokens and need, anybody may do anything."""
    access = Access(Clock(), lambda: b"")
    assert not access.enforced
    assert access.authenticate("whatever") is None
    access.check(None, "admin", "prod", "default", "orders")
    access.check_everywhere(None, "admin")


def test_required_without_anybody_set_up_lets_nobody_in() -> None:
    """A node that must control access and knows nobody refuses all."""
    access = Access(Clock(), lambda: b"", required=True)
    with pytest.raises(UnauthenticatedError):
        access.authenticate(shown())
    with pytest.raises(UnauthenticatedError):
        access.check(None, "read", "prod", "default", "orders")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "ssg",
        "ssg_",
        "ssg_t1",
        "ssg_t1_",
        shown("t2"),
        shown(secret=SECRET.upper()),
        shown(secret=SECRET[:-1] + "0"),
        shown(secret=SECRET[:-2]),
        shown(secret=SECRET + "00"),
        shown().replace("ssg", "sss"),
        shown() + " ",
        "x" * 10_000,
        "ssg_node_" + "0" * 64,
        "ssg_t1_令牌",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Missing, tampered, cut or prolonged: none of them is anybody."""
    access = controlled(Token("t1", HASH, roles=("reader",)))
    with pytest.raises(UnauthenticatedError) as caught:
        access.authenticate(token)
    assert SECRET not in str(caught.value)


def test_an_unknown_token_cannot_be_told_from_a_wrong_one() -> None:
    """Who guesses learns nothing of which tokens there are."""
    access = controlled(Token("t1", HASH, roles=("reader",)))
    said = []
    for token in (shown("nosuch"), shown(secret="00" * 32)):
        with pytest.raises(UnauthenticatedError) as caught:
            access.authenticate(token)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_secrets_are_compared_in_constant_time() -> None:
    """The comparison is that of `hmac`, for known and unknown tokens alike."""
    assert module.hmac is hmac
    names = Access.authenticate.__code__.co_names
    assert "compare_digest" in names
    assert "compare_digest" in Access._authenticate_internal.__code__.co_names


def test_a_revoked_token_is_over_at_once() -> None:
    """Who is there already is refused with the change, and told of it; who comes is refused."""
    access = controlled(Token("t1", HASH, roles=("reader",)))
    principal = access.authenticate(shown())
    assert principal is not None
    told: list[Principal] = []
    access.listeners.append(told.extend)
    access.check(principal, "read", "prod", "default", "orders")
    access.replace(state_of(Token("t1", HASH, roles=("reader",), revoked=True)))
    assert told == [principal]
    with pytest.raises(UnauthenticatedError, match="revoked"):
        access.check(principal, "read", "prod", "default", "orders")
    with pytest.raises(UnauthenticatedError, match="revoked"):
        access.authenticate(shown())


def test_an_expired_token_is_over_with_the_next_look() -> None:
    """Time alone ends what a token is good for, also for who is there already."""
    clock = Clock()
    access = controlled(Token("t1", HASH, roles=("reader",), expires_at_ms=2_000), clock=clock)
    principal = access.authenticate(shown())
    told: list[Principal] = []
    access.listeners.append(told.extend)
    access.look()
    assert told == []
    clock.now_ms = 2_000
    access.look()
    assert told == [principal]
    with pytest.raises(UnauthenticatedError, match="expired"):
        access.authenticate(shown())
    with pytest.raises(UnauthenticatedError, match="expired"):
        access.check(principal, "read", "prod", "default", "orders")


def test_a_role_that_changes_changes_who_has_it() -> None:
    """Rights are those of now, without that anybody shows a token again."""
    access = controlled(Token("t1", HASH, roles=("shop",)))
    principal = access.authenticate(shown())
    access.check(principal, "register", "prod", "default", "shop-cart")
    only_read = Role("shop", (Grant("prod", "default/shop-*", ("read",)),))
    access.replace(state_of(Token("t1", HASH, roles=("shop",)), roles=(only_read,)))
    access.check(principal, "read", "prod", "default", "shop-cart")
    with pytest.raises(PermissionDeniedError):
        access.check(principal, "register", "prod", "default", "shop-cart")


def test_a_disabled_user_ends_with_all_its_tokens() -> None:
    """Neither the user nor a token of its own is anybody when the user is disabled."""
    bob = User("bob", "hash", ("reader",))
    token = Token("t1", HASH, owner="bob")
    access = controlled(token, users=(bob,))
    principals = [access.user("bob"), access.authenticate(shown())]
    access.replace(state_of(token, users=(User("bob", "hash", ("reader",), disabled=True),)))
    for principal in principals:
        with pytest.raises(UnauthenticatedError, match="disabled"):
            access.check(principal, "read", "prod", "default", "orders")
    assert access.password_hash("bob") == ""


@pytest.mark.parametrize(
    ("action", "namespace", "group", "service", "allowed"),
    [
        ("read", "prod", "default", "shop-cart", True),
        ("register", "prod", "default", "shop-", True),
        ("write", "prod", "default", "shop-cart", False),
        ("admin", "prod", "default", "shop-cart", False),
        ("read", "test", "default", "shop-cart", False),
        ("read", "prod", "other", "shop-cart", False),
        ("read", "prod", "default", "cart", False),
        ("read", "prod2", "default", "shop-cart", False),
    ],
)
def test_a_right_is_for_its_namespace_group_and_names(
    action: module.Action, namespace: str, group: str, service: str, allowed: bool
) -> None:
    """A grant holds for what both its patterns match, and for no other action; else it is said
    which right is missing."""
    access = controlled(Token("t1", HASH, roles=("shop",)))
    principal = access.authenticate(shown())
    assert access.allows(principal, action, namespace, group, service) is allowed
    if not allowed:
        with pytest.raises(PermissionDeniedError, match=f"'{action}'") as caught:
            access.check(principal, action, namespace, group, service)
        assert caught.value.fields == {
            "action": action,
            "namespace": namespace,
            "service": f"{group}/{service}",
        }


@pytest.mark.parametrize(
    ("pattern", "group", "prefix", "allowed"),
    [
        ("default/shop-*", "default", "shop-", True),
        ("default/shop-*", "default", "shop-cart", True),
        ("default/shop-*", "default", "shop", False),
        ("default/shop-*", "default", "", False),
        ("default/shop-*", "", "shop-", False),
        ("shop-*", "", "shop-", True),
        ("*", "", "", True),
        ("default/*", "default", "", True),
        ("default/shop", "default", "shop", False),
        ("default/s*p", "default", "s", False),
    ],
)
def test_a_prefix_needs_the_right_for_all_it_may_begin(
    pattern: str, group: str, prefix: str, allowed: bool
) -> None:
    """What is asked of many services has to be allowed for each that there may ever be."""
    role = Role("r", (Grant("prod", pattern, ("read",)),))
    access = controlled(Token("t1", HASH, roles=("r",)), roles=(role,))
    principal = access.authenticate(shown())
    try:
        access.check_prefix(principal, "read", "prod", group, prefix)
    except PermissionDeniedError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a*b*c", "abc", True),
        ("a*b*c", "a.b.b.c", True),
        ("a*b*c", "ac", False),
        ("a*a", "a", False),
        ("*x*", "x", True),
        ("*x*", "", False),
        ("**", "", True),
        ("a", "ab", False),
        ("a?", "ab", False),
        ("*" * 500 + "b", "a" * 256, False),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    """A `*` is anything, nothing included; every other character is itself."""
    assert module._matches(pattern, name) is matches


def test_built_in_roles() -> None:
    """Each built-in role may do what its name says, everywhere, and nothing else."""
    may = {
        "reader": {"read"},
        "registrar": {"read", "register"},
        "operator": {"read", "register", "write"},
        "admin": {"read", "register", "write", "admin"},
    }
    for role, actions in may.items():
        access = controlled(Token("t1", HASH, roles=(role,)))
        principal = access.authenticate(shown())
        for action in may["admin"]:
            assert access.allows(principal, action, "n", "g", "s") is (action in actions)  # type: ignore[arg-type]


def test_a_session_of_a_node_is_that_session_only() -> None:
    """What a node shows for one session of its own is worth nothing for another."""
    access = controlled(Token("t1", HASH, roles=("reader",)))
    mine, other = bytes(16), bytes(range(16))
    principal = access.authenticate(access.internal_token(mine), mine)
    access.check_everywhere(principal, "admin")
    for session_id in (other, b""):
        with pytest.raises(UnauthenticatedError):
            access.authenticate(access.internal_token(mine), session_id)
    no_key = Access(Clock(), lambda: b"", required=True)
    assert no_key.internal_token(mine) == ""
    with pytest.raises(UnauthenticatedError):
        no_key.authenticate(access.internal_token(mine), mine)


def test_the_admin_of_the_configuration_is_there_before_anything_else() -> None:
    """Its token is admin without anything having been set up."""
    token = new_token(lambda count: bytes(range(count)))
    access = Access(Clock(), lambda: b"", admin_tokens={token.id: token.hash})
    assert access.enforced
    principal = access.authenticate(token.text)
    access.check_everywhere(principal, "admin")
    access.replace(NOBODY_YET)
    access.check_everywhere(principal, "admin")
    assert token.text.split("_")[2] not in repr(access) + repr(principal)
