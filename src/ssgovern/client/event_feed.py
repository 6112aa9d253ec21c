"""Following what happens in the whole cluster, across failovers, each event once.

One task for each live node asks it for what is behind what it told, and waits there. Nodes come
and go; what a node remembers of the time before this began is not told. Invariants: what waits
for a reader is bounded, and nodes are not asked for more until there is room; where something is
forgotten by all nodes before it was read, the reader is told that something is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from types import TracebackType
from typing import Self

from ssgovern import limits
from ssgovern.client.asking import ask_all, ask_node, live_nodes
from ssgovern.client.observed import Event, EventKind, Heard, event_of, in_order, merged
from ssgovern.client.session import Session
from ssgovern.errors import ClosedError, SsGovernError, UnsupportedTypeError
from ssgovern.model import ORIGIN, NodeId
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

WAIT_MS = 10_000
ANSWER_MARGIN_S = 5.0
OPEN_TIMEOUT_S = 10.0
UNSUPPORTED_PAUSE_S = 60.0
LOOK_S = 1.0
"""How often it is looked whether there are other nodes, and the pause after a failure."""


class _Cursor:
    """Up to where one node was heard."""

    __slots__ = ("after", "after_index", "life")

    def __init__(self) -> None:
        self.life = b""
        self.after = 0
        self.after_index = 0

    def take(self, answer: native_pb2.EventsResponse) -> None:
        self.life, self.after, self.after_index = answer.life, answer.last, answer.last_index


class EventFeed:
    """What happens from now on. Use with `async with`; iterate, or call `next_event`."""

    def __init__(self, session: Session, request: native_pb2.EventsRequest, newest: int) -> None:
        self._session = session
        self._request = request
        self._newest = newest
        self._cursors: dict[NodeId, _Cursor] = {}
        self._polled: dict[NodeId, None] = {}
        self._heard = Heard()
        self._queue: deque[Event] = deque()
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._began_ms = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<EventFeed nodes={len(self._polled)} waiting={len(self._queue)}>"

    # --- its life --------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what there is and start to follow. Raises if no node answers."""
        assert self._task is None, "a feed is opened once"
        loop = asyncio.get_running_loop()
        request = self._asked(_Cursor())
        request.newest = True
        request.limit = max(1, self._newest)
        request.wait_ms = 0
        self._began_ms = self._session.runtime.wall_ms()
        answers, _ = await ask_all(
            self._session,
            MessageType.EVENTS,
            request,
            native_pb2.EventsResponse,
            loop.time() + OPEN_TIMEOUT_S,
        )
        for answer in answers:
            self._cursors.setdefault(NodeId(answer.node_id), _Cursor()).take(answer)
        found = merged([event_of(said) for said in answer.events] for answer in answers)
        for event in found:
            self._heard.take(event)
        self._put(found[-self._newest :] if self._newest else [])
        self._task = loop.create_task(self._run(), name="ssgovern events")
        self._task.add_done_callback(self._on_ended)

    async def close(self) -> None:
        """Stop following; iteration ends."""
        self._closed = True
        self._came.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            done = asyncio.Event()
            self._task.add_done_callback(lambda _: done.set())
            await done.wait()

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        self._closed = True
        self._came.set()
        if not task.cancelled() and (failure := task.exception()) is not None:
            _logger.critical("following events ended", exc_info=failure)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- reading ---------------------------------------------------------------------------

    async def next_event(self) -> Event:
        """Wait for the next event. Raises ClosedError."""
        while not self._queue:
            if self._closed:
                raise ClosedError("the events are followed no longer")
            self._came.clear()
            await self._came.wait()
        event = self._queue.popleft()
        if len(self._queue) < limits.CLIENT_EVENTS_QUEUED_MAX:
            self._room.set()
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.next_event()
        except ClosedError:
            raise StopAsyncIteration from None

    # --- following -------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._poll_new_nodes(group)
                    await asyncio.sleep(LOOK_S)
        except* ClosedError as errors:
            # Whoever reads is told by the end of it.
            _logger.debug("the client was closed: %s", errors)

    async def _poll_new_nodes(self, group: asyncio.TaskGroup) -> None:
        deadline = asyncio.get_running_loop().time() + OPEN_TIMEOUT_S
        try:
            nodes = await live_nodes(self._session, deadline)
        except ClosedError:
            raise
        except SsGovernError as error:
            _logger.debug("no node to follow events at: %s", error)
            return
        for node in nodes:
            if node not in self._polled:
                self._polled[node] = None
                group.create_task(self._poll(node), name=f"ssgovern events of {node}")

    async def _poll(self, node: NodeId) -> None:
        """Ask one node for as long as the map calls it live."""
        cursor = self._cursors.setdefault(node, _Cursor())
        loop = asyncio.get_running_loop()
        try:
            while self._is_live(node):
                await self._room.wait()
                try:
                    answer = await ask_node(
                        self._session,
                        node,
                        MessageType.EVENTS,
                        self._asked(cursor),
                        native_pb2.EventsResponse,
                        loop.time() + WAIT_MS / 1000.0 + ANSWER_MARGIN_S,
                    )
                except ClosedError:
                    raise
                except UnsupportedTypeError:
                    _logger.info("node %d does not know of events", node)
                    await asyncio.sleep(UNSUPPORTED_PAUSE_S)
                except SsGovernError as error:
                    _logger.debug("no events of node %d: %s", node, error)
                    await asyncio.sleep(LOOK_S)
                else:
                    self._take(cursor, answer)
        finally:
            del self._polled[node]

    def _is_live(self, node: NodeId) -> bool:
        found = self._session.map.nodes.get(node)
        return found is not None and (found.live or self._session.map.is_single)

    def _asked(self, cursor: _Cursor) -> native_pb2.EventsRequest:
        request = native_pb2.EventsRequest()
        request.CopyFrom(self._request)
        request.life, request.after = cursor.life, cursor.after
        request.after_index = cursor.after_index
        request.wait_ms = WAIT_MS
        return request

    def _take(self, cursor: _Cursor, answer: native_pb2.EventsResponse) -> None:
        same_life = answer.life == cursor.life
        cursor.take(answer)
        # A node that came, or came back, tells all that it remembers.
        since_ms = 0 if same_life else self._began_ms
        events = [event_of(said) for said in answer.events if said.time_ms >= since_ms]
        news = in_order(event for event in events if self._heard.take(event))
        if answer.lost:
            news.insert(0, Event(EventKind.MISSED, 0, ORIGIN))
        self._put(news)

    def _put(self, events: list[Event]) -> None:
        self._queue.extend(events)
        if events:
            self._came.set()
        if len(self._queue) >= limits.CLIENT_EVENTS_QUEUED_MAX:
            self._room.clear()
