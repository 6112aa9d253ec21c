"""Directories that commands work on without a server: data directories of stopped nodes, backups.

Whoever opens one has it to himself: the lock on a data directory is what tells that its node does
not run. Foreign errors become sentences here.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ssgovern.cli.output import is_terminal
from ssgovern.errors import ConfigError
from ssgovern.runtime import Disk
from ssgovern.runtime.real import RealDisk, RealRuntime
from ssgovern.storage.overlay import OverlayDisk


class Stopped:
    """Directories held open by one command; closed at the end of the `with`."""

    def __init__(self) -> None:
        self._disks: dict[str, RealDisk] = {}
        self.runtime = RealRuntime()

    def __enter__(self) -> Stopped:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        asyncio.run(self.close())

    async def close(self) -> None:
        """Give all directories back."""
        for disk in self._disks.values():
            await disk.close()
        self._disks.clear()

    def open(self, path: str | Path) -> Disk:
        """Open a directory for this command alone, creating it. Raises ConfigError."""
        return self._open(Path(path), read_only=False)

    def open_existing(self, path: Path) -> Disk:
        """Open a directory that is there. Raises ConfigError."""
        if not path.is_dir():
            raise ConfigError(f"there is no directory {path}")
        return self._open(path, read_only=False)

    def look_into(self, path: Path) -> Disk:
        """Open a directory to read; what is not there is as good as empty. Raises ConfigError."""
        return self._open(path, read_only=True) if path.is_dir() else OverlayDisk(None)

    def _open(self, path: Path, *, read_only: bool) -> Disk:
        key = str(path)
        if key not in self._disks:
            try:
                self._disks[key] = RealDisk(key, read_only=read_only)
            except BlockingIOError as error:
                raise ConfigError(
                    f"{path} is in use by another process: stop that node first"
                ) from error
            except OSError as error:
                raise ConfigError(f"cannot use {path}: {error.strerror or error}") from error
        return self._disks[key]


class ProgressLine:
    """Says how far something is: in place on a terminal, else a line every few seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._in_place = is_terminal(out)
        self._next_s = time.monotonic() + 1.0

    def say(self, text: str) -> None:
        """Show it, unless something was shown a moment ago."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + (0.1 if self._in_place else 5.0)
        self._out.write(f"\r\x1b[K{text}" if self._in_place else f"{text}\n")
        self._out.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._in_place:
            self._out.write("\r\x1b[K")
            self._out.flush()
