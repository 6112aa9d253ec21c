"""The controller: decides about nodes and shards, and writes down what it decided.

Pure: time is an argument, heartbeats and requests come in, records go out. `decide_*` change
nothing; the records are appended to the metadata log, and when they are committed every
candidate replays them, this one too. It decides one thing at a time: what it decides next has to
see what it decided before. Standbys hold the `ClusterState` alone; who is elected makes a
`Controller` from it, once it has replayed all that was committed before its term.

It refuses to know how the log agrees, and what is in a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssgovern.controller.moves import add_first_placement, add_moves, add_progress
from ssgovern.controller.nodes import (
    Registration,
    add_given_up,
    add_gone_left,
    add_removed,
    add_silent_fenced,
    decide_leave,
    decide_registration,
    decide_stay,
    node_of,
)
from ssgovern.controller.replicas import (
    InSyncRequest,
    Resigned,
    decide_in_sync,
    decide_resigned,
    decide_transfer,
)
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.rules import (
    Decision,
    Draft,
    Rules,
    add_promotions,
    say_unavailable,
    unavailable,
)
from ssgovern.controller.settings import check_settings, decide_settings
from ssgovern.controller.soft import SoftState
from ssgovern.controller.state import (
    AccessChanged,
    ClusterState,
    Founded,
    NodeRegistered,
    NodesFenced,
    Record,
    Settings,
)
from ssgovern.errors import FencedError
from ssgovern.model import LogPosition, NodeId, ShardId, ShardMap


def decide_founding(
    state: ClusterState,
    cluster_id: bytes,
    settings: Settings,
    inherited: tuple[Registration, ShardMap] | None = None,
) -> Decision:
    """Found a cluster: the first records of its log.

    `inherited` is a single node with its map, which becomes the first of several: it keeps its
    data and its epochs, and is primary again as soon as it registers.
    """
    assert not state.cluster_id, "a cluster is founded once"
    check_settings(settings)
    said = f"founded cluster {cluster_id.hex()}"
    draft = Draft(state)
    draft.add(Record(said, Founded(cluster_id, settings)))
    if inherited is not None:
        first, old_map = inherited
        assert len(old_map.shards) == len(state.rows), "the number of shards never changes"
        taken = tuple(
            (ShardId(shard), ShardRow(old.epoch, 1, holders=(first.node,), eligible=(first.node,)))
            for shard, old in enumerate(old_map.shards)
        )
        node = replace(node_of(first, session=0), live=False)
        if first.access:
            access = AccessChanged(first.access.whole())
            draft.add(Record(f"took over who may do what on node {first.node}", access))
        draft.add(Record(f"took over what node {node.id} holds", NodeRegistered(node), taken))
    return draft.decision()


class Controller:
    """The duty of the elected candidate, from its election to its end."""

    def __init__(self, state: ClusterState, now_ms: float, rules: Rules | None = None) -> None:
        assert state.cluster_id, "a controller begins with a log that was replayed"
        self.state = state
        self.rules = Rules() if rules is None else rules
        # Nobody is fenced for the silence of an election: all have their full time from here on.
        self.soft = SoftState(state, now_ms)
        self._planned_for: tuple[int, int] | None = None
        self._said_unavailable = ""

    def __repr__(self) -> str:
        return f"<Controller {self.state!r} unavailable={len(unavailable(self.state))}>"

    def replay(self, record: Record, now_ms: float) -> None:
        """Take over a committed record, an own one or not."""
        self.state.replay(record)
        self.notice(record, now_ms)

    def notice(self, record: Record, now_ms: float) -> None:
        """Take note of a record that was replayed into `state` already."""
        change = record.change
        if isinstance(change, NodeRegistered):
            self.soft.note_session(change.node.id, change.node.session, now_ms)
        elif isinstance(change, NodesFenced):
            for node in change.nodes:
                self.soft.note_fenced(node, now_ms)
        self.soft.prune(self.state)

    # --- events ----------------------------------------------------------------------------

    def hear(
        self,
        node: NodeId,
        session: int,
        now_ms: float,
        positions: Mapping[ShardId, LogPosition] | None = None,
    ) -> None:
        """Take a heartbeat, with the ends of those logs that changed since the last one.

        Raises FencedError if the session was fenced: the node has to register again.
        """
        if not self.rules.session_is_current(self.state.nodes.get(node), session):
            raise FencedError(f"session {session} of node {node} is fenced", node=node)
        self.soft.hear(node, now_ms, positions)

    def note_gone(self, node: NodeId, *, gone: bool) -> None:
        """Take note of whether a node's process is known to be gone, not only silent."""
        self.soft.note_gone(node, gone=gone)

    def suspend(self, ms: float) -> None:
        """Take note that this node's own loop stalled: heartbeats waited, nobody was silent."""
        self.soft.suspend(ms)

    def decide_registration(self, asked: Registration, now_ms: float) -> Decision:
        """Grant a session (`nodes.decide_registration`)."""
        decision = decide_registration(self.state, self.soft, self.rules, asked, now_ms)
        if not decision.records:
            # It has its session and did not hear so: asking again is a sign of life.
            self.soft.hear(asked.node, now_ms)
        return decision

    def decide_in_sync(self, asked: InSyncRequest) -> Decision:
        """Change an in-sync set (`replicas.decide_in_sync`)."""
        return decide_in_sync(self.state, self.rules, asked)

    def decide_resigned(self, asked: Resigned) -> Decision:
        """Finish a hand-over (`replicas.decide_resigned`)."""
        return decide_resigned(self.state, self.soft, self.rules, asked)

    def decide_leave(self, node: NodeId) -> Decision:
        """Let a node leave (`nodes.decide_leave`)."""
        return decide_leave(self.state, node)

    def decide_stay(self, node: NodeId) -> Decision:
        """Take back that a node shall leave (`nodes.decide_stay`)."""
        return decide_stay(self.state, node)

    def decide_transfer(self, shard: ShardId, to: NodeId) -> Decision:
        """Hand a shard over (`replicas.decide_transfer`)."""
        return decide_transfer(self.state, shard, to)

    def decide_settings(self, settings: Settings) -> Decision:
        """Change the settings (`settings.decide_settings`)."""
        return decide_settings(self.state, settings)

    # --- the pass --------------------------------------------------------------------------

    def decide_pass(self, now_ms: float) -> Decision:
        """Look at everything and decide what is due now; ask again after it is replayed.

        The sentence is empty if there is nothing to say. Cheap when nothing changed.
        """
        draft = Draft(self.state)
        # Before fencing: who is fenced in this very pass has only begun to be away.
        add_given_up(draft, self.soft, now_ms)
        add_silent_fenced(draft, self.soft, self.rules, now_ms)
        add_gone_left(draft, self.soft, self.rules)
        add_promotions(draft, self.soft, self.rules)
        # Moves under way have their times, and so has what is to wait after one that failed.
        timed = any(row.in_flight for row in self.state.rows)
        timed = self.soft.attempts.end_pauses(now_ms) or timed
        key = self.state.map_version, self.state.nodes_version
        if draft.records or timed or key != self._planned_for:
            add_first_placement(draft)
            add_progress(draft, self.soft, self.rules, now_ms)
            add_moves(draft, self.soft, self.rules)
            add_removed(draft)
        if not draft.records:
            self._planned_for = key
        return self._with_alarm(draft.decision(), draft.state)

    def _with_alarm(self, decision: Decision, after: ClusterState) -> Decision:
        """Say loudly which shards nobody serves: when it begins, changes and ends."""
        alarm = say_unavailable(after)
        if alarm == self._said_unavailable:
            return decision
        self._said_unavailable = alarm
        alarm = f"{alarm[0].upper()}{alarm[1:]}." if alarm else "All shards have a primary again."
        return decision._replace(sentence=f"{decision.sentence} {alarm}".strip())
