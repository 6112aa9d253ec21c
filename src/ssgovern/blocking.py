"""The SDK without `async`: the same calls, each waiting for its result.

A thread of its own runs the asynchronous client; any number of threads may call. Invariants:
`close` ends the thread, whatever state the client is in; a call that is interrupted leaves
nothing behind; leaving the program closes what is still open, so that ephemeral instances go at
once.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ssgovern.client import registry as client
from ssgovern.client.balancer import Strategy
from ssgovern.client.registration import Registration as AsyncRegistration
from ssgovern.client.subscription import PrefixSubscription as AsyncPrefixSubscription
from ssgovern.client.subscription import Subscription as AsyncSubscription
from ssgovern.client.values import (
    Change,
    ClusterStatus,
    ConnectionState,
    NodeStatus,
    ServiceSummary,
)
from ssgovern.errors import ClosedError, SsGovernError
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE, Instance, ServiceKey, Status
from ssgovern.runtime import Runtime

T = TypeVar("T")
S = TypeVar("S", AsyncSubscription, AsyncPrefixSubscription)

CLOSE_TIMEOUT_S = 10.0
_TURNS_TO_END = 1000
"""Turns of the loop that cancelled tasks get to end in."""


class _LoopThread:
    """A thread that runs an event loop until `end`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._gate = threading.Lock()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="ssgovern client", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def check_caller(self) -> None:
        """Raise if the caller would wait for ever: for itself, or for a thread it has not."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call from within a callback would wait for itself")
        if os.getpid() != self._process:
            raise ClosedError(
                "the client belongs to the process this one was forked from; connect again here"
            )

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; TimeoutError cancels it."""
        try:
            # Before the gate: when the process forked, another thread may have held it.
            self.check_caller()
        except BaseException:
            coroutine.close()
            raise
        with self._gate:
            if self._ending:
                coroutine.close()
                raise ClosedError("the client was closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise ClosedError("the client was closed") from None
        finally:
            # Interrupted or out of time: nobody waits for it any more.
            future.cancel()

    def look(self, function: Callable[[], T]) -> T:
        """Run a function on the loop, where nothing changes meanwhile, and return its result.

        After the end there is no loop, and nothing changes any more either.
        """

        async def looked() -> T:
            return function()

        if not self._ending:
            try:
                return self.call(looked())
            except ClosedError:
                # Ended by another thread meanwhile, or what `function` itself has to say.
                if not self._ending:
                    raise
        self._thread.join(CLOSE_TIMEOUT_S)
        return function()

    def end(self) -> None:
        """Cancel what is left, stop the loop and wait for the thread."""
        with self._gate:
            # What was handed over before is on the loop and will be cancelled there.
            if not self._ending:
                self._ending = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._cancel_all()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            self._loop.close()

    def _cancel_all(self) -> None:
        cancelled: dict[asyncio.Task[Any], None] = {}
        for _ in range(_TURNS_TO_END):
            left = [task for task in asyncio.all_tasks(self._loop) if not task.done()]
            if not left:
                return
            for task in sorted(left, key=asyncio.Task.get_name):
                if task not in cancelled:
                    cancelled[task] = None
                    task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))


class Registration:
    """See `ssgovern.Registration`."""

    def __init__(self, thread: _LoopThread, registration: AsyncRegistration) -> None:
        self._thread = thread
        self._registration = registration

    def __repr__(self) -> str:
        return repr(self._registration)

    @property
    def key(self) -> ServiceKey:
        """The full name of the service."""
        return self._registration.key

    @property
    def instance(self) -> Instance:
        """The instance as last registered or updated through this object."""
        return self._registration.instance

    @property
    def revision(self) -> int:
        """The shard's revision of that."""
        return self._registration.revision

    def deregister(self, *, timeout: float | None = None) -> bool:
        """Remove the instance; return whether it was still there."""
        return self._thread.call(self._registration.deregister(timeout=timeout))

    def update(
        self,
        *,
        weight: float | None = None,
        status: Status | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        metadata_set: Mapping[str, str] | None = None,
        metadata_remove: Iterable[str] = (),
        timeout: float | None = None,
    ) -> Instance:
        """Change fields of the instance."""
        return self._thread.call(
            self._registration.update(
                weight=weight,
                status=status,
                enabled=enabled,
                metadata=metadata,
                metadata_set=metadata_set,
                metadata_remove=metadata_remove,
                timeout=timeout,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.deregister()


class _Following(Generic[S]):
    """What subscriptions to one service and to many have in common."""

    def __init__(self, thread: _LoopThread, make: Callable[[], S]) -> None:
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
            return self._thread.call(_within(timeout, self._inner.next_change))
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


class Registry:
    """See `ssgovern.Registry`. Made by `connect`, used with `with`."""

    def __init__(self, make: Callable[[], client.Registry]) -> None:
        self._make = make
        self._thread: _LoopThread | None = None
        self._inner: client.Registry | None = None

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>" if self._inner else "<blocking Registry not open>"

    # --- its life --------------------------------------------------------------------------

    def open(self) -> None:
        """Start to connect; `with` calls it."""
        assert self._thread is None, "a registry is opened once; connect again"
        thread = _LoopThread()
        try:
            self._inner = thread.look(self._make)
            thread.call(self._inner.open())
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        atexit.register(self.close)

    def close(self) -> None:
        """End the session and the thread. In a process forked from its own: nothing."""
        thread, inner = self._thread, self._inner
        if thread is None or inner is None or not thread.is_alive:
            atexit.unregister(self.close)
            return
        thread.check_caller()
        atexit.unregister(self.close)
        try:
            # Another thread may be doing the same, and be through with it first.
            with contextlib.suppress(ClosedError):
                thread.call(inner.close(), CLOSE_TIMEOUT_S)
        finally:
            thread.end()

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

    def _opened(self) -> tuple[_LoopThread, client.Registry]:
        if self._thread is None or self._inner is None:
            raise ClosedError("the client is not open; use it with `with`")
        return self._thread, self._inner

    @property
    def connection(self) -> ConnectionState:
        """Whether there is a node to talk to, and since when it is so."""
        return self._opened()[1].connection

    def wait_connected(self, *, timeout: float | None = None) -> ConnectionState:
        """Wait until there is a node to talk to. Raises UnavailableError."""
        thread, inner = self._opened()
        return thread.call(inner.wait_connected(timeout=timeout))

    # --- registering -----------------------------------------------------------------------

    def register(
        self,
        service: str,
        *,
        port: int,
        host: str | None = None,
        instance_id: str | None = None,
        group: str = DEFAULT_GROUP,
        ephemeral: bool = True,
        weight: float = 100.0,
        zone: str | None = None,
        version: str = "",
        metadata: Mapping[str, str] | None = None,
        status: Status = Status.UP,
        timeout: float | None = None,
    ) -> Registration:
        """Register an instance of this process and keep it registered until `close`."""
        thread, inner = self._opened()
        return Registration(
            thread,
            thread.call(
                inner.register(
                    service,
                    port=port,
                    host=host,
                    instance_id=instance_id,
                    group=group,
                    ephemeral=ephemeral,
                    weight=weight,
                    zone=zone,
                    version=version,
                    metadata=metadata,
                    status=status,
                    timeout=timeout,
                )
            ),
        )

    def register_all(
        self,
        instances: Iterable[tuple[str, Instance]],
        *,
        group: str = DEFAULT_GROUP,
        timeout: float | None = None,
    ) -> list[Registration | SsGovernError]:
        """Register pairs of service and instance in few requests; one outcome for each."""
        thread, inner = self._opened()
        wanted = list(instances)
        return [
            outcome if isinstance(outcome, SsGovernError) else Registration(thread, outcome)
            for outcome in thread.call(inner.register_all(wanted, group=group, timeout=timeout))
        ]

    def deregister(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        if_revision: int = 0,
        timeout: float | None = None,
    ) -> bool:
        """Remove an instance; return whether there was one."""
        thread, inner = self._opened()
        return thread.call(
            inner.deregister(
                service,
                instance_id,
                group=group,
                any_owner=any_owner,
                if_revision=if_revision,
                timeout=timeout,
            )
        )

    def update(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        weight: float | None = None,
        status: Status | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        metadata_set: Mapping[str, str] | None = None,
        metadata_remove: Iterable[str] = (),
        any_owner: bool = False,
        if_revision: int = 0,
        timeout: float | None = None,
    ) -> Instance:
        """Change fields of an instance and return it as it is now."""
        thread, inner = self._opened()
        return thread.call(
            inner.update(
                service,
                instance_id,
                group=group,
                weight=weight,
                status=status,
                enabled=enabled,
                metadata=metadata,
                metadata_set=metadata_set,
                metadata_remove=metadata_remove,
                any_owner=any_owner,
                if_revision=if_revision,
                timeout=timeout,
            )
        )

    # --- discovering -----------------------------------------------------------------------

    def get(
        self,
        service: str,
        *,
        group: str = DEFAULT_GROUP,
        stale_ok: bool = False,
        timeout: float | None = None,
    ) -> tuple[Instance, ...]:
        """Read the instances of a service from a node."""
        thread, inner = self._opened()
        return thread.call(inner.get(service, group=group, stale_ok=stale_ok, timeout=timeout))

    def services(
        self, prefix: str = "", *, group: str | None = None, timeout: float | None = None
    ) -> list[ServiceSummary]:
        """List the services that have instances; `group` None: of all groups."""
        thread, inner = self._opened()
        return thread.call(inner.services(prefix, group=group, timeout=timeout))

    def subscribe(
        self,
        service: str,
        *,
        group: str = DEFAULT_GROUP,
        strategy: Strategy | str = Strategy.WEIGHTED_RANDOM,
        zone: str | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Follow a service: `with` it."""
        thread, inner = self._opened()
        return Subscription(
            thread,
            lambda: inner.subscribe(
                service, group=group, strategy=strategy, zone=zone, timeout=timeout
            ),
        )

    def subscribe_prefix(
        self, prefix: str, *, group: str = DEFAULT_GROUP, timeout: float | None = None
    ) -> PrefixSubscription:
        """Follow all services of a group whose names start with a prefix."""
        thread, inner = self._opened()
        return PrefixSubscription(
            thread, lambda: inner.subscribe_prefix(prefix, group=group, timeout=timeout)
        )

    def status(self, *, timeout: float | None = None) -> NodeStatus:
        """Ask the node about itself."""
        thread, inner = self._opened()
        return thread.call(inner.status(timeout=timeout))

    def cluster_status(
        self, shards: bool = False, *, timeout: float | None = None
    ) -> ClusterStatus:
        """Ask a node about the cluster; with `shards` also who keeps each of them."""
        thread, inner = self._opened()
        return thread.call(inner.cluster_status(shards, timeout=timeout))


def connect(
    addresses: str | Sequence[str] = "127.0.0.1:7420",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    client_name: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    zone: str = "",
    timeout: float = 10.0,
    on_connection: client.OnConnection | None = None,
    runtime: Runtime | None = None,
) -> Registry:
    """Return a client of the registry, to be used with `with`. See `ssgovern.connect`.

    `on_connection` is called in the client's own thread.
    """
    return Registry(
        lambda: client.connect(
            addresses,
            namespace=namespace,
            client_name=client_name,
            cache_dir=cache_dir,
            zone=zone,
            timeout=timeout,
            on_connection=on_connection,
            runtime=runtime,
        )
    )


async def _within(timeout: float | None, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait on the loop itself: a wait that ends there takes nothing from a queue unseen."""
    async with asyncio.timeout(timeout):
        return await wait()
