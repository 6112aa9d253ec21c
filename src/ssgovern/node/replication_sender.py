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
from ssgovern.replication.codec import EncodedAppends, encode_batch
from ssgovern.replication.messages import AppendEntries, InstallSnapshot, Message
from ssgovern.wire.frames import MessageType

_MESSAGE_BYTES = 48
"""About what a message takes beside the bodies of its entries."""


class Links(Protocol):
    """The part of `transport.links.PeerLinks` that is needed here."""

    def send(self, node: NodeId, type_: int, body: bytes) -> bool: ...

    async def send_paced(self, node: NodeId, type_: int, bodies: Iterable[bytes]) -> bool: ...


AskController = Callable[[int, bytes, float], Awaitable[bytes]]
"""Type, body, deadline; raises what the controller refuses with, or UnavailableError."""


_Key = tuple[int, ShardId]
_Question = tuple[bytes, Callable[[SsGovernError], None]]


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
        encoded: EncodedAppends = {}
        for target, messages in waiting.items():
            first, size_bytes = 0, 0
            for index, message in enumerate(messages):
                message_bytes = size_of(message)
                if first < index and size_bytes + message_bytes > limits.REPLICATION_BATCH_BYTES:
                    self._send(target, messages[first:index], encoded)
                    first, size_bytes = index, 0
                size_bytes += message_bytes
            self._send(target, messages[first:] if first else messages, encoded)

    def _send(self, target: NodeId, messages: list[Message], encoded: EncodedAppends) -> None:
        body = encode_batch(self._session(), messages, encoded)
        if not self._links.send(target, MessageType.REPLICATION, body):
            self.dropped += len(messages)


def size_of(message: Message) -> int:
    """Return about how many bytes a message takes."""
    size_bytes = _MESSAGE_BYTES
    if isinstance(message, AppendEntries):
        for entry in message.entries:
            size_bytes += len(entry.body) + 8
    elif isinstance(message, InstallSnapshot):
        size_bytes += len(message.state)
    return size_bytes


class Asker:
    """Questions of primaries to the controller, at most one of a kind and shard at a time."""

    def __init__(self, ask: AskController, timeout_s: float) -> None:
        self._ask = ask
        self._timeout_s = timeout_s
        self._waiting: dict[_Key, _Question] = {}
        self._asking: dict[_Key, None] = {}
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
        """Ask unless the like is being asked; `refused` hears of a refusal.

        Takes the place of the like that waits for its turn. Who asks does so again and again, so
        that nothing is lost by an answer that is.
        """
        key = (type_, shard)
        if key in self._asking:
            return
        waits = key in self._waiting
        self._waiting[key] = body, refused
        if not waits:
            group.create_task(self._run(key), name=f"ask-{type_}-{shard}")

    async def _run(self, key: _Key) -> None:
        async with self._turns:
            body, refused = self._waiting.pop(key)
            self._asking[key] = None
            try:
                await self._ask(key[0], body, self._loop.time() + self._timeout_s)
            except SsGovernError as error:
                refused(error)
            finally:
                del self._asking[key]
