"""What a leader knows of one other node, and what it may send it next.

Three modes. PROBE: we do not know where the logs meet; one append at a time. REPLICATE: they
met; appends go out without waiting, a bounded number of them. SNAPSHOT: the node needs what was
compacted away; one piece at a time.

Invariants: `match < next`; what is in flight lies in `[match, next)`, in order.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from ssgovern.raft.messages import Snapshot


class Mode(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    __slots__ = (
        "commit_sent",
        "heard_tick",
        "in_flight",
        "match",
        "mode",
        "next",
        "nudged",
        "offset",
        "round",
        "snapshot",
        "waiting",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.mode = Mode.PROBE
        self.match = 0
        """The node's disk equals our log up to here."""
        self.next = next_index
        self.waiting = False
        """A probe or a piece of a snapshot is out: wait for an answer or the next heartbeat."""
        self.nudged = False
        """Something may have been lost: send an append, even an empty one, to find out."""
        self.in_flight: deque[int] = deque()
        """Last indexes of the appends that were not answered."""
        self.commit_sent = 0
        self.heard_tick = now
        """Our tick when we sent the last heartbeat that the node answered."""
        self.round = 0
        """The last heartbeat round that it answered."""
        self.snapshot: Snapshot | None = None
        self.offset = 0

    def __repr__(self) -> str:
        waiting = " waiting" if self.waiting else ""
        return f"<Progress {self.mode.value} match={self.match} next={self.next}{waiting}>"

    def probe(self, next_index: int) -> None:
        self.mode = Mode.PROBE
        self.next = max(self.match + 1, next_index)
        self.in_flight.clear()
        self.waiting = False
        self.snapshot = None

    def send_snapshot(self, snapshot: Snapshot) -> None:
        self.mode = Mode.SNAPSHOT
        self.snapshot = snapshot
        self.offset = 0
        self.in_flight.clear()
        self.waiting = False

    def on_sent(self, last_index: int) -> None:
        """An append with entries up to `last_index` left."""
        self.nudged = False
        if self.mode is Mode.PROBE:
            self.waiting = True
        elif last_index >= self.next:
            self.in_flight.append(last_index)
            self.next = last_index + 1

    def on_matched(self, index: int) -> bool:
        """The node has all up to `index`. Return whether that is news."""
        news = index > self.match
        self.match = max(self.match, index)
        while self.in_flight and self.in_flight[0] <= index:
            self.in_flight.popleft()
        if self.mode is Mode.PROBE and index >= self.match:
            self.mode = Mode.REPLICATE
            self.next = self.match + 1
            self.waiting = False
        elif self.mode is Mode.SNAPSHOT:
            assert self.snapshot is not None, "set with the mode"
            if self.match >= self.snapshot.index:
                self.probe(self.match + 1)
        self.next = max(self.next, self.match + 1)
        return news

    def on_mismatch(self, refused_index: int, meeting_index: int) -> bool:
        """The node does not have `refused_index`. Return False if that is an old story."""
        if self.mode is Mode.SNAPSHOT or refused_index <= self.match:
            return False
        if self.mode is Mode.PROBE and refused_index != self.next - 1:
            return False
        self.probe(min(refused_index, meeting_index + 1))
        return True

    def on_heard(self, tick: int, round_: int, *, behind: bool) -> None:
        """A heartbeat was answered: the way there and back is open again."""
        self.heard_tick = max(self.heard_tick, tick)
        self.round = max(self.round, round_)
        self.waiting = False
        self.nudged = self.nudged or behind

    def validate(self) -> None:
        assert self.match < self.next, repr(self)
        assert list(self.in_flight) == sorted(self.in_flight), f"{self!r} {self.in_flight}"
        assert all(self.match < index < self.next for index in self.in_flight), repr(self)
        assert (self.mode is Mode.SNAPSHOT) == (self.snapshot is not None), repr(self)
