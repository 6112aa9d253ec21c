from ssgovern.wire.pb import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MetadataRecord(_message.Message):
    __slots__ = ("reason", "founded", "settings_changed", "node_registered", "nodes_fenced", "node_marked", "node_removed", "rows_changed", "access_changed", "rows")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOUNDED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    NODE_REGISTERED_FIELD_NUMBER: _ClassVar[int]
    NODES_FENCED_FIELD_NUMBER: _ClassVar[int]
    NODE_MARKED_FIELD_NUMBER: _ClassVar[int]
    NODE_REMOVED_FIELD_NUMBER: _ClassVar[int]
    ROWS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ACCESS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    founded: ClusterFounded
    settings_changed: SettingsChanged
    node_registered: NodeRegistered
    nodes_fenced: NodesFenced
    node_marked: NodeMarked
    node_removed: NodeRemoved
    rows_changed: RowsChanged
    access_changed: _access_pb2.AccessChanged
    rows: _containers.RepeatedCompositeFieldContainer[ShardRow]
    def __init__(self, reason: _Optional[str] = ..., founded: _Optional[_Union[ClusterFounded, _Mapping]] = ..., settings_changed: _Optional[_Union[SettingsChanged, _Mapping]] = ..., node_registered: _Optional[_Union[NodeRegistered, _Mapping]] = ..., nodes_fenced: _Optional[_Union[NodesFenced, _Mapping]] = ..., node_marked: _Optional[_Union[NodeMarked, _Mapping]] = ..., node_removed: _Optional[_Union[NodeRemoved, _Mapping]] = ..., rows_changed: _Optional[_Union[RowsChanged, _Mapping]] = ..., access_changed: _Optional[_Union[_access_pb2.AccessChanged, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[ShardRow, _Mapping]]] = ...) -> None: ...

class ClusterFounded(_message.Message):
    __slots__ = ("cluster_id", "settings")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: bytes
    settings: ClusterSettings
    def __init__(self, cluster_id: _Optional[bytes] = ..., settings: _Optional[_Union[ClusterSettings, _Mapping]] = ...) -> None: ...

class SettingsChanged(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: ClusterSettings
    def __init__(self, settings: _Optional[_Union[ClusterSettings, _Mapping]] = ...) -> None: ...

class NodeRegistered(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: ClusterNode
    def __init__(self, node: _Optional[_Union[ClusterNode, _Mapping]] = ...) -> None: ...

class NodesFenced(_message.Message):
    __slots__ = ("node_ids",)
    NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    node_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class NodeMarked(_message.Message):
    __slots__ = ("node_id", "leaving", "lost")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    leaving: bool
    lost: bool
    def __init__(self, node_id: _Optional[int] = ..., leaving: _Optional[bool] = ..., lost: _Optional[bool] = ...) -> None: ...

class NodeRemoved(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class RowsChanged(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClusterSettings(_message.Message):
    __slots__ = ("format_version", "copies", "min_in_sync", "moves_max", "nodes_initial", "fence_after_ms", "lost_after_ms", "handover_timeout_ms")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    MIN_IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    MOVES_MAX_FIELD_NUMBER: _ClassVar[int]
    NODES_INITIAL_FIELD_NUMBER: _ClassVar[int]
    FENCE_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    LOST_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    HANDOVER_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    copies: int
    min_in_sync: int
    moves_max: int
    nodes_initial: int
    fence_after_ms: int
    lost_after_ms: int
    handover_timeout_ms: int
    def __init__(self, format_version: _Optional[int] = ..., copies: _Optional[int] = ..., min_in_sync: _Optional[int] = ..., moves_max: _Optional[int] = ..., nodes_initial: _Optional[int] = ..., fence_after_ms: _Optional[int] = ..., lost_after_ms: _Optional[int] = ..., handover_timeout_ms: _Optional[int] = ...) -> None: ...

class ClusterNode(_message.Message):
    __slots__ = ("node_id", "name", "address", "zone", "directory_id", "boot_id", "session", "live", "leaving", "lost", "candidate")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    name: str
    address: str
    zone: str
    directory_id: bytes
    boot_id: bytes
    session: int
    live: bool
    leaving: bool
    lost: bool
    candidate: bool
    def __init__(self, node_id: _Optional[int] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., directory_id: _Optional[bytes] = ..., boot_id: _Optional[bytes] = ..., session: _Optional[int] = ..., live: _Optional[bool] = ..., leaving: _Optional[bool] = ..., lost: _Optional[bool] = ..., candidate: _Optional[bool] = ...) -> None: ...

class ShardRow(_message.Message):
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

class MetadataSnapshot(_message.Message):
    __slots__ = ("index", "cluster_id", "settings", "map_version", "nodes", "rows", "retired_node_ids", "access")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RETIRED_NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    index: int
    cluster_id: bytes
    settings: ClusterSettings
    map_version: int
    nodes: _containers.RepeatedCompositeFieldContainer[ClusterNode]
    rows: _containers.RepeatedCompositeFieldContainer[ShardRow]
    retired_node_ids: _containers.RepeatedScalarFieldContainer[int]
    access: _access_pb2.AccessChanged
    def __init__(self, index: _Optional[int] = ..., cluster_id: _Optional[bytes] = ..., settings: _Optional[_Union[ClusterSettings, _Mapping]] = ..., map_version: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[ClusterNode, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[ShardRow, _Mapping]]] = ..., retired_node_ids: _Optional[_Iterable[int]] = ..., access: _Optional[_Union[_access_pb2.AccessChanged, _Mapping]] = ...) -> None: ...
