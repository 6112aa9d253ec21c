"""Closed-loop load on a node: sessions that keep a fixed number of requests in flight.

Frames are made once and differ in place, so that the generator costs far less than the node it
loads. Every answer is checked; anything but success ends the run. Bounded by time and count.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Callable, Sequence

from ssgovern.errors import SsGovernError, UnavailableError
from ssgovern.model import session_id_of
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import decode, error_from_message
from ssgovern.wire.frames import (
    HEADER,
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    Frame,
    Kind,
    MessageType,
    encode_frame,
)
from ssgovern.wire.pb import model_pb2, native_pb2

DIGITS = 8
_CONNECT_S_MAX = 10.0
_DRAIN_S_MAX = 10.0


def hello() -> bytes:
    """Return the frame that opens a new session."""
    secret = os.urandom(16)
    request = native_pb2.HelloRequest(
        version_min=PROTOCOL_VERSION_MIN,
        version_max=PROTOCOL_VERSION_MAX,
        client_name="ss-govern bench",
        session_id=session_id_of(secret),
        session_secret=secret,
    )
    return encode_frame(Kind.REQUEST, MessageType.HELLO, 0, request.SerializeToString())


def sample_instance(instance_id: str, *, persistent: bool = False) -> model_pb2.Instance:
    """Return an instance of 8 fields and 4 metadata pairs."""
    return model_pb2.Instance(
        id=instance_id,
        host="10.1.2.3",
        port=8080,
        weight=100.0,
        status=model_pb2.STATUS_STARTING,
        zone="cn-east-1a",
        version="2.14.0",
        metadata={
            "lane": "gray",
            "owner": "team-payments",
            "protocol": "grpc",
            "build": "2024-11-05T10:22:31Z",
        },
        persistent=persistent,
    )


class Requests:
    """Makes the frames of one kind of request; `number` also is the request id."""

    def __init__(self, type_: MessageType, body: bytes, digits: bytes = b"") -> None:
        self._header = HEADER.pack(len(body) + 8, Kind.REQUEST, 0, type_, 0)[:8]
        self._before, _, self._after = body.partition(digits) if digits else (body, b"", b"")
        self._numbered = bool(digits)

    def frames(self, first: int, count: int) -> bytes:
        """Return `count` frames from number `first` on."""
        header, before, after = self._header, self._before, self._after
        numbers = range(first, first + count)
        if self._numbered:
            parts = [b"%b%b%b%08d%b" % (header, _id(n), before, n, after) for n in numbers]
        else:
            parts = [b"%b%b%b" % (header, _id(n), before) for n in numbers]
        return b"".join(parts)


def _id(number: int) -> bytes:
    return number.to_bytes(4, "big")


def registrations(service: model_pb2.ServiceKey, *, persistent: bool = False) -> Requests:
    """Return requests that register instance after instance of a service."""
    digits = "9" * DIGITS
    instance = sample_instance(f"10.1.2.3-{digits}", persistent=persistent)
    request = native_pb2.RegisterRequest(
        registrations=[native_pb2.Registration(service=service, instance=instance)]
    )
    return Requests(MessageType.REGISTER, request.SerializeToString(), digits.encode())


def reads(service: model_pb2.ServiceKey) -> Requests:
    """Return requests that read a service."""
    return Requests(MessageType.GET, native_pb2.GetRequest(service=service).SerializeToString())


class Run:
    """What all sessions of a run have done so far."""

    def __init__(self, requests_max: int) -> None:
        self.answered = 0
        self.in_flight = 0
        self.left = requests_max
        self.latencies = array("d")
        self.failure: SsGovernError | None = None

    def fail(self, error: SsGovernError) -> None:
        """Remember the first failure and send nothing more."""
        self.left = 0
        self.failure = self.failure or error


class LoadSession(FrameConnection):
    """One session that sends again as soon as it is answered."""

    def __init__(self, run: Run, requests: Requests, in_flight: int) -> None:
        super().__init__()
        self._run = run
        self._requests = requests
        self._depth = in_flight
        self._number = 0
        self._sent: dict[int, float] = {}
        self._answers = 0
        self._saying_goodbye = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Send the first requests."""
        self._issue(self._depth)

    def goodbye(self) -> None:
        """End the session, and with it all it registered."""
        self._saying_goodbye = True
        self.send(encode_frame(Kind.REQUEST, MessageType.GOODBYE, 0, b""))

    def _issue(self, count: int) -> None:
        run = self._run
        count = min(count, run.left)
        if count <= 0:
            return
        run.left -= count
        run.in_flight += count
        now = time.perf_counter()
        for number in range(self._number, self._number + count):
            self._sent[number] = now
        self.send(self._requests.frames(self._number, count))
        self._number += count

    # --- FrameConnection -------------------------------------------------------------------

    def on_open(self) -> None:
        self.send(hello())

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answers:
            count, self._answers = self._answers, 0
            self._run.answered += count
            self._run.in_flight -= count
            self._issue(count)

    def on_frame(self, frame: Frame) -> None:
        kind, _, type_, request_id, body = frame
        if kind == Kind.ERROR:
            self._fail(error_from_message(decode(native_pb2.Error, body)))
        elif type_ == MessageType.HELLO:
            self.ready.set_result(None)
        elif type_ == MessageType.GOODBYE:
            self.close()
        else:
            if type_ == MessageType.REGISTER:
                self._check(decode(native_pb2.RegisterResponse, body))
            if (sent := self._sent.pop(request_id, None)) is not None:
                now = time.perf_counter()
                self._run.latencies.append(now - sent)
                self._answers += 1

    def on_closed(self, cause: Exception | None) -> None:
        if not self._saying_goodbye:
            self._fail(
                UnavailableError(f"the connection was lost: {cause or 'closed by the node'}")
            )
        self.gone.set_result(None)

    def _check(self, response: native_pb2.RegisterResponse) -> None:
        for result in response.results:
            if result.HasField("error"):
                self._fail(error_from_message(result.error))

    def _fail(self, error: SsGovernError) -> None:
        self._run.fail(error)
        if not self.ready.done():
            self.ready.set_exception(error)


async def drive(
    address: tuple[str, int],
    workloads: Sequence[Requests],
    *,
    in_flight: int,
    seconds: float,
    requests_max: int = 4_000_000,
    on_second: Callable[[int], None] | None = None,
) -> tuple[Run, float]:
    """Load a node with one session per workload; return what was answered and in what time.

    Everything the sessions registered is gone again when it returns. Raises SsGovernError.
    """
    run = Run(requests_max)
    sessions: list[LoadSession] = []
    loop = asyncio.get_running_loop()
    try:
        for requests in workloads:
            session = LoadSession(run, requests, in_flight)
            sessions.append(session)
            await _connect(loop, address, session)
        began = time.perf_counter()
        for session in sessions:
            session.begin()
        await _watch(run, seconds, on_second)
        taken_s = time.perf_counter() - began
        answered = run.answered
        run.left = 0
        async with asyncio.timeout(_DRAIN_S_MAX):
            while run.in_flight and run.failure is None:
                await asyncio.sleep(0.005)
            for session in sessions:
                session.goodbye()
            for session in sessions:
                await session.gone
    except TimeoutError:
        run.fail(UnavailableError(f"{run.in_flight} requests were not answered in time"))
    finally:
        run.left = 0
        for session in sessions:
            session.abort()
    if run.failure is not None:
        raise run.failure
    run.answered = answered
    return run, taken_s


async def _connect(
    loop: asyncio.AbstractEventLoop, address: tuple[str, int], session: LoadSession
) -> None:
    try:
        async with asyncio.timeout(_CONNECT_S_MAX):
            await loop.create_connection(lambda: session, *address)
            await session.ready
    except (OSError, TimeoutError) as error:
        host, port = address
        raise UnavailableError(f"no node answers at {host}:{port}: {error}") from error


async def _watch(run: Run, seconds: float, on_second: Callable[[int], None] | None) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0 and run.failure is None:
        before = run.answered
        await asyncio.sleep(min(1.0, left))
        if on_second is not None:
            on_second(run.answered - before)
