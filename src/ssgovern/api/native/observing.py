"""Questions of people who look on: which sessions there are, and what happened lately.

Translates and decides nothing; who waits for an event is looked after a few times a second, by a
timer that runs only while somebody waits. Invariant: every request that waits is answered once,
at its time at the latest, unless its connection is gone.
"""

from __future__ import annotations

import asyncio

from ssgovern import limits
from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.errors import OverloadedError
from ssgovern.model import NodeId
from ssgovern.registry.sessions import Connection, Session
from ssgovern.service.events import EventReads
from ssgovern.service.observing import SessionReads, Speaker
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


class _Waiting:
    """A request that found nothing so far."""

    __slots__ = ("connection", "request", "request_id", "until_ms")

    def __init__(
        self,
        connection: NativeConnection,
        request_id: int,
        request: native_pb2.EventsRequest,
        until_ms: float,
    ) -> None:
        self.connection = connection
        self.request_id = request_id
        self.request = request
        self.until_ms = until_ms


class Observing:
    """What one node tells of its sessions and its recent past. Owned by the native server."""

    def __init__(self, registry: RegistryService, life: bytes, node_id: NodeId) -> None:
        self.events = EventReads(registry.events, life, node_id)
        self.sessions = SessionReads(registry, node_id, _speaker_of)
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for an event."""
        return len(self._waiting)

    def read_events(
        self, connection: NativeConnection, request_id: int, request: native_pb2.EventsRequest
    ) -> None:
        """Answer now, or when there is something, or when the time is over."""
        response = self.events.read(request)
        if response.events or response.lost or not request.wait_ms:
            _answer(connection, request_id, response)
            return
        connection.take_slot()
        if len(self._waiting) >= limits.EVENTS_WAITING_MAX:
            raise OverloadedError(
                f"{len(self._waiting)} requests wait for events of this node already",
                limit=limits.EVENTS_WAITING_MAX,
            )
        self.events.goes_on(request, response)
        wait_ms = min(request.wait_ms, limits.EVENTS_WAIT_MS_MAX)
        until_ms = self._loop.time() * 1000.0 + wait_ms
        connection.in_flight += 1
        self._waiting.append(_Waiting(connection, request_id, request, until_ms))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_later(limits.EVENTS_LOOK_MS / 1000.0, self._look)

    def _look(self) -> None:
        self._timer = None
        now_ms = self._loop.time() * 1000.0
        self._waiting = [each for each in self._waiting if not self._may_answer(each, now_ms)]
        self._set_timer()

    def _may_answer(self, waiting: _Waiting, now_ms: float) -> bool:
        """Answer a request if it can be, or has waited long enough; whether it is done with."""
        connection, request = waiting.connection, waiting.request
        if not connection.is_open:
            return True
        over = now_ms >= waiting.until_ms
        if not (over or self.events.has_news(request)):
            return False
        response = self.events.read(request)
        if not (over or response.events or response.lost):
            self.events.goes_on(request, response)
            return False
        connection.in_flight -= 1
        _answer(connection, waiting.request_id, response)
        connection.flush()
        return True


def _answer(
    connection: NativeConnection, request_id: int, response: native_pb2.EventsResponse
) -> None:
    connection.reply(MessageType.EVENTS, request_id, response.SerializeToString())


def _speaker_of(connection: Connection) -> Speaker:
    assert isinstance(connection, NativeConnection), "no other speaks for sessions of a node"
    return Speaker(connection.client_name, str(connection.peer), len(connection.subscriptions))


def _sessions(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(native_pb2.SessionsRequest, body)
    host = connection.host
    response = host.observing.sessions.read(request, host.now_ms())
    connection.reply(MessageType.SESSIONS, request_id, response.SerializeToString())


def _events(connection: NativeConnection, _session: Session, request_id: int, body: bytes) -> None:
    request = decode(native_pb2.EventsRequest, body)
    connection.host.observing.read_events(connection, request_id, request)


HANDLERS: dict[int, Handler] = {
    MessageType.SESSIONS: _sessions,
    MessageType.EVENTS: _events,
}
