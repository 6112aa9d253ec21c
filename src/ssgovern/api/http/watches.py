"""Requests that wait until a service changes: how many there are, and that they end.

Knows no service. Invariant: once stopped, nobody waits any more and nobody begins to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ssgovern import limits
from ssgovern.errors import OverloadedError, ShuttingDownError


class Watches:
    """All requests of a port that wait."""

    def __init__(self, watches_max: int = limits.HTTP_WATCHES_MAX) -> None:
        self._watches_max = watches_max
        self._waiting: dict[asyncio.Event, None] = {}
        self.stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def one_more(self, wakeup: asyncio.Event) -> Iterator[None]:
        """Be among those who wait; `wakeup` is set when all have to end. As `check_room`."""
        self.check_room()
        self._waiting[wakeup] = None
        try:
            yield
        finally:
            del self._waiting[wakeup]

    def check_room(self) -> None:
        """Raise OverloadedError if there are as many as may be, ShuttingDownError."""
        if self.stopping:
            raise ShuttingDownError("this node is stopping")
        if len(self._waiting) >= self._watches_max:
            raise OverloadedError("as many requests wait for changes at this node as may")

    def stop(self) -> None:
        """Have everybody who waits end."""
        self.stopping = True
        for wakeup in self._waiting:
            wakeup.set()
