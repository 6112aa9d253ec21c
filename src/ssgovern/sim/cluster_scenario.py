"""What one seed of a whole cluster is about: its nodes, its clients and the faults it draws.

Like `ssgovern.sim.scenario`, for several nodes: every seed takes another topology and another
subset of faults, because faults that always come together hide what each alone would show.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.model import SHARDS, NodeId
from ssgovern.node.config import (
    ClusterConfig,
    ListenConfig,
    NodeConfig,
    ProtectionConfig,
    ServerConfig,
    SessionConfig,
    StorageConfig,
)
from ssgovern.sim.disk import PowerCut
from ssgovern.sim.machine import DiskTiming
from ssgovern.sim.scenario import ClientPlan, lease_keepers

PORT = 7420
_SECRET = "a-secret-of-this-simulated-cluster"

NODE_FAULTS = (
    "kill",
    "kill_primary",
    "kill_controller",
    "power",
    "power_some",
    "power_all",
    "stop",
    "failpoint",
    "recovery_crash",
    "pause",
    "pause_long",
    "slow_node",
    "clock_step",
    "mute",
)
DISK_FAULTS = ("sync_error", "disk_full", "slow_disk", "wrong_disk")
NETWORK_FAULTS = (
    "isolate",
    "isolate_primary",
    "split",
    "ring",
    "bridge",
    "one_way",
    "swizzle",
    "reset",
    "lossy",
    "cut_client",
    "late",
)
CLIENT_FAULTS = ("client_kill", "client_stop", "client_pause")
ADMIN_FAULTS = (
    "transfer_shard",
    "transfer_controller",
    "leave",
    "change_settings",
    "change_candidates",
)
FAULTS = NODE_FAULTS + DISK_FAULTS + NETWORK_FAULTS + CLIENT_FAULTS + ADMIN_FAULTS

LATER_FAULTS = ("mute", "wrong_disk", "late", "change_candidates")
"""Drawn by themselves: seeds without them take the course they took before these were there."""
_FIRST_FAULTS = tuple(fault for fault in FAULTS if fault not in LATER_FAULTS)

LASTING_FAULTS = ("dead_node", "isolated_node", "one_way_cut", "no_link", "slow_disk", "full_disk")
MUTE_FOR_EVER = "mute_node"
"""Of these exactly one stays for ever in liveness mode."""

_SERVICES = ("orders", "orders-eu", "payments", "billing", "carts", "users")
SDK_KINDS = ("provider", "watcher", "mixed", "operator")


@dataclass(frozen=True, slots=True)
class Topology:
    """How many nodes vote and how many do not; by how much they are copied."""

    name: str
    candidates: int
    others: int
    copies: tuple[int, ...]

    @property
    def nodes(self) -> int:
        return self.candidates + self.others


TOPOLOGIES = (
    Topology("three", 3, 0, (3, 3, 2)),
    Topology("five", 5, 0, (3, 5)),
    Topology("three_two", 3, 2, (3, 2)),
    Topology("one_one", 1, 1, (2,)),
)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node."""

    number: NodeId
    server: ServerConfig
    clock_rate: float
    sync_s: tuple[float, float]
    joins_late: bool

    @property
    def name(self) -> str:
        return self.server.node.name

    @property
    def address(self) -> str:
        return f"{self.name}:{PORT}"

    def disk_timing(self) -> DiskTiming:
        return DiskTiming(sync=self.sync_s)


@dataclass(frozen=True, slots=True)
class ClusterScenario:
    """All that a seed draws before it begins."""

    seed: int
    shards: int
    topology: Topology
    nodes: tuple[NodePlan, ...]
    clients: tuple[ClientPlan, ...]
    services: tuple[str, ...]
    faults: tuple[str, ...]
    gap_s: float
    """Mean time between two faults."""
    calm_s: float
    """Before the first fault: the cluster has to be founded."""
    chaos_s: float
    lasting: str
    """The one permanent fault of liveness mode; empty otherwise."""
    knobs: Mapping[str, int]
    power_cut: PowerCut
    latency_s: float
    loss: float
    split: float
    is_played: bool = False
    """What happens is not drawn: a plot says it (`ssgovern.sim.cluster_plots`)."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where clients begin."""
        return tuple(node.address for node in self.nodes if not node.joins_late)

    @property
    def only_nodes_suffer(self) -> bool:
        """Whether nothing happens to a client or a wire: then no session has a reason to end."""
        suspects = (*NETWORK_FAULTS, *CLIENT_FAULTS, *DISK_FAULTS, "slow_node", "power_all", "mute")
        is_drawn = not self.lasting and not self.is_played
        return is_drawn and self.loss == 0.0 and not set(self.faults) & set(suspects)

    def __str__(self) -> str:
        server = self.nodes[0].server
        kinds: dict[str, int] = {}
        for client in self.clients:
            kinds[client.kind] = kinds.get(client.kind, 0) + 1
        shown: dict[str, object] = {
            "topology": self.topology.name,
            "shards": self.shards,
            "chaos_s": round(self.chaos_s, 1),
            "faults": self.lasting or ",".join(self.faults),
            "gap_s": self.gap_s,
            "copies": server.cluster.copies,
            "min_in_sync": server.cluster.min_in_sync,
            "late": ",".join(node.name for node in self.nodes if node.joins_late) or "-",
            "clocks": ",".join(f"{node.clock_rate:g}" for node in self.nodes),
            "clients": ",".join(f"{kind}:{count}" for kind, count in kinds.items()),
            "services": len(self.services),
            "ttl_ms": server.session.ttl_ms,
            "snapshot_after": server.storage.wal_bytes_before_snapshot,
            "sync_s": self.nodes[0].sync_s,
            "power_cut": self.power_cut.value,
            "latency_s": self.latency_s,
            "loss": self.loss,
            **self.knobs,
        }
        return " ".join(f"{name}={value}" for name, value in shown.items())


def draw_cluster(
    seed: int, *, liveness: bool = False, minutes: float | None = None
) -> ClusterScenario:
    """Return the scenario of a seed; `liveness`: one permanent fault instead of many."""
    rng = random.Random(f"{seed}/cluster")
    topology = rng.choice(TOPOLOGIES if not liveness else TOPOLOGIES[:3])
    later = random.Random(f"{seed}/cluster/later")
    lasting = rng.choice(LASTING_FAULTS) if liveness else ""
    if liveness and later.random() < 0.2:
        lasting = MUTE_FOR_EVER
    chaos_s = rng.uniform(20.0, 45.0) if minutes is None else minutes * 60.0
    return ClusterScenario(
        seed=seed,
        # As many as in production only now and then: they cost, and what they do is the same.
        shards=SHARDS if rng.random() < 0.04 else rng.choice([8, 16, 32]),
        topology=topology,
        nodes=_draw_nodes(rng, topology),
        clients=_draw_clients(rng, admin=not liveness) + lease_keepers(seed, "a cluster"),
        services=tuple(rng.sample(_SERVICES, rng.choice([2, 4, 6]))),
        faults=_draw_faults(rng, later) if not liveness else (),
        gap_s=rng.choice([1.0, 2.5, 5.0, 8.0]),
        calm_s=rng.uniform(4.0, 8.0),
        chaos_s=chaos_s,
        lasting=lasting,
        knobs=_draw_knobs(rng),
        power_cut=rng.choice(list(PowerCut)),
        latency_s=rng.choice([0.0002, 0.0005, 0.002, 0.01]),
        loss=rng.choice([0.0, 0.0, 0.0, 0.01]) if not liveness else 0.0,
        split=rng.choice([0.0, 0.2, 0.8]),
    )


def _draw_faults(rng: random.Random, later: random.Random) -> tuple[str, ...]:
    only_crashes = rng.random() < 0.15
    if only_crashes:
        # Only crashes of nodes: what clients must not notice at all.
        pool: tuple[str, ...] = ("kill", "kill_primary", "kill_controller", "power", "stop")
    else:
        pool = _FIRST_FAULTS
    drawn = rng.sample(pool, min(len(pool), rng.randint(2, 9)))
    if not only_crashes and later.random() < 0.5:
        drawn += later.sample(LATER_FAULTS, later.randint(1, 2))
    return tuple(sorted(drawn, key=FAULTS.index))


def cast_cluster(
    seed: int,
    kinds: Sequence[str],
    *,
    copies: int,
    min_in_sync: int,
    pace_s: float,
    services: int = 1,
    others: int = 0,
) -> ClusterScenario:
    """Return a small cluster in which nothing goes wrong by itself; the seed draws only chance."""
    topology = Topology("cast", 3, others, (copies,))
    storage = StorageConfig.model_construct(
        segment_bytes=1 << 20, wal_bytes_before_snapshot=4 << 20
    )
    plans = [
        NodePlan(
            number=NodeId(number),
            server=_server_config(
                topology,
                number,
                copies=copies,
                min_in_sync=min_in_sync,
                session=SessionConfig(ttl_ms=5000, heartbeat_interval_ms=1000, close_grace_ms=1000),
                protection=ProtectionConfig(share=1.0, sessions_min=4, hold_ms=3000),
                storage=storage,
            ),
            clock_rate=1.0,
            sync_s=(0.0002, 0.002),
            joins_late=False,
        )
        for number in range(1, topology.nodes + 1)
    ]
    return ClusterScenario(
        seed=seed,
        shards=8,
        topology=topology,
        nodes=tuple(plans),
        clients=tuple(
            ClientPlan(f"c{number}", kind, 1.0, has_cache=False, pace_s=pace_s, reuses_ids=False)
            for number, kind in enumerate(kinds)
        ),
        services=_SERVICES[:services],
        faults=(),
        gap_s=1.0,
        calm_s=0.0,
        chaos_s=0.0,
        lasting="",
        is_played=True,
        knobs={},
        power_cut=PowerCut.ALL_LOST,
        latency_s=0.0005,
        loss=0.0,
        split=0.0,
    )


def _server_config(
    topology: Topology,
    number: int,
    *,
    copies: int,
    min_in_sync: int,
    session: SessionConfig,
    protection: ProtectionConfig,
    storage: StorageConfig,
) -> ServerConfig:
    voters = ",".join(f"{voter}@n{voter}:{PORT}" for voter in range(1, topology.candidates + 1))
    is_candidate = number <= topology.candidates
    return ServerConfig(
        node=NodeConfig(name=f"n{number}", id=number),
        listen=ListenConfig(
            host="0.0.0.0",
            port=PORT,
            insecure=True,
            advertise="" if is_candidate else f"n{number}:{PORT}",
        ),
        cluster=ClusterConfig(
            candidates=voters if is_candidate else "",
            join="" if is_candidate else f"n1:{PORT},n{topology.candidates}:{PORT}",
            secret=_SECRET,
            copies=copies,
            min_in_sync=min_in_sync,
            acks="all",
        ),
        data_dir="data",
        session=session,
        protection=protection,
        storage=storage,
    )


def _draw_nodes(rng: random.Random, topology: Topology) -> tuple[NodePlan, ...]:
    copies = rng.choice(topology.copies)
    min_in_sync = rng.choice([1, 2]) if copies > 2 else 1
    ttl_ms = rng.choice([2000, 5000, 5000])
    grace_ms = rng.choice([300, 1000])
    storage = StorageConfig.model_construct(
        segment_bytes=rng.choice([16 << 10, 64 << 10, 1 << 20]),
        wal_bytes_before_snapshot=rng.choice([64 << 10, 256 << 10, 4 << 20]),
    )
    protecting = rng.random() < 0.3
    plans = []
    for number in range(1, topology.nodes + 1):
        server = _server_config(
            topology,
            number,
            copies=copies,
            min_in_sync=min_in_sync,
            session=SessionConfig(
                ttl_ms=ttl_ms, heartbeat_interval_ms=ttl_ms // 5, close_grace_ms=grace_ms
            ),
            protection=ProtectionConfig(
                share=0.5 if protecting else 1.0, sessions_min=4, hold_ms=3000
            ),
            storage=storage,
        )
        plans.append(
            NodePlan(
                number=NodeId(number),
                server=server,
                clock_rate=rng.choice([1.0, 1.0, 0.98, 1.02]),
                sync_s=rng.choice([(0.0002, 0.002), (0.0002, 0.002), (0.002, 0.02)]),
                joins_late=number > topology.candidates and rng.random() < 0.5,
            )
        )
    return tuple(plans)


def _draw_clients(rng: random.Random, *, admin: bool) -> tuple[ClientPlan, ...]:
    kinds = ["provider", "watcher", "recorder", "recorder"]
    kinds += [rng.choice(SDK_KINDS) for _ in range(rng.randint(0, 3))]
    kinds += ["recorder"] * rng.randint(0, 2)
    if rng.random() < 0.3:
        kinds.append(rng.choice(["garbage", "half_open", "deaf"]))
    if admin:
        kinds.append("admin")
    reuses_ids = rng.random() < 0.2
    pace_s = rng.choice([0.1, 0.3, 0.8])
    return tuple(
        ClientPlan(
            name=f"c{number}",
            kind=kind,
            clock_rate=rng.choice([1.0, 1.0, 0.98, 1.02]),
            has_cache=rng.random() < 0.3,
            pace_s=pace_s * rng.uniform(0.5, 2.0),
            reuses_ids=reuses_ids,
        )
        for number, kind in enumerate(kinds)
    )


def _draw_knobs(rng: random.Random) -> dict[str, int]:
    choices = {
        "HISTORY_CHANGES_PER_SHARD": [2, 8, 40],
        "CATCH_UP_SLICE": [1, 3],
        "FAN_OUT_SLICE": [1, 2],
        "EPOCH_STARTS_KEPT": [1, 2],
        "IN_FLIGHT_PER_CONNECTION_MAX": [4, 16],
        "METADATA_PUSHED_ENTRIES_MAX": [2, 16],
        "METADATA_LOG_ENTRIES_MAX": [20, 100],
        "METADATA_LOG_ENTRIES_KEPT": [2, 10],
        "REPLICATION_ENTRIES_RETAINED": [0, 4, 64],
        "SNAPSHOT_CHUNK_BYTES": [400, 4000],
    }
    return {
        name: rng.choice(values)
        for name, values in choices.items()
        if rng.random() < 0.3 and hasattr(limits, name)
    }
