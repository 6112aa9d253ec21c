"""Inspection agrees with recovery, and touches nothing."""

from __future__ import annotations

import pytest
from storage_drive import disk_on, entry, recover, run

from ssgovern.errors import CorruptionError
from ssgovern.sim.disk import DiskImage
from ssgovern.storage import epoch_promise
from ssgovern.storage.format import SEGMENT_HEADER_BYTES
from ssgovern.storage.inspect import EndSeen, RecordSeen, SegmentSeen, Verdict, inspect_wal


def log_of(image: DiskImage) -> None:
    wal, _ = recover(image, segment_bytes=150)
    run(wal.append([entry(1, 1), epoch_promise(2, 5)]))
    run(wal.append([entry(1, 2), entry(3, 1)]))
    run(wal.append([entry(1, 3)]))
    run(wal.append([entry(1, 4)]))
    run(wal.mark())


def end_of(image: DiskImage) -> EndSeen:
    before = {name: image.read(name) for name in image.names()}
    *_, end = inspect_wal(disk_on(image))
    assert isinstance(end, EndSeen)
    assert {name: image.read(name) for name in image.names()} == before
    return end


def test_segments_and_records_are_told_in_order() -> None:
    """Every header and every record, marks and carried promises too, then the end."""
    image = DiskImage()
    log_of(image)
    seen = list(inspect_wal(disk_on(image)))
    segments = [item for item in seen if isinstance(item, SegmentSeen)]
    assert [segment.name for segment in segments] == image.names()
    records = [item for item in seen if isinstance(item, RecordSeen)]
    assert [(r.kind_name, r.record.shard, r.record.revision) for r in records] == [
        ("entry", 1, 1),
        ("epoch", 2, 0),
        ("entry", 1, 2),
        ("entry", 3, 1),
        ("epoch", 2, 0),
        ("entry", 1, 3),
        ("entry", 1, 4),
        ("mark", 0, 0),
    ]
    assert records[0].offset == SEGMENT_HEADER_BYTES
    assert end_of(image).verdict is Verdict.CLEAN


def test_an_empty_directory_has_no_log() -> None:
    """Nothing there is not an error."""
    assert end_of(DiskImage()).message == "there is no log"


@pytest.mark.parametrize("segment", [0, 1])
def test_the_verdict_is_that_of_recovery(segment: int) -> None:
    """For each byte of damage: corrupt where recovery refuses, torn or clean where it goes on."""
    pristine = DiskImage()
    log_of(pristine)
    name = pristine.names()[segment]
    verdicts: list[Verdict] = []
    for offset in range(pristine.size(name)):
        image = DiskImage()
        for each in pristine.names():
            image.append(each, [pristine.read(each)])
        image.flip_bit(name, offset, 3)
        end = end_of(image)
        verdicts.append(end.verdict)
        if end.verdict is Verdict.CORRUPT:
            with pytest.raises(CorruptionError) as caught:
                recover(image)
            assert (caught.value.segment, caught.value.offset) == (end.segment, end.offset)
        else:
            recover(image)
    assert Verdict.CORRUPT in verdicts
    assert (Verdict.TORN in verdicts) == (segment == 1)
