"""What one seed is about: the configuration, the clients and the faults it draws.

Swarm testing: every seed takes a different subset of everything, because a run that has all
faults at once hides what only shows when some of them are absent. Small limits are drawn too,
so that what happens rarely in production (rolling, snapshots, trimmed history, full buffers)
happens all the time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.node.config import (
    ListenConfig,
    NodeConfig,
    ProtectionConfig,
    ServerConfig,
    SessionConfig,
    StorageConfig,
)
from ssgovern.sim import streams
from ssgovern.sim.disk import PowerCut
from ssgovern.sim.machine import DiskTiming
from ssgovern.storage.recovery import Recovery

FAULTS = (
    "kill",
    "power",
    "stop",
    "failpoint",
    "recovery_crash",
    "sync_error",
    "disk_full",
    "slow_disk",
    "pause_node",
    "pause_client",
    "cut_one_way",
    "cut",
    "cut_all",
    "reset",
    "network",
    "client_kill",
    "client_stop",
    "mass_kill",
    "clock_step",
    "slow_node",
)

SDK_KINDS = ("provider", "watcher", "mixed", "operator")
RAW_KINDS = ("pipeliner", "raw_watcher", "garbage", "half_open", "deaf")

_SERVICES = ("orders", "orders-eu", "payments", "billing", "carts", "users", "mail", "search")


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """One client: what it does, how fast its clock runs, whether it keeps lists on disk."""

    name: str
    kind: str
    clock_rate: float
    has_cache: bool
    pace_s: float
    reuses_ids: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a seed draws before it begins."""

    seed: int
    chaos_s: float
    faults: tuple[str, ...]
    gap_s: float
    """Mean time between two faults."""
    server: ServerConfig
    clients: tuple[ClientPlan, ...]
    services: tuple[str, ...]
    knobs: Mapping[str, int]
    """Limits other than `ssgovern.limits` has them."""
    sync_s: tuple[float, float]
    power_cut: PowerCut
    latency_s: float
    loss: float
    split: float
    node_clock_rate: float

    @property
    def is_sync(self) -> bool:
        return self.server.durability_interval_ms == 0

    def disk_timing(self) -> DiskTiming:
        return DiskTiming(sync=self.sync_s)

    def __str__(self) -> str:
        server = self.server
        kinds: dict[str, int] = {}
        for client in self.clients:
            kinds[client.kind] = kinds.get(client.kind, 0) + 1
        shown: dict[str, object] = {
            "chaos_s": round(self.chaos_s, 1),
            "faults": ",".join(self.faults),
            "gap_s": self.gap_s,
            "clients": ",".join(f"{kind}:{count}" for kind, count in kinds.items()),
            "services": len(self.services),
            "durability": server.durability,
            "ttl_ms": server.session.ttl_ms,
            "close_grace_ms": server.session.close_grace_ms,
            "protection": f"{server.protection.share}/{server.protection.sessions_min}"
            f"/{server.protection.hold_ms}",
            "segment_bytes": server.storage.segment_bytes,
            "snapshot_after": server.storage.wal_bytes_before_snapshot,
            "sync_s": self.sync_s,
            "power_cut": self.power_cut.value,
            "latency_s": self.latency_s,
            "loss": self.loss,
            **self.knobs,
        }
        return " ".join(f"{name}={value}" for name, value in shown.items())


def draw(seed: int, *, minutes: float | None = None) -> Scenario:
    """Return the scenario of a seed; `minutes` overrides how long its chaos lasts."""
    rng = random.Random(f"{seed}/scenario")
    sync_s = rng.choice([(0.0002, 0.002), (0.0002, 0.002), (0.002, 0.02), (0.01, 0.1)])
    faults = sorted(rng.sample(FAULTS, rng.randint(2, 8)), key=FAULTS.index)
    if not any(fault in faults for fault in ("power", "failpoint")) and rng.random() < 0.5:
        faults.append("power")
    chaos_s = rng.uniform(10.0, 24.0) if minutes is None else minutes * 60.0
    return Scenario(
        seed=seed,
        chaos_s=chaos_s,
        faults=tuple(faults),
        gap_s=rng.choice([0.7, 1.5, 3.0]),
        server=_draw_server(rng),
        clients=_draw_clients(rng) + lease_keepers(seed),
        services=tuple(rng.sample(_SERVICES, rng.choice([1, 2, 4, 6]))),
        knobs=_draw_knobs(rng, slow=sync_s[1] > 0.05),
        sync_s=sync_s,
        power_cut=rng.choice(list(PowerCut)),
        latency_s=rng.choice([0.0002, 0.0005, 0.005, 0.02]),
        loss=rng.choice([0.0, 0.0, 0.01, 0.05]),
        split=rng.choice([0.0, 0.2, 0.8]),
        node_clock_rate=rng.choice([1.0, 0.98, 1.02]),
    )


def _draw_server(rng: random.Random) -> ServerConfig:
    ttl_ms = rng.choice([1000, 2000, 5000])
    storage = StorageConfig.model_construct(
        segment_bytes=rng.choice([4 << 10, 16 << 10, 64 << 10, 64 << 20]),
        wal_bytes_before_snapshot=rng.choice([32 << 10, 64 << 10, 256 << 10, 256 << 20]),
    )
    protecting = rng.random() < 0.5
    return ServerConfig(
        node=NodeConfig(name="node", id=1),
        listen=ListenConfig(host="0.0.0.0", port=7420, insecure=True),
        data_dir="data",
        durability=rng.choice(["sync"] * 5 + [f"interval({rng.choice([5, 50, 400])}ms)"]),
        session=SessionConfig(
            ttl_ms=ttl_ms,
            heartbeat_interval_ms=ttl_ms // 5,
            close_grace_ms=rng.choice([0, 300, 1000]),
        ),
        protection=ProtectionConfig(
            share=rng.choice([0.25, 0.5]) if protecting else 1.0,
            sessions_min=rng.choice([2, 4]) if protecting else 32,
            hold_ms=rng.choice([0, 2000, 6000]),
        ),
        storage=storage,
    )


def _draw_clients(rng: random.Random) -> tuple[ClientPlan, ...]:
    kinds = ["provider", "watcher"]
    kinds += [rng.choice(SDK_KINDS) for _ in range(rng.randint(0, 5))]
    kinds += [rng.choice(RAW_KINDS) for _ in range(rng.randint(0, 3))]
    reuses_ids = rng.random() < 0.3
    pace_s = rng.choice([0.05, 0.2, 0.8])
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


def lease_keepers(seed: int, where: str = "a node") -> tuple[ClientPlan, ...]:
    """Draw whether a seed has one. By itself, so that seeds without one stay what they were."""
    rng = random.Random(f"{seed}/keeper of {where}")
    if rng.random() >= 0.4:
        return ()
    return (
        ClientPlan(
            name="keeper",
            kind="lease_keeper",
            clock_rate=rng.choice([1.0, 0.98, 1.02]),
            has_cache=False,
            pace_s=rng.choice([0.2, 0.8]),
            reuses_ids=False,
        ),
    )


def _draw_knobs(rng: random.Random, *, slow: bool) -> dict[str, int]:
    choices = {
        "BATCH_ENTRIES_MAX": [64, 300] if slow else [4, 64],
        "HISTORY_CHANGES_PER_SHARD": [2, 8, 40],
        "OUTBOUND_SOFT_BYTES": [2 << 10, 16 << 10],
        "FRAME_CHUNK_BYTES": [200, 1000],
        "SNAPSHOT_CHUNK_BYTES": [200, 4000],
        "SNAPSHOT_CACHE_BYTES": [1000],
        "CATCH_UP_SLICE": [1, 3],
        "FAN_OUT_SLICE": [1, 2],
        "EPOCH_STARTS_KEPT": [1, 2],
        "CLIENT_CHANGES_QUEUED_MAX": [1, 4],
        "IN_FLIGHT_PER_CONNECTION_MAX": [2, 16],
        "UNCOMMITTED_ENTRIES_MAX": [6, 40],
        "LIST_PAGE_MAX": [1, 2],
        "REGISTER_BATCH_MAX": [2],
        "chunk_bytes": [500, 4000],
        "rewrite_bytes_max": [0, 3000],
    }
    knobs = {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.35}
    if rng.random() < 0.35:
        # Sockets so small that who reads slowly is felt at once.
        knobs |= dict.fromkeys(("SEND_BUFFER_BYTES", "RECEIVE_BUFFER_BYTES"), 1 << 10)
        knobs["OUTBOUND_SOFT_BYTES"] = rng.choice([1 << 10, 4 << 10])
    if "UNCOMMITTED_ENTRIES_MAX" in knobs:
        # A batch has to fit, or whoever sends one could only ever be told to try later.
        knobs["REGISTER_BATCH_MAX"] = 2
    return knobs


@contextmanager
def with_knobs(knobs: Mapping[str, int]) -> Iterator[None]:
    """Let `ssgovern.limits`, sockets and recovery have other values for a while.

    One world runs at a time in a process, and limits are looked up where they are used.
    """
    owners = {
        name: next(owner for owner in (limits, streams, Recovery) if hasattr(owner, name))
        for name in knobs
    }
    before = {name: getattr(owner, name) for name, owner in owners.items()}
    for name, value in knobs.items():
        setattr(owners[name], name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owners[name], name, value)
