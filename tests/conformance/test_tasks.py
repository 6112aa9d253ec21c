"""Tasks, timers and locks behave the same on every loop: order, cancellation, time-outs.

Each test is one body of code, run in every place, with one expectation for all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from places import Run


def test_callbacks_run_in_the_order_of_their_calls(run: Run) -> None:
    """`call_soon` is first in, first out; what a callback adds comes after what was there."""

    async def body() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        done = asyncio.Event()

        def first() -> None:
            seen.append(1)
            loop.call_soon(seen.append, 4)
            loop.call_soon(done.set)

        loop.call_soon(first)
        loop.call_soon(seen.append, 2)
        cancelled = loop.call_soon(seen.append, 99)
        loop.call_soon_threadsafe(seen.append, 3)
        cancelled.cancel()
        await done.wait()
        return seen

    assert run(body) == [1, 2, 3, 4]


def test_timers_fire_in_the_order_of_their_deadlines(run: Run) -> None:
    """Never early, sooner deadlines first, cancelled ones not at all."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        started = loop.time()
        loop.call_later(0.03, seen.append, "third")
        loop.call_at(started + 0.02, seen.append, "second")
        loop.call_later(0.01, seen.append, "first")
        cancelled = loop.call_later(0.015, seen.append, "cancelled")
        cancelled.cancel()
        loop.call_later(-1, seen.append, "overdue")
        await asyncio.sleep(0.05)
        return seen, loop.time() - started >= 0.049, cancelled.cancelled()

    assert run(body) == (["overdue", "first", "second", "third"], True, True)


def test_a_timer_knows_when_it_is_due(run: Run) -> None:
    """`when()` is in the terms of `time()`."""

    async def body() -> bool:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(100, print)
        remaining = handle.when() - loop.time()
        handle.cancel()
        return 99 < remaining <= 100.01

    assert run(body) is True


def test_a_task_group_cancels_the_siblings_of_a_failure(run: Run) -> None:
    """One failure cancels the rest, which clean up; the group then raises it."""

    async def body() -> list[str]:
        seen: list[str] = []

        async def sibling(name: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.001)
                seen.append(name)

        async def failing() -> None:
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(5):
                    group.create_task(sibling(f"sibling {number}"))
                group.create_task(failing())
        except* ZeroDivisionError:
            seen.append("failure")
        return sorted(seen)

    assert run(body) == ["failure", *(f"sibling {number}" for number in range(5))]


def test_a_time_out_cancels_what_it_bounds(run: Run) -> None:
    """`timeout` and `wait_for` raise TimeoutError, and the inner code sees a cancellation."""

    async def body() -> list[str]:
        seen: list[str] = []

        async def slow(name: str) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                seen.append(name)
                raise

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await slow("timeout")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow("wait_for"), 0.01)
        seen.append(await asyncio.wait_for(asyncio.sleep(0, "in time"), 1))
        async with asyncio.timeout(None) as scope:
            scope.reschedule(asyncio.get_running_loop().time() + 10)
            await asyncio.sleep(0.001)
        return seen

    assert run(body) == ["timeout", "wait_for", "in time"]


def test_cancellation_passes_through_and_can_be_shielded(run: Run) -> None:
    """A cancelled task ends as cancelled; what it shielded goes on."""

    async def body() -> Any:
        inner = asyncio.create_task(asyncio.sleep(0.02, "finished"))

        async def outer() -> None:
            await asyncio.shield(inner)

        task = asyncio.create_task(outer())
        await asyncio.sleep(0.001)
        task.cancel("no more")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled(), await inner

    assert run(body) == (True, "finished")


def test_queues_locks_and_conditions_are_fair(run: Run) -> None:
    """Waiters are served in the order in which they came."""

    async def body() -> list[str]:
        seen: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        lock = asyncio.Lock()
        condition = asyncio.Condition()

        async def take(number: int) -> None:
            seen.append(f"took {await queue.get()} by {number}")

        async def hold(number: int) -> None:
            async with lock:
                await asyncio.sleep(0)
                seen.append(f"held by {number}")

        async def notified(number: int) -> None:
            async with condition:
                await condition.wait()
                seen.append(f"notified {number}")

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(take(number))
            for number in range(3):
                await queue.put(number)
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(hold(number))
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(notified(number))
            await asyncio.sleep(0.001)
            async with condition:
                condition.notify(1)
            await asyncio.sleep(0.001)
            async with condition:
                condition.notify_all()
        return seen

    assert run(body) == [
        *(f"took {number} by {number}" for number in range(3)),
        *(f"held by {number}" for number in range(3)),
        *(f"notified {number}" for number in range(3)),
    ]


def test_an_event_wakes_all_who_wait(run: Run) -> None:
    """In the order in which they began to wait; a set event does not block."""

    async def body() -> list[int]:
        event = asyncio.Event()
        seen: list[int] = []

        async def wait(number: int) -> None:
            await event.wait()
            seen.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(wait(number))
            await asyncio.sleep(0.001)
            event.set()
        await event.wait()
        return seen

    assert run(body) == [0, 1, 2, 3, 4]


def test_an_exception_of_a_callback_is_reported(run: Run) -> None:
    """It goes to the exception handler, and the loop goes on."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reported.append(context))

        def failing() -> None:
            raise ZeroDivisionError

        loop.call_soon(failing)
        await asyncio.sleep(0.001)
        return [(type(each["exception"]), "failing" in each["message"]) for each in reported]

    assert run(body) == [(ZeroDivisionError, True)]


def test_a_generator_dropped_half_way_is_finished(run: Run) -> None:
    """The `finally` block of an asynchronous generator runs, awaits and all."""

    async def body() -> list[str]:
        seen: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in range(10):
                    yield number
            finally:
                await asyncio.sleep(0.001)
                seen.append("finished")

        async for number in numbers():
            if number == 3:
                break
        await asyncio.sleep(0.05)
        return seen

    assert run(body) == ["finished"]


def test_context_variables_belong_to_a_task(run: Run) -> None:
    """A task has a copy of its creator's context."""

    async def body() -> list[str]:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        async def child() -> None:
            seen.append(variable.get())
            variable.set("child")
            await asyncio.sleep(0)
            seen.append(variable.get())

        @asynccontextmanager
        async def scope() -> AsyncIterator[None]:
            variable.set("scope")
            yield

        async with scope():
            await asyncio.create_task(child())
        seen.append(variable.get())
        return seen

    assert run(body) == ["scope", "child", "scope"]
