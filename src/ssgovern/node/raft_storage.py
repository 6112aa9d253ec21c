"""What a candidate has promised and been told, on its disk: votes, log and snapshot of its Raft.

Knows where each thing is kept and when old bytes may go; refuses to know terms, roles or what
entries mean. The log is a `Wal` in a directory of its own. It has two "shards":

    0  the log: one record per entry, at (term, index)
    1  promises: term, vote and the least snapshot that later recoveries have to find; the last
       one counts

    entry    u8 kind (0 nothing, 1 command, 2 members, 3 the log begins anew after here) | body
    promise  u64 term | u64 vote, 0 for none | u64 index of the snapshot

The snapshot is the only one in a directory of its own; its first chunk is the members, the
others are the state.

Invariants:
- A record at an index that the log has replaces it and all that follows. Terms of replaced
  entries may be higher, so positions are no order here; the order of records is.
- A snapshot is durable before the record that says that the log begins anew after it, and
  before any segment is released because of it.
- The newest promise is in a segment that stays: it is written again before others go.
- What cannot be read is never taken for nothing: a promise that is gone would be broken.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ssgovern import limits
from ssgovern.errors import CorruptionError, InvalidArgumentError, RemoteProtocolError
from ssgovern.model import LogPosition, NodeId
from ssgovern.node.raft_codec import config_from_wire, config_to_wire
from ssgovern.raft import Config, Entry, HardState, Ready, Snapshot
from ssgovern.runtime import Disk
from ssgovern.storage.format import ENTRY, LogEntry, WalRecord
from ssgovern.storage.reader import find_segments
from ssgovern.storage.snapshot import SnapshotFile, load_snapshots, write_snapshot
from ssgovern.storage.wal import Wal
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.pb import peer_pb2

LOG: Final = 0
PROMISES: Final = 1

_NOTHING: Final = b"\x00"
_COMMAND: Final = b"\x01"
_MEMBERS: Final = b"\x02"
_BEGINS_ANEW: Final = b"\x03"
_PROMISE: Final = struct.Struct(">QQQ")


class Recovered(NamedTuple):
    """What `Raft` starts from."""

    hard_state: HardState
    snapshot: Snapshot
    entries: list[Entry]


class RaftStorage:
    """The disk of one `Raft`, recovered and open. Made by `RaftStorage.open`.

    One task calls `write` and `mark`; another one may call `compact` meanwhile.
    """

    def __init__(self, wal: Wal, snapshots: Disk, identity: bytes, found: _Replay) -> None:
        self._wal = wal
        self._wal_turn = asyncio.Lock()
        self._snapshots = snapshots
        self._snapshots_turn = asyncio.Lock()
        self._identity = identity
        self._hard = found.hard
        self._promises = found.promises
        self._snapshot_index = -1

    @classmethod
    async def open(
        cls,
        log: Disk,
        snapshots: Disk,
        identity: bytes,
        *,
        first: Snapshot | None,
        segment_bytes: int = limits.METADATA_SEGMENT_BYTES,
    ) -> tuple[RaftStorage, Recovered]:
        """Recover what the disks hold; if they never held anything, begin with `first`.

        `first` None: there must be something; a node that once voted does not begin again.
        Raises CorruptionError (all bytes are kept), ConfigError for what another node or a
        newer program wrote, DiskFullError, StorageFailedError.
        """
        had_log = bool(find_segments(log))
        replay = _Replay()
        wal = await Wal.recover(
            log, identity=identity, on_record=replay.on_record, segment_bytes=segment_bytes
        )
        files = await load_snapshots(snapshots, identity)
        storage = cls(wal, snapshots, identity, replay)
        if files:
            if not had_log:
                raise _damaged("there is a snapshot of the metadata, and no log")
            snapshot = _read_snapshot(files)
        elif replay.is_empty and first is not None:
            snapshot = first
            await storage._write_snapshot(snapshot)
        else:
            raise _damaged("there is no snapshot of the metadata")
        storage._snapshot_index = snapshot.index
        replay.check(snapshot)
        if not replay.continues(snapshot):
            # A crash came between an installed snapshot and the record that says so.
            await wal.append([_begins_anew(snapshot)])
            replay.entries.clear()
        return storage, Recovered(replay.hard, snapshot, replay.entries)

    def __repr__(self) -> str:
        return f"<RaftStorage {self._hard!r} snapshot={self._snapshot_index} {self._wal!r}>"

    @property
    def size_bytes(self) -> int:
        """Bytes of the log on disk."""
        return self._wal.size_bytes

    async def write(self, batch: Ready) -> None:
        """Make all that a batch wants written durable.

        Raises DiskFullError: nothing of it is promised, and all of it has to be written again;
        StorageFailedError: nothing is known any more.
        """
        records: list[LogEntry] = []
        if batch.snapshot is not None:
            # A snapshot may be of a term that is news here; none is on disk of a term that is not.
            await self._append([], batch.hard_state)
            async with self._snapshots_turn:
                await self._write_snapshot(batch.snapshot)
            records.append(_begins_anew(batch.snapshot))
        records += map(_entry_record, batch.entries)
        await self._append(records, batch.hard_state)

    async def _append(self, records: list[LogEntry], hard: HardState | None) -> None:
        async with self._wal_turn:
            if hard is None or hard == self._hard:
                await self._wal.append(records)
                return
            await self._wal.append([self._promise(hard), *records])
            self._hard = hard
            self._promises += 1

    async def compact(self, snapshot: Snapshot) -> int:
        """Put a snapshot of what was applied in place of the log up to it.

        Return the bytes freed. Raises DiskFullError (what was promised still holds),
        StorageFailedError.
        """
        async with self._snapshots_turn:
            if snapshot.index > self._snapshot_index:
                await self._write_snapshot(snapshot)
        if len(self._wal.segments) == 1:
            return 0
        async with self._wal_turn:
            await self._repeat_promise()
            last = LogPosition(0, self._promises - 1)
        position = LogPosition(snapshot.term, snapshot.index)
        return await self._wal.release({LOG: position, PROMISES: last})

    async def _repeat_promise(self) -> None:
        await self._wal.append([self._promise(self._hard)])
        self._promises += 1

    async def mark(self) -> None:
        """Write down that the last batch is durable; damage to it is then told from a torn
        write. Raises DiskFullError (nothing is lost), StorageFailedError."""
        async with self._wal_turn:
            await self._wal.mark()

    def _promise(self, hard: HardState) -> LogEntry:
        body = _PROMISE.pack(hard.term, hard.vote or 0, max(self._snapshot_index, 0))
        return LogEntry(PROMISES, 0, self._promises + 1, body)

    async def _write_snapshot(self, snapshot: Snapshot) -> None:
        position = LogPosition(snapshot.term, snapshot.index)
        chunks = _snapshot_chunks(snapshot)
        await write_snapshot(self._snapshots, self._identity, LOG, position, chunks)
        self._snapshot_index = max(self._snapshot_index, snapshot.index)


class _Replay:
    """What the records of the log come to, one after the other."""

    def __init__(self) -> None:
        self.hard = HardState()
        self.promises = 0
        """Number of the last promise."""
        self.entries: list[Entry] = []
        self.is_empty = True
        self._base: int | None = None
        """The log begins after this index; None: no record said anything about it."""
        self._least_snapshot = 0

    def on_record(self, record: WalRecord) -> None:
        self.is_empty = False
        if record.kind != ENTRY or record.shard not in (LOG, PROMISES):
            raise _damaged(f"kind {record.kind} of shard {record.shard}", lsn=record.lsn)
        if record.shard == LOG:
            self._on_entry(record)
        else:
            self._on_promise(record)

    def _on_promise(self, record: WalRecord) -> None:
        if self.promises and record.revision != self.promises + 1:
            raise _damaged(f"promise {record.revision} follows {self.promises}", lsn=record.lsn)
        if len(record.body) != _PROMISE.size:
            raise _damaged(f"a promise of {len(record.body)} bytes", lsn=record.lsn)
        term, vote, self._least_snapshot = _PROMISE.unpack(record.body)
        if term < self.hard.term:
            raise _damaged(f"term {term} was promised after {self.hard.term}", lsn=record.lsn)
        self.promises = record.revision
        self.hard = HardState(term, NodeId(vote) if vote else None)

    def _on_entry(self, record: WalRecord) -> None:
        index = record.revision
        if record.body[:1] == _BEGINS_ANEW:
            self.entries.clear()
            self._base = index
            return
        if self._base is None or index <= self._base:
            self.entries.clear()
            self._base = index - 1
        last_index = self._base + len(self.entries)
        if index > last_index + 1:
            raise _damaged(f"entry {index} follows {last_index}", lsn=record.lsn)
        del self.entries[index - self._base - 1 :]
        if self.entries and record.epoch < self.entries[-1].term:
            raise _damaged(f"the term falls at entry {index}", lsn=record.lsn)
        self.entries.append(Entry(index, record.epoch, _decode_payload(record)))

    def check(self, snapshot: Snapshot) -> None:
        """Raise CorruptionError unless snapshot, log and promises can be of one history."""
        if snapshot.index < self._least_snapshot:
            raise _damaged(f"the snapshot at {self._least_snapshot} is gone: {snapshot.index}")
        if self._base is not None and self._base > snapshot.index:
            raise _damaged(f"the log begins after {self._base}, the snapshot is {snapshot.index}")
        term = self.entries[-1].term if self.entries else 0
        if self.hard.term < max(term, snapshot.term):
            raise _damaged(f"term {max(term, snapshot.term)} was seen, {self.hard!r} promised")

    def continues(self, snapshot: Snapshot) -> bool:
        """Say whether the next entry of a log that begins with `snapshot` is the next here."""
        if self._base is None or self._base == snapshot.index:
            return True
        offset = snapshot.index - self._base - 1
        return offset < len(self.entries) and self.entries[offset].term == snapshot.term


def _damaged(message: str, *, lsn: int = 0) -> CorruptionError:
    message = f"the cluster's metadata: {message}"
    return CorruptionError(message, segment="metadata", offset=lsn, shard=None)


def _begins_anew(snapshot: Snapshot) -> LogEntry:
    return LogEntry(LOG, snapshot.term, snapshot.index, _BEGINS_ANEW)


def _entry_record(entry: Entry) -> LogEntry:
    payload = entry.payload
    if payload is None:
        body = _NOTHING
    elif isinstance(payload, Config):
        body = _MEMBERS + _encode_members(payload)
    else:
        body = _COMMAND + payload
    return LogEntry(LOG, entry.term, entry.index, body)


def _decode_payload(record: WalRecord) -> bytes | Config | None:
    kind, payload = record.body[:1], record.body[1:]
    if kind == _COMMAND:
        return payload
    if kind == _MEMBERS:
        return _decode_members(payload)
    if kind == _NOTHING and not payload:
        return None
    raise _damaged(f"an entry of unknown kind {kind!r}", lsn=record.lsn)


def _encode_members(config: Config) -> bytes:
    return encode(config_to_wire(config))


def _decode_members(body: bytes) -> Config:
    try:
        return config_from_wire(decode(peer_pb2.RaftConfig, body))
    except (InvalidArgumentError, RemoteProtocolError) as error:
        raise _damaged(f"members that are none: {error.message}") from error


def _snapshot_chunks(snapshot: Snapshot) -> Iterator[bytes]:
    yield _encode_members(snapshot.config)
    size_bytes = limits.SNAPSHOT_CHUNK_BYTES
    for start in range(0, len(snapshot.payload), size_bytes):
        yield snapshot.payload[start : start + size_bytes]


def _read_snapshot(files: Sequence[SnapshotFile]) -> Snapshot:
    if len(files) != 1 or files[0].shard != LOG:
        raise _damaged(f"snapshots of something else: {files!r}")
    file = files[0]
    chunks = list(file.chunks())
    if not chunks:
        raise _damaged(f"{file.name} names no members")
    epoch, revision = file.position
    return Snapshot(revision, epoch, _decode_members(chunks[0]), b"".join(chunks[1:]))
