"""The asking end of a connection: requests out, answers and pushes in.

Knows request ids, deadlines and how messages are put together from frames; knows no message's
meaning, no session and no retry. Invariants: every request ends exactly once, with an answer,
an error of the node, its deadline or the end of the connection; at most `in_flight_max` wait
for their answer, more wait for their turn within their own deadline.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable

from ssgovern import limits
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    LimitExceededError,
    RemoteProtocolError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.tls import TlsDialler, dial_tls
from ssgovern.wire.codec import decode, error_from_message
from ssgovern.wire.frames import Frame, Kind, MessageAssembler, encode_frame
from ssgovern.wire.pb import native_pb2

OnPush = Callable[[int, int, bytes], None]
"""Called with type, request id and body, in order of arrival. May raise RemoteProtocolError."""

_REQUEST_IDS = 1 << 32


class ConnectionLostError(UnavailableError):
    """The connection ended first. `sent` tells whether the node may have seen the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class DialRefusedError(UnavailableError):
    """The far system answers and says that no process listens there."""


class _Pending:
    """A request that waits for its answer."""

    __slots__ = ("answer", "timer", "type")

    def __init__(
        self, type_: int, answer: asyncio.Future[bytes], timer: asyncio.TimerHandle
    ) -> None:
        self.type = type_
        self.answer = answer
        self.timer = timer


class Channel(FrameConnection):
    """One connection to a node. Made by `open_channel`; used up when it closes."""

    __slots__ = (
        "_assembler",
        "_cause",
        "_loop",
        "_lost",
        "_next_id",
        "_on_push",
        "_pending",
        "_turns",
        "_writable",
        "messages_received",
    )

    def __init__(
        self, on_push: OnPush, *, in_flight_max: int = limits.IN_FLIGHT_PER_CONNECTION_MAX
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._on_push = on_push
        self._assembler = MessageAssembler()
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._turns = asyncio.Semaphore(in_flight_max)
        self._lost = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._cause: SsGovernError | None = None
        self.messages_received = 0
        """Rises with every message: what has not risen for long is dead or cut off."""

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Channel {self.peer} {state} in_flight={len(self._pending)}>"

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        return len(self._pending)

    @property
    def cause(self) -> SsGovernError | None:
        """Why the connection ended, as far as that is known."""
        return self._cause

    @property
    def local_host(self) -> str:
        """The address this end of the connection has."""
        name = None if self.transport is None else self.transport.get_extra_info("sockname")
        return str(name[0]) if name else ""

    # --- asking ----------------------------------------------------------------------------

    async def request(self, type_: int, body: bytes, deadline: float) -> bytes:
        """Send a request when its turn comes and return the body of the answer.

        `deadline` is in `loop.time()`. Raises the node's error, ConnectionLostError, or
        DeadlineExceededError, after which it is not known whether the request took effect.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            raise DeadlineExceededError(
                f"{self.peer}: too many requests in flight, the time ran out before this one "
                "was sent",
                sent="no",
            ) from None
        try:
            if not self._writable.is_set():
                await self._wait_writable(deadline)
            return await self.send_request(type_, body, deadline)
        finally:
            self._turns.release()

    def send_request(
        self, type_: int, body: bytes, deadline: float, *, ahead: bytes = b""
    ) -> asyncio.Future[bytes]:
        """Send a request at once, past those that wait for their turn; return its answer to be.

        For what keeps the connection alive and for callers that bound themselves. `ahead` are
        frames that leave before it in the same write.
        """
        if len(body) > limits.FRAME_BODY_BYTES_MAX:
            raise LimitExceededError(
                f"a request of {len(body)} bytes: at most {limits.FRAME_BODY_BYTES_MAX} "
                "are allowed",
                limit=limits.FRAME_BODY_BYTES_MAX,
            )
        if not self.is_open:
            raise self._lost_error(sent=False)
        request_id = self._take_id()
        answer: asyncio.Future[bytes] = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._on_deadline, request_id)
        self._pending[request_id] = _Pending(type_, answer, timer)
        answer.add_done_callback(functools.partial(self._on_done, request_id))
        self.send(ahead + encode_frame(Kind.REQUEST, type_, request_id, body))
        return answer

    async def wait_lost(self, timeout_s: float | None = None) -> bool:
        """Wait until the connection is gone; return False if the time runs out first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
        except TimeoutError:
            return False
        return True

    def give_up(self, cause: SsGovernError) -> None:
        """Close at once; `cause` is what pending requests are told."""
        if self._cause is None:
            self._cause = cause
        self.abort()
        self._fail_pending()

    def _take_id(self) -> int:
        request_id = self._next_id
        # After 2**32 requests an old one may still be waiting for its answer.
        while request_id in self._pending:
            request_id = request_id % (_REQUEST_IDS - 1) + 1
        self._next_id = request_id % (_REQUEST_IDS - 1) + 1
        return request_id

    async def _wait_writable(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._writable.wait()
        except TimeoutError:
            raise DeadlineExceededError(
                f"{self.peer} does not read: the time ran out before the request was sent",
                sent="no",
            ) from None

    def _on_deadline(self, request_id: int) -> None:
        pending = self._pending.pop(request_id, None)
        if pending is not None and not pending.answer.done():
            pending.answer.set_exception(
                DeadlineExceededError(
                    f"no answer from {self.peer} in time; whether the request took effect "
                    "is not known",
                    sent="yes",
                )
            )

    def _on_done(self, request_id: int, answer: asyncio.Future[bytes]) -> None:
        if not answer.cancelled():
            # A caller that gave up on several requests does not look at each of them.
            answer.exception()
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending.timer.cancel()

    # --- FrameConnection -------------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        self.messages_received += 1
        message = self._assembler.add(frame)
        if message is None:
            return
        kind, _, type_, request_id, body = message
        if kind == Kind.PUSH:
            self._on_push(type_, request_id, body)
        elif kind == Kind.RESPONSE:
            self._on_response(type_, request_id, body)
        elif kind == Kind.ERROR:
            self._on_error(request_id, body)
        else:
            raise RemoteProtocolError(f"{self.peer} sent a request to a client")

    def _on_response(self, type_: int, request_id: int, body: bytes) -> None:
        pending = self._pending.get(request_id)
        if pending is None:
            return
        if pending.type != type_:
            raise RemoteProtocolError(
                f"{self.peer} answered a request of type {pending.type} with type {type_}"
            )
        self._settle(request_id).set_result(body)

    def _on_error(self, request_id: int, body: bytes) -> None:
        try:
            error = error_from_message(decode(native_pb2.Error, body))
        except SsGovernError as fault:
            raise RemoteProtocolError(f"{self.peer} sent an unreadable error: {fault}") from None
        if request_id in self._pending:
            self._settle(request_id).set_exception(error)
        elif request_id == 0 and self._cause is None:
            # It concerns the connection as a whole; the node closes it next.
            self._cause = error

    def _settle(self, request_id: int) -> asyncio.Future[bytes]:
        pending = self._pending.pop(request_id)
        pending.timer.cancel()
        if pending.answer.done():
            # Cancelled in this very turn of the loop; give the result to nobody.
            return self._loop.create_future()
        return pending.answer

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        self._cause = error
        self.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writable.clear()

    def on_writable(self) -> None:
        self._writable.set()

    def on_closed(self, cause: Exception | None) -> None:
        if self._cause is None:
            reason = str(cause) or type(cause).__name__ if cause else "closed by the other side"
            self._cause = UnavailableError(f"connection to {self.peer}: {reason}")
        self._fail_pending()

    def _fail_pending(self) -> None:
        self._lost.set()
        self._writable.set()
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.timer.cancel()
            if not request.answer.done():
                request.answer.set_exception(self._lost_error(sent=True))

    def _lost_error(self, *, sent: bool) -> SsGovernError:
        if isinstance(self._cause, ClosedError):
            return ClosedError(self._cause.message)
        return ConnectionLostError(f"connection lost: {self._cause or self.peer}", sent=sent)


async def open_channel(
    host: str, port: int, on_push: OnPush, *, deadline: float, tls: TlsDialler | None = None
) -> Channel:
    """Connect to a node, with TLS if a dialler says how. Raises UnavailableError; the hello is
    the caller's."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline):
            if tls is not None:
                return await dial_tls(lambda: Channel(on_push), host, port, tls)
            _, channel = await loop.create_connection(lambda: Channel(on_push), host, port)
    except TimeoutError:
        raise UnavailableError(f"{host}:{port} does not answer") from None
    except ConnectionRefusedError as error:
        raise DialRefusedError(f"{host}:{port}: {_reason_of(error)}") from None
    except OSError as error:
        raise UnavailableError(f"{host}:{port}: {_reason_of(error)}") from None
    except UnicodeError:
        # The standard library's word for a name that cannot be one, like `a..b`.
        raise UnavailableError(f"{host!r} is not the name of a host") from None
    return channel


def _reason_of(error: OSError) -> str:
    """Return the system's words; asyncio puts its own, with the whole socket address, first."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
