"""What committed entries changed of instances, the newest of it: for people who ask what happened.

Pure, and bounded by number and by bytes. Keeps references to what was before and after and says
nothing about it: most events are never read, and whoever reads one works out what it means.
Invariants: events are numbered from 1 without a gap, in the order in which this node applied
them; `first` to `last` are here, and what was before them is forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ssgovern import limits
from ssgovern.model import LogPosition

if TYPE_CHECKING:
    from ssgovern.registry.state import Entry


class Event(NamedTuple):
    """One instance changed. `before` and `after` are None where there was none, or is none."""

    time_ms: int
    position: LogPosition
    before: Entry | None
    after: Entry | None
    session_id: bytes
    """Who asked for it; of an end of a session, that session."""
    cause: int
    """What kind of entry did it; of an end of a session, why it ended (`log_pb2.SessionEnd`)."""

    @property
    def entry(self) -> Entry:
        """The instance, as it is now or as it last was."""
        found = self.after or self.before
        assert found is not None, "nothing is no event"
        return found


REGISTERED = -1
UPDATED = -2
DEREGISTERED = -3

_Noted = tuple[int, LogPosition, "Entry | None", "Entry | None", bytes, int]


class RecentEvents:
    """The newest events of one node, over all its shards."""

    __slots__ = ("_bytes", "_bytes_max", "_entries_max", "_events", "last")

    def __init__(
        self,
        entries_max: int = limits.EVENTS_MAX,
        bytes_max: int = limits.EVENTS_BYTES_MAX,
    ) -> None:
        # Plain tuples, made into events by who reads them: half the price on the hot path.
        self._events: deque[_Noted] = deque()
        self._bytes = 0
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self.last = 0
        """Number of the newest event there ever was."""

    def __repr__(self) -> str:
        return f"<RecentEvents {self.first} to {self.last}, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._events)

    @property
    def first(self) -> int:
        """Number of the oldest event that is still here, or of the next there will be."""
        return self.last - len(self._events) + 1

    @property
    def size_bytes(self) -> int:
        """Encoded instances that are referred to; most of them are the registry's anyway."""
        return self._bytes

    def note(
        self,
        time_ms: int,
        position: LogPosition,
        before: Entry | None,
        after: Entry | None,
        session_id: bytes,
        cause: int,
    ) -> None:
        """Keep one more. On the path of every registration."""
        self.last += 1
        events = self._events
        events.append((time_ms, position, before, after, session_id, cause))
        size_bytes = self._bytes
        if before is not None:
            size_bytes += len(before.encoded)
        if after is not None:
            size_bytes += len(after.encoded)
        while len(events) > self._entries_max or size_bytes > self._bytes_max:
            _, _, before, after, _, _ = events.popleft()
            if before is not None:
                size_bytes -= len(before.encoded)
            if after is not None:
                size_bytes -= len(after.encoded)
        self._bytes = size_bytes

    def after(self, number: int) -> Iterator[tuple[int, Event]]:
        """Yield events behind a number with their numbers, oldest first."""
        first = self.first
        skipped = max(0, number + 1 - first)
        events = map(Event._make, islice(self._events, skipped, None))
        return enumerate(events, first + skipped)

    def newest(self) -> Iterator[tuple[int, Event]]:
        """Yield events with their numbers, newest first."""
        events = map(Event._make, reversed(self._events))
        return zip(range(self.last, 0, -1), events, strict=False)
