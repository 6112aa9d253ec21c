from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UP: _ClassVar[Status]
    STATUS_STARTING: _ClassVar[Status]
    STATUS_STOPPING: _ClassVar[Status]
    STATUS_DOWN: _ClassVar[Status]
STATUS_UP: Status
STATUS_STARTING: Status
STATUS_STOPPING: Status
STATUS_DOWN: Status

class ServiceKey(_message.Message):
    __slots__ = ("namespace", "group", "service")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    group: str
    service: str
    def __init__(self, namespace: _Optional[str] = ..., group: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("id", "host", "port", "weight", "status", "zone", "version", "metadata", "persistent", "unhealthy", "out_of_service", "revision", "registered_at_ms", "lease_ms")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    host: str
    port: int
    weight: float
    status: Status
    zone: str
    version: str
    metadata: _containers.ScalarMap[str, str]
    persistent: bool
    unhealthy: bool
    out_of_service: bool
    revision: int
    registered_at_ms: int
    lease_ms: int
    def __init__(self, id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., weight: _Optional[float] = ..., status: _Optional[_Union[Status, str]] = ..., zone: _Optional[str] = ..., version: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., persistent: _Optional[bool] = ..., unhealthy: _Optional[bool] = ..., out_of_service: _Optional[bool] = ..., revision: _Optional[int] = ..., registered_at_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...
