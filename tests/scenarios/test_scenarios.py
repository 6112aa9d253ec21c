"""Scenarios in text: what clients do above the line, what they get to see below it.

Each file tells one story about the core of a node: one verb per line, one handler per verb, no
loop and no disk. `pytest tests/scenarios --rewrite` writes what happens now; read the diff.

Clients: `hello a`, `heartbeat a`, `disconnect a`, `goodbye a`, `alive a b` (who sends heartbeats
while time passes), `register a orders x y [persistent] [weight=5]`, `deregister a orders x [any]`,
`update a orders x [any] [out=yes|no] [weight=5]`, `get orders`.
Subscribers: `subscribe f orders` (or `ord*`), `leave f`, `resume f`, `stall f`, `read f`.
The node: `time 5000`, `log hold|commit [n]|full|free`, `sessions`, `restart`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import instance, session_of
from rig import Follower, RetryEnds, Rig, Wire

from ssgovern.errors import SsGovernError
from ssgovern.model import Outcome, Pattern, ServiceKey, SessionId, shard_of
from ssgovern.registry.sessions import Session
from ssgovern.registry.subscriptions import Target
from ssgovern.replication.primary import Proposal
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.txt"))
LINE = "----"


def key_of(service: str) -> ServiceKey:
    return ServiceKey("prod", "default", service)


def target_of(text: str) -> Target:
    if text.endswith("*"):
        return Pattern("prod", "default", text.removesuffix("*"))
    return key_of(text)


class Waiting:
    """A request on its way: says what became of it, under the name of who asked."""

    def __init__(self, stage: Stage, what: str) -> None:
        self._stage = stage
        self._what = what

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        record = proposal.record
        if outcome.error is not None:
            self._stage.say(f"{self._what}: {type(outcome.error).__name__}")
        elif (
            isinstance(record, log_pb2.Record)
            and record.WhichOneof("change") == "deregistered"
            and not outcome.removed
        ):
            self._stage.say(f"{self._what}: there was none")
        else:
            self._stage.say(f"{self._what}: {proposal.epoch}/{proposal.revision}")


class Ending(Waiting):
    """The end of a session, which is repeated if the log refuses it."""

    def __init__(self, stage: Stage, what: str) -> None:
        super().__init__(stage, what)
        self._retry = RetryEnds(stage.rig)

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        super().on_outcome(proposal, outcome)
        self._retry.on_outcome(proposal, outcome)


class Stage:
    """Runs the verbs of one scenario."""

    def __init__(self) -> None:
        self.rig = Rig(share=0.5, sessions_min=4, hold_ms=10_000)
        self.said: list[str] = []
        self.holding = False
        self.names: dict[SessionId, str] = {}
        self.wires: dict[str, Wire] = {}
        self.alive: list[str] = []
        self.followers: dict[str, tuple[Follower, Target]] = {}
        self.heard: dict[str, int] = {}

    def say(self, line: str) -> None:
        self.said.append(line)

    def run(self, line: str) -> None:
        verb, *arguments = line.split()
        handler: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        assert handler is not None, f"no verb {verb!r}: {line}"
        self.say(f"> {line}")
        try:
            handler(*arguments)
        except SsGovernError as error:
            self.say(f"{type(error).__name__}: {error}")
        self.settle()
        self.rig.validate()

    def settle(self) -> None:
        """Commit (unless held), tell, let everybody catch up, and write down what they heard."""
        if not self.holding:
            self.rig.commit()
        self.rig.tell()
        for name, (follower, _) in self.followers.items():
            follower.catch_up()
            for line in follower.story[self.heard.get(name, 0) :]:
                self.say(f"{name} hears: {line}")
            self.heard[name] = len(follower.story)
        for name, wire in self.wires.items():
            for error in wire.refused:
                self.say(f"{name}'s connection {wire.name} is closed: {type(error).__name__}")
            wire.refused.clear()

    # --- clients ---------------------------------------------------------------------------

    def do_hello(self, name: str) -> None:
        number = int(self.wires[name].name) + 1 if name in self.wires else 1
        wire = Wire(str(number))
        self.names[session_of(name)] = name
        _, before, resumed = self.rig.hello(name, wire)
        self.say(f"{name} {'resumed' if resumed else 'is new'}")
        if before is not None:
            self.say(f"{name}'s connection {before.name} is superseded")
        self.wires[name] = wire

    def _session(self, name: str) -> Session:
        session = self.rig.sessions.find(session_of(name))
        assert session is not None, f"{name} has no session"
        return session

    def do_heartbeat(self, name: str) -> None:
        self.rig.sessions.hear(self._session(name), self.rig.now_ms)

    def do_alive(self, *names: str) -> None:
        self.alive = list(names)

    def do_disconnect(self, name: str) -> None:
        self.rig.sessions.detach(self._session(name), self.wires[name], self.rig.now_ms)

    def do_goodbye(self, name: str) -> None:
        session = self._session(name)
        ending = Ending(self, f"end of {name}")
        self.rig.registry.end_session(session, log_pb2.SESSION_END_GOODBYE, ending)

    def do_register(self, name: str, service: str, *rest: str) -> None:
        ids = [word for word in rest if "=" not in word and word != "persistent"]
        weights = [float(word.removeprefix("weight=")) for word in rest if "=" in word]
        for instance_id in ids:
            request = native_pb2.RegisterRequest()
            request.registrations.add(
                service=key_to_wire(key_of(service)),
                instance=instance(
                    instance_id,
                    persistent="persistent" in rest,
                    weight=weights[0] if weights else 100.0,
                ),
            )
            waiting = Waiting(self, f"{name} registers {instance_id}")
            self.rig.register(self._session(name), request, waiting)

    def do_deregister(self, name: str, service: str, instance_id: str, *rest: str) -> None:
        request = native_pb2.DeregisterRequest(
            service=key_to_wire(key_of(service)), instance_id=instance_id, any_owner="any" in rest
        )
        waiting = Waiting(self, f"{name} deregisters {instance_id}")
        self.rig.registry.deregister(self._session(name), request, waiting)

    def do_update(self, name: str, service: str, instance_id: str, *rest: str) -> None:
        change = native_pb2.InstanceChange()
        for word in rest:
            field, _, value = word.partition("=")
            if field == "out":
                change.out_of_service = value == "yes"
            elif field == "weight":
                change.weight = float(value)
        request = native_pb2.UpdateRequest(
            service=key_to_wire(key_of(service)),
            instance_id=instance_id,
            any_owner="any" in rest,
            change=change,
        )
        waiting = Waiting(self, f"{name} updates {instance_id}")
        self.rig.registry.update(self._session(name), request, waiting)

    def do_get(self, service: str) -> None:
        key = key_of(service)
        found = self.rig.states[shard_of(*key)].services.get(key)
        for entry in [] if found is None else found.instances.values():
            message = model_pb2.Instance.FromString(entry.encoded)
            marks = [
                "unhealthy" if message.unhealthy else "",
                "out of service" if message.out_of_service else "",
                "persistent" if message.persistent else "",
                f"of {self.names[entry.session_id]}" if entry.session_id else "of nobody",
            ]
            self.say(f"{service}/{entry.id} {', '.join(mark for mark in marks if mark)}")
        if found is None or not found.instances:
            self.say(f"{service} is empty")

    # --- subscribers -----------------------------------------------------------------------

    def do_subscribe(self, name: str, target: str) -> None:
        follower = Follower(self.rig)
        self.followers[name] = follower, target_of(target)
        follower.subscribe(target_of(target))

    def do_leave(self, name: str) -> None:
        follower, target = self.followers[name]
        self.rig.push.forget(follower, [target])

    def do_resume(self, name: str) -> None:
        follower, target = self.followers[name]
        follower.resume(target)

    def do_stall(self, name: str) -> None:
        self.followers[name][0].takes = False

    def do_read(self, name: str) -> None:
        self.followers[name][0].takes = True

    # --- the node --------------------------------------------------------------------------

    def do_time(self, ms: str) -> None:
        until = self.rig.now_ms + float(ms)
        while self.rig.now_ms < until:
            if self.rig.now_ms % 1000 == 0:
                for name in self.alive:
                    self.do_heartbeat(name)
            for session_id in self.rig.tick(self.rig.now_ms + 250):
                self.say(f"{self.names[session_id]} expires at {self.rig.now_ms / 1000:g} s")
        if self.rig.sessions.held:
            self.say(f"protection holds {self.rig.sessions.held}")

    def do_log(self, what: str, count: str = "") -> None:
        if what == "hold":
            self.holding = True
        elif what == "commit":
            self.rig.commit(int(count) if count else None)
        else:
            assert what in ("full", "free"), what
            self.holding = False
            self.rig.full = what == "full"

    def do_sessions(self) -> None:
        names = [self.names[session] for session in self.rig.sessions._sessions]
        self.say(f"sessions: {' '.join(names) or 'none'}")

    def do_restart(self) -> None:
        for follower, target in self.followers.values():
            self.rig.push.forget(follower, [target])
        self.rig.restart()


def play(text: str) -> str:
    """Return the scenario with what happens now below the line."""
    script = text.split(f"\n{LINE}\n")[0].rstrip("\n").removesuffix(f"\n{LINE}")
    stage = Stage()
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            stage.run(line.strip())
    return "\n".join([script, LINE, *stage.said]) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    """What happens is what the scenario says."""
    text = path.read_text(encoding="utf-8")
    played = play(text)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(played, encoding="utf-8")
        return
    assert played == text, f"{path.name}: --rewrite writes what happens now"


def test_there_are_scenarios() -> None:
    """The folder is not empty, and no scenario is without its expected part."""
    assert len(SCENARIOS) >= 8
    assert all(f"\n{LINE}\n" in path.read_text(encoding="utf-8") for path in SCENARIOS)


def test_a_verb_that_does_not_exist() -> None:
    """A slip in a scenario fails instead of doing nothing."""
    with pytest.raises(AssertionError, match="no verb"):
        play("hullo a\n")
