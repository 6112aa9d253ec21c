"""The log of one node: cutting, compacting, starting again from what a disk holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern.model import NodeId
from ssgovern.raft import Config, Entry, RaftLog, Snapshot

THREE = Config((NodeId(1), NodeId(2), NodeId(3)))
FOUR = THREE._replace(learners=(NodeId(4),))


def entries(*terms: int, first: int = 1) -> list[Entry]:
    return [Entry(first + at, term, b"%d" % (first + at)) for at, term in enumerate(terms)]


@pytest.fixture
def log() -> Iterator[RaftLog]:
    log = RaftLog(Snapshot(config=THREE), entries(1, 1, 2, 2, 4))
    yield log
    log.validate()


def test_what_the_disk_held_is_durable_and_nothing_is_committed(log: RaftLog) -> None:
    """A start knows what is written, and nothing of what others have."""
    assert (log.durable, log.handed, log.commit, log.applied) == (5, 5, 0, 0)
    assert repr(log) == "<RaftLog 0/0..4/5 commit=0 applied=0 durable=5>"


def test_terms_outside_the_log_are_unknown(log: RaftLog) -> None:
    """Nobody takes "I do not have it" for a term."""
    assert log.term_at(6) is None
    assert log.term_at(0) == 0
    log.commit_to(4)
    log.take_committed()
    log.compact(4, b"", keep=0)
    assert log.term_at(3) is None
    assert log.term_at(4) == 2


def test_the_later_term_is_more_up_to_date_than_the_longer_log(log: RaftLog) -> None:
    """Votes go by last term first, then by length (5.4.1)."""
    assert log.is_up_to_date(5, 4)
    assert log.is_up_to_date(1, 5)
    assert not log.is_up_to_date(4, 4)
    assert not log.is_up_to_date(100, 3)


@pytest.mark.parametrize(
    ("index", "term", "meeting"), [(9, 9, 5), (5, 3, 4), (5, 1, 2), (5, 0, 0), (2, 2, 2)]
)
def test_where_logs_may_meet(log: RaftLog, index: int, term: int, meeting: int) -> None:
    """One hint skips all entries that are of too late a term."""
    assert log.last_not_after(index, term) == meeting


def test_a_sync_of_replaced_entries_proves_nothing_of_the_new_ones(log: RaftLog) -> None:
    """An index is durable only with the term that was written (ABA)."""
    log.append(Entry(6, 4))
    log.handed = 6
    log.truncate(5)
    log.append(Entry(5, 5))
    log.append(Entry(6, 5))
    log.persisted(6, 4)
    assert log.durable == 4
    log.handed = 6
    log.persisted(6, 5)
    assert log.durable == 6


def test_committed_entries_are_never_cut(log: RaftLog) -> None:
    """Whoever tries is wrong."""
    log.commit_to(3)
    with pytest.raises(AssertionError, match="committed"):
        log.truncate(3)


def test_cutting_takes_back_every_change_of_members_in_what_is_cut(log: RaftLog) -> None:
    """The members in force are those of the last change that is still in the log."""
    log.append(Entry(6, 4, FOUR))
    log.append(Entry(7, 4, THREE.settled()))
    assert (log.config_index, log.config) == (7, THREE)
    log.truncate(7)
    assert (log.config_index, log.config) == (6, FOUR)
    log.truncate(5)
    assert (log.config_index, log.config) == (0, THREE)


def test_a_snapshot_holds_the_members_at_its_index(log: RaftLog) -> None:
    """Not those of changes after it."""
    log.append(Entry(6, 4, FOUR))
    log.commit_to(5)
    log.take_committed()
    log.compact(5, b"state", keep=2)
    assert log.snapshot == Snapshot(5, 4, THREE, b"state")
    assert (log.base_index, log.base_term) == (3, 2)
    assert log.config == FOUR
    log.commit_to(6)
    log.take_committed()
    log.compact(6, b"state", keep=0)
    assert log.snapshot.config == FOUR


def test_only_what_was_applied_is_compacted(log: RaftLog) -> None:
    """A snapshot at an index that nobody applied would be of another state."""
    log.commit_to(5)
    with pytest.raises(AssertionError, match="no snapshot"):
        log.compact(5, b"", keep=0)


def test_an_installed_snapshot_replaces_everything(log: RaftLog) -> None:
    """It is handed out to be written once, before what follows it."""
    snapshot = Snapshot(9, 6, FOUR, b"state")
    log.install(snapshot)
    assert (log.last_index, log.last_term, log.commit, log.applied) == (9, 6, 9, 9)
    assert log.config == FOUR
    assert log.take_installed() == snapshot
    assert log.take_installed() is None


def test_a_log_from_before_an_installed_snapshot_is_not_continued() -> None:
    """A crash between the snapshot and the dropping of the log leaves entries of another
    history, which must not come back."""
    snapshot = Snapshot(3, 5, THREE)
    assert RaftLog(snapshot, entries(1, 1, 2, 2, 2)).last_index == 3
    assert RaftLog(snapshot, entries(1, 1)).last_index == 3
    assert RaftLog(snapshot, entries(1, 1, 5, 5)).last_index == 4
    assert RaftLog(snapshot, entries(5, 6, first=4)).last_index == 5


def test_a_batch_is_bounded_but_never_empty(log: RaftLog) -> None:
    """An entry larger than the bound goes alone."""
    log.append(Entry(6, 4, b"x" * 100))
    assert [entry.index for entry in log.batch(1, 3, 64)] == [1, 2, 3]
    assert [entry.index for entry in log.batch(1, 1000, 2)] == [1, 2]
    assert [entry.index for entry in log.batch(6, 10, 64)] == [6]
    assert log.batch(7, 10, 64) == ()
