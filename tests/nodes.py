"""A real node and the barest of clients, on the simulated loop or on the real machine.

The client speaks frames and nothing more, so that a test can send what no client would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from builders import ORDERS, instance, secret_of, session_of
from google.protobuf.message import Message

from ssgovern.errors import ErrorCode
from ssgovern.model import ServiceKey
from ssgovern.node.config import (
    LimitsConfig,
    ListenConfig,
    ProtectionConfig,
    ServerConfig,
    SessionConfig,
    StorageConfig,
)
from ssgovern.node.node import Node, Ready
from ssgovern.runtime import Runtime
from ssgovern.runtime.real import RealRuntime
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import Frame, FrameReader, Kind, MessageAssembler, MessageType
from ssgovern.wire.frames import encode_frame as frame_of
from ssgovern.wire.pb import native_pb2

M = TypeVar("M", bound=Message)

VIRTUAL_SECONDS_MAX = 600.0
REAL_SECONDS_MAX = 30.0


class RefusedError(Exception):
    """The node answered with an error."""

    def __init__(self, error: native_pb2.Error) -> None:
        super().__init__(error.message)
        self.code = ErrorCode(error.code)
        self.retry = error.retry
        self.fields = dict(error.fields)


class ClosedByNodeError(Exception):
    """The node closed the connection; `reason` is the error it gave for it, if any."""

    def __init__(self, reason: ErrorCode | None) -> None:
        super().__init__("closed" if reason is None else reason.name)
        self.reason = reason


class Raw:
    """One connection. Answers and pushes are kept until they are asked for."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str
    ) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._assembler = MessageAssembler()
        self._answers: dict[int, Frame] = {}
        self._next_id = 1
        self.pushes: list[Frame] = []

    # --- bytes -----------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> Frame:
        """Return the next message of any kind. Raises ClosedByNodeError."""
        reason: ErrorCode | None = None
        while True:
            frame = self._frames.next_frame()
            if frame is None:
                try:
                    data = await self._reader.read(1 << 16)
                except ConnectionError:
                    data = b""
                if not data:
                    raise ClosedByNodeError(reason)
                self._frames.receive_data(data)
            elif (message := self._assembler.add(frame)) is not None:
                if message[0] == Kind.ERROR and message[3] == 0:
                    # It belongs to no request: the connection is about to close.
                    reason = ErrorCode(native_pb2.Error.FromString(message[4]).code)
                else:
                    return message

    async def closed(self) -> ErrorCode | None:
        """Wait until the node closes the connection; return the error it gave for it."""
        try:
            while True:
                await self.receive()
        except ClosedByNodeError as end:
            return end.reason

    def close(self) -> None:
        """Close without a goodbye."""
        self._writer.close()

    def resume_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def stop_reading(self) -> None:
        """Let whatever the node sends pile up."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    # --- messages --------------------------------------------------------------------------

    async def ask(self, type_: int, request: Message | bytes = b"") -> bytes:
        """Send a request and return the body of its answer; an error answer is raised."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        request_id = self._next_id
        self._next_id += 1
        await self.send(frame_of(Kind.REQUEST, type_, request_id, body))
        return await self.answer(request_id)

    async def answer(self, request_id: int) -> bytes:
        """Return the body of the answer to a request that was sent; an error answer is raised."""
        while request_id not in self._answers:
            frame = await self.receive()
            if frame[0] == Kind.PUSH:
                self.pushes.append(frame)
            else:
                self._answers[frame[3]] = frame
        kind, _, _, _, body = self._answers.pop(request_id)
        if kind == Kind.ERROR:
            raise RefusedError(native_pb2.Error.FromString(body))
        return body

    async def push(self) -> Message:
        """Return the next push, decoded."""
        while not self.pushes:
            frame = await self.receive()
            if frame[0] == Kind.PUSH:
                self.pushes.append(frame)
            else:
                self._answers[frame[3]] = frame
        _, _, type_, _, body = self.pushes.pop(0)
        kinds: dict[int, type[Message]] = {
            MessageType.SNAPSHOT: native_pb2.Snapshot,
            MessageType.DELTA: native_pb2.Delta,
            MessageType.CURRENT: native_pb2.Current,
            MessageType.SHARD_MAP: native_pb2.ShardMapUpdate,
        }
        return kinds[type_].FromString(body)

    async def hello(self, **fields: Any) -> native_pb2.HelloResponse:
        """Say hello as the session called like this connection."""
        request = native_pb2.HelloRequest(
            version_min=1,
            version_max=1,
            client_name="raw",
            session_id=session_of(self.name),
            session_secret=secret_of(self.name),
        )
        for field, value in fields.items():
            setattr(request, field, value)
        return native_pb2.HelloResponse.FromString(await self.ask(MessageType.HELLO, request))

    async def heartbeat(self) -> None:
        await self.ask(MessageType.HEARTBEAT)

    async def register(
        self, *ids: str, key: ServiceKey = ORDERS, **fields: Any
    ) -> native_pb2.RegisterResponse:
        """Register instances of one service."""
        request = native_pb2.RegisterRequest()
        for instance_id in ids:
            request.registrations.add(
                service=key_to_wire(key), instance=instance(instance_id, **fields)
            )
        return native_pb2.RegisterResponse.FromString(await self.ask(MessageType.REGISTER, request))

    async def deregister(
        self, instance_id: str, *, key: ServiceKey = ORDERS, **fields: Any
    ) -> native_pb2.DeregisterResponse:
        request = native_pb2.DeregisterRequest(
            service=key_to_wire(key), instance_id=instance_id, **fields
        )
        return native_pb2.DeregisterResponse.FromString(
            await self.ask(MessageType.DEREGISTER, request)
        )

    async def get(self, key: ServiceKey = ORDERS) -> native_pb2.GetResponse:
        request = native_pb2.GetRequest(service=key_to_wire(key))
        return native_pb2.GetResponse.FromString(await self.ask(MessageType.GET, request))

    async def ids(self, key: ServiceKey = ORDERS) -> list[str]:
        """Return the ids registered in a service, sorted."""
        return sorted(found.id for found in (await self.get(key)).instances)

    async def subscribe(
        self, key: ServiceKey = ORDERS, *, epoch: int = 0, revision: int = 0
    ) -> int:
        """Subscribe to a service; return the subscription's id."""
        request = native_pb2.SubscribeRequest(service=key_to_wire(key))
        if revision:
            request.known.add(service=key_to_wire(key), epoch=epoch, revision=revision)
        answer = await self.ask(MessageType.SUBSCRIBE, request)
        return native_pb2.SubscribeResponse.FromString(answer).subscription_id


class Stage:
    """A node that serves, and connections to it."""

    def __init__(self, node: Node, ready: Ready) -> None:
        self.node = node
        self.ready = ready
        self._open: list[Raw] = []

    async def connect(self, name: str = "stranger") -> Raw:
        """Open a connection that has not said hello."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ready.port)
        raw = Raw(reader, writer, name)
        self._open.append(raw)
        return raw

    async def client(self, name: str) -> Raw:
        """Open a connection of the session called `name`."""
        raw = await self.connect(name)
        await raw.hello()
        return raw

    def close(self) -> None:
        for raw in self._open:
            raw.close()


def config_of(data_dir: str = "data", **sections: Any) -> ServerConfig:
    """Return a configuration for a test's node; a section is a dict of its keys."""
    kinds = {
        "session": SessionConfig,
        "protection": ProtectionConfig,
        "storage": StorageConfig,
        "limits": LimitsConfig,
    }
    built = {
        name: kinds[name](**section) if name in kinds else section
        for name, section in sections.items()
    }
    return ServerConfig(data_dir=data_dir, listen=ListenConfig(port=0), **built)


@asynccontextmanager
async def serving(config: ServerConfig, runtime: Runtime) -> AsyncIterator[Stage]:
    """Run a node for as long as the context lasts, then stop it and check its invariants."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Ready] = loop.create_future()
    node = Node(config, runtime, on_ready=ready.set_result)
    task = loop.create_task(node.run())
    task.add_done_callback(lambda _: ready.cancel())
    try:
        stage = Stage(node, await ready)
    except asyncio.CancelledError:
        await task
        raise
    test = asyncio.current_task()
    assert test is not None
    in_use = True
    # A node that dies fails the test at once, with what it died of.
    task.add_done_callback(lambda _: test.cancel() if in_use else None)
    try:
        yield stage
        node.validate()
    finally:
        in_use = False
        stage.close()
        node.stop()
        await task
    # Let the other ends of the connections see their close.
    await asyncio.sleep(0.01)


Body = Callable[[Stage], Coroutine[Any, Any, None]]


def simulate(body: Body, *, seed: int = 0, **sections: Any) -> None:
    """Run `body` with a node on the simulated loop: time is virtual, so waiting costs nothing."""
    run_world(seed, lambda runtime: _stage(body, config_of(**sections), runtime))


def run_world(seed: int, *lives: Callable[[SimRuntime], Coroutine[Any, Any, None]]) -> None:
    """Run one coroutine after the other as lives of a process on one simulated machine."""
    with World(seed) as world:
        for number, life in enumerate(lives):
            world.process(f"life{number}", life, machine="host").start()
            ended = world.run_until(
                lambda number=number: len(world.exits) > number, world.now + VIRTUAL_SECONDS_MAX
            )
            assert ended, "virtual time ran out"
            cause = world.exits[-1].cause
            if cause is not None:
                raise cause
        assert not world.errors, world.errors


def for_real(body: Body, tmp_path: Path, **sections: Any) -> None:
    """Run `body` with a node on this machine, on the loop that nodes use."""

    async def main() -> None:
        async with asyncio.timeout(REAL_SECONDS_MAX):
            await _stage(body, config_of(str(tmp_path / "data"), **sections), RealRuntime())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _stage(body: Body, config: ServerConfig, runtime: Runtime) -> None:
    async with serving(config, runtime) as stage:
        await body(stage)
