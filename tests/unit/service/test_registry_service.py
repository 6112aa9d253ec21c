"""What the node's use cases propose, refuse and promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance
from rig import Answer, Rig, Wire

from ssgovern import limits
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    OverloadedError,
    SsGovernError,
)
from ssgovern.model import ServiceKey, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.validate()


def request_of(
    *instances: model_pb2.Instance, key: ServiceKey = ORDERS
) -> native_pb2.RegisterRequest:
    request = native_pb2.RegisterRequest()
    for item in instances:
        request.registrations.add(service=key_to_wire(key), instance=item)
    return request


def register(rig: Rig, session: Session, *ids: str, key: ServiceKey = ORDERS) -> Answer:
    answer = Answer()
    rig.register(session, request_of(*(instance(i) for i in ids), key=key), answer)
    return answer


def two_shards() -> tuple[ServiceKey, ServiceKey]:
    assert shard_of(*ORDERS) != shard_of(*BILLING)
    return ORDERS, BILLING


def test_a_batch_is_proposed_whole_or_not_at_all(rig: Rig) -> None:
    """One bad instance in a batch, or too little room, leaves nothing in the log."""
    session, _, _ = rig.hello("a", Wire("1"))
    bad = request_of(instance("x"), instance("y", port=0))
    with pytest.raises(InvalidArgumentError):
        rig.register(session, bad, Answer())
    rig.room = 1
    with pytest.raises(OverloadedError):
        register(rig, session, "x", "y")
    assert rig.queue == []


def test_an_instance_twice_in_a_batch(rig: Rig) -> None:
    """The same id twice is refused, also where one of them is filled in; in two services not."""
    session, _, _ = rig.hello("a", Wire("1"))
    twice = request_of(instance("10.0.0.1:8080"), instance(""))
    with pytest.raises(InvalidArgumentError):
        rig.register(session, twice, Answer())
    request = request_of(instance("x"))
    request.MergeFrom(request_of(instance("x"), key=BILLING))
    assert len(rig.register(session, request, Answer())) == 2
    rig.commit()


@pytest.mark.parametrize("count", [0, limits.REGISTER_BATCH_MAX + 1])
def test_size_of_a_batch(rig: Rig, count: int) -> None:
    """An empty batch and one beyond the limit are refused."""
    session, _, _ = rig.hello("a", Wire("1"))
    with pytest.raises(SsGovernError):
        register(rig, session, *(f"i{n}" for n in range(count)))


def test_the_end_of_a_session_covers_what_is_in_flight(rig: Rig) -> None:
    """What was proposed before a session's end goes with it, committed yet or not."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.registry.end_session(session, log_pb2.SESSION_END_GOODBYE, Answer())
    rig.commit()
    assert rig.ids(ORDERS) == []
    assert rig.sessions.find(session.id) is None


def test_a_session_that_starts_anew_keeps_what_it_then_registers(rig: Rig) -> None:
    """The end of a session takes nothing that came after it, though the id is the same."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    rig.registry.end_session(session, log_pb2.SESSION_END_EXPIRED, Answer())
    again, _, resumed = rig.hello("a", Wire("2"))
    assert not resumed
    register(rig, again, "y")
    rig.commit()
    assert rig.ids(ORDERS) == ["y"]


def test_an_end_the_log_refused_is_repeated(rig: Rig) -> None:
    """A session whose end did not fit on the disk ends when there is space again."""
    one, other = two_shards()
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x", key=one)
    register(rig, session, "y", key=other)
    rig.commit()
    rig.full = True
    rig.tick(6000)
    rig.commit()
    assert rig.ids(one) == ["x"]
    rig.full = False
    rig.tick(20_000)
    rig.commit()
    assert rig.ids(one) == rig.ids(other) == []
    assert len(rig.sessions) == 0


def test_a_session_that_ended_in_part_is_not_resumed(rig: Rig) -> None:
    """A client is told that it is resumed only if all that it registered is still there."""
    one, other = two_shards()
    wire = Wire("1")
    session, _, _ = rig.hello("a", wire)
    register(rig, session, "x", key=one)
    register(rig, session, "y", key=other)
    rig.commit()
    rig.tick(6000)
    rig.commit(1)
    rig.full = True
    rig.commit()
    assert len(rig.ids(one) + rig.ids(other)) == 1
    rig.full = False
    again, _, resumed = rig.hello("a", Wire("2"))
    assert not resumed
    register(rig, again, "x", key=one)
    rig.commit()
    # What it did not register again is not there either: the end was for all of it.
    assert (rig.ids(one), rig.ids(other)) == (["x"], [])
    assert rig.hello("a", Wire("3"))[2]


def test_superseding(rig: Rig) -> None:
    """The second connection of a session gets it, and the first is named to be closed."""
    first, second = Wire("1"), Wire("2")
    session, before, resumed = rig.hello("a", first)
    assert (before, resumed) == (None, False)
    again, before, resumed = rig.hello("a", second)
    assert (again, before, resumed) == (session, first, True)


def test_reads_see_only_what_is_committed(rig: Rig) -> None:
    """A proposed instance is nowhere until it is committed."""
    session, _, _ = rig.hello("a", Wire("1"))
    register(rig, session, "x")
    request = native_pb2.GetRequest(service=key_to_wire(ORDERS))
    before = native_pb2.GetResponse.FromString(rig.registry.get(request))
    assert list(before.instances) == []
    rig.commit()
    after = native_pb2.GetResponse.FromString(rig.registry.get(request))
    assert [found.id for found in after.instances] == ["x"]
    assert (after.epoch, after.revision) == (1, before.revision + 1)


def listed(rig: Rig, **fields: object) -> tuple[list[str], str]:
    request = native_pb2.ListServicesRequest(namespace="prod", **fields)  # type: ignore[arg-type]
    page = rig.registry.list_services(request)
    return [f"{s.service.group}/{s.service.service}" for s in page.services], page.next_page_token


def test_listing_filters(rig: Rig) -> None:
    """Namespace, group and prefix each narrow the list; services without instances are not in."""
    session, _, _ = rig.hello("a", Wire("1"))
    for namespace, group, service in [
        ("prod", "g1", "orders"),
        ("prod", "g1", "order-log"),
        ("prod", "g1", "billing"),
        ("prod", "g2", "orders"),
        ("test", "g1", "orders"),
    ]:
        register(rig, session, "x", key=ServiceKey(namespace, group, service))
    rig.commit()
    assert listed(rig)[0] == ["g1/billing", "g1/order-log", "g1/orders", "g2/orders"]
    assert listed(rig, group="g1", prefix="order")[0] == ["g1/order-log", "g1/orders"]
    assert listed(rig, prefix="orders")[0] == ["g1/orders", "g2/orders"]
    assert listed(rig, group="g3")[0] == []
    request = native_pb2.DeregisterRequest(
        service=key_to_wire(ServiceKey("prod", "g1", "billing")), instance_id="x"
    )
    rig.registry.deregister(session, request, Answer())
    rig.commit()
    assert listed(rig)[0] == ["g1/order-log", "g1/orders", "g2/orders"]


@pytest.mark.parametrize(
    "fields", [{"group": "a*"}, {"prefix": "a b"}, {"prefix": "x" * 300}, {"group": "@@"}]
)
def test_listing_what_cannot_be(rig: Rig, fields: dict[str, str]) -> None:
    """A filter that no name could match is an error, not an empty list."""
    with pytest.raises((InvalidArgumentError, LimitExceededError)):
        listed(rig, **fields)
