"""What is read back of a data directory: all of it, as it was left, or a refusal."""

from __future__ import annotations

import asyncio

import pytest
from builders import registered

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import ORIGIN, LogPosition, ShardId
from ssgovern.node.recovery import RecoveredShards, recover, recover_replicated
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage.format import LogEntry, cut_record, epoch_promise
from ssgovern.storage.snapshot import write_snapshot
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import log_pb2

IDENTITY = bytes(16)


async def at_once(operation: str) -> None:
    """No latency."""


def entry(revision: int) -> LogEntry:
    record = log_pb2.Record(epoch_started=log_pb2.EpochStarted(node_id=1))
    return LogEntry(7, 1, revision, record.SerializeToString())


def test_a_gap_between_entries_is_damage() -> None:
    """A shard whose log jumps a revision lost an entry or its snapshot: the node stops."""

    async def program() -> None:
        wal_disk = SimDisk(DiskImage(), at_once)
        wal = await Wal.recover(wal_disk, identity=IDENTITY, on_record=lambda record: None)
        await wal.append([entry(1), entry(3)])
        with pytest.raises(CorruptionError, match="entry 3 follows 1/1") as caught:
            await recover(
                wal_disk, SimDisk(DiskImage(), at_once), IDENTITY, 1 << 20, lambda progress: None
            )
        assert caught.value.shard == 7

    asyncio.run(program())


def test_an_entry_of_a_newer_version_is_refused() -> None:
    """A record of an unknown kind is told as what it is, not skipped and not a crash."""

    async def program() -> None:
        wal_disk = SimDisk(DiskImage(), at_once)
        wal = await Wal.recover(wal_disk, identity=IDENTITY, on_record=lambda record: None)
        unknown = b"\xfa\x01\x00"  # field 31, empty
        await wal.append([LogEntry(7, 1, 1, unknown)])
        with pytest.raises(ConfigError, match="a newer version"):
            await recover(
                wal_disk, SimDisk(DiskImage(), at_once), IDENTITY, 1 << 20, lambda progress: None
            )

    asyncio.run(program())


SHARD = ShardId(7)


def named(epoch: int, revision: int, name: str) -> LogEntry:
    """Return an entry that registers the instance called `name`."""
    return LogEntry(SHARD, epoch, revision, registered("s", name).SerializeToString())


def snapshot_of(*entries: LogEntry) -> ShardState:
    state = ShardState(SHARD)
    for each in entries:
        record = log_pb2.Record.FromString(each.body)
        state.apply(each.epoch, each.revision, record)
    return state


async def directory(records: list[LogEntry], state: ShardState | None) -> tuple[SimDisk, SimDisk]:
    """Return the disks of a node that wrote these records, and the snapshot of this state."""
    wal_disk, snapshot_disk = SimDisk(DiskImage(), at_once), SimDisk(DiskImage(), at_once)
    wal = await Wal.recover(wal_disk, identity=IDENTITY, on_record=lambda record: None)
    await wal.append(records)
    if state is not None:
        chunks = encode_chunks(capture(state))
        await write_snapshot(snapshot_disk, IDENTITY, SHARD, state.position, chunks)
    return wal_disk, snapshot_disk


async def read_back(records: list[LogEntry], state: ShardState | None = None) -> RecoveredShards:
    disks = await directory(records, state)
    return await recover_replicated(*disks, IDENTITY, 1 << 20, lambda progress: None)


def instances_of(state: ShardState) -> list[str]:
    return [name for service in state.services.values() for name in service.instances]


FIRST, SECOND = named(1, 1, "first"), named(1, 2, "second")


def test_a_replica_gets_its_log_unapplied() -> None:
    """States are as their snapshots are; what follows is handed over as the log, with its bytes."""

    async def program() -> None:
        third = named(2, 3, "third")
        found = await read_back([FIRST, SECOND, epoch_promise(SHARD, 4), third], snapshot_of(FIRST))
        log = found.logs[SHARD]
        log.validate()
        assert (log.base, log.tail) == (LogPosition(1, 1), LogPosition(2, 3))
        assert [item.body for item in log.between(1, 3)] == [SECOND.body, third.body]
        assert instances_of(found.states[SHARD]) == ["first"]
        assert (found.promises, found.entries_found) == ({SHARD: 4}, 2)
        assert found.snapshotted == {SHARD: LogPosition(1, 1)}
        assert found.logs[0].tail == ORIGIN

    asyncio.run(program())


def test_what_was_replaced_or_cut_does_not_come_back() -> None:
    """A start finds the log as the last record left it, not all that was ever in it."""

    async def program() -> None:
        instead = named(2, 2, "instead")
        found = await read_back([FIRST, SECOND, named(1, 3, "third"), instead])
        assert [item.body for item in found.logs[SHARD].between(0, 2)] == [FIRST.body, instead.body]
        assert found.promises == {SHARD: 2}
        found = await read_back([FIRST, SECOND, cut_record(SHARD, 1, 1)])
        assert found.logs[SHARD].tail == LogPosition(1, 1)

    asyncio.run(program())


def test_a_snapshot_from_elsewhere_takes_the_place_of_the_log() -> None:
    """With its cut on disk or not, nothing of the log that it replaced follows it."""

    async def program() -> None:
        state = snapshot_of(FIRST, named(2, 2, "instead"))
        old = [FIRST, SECOND, named(1, 3, "third")]
        found = await read_back(old, state)
        assert (found.logs[SHARD].base, found.entries_found) == (LogPosition(2, 2), 0)
        new = named(2, 3, "new")
        found = await read_back([*old, cut_record(SHARD, 2, 2), new], state)
        assert [item.body for item in found.logs[SHARD].between(2, 3)] == [new.body]

    asyncio.run(program())


def test_what_follows_a_snapshot_from_elsewhere_follows_no_hole() -> None:
    """A start that finds the snapshot without its cut writes the cut before all that follows."""

    async def program() -> None:
        state = snapshot_of(FIRST, SECOND, named(2, 3, "third"))
        disks = await directory([FIRST], state)
        for revision in (4, 5, 6):
            found = await recover_replicated(*disks, IDENTITY, 1 << 20, lambda progress: None)
            assert found.logs[SHARD].tail == LogPosition(2, revision - 1)
            await found.wal.append([named(2, revision, "more")])

    asyncio.run(program())


def test_a_hole_behind_the_snapshot_is_damage() -> None:
    """A log that does not reach back to its snapshot has lost entries: the node stops."""

    async def program() -> None:
        with pytest.raises(CorruptionError, match="its snapshot ends at 1/1") as caught:
            await read_back([named(1, 3, "third")], snapshot_of(FIRST))
        assert caught.value.shard == SHARD

    asyncio.run(program())


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ([named(2, 2, "instead")], ["first", "instead"]),
        ([cut_record(SHARD, 1, 1)], ["first"]),
        ([named(1, 3, "third"), named(1, 2, "instead")], ["first", "instead"]),
    ],
)
def test_a_single_node_does_not_misread_the_log_of_a_replica(
    more: list[LogEntry], names: list[str]
) -> None:
    """What was replaced or cut is not applied, though a single node writes no such log."""

    async def program() -> None:
        disks = await directory([FIRST, SECOND, *more], None)
        found = await recover(*disks, IDENTITY, 1 << 20, lambda progress: None)
        assert instances_of(found.states[SHARD]) == names
        assert found.entries_replayed == len(names)

    asyncio.run(program())


def test_snapshots_without_a_log_are_damage() -> None:
    """A log that is gone is not taken for one that is empty: what it held would be lost unseen."""

    async def program() -> None:
        _, snapshot_disk = await directory([FIRST], snapshot_of(FIRST))
        for read in (recover, recover_replicated):
            with pytest.raises(CorruptionError, match="snapshots and no log"):
                await read(SimDisk(DiskImage(), at_once), snapshot_disk, IDENTITY, 1 << 20, print)

    asyncio.run(program())
