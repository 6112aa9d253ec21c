"""A simulated disk at its least helpful: what survives is no more than POSIX promises.

`DiskImage` is the platter and the page cache of one directory, pure and without time; it outlives
the processes that use it. `SimDisk` is the `ssgovern.runtime.Disk` of one process life on it.

What is modelled, because each has destroyed data somewhere:
- A killed process keeps the page cache; a power cut keeps of the unsynced writes a prefix, any
  sectors, or nothing, and any subset of the unsynced directory operations.
- A failed sync drops what it should have written: the page cache still shows it, the next sync
  succeeds, and a hole stays on the platter (fsyncgate). Clean pages may be evicted at any time.
- A full disk takes a part of a write before it says ENOSPC.
- Bits rot.

Not modelled: failing reads, failing removes and renames, file-system bugs. A failed directory
sync loses nothing (file systems keep their metadata in a journal).
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from ssgovern.runtime import Rng, SyncError

SECTOR_BYTES: Final = 512
UNLIMITED: Final = 1 << 62


class PowerCut(Enum):
    """What a power cut leaves of unsynced writes."""

    PREFIX = "prefix"
    SECTORS = "sectors"
    ALL_LOST = "all_lost"


class _Write(NamedTuple):
    """A write at `offset`, or with `written` None a cut of the file to `offset` bytes."""

    number: int
    offset: int
    written: bytes | None


class _File:
    __slots__ = ("cache", "durable", "pending", "reserved")

    def __init__(self) -> None:
        self.reserved = 0
        """Up to here there is room; behind the cache it is seen by later processes only."""
        self.durable = bytearray()
        self.cache = bytearray()
        self.pending: list[_Write] = []


class _NameChange(NamedTuple):
    """`removed` no longer is a name, `added` is the name of `file`."""

    number: int
    removed: str | None
    added: str | None
    file: _File | None


class DiskImage:
    """The bytes of one directory, as processes see them and as they are on the platter."""

    def __init__(self, *, capacity_bytes: int = UNLIMITED) -> None:
        self.capacity_bytes = capacity_bytes
        self.fail_syncs = 0
        """So many of the next syncs raise EIO."""
        self.syncs = 0
        self.appends = 0
        self._files: dict[str, _File] = {}
        self._durable_files: dict[str, _File] = {}
        self._name_changes: list[_NameChange] = []
        self._number = 0

    def __repr__(self) -> str:
        return f"<DiskImage {' '.join(f'{n}:{len(self._files[n].cache)}' for n in self.names())}>"

    # --- as a process sees it --------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self._files)

    def size(self, name: str) -> int:
        return len(self._file(name).cache)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        cache = self._file(name).cache
        return bytes(cache[offset:] if length < 0 else cache[offset : offset + length])

    def append(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write to the cache. Raises OSError(ENOSPC) after having written what fits."""
        self.appends += 1
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File()
            self._change_names(None, name, file)
        written = b"".join(chunks)
        room_bytes = max(0, file.reserved - len(file.cache))
        free_bytes = room_bytes + max(0, self.capacity_bytes - self.used_bytes)
        fits = written[:free_bytes]
        if fits:
            file.pending.append(_Write(self.next_number(), len(file.cache), fits))
            file.cache += fits
        if len(fits) < len(written):
            raise OSError(errno.ENOSPC, "no space left on device", name)

    def reserve(self, name: str, size: int) -> None:
        """Make room for a file, if there is any: it reads as zeros in later lives."""
        file = self._file(name)
        grows = size - max(len(file.cache), file.reserved)
        if 0 < grows <= self.capacity_bytes - self.used_bytes:
            file.reserved = size

    def begin_life(self) -> None:
        """A new process looks at the directory: what the last one reserved is zeros now."""
        for file in self._all_files():
            _extend(file.cache, file.reserved)
            file.reserved = 0

    def give_back_reserved(self) -> None:
        """The process ends in an orderly way and cuts what it did not use."""
        for file in self._all_files():
            file.reserved = 0

    def truncate(self, name: str, size: int) -> None:
        file = self._file(name)
        file.reserved = 0
        file.pending.append(_Write(self.next_number(), size, None))
        _apply(file.cache, size, None)
        _extend(file.cache, size)

    def remove(self, name: str) -> None:
        self._file(name)
        del self._files[name]
        self._change_names(name, None, None)

    def rename(self, source: str, target: str) -> None:
        file = self._file(source)
        del self._files[source]
        self._files[target] = file
        self._change_names(source, target, file)

    @property
    def used_bytes(self) -> int:
        return sum(max(len(file.cache), file.reserved) for file in self._files.values())

    # --- syncing ---------------------------------------------------------------------------

    def next_number(self) -> int:
        """Return a number above those of all operations so far."""
        self._number += 1
        return self._number

    def start_sync(self, name: str) -> Callable[[], None]:
        """Return the end of a sync that begins now: it covers what was written before."""
        file = self._file(name)
        number = self.next_number()

        def finish() -> None:
            covered = [write for write in file.pending if write.number < number]
            file.pending = [write for write in file.pending if write.number > number]
            self._maybe_fail(name)
            for write in covered:
                _apply(file.durable, write.offset, write.written)

        return finish

    def start_sync_directory(self) -> Callable[[], None]:
        """Return the end of a directory sync that begins now."""
        number = self.next_number()

        def finish() -> None:
            self._maybe_fail("directory")
            for change in self._name_changes:
                if change.number < number:
                    _apply_name_change(self._durable_files, change)
            self._name_changes = [each for each in self._name_changes if each.number > number]

        return finish

    def _maybe_fail(self, what: str) -> None:
        self.syncs += 1
        if self.fail_syncs > 0:
            self.fail_syncs -= 1
            raise SyncError(errno.EIO, "input/output error", what)

    # --- faults ----------------------------------------------------------------------------

    def cut_power(self, rng: Rng, mode: PowerCut) -> None:
        """Lose what was not synced. The image is then as the next boot finds it."""
        for file in self._all_files():
            if mode is PowerCut.PREFIX:
                _keep_prefix(file, rng)
            elif mode is PowerCut.SECTORS:
                _keep_sectors(file, rng)
            if rng.random() < 0.5:
                _extend(file.durable, file.reserved)
            file.reserved = 0
            file.pending = []
            file.cache = bytearray(file.durable)
        for change in self._name_changes:
            if mode is not PowerCut.ALL_LOST and rng.random() < 0.5:
                _apply_name_change(self._durable_files, change)
        self._name_changes = []
        self._files = dict(self._durable_files)

    def evict_clean_pages(self) -> None:
        """Drop cached pages that need no writing: what a failed sync lost is then seen no more."""
        for file in self._all_files():
            cache = bytearray(file.durable)
            for write in file.pending:
                _apply(cache, write.offset, write.written)
            # The size is metadata, and is kept; what is missing reads as zeros.
            _extend(cache, len(file.cache))
            file.cache = cache

    def flip_bit(self, name: str, offset: int, bit: int) -> None:
        """Let a bit rot, on the platter and (as after a restart) in the cache."""
        file = self._file(name)
        for stored in (file.durable, file.cache):
            if offset < len(stored):
                stored[offset] ^= 1 << bit

    # ---------------------------------------------------------------------------------------

    def _file(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return file

    def _all_files(self) -> list[_File]:
        """All files that have a name, or may have one after a crash, each once."""
        files = [*self._files.values(), *self._durable_files.values()]
        files += [change.file for change in self._name_changes if change.file is not None]
        unique: dict[int, _File] = {}
        for file in files:
            # Identity only finds duplicates; the order is that of the list.
            unique.setdefault(id(file), file)
        return list(unique.values())

    def _change_names(self, removed: str | None, added: str | None, file: _File | None) -> None:
        self._name_changes.append(_NameChange(self.next_number(), removed, added, file))


class SimDisk:
    """The `Disk` of one process. `latency(operation)` is awaited before each effect.

    Bytes enter the cache when `append` is called; a sync covers what was written before it was
    called, and takes effect after its latency. A process that dies meanwhile never resumes.
    """

    def __init__(self, image: DiskImage, latency: Callable[[str], Awaitable[None]]) -> None:
        self._image = image
        self._latency = latency
        self._closed = False
        image.begin_life()

    def names(self) -> list[str]:
        return self._image.names()

    def size(self, name: str) -> int:
        return self._image.size(name)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        return self._image.read(name, offset, length)

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        self._check_open()
        try:
            self._image.append(name, chunks)
        finally:
            await self._latency("append")
        if sync:
            await self.sync(name)

    async def reserve(self, name: str, size: int) -> None:
        self._check_open()
        await self._latency("reserve")
        self._image.reserve(name, size)

    async def sync(self, name: str) -> None:
        self._check_open()
        finish = self._image.start_sync(name)
        await self._latency("sync")
        finish()

    async def truncate(self, name: str, size: int) -> None:
        self._check_open()
        await self._latency("truncate")
        self._image.truncate(name, size)

    async def remove(self, name: str) -> None:
        self._check_open()
        await self._latency("remove")
        self._image.remove(name)

    async def rename(self, source: str, target: str) -> None:
        self._check_open()
        await self._latency("rename")
        self._image.rename(source, target)

    async def sync_directory(self) -> None:
        self._check_open()
        finish = self._image.start_sync_directory()
        await self._latency("sync_directory")
        finish()

    async def close(self) -> None:
        if not self._closed:
            self._image.give_back_reserved()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EROFS, "the directory is closed")


def _extend(stored: bytearray, size: int) -> None:
    if len(stored) < size:
        stored += bytes(size - len(stored))


def _apply(stored: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        del stored[offset:]
        return
    _extend(stored, offset)
    stored[offset : offset + len(written)] = written


def _apply_name_change(names: dict[str, _File], change: _NameChange) -> None:
    if change.removed is not None:
        names.pop(change.removed, None)
    if change.added is not None and change.file is not None:
        names[change.added] = change.file


def _keep_prefix(file: _File, rng: Rng) -> None:
    """All writes up to one, and often a part of that one."""
    kept = rng.randrange(len(file.pending) + 1)
    for write in file.pending[:kept]:
        _apply(file.durable, write.offset, write.written)
    if kept == len(file.pending) or rng.random() < 0.3:
        return
    if (torn := file.pending[kept].written) is not None:
        part = torn[: rng.randrange(len(torn) + 1)]
        _apply(file.durable, file.pending[kept].offset, part)


def _keep_sectors(file: _File, rng: Rng) -> None:
    """Any sectors of any write, and sometimes the size of the file without its bytes."""
    for write in file.pending:
        if write.written is None:
            if rng.random() < 0.5:
                _apply(file.durable, write.offset, None)
            continue
        start, end = write.offset, write.offset + len(write.written)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if rng.random() < 0.5:
                piece = write.written[start - write.offset : stop - write.offset]
                _apply(file.durable, start, piece)
            start = stop
    if rng.random() < 0.25:
        _extend(file.durable, len(file.cache))
