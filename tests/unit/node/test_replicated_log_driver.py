"""The log of a node that has peers: one sync for all, in order, also when roles change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from hosting import ME, OTHER, SHARD, Asked, FakeWal, settle
from nodes import run_world

from ssgovern import limits
from ssgovern.errors import DiskFullError
from ssgovern.model import ORIGIN, Outcome, ShardId
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver, Write
from ssgovern.replication.messages import Assigned, Member
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.replication.shard_log import ShardLog
from ssgovern.storage.format import LogEntry
from ssgovern.wire.pb import log_pb2


class Logging:
    """A driver with one primary, of the first shard, that has no replicas."""

    def __init__(self) -> None:
        self.wal = FakeWal()
        self.story: list[str] = []
        row = Assigned(SHARD, 1, 1, ME, (Member(ME, 1),), ())
        log = ShardLog(SHARD, ORIGIN)
        primary = ReplicatedPrimary(Member(ME, 1), row, log, 0, [], ReplicationSettings(), now_ms=0)
        self.primaries = {SHARD: primary}
        self.driver = ReplicatedLogDriver(
            self.wal,  # type: ignore[arg-type]
            self.primaries,
            ME,
            on_committed=self._on_committed,
            on_batch=self._on_batch,
            on_done=lambda: self.story.append("done"),
            on_deposed=lambda shard: self.story.append(f"deposed {shard}"),
            failpoint=self._failpoint,
        )

    def _on_batch(self, shards: Iterable[ShardId]) -> None:
        self.story.append(f"sent {list(shards)}")

    def _failpoint(self, name: str) -> None:
        self.story.append(name.removeprefix("log."))

    def _on_committed(self, committed: list[Proposal]) -> None:
        self.story.append(f"committed {len(committed)}")
        for proposal in committed:
            proposal.waiter.on_outcome(proposal, Outcome())

    def propose(self, time_ms: int = 1) -> Asked:
        asked = Asked()
        self.driver.propose(SHARD, log_pb2.Record(time_ms=time_ms), asked)
        return asked

    def write(self, name: str, *revisions: int, size_bytes: int = 1) -> None:
        entries = [LogEntry(OTHER, 1, revision, b"x" * size_bytes) for revision in revisions]
        self.driver.write(
            Write(
                entries,
                lambda: self.story.append(f"{name} written"),
                lambda: self.story.append(f"{name} refused"),
            )
        )


def logging(body: Callable[[Logging], Awaitable[None]]) -> None:
    async def main(_runtime: object) -> None:
        node = Logging()
        task = asyncio.get_running_loop().create_task(node.driver.run())
        await asyncio.sleep(0)
        await body(node)
        await node.driver.drain()
        await task
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0

    run_world(0, main)


def test_proposals_and_writes_share_a_sync() -> None:
    """Proposals leave for replicas before the batch is written; nothing is done before it is."""

    async def body(node: Logging) -> None:
        asked = node.propose()
        node.write("a", 1, 2)
        node.write("b", 3)
        await settle()
        assert node.story == [
            "sent [0]",
            "before_write",
            "after_write",
            "committed 1",
            "a written",
            "b written",
            "done",
        ]
        assert asked.error is None

    logging(body)


def test_what_comes_during_a_write_is_in_the_next() -> None:
    """In the order in which it was asked for."""

    async def body(node: Logging) -> None:
        node.write("a", 1)
        await asyncio.sleep(0.0005)
        node.write("b", 2)
        node.write("c", 3)
        await settle()
        assert node.story.count("before_write") == 2
        assert [entry.revision for entry in node.wal.written] == [1, 2, 3]

    logging(body)


def test_a_batch_of_writes_has_a_size() -> None:
    """What does not fit goes with the next, and still in its order."""

    async def body(node: Logging) -> None:
        for number in range(1, 5):
            node.write(str(number), number, size_bytes=limits.BATCH_BYTES_MAX // 2)
        await settle()
        assert node.story.count("before_write") == 2
        assert [entry.revision for entry in node.wal.written] == [1, 2, 3, 4]

    logging(body)


def test_what_waits_for_all_is_called_behind_all() -> None:
    """Behind what is being written and what is queued, not behind what is asked later."""

    async def body(node: Logging) -> None:
        node.driver.after_all(lambda: node.story.append("nothing to wait for"))
        await settle()
        assert node.story[0] == "nothing to wait for"
        node.story.clear()
        node.propose()
        await asyncio.sleep(0.0005)
        node.propose()
        node.write("a", 1)
        node.driver.after_all(lambda: node.story.append("all"))
        # A callback may ask for more, and for another.
        node.driver.after_all(lambda: node.driver.after_all(lambda: node.story.append("and then")))
        await asyncio.sleep(0.0005)
        node.write("later", 2)
        await settle()
        told = [line for line in node.story if "write" not in line or " " in line]
        assert told.index("a written") < told.index("all") < told.index("later written")
        assert told.index("all") < told.index("and then")

    logging(body)


def test_a_full_disk_refuses_all_that_was_asked_for() -> None:
    """What is queued rests on it; who waits for all is called then, and the next is tried anew."""

    async def body(node: Logging) -> None:
        node.wal.full = True
        first = node.propose()
        node.write("a", 1)
        await asyncio.sleep(0.0005)
        second = node.propose()
        node.write("b", 2)
        node.driver.after_all(lambda: node.story.append("all"))
        await settle()
        assert isinstance(first.error, DiskFullError)
        assert isinstance(second.error, DiskFullError)
        assert node.wal.refused == 1
        assert node.story[-4:] == ["a refused", "b refused", "all", "done"]
        node.wal.full = False
        third = node.propose()
        await settle()
        assert third.error is None
        assert [entry.revision for entry in node.wal.written] == [1]
        assert not node.driver.writes_refused

    logging(body)


def test_what_is_given_up_is_not_counted() -> None:
    """Taken over or given up, an entry is counted once and let go of once."""

    async def body(node: Logging) -> None:
        primary = node.primaries[SHARD]
        inherited = [
            Proposal(OTHER, 1, revision, b"body", log_pb2.Record(), Asked())
            for revision in (1, 2, 3)
        ]
        node.driver.inherit(inherited)
        assert (node.driver._uncommitted, node.driver._uncommitted_bytes) == (3, 12)
        node.driver.committed(inherited[:1])
        node.driver.forget(inherited[1:])
        assert node.driver.entries == 1
        assert primary.committed == 0

    logging(body)
