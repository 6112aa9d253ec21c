"""What a controller knows and nobody wrote down: heartbeats, log positions, timers.

Soft state: it is in no log and is lost at a change of controller. Each piece therefore errs to
the safe side when it is missing: a node not heard yet has its full time, a position not told
yet is the lowest, a timer starts again.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssgovern.controller.attempts import Attempts
from ssgovern.controller.state import ClusterState
from ssgovern.model import ORIGIN, LogPosition, NodeId, ShardId


class SoftState:
    """Owned by one controller, from its election to its end. Times are the loop's, in ms."""

    __slots__ = ("_away_since", "_gone", "_heard", "_positions", "_sessions", "attempts")

    def __init__(self, state: ClusterState, now_ms: float) -> None:
        self.attempts = Attempts()
        self._heard: dict[NodeId, float] = {}
        self._away_since: dict[NodeId, float] = {}
        self._positions: dict[NodeId, dict[ShardId, LogPosition]] = {}
        self._sessions: dict[NodeId, int] = {}
        self._gone: dict[NodeId, None] = {}
        for node in state.nodes.values():
            self._heard[node.id] = now_ms
            self._away_since[node.id] = now_ms
            self._sessions[node.id] = node.session

    def hear(
        self, node: NodeId, now_ms: float, positions: Mapping[ShardId, LogPosition] | None = None
    ) -> None:
        """Note a heartbeat, and the end of those logs that changed since the last one."""
        self._heard[node] = now_ms
        self._gone.pop(node, None)
        if positions:
            self._positions.setdefault(node, {}).update(positions)

    def suspend(self, ms: float) -> None:
        """Count a time in which this controller could hear nobody as no silence of anybody."""
        for times in (self._heard, self._away_since):
            for node in times:
                times[node] += ms

    def note_session(self, node: NodeId, session: int, now_ms: float) -> None:
        """Note what a node was granted: with a new session it tells its positions anew."""
        if self._sessions.get(node) != session:
            self._sessions[node] = session
            self._positions.pop(node, None)
            self.attempts.copy_done(node)
            self.hear(node, now_ms)

    def note_gone(self, node: NodeId, *, gone: bool) -> None:
        """Note whether a node's process is known to be gone. Hearing it proves the contrary."""
        if gone:
            self._gone[node] = None
        else:
            self._gone.pop(node, None)

    def is_gone(self, node: NodeId) -> bool:
        """Whether a node's process is known to be gone."""
        return node in self._gone

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

    def prune(self, state: ClusterState) -> None:
        """Forget what belongs to nodes, copies and hand-overs that are no more."""
        for table in (self._heard, self._away_since, self._positions, self._sessions, self._gone):
            for node in [node for node in table if node not in state.nodes]:
                del table[node]
        self.attempts.prune(state)
