"""The trace of a simulated world: a digest of all that happened, and the story on request.

Two runs took the same course if and only if their digests are equal; that is how we know that a
seed reproduces a failure. The trace records, it decides nothing and is never read by the world.

Invariant: what is recorded is made of virtual time and numbers given out in order, never of
addresses, hashes or names that a run of another interpreter would not repeat.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass
from typing import Final


class Kind(enum.IntEnum):
    """What happened. The numbers enter digests, which live no longer than a comparison."""

    BATCH = 0
    START = 1
    KILL = 2
    POWER_OFF = 3
    PAUSE = 4
    RESUME = 5
    EXIT = 6
    LINK = 7
    CONNECT = 8
    SEGMENT = 9
    RESET = 10
    TIMEOUT = 11
    DISK = 12
    CLOCK = 13
    NOTE = 14


@dataclass(frozen=True, slots=True)
class Entry:
    when: float
    kind: Kind
    values: tuple[int, ...]
    note: str

    def __str__(self) -> str:
        values = " ".join(map(str, self.values))
        return f"{self.when:12.6f} {self.kind.name:<9} {values} {self.note}".rstrip()


_FLUSH_BYTES: Final = 1 << 16
_PACKERS: Final = tuple(struct.Struct(f"<dB{count}q").pack for count in range(8))


class Trace:
    """Digest of everything that happened; with `keep`, also the entries themselves."""

    def __init__(self, *, keep: bool) -> None:
        self.entries: list[Entry] | None = [] if keep else None
        self._hash = hashlib.blake2b(digest_size=16)
        self._buffer = bytearray()

    def add(self, when: float, kind: Kind, *values: int, note: str = "") -> None:
        """Record an event. At most seven values; the note is part of the digest."""
        buffer = self._buffer
        buffer += _PACKERS[len(values)](when, kind, *values)
        if note:
            buffer += note.encode()
        if self.entries is not None:
            self.entries.append(Entry(when, kind, values, note))
        if len(buffer) > _FLUSH_BYTES:
            self._hash.update(buffer)
            buffer.clear()

    def digest(self) -> str:
        """Return the digest so far, in hexadecimal."""
        self._hash.update(self._buffer)
        self._buffer.clear()
        return self._hash.hexdigest()
