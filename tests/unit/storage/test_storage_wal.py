"""The log on a disk without latency: what is durable, what is cut, what is refused."""

from __future__ import annotations

import errno
import random

import pytest
from storage_drive import IDENTITY, disk_on, entry, no_latency, recover, run

from ssgovern.errors import (
    ConfigError,
    CorruptionError,
    DiskFullError,
    LimitExceededError,
    StorageFailedError,
)
from ssgovern.model import LogPosition
from ssgovern.runtime import SyncError
from ssgovern.sim.disk import DiskImage, PowerCut, SimDisk
from ssgovern.storage import (
    CUT,
    ENTRY,
    EPOCH,
    LogEntry,
    RecoveryProgress,
    Wal,
    WalRecord,
    cut_record,
    epoch_promise,
)
from ssgovern.storage.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES


def cut_power(image: DiskImage, mode: PowerCut = PowerCut.ALL_LOST) -> None:
    image.cut_power(random.Random(0), mode)


def revisions(records: list[WalRecord]) -> list[int]:
    return [record.revision for record in records]


def last_segment(image: DiskImage) -> str:
    return image.names()[-1]


def damage(image: DiskImage, name: str, offset: int) -> None:
    image.flip_bit(name, offset, 0)


def test_what_was_appended_comes_back_after_a_power_cut() -> None:
    """Synced batches survive a power cut, with all their fields and in order."""
    image = DiskImage()
    wal, records = recover(image)
    assert records == []
    run(wal.append([entry(7, 1, b"a"), entry(9, 1, b"", epoch=5)]))
    run(wal.append([epoch_promise(7, 6, 1)]))
    cut_power(image)
    _, records = recover(image)
    assert [(r.shard, r.position, r.body) for r in records[:2]] == [
        (7, LogPosition(1, 1), b"a"),
        (9, LogPosition(5, 1), b""),
    ]
    assert [(r.kind, r.shard, r.epoch) for r in records[2:]] == [(EPOCH, 7, 6)]


def test_unsynced_batches_may_vanish_and_synced_ones_not() -> None:
    """Without sync nothing is promised until `sync` returned."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(1, 1)], sync=False))
    run(wal.sync())
    run(wal.append([entry(1, 2)], sync=False))
    assert wal.last_synced_lsn < wal.end_lsn
    cut_power(image)
    assert revisions(recover(image)[1]) == [1]


def test_a_killed_process_loses_nothing() -> None:
    """The page cache outlives the process, and recovery makes it durable."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(1, 1)], sync=False))
    assert revisions(recover(image)[1]) == [1]
    cut_power(image)
    assert revisions(recover(image)[1]) == [1]


@pytest.mark.parametrize("kept_bytes", range(RECORD_HEADER_BYTES + 4))
def test_a_torn_tail_is_cut_silently(kept_bytes: int) -> None:
    """A record cut at any byte was never acknowledged: it goes, what is before it stays."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(1, 1)]))
    size = image.size(last_segment(image))
    run(wal.append([entry(1, 2)]))
    image.truncate(last_segment(image), size + kept_bytes)
    wal, records = recover(image)
    assert revisions(records) == [1]
    run(wal.append([entry(1, 2, b"another")]))
    assert [r.body for r in recover(image)[1]] == [b"body", b"another"]


def test_damage_that_a_later_record_proves_is_refused_and_kept() -> None:
    """A damaged acknowledged record stops recovery, names its place, and changes no byte."""
    image = DiskImage()
    wal, _ = recover(image)
    for revision in range(1, 4):
        run(wal.append([entry(33, revision)]))
    name = last_segment(image)
    record_bytes = RECORD_HEADER_BYTES + 4
    offset = SEGMENT_HEADER_BYTES + record_bytes
    damage(image, name, offset + record_bytes - 1)
    image.begin_life()
    before = {each: image.read(each) for each in image.names()}
    for _ in range(2):
        with pytest.raises(CorruptionError) as caught:
            recover(image)
        assert (caught.value.segment, caught.value.offset, caught.value.shard) == (name, offset, 33)
    assert {each: image.read(each) for each in image.names()} == before


def test_damage_to_a_header_names_no_shard() -> None:
    """A shard is named only when the damaged record's header makes sense."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(33, 1)]))
    run(wal.append([entry(33, 2)]))
    damage(image, last_segment(image), SEGMENT_HEADER_BYTES + 4)
    with pytest.raises(CorruptionError) as caught:
        recover(image)
    assert caught.value.shard is None


def test_damage_to_the_last_batch_looks_torn_until_marked() -> None:
    """The known gap: nothing proves the last batch durable, until a mark does."""
    for marked in (False, True):
        image = DiskImage()
        wal, _ = recover(image)
        run(wal.append([entry(1, 1)]))
        size = image.size(last_segment(image))
        if marked:
            run(wal.mark())
            run(wal.sync())
        damage(image, last_segment(image), size - 1)
        if marked:
            with pytest.raises(CorruptionError):
                recover(image)
        else:
            assert recover(image)[1] == []


def test_marks_are_written_only_when_they_prove_something() -> None:
    """An idle log does not grow by marking and syncing it again and again."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.mark())
    assert wal.end_lsn == 0
    run(wal.append([entry(1, 1)]))
    for _ in range(3):
        run(wal.mark())
        run(wal.sync())
    assert wal.end_lsn == 2 * RECORD_HEADER_BYTES + 4


def test_a_body_full_of_records_is_not_mistaken_for_the_log() -> None:
    """Behind a torn record only records of this very place count as proof."""
    image = DiskImage()
    wal, _ = recover(image)
    for revision in range(1, 30):
        run(wal.append([entry(1, revision)]))
    forged = image.read(last_segment(image))
    run(wal.append([entry(1, 30)]))
    size = image.size(last_segment(image))
    run(wal.append([entry(1, 31, forged)]))
    damage(image, last_segment(image), size + 2)
    assert revisions(recover(image)[1]) == list(range(1, 31))


def test_segments_roll_and_all_are_read_back() -> None:
    """A full segment is followed by another; the log is the sum of them."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=200)
    for revision in range(1, 21):
        run(wal.append([entry(revision % 3, revision)], sync=revision % 2 == 0))
    assert [segment.sequence for segment in wal.segments] == list(range(1, len(wal.segments) + 1))
    assert len(wal.segments) > 3
    assert wal.size_bytes == sum(image.size(name) for name in image.names())
    cut_power(image)
    assert revisions(recover(image)[1]) == list(range(1, 21))


@pytest.mark.parametrize("part", ["header", "record", "missing", "shorter"])
def test_damage_to_an_earlier_segment_is_refused(part: str) -> None:
    """Every segment but the last was synced: any damage there is a loss."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=200)
    for revision in range(1, 21):
        run(wal.append([entry(1, revision)]))
    name = image.names()[1]
    match part:
        case "header":
            damage(image, name, 40)
        case "record":
            damage(image, name, image.size(name) - 1)
        case "missing":
            image.remove(name)
        case "shorter":
            image.truncate(name, image.size(name) - RECORD_HEADER_BYTES - 4)
    with pytest.raises(CorruptionError):
        recover(image)


def test_release_removes_leading_snapshotted_segments_only() -> None:
    """A segment goes when all its shards are in snapshots, and all before it went."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=200)
    for revision in range(1, 13):
        run(wal.append([entry(0, revision), entry(1, revision)]))
    count = len(wal.segments)
    before = wal.size_bytes
    assert run(wal.release({0: LogPosition(1, 12)})) == 0
    assert run(wal.release({0: LogPosition(1, 12), 1: LogPosition(1, 1)})) == 0
    freed_bytes = run(wal.release({0: LogPosition(1, 12), 1: LogPosition(1, 2)}))
    assert (len(wal.segments), before - wal.size_bytes) == (count - 1, freed_bytes)
    run(wal.release({0: LogPosition(1, 12), 1: LogPosition(1, 12)}))
    assert len(wal.segments) == 1
    cut_power(image)
    assert recover(image)[0].segments[0].sequence == count


def test_release_speaks_of_the_log_as_it_was_when_it_began() -> None:
    """A shard that was gone for good then and comes back meanwhile loses nothing of its new log."""
    image = DiskImage()
    appending: list[LogEntry] = []

    async def latency(operation: str) -> None:
        if operation == "remove" and appending:
            entries = list(appending)
            appending.clear()
            for one in entries:
                await wal.append([one])

    disk = SimDisk(image, latency)
    records: list[WalRecord] = []
    wal = run(Wal.recover(disk, identity=IDENTITY, on_record=records.append, segment_bytes=100))
    for revision in (1, 2):
        run(wal.append([entry(1, 1), entry(1, 2), entry(2, revision)]))
    run(wal.append([cut_record(1, 0, 0)]))
    appending += [entry(1, revision, b"x" * 60) for revision in (1, 2, 3)]
    run(wal.release({1: LogPosition(1 << 32, 1 << 64), 2: LogPosition(1, 2)}))
    assert appending == []
    recovered = [r.revision for r in recover(image)[1] if r.shard == 1 and r.kind == ENTRY]
    assert recovered[-3:] == [1, 2, 3]


def test_a_cut_lowers_what_a_segment_waits_for() -> None:
    """A segment goes once its shard's log, as it was at the segment's end, is in a snapshot."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=100)
    run(wal.append([entry(1, revision, epoch=5) for revision in (1, 2, 3)] + [cut_record(1, 5, 1)]))
    run(wal.append([entry(2, 1)]))
    wal, _ = recover(image, segment_bytes=100)
    assert run(wal.release({})) == 0
    freed_bytes = run(wal.release({1: LogPosition(5, 1)}))
    assert freed_bytes > 0
    assert [record.shard for record in recover(image)[1]] == [2]


def test_an_entry_that_replaces_lowers_what_a_segment_waits_for() -> None:
    """What was replaced within a segment does not hold it."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=100)
    run(wal.append([entry(1, 1, epoch=5), entry(1, 2, epoch=5), entry(1, 1, epoch=4)]))
    run(wal.append([entry(2, 1)]))
    assert run(wal.release({1: LogPosition(4, 0)})) == 0
    assert run(wal.release({1: LogPosition(4, 1)})) > 0


def test_a_cut_never_goes_before_what_it_cut() -> None:
    """A segment that holds a cut stays as long as one before it does, whatever is snapshotted."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=100)
    run(wal.append([entry(1, 1), entry(1, 2), entry(2, 1)]))
    run(wal.append([cut_record(1, 1, 1)]))
    run(wal.append([entry(3, 1)]))
    assert run(wal.release({1: LogPosition(1, 2)})) == 0
    wal, records = recover(image)
    assert [record.kind for record in records] == [ENTRY, ENTRY, ENTRY, CUT, ENTRY]


def test_a_shard_that_begins_from_nothing_holds_no_segment() -> None:
    """After a cut to the origin nothing of the shard has to be in a snapshot."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=100)
    run(wal.append([entry(1, 1), cut_record(1, 0, 0)]))
    run(wal.append([entry(2, 1)]))
    assert run(wal.release({})) > 0


def test_promises_outlive_the_segment_they_were_made_in() -> None:
    """Releasing segments forgets no promise, though no snapshot has it."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=200)
    run(wal.append([epoch_promise(3, 9), entry(3, 1)]))
    for revision in range(2, 12):
        run(wal.append([entry(3, revision)]))
    run(wal.release({3: LogPosition(1, 11)}))
    cut_power(image)
    wal, records = recover(image)
    assert {r.epoch for r in records if r.kind == EPOCH} == {9}
    assert wal.segments[0].sequence > 1


def test_recovering_again_and_again_does_not_grow_the_log() -> None:
    """A node that is started often does not pile up segments, records or promises."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(1, 1), epoch_promise(1, 2)]))
    sizes = {recover(image)[0].size_bytes for _ in range(5)}
    assert sizes == {image.size(last_segment(image))}
    assert len(image.names()) == 1


def test_a_large_last_segment_is_not_copied_at_restart() -> None:
    """Only what is not proven is written anew, in a new segment, when there is much."""
    image = DiskImage()
    wal, _ = recover(image)
    for revision in range(1, 41):
        run(wal.append([entry(1, revision, bytes(100_000))]))
    before = image.names()
    wal, records = recover(image)
    assert revisions(records) == list(range(1, 41))
    assert [name for name in image.names() if name in before] == before
    assert wal.segments[-1].size_bytes < 500_000
    run(wal.append([entry(1, 41)]))
    assert revisions(recover(image)[1]) == list(range(1, 42))


def test_a_full_disk_refuses_a_batch_and_goes_on_when_there_is_space() -> None:
    """A refused batch is gone for good, whatever part of it had been written."""
    image = DiskImage()
    wal, _ = recover(image)
    # Too little to reserve anything ahead, so that the disk is full when it is full.
    image.capacity_bytes = image.used_bytes + RECORD_HEADER_BYTES + len(b"body") + 70
    run(wal.append([entry(1, 1)]))
    for _ in range(3):
        with pytest.raises(DiskFullError):
            run(wal.append([entry(1, 2, b"refused"), entry(1, 3, b"refused")]))
    assert image.used_bytes == image.capacity_bytes - 70
    image.capacity_bytes *= 2
    run(wal.append([entry(1, 2, b"taken")]))
    cut_power(image)
    assert [r.body for r in recover(image)[1]] == [b"body", b"taken"]


def test_a_full_disk_at_a_segment_roll() -> None:
    """The next segment does not fit: the batch is refused, the log stays as it was."""
    image = DiskImage()
    wal, _ = recover(image, segment_bytes=100)
    run(wal.append([entry(1, 1, bytes(100))]))
    image.capacity_bytes = image.used_bytes + 10
    with pytest.raises(DiskFullError):
        run(wal.append([entry(1, 2)]))
    assert (len(image.names()), len(wal.segments)) == (1, 1)
    image.capacity_bytes *= 2
    run(wal.append([entry(1, 2)]))
    assert revisions(recover(image)[1]) == [1, 2]


def test_after_a_failed_sync_every_call_is_refused() -> None:
    """A second sync would succeed and prove nothing, so there is none."""
    image = DiskImage()
    wal, _ = recover(image)
    image.fail_syncs = 1
    with pytest.raises(StorageFailedError):
        run(wal.append([entry(1, 1)]))
    syncs = image.syncs
    for call in (
        lambda: wal.append([entry(1, 1)]),
        lambda: wal.append([], sync=True),
        wal.sync,
        wal.mark,
    ):
        with pytest.raises(StorageFailedError):
            run(call())
    assert image.syncs == syncs


def test_recovery_after_a_failed_sync_does_not_trust_the_cache() -> None:
    """What only the page cache shows is written again, into a file that is synced."""
    image = DiskImage()
    wal, _ = recover(image)
    run(wal.append([entry(1, 1)]))
    image.fail_syncs = 1
    with pytest.raises(StorageFailedError):
        run(wal.append([entry(1, 2)]))
    wal, records = recover(image)
    assert revisions(records) == [1, 2]
    run(wal.append([entry(1, 3)]))
    cut_power(image)
    assert revisions(recover(image)[1]) == [1, 2, 3]


def test_a_failed_sync_with_no_space_is_not_a_full_disk() -> None:
    """Delayed allocation reports ENOSPC at the sync: bytes are lost, the log stops."""

    class FullAtSync(SimDisk):
        async def sync(self, name: str) -> None:
            if armed:
                raise SyncError(errno.ENOSPC, "no space left on device")
            await super().sync(name)

    armed: list[bool] = []
    disk = FullAtSync(DiskImage(), no_latency)
    wal = run(Wal.recover(disk, identity=IDENTITY, on_record=lambda record: None))
    armed.append(True)
    with pytest.raises(StorageFailedError):
        run(wal.append([entry(1, 1)]))


def test_a_cancelled_append_closes_the_log() -> None:
    """Nobody knows how long the file is after a call was given up in the middle."""
    image = DiskImage()
    recover(image)

    async def stuck(operation: str) -> None:
        if operation == "append" and armed:
            await _Stuck()

    armed: list[bool] = []
    wal = run(Wal.recover(SimDisk(image, stuck), identity=IDENTITY, on_record=lambda record: None))
    armed.append(True)
    call = wal.append([entry(1, 1)])
    call.send(None)
    with pytest.raises(StorageFailedError, match="under way"):
        run(wal.sync())
    call.close()
    with pytest.raises(StorageFailedError, match="cancelled"):
        run(wal.append([entry(1, 2)]))


class _Stuck:
    def __await__(self):
        yield


def test_too_large_an_entry_changes_nothing() -> None:
    """A refused argument does not close the log."""
    image = DiskImage()
    wal, _ = recover(image)
    with pytest.raises(LimitExceededError):
        run(wal.append([entry(1, 1), entry(1, 2, bytes(2 << 20))]))
    run(wal.append([entry(1, 1)]))
    assert revisions(recover(image)[1]) == [1]


def test_the_log_of_another_node_is_refused() -> None:
    """A data directory that was copied or mixed up is not taken over."""
    image = DiskImage()
    recover(image)
    with pytest.raises(ConfigError, match="belongs to another node"):
        run(
            Wal.recover(disk_on(image), identity=b"fedcba9876543210", on_record=lambda record: None)
        )


def test_other_files_are_left_alone() -> None:
    """Recovery removes what it left behind itself and nothing else."""
    image = DiskImage()
    for name in ("notes.tmp", "wal-0000000000000001.log.tmp", "wal-1.log"):
        image.append(name, [b"x"])
    recover(image)
    assert image.names() == ["notes.tmp", "wal-0000000000000001.log", "wal-1.log"]


def test_progress_is_told_once_per_chunk() -> None:
    """Recovery stops between chunks, so that its loop can do other things."""
    image = DiskImage()
    wal, _ = recover(image)
    for revision in range(1, 11):
        run(wal.append([entry(1, revision, bytes(100_000))], sync=False))
    seen: list[RecoveryProgress] = []

    async def on_progress(progress: RecoveryProgress) -> None:
        seen.append(progress)

    recover(image, on_progress=on_progress)
    assert len(seen) >= 4
    assert seen[-1].records == 10
    assert seen[-1].bytes_done <= seen[-1].bytes_total
