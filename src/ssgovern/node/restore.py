"""A data directory made from a backup: a new node, with old data, in a life that nobody knows yet.

The rule. What clients know (revisions, epochs, lists they keep) is of the old life, which may have
gone on after the backup. So that nothing of it is taken for current:
- the directory gets a **new cluster id**: clients forget positions and take whole lists;
- every shard begins a **new epoch**, higher than the highest that the backup knew by
  `limits.EPOCHS_PER_LIFE`, more than any old life adds: no epoch is used twice. That it began
  counts as an entry, so every shard is one revision further than in the backup.
Both are written down in `restored.json`. Sessions come along: their instances are there, and
expire after the usual time unless their clients come back.

Crash-safe: until `node.json` is there the directory is nobody's and says so (`marks.RESTORING`);
a restore that was cut short is begun again, in the same directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from ssgovern import limits
from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import SHARDS, LogPosition, NodeId, ShardId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.backup import OnShard
from ssgovern.node.identity import Identity
from ssgovern.registry.snapshot import capture, encode_chunks, restore
from ssgovern.registry.state import ShardState
from ssgovern.runtime import Disk, Runtime
from ssgovern.storage.backup import Backup, ShardSaved
from ssgovern.storage.files import TEMPORARY_SUFFIX, pin_names, remove_if_there, storage_failed
from ssgovern.storage.format import epoch_promise
from ssgovern.storage.snapshot import write_snapshot
from ssgovern.storage.wal import Wal


class Restored(NamedTuple):
    """What was made."""

    identity: Identity
    epoch: int
    """In which every shard continues."""
    instances: int
    missing: tuple[ShardId, ...]
    """Shards that the backup does not have; they are empty."""


async def restore_backup(
    backup: Backup,
    open_disk: Callable[[str], Disk],
    data_dir: str,
    node_id: NodeId,
    runtime: Runtime,
    on_shard: OnShard,
) -> Restored:
    """Make `data_dir` the directory of a new single node with what the backup holds.

    Raises ConfigError if there is something in the directory that this did not leave there,
    CorruptionError if the backup is damaged (nothing was begun then), DiskFullError,
    StorageFailedError.
    """
    manifest = backup.manifest
    epoch = manifest.epoch_max + limits.EPOCHS_PER_LIFE
    if epoch > limits.EPOCH_MAX - limits.EPOCHS_PER_LIFE:
        raise ConfigError("the epochs of this backup cannot be raised any further")
    backup.verify()
    root = open_disk(data_dir)
    wal_disk = open_disk(f"{data_dir}/wal")
    snapshot_disk = open_disk(f"{data_dir}/snapshots")
    await _begin(root, wal_disk, snapshot_disk, manifest.backup_id)
    identity = Identity(runtime.random_bytes(16), node_id, runtime.random_bytes(16))
    instances = 0
    for number, (saved, chunks) in enumerate(backup.shards()):
        state = _state_of(saved, chunks)
        began = LogPosition(epoch, saved.position.revision + 1)
        state.position = began
        # Positions in older epochs are of the old life: none of them is on this log.
        state.epoch_starts = [began]
        pieces = encode_chunks(capture(state))
        await write_snapshot(snapshot_disk, identity.node_uuid, state.shard, began, pieces)
        instances += state.instances
        on_shard(number + 1, len(manifest.shards))
    wal = await Wal.recover(wal_disk, identity=identity.node_uuid, on_record=lambda _record: None)
    await wal.append([epoch_promise(shard, epoch) for shard in range(SHARDS)])
    await marks.write_mark(
        root,
        marks.RESTORED,
        {
            "backup_id": manifest.backup_id.hex(),
            "of_cluster": manifest.cluster_id.hex(),
            "taken_at_ms": manifest.taken_at_ms,
            "restored_at_ms": runtime.wall_ms(),
            "epoch_max_before": manifest.epoch_max,
            "epoch": epoch,
        },
    )
    await identities.create(root, identity)
    await marks.remove_mark(root, marks.RESTORING)
    there = {saved.shard for saved in manifest.shards}
    missing = tuple(ShardId(shard) for shard in range(SHARDS) if shard not in there)
    return Restored(identity, epoch, instances, missing)


def _state_of(saved: ShardSaved, chunks: Iterator[bytes]) -> ShardState:
    state = ShardState(ShardId(saved.shard))
    try:
        restore(state, saved.position, chunks)
    except DecodeError as error:
        raise CorruptionError(
            f"not the state of a shard: {error}", segment="backup", offset=0, shard=saved.shard
        ) from error
    if state.instances != saved.instances:
        raise CorruptionError(
            f"{state.instances} instances, the manifest says {saved.instances}",
            segment="backup",
            offset=0,
            shard=saved.shard,
        )
    return state


async def _begin(root: Disk, wal: Disk, snapshots: Disk, backup_id: bytes) -> None:
    # A mark that was not even written whole says that nothing was begun.
    names = [name for name in root.names() if name != marks.RESTORING + TEMPORARY_SUFFIX]
    is_ours = marks.RESTORING in names and identities.FILE not in names
    if not is_ours and (names or wal.names() or snapshots.names()):
        raise ConfigError(
            "the data directory is not empty: a restore makes a new one and replaces nothing"
        )
    await marks.write_mark(root, marks.RESTORING, {"backup_id": backup_id.hex()})
    for disk in (wal, snapshots):
        # Of an attempt that was cut short; written under an identity that nobody has.
        for name in disk.names():
            try:
                await remove_if_there(disk, name)
            except OSError as error:
                raise storage_failed(f"removing {name}", error) from error
        await pin_names(disk)
