from ssgovern.wire.pb import model_pb2 as _model_pb2
from ssgovern.wire.pb import native_pb2 as _native_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionEnd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_END_EXPIRED: _ClassVar[SessionEnd]
    SESSION_END_GOODBYE: _ClassVar[SessionEnd]
SESSION_END_EXPIRED: SessionEnd
SESSION_END_GOODBYE: SessionEnd

class Record(_message.Message):
    __slots__ = ("time_ms", "registered", "deregistered", "updated", "session_ended", "epoch_started")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    DEREGISTERED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_STARTED_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    registered: InstanceRegistered
    deregistered: InstanceDeregistered
    updated: InstanceUpdated
    session_ended: SessionEnded
    epoch_started: EpochStarted
    def __init__(self, time_ms: _Optional[int] = ..., registered: _Optional[_Union[InstanceRegistered, _Mapping]] = ..., deregistered: _Optional[_Union[InstanceDeregistered, _Mapping]] = ..., updated: _Optional[_Union[InstanceUpdated, _Mapping]] = ..., session_ended: _Optional[_Union[SessionEnded, _Mapping]] = ..., epoch_started: _Optional[_Union[EpochStarted, _Mapping]] = ...) -> None: ...

class InstanceRegistered(_message.Message):
    __slots__ = ("service", "instance", "session_id")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance: _model_pb2.Instance
    session_id: bytes
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance: _Optional[_Union[_model_pb2.Instance, _Mapping]] = ..., session_id: _Optional[bytes] = ...) -> None: ...

class InstanceDeregistered(_message.Message):
    __slots__ = ("service", "instance_id", "session_id", "any_owner", "if_revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_OWNER_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance_id: str
    session_id: bytes
    any_owner: bool
    if_revision: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_id: _Optional[str] = ..., session_id: _Optional[bytes] = ..., any_owner: _Optional[bool] = ..., if_revision: _Optional[int] = ...) -> None: ...

class InstanceUpdated(_message.Message):
    __slots__ = ("service", "instance_id", "session_id", "any_owner", "if_revision", "change")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_OWNER_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance_id: str
    session_id: bytes
    any_owner: bool
    if_revision: int
    change: _native_pb2.InstanceChange
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_id: _Optional[str] = ..., session_id: _Optional[bytes] = ..., any_owner: _Optional[bool] = ..., if_revision: _Optional[int] = ..., change: _Optional[_Union[_native_pb2.InstanceChange, _Mapping]] = ...) -> None: ...

class SessionEnded(_message.Message):
    __slots__ = ("session_id", "reason")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    reason: SessionEnd
    def __init__(self, session_id: _Optional[bytes] = ..., reason: _Optional[_Union[SessionEnd, str]] = ...) -> None: ...

class EpochStarted(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("epoch_starts", "services")
    EPOCH_STARTS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    epoch_starts: _containers.RepeatedCompositeFieldContainer[EpochStart]
    services: _containers.RepeatedCompositeFieldContainer[SnapshotService]
    def __init__(self, epoch_starts: _Optional[_Iterable[_Union[EpochStart, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[SnapshotService, _Mapping]]] = ...) -> None: ...

class EpochStart(_message.Message):
    __slots__ = ("epoch", "revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class SnapshotService(_message.Message):
    __slots__ = ("service", "revision", "instances", "out_of_service")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    revision: int
    instances: _containers.RepeatedCompositeFieldContainer[SnapshotInstance]
    out_of_service: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., revision: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[SnapshotInstance, _Mapping]]] = ..., out_of_service: _Optional[_Iterable[str]] = ...) -> None: ...

class SnapshotInstance(_message.Message):
    __slots__ = ("id", "session_id", "persistent", "instance")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSISTENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    session_id: bytes
    persistent: bool
    instance: bytes
    def __init__(self, id: _Optional[str] = ..., session_id: _Optional[bytes] = ..., persistent: _Optional[bool] = ..., instance: _Optional[bytes] = ...) -> None: ...
