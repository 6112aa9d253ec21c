"""Clusters of real processes whose disks fill up or lose power, and which stand still or are few.

`CLUSTER_FAULTS=all` also runs what says the same of other nodes; `PAUSE_S` is how long a node
stands still, `POWER_CUTS` how often the power goes.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clusters import Cluster, Load, is_whole, until_status
from disks import LoopDisk, SmallDisk
from processes import NodeProcess

import ssgovern
from ssgovern.client.values import ClusterStatus
from ssgovern.errors import DeadlineExceededError, SsGovernError
from ssgovern.model import Instance

ALL = os.environ.get("CLUSTER_FAULTS", "") == "all"
PAUSE_S = float(os.environ.get("PAUSE_S", "6"))
POWER_CUTS = int(os.environ.get("POWER_CUTS", "1"))
WHY_NOT = "has not heard from the controller|Connection refused|nobody serves the shard"
"""Of shards whose primary is left, and of others."""
FILLING = 1500
"""Instances of 4 kB: more than a log has room for that was made ahead."""

Program = Callable[[], Coroutine[object, object, None]]

pytestmark = pytest.mark.timeout(240 + 60 * POWER_CUTS + 2 * PAUSE_S)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, candidates=3)
    cluster.start()
    yield cluster
    cluster.kill()


def play(program: Program) -> None:
    asyncio.run(program(), debug=False)


def live(status: ClusterStatus) -> list[int]:
    return [node.node_id for node in status.nodes if node.live]


def more_if_asked(*roles: str) -> pytest.MarkDecorator:
    """Run for the first role always, for the others when all is asked for."""
    return pytest.mark.parametrize("role", roles if ALL else roles[:1])


# --- disks that are full ---------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[dict[int, SmallDisk]]:
    disks = {number: SmallDisk(tmp_path / f"disk-{number}", "24M") for number in (1, 2, 3)}
    with ExitStack() as stack:
        for disk in disks.values():
            if reason := disk.mount():
                pytest.skip(f"may not mount a small disk: {reason}")
            stack.callback(disk.remove)
        yield disks


async def fill_the_logs(registry: ssgovern.Registry) -> None:
    """Write more than has room in what the log of a full disk keeps in reserve."""
    filling = {"filling": "x" * 4000}
    for start in range(0, FILLING, 50):
        wanted = [
            (f"filling-{number % 40}", Instance(f"f{number}", "h", 1, metadata=filling))
            for number in range(start, start + 50)
        ]
        for outcome in await registry.register_all(wanted):
            if isinstance(outcome, SsGovernError):
                raise outcome


@more_if_asked("other", "controller")
def test_a_node_with_a_full_disk_steps_aside(
    small: dict[int, SmallDisk], tmp_path: Path, role: str
) -> None:
    """It leaves the in-sync sets, others take its shards' writes, and it returns with space."""
    segments = ("--storage-segment-bytes", str(1 << 20))

    def place(number: int, _data_dir: Path) -> NodeProcess:
        return NodeProcess(small[number].place / "node", log=tmp_path / f"node-{number}.log")

    cluster = Cluster(tmp_path, 3, 0, *segments, place=place)
    cluster.start()

    async def program() -> None:
        load = Load()
        async with cluster.connect() as registry:
            before = await until_status(registry, is_whole(3))
            victim = before.controller_id
            if role == "other":
                victim = next(number for number in (1, 2, 3) if number != victim)
            async with load.on(registry):
                small[victim].fill()
                await fill_the_logs(registry)
                await until_status(registry, lambda status: status.shards_below_copies > 0)
                await load.more(300)
                small[victim].empty()
                await until_status(registry, is_whole(3))
        print(f"{load.acknowledged} writes, longest gap {load.longest_gap_s:.2f} s")

    try:
        play(program)
    finally:
        cluster.kill()


# --- nodes that stand still ------------------------------------------------------------------


@more_if_asked("controller", "other")
def test_a_node_that_stands_still_long(three: Cluster, role: str) -> None:
    """Whoever it is, it wakes up without harm: terms do not rise, and it is in sync by itself."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            before = await until_status(registry, is_whole(3))
            victim = before.controller_id
            if role == "other":
                victim = next(number for number in (1, 2, 3) if number != victim)
            async with load.on(registry):
                three.nodes[victim].send(signal.SIGSTOP)
                # The pause itself: nothing can be observed of who stands still.
                await asyncio.sleep(PAUSE_S)
                async with ssgovern.connect(three.except_for(victim), timeout=30.0) as elsewhere:
                    status = await until_status(elsewhere, lambda status: len(live(status)) == 2)
                await load.more(200)
                three.nodes[victim].send(signal.SIGCONT)
                after = await until_status(registry, is_whole(3))
            assert after.term == status.term, "who wakes up asks for no election"
        print(f"{load.acknowledged} writes, longest gap {load.longest_gap_s:.2f} s")

    play(program)


# --- power cuts ------------------------------------------------------------------------------


@pytest.fixture
def powered(tmp_path: Path) -> Iterator[dict[int, LoopDisk]]:
    disks = {number: LoopDisk(tmp_path / f"disk-{number}") for number in (1, 2, 3)}
    with ExitStack() as stack:
        for disk in disks.values():
            stack.callback(disk.remove)
            if reason := disk.format():
                pytest.skip(f"may not make a disk: {reason}")
        yield disks


@pytest.mark.parametrize("nodes", [(1,), (1, 2, 3)], ids=["one", "all"])
def test_what_was_acknowledged_survives_a_power_cut(
    powered: dict[int, LoopDisk], tmp_path: Path, nodes: tuple[int, ...]
) -> None:
    """All that was acknowledged is there, and the cluster comes back by itself."""

    def place(number: int, _data_dir: Path) -> NodeProcess:
        return NodeProcess(powered[number].mounted / "node", log=tmp_path / f"node-{number}.log")

    cluster = Cluster(tmp_path, 3, place=place)
    cluster.start()

    async def program() -> None:
        load = Load()
        async with cluster.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                for _ in range(POWER_CUTS):
                    await load.more(300)
                    # A node without power says nothing more. These live on for a moment, and
                    # may take a sync for done that ext4 dropped while it was shut down.
                    load.counts = len(nodes) == 1
                    for number in nodes:
                        powered[number].cut()
                    for number in nodes:
                        cluster.nodes[number].kill()
                    for number in nodes:
                        powered[number].power_on()
                        cluster.nodes[number].start()
                    await until_status(registry, is_whole(3))
                    load.counts = True
                    await load.more(100)
        print(
            f"{POWER_CUTS} power cuts, {len(load.present) + len(load.absent)} acknowledged, "
            f"longest gap {load.longest_gap_s:.2f} s"
        )

    try:
        play(program)
    finally:
        cluster.kill()


# --- too few ---------------------------------------------------------------------------------


async def refusal(registry: ssgovern.Registry, service: str) -> str:
    """Return why a write is refused."""
    for _ in range(3):
        with pytest.raises(SsGovernError) as refused:
            await registry.register(service, host="h", port=99, timeout=1.0)
        # Of a question that is on its way when the time is over nothing else can be said.
        if not isinstance(refused.value, DeadlineExceededError):
            break
    return str(refused.value)


def test_a_majority_is_lost(three: Cluster) -> None:
    """Reads go on, writes are refused with the reason, and a second node brings all of it back."""

    async def program() -> None:
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            for number in range(40):
                await registry.register(f"kept-{number % 8}", host="h", port=1 + number)
            async with registry.subscribe("kept-0") as kept:
                assert len(kept.instances) == 5
                async with ssgovern.connect(
                    three.nodes[3].address, namespace="test", timeout=5.0
                ) as alone:
                    # Copies hear a moment later what is committed.
                    for number in range(8):
                        while len(await alone.get(f"kept-{number}", stale_ok=True)) < 5:
                            await asyncio.sleep(0.01)
                    for number in (1, 2):
                        three.nodes[number].kill(signal.SIGKILL)
                    # As soon as its last lease has run out.
                    await until_status(alone, lambda status: not status.controller_heard)
                    for number in range(4):
                        there = await alone.get(f"kept-{number}", stale_ok=True, timeout=20.0)
                        assert len(there) == 5
                        assert re.search(WHY_NOT, await refusal(alone, f"kept-{number}"))
                    assert len(kept.instances) == 5

                    three.nodes[2].start()
                    await alone.register("kept-0", host="h", port=99, timeout=60.0)
                three.nodes[1].start()
                await until_status(registry, is_whole(3))
                assert len(await registry.get("kept-1")) == 5

    play(program)
