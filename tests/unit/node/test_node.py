"""A whole node through its lives, on the simulated machine."""

from __future__ import annotations

import asyncio

import pytest
from builders import BILLING
from nodes import config_of, run_world, serving

from ssgovern.model import SHARDS
from ssgovern.sim.disk import UNLIMITED
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

DATA = "/data"


def test_what_was_acknowledged_is_there_after_a_clean_stop() -> None:
    """A node that was stopped and started again holds what it acknowledged, and the session."""

    async def first(runtime: SimRuntime) -> None:
        async with serving(config_of(DATA), runtime) as stage:
            client = await stage.client("a")
            await client.register("one", "two")
            await client.register("three", key=BILLING)
            assert (await client.deregister("two")).removed

    async def second(runtime: SimRuntime) -> None:
        async with serving(config_of(DATA), runtime) as stage:
            # All that is left to replay is that empty shards began their epoch.
            assert stage.ready.entries_replayed < SHARDS
            client = await stage.connect("a")
            assert (await client.hello()).resumed
            assert await client.ids() == ["one"]
            assert await client.ids(BILLING) == ["three"]

    run_world(0, first, second)


@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_a_power_cut(seed: int) -> None:
    """Whatever a power cut leaves of unsynced writes, acknowledged ones are all there."""
    acknowledged: list[str] = []

    async def load(runtime: SimRuntime) -> None:
        async with serving(config_of(DATA), runtime) as stage:
            client = await stage.client("a")
            for n in range(1000):
                await client.register(f"i{n}")
                acknowledged.append(f"i{n}")

    async def look(runtime: SimRuntime) -> None:
        async with serving(config_of(DATA), runtime) as stage:
            client = await stage.client("b")
            found = await client.ids()
            assert set(acknowledged) <= set(found)
            assert len(found) <= len(acknowledged) + 1

    with World(seed) as world:
        first = world.process("first", load, machine="host")
        first.start()
        world.run_until(lambda: len(acknowledged) == 50 + seed, 100.0)
        first.kill(power=True)
        world.process("second", look, machine="host").start()
        assert world.run_until(lambda: bool(world.exits), 200.0)
        if (cause := world.exits[0].cause) is not None:
            raise cause


@pytest.mark.parametrize("seed", range(2))
def test_an_epoch_is_never_used_twice(seed: int) -> None:
    """Even where a power cut may lose answers, it never loses the epoch they were given in."""
    epochs: list[int] = []
    config = config_of(DATA, durability="interval(60000ms)")

    async def live(runtime: SimRuntime) -> None:
        async with serving(config, runtime) as stage:
            client = await stage.client("a")
            epochs.append((await client.register("one")).results[0].epoch)
            await asyncio.sleep(1000.0)

    with World(seed) as world:
        for number in range(3):
            process = world.process(f"life{number}", live, machine="host")
            process.start()
            assert world.run_until(lambda number=number: len(epochs) > number, world.now + 100.0)
            process.kill(power=True)
    assert epochs == sorted(set(epochs))


def test_a_full_disk_does_not_keep_a_node_from_stopping() -> None:
    """A node whose disk is full stops like any other: what it acknowledged is in its log."""

    async def first(runtime: SimRuntime) -> None:
        async with serving(config_of(DATA), runtime) as stage:
            client = await stage.client("a")
            await client.register("one")
            runtime.process.machine.disk(f"{DATA}/snapshots").capacity_bytes = 0

    async def second(runtime: SimRuntime) -> None:
        runtime.process.machine.disk(f"{DATA}/snapshots").capacity_bytes = UNLIMITED
        async with serving(config_of(DATA), runtime) as stage:
            client = await stage.client("b")
            assert await client.ids() == ["one"]

    run_world(0, first, second)


def test_a_node_may_be_stopped_while_it_removes_old_log() -> None:
    """A stop that falls into the removal of a segment waits for it and goes on."""
    config = config_of(
        DATA, storage={"segment_bytes": 1 << 20, "wal_bytes_before_snapshot": 1 << 20}
    )

    async def first(runtime: SimRuntime) -> None:
        log = runtime.process.machine.disk(f"{DATA}/wal")
        async with serving(config, runtime) as stage:
            client = await stage.client("a")
            for n in range(100):
                await client.register(f"i{n}", metadata={f"k{k}": "x" * 3000 for k in range(5)})
            oldest = log.names()[0]
            while oldest in log.names():
                await asyncio.sleep(0.0001)

    async def second(runtime: SimRuntime) -> None:
        async with serving(config, runtime) as stage:
            assert len(await (await stage.client("b")).ids()) == 100

    run_world(0, first, second)
