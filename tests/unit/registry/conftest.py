"""The cores of the registry; every test of one checks all of its invariants at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern.model import Outcome, ShardId
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.wire.pb import log_pb2


class Shard:
    """A shard's state and the position of its log."""

    def __init__(self) -> None:
        self.state = ShardState(ShardId(7))
        self.epoch = 1

    def apply(self, *records: log_pb2.Record) -> Outcome:
        """Apply records at the next revisions; return what became of the last."""
        for record in records:
            outcome = self.state.apply(self.epoch, self.state.position.revision + 1, record)
        return outcome

    @property
    def revision(self) -> int:
        return self.state.position.revision


@pytest.fixture
def shard() -> Iterator[Shard]:
    """A shard with nothing in it."""
    shard = Shard()
    yield shard
    shard.state.validate()


@pytest.fixture
def table() -> Iterator[SessionTable]:
    """Sessions with the usual times and no protection."""
    table = SessionTable(
        SessionTiming(ttl_ms=5000, close_grace_ms=1000, tick_ms=250),
        Protection(ProtectionPolicy(share=1.0)),
    )
    yield table
    table.validate()
