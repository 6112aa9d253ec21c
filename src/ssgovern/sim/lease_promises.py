"""What holders of leases were promised, held against the log. See `sim.lease_keeper`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ssgovern.sim.ledger import ShardLedger

if TYPE_CHECKING:
    from ssgovern.client.leasing import Lease
    from ssgovern.sim.world import World

_FAST_CLOCK = 1.03
"""No clock is faster than that, nor slower than its inverse."""
_LATE_S = 4.0
"""Ticks, a request that arrives after its sender gave it up, an end on its way through the log."""


class Promises:
    """S4: no lease ends before its time, and none long after it."""

    def __init__(self, world: World, fail: Callable[[str], None]) -> None:
        self._world = world
        self._fail = fail
        self._until: dict[bytes, float] = {}
        """By lease: until when it was promised to live."""
        self._asked: dict[bytes, tuple[float, float]] = {}
        """By lease: when anything was last asked for it, and its time to live in seconds."""

    def asked(self, lease: Lease) -> None:
        """Something is asked for a lease, or was until now: it may be heard any time."""
        self._asked[lease.id] = self._world.now, lease.ttl_ms / 1000.0

    def promised(self, lease: Lease, sent: float) -> None:
        """What was asked for at a moment was answered: from then on it has its time to live."""
        until = sent + lease.ttl_ms / 1000.0 / _FAST_CLOCK
        self._until[lease.id] = max(self._until.get(lease.id, 0.0), until)

    def taken_back(self, lease: Lease) -> None:
        """Its holder gives it up."""
        self._until.pop(lease.id, None)

    def is_unknown(self, lease: Lease) -> None:
        """A node said that there is no such lease, or nothing left of it."""
        until = self._until.pop(lease.id, 0.0)
        if self._world.now < until:
            self._fail(
                f"S4: lease {lease.id.hex()[:8]} is unknown {until - self._world.now:.3f} s "
                "before its time is over"
            )

    def on_ended(self, session_id: bytes) -> None:
        """The end of a session, perhaps of a lease, was committed."""
        until = self._until.pop(session_id, 0.0)
        if self._world.now < until:
            self._fail(
                f"S4: lease {session_id.hex()[:8]} ended {until - self._world.now:.3f} s "
                "before its time is over"
            )

    def may_still_live(self, shard: ShardLedger, session_id: bytes, hold_s: float) -> bool:
        """Tell whether what it keeps may be there although nothing is asked for it any more."""
        asked = self._asked.get(session_id)
        if asked is None:
            return False
        since, ttl_s = asked
        for entry in reversed(shard.entries):
            if entry.record.HasField("epoch_started"):
                # Whoever became primary then gave it all of its time again.
                since = max(since, entry.when)
                break
        return self._world.now <= since + ttl_s * _FAST_CLOCK + hold_s + _LATE_S
