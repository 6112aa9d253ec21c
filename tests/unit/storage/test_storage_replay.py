"""What a shard's log is after its records: growth, replacement, cuts, beginning anew."""

from __future__ import annotations

import pytest

from ssgovern.errors import CorruptionError
from ssgovern.model import ORIGIN, LogPosition
from ssgovern.storage.format import CUT, ENTRY, WalRecord
from ssgovern.storage.replay import ShardReplay

SHARD = 7


def replayed(text: str, snapshot: str = "0/0") -> str:
    """Replay `epoch/revision` (an entry) or `!epoch/revision` (a cut), and say what is left."""
    replay = ShardReplay(SHARD, position_of(snapshot))
    for number, word in enumerate(text.split()):
        position = position_of(word.removeprefix("!"))
        kind = CUT if word.startswith("!") else ENTRY
        replay.on_record(WalRecord(number, 0, kind, SHARD, *position, b""))
    return " ".join(repr(record.position) for record in replay.entries())


def position_of(word: str) -> LogPosition:
    epoch, revision = word.split("/")
    return LogPosition(int(epoch), int(revision))


@pytest.mark.parametrize(
    ("records", "snapshot", "left"),
    [
        ("", "0/0", ""),
        ("1/1 1/2 2/3", "0/0", "1/1 1/2 2/3"),
        ("1/1 1/2 2/3", "1/2", "2/3"),
        ("1/1 1/2", "1/2", ""),
        # A snapshot from elsewhere, far ahead of the log.
        ("1/1 1/2", "2/9", ""),
        # Replaced, by a newer epoch and by an older one.
        ("1/1 1/2 1/3 2/2", "0/0", "1/1 2/2"),
        ("1/1 5/2 5/3 4/2 6/3", "0/0", "1/1 4/2 6/3"),
        # What follows the replaced entry is gone, though it fits in revision and epoch.
        ("1/1 5/2 5/3 4/2", "0/0", "1/1 4/2"),
        ("1/1 5/2 5/3 4/2", "4/2", ""),
        # Cut, with nothing after it and with something.
        ("1/1 1/2 1/3 !1/1", "0/0", "1/1"),
        ("1/1 1/2 1/3 !1/1 2/2", "0/0", "1/1 2/2"),
        ("1/1 1/2 1/3 !1/3", "0/0", "1/1 1/2 1/3"),
        ("1/1 1/2 1/3 !1/1", "1/1", ""),
        # Begun anew behind a snapshot from elsewhere.
        ("1/1 !3/9 3/10", "3/9", "3/10"),
        ("1/1 1/2 !3/2 3/3", "3/2", "3/3"),
        ("!3/9 3/10 4/11", "3/10", "4/11"),
        # The snapshot is there, the cut is not: all that was before is void.
        ("1/1 1/2 1/3", "2/2", ""),
        ("1/1 1/2 5/3 5/4", "3/2", ""),
        ("2/8 2/9", "3/4", ""),
        # Begun from nothing, its snapshot removed or about to be.
        ("1/1 1/2 !0/0", "0/0", ""),
        ("1/1 1/2 !0/0", "1/1", ""),
        ("1/1 1/2 !0/0 2/1", "0/0", "2/1"),
        # Older segments are gone.
        ("2/8 2/9", "2/7", "2/8 2/9"),
        ("2/8 2/9", "2/8", "2/9"),
        ("2/8 3/6 3/7", "3/6", "3/7"),
        ("2/8 3/6 3/7", "2/5", "3/6 3/7"),
        # The branch of 2 went on while its beginning, and the snapshot that let it go, are gone.
        ("5/21 3/11 3/12 6/13", "3/12", "6/13"),
        ("2/8 2/9 !2/7 3/8", "2/7", "3/8"),
        ("2/8 !2/7 !2/5", "2/5", ""),
    ],
)
def test_what_is_left(records: str, snapshot: str, left: str) -> None:
    """Of all that the records said, what counts behind the snapshot is left, in order."""
    assert replayed(records, snapshot) == left


@pytest.mark.parametrize(
    ("records", "snapshot", "reason"),
    [
        ("1/1 1/3", "0/0", "entry 3 follows 1/1"),
        ("1/1 1/2 !1/1 1/3", "0/0", "entry 3 follows 1/1"),
        ("!3/9 3/11", "3/9", "entry 11 follows 3/9"),
        ("1/1 2/2 1/3", "0/0", "entry 1/3 follows 2/2"),
        ("1/1 3/2 3/3 !3/2 2/3", "0/0", "entry 2/3 follows 3/2"),
        ("2/8", "0/0", "begins with 8, its snapshot ends at 0/0"),
        ("2/8", "2/6", "begins with 8, its snapshot ends at 2/6"),
        ("1/1 !3/9 3/10", "0/0", "begins with 10, its snapshot ends at 0/0"),
        # A cut of what the log never had: no snapshot is there to begin anew behind.
        ("1/1 1/2 1/3 !2/2 3/3", "1/1", "begins with 3, its snapshot ends at 1/1"),
    ],
)
def test_what_cannot_be(records: str, snapshot: str, reason: str) -> None:
    """A hole, or epochs that fall within a log, is a loss and never passed over."""
    with pytest.raises(CorruptionError, match=reason) as caught:
        replayed(records, snapshot)
    assert caught.value.shard == SHARD


def test_memory_is_for_what_counts() -> None:
    """Bodies of entries that the snapshot covers are not kept."""
    replay = ShardReplay(SHARD, LogPosition(1, 3))
    for revision in range(1, 5):
        replay.on_record(WalRecord(revision, 0, ENTRY, SHARD, 1, revision, b""))
    assert [record.revision for record in replay.entries()] == [4]
    assert len(replay._kept) == 1
    assert ShardReplay(SHARD).snapshot == ORIGIN
    assert repr(replay) == "<ShardReplay shard=7 snapshot=1/3 base=0 tail=1/4>"
