"""The metadata of the cluster as replayed on this node: what every node knows of its cluster.

Fed by the agreed log itself on a candidate, by what the controller pushes and answers elsewhere.
Committed entries are final, so that it does not matter who hands them over, nor whether two do:
entries are taken in the order of their indexes, each once.

Refuses to know who decides, and what this node makes of it: whoever wants to know is called after
each entry. Keeps the newest entries as bytes for those that follow this node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ssgovern import limits
from ssgovern.controller.codec import decode_snapshot, decode_timed_entry, encode_snapshot
from ssgovern.controller.log import Entry
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.rules import unavailable
from ssgovern.controller.state import ClusterState, Node, Record
from ssgovern.errors import PeerRefusedError
from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.transport.handshake import PeerSaid
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.pb import native_pb2, peer_pb2


class MetadataChange(NamedTuple):
    """What an entry, or a snapshot, changed."""

    shards: tuple[ShardId, ...]
    nodes_changed: bool
    """A node, or a setting of the cluster."""


OnChange = Callable[[MetadataChange], None]
OnRecords = Callable[[Sequence[Record]], None]
OnEntry = Callable[[int, int, Sequence[Record]], None]


class Metadata:
    """Owned by the node. `state` is replaced by a snapshot: do not keep it."""

    def __init__(self, shards: int = SHARDS) -> None:
        self.state = ClusterState(shards)
        self.index = 0
        """Of the last entry that was replayed."""
        self.controller_id = NOBODY
        """Who was last heard to be the controller, in `term`; 0: nobody."""
        self.term = 0
        self.listeners: list[OnChange] = []
        self.record_listeners: list[OnRecords] = []
        """Told of the records of each entry, before `listeners`; not told of snapshots."""
        self.entry_listeners: list[OnEntry] = []
        """Told the same with the index and the wall time of the entry."""
        self._entries: deque[tuple[int, bytes]] = deque(maxlen=limits.METADATA_PUSHED_ENTRIES_MAX)
        # The map_version with which each row, and the nodes, changed last.
        self._rows_changed_at = [0] * shards
        self._nodes_changed_at = 0

    def __repr__(self) -> str:
        return (
            f"<Metadata index={self.index} controller={self.controller_id} term={self.term} "
            f"{self.state!r}>"
        )

    @property
    def map_version(self) -> int:
        return self.state.map_version

    def check_directory(self, said: PeerSaid) -> None:
        """Refuse who has a known node's id and not its data directory, whoever dialled whom.

        Nothing that was promised under that id is in another directory: neither votes nor
        entries. Raises PeerRefusedError.
        """
        known = self.state.nodes.get(said.node_id)
        if known is not None and known.directory_id != said.directory_id:
            raise PeerRefusedError(
                f"node id {said.node_id} belongs to another data directory ({known.name}, "
                f"{known.address}): two nodes with one id? A node that lost its directory needs "
                "a new id, and the old one leaves the cluster"
            )

    # --- taking ----------------------------------------------------------------------------

    def apply(self, index: int, body: bytes) -> bool:
        """Replay the entry at an index; an older one is ignored. False: entries are missing.

        An empty body is an entry of the consensus' own. Raises UnsupportedVersionError for an
        entry that this version does not understand: nothing after it can be replayed then.
        """
        if index <= self.index:
            return True
        if index > self.index + 1:
            return False
        time_ms, records = decode_timed_entry(body) if body else (0, [])
        nodes_version = self.state.nodes_version
        shards: dict[ShardId, None] = {}
        for record in records:
            self.state.replay(record)
            for shard, _ in record.rows:
                shards[shard] = None
        self.index = index
        self._entries.append((index, body))
        for on_records in self.record_listeners if records else ():
            on_records(records)
        for on_entry in self.entry_listeners:
            on_entry(index, time_ms, records)
        if records:
            self._tell(MetadataChange(tuple(shards), self.state.nodes_version != nodes_version))
        return True

    def restore(self, snapshot: bytes) -> bool:
        """Take over a snapshot (`snapshot()`), unless it is older than what was replayed."""
        state, index = decode_snapshot(snapshot)
        if index <= self.index:
            return False
        before, self.state, self.index = self.state, state, index
        state.nodes_version = before.nodes_version + 1
        if len(before.rows) != len(state.rows):
            self._rows_changed_at = [0] * len(state.rows)
            before = ClusterState(len(state.rows))
        self._entries.clear()
        changed = (
            ShardId(shard)
            for shard, (old, new) in enumerate(zip(before.rows, state.rows, strict=True))
            if old != new
        )
        self._tell(MetadataChange(tuple(changed), nodes_changed=True))
        return True

    def _tell(self, change: MetadataChange) -> None:
        for shard in change.shards:
            self._rows_changed_at[shard] = self.map_version
        if change.nodes_changed:
            self._nodes_changed_at = self.map_version
        for listener in self.listeners:
            listener(change)

    def on_applied(self, entries: Iterable[Entry]) -> None:
        """Take what this node's own consensus committed."""
        for entry in entries:
            in_order = self.apply(entry.index, entry.body)
            assert in_order, f"consensus left out what is between {self.index} and {entry.index}"

    def on_restored(self, snapshot: Entry) -> None:
        """Take a snapshot that this node's own consensus started from, or was sent."""
        if snapshot.body:
            self.restore(snapshot.body)
        elif snapshot.index > self.index:
            # Of a time before the cluster was founded: only indexes were used up.
            assert not self.state.cluster_id, "a snapshot of nothing follows something"
            self.index = snapshot.index
            self._entries.clear()

    def note_controller(self, controller: NodeId, term: int) -> bool:
        """Take note of who is said to be the controller; False if that is older news."""
        if term < self.term or (term == self.term and controller == NOBODY):
            return False
        self.controller_id, self.term = controller, term
        return True

    def take(self, body: bytes) -> bool:
        """Take a message of another node (`message`). False: entries are missing, fetch them.

        Raises InvalidArgumentError or UnsupportedVersionError if it cannot be read.
        """
        said = decode(peer_pb2.Metadata, body)
        self.note_controller(NodeId(said.controller_id), said.term)
        if said.snapshot:
            self.restore(said.snapshot)
        in_order = said.after <= self.index
        for item in said.entries:
            in_order = self.apply(item.index, item.body) and in_order
        return in_order

    # --- telling other nodes ---------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return all there is, as of `index`."""
        return encode_snapshot(self.state, self.index)

    def message(self, after: int) -> bytes:
        """Return a message with the entries behind an index, as many as fit, or a snapshot."""
        message = peer_pb2.Metadata(controller_id=self.controller_id, term=self.term)
        missing = self.index - after
        if missing > len(self._entries):
            message.after = self.index
            message.snapshot = self.snapshot()
            return encode(message)
        message.after = min(after, self.index)
        size = 0
        for place in range(len(self._entries) - max(0, missing), len(self._entries)):
            index, body = self._entries[place]
            size += len(body)
            if size > limits.METADATA_PUSHED_BYTES_MAX and message.entries:
                break
            message.entries.add(index=index, body=body)
        return encode(message)

    # --- telling clients -------------------------------------------------------------------

    def map_update(self, since: int, me: NodeId = NOBODY) -> native_pb2.ShardMapUpdate:
        """Return what changed in the shard map behind a version; behind 0 it is everything.

        The address of `me` is left empty: a client is to keep the one it came by. A client that
        is ahead of this node is told nothing but how far this node is.
        """
        version = self.map_version
        update = native_pb2.ShardMapUpdate(
            cluster_id=self.state.cluster_id, since=min(since, version), version=version
        )
        if since > version:
            return update
        # Not all that happens to a node raises the version, so equal is not old enough.
        if since == 0 or self._nodes_changed_at >= since:
            update.nodes.extend(_map_node(node, me) for node in self.state.sorted_nodes())
        for shard, changed_at in enumerate(self._rows_changed_at):
            if since == 0 or changed_at > since:
                update.rows.append(_map_row(shard, self.state.rows[shard]))
        return update

    def shards_below_copies(self) -> int:
        """Return how many shards have fewer in sync than the nodes that stay would allow."""
        state = self.state
        wanted = min(state.settings.copies, sum(node.stays for node in state.nodes.values()))
        return sum(row.epoch > 0 and len(row.in_sync) < wanted for row in state.rows)

    def cluster_status(
        self,
        me: NodeId,
        *,
        shards: bool,
        controller_heard: bool,
        candidates: Sequence[NodeId] | None = None,
    ) -> native_pb2.ClusterStatusResponse:
        """Return what an operator wants to see; `shards`: with every row of the map.

        `candidates` are those that vote, if this node's own consensus knows them.
        """
        state = self.state
        nodes = state.sorted_nodes()
        if candidates is None:
            candidates = [node.id for node in nodes if node.candidate]
        status = native_pb2.ClusterStatusResponse(
            cluster_id=state.cluster_id,
            map_version=state.map_version,
            controller_id=self.controller_id,
            term=self.term,
            index=self.index,
            copies=state.settings.copies,
            min_in_sync=state.settings.min_in_sync,
            shards_total=len(state.rows),
            shards_unavailable=len(unavailable(state)),
            shards_below_copies=self.shards_below_copies(),
            moves=sum(row.in_flight for row in state.rows),
            node_id=me,
            controller_heard=controller_heard,
            candidates=candidates,
            node_id_next=1 + max([*state.nodes, *state.retired], default=0),
        )
        for node in nodes:
            status.nodes.append(_node_status(node, state.rows))
        if shards:
            for shard, row in enumerate(state.rows):
                status.shards.append(_shard_status(shard, row))
        return status


def _map_node(node: Node, me: NodeId) -> native_pb2.MapNode:
    return native_pb2.MapNode(
        node_id=node.id,
        name=node.name,
        address="" if node.id == me else node.address,
        zone=node.zone,
        live=node.live,
    )


def _map_row(shard: int, row: ShardRow) -> native_pb2.MapRow:
    return native_pb2.MapRow(
        shard=shard,
        epoch=row.epoch,
        primary=row.primary,
        holders=row.holders,
        in_sync=row.in_sync,
    )


def _node_status(node: Node, rows: Sequence[ShardRow]) -> native_pb2.ClusterNodeStatus:
    return native_pb2.ClusterNodeStatus(
        node_id=node.id,
        name=node.name,
        address=node.address,
        zone=node.zone,
        live=node.live,
        leaving=node.leaving,
        lost=node.lost,
        candidate=node.candidate,
        primaries=sum(row.primary == node.id for row in rows),
        holds=sum(node.id in row.holders for row in rows),
        in_sync=sum(node.id in row.in_sync for row in rows),
        session=node.session,
    )


def _shard_status(shard: int, row: ShardRow) -> native_pb2.ShardStatus:
    return native_pb2.ShardStatus(
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
