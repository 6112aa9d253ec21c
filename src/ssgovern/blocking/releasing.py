"""How far changes have got, for callers without an event loop."""

from __future__ import annotations

from ssgovern.blocking.thread import LoopThread
from ssgovern.client import registry as client
from ssgovern.client.releasing import OnDelivery
from ssgovern.client.subscribers import Delivery, Release, ServiceSubscribers
from ssgovern.model import DEFAULT_GROUP, LogPosition


class Releasing:
    """See `ssgovern.Registry`. Of `on_progress`: it is called in the client's own thread."""

    def _opened(self) -> tuple[LoopThread, client.Registry]:
        raise NotImplementedError

    def subscribers(
        self, service: str, *, group: str = DEFAULT_GROUP, timeout: float | None = None
    ) -> ServiceSubscribers:
        """Ask all nodes who follows a service and what each has applied."""
        thread, inner = self._opened()
        return thread.call(inner.subscribers(service, group=group, timeout=timeout))

    def await_applied(
        self,
        service: str,
        position: LogPosition,
        *,
        group: str = DEFAULT_GROUP,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Delivery:
        """Wait until every live subscriber of a service has applied a position."""
        thread, inner = self._opened()
        return thread.call(
            inner.await_applied(
                service, position, group=group, timeout=timeout, on_progress=on_progress
            )
        )

    def release(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Release:
        """Remove an instance and wait until every live subscriber knows that it is gone."""
        thread, inner = self._opened()
        return thread.call(
            inner.release(
                service,
                instance_id,
                group=group,
                any_owner=any_owner,
                timeout=timeout,
                on_progress=on_progress,
            )
        )

    def drain(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        deregister: bool = False,
        grace: float = 0.0,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Release:
        """Take an instance out of traffic and wait until every live subscriber knows."""
        thread, inner = self._opened()
        return thread.call(
            inner.drain(
                service,
                instance_id,
                group=group,
                any_owner=any_owner,
                deregister=deregister,
                grace=grace,
                timeout=timeout,
                on_progress=on_progress,
            )
        )
