"""No session that was heard expires, and none that fell silent stays."""

from __future__ import annotations

from dataclasses import dataclass

from builders import session_of
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming

TTL, GRACE, TICK, HOLD = 5000.0, 1000.0, 250.0, 7000.0


class Wire:
    def refuse(self, error: object) -> None:
        raise AssertionError("the table closes no connection")


@dataclass
class Client:
    """What the test knows of a session: when it was last heard, when its connection closed."""

    session: Session
    wire: Wire
    heard: float
    closed: float | None = None

    def lives_at_least_until(self) -> float:
        until = self.heard + TTL
        return until if self.closed is None else min(until, self.closed + GRACE)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["hear", "hear", "close", "attach", "open", "nothing"]),
        st.integers(0, 7),
        st.floats(1.0, 700.0),
    ),
    max_size=150,
)


def walk(actions: list[tuple[str, int, float]], share: float) -> SessionTable:
    """Live through `actions`, ticking on time, and check who expires and when."""
    table = SessionTable(
        SessionTiming(ttl_ms=TTL, close_grace_ms=GRACE, tick_ms=TICK),
        Protection(ProtectionPolicy(share=share, sessions_min=3, hold_ms=HOLD)),
    )
    held_at_most = HOLD + TICK if share < 1.0 else 0.0
    now = next_tick = 0.0
    clients: dict[int, Client] = {}

    def tick() -> None:
        nonlocal next_tick
        ended = table.tick(next_tick)
        assert len(set(ended)) == len(ended), "a session is due twice"
        for session in ended:
            table.end(session)
            number = next(n for n, client in clients.items() if client.session is session)
            client = clients.pop(number)
            assert client.lives_at_least_until() <= next_tick, "expired though it was heard"
        for client in clients.values():
            late = next_tick - client.lives_at_least_until()
            assert late < 2 * TICK + held_at_most, f"dead for {late} ms and still here"
        table.validate()
        next_tick += TICK

    for action, number, pause in actions:
        now += pause
        while next_tick <= now:
            tick()
        client = clients.get(number)
        if client is None:
            if action in ("open", "attach"):
                session = table.open(session_of(str(number)), now, shards=1 << number % 2)
                clients[number] = Client(session, Wire(), now)
                table.attach(session, clients[number].wire, now)
        elif action == "hear" and client.closed is None:
            table.hear(client.session, now)
            client.heard = now
        elif action == "close" and client.closed is None:
            table.detach(client.session, client.wire, now)
            client.closed = now
        elif action == "attach":
            client.wire = Wire()
            table.attach(client.session, client.wire, now)
            client.heard, client.closed = now, None
    while clients and next_tick < now + TTL + 2 * TICK + held_at_most + 3 * TICK:
        tick()
    assert not clients
    assert table.held == 0
    return table


@given(ACTIONS)
def test_expiry_is_neither_early_nor_late(actions: list[tuple[str, int, float]]) -> None:
    """Whoever was heard within its time lives; whoever was not is gone within two ticks."""
    walk(actions, share=1.0)


@given(ACTIONS)
def test_protection_delays_but_never_prolongs_for_ever(
    actions: list[tuple[str, int, float]],
) -> None:
    """With protection nobody expires early either, and nobody stays beyond the cap."""
    walk(actions, share=0.5)


@given(
    st.lists(st.floats(0.0, 1000.0), min_size=20, max_size=60),
    st.floats(0.0, 250.0),
)
def test_no_more_than_the_share_goes_together(phases: list[float], start: float) -> None:
    """However heartbeats were spread, those cut off at one moment do not all expire."""
    table = SessionTable(
        SessionTiming(ttl_ms=TTL, close_grace_ms=GRACE, tick_ms=TICK),
        Protection(ProtectionPolicy(share=0.5, sessions_min=10, hold_ms=60_000)),
    )
    for number, phase in enumerate(phases):
        table.open(session_of(str(number)), phase, shards=1)
    now, ended = start, 0
    while now < 20_000:
        for session in table.tick(now):
            table.end(session)
            ended += 1
        now += TICK
    assert ended <= len(phases) / 2
    assert table.held == len(phases) - ended


@given(st.lists(st.floats(251.0, 60_000.0), min_size=1, max_size=10))
def test_stalls_expire_nobody(stalls: list[float]) -> None:
    """A session heard right before each stall of the loop is there after it."""
    table = SessionTable(
        SessionTiming(ttl_ms=TTL, close_grace_ms=GRACE, tick_ms=TICK),
        Protection(ProtectionPolicy(share=1.0)),
    )
    session = table.open(session_of("a"), 0.0)
    now = 0.0
    assert table.tick(now) == []
    for stall in stalls:
        for _ in range(4):
            now += TICK
            assert table.tick(now) == []
        table.hear(session, now)
        now += TICK + stall
        assert table.tick(now) == []
