"""Sessions on a node that is primary of some shards, and not always able to write them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance, session_of
from rig import Answer, RetryEnds, Rig, Wire

from ssgovern import limits
from ssgovern.errors import LimitExceededError, ShardMovedError, ShardUnavailableError
from ssgovern.model import ServiceKey, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2

SHARD = shard_of(*ORDERS)
OTHER = shard_of(*BILLING)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.validate()


def register(rig: Rig, session: Session, *ids: str, key: ServiceKey = ORDERS) -> None:
    """Register and commit."""
    request = native_pb2.RegisterRequest()
    for instance_id in ids:
        request.registrations.add(service=key_to_wire(key), instance=instance(instance_id))
    rig.register(session, request, Answer())
    rig.commit()


def claimed(rig: Rig, session: Session, *ids: str) -> list[str]:
    request = native_pb2.ClaimRequest()
    request.claimed.add(service=key_to_wire(ORDERS), instance_ids=ids)
    response = rig.registry.claim(session, request)
    return [each for item in response.missing for each in item.instance_ids]


def run(rig: Rig, until_ms: float) -> None:
    """Let time pass with everything committed as it comes."""
    while rig.now_ms + 250 <= until_ms:
        rig.tick(rig.now_ms + 250)
        rig.commit()


def test_an_end_waits_for_the_shard_and_for_no_other(rig: Rig) -> None:
    """A session that expires ends at once where it can, and elsewhere as soon as it can."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    register(rig, session, "y", key=BILLING)
    rig.places.set(SHARD, "idle")
    run(rig, 6000)
    assert (rig.ids(ORDERS), rig.ids(BILLING)) == (["x"], [])
    assert rig.sessions.find(session.id) is None
    assert rig.registry.ends_due == 1
    rig.places.set(SHARD, "primary")
    run(rig, 6500)
    assert rig.ids(ORDERS) == []
    assert rig.registry.ends_due == 0


def test_an_end_that_is_another_nodes_is_left_to_it(rig: Rig) -> None:
    """A session ends nothing in shards that moved, whether before its end or while it waited."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    register(rig, session, "y", key=BILLING)
    rig.places.set(SHARD, "replica")
    rig.places.set(OTHER, "idle")
    run(rig, 6000)
    assert rig.registry.ends_due == 1
    rig.places.set(OTHER, "replica")
    run(rig, 7000)
    assert rig.registry.ends_due == 0
    assert (rig.ids(ORDERS), rig.ids(BILLING)) == (["x"], ["y"])


def test_an_end_that_waits_goes_with_its_shard(rig: Rig) -> None:
    """What was due in a shard that left is another's to do, also when the shard returns."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.places.set(SHARD, "idle")
    run(rig, 6000)
    rig.registry.unclaim_shards([SHARD])
    rig.places.set(SHARD, "primary")
    run(rig, 7000)
    assert rig.ids(ORDERS) == ["x"]


def test_an_end_that_waits_comes_before_what_the_session_does_next(rig: Rig) -> None:
    """Of a session that ended and came back, what it registers then stays and the rest goes."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x", "y")
    rig.places.set(SHARD, "idle")
    run(rig, 6000)
    again, _, resumed = rig.hello("a", Wire("2"))
    assert not resumed
    with pytest.raises(ShardUnavailableError):
        register(rig, again, "y")
    rig.places.set(SHARD, "primary")
    register(rig, again, "y")
    assert rig.ids(ORDERS) == ["y"]
    run(rig, 8000)
    assert rig.ids(ORDERS) == ["y"]


def test_what_is_about_to_end_is_missing(rig: Rig) -> None:
    """A claim of what waits to be ended names it, so that it is registered again, and stays."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x", "y")
    rig.places.set(SHARD, "idle")
    run(rig, 6000)
    rig.places.set(SHARD, "primary")
    again, _, _ = rig.hello("a", Wire("2"))
    assert claimed(rig, again, "x") == ["x"]
    register(rig, again, "x")
    assert rig.ids(ORDERS) == ["x"]
    assert claimed(rig, again, "x") == []


def test_an_end_that_the_log_gives_back_is_proposed_again(rig: Rig) -> None:
    """An end that was due and is refused by the disk stays due."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.places.set(SHARD, "idle")
    run(rig, 6000)
    rig.places.set(SHARD, "primary")
    rig.full = True
    run(rig, 7000)
    assert rig.ids(ORDERS) == ["x"]
    rig.full = False
    run(rig, 8000)
    assert rig.ids(ORDERS) == []


def test_many_ends_are_proposed_in_portions(rig: Rig) -> None:
    """However many ends are due, one tick proposes a bounded number, of every shard some."""
    count = 2 * limits.ENDS_RETRIED_MAX
    for number in range(count):
        rig.registry._ends_due.add(session_of(f"s{number}"), SHARD, log_pb2.SESSION_END_EXPIRED)
    rig.registry._ends_due.add(session_of("other"), OTHER, log_pb2.SESSION_END_EXPIRED)
    assert 0 < rig.registry.retry_ends() <= limits.ENDS_RETRIED_MAX
    assert [p.shard for p in rig.queue].count(OTHER) == 1
    rig.commit()
    ticks = 1
    while rig.registry.retry_ends():
        rig.commit()
        ticks += 1
    assert ticks <= 4
    assert rig.registry.ends_due == 0


def test_a_goodbye_waits_for_what_could_be_proposed(rig: Rig) -> None:
    """A goodbye counts the shards that take it now; the others are seen to later."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    register(rig, session, "y", key=BILLING)
    rig.places.set(SHARD, "idle")
    answer = Answer()
    assert rig.registry.end_session(session, log_pb2.SESSION_END_GOODBYE, answer) == 1
    rig.commit()
    assert len(answer.outcomes) == 1
    assert rig.registry.ends_due == 1


def test_a_shard_that_arrives_brings_its_sessions(rig: Rig) -> None:
    """A new primary opens every session that owns something, with a full time to live."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.sessions.end(session)
    run(rig, 10_000)
    assert rig.registry.claim_shards([SHARD], rig.now_ms) == 1
    run(rig, 14_500)
    assert rig.ids(ORDERS) == ["x"]
    run(rig, 15_500)
    assert rig.ids(ORDERS) == []


def test_a_shard_that_arrives_saves_a_session_that_had_left_this_node(rig: Rig) -> None:
    """A session whose connection here just closed has a full time to live for what arrives."""
    wire = Wire("1")
    session, _, _ = rig.hello("a", wire)
    register(rig, session, "x")
    rig.sessions.unclaim(session, 1 << SHARD)
    rig.sessions.detach(session, wire, rig.now_ms)
    run(rig, 500)
    rig.registry.claim_shards([SHARD], rig.now_ms)
    run(rig, 5000)
    assert rig.ids(ORDERS) == ["x"]
    run(rig, 6500)
    assert rig.ids(ORDERS) == []


def test_a_shard_that_arrives_for_a_session_whose_end_failed(rig: Rig) -> None:
    """What arrives is not taken away with what the session had here before and is ending."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    register(rig, session, "y", key=BILLING)
    rig.sessions.unclaim(session, 1 << OTHER)
    rig.full = True
    rig.tick(6000)
    rig.commit()
    rig.full = False
    rig.registry.claim_shards([OTHER], rig.now_ms)
    wire = Wire("2")
    again, _, resumed = rig.hello("a", wire)
    assert resumed
    run(rig, 7000)
    assert (rig.ids(ORDERS), rig.ids(BILLING)) == ([], ["y"])
    assert again.shards == 1 << OTHER


def test_shards_that_leave_take_their_claims_along(rig: Rig) -> None:
    """Sessions own nothing here in shards that left; those idle by that are gone, silently."""
    gone, _, _ = rig.hello("gone", Wire("1"))
    stays, _, _ = rig.hello("stays", Wire("2"))
    both, _, _ = rig.hello("both", Wire("3"))
    for session in (gone, stays, both):
        register(rig, session, f"of-{session.id.hex()[:4]}")
    register(rig, both, "more", key=BILLING)
    gone_wire = gone.connection
    assert gone_wire is not None
    rig.sessions.detach(gone, gone_wire, 0)
    rig.registry.unclaim_shards([SHARD])
    assert rig.sessions.find(gone.id) is None
    assert rig.sessions.find(stays.id) is stays
    assert (stays.shards, both.shards) == (0, 1 << OTHER)
    run(rig, 20_000)
    assert len(rig.ids(ORDERS)) == 3
    assert rig.ids(BILLING) == []


def test_a_claim_is_the_primarys_to_answer(rig: Rig) -> None:
    """A node that may not write or does not know yet what was committed answers no claim."""
    session, _, _ = rig.hello("a", Wire("1"))
    for what, error in (
        ("replica", ShardMovedError),
        ("idle", ShardUnavailableError),
        ("unread", ShardUnavailableError),
    ):
        rig.places.set(SHARD, what)
        with pytest.raises(error):
            claimed(rig, session, "x")
    assert session.shards == 0


def test_a_claim_is_bounded(rig: Rig) -> None:
    """More claimed at once than allowed is refused."""
    session, _, _ = rig.hello("a", Wire("1"))
    with pytest.raises(LimitExceededError):
        claimed(rig, session, *(f"i{n}" for n in range(2 * limits.REGISTER_BATCH_MAX)))


def test_a_claim_lets_the_session_end_here(rig: Rig) -> None:
    """What was claimed goes with the session, though it was registered with another node."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.sessions.unclaim(session, 1 << SHARD)
    assert claimed(rig, session, "x") == []
    rig.registry.end_session(session, log_pb2.SESSION_END_GOODBYE, RetryEnds(rig))
    rig.commit()
    assert rig.ids(ORDERS) == []
