"""What a primary knows of one replica, and what it may send to it next.

Knows nothing of commit positions or in-sync sets. Invariants: `matched < next_revision`;
`matched` never falls within one life of the replica; no more than the allowed number of
appends are on their way.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from ssgovern.model import LogPosition, NodeId


class Mode(Enum):
    PROBE = "probe"
    """Looking for where the logs agree: one append at a time."""
    STREAM = "stream"
    """They agree: several appends on their way, each taken for granted."""
    SNAPSHOT = "snapshot"
    """What the replica needs is gone from the log: a snapshot is on its way."""


class Progress:
    """One replica, as its primary sees it."""

    __slots__ = (
        "answered",
        "confirmed",
        "goal",
        "goal_ms",
        "in_flight",
        "matched",
        "mode",
        "next_revision",
        "node",
        "node_epoch",
        "probed",
        "quiet_ticks",
        "replaces",
        "since",
        "told",
    )

    def __init__(self, node: NodeId, node_epoch: int, tail: int, now_ms: int, since: int) -> None:
        self.node = node
        self.since = since
        """Version of the row that made it a replica in this epoch: what it says without knowing
        of that is about a copy that was taken from it."""
        self.goal = tail
        """Where the log ended at `goal_ms`: a replica lags by the time since it was behind."""
        self.goal_ms = now_ms
        self.in_flight: deque[int] = deque()
        """The last revision of each append on its way."""
        self.begin_life(node_epoch, tail)

    def __repr__(self) -> str:
        return (
            f"<Progress node={self.node}/{self.node_epoch} {self.mode.value} "
            f"matched={self.matched if self.confirmed else '?'} next={self.next_revision} "
            f"in_flight={len(self.in_flight)}>"
        )

    def begin_life(self, node_epoch: int, tail: int) -> None:
        """The node restarted: nothing that its earlier life acknowledged counts."""
        self.node_epoch = node_epoch
        self.matched = 0
        self.confirmed = False
        """`matched` was acknowledged by this life in this epoch."""
        self.replaces: LogPosition | None = None
        self.probe(tail + 1)

    def probe(self, next_revision: int) -> None:
        """Begin to look for where the logs agree, with the append of `next_revision`."""
        self.mode = Mode.PROBE
        self.next_revision = next_revision
        self.probed = -1
        self.told = -1
        """The commit position that the replica was last told."""
        self.quiet_ticks = 0
        self.answered = False
        self.in_flight.clear()

    def expect_snapshot(self, replaces: LogPosition | None) -> None:
        self.probe(self.next_revision)
        self.mode = Mode.SNAPSHOT
        self.replaces = replaces

    def on_sent(self, prev_revision: int, count: int, committed: int) -> None:
        self.told = committed
        self.in_flight.append(prev_revision + count)
        if self.mode is Mode.STREAM:
            self.next_revision = prev_revision + count + 1
        else:
            self.probed = prev_revision

    def on_held(self, held: int) -> None:
        """The replica has all up to `held`, equal to ours."""
        self.answered = True
        self.confirmed = True
        self.matched = max(self.matched, held)
        if self.mode is not Mode.STREAM:
            told = self.told
            self.probe(self.matched + 1)
            self.mode = Mode.STREAM
            self.told = told
            return
        self.next_revision = max(self.next_revision, self.matched + 1)
        while self.in_flight and self.in_flight[0] <= held:
            self.in_flight.popleft()

    def is_stale(self, prev_revision: int) -> bool:
        """Tell whether a mismatch at `prev_revision` is about something no longer asked."""
        if self.mode is Mode.STREAM:
            return prev_revision <= self.matched
        return self.mode is Mode.SNAPSHOT or prev_revision != self.probed

    def on_tick(self, snapshot_ticks_max: int) -> None:
        """Take what was not answered since the last tick for lost."""
        if self.answered or not (self.in_flight or self.mode is Mode.SNAPSHOT):
            self.answered = False
            self.quiet_ticks = 0
            return
        self.quiet_ticks += 1
        if self.mode is not Mode.SNAPSHOT:
            self.probe(self.matched + 1 if self.confirmed else self.next_revision)
        elif self.quiet_ticks > snapshot_ticks_max:
            self.probe(self.next_revision)

    def lag_ms(self, tail: int, now_ms: int) -> int:
        """Return for how long the replica has not reached what was the tail (KIP-16)."""
        if self.confirmed and self.matched >= self.goal:
            lag_ms = 0
            self.goal = tail
            self.goal_ms = now_ms
        else:
            lag_ms = now_ms - self.goal_ms
        return lag_ms
