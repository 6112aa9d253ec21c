"""What a simulated process is given: chance, clocks, disks; and what machines do to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sim_actors import forever

from ssgovern.runtime import Runtime
from ssgovern.sim.disk import PowerCut
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World


def runtime_of(process: Process) -> SimRuntime:
    assert process.runtime is not None
    return process.runtime


def test_it_is_a_runtime() -> None:
    """It has all that production code may ask for."""
    with World(1) as world:
        process = world.process("p", forever)
        process.start()
        runtime: Runtime = runtime_of(process)
        assert 0 <= runtime.rng.random() < 1
        assert len(runtime.random_bytes(16)) == 16
        runtime.failpoint("nothing is set here")


def test_chance_depends_on_seed_name_and_incarnation_only() -> None:
    """Equal lives draw equal numbers, whatever others draw; any other life draws others."""

    def draw(seed: int, name: str, *, lives: int = 1, clutter: int = 0) -> tuple[float, bytes]:
        with World(seed) as world:
            for number in range(clutter):
                world.app_rng.random()
                world.process(f"clutter {number}", forever).start()
            process = world.process(name, forever)
            for life in range(lives):
                if life:
                    process.kill()
                process.start()
            runtime = runtime_of(process)
            return runtime.rng.random(), runtime.random_bytes(8)

    assert draw(1, "p") == draw(1, "p", clutter=3)
    lives = [draw(1, "p"), draw(2, "p"), draw(1, "q"), draw(1, "p", lives=2)]
    assert len({number for number, _ in lives}) == 4
    assert len({secret for _, secret in lives}) == 4


def test_the_wall_clock_steps_and_monotonic_time_does_not_notice() -> None:
    """A step of an hour back changes `wall_ms` of that machine alone."""
    with World(1) as world:
        processes = [world.process(name, forever) for name in ("p", "q")]
        for process in processes:
            process.start()
        before = [runtime_of(process).wall_ms() for process in processes]
        monotonic = processes[0].monotonic()
        world.run(10.0)
        world.machine("p").step_wall_clock(-3_600_000)
        after = [runtime_of(process).wall_ms() for process in processes]
        assert after[0] - before[0] == 10_000 - 3_600_000
        assert after[1] - before[1] == 10_000
        assert processes[0].monotonic() - monotonic == pytest.approx(10.0)


def test_a_boot_begins_a_new_monotonic_clock_and_a_restart_does_not() -> None:
    """What a process wrote down of its `loop.time()` means nothing after a power cut."""
    with World(1) as world:
        process = world.process("p", forever)
        process.start()
        clocks = []
        for power in (False, True):
            clocks.append(process.monotonic())
            process.kill(power=power)
            process.start()
        clocks.append(process.monotonic())
        assert clocks[0] == clocks[1] != clocks[2]


def writer(*, sync: bool) -> Any:
    async def main(runtime: SimRuntime) -> None:
        disk = runtime.open_disk("data")
        await disk.append("log", [b"x" * 100], sync=sync)
        await disk.sync_directory()
        await forever(runtime)

    return main


@pytest.mark.parametrize("power", [False, True])
def test_only_a_power_cut_loses_what_was_not_synced(power: bool) -> None:
    """A killed process leaves its page cache; the power takes it along."""
    with World(1) as world:
        process = world.process("p", writer(sync=False))
        process.machine.power_cut = PowerCut.ALL_LOST
        process.start()
        world.run(1.0)
        process.kill(power=power)
        process.start()
        assert runtime_of(process).open_disk("data").size("log") == (0 if power else 100)


def test_what_was_synced_survives_a_power_cut() -> None:
    """Bytes and names that were synced are there after the restart."""
    with World(1) as world:
        process = world.process("p", writer(sync=True))
        process.machine.power_cut = PowerCut.ALL_LOST
        process.start()
        world.run(1.0)
        process.kill(power=True)
        process.start()
        assert runtime_of(process).open_disk("data").read("log") == b"x" * 100


def test_a_power_cut_ends_every_process_of_the_machine() -> None:
    """They share it; processes of other machines go on."""
    with World(1) as world:
        first = world.process("first", forever, machine="m")
        second = world.process("second", forever, machine="m")
        other = world.process("other", forever)
        for process in (first, second, other):
            process.start()
        first.kill(power=True)
        assert [first.alive, second.alive, other.alive] == [False, False, True]
        assert not world.machine("m").powered
        second.start()
        assert world.machine("m").powered
        assert [first.alive, second.alive] == [False, True]


def test_an_absolute_path_is_shared_by_the_processes_of_a_machine() -> None:
    """A relative one belongs to the process."""

    async def write(runtime: SimRuntime) -> None:
        for path in ("/shared", "own"):
            await runtime.open_disk(path).append("file", [b"x"], sync=False)
        await forever(runtime)

    with World(1) as world:
        for name in ("p", "q"):
            world.process(name, write, machine="m").start()
        world.run(1.0)
        sizes = {path: image.size("file") for path, image in world.machine("m").disks.items()}
        assert sizes == {"/shared": 2, "/p/own": 1, "/q/own": 1}


def test_disks_take_the_time_their_machine_says() -> None:
    """Syncs take from least to most; a slow disk takes seconds now and then."""
    took: list[float] = []

    async def main(runtime: SimRuntime) -> None:
        disk, loop = runtime.open_disk("data"), asyncio.get_running_loop()
        await disk.append("log", [b"x"], sync=True)
        for _ in range(200):
            before = loop.time()
            await disk.sync("log")
            took.append(loop.time() - before)
        runtime.failpoint("measured")
        await forever(runtime)

    def measured(process: Process, name: str) -> None:
        process.crash()

    with World(1) as world:
        world.failpoints["measured"] = measured
        process = world.process("p", main)
        process.machine.disk_timing.sync = (0.01, 0.02)
        process.start()
        world.run_until(lambda: not process.alive, 1000)
        assert 0.01 < min(took) < 0.011
        assert 0.019 < max(took) < 0.021

        took.clear()
        process.machine.disk_timing.slow_probability = 0.1
        process.machine.disk_timing.slow = (1.0, 2.0)
        process.start()
        world.run_until(lambda: not process.alive, 1000)
        assert 5 < sum(seconds > 1 for seconds in took) < 50


def test_operations_on_a_disk_end_in_the_order_in_which_they_began() -> None:
    """Whatever each of them takes."""
    ended: list[int] = []

    async def main(runtime: SimRuntime) -> None:
        disk = runtime.open_disk("data")
        await disk.append("log", [b"x"], sync=True)

        async def sync(number: int) -> None:
            await disk.sync("log")
            ended.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(sync(number))

    with World(1) as world:
        world.process("p", main).start()
        world.run(10.0)
        assert ended == list(range(50))
