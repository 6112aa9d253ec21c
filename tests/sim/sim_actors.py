"""Small programs to run as simulated processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import cast

from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

PORT = 7000


async def forever(runtime: SimRuntime) -> None:
    await asyncio.get_running_loop().create_future()


class Line(asyncio.Protocol):
    """One end of a connection that keeps what it receives and when things happened to it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.received = bytearray()
        self.reads = 0
        self.lost_at: float | None = None
        self.error: Exception | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.reads += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_at = self.loop.time()
        self.error = exc

    @property
    def is_lost(self) -> bool:
        return self.lost_at is not None


class EchoLine(Line):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class Pair:
    """A server process `s` and a client process `c` with one connection from `c` to `s`."""

    def __init__(self, world: World, server_line: Callable[[], Line] = Line) -> None:
        self.world = world
        self.accepted: list[Line] = []
        self.client: Line | None = None
        self.failure: OSError | None = None
        self.failed_at: float | None = None

        def accept() -> Line:
            self.accepted.append(server_line())
            return self.accepted[-1]

        async def serve(runtime: SimRuntime) -> None:
            await asyncio.get_running_loop().create_server(accept, None, PORT)
            await forever(runtime)

        async def connect(runtime: SimRuntime) -> None:
            try:
                _, self.client = await asyncio.get_running_loop().create_connection(Line, "s", PORT)
            except OSError as error:
                self.failure, self.failed_at = error, world.now
            await forever(runtime)

        self.s = world.process("s", serve)
        self.c = world.process("c", connect)

    @property
    def server(self) -> Line:
        return self.accepted[-1]

    def connect(self) -> tuple[Line, Line]:
        """Start both, and return the client's and the server's end."""
        self.s.start()
        self.world.run(self.world.now + 0.1)
        self.c.start()
        self.world.run(self.world.now + 0.5)
        assert self.client is not None
        return self.client, self.server


def spawn(
    world: World, name: str, body: Callable[[], Coroutine[object, object, object]]
) -> Process:
    """Start a process that runs `body` and stays."""

    async def main(runtime: SimRuntime) -> None:
        await body()
        await forever(runtime)

    process = world.process(name, main)
    process.start()
    return process


def call(process: Process, function: Callable[..., object], *args: object) -> None:
    """Call a function inside a process, from its loop."""
    assert process.loop is not None
    process.loop.call_soon(function, *args)
