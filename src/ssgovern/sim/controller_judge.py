"""What must hold of a controller's records, and of the state once nothing is left to do.

Sees records and states alone; what is acknowledged and who has it is the walk's to know.
"""

from __future__ import annotations

from collections import Counter

from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.state import ClusterState, Node, NodeMarked, NodesFenced, Record
from ssgovern.model import NodeId, ShardId


class ViolationError(AssertionError):
    """An invariant does not hold."""


def must(holds: bool, what: str) -> None:
    """Raise ViolationError unless it holds."""
    if not holds:
        raise ViolationError(what)


class Judge:
    """Remembers what was granted, over all controllers of one cluster."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.moves = 0
        self.maps: dict[int, tuple[ShardRow, ...]] = {}
        self._primaries: dict[tuple[int, int], NodeId] = {}
        self._fenced_at: dict[NodeId, float] = {}

    def before(self, state: ClusterState, record: Record, now_ms: float) -> None:
        """Nobody is given up who was here a moment ago."""
        change = record.change
        if isinstance(change, NodesFenced):
            self._fenced_at |= dict.fromkeys(change.nodes, now_ms)
        elif isinstance(change, NodeMarked) and change.lost:
            away_ms = now_ms - self._fenced_at[change.node]
            must(
                state.nodes[change.node].lost or away_ms >= state.settings.lost_after_ms,
                f"node {change.node} was given up after {away_ms} ms",
            )

    def after(
        self, state: ClusterState, record: Record, before: tuple[ShardRow, ...], version: int
    ) -> None:
        """Check what must hold after every record."""
        state.validate()
        changed = state.rows != list(before)
        must(
            state.map_version == version + bool(record.rows) and (not changed or bool(record.rows)),
            f"map version {version} -> {state.map_version}, changed: {changed}",
        )
        self.maps[state.map_version] = tuple(state.rows)
        for shard, row in record.rows:
            self._check_row(shard, before[shard], row)
        flying = sum(row.in_flight for row in state.rows)
        was = sum(row.in_flight for row in before)
        must(
            flying <= max(was, state.settings.moves_max),
            f"{flying} moves under way, {state.settings.moves_max} allowed",
        )

    def _check_row(self, shard: ShardId, old: ShardRow, new: ShardRow) -> None:
        must(new.version > old.version, f"shard {shard}: version did not rise: {new}")
        must(new.epoch >= old.epoch, f"shard {shard}: epoch fell: {new}")
        if new.primary != NOBODY:
            known = self._primaries.setdefault((shard, new.epoch), new.primary)
            must(
                known == new.primary,
                f"shard {shard} epoch {new.epoch}: nodes {known} and {new.primary} are primary",
            )
            must(
                new.primary == old.primary or new.epoch > old.epoch,
                f"shard {shard}: node {new.primary} is primary at an old epoch: {new}",
            )
        gone = [node for node in old.holders if node not in new.holders]
        if any(node in old.in_sync for node in gone):
            must(
                all(node in new.in_sync for node in new.holders),
                f"shard {shard}: a copy was dropped before all others were in sync: {old} {new}",
            )
        if new.incoming not in (NOBODY, old.incoming):
            self.moves += 1
            self.counts["move begun"] += 1
        if old.incoming != NOBODY and new.incoming == NOBODY:
            self.counts["move ended"] += 1
        if new.successor != NOBODY and old.successor == NOBODY:
            self.counts["hand-over begun"] += 1
        if new.primary == NOBODY:
            self.counts["shard unavailable"] += 1
        if new.eligible:
            self.counts["somebody eligible"] += 1

    def at_rest(self, state: ClusterState, moves: int) -> None:
        """Check what must hold once nothing is left to do."""
        takers = [node for node in state.sorted_nodes() if node.takes_shards]
        away = [node.id for node in state.sorted_nodes() if node.stays and not node.live]
        must(not away, f"nodes {away} are neither here nor given up")
        if len(takers) < state.settings.nodes_initial and not state.map_version:
            return
        for shard, row in enumerate(state.rows):
            possible = [node for node in (*row.in_sync, *row.eligible) if state.is_live(node)]
            must(
                row.primary != NOBODY or not possible,
                f"shard {shard} has no primary, though nodes {possible} could be: {row}",
            )
            must(
                not row.in_flight or row.primary == NOBODY, f"shard {shard} is moved at rest: {row}"
            )
        must(
            moves <= len(state.rows) * state.settings.copies * 3,
            f"{moves} moves to come to rest",
        )
        self._check_even(state, takers)

    def _check_even(self, state: ClusterState, takers: list[Node]) -> None:
        ids = {node.id: node.zone for node in takers}
        served = [row for row in state.rows if row.primary != NOBODY]
        if len(served) < len(state.rows) or not takers:
            self.counts["at rest, something unavailable"] += 1
            return
        copies = min(state.settings.copies, len(takers))
        zones = Counter(ids.values())
        if any(node not in ids for row in served for node in row.holders):
            # A node that leaves, or is lost, is kept where nobody else has all of it.
            must(
                any(row.eligible for row in served) or len(takers) < state.settings.min_in_sync,
                f"shards are still where they should not be: {served}",
            )
            self.counts["at rest, something eligible"] += 1
            return
        for row in served:
            must(len(row.holders) == copies == len(row.in_sync), f"not {copies} copies: {row}")
            spread = len({ids[node] for node in row.holders})
            must(spread == min(copies, len(zones)), f"in {spread} zones: {row}")
        held = Counter(node for row in served for node in row.holders)
        leading = Counter(row.primary for row in served)
        for zone in zones:
            loads = [held[node] for node in ids if ids[node] == zone]
            must(max(loads) - min(loads) <= 1, f"copies are uneven in {zone}: {held}")
        if len(set(zones.values())) == 1:
            loads = [held[node] for node in ids]
            must(max(loads) - min(loads) <= 1, f"copies are uneven: {held}")
            self.counts["at rest, even zones"] += 1
        loads = [leading[node] for node in ids]
        must(max(loads) - min(loads) <= 1, f"primaries are uneven: {leading}")
        self.counts["at rest, all checked"] += 1
