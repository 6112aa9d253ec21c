"""Holding back expiry when too many sessions would go at once.

Pure. When more than a set share of a shard's sessions are due together, it is likelier that
this node (or its network) lost them than that they all died; taking them away would empty
services that work. So they are held, visibly, but for a capped time only: Eureka's
self-preservation, which has no cap, keeps the dead for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssgovern.registry.sessions import Session


@dataclass(frozen=True, slots=True)
class ProtectionPolicy:
    """When protection begins and ends. `share` is 0 to 1; 1 turns it off."""

    share: float = 0.5
    sessions_min: int = 32
    hold_ms: float = 30_000


class Protection:
    """Judges who among the due may go."""

    def __init__(self, policy: ProtectionPolicy) -> None:
        self._policy = policy

    def judge(
        self, due: Sequence[Session], per_shard: Sequence[int], now_ms: float
    ) -> tuple[list[Session], list[Session]]:
        """Split due sessions into those that end now and those held back."""
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
        return ending, holding

    def _protected_shards(self, due: Sequence[Session], per_shard: Sequence[int]) -> int:
        if len(due) <= self._policy.share * self._policy.sessions_min:
            return 0
        due_per_shard = [0] * len(per_shard)
        for session in due:
            mask = session.shards
            while mask:
                low = mask & -mask
                due_per_shard[low.bit_length() - 1] += 1
                mask ^= low
        protected = 0
        for shard, count in enumerate(due_per_shard):
            total = per_shard[shard]
            if total >= self._policy.sessions_min and count > self._policy.share * total:
                protected |= 1 << shard
        return protected
