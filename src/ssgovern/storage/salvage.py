"""What can still be told from a damaged log and damaged snapshots, and of what that is certain.

Read-only. Where recovery stops at the first damage, this goes on behind it: at the next record if
the damaged one still says how long it is, else at the next segment. What cannot be read is a
**hole**, and any shard may have lost entries in it; a shard is known to have lost none if it goes
on behind the hole with the very revision that follows, or with what its snapshot has.

Refuses to know what entries mean and what becomes of a shard that lost something. Of a shard that
did, what comes before the hole is a log as it once was; what comes behind is not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from ssgovern.errors import CorruptionError
from ssgovern.model import ORIGIN, SHARDS, LogPosition
from ssgovern.runtime import Disk
from ssgovern.storage.envelope import check_identity
from ssgovern.storage.format import (
    ENTRY,
    EPOCH,
    MARK,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    WalRecord,
    decode_segment_header,
    parse_records,
    plausible_shard,
    record_length,
    salt_of,
)
from ssgovern.storage.reader import SegmentFile, SegmentReader, segment_name
from ssgovern.storage.replay import ShardReplay
from ssgovern.storage.snapshot import SnapshotFile, snapshot_named

_SEGMENT = re.compile(r"wal-([0-9a-f]{16})\.log")


class Hole(NamedTuple):
    """Bytes of the log that cannot be read, or a segment that is missing."""

    segment: str
    offset: int
    what: str


class BadSnapshot(NamedTuple):
    name: str
    shard: int
    position: LogPosition
    what: str


@dataclass(slots=True)
class ShardSalvaged:
    """What is left of one shard. `doubt` is empty if nothing of it is lost."""

    shard: int
    snapshot: SnapshotFile | None
    entries: list[WalRecord] = field(default_factory=list)
    """Those that follow the snapshot, without a gap."""
    doubt: str = ""

    @property
    def position(self) -> LogPosition:
        if self.entries:
            return self.entries[-1].position
        return ORIGIN if self.snapshot is None else self.snapshot.position


@dataclass(slots=True)
class Salvage:
    """What is left of a node's log and snapshots."""

    shards: list[ShardSalvaged]
    segments: list[str] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    bad_snapshots: list[BadSnapshot] = field(default_factory=list)
    promises: dict[int, int] = field(default_factory=dict)
    sequence: int = 0
    """Of the last segment."""
    end_lsn: int = 0
    """No record of the log has a higher one."""

    @property
    def is_damaged(self) -> bool:
        return bool(self.holes or self.bad_snapshots or self.in_doubt())

    def in_doubt(self) -> list[ShardSalvaged]:
        """Return the shards that may have lost something."""
        return [shard for shard in self.shards if shard.doubt]

    @property
    def epoch_max(self) -> int:
        """The highest epoch that was seen anywhere."""
        return max([0, *self.promises.values(), *(s.position.epoch for s in self.shards)])


class _Follower:
    """Follows one shard through the log and its holes."""

    __slots__ = ("_replay", "_snapshot", "broken", "doubt")

    def __init__(self, shard: int, snapshot: LogPosition) -> None:
        self._snapshot = snapshot
        self._replay = ShardReplay(shard, snapshot)
        self.doubt = ""
        self.broken = False

    def on_hole(self, hole: Hole) -> None:
        if not self.doubt:
            self.doubt = f"may have had entries in {hole.segment} at {hole.offset}: {hole.what}"

    def on_record(self, record: WalRecord) -> None:
        if self.broken:
            return
        if self.doubt:
            self._on_record_behind_hole(record)
            return
        try:
            self._replay.on_record(record)
        except CorruptionError as error:
            self._break(error.message)

    def _on_record_behind_hole(self, record: WalRecord) -> None:
        tail = self._replay.tail
        if record.kind != ENTRY:
            self._break(f"{self.doubt}; what follows cannot be placed")
            return
        if record.revision == tail.revision + 1 and record.epoch >= tail.epoch:
            self.doubt = ""
            self._replay.on_record(record)
        elif tail.revision < record.revision <= self._snapshot.revision + 1:
            # What is missing is in the snapshot.
            self.doubt = ""
            self._replay = ShardReplay(self._replay.shard, self._snapshot)
            self._replay.on_record(record)
        else:
            self._break(f"entry {record.position!r} follows {tail!r}, what is between is lost")

    def _break(self, why: str) -> None:
        self.broken = True
        self.doubt = why

    def entries(self) -> list[WalRecord]:
        try:
            return list(self._replay.entries())
        except CorruptionError as error:
            self._break(error.message)
            return []


def salvage(wal: Disk, snapshots: Disk, identity: bytes) -> Salvage:
    """Read all that can be read. Raises ConfigError for what a newer program or another node wrote.

    Memory is that of a recovery: the entries behind the snapshots.
    """
    found = Salvage([])
    good = _read_snapshots(snapshots, identity, found)
    followers = [
        _Follower(shard, good[shard].position if shard in good else ORIGIN)
        for shard in range(SHARDS)
    ]
    _read_log(wal, identity, found, followers)
    if good and not found.segments:
        _note_hole(found, followers, Hole("wal", 0, "there are snapshots and no log"))
    lost = {bad.shard: bad for bad in found.bad_snapshots}
    for shard, follower in enumerate(followers):
        # Asked first: it may find that what is there does not follow the snapshot.
        entries = follower.entries()
        left = ShardSalvaged(shard, good.get(shard), entries, follower.doubt)
        bad = lost.get(shard)
        if bad is not None and not left.doubt and left.position.revision < bad.position.revision:
            left.doubt = f"its snapshot {bad.name} is damaged, and the log has not all of it"
        found.shards.append(left)
    return found


def _read_snapshots(disk: Disk, identity: bytes, found: Salvage) -> dict[int, SnapshotFile]:
    good: dict[int, SnapshotFile] = {}
    for name in disk.names():
        named = snapshot_named(name)
        if named is None or named[0] >= SHARDS:
            continue
        shard, position = named
        try:
            file = SnapshotFile(disk, identity, name)
            file.verify()
        except CorruptionError as error:
            found.bad_snapshots.append(BadSnapshot(name, shard, position, error.message))
        else:
            # Names sort by position: a later one is newer.
            good[shard] = file
    return good


def _read_log(disk: Disk, identity: bytes, found: Salvage, followers: list[_Follower]) -> None:
    headers = _read_headers(disk, identity, found, followers)
    proven_lsn = 0
    expected = 0
    for number, (name, header) in enumerate(headers):
        if expected and header.sequence != expected:
            missing = segment_name(expected)
            _note_hole(found, followers, Hole(missing, 0, "the segment is missing or unreadable"))
        expected = header.sequence + 1
        following = headers[number + 1][1] if number + 1 < len(headers) else None
        ends = following is not None and following.sequence == expected
        end_lsn = following.base_lsn if following is not None and ends else None
        file = SegmentFile(name, header, disk.size(name), end_lsn)
        proven_lsn = max(proven_lsn, header.synced_lsn)
        proven_lsn = _read_segment(disk, file, found, followers, proven_lsn)
    if found.sequence >= expected > 0:
        unreadable = segment_name(found.sequence)
        _note_hole(found, followers, Hole(unreadable, 0, "the header is damaged"))


def _read_headers(
    disk: Disk, identity: bytes, found: Salvage, followers: list[_Follower]
) -> list[tuple[str, SegmentHeader]]:
    headers: list[tuple[str, SegmentHeader]] = []
    file_bytes = 0
    for name in disk.names():
        match = _SEGMENT.fullmatch(name)
        if match is None:
            continue
        found.segments.append(name)
        found.sequence = max(found.sequence, int(match[1], 16))
        file_bytes += disk.size(name)
        try:
            header = decode_segment_header(disk.read(name, 0, SEGMENT_HEADER_BYTES), name)
        except CorruptionError as error:
            if not headers:
                _note_hole(found, followers, Hole(name, 0, error.message))
            continue
        check_identity(header.identity, identity, name=name)
        headers.append((name, header))
        found.end_lsn = max(found.end_lsn, header.base_lsn, header.synced_lsn)
    # Segments whose headers are gone may have used so many more.
    found.end_lsn += file_bytes
    return headers


def _read_segment(
    disk: Disk, file: SegmentFile, found: Salvage, followers: list[_Follower], proven_lsn: int
) -> int:
    reader = SegmentReader(disk, file)
    while (piece := reader.next_piece()) is not None:
        proven_lsn = _deliver(piece.records, found, followers, proven_lsn)
    try:
        reader.check_end(proven_lsn)
    except CorruptionError as error:
        _note_hole(found, followers, Hole(file.name, error.offset, error.message))
        proven_lsn = _read_behind(disk, file, reader.lsn, found, followers, proven_lsn)
    return proven_lsn


def _read_behind(
    disk: Disk,
    file: SegmentFile,
    lsn: int,
    found: Salvage,
    followers: list[_Follower],
    proven_lsn: int,
) -> int:
    """Go on behind a damaged record, if what it says of its length leads to another one."""
    base_lsn, salt = file.header.base_lsn, salt_of(file.header.identity)
    end_lsn = base_lsn + file.file_bytes - SEGMENT_HEADER_BYTES
    if file.end_lsn is not None:
        end_lsn = min(end_lsn, file.end_lsn)
    encoded = disk.read(file.name, lsn - base_lsn + SEGMENT_HEADER_BYTES, end_lsn - lsn)
    while encoded:
        head = encoded[:RECORD_HEADER_BYTES]
        if plausible_shard(head, lsn, SHARDS) is None:
            return proven_lsn
        step = record_length(head)
        lsn, encoded = lsn + step, encoded[step:]
        parsed = parse_records(encoded, lsn, salt)
        if not parsed.records:
            continue
        proven_lsn = _deliver(parsed.records, found, followers, proven_lsn)
        lsn, encoded = lsn + parsed.consumed, encoded[parsed.consumed :]
        rest_is_empty = not encoded.rstrip(b"\0")
        if rest_is_empty:
            return proven_lsn
        offset = lsn - base_lsn + SEGMENT_HEADER_BYTES
        _note_hole(found, followers, Hole(file.name, offset, "a record is damaged"))
    return proven_lsn


def _deliver(
    records: list[WalRecord], found: Salvage, followers: list[_Follower], proven_lsn: int
) -> int:
    for record in records:
        proven_lsn = max(proven_lsn, record.synced_lsn)
        if record.kind == MARK or record.shard >= SHARDS:
            continue
        epoch = max(found.promises.get(record.shard, 0), record.epoch)
        found.promises[record.shard] = epoch
        if record.kind != EPOCH:
            followers[record.shard].on_record(record)
    return proven_lsn


def _note_hole(found: Salvage, followers: list[_Follower], hole: Hole) -> None:
    found.holes.append(hole)
    for follower in followers:
        follower.on_hole(hole)
