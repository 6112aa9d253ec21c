"""A caller's hold on the lists it follows: read them, wait for changes, choose an instance.

Knows the watch behind it and nothing of connections. Invariants: what `instances` shows is
always the last good list, also before the node answered, while it is away and after the
subscription was closed; the changes that iteration yields lead from the list at entry to the
present one, merged if the caller is slow; the queue of changes is bounded.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Self, TypeVar

from ssgovern.client.balancer import Balancer, Strategy
from ssgovern.client.changes import ChangeQueue
from ssgovern.client.values import Change
from ssgovern.client.watches import Watch, Watches
from ssgovern.errors import ClosedError, NotFoundError, UnavailableError
from ssgovern.model import Instance, LogPosition, Pattern, ServiceKey
from ssgovern.runtime import Runtime

T = TypeVar("T", ServiceKey, Pattern)

CACHE_GRACE_S = 1.0
"""How long a subscription waits for a node before it starts from the list kept on disk."""


class _Following(Generic[T]):
    """What subscriptions to one service and to many have in common."""

    def __init__(self, watches: Watches, target: T, runtime: Runtime, timeout_s: float) -> None:
        self._watches = watches
        self._target: T = target
        self._runtime = runtime
        # Its time is looked at even when it no longer runs: lists outlive the client.
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._watch: Watch | None = None
        self._queue = ChangeQueue()
        self._wakeup = asyncio.Event()
        self._closed = False
        self._stale_since_ms: int | None = None

    def __repr__(self) -> str:
        state = "current" if self.is_current else "stale"
        return f"<{type(self).__name__} {self._target} {state} changes={len(self._queue)}>"

    @property
    def is_current(self) -> bool:
        """Whether a node keeps the list up to date at present."""
        return not self._closed and self._watch is not None and self._watch.is_current

    @property
    def stale_since(self) -> datetime | None:
        """Since when the list may be out of date: None while it is current.

        For a list that was kept on disk, the time at which it was written.
        """
        if self.is_current:
            return None
        ms = self._stale_since_ms
        if ms is None:
            ms = self._watch.stale_since_ms if self._watch is not None else None
        return datetime.fromtimestamp((ms or 0) / 1000.0, UTC)

    async def open(self) -> None:
        """Start to follow. Returns when the list is there: `async with` calls it.

        With a list kept on disk it waits for a node only a short while. Raises
        UnavailableError if there is no list to start from, or the node's refusal.
        """
        if self._closed or self._watch is not None:
            raise ClosedError("a subscription is opened once; subscribe again")
        watch = self._watch = self._watches.open(self._target, self)
        try:
            timeout_s = min(CACHE_GRACE_S, self._timeout_s) if watch.is_loaded else self._timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    await watch.settled.wait()
            except TimeoutError:
                if not watch.is_loaded:
                    raise UnavailableError(
                        f"{self._target}: no node told its list within {timeout_s:g} s and none "
                        "is kept on disk"
                    ) from None
            if watch.error is not None:
                raise watch.error
        except BaseException:
            self.close()
            raise
        self._queue.clear()

    def close(self) -> None:
        """Stop following. The last list stays readable; iteration ends."""
        if self._closed:
            return
        self._closed = True
        watch = self._watch
        if watch is not None:
            self._stale_since_ms = (
                self._runtime.wall_ms() if watch.is_current else watch.stale_since_ms
            )
            self._watches.release(watch, self)
        self._wakeup.set()

    async def next_change(self) -> Change | None:
        """Wait for the next change; None: the subscription or the client was closed.

        Raises the node's error if it ended the subscription.
        """
        assert self._watch is not None, "enter the subscription before reading its changes"
        while True:
            change = self._queue.pop()
            if change is not None:
                return change
            error = self._watch.error
            if self._closed or isinstance(error, ClosedError):
                return None
            if error is not None:
                raise error
            self._wakeup.clear()
            await self._wakeup.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        change = await self.next_change()
        if change is None:
            raise StopAsyncIteration
        return change

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- Reader ----------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Take a change from the watch."""
        self._queue.put(change)
        self._wakeup.set()

    def on_ended(self) -> None:
        """Hear that the watch failed or the client was closed."""
        self._wakeup.set()


class Subscription(_Following[ServiceKey]):
    """The instances of one service, kept up to date."""

    def __init__(
        self,
        watches: Watches,
        target: ServiceKey,
        runtime: Runtime,
        *,
        timeout_s: float,
        zone: str,
        strategy: Strategy,
    ) -> None:
        super().__init__(watches, target, runtime, timeout_s)
        self._balancer = Balancer(runtime.rng, strategy, zone=zone)

    @property
    def key(self) -> ServiceKey:
        """The full name of the service."""
        return self._target

    @property
    def service(self) -> str:
        """Name of the service."""
        return self._target.service

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The last good list, in the order of ids; the same object until it changes."""
        return () if self._watch is None else self._watch.views[self._target].instances

    @property
    def position(self) -> LogPosition:
        """Epoch and revision the list stands for."""
        return (
            LogPosition(0, 0) if self._watch is None else self._watch.views[self._target].position
        )

    @property
    def revision(self) -> int:
        """Revision the list stands for."""
        return self.position.revision

    def choose(self, strategy: Strategy | str | None = None) -> Instance:
        """Return the instance for the next call, by the subscription's strategy or this one.

        If no instance is available, one that is merely unhealthy is returned rather than none;
        raises NotFoundError if there is not even that.
        """
        now_s = self._loop.time()
        picked = self._balancer.choose(
            self.instances, now_s, None if strategy is None else Strategy(strategy)
        )
        if picked is None:
            raise NotFoundError(
                f"{self._target}: none of {len(self.instances)} instances takes traffic",
                service=self._target.service,
            )
        return picked

    def report_failure(self, instance: Instance) -> None:
        """Say that a call to an instance failed: `choose` passes it over for a while."""
        self._balancer.report_failure(instance.id, self._loop.time())

    def report_success(self, instance: Instance) -> None:
        """Say that a call succeeded: its failures are forgotten."""
        self._balancer.report_success(instance.id)


class PrefixSubscription(_Following[Pattern]):
    """The instances of all services whose names start with a prefix, kept up to date."""

    def __init__(
        self, watches: Watches, target: Pattern, runtime: Runtime, *, timeout_s: float
    ) -> None:
        super().__init__(watches, target, runtime, timeout_s)

    @property
    def pattern(self) -> Pattern:
        """What is followed."""
        return self._target

    @property
    def services(self) -> tuple[str, ...]:
        """Names of the services that have instances, sorted."""
        views = {} if self._watch is None else self._watch.views
        return tuple(sorted(key.service for key, view in views.items() if view.instances))

    def instances(self, service: str) -> tuple[Instance, ...]:
        """Return the last good list of a service; empty if none is known."""
        key = ServiceKey(self._target.namespace, self._target.group, service)
        view = None if self._watch is None else self._watch.views.get(key)
        return () if view is None else view.instances
