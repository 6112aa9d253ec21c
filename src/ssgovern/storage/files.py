"""Creating and removing files so that a crash leaves the old state or the new, never neither.

Knows the steps and their order, not what is in a file.

Invariants:
- A file under its final name is whole: it was written under a temporary name, synced, renamed.
- When `create_durably` returned, a power cut no longer takes the file or its name away.
- A failed sync is never tried again (fsyncgate): it becomes `StorageFailedError`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from ssgovern.errors import DiskFullError, StorageFailedError
from ssgovern.runtime import Disk, SyncError

TEMPORARY_SUFFIX: Final = ".tmp"


def is_disk_full(error: OSError) -> bool:
    """Tell a refused write, after which all is as it was, from a loss of bytes."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, SyncError)


def storage_failed(what: str, error: OSError) -> StorageFailedError:
    reason = error.strerror or str(error) or type(error).__name__
    return StorageFailedError(f"{what} failed: {reason}; nothing more is written to this disk")


async def pin_names(disk: Disk) -> None:
    """Make the names we see durable. The first step of every recovery.

    A process killed between a rename and its directory sync leaves names that are only in the
    page cache. Acting on them (removing what they replace) before they are durable would lose
    both the old and the new at the next power cut.
    """
    try:
        await disk.sync_directory()
    except OSError as error:
        raise storage_failed("syncing the directory", error) from error


async def create_durably(disk: Disk, name: str, chunks: Iterable[bytes]) -> int:
    """Create (or replace) `name` with `chunks`, durable on return. Return its size in bytes.

    Raises DiskFullError: nothing was changed. Raises StorageFailedError: unknown what was.
    """
    temporary = name + TEMPORARY_SUFFIX
    size = 0
    try:
        await remove_if_there(disk, temporary)
        for chunk in chunks:
            await disk.append(temporary, (chunk,), sync=False)
            size += len(chunk)
        await disk.sync(temporary)
        await disk.rename(temporary, name)
    except OSError as error:
        if not is_disk_full(error):
            raise storage_failed(f"writing {name}", error) from error
        try:
            await remove_if_there(disk, temporary)
        except OSError as second:
            raise storage_failed(f"removing {temporary}", second) from second
        raise DiskFullError(f"no space left to write {name}") from error
    await pin_names(disk)
    return size


async def remove_if_there(disk: Disk, name: str) -> None:
    try:
        await disk.remove(name)
    except FileNotFoundError:
        return
