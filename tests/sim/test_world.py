"""Virtual time, processes and their ends."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sim_actors import call, forever, spawn

from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.trace import Kind
from ssgovern.sim.world import World


def test_events_run_in_the_order_of_time_and_then_of_calls() -> None:
    """Equal times keep the order in which events were added; time ends where it was told to."""
    seen: list[object] = []
    with World(1) as world:
        world.at(2.0, seen.append, "late")
        world.after(1.0, seen.append, "first")
        world.at(1.0, seen.append, "second")
        world.at(3.0, seen.append, "never")
        world.run(2.5)
        assert seen == ["first", "second", "late"]
        assert world.now == 2.5


def test_time_cannot_be_turned_back() -> None:
    """An event in the past is a mistake of whoever adds it."""
    with World(1) as world:
        world.run(1.0)
        with pytest.raises(AssertionError):
            world.at(0.5, print)


def test_run_until_stops_at_the_event_that_made_it_true() -> None:
    """The condition is looked at after every event, and not met is reported."""
    seen: list[int] = []
    with World(1) as world:
        for number in range(10):
            world.at(float(number), seen.append, number)
        assert world.run_until(lambda: 3 in seen, 100.0)
        assert (seen, world.now) == ([0, 1, 2, 3], 3.0)
        assert not world.run_until(lambda: 99 in seen, 5.0)
        assert (seen[-1], world.now) == (5, 5.0)


def test_observers_see_the_world_after_every_event() -> None:
    """One call for each event."""
    calls: list[float] = []
    with World(1) as world:
        world.observers.append(lambda: calls.append(world.now))
        for when in (1.0, 2.0, 2.0):
            world.at(when, int)
        world.run(10.0)
        assert calls == [1.0, 2.0, 2.0]


def test_sleeping_takes_virtual_time_only() -> None:
    """A day passes at once, and monotonic clocks of machines have nothing in common."""
    clocks: dict[str, tuple[float, float]] = {}

    def sleeper(name: str) -> Any:
        async def body() -> None:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(86_400)
            clocks[name] = before, asyncio.get_running_loop().time()

        return body

    with World(1) as world:
        spawn(world, "a", sleeper("a"))
        spawn(world, "b", sleeper("b"))
        world.run(90_000)
        for before, after in clocks.values():
            assert after - before == pytest.approx(86_400, abs=0.001)
        assert abs(clocks["a"][0] - clocks["b"][0]) > 1


def test_a_fast_clock_fires_its_timers_early() -> None:
    """A clock that runs 2 % fast calls 102 seconds what the world calls 100."""
    done: list[tuple[float, float]] = []

    async def main(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(102)
        done.append((runtime.process.world.now, loop.time() - before))
        await forever(runtime)

    with World(1) as world:
        world.process("fast", main, clock_rate=1.02).start()
        world.run(200)
        assert done == [(pytest.approx(100, abs=0.001), pytest.approx(102, abs=0.001))]


def test_a_killed_process_runs_no_more_code() -> None:
    """No `finally`, no handler of a cancellation, no callback: as after SIGKILL."""
    seen: list[str] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2, seen.append, "timer")
        try:
            await asyncio.sleep(1.5)
            seen.append("slept")
        except BaseException:
            seen.append("except")
            raise
        finally:
            seen.append("finally")

    with World(1) as world:
        process = spawn(world, "p", body)
        world.run(1.0)
        process.kill()
        assert not process.alive
        world.run(10.0)
        assert seen == []


def test_a_failpoint_stops_a_process_at_that_line() -> None:
    """`crash` ends the callback; what its `finally` blocks still do has no effect."""
    seen: list[str] = []

    async def main(runtime: SimRuntime) -> None:
        disk = runtime.open_disk("data")
        try:
            await disk.append("log", [b"before"], sync=True)
            runtime.failpoint("after_append")
            seen.append("after the failpoint")
        finally:
            asyncio.get_running_loop().call_soon(seen.append, "scheduled by finally")
            await disk.append("log", [b"by finally"], sync=True)
            seen.append("awaited by finally")

    def crash(process: Process, name: str) -> None:
        seen.append(name)
        process.crash()

    with World(1) as world:
        world.failpoints["after_append"] = crash
        process = world.process("p", main)
        process.start()
        world.run(10.0)
        assert seen == ["after_append"]
        assert not process.alive
        assert process.machine.disk("/p/data").read("log") == b"before"
        assert world.errors == []
        assert world.exits == []


def test_a_restart_is_a_new_incarnation() -> None:
    """A process starts again after a kill, with a new loop, and the old one stays dead."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def body() -> None:
        loops.append(asyncio.get_running_loop())

    with World(1) as world:
        process = spawn(world, "p", body)
        world.run(1.0)
        process.kill()
        process.start()
        world.run(2.0)
        assert process.incarnation == 2
        assert [loop.is_closed() for loop in loops] == [True, False]


def test_a_paused_process_does_nothing_and_then_catches_up() -> None:
    """Its timers fire late, in order, after the time of the pause has passed."""
    seen: list[tuple[str, float]] = []

    async def main(runtime: SimRuntime) -> None:
        loop, world = asyncio.get_running_loop(), runtime.process.world
        for delay in (3, 2, 9):
            loop.call_later(delay, lambda delay=delay: seen.append((f"{delay}", world.now)))
        await forever(runtime)

    with World(1) as world:
        process = world.process("p", main)
        process.start()
        world.run(1.0)
        process.pause()
        call(process, lambda: seen.append(("called", world.now)))
        world.run(5.0)
        assert seen == []
        process.resume()
        world.run(20.0)
        assert [name for name, _ in seen] == ["called", "2", "3", "9"]
        assert [when for _, when in seen] == [
            pytest.approx(each, abs=0.01) for each in (5, 5, 5, 9)
        ]


def test_callbacks_cost_time() -> None:
    """Work takes virtual time, and more of it on a slow process."""
    ends: dict[str, float] = {}

    def worker(name: str) -> Any:
        async def main(runtime: SimRuntime) -> None:
            for _ in range(1000):
                await asyncio.sleep(0)
            ends[name] = runtime.process.world.now
            await forever(runtime)

        return main

    with World(1, wake_jitter=0.0) as world:
        fast, slow = (world.process(name, worker(name)) for name in ("fast", "slow"))
        slow.slowness = 100.0
        fast.start()
        slow.start()
        world.run(10.0)
        assert ends["slow"] / ends["fast"] == pytest.approx(100, rel=0.1)


def test_what_nobody_handles_is_recorded_with_the_name_of_the_process() -> None:
    """Failing callbacks, failing mains and tasks whose failure nobody saw are errors."""

    async def failing_main(runtime: SimRuntime) -> None:
        raise ZeroDivisionError

    async def failing_task() -> None:
        raise KeyError("unseen")

    async def body() -> None:
        tasks = [asyncio.get_running_loop().create_task(failing_task())]
        await asyncio.sleep(0.1)
        tasks.clear()

    def failing_callback() -> None:
        raise IndexError

    world = World(1)
    world.process("main", failing_main).start()
    spawn(world, "task", body)
    callback = spawn(world, "callback", asyncio.Event().wait)
    world.run(1.0)
    call(callback, failing_callback)
    world.run(2.0)
    world.close()
    recorded = [(error.process, type(error.exception)) for error in world.errors]
    assert recorded == [
        ("main", ZeroDivisionError),
        ("callback", IndexError),
        ("task", KeyError),
    ]


def test_a_main_that_ends_ends_the_process() -> None:
    """Returning and `sys.exit` are exits, with their cause; only failures are errors."""

    async def returns(runtime: SimRuntime) -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(100), name="left alone")

    async def exits(runtime: SimRuntime) -> None:
        raise SystemExit(3)

    with World(1) as world:
        processes = [world.process("returns", returns), world.process("exits", exits)]
        for process in processes:
            process.start()
        world.run(1.0)
        assert [process.alive for process in processes] == [False, False]
        assert sorted((each.process, repr(each.cause)) for each in world.exits) == [
            ("exits", "SystemExit(3)"),
            ("returns", "None"),
        ]
        assert world.errors == []


def test_sigterm_reaches_its_handler_or_kills() -> None:
    """A process with a handler stops as it likes; one without is killed."""
    seen: list[str] = []

    async def graceful(runtime: SimRuntime) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(15, stop.set)
        await stop.wait()
        seen.append("stopped")

    with World(1) as world:
        processes = [world.process("graceful", graceful), world.process("deaf", forever)]
        for process in processes:
            process.start()
        world.run(1.0)
        for process in processes:
            process.terminate()
        world.run(2.0)
        assert [process.alive for process in processes] == [False, False]
        assert seen == ["stopped"]
        assert [each.process for each in world.exits] == ["graceful"]


def test_a_value_that_leaks_into_another_process_is_caught() -> None:
    """Code of one process that wakes a task of another fails at once."""
    leaked: list[asyncio.Event] = []

    async def waits() -> None:
        leaked.append(asyncio.Event())
        await leaked[0].wait()

    async def sets() -> None:
        await asyncio.sleep(1)
        leaked[0].set()

    with World(1) as world:
        spawn(world, "waits", waits)
        spawn(world, "sets", sets)
        world.run(5.0)
        assert [(error.process, type(error.exception)) for error in world.errors] == [
            ("sets", RuntimeError)
        ]


def test_threads_are_refused() -> None:
    """`run_in_executor` says what is wrong instead of starting one."""
    messages: list[str] = []

    async def body() -> None:
        with pytest.raises(RuntimeError) as caught:
            await asyncio.to_thread(print)
        messages.append(str(caught.value))

    with World(1) as world:
        spawn(world, "p", body)
        world.run(1.0)
        assert "ssgovern.runtime" in messages[0]


def test_tasks_are_cancelled_in_an_order_that_the_seed_decides() -> None:
    """`TaskGroup` cancels in the order of a set, which is not that of addresses here."""

    def order() -> list[int]:
        seen: list[int] = []

        async def body() -> None:
            async def child(number: int) -> None:
                try:
                    await asyncio.sleep(100)
                finally:
                    seen.append(number)

            async def failing() -> None:
                await asyncio.sleep(1)
                raise ZeroDivisionError

            async def family() -> None:
                async with asyncio.TaskGroup() as group:
                    for number in range(20):
                        group.create_task(child(number))
                    group.create_task(failing())

            with pytest.raises(ExceptionGroup):
                await family()

        with World(1) as world:
            spawn(world, "p", body)
            world.run(5.0)
        return seen

    first, clutter, second = order(), [object() for _ in range(999)], order()
    assert clutter
    assert sorted(first) == list(range(20))
    assert first == second


def test_closing_a_world_makes_no_sound() -> None:
    """Whatever state killed processes were in, nothing is reported when they are dropped."""

    async def generator() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(1)

    async def slow_cleanup() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            for _ in range(3):
                await asyncio.sleep(1)

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await slow_cleanup()
            asyncio.get_running_loop().create_task(asyncio.sleep(1))

    async def body() -> None:
        loop = asyncio.get_running_loop()
        orphans = [loop.create_task(stubborn())]
        loop.create_future().set_exception(ZeroDivisionError())
        server = await loop.create_server(asyncio.Protocol, None, 7000)
        transport, _ = await loop.create_connection(asyncio.Protocol, "localhost", 7000)
        transport.write(b"x" * 10_000_000)
        _, writer = await asyncio.open_connection("localhost", 7000)
        writer.write(b"x" * 10_000_000)
        loop.call_later(1, lambda: orphans.append(loop.create_task(stubborn())))
        async with server, asyncio.TaskGroup() as group, asyncio.timeout(50):
            for _ in range(3):
                group.create_task(stubborn())
            async for _ in generator():
                await asyncio.sleep(0.3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for end in (0.0, 0.0001, 0.5, 1.0001):
            world = World(1)
            killed, running = spawn(world, "killed", body), spawn(world, "running", body)
            world.run(end)
            killed.kill()
            world.close()
            del world, killed, running
            gc.collect()


def test_the_trace_tells_the_story_when_asked_to() -> None:
    """A kept trace has an entry for each thing that happened, with its time."""
    with World(1, trace=True) as world:
        process = spawn(world, "p", asyncio.Event().wait)
        world.run(1.0)
        world.note("enough")
        process.kill()
        entries = world.trace.entries
        assert entries is not None
        kinds = [entry.kind for entry in entries]
        assert kinds == [Kind.START, Kind.BATCH, Kind.NOTE, Kind.KILL]
        assert str(entries[2]) == "    1.000000 NOTE       enough"


def test_cancelled_timers_do_not_pile_up() -> None:
    """A process that sets and cancels time-outs for ever keeps the heap small."""

    async def body() -> None:
        for _ in range(30_000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0)

    with World(1) as world:
        spawn(world, "p", body)
        world.run(100.0)
        assert len(world._heap) < 10_000
