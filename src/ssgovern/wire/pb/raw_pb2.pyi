from ssgovern.wire.pb import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RawGetResponse(_message.Message):
    __slots__ = ("epoch", "revision", "instances", "service_revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    instances: _containers.RepeatedScalarFieldContainer[bytes]
    service_revision: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instances: _Optional[_Iterable[bytes]] = ..., service_revision: _Optional[int] = ...) -> None: ...

class RawSnapshot(_message.Message):
    __slots__ = ("service", "epoch", "revision", "instances")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    instances: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instances: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RawDelta(_message.Message):
    __slots__ = ("service", "epoch", "since", "revision", "upserted", "removed")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    UPSERTED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    since: int
    revision: int
    upserted: _containers.RepeatedScalarFieldContainer[bytes]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., since: _Optional[int] = ..., revision: _Optional[int] = ..., upserted: _Optional[_Iterable[bytes]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class RawRecord(_message.Message):
    __slots__ = ("time_ms", "registered")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    registered: RawInstanceRegistered
    def __init__(self, time_ms: _Optional[int] = ..., registered: _Optional[_Union[RawInstanceRegistered, _Mapping]] = ...) -> None: ...

class RawInstanceRegistered(_message.Message):
    __slots__ = ("service", "instance", "session_id")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    service: bytes
    instance: bytes
    session_id: bytes
    def __init__(self, service: _Optional[bytes] = ..., instance: _Optional[bytes] = ..., session_id: _Optional[bytes] = ...) -> None: ...

class RawInstance(_message.Message):
    __slots__ = ("id", "weight", "status", "persistent", "lease_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    weight: float
    status: _model_pb2.Status
    persistent: bool
    lease_ms: int
    def __init__(self, id: _Optional[str] = ..., weight: _Optional[float] = ..., status: _Optional[_Union[_model_pb2.Status, str]] = ..., persistent: _Optional[bool] = ..., lease_ms: _Optional[int] = ...) -> None: ...
