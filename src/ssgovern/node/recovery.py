"""From a data directory to the state of all shards: snapshots first, then the log after them.

On a single node all that is in the log is committed and is applied as it is read (`recover`). On
a node of a cluster nobody knows how much of it is: the states stay as their snapshots are, and
the entries behind them are handed over as logs (`recover_replicated`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import ORIGIN, SHARDS, LogPosition, ShardId
from ssgovern.registry.snapshot import restore
from ssgovern.registry.state import ShardState
from ssgovern.replication.messages import Entry
from ssgovern.replication.shard_log import ShardLog
from ssgovern.runtime import Disk
from ssgovern.storage.format import CUT, ENTRY, WalRecord
from ssgovern.storage.reader import find_segments
from ssgovern.storage.recovery import OnRecord, RecoveryProgress
from ssgovern.storage.replay import ShardReplay
from ssgovern.storage.snapshot import load_snapshots
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import log_pb2
from ssgovern.wire.records import Record, decode_record


def _decode(epoch: int, revision: int, shard: int, body: bytes) -> Record:
    decoded = decode_record(body)
    if isinstance(decoded, log_pb2.Record) and decoded.WhichOneof("change") is None:
        raise ConfigError(
            f"entry {epoch}/{revision} of shard {shard} is of a kind this "
            "version does not know: the data directory was written by a newer version"
        )
    return decoded


class Recovered(NamedTuple):
    """What a data directory held."""

    wal: Wal
    states: list[ShardState]
    snapshotted: dict[int, LogPosition]
    entries_replayed: int


class RecoveredShards(NamedTuple):
    """What the data directory of a node of a cluster held; all of it is durable."""

    wal: Wal
    states: list[ShardState]
    """By shard, as their snapshots are: nothing behind them is applied."""
    logs: list[ShardLog]
    """By shard: base is the snapshot's position, entries are those behind it."""
    promises: dict[int, int]
    """Per shard that has one, the highest epoch that this node's disk obeys."""
    snapshotted: dict[int, LogPosition]
    entries_found: int


class Progress(NamedTuple):
    """How far recovery is; `total` 0: not known yet."""

    what: str
    done: int
    total: int


OnRecovered = Callable[[Progress], None]


class _RewrittenError(Exception):
    """The log is not one that only grew: it has to be read whole before it can be applied."""


async def recover(
    wal_disk: Disk,
    snapshot_disk: Disk,
    identity: bytes,
    segment_bytes: int,
    on_progress: OnRecovered,
) -> Recovered:
    """Rebuild every shard of a single node.

    Raises CorruptionError, ConfigError, StorageFailedError. Gives the loop a turn between
    chunks; nothing is served before it returns.
    """
    states, snapshotted = await _load_states(snapshot_disk, identity, on_progress)
    replayed = 0

    def on_record(record: WalRecord) -> None:
        nonlocal replayed
        state = states[record.shard]
        epoch, revision = state.position
        if record.kind == ENTRY and record.revision > revision:
            if record.revision != revision + 1 or record.epoch < epoch:
                raise _RewrittenError
            state.apply(
                record.epoch,
                record.revision,
                _decode(record.epoch, record.revision, record.shard, record.body),
            )
            replayed += 1
        elif record.kind == CUT or (
            record.kind == ENTRY and revision > snapshotted.get(state.shard, ORIGIN).revision
        ):
            raise _RewrittenError

    try:
        wal = await _recover_wal(wal_disk, identity, segment_bytes, on_record, states, on_progress)
    except _RewrittenError:
        return await _recover_rewritten(
            wal_disk, snapshot_disk, identity, segment_bytes, on_progress
        )
    return Recovered(wal, states, snapshotted, replayed)


async def _recover_rewritten(
    wal_disk: Disk,
    snapshot_disk: Disk,
    identity: bytes,
    segment_bytes: int,
    on_progress: OnRecovered,
) -> Recovered:
    """Rebuild every shard from a log that was once a replica's, or is damaged."""
    found = await recover_replicated(wal_disk, snapshot_disk, identity, segment_bytes, on_progress)
    for state, log in zip(found.states, found.logs, strict=True):
        for entry in log.between(log.base.revision, log.tail_revision):
            record = _decode(entry.epoch, entry.revision, state.shard, entry.body)
            state.apply(entry.epoch, entry.revision, record)
        state.take_changes()
        await asyncio.sleep(0)
    return Recovered(found.wal, found.states, found.snapshotted, found.entries_found)


async def recover_replicated(
    wal_disk: Disk,
    snapshot_disk: Disk,
    identity: bytes,
    segment_bytes: int,
    on_progress: OnRecovered,
) -> RecoveredShards:
    """Read back every shard of a node of a cluster.

    Entries that were replaced or cut are not among what is found, nor are those that contradict
    the snapshot. Raises CorruptionError (also if entries between a snapshot and its log are
    missing), ConfigError, DiskFullError, StorageFailedError. Gives the loop a turn between
    chunks.
    """
    states, snapshotted = await _load_states(snapshot_disk, identity, on_progress)
    replays = [ShardReplay(state.shard, state.position) for state in states]

    def on_record(record: WalRecord) -> None:
        replays[record.shard].on_record(record)

    wal = await _recover_wal(wal_disk, identity, segment_bytes, on_record, states, on_progress)
    logs: list[ShardLog] = []
    promises = dict(wal.promises)
    found = 0
    for state, replay in zip(states, replays, strict=True):
        shard = state.shard
        entries = [Entry(record.epoch, record.revision, record.body) for record in replay.entries()]
        log = ShardLog(shard, state.position, entries)
        logs.append(log)
        found += len(entries)
        if log.tail.epoch > promises.get(shard, 0):
            promises[shard] = log.tail.epoch
        await asyncio.sleep(0)
    # A crash came between a snapshot from elsewhere and the record that it begins the log anew.
    await wal.append([cut for replay in replays if (cut := replay.missing_cut()) is not None])
    return RecoveredShards(wal, states, logs, promises, snapshotted, found)


async def _load_states(
    snapshot_disk: Disk, identity: bytes, on_progress: OnRecovered
) -> tuple[list[ShardState], dict[int, LogPosition]]:
    states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
    snapshotted: dict[int, LogPosition] = {}
    snapshots = await load_snapshots(snapshot_disk, identity)
    for number, snapshot in enumerate(snapshots):
        restore(states[snapshot.shard], snapshot.position, snapshot.chunks())
        snapshotted[snapshot.shard] = snapshot.position
        on_progress(Progress("snapshots", number + 1, len(snapshots)))
        await asyncio.sleep(0)
    return states, snapshotted


async def _recover_wal(
    wal_disk: Disk,
    identity: bytes,
    segment_bytes: int,
    on_record: OnRecord,
    states: list[ShardState],
    on_progress: OnRecovered,
) -> Wal:
    if any(state.position != ORIGIN for state in states) and not find_segments(wal_disk):
        # The first segment is durable before there is anything to take a snapshot of.
        raise CorruptionError("there are snapshots and no log", segment="wal", offset=0, shard=None)

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
    return wal
