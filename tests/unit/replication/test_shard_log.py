"""The end of a shard's log in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern.model import LogPosition, ShardId
from ssgovern.replication.messages import Entry
from ssgovern.replication.shard_log import ShardLog


@pytest.fixture
def log() -> Iterator[ShardLog]:
    """Base 2/10; then 11 and 12 of epoch 2, 13 of epoch 3, 14 and 15 of epoch 5."""
    epochs = (2, 2, 3, 5, 5)
    entries = [Entry(epoch, 11 + index, b"four") for index, epoch in enumerate(epochs)]
    made = ShardLog(ShardId(7), LogPosition(2, 10), entries)
    yield made
    made.validate()


def test_positions(log: ShardLog) -> None:
    """Known are the base and what follows it, nothing before and nothing beyond."""
    assert log.tail == LogPosition(5, 15)
    assert log.position_at(10) == LogPosition(2, 10)
    assert log.position_at(13) == LogPosition(3, 13)
    assert log.position_at(9) is None
    assert log.position_at(16) is None


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (LogPosition(9, 99), LogPosition(5, 15)),
        (LogPosition(4, 99), LogPosition(3, 13)),
        (LogPosition(5, 14), LogPosition(5, 14)),
        (LogPosition(2, 99), LogPosition(2, 12)),
        (LogPosition(2, 10), LogPosition(2, 10)),
        (LogPosition(1, 99), None),
        (LogPosition(5, 9), None),
    ],
)
def test_where_two_logs_may_agree(
    log: ShardLog, limit: LogPosition, found: LogPosition | None
) -> None:
    """The last position with neither a higher epoch nor a higher revision than the other's."""
    assert log.last_up_to(limit) == found


def test_a_batch_is_bounded_but_not_empty(log: ShardLog) -> None:
    """An entry larger than the bound is sent alone rather than never."""
    assert [e.revision for e in log.entries(11, 2, 100)] == [12, 13]
    assert [e.revision for e in log.entries(11, 9, 8)] == [12, 13]
    assert [e.revision for e in log.entries(11, 9, 1)] == [12]
    assert log.entries(15, 9, 9) == []


def test_release_and_truncate(log: ShardLog) -> None:
    """What is released is known as a position still; what is cut is not known at all."""
    log.release(13)
    assert log.base == LogPosition(3, 13)
    log.truncate(14)
    assert log.tail == LogPosition(5, 14)
    log.release(99)
    assert log.tail == LogPosition(5, 14)
    with pytest.raises(AssertionError, match="cut to 12"):
        log.truncate(12)
