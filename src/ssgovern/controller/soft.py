"""What a controller knows and nobody wrote down: heartbeats, log positions, timers.

Soft state: it is in no log and is lost at a change of controller. Each piece therefore errs to
the safe side when it is missing: a node not heard yet has its full time, a position not told
yet is the lowest, a timer starts again.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import ClusterState
from ssgovern.model import ORIGIN, LogPosition, NodeId, ShardId


class SoftState:
    """Owned by one controller, from its election to its end. Times are the loop's, in ms."""

    __slots__ = ("_away_since", "_handover_since", "_heard", "_positions")

    def __init__(self, state: ClusterState, now_ms: float) -> None:
        self._heard: dict[NodeId, float] = {}
        self._away_since: dict[NodeId, float] = {}
        self._handover_since: dict[ShardId, tuple[int, float]] = {}
        self._positions: dict[NodeId, dict[ShardId, LogPosition]] = {}
        for node in state.nodes:
            self._heard[node] = now_ms
            self._away_since[node] = now_ms

    def hear(
        self, node: NodeId, now_ms: float, positions: Mapping[ShardId, LogPosition] | None = None
    ) -> None:
        """Note a heartbeat, and the end of those logs that changed since the last one."""
        self._heard[node] = now_ms
        if positions:
            self._positions.setdefault(node, {}).update(positions)

    def suspend(self, ms: float) -> None:
        """Count a time in which this controller could hear nobody as no silence of anybody."""
        for node in self._heard:
            self._heard[node] += ms

    def forget_positions(self, node: NodeId) -> None:
        """A new session tells its positions anew."""
        self._positions.pop(node, None)

    def note_fenced(self, node: NodeId, now_ms: float) -> None:
        """Start the time after which a node is given up."""
        self._away_since[node] = now_ms

    def silence_ms(self, node: NodeId, now_ms: float) -> float:
        """Return how long a node has not been heard."""
        return now_ms - self._heard.setdefault(node, now_ms)

    def away_ms(self, node: NodeId, now_ms: float) -> float:
        """Return for how long a node's last session has been fenced."""
        return now_ms - self._away_since.setdefault(node, now_ms)

    def position(self, node: NodeId, shard: ShardId) -> LogPosition:
        """Return the last position told of a log."""
        return self._positions.get(node, {}).get(shard, ORIGIN)

    def handover_ms(self, shard: ShardId, version: int, now_ms: float) -> float:
        """Return for how long a hand-over has been under way; the first to ask starts it."""
        known = self._handover_since.get(shard)
        if known is None or known[0] != version:
            known = self._handover_since[shard] = version, now_ms
        return now_ms - known[1]

    def prune(self, state: ClusterState) -> None:
        """Forget what belongs to nodes and hand-overs that are no more."""
        for table in (self._heard, self._away_since, self._positions):
            for node in [node for node in table if node not in state.nodes]:
                del table[node]
        for shard in [
            shard for shard in self._handover_since if state.rows[shard].successor == NOBODY
        ]:
            del self._handover_since[shard]
