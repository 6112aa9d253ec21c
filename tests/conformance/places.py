"""The same coroutine on stock asyncio, on uvloop and on the simulated loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import uvloop

from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

T = TypeVar("T")
Body: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
Run: TypeAlias = Callable[[Body[Any]], Any]

DEADLINE_SECONDS = 10.0


async def _bounded(body: Body[T]) -> T:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await body()


def _run_for_real(body: Body[T], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> T:
    errors: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: errors.append(context))
        result = runner.run(_bounded(body))
    assert not errors, errors
    return result


def run_stock(body: Body[T]) -> T:
    return _run_for_real(body, asyncio.new_event_loop)


def run_uvloop(body: Body[T]) -> T:
    return _run_for_real(body, uvloop.new_event_loop)


def run_simulated(body: Body[T], seed: int) -> T:
    results: list[T] = []

    async def main(runtime: SimRuntime) -> None:
        results.append(await _bounded(body))

    with World(seed) as world:
        world.process("host", main).start()
        world.run_until(lambda: bool(world.exits), 10 * DEADLINE_SECONDS)
        exits, errors = world.exits, world.errors
    for exit_ in exits:
        if exit_.cause is not None:
            raise exit_.cause
    assert not errors, errors
    return results[0]


PLACES: dict[str, Run] = {"stock": run_stock, "uvloop": run_uvloop}
for _seed in range(5):
    PLACES[f"sim{_seed}"] = lambda body, seed=_seed: run_simulated(body, seed)
