"""Positions, commits and withdrawals of one shard's log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import epoch_started

from ssgovern.model import LogPosition, NodeId, Outcome, ShardId
from ssgovern.replication.primary import PrimaryLog, Proposal

ME, OTHER = NodeId(1), NodeId(2)


class Nobody:
    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        raise AssertionError("the log itself answers nobody")


def propose(log: PrimaryLog, count: int) -> list[int]:
    return [log.propose(b"", epoch_started(), Nobody()).revision for _ in range(count)]


def revisions(proposals: list[Proposal]) -> list[int]:
    return [proposal.revision for proposal in proposals]


@pytest.fixture
def alone() -> Iterator[PrimaryLog]:
    log = PrimaryLog(ShardId(3), 5, LogPosition(4, 10), (ME,))
    yield log
    log.validate()


@pytest.fixture
def pair() -> Iterator[PrimaryLog]:
    log = PrimaryLog(ShardId(3), 5, LogPosition(4, 10), (ME, OTHER))
    yield log
    log.validate()


def test_positions_follow_the_tail(alone: PrimaryLog) -> None:
    """The first proposal of an epoch follows the last entry of the one before."""
    assert propose(alone, 3) == [11, 12, 13]
    assert alone.committed == 10


def test_commit_is_in_order_and_once(alone: PrimaryLog) -> None:
    """What is persisted commits, oldest first, each entry once."""
    propose(alone, 3)
    assert revisions(alone.on_persisted(ME, 12)) == [11, 12]
    assert alone.on_persisted(ME, 12) == []
    assert alone.on_persisted(ME, 11) == []
    assert revisions(alone.on_persisted(ME, 13)) == [13]
    assert alone.committed == 13


def test_every_member_counts(pair: PrimaryLog) -> None:
    """An entry commits when the slowest member of the in-sync set has it."""
    propose(pair, 3)
    assert pair.on_persisted(ME, 13) == []
    assert revisions(pair.on_persisted(OTHER, 11)) == [11]
    assert revisions(pair.on_persisted(OTHER, 13)) == [12, 13]


def test_what_the_disk_refused_is_withdrawn(alone: PrimaryLog) -> None:
    """Withdrawn entries never commit, and their revisions are given again."""
    propose(alone, 2)
    alone.on_persisted(ME, 11)
    propose(alone, 2)
    assert revisions(alone.on_append_failed(ME)) == [12, 13, 14]
    alone.validate()
    assert propose(alone, 1) == [12]
    assert revisions(alone.on_persisted(ME, 12)) == [12]


def test_withdrawing_nothing(alone: PrimaryLog) -> None:
    """A refusal when all is persisted withdraws nothing."""
    propose(alone, 1)
    alone.on_persisted(ME, 11)
    assert alone.on_append_failed(ME) == []
    assert alone.tail == 11


def test_what_another_member_holds_cannot_be_withdrawn(pair: PrimaryLog) -> None:
    """Giving a revision again that a replica holds would be two entries at one position."""
    propose(pair, 1)
    pair.on_persisted(OTHER, 11)
    with pytest.raises(AssertionError, match="another member"):
        pair.on_append_failed(ME)


def test_what_was_never_proposed_cannot_be_persisted(alone: PrimaryLog) -> None:
    """A member that claims more than was proposed is a fault of ours."""
    with pytest.raises(AssertionError, match="never proposed"):
        alone.on_persisted(ME, 11)


def test_an_epoch_must_be_new() -> None:
    """An epoch that the log already has, and an empty in-sync set, are refused at once."""
    with pytest.raises(AssertionError, match="used before"):
        PrimaryLog(ShardId(0), 4, LogPosition(4, 10), (ME,))
    with pytest.raises(AssertionError, match="in-sync"):
        PrimaryLog(ShardId(0), 5, LogPosition(4, 10), ())


def test_repr_shows_the_state(alone: PrimaryLog) -> None:
    """What people read in logs says where the log is."""
    propose(alone, 2)
    assert repr(alone) == "<PrimaryLog shard=3 epoch=5 tail=12 committed=10>"
