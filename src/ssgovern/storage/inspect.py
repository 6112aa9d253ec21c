"""Looking into a WAL without touching it, for people who have to find out what happened.

Read-only: works on a log in use, on a copy, and on a damaged one. Judges as recovery does, but
reports where recovery refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from ssgovern.errors import CorruptionError
from ssgovern.runtime import Disk
from ssgovern.storage.format import KIND_NAMES, SEGMENT_HEADER_BYTES, SegmentHeader, WalRecord
from ssgovern.storage.reader import SegmentFile, SegmentReader, find_segments


class Verdict(Enum):
    """How the log ends."""

    CLEAN = "clean"
    TORN = "torn"
    """Bytes follow that are no record and were never known durable. Recovery cuts them."""
    CORRUPT = "corrupt"
    """Bytes are damaged that were durable. Recovery refuses."""


class SegmentSeen(NamedTuple):
    name: str
    header: SegmentHeader
    file_bytes: int


class RecordSeen(NamedTuple):
    segment: str
    offset: int
    record: WalRecord

    @property
    def kind_name(self) -> str:
        return KIND_NAMES.get(self.record.kind, f"unknown({self.record.kind})")


class EndSeen(NamedTuple):
    """The last item of an inspection. `offset`: where the readable part of `segment` ends."""

    verdict: Verdict
    segment: str
    offset: int
    message: str


def inspect_wal(disk: Disk) -> Iterator[SegmentSeen | RecordSeen | EndSeen]:
    """Yield all segments and records in order, then one `EndSeen`. Changes nothing.

    Stops at the first damage. Raises ConfigError for the log of a newer program.
    """
    try:
        files = find_segments(disk)
    except CorruptionError as error:
        yield EndSeen(Verdict.CORRUPT, error.segment, error.offset, error.message)
        return
    end = EndSeen(Verdict.CLEAN, "", 0, "there is no log")
    proven_lsn = 0
    for file in files:
        yield SegmentSeen(file.name, file.header, file.file_bytes)
        proven_lsn = max(proven_lsn, file.header.synced_lsn)
        reader = SegmentReader(disk, file)
        while (piece := reader.next_piece()) is not None:
            for record in piece.records:
                proven_lsn = max(proven_lsn, record.synced_lsn)
                offset = record.lsn - file.header.base_lsn + SEGMENT_HEADER_BYTES
                yield RecordSeen(file.name, offset, record)
        end = _judge(reader, file, proven_lsn)
        if end.verdict is Verdict.CORRUPT:
            break
    yield end


def _judge(reader: SegmentReader, file: SegmentFile, proven_lsn: int) -> EndSeen:
    try:
        reader.check_end(proven_lsn)
    except CorruptionError as error:
        return EndSeen(Verdict.CORRUPT, file.name, error.offset, error.message)
    if torn_bytes := reader.written_leftover_bytes():
        message = f"{torn_bytes} bytes of an interrupted write"
        return EndSeen(Verdict.TORN, file.name, reader.offset, message)
    return EndSeen(Verdict.CLEAN, file.name, reader.offset, "ends with a whole record")
