"""Links between nodes over a simulated network: made, lost, made again, refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest
from builders import secret_of, session_of
from peers import ASK, SECRET, TELL, Post, identity_of
from sim_actors import Line

from ssgovern import limits
from ssgovern.errors import (
    DeadlineExceededError,
    ErrorCode,
    FencedError,
    OverloadedError,
    PeerRefusedError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.transport import handshake
from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.handshake import PeerIdentity, PeerSaid
from ssgovern.wire.codec import encode, error_to_wire
from ssgovern.wire.frames import (
    FLAG_MORE,
    HEADER,
    Frame,
    FrameReader,
    Kind,
    MessageType,
    encode_frame,
)
from ssgovern.wire.pb import native_pb2, peer_pb2

PORT = 7420
ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


class Nodes:
    """Nodes on machines `n1`, `n2`, ... Each dials the others that are given."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.posts: dict[int, Post] = {}
        self.processes: dict[int, Process] = {}

    def add(
        self,
        number: int,
        dials: dict[int, str],
        *,
        me: PeerIdentity | None = None,
        machine: str = "",
        **options: object,
    ) -> Process:
        async def main(runtime: SimRuntime) -> None:
            post = Post(me or identity_of(number), runtime, **options)  # type: ignore[arg-type]
            self.posts[number] = post
            post.links.set_peers({NodeId(node): address for node, address in dials.items()})
            await post.run("0.0.0.0", PORT)

        name = machine or f"n{number}"
        process = self.world.process(name, main)
        self.processes[number] = process
        process.start()
        return process

    def pair(self) -> tuple[Post, Post]:
        """Two nodes that dial each other, with both links open."""
        for number, other in ((1, 2), (2, 1)):
            self.add(number, {other: f"n{other}:{PORT}"})
        self.until(lambda: len(self.posts) == 2 and self.both_open(), 3)
        return self.posts[1], self.posts[2]

    def both_open(self) -> bool:
        return self.posts[1].links.is_open(TWO) and self.posts[2].links.is_open(ONE)

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Run until a condition holds; return how long that took."""
        began = self.world.now
        assert self.world.run_until(condition, began + seconds), (
            f"not within {seconds} s: {[post.links for post in self.posts.values()]}"
        )
        return self.world.now - began

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def spawn(self, number: int, body: Awaitable[object]) -> asyncio.Future[object]:
        """Let a node do something; return what comes of it."""
        loop = self.processes[number].loop
        assert loop is not None
        return asyncio.ensure_future(body, loop=loop)

    def result(self, number: int, body: Awaitable[object], seconds: float = 60.0) -> object:
        """Let a node do something to its end; return or raise what came of it."""
        task = self.spawn(number, body)
        assert self.world.run_until(task.done, self.world.now + seconds), "no end to it"
        return task.result()

    def now(self, number: int) -> float:
        """Return a node's `loop.time()`."""
        loop = self.processes[number].loop
        assert loop is not None
        return loop.time()


def test_two_nodes_that_dial_each_other_have_two_links() -> None:
    """Each can tell the other, and knows what it said of itself."""
    with World(1) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        assert one.links.send(TWO, 120, b"hello")
        assert two.links.send(ONE, 121, b"you too")
        nodes.run(0.1)
        assert (one.told, two.told) == ([(TWO, 121, b"you too")], [(ONE, 120, b"hello")])
        said = one.links.said(TWO)
        assert said is not None
        assert (said.node_id, said.name, said.directory_id) == (TWO, "node-2", b"directory-2")
        assert one.story == ["link 2"]
        assert not world.errors


# --- silence -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_s", [0.3, 1.0, 1.9, 2.5, 7.0, 60.0])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_links_are_back_within_three_seconds_of_a_heal(cut_s: float, both: bool, seed: int) -> None:
    """However long a partition was, and whether of one direction or both, what is told arrives."""
    with World(seed) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        world.network.cut("n1", "n2", both=both)
        nodes.run(cut_s)
        world.network.heal()
        healed = world.now
        told: list[bool] = []

        def tell() -> bool:
            """Tell again and again, as those do who tell: what came before may be lost."""
            one.told.clear()
            two.told.clear()
            return True

        tell()
        while not (one.told and two.told):
            one.links.send(TWO, TELL, b"x")
            two.links.send(ONE, TELL, b"x")
            nodes.run(0.05)
            told.append(True)
            assert world.now < healed + 3.0, (one.links, two.links)
        assert not world.errors


@pytest.mark.parametrize("source", ["n1", "n2"])
def test_a_cut_of_one_direction_is_noticed_by_both_ends(source: str) -> None:
    """Within 2.6 s by the end that pings, within 3.6 s by the end that is pinged."""
    with World(2) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        world.network.cut(source, "n1" if source == "n2" else "n2", both=False)
        nodes.until(lambda: not one.links.is_open(TWO) and not two.links.is_open(ONE), 2.6)
        nodes.until(lambda: not (one.acceptor.hears(TWO) or two.acceptor.hears(ONE)), 1.6)
        assert "pings unanswered" in one.links.failure(TWO) or "answer" in one.links.failure(TWO)
        assert one.story == ["link 2", "lost 2"]
        assert len(one.acceptor) == len(two.acceptor) == 0


def test_a_process_that_stops_is_noticed_although_its_system_answers() -> None:
    """A paused node answers no pings; when it goes on, its links are made again."""
    with World(3) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        nodes.processes[2].pause()
        nodes.until(lambda: not one.links.is_open(TWO) and not one.acceptor.hears(TWO), 3.6)
        nodes.run(20.0)
        nodes.processes[2].resume()
        nodes.until(lambda: nodes.both_open() and two.acceptor.hears(ONE), 3.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_stall_of_this_process_is_nobodys_silence(seed: int) -> None:
    """Who stood still finds its links as they were: nobody could have been heard meanwhile."""
    with World(seed) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        nodes.run(1.0 + 0.1 * seed)
        nodes.processes[1].pause()
        # The far end aborts what it dialled itself; what this one dialled it gives 3 s.
        nodes.run(2.4)
        nodes.processes[1].resume()
        nodes.run(5.0)
        assert one.story == ["link 2"]
        assert two.acceptor.hears(ONE)


@pytest.mark.parametrize("latency", [0.1, 0.4, 0.9])
def test_a_far_node_is_not_silent(latency: float) -> None:
    """Answers that come later than the next ping is due are signs of life all the same."""
    with World(4) as world:
        nodes = Nodes(world)
        one, _ = nodes.pair()
        world.network.set_link("n1", "n2", latency=latency, jitter=0.05)
        nodes.run(30.0)
        assert one.story == ["link 2"]


# --- processes and machines that are gone --------------------------------------------------


def test_a_process_that_is_gone_is_told_from_one_that_is_slow() -> None:
    """A system without the process refuses; one without power, or cut off, says nothing."""
    with World(5) as world:
        nodes = Nodes(world)
        one, _ = nodes.pair()
        two = nodes.processes[2]
        assert not one.links.is_refused(TWO)
        two.kill()
        nodes.until(lambda: one.links.is_refused(TWO), 0.5)
        assert not one.links.is_open(TWO)
        assert "refused" in one.links.failure(TWO)
        two.start()
        nodes.until(lambda: one.links.is_open(TWO), 0.5)
        assert not one.links.is_refused(TWO)
        assert one.links.failure(TWO) == ""
        two.pause()
        nodes.run(20.0)
        assert not one.links.is_refused(TWO)
        two.resume()
        nodes.until(nodes.both_open, 3.0)
        two.machine.power_off()
        nodes.run(20.0)
        assert not one.links.is_refused(TWO)
        assert not one.links.is_open(TWO)
        assert "does not answer" in one.links.failure(TWO)
        two.start()
        nodes.until(lambda: one.links.is_open(TWO), 3.0)
        assert one.links.refusal(TWO) == ""


def test_an_answer_that_was_on_its_way_fails_with_its_link() -> None:
    """A request ends when its link does, and one without a link ends at once."""
    with World(6) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()

        async def never(source: NodeId, type_: int, body: bytes) -> bytes:
            return await asyncio.get_running_loop().create_future()

        two.answer = never
        asked = nodes.spawn(1, one.links.request(TWO, ASK, b"", nodes.now(1) + 30))
        nodes.run(0.5)
        nodes.processes[2].kill()
        nodes.run(0.1)
        assert isinstance(asked.exception(), UnavailableError)
        with pytest.raises(UnavailableError, match="no link to node 2"):
            nodes.result(1, one.links.request(TWO, ASK, b"", nodes.now(1) + 30), 0.01)
        assert not one.links.send(TWO, TELL, b"x")
        assert not nodes.result(1, one.links.send_paced(TWO, TELL, [b"x"]))
        assert one.links.pushes_dropped == 1


# --- asking --------------------------------------------------------------------------------


def test_a_question_ends_with_its_answer_its_error_or_its_deadline() -> None:
    """Answers of any length come back whole, errors with their code and fields."""
    with World(7) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()

        async def answer(source: NodeId, type_: int, body: bytes) -> bytes:
            assert (source, type_) == (ONE, ASK)
            if body == b"refuse":
                raise FencedError("you are of the past", epoch=7)
            if body == b"wait":
                await asyncio.sleep(10)
            return body * 1000

        two.answer = answer

        def ask(body: bytes, seconds: float = 5.0) -> object:
            return nodes.result(1, one.links.request(TWO, ASK, body, nodes.now(1) + seconds))

        assert ask(b"x") == b"x" * 1000
        assert ask(b"y" * 3000) == b"y" * 3_000_000
        with pytest.raises(FencedError, match="of the past") as refused:
            ask(b"refuse")
        assert refused.value.fields == {"epoch": "7"}
        with pytest.raises(DeadlineExceededError):
            ask(b"wait", 1.0)
        assert ask(b"z") == b"z" * 1000
        assert one.links.is_open(TWO)


def test_questions_without_an_answer_are_limited() -> None:
    """Beyond the limit they are refused here before anything is sent, and there as well."""
    with World(8) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()

        async def never(source: NodeId, type_: int, body: bytes) -> bytes:
            return await asyncio.get_running_loop().create_future()

        two.answer = never
        waiting = [
            nodes.spawn(1, one.links.request(TWO, ASK, b"", nodes.now(1) + 5))
            for _ in range(limits.PEER_IN_FLIGHT_MAX + 10)
        ]
        nodes.run(1.0)
        assert 0 < two.asked <= limits.PEER_IN_FLIGHT_MAX
        assert sum(task.done() for task in waiting) >= 10
        for task in waiting:
            if task.done():
                assert isinstance(task.exception(), OverloadedError)
        assert one.links.is_open(TWO)
        nodes.run(6.0)
        assert all(isinstance(task.exception(), SsGovernError) for task in waiting)
        # Given up here, they keep the far end busy all the same, and it says so.
        for _ in range(limits.PEER_IN_FLIGHT_MAX - two.asked):
            nodes.spawn(1, one.links.request(TWO, ASK, b"", nodes.now(1) + 5))
        nodes.run(1.0)
        with pytest.raises(OverloadedError, match="node 2 is at 256 requests"):
            nodes.result(1, one.links.request(TWO, ASK, b"", nodes.now(1) + 5))


def test_anybody_can_be_asked_once_without_a_link() -> None:
    """`ask` says who answered; who is asked hears who asks, and has no link of it."""
    with World(9) as world:
        nodes = Nodes(world)
        nodes.add(1, {})
        nodes.add(2, {})
        nodes.run(0.5)
        one, two = nodes.posts[1], nodes.posts[2]
        said, answer = nodes.result(  # type: ignore[misc]
            1, one.links.ask(f"n2:{PORT}", ASK, b"who?", nodes.now(1) + 3)
        )
        assert (said.node_id, answer) == (TWO, b"who?")
        assert [(said.node_id, address) for said, address in two.hellos] == [(ONE, "n1:7420")]
        nodes.run(0.1)
        assert len(two.acceptor) == 0
        assert not two.acceptor.hears(ONE)
        with pytest.raises(PeerRefusedError, match="its own address"):
            nodes.result(1, one.links.ask(f"n1:{PORT}", ASK, b"", nodes.now(1) + 3))
        with pytest.raises(UnavailableError, match="refused"):
            nodes.result(1, one.links.ask("n2:1", ASK, b"", nodes.now(1) + 3))
        with pytest.raises(UnavailableError, match="expected host:port"):
            nodes.result(1, one.links.ask("n2:x", ASK, b"", nodes.now(1) + 3))
        world.network.cut("n1", "n2")
        with pytest.raises(UnavailableError, match="does not answer"):
            nodes.result(1, one.links.ask(f"n2:{PORT}", ASK, b"", nodes.now(1) + 3), 3.1)


# --- much to say ---------------------------------------------------------------------------


def test_a_node_that_does_not_read_costs_a_bounded_memory() -> None:
    """What is told to it is dropped beyond the limit; its link is aborted, and made again."""
    with World(10) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        nodes.processes[2].pause()
        body = b"x" * (1 << 20)
        taken = 0
        while one.links.send(TWO, TELL, body):
            taken += len(body)
            assert taken <= limits.PEER_OUTBOUND_BYTES_MAX + (1 << 20)
        assert taken > limits.PEER_OUTBOUND_BYTES_MAX // 2
        assert one.links.pushes_dropped == 1
        with pytest.raises(OverloadedError):
            nodes.result(1, one.links.request(TWO, ASK, body[:-100], nodes.now(1) + 5))
        nodes.until(lambda: not one.links.is_open(TWO), 2.6)
        nodes.processes[2].resume()
        nodes.until(lambda: one.links.is_open(TWO), 3.0)
        assert one.links.send(TWO, TELL, b"again")
        nodes.until(lambda: two.told[-1:] == [(ONE, TELL, b"again")], 1.0)


def test_a_busy_slow_link_is_not_a_silent_one() -> None:
    """Pings wait behind seconds of what was said before them, and the link stays."""
    with World(11) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        world.network.set_link("n1", "n2", bytes_per_second=500_000)
        count = 12
        for number in range(count):
            assert one.links.send(TWO, TELL, b"%d" % number + b"x" * 500_000)
        nodes.until(lambda: len(two.told) == count, 30)
        nodes.run(5.0)
        assert one.story == ["link 2"]
        assert [int(body[:2].rstrip(b"x")) for _, _, body in two.told] == list(range(count))


def test_a_row_of_messages_lets_others_pass() -> None:
    """On a slow link, what is told meanwhile waits for one message of the row, not for all."""
    with World(12) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        world.network.set_link("n1", "n2", bytes_per_second=1_000_000)
        piece = b"x" * limits.SNAPSHOT_CHUNK_BYTES
        row = nodes.spawn(1, one.links.send_paced(TWO, TELL, [piece] * 40))
        waits = []
        while not row.done():
            two.told.clear()
            assert one.links.send(TWO, TELL, b"urgent")
            waits.append(nodes.until(lambda: (ONE, TELL, b"urgent") in two.told, 2.0))
            nodes.run(0.3)
        assert row.result() is True
        assert len(waits) > 10
        assert max(waits) < 0.35
        assert one.story == ["link 2"]


def test_a_row_of_messages_arrives_in_order_or_is_said_to_be_lost() -> None:
    """On a fast link it takes no time; without the link it ends soon."""
    with World(13) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        bodies = [b"%d" % number for number in range(200)]
        began = world.now
        assert nodes.result(1, one.links.send_paced(TWO, TELL, bodies)) is True
        assert world.now - began < 1.0
        assert [body for _, _, body in two.told] == bodies
        world.network.cut("n1", "n2")
        row = nodes.spawn(1, one.links.send_paced(TWO, TELL, bodies))
        nodes.until(row.done, 3.0)
        assert row.result() is False


def test_a_message_longer_than_a_frame_arrives_whole() -> None:
    """It travels in several frames; those of others come before or after it."""
    with World(14) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        long = bytes(range(256)) * 20_000
        for body in (b"before", long, b"after"):
            assert one.links.send(TWO, TELL, body)
        nodes.until(lambda: len(two.told) == 3, 3.0)
        assert [body for _, _, body in two.told] == [b"before", long, b"after"]


def test_the_end_of_a_read_is_told_after_what_it_brought() -> None:
    """Whoever collects answers can send them then; pings alone are nothing to tell of."""
    with World(15) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        nodes.run(5.0)
        assert two.reads == 0
        for _ in range(100):
            one.links.send(TWO, TELL, b"x" * 100)
        nodes.run(0.5)
        assert len(two.told) == 100
        reads = two.reads
        assert 1 <= reads < 50
        nodes.run(5.0)
        assert two.reads == reads


def test_a_node_that_takes_and_takes_and_never_answers_is_given_up() -> None:
    """That its system acknowledges is a sign of life for a while, not for ever."""

    class Mute(FrameConnection):
        def on_frame(self, frame: Frame) -> None:
            _, _, type_, request_id, body = frame
            if type_ == MessageType.PEER_HELLO:
                request = peer_pb2.PeerHelloRequest.FromString(body)
                _, response = handshake.answer_hello(identity_of(2), request, b"2" * 32)
                self.send(encode_frame(Kind.RESPONSE, type_, request_id, encode(response)))
            elif type_ == MessageType.PEER_PROOF:
                self.send(encode_frame(Kind.RESPONSE, type_, request_id, b""))

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Mute, None, PORT)
        await asyncio.get_running_loop().create_future()

    with World(26) as world:
        nodes = Nodes(world)
        world.process("n2", serve).start()
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.until(lambda: 1 in nodes.posts and nodes.posts[1].links.is_open(TWO), 1.0)
        one = nodes.posts[1]
        world.network.set_link("n1", "n2", bytes_per_second=200_000)
        for _ in range(20):
            assert one.links.send(TWO, TELL, b"x" * 1_000_000)
        nodes.run(25.0)
        assert one.story == ["link 2"]
        nodes.until(lambda: one.story == ["link 2", "lost 2"], 10.0)


def test_what_ends_with_its_owner_is_not_told_of() -> None:
    """A node that stops is not called any more by the links it leaves."""
    with World(27) as world:
        nodes = Nodes(world)
        stories: list[list[str]] = []

        async def main(runtime: SimRuntime) -> None:
            post = Post(identity_of(1), runtime)
            post.links.set_peers({TWO: f"n2:{PORT}"})
            stories.append(post.story)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await post.run("0.0.0.0", PORT)
            assert not post.links.is_open(TWO)
            assert len(post.acceptor) == 0

        nodes.add(2, {1: f"n1:{PORT}"})
        process = world.process("n1", main)
        process.start()
        nodes.until(lambda: not process.alive, 3.0)
        assert stories == [["link 2"]]
        nodes.until(lambda: nodes.posts[2].story == ["link 1", "lost 1"], 0.5)
        assert not world.errors


# --- who is dialled ------------------------------------------------------------------------


def test_exactly_those_are_dialled_that_were_named_last() -> None:
    """A node that is not named any more loses its link; one that moved is found again."""
    with World(16) as world:
        nodes = Nodes(world)
        nodes.add(1, {1: f"n1:{PORT}", 2: f"n2:{PORT}"})
        nodes.add(2, {})
        nodes.add(3, {})
        nodes.run(1.0)
        one = nodes.posts[1]
        assert one.story == ["link 2"]
        assert one.links.failure(ONE) == "not one of the nodes that are dialled"
        one.links.set_peers({TWO: f"n2:{PORT}", THREE: f"n3:{PORT}"})
        nodes.run(1.0)
        assert one.story == ["link 2", "link 3"]
        one.links.set_peers({THREE: f"n3:{PORT}"})
        assert not one.links.is_open(TWO)
        nodes.run(1.0)
        assert one.story == ["link 2", "link 3", "lost 2"]
        assert len(nodes.posts[2].acceptor) == 0
        # The same node 3, at home on another machine now.
        nodes.processes[3].kill()
        nodes.add(3, {}, machine="elsewhere")
        nodes.run(1.0)
        assert one.links.is_refused(THREE)
        one.links.set_peers({THREE: f"elsewhere:{PORT}"})
        assert not one.links.is_refused(THREE)
        nodes.until(lambda: one.links.is_open(THREE), 0.5)
        one.links.set_peers({})
        nodes.run(0.5)
        assert one.story[3:] == ["lost 3", "link 3", "lost 3"]


def test_a_newer_link_of_a_node_ends_the_one_before() -> None:
    """A node that comes back has one link, whatever its last life left behind."""
    with World(17) as world:
        nodes = Nodes(world)
        _, two = nodes.pair()
        first = nodes.processes[1]
        world.network.cut("n1", "n2")
        first.kill()
        nodes.run(0.5)
        world.network.heal()
        first.start()
        nodes.until(lambda: len(two.acceptor) == 2, 1.0)
        nodes.until(lambda: len(two.acceptor) == 1 and two.acceptor.hears(ONE), 0.1)


# --- who is not wanted ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secret": b"another"}, "another cluster secret"),
        ({"secret": b""}, "no cluster secret"),
        ({"cluster_id": b"B" * 16}, "belongs to cluster"),
        ({"candidates": ((ONE, "n1:1"),)}, "write the same cluster.candidates"),
        ({"number": 3}, "node 2 was dialled and node 3 answered"),
        ({"number": 1, "directory_id": b"copy"}, "two nodes have the id 1"),
    ],
)
def test_a_node_that_is_not_wanted_is_asked_seldom_and_named_once(
    options: dict[str, object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged once, and the link comes up when what was wrong has been corrected."""
    with World(18) as world, caplog.at_level(logging.INFO, "ssgovern.links"):
        nodes = Nodes(world)
        me = identity_of(1, cluster_id=b"A" * 16)
        if "candidates" in options:
            me = identity_of(1, candidates=((ONE, "n1:7420"), (TWO, "n2:7420")))
        nodes.add(1, {2: f"n2:{PORT}"}, me=me)
        wrong = nodes.add(2, {}, me=identity_of(**{"number": 2, **options}))  # type: ignore[arg-type]
        nodes.run(20.0)
        one = nodes.posts[1]
        assert reason in one.links.refusal(TWO)
        assert reason in one.links.failure(TWO)
        assert not one.links.is_refused(TWO)
        assert one.story == []
        assert len(nodes.posts[2].acceptor) == 0
        named = [record for record in caplog.records if reason in record.getMessage()]
        assert [record.levelname for record in named] == ["ERROR"]
        assert SECRET.decode() not in caplog.text
        world.network.isolate("n2")
        nodes.run(3.0)
        assert world.network.segments < 200, "it was asked again and again"
        world.network.heal()
        wrong.kill()
        nodes.add(2, {}, machine="right")
        one.links.set_peers({TWO: f"right:{PORT}"})
        nodes.until(lambda: one.links.is_open(TWO), 2.5)
        assert one.links.refusal(TWO) == ""


def test_who_answers_in_anothers_name_is_not_talked_to() -> None:
    """The dialler looks at who answered as well: an empty disk under an old id gets nothing."""

    def check(said: PeerSaid) -> None:
        if said.directory_id == b"empty":
            raise PeerRefusedError("node id 2 belongs to another data directory")

    with World(18) as world:
        nodes = Nodes(world)
        nodes.add(1, {2: f"n2:{PORT}"}, check=check)
        empty = nodes.add(2, {}, me=identity_of(2, directory_id=b"empty"))
        nodes.run(10.0)
        one, two = nodes.posts[1], nodes.posts[2]
        assert "another data directory" in one.links.refusal(TWO)
        assert one.story == two.story == []
        with pytest.raises(PeerRefusedError):
            nodes.result(1, one.links.ask(f"n2:{PORT}", 99, b"", nodes.now(1) + 2.0))
        empty.kill()
        nodes.add(2, {}, machine="right")
        one.links.set_peers({TWO: f"right:{PORT}"})
        nodes.until(lambda: one.links.is_open(TWO), 2.5)


def test_a_second_node_of_the_same_id_is_refused_while_the_first_is_there() -> None:
    """Nobody takes the place of a node that has another data directory."""
    with World(19) as world:
        nodes = Nodes(world)
        nodes.add(2, {})
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.run(1.0)
        two = nodes.posts[2]
        assert two.acceptor.hears(ONE)
        first = nodes.processes[1]
        nodes.add(
            1, {2: f"n2:{PORT}"}, me=identity_of(1, directory_id=b"another"), machine="second"
        )
        nodes.run(5.0)
        second = nodes.posts[1]
        assert "node 1 is here already, from n1:7420" in second.links.refusal(TWO)
        assert len(two.hellos) == 1
        # A disk that was replaced is another thing: the first life is over.
        first.kill()
        nodes.until(lambda: second.links.is_open(TWO), 2.5)


def test_a_message_that_is_refused_ends_its_link_and_no_other() -> None:
    """The node that sent it hears why, and comes back after a pause."""
    with World(20) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        nodes.add(3, {2: f"n2:{PORT}"})
        nodes.run(1.0)
        three = nodes.posts[3]
        two.refuses = FencedError("nobody may say this")
        two.refuses.retry = FencedError.retry
        one.links.send(TWO, TELL, b"x")
        nodes.run(0.05)
        two.refuses = None
        assert not one.links.is_open(TWO)
        assert "nobody may say this" in one.links.failure(TWO)
        assert three.links.is_open(TWO)
        assert two.links.is_open(ONE)
        nodes.until(lambda: one.links.is_open(TWO), 2.5)
        assert three.story == ["link 2"]


def test_a_node_full_of_clients_still_takes_links() -> None:
    """Clients beyond their number are refused; they cannot keep nodes from each other."""
    lines: list[Line] = []

    async def client(runtime: SimRuntime) -> None:
        _, line = await asyncio.get_running_loop().create_connection(Line, "n2", PORT)
        lines.append(line)
        request = native_pb2.HelloRequest(
            version_min=1,
            version_max=1,
            role=native_pb2.ROLE_CLIENT,
            session_id=session_of("a"),
            session_secret=secret_of("a"),
        )
        line.transport.write(encode_frame(Kind.REQUEST, MessageType.HELLO, 1, encode(request)))
        await asyncio.get_running_loop().create_future()

    with World(21) as world:
        nodes = Nodes(world)
        nodes.add(2, {}, connections_max=0)
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.until(lambda: 1 in nodes.posts and nodes.posts[1].links.is_open(TWO), 1.0)
        assert len(nodes.posts[2].server) == 0
        world.process("client", client).start()
        nodes.until(lambda: bool(lines and lines[0].received), 1.0)
        reader = FrameReader()
        reader.receive_data(bytes(lines[0].received))
        frame = reader.next_frame()
        assert frame is not None
        error = native_pb2.Error.FromString(frame[4])
        assert (frame[0], error.code) == (Kind.ERROR, ErrorCode.OVERLOADED)
        nodes.until(lambda: lines[0].is_lost, 7.0)
        assert len(nodes.posts[2].server) == 0
        assert not world.errors


# --- strangers -----------------------------------------------------------------------------


def hello(target: int = 2, **fields: object) -> bytes:
    """Return the frame of a hello of node 9."""
    request = handshake.hello_request(identity_of(9), target, b"9" * 32)
    for name, value in fields.items():
        setattr(request, name, value)
    return encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, encode(request))


def proof(body: bytes) -> bytes:
    return encode_frame(
        Kind.REQUEST, MessageType.PEER_PROOF, 2, encode(peer_pb2.PeerProofRequest(proof=body))
    )


PING = encode_frame(Kind.REQUEST, MessageType.PEER_PING, 3, b"")
PUSH = encode_frame(Kind.PUSH, TELL, 0, b"do this")
QUESTION = encode_frame(Kind.REQUEST, ASK, 4, b"do that")

STRANGERS: dict[str, tuple[list[bytes], float]] = {
    "a hello and nothing more": ([hello()], 6.0),
    "a hello and pings for ever": ([hello(), *[PING] * 100], 6.0),
    "a push before the proof": ([hello(), PUSH], 0.4),
    "a question before the proof": ([hello(), QUESTION], 6.0),
    "a wrong proof": ([hello(), proof(b"x" * 32)], 0.4),
    "an empty proof": ([hello(), proof(b"")], 0.4),
    "no wait for the challenge": ([hello() + proof(b"x" * 32)], 0.4),
    "garbage after the hello": ([hello(), b"GET / HTTP/1.1\r\n\r\n"], 0.4),
    "a huge frame": ([hello(), HEADER.pack(1 << 30, Kind.PUSH, 0, TELL, 0)], 0.4),
    "a message in parts without a proof": (
        [hello(), encode_frame(Kind.REQUEST, ASK, 1, b"", FLAG_MORE)],
        0.4,
    ),
    "an answer nobody asked for": ([hello(), encode_frame(Kind.RESPONSE, ASK, 1, b"")], 0.4),
    "no challenge": ([hello(nonce=b"")], 0.4),
    "no body": ([encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, b"")], 0.4),
    "no message": ([encode_frame(Kind.REQUEST, MessageType.PEER_HELLO, 1, b"\xff")], 7.0),
    "a client that becomes a node": (
        [encode_frame(Kind.REQUEST, MessageType.GET, 1, b""), hello()],
        6.0,
    ),
    "half a hello": ([hello()[:-5]], 7.0),
}


@pytest.mark.parametrize("case", sorted(STRANGERS))
def test_a_stranger_is_closed_and_changes_nothing(case: str) -> None:
    """Whatever it sends, nothing of it reaches the node, and links of others go on."""
    frames, seconds = STRANGERS[case]
    lines: list[Line] = []

    async def intrude(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, "n2", PORT)
        lines.append(line)
        for frame in frames:
            if line.is_lost:
                break
            line.transport.write(frame)
            await asyncio.sleep(0.1)
        await loop.create_future()

    with World(22) as world:
        nodes = Nodes(world)
        one, two = nodes.pair()
        world.process("stranger", intrude).start()
        nodes.until(lambda: bool(lines), 1.0)
        nodes.until(lambda: lines[0].is_lost, seconds)
        nodes.run(0.1)
        assert (two.told, two.asked, len(two.acceptor), len(two.server)) == ([], 0, 1, 0)
        assert [said.node_id for said, _ in two.hellos] == [ONE]
        assert one.story == ["link 2"]
        assert not world.errors


def test_strangers_that_wait_make_room_for_nodes() -> None:
    """Who has not proved itself gives way; who has, does not."""
    lines: list[Line] = []

    async def intrude(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            _, line = await loop.create_connection(Line, "n2", PORT)
            line.transport.write(hello())
            lines.append(line)
        await loop.create_future()

    with World(23) as world:
        nodes = Nodes(world)
        nodes.add(2, {}, peers_max=3)
        nodes.run(0.5)
        world.process("stranger", intrude).start()
        nodes.run(0.5)
        assert [line.is_lost for line in lines] == [True, True, False, False, False]
        for number in (1, 3, 4):
            nodes.add(number, {2: f"n2:{PORT}"})
        nodes.run(1.0)
        assert all(nodes.posts[number].links.is_open(TWO) for number in (1, 3, 4))
        assert all(line.is_lost for line in lines)
        nodes.add(5, {2: f"n2:{PORT}"})
        nodes.run(3.0)
        five = nodes.posts[5]
        assert "as many connections of other nodes as it may" in five.links.failure(TWO)
        assert five.links.refusal(TWO) == ""
        nodes.processes[4].kill()
        nodes.until(lambda: five.links.is_open(TWO), 0.5)


def test_a_node_that_never_reads_its_answers_is_closed() -> None:
    """What it asks for piles up to a limit, and for a limited time."""
    lines: list[Line] = []

    async def ask(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, "n2", PORT)
        lines.append(line)
        request = handshake.hello_request(identity_of(9), 2, b"9" * 32)
        line.transport.write(hello())
        await asyncio.sleep(0.1)
        response = peer_pb2.PeerHelloResponse.FromString(bytes(line.received[HEADER.size :]))
        line.transport.write(
            proof(handshake.dialler_proof(identity_of(9), request, response).proof)
        )
        await asyncio.sleep(0.1)
        line.transport.pause_reading()
        line.transport.write(QUESTION * 3)
        while not line.is_lost:
            line.transport.write(PING)
            await asyncio.sleep(0.5)
        await loop.create_future()

    async def long(source: NodeId, type_: int, body: bytes) -> bytes:
        return b"x" * 1_000_000

    with World(24) as world:
        nodes = Nodes(world)
        nodes.add(2, {}, answer=long)
        nodes.run(0.5)
        two = nodes.posts[2]
        world.process("deaf", ask).start()
        nodes.until(lambda: two.acceptor.hears(NodeId(9)), 1.0)
        nodes.run(20.0)
        assert two.acceptor.hears(NodeId(9))
        nodes.until(lambda: not two.acceptor.hears(NodeId(9)), 15.0)
        nodes.run(0.1)
        assert len(two.acceptor) == 0


def test_an_impostor_learns_nothing_by_answering() -> None:
    """A system that does not know the secret is told nothing but who dialled."""

    class Impostor(FrameConnection):
        def on_frame(self, frame: Frame) -> None:
            heard.append(frame)
            _, response = handshake.answer_hello(
                identity_of(2, secret=b"guessed"),
                peer_pb2.PeerHelloRequest.FromString(frame[4]),
                b"2" * 32,
            )
            self.send(encode_frame(Kind.RESPONSE, frame[2], frame[3], encode(response)))

    heard: list[Frame] = []

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Impostor, None, PORT)
        await asyncio.get_running_loop().create_future()

    with World(25) as world:
        nodes = Nodes(world)
        world.process("n2", serve).start()
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.run(5.0)
        one = nodes.posts[1]
        assert "another cluster secret" in one.links.refusal(TWO)
        assert 2 <= len(heard) <= 6
        assert [frame[2] for frame in heard] == [MessageType.PEER_HELLO] * len(heard)
        assert not any(SECRET in frame[4] for frame in heard)


def test_a_refusal_is_heard_although_the_connection_closes_behind_it() -> None:
    """Why a node was refused counts for more than that it was hung up on."""

    class Curt(FrameConnection):
        def on_frame(self, frame: Frame) -> None:
            error = encode(error_to_wire(PeerRefusedError("go away")))
            self.send(encode_frame(Kind.ERROR, frame[2], frame[3], error))
            self.close()

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Curt, None, PORT)
        await asyncio.get_running_loop().create_future()

    with World(28) as world:
        nodes = Nodes(world)
        world.process("n2", serve).start()
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.run(1.0)
        assert nodes.posts[1].links.refusal(TWO) == "go away"


@pytest.mark.parametrize("seed", range(3))
def test_whoever_answers_with_nonsense_is_no_node(seed: int) -> None:
    """A server of another kind is left after one answer, and asked again now and then."""
    answers = (b"HTTP/1.1 400 Bad Request\r\n\r\n", PUSH, encode_frame(Kind.RESPONSE, 1, 1, b""))

    class Other(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(world.now)
            assert isinstance(transport, asyncio.Transport)
            transport.write(answers[seed])

    made: list[float] = []

    async def serve(runtime: SimRuntime) -> None:
        await asyncio.get_running_loop().create_server(Other, None, PORT)
        await asyncio.get_running_loop().create_future()

    with World(seed) as world:
        nodes = Nodes(world)
        world.process("n2", serve).start()
        nodes.add(1, {2: f"n2:{PORT}"})
        nodes.run(9.0)
        assert 5 <= len(made) <= 10
        assert nodes.posts[1].links.refusal(TWO) != ""
        assert nodes.posts[1].story == []
