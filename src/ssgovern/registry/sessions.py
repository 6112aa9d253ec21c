"""Who is alive: the sessions of one node and when they expire.

Pure: time comes in, in milliseconds of any monotonic clock. A heartbeat only notes the time;
sessions wait in slots of a wheel by the time at which they might expire and are moved when that
time comes (ZooKeeper's ExpiryQueue, made lazy), so that heartbeats cost O(1) and a tick costs
what is due.

A lease is a session that never has a connection: whoever holds its secret renews it by requests,
and it has a time to live of its own.

Three things keep it from expiring who is alive: time in which this node's own loop stalled does
not count; a connection that closed leaves `close_grace_ms` to come back; and `Protection` holds
expiries back when too many would go at once. An end is only proposed here: it is true when the
log has committed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ssgovern.errors import SsGovernError
from ssgovern.model import SHARDS, SessionId, ShardId
from ssgovern.registry.protection import Protection


class Connection(Protocol):
    """What a session knows of the connection that speaks for it."""

    def refuse(self, error: SsGovernError) -> None:
        """Say why and close."""


class Session:
    """One client's identity. Mutable, owned by its `SessionTable`."""

    __slots__ = (
        "attached_at_ms",
        "closed_at_ms",
        "connection",
        "ended",
        "held_since_ms",
        "id",
        "is_lease",
        "last_heard_ms",
        "shards",
        "ttl_ms",
        "under_way",
        "wheel_slot",
    )

    def __init__(self, session_id: SessionId, now_ms: float, ttl_ms: float) -> None:
        self.id = session_id
        self.ttl_ms = ttl_ms
        self.is_lease = False
        self.connection: Connection | None = None
        """The connection that speaks for it now."""
        self.attached_at_ms = now_ms
        """Since when that is so."""
        self.last_heard_ms = now_ms
        self.closed_at_ms: float | None = None
        self.held_since_ms: float | None = None
        self.ended = False
        """Its end was decided but the log could not take all of it: it must not be resumed."""
        self.shards = 0
        """Bit i: it may own instances in shard i, of which this node is primary. Cleared only
        when the shard is another node's: what the session owns there is that node's to end."""
        self.under_way = 0
        """Of a lease: registrations for it that the log has yet to decide."""
        self.wheel_slot = 0

    def __repr__(self) -> str:
        what = "Lease" if self.is_lease else "Session"
        return f"<{what} {self.id.hex()[:8]} heard={self.last_heard_ms:.0f}>"


def shards_of(mask: int) -> Iterator[ShardId]:
    """Yield the shards whose bits are set."""
    while mask:
        low = mask & -mask
        yield ShardId(low.bit_length() - 1)
        mask ^= low


@dataclass(frozen=True, slots=True)
class SessionTiming:
    """Times of a session's life, milliseconds."""

    ttl_ms: float = 5000
    """Of sessions; each lease has its own."""
    close_grace_ms: float = 1000
    tick_ms: float = 250


class SessionTable:
    """All sessions of a node."""

    def __init__(self, timing: SessionTiming, protection: Protection) -> None:
        self._timing = timing
        self._protection = protection
        self._sessions: dict[SessionId, Session] = {}
        self._wheel: dict[int, dict[Session, None]] = {}
        self._next_slot: int | None = None
        self._held: dict[Session, None] = {}
        self._last_tick_ms: float | None = None
        self._stalled_ms = 0.0
        self._latest_ms = math.inf
        """Running time cannot be later than this before the next tick."""
        self.per_shard = [0] * SHARDS
        """How many sessions may own instances in each shard."""
        self.leases_per_shard = [0] * SHARDS
        """How many of them are leases."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        return f"<SessionTable sessions={len(self)} held={len(self._held)}>"

    @property
    def held(self) -> int:
        """Sessions that protection keeps from expiring."""
        return len(self._held)

    @property
    def ttl_ms(self) -> float:
        """Time without a heartbeat after which a session expires."""
        return self._timing.ttl_ms

    def ids(self) -> Iterable[SessionId]:
        """Return the ids of all sessions, in no order."""
        return self._sessions.keys()

    def age_ms(self, then_ms: float, now_ms: float) -> float:
        """Return how long ago a moment of a session's life was, stalls of this node left out."""
        return max(0.0, self._running_ms(now_ms) - then_ms)

    def find(self, session_id: SessionId) -> Session | None:
        """Return a session that has not ended."""
        return self._sessions.get(session_id)

    # --- life ------------------------------------------------------------------------------

    def open(self, session_id: SessionId, now_ms: float, shards: int = 0) -> Session:
        """Add a session that is not there, with a full time to live."""
        assert session_id not in self._sessions, f"session {session_id.hex()} opened twice"
        session = Session(session_id, self._running_ms(now_ms), self._timing.ttl_ms)
        self._sessions[session_id] = session
        self.claim(session, shards)
        self._schedule(session)
        return session

    def open_lease(self, session_id: SessionId, now_ms: float, ttl_ms: float) -> Session:
        """Add a lease that is not there, with a full time to live."""
        lease = self.open(session_id, now_ms)
        lease.is_lease = True
        self._set_ttl(lease, ttl_ms)
        return lease

    def extend(self, lease: Session, ttl_ms: float) -> None:
        """Let a lease have at least this time to live from now on: it is promised no less."""
        if ttl_ms > lease.ttl_ms:
            self._set_ttl(lease, ttl_ms)

    def _set_ttl(self, session: Session, ttl_ms: float) -> None:
        session.ttl_ms = ttl_ms
        if session not in self._held:
            self._unschedule(session)
            self._schedule(session)

    def claim(self, session: Session, shards: int) -> None:
        """Note that the session may own instances in the shards of this mask."""
        added = shards & ~session.shards
        if added:
            session.shards |= added
            self._count(session, added, 1)

    def unclaim(self, session: Session, shards: int) -> None:
        """Note that what the session owns in these shards is not this node's to end."""
        gone = shards & session.shards
        session.shards ^= gone
        self._count(session, gone, -1)

    def _count(self, session: Session, shards: int, by: int) -> None:
        for shard in shards_of(shards):
            self.per_shard[shard] += by
            if session.is_lease:
                self.leases_per_shard[shard] += by

    def unclaim_all(self, shards: int) -> int:
        """Do so for every session, as these shards are another node's now.

        Sessions that are idle by that are dropped; return how many. One pass over all sessions,
        however many shards: to be called with all of them at once.
        """
        shards &= sum(1 << shard for shard, count in enumerate(self.per_shard) if count)
        if not shards:
            return 0
        touched = [session for session in self._sessions.values() if session.shards & shards]
        dropped = 0
        for session in touched:
            self.unclaim(session, shards)
            dropped += self.drop_idle(session)
        return dropped

    def drop_idle(self, session: Session) -> bool:
        """Forget a session that may own nothing here and is not connected here.

        No end is proposed: it lives where it is heard, and ends where it owns something.
        """
        if session.shards or session.connection is not None:
            return False
        self.end(session)
        return True

    def renew(self, session: Session, now_ms: float) -> None:
        """Give a session a full time to live, whatever became of its connection to this node.

        For what another node granted it: until its client knows that this node took over, it
        speaks to that one.
        """
        session.closed_at_ms = None
        self.hear(session, now_ms)

    def renew_all(self, now_ms: float) -> None:
        """Give every session a full time to live: for a while nobody could be heard here."""
        for session in self._sessions.values():
            self.renew(session, now_ms)

    def hear(self, session: Session, now_ms: float) -> None:
        """Note a heartbeat (or any other sign of life)."""
        heard_ms = now_ms - self._stalled_ms
        # In line, because it is done for every request; see `_running_ms`.
        session.last_heard_ms = heard_ms if heard_ms < self._latest_ms else self._latest_ms

    def attach(self, session: Session, connection: Connection, now_ms: float) -> Connection | None:
        """Let a connection speak for the session; return the one that did before."""
        before, session.connection = session.connection, connection
        session.closed_at_ms = None
        self.hear(session, now_ms)
        session.attached_at_ms = session.last_heard_ms
        return before

    def detach(self, session: Session, connection: Connection, now_ms: float) -> None:
        """A connection closed without a goodbye; if it spoke for the session, grace begins."""
        if session.connection is connection:
            session.connection = None
            session.closed_at_ms = self._running_ms(now_ms)
            if session not in self._held:
                self._unschedule(session)
                self._schedule(session)

    def end(self, session: Session) -> None:
        """Forget a session whose end is being proposed, so that nothing more is done for it."""
        del self._sessions[session.id]
        session.connection = None
        self._unschedule(session)
        self._held.pop(session, None)
        self._count(session, session.shards, -1)

    # --- time ------------------------------------------------------------------------------

    def start(self, now_ms: float) -> None:
        """Begin to keep time: the first tick is due in `tick_ms`, and may come late as well."""
        self._last_tick_ms = now_ms

    def tick(self, now_ms: float) -> list[Session]:
        """Return the sessions to end now. Call every `tick_ms`; late calls count as a stall."""
        timing = self._timing
        if self._last_tick_ms is not None:
            late = now_ms - self._last_tick_ms - timing.tick_ms
            if late > timing.tick_ms:
                # While the loop stood still no heartbeat could be heard, so that time is
                # taken out of every session's life instead of being held against it.
                self._stalled_ms += late
        self._last_tick_ms = now_ms
        running_ms = now_ms - self._stalled_ms
        self._latest_ms = running_ms + 2 * timing.tick_ms

        due = [s for s in self._held if self._deadline(s) <= running_ms]
        for session in [s for s in self._held if self._deadline(s) > running_ms]:
            del self._held[session]
            session.held_since_ms = None
            self._schedule(session)
        due += self._take_due(running_ms)
        if not due:
            return due
        ending, holding = self._protection.judge(
            due, self.per_shard, self.leases_per_shard, running_ms
        )
        for session in holding:
            self._held[session] = None
        return ending

    def _running_ms(self, now_ms: float) -> float:
        """Return the time without that of stalls, also of one that no tick has found yet.

        Otherwise what was sent before a stall and is read right after it would seem to come
        from the future, and a session that died meanwhile would live on by as much.
        """
        return min(now_ms - self._stalled_ms, self._latest_ms)

    def _take_due(self, running_ms: float) -> list[Session]:
        due: list[Session] = []
        now_slot = int(running_ms // self._timing.tick_ms)
        first = self._next_slot
        if first is None:
            first = min(self._wheel, default=now_slot)
        for slot in range(first, now_slot + 1):
            for session in self._wheel.pop(slot, ()):
                if self._deadline(session) <= running_ms:
                    due.append(session)
                else:
                    self._schedule(session, after=now_slot)
        self._next_slot = now_slot + 1
        return due

    def _deadline(self, session: Session) -> float:
        deadline = session.last_heard_ms + session.ttl_ms
        if session.closed_at_ms is not None:
            return min(deadline, session.closed_at_ms + self._timing.close_grace_ms)
        return deadline

    def _schedule(self, session: Session, after: int | None = None) -> None:
        # The slot in which a tick first finds the deadline passed.
        slot = int(self._deadline(session) // self._timing.tick_ms) + 1
        if after is None:
            after = -1 if self._next_slot is None else self._next_slot - 1
        session.wheel_slot = max(slot, after + 1)
        self._wheel.setdefault(session.wheel_slot, {})[session] = None

    def _unschedule(self, session: Session) -> None:
        waiting = self._wheel.get(session.wheel_slot)
        if waiting is not None:
            waiting.pop(session, None)
            if not waiting:
                del self._wheel[session.wheel_slot]

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator; walks everything."""
        waiting = 0
        for slot, sessions in self._wheel.items():
            assert sessions, f"wheel slot {slot} is empty and still here"
            assert self._next_slot is None or slot >= self._next_slot, "a slot was passed over"
            for session in sessions:
                assert session.wheel_slot == slot
                assert self._sessions[session.id] is session
            waiting += len(sessions)
        assert waiting + len(self._held) == len(self._sessions), self
        for shard in range(SHARDS):
            bit = 1 << shard
            count = sum(1 for session in self._sessions.values() if session.shards & bit)
            assert count == self.per_shard[shard], f"shard {shard}"
            leases = sum(
                1 for each in self._sessions.values() if each.is_lease and each.shards & bit
            )
            assert leases == self.leases_per_shard[shard], f"shard {shard}"
