"""Access as bytes: `access.proto` for records, snapshots and files, and what operators ask.

What a request says is bounded here and judged in `access`.
"""

from __future__ import annotations

from dataclasses import replace

from ssgovern import limits
from ssgovern.controller.access import (
    AccessChange,
    AccessCommand,
    AccessState,
    AddToken,
    ChangeAccess,
    Grant,
    RemoveRole,
    RemoveUser,
    RevokeToken,
    Role,
    SetRole,
    SetUser,
    Token,
    User,
)
from ssgovern.errors import InvalidArgumentError, LimitExceededError
from ssgovern.wire.pb import access_pb2, native_pb2


def change_to_wire(change: AccessChange) -> access_pb2.AccessChanged:
    """Return a change as it is written down, hashes and all."""
    return access_pb2.AccessChanged(
        users=map(_user_to_wire, change.users),
        tokens=map(token_to_wire, change.tokens),
        roles=map(_role_to_wire, change.roles),
        removed_users=change.removed_users,
        removed_tokens=change.removed_tokens,
        removed_roles=change.removed_roles,
    )


def change_from_wire(message: access_pb2.AccessChanged) -> AccessChange:
    """Return a change that was written down."""
    return AccessChange(
        tuple(map(_user_from_wire, message.users)),
        tuple(map(_token_from_wire, message.tokens)),
        tuple(map(_role_from_wire, message.roles)),
        tuple(message.removed_users),
        tuple(message.removed_tokens),
        tuple(message.removed_roles),
    )


def state_to_show(state: AccessState) -> access_pb2.AccessChanged:
    """Return all there is as clients may see it: without hashes."""
    whole = state.whole()
    return change_to_wire(
        replace(
            whole,
            users=tuple(replace(user, password_hash="") for user in whole.users),
            tokens=tuple(replace(token, hash=b"") for token in whole.tokens),
        )
    )


def command_from_wire(request: native_pb2.AccessRequest) -> ChangeAccess:
    """Return what is wanted. Raises InvalidArgumentError, LimitExceededError."""
    return ChangeAccess(_command(request), request.time_ms)


def _command(request: native_pb2.AccessRequest) -> AccessCommand:
    match request.WhichOneof("command"):
        case "user":
            return _set_user(request.user)
        case "remove_user":
            return RemoveUser(request.remove_user)
        case "token":
            _check_count("roles", len(request.token.roles), limits.ACCESS_ROLES_EACH_MAX)
            return AddToken(_token_from_wire(request.token))
        case "revoke_token":
            return RevokeToken(request.revoke_token)
        case "role":
            _check_count("grants", len(request.role.grants), limits.ACCESS_GRANTS_MAX)
            return SetRole(_role_from_wire(request.role))
        case "remove_role":
            return RemoveRole(request.remove_role)
        case _:
            raise InvalidArgumentError("the command is not known to this version", field="command")


def _set_user(change: native_pb2.AccessUserChange) -> SetUser:
    _check_count("roles", len(change.roles), limits.ACCESS_ROLES_EACH_MAX)
    return SetUser(
        change.name,
        create=change.create,
        password_hash=change.password_hash if change.HasField("password_hash") else None,
        roles=tuple(dict.fromkeys(change.roles)) if change.set_roles else None,
        disabled=change.disabled if change.HasField("disabled") else None,
    )


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise LimitExceededError(f"{count} {what}: at most {most}", field=what, limit=most)


def _user_to_wire(user: User) -> access_pb2.AccessUser:
    return access_pb2.AccessUser(
        name=user.name, password_hash=user.password_hash, roles=user.roles, disabled=user.disabled
    )


def _user_from_wire(message: access_pb2.AccessUser) -> User:
    return User(message.name, message.password_hash, tuple(message.roles), message.disabled)


def token_to_wire(token: Token) -> access_pb2.AccessToken:
    """Return a token with its hash."""
    return access_pb2.AccessToken(
        id=token.id,
        hash=token.hash,
        owner=token.owner,
        roles=token.roles,
        note=token.note,
        created_at_ms=token.created_at_ms,
        expires_at_ms=token.expires_at_ms,
        revoked=token.revoked,
    )


def _token_from_wire(message: access_pb2.AccessToken) -> Token:
    return Token(
        message.id,
        message.hash,
        message.owner,
        tuple(dict.fromkeys(message.roles)),
        message.note,
        message.created_at_ms,
        message.expires_at_ms,
        message.revoked,
    )


def _role_to_wire(role: Role) -> access_pb2.AccessRole:
    return access_pb2.AccessRole(
        name=role.name,
        grants=[
            access_pb2.AccessGrant(
                namespace=grant.namespace, service=grant.service, actions=grant.actions
            )
            for grant in role.grants
        ],
    )


def _role_from_wire(message: access_pb2.AccessRole) -> Role:
    return Role(
        message.name,
        tuple(
            Grant(grant.namespace, grant.service, tuple(dict.fromkeys(grant.actions)))
            for grant in message.grants
        ),
    )
