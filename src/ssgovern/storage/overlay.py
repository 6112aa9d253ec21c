"""A disk on which everything can be tried and nothing happens.

Reads come from the disk below until something was written; writes stay in memory. With it the
recovery itself tells what it would do with a directory, instead of a second opinion about it.

Invariant: the disk below is only read. Memory grows with what is written: a recovery rewrites
the end of a log, about a megabyte.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ssgovern.runtime import Disk


class OverlayDisk:
    """A `Disk` over another one."""

    def __init__(self, below: Disk | None) -> None:
        """`below` None: nothing was ever written."""
        self._below = below
        self._written: dict[str, bytearray] = {}
        self._renamed: dict[str, str] = {}
        """Names of files that are below under another name."""
        self._gone: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<OverlayDisk written={sorted(self._written)} gone={sorted(self._gone)}>"

    def names(self) -> list[str]:
        found = [] if self._below is None else self._below.names()
        below = [name for name in found if name not in self._gone]
        return sorted(dict.fromkeys([*below, *self._written, *self._renamed]))

    def size(self, name: str) -> int:
        if name in self._written:
            return len(self._written[name])
        below, name = self._found_below(name)
        return below.size(name)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        written = self._written.get(name)
        if written is None:
            below, name = self._found_below(name)
            return below.read(name, offset, length)
        return bytes(written[offset:] if length < 0 else written[offset : offset + length])

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        file = self._own(name)
        for chunk in chunks:
            file += chunk

    async def reserve(self, name: str, size: int) -> None:
        """Do nothing: it is a hint."""

    async def sync(self, name: str) -> None:
        """Do nothing: what is only tried need not last."""

    async def truncate(self, name: str, size: int) -> None:
        del self._own(name)[size:]

    async def remove(self, name: str) -> None:
        self.size(name)
        self._forget(name)

    async def rename(self, source: str, target: str) -> None:
        self.size(source)
        written = self._written.get(source)
        below = None if written is not None else self._found_below(source)[1]
        self._forget(target)
        self._forget(source)
        if written is not None:
            self._written[target] = written
        elif below is not None:
            self._renamed[target] = below

    async def sync_directory(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Forget what was written."""
        self._written.clear()

    def _found_below(self, name: str) -> tuple[Disk, str]:
        """Return where the bytes of a file are that was not written to."""
        if self._below is None or (name in self._gone and name not in self._renamed):
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return self._below, self._renamed.get(name, name)

    def _own(self, name: str) -> bytearray:
        """Return the bytes of a file that is about to be changed."""
        written = self._written.get(name)
        if written is None:
            there = name in self.names()
            content = self.read(name) if there else b""
            self._forget(name)
            written = self._written[name] = bytearray(content)
        return written

    def _forget(self, name: str) -> None:
        self._written.pop(name, None)
        self._renamed.pop(name, None)
        self._gone[name] = None
