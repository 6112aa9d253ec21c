"""The owner of a candidate's Raft, alone on a simulated machine with hand-made peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from ssgovern import limits
from ssgovern.controller.log import Entry
from ssgovern.errors import (
    FencedError,
    InvalidArgumentError,
    LimitExceededError,
    NotControllerError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.node.raft_codec import decode_messages, encode_messages
from ssgovern.node.raft_driver import SETTINGS, RaftDriver
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.raft import Config, Message, Raft, SafetyViolationError, Snapshot
from ssgovern.raft import Entry as RaftEntry
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    PreVote,
    PreVoteAnswer,
    Vote,
    VoteAnswer,
)
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

CLUSTER = b"test"
ME = NodeId(1)
PEER = NodeId(2)
THIRD = NodeId(3)


class Stage:
    """A driver, what it said, and what it told its owner."""

    def __init__(self, runtime: SimRuntime, voters: tuple[NodeId, ...]) -> None:
        self.runtime = runtime
        self.voters = voters
        self.said: list[Message] = []
        self.told: list[Entry | tuple[int, bool]] = []
        self.obedient = True
        """Whether the peers vote for it and take what it appends."""
        self.driver: RaftDriver

    async def open(self) -> None:
        storage, recovered = await RaftStorage.open(
            self.runtime.open_disk("metadata"),
            self.runtime.open_disk("metadata-snapshots"),
            bytes(16),
            first=Snapshot(config=Config(self.voters)),
        )
        core = Raft(
            CLUSTER, ME, self.runtime.rng.randrange, **recovered._asdict(), settings=SETTINGS
        )
        self.driver = RaftDriver(
            core,
            storage,
            self.runtime,
            send=self._send,
            on_applied=self._on_applied,
            on_restored=self.told.append,
            on_role=lambda: self.told.append((self.driver.term, self.driver.is_leader)),
            snapshot=lambda: b"state at %d" % self.driver.applied_index,
        )

    def _on_applied(self, entries: Sequence[Entry]) -> None:
        self.told += entries

    def _send(self, node: NodeId, body: bytes) -> bool:
        messages = decode_messages(body)
        self.said += messages
        if self.obedient:
            for message in messages:
                answer = obey(message)
                if answer is not None:
                    # Not at once: the far end is never within our call.
                    asyncio.get_running_loop().call_later(0.001, self.hear, answer)
        return True

    def hear(self, *messages: Message) -> None:
        self.driver.receive(messages[0].source, encode_messages(messages))

    async def lead(self) -> int:
        """Wait until it is the controller; return where the log ends."""
        while not self.driver.is_leader:
            await asyncio.sleep(0.1)
        return self.driver.applied_index


def obey(message: Message) -> Message | None:
    """Return what a follower says that agrees to everything."""
    ends = (message.cluster, message.target, message.source, message.term)
    match message:
        case PreVote():
            return PreVoteAnswer(*ends, granted=True)
        case Vote():
            return VoteAnswer(*ends, granted=True)
        case Append():
            last = message.prev_index + len(message.entries)
            return AppendAnswer(*ends, ok=True, index=last, hint_index=0, hint_term=0)
        case Heartbeat():
            return HeartbeatAnswer(*ends, round=message.round, tick=message.tick)
        case _:
            return None


Play = Callable[[Stage], Awaitable[None]]


def act(play: Play, *voters: NodeId, seconds: float = 60.0) -> World:
    """Run a play against a driver; what `run` raises is raised here."""
    raised: list[BaseException] = []
    done: list[bool] = []

    async def main(runtime: SimRuntime) -> None:
        stage = Stage(runtime, voters or (ME,))
        await stage.open()

        async def played(serving: asyncio.Task[None]) -> None:
            try:
                await play(stage)
            finally:
                serving.cancel()

        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(stage.driver.run())
                group.create_task(played(serving))
        except BaseExceptionGroup as failures:
            raised.append(failures)
        done.append(True)

    with World(0) as world:
        process = world.process("node", main)
        process.start()
        assert world.run_until(lambda: bool(done), seconds), "the play did not end"
    assert world.errors == []
    if raised:
        raise raised[0]
    return world


def test_alone_it_leads_and_appends() -> None:
    """A group of one agrees with itself, after its sync; the append returns once replayed."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        assert stage.told[-1] == (stage.driver.term, True)
        index = await stage.driver.append(b"one", after=after)
        assert stage.told[-1] == Entry(index, b"one")
        assert stage.driver.read(0) == [Entry(1, b""), Entry(2, b"one")]

    act(play)


def test_one_append_succeeds_behind_an_index() -> None:
    """Also when both are asked for at once; who comes second appended nothing."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(stage.driver.append(b"one", after=after))
            await asyncio.sleep(0)
            with pytest.raises(FencedError):
                await stage.driver.append(b"two", after=after)
        with pytest.raises(FencedError):
            await stage.driver.append(b"three", after=first.result() + 1)
        assert stage.driver.read(after) == [Entry(first.result(), b"one")]

    act(play)


def test_entries_of_the_logs_own_are_nobodys_append() -> None:
    """A change of members between two records is no reason to refuse the second."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        changed = await stage.driver.change_members([ME], [PEER])
        assert await stage.driver.append(b"one", after=after) == changed + 1
        assert stage.driver.learners == (PEER,)

    act(play)


def test_limits_and_refusals_are_errors() -> None:
    """Each says what was wrong; nothing is appended."""

    async def play(stage: Stage) -> None:
        with pytest.raises(FencedError):
            await stage.driver.append(b"early", after=0)
        with pytest.raises(NotControllerError):
            await stage.driver.confirm_read()
        after = await stage.lead()
        with pytest.raises(LimitExceededError):
            await stage.driver.append(bytes(limits.METADATA_ENTRY_BYTES_MAX + 1), after=after)
        with pytest.raises(InvalidArgumentError, match="voters"):
            await stage.driver.change_members([])
        with pytest.raises(InvalidArgumentError, match="caught up"):
            await stage.driver.change_members([ME, PEER])
        with pytest.raises(InvalidArgumentError, match="not a voter"):
            await stage.driver.transfer(PEER)
        assert stage.driver.applied_index == after

    act(play)


def test_what_promises_nothing_leaves_during_a_sync() -> None:
    """Heartbeats go out while the disk is busy; the entry is not promised meanwhile."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        stage.runtime.process.machine.disk_timing.sync = (3.0, 3.0)
        began = len(stage.said)
        begun_at = asyncio.get_running_loop().time()
        index = await stage.driver.append(b"one", after=after)
        beats = [each for each in stage.said[began:] if isinstance(each, Heartbeat)]
        took_s = asyncio.get_running_loop().time() - begun_at
        # Two of three hold it long before our own disk does; applied is what is on it.
        assert took_s >= 2.9
        assert len(beats) >= 2 * 25
        assert stage.driver.read(after) == [Entry(index, b"one")]

    act(play, ME, PEER, THIRD)


def test_a_vote_leaves_after_its_sync() -> None:
    """The answer to a candidate waits for the disk."""

    async def play(stage: Stage) -> None:
        stage.obedient = False
        stage.runtime.process.machine.disk_timing.sync = (0.5, 0.5)
        stage.hear(Vote(CLUSTER, PEER, ME, 7, 0, 0, transfer=True))
        await asyncio.sleep(0.4)
        assert stage.said == []
        await asyncio.sleep(0.2)
        assert stage.said == [VoteAnswer(CLUSTER, ME, PEER, 7, granted=True)]

    act(play, ME, PEER, THIRD)


def test_a_stalled_loop_ticks_once() -> None:
    """Who stood still for a minute has waited for one tick longer, and stands for no election."""

    async def play(stage: Stage) -> None:
        stage.obedient = False
        beat = Heartbeat(CLUSTER, PEER, ME, 1, 0, 0, 0)
        for _ in range(30):
            stage.hear(beat)
            await asyncio.sleep(0.3)
            if stage.runtime.process.world.now < 5.0:
                process = stage.runtime.process
                process.world.after(0.0, process.pause)
                process.world.after(60.0, process.resume)
                await asyncio.sleep(0.01)
        assert (stage.driver.term, stage.driver.leader_id) == (1, PEER)
        assert not [each for each in stage.said if isinstance(each, PreVote)]

    act(play, ME, PEER, THIRD, seconds=200.0)


def test_an_append_of_a_fallen_leader_is_of_unknown_outcome() -> None:
    """Without a majority it steps down, and says after a while that it does not know."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        stage.obedient = False
        with pytest.raises(UnavailableError, match="not known"):
            await stage.driver.append(b"one", after=after)
        assert not stage.driver.is_leader

    act(play, ME, PEER, THIRD)


def test_an_append_that_was_replaced_is_fenced() -> None:
    """The next leader's entry is at its index: this one will never be committed."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        term = stage.driver.term
        stage.obedient = False
        async with asyncio.TaskGroup() as group:
            appending = group.create_task(refused(stage.driver.append(b"one", after=after)))
            await asyncio.sleep(0.05)
            theirs = RaftEntry(after + 1, term + 1, b"other")
            stage.hear(
                Append(CLUSTER, PEER, ME, term + 1, after, term, (theirs,), commit=after + 1)
            )
        assert appending.result() is FencedError
        assert stage.driver.read(after) == [Entry(after + 1, b"other")]

    act(play, ME, PEER, THIRD)


def test_who_leads_again_appends_where_it_had_waited_before() -> None:
    """An index at which an append of an earlier term was lost is free for the next."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        term = stage.driver.term
        stage.obedient = False
        async with asyncio.TaskGroup() as group:
            lost = [
                group.create_task(
                    refused(stage.driver.append(b"%d" % number, after=after + number))
                )
                for number in range(3)
            ]
            await asyncio.sleep(0.05)
            theirs = RaftEntry(after + 1, term + 1, b"other")
            stage.hear(Append(CLUSTER, PEER, ME, term + 1, after, term, (theirs,), commit=after))
            stage.obedient = True
            again = await stage.lead()
            assert again == after + 2
            assert await stage.driver.append(b"next", after=again) == after + 3
        assert [task.result() for task in lost] == [FencedError] * 3
        assert stage.driver.read(again) == [Entry(after + 3, b"next")]

    act(play, ME, PEER, THIRD)


async def refused(append: Awaitable[int]) -> type[Exception]:
    try:
        await append
    except (FencedError, UnavailableError) as error:
        return type(error)
    raise AssertionError("it was appended")


def test_a_snapshot_takes_the_place_of_the_log_and_comes_back() -> None:
    """After so many entries the state is kept instead; a new life begins with it."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        for _ in range(limits.METADATA_LOG_ENTRIES_MAX + 5):
            after = await stage.driver.append(b"x", after=after)
        await asyncio.sleep(1.0)
        assert stage.driver.read(0) is None
        assert stage.driver.read(after - 1) == [Entry(after, b"x")]
        again = Stage(stage.runtime, (ME,))
        await again.open()
        serving = asyncio.get_running_loop().create_task(again.driver.run())
        await again.lead()
        serving.cancel()
        snapshot, *entries = [each for each in again.told if isinstance(each, Entry)]
        assert snapshot.body == b"state at %d" % snapshot.index
        assert [each.index for each in entries[:2]] == [snapshot.index + 1, snapshot.index + 2]

    act(play)


def test_an_installed_snapshot_is_handed_out() -> None:
    """The owner hears of it in place of the entries; what follows follows it."""

    async def play(stage: Stage) -> None:
        stage.obedient = False
        ends = (CLUSTER, PEER, ME, 3)
        config = Config((ME, PEER, THIRD))
        stage.hear(InstallSnapshot(*ends, 50, 2, config, 0, b"their state", done=True))
        theirs = RaftEntry(51, 3, b"more")
        stage.hear(Append(*ends, 50, 2, (theirs,), commit=51))
        await asyncio.sleep(0.2)
        told = [each for each in stage.told if isinstance(each, Entry)]
        assert told == [Entry(50, b"their state"), Entry(51, b"more")]
        assert stage.driver.applied_index == 51

    act(play, ME, PEER, THIRD)


def test_a_read_is_confirmed_by_a_majority_asked_after_it() -> None:
    """Nobody answers: it is not confirmed; and it ends when the leader steps down."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        assert await stage.driver.confirm_read() == after
        assert stage.driver.confirmed_at > 0.0
        stage.obedient = False
        with pytest.raises(NotControllerError):
            await stage.driver.confirm_read()
        assert stage.driver.confirmed_at == 0.0

    act(play, ME, PEER, THIRD)


def test_leadership_is_handed_over() -> None:
    """The target is told to stand at once; whoever waits hears when it took over."""

    async def play(stage: Stage) -> None:
        await stage.lead()
        async with asyncio.TaskGroup() as group:
            handing = group.create_task(stage.driver.transfer(THIRD))
            await asyncio.sleep(0.05)
            with pytest.raises(OverloadedError):
                await stage.driver.append(b"late", after=stage.driver.applied_index)
            term = stage.driver.term + 1
            stage.hear(Heartbeat(CLUSTER, THIRD, ME, term, 0, 0, 0))
        assert handing.result()
        assert stage.driver.leader_id == THIRD

    act(play, ME, PEER, THIRD)


def test_a_target_that_does_not_stand_leaves_the_leader_where_it_is() -> None:
    """After its time is up the leader goes on."""

    async def play(stage: Stage) -> None:
        after = await stage.lead()
        assert not await stage.driver.transfer(THIRD)
        await stage.driver.append(b"on", after=after)

    act(play, ME, PEER, THIRD)


def test_messages_of_somebody_else_are_refused() -> None:
    """A link carries the words of the node at its end, and of nobody else."""

    async def play(stage: Stage) -> None:
        beat = Heartbeat(CLUSTER, THIRD, ME, 1, 0, 0, 0)
        with pytest.raises(RemoteProtocolError):
            stage.driver.receive(PEER, encode_messages([beat]))
        with pytest.raises(RemoteProtocolError):
            stage.driver.receive(PEER, b"\xff")
        assert stage.driver.leader_id is None

    act(play, ME, PEER, THIRD)


def test_what_the_protocol_rules_out_ends_the_candidate() -> None:
    """A second leader in one term: the core is in doubt and neither hears nor says more."""

    async def play(stage: Stage) -> None:
        stage.hear(Heartbeat(CLUSTER, PEER, ME, 1, 0, 0, 0))
        stage.hear(Heartbeat(CLUSTER, THIRD, ME, 1, 0, 0, 0))
        stage.said.clear()
        stage.hear(Heartbeat(CLUSTER, PEER, ME, 1, 0, 0, 0))
        await asyncio.sleep(5.0)
        assert stage.said == []

    with pytest.raises(BaseExceptionGroup) as caught:
        act(play, ME, PEER, THIRD)
    assert caught.group_contains(SafetyViolationError)


def test_messages_are_sent_in_frames_of_bounded_size() -> None:
    """What one turn has to say to a node is no reason to hold up a heartbeat for long."""

    async def play(stage: Stage) -> None:
        sizes: list[int] = []
        after = await stage.lead()
        stage.obedient = False
        send = stage.driver._send_body

        def measure(node: NodeId, body: bytes) -> bool:
            sizes.append(len(body))
            return send(node, body)

        stage.driver._send_body = measure
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                body = bytes(60_000)
                group.create_task(refused(stage.driver.append(body, after=after + number)))
        assert max(sizes) <= limits.FRAME_CHUNK_BYTES + 1000
        assert sum(sizes) > 20 * 60_000

    act(play, ME, PEER, THIRD)
