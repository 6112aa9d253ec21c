"""Bytes of a WAL segment: its header, and the records that follow.

Pure: bytes in, values out. Knows nothing of files, of durability or of what a body means.

A log sequence number (LSN) counts the bytes of all records since the log began; headers are not
counted, so that a record keeps its LSN, and therefore its very bytes, when it is copied into
another segment. All integers are big-endian.

    segment header   envelope of: 16s node identity | u64 sequence | u64 base LSN | u64 synced LSN
    record           u32 crc of the rest | u32 body length | u64 synced LSN | u8 kind
                     u16 shard | u32 epoch | u64 revision | body

Invariants:
- A record's CRC starts from a salt (from the node's identity) plus the record's LSN: a record
  copied from another node, left over from another place, or forged inside a body is not valid.
- `synced LSN` says how many bytes of the log were known durable when these bytes were written.
  It is what turns a damaged record into a proven loss.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from ssgovern import limits
from ssgovern.errors import LimitExceededError
from ssgovern.model import LogPosition
from ssgovern.storage.envelope import (
    IDENTITY_BYTES,
    decode_envelope,
    encode_envelope,
    envelope_bytes,
)

FORMAT_VERSION: Final = 1

ENTRY: Final = 1
"""An entry of a shard's log."""
EPOCH: Final = 2
"""A promise to refuse older epochs of the shard. Its body is empty."""
MARK: Final = 3
"""Only proves, by its synced LSN, that what came before was durable. Belongs to no shard."""
CUT: Final = 4
"""The shard's log ends, or begins anew, at this position: see `cut_record`. No body."""
KIND_NAMES: Final = {ENTRY: "entry", EPOCH: "epoch", MARK: "mark", CUT: "cut"}

_MAGIC: Final = b"SSGOVWAL"
_HEADER: Final = struct.Struct(">16sQQQ")
_CRC: Final = struct.Struct(">I")
_RECORD: Final = struct.Struct(">IIQBHIQ")
_RECORD_AFTER_CRC: Final = struct.Struct(">IQBHIQ")

SEGMENT_HEADER_BYTES: Final = envelope_bytes(_HEADER)
RECORD_HEADER_BYTES: Final = _RECORD.size


class LogEntry(NamedTuple):
    """What is appended: one entry of a shard's log (or, by its kind, a promise or a cut)."""

    shard: int
    epoch: int
    revision: int
    body: bytes
    kind: int = ENTRY


class WalRecord(NamedTuple):
    """One record as it was read."""

    lsn: int
    synced_lsn: int
    kind: int
    shard: int
    epoch: int
    revision: int
    body: bytes

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.epoch, self.revision)

    @property
    def end_lsn(self) -> int:
        return self.lsn + RECORD_HEADER_BYTES + len(self.body)


class SegmentHeader(NamedTuple):
    """`synced_lsn`: the end of what was written and synced before the segment got its name."""

    identity: bytes
    sequence: int
    base_lsn: int
    synced_lsn: int


class Parsed(NamedTuple):
    """`damaged`: what follows `consumed` can never become a record, whatever bytes follow."""

    records: list[WalRecord]
    consumed: int
    damaged: bool


def epoch_promise(shard: int, epoch: int, revision: int = 0) -> LogEntry:
    """Return the entry by which a node promises to refuse epochs of `shard` below `epoch`."""
    return LogEntry(shard, epoch, revision, b"", EPOCH)


def cut_record(shard: int, epoch: int, keep: int) -> LogEntry:
    """Return the record after which the log of `shard` ends at position `(epoch, keep)`.

    If the log has that position, what follows it is gone. If not, all of it is gone: a snapshot
    at this position, which is durable already, was put in its place; entries follow it. At
    (0, 0) the shard begins from nothing.
    """
    return LogEntry(shard, epoch, keep, b"", CUT)


def salt_of(identity: bytes) -> int:
    """Return the number from which the CRCs of a node's records start."""
    assert len(identity) == IDENTITY_BYTES, f"an identity has {IDENTITY_BYTES} bytes"
    return zlib.crc32(identity)


def encode_segment_header(header: SegmentHeader) -> bytes:
    return encode_envelope(_MAGIC, FORMAT_VERSION, _HEADER.pack(*header))


def decode_segment_header(encoded: bytes, name: str) -> SegmentHeader:
    """Decode a header; `name` is for the error. Raises CorruptionError, ConfigError."""
    fields = decode_envelope(encoded, _MAGIC, FORMAT_VERSION, _HEADER.size, name=name, shard=None)
    return SegmentHeader(*_HEADER.unpack(fields))


def encode_records(entries: Iterable[LogEntry], lsn: int, synced_lsn: int, salt: int) -> bytes:
    """Encode `entries` as the bytes of the log from `lsn` on.

    Raises LimitExceededError for a body above `limits.WAL_RECORD_BYTES_MAX`.
    """
    # The hottest loop of a node. Three appends to one list and one join beat concatenation,
    # pack_into and a bytearray (0.6 us per record of 200 bytes).
    parts: list[bytes] = []
    add = parts.append
    pack, pack_crc, crc32 = _RECORD_AFTER_CRC.pack, _CRC.pack, zlib.crc32
    body_bytes_max = limits.WAL_RECORD_BYTES_MAX
    seed = salt + lsn
    for shard, epoch, revision, body, kind in entries:
        length = len(body)
        if length > body_bytes_max:
            raise LimitExceededError(
                f"an entry of {length} bytes, the log takes {body_bytes_max}",
                limit="WAL_RECORD_BYTES_MAX",
            )
        header = pack(length, synced_lsn, kind, shard, epoch, revision)
        # crc32 keeps the low 32 bits of its start value, so `seed` may grow.
        add(pack_crc(crc32(body, crc32(header, seed))))
        add(header)
        add(body)
        seed += RECORD_HEADER_BYTES + length
    return b"".join(parts)


def parse_records(buffer: bytes, lsn: int, salt: int) -> Parsed:
    """Decode records from the start of `buffer`, whose first byte is at `lsn`. Never raises."""
    records: list[WalRecord] = []
    add = records.append
    make, unpack, crc32 = WalRecord._make, _RECORD.unpack_from, zlib.crc32
    body_bytes_max = limits.WAL_RECORD_BYTES_MAX
    view = memoryview(buffer)
    seed = salt + lsn
    position, size = 0, len(buffer)
    last_header = size - RECORD_HEADER_BYTES
    while position <= last_header:
        crc, length, synced_lsn, kind, shard, epoch, revision = unpack(buffer, position)
        body = position + RECORD_HEADER_BYTES
        end = body + length
        if end > size:
            return Parsed(records, position, length > body_bytes_max)
        if crc32(view[position + 4 : end], seed + position) != crc:
            return Parsed(records, position, damaged=True)
        add(make((lsn + position, synced_lsn, kind, shard, epoch, revision, buffer[body:end])))
        position = end
    return Parsed(records, position, damaged=False)


def record_length(header: bytes) -> int:
    """Return the length in bytes that a record's header claims for the whole record."""
    return RECORD_HEADER_BYTES + int(_RECORD.unpack_from(header)[1])


def plausible_shard(header: bytes, lsn: int, shards: int) -> int | None:
    """Return the shard a damaged record seems to belong to, None if its header makes no sense."""
    if len(header) < RECORD_HEADER_BYTES:
        return None
    _, length, synced_lsn, kind, shard, _, _ = _RECORD.unpack_from(header)
    sane = (
        length <= limits.WAL_RECORD_BYTES_MAX
        and synced_lsn <= lsn
        and kind in (ENTRY, EPOCH, CUT)
        and shard < shards
    )
    return int(shard) if sane else None


SYNCED_LSN_OFFSET: Final = 8
"""Where in a record its synced LSN stands; the search for later records looks there first."""
