"""Sessions live, expire, come back and are held back as promised."""

from __future__ import annotations

import pytest
from builders import session_of

from ssgovern.errors import SsGovernError
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming, shards_of

TICK = 250.0


class Wire:
    """A connection that remembers why it was closed."""

    def __init__(self) -> None:
        self.refused: list[SsGovernError] = []

    def refuse(self, error: SsGovernError) -> None:
        self.refused.append(error)


class Clock:
    """Ticks a table as the driver does, and ends what is due."""

    def __init__(self, table: SessionTable) -> None:
        self.table = table
        self.now = 0.0
        self.ended: list[tuple[float, Session]] = []

    def run(self, until: float, *, step: float = TICK) -> list[Session]:
        """Tick every `step` up to `until`; return who ended."""
        ended: list[Session] = []
        while self.now + step <= until:
            self.now += step
            for session in self.table.tick(self.now):
                self.table.end(session)
                self.ended.append((self.now, session))
                ended.append(session)
        return ended


@pytest.fixture
def clock(table: SessionTable) -> Clock:
    clock = Clock(table)
    table.tick(0.0)
    return clock


def protected(share: float = 0.5, sessions_min: int = 4, hold_ms: float = 10_000) -> SessionTable:
    return SessionTable(
        SessionTiming(ttl_ms=5000, close_grace_ms=1000, tick_ms=TICK),
        Protection(ProtectionPolicy(share=share, sessions_min=sessions_min, hold_ms=hold_ms)),
    )


def test_a_silent_session_expires_after_its_ttl_and_not_before(
    table: SessionTable, clock: Clock
) -> None:
    """A session never heard again ends within two ticks after its time to live."""
    table.open(session_of("a"), 0.0)
    assert clock.run(5000 - TICK) == []
    assert len(clock.run(5000 + 2 * TICK)) == 1
    assert len(table) == 0


def test_a_heard_session_stays(table: SessionTable, clock: Clock) -> None:
    """A session that is heard every second never expires."""
    session = table.open(session_of("a"), 0.0)
    for second in range(1, 60):
        assert clock.run(second * 1000.0) == []
        table.hear(session, clock.now)


def test_a_heartbeat_moves_nothing(table: SessionTable) -> None:
    """A heartbeat only notes the time; no session is moved for it."""
    sessions = [table.open(session_of(str(n)), 0.0) for n in range(50)]
    before = {slot: list(waiting) for slot, waiting in table._wheel.items()}
    for session in sessions:
        table.hear(session, 1234.0)
    assert {slot: list(waiting) for slot, waiting in table._wheel.items()} == before


def test_a_closed_connection_leaves_a_grace(table: SessionTable, clock: Clock) -> None:
    """A session whose connection closed ends after the grace, long before its time to live."""
    session = table.open(session_of("a"), 0.0)
    wire = Wire()
    table.attach(session, wire, 0.0)
    clock.run(1000)
    table.hear(session, 1000)
    table.detach(session, wire, 1000)
    assert clock.run(2000 - TICK) == []
    assert clock.run(2000 + 2 * TICK) == [session]


def test_coming_back_within_the_grace_keeps_the_session(table: SessionTable, clock: Clock) -> None:
    """A new connection within the grace gives a full time to live again."""
    session = table.open(session_of("a"), 0.0)
    first, second = Wire(), Wire()
    table.attach(session, first, 0.0)
    clock.run(1000)
    table.detach(session, first, 1000)
    assert table.attach(session, second, 1500) is None
    assert clock.run(6500 - TICK) == []
    assert clock.run(6500 + 2 * TICK) == [session]


def test_the_connection_before_is_named(table: SessionTable) -> None:
    """A second connection supersedes the first, whose close then means nothing."""
    session = table.open(session_of("a"), 0.0)
    first, second = Wire(), Wire()
    table.attach(session, first, 0.0)
    assert table.attach(session, second, 10.0) is first
    table.detach(session, first, 20.0)
    assert session.connection is second
    assert session.closed_at_ms is None


def test_time_of_a_stall_does_not_count(table: SessionTable, clock: Clock) -> None:
    """While the loop stood still nobody could be heard, so nobody expires for it."""
    session = table.open(session_of("a"), 0.0)
    clock.run(1000)
    table.hear(session, 1000)
    clock.now = 60_000.0
    assert table.tick(clock.now) == []
    assert clock.run(60_000 + 4000) == []
    assert clock.run(60_000 + 5000 + 2 * TICK) == [session]


def test_a_heartbeat_that_waited_out_a_stall_gives_no_more_than_a_life(
    table: SessionTable, clock: Clock
) -> None:
    """Heard after a stall but before the tick that finds it, a session lives no longer for it."""
    heard = table.open(session_of("a"), 0.0)
    closed = table.open(session_of("b"), 0.0)
    wire = Wire()
    table.attach(closed, wire, 0.0)
    clock.run(1000)
    clock.now = 60_000.0
    table.hear(heard, clock.now)
    table.detach(closed, wire, clock.now)
    late = table.open(session_of("c"), clock.now)
    assert table.tick(clock.now) == []
    assert clock.run(60_000 + 1000 - 2 * TICK) == []
    assert clock.run(60_000 + 1000 + 2 * TICK) == [closed]
    assert clock.run(60_000 + 5000 - 2 * TICK) == []
    assert set(clock.run(60_000 + 5000 + 3 * TICK)) == {heard, late}


def test_slow_ticks_are_no_stall(table: SessionTable, clock: Clock) -> None:
    """Ticks that come a little late do not prolong any life."""
    session = table.open(session_of("a"), 0.0)
    assert clock.run(5000 + 2 * TICK, step=TICK * 1.5) == [session]


def test_claims_are_counted_per_shard(table: SessionTable) -> None:
    """What a session may own is counted once per shard and given back at its end."""
    session = table.open(session_of("a"), 0.0, shards=0b101)
    table.claim(session, 0b110)
    table.claim(session, 0b110)
    assert list(shards_of(session.shards)) == [0, 1, 2]
    assert table.per_shard[:4] == [1, 1, 1, 0]
    table.end(session)
    assert table.per_shard[:4] == [0, 0, 0, 0]


def test_protection_holds_back_and_ends() -> None:
    """Too many at once are held, visibly, and go when the cap is reached."""
    table = protected(hold_ms=3000)
    clock = Clock(table)
    table.tick(0.0)
    for n in range(8):
        table.open(session_of(str(n)), 0.0, shards=1)
    assert clock.run(8000) == []
    assert table.held == 8
    table.validate()
    assert len(clock.run(8000 + 3 * TICK)) == 8
    assert table.held == 0
    table.validate()


def test_a_held_session_that_is_heard_again_lives() -> None:
    """Protection lets those go back to a full life that come back in time."""
    table = protected(hold_ms=30_000)
    clock = Clock(table)
    table.tick(0.0)
    sessions = [table.open(session_of(str(n)), 0.0, shards=1) for n in range(8)]
    clock.run(6000)
    assert table.held == 8
    for session in sessions:
        table.hear(session, clock.now)
    clock.run(7000)
    assert table.held == 0
    assert all(session.held_since_ms is None for session in sessions)
    table.validate()


def test_a_held_session_whose_connection_breaks_is_due_once() -> None:
    """A connection that closes while its session is held back does not make it due twice."""
    table = protected(hold_ms=1000)
    clock = Clock(table)
    table.tick(0.0)
    wires = []
    for n in range(8):
        session = table.open(session_of(str(n)), 0.0, shards=1)
        wires.append((session, Wire()))
        table.attach(*wires[-1], 0.0)
    clock.run(6000)
    assert table.held == 8
    for session, wire in wires:
        table.detach(session, wire, clock.now)
    table.validate()
    assert len(clock.run(8000)) == 8
    table.validate()


def test_few_sessions_are_not_protected() -> None:
    """Below the least number of sessions all of them may go at once."""
    table = protected(sessions_min=4)
    clock = Clock(table)
    table.tick(0.0)
    for n in range(3):
        table.open(session_of(str(n)), 0.0, shards=1)
    assert len(clock.run(5500)) == 3


def test_protection_is_per_shard() -> None:
    """A session that owns nothing in the protected shard ends on time."""
    table = protected()
    clock = Clock(table)
    table.tick(0.0)
    for n in range(8):
        table.open(session_of(str(n)), 0.0, shards=0b01)
    outside = table.open(session_of("outside"), 0.0, shards=0b10)
    nothing = table.open(session_of("nothing"), 0.0)
    assert clock.run(5500) == [outside, nothing]
    assert table.held == 8
    table.validate()


def test_protection_sees_through_the_spread_of_heartbeats() -> None:
    """Sessions cut off together fall due over a whole heartbeat interval, not in one tick."""
    table = protected(share=0.5, sessions_min=10)
    clock = Clock(table)
    table.tick(0.0)
    for n in range(100):
        table.open(session_of(str(n)), 10.0 * n, shards=1)
    clock.run(12_000)
    assert len(clock.ended) <= 50
    assert table.held >= 50
    table.validate()
