"""Who asks, and whether they may: the same for every way into a node.

Knows users, tokens and roles as they are now (`controller.access`), and no connection, header or
cookie. What somebody is known by is a `Principal`, one object for each user and token: when
rights change, it is changed in place, so that whoever holds it is judged by what holds now.

Invariants: secrets are compared in constant time, and whether a token is unknown or wrong cannot
be told apart; nothing is refused while `enforced` is false, and it never becomes false again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ssgovern import limits
from ssgovern.controller.access import (
    ACTIONS,
    ADMIN,
    ANY,
    BUILT_IN,
    NOBODY_YET,
    AccessState,
    Grant,
)
from ssgovern.errors import PermissionDeniedError, UnauthenticatedError

Action = Literal["read", "register", "write", "admin"]

TOKEN_PREFIX = "ssg"
_SECRET_BYTES = 32
INTERNAL = "node"
"""The credential of a node itself."""
_UNKNOWN_HASH = bytes(32)
_NO_TOKEN = (
    "access is controlled here and no token was shown: pass one (SDK token=, command line "
    "--token, variable SS_GOVERN_TOKEN, HTTP `Authorization: Bearer`)"
)
_BAD_TOKEN = "the token is not valid here: unknown, or not whole"


class _Right(NamedTuple):
    """A grant, ready to be asked."""

    namespace: str
    group: str
    service: str
    actions: tuple[str, ...]


class Principal:
    """Somebody who was recognised. Changed by `Access` alone."""

    __slots__ = ("credential", "everywhere", "expires_at_ms", "name", "refusal", "rights")

    def __init__(self, name: str, credential: str) -> None:
        self.name = name
        """For people, and for the audit."""
        self.credential = credential
        self.rights: tuple[_Right, ...] = ()
        self.everywhere: tuple[str, ...] = ()
        """Actions allowed for all services of all namespaces."""
        self.expires_at_ms = 0
        self.refusal = ""
        """Why it is nobody any more; empty: it is somebody."""

    def __repr__(self) -> str:
        return f"<Principal {self.name} {'/'.join(self.everywhere) or len(self.rights)}>"


OnAccess = Callable[[Sequence[Principal]], None]
"""Told of principals whose rights are others now, or which are refused."""


class Access:
    """Owned by the node; touched in its loop only."""

    def __init__(
        self,
        wall_ms: Callable[[], int],
        internal_key: Callable[[], bytes],
        *,
        required: bool = False,
        admin_tokens: Mapping[str, bytes] | None = None,
    ) -> None:
        """`admin_tokens`: hashes by id, of what is admin here whatever else is set up.

        `internal_key` is what this node, and those it trusts as itself, know; empty: nobody.
        """
        self._wall_ms = wall_ms
        self._internal_key = internal_key
        self._admin_tokens = dict(admin_tokens or {})
        self.required = required
        self.state = NOBODY_YET
        self.listeners: list[OnAccess] = []
        self._principals: dict[str, Principal] = {}
        self._expiring: dict[str, Principal] = {}
        self.enforced = required or bool(self._admin_tokens)
        self._me = Principal("node", INTERNAL)
        self._me.everywhere = ACTIONS

    def __repr__(self) -> str:
        return f"<Access {'on' if self.enforced else 'off'} {self.state!r}>"

    @property
    def has_admin(self) -> bool:
        """Whether anybody is set up who may do anything."""
        return bool(self.state or self._admin_tokens)

    # --- what changes ----------------------------------------------------------------------

    def replace(self, state: AccessState) -> None:
        """Judge by this from now on."""
        if state is self.state:
            return
        self.state = state
        was_enforced = self.enforced
        self.enforced = was_enforced or bool(state)
        changed = [each for each in self._principals.values() if self._update(each)]
        self._tell(changed, always=self.enforced != was_enforced)

    def look(self) -> None:
        """Refuse whom time ran out. To be called about once a second."""
        if not self._expiring:
            return
        now_ms = self._wall_ms()
        over = [each for each in self._expiring.values() if each.expires_at_ms <= now_ms]
        self._tell([each for each in over if self._update(each)])

    def _tell(self, changed: Sequence[Principal], *, always: bool = False) -> None:
        for principal in changed:
            if principal.refusal:
                self._principals.pop(principal.credential, None)
                self._expiring.pop(principal.credential, None)
        if changed or always:
            for listener in self.listeners:
                listener(changed)

    def _update(self, principal: Principal) -> bool:
        """Bring a principal up to date; return whether that changed anything for it."""
        before = principal.rights, principal.everywhere, principal.refusal
        kind, _, name = principal.credential.partition(":")
        roles: tuple[str, ...] = ()
        principal.refusal = ""
        if kind == "config":
            roles = (ADMIN,)
        elif kind == "user":
            user = self.state.users.get(name)
            if user is None or user.disabled:
                principal.refusal = f"user {name} is disabled" if user else f"no user {name}"
            else:
                roles = user.roles
        else:
            roles = self._roles_of_token(principal, name)
        rights = [
            right
            for role in roles
            if (found := self.state.role(role)) is not None
            for right in _rights(found.grants)
        ]
        principal.everywhere = tuple(
            action
            for action in ACTIONS
            if any(action in right.actions and right[:3] == (ANY, ANY, ANY) for right in rights)
        )
        principal.rights = tuple(right for right in rights if right[:3] != (ANY, ANY, ANY))
        return before != (principal.rights, principal.everywhere, principal.refusal)

    def _roles_of_token(self, principal: Principal, id_: str) -> tuple[str, ...]:
        token = self.state.tokens.get(id_)
        owner = None if token is None else self.state.users.get(token.owner)
        if token is None:
            principal.refusal = f"token {id_} was removed"
        elif token.revoked:
            principal.refusal = f"token {id_} was revoked"
        elif token.is_over(self._wall_ms()):
            principal.refusal = f"token {id_} has expired"
        elif token.owner and (owner is None or owner.disabled):
            principal.refusal = f"user {token.owner}, whose token {id_} is, is disabled"
        else:
            principal.expires_at_ms = token.expires_at_ms
            return self.state.roles_of(token)
        return ()

    # --- who asks --------------------------------------------------------------------------

    def authenticate(self, token: str, session_id: bytes = b"") -> Principal | None:
        """Return whose token it is; None while access is not controlled.

        `session_id` is that of the client that shows it, if it has one. Raises
        UnauthenticatedError.
        """
        if not self.enforced:
            return None
        if not token:
            raise UnauthenticatedError(_NO_TOKEN)
        if len(token) > limits.ACCESS_TOKEN_BYTES_MAX:
            raise UnauthenticatedError(_BAD_TOKEN)
        prefix, _, rest = token.partition("_")
        id_, _, secret = rest.partition("_")
        if prefix != TOKEN_PREFIX:
            raise UnauthenticatedError(_BAD_TOKEN)
        if id_ == INTERNAL:
            return self._authenticate_internal(token, session_id)
        known = self.state.tokens.get(id_)
        expected = self._admin_tokens.get(id_, _UNKNOWN_HASH if known is None else known.hash)
        # Compared whether or not there is such a token: how long it takes tells nothing.
        if not hmac.compare_digest(expected, token_hash(secret)):
            raise UnauthenticatedError(_BAD_TOKEN)
        if id_ in self._admin_tokens:
            return self._principal(f"token {id_}", f"config:{id_}")
        assert known is not None, "its hash was compared"
        owner = f" of {known.owner}" if known.owner else ""
        return self._principal(f"token {id_}{owner}", f"token:{id_}")

    def user(self, name: str) -> Principal:
        """Return a user who has logged in. Raises UnauthenticatedError if there is none."""
        return self._principal(name, f"user:{name}")

    def password_hash(self, name: str) -> str:
        """Return what a user's password is to be compared with; empty: nothing will do."""
        user = self.state.users.get(name)
        return "" if user is None or user.disabled else user.password_hash

    def _principal(self, name: str, credential: str) -> Principal:
        found = self._principals.get(credential)
        if found is None:
            found = Principal(name, credential)
            self._update(found)
        if found.expires_at_ms and found.expires_at_ms <= self._wall_ms():
            self._update(found)
        if found.refusal:
            raise UnauthenticatedError(found.refusal)
        self._principals[credential] = found
        if found.expires_at_ms:
            self._expiring[credential] = found
        return found

    # --- nodes -----------------------------------------------------------------------------

    def internal_token(self, session_id: bytes) -> str:
        """Return what shows to nodes of this cluster that a session is a node's own.

        It is good for that session only. Empty if there is nothing by which a node could show it.
        """
        key = self._internal_key()
        if not key:
            return ""
        proof = hmac.digest(key, b"ss-govern session of a node" + session_id, "sha256")
        return f"{TOKEN_PREFIX}_{INTERNAL}_{proof.hex()}"

    def _authenticate_internal(self, token: str, session_id: bytes) -> Principal:
        expected = self.internal_token(session_id) if session_id else ""
        if not expected or not hmac.compare_digest(expected.encode(), token.encode()):
            raise UnauthenticatedError(_BAD_TOKEN)
        return self._me

    # --- whether they may ------------------------------------------------------------------

    def check(
        self, principal: Principal | None, action: Action, namespace: str, group: str, service: str
    ) -> None:
        """Raise unless an action is allowed for a service.

        UnauthenticatedError if nobody asks, PermissionDeniedError naming the right that is
        missing.
        """
        if not self.enforced:
            return
        somebody = _somebody(principal)
        if action in somebody.everywhere:
            return
        for right in somebody.rights:
            if (
                action in right.actions
                and _matches(right.namespace, namespace)
                and _matches(right.group, group)
                and _matches(right.service, service)
            ):
                return
        raise _denied(somebody, action, namespace, f"{group}/{service}")

    def check_prefix(
        self, principal: Principal | None, action: Action, namespace: str, group: str, prefix: str
    ) -> None:
        """Raise unless an action is allowed for all services that begin so.

        An empty group stands for all groups. What grants allow is not added up: one of them has
        to cover it all.
        """
        if not self.enforced:
            return
        somebody = _somebody(principal)
        if action in somebody.everywhere:
            return
        for right in somebody.rights:
            if (
                action in right.actions
                and _matches(right.namespace, namespace)
                and (_matches(right.group, group) if group else right.group == ANY)
                and _covers(right.service, prefix)
            ):
                return
        raise _denied(somebody, action, namespace, f"{group or ANY}/{prefix}{ANY}")

    def check_everywhere(self, principal: Principal | None, action: Action) -> None:
        """Raise unless an action is allowed for everything there is."""
        if not self.enforced:
            return
        somebody = _somebody(principal)
        if action not in somebody.everywhere:
            raise _denied(somebody, action, ANY, ANY)

    def check_somewhere(self, principal: Principal | None, action: Action) -> None:
        """Raise unless an action is allowed for anything at all."""
        if not self.enforced:
            return
        somebody = _somebody(principal)
        if action not in somebody.everywhere and not any(
            action in right.actions for right in somebody.rights
        ):
            raise _denied(somebody, action, ANY, ANY)

    def allows(
        self, principal: Principal | None, action: Action, namespace: str, group: str, service: str
    ) -> bool:
        """Tell whether `check` would pass: for leaving out what somebody must not see."""
        try:
            self.check(principal, action, namespace, group, service)
        except (PermissionDeniedError, UnauthenticatedError):
            return False
        return True


def token_hash(secret: str) -> bytes:
    """Return the hash of a token's secret; of what is none, one that nothing has."""
    try:
        raw = bytes.fromhex(secret)
    except ValueError:
        raw = b""
    if len(raw) != _SECRET_BYTES or raw.hex() != secret:
        return hashlib.sha256(b"not a secret").digest()
    return hashlib.sha256(raw).digest()


class NewToken(NamedTuple):
    """A token that was just made. The text is said once and kept nowhere."""

    id: str
    text: str
    hash: bytes


def new_token(random_bytes: Callable[[int], bytes]) -> NewToken:
    """Make a token."""
    id_, secret = random_bytes(5).hex(), random_bytes(_SECRET_BYTES).hex()
    return NewToken(id_, f"{TOKEN_PREFIX}_{id_}_{secret}", token_hash(secret))


def role_names(state: AccessState) -> list[str]:
    """Return the roles there are, built in ones first."""
    return [*BUILT_IN, *sorted(state.roles)]


def _somebody(principal: Principal | None) -> Principal:
    if principal is None:
        raise UnauthenticatedError(_NO_TOKEN)
    if principal.refusal:
        raise UnauthenticatedError(principal.refusal)
    return principal


def _denied(
    principal: Principal, action: str, namespace: str, service: str
) -> PermissionDeniedError:
    what = "everything" if (namespace, service) == (ANY, ANY) else f"{namespace}/{service}"
    return PermissionDeniedError(
        f"{principal.name} lacks the right {action!r} for {what}: an admin can give it a role that "
        "has it",
        action=action,
        namespace=namespace,
        service=service,
    )


# --- patterns -------------------------------------------------------------------------------


def _rights(grants: Iterable[Grant]) -> Iterable[_Right]:
    for grant in grants:
        group, slash, service = grant.service.partition("/")
        if not slash:
            group, service = ANY, grant.service
        yield _Right(grant.namespace, group, service, grant.actions)


def _matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern with `*` matches. Takes no longer than their lengths multiplied."""
    if pattern in (ANY, name):
        return True
    if ANY not in pattern:
        return False
    first, *middle, last = pattern.split(ANY)
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _covers(pattern: str, prefix: str) -> bool:
    """Tell whether all names that begin with a prefix match: for patterns that end in `*`."""
    if pattern == ANY:
        return True
    literal, star, rest = pattern.partition(ANY)
    return bool(star) and not rest and prefix.startswith(literal)
