from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccessChanged(_message.Message):
    __slots__ = ("users", "tokens", "roles", "removed_users", "removed_tokens", "removed_roles")
    USERS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_USERS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ROLES_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[AccessUser]
    tokens: _containers.RepeatedCompositeFieldContainer[AccessToken]
    roles: _containers.RepeatedCompositeFieldContainer[AccessRole]
    removed_users: _containers.RepeatedScalarFieldContainer[str]
    removed_tokens: _containers.RepeatedScalarFieldContainer[str]
    removed_roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, users: _Optional[_Iterable[_Union[AccessUser, _Mapping]]] = ..., tokens: _Optional[_Iterable[_Union[AccessToken, _Mapping]]] = ..., roles: _Optional[_Iterable[_Union[AccessRole, _Mapping]]] = ..., removed_users: _Optional[_Iterable[str]] = ..., removed_tokens: _Optional[_Iterable[str]] = ..., removed_roles: _Optional[_Iterable[str]] = ...) -> None: ...

class AccessUser(_message.Message):
    __slots__ = ("name", "password_hash", "roles", "disabled")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_HASH_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    name: str
    password_hash: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    disabled: bool
    def __init__(self, name: _Optional[str] = ..., password_hash: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., disabled: _Optional[bool] = ...) -> None: ...

class AccessToken(_message.Message):
    __slots__ = ("id", "hash", "owner", "roles", "note", "created_at_ms", "expires_at_ms", "revoked")
    ID_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    id: str
    hash: bytes
    owner: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    note: str
    created_at_ms: int
    expires_at_ms: int
    revoked: bool
    def __init__(self, id: _Optional[str] = ..., hash: _Optional[bytes] = ..., owner: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., note: _Optional[str] = ..., created_at_ms: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., revoked: _Optional[bool] = ...) -> None: ...

class AccessRole(_message.Message):
    __slots__ = ("name", "grants")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    grants: _containers.RepeatedCompositeFieldContainer[AccessGrant]
    def __init__(self, name: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[AccessGrant, _Mapping]]] = ...) -> None: ...

class AccessGrant(_message.Message):
    __slots__ = ("namespace", "service", "actions")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ...) -> None: ...
