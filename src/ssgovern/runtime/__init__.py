"""The seams between ss-govern and the world: disk, randomness, wall clock, failpoints.

Everything that decides or drives takes these as arguments, so that the same code runs on a
real machine (`ssgovern.runtime.real`) and under the deterministic simulator (`ssgovern.sim`).
Monotonic time and the network come from the running asyncio loop, which the simulator
replaces as a whole; only what asyncio does not offer is named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class SyncError(OSError):
    """A sync failed. Told apart because even its ENOSPC means lost bytes, not a full disk."""


class Disk(Protocol):
    """One flat directory of append-only files.

    The contract is that of a POSIX file system, at its least helpful:

    - What `append` wrote may be lost, torn or reordered by a power cut until a later sync of
      that file returned. Names (creation, rename, removal) survive only after `sync_directory`.
    - After a failed sync nothing is known about the file's unsynced bytes, and a second sync
      that succeeds proves nothing (fsyncgate).
    - Calls made on one `Disk` take effect in the order in which they were made. Callers keep
      to one writer per file.

    Errors are `OSError`, with the `errno` of the system (ENOSPC: the call may have written a
    part of what it was given); those of syncing are `SyncError`.
    """

    def names(self) -> list[str]:
        """Return the names of all files, sorted. Blocking; meant for recovery and inspection."""

    def size(self, name: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Return `length` bytes from `offset` (-1: to the end), fewer at the end of the file.

        Blocking; meant for recovery and inspection. Raises FileNotFoundError.
        """

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        """Write `chunks` at the end of a file, creating it; with `sync`, fdatasync it after."""

    async def reserve(self, name: str, size: int) -> None:
        """Make room for an existing file to grow to `size` bytes; a hint that may do nothing.

        Syncs then need not write the file's length each time, which halves them. What is
        reserved reads as zeros to later processes, until the file is cut or the disk closed:
        after a crash a file may end in zeros.
        """

    async def sync(self, name: str) -> None:
        """Make the bytes of a file durable (fdatasync)."""

    async def truncate(self, name: str, size: int) -> None:
        """Cut a file to `size` bytes."""

    async def remove(self, name: str) -> None:
        """Remove a file. Raises FileNotFoundError."""

    async def rename(self, source: str, target: str) -> None:
        """Rename a file, replacing `target` if it exists."""

    async def sync_directory(self) -> None:
        """Make all names durable (fsync of the directory)."""

    async def close(self) -> None:
        """Release handles and threads. Writes nothing; the last call on this object."""


class Rng(Protocol):
    """What is used of `random.Random`: jitter and load balancing, never secrets."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class Runtime(Protocol):
    """What a process is given besides its event loop."""

    @property
    def rng(self) -> Rng: ...

    def wall_ms(self) -> int:
        """Return milliseconds since the Unix epoch. For display and records only, never leases."""

    def random_bytes(self, count: int) -> bytes:
        """Return bytes fit for secrets and identities."""

    def open_disk(self, path: str) -> Disk:
        """Open (creating it) the directory at `path`; a relative path is the process's own."""

    def failpoint(self, name: str) -> None:
        """A named place where tests may stop the process. Does nothing in production."""
