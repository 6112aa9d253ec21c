"""The judgements that everything else rests on, each small enough to be wrong in one place.

Pure. A planted bug overrides one of these, and the random walk has to find it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ssgovern import limits
from ssgovern.controller import rows
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.soft import SoftState
from ssgovern.controller.state import ClusterState, Node, Record, RowsChanged, Settings
from ssgovern.model import NodeId, ShardId


class Decision(NamedTuple):
    """What to append, all or none, and one sentence that says what and why."""

    records: tuple[Record, ...] = ()
    sentence: str = ""


class Rules:
    """How the controller judges. Stateless."""

    def must_fence(self, silence_ms: float, settings: Settings) -> bool:
        """Whether a node has been silent for too long."""
        return silence_ms >= settings.fence_after_ms

    def must_fence_gone(self, silence_ms: float) -> bool:
        """Whether a node whose process is known to be gone has been silent for long enough.

        Its lease has run out by then, should the process be there after all.
        """
        return silence_ms >= limits.NODE_GONE_AFTER_MS

    def session_is_current(self, node: Node | None, session: int) -> bool:
        """Whether a node's request comes from the life that the cluster knows."""
        return node is not None and node.live and node.session == session

    def candidates(self, state: ClusterState, row: ShardRow) -> tuple[NodeId, ...]:
        """Return who may become primary: the in-sync set, else who is eligible, else nobody."""
        in_sync = tuple(node for node in row.in_sync if state.is_live(node))
        return in_sync or tuple(node for node in row.eligible if state.is_live(node))

    def promoted(self, row: ShardRow, node: NodeId, min_in_sync: int) -> ShardRow:
        """Return the row with a new primary."""
        return rows.promoted(row, node, min_in_sync)

    def with_in_sync(self, row: ShardRow, in_sync: Iterable[NodeId], min_in_sync: int) -> ShardRow:
        """Return the row with another in-sync set, and who is eligible because of it."""
        return rows.with_in_sync(row, in_sync, min_in_sync)

    def caught_up(self, row: ShardRow, node: NodeId) -> bool:
        """Whether a node has all that is committed, so that another may go."""
        return node in row.in_sync

    def room(self, state: ClusterState) -> int:
        """Return how many moves and hand-overs may begin now."""
        return state.settings.moves_max - sum(row.in_flight for row in state.rows)

    def balances(self, state: ClusterState) -> bool:
        """Whether to move for balance's sake: not while a node is away and may be back soon."""
        return all(node.live or node.lost or node.leaving for node in state.nodes.values())


class Draft:
    """A state in which a decision is tried out while it is made, record by record."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state.copy()
        self.records: list[Record] = []
        self.clauses: list[str] = []

    def add(self, record: Record, clause: str | None = None) -> None:
        """Decide one more record. The sentence says its reason, or a clause for several."""
        self.state.replay(record)
        self.records.append(record)
        said = record.reason if clause is None else clause
        if said:
            self.clauses.append(said)

    def change_rows(self, reason: str, changed: Iterable[tuple[ShardId, ShardRow]]) -> None:
        """Decide new rows, if there are any."""
        rows_changed = tuple(changed)
        if rows_changed:
            self.add(Record(reason, RowsChanged(), rows_changed))

    def decision(self) -> Decision:
        """Return what was decided, as one sentence."""
        if not self.clauses:
            return Decision()
        sentence = "; ".join(self.clauses)
        return Decision(tuple(self.records), sentence[0].upper() + sentence[1:] + ".")


def named(things: Iterable[int], what: str) -> str:
    """Return "node 3", "nodes 3, 4 and 7" or "87 nodes"."""
    numbers = [str(thing) for thing in things]
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    if len(numbers) > 8:
        return f"{len(numbers)} {what}s"
    return f"{what}s {', '.join(numbers[:-1])} and {numbers[-1]}"


def counted(number: int, what: str) -> str:
    """Return "1 node" or "3 nodes"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def add_promotions(draft: Draft, soft: SoftState, rules: Rules) -> None:
    """Give a primary to each shard that has none, if anybody may be it.

    In an in-sync set all hold what is committed, so any member would be correct; the highest log
    position loses the least of what was not yet acknowledged.
    """
    state = draft.state
    changed: list[tuple[ShardId, ShardRow]] = []
    for number, row in enumerate(state.rows):
        if row.primary != NOBODY or row.epoch == 0:
            continue
        shard = ShardId(number)
        candidates = rules.candidates(state, row)
        if candidates:
            best = max(candidates, key=lambda node: (soft.position(node, shard), node))
            changed.append((shard, rules.promoted(row, best, state.settings.min_in_sync)))
    if changed:
        reason = (
            f"promoted {named(sorted({row.primary for _, row in changed}), 'node')} "
            f"to primary of {named((shard for shard, _ in changed), 'shard')}"
        )
        draft.change_rows(reason, changed)


def unavailable(state: ClusterState) -> list[ShardId]:
    """Return the shards that had data and have no primary: nobody reads or writes them."""
    return [
        ShardId(shard)
        for shard, row in enumerate(state.rows)
        if row.primary == NOBODY and row.epoch > 0
    ]


def say_unavailable(state: ClusterState) -> str:
    """Return which shards have no primary and whose return would help; empty if all have."""
    without = unavailable(state)
    if not without:
        return ""
    # Usually the same few nodes for many shards: each is said once.
    waited_for = sorted({node for shard in without for node in state.rows[shard].eligible})
    hope = (
        f"waiting for {named(waited_for, 'node')}"
        if waited_for
        else "and no copy of what was acknowledged is known"
    )
    return f"{named(without, 'shard')} UNAVAILABLE, {hope}"
