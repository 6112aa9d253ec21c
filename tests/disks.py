"""Disks that are small, and disks whose power can be cut."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


class LoopDisk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.mounted = directory / "mounted"
        self.mounted.mkdir(parents=True)
        self.is_on = True

    def format(self) -> str:
        """Make and mount it; return why that is not possible, or nothing."""
        with self._image.open("wb") as image:
            image.truncate(256 << 20)
        for command in (["mkfs.ext4", "-qF", str(self._image)], self._mount):
            try:
                done = subprocess.run(command, capture_output=True, check=False)
            except FileNotFoundError:
                return f"there is no `{command[0]}` command"
            if done.returncode != 0:
                return done.stderr.decode().strip() or f"{command[0]} failed"
        return ""

    @property
    def _mount(self) -> list[str]:
        return ["mount", "-o", "loop", str(self._image), str(self.mounted)]

    def cut(self) -> None:
        """Lose what is not on the disk; everything fails from now on."""
        self.is_on = False
        directory = os.open(self.mounted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def power_on(self) -> None:
        """Mount again what survived."""
        subprocess.run(["umount", str(self.mounted)], check=True)
        subprocess.run(self._mount, check=True)
        self.is_on = True

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.mounted)], check=False, capture_output=True)


class SmallDisk:
    """A file system of a few MiB, which can be filled up and made larger."""

    def __init__(self, place: Path, size: str) -> None:
        self.place = place
        self._size = size
        self._filling = place / "filling"

    def mount(self) -> str:
        """Make it; return why that is not possible, or nothing."""
        self.place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self.place)]
        mounted = subprocess.run(command, capture_output=True, check=False)
        return "" if mounted.returncode == 0 else mounted.stderr.decode().strip()

    def fill(self) -> None:
        """Leave no byte."""
        with self._filling.open("ab", buffering=0) as filling:
            for block in (b"\0" * (64 << 10), b"\0" * 4096):
                try:
                    while filling.write(block) == len(block):
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filling.unlink()

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], check=False, capture_output=True)
