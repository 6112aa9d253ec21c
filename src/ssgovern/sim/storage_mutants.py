"""Planted bugs of storage, each a mistake that a real system has made.

Production code has no switches for them: a mutant is a disk that quietly does something else
than it was told (as if its caller had not told it), or an override of one well-named method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from ssgovern.errors import CorruptionError
from ssgovern.model import LogPosition
from ssgovern.runtime import Disk, SyncError
from ssgovern.storage import LogEntry, SnapshotFile, Wal, WalRecord, load_snapshots
from ssgovern.storage.files import storage_failed
from ssgovern.storage.format import SEGMENT_HEADER_BYTES
from ssgovern.storage.reader import SegmentReader
from ssgovern.storage.recovery import Recovery, Segment
from ssgovern.storage.replay import ShardReplay


class Mutant(NamedTuple):
    wal: type[Wal] = Wal
    disk: Callable[[Disk], Disk] = lambda disk: disk
    load_snapshots: Callable[[Disk, bytes], Awaitable[list[SnapshotFile]]] = load_snapshots
    replay: type[ShardReplay] = ShardReplay


HONEST: Final = Mutant()


class _PassingDisk:
    """A disk that passes all calls on; mutants override some."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def names(self) -> list[str]:
        return self._disk.names()

    def size(self, name: str) -> int:
        return self._disk.size(name)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        return self._disk.read(name, offset, length)

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        await self._disk.append(name, chunks, sync=sync)

    async def sync(self, name: str) -> None:
        await self._disk.sync(name)

    async def reserve(self, name: str, size: int) -> None:
        await self._disk.reserve(name, size)

    async def truncate(self, name: str, size: int) -> None:
        await self._disk.truncate(name, size)

    async def remove(self, name: str) -> None:
        await self._disk.remove(name)

    async def rename(self, source: str, target: str) -> None:
        await self._disk.rename(source, target)

    async def sync_directory(self) -> None:
        await self._disk.sync_directory()

    async def close(self) -> None:
        await self._disk.close()


class _AckBeforeSync(_PassingDisk):
    """Says "durable" when a batch is in the page cache."""

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        await self._disk.append(name, chunks, sync=False)


class _RetryFailedSync(_PassingDisk):
    """Takes the second sync's word for it."""

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        await self._disk.append(name, chunks, sync=False)
        if sync:
            await self.sync(name)

    async def sync(self, name: str) -> None:
        try:
            await self._disk.sync(name)
        except SyncError:
            await self._disk.sync(name)


class _RenameWithoutDirectorySync(_PassingDisk):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._renamed = False

    async def rename(self, source: str, target: str) -> None:
        await self._disk.rename(source, target)
        self._renamed = True

    async def sync_directory(self) -> None:
        if self._renamed:
            self._renamed = False
            return
        await self._disk.sync_directory()


class _TrustNamesInCache(_PassingDisk):
    """Recovers without syncing the directory first."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._recovering = True

    async def sync_directory(self) -> None:
        if self._recovering:
            self._recovering = False
            return
        await self._disk.sync_directory()


class _SyncNoRemoval(_PassingDisk):
    """Removes several segments without a directory sync between."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._removed = False

    async def remove(self, name: str) -> None:
        await self._disk.remove(name)
        self._removed = True

    async def sync_directory(self) -> None:
        if self._removed:
            self._removed = False
            return
        await self._disk.sync_directory()


class _TailTrustingRecovery(Recovery):
    """Cuts the old file at the last good record and goes on writing there."""

    async def _settle_end(self) -> None:
        state = self._state
        if not state.segments:
            await super()._settle_end()
            return
        last = state.segments[-1]
        last.file_bytes = state.end_lsn - last.base_lsn + SEGMENT_HEADER_BYTES
        try:
            await self._disk.truncate(last.name, last.file_bytes)
            await self._disk.sync(last.name)
        except OSError as error:
            raise storage_failed("cutting the log", error) from error
        state.synced_lsn = state.end_lsn


class _ProvenEndTrustingRecovery(Recovery):
    """Goes on in the old file if that ends where it is proven to be durable."""

    async def _settle_end(self) -> None:
        state = self._state
        last = state.segments[-1] if state.segments else None
        if last is not None and last.file_bytes == (
            SEGMENT_HEADER_BYTES + state.proven_lsn - last.base_lsn
        ):
            state.synced_lsn = state.end_lsn
            return
        await super()._settle_end()


class _ProvenEndTrustingWal(Wal):
    recovery = _ProvenEndTrustingRecovery


class _TailTrustingWal(Wal):
    recovery = _TailTrustingRecovery


class _SilentRecovery(Recovery):
    """Takes every damage for a torn write."""

    def _judge_end(self, reader: SegmentReader) -> None:
        pass


class _SilentWal(Wal):
    recovery = _SilentRecovery


class _HalfTakingBackWal(Wal):
    """Cuts a batch that did not fit, but only in the page cache."""

    async def _take_back(self, segment: Segment, cause: OSError) -> None:
        await self._disk.truncate(segment.name, segment.file_bytes)


class _NotTakingBackWal(Wal):
    """Leaves a part of a batch that did not fit in the file."""

    async def _take_back(self, segment: Segment, cause: OSError) -> None:
        pass


async def _load_only_good_snapshots(disk: Disk, identity: bytes) -> list[SnapshotFile]:
    """Takes a damaged snapshot for an empty state."""
    good: list[SnapshotFile] = []
    for snapshot in await load_snapshots(disk, identity):
        try:
            snapshot.verify()
        except CorruptionError:
            continue
        good.append(snapshot)
    return good


class _CutIgnoringReplay(ShardReplay):
    """Takes a cut for a note."""

    def _on_cut(self, position: LogPosition) -> None:
        pass


class _FirstComeReplay(ShardReplay):
    """Takes an entry at a revision that is there already for one it has seen before."""

    def _truncate(self, keep: int) -> None:
        pass

    def _on_entry(self, record: WalRecord) -> None:
        if record.revision > self.tail.revision:
            super()._on_entry(record)


class _OneForOneReplay(ShardReplay):
    """Replaces an entry, and keeps those that followed it."""

    def _on_entry(self, record: WalRecord) -> None:
        followed = [kept for kept in self._kept if kept.revision > record.revision]
        super()._on_entry(record)
        for other in followed:
            if self.tail.revision + 1 == other.revision and other.epoch >= self.tail.epoch:
                super()._on_entry(other)


class _LogTrustingReplay(ShardReplay):
    """Believes a log that contradicts the shard's snapshot."""

    def entries(self) -> list[WalRecord]:
        return self._kept if self.tail.revision > self.snapshot.revision >= self._base else []


class _LogBelowIgnoringReplay(ShardReplay):
    """Does not look at what the snapshot covers, though it replaces what follows, too."""

    def _on_entry(self, record: WalRecord) -> None:
        if record.revision > self.snapshot.revision:
            super()._on_entry(record)


class _ForgetfulReplay(ShardReplay):
    """Does not write down that a snapshot had begun the log anew when the process died."""

    def missing_cut(self) -> LogEntry | None:
        return None


MUTANTS: Final = {
    "ack-before-sync": Mutant(disk=_AckBeforeSync),
    "retry-failed-sync": Mutant(disk=_RetryFailedSync),
    "rename-without-directory-sync": Mutant(disk=_RenameWithoutDirectorySync),
    "trust-names-in-cache": Mutant(disk=_TrustNamesInCache),
    "remove-without-directory-sync": Mutant(disk=_SyncNoRemoval),
    "trust-old-tail": Mutant(wal=_TailTrustingWal),
    "trust-proven-end": Mutant(wal=_ProvenEndTrustingWal),
    "cut-proven-loss": Mutant(wal=_SilentWal),
    "refused-batch-half-cut": Mutant(wal=_HalfTakingBackWal),
    "refused-batch-not-cut": Mutant(wal=_NotTakingBackWal),
    "damaged-snapshot-is-empty": Mutant(load_snapshots=_load_only_good_snapshots),
    "cut-ignored": Mutant(replay=_CutIgnoringReplay),
    "replacement-ignored": Mutant(replay=_FirstComeReplay),
    "replaced-alone": Mutant(replay=_OneForOneReplay),
    "missing-cut-not-written": Mutant(replay=_ForgetfulReplay),
    "log-over-snapshot": Mutant(replay=_LogTrustingReplay),
    "replacement-below-snapshot-ignored": Mutant(replay=_LogBelowIgnoringReplay),
}
