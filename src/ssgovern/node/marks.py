"""What a data directory remembers besides its data: work that is not finished, damage not yet told.

Small files beside `node.json`, each written whole or not at all. Knows their names and meaning,
not what is done about them.

    restore.json     a restore has begun: until `node.json` is there this is no node's directory
    restored.json    where the data came from, and by how much its epochs were raised
    repair.json      a repair was decided and may be half done; it has to be finished first
    damaged.json     what this node lost and the cluster has not been told yet (ADR 9)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import SHARDS, ShardId
from ssgovern.runtime import Disk
from ssgovern.storage.files import create_durably, pin_names, remove_if_there, storage_failed

RESTORING = "restore.json"
RESTORED = "restored.json"
REPAIRING = "repair.json"
DAMAGED = "damaged.json"


@dataclass(frozen=True, slots=True)
class Damaged:
    """What was lost of a node of a cluster, until the cluster knows."""

    shards: tuple[ShardId, ...] = ()
    """It must not be promoted for them: they begin empty and are fetched from other nodes."""
    votes: bool = False
    """It does not know what it voted for: it may not vote before it was removed as a candidate."""

    def __bool__(self) -> bool:
        return bool(self.shards) or self.votes


async def write_mark(disk: Disk, name: str, fields: Mapping[str, object]) -> None:
    """Write a mark, durable on return. Raises DiskFullError, StorageFailedError."""
    await create_durably(disk, name, [json.dumps(fields, indent=2).encode()])


def read_mark(disk: Disk, name: str) -> dict[str, object]:
    """Return what a mark says. Raises CorruptionError if it makes no sense."""
    try:
        fields = json.loads(disk.read(name))
    except ValueError as error:
        raise CorruptionError(f"not a mark: {error}", segment=name, offset=0, shard=None) from error
    if not isinstance(fields, dict):
        raise CorruptionError("not a mark", segment=name, offset=0, shard=None)
    return fields


async def remove_mark(disk: Disk, name: str) -> None:
    """Remove a mark, durably, if it is there. Raises StorageFailedError."""
    try:
        await remove_if_there(disk, name)
    except OSError as error:
        raise storage_failed(f"removing {name}", error) from error
    await pin_names(disk)


def check_finished(disk: Disk, *, has_identity: bool) -> None:
    """Refuse a directory in which something was begun and not finished. Raises ConfigError."""
    names = disk.names()
    if REPAIRING in names:
        raise ConfigError(
            "a repair of the data directory was not finished: run `ss-govern fsck --repair` again"
        )
    if RESTORING in names and not has_identity:
        raise ConfigError(
            "a restore into the data directory was not finished: run `ss-govern restore` again"
        )


def read_damaged(disk: Disk) -> Damaged:
    """Return what the cluster has not been told yet. Raises CorruptionError."""
    if DAMAGED not in disk.names():
        return Damaged()
    fields = read_mark(disk, DAMAGED)
    shards = fields.get("shards", [])
    votes = fields.get("votes", False)
    sane = (
        isinstance(shards, list)
        and all(type(shard) is int and 0 <= shard < SHARDS for shard in shards)
        and type(votes) is bool
    )
    if not sane:
        raise CorruptionError("not a mark of damage", segment=DAMAGED, offset=0, shard=None)
    assert isinstance(shards, list), "just looked"
    return Damaged(tuple(map(ShardId, sorted(shards))), votes=votes is True)


async def write_damaged(disk: Disk, damaged: Damaged) -> None:
    """Remember it, or that there is nothing to be told any more; durable on return."""
    if damaged:
        fields = {"shards": list(damaged.shards), "votes": damaged.votes}
        await write_mark(disk, DAMAGED, fields)
    else:
        await remove_mark(disk, DAMAGED)
