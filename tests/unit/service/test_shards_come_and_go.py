"""What becomes of subscribers, lists and sessions when shards leave a node and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance
from rig import Answer, Follower, Rig, Wire

from ssgovern.errors import ShardMovedError
from ssgovern.model import SHARDS, LogPosition, Pattern, ServiceKey, ShardId, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.registry.snapshot import capture, encode_chunks, restore
from ssgovern.registry.state import ShardState
from ssgovern.registry.subscriptions import MaskedPattern, Target
from ssgovern.service.placement import mask_of, mask_to_wire
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2

ALL = Pattern("prod", "default", "")
SHARD = shard_of(*ORDERS)
OTHER = shard_of(*BILLING)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.validate()


@pytest.fixture
def owner(rig: Rig) -> Session:
    return rig.hello("owner", Wire("0"))[0]


def register(rig: Rig, session: Session, *ids: str, key: ServiceKey = ORDERS) -> None:
    """Register and commit."""
    request = native_pb2.RegisterRequest()
    for instance_id in ids:
        request.registrations.add(service=key_to_wire(key), instance=instance(instance_id))
    rig.register(session, request, Answer())
    rig.commit()


def deregister(rig: Rig, session: Session, instance_id: str, *, key: ServiceKey = ORDERS) -> None:
    """Deregister and commit."""
    request = native_pb2.DeregisterRequest(service=key_to_wire(key), instance_id=instance_id)
    rig.registry.deregister(session, request, Answer())
    rig.commit()


def followed(rig: Rig, target: Target = ORDERS) -> Follower:
    """Return a follower that is up to date."""
    follower = Follower(rig)
    follower.subscribe(target)
    follower.catch_up()
    return follower


def copied(state: ShardState) -> ShardState:
    """Return a state as it is after a snapshot was taken elsewhere and installed here."""
    copy = ShardState(state.shard)
    restore(copy, state.position, encode_chunks(capture(state)))
    return copy


def begin_epoch(rig: Rig, shard: ShardId) -> None:
    """Let the next epoch begin on the state that is here."""
    rig.begin_epoch(shard)
    rig.commit()


def leave(rig: Rig, shard: ShardId = SHARD) -> ShardState:
    """Let a shard leave the node; return its state, which goes on elsewhere."""
    state = rig.states[shard]
    rig.places.set(shard, "elsewhere")
    rig.registry.drop_shard(shard)
    return state


def come_back(rig: Rig, state: ShardState) -> None:
    """Let a shard come back with a state."""
    rig.places.set(state.shard, "primary")
    rig.registry.adopt_shard(state.shard, state)


def told(follower: Follower) -> list[str]:
    """Return what it was told since the last call, in short."""
    lines, follower.story = follower.story, []
    return lines


@pytest.mark.parametrize("target", [ORDERS, ALL, MaskedPattern(ALL, 1 << SHARD)])
def test_a_shard_that_leaves_empties_nobodys_list(rig: Rig, owner: Session, target: Target) -> None:
    """When a shard leaves, its followers are told nothing and keep what they know."""
    register(rig, owner, "a", "b")
    follower = followed(rig, target)
    told(follower)
    leave(rig)
    rig.tell()
    follower.catch_up()
    assert told(follower) == []
    assert sorted(follower.lists[ORDERS]) == ["a", "b"]
    assert len(rig.registry.directory) == 0


@pytest.mark.parametrize("target", [ORDERS, ALL, MaskedPattern(ALL, 1 << SHARD)])
def test_a_shard_that_returns_brings_its_followers_up_to_date(
    rig: Rig, owner: Session, target: Target
) -> None:
    """What changed while the shard was away is told when it is back, and then goes on."""
    register(rig, owner, "a", "b")
    follower = followed(rig, target)
    state = leave(rig)
    away = copied(state)
    record = log_pb2.Record()
    record.session_ended.session_id = owner.id
    away.apply(state.position.epoch, state.position.revision + 1, record)
    come_back(rig, away)
    follower.catch_up()
    assert follower.lists[ORDERS] == {}
    begin_epoch(rig, SHARD)
    register(rig, owner, "c")
    rig.tell()
    assert follower.agrees(ORDERS)


def test_a_shard_that_returns_unchanged_costs_no_list(rig: Rig, owner: Session) -> None:
    """Followers of a service that did not change are told that they have it."""
    register(rig, owner, "a")
    follower = followed(rig)
    told(follower)
    come_back(rig, copied(leave(rig)))
    follower.catch_up()
    assert [line.split()[0] for line in told(follower)] == ["current"]


def test_a_service_that_vanished_meanwhile(rig: Rig, owner: Session) -> None:
    """A service that the returned shard has never heard of is told as empty: now that is true."""
    register(rig, owner, "a")
    follower = followed(rig, ALL)
    leave(rig)
    state = ShardState(SHARD)
    state.position = LogPosition(9, 100)
    state.epoch_starts = [LogPosition(9, 50)]
    come_back(rig, state)
    follower.catch_up()
    assert follower.lists[ORDERS] == {}


def test_nothing_is_told_before_the_shard_is_fit(rig: Rig, owner: Session) -> None:
    """A state that is still being filled is told to nobody, whatever happens in it."""
    register(rig, owner, "a")
    follower = followed(rig)
    never_told = Follower(rig)
    never_told.subscribe(ORDERS)
    leave(rig)
    never_told.catch_up()
    rig.registry.adopt_shard(SHARD, ShardState(SHARD))
    told(follower)
    begin_epoch(rig, SHARD)
    rig.places.set(SHARD, "primary")
    register(rig, owner, "b", "c")
    rig.tell()
    for each in (follower, never_told):
        each.catch_up()
        assert told(each) == []
    rig.registry.resume_shard(SHARD)
    for each in (follower, never_told):
        each.catch_up()
        assert each.agrees(ORDERS)


def test_a_replaced_state_carries_on_from_what_was_told(rig: Rig, owner: Session) -> None:
    """Installing a snapshot over a state that lagged tells followers the difference."""
    register(rig, owner, "a")
    behind = copied(rig.states[SHARD])
    follower = followed(rig)
    register(rig, owner, "b")
    newer = copied(rig.states[SHARD])
    # As if the snapshot had come to a replica that knew of "a" only.
    rig.push.offer([])
    rig.push._pending.clear()
    rig.registry._states[SHARD] = behind
    rig.places.set(SHARD, "replica")
    rig.registry.adopt_shard(SHARD, newer)
    follower.catch_up()
    assert follower.agrees(ORDERS)
    assert len(rig.registry.directory) == 1


@pytest.mark.parametrize("later", [False, True])
def test_what_waits_to_be_told_is_not_lost_by_a_replaced_state(
    rig: Rig, owner: Session, later: bool
) -> None:
    """A change that was committed, offered or being told when its state was replaced arrives."""
    register(rig, owner, "a", "z")
    followers = [followed(rig) for _ in range(3)]
    for each in followers:
        each.may_repeat = True
    register(rig, owner, "b")
    telling = rig.push.next_change()
    assert telling is not None
    change, frames, audience = telling
    rig.push.tell(audience[0], change, frames)
    if later:
        deregister(rig, owner, "a")
    rig.registry.adopt_shard(SHARD, copied(rig.states[SHARD]))
    for subscriber in audience[1:]:
        rig.push.tell(subscriber, change, frames)
    rig.tell()
    for each in followers:
        each.catch_up()
        assert each.agrees(ORDERS), each.story


def test_a_change_that_was_not_offered_is_told_after_a_replaced_state(
    rig: Rig, owner: Session
) -> None:
    """What a state applied last before it was replaced is in the lists of its followers."""
    register(rig, owner, "a")
    follower = followed(rig)
    state = rig.states[SHARD]
    record = log_pb2.Record()
    record.session_ended.session_id = owner.id
    state.apply(1, state.position.revision + 1, record)
    rig.registry.adopt_shard(SHARD, copied(state))
    follower.catch_up()
    assert follower.lists[ORDERS] == {}
    assert len(rig.registry.directory) == 0
    begin_epoch(rig, SHARD)


def test_another_branch_takes_the_list_again(rig: Rig, owner: Session) -> None:
    """Who was told of entries that the returned log does not have gets the list whole."""
    register(rig, owner, "a")
    other_branch = copied(rig.states[SHARD])
    register(rig, owner, "b")
    follower = followed(rig)
    leave(rig)
    other_branch.position = LogPosition(2, other_branch.position.revision + 5)
    other_branch.epoch_starts.append(LogPosition(2, other_branch.position.revision - 4))
    come_back(rig, other_branch)
    told(follower)
    follower.catch_up()
    assert [line.split()[0] for line in told(follower)] == ["snapshot"]
    assert sorted(follower.lists[ORDERS]) == ["a"]


def test_unsubscribing_from_a_shard_that_is_away(rig: Rig, owner: Session) -> None:
    """A subscription ends as usual while its shard is away, and nothing comes after."""
    register(rig, owner, "a")
    follower = followed(rig)
    state = leave(rig)
    rig.push.unsubscribe(follower, ORDERS)
    told(follower)
    come_back(rig, copied(state))
    follower.catch_up()
    assert told(follower) == []
    assert rig.push.subscriptions.count == 0


def test_a_slow_follower_of_a_shard_that_leaves(rig: Rig, owner: Session) -> None:
    """One that could not take what it lacked gets it when the shard is back, and nothing false."""
    register(rig, owner, "a", "z")
    follower = followed(rig)
    follower.takes = False
    register(rig, owner, "b")
    rig.tell()
    state = leave(rig)
    follower.takes = True
    told(follower)
    follower.catch_up()
    assert told(follower) == []
    come_back(rig, copied(state))
    follower.catch_up()
    assert follower.agrees(ORDERS)


def test_a_follower_that_is_slow_all_the_while(rig: Rig, owner: Session) -> None:
    """One that could not take what it lacked before the shard left still gets that after."""
    register(rig, owner, "a", "z")
    follower = followed(rig)
    follower.takes = False
    register(rig, owner, "b")
    rig.tell()
    come_back(rig, copied(leave(rig)))
    follower.takes = True
    follower.catch_up()
    assert follower.agrees(ORDERS)


def test_an_epoch_that_begins_costs_followers_no_list(rig: Rig, owner: Session) -> None:
    """Positions told around a change of primary lie on the log, so that they can be resumed."""
    register(rig, owner, *(f"i{n}" for n in range(5)))
    follower = followed(rig)
    register(rig, owner, "i1")
    begin_epoch(rig, SHARD)
    rig.tell()
    assert follower.positions[ORDERS].epoch == 1
    rig.push.forget(follower, [ORDERS])
    follower.resume(ORDERS)
    told(follower)
    follower.catch_up()
    assert [line.split()[0] for line in told(follower)] == ["current"]


def test_a_list_of_some_shards(rig: Rig, owner: Session) -> None:
    """A list with a mask has the services of these shards and no others."""
    register(rig, owner, "a")
    register(rig, owner, "x", key=BILLING)
    for shards, names in (
        ([SHARD], ["orders"]),
        ([OTHER], ["billing"]),
        ([SHARD, OTHER], ["billing", "orders"]),
        ([], ["billing", "orders"]),
    ):
        mask = mask_to_wire(mask_of(shards)) if shards else b""
        request = native_pb2.ListServicesRequest(namespace="prod", shards=mask)
        page = rig.registry.list_services(request)
        assert [each.service.service for each in page.services] == names


# --- subscriptions ------------------------------------------------------------------------


@pytest.mark.parametrize("target", [ORDERS, ALL, MaskedPattern(ALL, 1 << OTHER | 1 << SHARD)])
def test_what_is_not_here_cannot_be_followed(rig: Rig, target: Target) -> None:
    """A subscription is refused if a shard it covers is not held, and leaves nothing behind."""
    leave(rig)
    follower = Follower(rig)
    with pytest.raises(ShardMovedError) as refused:
        follower.subscribe(target)
    assert refused.value.fields["shard"] == str(SHARD)
    assert follower.behind == {}
    assert rig.push.subscriptions.count == 0


def test_a_mask_narrows_a_pattern(rig: Rig, owner: Session) -> None:
    """A pattern in some shards is told of these only, and needs no other shard to be here."""
    leave(rig, ShardId((SHARD + 1) % SHARDS))
    register(rig, owner, "a")
    register(rig, owner, "x", key=BILLING)
    follower = followed(rig, MaskedPattern(ALL, 1 << SHARD))
    register(rig, owner, "b")
    register(rig, owner, "y", key=BILLING)
    rig.tell()
    assert list(follower.lists) == [ORDERS]
    assert follower.agrees(ORDERS)


def test_masks_of_one_subscriber_overlap(rig: Rig, owner: Session) -> None:
    """Two masks of one pattern tell of a service once, and of both until each has ended."""
    both, one = MaskedPattern(ALL, 1 << SHARD | 1 << OTHER), MaskedPattern(ALL, 1 << SHARD)
    follower = Follower(rig)
    follower.subscribe(both)
    follower.subscribe(one)
    register(rig, owner, "a")
    register(rig, owner, "x", key=BILLING)
    assert rig.push.subscriptions.audience(ORDERS) == [follower]
    rig.push.unsubscribe(follower, both)
    assert rig.push.subscriptions.audience(BILLING) == []
    assert not rig.push.subscriptions.has_audience(BILLING)
    assert rig.push.subscriptions.audience(ORDERS) == [follower]
    rig.push.unsubscribe(follower, one)
    assert rig.push.subscriptions.audience(ORDERS) == []
