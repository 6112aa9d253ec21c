"""How long copies and hand-overs have been under way, and who is to wait after one that failed.

Soft state, like `soft`: a new controller starts all times again and knows of no failure. Each
piece errs to the safe side: what is tried too often costs work, and nothing else.

A node that did not finish a copy (its disk is full, its link is slow) gets no other for a while,
twice as long each time: the copies it was to have go to others, and what is under way at once is
not all waiting for it.
"""

from __future__ import annotations

from typing import Final

from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import ClusterState
from ssgovern.model import NodeId, ShardId

COPY_TIMEOUT_MS: Final = 60_000
COPY_PAUSE_MS: Final = 30_000
COPY_PAUSE_MS_MAX: Final = 600_000
HANDOVER_PAUSE_MS: Final = 10_000


class Attempts:
    """Owned by one controller, from its election to its end. Times are the loop's, in ms."""

    __slots__ = (
        "_copies_failed",
        "_copies_paused",
        "_copying_since",
        "_handover_since",
        "_handovers_paused",
    )

    def __init__(self) -> None:
        self._copying_since: dict[ShardId, tuple[NodeId, float]] = {}
        self._handover_since: dict[ShardId, tuple[int, float]] = {}
        self._handovers_paused: dict[ShardId, float] = {}
        self._copies_failed: dict[NodeId, int] = {}
        """In a row."""
        self._copies_paused: dict[NodeId, float] = {}

    # --- copies ----------------------------------------------------------------------------

    def copying_ms(self, shard: ShardId, incoming: NodeId, now_ms: float) -> float:
        """Return for how long a copy has been under way; the first to ask starts it."""
        known = self._copying_since.get(shard)
        if known is None or known[0] != incoming:
            known = self._copying_since[shard] = incoming, now_ms
        return now_ms - known[1]

    def copy_done(self, node: NodeId) -> None:
        """Note that a node finished a copy, or begins a new life."""
        self._copies_failed.pop(node, None)
        self._copies_paused.pop(node, None)

    def copy_failed(self, node: NodeId, now_ms: float) -> None:
        """Note that a node did not finish a copy."""
        failed = self._copies_failed.get(node, 0)
        self._copies_failed[node] = failed + 1
        self._copies_paused[node] = now_ms + min(COPY_PAUSE_MS << failed, COPY_PAUSE_MS_MAX)

    def may_copy_to(self, node: NodeId) -> bool:
        """Whether a node is not waiting because of a copy that it did not finish."""
        return node not in self._copies_paused

    # --- hand-overs ------------------------------------------------------------------------

    def handover_ms(self, shard: ShardId, version: int, now_ms: float) -> float:
        """Return for how long a hand-over has been under way; the first to ask starts it."""
        known = self._handover_since.get(shard)
        if known is None or known[0] != version:
            known = self._handover_since[shard] = version, now_ms
        return now_ms - known[1]

    def handover_failed(self, shard: ShardId, now_ms: float) -> None:
        """Note that a hand-over was taken back."""
        self._handovers_paused[shard] = now_ms + HANDOVER_PAUSE_MS

    def may_hand_over(self, shard: ShardId) -> bool:
        """Whether a shard is not waiting because of a hand-over that was taken back."""
        return shard not in self._handovers_paused

    # --- time ------------------------------------------------------------------------------

    def end_pauses(self, now_ms: float) -> bool:
        """End the pauses that are over; whether there were any, so that something may begin."""
        nodes = [node for node, until in self._copies_paused.items() if until <= now_ms]
        shards = [shard for shard, until in self._handovers_paused.items() if until <= now_ms]
        for node in nodes:
            del self._copies_paused[node]
        for shard in shards:
            del self._handovers_paused[shard]
        return bool(nodes or shards)

    def prune(self, state: ClusterState) -> None:
        """Forget what belongs to nodes, copies and hand-overs that are no more."""
        for node in [node for node in self._copies_failed if node not in state.nodes]:
            self.copy_done(node)
        for shard in [s for s in self._copying_since if state.rows[s].incoming == NOBODY]:
            del self._copying_since[shard]
        for shard in [s for s in self._handover_since if state.rows[s].successor == NOBODY]:
            del self._handover_since[shard]
