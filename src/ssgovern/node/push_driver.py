"""The one task that writes to subscribers.

Changes go out as they commit, in slices, so that ten thousand subscribers do not keep the loop
from hearing heartbeats; subscribers that lack something are brought up to date between them, and
asked what they have applied when somebody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from ssgovern import limits
from ssgovern.api.native.server import NativeServer
from ssgovern.node.histogram import Histogram
from ssgovern.registry.state import Change
from ssgovern.service.push import PushService

_LOOK_S = 0.1
"""How often who waits for subscribers is looked at, besides when something happens."""
_DELAYS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class PushDriver:
    """Owner of the `PushService`'s output."""

    def __init__(self, push: PushService) -> None:
        self._push = push
        self.clock: Callable[[], float] = asyncio.get_running_loop().time
        self.delays = Histogram(_DELAYS_S)
        """From a commit to the sockets of those who were up to date. Others catch up later."""
        self.applied_delays = Histogram(_DELAYS_S)
        """From a commit until a subscriber had applied it, of those who say so in time."""
        self._wake = asyncio.Event()
        push.applied.wake = self._wake.set
        push.applied.on_delay = self.applied_delays.observe

    def wake(self) -> None:
        """There is something to tell somebody."""
        self._wake.set()

    def offer(self, changes: list[Change]) -> None:
        """Take committed changes."""
        if self._push.offer(changes, self.clock()):
            self._wake.set()

    async def run(self, server: NativeServer) -> None:
        """Tell, for ever."""
        loop, applied = asyncio.get_running_loop(), self._push.applied
        while True:
            await self._woken()
            while await self._tell_change() or await self._catch_up(server):
                pass
            if applied.waits:
                applied.look(loop.time())
                while applied.ask_some():
                    await asyncio.sleep(0)

    async def _woken(self) -> None:
        if not self._push.applied.waits:
            await self._wake.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
        self._wake.clear()

    async def _tell_change(self) -> bool:
        telling = self._push.next_change()
        if telling is None:
            return False
        change, frames, audience = telling
        tell = self._push.tell
        for start in range(0, len(audience), limits.FAN_OUT_SLICE):
            if start:
                await asyncio.sleep(0)
            told = audience[start : start + limits.FAN_OUT_SLICE]
            for subscriber in told:
                tell(subscriber, change, frames)
            self.delays.observe(self.clock() - change.offered_s, len(told))
        return True

    async def _catch_up(self, server: NativeServer) -> bool:
        if not server.lacking:
            return False
        pushed_before = self._push.pushes
        for connection in list(islice(server.lacking, limits.FAN_OUT_SLICE)):
            del server.lacking[connection]
            if self._push.catch_up(connection):
                # To the end of the line: one with much to learn must not hold up the others.
                server.lacking[connection] = None
                break
            if self._push.pushes - pushed_before >= limits.CATCH_UP_SLICE:
                break
        await asyncio.sleep(0)
        return True
