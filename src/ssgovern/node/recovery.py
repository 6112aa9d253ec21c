"""From a data directory to the state of all shards: snapshots first, then the log after them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import SHARDS, LogPosition, ShardId
from ssgovern.registry.snapshot import restore
from ssgovern.registry.state import ShardState
from ssgovern.runtime import Disk
from ssgovern.storage.format import ENTRY, WalRecord
from ssgovern.storage.recovery import RecoveryProgress
from ssgovern.storage.snapshot import load_snapshots
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import log_pb2
from ssgovern.wire.records import Record, decode_record


def _decode(record: WalRecord) -> Record:
    decoded = decode_record(record.body)
    if isinstance(decoded, log_pb2.Record) and decoded.WhichOneof("change") is None:
        raise ConfigError(
            f"entry {record.epoch}/{record.revision} of shard {record.shard} is of a kind this "
            "version does not know: the data directory was written by a newer version"
        )
    return decoded


class Recovered(NamedTuple):
    """What a data directory held."""

    wal: Wal
    states: list[ShardState]
    snapshotted: dict[int, LogPosition]
    entries_replayed: int


class Progress(NamedTuple):
    """How far recovery is; `total` 0: not known yet."""

    what: str
    done: int
    total: int


async def recover(
    wal_disk: Disk,
    snapshot_disk: Disk,
    identity: bytes,
    segment_bytes: int,
    on_progress: Callable[[Progress], None],
) -> Recovered:
    """Rebuild every shard. Raises CorruptionError, ConfigError, StorageFailedError.

    Gives the loop a turn between chunks; nothing is served before it returns.
    """
    states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
    snapshotted: dict[int, LogPosition] = {}
    snapshots = await load_snapshots(snapshot_disk, identity)
    for number, snapshot in enumerate(snapshots):
        restore(states[snapshot.shard], snapshot.position, snapshot.chunks())
        snapshotted[snapshot.shard] = snapshot.position
        on_progress(Progress("snapshots", number + 1, len(snapshots)))
        await asyncio.sleep(0)

    replayed = 0

    def on_record(record: WalRecord) -> None:
        nonlocal replayed
        state = states[record.shard]
        if record.kind == ENTRY and record.revision > state.position.revision:
            if record.revision != state.position.revision + 1:
                raise CorruptionError(
                    f"entry {record.revision} follows {state.position!r}: "
                    "what is between, or its snapshot, is missing",
                    segment="wal",
                    offset=record.lsn,
                    shard=record.shard,
                )
            state.apply(record.epoch, record.revision, _decode(record))
            replayed += 1

    async def on_chunk(progress: RecoveryProgress) -> None:
        on_progress(Progress("log", progress.bytes_done, progress.bytes_total))
        for state in states:
            state.take_changes()
        await asyncio.sleep(0)

    wal = await Wal.recover(
        wal_disk,
        identity=identity,
        on_record=on_record,
        on_progress=on_chunk,
        segment_bytes=segment_bytes,
    )
    for state in states:
        state.take_changes()
    return Recovered(wal, states, snapshotted, replayed)
