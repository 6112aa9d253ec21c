"""What primaries ask and send: each once at a time, the newest, and not more than fits."""

from __future__ import annotations

import asyncio

from hosting import ME, OTHER, PEER, SHARD, SHARDS, FakeLinks, Hosting, row, settle, simulate
from nodes import run_world

from ssgovern import limits
from ssgovern.errors import FencedError, SsGovernError
from ssgovern.model import LogPosition, ShardId
from ssgovern.node.replication_sender import Asker, Outbox
from ssgovern.replication.codec import decode_batch
from ssgovern.replication.messages import Appended, AppendEntries, Entry, Message, Mismatch
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import peer_pb2


async def primary(node: Hosting) -> None:
    """Let this node be primary of the first shard, with node 2 as its replica."""
    node.found()
    node.agree(s0=row(1, 2))
    await settle()
    node.held(1)
    await settle()


# --- whole shards ----------------------------------------------------------------------------


def wants_snapshot(node: Hosting, epoch: int = 1) -> None:
    """Let the peer's log begin and end before all that this node's log remembers."""
    # A new life of the peer is asked for its log anew; the answer is about what was asked.
    asked = node.said(AppendEntries)[-1].prev
    node.tell(Mismatch(SHARD, PEER, 1, epoch, asked, LogPosition(0, 0), LogPosition(0, 0)))


async def forgetful(node: Hosting) -> None:
    """Let this node be a primary that has released its log, and its replica lose the link."""
    await primary(node)
    node.propose("a")
    await settle()
    node.held(2)
    await settle()
    node[SHARD].log.release(2)
    node.links.gate.clear()
    node.said(AppendEntries)
    node.host.on_link(PEER)


def test_a_shard_goes_to_a_node_once_at_a_time() -> None:
    """However long it takes: who does not answer meanwhile is not sent the same again."""

    async def body(node: Hosting) -> None:
        await forgetful(node)
        for _ in range(8):
            wants_snapshot(node)
            # The primary takes it for lost, and asks the replica anew.
            for _ in range(40):
                await asyncio.sleep(0.5)
                node.lease()
        leading = node[SHARD].primary
        assert leading is not None
        assert leading.story().count("node 2 needs a snapshot") > 2
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == "send-shard-0"]
        assert len(tasks) == 1
        node.links.gate.set()
        await settle()
        assert [found.position for found in node.received()] == [LogPosition(1, 2)]

    simulate(body)


def test_no_snapshot_of_an_older_epoch_is_sent() -> None:
    """Who waited for its turn until it was deposed has nothing to say."""

    async def body(node: Hosting) -> None:
        await forgetful(node)
        node.host._primary_driver._sending = asyncio.Semaphore(0)
        wants_snapshot(node)
        await settle()
        node.agree(s0=row(1, 2, primary=2, epoch=2, version=2))
        await settle()
        node.host._primary_driver._sending.release()
        node.links.gate.set()
        await settle()
        assert not node.links.paced
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "send-shard-0"]

    simulate(body)


# --- questions -------------------------------------------------------------------------------


def asking(body: object) -> None:
    async def main(_runtime: object) -> None:
        await body()  # type: ignore[operator]

    run_world(0, main)


def test_the_newest_question_is_asked_when_its_turn_comes() -> None:
    """At most so many at a time; those that wait give way to newer ones of their shard."""

    async def body() -> None:
        gate = asyncio.Event()
        asked: list[bytes] = []

        async def controller(type_: int, question: bytes, deadline: float) -> bytes:
            asked.append(question)
            await gate.wait()
            return b""

        asker = Asker(controller, 1.0)
        async with asyncio.TaskGroup() as group:
            for shard in range(limits.REPLICATION_ASKS_AT_ONCE + 1):
                asker.ask(group, 1, ShardId(shard), b"old %d" % shard, refused=_unexpected)
            await asyncio.sleep(0.1)
            assert len(asked) == limits.REPLICATION_ASKS_AT_ONCE
            for shard in range(limits.REPLICATION_ASKS_AT_ONCE + 1):
                asker.ask(group, 1, ShardId(shard), b"new %d" % shard, refused=_unexpected)
            gate.set()
        assert asked[limits.REPLICATION_ASKS_AT_ONCE :] == [b"new 8"]

    asking(body)


def test_a_refusal_is_told_and_asked_again_later() -> None:
    """What was refused is no longer under way, so that it may be asked anew."""

    async def body() -> None:
        refused: list[SsGovernError] = []

        async def controller(type_: int, question: bytes, deadline: float) -> bytes:
            raise FencedError("older")

        asker = Asker(controller, 1.0)
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                asker.ask(group, 1, SHARD, b"", refused=refused.append)
        assert len(refused) == 2

    asking(body)


def _unexpected(error: SsGovernError) -> None:
    raise AssertionError(error)


def test_a_replica_that_caught_up_is_asked_for() -> None:
    """As soon as it holds the first entry of the epoch, in the name of this life and row."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, in_sync=(1,)))
        await settle()
        node.held(1)
        await settle()
        ((type_, asked),) = node.asked
        assert type_ == MessageType.IN_SYNC_CHANGE
        request = peer_pb2.InSyncChangeRequest.FromString(asked)
        assert (request.shard, request.node_id, request.epoch) == (SHARD, ME, 1)

    simulate(body)


# --- messages --------------------------------------------------------------------------------


def test_messages_leave_in_their_order_in_frames_that_fit() -> None:
    """What is too much for one frame is split, and none is left behind."""
    links = FakeLinks()
    outbox = Outbox(links, lambda: 7)
    big = b"x" * (limits.REPLICATION_BATCH_BYTES // 3)
    for revision in range(1, 8):
        entries = [Entry(1, revision, big)]
        before = LogPosition(1 if revision > 1 else 0, revision - 1)
        outbox.add(PEER, AppendEntries(SHARD, ME, 1, before, entries, 0))
    outbox.add(PEER, AppendEntries(OTHER, ME, 1, LogPosition(0, 0), [], 0))
    assert not links.sent
    outbox.flush()
    frames = [decode_batch(ME, body) for _, _, body in links.sent]
    assert [len(frame) for frame in frames] == [2, 2, 2, 2]
    appends = [message for frame in frames for message in frame if message.shard == SHARD]
    assert [m.prev.revision for m in appends if isinstance(m, AppendEntries)] == list(range(7))
    outbox.flush()
    assert len(links.sent) == 4


def test_what_cannot_leave_is_dropped_and_counted() -> None:
    """The cores send again; nothing piles up for a node that is not there."""
    links = FakeLinks()
    links.open = False
    outbox = Outbox(links, lambda: 7)
    outbox.add(PEER, Appended(SHARD, ME, 1, 1, 1))
    outbox.flush()
    links.open = True
    outbox.flush()
    assert (outbox.dropped, links.sent) == (1, [])


def test_what_waits_for_a_role_is_bounded() -> None:
    """A node that knows no role for a shard yet keeps the newest messages, and few bytes."""

    async def body(node: Hosting) -> None:
        big = b"x" * (limits.REPLICATION_BACKLOG_BYTES_MAX // 3)
        messages: list[Message] = [
            AppendEntries(SHARD, PEER, 1, LogPosition(1, number), [Entry(1, number + 1, big)], 0)
            for number in range(1, 9)
        ]
        for message in messages:
            node.tell(message)
        kept = node[SHARD].backlog
        assert [m.prev.revision for m in kept if isinstance(m, AppendEntries)] == [7, 8]
        for _ in range(2 * limits.REPLICATION_BACKLOG_MAX):
            node.tell(Appended(SHARD, PEER, 1, 1, 1))
        assert len(kept) == limits.REPLICATION_BACKLOG_MAX

    simulate(body)


def test_messages_for_shards_that_are_not_here_end_nothing() -> None:
    """Whatever a peer says to a node in no role, it is kept for a while or forgotten."""

    async def body(node: Hosting) -> None:
        node.found()
        for shard in range(SHARDS):
            node.tell(Appended(ShardId(shard), PEER, 1, 1, 99))
        await settle()
        node.agree(s0=row(1, 2))
        await settle()
        assert node[SHARD].primary is not None

    simulate(body)
