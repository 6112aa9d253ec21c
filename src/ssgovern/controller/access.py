"""Who may do what, as data, and what may become of it.

Pure, as all decisions: a command comes in, the change leaves; random ids, hashes and the time
are handed in. Passwords and tokens are known here by their hashes alone. A cluster keeps this in
its metadata log, a node by itself in a file of its data directory.

Invariant: once anybody is set up, somebody is left who may administer access (`check_governed`),
so that no change locks everybody out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, LimitExceededError, NotFoundError
from ssgovern.model import check_text

ACTIONS = ("read", "register", "write", "admin")
"""In the order in which people read them; none of them contains another."""
ANY = "*"
TOKEN_HASH_BYTES = 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions, for the services that both patterns match."""

    namespace: str
    service: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password_hash: str = field(default="", repr=False)
    roles: tuple[str, ...] = ()
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    id: str
    hash: bytes = field(repr=False)
    owner: str = ""
    roles: tuple[str, ...] = ()
    note: str = ""
    created_at_ms: int = 0
    expires_at_ms: int = 0
    revoked: bool = False

    def is_over(self, now_ms: int) -> bool:
        """Whether it is good for nothing any more."""
        return self.revoked or bool(self.expires_at_ms and now_ms >= self.expires_at_ms)


def _everywhere(name: str, *actions: str) -> Role:
    return Role(name, (Grant(ANY, ANY, actions),))


ADMIN = "admin"
BUILT_IN: Mapping[str, Role] = MappingProxyType(
    {
        role.name: role
        for role in (
            _everywhere("reader", "read"),
            _everywhere("registrar", "read", "register"),
            _everywhere("operator", "read", "register", "write"),
            _everywhere(ADMIN, *ACTIONS),
        )
    }
)
"""Roles there are without anybody having made them; they cannot be changed."""


@dataclass(frozen=True, slots=True)
class AccessChange:
    """What changed: each written out as it is afterwards."""

    users: tuple[User, ...] = ()
    tokens: tuple[Token, ...] = ()
    roles: tuple[Role, ...] = ()
    removed_users: tuple[str, ...] = ()
    removed_tokens: tuple[str, ...] = ()
    removed_roles: tuple[str, ...] = ()


class AccessState:
    """All users, tokens and roles. Never changed: `changed` makes another one."""

    __slots__ = ("roles", "tokens", "users")

    def __init__(
        self,
        users: Mapping[str, User] | None = None,
        tokens: Mapping[str, Token] | None = None,
        roles: Mapping[str, Role] | None = None,
    ) -> None:
        self.users: Mapping[str, User] = users or {}
        self.tokens: Mapping[str, Token] = tokens or {}
        self.roles: Mapping[str, Role] = roles or {}

    def __repr__(self) -> str:
        return f"<AccessState {len(self.users)} users, {len(self.tokens)} tokens>"

    def __bool__(self) -> bool:
        """Whether anybody is set up."""
        return bool(self.users or self.tokens)

    def changed(self, change: AccessChange) -> AccessState:
        """Return what a change leads to. Decides nothing, never fails."""
        return AccessState(
            _merged(self.users, {user.name: user for user in change.users}, change.removed_users),
            _merged(self.tokens, {each.id: each for each in change.tokens}, change.removed_tokens),
            _merged(self.roles, {role.name: role for role in change.roles}, change.removed_roles),
        )

    def whole(self) -> AccessChange:
        """Return all there is, as the change that makes it from nothing."""
        return AccessChange(
            tuple(self.users[name] for name in sorted(self.users)),
            tuple(self.tokens[id_] for id_ in sorted(self.tokens)),
            tuple(self.roles[name] for name in sorted(self.roles)),
        )

    def role(self, name: str) -> Role | None:
        """Return a role, built in or made."""
        return BUILT_IN.get(name) or self.roles.get(name)

    def roles_of(self, token: Token) -> tuple[str, ...]:
        """Return the roles a token has now: with an owner, none that the owner has not."""
        if not token.owner:
            return token.roles
        owner = self.users.get(token.owner)
        if owner is None or owner.disabled:
            return ()
        if not token.roles:
            return owner.roles
        if ADMIN in owner.roles:
            return token.roles
        return tuple(role for role in token.roles if role in owner.roles)


NOBODY_YET = AccessState()


def _merged(
    before: Mapping[str, T], upserted: Mapping[str, T], removed: Sequence[str]
) -> Mapping[str, T]:
    if not upserted and not removed:
        return before
    after = {**before, **upserted}
    for name in removed:
        after.pop(name, None)
    return after


# --- commands -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetUser:
    """Make a user, or change one. None: what it was."""

    name: str
    create: bool = False
    password_hash: str | None = field(default=None, repr=False)
    roles: tuple[str, ...] | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class RemoveUser:
    name: str


@dataclass(frozen=True, slots=True)
class AddToken:
    token: Token


@dataclass(frozen=True, slots=True)
class RevokeToken:
    id: str


@dataclass(frozen=True, slots=True)
class SetRole:
    role: Role


@dataclass(frozen=True, slots=True)
class RemoveRole:
    name: str


AccessCommand = SetUser | RemoveUser | AddToken | RevokeToken | SetRole | RemoveRole


@dataclass(frozen=True, slots=True)
class ChangeAccess:
    """A command about access, as the controller is asked it."""

    command: AccessCommand
    time_ms: int


class AccessDecision(NamedTuple):
    """What changes, None if nothing does, and a sentence about it."""

    change: AccessChange | None
    sentence: str


def decide_access(state: AccessState, command: AccessCommand, now_ms: int) -> AccessDecision:
    """Decide a command. Raises InvalidArgumentError, NotFoundError, LimitExceededError.

    `now_ms` is wall time: it says which tokens are over and might be forgotten.
    """
    decision = _decide(state, command, now_ms)
    if decision.change is not None:
        check_governed(state.changed(decision.change))
    return decision


def _decide(state: AccessState, command: AccessCommand, now_ms: int) -> AccessDecision:
    match command:
        case SetUser():
            return _set_user(state, command)
        case RemoveUser():
            return _remove_user(state, command.name)
        case AddToken():
            return _add_token(state, command.token, now_ms)
        case RevokeToken():
            return _revoke_token(state, command.id)
        case SetRole():
            return _set_role(state, command.role)
        case RemoveRole():
            return _remove_role(state, command.name)


def check_governed(state: AccessState) -> None:
    """Raise InvalidArgumentError if nobody would be left who may administer access."""
    if not state:
        raise InvalidArgumentError(
            "nobody would be left who may do anything: access control cannot be taken away so"
        )
    users = (
        ADMIN in user.roles and user.password_hash and not user.disabled
        for user in state.users.values()
    )
    tokens = (
        ADMIN in state.roles_of(token) and not token.revoked and not token.expires_at_ms
        for token in state.tokens.values()
    )
    if not (any(users) or any(tokens)):
        raise InvalidArgumentError(
            "nobody would be left with the role admin (a user with a password, or a token that "
            "does not expire): give it to somebody first",
            field="roles",
        )


def _set_user(state: AccessState, wanted: SetUser) -> AccessDecision:
    _check_name("user", wanted.name)
    before = state.users.get(wanted.name)
    if wanted.create and before is not None:
        raise InvalidArgumentError(f"there is a user {wanted.name} already", field="name")
    if not wanted.create and before is None:
        raise NotFoundError(f"there is no user {wanted.name}", user=wanted.name)
    _check_room("users", state.users, wanted.name, limits.ACCESS_USERS_MAX)
    user = before or User(wanted.name)
    if wanted.password_hash is not None:
        check_text("password_hash", wanted.password_hash, limits.ACCESS_PASSWORD_HASH_BYTES_MAX)
        user = replace(user, password_hash=wanted.password_hash)
    if wanted.roles is not None:
        _check_roles(state, wanted.roles)
        user = replace(user, roles=wanted.roles)
    if wanted.disabled is not None:
        user = replace(user, disabled=wanted.disabled)
    if user == before:
        return AccessDecision(None, f"User {user.name} is as it was.")
    verb = "Changed" if before else "Made"
    return AccessDecision(AccessChange(users=(user,)), f"{verb} user {user.name}.")


def _remove_user(state: AccessState, name: str) -> AccessDecision:
    if name not in state.users:
        raise NotFoundError(f"there is no user {name}", user=name)
    tokens = tuple(token.id for token in state.tokens.values() if token.owner == name)
    and_tokens = f" and {len(tokens)} of its tokens" if tokens else ""
    return AccessDecision(
        AccessChange(removed_users=(name,), removed_tokens=tokens),
        f"Removed user {name}{and_tokens}.",
    )


def _add_token(state: AccessState, token: Token, now_ms: int) -> AccessDecision:
    _check_name("token id", token.id)
    if "_" in token.id:
        raise InvalidArgumentError("a token's id ends where the first '_' is", field="id")
    if len(token.hash) != TOKEN_HASH_BYTES:
        raise InvalidArgumentError(f"a token's hash has {TOKEN_HASH_BYTES} bytes", field="hash")
    if token.id in state.tokens:
        raise InvalidArgumentError(f"there is a token {token.id} already", field="id")
    if token.note:
        check_text("note", token.note, limits.ACCESS_NOTE_BYTES_MAX)
    _check_roles(state, token.roles)
    if token.owner and token.owner not in state.users:
        raise NotFoundError(f"there is no user {token.owner}", user=token.owner)
    if not token.owner and not token.roles:
        raise InvalidArgumentError(
            "a token needs a role, or an owner whose roles it has", field="roles"
        )
    if token.expires_at_ms and token.expires_at_ms <= now_ms:
        raise InvalidArgumentError("the token would have expired already", field="expires_at_ms")
    over: tuple[str, ...] = ()
    if len(state.tokens) >= limits.ACCESS_TOKENS_MAX:
        over = tuple(old.id for old in state.tokens.values() if old.is_over(now_ms))
        if not over:
            raise LimitExceededError(
                f"there are {limits.ACCESS_TOKENS_MAX} tokens already, the most there may be: "
                "revoke some",
                limit=limits.ACCESS_TOKENS_MAX,
            )
        over = over[: limits.ACCESS_TOKENS_FORGOTTEN_MAX]
    return AccessDecision(
        AccessChange(tokens=(token,), removed_tokens=over), f"Made token {token.id}."
    )


def _revoke_token(state: AccessState, id_: str) -> AccessDecision:
    token = state.tokens.get(id_)
    if token is None:
        raise NotFoundError(f"there is no token {id_}", token=id_)
    if token.revoked:
        return AccessDecision(None, f"Token {id_} was revoked before.")
    return AccessDecision(
        AccessChange(tokens=(replace(token, revoked=True),)), f"Revoked token {id_}."
    )


def _set_role(state: AccessState, role: Role) -> AccessDecision:
    _check_name("role", role.name)
    _check_not_built_in(role.name)
    _check_room("roles", state.roles, role.name, limits.ACCESS_ROLES_MAX)
    if not 1 <= len(role.grants) <= limits.ACCESS_GRANTS_MAX:
        raise LimitExceededError(
            f"a role has 1 to {limits.ACCESS_GRANTS_MAX} grants",
            field="grants",
            limit=limits.ACCESS_GRANTS_MAX,
        )
    for grant in role.grants:
        _check_pattern("namespace", grant.namespace)
        _check_pattern("service", grant.service)
        unknown = [action for action in grant.actions if action not in ACTIONS]
        if unknown or not grant.actions or len(grant.actions) > len(ACTIONS):
            raise InvalidArgumentError(
                f"actions {', '.join(unknown) or '(none)'}: allowed are {', '.join(ACTIONS)}",
                field="actions",
            )
    if state.roles.get(role.name) == role:
        return AccessDecision(None, f"Role {role.name} is as it was.")
    verb = "Changed" if role.name in state.roles else "Made"
    return AccessDecision(AccessChange(roles=(role,)), f"{verb} role {role.name}.")


def _remove_role(state: AccessState, name: str) -> AccessDecision:
    _check_not_built_in(name)
    if name not in state.roles:
        raise NotFoundError(f"there is no role {name}", role=name)
    users = [user.name for user in state.users.values() if name in user.roles]
    tokens = [token.id for token in state.tokens.values() if name in token.roles]
    if users or tokens:
        raise InvalidArgumentError(
            f"role {name} is that of {', '.join([*users, *tokens][:5])}: take it from them first",
            field="name",
        )
    return AccessDecision(AccessChange(removed_roles=(name,)), f"Removed role {name}.")


# --- rules ----------------------------------------------------------------------------------


def _check_name(what: str, name: str) -> None:
    check_text(what, name, limits.ACCESS_NAME_BYTES_MAX)
    if not name or not all(char.isalnum() or char in "-_.@" for char in name):
        raise InvalidArgumentError(
            f"{what} {name!r}: letters, digits, '-', '_', '.' and '@' are allowed", field=what
        )


def _check_pattern(field_name: str, pattern: str) -> None:
    check_text(field_name, pattern, 2 * limits.NAME_BYTES_MAX + 1)
    if not pattern:
        raise InvalidArgumentError(
            f"{field_name}: an empty pattern; {ANY} is all", field=field_name
        )


def _check_not_built_in(name: str) -> None:
    if name in BUILT_IN:
        raise InvalidArgumentError(f"role {name} is built in and stays what it is", field="name")


def _check_roles(state: AccessState, roles: Sequence[str]) -> None:
    if len(roles) > limits.ACCESS_ROLES_EACH_MAX:
        raise LimitExceededError(
            f"at most {limits.ACCESS_ROLES_EACH_MAX} roles for one user or token",
            field="roles",
            limit=limits.ACCESS_ROLES_EACH_MAX,
        )
    for name in roles:
        if state.role(name) is None:
            there = ", ".join([*BUILT_IN, *sorted(state.roles)][:20])
            raise NotFoundError(f"there is no role {name}: there are {there}", role=name)


def _check_room(what: str, there: Mapping[str, object], name: str, most: int) -> None:
    if name not in there and len(there) >= most:
        raise LimitExceededError(f"there may be {most} {what}", limit=most)
