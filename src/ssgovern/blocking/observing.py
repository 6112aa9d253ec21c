"""Looking on without an event loop: sessions, and what happens, waiting for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from ssgovern import limits
from ssgovern.blocking.subscription import within
from ssgovern.blocking.thread import LoopThread
from ssgovern.client import registry as client
from ssgovern.client.event_feed import EventFeed as AsyncEventFeed
from ssgovern.client.observed import Event, EventPage, SessionPage
from ssgovern.errors import ClosedError


class EventFeed:
    """See `ssgovern.EventFeed`."""

    def __init__(self, thread: LoopThread, make: Callable[[], AsyncEventFeed]) -> None:
        self._thread = thread
        self._inner = thread.look(make)

    def __repr__(self) -> str:
        return self._thread.look(self._inner.__repr__)

    def open(self) -> None:
        """Start to follow; `with` calls it."""
        self._thread.call(self._inner.open())

    def close(self) -> None:
        """Stop following; iteration ends."""
        self._thread.call(self._inner.close())

    def next_event(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event; None: closed. Raises TimeoutError; nothing is lost then."""
        try:
            return self._thread.call(within(timeout, self._inner.next_event))
        except ClosedError:
            return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next_event()) is not None:
            yield event

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


class Observing:
    """The part of the blocking `Registry` that is for looking on."""

    def _opened(self) -> tuple[LoopThread, client.Registry]:
        raise NotImplementedError

    def sessions(
        self,
        *,
        id_prefix: str = "",
        client_name: str = "",
        after: str = "",
        limit: int = limits.SESSIONS_PAGE_MAX,
        timeout: float | None = None,
    ) -> SessionPage:
        """Return a page of the sessions that nodes know."""
        thread, inner = self._opened()
        return thread.call(
            inner.sessions(
                id_prefix=id_prefix,
                client_name=client_name,
                after=after,
                limit=limit,
                timeout=timeout,
            )
        )

    def events(
        self,
        service: str = "",
        *,
        group: str = "",
        all_namespaces: bool = False,
        cluster: bool = False,
        limit: int = 100,
        timeout: float | None = None,
    ) -> EventPage:
        """Return the newest events that nodes remember, oldest first."""
        thread, inner = self._opened()
        return thread.call(
            inner.events(
                service,
                group=group,
                all_namespaces=all_namespaces,
                cluster=cluster,
                limit=limit,
                timeout=timeout,
            )
        )

    def follow_events(
        self,
        service: str = "",
        *,
        group: str = "",
        all_namespaces: bool = False,
        cluster: bool = False,
        limit: int = 0,
    ) -> EventFeed:
        """Follow what happens: `with` it. Begins with the newest `limit`."""
        thread, inner = self._opened()
        return EventFeed(
            thread,
            lambda: inner.follow_events(
                service,
                group=group,
                all_namespaces=all_namespaces,
                cluster=cluster,
                limit=limit,
            ),
        )
