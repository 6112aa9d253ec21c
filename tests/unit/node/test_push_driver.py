"""The task that writes to subscribers gives the loop its turns, and forgets nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from builders import ORDERS, instance
from nodes import run_world
from rig import Answer, Follower, Rig, Wire

from ssgovern import limits
from ssgovern.api.native.server import NativeServer
from ssgovern.model import LogPosition, Pattern, ServiceKey
from ssgovern.node.push_driver import PushDriver
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import native_pb2


class FakeServer:
    """What the driver sees of a server."""

    def __init__(self) -> None:
        self.lacking: dict[Follower, None] = {}


class Turns:
    """Counts, turn by turn of the loop, how much was pushed."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.most = 0

    async def run(self) -> None:
        before = self._rig.push.pushes
        while True:
            await asyncio.sleep(0)
            self.most = max(self.most, self._rig.push.pushes - before)
            before = self._rig.push.pushes


def driven(body: Callable[[Rig, PushDriver, FakeServer, Turns], Coroutine[Any, Any, None]]) -> None:
    """Run `body` beside a driver over the cores of a node, on the simulated loop."""

    async def main(runtime: SimRuntime) -> None:
        rig, server = Rig(), FakeServer()
        driver, turns = PushDriver(rig.push), Turns(rig)
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(driver.run(cast("NativeServer", server))),
            loop.create_task(turns.run()),
        ]
        await asyncio.sleep(0.001)
        await body(rig, driver, server, turns)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)

    run_world(0, main)


def test_catching_up_many_gives_the_loop_its_turns() -> None:
    """However many subscribers lack however much, one turn tells a bounded number of services."""

    async def body(rig: Rig, driver: PushDriver, server: FakeServer, turns: Turns) -> None:
        known = {ServiceKey("prod", "default", f"s{n}"): LogPosition(1, 1) for n in range(100)}
        followers = [Follower(rig) for _ in range(40)]
        for follower in followers:
            follower.subscribe(Pattern("prod", "default", "s"), known)
            server.lacking[follower] = None
        driver.wake()
        while any(follower.behind for follower in followers):
            await asyncio.sleep(0)
        assert all(len(follower.lists) == 100 for follower in followers)
        await asyncio.sleep(0.001)
        assert turns.most <= 2 * limits.CATCH_UP_SLICE
        assert server.lacking == {}

    driven(body)


def test_a_wide_audience_gives_the_loop_its_turns() -> None:
    """A change for many is told in slices, and everybody is told."""

    async def body(rig: Rig, driver: PushDriver, server: FakeServer, turns: Turns) -> None:
        followers = [Follower(rig) for _ in range(2 * limits.FAN_OUT_SLICE + 10)]
        for follower in followers:
            follower.subscribe(ORDERS)
            follower.catch_up()
        await asyncio.sleep(0.001)
        turns.most = 0
        session = rig.hello("a", Wire("1"))[0]
        request = native_pb2.RegisterRequest()
        request.registrations.add(service=key_to_wire(ORDERS), instance=instance("x"))
        rig.register(session, request, Answer())
        rig.commit()
        driver.wake()
        while not all(follower.agrees(ORDERS) for follower in followers):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert 0 < turns.most <= limits.FAN_OUT_SLICE

    driven(body)
