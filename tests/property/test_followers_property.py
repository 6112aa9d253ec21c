"""Subscribers of every slowness converge to the state and are told nothing twice."""

from __future__ import annotations

from builders import BILLING, ORDERS, instance
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rig import Answer, Follower, Rig, Wire

from ssgovern.model import Pattern, ServiceKey
from ssgovern.registry.subscriptions import Target
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2

KEYS: list[ServiceKey] = [ORDERS, BILLING, ServiceKey("prod", "default", "orders-old")]
TARGETS: list[Target] = [ORDERS, Pattern("prod", "default", ""), Pattern("prod", "default", "ord")]
NAMES = ["s", "t"]


class Followers(RuleBasedStateMachine):
    """Clients write; subscribers of three kinds come, stall and go; commits come when they come."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig()
        self.followers = [Follower(self.rig) for _ in TARGETS]
        self.there = [False for _ in TARGETS]
        self.wires = 0

    def session(self, name: str):  # type: ignore[no-untyped-def]
        self.wires += 1
        return self.rig.hello(name, Wire(str(self.wires)))[0]

    @rule(
        name=st.sampled_from(NAMES),
        key=st.sampled_from(KEYS),
        number=st.integers(0, 5),
        pad=st.sampled_from([0, 0, 3900]),
    )
    def register(self, name: str, key: ServiceKey, number: int, pad: int) -> None:
        request = native_pb2.RegisterRequest()
        metadata = {f"k{k}": "x" * pad for k in range(4 if pad else 0)}
        request.registrations.add(
            service=key_to_wire(key), instance=instance(f"i{number}", metadata=metadata)
        )
        self.rig.register(self.session(name), request, Answer())

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), number=st.integers(0, 5))
    def deregister(self, name: str, key: ServiceKey, number: int) -> None:
        request = native_pb2.DeregisterRequest(
            service=key_to_wire(key), instance_id=f"i{number}", any_owner=True
        )
        self.rig.registry.deregister(self.session(name), request, Answer())

    @rule(name=st.sampled_from(NAMES))
    def end(self, name: str) -> None:
        self.rig.registry.end_session(self.session(name), log_pb2.SESSION_END_GOODBYE, Answer())

    @rule(count=st.one_of(st.none(), st.integers(1, 3)))
    def commit(self, count: int | None) -> None:
        self.rig.commit(count)

    @rule()
    def disk_full(self) -> None:
        self.rig.full = True
        self.rig.commit()
        self.rig.full = False

    @rule()
    def tell_one(self) -> None:
        self.rig.tell_one()

    @rule(which=st.integers(0, 2))
    def come(self, which: int) -> None:
        if not self.there[which]:
            self.there[which] = True
            self.followers[which].resume(TARGETS[which])

    @rule(which=st.integers(0, 2))
    def go(self, which: int) -> None:
        if self.there[which]:
            self.there[which] = False
            self.rig.push.forget(self.followers[which], [TARGETS[which]])

    @rule(which=st.integers(0, 2), credit=st.sampled_from([None, 0, 1, 2]))
    def take(self, which: int, credit: int | None) -> None:
        self.followers[which].credit = credit

    @rule(which=st.integers(0, 2))
    def catch_up(self, which: int) -> None:
        # As the driver does: subscribers are brought up to date when nothing waits to be told.
        self.rig.tell()
        if self.there[which]:
            self.followers[which].catch_up()

    @rule()
    @precondition(lambda self: not self.rig.queue)
    def restart(self) -> None:
        for which, follower in enumerate(self.followers):
            if self.there[which]:
                self.there[which] = False
                self.rig.push.forget(follower, [TARGETS[which]])
        self.rig.restart()

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "rig"):
            self.rig.validate()

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.rig.commit()
        self.rig.tell()
        for which, follower in enumerate(self.followers):
            follower.credit = None
            if not self.there[which]:
                follower.resume(TARGETS[which])
            follower.catch_up()
            covered = [
                key
                for key in KEYS
                if (target := TARGETS[which]) == key
                or (isinstance(target, Pattern) and target.matches(key))
            ]
            for key in covered:
                assert follower.agrees(key), (which, key, follower.story[-10:])
        self.rig.validate()


def test_every_follower_converges() -> None:
    """Any order of writes, stalls, reconnects and restarts ends with everybody knowing all."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Followers, settings=settings(max_examples=45, stateful_step_count=50)
    )
