"""The task that owns the log: batches, order, a full disk, intervals, an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from builders import epoch_started, registered

from ssgovern import limits
from ssgovern.errors import (
    DiskFullError,
    OverloadedError,
    ShuttingDownError,
    SsGovernError,
    StorageFailedError,
)
from ssgovern.model import LogPosition, NodeId, Outcome, ShardId
from ssgovern.node.log_driver import LogDriver
from ssgovern.replication.primary import PrimaryLog, Proposal
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal

ME = NodeId(1)
SHARDS = 4


class FakeWal:
    """A log in memory that takes a while, and fails when told to."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.synced = 0
        self.syncs = 0
        self.marks = 0
        self.failure: SsGovernError | None = None
        self.fails_once = False
        self.takes_s = 0.01
        self.busy = False
        self.size_bytes = 0
        self.segments = (None,)

    async def append(self, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
        await self._take_time()
        if (failure := self.failure) is not None:
            if self.fails_once:
                self.failure = None
            raise failure
        self.batches.append([(entry.shard, entry.revision) for entry in entries])
        if sync:
            self.synced = len(self.batches)

    async def sync(self) -> None:
        until = len(self.batches)
        await self._take_time()
        self.syncs += 1
        self.synced = until

    async def mark(self) -> None:
        await self._take_time()
        self.marks += 1

    async def _take_time(self) -> None:
        assert not self.busy, "two calls on the log at once"
        self.busy = True
        await asyncio.sleep(self.takes_s)
        self.busy = False


class Asker:
    """Who proposed, with what became of it and of everything else, in order."""

    story: list[str]

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.outcome: Outcome | None = None

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        assert self.outcome is None, f"{self.name} was answered twice"
        self.outcome = outcome
        error = outcome.error
        self.story.append(f"{self.name} {'done' if error is None else type(error).__name__}")


class Rig:
    """A driver over a fake log, with four shards."""

    def __init__(self, interval_s: float | None) -> None:
        self.wal = FakeWal()
        self.story: list[str] = []
        self.committed: list[list[tuple[int, int]]] = []
        self.logs = [
            PrimaryLog(ShardId(shard), 1, LogPosition(0, 0), (ME,)) for shard in range(SHARDS)
        ]
        self.driver = LogDriver(
            cast("Wal", self.wal),
            self.logs,
            ME,
            on_committed=self._on_committed,
            failpoint=self._failpoint,
            sync_interval_s=interval_s,
        )

    def _failpoint(self, name: str) -> None:
        self.story.append(name)

    def _on_committed(self, committed: list[Proposal]) -> None:
        self.committed.append([(p.shard, p.revision) for p in committed])
        for proposal in committed:
            proposal.waiter.on_outcome(proposal, Outcome())

    def propose(self, name: str, shard: int = 0, *, host: str = "h") -> Asker:
        asker = Asker(name, self.story)
        self.driver.propose(ShardId(shard), registered("s", name, host=host), asker)
        return asker


@asynccontextmanager
async def running(interval_s: float | None = None) -> AsyncIterator[Rig]:
    rig = Rig(interval_s)
    task = asyncio.get_running_loop().create_task(rig.driver.run())
    try:
        yield rig
        await rig.driver.drain()
        for primary in rig.logs:
            primary.validate()
    finally:
        task.cancel()
        await asyncio.sleep(0)


def simulated(body: Callable[[], Coroutine[Any, Any, None]]) -> World:
    """Run `body` in virtual time; return the world, for its counts."""

    async def main(runtime: SimRuntime) -> None:
        await body()

    with World(0) as world:
        world.process("host", main).start()
        assert world.run_until(lambda: bool(world.exits), 1000.0), "it never ended"
        if (cause := world.exits[0].cause) is not None:
            raise cause
        assert not world.errors, world.errors
    return world


def test_what_comes_during_a_sync_is_one_batch() -> None:
    """While a batch is written the next one collects; each is answered after its own write."""

    async def body() -> None:
        async with running() as rig:
            rig.propose("a")
            await asyncio.sleep(0.005)
            for n in range(20):
                rig.propose(f"b{n}", n % SHARDS)
            await asyncio.sleep(0.1)
            assert [len(batch) for batch in rig.wal.batches] == [1, 20]
            assert rig.story[:3] == ["log.before_write", "log.after_write", "a done"]
            assert rig.story[3:5] == ["log.before_write", "log.after_write"]
            assert len(rig.story) == 5 + 20

    simulated(body)


def test_a_batch_is_bounded() -> None:
    """However much is queued, one write takes no more than the limits say."""

    async def body() -> None:
        async with running() as rig:
            for n in range(limits.BATCH_ENTRIES_MAX + 10):
                rig.propose(str(n))
            await asyncio.sleep(1.0)
            assert [len(batch) for batch in rig.wal.batches] == [limits.BATCH_ENTRIES_MAX, 10]

    simulated(body)


def test_commits_keep_the_order_of_each_shard() -> None:
    """Entries of a shard commit in the order of their revisions, each exactly once."""

    async def body() -> None:
        async with running() as rig:
            for n in range(200):
                rig.propose(str(n), n * 7 % SHARDS)
                if n % 11 == 0:
                    await asyncio.sleep(0.003)
            await asyncio.sleep(1.0)
            for shard in range(SHARDS):
                revisions = [r for batch in rig.committed for s, r in batch if s == shard]
                assert revisions == list(range(1, 51))

    simulated(body)


def test_a_full_disk_refuses_the_batch_and_all_behind_it() -> None:
    """Nothing refused leaves a gap: the next that fits gets the revision of the first refused."""

    async def body() -> None:
        async with running() as rig:
            rig.propose("fits")
            await asyncio.sleep(0.1)
            rig.wal.failure = DiskFullError("no space")
            rig.propose("a")
            await asyncio.sleep(0.005)
            rig.propose("b")
            rig.propose("c", 1)
            await asyncio.sleep(0.1)
            refused = [line for line in rig.story if line.endswith("DiskFullError")]
            assert refused == [f"{name} DiskFullError" for name in "abc"]
            assert rig.driver.writes_refused
            rig.wal.failure = None
            rig.propose("again")
            await asyncio.sleep(0.1)
            assert rig.wal.batches[-1] == [(0, 2)]
            assert rig.driver.writes_refused == ""

    simulated(body)


def test_a_disk_full_for_a_moment_refuses_what_waits_too() -> None:
    """What was queued behind a refused batch stands on it, and must not be written without it."""

    async def body() -> None:
        async with running() as rig:
            rig.wal.failure, rig.wal.fails_once = DiskFullError("no space"), True
            rig.propose("a")
            await asyncio.sleep(0.005)
            behind = rig.propose("b")
            await asyncio.sleep(0.1)
            assert behind.outcome is not None
            assert isinstance(behind.outcome.error, DiskFullError)
            assert rig.wal.batches == []
            rig.propose("c")
            await asyncio.sleep(0.1)
            assert rig.wal.batches == [[(0, 1)]]

    simulated(body)


def test_a_full_disk_gives_the_room_back() -> None:
    """What was refused no longer counts as waiting."""

    async def body() -> None:
        async with running() as rig:
            rig.wal.failure = DiskFullError("no space")
            for n in range(100):
                rig.propose(str(n))
            await asyncio.sleep(1.0)
            rig.driver.check_room(limits.UNCOMMITTED_ENTRIES_MAX, limits.UNCOMMITTED_BYTES_MAX)
            rig.wal.failure = None

    simulated(body)


def test_a_failed_disk_ends_the_driver_unanswered() -> None:
    """After a failure of which nothing is known, nobody is told anything."""

    async def body() -> None:
        rig = Rig(None)
        rig.wal.failure = StorageFailedError("sync failed")
        asker = rig.propose("a")
        with pytest.raises(StorageFailedError):
            await rig.driver.run()
        assert asker.outcome is None
        assert rig.committed == []

    simulated(body)


def test_the_queue_is_bounded_by_entries_and_by_bytes() -> None:
    """Beyond either limit the answer is to try again, and nothing is queued."""

    async def body() -> None:
        async with running() as rig:
            rig.driver.check_room(limits.UNCOMMITTED_ENTRIES_MAX, 0)
            rig.propose("a", host="h" * 200)
            with pytest.raises(OverloadedError):
                rig.driver.check_room(limits.UNCOMMITTED_ENTRIES_MAX, 0)
            with pytest.raises(OverloadedError):
                rig.driver.check_room(1, limits.UNCOMMITTED_BYTES_MAX)
            await asyncio.sleep(0.1)
            rig.driver.check_room(limits.UNCOMMITTED_ENTRIES_MAX, limits.UNCOMMITTED_BYTES_MAX)

    simulated(body)


def test_drain_finishes_what_was_taken_and_takes_no_more() -> None:
    """All that was proposed is answered before `drain` returns; nothing new gets in."""

    async def body() -> None:
        rig = Rig(None)
        task = asyncio.get_running_loop().create_task(rig.driver.run())
        askers = [rig.propose(str(n)) for n in range(5)]
        await rig.driver.drain()
        assert all(asker.outcome is not None for asker in askers)
        with pytest.raises(ShuttingDownError):
            rig.driver.check_room(1, 0)
        await task

    simulated(body)


def test_an_interval_commits_at_once_and_syncs_later() -> None:
    """With an interval nobody waits for the sync, which follows in time and at the end."""

    async def body() -> None:
        async with running(interval_s=0.5) as rig:
            asker = rig.propose("a")
            await asyncio.sleep(0.1)
            assert asker.outcome is not None
            assert rig.wal.synced == 0
            await asyncio.sleep(0.6)
            assert rig.wal.synced == 1
            rig.propose("b")
            await asyncio.sleep(0.1)
        assert rig.wal.synced == 2

    simulated(body)


def test_an_interval_is_kept_under_load() -> None:
    """A queue that is never empty does not keep the log from being synced."""

    async def body() -> None:
        async with running(interval_s=0.5) as rig:
            rig.wal.takes_s = 0.01
            for number in range(600):
                rig.propose(str(number))
                await asyncio.sleep(0.005)
            assert rig.wal.syncs >= 4

    simulated(body)


def test_who_asks_for_a_sync_waits_for_the_one_under_way() -> None:
    """A second caller of `sync` returns when what was written before is durable, not earlier."""

    async def body() -> None:
        async with running(interval_s=60.0) as rig:
            rig.propose("a")
            await asyncio.sleep(0.1)
            rig.wal.takes_s = 1.0
            first = asyncio.get_running_loop().create_task(rig.driver.sync())
            await asyncio.sleep(0.1)
            await rig.driver.sync()
            assert rig.wal.synced == 1
            await first

    simulated(body)


def test_an_idle_driver_sleeps() -> None:
    """Whatever is due later, the driver does not spin until then."""

    async def body() -> None:
        async with running(interval_s=10.0) as rig:
            rig.propose("a")
            # Just after a sync, so that the mark for it falls due long before the next sync.
            await asyncio.sleep(10.5)
            assert rig.wal.synced == 1
            rig.propose("b")
            await asyncio.sleep(9.0)

    assert simulated(body).callbacks < 1000


def test_a_mark_follows_an_idle_second() -> None:
    """When nothing more comes, it is written down that the last batch was durable; once."""

    async def body() -> None:
        async with running() as rig:
            rig.propose("a")
            await asyncio.sleep(0.5)
            assert rig.wal.marks == 0
            await asyncio.sleep(5.0)
            assert rig.wal.marks == 1

    simulated(body)


def test_an_epoch_is_proposed_like_anything() -> None:
    """Records of every kind take the same way."""

    async def body() -> None:
        async with running() as rig:
            asker = Asker("epoch", rig.story)
            rig.driver.propose(ShardId(3), epoch_started(), asker)
            await asyncio.sleep(0.1)
            assert rig.committed == [[(3, 1)]]
            assert asker.outcome is not None

    simulated(body)
