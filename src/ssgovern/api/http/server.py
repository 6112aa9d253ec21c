"""The HTTP port: uvicorn's protocol in the node's own loop, with the limits it lacks.

Knows sockets and limits, and no page. Uvicorn limits neither what a request's head may hold nor
how long it may take to come, and its own server wants the process's signals: so its protocol is
used without it. Invariants: a connection costs bounded memory and lives no longer than it makes
progress (`_deadline_s`); who is refused is told why, as problem+json, where it can still hear;
`stop` leaves no task, socket or timer behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import NamedTuple

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ssgovern import limits
from ssgovern.api.http.asked import TIME_EXTENSION
from ssgovern.api.http.problems import PROBLEM_MEDIA_TYPE, problem_of
from ssgovern.errors import (
    DeadlineExceededError,
    LimitExceededError,
    OverloadedError,
    RemoteProtocolError,
    SsGovernError,
)
from ssgovern.transport.tls import TlsListener

log = logging.getLogger("ssgovern.http")

_SWEEP_S = 0.25
_REASONS = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large"} | {
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Bounds(NamedTuple):
    """How many, and for how long. Sizes are in `limits` alone."""

    connections_max: int = limits.HTTP_CONNECTIONS_MAX
    head_ms: int = limits.HTTP_HEAD_MS
    request_ms: int = limits.HTTP_REQUEST_MS
    idle_ms: int = limits.HTTP_IDLE_MS


class _Refused(Exception):  # noqa: N818 - it unwinds a parser, and is no error of ours
    """Raised through the parser to end a connection."""


class HttpServer:
    """One HTTP port. `start` it once, `stop` it from the same loop."""

    def __init__(
        self, app: ASGIApp, wall_ms: Callable[[], int], bounds: Bounds | None = None
    ) -> None:
        self.bounds = bounds or Bounds()
        self._wall_ms = wall_ms
        self._config = Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            # What a client does wrong is its own business, and no warning here.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=limits.HTTP_IDLE_MS // 1000 + 1,
        )
        self._config.load()
        self._state = ServerState()
        self._connections: dict[HttpConnection, None] = {}
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._stopping = False
        self.refused = 0
        """Connections ended because of a limit."""

    def __len__(self) -> int:
        return len(self._connections)

    async def start(self, host: str, port: int, tls: TlsListener | None = None) -> tuple[str, int]:
        """Begin to accept; return the address bound to. Raises OSError."""
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            return HttpConnection(self, self._config, self._state)

        self._server = await loop.create_server(
            accept if tls is None else tls.accepting(accept, _NO_TLS), host, port, backlog=256
        )
        self._sweep(loop)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Take no more, let what is under way end for a while, close everything."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        for connection in list(self._connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.HTTP_STOP_MS / 1000.0):
                await self._ended()
        for connection in list(self._connections):
            connection.transport.abort()
        # Whoever was sending wakes up when its connection is lost, and ends.
        await self._ended()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _ended(self) -> None:
        while self._connections or self._state.tasks:
            await asyncio.sleep(0.01)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        date = formatdate(self._wall_ms() // 1000, usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]
        now_s = loop.time()
        for connection in list(self._connections):
            connection.look_at_time(now_s)
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep, loop)

    # --- for its connections ---------------------------------------------------------------

    def opened(self, connection: HttpConnection) -> None:
        """Take note of a connection. Raises OverloadedError if it is one too many."""
        self._connections[connection] = None
        if len(self._connections) > self.bounds.connections_max or self._stopping:
            raise OverloadedError("this node has as many HTTP connections as it may")

    def closed(self, connection: HttpConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)


class HttpConnection(HttpToolsProtocol):
    """One connection. What uvicorn does is its own; what is here are limits."""

    def __init__(self, host: HttpServer, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._host = host
        self._deadline_s = 0.0
        self._in_head = True
        """The head of a request is awaited, or has come in part."""
        self._read_bytes = 0
        """Read from the socket since the head began."""
        self._head_bytes = 0
        """What the parser has found of the head."""
        self._body_bytes = 0
        self._refusal: tuple[SsGovernError, int] | None = None
        self._thrown_away: int | None = None
        """Bytes that came after the refusal; None: it was not refused."""

    def __repr__(self) -> str:
        return f"<HttpConnection {self.client} head={self._head_bytes} body={self._body_bytes}>"

    def _give(self, time_ms: int) -> None:
        self._deadline_s = self.loop.time() + time_ms / 1000.0

    # --- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._give(self._host.bounds.head_ms)
        try:
            self._host.opened(self)
        except OverloadedError as error:
            self._refuse(error, 503)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._thrown_away is not None:
            self._thrown_away += len(data)
            if self._thrown_away > limits.HTTP_LINGER_BYTES_MAX:
                self.transport.abort()
            return
        if self._in_head:
            self._read_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._read_bytes > limits.HTTP_HEAD_BYTES_MAX and self._is_open:
            # A header that does not end is not shown to us before it does.
            self._refuse(*_head_too_large())

    def look_at_time(self, now_s: float) -> None:
        """End the connection if it made no progress in time."""
        if now_s < self._deadline_s:
            return
        begun = self._in_head and self._read_bytes > 0
        if begun and self._thrown_away is None and self._is_open:
            self._refuse(DeadlineExceededError("the request came too slowly"), 408)
        else:
            self.transport.abort()

    # --- the parser ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._body_bytes = 0
        if self._is_idle:
            self._give(self._host.bounds.head_ms)

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if name.lower() == b"content-length" and int(value) > limits.HTTP_BODY_BYTES_MAX:
            self._end_with(*_body_too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._is_idle:
            self._give(self._host.bounds.request_ms)
        self.scope["extensions"] = {TIME_EXTENSION: self._give}  # type: ignore[dict-item]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > limits.HTTP_BODY_BYTES_MAX:
            self._end_with(*_body_too_large())
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._read_bytes = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._give(self._host.bounds.request_ms if self.pipeline else self._host.bounds.idle_ms)

    def send_400_response(self, msg: str) -> None:
        error, status = self._refusal or (RemoteProtocolError("this is not HTTP"), 400)
        self._refuse(error, status)

    # --- refusing --------------------------------------------------------------------------

    @property
    def _is_open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def _is_idle(self) -> bool:
        """No answer is under way."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX:
            self._end_with(*_head_too_large())

    def _end_with(self, error: SsGovernError, status: int) -> None:
        """Unwind the parser, which then asks for a response."""
        self._refusal = (error, status)
        raise _Refused

    def _refuse(self, error: SsGovernError, status: int) -> None:
        """Say why, and take nothing more. What was asked before and is not answered is not.

        What still comes is thrown away for a moment: closing at once would make the system drop
        the answer together with what was not read (RFC 9112, 9.6).
        """
        if self._thrown_away is not None:
            return
        self._host.refused += 1
        log.debug("%r refused: %s", self, error)
        self._thrown_away = 0
        self.pipeline.clear()
        if not self._is_idle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        self._unset_keepalive_if_required()
        self.transport.write(_response(error, status))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._give(limits.HTTP_LINGER_MS)


def _head_too_large() -> tuple[SsGovernError, int]:
    most = limits.HTTP_HEAD_BYTES_MAX
    return LimitExceededError(f"request line and headers exceed {most} bytes", limit=most), 431


def _body_too_large() -> tuple[SsGovernError, int]:
    most = limits.HTTP_BODY_BYTES_MAX
    return LimitExceededError(f"the body exceeds {most} bytes", limit=most), 413


def _response(error: SsGovernError, status: int) -> bytes:
    body = problem_of(error, status).model_dump_json().encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"content-type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


_NO_TLS = _response(RemoteProtocolError("this port speaks TLS: use https://"), 400)
"""What a client without TLS can read."""
