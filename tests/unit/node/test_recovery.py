"""Recovery refuses a log it cannot understand."""

from __future__ import annotations

import asyncio

import pytest

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.node.recovery import recover
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage.format import LogEntry
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
