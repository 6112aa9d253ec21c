"""What a cluster of ours promises when its nodes are killed, paused, stopped and moved.

All servers, the writers and the measuring share the machine's cores.
"""

import asyncio
import random
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.bench import OURS, Bench, Case
from benchmarks.compare import registering
from benchmarks.nodes import NODES, Nodes, cluster, is_balanced
from benchmarks.ours_cluster import OurCluster
from benchmarks.report import Figure, Result, humane
from benchmarks.writers import Seen, Writer, Writers, some_errors, writing
from ssgovern.errors import SsGovernError

_PER_NODE = 12
_SPREAD_SERVICES = 64
_RECOVER_S_MAX = 60.0
_BALANCE_S_MAX = 120.0
_SETTLE_S = 1.0


async def registrations(bench: Bench) -> list[Result]:
    """Three nodes beside three etcds and three ZooKeepers."""
    return [
        await registering(
            bench,
            f"{NODES} nodes: registrations",
            wanted="≥ 5 × etcd put, ≥ 4 × ZooKeeper create",
            factors={"etcd": 5.0, "ZooKeeper": 4.0},
        )
    ]


async def spread(bench: Bench) -> list[Result]:
    """Each connection writes to many services, so that a batch is of many shards."""
    ours = replace(bench, contenders=[OurCluster(_SPREAD_SERVICES)], missing={})
    what = f"{NODES} nodes: registrations of {_SPREAD_SERVICES} services by each connection"
    return [await registering(ours, what, wanted="", factors={})]


# --- kills ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Kill:
    """What one kill did. Times in seconds since it."""

    victim: int
    was_controller: bool
    fenced_s: float
    served_s: float
    theirs: Seen
    """Seen by writers of the victim's shards."""
    others: Seen
    balanced_s: float = 0.0
    """After its restart."""

    def __str__(self) -> str:
        who = f"node {self.victim}{' (controller)' if self.was_controller else ''}"
        return (
            f"{who}: fenced after {self.fenced_s:.2f} s, its shards served after"
            f" {self.served_s:.2f} s; longest gap {self.theirs.gap_s:.2f} s, of other shards"
            f" {self.others.gap_s:.2f} s; balanced {self.balanced_s:.1f} s after its restart;"
            f" {some_errors(self.theirs.errors + self.others.errors)}"
        )


async def failover(bench: Bench) -> list[Result]:
    """Nodes are killed under load, the controller every other time."""
    kills, lost = await _kills(bench, controller_only=False)
    gaps = sorted(kill.theirs.gap_s for kill in kills)
    p50 = statistics.median(gaps)
    errors = [error for kill in kills for error in kill.theirs.errors + kill.others.errors]
    return [
        Result(
            "kill -9 of a node: longest gap in acknowledged writes to its shards, worst",
            {OURS: Figure(gaps[-1], "s")},
            wanted="≤ 6 s, p50 ≤ 4 s, nothing lost",
            met=gaps[-1] <= 6.0 and p50 <= 4.0 and not lost,
            notes=[
                (
                    f"{len(kills)} kills, {sum(kill.was_controller for kill in kills)} of them of"
                    f" the controller; p50 {p50:.2f} s; {len(lost)} acknowledged writes lost;"
                    f" {some_errors(errors)}"
                ),
                *(f"lost: {each}" for each in lost[:5]),
                *map(str, kills),
            ],
        )
    ]


async def controller(bench: Bench) -> list[Result]:
    """The controller is killed: who writes to a shard with a live primary must not notice."""
    kills, lost = await _kills(bench, controller_only=True)
    gaps = [kill.others.gap_s for kill in kills]
    errors = [error for kill in kills for error in kill.others.errors]
    return [
        Result(
            "controller killed: longest gap in writes to shards whose primary lives, worst",
            {OURS: Figure(max(gaps), "s", min(gaps), max(gaps))},
            wanted="not interrupted (≤ 1 s)",
            met=max(gaps) <= 1.0 and not lost and not errors,
            notes=[
                f"{len(kills)} kills; {len(lost)} acknowledged writes lost; {some_errors(errors)}",
                *map(str, kills),
            ],
        )
    ]


async def _kills(bench: Bench, *, controller_only: bool) -> tuple[list[Kill], list[str]]:
    chosen = random.Random(3)
    kills: list[Kill] = []
    lost: list[str] = []
    async with cluster(bench.place(OURS)) as nodes, writing(nodes, per_node=_PER_NODE) as writers:
        for number in range(bench.repeats):
            present = (await nodes.status()).controller_id
            others = [node.number for node in nodes.all() if node.number != present]
            kills_controller = controller_only or number % 2 == 1
            victim = present if kills_controller else chosen.choice(others)
            kill = await _kill(nodes, writers, victim, was_controller=kills_controller)
            lost += await writers.lost()
            nodes.start(victim)
            kill.balanced_s = await nodes.until(is_balanced, "balanced", within_s=_BALANCE_S_MAX)
            lost += await writers.lost()
            kills.append(kill)
            bench.say(f"    {number + 1} of {bench.repeats}: {kill}")
            await asyncio.sleep(_SETTLE_S)
    return kills, lost


async def _kill(nodes: Nodes, writers: Writers, victim: int, *, was_controller: bool) -> Kill:
    primaries = await nodes.primaries()
    theirs = writers.of_shards(shard for shard, node in primaries.items() if node == victim)
    others = [writer for writer in writers.every if writer not in theirs]
    writers.begin()
    await nodes[victim].end(signal.SIGKILL)
    fenced_s, served_s = await _reassigned(nodes, victim)
    await writers.until_acked(writers.every, within_s=_RECOVER_S_MAX)
    return Kill(
        victim, was_controller, fenced_s, served_s, writers.seen(theirs), writers.seen(others)
    )


async def _reassigned(nodes: Nodes, victim: int) -> tuple[float, float]:
    """Return when the cluster says that a node is fenced, and when none of its shards is its."""
    began = time.monotonic()
    fenced_s = served_s = 0.0
    while not served_s and time.monotonic() - began < _RECOVER_S_MAX:
        try:
            status = await nodes.registry.cluster_status(timeout=1.0)
        except SsGovernError:
            continue
        elapsed = time.monotonic() - began
        [it] = [node for node in status.nodes if node.node_id == victim]
        if not it.live and not fenced_s:
            fenced_s = elapsed
        if not it.live and not it.primaries and not status.shards_unavailable:
            served_s = elapsed
        await asyncio.sleep(0.02)
    return fenced_s, served_s


# --- what is done on purpose ----------------------------------------------------------------


async def clean(bench: Bench) -> list[Result]:
    """Shards are transferred, every node is restarted in turn, one leaves for good."""
    async with cluster(bench.place(OURS)) as nodes, writing(nodes, per_node=_PER_NODE) as writers:
        results = [
            await _transfers(bench, nodes, writers),
            await _rolling(bench, nodes, writers),
            await _leave(bench, nodes, writers),
        ]
        lost = await writers.lost()
    lost_note = f"in all three: {len(lost)} acknowledged writes lost"
    return [
        replace(each, met=each.met and not lost, notes=[*each.notes, lost_note]) for each in results
    ]


def _clean_result(what: str, seen: Seen, notes: Sequence[str]) -> Result:
    said = f"{seen.writes:,} writes, p99 {humane(seen.p99_s, 's')}; {some_errors(seen.errors)}"
    return Result(
        f"{what}: longest gap in acknowledged writes",
        {OURS: Figure(seen.gap_s, "s")},
        wanted="≤ 500 ms, no error",
        met=seen.gap_s <= 0.5 and not seen.errors,
        notes=[said, *notes],
    )


async def _transfers(bench: Bench, nodes: Nodes, writers: Writers) -> Result:
    """Each shard that is written goes to another node, one after the other."""
    writers.begin()
    gaps: list[float] = []
    for writer in writers.every[: bench.repeats * 2]:
        primary = (await nodes.primaries())[writer.shard]
        target = primary % NODES + 1
        gaps.append(await _transfer(nodes, writers, writer, target))
    seen = writers.seen()
    bench.say(f"    {len(gaps)} transfers: longest gap {seen.gap_s:.3f} s")
    note = f"{len(gaps)} transfers, p50 of their shards' gaps {statistics.median(gaps):.3f} s"
    return _clean_result("a shard is transferred", seen, [note])


async def _transfer(nodes: Nodes, writers: Writers, writer: Writer, target: int) -> float:
    await nodes.registry.cluster_transfer(writer.shard, target)
    began = time.monotonic()
    while (await nodes.primaries())[writer.shard] != target:
        if time.monotonic() - began > _RECOVER_S_MAX:
            writer.errors.append(f"shard {writer.shard} is not node {target}'s")
            break
        await asyncio.sleep(0.02)
    await writers.until_acked([writer], within_s=_RECOVER_S_MAX)
    return writer.gap_s


async def _rolling(bench: Bench, nodes: Nodes, writers: Writers) -> Result:
    await nodes.until(is_balanced, "balanced", within_s=_BALANCE_S_MAX)
    every = Seen()
    notes: list[str] = []
    for node in nodes.all():
        was = (await nodes.status()).controller_id
        writers.begin()
        began = time.monotonic()
        await node.end(signal.SIGTERM)
        stopped_s = time.monotonic() - began
        await writers.until_acked(writers.every, within_s=_RECOVER_S_MAX)
        stopping = writers.seen()
        nodes.start(node.number)
        balanced_s = await nodes.until(is_balanced, "balanced", within_s=_BALANCE_S_MAX)
        await writers.until_acked(writers.every, within_s=_RECOVER_S_MAX)
        seen = writers.seen()
        who = f"node {node.number}{' (controller)' if node.number == was else ''}"
        notes.append(
            f"{who}: stopped in {stopped_s:.2f} s, gap {stopping.gap_s:.3f} s; balanced"
            f" {balanced_s:.1f} s after its start, gap {seen.gap_s:.3f} s;"
            f" {some_errors(seen.errors)}"
        )
        bench.say(f"    {notes[-1]}")
        every.gap_s = max(every.gap_s, seen.gap_s)
        every.writes += seen.writes
        every.errors += seen.errors
        every.latencies += seen.latencies
    return _clean_result("every node is stopped and started, in turn", every, notes)


async def _leave(bench: Bench, nodes: Nodes, writers: Writers) -> Result:
    joined = nodes.join()
    joined_s = await nodes.until(
        lambda status: len(status.nodes) > NODES and is_balanced(status),
        "grown",
        within_s=_BALANCE_S_MAX,
    )
    writers.begin()
    await nodes.registry.cluster_leave(joined.number)
    left_s = await nodes.until(
        lambda status: (
            all(node.node_id != joined.number for node in status.nodes) and is_balanced(status)
        ),
        f"without node {joined.number}",
        within_s=_BALANCE_S_MAX,
    )
    await writers.until_acked(writers.every, within_s=_RECOVER_S_MAX)
    seen = writers.seen()
    note = (
        f"a fourth node, balanced in {joined_s:.1f} s, was gone {left_s:.1f} s after it was asked"
    )
    bench.say(f"    {note}; longest gap {seen.gap_s:.3f} s")
    await joined.end(signal.SIGTERM)
    return _clean_result("a node leaves for good", seen, [note])


CASES = [
    Case("cluster-registrations", registrations),
    Case("cluster-spread", spread),
    Case("failover", failover),
    Case("controller", controller),
    Case("clean", clean),
]
