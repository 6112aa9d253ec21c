"""Many connections that mostly listen: what heartbeats and pushes cost.

One process holds them all, as plain protocols; it measures the node from outside, by the CPU
time of its process and by when bytes arrive.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

from benchmarks.load import LoadError
from benchmarks.ours import service_key
from ssgovern.cli.load import hello, sample_instance
from ssgovern.wire.frames import HEADER, FrameReader, Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2

CONNECTING_AT_ONCE = 64
HEARTBEAT = encode_frame(Kind.REQUEST, MessageType.HEARTBEAT, 1, b"")
_CONNECT_S_MAX = 60.0


class Listener(asyncio.Protocol):
    """A session: answers its first request, then counts what it is told."""

    __slots__ = ("_reader", "_requests", "bytes_pushed", "on_push", "pushes", "ready", "transport")

    def __init__(self, requests: list[bytes], on_push: Callable[["Listener"], None]) -> None:
        self._requests = requests
        self._reader = FrameReader()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.on_push = on_push
        self.pushes = 0
        self.bytes_pushed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(hello() + b"".join(self._requests))

    def data_received(self, data: bytes) -> None:
        self._reader.receive_data(data)
        while (frame := self._reader.next_frame()) is not None:
            kind, _, type_, _, body = frame
            if kind == Kind.PUSH:
                self.pushes += 1
                self.bytes_pushed += len(body) + HEADER.size
                self.on_push(self)
            elif kind == Kind.ERROR:
                error = native_pb2.Error.FromString(body).message
                if not self.ready.done():
                    self.ready.set_exception(LoadError(error))
                raise LoadError(error)
            elif type_ != MessageType.HEARTBEAT and not self.ready.done():
                self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.ready.done():
            self.ready.set_exception(LoadError(f"connection lost: {exc}"))

    def send(self, data: bytes) -> None:
        """Send frames, unless the connection is gone."""
        if self.transport is not None:
            self.transport.write(data)


def no_push(_: Listener) -> None:
    """Nothing is expected, or nobody minds."""


def registration(service: int, instance_id: str, *, persistent: bool = False) -> bytes:
    """Return the request that registers one instance."""
    request = native_pb2.RegisterRequest(
        registrations=[
            native_pb2.Registration(
                service=service_key(service),
                instance=sample_instance(instance_id, persistent=persistent),
            )
        ]
    )
    return encode_frame(Kind.REQUEST, MessageType.REGISTER, 2, request.SerializeToString())


def subscription(service: int) -> bytes:
    """Return the request that subscribes to a service."""
    request = native_pb2.SubscribeRequest(service=service_key(service))
    return encode_frame(Kind.REQUEST, MessageType.SUBSCRIBE, 3, request.SerializeToString())


async def open_one(address: tuple[str, int], listener: Listener) -> None:
    """Connect a listener and wait for its first answer."""
    await asyncio.get_running_loop().create_connection(lambda: listener, *address)
    await listener.ready


async def open_many(
    address: tuple[str, int], count: int, make: Callable[[int], Listener]
) -> list[Listener]:
    """Open `count` connections, some at a time, and wait until each had its first answer."""
    opened: list[Listener] = []

    async def worker() -> None:
        while len(opened) < count:
            listener = make(len(opened))
            opened.append(listener)
            await open_one(address, listener)

    async with asyncio.timeout(_CONNECT_S_MAX), asyncio.TaskGroup() as workers:
        for _ in range(min(CONNECTING_AT_ONCE, count)):
            workers.create_task(worker())
    return opened


async def beat(listeners: list[Listener], seconds: float) -> float:
    """Let each listener send one heartbeat a second, evenly; return heartbeats a second."""
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - began) < seconds:
        due = int(now * len(listeners))
        for number in range(sent, due):
            listeners[number % len(listeners)].send(HEARTBEAT)
        sent = due
        await asyncio.sleep(0.002)
    return sent / (time.perf_counter() - began)


def close_all(listeners: list[Listener]) -> None:
    """Drop all connections."""
    for listener in listeners:
        if listener.transport is not None:
            listener.transport.abort()
