"""Reading WAL segments from a disk, a chunk at a time, and judging where they end.

Read-only; shared by recovery and inspection. Decides nothing about what to keep.

Invariants:
- Memory is bounded by a chunk and the largest record, whatever the size of the log.
- A segment ends where the next one begins (its base LSN); what stands behind that was copied
  into the next segment or was never acknowledged.
- The search behind damage is linear in the bytes behind it, and its checksums are budgeted.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ssgovern import limits
from ssgovern.errors import CorruptionError
from ssgovern.model import SHARDS
from ssgovern.runtime import Disk
from ssgovern.storage.format import (
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SYNCED_LSN_OFFSET,
    SegmentHeader,
    WalRecord,
    decode_segment_header,
    parse_records,
    plausible_shard,
    record_length,
    salt_of,
)

CHUNK_BYTES: Final = 256 << 10
_PREFIX: Final = "wal-"
_SUFFIX: Final = ".log"
_NAME: Final = re.compile(r"wal-([0-9a-f]{16})\.log")
_CHECKSUM_BYTES_MAX: Final = 256 << 20
_LSN_BYTES: Final = 8


def segment_name(sequence: int) -> str:
    return f"{_PREFIX}{sequence:016x}{_SUFFIX}"


def is_segment_leftover(name: str, suffix: str) -> bool:
    """Whether `name` is a segment that was being written aside under `suffix`."""
    return name.endswith(suffix) and _NAME.fullmatch(name.removesuffix(suffix)) is not None


class SegmentFile(NamedTuple):
    """A segment as found. `end_lsn` is where the next one begins, None for the last."""

    name: str
    header: SegmentHeader
    file_bytes: int
    end_lsn: int | None


class Piece(NamedTuple):
    """Records read in one step, and their exact bytes, which begin at `lsn`."""

    records: list[WalRecord]
    lsn: int
    encoded: bytes


def find_segments(disk: Disk) -> list[SegmentFile]:
    """Return all segments in order. Raises CorruptionError, ConfigError."""
    found: list[SegmentFile] = []
    for name in reversed(disk.names()):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        header = decode_segment_header(disk.read(name, 0, SEGMENT_HEADER_BYTES), name)
        following = found[-1].header if found else None
        if header.sequence != int(match[1], 16):
            raise CorruptionError(
                f"the header says segment {header.sequence}", segment=name, offset=0, shard=None
            )
        if following is not None and header.sequence + 1 != following.sequence:
            raise CorruptionError(
                f"the segment after this one is missing, the next is {following.sequence}",
                segment=name,
                offset=0,
                shard=None,
            )
        end_lsn = None if following is None else following.base_lsn
        found.append(SegmentFile(name, header, disk.size(name), end_lsn))
    found.reverse()
    return found


class SegmentReader:
    """Reads one segment from its first record to the last that is whole.

    After `next_piece()` returned None, `lsn` is the end of the last good record and
    `leftover_bytes` what stands behind it and is no record (0: the segment ends cleanly).
    """

    def __init__(self, disk: Disk, segment: SegmentFile, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        base_lsn = segment.header.base_lsn
        self._disk = disk
        self._name = segment.name
        self._base_lsn = base_lsn
        self._salt = salt_of(segment.header.identity)
        self._chunk_bytes = chunk_bytes
        self._end_lsn = segment.end_lsn
        self._end_offset = segment.file_bytes
        if segment.end_lsn is not None:
            logical_end = segment.end_lsn - base_lsn + SEGMENT_HEADER_BYTES
            self._end_offset = min(segment.file_bytes, logical_end)
        self._read_offset = SEGMENT_HEADER_BYTES
        self._buffer = b""
        self._stopped = False
        self.lsn = base_lsn

    @property
    def offset(self) -> int:
        """Where in the file the record at `lsn` begins."""
        return self.lsn - self._base_lsn + SEGMENT_HEADER_BYTES

    @property
    def leftover_bytes(self) -> int:
        return self._end_offset - self.offset

    def written_leftover_bytes(self) -> int:
        """Return the leftover up to its last byte that is not zero; zeros were only reserved."""
        for start in range(self._end_offset, self.offset, -self._chunk_bytes):
            first = max(start - self._chunk_bytes, self.offset)
            seen = self._disk.read(self._name, first, start - first).rstrip(b"\0")
            if seen:
                return first + len(seen) - self.offset
        return 0

    def next_piece(self) -> Piece | None:
        """Read on. A piece may be empty while a long record is being read."""
        wanted = min(self._chunk_bytes, self._end_offset - self._read_offset)
        if self._stopped or wanted <= 0:
            return None
        chunk = self._disk.read(self._name, self._read_offset, wanted)
        self._read_offset += len(chunk)
        buffer = self._buffer + chunk
        lsn = self.lsn
        parsed = parse_records(buffer, lsn, self._salt)
        self._buffer = buffer[parsed.consumed :]
        self._stopped = parsed.damaged or not chunk
        self.lsn += parsed.consumed
        return Piece(parsed.records, lsn, buffer[: parsed.consumed])

    def check_end(self, proven_lsn: int) -> None:
        """Judge what stands behind the last good record, once all were read.

        `proven_lsn` is the highest synced LSN that was read. Raises CorruptionError if bytes are
        damaged or missing that were durable. Returns if the segment ends cleanly or torn.
        """
        if self._end_lsn is not None:
            if self.lsn != self._end_lsn:
                raise self._corruption("a record that was durable is damaged or missing")
        elif self.lsn < proven_lsn:
            raise self._corruption("a record that was durable is damaged or missing")
        elif self.written_leftover_bytes() and self._find_proof() is not None:
            raise self._corruption("a record is damaged that a later one proves durable")

    def _corruption(self, message: str) -> CorruptionError:
        header = self._disk.read(self._name, self.offset, RECORD_HEADER_BYTES)
        return CorruptionError(
            message,
            segment=self._name,
            offset=self.offset,
            shard=plausible_shard(header, self.lsn, SHARDS),
        )

    def _find_proof(self) -> WalRecord | None:
        """Look behind the damage for a record that proves it was durable.

        Only such a record matters, so the bytes of its synced LSN are searched for: it lies
        above the damage and not above the record itself. That is a scan at C speed, and bodies
        would have to be made for it to be slow; against those the checksummed bytes are limited.
        Raises CorruptionError when that limit is reached, because then nobody can tell.
        """
        first, end = self.offset + 1, self._end_offset
        damage_lsn = self.lsn
        may_be_proof = _above(damage_lsn, upto=self._base_lsn + end)
        checksum_bytes_left = _CHECKSUM_BYTES_MAX
        for start in range(first, end, self._chunk_bytes):
            seen = self._disk.read(self._name, start, self._chunk_bytes + _LSN_BYTES - 1)
            # Room that was reserved and never written: in a first segment, whose LSNs begin
            # with zeros, each byte of it would be looked at. An LSN may end with zeros.
            seen = seen[: len(seen.rstrip(b"\0")) + _LSN_BYTES - 1]
            for match in may_be_proof.finditer(seen):
                at = match.start()
                offset = start + at - SYNCED_LSN_OFFSET
                synced_lsn = int.from_bytes(seen[at : at + _LSN_BYTES], "big")
                if not damage_lsn < synced_lsn <= self._lsn_at(offset) or offset < first:
                    continue
                encoded = self._candidate(offset, end)
                checksum_bytes_left -= len(encoded)
                if checksum_bytes_left < 0:
                    raise self._corruption("damaged beyond telling whether it was durable")
                records = parse_records(encoded, self._lsn_at(offset), self._salt).records
                if records:
                    return records[0]
        return None

    def _lsn_at(self, offset: int) -> int:
        return offset - SEGMENT_HEADER_BYTES + self._base_lsn

    def _candidate(self, offset: int, end: int) -> bytes:
        header = self._disk.read(self._name, offset, RECORD_HEADER_BYTES)
        if len(header) < RECORD_HEADER_BYTES:
            return b""
        length = record_length(header)
        if length > limits.WAL_RECORD_BYTES_MAX + RECORD_HEADER_BYTES or offset + length > end:
            return b""
        return self._disk.read(self._name, offset, length)


def _above(lsn: int, *, upto: int) -> re.Pattern[bytes]:
    """Return a pattern that finds (with some others) all encoded LSNs in `lsn + 1 .. upto`."""
    low = (lsn + 1).to_bytes(_LSN_BYTES, "big")
    high = upto.to_bytes(_LSN_BYTES, "big")
    same = 0
    while same < _LSN_BYTES - 1 and low[same] == high[same]:
        same += 1
    prefix = re.escape(low[:same])
    first, last = re.escape(low[same : same + 1]), re.escape(high[same : same + 1])
    # A lookahead, because candidates may overlap.
    return re.compile(b"(?=" + prefix + b"[" + first + b"-" + last + b"])", re.DOTALL)
