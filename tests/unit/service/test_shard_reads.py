"""A picture of a shard is consistent, bounded, and read to its end or begun again."""

from __future__ import annotations

import pytest
from builders import registered

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, NotFoundError, OverloadedError
from ssgovern.model import LogPosition, ShardId
from ssgovern.registry.snapshot import restore
from ssgovern.registry.state import ShardState
from ssgovern.service.placement import Standalone
from ssgovern.service.shard_reads import ShardReads
from ssgovern.wire.pb import native_pb2

SHARD = ShardId(0)
COUNT = 1200


class Registry:
    """What of `RegistryService` is used: one shard."""

    def __init__(self) -> None:
        self.placement = Standalone()
        self.state = ShardState(SHARD)

    def state_at(self, shard: ShardId) -> ShardState:
        return self.state

    def add(self, name: str) -> None:
        record = registered("s", name, metadata={"fill": "x" * 500})
        self.state.apply(1, self.state.position.revision + 1, record)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    for number in range(COUNT):
        registry.add(f"i-{number}")
    return registry


def ask(reads: ShardReads[str], reader: str, number: int, now_ms: float = 0.0):
    request = native_pb2.ReadShardRequest(shard=SHARD, number=number)
    return reads.read(reader, request, now_ms)


def test_what_is_written_meanwhile_is_not_in_it(registry: Registry) -> None:
    """All chunks are of the moment of the first, however long reading takes."""
    reads: ShardReads[str] = ShardReads(registry)  # type: ignore[arg-type]
    chunks: list[bytes] = []
    while True:
        answer = ask(reads, "me", len(chunks))
        registry.add(f"later-{len(chunks)}")
        chunks.append(answer.chunk)
        assert (answer.epoch, answer.revision, answer.instances) == (1, COUNT, COUNT)
        if answer.done:
            break
    assert len(chunks) > 2
    state = ShardState(SHARD)
    restore(state, LogPosition(1, COUNT), chunks)
    names = [name for service in state.services.values() for name in service.instances]
    assert names == [f"i-{number}" for number in range(COUNT)]
    assert not len(reads)


def test_only_what_comes_next_can_be_read(registry: Registry) -> None:
    """A chunk that is not the next one, or of nobody's picture, is refused: begin again."""
    reads: ShardReads[str] = ShardReads(registry)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="begin with chunk 0"):
        ask(reads, "me", 1)
    first = ask(reads, "me", 0)
    for number in (2, 5):
        with pytest.raises(NotFoundError):
            ask(reads, "me", number)
    assert ask(reads, "me", 0).chunk == first.chunk
    assert ask(reads, "me", 1).chunk != first.chunk
    with pytest.raises(InvalidArgumentError):
        reads.read("me", native_pb2.ReadShardRequest(shard=256), 0.0)


def test_pictures_are_limited_and_forgotten(registry: Registry) -> None:
    """Readers beyond the limit wait; who reads no more, or is gone, holds nothing."""
    reads: ShardReads[str] = ShardReads(registry)  # type: ignore[arg-type]
    for number in range(limits.BACKUP_READS_MAX):
        ask(reads, f"reader-{number}", 0)
    with pytest.raises(OverloadedError):
        ask(reads, "me", 0)
    reads.forget("reader-0")
    ask(reads, "me", 0)
    ask(reads, "me", 1, limits.BACKUP_READ_IDLE_MS + 1.0)
    assert len(reads) == 1
