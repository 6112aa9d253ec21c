"""Who has applied what, and when those who wait for it are answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import BILLING, ORDERS, instance, session_of
from rig import Answer, Follower, Rig, Wire

from ssgovern import limits
from ssgovern.errors import OverloadedError
from ssgovern.model import LogPosition, Pattern, ServiceKey, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.service.applied import AppliedPositions, Wait
from ssgovern.service.push import Who
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import applied_pb2, native_pb2

ALL = Pattern("prod", "default", "")


def register(rig: Rig, session: Session, instance_id: str, key: ServiceKey = ORDERS) -> None:
    """Register and commit."""
    request = native_pb2.RegisterRequest()
    request.registrations.add(service=key_to_wire(key), instance=instance(instance_id))
    rig.register(session, request, Answer())
    rig.commit()


def deregister(rig: Rig, session: Session, instance_id: str, key: ServiceKey = ORDERS) -> None:
    """Deregister and commit."""
    request = native_pb2.DeregisterRequest(service=key_to_wire(key), instance_id=instance_id)
    rig.registry.deregister(session, request, Answer())
    rig.commit()


class Stage:
    """A node's cores, time that stands still, and answers."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.owner: Session = rig.hello("owner", Wire("0"))[0]
        self.now_s = 100.0
        self.answers: list[applied_pb2.AwaitAppliedResponse] = []
        self.woken = 0
        self.delays: list[float] = []
        self.applied.wake = self._wake
        self.applied.on_delay = self.delays.append

    def _wake(self) -> None:
        self.woken += 1

    @property
    def applied(self) -> AppliedPositions:
        return self.rig.push.applied

    def follower(self, name: str, *targets: ServiceKey | Pattern, says: bool = True) -> Follower:
        """A subscriber with a session, that has its lists and has said so."""
        follower = Follower(self.rig)
        self.rig.hello(name, Wire(name))
        follower.who = Who(session_of(name), name, f"{name}:1")
        for target in targets:
            follower.subscribe(target)
        follower.catch_up()
        if says:
            self.say(follower)
        return follower

    def say(self, follower: Follower, age_ms: int = 0) -> None:
        """Let a subscriber say all it has applied."""
        said = applied_pb2.Applied()
        for key, position in follower.positions.items():
            said.services.add(
                service=key_to_wire(key),
                epoch=position.epoch,
                revision=position.revision,
                age_ms=age_ms,
            )
        self.applied.on_said(follower, said, self.now_s)

    def position(self, key: ServiceKey = ORDERS) -> LogPosition:
        return self.rig.states[shard_of(*key)].position

    def wait(self, key: ServiceKey = ORDERS, *, timeout_s: float = 5.0) -> Wait:
        """Wait for what is committed now."""
        position = self.position(key)
        return self.applied.wait(key, position, self.now_s + timeout_s, self.answers.append)

    def look(self, after_s: float = 0.0) -> None:
        self.now_s += after_s
        self.applied.look(self.now_s)
        while self.applied.ask_some():
            pass

    @property
    def answer(self) -> applied_pb2.AwaitAppliedResponse:
        (answer,) = self.answers
        return answer


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(Rig())
    yield stage
    stage.rig.validate()


def test_answered_when_the_last_has_said_so(stage: Stage) -> None:
    """A wait ends when every subscriber has said that it applied the position, and not before."""
    followers = [stage.follower(name, ORDERS) for name in ("a", "b")]
    register(stage.rig, stage.owner, "i")
    stage.wait()
    stage.look()
    stage.rig.tell()
    stage.look()
    assert [follower.asked for follower in followers] == [1, 1]
    stage.say(followers[0])
    stage.look(0.1)
    assert not stage.answers
    stage.say(followers[1])
    stage.look()
    assert stage.answer.applied
    assert stage.answer.subscribers_total == 2
    assert not stage.applied.waits


def test_nobody_is_asked_before_it_was_told(stage: Stage) -> None:
    """What a subscriber is asked comes behind the change that it is asked about."""
    slow = stage.follower("slow", ORDERS)
    register(stage.rig, stage.owner, "i")
    slow.takes = False
    stage.wait()
    stage.rig.tell()
    stage.look()
    assert slow.asked == 0
    slow.takes = True
    slow.catch_up()
    stage.look()
    assert slow.asked == 1


def test_at_the_deadline_those_who_lack_it_are_named(stage: Stage) -> None:
    """When the time is up the answer names who has not, since when, and who does not say."""
    stage.follower("a", ORDERS)
    stage.follower("mute", ORDERS, says=False)
    register(stage.rig, stage.owner, "i")
    stage.rig.tell()
    stage.wait(timeout_s=2.0)
    stage.look(1.9)
    assert not stage.answers
    stage.look(0.1)
    answer = stage.answer
    assert not answer.applied
    assert [row.client_name for row in answer.lacking] == ["a"]
    assert [row.client_name for row in answer.silent] == ["mute"]
    assert (answer.lacking_total, answer.silent_total) == (1, 1)
    assert answer.lacking[0].revision < stage.position().revision
    assert answer.lacking[0].behind_ms > 0


def test_who_does_not_say_is_not_waited_for(stage: Stage) -> None:
    """A client older than this is counted and holds nothing up."""
    stage.follower("mute", ORDERS, says=False)
    register(stage.rig, stage.owner, "i")
    stage.rig.tell()
    stage.wait()
    stage.look()
    assert stage.answer.applied
    assert stage.answer.silent_total == 1


def test_a_service_that_did_not_change_needs_nothing_said(stage: Stage) -> None:
    """A position behind a service's last change is applied by whoever applied that change."""
    lags = stage.follower("lags", ORDERS)
    register(stage.rig, stage.owner, "i")
    stage.rig.tell()
    has = stage.follower("has", ORDERS)
    before = stage.position()
    deregister(stage.rig, stage.owner, "j")
    assert stage.position() > before
    stage.wait()
    stage.look()
    assert (has.asked, lags.asked) == (0, 1)
    stage.say(lags)
    stage.look()
    assert stage.answer.applied


def test_a_service_of_which_nothing_is_left_is_told_again(stage: Stage) -> None:
    """Where the node cannot know what a subscriber would have said last, it tells it again."""
    follower = stage.follower("a", ORDERS)
    register(stage.rig, stage.owner, "i")
    deregister(stage.rig, stage.owner, "i")
    stage.rig.tell()
    follower.catch_up()
    stage.say(follower)
    state = stage.rig.states[shard_of(*ORDERS)]
    del state.services[ORDERS]
    state._history.clear()
    deregister(stage.rig, stage.owner, "i")
    stage.wait()
    stage.look()
    stage.look(1.0)
    follower.catch_up()
    stage.look()
    assert follower.asked == 2
    stage.say(follower)
    stage.look()
    assert stage.answer.applied


def test_a_node_that_lacks_the_position_itself_does_not_answer(stage: Stage) -> None:
    """Nobody is said to have what this node has not applied, however few follow it."""
    here = stage.position()
    later = LogPosition(here.epoch, here.revision + 1)
    stage.applied.wait(ORDERS, later, stage.now_s + 1.0, stage.answers.append)
    stage.look()
    assert not stage.answers
    stage.look(1.0)
    assert not stage.answer.applied
    assert stage.answer.node_lacks


def test_a_lost_connection_counts_while_its_session_lives(stage: Stage) -> None:
    """Who lost its connection still has its list, until it is back with a newer one or ends."""
    follower = stage.follower("a", ORDERS)
    register(stage.rig, stage.owner, "i")
    stage.wait()
    stage.rig.tell()
    stage.look()
    stage.applied.gone(follower, [ORDERS], stage.now_s)
    stage.rig.push.forget(follower, [ORDERS])
    stage.look(0.1)
    assert not stage.answers
    back = stage.follower("a", ORDERS)
    stage.look(0.1)
    assert back.positions[ORDERS] == stage.position()
    assert stage.answer.applied


def test_a_session_that_ended_holds_nothing_up(stage: Stage) -> None:
    """A subscriber that is gone for good is not waited for."""
    follower = stage.follower("a", ORDERS)
    register(stage.rig, stage.owner, "i")
    stage.wait()
    stage.rig.tell()
    stage.applied.gone(follower, [ORDERS], stage.now_s)
    stage.rig.push.forget(follower, [ORDERS])
    stage.look()
    assert not stage.answers
    session = stage.rig.sessions.find(session_of("a"))
    assert session is not None
    stage.rig.sessions.end(session)
    stage.look(0.1)
    assert stage.answer.applied


def test_who_follows_no_more_holds_nothing_up(stage: Stage) -> None:
    """A subscription that ends in order is not waited for."""
    follower = stage.follower("a", ORDERS)
    register(stage.rig, stage.owner, "i")
    stage.wait()
    stage.rig.tell()
    stage.look()
    stage.rig.push.unsubscribe(follower, ORDERS)
    stage.look()
    assert stage.answer.applied


def test_what_nobody_asked_for_is_not_kept(stage: Stage) -> None:
    """A subscriber's words about what it does not follow cost no memory."""
    follower = stage.follower("a", ORDERS)
    said = applied_pb2.Applied()
    said.services.add(service=key_to_wire(BILLING), epoch=1, revision=1)
    stage.applied.on_said(follower, said, stage.now_s)
    assert list(follower.applied or ()) == [ORDERS]


def test_what_is_kept_of_one_subscriber_is_bounded(stage: Stage) -> None:
    """Of many services the oldest words are dropped; what is needed of those is told again."""
    most = limits.APPLIED_SERVICES_MAX
    keys = [ServiceKey("prod", "default", f"s{number}") for number in range(most + 1)]
    for key in keys:
        register(stage.rig, stage.owner, "i", key=key)
    follower = stage.follower("a", ALL, says=False)
    while follower.behind:
        follower.catch_up()
    stage.say(follower)
    kept = follower.applied or {}
    assert len(kept) == most
    (dropped,) = (key for key in keys if key not in kept)
    stage.wait(dropped)
    stage.look()
    follower.may_repeat = True
    stage.look(1.0)
    follower.catch_up()
    stage.say(follower)
    stage.look()
    assert stage.answer.applied


def test_too_many_waits_are_refused(stage: Stage) -> None:
    """Who would wait beyond the limit is told so, and the others are not affected."""
    for _ in range(limits.AWAIT_APPLIED_MAX):
        stage.wait()
    with pytest.raises(OverloadedError):
        stage.wait()
    stage.look()
    assert len(stage.answers) == limits.AWAIT_APPLIED_MAX


def test_subscribers_come_in_pages_in_order(stage: Stage) -> None:
    """Pages of subscribers name each once, in the order of session ids, with what it applied."""
    register(stage.rig, stage.owner, "i")
    names = [f"c{number}" for number in range(5)]
    for name in names:
        stage.follower(name, ORDERS)
    after, seen = b"", []
    while True:
        page = stage.applied.page(ORDERS, after, 2, stage.now_s)
        assert (page.epoch, page.revision) == stage.position()
        seen += [(bytes(row.session_id), row.client_name) for row in page.subscribers]
        assert all(row.revision == page.revision for row in page.subscribers)
        after = page.next_after
        if not after:
            break
    assert seen == sorted(seen)
    assert sorted(name for _, name in seen) == names


def test_delays_are_measured_from_the_commit(stage: Stage) -> None:
    """What a subscriber says is timed from when the change was ready to be told."""
    follower = stage.follower("a", ORDERS)
    request_at_s = stage.now_s
    register(stage.rig, stage.owner, "i")
    for change in stage.rig.push._pending.values():
        change.offered_s = request_at_s
    stage.rig.tell()
    stage.now_s += 1.0
    stage.say(follower, age_ms=900)
    stage.say(follower, age_ms=900)
    assert stage.delays == [pytest.approx(0.1)]


def test_the_longest_lag_is_that_of_the_slowest(stage: Stage) -> None:
    """The lag is counted from the oldest change that somebody lacks, and is zero once none is."""
    follower = stage.follower("a", ORDERS)
    register(stage.rig, stage.owner, "i")
    for change in stage.rig.push._pending.values():
        change.offered_s = stage.now_s
    stage.rig.tell()
    assert stage.applied.longest_lag_s(stage.now_s + 3.0) == pytest.approx(3.0)
    stage.say(follower)
    assert stage.applied.longest_lag_s(stage.now_s + 3.0) == 0.0
