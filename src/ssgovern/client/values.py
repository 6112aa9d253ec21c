"""Values the SDK hands to its callers, besides those of `ssgovern.model`. Frozen; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ssgovern.model import Instance, LogPosition, ServiceKey


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a service's list since the reader last looked.

    `changed` holds the instances as they are now, `removed` as they last were. An instance is
    in one of the three at most. Several changes of the service may have been merged; the list
    is then what it is at `revision`.
    """

    key: ServiceKey
    added: tuple[Instance, ...]
    changed: tuple[Instance, ...]
    removed: tuple[Instance, ...]
    revision: int

    @property
    def service(self) -> str:
        """Name of the service."""
        return self.key.service

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """One line of a list of services. `available` counts the instances that take traffic."""

    key: ServiceKey
    instances: int
    available: int
    revision: int

    @property
    def service(self) -> str:
        """Name of the service."""
        return self.key.service

    @property
    def group(self) -> str:
        """Group of the service."""
        return self.key.group


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """Whether the client has a node to talk to, and since when it is so.

    While disconnected the lists of subscriptions stay as they were; `reason` says what is
    wrong. `node_name` and `address` are the present node's, or the last one's.
    """

    connected: bool
    since: datetime
    node_name: str = ""
    address: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself. Counters run since its start."""

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


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """What the cluster knows of one of its nodes."""

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


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Who keeps one shard. `primary` 0: nobody at present; `incoming`, `outgoing` and
    `successor` are of a move under way, 0 if there is none."""

    shard: int
    epoch: int
    version: int
    primary: int
    holders: tuple[int, ...]
    in_sync: tuple[int, ...]
    eligible: tuple[int, ...]
    incoming: int
    outgoing: int
    successor: int


@dataclass(frozen=True, slots=True)
class ShardPiece:
    """A part of all that a shard holds at a position, encoded as in snapshots."""

    position: LogPosition
    instances: int
    """In the whole shard."""
    chunk: bytes


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as one of its nodes, `node_id`, sees it. `shards` is empty unless asked for."""

    cluster_id: bytes
    map_version: int
    controller_id: int
    term: int
    index: int
    nodes: tuple[ClusterNode, ...]
    shards: tuple[ShardRow, ...]
    copies: int
    min_in_sync: int
    shards_total: int
    shards_unavailable: int
    shards_below_copies: int
    moves: int
    node_id: int
    controller_heard: bool
    candidates: tuple[int, ...]
    node_id_next: int = 0
    """The least id above all that nodes have or had; 0: a node that does not say."""
