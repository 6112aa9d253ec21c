"""What subscribers are told, however fast or slow they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance
from rig import Answer, Follower, Rig, Wire

from ssgovern import limits
from ssgovern.errors import LimitExceededError, OverloadedError
from ssgovern.model import LogPosition, Pattern, ServiceKey, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2

ALL = Pattern("prod", "default", "")


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.validate()


@pytest.fixture
def owner(rig: Rig) -> Session:
    return rig.hello("owner", Wire("0"))[0]


def register(rig: Rig, session: Session, *ids: str, key: ServiceKey = ORDERS, pad: int = 0) -> None:
    """Register and commit."""
    for instance_id in ids:
        request = native_pb2.RegisterRequest()
        request.registrations.add(
            service=key_to_wire(key), instance=instance(instance_id, metadata={"pad": "x" * pad})
        )
        rig.register(session, request, Answer())
    rig.commit()


def deregister(rig: Rig, session: Session, *ids: str, key: ServiceKey = ORDERS) -> None:
    """Deregister and commit."""
    for instance_id in ids:
        request = native_pb2.DeregisterRequest(service=key_to_wire(key), instance_id=instance_id)
        rig.registry.deregister(session, request, Answer())
    rig.commit()


def kinds(follower: Follower) -> list[str]:
    return [line.split()[0] for line in follower.story]


def test_first_a_snapshot_then_deltas(rig: Rig, owner: Session) -> None:
    """A subscriber gets the list once, and then only what changes."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    register(rig, owner, "b", "c")
    rig.tell()
    deregister(rig, owner, "a")
    rig.tell()
    assert kinds(follower) == ["snapshot", "delta", "delta"]
    assert follower.agrees(ORDERS)


def test_a_service_that_is_not_there_yet(rig: Rig, owner: Session) -> None:
    """An empty list is told at once, because it is true; the first instance is all there is."""
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    assert follower.lists[ORDERS] == {}
    register(rig, owner, "a")
    rig.tell()
    assert kinds(follower) == ["snapshot", "snapshot"]
    assert follower.agrees(ORDERS)


def test_changes_while_subscribing_are_told_once(rig: Rig, owner: Session) -> None:
    """What committed before the first list left is in it and not told again."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    register(rig, owner, "b")
    rig.tell()
    follower.catch_up()
    rig.tell()
    assert kinds(follower) == ["snapshot"]
    assert follower.agrees(ORDERS)


def test_a_slow_subscriber_gets_one_delta_for_many(rig: Rig, owner: Session) -> None:
    """Changes that a subscriber could not take collapse, and nothing is kept of each."""
    register(rig, owner, *(f"i{n}" for n in range(10)))
    slow, fast = Follower(rig), Follower(rig)
    for follower in (slow, fast):
        follower.subscribe(ORDERS)
        follower.catch_up()
    slow.takes = False
    for n in range(20):
        register(rig, owner, f"i{n % 3}")
        rig.tell()
    assert len(slow.behind) == 1
    slow.takes = True
    slow.catch_up()
    assert kinds(slow) == ["snapshot", "delta"]
    assert kinds(fast) == ["snapshot"] + ["delta"] * 20
    assert slow.agrees(ORDERS)
    assert fast.agrees(ORDERS)


def test_resuming_from_a_revision(rig: Rig, owner: Session) -> None:
    """On a new connection a subscriber is told what it missed, or that it missed nothing."""
    register(rig, owner, *(f"i{n}" for n in range(10)))
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    rig.push.forget(follower, [ORDERS])
    follower.resume(ORDERS)
    follower.catch_up()
    rig.push.forget(follower, [ORDERS])
    register(rig, owner, "i3")
    deregister(rig, owner, "i4")
    follower.resume(ORDERS)
    follower.catch_up()
    assert kinds(follower) == ["snapshot", "current", "delta"]
    assert follower.agrees(ORDERS)


def test_resuming_on_a_restarted_node(rig: Rig, owner: Session) -> None:
    """A new epoch alone makes no subscriber take its list again."""
    register(rig, owner, *(f"i{n}" for n in range(10)))
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    rig.push.forget(follower, [ORDERS])
    rig.restart()
    follower.resume(ORDERS)
    follower.catch_up()
    register(rig, owner, "new")
    rig.tell()
    assert kinds(follower) == ["snapshot", "current", "delta"]
    assert follower.agrees(ORDERS)


def test_a_pattern_covers_what_comes_later(rig: Rig, owner: Session) -> None:
    """A subscription by prefix gets what there is and what there will be."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.subscribe(Pattern("prod", "default", "ord"))
    follower.catch_up()
    register(rig, owner, "b", key=ServiceKey("prod", "default", "ordinary"))
    register(rig, owner, "c", key=BILLING)
    rig.tell()
    assert sorted(key.service for key in follower.lists) == ["orders", "ordinary"]
    assert all(follower.agrees(key) for key in follower.lists)


def test_a_pattern_hears_of_the_end_of_what_it_knew(rig: Rig, owner: Session) -> None:
    """A service that vanished while its subscriber was away is told to be empty."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.subscribe(ALL)
    follower.catch_up()
    rig.push.forget(follower, [ALL])
    deregister(rig, owner, "a")
    follower.resume(ALL)
    follower.catch_up()
    assert follower.lists[ORDERS] == {}


def test_two_subscriptions_to_one_service_tell_once(rig: Rig, owner: Session) -> None:
    """However many subscriptions cover a service, a change is told once per subscriber."""
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.subscribe(ALL)
    follower.catch_up()
    register(rig, owner, "a")
    rig.tell()
    rig.push.unsubscribe(follower, ORDERS)
    register(rig, owner, "b")
    rig.tell()
    assert kinds(follower) == ["snapshot", "snapshot", "delta"]
    rig.push.unsubscribe(follower, ALL)
    register(rig, owner, "c")
    rig.tell()
    assert len(follower.story) == 3


def test_frames_of_one_message_stay_together(rig: Rig, owner: Session) -> None:
    """While a long list is half told, nothing comes between, and what changed follows."""
    register(rig, owner, *(f"i{n}" for n in range(300)), pad=3500)
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.credit = 2
    follower.catch_up()
    assert follower.story == []
    register(rig, owner, "i7")
    register(rig, owner, "x", key=BILLING)
    rig.tell()
    follower.credit = None
    follower.catch_up()
    assert kinds(follower) == ["snapshot", "delta"]
    assert follower.agrees(ORDERS)


def test_a_subscriber_that_left_is_forgotten(rig: Rig, owner: Session) -> None:
    """Nothing is kept of a subscriber that is gone, half told or not."""
    register(rig, owner, *(f"i{n}" for n in range(300)), pad=3500)
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.credit = 1
    follower.catch_up()
    rig.push.forget(follower, [ORDERS])
    assert follower.behind == {}
    assert rig.push._half_told == {}
    assert rig.push.subscriptions.count == 0


def test_what_waits_to_be_told_is_bounded_by_services(rig: Rig, owner: Session) -> None:
    """Changes of one service that nobody told yet become one."""
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    for n in range(50):
        register(rig, owner, f"i{n}")
    assert len(rig.push._pending) == 1
    rig.tell()
    assert follower.agrees(ORDERS)


def test_a_snapshot_is_encoded_once_for_many(rig: Rig, owner: Session) -> None:
    """Subscribers of an unchanged service get the very same bytes."""
    register(rig, owner, *(f"i{n}" for n in range(20)))
    taken: list[bytes] = []
    for _ in range(5):
        follower = Follower(rig)
        follower.take = taken.append  # type: ignore[method-assign]
        follower.subscribe(ORDERS)
        follower.catch_up()
    assert all(frame is taken[0] for frame in taken)


def test_a_service_that_came_again_under_its_name(rig: Rig, owner: Session) -> None:
    """A service forgotten and registered again within one batch is told in order."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    shard = shard_of(*ORDERS)
    neighbour = next(
        key
        for n in range(10_000)
        if shard_of(*(key := ServiceKey("prod", "default", f"n{n}"))) == shard
    )
    # All of it is one commit: the history between pushes the old service out.
    request = native_pb2.DeregisterRequest(service=key_to_wire(ORDERS), instance_id="a")
    rig.registry.deregister(owner, request, Answer())
    for n in range(limits.HISTORY_CHANGES_PER_SHARD + 1):
        one = native_pb2.RegisterRequest()
        one.registrations.add(service=key_to_wire(neighbour), instance=instance(f"i{n}"))
        rig.register(owner, one, Answer())
    again = native_pb2.RegisterRequest()
    again.registrations.add(service=key_to_wire(ORDERS), instance=instance("b"))
    rig.register(owner, again, Answer())
    rig.commit()
    rig.tell()
    follower.catch_up()
    assert sorted(follower.lists[ORDERS]) == ["b"]
    assert follower.agrees(ORDERS)


def test_a_position_of_a_lost_branch_is_answered_with_a_snapshot(rig: Rig, owner: Session) -> None:
    """A position this log never had is not believed."""
    register(rig, owner, "a")
    follower = Follower(rig)
    follower.positions[ORDERS] = LogPosition(0, 99)
    follower.resume(ORDERS)
    follower.catch_up()
    assert kinds(follower) == ["snapshot"]


def test_the_end_of_a_session_is_one_change_per_service(rig: Rig, owner: Session) -> None:
    """However many instances go at once, each service is told once."""
    register(rig, owner, *(f"i{n}" for n in range(50)))
    follower = Follower(rig)
    follower.subscribe(ORDERS)
    follower.catch_up()
    rig.registry.end_session(owner, log_pb2.SESSION_END_GOODBYE, Answer())
    rig.commit()
    rig.tell()
    assert kinds(follower) == ["snapshot", "delta"]
    assert follower.lists[ORDERS] == {}


class Watched(dict[ServiceKey, LogPosition]):
    """Counts how often it is walked from its beginning."""

    walks = 0

    def __iter__(self) -> Iterator[ServiceKey]:
        self.walks += 1
        return super().__iter__()


def test_what_a_subscriber_lacks_is_looked_up_in_slices(rig: Rig) -> None:
    """Walking a dict that is emptied from the front, once per item, takes time by the square."""
    follower = Follower(rig)
    follower.subscribe(
        ALL, {ServiceKey("prod", "default", f"s{n}"): LogPosition(1, 1) for n in range(1000)}
    )
    follower.behind = Watched(follower.behind)
    follower.catch_up()
    assert len(follower.lists) == 1000
    assert follower.behind.walks <= 1000 / limits.CATCH_UP_SLICE + 2


def test_a_pattern_that_covers_too_much(rig: Rig) -> None:
    """A pattern over more services than the limit is refused and leaves nothing behind."""
    most = limits.SERVICES_PER_PATTERN_MAX
    rig.registry.directory.fill(ServiceKey("prod", "default", f"s{n:06}") for n in range(most + 1))
    follower = Follower(rig)
    with pytest.raises(LimitExceededError):
        follower.subscribe(ALL)
    assert (len(follower.behind), rig.push.subscriptions.count) == (0, 0)
    rig.registry.directory.fill([])


def test_who_takes_nothing_cannot_ask_for_ever(rig: Rig) -> None:
    """Positions a subscriber names are kept until it is told, so they are bounded too."""
    follower = Follower(rig)
    follower.takes = False

    def ask(number: int) -> None:
        known = {
            ServiceKey("prod", "default", f"s{number}-{n}"): LogPosition(1, 1)
            for n in range(30_000)
        }
        follower.subscribe(ALL, known)
        rig.push.unsubscribe(follower, ALL)

    for number in range(4):
        ask(number)
    with pytest.raises(OverloadedError):
        ask(4)
