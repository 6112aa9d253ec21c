"""The client's shard map: who is primary of a shard, who keeps it, and where those nodes are.

Pure: what nodes say comes in, what changed comes out. Invariants: within one cluster the map
never goes back; what does not fit (something before it is missing) changes nothing and is
called a gap; another cluster's map is refused until the client has decided to start over. A
map of one node, or of none, routes nothing: everything goes to whichever node there is.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ssgovern.client.addresses import Address, parse_addresses
from ssgovern.errors import InvalidArgumentError, RemoteProtocolError
from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.wire.pb import native_pb2

NOBODY = NodeId(0)


class MapNode(NamedTuple):
    """A node as the map has it."""

    id: NodeId
    name: str
    address: Address
    zone: str
    live: bool


class Row(NamedTuple):
    """Who has a shard; `primary` 0: nobody at present."""

    epoch: int
    primary: NodeId
    holders: tuple[NodeId, ...]
    in_sync: tuple[NodeId, ...]


class MapChange(NamedTuple):
    """What an update changed."""

    led: tuple[ShardId, ...]
    """Shards with another primary, or the same in another epoch."""
    rows: tuple[ShardId, ...]
    """Shards of which anything changed, `led` included."""
    nodes: bool

    def __bool__(self) -> bool:
        return bool(self.rows) or self.nodes


class MapGap(Enum):
    """An update that does not fit: the whole map is to be asked for."""

    GAP = "gap"


MAP_GAP = MapGap.GAP
NOTHING = MapChange((), (), nodes=False)


class ClientMap:
    """The map as this client knows it. One object for the client's whole life."""

    __slots__ = ("cluster_id", "is_single", "nodes", "rows", "version")

    def __init__(self) -> None:
        self.cluster_id = b""
        self.version = 0
        self.nodes: dict[NodeId, MapNode] = {}
        self.rows: dict[ShardId, Row] = {}
        self.is_single = True
        """One node or none known: there is nothing to choose."""

    def __repr__(self) -> str:
        return f"<ClientMap version={self.version} nodes={len(self.nodes)} rows={len(self.rows)}>"

    def __bool__(self) -> bool:
        return bool(self.rows)

    # --- what nodes say --------------------------------------------------------------------

    def apply(self, update: native_pb2.ShardMapUpdate, said_by: Address) -> MapChange | MapGap:
        """Take an update; `said_by` is where the node that sent it was reached.

        Raises RemoteProtocolError if it is another cluster's or makes no sense.
        """
        if self.cluster_id and update.cluster_id and update.cluster_id != self.cluster_id:
            raise RemoteProtocolError(
                f"{said_by} sent the shard map of another cluster, {update.cluster_id.hex()}"
            )
        if update.version < self.version:
            return NOTHING
        if update.since > self.version:
            return MAP_GAP
        # Both are read before anything is changed: a bad update changes nothing.
        nodes = {NodeId(each.node_id): self._node(each, said_by) for each in update.nodes}
        rows = {ShardId(each.shard): _row(each) for each in update.rows}
        if any(shard >= SHARDS for shard in rows):
            raise RemoteProtocolError(f"{said_by} sent a map of more than {SHARDS} shards")
        self.cluster_id = self.cluster_id or update.cluster_id
        self.version = update.version
        return self._take(nodes or self.nodes, rows)

    def assume_single(self, node_id: NodeId, name: str, address: Address) -> MapChange:
        """Take that a node is all there is: it is older than shard maps, or has none."""
        node = MapNode(node_id, name, address, "", live=True)
        row = Row(0, node_id, (node_id,), (node_id,))
        self.version = 0
        return self._take({node_id: node}, {ShardId(number): row for number in range(SHARDS)})

    def start_over(self, cluster_id: bytes) -> None:
        """Forget everything: what answers now is another cluster."""
        self.cluster_id = cluster_id
        self.version = 0
        self.nodes = {}
        self.rows = {}
        self.is_single = True

    def _take(self, nodes: dict[NodeId, MapNode], rows: dict[ShardId, Row]) -> MapChange:
        led: list[ShardId] = []
        changed: list[ShardId] = []
        for shard, row in rows.items():
            old = self.rows.get(shard)
            if old == row:
                continue
            if old is not None and row.epoch < old.epoch and self.version:
                # An older row in a newer answer: nothing goes back.
                continue
            changed.append(shard)
            self.rows[shard] = row
            if old is None or (old.primary, old.epoch) != (row.primary, row.epoch):
                led.append(shard)
        nodes_changed = nodes != self.nodes
        self.nodes = nodes
        self.is_single = len(nodes) <= 1
        return MapChange(tuple(led), tuple(changed), nodes_changed)

    def _node(self, each: native_pb2.MapNode, said_by: Address) -> MapNode:
        try:
            address = parse_addresses(each.address)[0] if each.address else said_by
        except InvalidArgumentError as error:
            raise RemoteProtocolError(
                f"{said_by} sent a map that makes no sense: {error}"
            ) from None
        return MapNode(NodeId(each.node_id), each.name, address, each.zone, each.live)

    # --- what the client asks --------------------------------------------------------------

    def primary_of(self, shard: ShardId) -> NodeId:
        """Return the primary of a shard; 0 if there is none at present."""
        row = self.rows.get(shard)
        return NOBODY if row is None else row.primary

    def shards_led_by(self, node: NodeId) -> list[ShardId]:
        """Return the shards of which a node is primary; of a single node, all."""
        if self.is_single:
            return [ShardId(number) for number in range(SHARDS)]
        return [shard for shard, row in self.rows.items() if row.primary == node]

    def address_of(self, node: NodeId) -> Address | None:
        """Return where a node says that it listens."""
        known = self.nodes.get(node)
        return None if known is None else known.address

    def addresses(self) -> list[Address]:
        """Return all addresses, those of live nodes first."""
        nodes = sorted(self.nodes.values(), key=lambda node: (not node.live, node.id))
        return [node.address for node in nodes]


def mask_of(shards: list[ShardId]) -> bytes:
    """Return the mask of shards as requests carry it: bit i of byte i/8."""
    mask = 0
    for shard in shards:
        mask |= 1 << shard
    return mask.to_bytes(SHARDS // 8, "little")


def _row(each: native_pb2.MapRow) -> Row:
    return Row(
        each.epoch,
        NodeId(each.primary),
        tuple(map(NodeId, each.holders)),
        tuple(map(NodeId, each.in_sync)),
    )
