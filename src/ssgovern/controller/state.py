"""The metadata of a cluster: what replaying its log makes, on every node alike.

`replay` decides nothing and cannot fail: a record says in full what is afterwards. Liveness,
log positions and timers are not here; they are soft (`soft`).

Invariants (`validate`): the rows' own (`rows`), and nobody is in sync whose session is fenced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssgovern.controller.access import NOBODY_YET, AccessChange
from ssgovern.controller.rows import ShardRow, row_fault
from ssgovern.model import NodeId, ShardAssignment, ShardId, ShardMap

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for the whole cluster."""

    format_version: int = FORMAT_VERSION
    copies: int = 3
    min_in_sync: int = 1
    moves_max: int = 8
    nodes_initial: int = 1
    fence_after_ms: int = 5_000
    lost_after_ms: int = 60_000
    handover_timeout_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the cluster knows it. Not live: its last session is fenced."""

    id: NodeId
    name: str
    address: str
    zone: str
    directory_id: bytes
    boot_id: bytes
    session: int
    live: bool = True
    leaving: bool = False
    lost: bool = False
    """Away for so long that its shards are copied elsewhere."""
    candidate: bool = False

    @property
    def takes_shards(self) -> bool:
        """It is there to stay: shards may be moved to it."""
        return self.live and not self.leaving

    @property
    def stays(self) -> bool:
        """Its copies count: it is here, or may be back soon."""
        return not self.leaving and not self.lost


@dataclass(frozen=True, slots=True)
class Founded:
    """The first record of a log."""

    cluster_id: bytes
    settings: Settings


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    settings: Settings


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    node: Node


@dataclass(frozen=True, slots=True)
class NodesFenced:
    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class NodeMarked:
    node: NodeId
    leaving: bool
    lost: bool


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    node: NodeId


@dataclass(frozen=True, slots=True)
class RowsChanged:
    """Nothing but rows."""


@dataclass(frozen=True, slots=True)
class AccessChanged:
    change: AccessChange


Change = (
    Founded
    | SettingsChanged
    | NodeRegistered
    | NodesFenced
    | NodeMarked
    | NodeRemoved
    | RowsChanged
    | AccessChanged
)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the metadata log: a change, the rows it makes, and why."""

    reason: str
    change: Change
    rows: tuple[tuple[ShardId, ShardRow], ...] = ()


class ClusterState:
    """All that the metadata log says. Only `replay` changes it."""

    __slots__ = (
        "access",
        "cluster_id",
        "map_version",
        "nodes",
        "nodes_version",
        "retired",
        "rows",
        "settings",
    )

    def __init__(self, shards: int) -> None:
        self.cluster_id = b""
        self.settings = Settings()
        self.access = NOBODY_YET
        self.nodes: dict[NodeId, Node] = {}
        self.retired: dict[NodeId, None] = {}
        self.rows: list[ShardRow] = [ShardRow()] * shards
        self.map_version = 0
        self.nodes_version = 0
        """Rises with every change of nodes and settings; in no record, not the same everywhere."""

    def __repr__(self) -> str:
        live = sum(node.live for node in self.nodes.values())
        return f"<ClusterState map={self.map_version} nodes={live}/{len(self.nodes)}>"

    def replay(self, record: Record) -> None:
        """Apply an entry of the log. Decides nothing, never fails."""
        change = record.change
        match change:
            case Founded():
                self.cluster_id = change.cluster_id
                self.settings = change.settings
            case SettingsChanged():
                self.settings = change.settings
            case NodeRegistered():
                self.nodes[change.node.id] = change.node
            case NodesFenced():
                for node in change.nodes:
                    self.nodes[node] = replace(self.nodes[node], live=False)
            case NodeMarked():
                self.nodes[change.node] = replace(
                    self.nodes[change.node], leaving=change.leaving, lost=change.lost
                )
            case NodeRemoved():
                self.nodes.pop(change.node, None)
                self.retired[change.node] = None
            case AccessChanged():
                self.access = self.access.changed(change.change)
            case RowsChanged():
                pass
        if not isinstance(change, (RowsChanged, AccessChanged)):
            self.nodes_version += 1
        for shard, row in record.rows:
            self.rows[shard] = row
        if record.rows:
            self.map_version += 1

    def copy(self) -> ClusterState:
        """Return a state of its own, for trying out what a record leads to."""
        other = ClusterState(0)
        other.cluster_id = self.cluster_id
        other.settings = self.settings
        other.access = self.access
        other.nodes = dict(self.nodes)
        other.retired = dict(self.retired)
        other.rows = list(self.rows)
        other.map_version = self.map_version
        other.nodes_version = self.nodes_version
        return other

    def is_live(self, node: NodeId) -> bool:
        """Whether a node has a session that is not fenced."""
        found = self.nodes.get(node)
        return found is not None and found.live

    def sorted_nodes(self) -> list[Node]:
        """Return the nodes in the order of their ids."""
        return [self.nodes[node] for node in sorted(self.nodes)]

    def shard_map(self) -> ShardMap:
        """Return the map as nodes and clients use it. A shard without primary has node 0."""
        return ShardMap(
            self.map_version,
            tuple(
                ShardAssignment(
                    row.epoch,
                    row.primary,
                    tuple(node for node in row.holders if node != row.primary),
                    row.in_sync,
                )
                for row in self.rows
            ),
        )

    def validate(self) -> None:
        """Assert every invariant."""
        for shard, row in enumerate(self.rows):
            fault = row_fault(row, self.settings.min_in_sync)
            assert fault is None, f"shard {shard}: {fault}"
            for node in row.holders:
                assert node in self.nodes, f"shard {shard} is held by node {node}, which is unknown"
            for node in row.in_sync:
                assert self.nodes[node].live, f"shard {shard}: node {node} is in sync and fenced"
