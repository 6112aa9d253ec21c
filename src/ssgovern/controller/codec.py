"""Metadata records and snapshots as bytes, and what nodes ask of the controller as messages.

The layouts are `metadata.proto` and `peer.proto`. What a request says is bounded here and judged
in the core.
"""

from __future__ import annotations

from collections.abc import Iterable

from ssgovern import limits
from ssgovern.controller.access import NOBODY_YET
from ssgovern.controller.access_codec import change_from_wire, change_to_wire
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
    AccessChanged,
    Change,
    ClusterState,
    Founded,
    Node,
    NodeMarked,
    NodeRegistered,
    NodeRemoved,
    NodesFenced,
    Record,
    RowsChanged,
    Settings,
    SettingsChanged,
)
from ssgovern.errors import InvalidArgumentError, UnsupportedVersionError
from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.pb import metadata_pb2, peer_pb2


def encode_record(record: Record) -> bytes:
    """Return the one encoding of a record."""
    return encode(_record_to_wire(record))


def _record_to_wire(record: Record) -> metadata_pb2.MetadataRecord:
    message = metadata_pb2.MetadataRecord(reason=record.reason)
    change = record.change
    match change:
        case Founded():
            message.founded.cluster_id = change.cluster_id
            message.founded.settings.CopyFrom(_settings_to_wire(change.settings))
        case SettingsChanged():
            message.settings_changed.settings.CopyFrom(_settings_to_wire(change.settings))
        case NodeRegistered():
            message.node_registered.node.CopyFrom(_node_to_wire(change.node))
        case NodesFenced():
            message.nodes_fenced.node_ids.extend(change.nodes)
        case NodeMarked():
            message.node_marked.node_id = change.node
            message.node_marked.leaving = change.leaving
            message.node_marked.lost = change.lost
        case NodeRemoved():
            message.node_removed.node_id = change.node
        case AccessChanged():
            message.access_changed.CopyFrom(change_to_wire(change.change))
        case RowsChanged():
            message.rows_changed.SetInParent()
    message.rows.extend(_row_to_wire(shard, row) for shard, row in record.rows)
    return message


def decode_record(body: bytes) -> Record:
    """Return a record. Raises UnsupportedVersionError for a change of a newer version."""
    return _record_from_wire(decode(metadata_pb2.MetadataRecord, body))


def _record_from_wire(message: metadata_pb2.MetadataRecord) -> Record:
    return Record(
        message.reason,
        _change_from_wire(message),
        tuple((ShardId(row.shard), _row_from_wire(row)) for row in message.rows),
    )


def encode_entry(records: Iterable[Record], time_ms: int = 0) -> bytes:
    """Return the body of an entry of the metadata log: records that were decided together.

    `time_ms`: when that was, by the wall clock; only people are told.
    """
    return encode(peer_pb2.MetadataEntry(records=map(_record_to_wire, records), time_ms=time_ms))


def decode_entry(body: bytes) -> list[Record]:
    """Return the records of an entry; an entry that is the consensus' own (b"") has none.

    Raises InvalidArgumentError, and UnsupportedVersionError for a change of a newer version.
    """
    return decode_timed_entry(body)[1]


def decode_timed_entry(body: bytes) -> tuple[int, list[Record]]:
    """Return when an entry was decided (0: that is not known), and its records."""
    entry = decode(peer_pb2.MetadataEntry, body)
    return entry.time_ms, [_record_from_wire(record) for record in entry.records]


def _change_from_wire(message: metadata_pb2.MetadataRecord) -> Change:
    match message.WhichOneof("change"):
        case "founded":
            founded = message.founded
            return Founded(founded.cluster_id, _settings_from_wire(founded.settings))
        case "settings_changed":
            return SettingsChanged(_settings_from_wire(message.settings_changed.settings))
        case "node_registered":
            return NodeRegistered(_node_from_wire(message.node_registered.node))
        case "nodes_fenced":
            return NodesFenced(_ids(message.nodes_fenced.node_ids))
        case "node_marked":
            marked = message.node_marked
            return NodeMarked(NodeId(marked.node_id), marked.leaving, marked.lost)
        case "node_removed":
            return NodeRemoved(NodeId(message.node_removed.node_id))
        case "rows_changed":
            return RowsChanged()
        case "access_changed":
            return AccessChanged(change_from_wire(message.access_changed))
        case _:
            raise UnsupportedVersionError(
                "the metadata log has a record of a kind that this version does not know: "
                "start the version that wrote it, or a newer one"
            )


def encode_snapshot(state: ClusterState, index: int) -> bytes:
    """Return all of a cluster's metadata, as of an index of its log."""
    message = metadata_pb2.MetadataSnapshot(
        index=index,
        cluster_id=state.cluster_id,
        settings=_settings_to_wire(state.settings),
        map_version=state.map_version,
        nodes=[_node_to_wire(node) for node in state.sorted_nodes()],
        rows=[_row_to_wire(ShardId(shard), row) for shard, row in enumerate(state.rows)],
        retired_node_ids=sorted(state.retired),
    )
    if state.access is not NOBODY_YET:
        message.access.CopyFrom(change_to_wire(state.access.whole()))
    return encode(message)


def decode_snapshot(body: bytes) -> tuple[ClusterState, int]:
    """Return the state and the index of a snapshot."""
    message = decode(metadata_pb2.MetadataSnapshot, body)
    state = ClusterState(len(message.rows))
    state.cluster_id = message.cluster_id
    state.settings = _settings_from_wire(message.settings)
    state.map_version = message.map_version
    state.nodes = {NodeId(node.node_id): _node_from_wire(node) for node in message.nodes}
    state.rows = [_row_from_wire(row) for row in message.rows]
    state.retired = dict.fromkeys(_ids(message.retired_node_ids))
    if message.HasField("access"):
        state.access = NOBODY_YET.changed(change_from_wire(message.access))
    return state, message.index


# --- what nodes ask -------------------------------------------------------------------------


def registration_to_wire(asked: Registration) -> peer_pb2.NodeRegisterRequest:
    """Return the request by which a node asks for a session.

    Not said: `cluster_id`, which was compared when the link was made.
    """
    return peer_pb2.NodeRegisterRequest(
        node=metadata_pb2.ClusterNode(
            node_id=asked.node,
            name=asked.name,
            address=asked.address,
            zone=asked.zone,
            directory_id=asked.directory_id,
            boot_id=asked.boot_id,
            candidate=asked.candidate,
        ),
        directory_cluster_id=asked.directory_cluster_id,
        format_min=asked.formats[0],
        format_max=asked.formats[1],
        damaged=asked.damaged,
    )


def registration_from_wire(message: peer_pb2.NodeRegisterRequest) -> Registration:
    """Return what a node says of itself. Raises InvalidArgumentError if it says too much."""
    node = message.node
    for field, said, bytes_max in (
        ("name", node.name, limits.NAME_BYTES_MAX),
        ("address", node.address, limits.HOST_BYTES_MAX + len("[]:65535")),
        ("zone", node.zone, limits.ZONE_BYTES_MAX),
    ):
        if len(said.encode()) > bytes_max:
            raise InvalidArgumentError(
                f"a node's {field} has at most {bytes_max} bytes", field=field
            )
    for field, identity in (("directory_id", node.directory_id), ("boot_id", node.boot_id)):
        if not 1 <= len(identity) <= limits.IDENTITY_BYTES_MAX:
            raise InvalidArgumentError(
                f"a {field} has 1 to {limits.IDENTITY_BYTES_MAX} bytes", field=field
            )
    return Registration(
        NodeId(node.node_id),
        node.name,
        node.address,
        node.zone,
        node.directory_id,
        node.boot_id,
        directory_cluster_id=message.directory_cluster_id,
        formats=(message.format_min, message.format_max),
        damaged=_shards(message.damaged),
        candidate=node.candidate,
    )


def in_sync_to_wire(asked: InSyncRequest) -> peer_pb2.InSyncChangeRequest:
    """Return the request by which a primary asks for another in-sync set."""
    return peer_pb2.InSyncChangeRequest(
        shard=asked.shard,
        node_id=asked.node,
        session=asked.session,
        epoch=asked.epoch,
        version=asked.version,
        members=[
            peer_pb2.InSyncMember(node_id=node, session=session) for node, session in asked.in_sync
        ],
    )


def in_sync_from_wire(message: peer_pb2.InSyncChangeRequest) -> InSyncRequest:
    """Return what a primary asks. Raises InvalidArgumentError if it is no set of holders."""
    if len(message.members) > limits.SHARD_HOLDERS_MAX:
        raise InvalidArgumentError(
            f"an in-sync set has at most {limits.SHARD_HOLDERS_MAX} members", field="in_sync"
        )
    (shard,) = _shards((message.shard,))
    return InSyncRequest(
        shard,
        NodeId(message.node_id),
        message.session,
        message.epoch,
        message.version,
        tuple((NodeId(member.node_id), member.session) for member in message.members),
    )


def resigned_to_wire(said: Resigned) -> peer_pb2.ShardResignedRequest:
    """Return the request by which a primary says that it has stopped."""
    return peer_pb2.ShardResignedRequest(
        shard=said.shard,
        node_id=said.node,
        session=said.session,
        epoch=said.epoch,
        version=said.version,
    )


def resigned_from_wire(message: peer_pb2.ShardResignedRequest) -> Resigned:
    """Return what a primary says. Raises InvalidArgumentError if there is no such shard."""
    (shard,) = _shards((message.shard,))
    return Resigned(shard, NodeId(message.node_id), message.session, message.epoch, message.version)


def _shards(numbers: Iterable[int]) -> tuple[ShardId, ...]:
    """Return shards, each once, in order."""
    shards = tuple(map(ShardId, numbers))
    if any(shard >= SHARDS for shard in shards):
        raise InvalidArgumentError(f"shards are numbered from 0 to {SHARDS - 1}", field="shard")
    return tuple(sorted(set(shards)))


# --- values ---------------------------------------------------------------------------------


def _ids(numbers: Iterable[int]) -> tuple[NodeId, ...]:
    return tuple(NodeId(number) for number in numbers)


def _settings_to_wire(settings: Settings) -> metadata_pb2.ClusterSettings:
    return metadata_pb2.ClusterSettings(
        format_version=settings.format_version,
        copies=settings.copies,
        min_in_sync=settings.min_in_sync,
        moves_max=settings.moves_max,
        nodes_initial=settings.nodes_initial,
        fence_after_ms=settings.fence_after_ms,
        lost_after_ms=settings.lost_after_ms,
        handover_timeout_ms=settings.handover_timeout_ms,
    )


def _settings_from_wire(message: metadata_pb2.ClusterSettings) -> Settings:
    return Settings(
        message.format_version,
        message.copies,
        message.min_in_sync,
        message.moves_max,
        message.nodes_initial,
        message.fence_after_ms,
        message.lost_after_ms,
        message.handover_timeout_ms,
    )


def _node_to_wire(node: Node) -> metadata_pb2.ClusterNode:
    return metadata_pb2.ClusterNode(
        node_id=node.id,
        name=node.name,
        address=node.address,
        zone=node.zone,
        directory_id=node.directory_id,
        boot_id=node.boot_id,
        session=node.session,
        live=node.live,
        leaving=node.leaving,
        lost=node.lost,
        candidate=node.candidate,
    )


def _node_from_wire(message: metadata_pb2.ClusterNode) -> Node:
    return Node(
        NodeId(message.node_id),
        message.name,
        message.address,
        message.zone,
        message.directory_id,
        message.boot_id,
        message.session,
        live=message.live,
        leaving=message.leaving,
        lost=message.lost,
        candidate=message.candidate,
    )


def _row_to_wire(shard: ShardId, row: ShardRow) -> metadata_pb2.ShardRow:
    return metadata_pb2.ShardRow(
        shard=shard,
        epoch=row.epoch,
        version=row.version,
        primary=row.primary,
        holders=row.holders,
        in_sync=row.in_sync,
        eligible=row.eligible,
        incoming=row.incoming,
        outgoing=row.outgoing,
        successor=row.successor,
    )


def _row_from_wire(message: metadata_pb2.ShardRow) -> ShardRow:
    return ShardRow(
        message.epoch,
        message.version,
        NodeId(message.primary),
        _ids(message.holders),
        _ids(message.in_sync),
        _ids(message.eligible),
        NodeId(message.incoming),
        NodeId(message.outgoing),
        NodeId(message.successor),
    )
