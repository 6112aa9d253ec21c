"""The write-ahead log of a node: one log for all its shards.

Owns the order of writes and syncs, and what may be said to be durable. Knows nothing of what
entries mean, of replication, or of time: when to sync, mark or release is its owner's business.

Invariants:
- `append(sync=True)` returned: the batch survives a power cut.
- `DiskFullError`: no record of the batch is in the log, now or after a crash; go on.
- `StorageFailedError`: nothing is known any more; every later call is refused. A failed sync is
  never tried again, because the second one succeeds without writing (fsyncgate).
- A segment is created only when the one before it is synced, and it is durable, name and all,
  before its first record is written.

One task owns a `Wal`. `release` alone may run beside the other calls (but not beside itself).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from ssgovern import limits
from ssgovern.errors import DiskFullError, LimitExceededError, StorageFailedError
from ssgovern.model import ORIGIN, LogPosition
from ssgovern.runtime import Disk
from ssgovern.storage.files import is_disk_full, storage_failed
from ssgovern.storage.format import CUT, ENTRY, EPOCH, MARK, LogEntry, encode_records, salt_of
from ssgovern.storage.recovery import (
    LogState,
    OnProgress,
    OnRecord,
    Recovery,
    Segment,
    open_segment,
)

_MARK = (LogEntry(0, 0, 0, b"", MARK),)


class SegmentSize(NamedTuple):
    sequence: int
    size_bytes: int


class Wal:
    """The log of a node, recovered and open for appending. Made by `Wal.recover`."""

    recovery: ClassVar[type[Recovery]] = Recovery

    def __init__(self, disk: Disk, state: LogState, *, segment_bytes: int) -> None:
        self._disk = disk
        self._state = state
        self._segment_bytes = segment_bytes
        self._salt = salt_of(state.identity)
        self._data_end_lsn = state.end_lsn
        self._failure: StorageFailedError | None = None
        self._under_way = False
        self._reserved = ("", 0)
        """The segment in which room was made, and up to which size."""

    @classmethod
    async def recover(
        cls,
        disk: Disk,
        *,
        identity: bytes,
        on_record: OnRecord,
        on_progress: OnProgress | None = None,
        segment_bytes: int = limits.WAL_SEGMENT_BYTES,
    ) -> Wal:
        """Replay the log in `disk` (none: begin one) and open it for appending.

        `on_record` gets every ENTRY, EPOCH and CUT record in order; what it got is durable when
        this returns, not before. To heed that an entry replaces what stands from its revision
        on, and what a cut takes away, is up to it (`ShardReplay`). `on_progress` is awaited after
        each chunk (about 1,000 records), so that a loop can do other things. `identity`: 16
        bytes that no other node has.

        Raises CorruptionError if bytes are damaged that were durable (all files are kept as
        they are), ConfigError for the log of another node or a newer program, DiskFullError,
        StorageFailedError.
        """
        state = await cls.recovery(disk, identity, on_record, on_progress).run()
        return cls(disk, state, segment_bytes=segment_bytes)

    def __repr__(self) -> str:
        state = self._state
        return (
            f"<Wal segments={len(state.segments)} end={state.end_lsn} synced={state.synced_lsn}"
            f"{'' if self._failure is None else ' failed'}>"
        )

    @property
    def size_bytes(self) -> int:
        return sum(segment.file_bytes for segment in self._state.segments)

    @property
    def segments(self) -> tuple[SegmentSize, ...]:
        return tuple(
            SegmentSize(segment.sequence, segment.file_bytes) for segment in self._state.segments
        )

    @property
    def end_lsn(self) -> int:
        """The end of all records that were appended."""
        return self._state.end_lsn

    @property
    def last_synced_lsn(self) -> int:
        """All records below it are durable."""
        return self._state.synced_lsn

    @property
    def promises(self) -> Mapping[int, int]:
        """Per shard, the highest epoch whose predecessors this node promised to refuse."""
        return self._state.promises

    async def append(self, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
        """Append one batch; with `sync`, return when it (and all before it) is durable.

        Raises DiskFullError: as if never called. Raises StorageFailedError, LimitExceededError.
        """
        await self._alone(lambda: self._append(entries, sync=sync))

    async def sync(self) -> None:
        """Make all that was appended durable. Raises StorageFailedError."""
        await self._alone(self._sync)

    async def mark(self) -> None:
        """Write down, lazily, that the last synced batch was durable.

        Without it damage to that batch cannot be told from a torn write. Does nothing when a
        later record says it already; does not sync. To be called when the log has been idle
        for a while.
        """
        await self._alone(self._mark)

    async def release(self, snapshotted: Mapping[int, LogPosition]) -> int:
        """Remove the leading segments whose entries are all in durable snapshots.

        `snapshotted` maps shard to the position of its snapshot, which has to be one that the
        log had (or, of a snapshot from elsewhere, whose `cut_record` is durable). What a cut or
        a replaced entry says is never lost before what it speaks of: that stands before it, and
        the oldest goes first. The last segment always stays.
        Returns the bytes freed. Raises StorageFailedError.
        """
        freed_bytes = 0
        segments = self._state.segments
        # Of what is appended meanwhile `snapshotted` says nothing.
        last = segments[-1]
        while segments[0] is not last and _covers(snapshotted, segments[0]):
            self._refuse_if_failed()
            oldest = segments[0]
            try:
                await self._disk.remove(oldest.name)
                # One by one: a power cut must not take a later segment and leave an earlier.
                await self._disk.sync_directory()
            except OSError as error:
                self._failure = storage_failed(f"removing {oldest.name}", error)
                raise self._failure from error
            del segments[0]
            freed_bytes += oldest.file_bytes
        return freed_bytes

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        self._refuse_if_failed()
        if self._under_way:
            raise StorageFailedError("another call on the log is under way or was cancelled")
        # Stays if the caller is cancelled: then nobody knows how long the file is.
        self._under_way = True
        try:
            await work()
        except StorageFailedError as failure:
            self._failure = failure
            raise
        except (DiskFullError, LimitExceededError):
            self._under_way = False
            raise
        self._under_way = False

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise StorageFailedError(f"the log is closed: {self._failure.message}")

    async def _append(self, entries: Sequence[LogEntry], *, sync: bool) -> None:
        if not entries:
            if sync:
                await self._sync()
            return
        state = self._state
        if state.segments[-1].file_bytes >= self._segment_bytes:
            await self._roll()
        await self._write(entries, sync=sync)
        segment = state.segments[-1]
        for shard, epoch, revision, _, kind in entries:
            if kind in (ENTRY, CUT):
                segment.last[shard] = LogPosition(epoch, revision)
            elif kind == EPOCH:
                state.promises[shard] = max(epoch, state.promises.get(shard, 0))
        self._data_end_lsn = state.end_lsn

    async def _sync(self) -> None:
        state = self._state
        if state.synced_lsn == state.end_lsn:
            return
        segment = state.segments[-1]
        try:
            await self._disk.sync(segment.name)
        except OSError as error:
            raise storage_failed(f"syncing {segment.name}", error) from error
        state.synced_lsn = state.end_lsn

    async def _mark(self) -> None:
        state = self._state
        if state.proven_lsn < min(state.synced_lsn, self._data_end_lsn):
            await self._write(_MARK, sync=False)

    async def _roll(self) -> None:
        await self._sync()
        await open_segment(self._disk, self._state)

    async def _write(self, entries: Sequence[LogEntry], *, sync: bool) -> None:
        state = self._state
        segment = state.segments[-1]
        encoded = encode_records(entries, state.end_lsn, state.synced_lsn, self._salt)
        try:
            if self._reserved < (segment.name, segment.file_bytes + len(encoded)):
                await self._reserve(segment, segment.file_bytes + len(encoded))
            await self._disk.append(segment.name, (encoded,), sync=sync)
        except OSError as error:
            if not is_disk_full(error):
                raise storage_failed(f"writing {segment.name}", error) from error
            await self._take_back(segment, error)
            raise DiskFullError(f"no space left to write {segment.name}") from error
        state.proven_lsn = max(state.proven_lsn, state.synced_lsn)
        segment.file_bytes += len(encoded)
        state.end_lsn += len(encoded)
        if sync:
            state.synced_lsn = state.end_lsn

    async def _reserve(self, segment: Segment, size: int) -> None:
        """Make room ahead, in steps: a sync that need not write the file's length is faster."""
        # Not past the end of the segment: what is not used there would be wasted.
        size = max(size, min(size + limits.WAL_RESERVE_BYTES, self._segment_bytes))
        self._reserved = (segment.name, size)
        await self._disk.reserve(segment.name, size)

    async def _take_back(self, segment: Segment, cause: OSError) -> None:
        """Cut a batch that did not fit, durably: a refused entry must not come back later."""
        try:
            self._reserved = (segment.name, segment.file_bytes)
            await self._disk.truncate(segment.name, segment.file_bytes)
            await self._disk.sync(segment.name)
        except OSError as error:
            raise storage_failed(f"cutting {segment.name} after {cause}", error) from error
        self._state.synced_lsn = self._state.end_lsn


def _covers(snapshotted: Mapping[int, LogPosition], segment: Segment) -> bool:
    return all(snapshotted.get(shard, ORIGIN) >= last for shard, last in segment.last.items())
