"""Closed-loop load: connections that each keep a fixed number of requests in flight.

One process, one core, plain protocols: no task, future or stream per request, because the
generator has to be several times cheaper than what it measures. It refuses to guess: a
request counts when its answer was checked, and any answer but success ends the run.

Every run is bounded three ways: by its time, by `REQUESTS_MAX`, and by a deadline for the
answers still outstanding at its end.
"""

import asyncio
import gc
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from benchmarks.cpu import Observer, Shares, shares
from benchmarks.fsync import percentile

REQUESTS_MAX = 4_000_000
CONNECT_S_MAX = 20.0
DRAIN_S_MAX = 20.0


class LoadError(RuntimeError):
    """The server answered something else than success, or not at all."""


@dataclass(frozen=True, slots=True)
class Shape:
    connections: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.connections} × {self.in_flight}"


@dataclass(frozen=True, slots=True)
class Timing:
    warm_up_s: float
    measure_s: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. `per_second` holds each whole second's answers, so that drifts can be seen."""

    shape: Shape
    acked: int
    acked_total: int
    rate: float
    p50_s: float
    p99_s: float
    shares: Shares
    per_second: tuple[int, ...]


class Tally:
    """What all connections of a run have done so far; they write it, the driver reads it."""

    __slots__ = ("_failed", "acked", "in_flight", "latencies", "left", "sampling")

    def __init__(self, *, requests_max: int = REQUESTS_MAX) -> None:
        self.acked = 0
        self.in_flight = 0
        self.left = requests_max
        self.sampling = False
        self.latencies = array("d")
        self._failed: LoadError | None = None

    def fail(self, why: str) -> None:
        """Remember the first failure and let nobody send any more."""
        self.left = 0
        if self._failed is None:
            self._failed = LoadError(why)

    def check(self) -> None:
        if self._failed is not None:
            raise self._failed


class ClosedLoop(asyncio.Protocol):
    """One connection. A subclass knows the bytes: it sends in `issue` and counts answers.

    `issue(n)` must send n requests at once; the subclass calls `answered` once per read
    with all answers found in it, which issues as many again.
    """

    def __init__(self, tally: Tally, in_flight: int) -> None:
        self.tally = tally
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._in_flight = in_flight

    def issue(self, count: int) -> None:
        raise NotImplementedError

    def begin(self) -> None:
        self._send(self._in_flight)

    def answered(self, count: int) -> None:
        self.tally.acked += count
        self.tally.in_flight -= count
        self._send(count)

    def _send(self, count: int) -> None:
        tally = self.tally
        count = min(count, tally.left)
        if count > 0:
            tally.left -= count
            tally.in_flight += count
            self.issue(count)

    def refuse(self, why: str) -> None:
        """Give up the run: the server said what it must not say."""
        self.tally.fail(why)
        if not self.ready.done():
            self.ready.set_exception(LoadError(why))
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.tally.in_flight or not self.ready.done():
            self.refuse(f"connection lost with requests in flight: {exc or 'closed by peer'}")


async def connect(
    host: str, port: int, make: Callable[[], ClosedLoop], *, within_s: float = CONNECT_S_MAX
) -> ClosedLoop:
    """Open one connection and wait until its handshake is over."""
    try:
        async with asyncio.timeout(within_s):
            _, client = await asyncio.get_running_loop().create_connection(make, host, port)
            await client.ready
    except TimeoutError:
        raise LoadError(f"no connection to {host}:{port} within {within_s} s") from None
    return client


async def drive(
    addresses: Sequence[tuple[str, int]],
    make: Callable[[int, Tally], ClosedLoop],
    shape: Shape,
    timing: Timing,
    observer: Observer,
) -> Measurement:
    """Load servers for warm-up and measurement; `make(i, tally)` builds connection i.

    Connection i goes to the address whose turn it is.

    All requests sent have been answered when this returns.
    """
    tally = Tally()
    clients: list[ClosedLoop] = []
    gc.collect()
    gc.disable()  # nothing here makes cycles; a full collection would only add a pause
    try:
        for index in range(shape.connections):
            address = addresses[index % len(addresses)]
            clients += [await connect(*address, partial(make, index, tally))]
        for client in clients:
            client.begin()
        await asyncio.sleep(timing.warm_up_s)
        tally.check()

        tally.sampling = True
        acked_before, before = tally.acked, observer.read()
        per_second = await _watch(tally, timing.measure_s)
        acked, after = tally.acked - acked_before, observer.read()
        tally.sampling = False
        await _drain(tally)
    finally:
        gc.enable()
        tally.left = 0
        tally.in_flight = 0
        for client in clients:
            if client.transport is not None:
                client.transport.close()
    return _measurement(shape, tally, acked, shares(before, after), per_second)


async def _watch(tally: Tally, seconds: float) -> tuple[int, ...]:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    counts: list[int] = []
    while (left := end - loop.time()) > 0:
        before = tally.acked
        await asyncio.sleep(min(1.0, left))
        tally.check()
        if left >= 1.0:
            counts.append(tally.acked - before)
    return tuple(counts)


async def _drain(tally: Tally) -> None:
    tally.left = 0
    try:
        async with asyncio.timeout(DRAIN_S_MAX):
            while tally.in_flight:
                await asyncio.sleep(0.005)
                tally.check()
    except TimeoutError:
        raise LoadError(f"{tally.in_flight} requests were never answered") from None


def _measurement(
    shape: Shape, tally: Tally, acked: int, taken: Shares, per_second: tuple[int, ...]
) -> Measurement:
    latencies = sorted(tally.latencies)
    if not latencies:
        raise LoadError("nothing was answered while measuring")
    return Measurement(
        shape=shape,
        acked=acked,
        acked_total=tally.acked,
        rate=acked / taken.seconds,
        p50_s=percentile(latencies, 0.50),
        p99_s=percentile(latencies, 0.99),
        shares=taken,
        per_second=per_second,
    )
