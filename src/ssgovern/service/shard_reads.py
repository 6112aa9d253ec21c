"""Whole shards for those who take backups: consistent, a chunk at a time.

A picture of a shard is taken when its first chunk is asked for (references only, so at once), and
encoded as it is read, while the shard moves on. Knows no connections and no files. Invariants:
what is in a picture is committed; a reader has one picture, and how many there are is limited.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, NotFoundError, OverloadedError
from ssgovern.model import SHARDS, LogPosition, ShardId
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import native_pb2

R = TypeVar("R", bound=Hashable)


class _Reading:
    """A picture of a shard that somebody reads."""

    __slots__ = ("_chunks", "_next", "expires_ms", "instances", "number", "position", "shard")

    def __init__(self, state: ShardState, expires_ms: float) -> None:
        captured = capture(state)
        self.shard = state.shard
        self.position: LogPosition = captured.position
        self.instances = state.instances
        self.expires_ms = expires_ms
        self.number = 0
        """Of the chunk that is read next."""
        self._chunks: Iterator[bytes] = encode_chunks(captured)
        self._next: bytes | None = next(self._chunks)

    def take(self) -> tuple[bytes, bool]:
        """Return the next chunk, and whether it is the last."""
        chunk = self._next
        assert chunk is not None, "a picture has at least one chunk, and is dropped after the last"
        self._next = next(self._chunks, None)
        self.number += 1
        return chunk, self._next is None


class ShardReads(Generic[R]):
    """The pictures that are being read on this node, by reader."""

    def __init__(self, registry: RegistryService) -> None:
        self._registry = registry
        self._readings: dict[R, _Reading] = {}

    def __len__(self) -> int:
        return len(self._readings)

    def read(
        self, reader: R, request: native_pb2.ReadShardRequest, now_ms: float
    ) -> native_pb2.ReadShardResponse:
        """Return one chunk.

        Raises ShardMovedError or ShardUnavailableError if another node is to be asked,
        NotFoundError if the picture is gone: begin with chunk 0 again.
        """
        reading = (
            self._continue(reader, request) if request.number else self._begin(reader, request)
        )
        reading.expires_ms = now_ms + limits.BACKUP_READ_IDLE_MS
        self._drop_idle(now_ms)
        chunk, done = reading.take()
        if done:
            self.forget(reader)
        return native_pb2.ReadShardResponse(
            epoch=reading.position.epoch,
            revision=reading.position.revision,
            instances=reading.instances,
            chunk=chunk,
            done=done,
        )

    def forget(self, reader: R) -> None:
        """Let go what a reader has not read yet."""
        self._readings.pop(reader, None)

    def _begin(self, reader: R, request: native_pb2.ReadShardRequest) -> _Reading:
        if request.shard >= SHARDS:
            raise InvalidArgumentError(f"there are {SHARDS} shards", field="shard")
        shard = ShardId(request.shard)
        self._registry.placement.check_read(shard, replica_too=False)
        self.forget(reader)
        if len(self._readings) >= limits.BACKUP_READS_MAX:
            raise OverloadedError(
                f"{len(self._readings)} backups read from this node already",
                limit=limits.BACKUP_READS_MAX,
            )
        reading = self._readings[reader] = _Reading(self._registry.state_at(shard), 0.0)
        return reading

    def _continue(self, reader: R, request: native_pb2.ReadShardRequest) -> _Reading:
        reading = self._readings.get(reader)
        if reading is None or (reading.shard, reading.number) != (request.shard, request.number):
            raise NotFoundError(
                f"chunk {request.number} of shard {request.shard} is not what comes next: "
                "begin with chunk 0 again"
            )
        return reading

    def _drop_idle(self, now_ms: float) -> None:
        for reader, reading in list(self._readings.items()):
            if reading.expires_ms < now_ms:
                del self._readings[reader]
