"""The cores of the registry; every test of one checks all of its invariants at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import Shard

from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming


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
