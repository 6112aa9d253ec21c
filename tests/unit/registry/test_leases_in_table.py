"""Leases among the sessions of a node: own times to live, and protected as what they are."""

from __future__ import annotations

import pytest
from builders import Shard, ended, registered, session_of

from ssgovern.model import ShardId
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming
from ssgovern.registry.snapshot import capture, encode_chunks, restore
from ssgovern.registry.state import ShardState
from ssgovern.wire.pb import model_pb2

TICK = 250.0


def run(table: SessionTable, start: float, until: float) -> list[tuple[float, Session]]:
    """Tick, end what is due, and return who ended and when."""
    ended: list[tuple[float, Session]] = []
    now = start
    while now + TICK <= until:
        now += TICK
        for session in table.tick(now):
            table.end(session)
            ended.append((now, session))
    return ended


def protected(**policy: float) -> SessionTable:
    return SessionTable(
        SessionTiming(ttl_ms=5000, close_grace_ms=1000, tick_ms=TICK),
        Protection(
            ProtectionPolicy(
                share=0.5,
                sessions_min=int(policy.get("sessions_min", 4)),
                hold_ms=policy.get("hold_ms", 10_000),
                window_ms=5_000,
            )
        ),
    )


@pytest.mark.parametrize("ttl_ms", [2_000, 5_000, 15_000, 3_600_000])
def test_a_lease_has_its_own_time_to_live(table: SessionTable, ttl_ms: float) -> None:
    """It ends within two ticks after its time to live and not before, however long that is."""
    lease = table.open_lease(session_of("l"), 0.0, ttl_ms)
    table.tick(0.0)
    assert run(table, 0.0, ttl_ms - TICK) == []
    [(when, ended_lease)] = run(table, ttl_ms - TICK, ttl_ms + 3 * TICK)
    assert ended_lease is lease
    assert when <= ttl_ms + 2 * TICK


def test_a_renewal_gives_all_of_it_again(table: SessionTable) -> None:
    """Renewed in time a lease never ends, and sessions beside it keep their own time."""
    lease = table.open_lease(session_of("l"), 0.0, 15_000)
    session = table.open(session_of("s"), 0.0)
    table.tick(0.0)
    now, gone = 0.0, []
    for _ in range(8):
        gone += run(table, now, now + 14_000)
        now += 14_000
        table.renew(lease, now)
    assert [each for _, each in gone] == [session]


def test_time_to_live_only_grows(table: SessionTable) -> None:
    """A longer promise holds at once, also of a lease that waits already; a shorter never does."""
    lease = table.open_lease(session_of("l"), 0.0, 2_000)
    table.tick(0.0)
    table.extend(lease, 10_000)
    table.extend(lease, 3_000)
    assert lease.ttl_ms == 10_000
    table.validate()
    assert run(table, 0.0, 10_000 - TICK) == []
    assert len(run(table, 10_000 - TICK, 11_000)) == 1


def test_a_stall_of_the_node_is_not_held_against_a_lease(table: SessionTable) -> None:
    """What stood still was the node: the lease has its time without that."""
    table.open_lease(session_of("l"), 0.0, 10_000)
    table.tick(0.0)
    run(table, 0.0, 1_000)
    assert table.tick(61_000.0) == []
    assert run(table, 61_000.0, 61_000 + 8_500) == []
    assert len(run(table, 69_500.0, 71_000)) == 1


def test_leases_are_counted_among_the_sessions_of_a_shard(table: SessionTable) -> None:
    """Each kind is counted, when claimed, when given up and when it ends."""
    lease = table.open_lease(session_of("l"), 0.0, 10_000)
    other = table.open_lease(session_of("m"), 0.0, 10_000)
    session = table.open(session_of("s"), 0.0)
    for each in (lease, other, session):
        table.claim(each, 0b1)
    assert (table.per_shard[0], table.leases_per_shard[0]) == (3, 2)
    table.end(other)
    assert (table.per_shard[0], table.leases_per_shard[0]) == (2, 1)
    assert table.unclaim_all(0b1) == 2
    assert (table.per_shard[0], table.leases_per_shard[0]) == (0, 0)


# --- protection ---------------------------------------------------------------------------


def test_leases_cut_off_at_one_moment_are_held() -> None:
    """However they were spread over their interval, no more than the share of them goes."""
    table = protected(hold_ms=60_000)
    table.tick(0.0)
    for number in range(40):
        lease = table.open_lease(session_of(f"l{number}"), 500.0 * number, 30_000)
        table.claim(lease, 0b1)
    ended_leases = run(table, 0.0, 60_000)
    assert len(ended_leases) <= 20
    assert table.held == 40 - len(ended_leases)
    table.validate()


def test_many_living_sessions_do_not_hide_that_all_leases_go() -> None:
    """The way by which leases are renewed may fail alone."""
    table = protected()
    table.tick(0.0)
    for number in range(10):
        table.claim(table.open_lease(session_of(f"l{number}"), 0.0, 5_000), 0b1)
    sessions = [table.open(session_of(f"s{number}"), 0.0, 0b1) for number in range(100)]
    now = 0.0
    while now < 8_000:
        now += TICK
        for session in sessions:
            table.hear(session, now)
        assert table.tick(now) == []
    assert table.held == 10


def test_leases_that_go_do_not_hold_a_session() -> None:
    """A client that dies while leases are held is noticed on time, as one of its kind."""
    table = protected()
    table.tick(0.0)
    for number in range(20):
        table.claim(table.open_lease(session_of(f"l{number}"), 0.0, 5_000), 0b1)
    dying = table.open(session_of("dying"), 0.0, 0b1)
    living = [table.open(session_of(f"s{number}"), 0.0, 0b1) for number in range(9)]
    now, gone = 0.0, []
    while now < 8_000:
        now += TICK
        for session in living:
            table.hear(session, now)
        for session in table.tick(now):
            table.end(session)
            gone.append(session)
    assert gone == [dying]
    assert table.held == 20


def test_few_of_either_kind_are_judged_together() -> None:
    """Where each kind alone is too few to tell, all of a shard are enough."""
    table = protected(sessions_min=8)
    table.tick(0.0)
    for number in range(6):
        table.claim(table.open_lease(session_of(f"l{number}"), 0.0, 5_000), 0b1)
        table.open(session_of(f"s{number}"), 0.0, 0b1)
    assert run(table, 0.0, 8_000) == []
    assert table.held == 12


def test_a_held_lease_goes_when_the_cap_is_reached() -> None:
    """Protection delays the end of leases and does not keep the dead for ever."""
    table = protected(hold_ms=3_000)
    table.tick(0.0)
    for number in range(10):
        table.claim(table.open_lease(session_of(f"l{number}"), 0.0, 5_000), 0b1)
    assert len(run(table, 0.0, 8_000 + 3 * TICK)) == 10
    assert table.held == 0


# --- what a shard knows of it ---------------------------------------------------------------


def test_a_shard_knows_the_time_to_live_of_each_lease(shard: Shard) -> None:
    """It is the longest that what it keeps was registered with; a client's session has none."""
    shard.apply(
        registered("lease", "a", lease_ms=4_000),
        registered("lease", "b", lease_ms=9_000),
        registered("client", "c"),
    )
    assert shard.state.lease_ms(session_of("lease")) == 9_000
    assert shard.state.lease_ms(session_of("client")) == 0


def test_a_snapshot_keeps_times_to_live(shard: Shard) -> None:
    """Who takes over from a snapshot gives leases the time they were promised."""
    shard.apply(registered("lease", "a", lease_ms=4_000))
    copy = ShardState(ShardId(7))
    restore(copy, shard.state.position, encode_chunks(capture(shard.state)))
    assert copy.lease_ms(session_of("lease")) == 4_000


def test_a_persistent_instance_without_its_lease_says_so(shard: Shard) -> None:
    """What nobody keeps alive any more has no lease."""
    shard.apply(registered("lease", "a", lease_ms=4_000, persistent=True), ended("lease"))
    [entry] = shard.state.entries()
    instance = model_pb2.Instance.FromString(entry.encoded)
    assert (entry.lease_ms, instance.lease_ms, instance.unhealthy) == (0, 0, True)


def test_a_shard_says_who_has_nothing_left(shard: Shard) -> None:
    """Whoever lost its last instance, to a removal or to another owner, is named once."""
    shard.apply(registered("a", "x"), registered("b", "y"), registered("b", "x"))
    assert list(shard.state.emptied) == [session_of("a")]
    shard.state.take_changes()
    assert not shard.state.emptied
