"""The two halves of a TCP byte stream: what was sent and not acknowledged, what was received.

Pure bookkeeping over sequence numbers: no time, no network. The first segment takes the number 0
and carries nothing (the end of the handshake), bytes follow from 1, and the last segment takes
one number more.
"""

from __future__ import annotations

import collections
from typing import Final, NamedTuple, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview

# Looked up where they are used: some worlds have smaller ones.
SEND_BUFFER_BYTES: Final = 256 * 1024
RECEIVE_BUFFER_BYTES: Final = 256 * 1024
SEGMENT_BYTES_MAX: Final = 64 * 1024


class Segment(NamedTuple):
    """A piece of the stream, `[start, end)` of the numbers. It is never cut anew."""

    start: int
    end: int
    payload: bytes
    is_last: bool = False


class SendStream:
    """Bytes on their way out. `start` is 0 for the end that opens the connection, else 1."""

    __slots__ = ("_last_queued", "_last_sent", "_limit", "_next", "_unsent", "unacked")

    def __init__(self, start: int) -> None:
        self._next = start
        # Numbers below it fit the peer's buffer.
        self._limit = 1 + RECEIVE_BUFFER_BYTES
        self._unsent = bytearray()
        self._last_queued = False
        self._last_sent = False
        self.unacked: collections.deque[Segment] = collections.deque()

    @property
    def room(self) -> int:
        """How many bytes `write` takes."""
        in_flight = self._next - self.unacked[0].start if self.unacked else 0
        return SEND_BUFFER_BYTES - in_flight - len(self._unsent)

    @property
    def is_finishing(self) -> bool:
        return self._last_queued

    @property
    def is_finished(self) -> bool:
        """Whether the peer has everything and knows that there is no more."""
        return self._last_sent and not self.unacked

    @property
    def is_outstanding(self) -> bool:
        """Whether something is left to do by a timer: to retransmit, or to ask for a window."""
        return bool(self.unacked) or bool(self._unsent)

    def write(self, payload: Bytes) -> None:
        assert not self._last_queued, "nothing is written after the last segment"
        self._unsent += payload

    def finish(self) -> None:
        """No more will be written."""
        self._last_queued = True

    def next_segment(self) -> Segment | None:
        """Cut the next segment that may be sent now; it counts as sent."""
        start = self._next
        if start == 0:
            segment = Segment(0, 1, b"")
        elif self._unsent:
            size = min(len(self._unsent), self._limit - start, SEGMENT_BYTES_MAX)
            if size <= 0:
                return None
            segment = Segment(start, start + size, bytes(self._unsent[:size]))
            del self._unsent[:size]
        elif self._last_queued and not self._last_sent:
            self._last_sent = True
            segment = Segment(start, start + 1, b"", is_last=True)
        else:
            return None
        self._next = segment.end
        self.unacked.append(segment)
        return segment

    def on_ack(self, upto: int, limit: int) -> bool:
        """The peer has all below `upto` and room up to `limit`. Return whether that is news."""
        self._limit = max(self._limit, limit)
        advanced = False
        while self.unacked and self.unacked[0].end <= upto:
            self.unacked.popleft()
            advanced = True
        return advanced

    def discard(self) -> None:
        """Forget what was not acknowledged: nobody will ask for it."""
        self._unsent.clear()
        self.unacked.clear()


class ReceiveStream:
    """Bytes that came in and were not read. `start` is the first number expected."""

    __slots__ = ("_beyond", "_buffer", "is_last_received", "next")

    def __init__(self, start: int) -> None:
        self.next = start
        self.is_last_received = False
        self._buffer = bytearray()
        # Segments that arrived before one that was lost.
        self._beyond: dict[int, Segment] = {}

    @property
    def unread(self) -> int:
        return len(self._buffer)

    @property
    def limit(self) -> int:
        """Numbers below it fit the buffer."""
        return max(self.next, 1) + RECEIVE_BUFFER_BYTES - len(self._buffer)

    def accept(self, segment: Segment) -> bool:
        """Take a segment. Return whether there is more to read than before."""
        if segment.start != self.next:
            if segment.start > self.next:
                self._beyond[segment.start] = segment
            return False
        following: Segment | None = segment
        while following is not None:
            self.next = following.end
            self._buffer += following.payload
            self.is_last_received = following.is_last
            following = self._beyond.pop(self.next, None)
        return True

    def read(self, count: int) -> bytes:
        """Remove and return up to `count` bytes."""
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken
