"""Our own node as a contender, and the bytes our load generator speaks.

A registration carries an instance of 8 fields and 4 metadata pairs and is acknowledged after
fdatasync, like a put of etcd and a create of ZooKeeper. Instances are persistent, as their keys
and znodes are; what the node holds afterwards is asked of the node itself.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks.contender import HOST, Address, Place, Process, free_port, running
from benchmarks.load import ClosedLoop, LoadError, Tally, connect
from ssgovern.cli.load import hello, registrations
from ssgovern.version import __version__
from ssgovern.wire.frames import FrameReader, Kind, MessageType, encode_frame
from ssgovern.wire.pb import model_pb2, native_pb2

_PROBE_S_MAX = 5.0
_SESSIONS_END_S_MAX = 60.0
_OUR_OWN_SESSIONS = 5
"""Those that ask for the status; they end a second later too."""
_ANSWER_BYTES_MAX = 64
"""A refused registration carries its message in the answer and is longer than this."""


def service_key(number: int) -> model_pb2.ServiceKey:
    """Return the name of a benchmark's service."""
    return model_pb2.ServiceKey(namespace="prod", group="DEFAULT", service=f"orders-{number}")


class Registering(ClosedLoop):
    """A session that registers new instances for ever, of services that take turns."""

    def __init__(self, services: Sequence[int], tally: Tally, in_flight: int) -> None:
        super().__init__(tally, in_flight)
        self._requests = [
            registrations(service_key(service), persistent=True) for service in services
        ]
        self._number = 0
        self._reader = FrameReader()
        self._sent: dict[int, float] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(hello())

    def issue(self, count: int) -> None:
        assert self.transport is not None
        number = self._number
        if self.tally.sampling:
            now = time.perf_counter()
            for n in range(number + 1, number + count + 1):
                self._sent[n] = now
        self._number = number + count
        requests = self._requests
        if len(requests) == 1:
            self.transport.write(requests[0].frames(number + 1, count))
            return
        numbers = range(number + 1, number + count + 1)
        self.transport.write(b"".join([requests[n % len(requests)].frames(n, 1) for n in numbers]))

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.receive_data(data)
        answers = 0
        while (frame := reader.next_frame()) is not None:
            kind, _, type_, request_id, body = frame
            if kind != Kind.RESPONSE or len(body) > _ANSWER_BYTES_MAX:
                self.refuse(f"the node answered {frame!r}")
                return
            if type_ == MessageType.HELLO:
                self.ready.set_result(None)
                continue
            answers += 1
            if self._sent and (sent := self._sent.pop(request_id, None)) is not None:
                self.tally.latencies.append(time.perf_counter() - sent)
        if answers:
            self.answered(answers)


class OurNode:
    """A node of this checkout."""

    name = "ss-govern"
    operation = "register"
    warm_up_s = 2.0
    settings = "one node, defaults (durability = sync)"

    def absent(self) -> str | None:
        return None

    def version(self) -> str:
        return __version__

    @contextlib.asynccontextmanager
    async def start(self, place: Place) -> AsyncIterator["OurServer"]:
        port = free_port()
        argv = [sys.executable, "-m", "ssgovern.cli.main", "server"]
        argv += ["--data-dir", str(place.directory / "data"), "--listen-port", str(port)]
        async with running(argv, place) as process:
            server = OurServer(process, port)
            await process.until_serving(server.open)
            yield server


class OurServer:
    """A running node."""

    def __init__(self, process: Process, port: int) -> None:
        self.pid = process.pid
        self.pids = [process.pid]
        self.process = process
        self.address = (HOST, port)
        self.addresses = [self.address]
        self._instances = 0

    async def open(self) -> None:
        self._instances = (await self.status()).instances

    async def prepare(self, _services: Sequence[int]) -> None:
        """Nothing: services need no parents."""

    def client(
        self, _address: Address, service: int, tally: Tally, in_flight: int, value: bytes
    ) -> ClosedLoop:
        del value  # the instance itself is registered; `value` is the same, encoded
        return Registering([service], tally, in_flight)

    async def confirm(self, _services: Sequence[int], acked: int) -> None:
        status = await self.status()
        # The run's sessions end a second after their connections. What that costs (each of
        # their instances is told to be unhealthy) belongs to no run.
        async with asyncio.timeout(_SESSIONS_END_S_MAX):
            while status.sessions > _OUR_OWN_SESSIONS:
                await asyncio.sleep(0.5)
                status = await self.status()
        instances = status.instances
        held = instances - self._instances
        self._instances = instances
        if held != acked:
            raise LoadError(f"the node acknowledged {acked} registrations and holds {held}")

    async def status(self) -> native_pb2.StatusResponse:
        """Ask the node about itself."""
        return await status(self.address)


async def status(address: Address) -> native_pb2.StatusResponse:
    """Ask a node about itself."""
    found: list[native_pb2.StatusResponse] = []

    class Asking(ClosedLoop):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert self.transport is not None
            ask = encode_frame(Kind.REQUEST, MessageType.STATUS, 1, b"")
            self.transport.write(hello() + ask)

        def data_received(self, data: bytes) -> None:
            reader.receive_data(data)
            while (frame := reader.next_frame()) is not None:
                if frame[2] == MessageType.STATUS:
                    found.append(native_pb2.StatusResponse.FromString(frame[4]))
                    self.ready.set_result(None)

    reader = FrameReader()
    tally = Tally(requests_max=1)
    client = await connect(*address, lambda: Asking(tally, 1), within_s=_PROBE_S_MAX)
    if client.transport is not None:
        client.transport.close()
    return found[0]
