"""Closed-loop load on a node or a cluster: sessions that keep so many requests in flight.

Frames are made once and differ in place, so that the generator costs far less than the node it
loads. Each session asks about one shard, at its primary; when that fails it asks the next one
again what was not answered. Every answer is checked: a refusal for good ends the run. Bounded by
time and count.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ssgovern.cli.load_routes import Routes
from ssgovern.cli.load_routes import hello as hello
from ssgovern.client.addresses import Address
from ssgovern.errors import Retry, SsGovernError, UnavailableError
from ssgovern.model import ShardId, shard_of
from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode, error_from_message
from ssgovern.wire.frames import (
    HEADER,
    Frame,
    Kind,
    MessageType,
    encode_frame,
)
from ssgovern.wire.pb import model_pb2, native_pb2

DIGITS = 8
_CONNECT_S_MAX = 10.0
_FAIL_OVER_S_MAX = 20.0
_DRAIN_S_MAX = _FAIL_OVER_S_MAX + _CONNECT_S_MAX
_TRY_AGAIN_S = 0.2


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


class Workload(NamedTuple):
    """What one session asks, all of it of one shard."""

    shard: ShardId
    requests: Requests


def workload(service: model_pb2.ServiceKey, requests: Requests) -> Workload:
    """Return the workload of requests for a service."""
    return Workload(shard_of(service.namespace, service.group, service.service), requests)


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
        self.moves = 0
        """How often a session had to go to another node, or to come back to one."""
        self.latencies = array("d")
        self.failure: SsGovernError | None = None

    def fail(self, error: SsGovernError) -> None:
        """Remember the first failure and send nothing more."""
        self.left = 0
        self.failure = self.failure or error


class LoadSession:
    """One session that sends again as soon as it is answered, wherever its shard is."""

    def __init__(self, run: Run, workload: Workload, in_flight: int) -> None:
        self.run = run
        self.shard = workload.shard
        self.opening = hello()
        self.is_over = False
        """It said goodbye: nothing is sent again."""
        self.registered = 0
        self._requests = workload.requests
        self._depth = in_flight
        self._number = 0
        self._sent: dict[int, float] = {}
        self._connection: LoadConnection | None = None

    @property
    def is_needless(self) -> bool:
        """Whether it is over, or the whole run is."""
        return self.is_over or self.run.failure is not None

    def begin(self) -> None:
        """Send the first requests."""
        self.issue(self._depth)

    def goodbye(self) -> None:
        """End the session, and with it all it registered."""
        self.is_over = True
        if self._connection is not None:
            self._connection.send(encode_frame(Kind.REQUEST, MessageType.GOODBYE, 0, b""))

    def abort(self) -> None:
        """Close its connection; nothing more is sent."""
        self.is_over = True
        if self._connection is not None:
            self._connection.abort()

    def use(self, connection: LoadConnection) -> None:
        """Go on over another connection: what was not answered is sent again."""
        self._connection = connection
        for number in self._sent:
            connection.send(self._requests.frames(number, 1))

    def issue(self, count: int) -> None:
        """Send so many requests more, unless the run is over."""
        run = self.run
        count = min(count, run.left)
        if count <= 0:
            return
        assert self._connection is not None, "connected before it begins"
        run.left -= count
        run.in_flight += count
        now = time.perf_counter()
        for number in range(self._number, self._number + count):
            self._sent[number] = now
        self._connection.send(self._requests.frames(self._number, count))
        self._number += count

    def answered(self, number: int, *, registered: bool) -> bool:
        """Take note of an answer; whether it was waited for."""
        if (sent := self._sent.pop(number, None)) is None:
            return False
        self.run.latencies.append(time.perf_counter() - sent)
        self.registered += registered
        return True


class LoadConnection(FrameConnection):
    """A connection of a session to the node that is primary of its shard."""

    def __init__(self, session: LoadSession) -> None:
        super().__init__()
        self._session = session
        self._answers = 0
        self.cause: SsGovernError | None = None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def on_open(self) -> None:
        self.send(self._session.opening)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answers:
            count, self._answers = self._answers, 0
            run = self._session.run
            run.answered += count
            run.in_flight -= count
            if self.cause is None:
                self._session.issue(count)

    def on_frame(self, frame: Frame) -> None:
        kind, _, type_, request_id, body = frame
        if kind == Kind.ERROR:
            self._refused(error_from_message(decode(native_pb2.Error, body)))
        elif kind != Kind.RESPONSE:
            return
        elif type_ == MessageType.HELLO:
            if not self.ready.done():
                self.ready.set_result(None)
        elif type_ == MessageType.GOODBYE:
            self.close()
        else:
            registered = type_ == MessageType.REGISTER
            if registered and not self._is_done(decode(native_pb2.RegisterResponse, body)):
                return
            self._answers += self._session.answered(request_id, registered=registered)

    def on_closed(self, cause: Exception | None) -> None:
        why = UnavailableError(f"the connection was lost: {cause or 'closed by the node'}")
        self.cause = self.cause or why
        if not self.ready.done():
            self.ready.set_exception(self.cause)
        self.gone.set_result(None)

    def _is_done(self, response: native_pb2.RegisterResponse) -> bool:
        for result in response.results:
            if result.HasField("error"):
                self._refused(error_from_message(result.error))
                return False
        return True

    def _refused(self, error: SsGovernError) -> None:
        """Something was not done: try it at whoever is primary by then, if that can help."""
        self.cause = self.cause or error
        if error.retry is Retry.NEVER:
            self._session.run.fail(error)
        self.abort()


async def look_after(session: LoadSession, connection: LoadConnection, routes: Routes) -> None:
    """Keep a session connected to the primary of its shard until it is over, or the run failed."""
    current: LoadConnection | None = connection
    while current is not None:
        await current.gone
        current = await _reconnect(session, current, routes)


async def _reconnect(
    session: LoadSession, lost: LoadConnection, routes: Routes
) -> LoadConnection | None:
    """Connect to whoever is primary by then; None if nothing is to be sent any more."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _FAIL_OVER_S_MAX
    session.run.moves += not session.is_needless
    while not session.is_needless:
        await asyncio.sleep(_TRY_AGAIN_S)
        try:
            await routes.refresh(loop.time())
            return await _connect(session, routes)
        except SsGovernError as error:
            if error.retry is Retry.NEVER or loop.time() > until:
                session.run.fail(lost.cause or error)
    return None


async def _connect(session: LoadSession, routes: Routes) -> LoadConnection:
    address = routes.address_of(session.shard)
    connection = LoadConnection(session)
    try:
        async with asyncio.timeout(_CONNECT_S_MAX):
            await routes.dial(connection, address)
            await connection.ready
    except (OSError, TimeoutError) as error:
        connection.abort()
        raise UnavailableError(f"no node answers at {address}: {error}") from error
    session.use(connection)
    return connection


async def drive(
    addresses: Sequence[Address],
    workloads: Sequence[Workload],
    *,
    in_flight: int,
    seconds: float,
    requests_max: int = 4_000_000,
    on_second: Callable[[int], None] | None = None,
    check: Callable[[int], Awaitable[None]] | None = None,
    tls: TlsDialler | None = None,
) -> tuple[Run, float]:
    """Load the nodes with one session per workload; return what was answered and in what time.

    `check` is called with the number of registrations while they are still there; everything the
    sessions registered is gone again when this returns. Raises SsGovernError.
    """
    run = Run(requests_max)
    routes = Routes(addresses, tls)
    loop = asyncio.get_running_loop()
    await routes.refresh(loop.time())
    sessions = [LoadSession(run, workload, in_flight) for workload in workloads]
    async with asyncio.TaskGroup() as group:
        tasks = []
        try:
            connections = [await _connect(session, routes) for session in sessions]
            tasks = [
                group.create_task(look_after(*pair, routes))
                for pair in zip(sessions, connections, strict=True)
            ]
            began = time.perf_counter()
            for session in sessions:
                session.begin()
            await _watch(run, seconds, on_second)
            taken_s = time.perf_counter() - began
            answered = run.answered
            run.left = 0
            await _drain(run)
            if check is not None and run.failure is None:
                await check(sum(session.registered for session in sessions))
            async with asyncio.timeout(_DRAIN_S_MAX):
                for session in sessions:
                    session.goodbye()
                for task in tasks:
                    await task
        except SsGovernError as error:
            run.fail(error)
        except TimeoutError:
            run.fail(UnavailableError(f"{run.in_flight} requests were not answered in time"))
        finally:
            for session in sessions:
                session.abort()
            for task in tasks:
                task.cancel()
    if run.failure is not None:
        raise run.failure
    run.answered = answered
    return run, taken_s


async def _drain(run: Run) -> None:
    async with asyncio.timeout(_DRAIN_S_MAX):
        while run.in_flight and run.failure is None:
            await asyncio.sleep(0.005)


async def _watch(run: Run, seconds: float, on_second: Callable[[int], None] | None) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0 and run.failure is None:
        before = run.answered
        await asyncio.sleep(min(1.0, left))
        if on_second is not None:
            on_second(run.answered - before)
