"""Following services without an event loop: changes come by iteration, waiting for each.

The list of a subscription that was closed stays readable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ssgovern.blocking.thread import LoopThread
from ssgovern.client.balancer import Strategy
from ssgovern.client.subscription import PrefixSubscription as AsyncPrefixSubscription
from ssgovern.client.subscription import Subscription as AsyncSubscription
from ssgovern.client.values import Change
from ssgovern.errors import ClosedError
from ssgovern.model import Instance

T = TypeVar("T")
S = TypeVar("S", AsyncSubscription, AsyncPrefixSubscription)


class _Following(Generic[S]):
    """What subscriptions to one service and to many have in common."""

    def __init__(self, thread: LoopThread, make: Callable[[], S]) -> None:
        self._thread = thread
        self._inner: S = thread.look(make)

    def __repr__(self) -> str:
        return self._thread.look(self._inner.__repr__)

    @property
    def is_current(self) -> bool:
        """Whether a node keeps the list up to date at present."""
        return self._thread.look(lambda: self._inner.is_current)

    @property
    def stale_since(self) -> datetime | None:
        """Since when the list may be out of date: None while it is current."""
        return self._thread.look(lambda: self._inner.stale_since)

    def open(self) -> None:
        """Start to follow; `with` calls it."""
        self._thread.call(self._inner.open())

    def close(self) -> None:
        """Stop following. The last list stays readable; iteration ends."""
        self._thread.look(self._inner.close)

    def next_change(self, timeout: float | None = None) -> Change | None:
        """Wait for the next change; None: closed. Raises TimeoutError; nothing is lost then."""
        try:
            return self._thread.call(within(timeout, self._inner.next_change))
        except ClosedError:
            return None

    def __iter__(self) -> Iterator[Change]:
        while (change := self.next_change()) is not None:
            yield change

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Subscription(_Following[AsyncSubscription]):
    """See `ssgovern.Subscription`."""

    @property
    def service(self) -> str:
        """Name of the service."""
        return self._inner.service

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The last good list, in the order of ids."""
        return self._thread.look(lambda: self._inner.instances)

    @property
    def revision(self) -> int:
        """Revision the list stands for."""
        return self._thread.look(lambda: self._inner.revision)

    def choose(self, strategy: Strategy | str | None = None) -> Instance:
        """Return the instance for the next call. Raises NotFoundError."""
        return self._thread.look(lambda: self._inner.choose(strategy))

    def report_failure(self, instance: Instance) -> None:
        """Say that a call to an instance failed: `choose` passes it over for a while."""
        self._thread.look(lambda: self._inner.report_failure(instance))

    def report_success(self, instance: Instance) -> None:
        """Say that a call succeeded: its failures are forgotten."""
        self._thread.look(lambda: self._inner.report_success(instance))


class PrefixSubscription(_Following[AsyncPrefixSubscription]):
    """See `ssgovern.PrefixSubscription`."""

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the services that have instances, sorted."""
        return self._thread.look(lambda: self._inner.services)

    def instances(self, service: str) -> tuple[Instance, ...]:
        """Return the last good list of a service; empty if none is known."""
        return self._thread.look(lambda: self._inner.instances(service))


async def within(timeout: float | None, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait on the loop itself: a wait that ends there takes nothing from a queue unseen."""
    async with asyncio.timeout(timeout):
        return await wait()
