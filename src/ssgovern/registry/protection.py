"""Holding back expiry when too many sessions would go at once.

Pure. When more than a set share of a shard's sessions are due together, it is likelier that
this node (or its network) lost them than that they all died; taking them away would empty
services that work. So they are held, visibly, but for a capped time only: Eureka's
self-preservation, which has no cap, keeps the dead for ever.

Clients cut off at one moment fall due one after the other, as their last heartbeats were spread
over an interval. So "together" means within a window: who ended in it counts like who is due.
Leases are renewed as rarely as their times to live allow, so theirs is the window.

Sessions and leases come by different ways, which fail one without the other: a share of either
kind that is too large is held, however many of the other kind live.
"""

from __future__ import annotations

import heapq
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
    lease_window_ms_max: float = 60_000
    """Who ended is remembered no longer, however long leases live."""


class Protection:
    """Judges who among the due may go."""

    def __init__(self, policy: ProtectionPolicy) -> None:
        self._policy = policy
        self._ended: list[tuple[float, int, bool]] = []
        """A heap: when to forget it, shards, and whether it was a lease, of each that ended."""
        self._ended_per_shard = [0] * SHARDS
        self._leases_ended_per_shard = [0] * SHARDS

    def judge(
        self,
        due: Sequence[Session],
        per_shard: Sequence[int],
        leases_per_shard: Sequence[int],
        now_ms: float,
    ) -> tuple[list[Session], list[Session]]:
        """Split due sessions into those that end now and those held back.

        `per_shard` counts all that live, those due among them; `leases_per_shard` the leases.
        """
        self._forget_ended(now_ms)
        of_sessions, of_leases = self._protected_shards(due, per_shard, leases_per_shard)
        ending: list[Session] = []
        holding: list[Session] = []
        for session in due:
            if not session.shards & (of_leases if session.is_lease else of_sessions):
                ending.append(session)
                continue
            if session.held_since_ms is None:
                session.held_since_ms = now_ms
            if now_ms - session.held_since_ms >= self._policy.hold_ms:
                ending.append(session)
            else:
                holding.append(session)
        for session in ending:
            until_ms = now_ms + self._window_ms(session)
            heapq.heappush(self._ended, (until_ms, session.shards, session.is_lease))
            self._count_ended(session.shards, 1, is_lease=session.is_lease)
        return ending, holding

    def _window_ms(self, session: Session) -> float:
        policy = self._policy
        if not session.is_lease:
            return policy.window_ms
        return max(policy.window_ms, min(session.ttl_ms, policy.lease_window_ms_max))

    def _forget_ended(self, now_ms: float) -> None:
        while self._ended and self._ended[0][0] <= now_ms:
            _, shards, is_lease = heapq.heappop(self._ended)
            self._count_ended(shards, -1, is_lease=is_lease)

    def _count_ended(self, shards: int, by: int, *, is_lease: bool) -> None:
        _count(self._ended_per_shard, shards, by)
        if is_lease:
            _count(self._leases_ended_per_shard, shards, by)

    def _protected_shards(
        self, due: Sequence[Session], per_shard: Sequence[int], leases_per_shard: Sequence[int]
    ) -> tuple[int, int]:
        """Return the shards in which sessions, and those in which leases, are to be held."""
        policy = self._policy
        if len(due) + len(self._ended) <= policy.share * policy.sessions_min:
            return 0, 0
        going = self._ended_per_shard.copy()
        leases_going = self._leases_ended_per_shard.copy()
        for session in due:
            _count(going, session.shards, 1)
            if session.is_lease:
                _count(leases_going, session.shards, 1)
        of_sessions = of_leases = 0
        for shard, count in enumerate(going):
            if not count:
                continue
            total = per_shard[shard] + self._ended_per_shard[shard]
            leases = leases_going[shard]
            leases_total = leases_per_shard[shard] + self._leases_ended_per_shard[shard]
            too_many_leases = self._too_many(leases, leases_total)
            too_many_sessions = self._too_many(count - leases, total - leases_total)
            if not too_many_leases and not too_many_sessions and self._too_many(count, total):
                # There are few of either kind: together they are enough to tell.
                too_many_leases = too_many_sessions = True
            of_sessions |= too_many_sessions << shard
            of_leases |= too_many_leases << shard
        return of_sessions, of_leases

    def _too_many(self, going: int, total: int) -> bool:
        return total >= self._policy.sessions_min and going > self._policy.share * total


def _count(per_shard: list[int], mask: int, by: int) -> None:
    while mask:
        low = mask & -mask
        per_shard[low.bit_length() - 1] += by
        mask ^= low
