"""A node's side of its membership, against links that answer as each test wants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest

from ssgovern import limits
from ssgovern.controller.nodes import Registration
from ssgovern.errors import (
    DeadlineExceededError,
    FencedError,
    InvalidArgumentError,
    NotControllerError,
    PeerRefusedError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.node.member_driver import MemberDriver
from ssgovern.node.metadata import Metadata
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.transport.handshake import PeerSaid
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import peer_pb2

ME = NodeId(9)
SEEDS = ("a:1", "b:1", "c:1")

Answer = Callable[[int, bytes], bytes]


def registered(session: int = 1) -> bytes:
    return peer_pb2.NodeRegisterResponse(session=session, cluster_id=b"cluster").SerializeToString()


def beaten(lease_ms: int = limits.NODE_LEASE_MS, index: int = 0) -> bytes:
    answer = peer_pb2.NodeHeartbeatResponse(lease_ms=lease_ms, index=index)
    return answer.SerializeToString()


class Stage:
    """A member in a simulated process; each seed answers by a function of the test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: dict[str, Answer] = {}
        self.mute: tuple[str, ...] = ()
        """Where connections are taken and nothing is said."""
        self.asked: list[tuple[str, int]] = []
        self.beats: list[peer_pb2.NodeHeartbeatRequest] = []
        self.sessions: list[int] = []
        self.leases: list[float] = []
        self.positions: dict[ShardId, LogPosition] = {}
        self.leader: NodeId | None = None
        self.member: MemberDriver
        self.process = world.process("member", self._main)
        self.process.start()

    async def _main(self, runtime: SimRuntime) -> None:
        asked = Registration(ME, "n9", "n9:1", "", b"directory", b"boot")
        self.member = MemberDriver(
            ME,
            Metadata(4),
            self,
            runtime,
            registration=lambda: asked,
            positions=lambda: dict(self.positions),
            on_session=self.sessions.append,
            on_lease=self.leases.append,
            seeds=SEEDS,
            leader=lambda: self.leader,
        )
        await self.member.run()

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)
        assert not self.world.errors
        assert not self.world.exits

    # What it uses of the links.

    def is_open(self, node: NodeId) -> bool:
        return False

    async def request(self, node: NodeId, type_: int, body: bytes, deadline: float) -> bytes:
        raise AssertionError("no link is open")

    async def ask(
        self, address: str, type_: int, body: bytes, deadline: float
    ) -> tuple[PeerSaid, bytes]:
        self.asked.append((address, type_))
        if type_ == MessageType.NODE_HEARTBEAT:
            self.beats.append(peer_pb2.NodeHeartbeatRequest.FromString(body))
        if address in self.mute:
            await asyncio.sleep(deadline - asyncio.get_running_loop().time())
            raise UnavailableError(f"{address} does not answer the hello")
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadlineExceededError(f"{address} was left no time")
        answer = self.answers.get(address)
        if answer is None:
            raise UnavailableError(f"nobody listens at {address}")
        return PeerSaid(NodeId(0), "", b"", b"", (), b"", b""), answer(type_, body)

    def controller_is(self, address: str, *, session: int = 1) -> None:
        """From now on, this one grants sessions and leases, and no other does."""

        def answer(type_: int, body: bytes) -> bytes:
            return registered(session) if type_ == MessageType.NODE_REGISTER else beaten()

        self.answers = {address: answer}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with World(1) as world:
        yield Stage(world)


def raising(error: SsGovernError) -> Answer:
    def answer(type_: int, body: bytes) -> bytes:
        raise error

    return answer


def test_it_registers_and_shows_that_it_lives(stage: Stage) -> None:
    """With whoever of the seeds answers; then twice a second, each time for a longer lease."""
    stage.controller_is("b:1")
    stage.run(10.0)
    assert stage.sessions == [1]
    assert 18 <= len(stage.leases) <= 21
    assert stage.leases == sorted(stage.leases)
    assert stage.member.controller_heard
    registrations = [
        address for address, type_ in stage.asked if type_ == MessageType.NODE_REGISTER
    ]
    assert registrations[-1] == "b:1"


def test_it_follows_who_says_where_the_controller_is(stage: Stage) -> None:
    """One that is not the controller names it, and it is asked next."""
    stage.controller_is("c:1")
    hint = NotControllerError("not me", controller=3, address="c:1")
    stage.answers["a:1"] = raising(hint)
    stage.run(1.0)
    assert [address for address, _ in stage.asked[:2]] == ["a:1", "c:1"]
    assert stage.sessions == [1]


def test_it_finds_another_controller(stage: Stage) -> None:
    """Within its lease, when the one that it knew is there no more."""
    stage.controller_is("a:1")
    stage.run(5.0)
    stage.controller_is("c:1")
    for _ in range(20):
        stage.run(0.5)
        assert stage.member.controller_heard
    assert stage.sessions == [1]


def test_a_refusal_is_said_once_and_asked_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator reads why; what changes is said anew, and being let in ends it."""
    stage.answers = {"a:1": raising(InvalidArgumentError("the name is taken"))}
    with caplog.at_level(logging.ERROR):
        stage.run(20.0)
        assert stage.member.refusal == "the name is taken"
        assert len(caplog.records) == 1
        asked = [type_ for address, type_ in stage.asked if address == "a:1"]
        assert 9 <= len(asked) <= 11, "every two seconds"
        stage.answers = {"a:1": raising(InvalidArgumentError("the address is taken"))}
        stage.run(5.0)
        assert len(caplog.records) == 2
    stage.controller_is("a:1")
    stage.run(5.0)
    assert stage.member.refusal == ""
    assert stage.sessions == [1]


def test_a_stranger_is_not_the_last_word(stage: Stage) -> None:
    """Somebody of another cluster refuses the link; the others are asked all the same."""
    stage.controller_is("c:1")
    stage.answers["a:1"] = raising(PeerRefusedError("the secret is another one"))
    stage.run(2.0)
    assert stage.sessions == [1]


def test_if_all_refuse_it_says_why(stage: Stage) -> None:
    """Not that nobody was found."""
    stage.answers = {
        address: raising(PeerRefusedError("the secret is another one")) for address in SEEDS
    }
    stage.run(5.0)
    assert stage.member.refusal == "the secret is another one"


def test_a_fenced_session_is_given_up_and_a_new_one_asked_for(stage: Stage) -> None:
    """Whoever acts for this node is told in between."""
    stage.controller_is("a:1")
    stage.run(2.0)

    def fences(type_: int, body: bytes) -> bytes:
        if type_ == MessageType.NODE_REGISTER:
            return registered(2)
        request = peer_pb2.NodeHeartbeatRequest.FromString(body)
        if request.session == 1:
            raise FencedError("session 1 is fenced")
        return beaten()

    stage.answers = {"a:1": fences}
    stage.run(2.0)
    assert stage.sessions == [1, 0, 2]
    assert stage.member.controller_heard


def test_no_lease_is_no_lease(stage: Stage) -> None:
    """A controller that is not sure of its office is heard, and extends nothing."""
    stage.answers = {
        "a:1": lambda type_, _body: (
            registered() if type_ == MessageType.NODE_REGISTER else beaten(lease_ms=0)
        )
    }
    stage.run(5.0)
    assert stage.sessions == [1]
    assert stage.leases == []
    assert not stage.member.controller_heard


def told(stage: Stage) -> list[list[int]]:
    return [[position.shard for position in beat.positions] for beat in stage.beats]


def test_ends_of_logs_are_told_until_answered_and_then_only_if_changed(stage: Stage) -> None:
    """A lost heartbeat loses none of them, and a new session is told them all."""
    stage.positions = {ShardId(0): LogPosition(1, 5), ShardId(1): LogPosition(1, 7)}
    lost = UnavailableError("lost")

    def first(type_: int, body: bytes) -> bytes:
        if type_ == MessageType.NODE_REGISTER:
            return registered()
        raise lost

    stage.answers = {"a:1": first}
    stage.run(1.2)
    assert all(shards == [0, 1] for shards in told(stage))
    stage.controller_is("a:1")
    stage.run(2.0)
    stage.beats.clear()
    stage.run(2.0)
    assert all(shards == [] for shards in told(stage))
    stage.positions[ShardId(1)] = LogPosition(2, 8)
    stage.beats.clear()
    stage.run(2.0)
    assert [shards for shards in told(stage) if shards] == [[1]]


def test_it_asks_in_vain_until_the_deadline_and_no_longer(stage: Stage) -> None:
    """Who asks the controller waits as long as it wants to, while there is none."""
    stage.run(0.1)
    ended: list[float] = []

    async def ask() -> None:
        loop = stage.process.loop
        assert loop is not None
        began = loop.time()
        with pytest.raises(UnavailableError, match="no controller was found"):
            await stage.member.ask_controller(MessageType.IN_SYNC_CHANGE, b"", began + 3.0)
        ended.append(loop.time() - began)

    loop = stage.process.loop
    assert loop is not None
    loop.call_soon(lambda: loop.create_task(ask()))
    stage.run(5.0)
    assert len(ended) == 1
    assert 2.5 < ended[0] <= 3.1


def test_who_says_nothing_is_not_what_others_are_blamed_for(stage: Stage) -> None:
    """Whoever uses up the time of a question is asked last then, and not who came after it."""
    stage.controller_is("c:1")
    stage.mute = ("a:1", "b:1")
    stage.run(6.0)
    assert stage.sessions == [1]
    stage.controller_is("b:1")
    stage.mute = ("a:1", "c:1")
    stage.run(2 * limits.NODE_LEASE_MS / 1000.0)
    assert stage.member.controller_heard


@pytest.mark.parametrize(("leader", "fetches"), [(None, True), (0, True), (3, False)])
def test_what_is_missing_is_fetched_unless_a_leader_brings_it(
    stage: Stage, leader: int | None, fetches: bool
) -> None:
    """A candidate that was dismissed hears of no leader, and is not left behind by that."""

    def answer(type_: int, body: bytes) -> bytes:
        if type_ == MessageType.METADATA_FETCH:
            return peer_pb2.Metadata(
                entries=[peer_pb2.MetadataItem(index=number) for number in (1, 2)]
            ).SerializeToString()
        return registered() if type_ == MessageType.NODE_REGISTER else beaten(index=2)

    stage.leader = None if leader is None else NodeId(leader)
    stage.answers = {"a:1": answer}
    stage.run(3.0)
    assert stage.member.controller_heard
    asked = [type_ for _, type_ in stage.asked if type_ == MessageType.METADATA_FETCH]
    assert bool(asked) == fetches


def test_who_leaves_asks_for_no_other_session(stage: Stage) -> None:
    """A node that stops is not talked back into the cluster by the end of its session."""
    stage.controller_is("a:1")
    stage.run(2.0)
    stage.member.leave()
    stage.answers = {"a:1": raising(FencedError("it stops"))}
    stage.asked.clear()
    stage.run(5.0)
    assert stage.asked == []
    assert stage.sessions == [1]


def test_a_heartbeat_under_way_when_it_leaves_ends_nothing(stage: Stage) -> None:
    """What its primaries hear of who follows them needs the session they were granted."""
    stage.controller_is("a:1")
    stage.run(2.0)

    def fenced(type_: int, body: bytes) -> bytes:
        stage.member.leave()
        raise FencedError("it stops")

    stage.answers = {"a:1": fenced}
    stage.run(5.0)
    assert stage.sessions == [1]
    assert stage.member.session == 1
