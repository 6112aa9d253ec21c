"""Holding back expiry when too many sessions would go at once.

Pure. When more than a set share of a shard's sessions are due together, it is likelier that
this node (or its network) lost them than that they all died; taking them away would empty
services that work. So they are held, visibly, but for a capped time only: Eureka's
self-preservation, which has no cap, keeps the dead for ever.

Clients cut off at one moment fall due one after the other, as their last heartbeats were spread
over an interval. So "together" means within a window: who ended in it counts like who is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssgovern.model import SHARDS

if TYPE_CHECKING:
    from ssgovern.registry.sessions import Session


@dataclass(frozen=True, slots=True)
class ProtectionPolicy:
    """When protection begins and ends. `share` is 0 to 1; 1 turns it off."""

    share: float = 0.5
    sessions_min: int = 32
    hold_ms: float = 30_000
    window_ms: float = 5_000


class Protection:
    """Judges who among the due may go."""

    def __init__(self, policy: ProtectionPolicy) -> None:
        self._policy = policy
        self._ended: deque[tuple[float, int]] = deque()
        """Time and shards of each session that ended within the window."""
        self._ended_per_shard = [0] * SHARDS

    def judge(
        self, due: Sequence[Session], per_shard: Sequence[int], now_ms: float
    ) -> tuple[list[Session], list[Session]]:
        """Split due sessions into those that end now and those held back."""
        self._forget_ended(now_ms - self._policy.window_ms)
        protected = self._protected_shards(due, per_shard)
        ending: list[Session] = []
        holding: list[Session] = []
        for session in due:
            if not session.shards & protected:
                ending.append(session)
                continue
            if session.held_since_ms is None:
                session.held_since_ms = now_ms
            if now_ms - session.held_since_ms >= self._policy.hold_ms:
                ending.append(session)
            else:
                holding.append(session)
        for session in ending:
            self._ended.append((now_ms, session.shards))
            _count(self._ended_per_shard, session.shards, 1)
        return ending, holding

    def _forget_ended(self, before_ms: float) -> None:
        while self._ended and self._ended[0][0] <= before_ms:
            _, shards = self._ended.popleft()
            _count(self._ended_per_shard, shards, -1)

    def _protected_shards(self, due: Sequence[Session], per_shard: Sequence[int]) -> int:
        policy = self._policy
        if len(due) + len(self._ended) <= policy.share * policy.sessions_min:
            return 0
        going = self._ended_per_shard.copy()
        for session in due:
            _count(going, session.shards, 1)
        protected = 0
        for shard, count in enumerate(going):
            total = per_shard[shard] + self._ended_per_shard[shard]
            if total >= policy.sessions_min and count > policy.share * total:
                protected |= 1 << shard
        return protected


def _count(per_shard: list[int], mask: int, by: int) -> None:
    while mask:
        low = mask & -mask
        per_shard[low.bit_length() - 1] += by
        mask ^= low
