from ssgovern.wire.pb import access_pb2 as _access_pb2
from ssgovern.wire.pb import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_CLIENT: _ClassVar[Role]
    ROLE_PEER: _ClassVar[Role]

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_OTHER: _ClassVar[EventKind]
    EVENT_REGISTERED: _ClassVar[EventKind]
    EVENT_REPLACED: _ClassVar[EventKind]
    EVENT_DEREGISTERED: _ClassVar[EventKind]
    EVENT_UPDATED: _ClassVar[EventKind]
    EVENT_EXPIRED: _ClassVar[EventKind]
    EVENT_LEFT: _ClassVar[EventKind]
    EVENT_UNHEALTHY: _ClassVar[EventKind]
    EVENT_OUT_OF_SERVICE: _ClassVar[EventKind]
    EVENT_IN_SERVICE: _ClassVar[EventKind]
    EVENT_CLUSTER: _ClassVar[EventKind]
ROLE_CLIENT: Role
ROLE_PEER: Role
EVENT_OTHER: EventKind
EVENT_REGISTERED: EventKind
EVENT_REPLACED: EventKind
EVENT_DEREGISTERED: EventKind
EVENT_UPDATED: EventKind
EVENT_EXPIRED: EventKind
EVENT_LEFT: EventKind
EVENT_UNHEALTHY: EventKind
EVENT_OUT_OF_SERVICE: EventKind
EVENT_IN_SERVICE: EventKind
EVENT_CLUSTER: EventKind

class Error(_message.Message):
    __slots__ = ("code", "retry", "message", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    code: int
    retry: int
    message: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., retry: _Optional[int] = ..., message: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("version_min", "version_max", "role", "client_name", "session_id", "session_secret", "forward", "token")
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    role: Role
    client_name: str
    session_id: bytes
    session_secret: bytes
    forward: bool
    token: str
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., client_name: _Optional[str] = ..., session_id: _Optional[bytes] = ..., session_secret: _Optional[bytes] = ..., forward: _Optional[bool] = ..., token: _Optional[str] = ...) -> None: ...

class HelloResponse(_message.Message):
    __slots__ = ("version", "cluster_id", "node_id", "node_name", "resumed", "session_ttl_ms", "heartbeat_interval_ms", "map_version", "principal", "wants_applied")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    SESSION_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    WANTS_APPLIED_FIELD_NUMBER: _ClassVar[int]
    version: int
    cluster_id: bytes
    node_id: int
    node_name: str
    resumed: bool
    session_ttl_ms: int
    heartbeat_interval_ms: int
    map_version: int
    principal: str
    wants_applied: bool
    def __init__(self, version: _Optional[int] = ..., cluster_id: _Optional[bytes] = ..., node_id: _Optional[int] = ..., node_name: _Optional[str] = ..., resumed: _Optional[bool] = ..., session_ttl_ms: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., map_version: _Optional[int] = ..., principal: _Optional[str] = ..., wants_applied: _Optional[bool] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("map_version",)
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    map_version: int
    def __init__(self, map_version: _Optional[int] = ...) -> None: ...

class GoodbyeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GoodbyeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Registration(_message.Message):
    __slots__ = ("service", "instance")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance: _model_pb2.Instance
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance: _Optional[_Union[_model_pb2.Instance, _Mapping]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("registrations", "lease")
    REGISTRATIONS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    registrations: _containers.RepeatedCompositeFieldContainer[Registration]
    lease: Lease
    def __init__(self, registrations: _Optional[_Iterable[_Union[Registration, _Mapping]]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("session_id", "session_secret", "ttl_ms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    session_secret: bytes
    ttl_ms: int
    def __init__(self, session_id: _Optional[bytes] = ..., session_secret: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class RegisterResult(_message.Message):
    __slots__ = ("instance_id", "epoch", "revision", "error")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    epoch: int
    revision: int
    error: Error
    def __init__(self, instance_id: _Optional[str] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RegisterResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RegisterResult, _Mapping]]] = ...) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("service", "instance_id", "any_owner", "if_revision", "lease")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_OWNER_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance_id: str
    any_owner: bool
    if_revision: int
    lease: Lease
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_id: _Optional[str] = ..., any_owner: _Optional[bool] = ..., if_revision: _Optional[int] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class DeregisterResponse(_message.Message):
    __slots__ = ("epoch", "revision", "removed")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    removed: bool
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., removed: _Optional[bool] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("service", "instance_id", "any_owner", "if_revision", "change", "lease")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_OWNER_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance_id: str
    any_owner: bool
    if_revision: int
    change: InstanceChange
    lease: Lease
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_id: _Optional[str] = ..., any_owner: _Optional[bool] = ..., if_revision: _Optional[int] = ..., change: _Optional[_Union[InstanceChange, _Mapping]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class InstanceChange(_message.Message):
    __slots__ = ("weight", "status", "out_of_service", "metadata_set", "metadata_remove", "metadata_clear")
    class MetadataSetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SERVICE_FIELD_NUMBER: _ClassVar[int]
    METADATA_SET_FIELD_NUMBER: _ClassVar[int]
    METADATA_REMOVE_FIELD_NUMBER: _ClassVar[int]
    METADATA_CLEAR_FIELD_NUMBER: _ClassVar[int]
    weight: float
    status: _model_pb2.Status
    out_of_service: bool
    metadata_set: _containers.ScalarMap[str, str]
    metadata_remove: _containers.RepeatedScalarFieldContainer[str]
    metadata_clear: bool
    def __init__(self, weight: _Optional[float] = ..., status: _Optional[_Union[_model_pb2.Status, str]] = ..., out_of_service: _Optional[bool] = ..., metadata_set: _Optional[_Mapping[str, str]] = ..., metadata_remove: _Optional[_Iterable[str]] = ..., metadata_clear: _Optional[bool] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ("epoch", "revision", "instance")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    instance: _model_pb2.Instance
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instance: _Optional[_Union[_model_pb2.Instance, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("renewals",)
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    renewals: _containers.RepeatedCompositeFieldContainer[Renewal]
    def __init__(self, renewals: _Optional[_Iterable[_Union[Renewal, _Mapping]]] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("service", "session_id", "session_secret")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    session_id: bytes
    session_secret: bytes
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., session_id: _Optional[bytes] = ..., session_secret: _Optional[bytes] = ...) -> None: ...

class RenewResult(_message.Message):
    __slots__ = ("known", "ttl_ms", "error")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    known: bool
    ttl_ms: int
    error: Error
    def __init__(self, known: _Optional[bool] = ..., ttl_ms: _Optional[int] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RenewResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RenewResult, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("service", "replica_too")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_TOO_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    replica_too: bool
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., replica_too: _Optional[bool] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("epoch", "revision", "instances", "service_revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    instances: _containers.RepeatedCompositeFieldContainer[_model_pb2.Instance]
    service_revision: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[_model_pb2.Instance, _Mapping]]] = ..., service_revision: _Optional[int] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("namespace", "group", "prefix", "page_size", "page_token", "shards")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    group: str
    prefix: str
    page_size: int
    page_token: str
    shards: bytes
    def __init__(self, namespace: _Optional[str] = ..., group: _Optional[str] = ..., prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., shards: _Optional[bytes] = ...) -> None: ...

class ServiceSummary(_message.Message):
    __slots__ = ("service", "instances", "available", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instances: int
    available: int
    revision: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instances: _Optional[int] = ..., available: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("services", "next_page_token")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ServiceSummary]
    next_page_token: str
    def __init__(self, services: _Optional[_Iterable[_Union[ServiceSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Pattern(_message.Message):
    __slots__ = ("namespace", "group", "prefix")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    group: str
    prefix: str
    def __init__(self, namespace: _Optional[str] = ..., group: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class KnownService(_message.Message):
    __slots__ = ("service", "epoch", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("service", "pattern", "known", "shards")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    pattern: Pattern
    known: _containers.RepeatedCompositeFieldContainer[KnownService]
    shards: bytes
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., pattern: _Optional[_Union[Pattern, _Mapping]] = ..., known: _Optional[_Iterable[_Union[KnownService, _Mapping]]] = ..., shards: _Optional[bytes] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    def __init__(self, subscription_id: _Optional[int] = ...) -> None: ...

class UnsubscribeRequest(_message.Message):
    __slots__ = ("subscription_id",)
    SUBSCRIPTION_ID_FIELD_NUMBER: _ClassVar[int]
    subscription_id: int
    def __init__(self, subscription_id: _Optional[int] = ...) -> None: ...

class UnsubscribeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("service", "epoch", "revision", "instances")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    instances: _containers.RepeatedCompositeFieldContainer[_model_pb2.Instance]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[_model_pb2.Instance, _Mapping]]] = ...) -> None: ...

class Delta(_message.Message):
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
    upserted: _containers.RepeatedCompositeFieldContainer[_model_pb2.Instance]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., since: _Optional[int] = ..., revision: _Optional[int] = ..., upserted: _Optional[_Iterable[_Union[_model_pb2.Instance, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class Current(_message.Message):
    __slots__ = ("service", "epoch", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    epoch: int
    revision: int
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("node_name", "node_id", "cluster_id", "version", "uptime_ms", "shards", "services", "instances", "sessions", "connections", "subscriptions", "sessions_protected", "entries_committed", "wal_bytes", "wal_segments", "wal_batches", "wal_sync_us", "writes_refused", "map_version", "loop_stall_ms_max", "pushes", "expirations", "resident_bytes", "durability", "data_dir")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_PROTECTED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    WAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAL_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    WAL_BATCHES_FIELD_NUMBER: _ClassVar[int]
    WAL_SYNC_US_FIELD_NUMBER: _ClassVar[int]
    WRITES_REFUSED_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOOP_STALL_MS_MAX_FIELD_NUMBER: _ClassVar[int]
    PUSHES_FIELD_NUMBER: _ClassVar[int]
    EXPIRATIONS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    node_id: int
    cluster_id: bytes
    version: str
    uptime_ms: int
    shards: int
    services: int
    instances: int
    sessions: int
    connections: int
    subscriptions: int
    sessions_protected: int
    entries_committed: int
    wal_bytes: int
    wal_segments: int
    wal_batches: int
    wal_sync_us: int
    writes_refused: str
    map_version: int
    loop_stall_ms_max: int
    pushes: int
    expirations: int
    resident_bytes: int
    durability: str
    data_dir: str
    def __init__(self, node_name: _Optional[str] = ..., node_id: _Optional[int] = ..., cluster_id: _Optional[bytes] = ..., version: _Optional[str] = ..., uptime_ms: _Optional[int] = ..., shards: _Optional[int] = ..., services: _Optional[int] = ..., instances: _Optional[int] = ..., sessions: _Optional[int] = ..., connections: _Optional[int] = ..., subscriptions: _Optional[int] = ..., sessions_protected: _Optional[int] = ..., entries_committed: _Optional[int] = ..., wal_bytes: _Optional[int] = ..., wal_segments: _Optional[int] = ..., wal_batches: _Optional[int] = ..., wal_sync_us: _Optional[int] = ..., writes_refused: _Optional[str] = ..., map_version: _Optional[int] = ..., loop_stall_ms_max: _Optional[int] = ..., pushes: _Optional[int] = ..., expirations: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., durability: _Optional[str] = ..., data_dir: _Optional[str] = ...) -> None: ...

class ShardMapRequest(_message.Message):
    __slots__ = ("known_version", "follow")
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    known_version: int
    follow: bool
    def __init__(self, known_version: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class MapNode(_message.Message):
    __slots__ = ("node_id", "name", "address", "zone", "live")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    name: str
    address: str
    zone: str
    live: bool
    def __init__(self, node_id: _Optional[int] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., live: _Optional[bool] = ...) -> None: ...

class MapRow(_message.Message):
    __slots__ = ("shard", "epoch", "primary", "holders", "in_sync")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    primary: int
    holders: _containers.RepeatedScalarFieldContainer[int]
    in_sync: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., primary: _Optional[int] = ..., holders: _Optional[_Iterable[int]] = ..., in_sync: _Optional[_Iterable[int]] = ...) -> None: ...

class ShardMapUpdate(_message.Message):
    __slots__ = ("cluster_id", "since", "version", "nodes", "rows")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    since: int
    version: int
    nodes: _containers.RepeatedCompositeFieldContainer[MapNode]
    rows: _containers.RepeatedCompositeFieldContainer[MapRow]
    def __init__(self, cluster_id: _Optional[bytes] = ..., since: _Optional[int] = ..., version: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[MapNode, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[MapRow, _Mapping]]] = ...) -> None: ...

class ClaimRequest(_message.Message):
    __slots__ = ("claimed",)
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    claimed: _containers.RepeatedCompositeFieldContainer[Claimed]
    def __init__(self, claimed: _Optional[_Iterable[_Union[Claimed, _Mapping]]] = ...) -> None: ...

class Claimed(_message.Message):
    __slots__ = ("service", "instance_ids")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_IDS_FIELD_NUMBER: _ClassVar[int]
    service: _model_pb2.ServiceKey
    instance_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimResponse(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedCompositeFieldContainer[Claimed]
    def __init__(self, missing: _Optional[_Iterable[_Union[Claimed, _Mapping]]] = ...) -> None: ...

class ClusterStatusRequest(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: bool
    def __init__(self, shards: _Optional[bool] = ...) -> None: ...

class ClusterStatusResponse(_message.Message):
    __slots__ = ("cluster_id", "map_version", "controller_id", "term", "index", "nodes", "shards", "copies", "min_in_sync", "shards_total", "shards_unavailable", "shards_below_copies", "moves", "node_id", "controller_heard", "candidates", "node_id_next")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    MIN_IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    SHARDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_BELOW_COPIES_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_HEARD_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_NEXT_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    map_version: int
    controller_id: int
    term: int
    index: int
    nodes: _containers.RepeatedCompositeFieldContainer[ClusterNodeStatus]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    copies: int
    min_in_sync: int
    shards_total: int
    shards_unavailable: int
    shards_below_copies: int
    moves: int
    node_id: int
    controller_heard: bool
    candidates: _containers.RepeatedScalarFieldContainer[int]
    node_id_next: int
    def __init__(self, cluster_id: _Optional[bytes] = ..., map_version: _Optional[int] = ..., controller_id: _Optional[int] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[ClusterNodeStatus, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ..., copies: _Optional[int] = ..., min_in_sync: _Optional[int] = ..., shards_total: _Optional[int] = ..., shards_unavailable: _Optional[int] = ..., shards_below_copies: _Optional[int] = ..., moves: _Optional[int] = ..., node_id: _Optional[int] = ..., controller_heard: _Optional[bool] = ..., candidates: _Optional[_Iterable[int]] = ..., node_id_next: _Optional[int] = ...) -> None: ...

class ClusterNodeStatus(_message.Message):
    __slots__ = ("node_id", "name", "address", "zone", "live", "leaving", "lost", "candidate", "primaries", "holds", "in_sync", "session")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PRIMARIES_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    name: str
    address: str
    zone: str
    live: bool
    leaving: bool
    lost: bool
    candidate: bool
    primaries: int
    holds: int
    in_sync: int
    session: int
    def __init__(self, node_id: _Optional[int] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., live: _Optional[bool] = ..., leaving: _Optional[bool] = ..., lost: _Optional[bool] = ..., candidate: _Optional[bool] = ..., primaries: _Optional[int] = ..., holds: _Optional[int] = ..., in_sync: _Optional[int] = ..., session: _Optional[int] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("shard", "epoch", "version", "primary", "holders", "in_sync", "eligible", "incoming", "outgoing", "successor")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    INCOMING_FIELD_NUMBER: _ClassVar[int]
    OUTGOING_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    version: int
    primary: int
    holders: _containers.RepeatedScalarFieldContainer[int]
    in_sync: _containers.RepeatedScalarFieldContainer[int]
    eligible: _containers.RepeatedScalarFieldContainer[int]
    incoming: int
    outgoing: int
    successor: int
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., primary: _Optional[int] = ..., holders: _Optional[_Iterable[int]] = ..., in_sync: _Optional[_Iterable[int]] = ..., eligible: _Optional[_Iterable[int]] = ..., incoming: _Optional[int] = ..., outgoing: _Optional[int] = ..., successor: _Optional[int] = ...) -> None: ...

class ReadShardRequest(_message.Message):
    __slots__ = ("shard", "number")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    shard: int
    number: int
    def __init__(self, shard: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class ReadShardResponse(_message.Message):
    __slots__ = ("epoch", "revision", "instances", "chunk", "done")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    instances: int
    chunk: bytes
    done: bool
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ..., instances: _Optional[int] = ..., chunk: _Optional[bytes] = ..., done: _Optional[bool] = ...) -> None: ...

class ClusterCommandRequest(_message.Message):
    __slots__ = ("leave", "stay", "transfer", "settings", "transfer_controller", "candidates", "unclean")
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    STAY_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    UNCLEAN_FIELD_NUMBER: _ClassVar[int]
    leave: int
    stay: int
    transfer: TransferShard
    settings: ChangeSettings
    transfer_controller: int
    candidates: CandidateChange
    unclean: UncleanElection
    def __init__(self, leave: _Optional[int] = ..., stay: _Optional[int] = ..., transfer: _Optional[_Union[TransferShard, _Mapping]] = ..., settings: _Optional[_Union[ChangeSettings, _Mapping]] = ..., transfer_controller: _Optional[int] = ..., candidates: _Optional[_Union[CandidateChange, _Mapping]] = ..., unclean: _Optional[_Union[UncleanElection, _Mapping]] = ...) -> None: ...

class TransferShard(_message.Message):
    __slots__ = ("shard", "to")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    shard: int
    to: int
    def __init__(self, shard: _Optional[int] = ..., to: _Optional[int] = ...) -> None: ...

class ChangeSettings(_message.Message):
    __slots__ = ("copies", "min_in_sync", "moves_max", "fence_after_ms", "lost_after_ms")
    COPIES_FIELD_NUMBER: _ClassVar[int]
    MIN_IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    MOVES_MAX_FIELD_NUMBER: _ClassVar[int]
    FENCE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    LOST_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    copies: int
    min_in_sync: int
    moves_max: int
    fence_after_ms: int
    lost_after_ms: int
    def __init__(self, copies: _Optional[int] = ..., min_in_sync: _Optional[int] = ..., moves_max: _Optional[int] = ..., fence_after_ms: _Optional[int] = ..., lost_after_ms: _Optional[int] = ...) -> None: ...

class CandidateChange(_message.Message):
    __slots__ = ("add", "remove")
    ADD_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    add: int
    remove: int
    def __init__(self, add: _Optional[int] = ..., remove: _Optional[int] = ...) -> None: ...

class UncleanElection(_message.Message):
    __slots__ = ("shard", "node_id")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    shard: int
    node_id: int
    def __init__(self, shard: _Optional[int] = ..., node_id: _Optional[int] = ...) -> None: ...

class ClusterCommandResponse(_message.Message):
    __slots__ = ("sentence",)
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    sentence: str
    def __init__(self, sentence: _Optional[str] = ...) -> None: ...

class AccessRequest(_message.Message):
    __slots__ = ("question", "user", "remove_user", "token", "revoke_token", "role", "remove_role", "time_ms")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_USER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_ROLE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    question: AccessQuestion
    user: AccessUserChange
    remove_user: str
    token: _access_pb2.AccessToken
    revoke_token: str
    role: _access_pb2.AccessRole
    remove_role: str
    time_ms: int
    def __init__(self, question: _Optional[_Union[AccessQuestion, _Mapping]] = ..., user: _Optional[_Union[AccessUserChange, _Mapping]] = ..., remove_user: _Optional[str] = ..., token: _Optional[_Union[_access_pb2.AccessToken, _Mapping]] = ..., revoke_token: _Optional[str] = ..., role: _Optional[_Union[_access_pb2.AccessRole, _Mapping]] = ..., remove_role: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class AccessQuestion(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AccessUserChange(_message.Message):
    __slots__ = ("name", "create", "password", "password_hash", "set_roles", "roles", "disabled")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_HASH_FIELD_NUMBER: _ClassVar[int]
    SET_ROLES_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    name: str
    create: bool
    password: str
    password_hash: str
    set_roles: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    disabled: bool
    def __init__(self, name: _Optional[str] = ..., create: _Optional[bool] = ..., password: _Optional[str] = ..., password_hash: _Optional[str] = ..., set_roles: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., disabled: _Optional[bool] = ...) -> None: ...

class AccessResponse(_message.Message):
    __slots__ = ("sentence", "token", "state", "principal", "enforced")
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ENFORCED_FIELD_NUMBER: _ClassVar[int]
    sentence: str
    token: str
    state: _access_pb2.AccessChanged
    principal: str
    enforced: bool
    def __init__(self, sentence: _Optional[str] = ..., token: _Optional[str] = ..., state: _Optional[_Union[_access_pb2.AccessChanged, _Mapping]] = ..., principal: _Optional[str] = ..., enforced: _Optional[bool] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("limit", "before", "who")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    limit: int
    before: int
    who: str
    def __init__(self, limit: _Optional[int] = ..., before: _Optional[int] = ..., who: _Optional[str] = ...) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("node_id", "entries")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    def __init__(self, node_id: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("number", "time_ms", "who", "origin", "way", "action", "target", "outcome", "detail", "changes", "node_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    WAY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_ms: int
    who: str
    origin: str
    way: str
    action: str
    target: str
    outcome: str
    detail: str
    changes: _containers.RepeatedCompositeFieldContainer[AuditField]
    node_id: int
    def __init__(self, number: _Optional[int] = ..., time_ms: _Optional[int] = ..., who: _Optional[str] = ..., origin: _Optional[str] = ..., way: _Optional[str] = ..., action: _Optional[str] = ..., target: _Optional[str] = ..., outcome: _Optional[str] = ..., detail: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[AuditField, _Mapping]]] = ..., node_id: _Optional[int] = ...) -> None: ...

class AuditField(_message.Message):
    __slots__ = ("name", "before", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    before: str
    after: str
    def __init__(self, name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class SessionsRequest(_message.Message):
    __slots__ = ("id_prefix", "client_name", "page_size", "after")
    ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    id_prefix: bytes
    client_name: str
    page_size: int
    after: bytes
    def __init__(self, id_prefix: _Optional[bytes] = ..., client_name: _Optional[str] = ..., page_size: _Optional[int] = ..., after: _Optional[bytes] = ...) -> None: ...

class SessionsResponse(_message.Message):
    __slots__ = ("node_id", "sessions", "next_after", "total")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    sessions: _containers.RepeatedCompositeFieldContainer[SessionSummary]
    next_after: bytes
    total: int
    def __init__(self, node_id: _Optional[int] = ..., sessions: _Optional[_Iterable[_Union[SessionSummary, _Mapping]]] = ..., next_after: _Optional[bytes] = ..., total: _Optional[int] = ...) -> None: ...

class SessionSummary(_message.Message):
    __slots__ = ("session_id", "client_name", "address", "connected", "connected_ms", "heard_ms", "closed_ms", "shards", "instances", "subscriptions", "is_protected", "lease", "ttl_ms")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_MS_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_MS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    IS_PROTECTED_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    client_name: str
    address: str
    connected: bool
    connected_ms: int
    heard_ms: int
    closed_ms: int
    shards: int
    instances: int
    subscriptions: int
    is_protected: bool
    lease: bool
    ttl_ms: int
    def __init__(self, session_id: _Optional[bytes] = ..., client_name: _Optional[str] = ..., address: _Optional[str] = ..., connected: _Optional[bool] = ..., connected_ms: _Optional[int] = ..., heard_ms: _Optional[int] = ..., closed_ms: _Optional[int] = ..., shards: _Optional[int] = ..., instances: _Optional[int] = ..., subscriptions: _Optional[int] = ..., is_protected: _Optional[bool] = ..., lease: _Optional[bool] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("life", "after", "after_index", "namespace", "group", "service", "cluster", "limit", "wait_ms", "newest")
    LIFE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    life: bytes
    after: int
    after_index: int
    namespace: str
    group: str
    service: str
    cluster: bool
    limit: int
    wait_ms: int
    newest: bool
    def __init__(self, life: _Optional[bytes] = ..., after: _Optional[int] = ..., after_index: _Optional[int] = ..., namespace: _Optional[str] = ..., group: _Optional[str] = ..., service: _Optional[str] = ..., cluster: _Optional[bool] = ..., limit: _Optional[int] = ..., wait_ms: _Optional[int] = ..., newest: _Optional[bool] = ...) -> None: ...

class EventsResponse(_message.Message):
    __slots__ = ("node_id", "life", "events", "last", "last_index", "lost")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    life: bytes
    events: _containers.RepeatedCompositeFieldContainer[Event]
    last: int
    last_index: int
    lost: bool
    def __init__(self, node_id: _Optional[int] = ..., life: _Optional[bytes] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., last: _Optional[int] = ..., last_index: _Optional[int] = ..., lost: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("kind", "time_ms", "service", "instance_id", "address", "shard", "epoch", "revision", "session_id", "changes", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: EventKind
    time_ms: int
    service: _model_pb2.ServiceKey
    instance_id: str
    address: str
    shard: int
    epoch: int
    revision: int
    session_id: bytes
    changes: _containers.RepeatedCompositeFieldContainer[EventField]
    reason: str
    def __init__(self, kind: _Optional[_Union[EventKind, str]] = ..., time_ms: _Optional[int] = ..., service: _Optional[_Union[_model_pb2.ServiceKey, _Mapping]] = ..., instance_id: _Optional[str] = ..., address: _Optional[str] = ..., shard: _Optional[int] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., session_id: _Optional[bytes] = ..., changes: _Optional[_Iterable[_Union[EventField, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class EventField(_message.Message):
    __slots__ = ("name", "before", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    before: str
    after: str
    def __init__(self, name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class NamespacesRequest(_message.Message):
    __slots__ = ("prefix", "after", "page_size")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    after: str
    page_size: int
    def __init__(self, prefix: _Optional[str] = ..., after: _Optional[str] = ..., page_size: _Optional[int] = ...) -> None: ...

class NamespacesResponse(_message.Message):
    __slots__ = ("namespaces", "more")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    more: bool
    def __init__(self, namespaces: _Optional[_Iterable[str]] = ..., more: _Optional[bool] = ...) -> None: ...
