"""What leaves this node for the sake of replication: messages, whole shards, questions.

Messages collect until `flush` and leave as few frames. A message that cannot leave is dropped:
the cores send again. A shard that is sent whole goes piece by piece, a few shards at a time.
Questions to the controller are asked a few at a time, the newest of each shard only.

Refuses to know what any of it means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId, ShardId
from ssgovern.replication.codec import encode_batch
from ssgovern.replication.messages import AppendEntries, Message
from ssgovern.wire.frames import MessageType

_MESSAGE_BYTES = 48
"""About what a message takes beside the bodies of its entries."""


class Links(Protocol):
    """The part of `transport.links.PeerLinks` that is needed here."""

    def send(self, node: NodeId, type_: int, body: bytes) -> bool: ...

    async def send_paced(self, node: NodeId, type_: int, bodies: Iterable[bytes]) -> bool: ...


AskController = Callable[[int, bytes, float], Awaitable[bytes]]
"""Type, body, deadline; raises what the controller refuses with, or UnavailableError."""


class Outbox:
    """Messages that wait for the end of this turn of the loop."""

    def __init__(self, links: Links, session: Callable[[], int]) -> None:
        self._links = links
        self._session = session
        self._waiting: dict[NodeId, list[Message]] = {}
        self.dropped = 0

    def add(self, target: NodeId, message: Message) -> None:
        waiting = self._waiting.get(target)
        if waiting is None:
            waiting = self._waiting[target] = []
        waiting.append(message)

    def flush(self) -> None:
        """Send all that waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for target, messages in waiting.items():
            first, size_bytes = 0, 0
            for index, message in enumerate(messages):
                message_bytes = _size_of(message)
                if first < index and size_bytes + message_bytes > limits.REPLICATION_BATCH_BYTES:
                    self._send(target, messages[first:index])
                    first, size_bytes = index, 0
                size_bytes += message_bytes
            self._send(target, messages[first:] if first else messages)

    def _send(self, target: NodeId, messages: list[Message]) -> None:
        body = encode_batch(self._session(), messages)
        if not self._links.send(target, MessageType.REPLICATION, body):
            self.dropped += len(messages)


def _size_of(message: Message) -> int:
    size_bytes = _MESSAGE_BYTES
    if isinstance(message, AppendEntries):
        for entry in message.entries:
            size_bytes += len(entry.body) + 8
    return size_bytes


class Asker:
    """Questions of primaries to the controller, at most one of a kind and shard at a time."""

    def __init__(self, ask: AskController, timeout_s: float) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._asking: dict[tuple[int, ShardId], None] = {}
        self._turns = asyncio.Semaphore(limits.REPLICATION_ASKS_AT_ONCE)
        self._loop = asyncio.get_running_loop()

    def ask(
        self,
        group: asyncio.TaskGroup,
        type_: int,
        shard: ShardId,
        body: bytes,
        refused: Callable[[SsGovernError], None],
    ) -> None:
        """Ask unless this is being asked; `refused` hears of a refusal. Asked again by others."""
        key = (type_, shard)
        if key not in self._asking:
            self._asking[key] = None
            group.create_task(self._run(key, body, refused), name=f"ask-{type_}-{shard}")

    async def _run(
        self, key: tuple[int, ShardId], body: bytes, refused: Callable[[SsGovernError], None]
    ) -> None:
        try:
            async with self._turns:
                await self._ask(key[0], body, self._loop.time() + self._timeout_s)
        except SsGovernError as error:
            refused(error)
        finally:
            del self._asking[key]
