"""The HTTP port: how often one service is read over it, and how long an answer takes.

The load is bytes on sockets: requests are written as they are, and of an answer no more is read
than its length, so that the figure is the node's and not a client library's.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.bench import OURS, Bench, Case
from benchmarks.contender import HOST, free_port, running
from benchmarks.cpu import process_cpu_s
from benchmarks.fsync import percentile
from benchmarks.load import LoadError
from benchmarks.ours import OurServer, service_key
from benchmarks.report import Figure, Result
from benchmarks.sessions import Listener, close_all, no_push, open_one
from ssgovern.cli.load import sample_instance
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2

_CONNECTIONS = 64
_INSTANCES = 10
_TARGETS = (
    (
        f"GET of a service with {_INSTANCES} instances",
        "/api/v1/namespaces/prod/services/DEFAULT/orders-1",
    ),
    ("GET /healthz/live", "/healthz/live"),
)


class _Asking(asyncio.Protocol):
    """One kept connection that asks again as soon as it is answered."""

    def __init__(self, target: str, spent: list[float]) -> None:
        self._request = f"GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
        self._spent = spent
        self._rest = b""
        self._asked = 0.0
        self.transport: asyncio.Transport | None = None
        self.failed: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none of asyncio's own classes.
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        assert self.transport is not None
        self._asked = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        rest = self._rest + data if self._rest else data
        end = rest.find(b"\r\n\r\n")
        if end >= 0 and not rest.startswith(b"HTTP/1.1 200 "):
            self.failed = rest[:200]
            return
        if end >= 0:
            at = rest.index(b"content-length: ") + 16
            whole = end + 4 + int(rest[at : rest.index(b"\r\n", at)])
            if len(rest) >= whole:
                self._spent.append(time.perf_counter() - self._asked)
                rest = rest[whole:]
                self._ask()
        self._rest = rest


async def http(bench: Bench) -> list[Result]:
    """64 kept connections, each with one request at a time."""
    place = bench.place(OURS)
    port, http_port = free_port(), free_port()
    argv = [sys.executable, "-m", "ssgovern.cli.main", "server", "--listen-port", str(port)]
    argv += ["--data-dir", str(place.directory / "data"), "--http-port", str(http_port)]
    async with running(argv, place) as process:
        server = OurServer(process, port)
        await process.until_serving(server.open)
        owner = Listener([_registrations()], no_push)
        await open_one(server.address, owner)
        # What is persistent stays without it.
        close_all([owner])
        return [
            result
            for what, target in _TARGETS
            for result in await _measure(bench, server.pid, http_port, what, target)
        ]


def _registrations() -> bytes:
    request = native_pb2.RegisterRequest()
    for number in range(_INSTANCES):
        added = request.registrations.add()
        added.service.CopyFrom(service_key(1))
        added.instance.CopyFrom(sample_instance(f"10.0.0.1-{number}", persistent=True))
    body = request.SerializeToString()
    return encode_frame(Kind.REQUEST, MessageType.REGISTER, 4, body)


async def _measure(bench: Bench, pid: int, port: int, what: str, target: str) -> Sequence[Result]:
    loop = asyncio.get_running_loop()
    spent: list[float] = []
    asking = []
    for _ in range(_CONNECTIONS):
        _, protocol = await loop.create_connection(lambda: _Asking(target, spent), HOST, port)
        asking.append(protocol)
    await asyncio.sleep(bench.timing.warm_up_s)
    for each in asking:
        if each.failed is not None:
            raise LoadError(f"{target}: {each.failed!r}")
    rates: list[float] = []
    late: list[float] = []
    for _ in range(bench.rounds):
        spent.clear()
        cpu_s = process_cpu_s(pid)
        await asyncio.sleep(bench.timing.measure_s)
        used_s = process_cpu_s(pid) - cpu_s
        rates.append(len(spent) / used_s)
        late.append(percentile(sorted(spent), 0.99))
    for each in asking:
        assert each.transport is not None
        each.transport.abort()
    rates.sort()
    late.sort()
    rate, p99 = rates[len(rates) // 2], late[len(late) // 2]
    wanted = target != "/healthz/live"
    return [
        Result(
            f"{what}, {_CONNECTIONS} connections, for each second of the node's core",
            {OURS: Figure(rate, "/s", rates[0], rates[-1])},
            wanted="≥ 8,000 /s" if wanted else "",
            met=rate >= 8_000 if wanted else None,
        ),
        Result(
            f"{what}, {_CONNECTIONS} connections: p99",
            {OURS: Figure(p99, "s", late[0], late[-1])},
            wanted="≤ 20 ms" if wanted else "",
            met=p99 <= 0.020 if wanted else None,
        ),
    ]


CASES = [Case("http", http)]
