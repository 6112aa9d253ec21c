"""A node that answers an operator and nobody else: statuses from a list, commands with a sentence.

Runs on a loop in a thread, because a command runs a loop of its own.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

from google.protobuf.message import Message

from ssgovern.errors import InvalidArgumentError, SsGovernError, UnsupportedTypeError
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import encode, error_to_wire
from ssgovern.wire.frames import Frame, Kind, MessageType, encode_message
from ssgovern.wire.pb import native_pb2


class FakeCluster:
    """`statuses` are answered in turn, the last one for ever."""

    def __init__(self, *statuses: native_pb2.ClusterStatusResponse) -> None:
        self.statuses = list(statuses)
        self.commands: list[native_pb2.ClusterCommandRequest] = []
        self.refusal: SsGovernError | None = None
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait(10.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        connections: list[_Connection] = []
        server = await loop.create_server(lambda: _Connection(self, connections), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        self._listening.set()
        await self._stop.wait()
        server.close()
        for connection in connections:
            connection.abort()
        await server.wait_closed()

    def answer(self, type_: int, body: bytes) -> Message:
        """Return the answer to a request."""
        match type_:
            case MessageType.HELLO:
                return native_pb2.HelloResponse(
                    version=1,
                    cluster_id=b"c" * 16,
                    node_id=1,
                    node_name="fake",
                    session_ttl_ms=5000,
                    heartbeat_interval_ms=1000,
                )
            case MessageType.HEARTBEAT:
                return native_pb2.HeartbeatResponse()
            case MessageType.GOODBYE:
                return native_pb2.GoodbyeResponse()
            case MessageType.CLUSTER_STATUS:
                if not self.statuses:
                    raise InvalidArgumentError("this node is not part of a cluster")
                found = self.statuses[0]
                if len(self.statuses) > 1:
                    self.statuses.pop(0)
                return found
            case MessageType.CLUSTER_COMMAND:
                self.commands.append(native_pb2.ClusterCommandRequest.FromString(body))
                if self.refusal is not None:
                    raise self.refusal
                return native_pb2.ClusterCommandResponse(sentence="it was decided")
            case _:
                raise UnsupportedTypeError(f"type {type_} is not faked")


class _Connection(FrameConnection):
    def __init__(self, cluster: FakeCluster, connections: list[_Connection]) -> None:
        super().__init__()
        self._cluster = cluster
        self._connections = connections

    def on_open(self) -> None:
        self._connections.append(self)

    def on_frame(self, frame: Frame) -> None:
        _, _, type_, request_id, body = frame
        try:
            kind, message = Kind.RESPONSE, self._cluster.answer(type_, body)
        except SsGovernError as error:
            kind, message = Kind.ERROR, error_to_wire(error)
        self.send_all(encode_message(kind, type_, request_id, encode(message)))
