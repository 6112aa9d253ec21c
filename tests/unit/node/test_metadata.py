"""What every node knows of its cluster: replayed in order, told on, and shown to clients."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssgovern import limits
from ssgovern.controller.codec import encode_entry
from ssgovern.controller.controller import decide_founding
from ssgovern.controller.log import Entry
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
    Change,
    ClusterState,
    Node,
    NodeRegistered,
    NodesFenced,
    Record,
    RowsChanged,
    Settings,
)
from ssgovern.errors import InvalidArgumentError, PeerRefusedError
from ssgovern.model import NodeId, ShardId
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.transport.handshake import PeerSaid
from ssgovern.wire.pb import native_pb2, peer_pb2

CLUSTER = b"a cluster's id.."
SHARDS = 4


def node(number: int, *, candidate: bool = False) -> Node:
    return Node(
        NodeId(number),
        f"n{number}",
        f"10.0.0.{number}:7420",
        "",
        b"directory",
        b"boot",
        1,
        candidate=candidate,
    )


def row(*holders: int, primary: int = 0, epoch: int = 1, version: int = 1) -> ShardRow:
    ids = tuple(NodeId(number) for number in holders)
    return ShardRow(epoch, version, NodeId(primary or holders[0]), ids, ids)


def entry(change: Change, **rows: ShardRow) -> bytes:
    """An entry of one record; `s3=row(...)` is a row of shard 3."""
    changed = tuple((ShardId(int(name[1:])), new) for name, new in rows.items())
    return encode_entry([Record("why", change, changed)])


FOUNDED = encode_entry(decide_founding(ClusterState(SHARDS), CLUSTER, Settings()).records)
HISTORY = (
    FOUNDED,
    b"",
    entry(NodeRegistered(node(1, candidate=True))),
    entry(NodeRegistered(node(2))),
    entry(RowsChanged(), s0=row(1, 2), s1=row(2, 1)),
    entry(NodesFenced((NodeId(2),)), s0=row(1, version=2)),
    entry(RowsChanged(), s3=row(1)),
)


def told(history: tuple[bytes, ...] = HISTORY) -> Metadata:
    metadata = Metadata(SHARDS)
    metadata.on_applied([Entry(index, body) for index, body in enumerate(history, 1)])
    return metadata


def test_entries_are_replayed_in_order_and_once() -> None:
    """An old entry changes nothing, one that comes too early is refused until others came."""
    metadata = told(HISTORY[:4])
    assert metadata.apply(2, HISTORY[4])
    assert not metadata.apply(6, HISTORY[5])
    assert (metadata.index, metadata.map_version) == (4, 0)
    assert metadata.apply(5, HISTORY[4])
    assert metadata.apply(6, HISTORY[5])
    assert not metadata.state.is_live(NodeId(2))
    assert metadata.map_version == 2


def test_who_has_a_known_id_and_another_directory_is_refused() -> None:
    """An empty disk under an old id is nobody, whoever dialled whom; unknown nodes may come."""
    metadata = told()
    said = PeerSaid(NodeId(1), "n1", b"later", b"", (), b"", b"directory")
    metadata.check_directory(said)
    metadata.check_directory(said._replace(node_id=NodeId(9), directory_id=b"empty"))
    with pytest.raises(PeerRefusedError, match="another data directory"):
        metadata.check_directory(said._replace(directory_id=b"empty"))


def test_listeners_are_told_what_changed() -> None:
    """After each entry with records, once it is replayed; the consensus' own change nothing."""
    metadata = Metadata(SHARDS)
    changes: list[tuple[MetadataChange, int]] = []
    metadata.listeners.append(lambda change: changes.append((change, metadata.index)))
    records: list[Record] = []
    metadata.record_listeners.append(records.extend)
    for index, body in enumerate(HISTORY, 1):
        metadata.apply(index, body)
    assert changes == [
        (MetadataChange((), True), 1),
        (MetadataChange((), True), 3),
        (MetadataChange((), True), 4),
        (MetadataChange((ShardId(0), ShardId(1)), False), 5),
        (MetadataChange((ShardId(0),), True), 6),
        (MetadataChange((ShardId(3),), False), 7),
    ]
    assert len(records) == 6


def test_listeners_to_entries_are_told_when_each_was_decided() -> None:
    """Once each, in order, with its index; an entry that says no time has 0."""
    metadata = Metadata(SHARDS)
    told_of: list[tuple[int, int, int]] = []
    metadata.entry_listeners.append(
        lambda index, time_ms, records: told_of.append((index, time_ms, len(records)))
    )
    timed = encode_entry([Record("why", RowsChanged())], 1_700_000_000_000)
    for index, body in ((1, FOUNDED), (2, b""), (3, timed), (3, timed)):
        metadata.apply(index, body)
    assert told_of == [(1, 0, 1), (2, 0, 0), (3, 1_700_000_000_000, 1)]


def test_a_snapshot_is_the_state_and_tells_what_differs() -> None:
    """Who restores it knows the same, and was told of those rows alone that are new to it."""
    metadata = told()
    behind = told(HISTORY[:5])
    changes: list[MetadataChange] = []
    behind.listeners.append(changes.append)
    assert behind.restore(metadata.snapshot())
    assert changes == [MetadataChange((ShardId(0), ShardId(3)), True)]
    assert behind.snapshot() == metadata.snapshot()
    assert behind.map_update(1).rows == metadata.map_update(1).rows
    assert not behind.restore(told(HISTORY[:6]).snapshot()), "an older one came late"
    assert behind.index == 7


def test_a_snapshot_of_a_consensus_that_had_no_cluster_yet() -> None:
    """A log may be compacted, and a candidate join, before anything was founded."""
    metadata = Metadata(SHARDS)
    metadata.on_restored(Entry(5, b""))
    assert metadata.apply(6, FOUNDED)
    assert metadata.state.cluster_id == CLUSTER


def test_followers_are_told_the_rest() -> None:
    """From any index, entries lead to the same state; the message names the controller."""
    metadata = told()
    metadata.note_controller(NodeId(3), 9)
    for after in range(8):
        follower = told(HISTORY[:after])
        assert follower.take(metadata.message(after))
        assert follower.snapshot() == metadata.snapshot()
        assert (follower.controller_id, follower.term) == (3, 9)


def test_a_follower_with_a_gap_says_so() -> None:
    """It takes nothing of what does not follow, and takes it once it has what is between."""
    metadata = told()
    follower = told(HISTORY[:2])
    assert not follower.take(metadata.message(4))
    assert follower.index == 2
    assert follower.take(metadata.message(2))
    assert follower.take(metadata.message(4)), "what it has already is no gap"


def test_who_is_far_behind_gets_a_snapshot() -> None:
    """Entries are kept up to a limit, and not those behind a snapshot that was taken over."""
    metadata = told()
    for index in range(8, limits.METADATA_PUSHED_ENTRIES_MAX + 8):
        metadata.apply(index, b"")
    assert peer_pb2.Metadata.FromString(metadata.message(6)).snapshot
    assert not peer_pb2.Metadata.FromString(metadata.message(7)).snapshot
    follower = told(HISTORY[:3])
    assert follower.take(metadata.message(3))
    assert follower.snapshot() == metadata.snapshot()
    assert peer_pb2.Metadata.FromString(follower.message(3)).snapshot


def test_messages_are_bounded() -> None:
    """Many large entries come in several messages, and none is left out."""
    metadata = Metadata(SHARDS)
    metadata.apply(1, FOUNDED)
    large = encode_entry([Record("x" * 60_000, RowsChanged())])
    for index in range(2, 12):
        metadata.apply(index, large)
    follower = Metadata(SHARDS)
    messages = 0
    while follower.index < metadata.index:
        message = metadata.message(follower.index)
        assert len(message) <= limits.METADATA_PUSHED_BYTES_MAX + 1000
        assert follower.take(message)
        messages += 1
    assert messages > 1


def test_who_is_controller_is_told_by_the_newer_term() -> None:
    """Older news of a controller changes nothing."""
    metadata = Metadata(SHARDS)
    assert metadata.note_controller(NodeId(1), 3)
    assert not metadata.note_controller(NodeId(2), 2)
    assert not metadata.note_controller(NodeId(0), 3)
    assert metadata.controller_id == 1
    assert metadata.note_controller(NodeId(0), 4)
    assert metadata.controller_id == 0


def test_garbage_from_a_node_changes_nothing() -> None:
    """What is no message is the documented error."""
    metadata = told()
    with pytest.raises(InvalidArgumentError):
        metadata.take(b"\xff")
    assert metadata.index == 7


class MapClient:
    """What a client makes of updates: rows and nodes of the version it has."""

    def __init__(self) -> None:
        self.version = 0
        self.rows: dict[int, native_pb2.MapRow] = {}
        self.nodes: list[native_pb2.MapNode] = []

    def take(self, update: native_pb2.ShardMapUpdate) -> None:
        assert update.since <= self.version
        self.version = update.version
        self.rows |= {row.shard: row for row in update.rows}
        if update.nodes:
            self.nodes = list(update.nodes)


@pytest.mark.parametrize("pause", [1, 2, 3, 7])
def test_clients_know_the_map_whenever_they_ask(pause: int) -> None:
    """However rarely a client asks for what changed, it has the whole map then."""
    metadata = Metadata(SHARDS)
    client = MapClient()
    for index, body in enumerate(HISTORY, 1):
        metadata.apply(index, body)
        if index % pause == 0:
            client.take(metadata.map_update(client.version))
            whole = metadata.map_update(0)
            assert [client.rows.get(row.shard, row) for row in whole.rows] == list(whole.rows)
            assert client.nodes == list(whole.nodes)


def test_map_updates_hold_no_more_than_what_changed() -> None:
    """Rows that a client has are left out, and the nodes too if none of them changed since."""
    metadata = told()
    assert [row.shard for row in metadata.map_update(1).rows] == [0, 3]
    assert [node.node_id for node in metadata.map_update(1).nodes] == [1, 2]
    assert [row.shard for row in metadata.map_update(2).rows] == [3]
    assert not metadata.map_update(3).rows
    assert not metadata.map_update(3).nodes
    assert len(metadata.map_update(0).rows) == SHARDS


def test_a_client_that_is_ahead_is_told_how_far_this_node_is() -> None:
    """Its map is newer: nothing of it is taken back."""
    update = told().map_update(99)
    assert (update.since, update.version) == (3, 3)
    assert not update.rows
    assert not update.nodes


def test_the_address_of_who_answers_may_be_left_to_the_client() -> None:
    """It came by an address that works for it."""
    addresses = [node.address for node in told().map_update(0, NodeId(2)).nodes]
    assert addresses == ["10.0.0.1:7420", ""]


def test_the_status_counts_what_an_operator_looks_for() -> None:
    """Nodes with what they hold, shards that lack copies or a primary, moves under way."""
    metadata = told()
    moved = replace(row(1, 2, version=3), incoming=NodeId(2), in_sync=(NodeId(1),))
    nobody = replace(row(2, version=2), primary=NodeId(0), in_sync=(), eligible=(NodeId(2),))
    metadata.apply(8, entry(RowsChanged(), s0=moved, s1=nobody))
    status = metadata.cluster_status(NodeId(1), shards=True, controller_heard=True)
    assert (status.shards_total, status.shards_unavailable, status.moves) == (SHARDS, 1, 1)
    assert status.shards_below_copies == 3
    assert list(status.candidates) == [1]
    assert status.node_id_next == 3
    held = {node.node_id: (node.primaries, node.holds, node.in_sync) for node in status.nodes}
    assert held == {1: (2, 2, 2), 2: (0, 2, 0)}
    assert status.shards[0].incoming == 2
    assert list(status.shards[1].eligible) == [2]
    assert not metadata.cluster_status(NodeId(1), shards=False, controller_heard=True).shards
