"""The client for callers without an event loop: `ssgovern.Registry`, waiting for each result.

Leaving the program closes what is still open, so that ephemeral instances go at once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from ssgovern.blocking.administration import Administration
from ssgovern.blocking.observing import Observing
from ssgovern.blocking.registration import Registration
from ssgovern.blocking.releasing import Releasing
from ssgovern.blocking.subscription import PrefixSubscription, Subscription
from ssgovern.blocking.thread import CLOSE_TIMEOUT_S, LoopThread
from ssgovern.client import registry as client
from ssgovern.client.balancer import Strategy
from ssgovern.client.tls import TlsOption
from ssgovern.client.values import ConnectionState, NodeStatus, ServiceSummary
from ssgovern.errors import ClosedError, SsGovernError
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE, Instance, Status
from ssgovern.runtime import Runtime


class Registry(Administration, Observing, Releasing):
    """See `ssgovern.Registry`. Made by `connect`, used with `with`."""

    def __init__(self, make: Callable[[], client.Registry]) -> None:
        self._make = make
        self._thread: LoopThread | None = None
        self._inner: client.Registry | None = None

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>" if self._inner else "<blocking Registry not open>"

    # --- its life --------------------------------------------------------------------------

    def open(self) -> None:
        """Start to connect; `with` calls it."""
        assert self._thread is None, "a registry is opened once; connect again"
        thread = LoopThread()
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

    def _opened(self) -> tuple[LoopThread, client.Registry]:
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
    tls: TlsOption = False,
    token: str | None = None,
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
            tls=tls,
            token=token,
        )
    )
