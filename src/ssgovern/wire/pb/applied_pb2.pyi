from ssgovern.wire.pb import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Applied(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[AppliedService]
    def __init__(self, services: _Optional[_Iterable[_Union[AppliedService, _Mapping]]] = ...) -> None: ...

class AppliedService(_message.Message):
    __slots__ = ("service", "epoch", "revision", "age_ms")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    age_ms: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class SubscribersRequest(_message.Message):
    __slots__ = ("service", "page_size", "after")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    page_size: int
    after: bytes
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., page_size: _Optional[int] = ..., after: _Optional[bytes] = ...) -> None: ...

class SubscribersResponse(_message.Message):
    __slots__ = ("epoch", "revision", "subscribers", "next_after")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    subscribers: _containers.RepeatedCompositeFieldContainer[ServiceSubscriber]
    next_after: bytes
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., subscribers: _Optional[_Iterable[_Union[ServiceSubscriber, _Mapping]]] = ..., next_after: _Optional[bytes] = ...) -> None: ...

class ServiceSubscriber(_message.Message):
    __slots__ = ("session_id", "client_name", "address", "says", "epoch", "revision", "behind_ms", "disconnected")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SAYS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BEHIND_MS_FIELD_NUMBER: _ClassVar[int]
    DISCONNECTED_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    client_name: str
    address: str
    says: bool
    epoch: int
    revision: int
    behind_ms: int
    disconnected: bool
    def __init__(self, session_id: _Optional[bytes] = ..., client_name: _Optional[str] = ..., address: _Optional[str] = ..., says: _Optional[bool] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., behind_ms: _Optional[int] = ..., disconnected: _Optional[bool] = ...) -> None: ...

class AwaitAppliedRequest(_message.Message):
    __slots__ = ("service", "epoch", "revision", "timeout_ms")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    timeout_ms: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AwaitAppliedResponse(_message.Message):
    __slots__ = ("applied", "lacking", "lacking_total", "silent", "silent_total", "subscribers_total", "node_lacks")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    LACKING_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    SILENT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    NODE_LACKS_FIELD_NUMBER: _ClassVar[int]
    applied: bool
    lacking: _containers.RepeatedCompositeFieldContainer[ServiceSubscriber]
    lacking_total: int
    silent: _containers.RepeatedCompositeFieldContainer[ServiceSubscriber]
    silent_total: int
    subscribers_total: int
    node_lacks: bool
    def __init__(self, applied: _Optional[bool] = ..., lacking: _Optional[_Iterable[_Union[ServiceSubscriber, _Mapping]]] = ..., lacking_total: _Optional[int] = ..., silent: _Optional[_Iterable[_Union[ServiceSubscriber, _Mapping]]] = ..., silent_total: _Optional[int] = ..., subscribers_total: _Optional[int] = ..., node_lacks: _Optional[bool] = ...) -> None: ...
