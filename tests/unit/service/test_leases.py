"""What may be asked for on behalf of a lease, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance, secret_of, session_of
from rig import Answer, RetryEnds, Rig, Wire

from ssgovern import limits
from ssgovern.errors import (
    DiskFullError,
    ErrorCode,
    InvalidArgumentError,
    LimitExceededError,
    NotOwnerError,
    OutcomeUnknownError,
    OverloadedError,
    SessionForeignError,
    ShardMovedError,
    ShardUnavailableError,
)
from ssgovern.model import Outcome, ServiceKey, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import native_pb2

SHARD = shard_of(*ORDERS)
TTL = 4_000


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.validate()


def lease_of(name: str, ttl_ms: int = TTL) -> native_pb2.Lease:
    return native_pb2.Lease(
        session_id=session_of(name), session_secret=secret_of(name), ttl_ms=ttl_ms
    )


def registration(
    lease: native_pb2.Lease, *ids: str, key: ServiceKey = ORDERS, persistent: bool = False
) -> native_pb2.RegisterRequest:
    request = native_pb2.RegisterRequest(lease=lease)
    for instance_id in ids:
        request.registrations.add(
            service=key_to_wire(key), instance=instance(instance_id, persistent=persistent)
        )
    return request


def propose(rig: Rig, request: native_pb2.RegisterRequest) -> Answer:
    answer = Answer()
    rig.registry.leases.register(request, answer, RetryEnds(rig), rig.now_ms)
    return answer


def register(rig: Rig, name: str, *ids: str, ttl_ms: int = TTL, key: ServiceKey = ORDERS) -> None:
    answer = propose(rig, registration(lease_of(name, ttl_ms), *ids, key=key))
    rig.commit()
    assert [outcome.error for _, outcome in answer.outcomes] == [None] * len(ids)


def renew(rig: Rig, name: str, key: ServiceKey = ORDERS) -> native_pb2.RenewResult:
    request = native_pb2.RenewRequest()
    request.renewals.add(
        service=key_to_wire(key), session_id=session_of(name), session_secret=secret_of(name)
    )
    [result] = rig.registry.leases.renew(request, rig.now_ms).results
    return result


def run(rig: Rig, until_ms: float) -> None:
    """Let time pass with everything committed as it comes."""
    while rig.now_ms + 250 <= until_ms:
        rig.tick(rig.now_ms + 250)
        rig.commit()


def lease(rig: Rig, name: str) -> Session:
    found = rig.sessions.find(session_of(name))
    assert found is not None
    return found


# --- life -----------------------------------------------------------------------------------


def test_it_lives_while_it_is_renewed(rig: Rig) -> None:
    """What a lease keeps goes when it was not renewed for its time to live, and not before."""
    register(rig, "l", "a", "b")
    for second in (3, 6, 9):
        run(rig, second * 1000.0)
        assert renew(rig, "l") == native_pb2.RenewResult(known=True, ttl_ms=TTL)
    run(rig, 12_900)
    assert rig.ids(ORDERS) == ["a", "b"]
    run(rig, 13_500)
    assert rig.ids(ORDERS) == []
    assert renew(rig, "l") == native_pb2.RenewResult()


def test_registering_renews(rig: Rig) -> None:
    """Whoever registers something for a lease is alive."""
    register(rig, "l", "a")
    run(rig, 3_000)
    register(rig, "l", "b")
    run(rig, 6_500)
    assert rig.ids(ORDERS) == ["a", "b"]


def test_without_a_time_to_live_it_has_the_usual(rig: Rig) -> None:
    """Who does not care is given the default, and is told of it."""
    register(rig, "l", "a", ttl_ms=0)
    assert renew(rig, "l").ttl_ms == limits.LEASE_TTL_MS_DEFAULT


def test_the_longest_promise_counts(rig: Rig) -> None:
    """A shorter time to live of a later registration takes nothing away."""
    register(rig, "l", "a", ttl_ms=10_000)
    register(rig, "l", "b", ttl_ms=2_000)
    assert renew(rig, "l").ttl_ms == 10_000
    run(rig, 9_750)
    assert rig.ids(ORDERS) == ["a", "b"]


def test_a_lease_with_nothing_left_is_forgotten(rig: Rig) -> None:
    """Removed by its owner, by an operator, or taken by another: nothing is left to renew."""
    session, _, _ = rig.hello("client", Wire("1"))
    for name, taken in (("l", "a"), ("m", "b"), ("n", "c")):
        register(rig, name, taken)
    removal = native_pb2.DeregisterRequest(service=key_to_wire(ORDERS), instance_id="a")
    removal.lease.CopyFrom(lease_of("l"))
    rig.registry.deregister(session, removal, Answer())
    removal = native_pb2.DeregisterRequest(
        service=key_to_wire(ORDERS), instance_id="b", any_owner=True
    )
    rig.registry.deregister(session, removal, Answer())
    register(rig, "o", "c")
    rig.commit()
    assert rig.ids(ORDERS) == ["c"]
    for name in ("l", "m", "n"):
        assert rig.sessions.find(session_of(name)) is None
        assert not renew(rig, name).known
    assert renew(rig, "o").known
    assert len(rig.registry.leases) == 1


def test_a_lease_whose_registration_was_refused_is_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log decided against leaves no lease behind."""
    monkeypatch.setattr(limits, "INSTANCES_PER_SERVICE_MAX", 1)
    register(rig, "l", "a")
    answer = propose(rig, registration(lease_of("m"), "b"))
    rig.commit()
    [(_, outcome)] = answer.outcomes
    assert isinstance(outcome.error, LimitExceededError)
    assert rig.sessions.find(session_of("m")) is None


def test_a_lease_whose_registration_the_disk_refused_is_forgotten(rig: Rig) -> None:
    """What is surely not registered is not said to be alive."""
    rig.full = True
    answer = propose(rig, registration(lease_of("l"), "a"))
    rig.commit()
    [(_, outcome)] = answer.outcomes
    assert isinstance(outcome.error, DiskFullError)
    assert rig.sessions.find(session_of("l")) is None
    assert not renew(rig, "l").known


def test_what_may_yet_be_committed_keeps_its_lease_until_it_expires(rig: Rig) -> None:
    """The end of a lease comes after all that may still be registered for it."""
    propose(rig, registration(lease_of("l"), "a"))
    [proposal] = rig.queue
    proposal.waiter.on_outcome(proposal, Outcome(error=OutcomeUnknownError("who knows")))
    assert rig.sessions.find(session_of("l")) is not None
    rig.tick(5_000)
    assert rig.sessions.find(session_of("l")) is None
    rig.commit()
    assert rig.ids(ORDERS) == []
    last = rig.records[-1][1]
    assert last.session_ended.session_id == session_of("l")


def test_a_registration_under_way_keeps_its_lease(rig: Rig) -> None:
    """A lease of which nothing is left yet, because nothing is committed yet, is known."""
    propose(rig, registration(lease_of("l"), "a"))
    assert renew(rig, "l").known
    rig.commit()
    propose(rig, registration(lease_of("l"), "b"))
    removal = native_pb2.DeregisterRequest(service=key_to_wire(ORDERS), instance_id="a")
    removal.lease.CopyFrom(lease_of("l"))
    session, _, _ = rig.hello("client", Wire("1"))
    rig.registry.deregister(session, removal, Answer())
    rig.commit()
    assert rig.ids(ORDERS) == ["b"]
    assert renew(rig, "l").known


def test_nothing_is_registered_after_its_end(rig: Rig) -> None:
    """Of a lease that expired and comes back at once, what is registered then stays."""
    register(rig, "l", "a", "b")
    rig.tick(5_000)
    assert rig.sessions.find(session_of("l")) is None
    assert not renew(rig, "l").known
    propose(rig, registration(lease_of("l"), "a"))
    rig.commit()
    assert rig.ids(ORDERS) == ["a"]
    assert renew(rig, "l").known
    run(rig, 8_500)
    assert rig.ids(ORDERS) == ["a"]


def test_an_end_that_the_log_refused_comes_before_what_is_next(rig: Rig) -> None:
    """A lease that should have ended and comes back begins anew."""
    register(rig, "l", "a", "b")
    rig.full = True
    run(rig, 5_000)
    rig.full = False
    assert rig.ids(ORDERS) == ["a", "b"]
    assert not renew(rig, "l").known
    register(rig, "l", "a")
    assert rig.ids(ORDERS) == ["a"]
    assert renew(rig, "l").known


# --- shards come and go -----------------------------------------------------------------------


def test_a_new_primary_gives_a_lease_its_own_time(rig: Rig) -> None:
    """Taken over, a lease has all of its time to live, which is in what it keeps."""
    register(rig, "l", "a", ttl_ms=20_000)
    rig.places.set(SHARD, "replica")
    rig.registry.unclaim_shards([SHARD])
    assert rig.sessions.find(session_of("l")) is None
    run(rig, 30_000)
    rig.places.set(SHARD, "primary")
    assert rig.registry.claim_shards([SHARD], rig.now_ms) == 1
    assert renew(rig, "l") == native_pb2.RenewResult(known=True, ttl_ms=20_000)
    run(rig, 49_750)
    assert rig.ids(ORDERS) == ["a"]
    run(rig, 50_500)
    assert rig.ids(ORDERS) == []


def test_elsewhere_it_cannot_be_renewed(rig: Rig) -> None:
    """Only the primary may say that a lease lives; whoever is none says whom to ask."""
    register(rig, "l", "a")
    rig.places.set(SHARD, "replica")
    rig.registry.unclaim_shards([SHARD])
    assert renew(rig, "l").error.code == ErrorCode.SHARD_MOVED
    with pytest.raises(ShardMovedError):
        propose(rig, registration(lease_of("l"), "a"))
    assert rig.sessions.find(session_of("l")) is None


def test_a_renewal_counts_while_nobody_may_act(rig: Rig) -> None:
    """It is refused, because nobody can promise anything, and heard all the same."""
    register(rig, "l", "a")
    rig.places.set(SHARD, "idle")
    for second in range(1, 20):
        run(rig, second * 1000.0)
        assert renew(rig, "l").error.code == ErrorCode.SHARD_UNAVAILABLE
    with pytest.raises(ShardUnavailableError):
        propose(rig, registration(lease_of("new"), "b"))
    assert rig.sessions.find(session_of("new")) is None
    rig.places.set(SHARD, "primary")
    assert renew(rig, "l").known
    run(rig, 22_000)
    assert rig.ids(ORDERS) == ["a"]


def test_before_all_is_applied_nobody_is_told_that_it_is_gone(rig: Rig) -> None:
    """A primary that has yet to apply what was committed before it does not answer."""
    rig.places.set(SHARD, "unread")
    assert renew(rig, "l").error.code == ErrorCode.SHARD_UNAVAILABLE


# --- who it is --------------------------------------------------------------------------------


def test_the_secret_is_asked_for(rig: Rig) -> None:
    """Whoever shows another secret changes nothing, in any request."""
    register(rig, "l", "a")
    forged = native_pb2.Lease(session_id=session_of("l"), session_secret=secret_of("m"))
    session, _, _ = rig.hello("client", Wire("1"))
    with pytest.raises(SessionForeignError):
        propose(rig, registration(forged, "b"))
    named = {"service": key_to_wire(ORDERS), "instance_id": "a", "lease": forged}
    with pytest.raises(SessionForeignError):
        rig.registry.deregister(session, native_pb2.DeregisterRequest(**named), Answer())
    with pytest.raises(SessionForeignError):
        rig.registry.update(session, native_pb2.UpdateRequest(**named), Answer())
    request = native_pb2.RenewRequest()
    request.renewals.add(
        service=key_to_wire(ORDERS), session_id=session_of("l"), session_secret=secret_of("m")
    )
    [result] = rig.registry.leases.renew(request, 0.0).results
    assert result.error.code == ErrorCode.SESSION_FOREIGN
    assert not result.known
    rig.commit()
    assert rig.ids(ORDERS) == ["a"]


def test_who_asks_is_the_lease_and_not_the_session(rig: Rig) -> None:
    """Asked for by a session, a change is made as the lease named; another's is refused."""
    register(rig, "l", "a")
    session, _, _ = rig.hello("client", Wire("1"))
    refused, removed = Answer(), Answer()
    named = {"service": key_to_wire(ORDERS), "instance_id": "a"}
    rig.registry.deregister(
        session, native_pb2.DeregisterRequest(lease=lease_of("m"), **named), refused
    )
    rig.registry.deregister(
        session, native_pb2.DeregisterRequest(lease=lease_of("l"), **named), removed
    )
    rig.commit()
    assert isinstance(refused.outcomes[0][1].error, NotOwnerError)
    assert removed.outcomes[0][1].removed


def test_what_a_client_says_of_its_lease_is_not_believed(rig: Rig) -> None:
    """A session's instance has no lease, whatever it says, and would not be kept by one."""
    session, _, _ = rig.hello("client", Wire("1"))
    request = native_pb2.RegisterRequest()
    request.registrations.add(
        service=key_to_wire(ORDERS), instance=instance("a", lease_ms=3_600_000)
    )
    rig.register(session, request, Answer())
    rig.commit()
    [entry] = rig.states[SHARD].entries()
    assert entry.lease_ms == 0


def test_a_lease_and_a_client_are_not_one(rig: Rig) -> None:
    """A client's secret makes no lease, and a lease's makes no connection."""
    rig.hello("client", Wire("1"))
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(lease_of("client"), "a"))
    register(rig, "l", "a")
    with pytest.raises(InvalidArgumentError):
        rig.hello("l", Wire("2"))
    assert renew(rig, "l").known
    assert not renew(rig, "client").known


def test_one_lease_is_of_one_shard(rig: Rig) -> None:
    """Two shards in one request, or in one lease, are refused, and nothing of it is done."""
    request = registration(lease_of("l"), "a")
    request.MergeFrom(registration(lease_of("l"), "b", key=BILLING))
    with pytest.raises(InvalidArgumentError):
        propose(rig, request)
    assert rig.sessions.find(session_of("l")) is None
    register(rig, "l", "a")
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(lease_of("l"), "b", key=BILLING))
    assert not renew(rig, "l", BILLING).known
    rig.commit()
    assert rig.ids(BILLING) == []


@pytest.mark.parametrize("ttl_ms", [1, limits.LEASE_TTL_MS_MIN - 1, limits.LEASE_TTL_MS_MAX + 1])
def test_a_time_to_live_has_limits(rig: Rig, ttl_ms: int) -> None:
    """Neither so short that nobody could keep it up, nor for ever."""
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(lease_of("l", ttl_ms), "a"))
    assert rig.sessions.find(session_of("l")) is None


@pytest.mark.parametrize(
    "lease",
    [
        native_pb2.Lease(session_id=b"short", session_secret=secret_of("l")),
        native_pb2.Lease(session_id=session_of("l"), session_secret=b"short"),
        native_pb2.Lease(session_id=session_of("l")),
        native_pb2.Lease(ttl_ms=TTL),
    ],
)
def test_half_a_lease_is_none(rig: Rig, lease: native_pb2.Lease) -> None:
    """An id and a secret of the right length, or nothing at all."""
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(lease, "a", persistent=True))


def test_of_nobody_may_only_be_what_stays(rig: Rig) -> None:
    """Without an owner an instance has to be persistent; then nothing ends it but a removal."""
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(native_pb2.Lease(), "a"))
    propose(rig, registration(native_pb2.Lease(), "p", persistent=True))
    rig.commit()
    run(rig, 60_000)
    assert rig.ids(ORDERS) == ["p"]
    assert len(rig.sessions) == 0


def test_too_much_at_once_is_refused(rig: Rig) -> None:
    """Renewals and registrations of one request are limited; a full log leaves no lease behind."""
    renewal = native_pb2.Renewal(service=key_to_wire(ORDERS))
    with pytest.raises(LimitExceededError):
        rig.registry.leases.renew(
            native_pb2.RenewRequest(renewals=[renewal] * (limits.RENEWALS_MAX + 1)), 0.0
        )
    with pytest.raises(InvalidArgumentError):
        propose(rig, registration(lease_of("l")))
    rig.room = 0
    with pytest.raises(OverloadedError):
        propose(rig, registration(lease_of("l"), "a"))
    assert rig.sessions.find(session_of("l")) is None


def test_a_bad_renewal_spares_the_others(rig: Rig) -> None:
    """In one request each renewal has its own outcome."""
    register(rig, "l", "a")
    request = native_pb2.RenewRequest()
    request.renewals.add(session_id=b"", session_secret=b"")
    request.renewals.add(
        service=key_to_wire(ORDERS), session_id=session_of("l"), session_secret=secret_of("l")
    )
    bad, good = rig.registry.leases.renew(request, 0.0).results
    assert bad.error.code == ErrorCode.INVALID_ARGUMENT
    assert good.known
    assert rig.registry.leases.renewals == 2
