from ssgovern.wire.pb import metadata_pb2 as _metadata_pb2
from ssgovern.wire.pb import native_pb2 as _native_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Candidate(_message.Message):
    __slots__ = ("node_id", "address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    address: str
    def __init__(self, node_id: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class PeerHelloRequest(_message.Message):
    __slots__ = ("version_min", "version_max", "node_id", "node_name", "target_id", "cluster_id", "directory_id", "boot_id", "candidates", "single_node_cluster_id", "nonce", "address")
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SINGLE_NODE_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    node_id: int
    node_name: str
    target_id: int
    cluster_id: bytes
    directory_id: bytes
    boot_id: bytes
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    single_node_cluster_id: bytes
    nonce: bytes
    address: str
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., node_id: _Optional[int] = ..., node_name: _Optional[str] = ..., target_id: _Optional[int] = ..., cluster_id: _Optional[bytes] = ..., directory_id: _Optional[bytes] = ..., boot_id: _Optional[bytes] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., single_node_cluster_id: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., address: _Optional[str] = ...) -> None: ...

class PeerHelloResponse(_message.Message):
    __slots__ = ("version", "node_id", "node_name", "cluster_id", "boot_id", "candidates", "single_node_cluster_id", "nonce", "proof", "directory_id")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    SINGLE_NODE_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    version: int
    node_id: int
    node_name: str
    cluster_id: bytes
    boot_id: bytes
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    single_node_cluster_id: bytes
    nonce: bytes
    proof: bytes
    directory_id: bytes
    def __init__(self, version: _Optional[int] = ..., node_id: _Optional[int] = ..., node_name: _Optional[str] = ..., cluster_id: _Optional[bytes] = ..., boot_id: _Optional[bytes] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., single_node_cluster_id: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., directory_id: _Optional[bytes] = ...) -> None: ...

class PeerProofRequest(_message.Message):
    __slots__ = ("proof",)
    PROOF_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    def __init__(self, proof: _Optional[bytes] = ...) -> None: ...

class PeerProofResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerPingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerPingResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RaftConfig(_message.Message):
    __slots__ = ("voters", "outgoing", "learners")
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    OUTGOING_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    voters: _containers.RepeatedScalarFieldContainer[int]
    outgoing: _containers.RepeatedScalarFieldContainer[int]
    learners: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, voters: _Optional[_Iterable[int]] = ..., outgoing: _Optional[_Iterable[int]] = ..., learners: _Optional[_Iterable[int]] = ...) -> None: ...

class RaftEntry(_message.Message):
    __slots__ = ("index", "term", "command", "config")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    command: bytes
    config: RaftConfig
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., command: _Optional[bytes] = ..., config: _Optional[_Union[RaftConfig, _Mapping]] = ...) -> None: ...

class RaftMessage(_message.Message):
    __slots__ = ("kind", "cluster", "source", "target", "term", "index", "index_term", "granted", "transfer", "entries", "commit", "hint_index", "hint_term", "round", "tick", "config", "offset", "chunk", "done")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[RaftMessage.Kind]
        KIND_PRE_VOTE: _ClassVar[RaftMessage.Kind]
        KIND_PRE_VOTE_ANSWER: _ClassVar[RaftMessage.Kind]
        KIND_VOTE: _ClassVar[RaftMessage.Kind]
        KIND_VOTE_ANSWER: _ClassVar[RaftMessage.Kind]
        KIND_APPEND: _ClassVar[RaftMessage.Kind]
        KIND_APPEND_ANSWER: _ClassVar[RaftMessage.Kind]
        KIND_HEARTBEAT: _ClassVar[RaftMessage.Kind]
        KIND_HEARTBEAT_ANSWER: _ClassVar[RaftMessage.Kind]
        KIND_INSTALL_SNAPSHOT: _ClassVar[RaftMessage.Kind]
        KIND_SNAPSHOT_ANSWER: _ClassVar[RaftMessage.Kind]
        KIND_NEWER_TERM: _ClassVar[RaftMessage.Kind]
        KIND_TIMEOUT_NOW: _ClassVar[RaftMessage.Kind]
    KIND_UNSPECIFIED: RaftMessage.Kind
    KIND_PRE_VOTE: RaftMessage.Kind
    KIND_PRE_VOTE_ANSWER: RaftMessage.Kind
    KIND_VOTE: RaftMessage.Kind
    KIND_VOTE_ANSWER: RaftMessage.Kind
    KIND_APPEND: RaftMessage.Kind
    KIND_APPEND_ANSWER: RaftMessage.Kind
    KIND_HEARTBEAT: RaftMessage.Kind
    KIND_HEARTBEAT_ANSWER: RaftMessage.Kind
    KIND_INSTALL_SNAPSHOT: RaftMessage.Kind
    KIND_SNAPSHOT_ANSWER: RaftMessage.Kind
    KIND_NEWER_TERM: RaftMessage.Kind
    KIND_TIMEOUT_NOW: RaftMessage.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INDEX_TERM_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    HINT_INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    kind: RaftMessage.Kind
    cluster: bytes
    source: int
    target: int
    term: int
    index: int
    index_term: int
    granted: bool
    transfer: bool
    entries: _containers.RepeatedCompositeFieldContainer[RaftEntry]
    commit: int
    hint_index: int
    hint_term: int
    round: int
    tick: int
    config: RaftConfig
    offset: int
    chunk: bytes
    done: bool
    def __init__(self, kind: _Optional[_Union[RaftMessage.Kind, str]] = ..., cluster: _Optional[bytes] = ..., source: _Optional[int] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., index: _Optional[int] = ..., index_term: _Optional[int] = ..., granted: _Optional[bool] = ..., transfer: _Optional[bool] = ..., entries: _Optional[_Iterable[_Union[RaftEntry, _Mapping]]] = ..., commit: _Optional[int] = ..., hint_index: _Optional[int] = ..., hint_term: _Optional[int] = ..., round: _Optional[int] = ..., tick: _Optional[int] = ..., config: _Optional[_Union[RaftConfig, _Mapping]] = ..., offset: _Optional[int] = ..., chunk: _Optional[bytes] = ..., done: _Optional[bool] = ...) -> None: ...

class RaftBatch(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[RaftMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[RaftMessage, _Mapping]]] = ...) -> None: ...

class MetadataEntry(_message.Message):
    __slots__ = ("records", "time_ms")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_metadata_pb2.MetadataRecord]
    time_ms: int
    def __init__(self, records: _Optional[_Iterable[_Union[_metadata_pb2.MetadataRecord, _Mapping]]] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("epoch", "revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("shard", "epoch", "prev_epoch", "prev_revision", "committed", "bodies", "epochs")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PREV_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PREV_REVISION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    prev_epoch: int
    prev_revision: int
    committed: int
    bodies: _containers.RepeatedScalarFieldContainer[bytes]
    epochs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., prev_epoch: _Optional[int] = ..., prev_revision: _Optional[int] = ..., committed: _Optional[int] = ..., bodies: _Optional[_Iterable[bytes]] = ..., epochs: _Optional[_Iterable[int]] = ...) -> None: ...

class Appended(_message.Message):
    __slots__ = ("shard", "epoch", "held", "version")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    held: int
    version: int
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., held: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class Mismatch(_message.Message):
    __slots__ = ("shard", "epoch", "prev", "hint", "floor", "version")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PREV_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    prev: Position
    hint: Position
    floor: Position
    version: int
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., prev: _Optional[_Union[Position, _Mapping]] = ..., hint: _Optional[_Union[Position, _Mapping]] = ..., floor: _Optional[_Union[Position, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("shard", "epoch")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class ReplicationBatch(_message.Message):
    __slots__ = ("node_epoch", "appends", "appended", "mismatches", "fenced")
    NODE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    node_epoch: int
    appends: _containers.RepeatedCompositeFieldContainer[AppendEntries]
    appended: _containers.RepeatedCompositeFieldContainer[Appended]
    mismatches: _containers.RepeatedCompositeFieldContainer[Mismatch]
    fenced: _containers.RepeatedCompositeFieldContainer[Fenced]
    def __init__(self, node_epoch: _Optional[int] = ..., appends: _Optional[_Iterable[_Union[AppendEntries, _Mapping]]] = ..., appended: _Optional[_Iterable[_Union[Appended, _Mapping]]] = ..., mismatches: _Optional[_Iterable[_Union[Mismatch, _Mapping]]] = ..., fenced: _Optional[_Iterable[_Union[Fenced, _Mapping]]] = ...) -> None: ...

class ShardSnapshot(_message.Message):
    __slots__ = ("shard", "epoch", "position", "replaces", "transfer", "number", "chunk", "done")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    position: Position
    replaces: Position
    transfer: int
    number: int
    chunk: bytes
    done: bool
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., replaces: _Optional[_Union[Position, _Mapping]] = ..., transfer: _Optional[int] = ..., number: _Optional[int] = ..., chunk: _Optional[bytes] = ..., done: _Optional[bool] = ...) -> None: ...

class NodeRegisterRequest(_message.Message):
    __slots__ = ("node", "directory_cluster_id", "format_min", "format_max", "damaged")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_MIN_FIELD_NUMBER: _ClassVar[int]
    FORMAT_MAX_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    node: _metadata_pb2.ClusterNode
    directory_cluster_id: bytes
    format_min: int
    format_max: int
    damaged: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node: _Optional[_Union[_metadata_pb2.ClusterNode, _Mapping]] = ..., directory_cluster_id: _Optional[bytes] = ..., format_min: _Optional[int] = ..., format_max: _Optional[int] = ..., damaged: _Optional[_Iterable[int]] = ...) -> None: ...

class NodeRegisterResponse(_message.Message):
    __slots__ = ("session", "cluster_id", "index")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    session: int
    cluster_id: bytes
    index: int
    def __init__(self, session: _Optional[int] = ..., cluster_id: _Optional[bytes] = ..., index: _Optional[int] = ...) -> None: ...

class ShardPosition(_message.Message):
    __slots__ = ("shard", "epoch", "revision")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    shard: int
    epoch: int
    revision: int
    def __init__(self, shard: _Optional[int] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class NodeHeartbeatRequest(_message.Message):
    __slots__ = ("node_id", "session", "positions", "index")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    session: int
    positions: _containers.RepeatedCompositeFieldContainer[ShardPosition]
    index: int
    def __init__(self, node_id: _Optional[int] = ..., session: _Optional[int] = ..., positions: _Optional[_Iterable[_Union[ShardPosition, _Mapping]]] = ..., index: _Optional[int] = ...) -> None: ...

class NodeHeartbeatResponse(_message.Message):
    __slots__ = ("lease_ms", "index")
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    lease_ms: int
    index: int
    def __init__(self, lease_ms: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class InSyncChangeRequest(_message.Message):
    __slots__ = ("shard", "node_id", "session", "epoch", "version", "members")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    node_id: int
    session: int
    epoch: int
    version: int
    members: _containers.RepeatedCompositeFieldContainer[InSyncMember]
    def __init__(self, shard: _Optional[int] = ..., node_id: _Optional[int] = ..., session: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., members: _Optional[_Iterable[_Union[InSyncMember, _Mapping]]] = ...) -> None: ...

class InSyncMember(_message.Message):
    __slots__ = ("node_id", "session")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    session: int
    def __init__(self, node_id: _Optional[int] = ..., session: _Optional[int] = ...) -> None: ...

class ShardResignedRequest(_message.Message):
    __slots__ = ("shard", "node_id", "session", "epoch", "version")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    shard: int
    node_id: int
    session: int
    epoch: int
    version: int
    def __init__(self, shard: _Optional[int] = ..., node_id: _Optional[int] = ..., session: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class ControllerResponse(_message.Message):
    __slots__ = ("sentence", "index")
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    sentence: str
    index: int
    def __init__(self, sentence: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class NodeStoppingRequest(_message.Message):
    __slots__ = ("node_id", "session")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    session: int
    def __init__(self, node_id: _Optional[int] = ..., session: _Optional[int] = ...) -> None: ...

class MetadataFetchRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("controller_id", "term", "after", "snapshot", "entries")
    CONTROLLER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    controller_id: int
    term: int
    after: int
    snapshot: bytes
    entries: _containers.RepeatedCompositeFieldContainer[MetadataItem]
    def __init__(self, controller_id: _Optional[int] = ..., term: _Optional[int] = ..., after: _Optional[int] = ..., snapshot: _Optional[bytes] = ..., entries: _Optional[_Iterable[_Union[MetadataItem, _Mapping]]] = ...) -> None: ...

class MetadataItem(_message.Message):
    __slots__ = ("index", "body")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    index: int
    body: bytes
    def __init__(self, index: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class ForwardedCommandRequest(_message.Message):
    __slots__ = ("command", "access")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    command: _native_pb2.ClusterCommandRequest
    access: _native_pb2.AccessRequest
    def __init__(self, command: _Optional[_Union[_native_pb2.ClusterCommandRequest, _Mapping]] = ..., access: _Optional[_Union[_native_pb2.AccessRequest, _Mapping]] = ...) -> None: ...
