"""Metadata records and snapshots as bytes, and back. The layout is `metadata.proto`."""

from __future__ import annotations

from collections.abc import Iterable

from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
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
from ssgovern.errors import UnsupportedVersionError
from ssgovern.model import NodeId, ShardId
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.pb import metadata_pb2


def encode_record(record: Record) -> bytes:
    """Return the one encoding of a record."""
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
        case RowsChanged():
            message.rows_changed.SetInParent()
    message.rows.extend(_row_to_wire(shard, row) for shard, row in record.rows)
    return encode(message)


def decode_record(body: bytes) -> Record:
    """Return a record. Raises UnsupportedVersionError for a change of a newer version."""
    message = decode(metadata_pb2.MetadataRecord, body)
    return Record(
        message.reason,
        _change_from_wire(message),
        tuple((ShardId(row.shard), _row_from_wire(row)) for row in message.rows),
    )


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
    return state, message.index


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
