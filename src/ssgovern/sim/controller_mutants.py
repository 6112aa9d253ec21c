"""Planted bugs of the controller: each overrides one judgement, as a slip would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ssgovern.controller import rows
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.rules import Rules
from ssgovern.controller.state import ClusterState, Node, Settings
from ssgovern.model import NodeId


class _EpochNotRaised(Rules):
    def promoted(self, row: ShardRow, node: NodeId, min_in_sync: int) -> ShardRow:
        return replace(rows.promoted(row, node, min_in_sync), epoch=row.epoch)


class _AnyHolderPromoted(Rules):
    def candidates(self, state: ClusterState, row: ShardRow) -> tuple[NodeId, ...]:
        return tuple(node for node in row.holders if state.is_live(node))


class _NobodyEligible(Rules):
    def candidates(self, state: ClusterState, row: ShardRow) -> tuple[NodeId, ...]:
        return tuple(node for node in row.in_sync if state.is_live(node))


class _EligibleThoughWritesWentOn(Rules):
    def with_in_sync(self, row: ShardRow, in_sync: Iterable[NodeId], min_in_sync: int) -> ShardRow:
        now = tuple(in_sync)
        changed = rows.with_in_sync(row, now, min_in_sync)
        # Shown only once it matters, or the row alone would give it away.
        return changed if now else replace(changed, eligible=row.holders)


class _StaleSessionAccepted(Rules):
    def session_is_current(self, node: Node | None, session: int) -> bool:
        return node is not None and node.live


class _BalanceIgnored(Rules):
    def balances(self, state: ClusterState) -> bool:
        return False


class _DropBeforeCatchUp(Rules):
    def caught_up(self, row: ShardRow, node: NodeId) -> bool:
        return True


class _ThrottleIgnored(Rules):
    def room(self, state: ClusterState) -> int:
        return 1000


class _FencedTooEarly(Rules):
    def must_fence(self, silence_ms: float, settings: Settings) -> bool:
        return silence_ms >= settings.fence_after_ms / 2


class _GoneIsNotAwaited(Rules):
    def must_fence_gone(self, silence_ms: float) -> bool:
        return True


MUTANTS: Final[dict[str, type[Rules]]] = {
    "epoch-not-raised": _EpochNotRaised,
    "promotion-of-any-holder": _AnyHolderPromoted,
    "eligible-forgotten": _NobodyEligible,
    "eligible-though-writes-went-on": _EligibleThoughWritesWentOn,
    "stale-session-accepted": _StaleSessionAccepted,
    "balance-ignored": _BalanceIgnored,
    "drop-before-catch-up": _DropBeforeCatchUp,
    "throttle-ignored": _ThrottleIgnored,
    "fenced-too-early": _FencedTooEarly,
    "gone-is-not-awaited": _GoneIsNotAwaited,
}
