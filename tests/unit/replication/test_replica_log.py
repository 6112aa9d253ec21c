"""A replica's promises, cuts and answers, by events and effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Apply,
    Assigned,
    Effect,
    Entry,
    Fenced,
    Install,
    InstallSnapshot,
    Mismatch,
    Persist,
    Send,
)
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.shard_log import ShardLog

ME, PRIMARY, OTHER = NodeId(2), NodeId(1), NodeId(3)
SHARD = ShardId(7)


def entries(epoch: int, first: int, last: int) -> list[Entry]:
    return [Entry(epoch, revision, b"x") for revision in range(first, last + 1)]


def append(
    epoch: int, prev: tuple[int, int], batch: list[Entry], committed: int = 0
) -> AppendEntries:
    return AppendEntries(SHARD, PRIMARY, epoch, LogPosition(*prev), batch, committed)


def kinds(effects: list[Effect]) -> list[type]:
    return [type(e.message) if isinstance(e, Send) else type(e) for e in effects]


def sent(effects: list[Effect]) -> object:
    (message,) = [effect.message for effect in effects if isinstance(effect, Send)]
    return message


@pytest.fixture
def make() -> Iterator[Callable[..., ReplicaLog]]:
    made: list[ReplicaLog] = []

    def build(base: tuple[int, int] = (0, 0), held: list[Entry] | None = None) -> ReplicaLog:
        log = ShardLog(SHARD, LogPosition(*base), held or [])
        made.append(ReplicaLog(ME, 9, log.tail.epoch, log, base[1]))
        return made[-1]

    yield build
    for replica in made:
        replica.validate()


def test_the_promise_is_on_disk_before_any_answer(make: Callable[..., ReplicaLog]) -> None:
    """A new epoch is persisted first, even if the batch itself is refused."""
    replica = make()
    effects = replica.on_append(append(4, (3, 8), entries(4, 9, 9)))
    assert kinds(effects) == [Persist, Mismatch]
    assert isinstance(effects[0], Persist)
    assert effects[0].epoch == 4


def test_effects_are_persist_answer_apply(make: Callable[..., ReplicaLog]) -> None:
    """What is acknowledged is on disk; what is applied is committed."""
    replica = make()
    effects = replica.on_append(append(4, (0, 0), entries(4, 1, 3), committed=2))
    assert kinds(effects) == [Persist, Persist, Appended, Apply]
    assert sent(effects) == Appended(SHARD, ME, 9, 4, 3)
    assert repr(replica) == "<ReplicaLog shard=7 epoch=4 tail=4/3 committed=2>"


def test_an_older_epoch_is_refused(make: Callable[..., ReplicaLog]) -> None:
    """Whoever sends it and however sure it is of being the primary."""
    replica = make()
    replica.on_append(append(4, (0, 0), entries(4, 1, 1)))
    effects = replica.on_append(append(3, (0, 0), entries(3, 1, 5)))
    assert kinds(effects) == [Fenced]
    assert kinds(replica.on_snapshot(_snapshot(3, (3, 9)))) == [Fenced]
    assert replica.log.tail == LogPosition(4, 1)


def test_the_controller_fences_too(make: Callable[..., ReplicaLog]) -> None:
    """An epoch heard of from the controller is a promise like one heard from a primary."""
    replica = make()
    row = Assigned(SHARD, 6, 1, OTHER, (), ())
    assert kinds(replica.on_assigned(row)) == [Persist]
    assert replica.on_assigned(row) == []
    assert kinds(replica.on_append(append(5, (0, 0), []))) == [Fenced]


def test_equal_revisions_are_not_enough(make: Callable[..., ReplicaLog]) -> None:
    """Two primaries may have given one revision to different entries."""
    replica = make(held=[*entries(2, 1, 3), *entries(3, 4, 6)])
    effects = replica.on_append(append(5, (4, 6), entries(5, 7, 7)))
    mismatch = sent(effects)
    assert isinstance(mismatch, Mismatch)
    assert mismatch.hint == LogPosition(3, 5)
    effects = replica.on_append(append(5, (2, 5), entries(5, 6, 6)))
    mismatch = sent(effects)
    assert isinstance(mismatch, Mismatch)
    assert mismatch.hint == LogPosition(2, 3), "a whole epoch is skipped at once"


def test_what_the_primary_contradicts_is_cut(make: Callable[..., ReplicaLog]) -> None:
    """The common prefix stays, and no more is acknowledged than what agrees."""
    replica = make(held=entries(2, 1, 9))
    effects = replica.on_append(append(5, (2, 4), entries(5, 5, 6)))
    persist = effects[1]
    assert isinstance(persist, Persist)
    assert (persist.keep, [e.revision for e in persist.entries]) == (4, [5, 6])
    assert replica.log.tail == LogPosition(5, 6)


def test_what_is_not_contradicted_stays(make: Callable[..., ReplicaLog]) -> None:
    """A late copy of an older batch cuts nothing; only what it covers is acknowledged."""
    replica = make(held=entries(2, 1, 9))
    effects = replica.on_append(append(2, (2, 2), entries(2, 3, 4), committed=9))
    assert kinds(effects) == [Appended, Apply]
    assert sent(effects) == Appended(SHARD, ME, 9, 2, 4)
    assert (replica.log.tail_revision, replica.committed) == (9, 4)


def test_nothing_committed_is_cut(make: Callable[..., ReplicaLog]) -> None:
    """A primary that contradicts what is committed here is told the floor, not obeyed."""
    replica = make(held=entries(2, 1, 5))
    replica.on_append(append(2, (2, 5), [], committed=4))
    effects = replica.on_append(append(3, (2, 2), entries(3, 3, 6)))
    mismatch = sent(effects)
    assert isinstance(mismatch, Mismatch)
    assert mismatch.floor == LogPosition(2, 4)
    assert replica.log.tail == LogPosition(2, 5)


def test_a_batch_that_begins_below_the_base(make: Callable[..., ReplicaLog]) -> None:
    """It need not be compared entry by entry: equal positions mean equal prefixes."""
    replica = make(base=(2, 5))
    assert sent(replica.on_append(append(2, (2, 3), entries(2, 4, 7)))) == Appended(
        SHARD, ME, 9, 2, 7
    )
    assert isinstance(sent(replica.on_append(append(2, (2, 1), entries(2, 2, 3)))), Mismatch)


def _snapshot(
    epoch: int, position: tuple[int, int], replaces: LogPosition | None = None
) -> InstallSnapshot:
    return InstallSnapshot(SHARD, PRIMARY, epoch, LogPosition(*position), b"state", replaces)


def test_a_snapshot_replaces_a_log_that_lacks_it(make: Callable[..., ReplicaLog]) -> None:
    """It is installed before it is acknowledged."""
    replica = make(held=entries(2, 1, 3))
    effects = replica.on_snapshot(_snapshot(4, (3, 20)))
    assert kinds(effects) == [Persist, Install, Appended]
    assert repr(replica) == "<ReplicaLog shard=7 epoch=4 tail=3/20 committed=20>"


def test_a_snapshot_of_what_is_held_is_not_installed(make: Callable[..., ReplicaLog]) -> None:
    """What stands behind its position may have been acknowledged and stays."""
    replica = make(held=entries(2, 1, 9))
    effects = replica.on_snapshot(_snapshot(2, (2, 5)))
    assert kinds(effects) == [Appended, Apply]
    assert (replica.log.tail_revision, replica.committed) == (9, 5)


def test_a_late_snapshot_changes_nothing(make: Callable[..., ReplicaLog]) -> None:
    """Behind the commit position there is nothing to learn."""
    replica = make(base=(3, 9))
    assert replica.on_snapshot(_snapshot(3, (3, 5))) == []


def test_a_snapshot_may_replace_what_was_committed_in_error(
    make: Callable[..., ReplicaLog],
) -> None:
    """With fewer acknowledgements than all, the primary's log is the shard's."""
    replica = make(base=(3, 9))
    floor = LogPosition(3, 9)
    assert kinds(replica.on_snapshot(_snapshot(4, (3, 5), floor))) == [Persist, Install, Appended]
    assert replica.committed == 5


def test_what_the_disk_refused_is_forgotten(make: Callable[..., ReplicaLog]) -> None:
    """Entries, commit position and promise are what the disk says; nothing else was answered."""
    replica = make()
    first = replica.on_append(append(4, (0, 0), entries(4, 1, 2)))
    marks = [effect.mark for effect in first if isinstance(effect, Persist)]
    replica.on_persisted(marks[-1])
    replica.on_append(append(4, (4, 2), entries(4, 3, 6), committed=5))
    replica.on_append_failed()
    assert repr(replica) == "<ReplicaLog shard=7 epoch=4 tail=4/2 committed=0>"
    assert kinds(replica.on_append(append(4, (4, 2), entries(4, 3, 3)))) == [Persist, Appended]


def test_a_refused_promise_is_made_again(make: Callable[..., ReplicaLog]) -> None:
    """No answer leaves before the epoch it obeys is on disk."""
    replica = make()
    replica.on_append(append(4, (0, 0), []))
    replica.on_append_failed()
    assert kinds(replica.on_append(append(4, (0, 0), []))) == [Persist, Appended]


def test_release_keeps_what_may_be_needed(make: Callable[..., ReplicaLog]) -> None:
    """Entries not committed are never released, nor the last few."""
    replica = make(held=entries(2, 1, 9))
    replica.on_append(append(2, (2, 9), [], committed=6))
    replica.release(retain=1)
    assert replica.log.base == LogPosition(2, 6)


def test_the_story_tells_what_was_unusual(make: Callable[..., ReplicaLog]) -> None:
    """Refusals, cuts and snapshots can be read afterwards."""
    replica = make(held=entries(2, 1, 3))
    replica.on_append(append(3, (2, 1), entries(3, 2, 2)))
    replica.on_append(append(2, (2, 1), []))
    assert replica.story() == [
        "obeys epoch 3 instead of 2",
        "cut 2 entries after 1",
        "refused epoch 2 of node 1: obeys 3",
    ]
