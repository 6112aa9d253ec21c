"""Makes a damaged data directory one that a node can start on, and loses nothing it can keep.

Every byte that is taken away is copied into a folder of its own first (`set-aside-…`). What
becomes of a shard that may have lost entries:

- A **node of a cluster** gives the shard up: it begins empty, at the epoch that this node
  promised, and is fetched from the other nodes. `damaged.json` says so until the controller has
  answered (ADR 9), so that nobody takes the empty log for the whole one.
- A **single node** has nowhere to fetch it from. Only if its operator accepts the loss the shard
  goes on with what stands before the damage. Clients may know more than that, so the node begins
  a new life, as after a restore: a new cluster id and higher epochs.
- A **candidate** whose metadata log is damaged does not know what it promised: it gives up being
  one, follows as any node, and may become one again after it was removed (`damaged.json`).

Crash-safe: what is new is written beside what is there; then `repair.json` says what takes whose
place, and from then on the repair is finished, however often it is cut short; until it is, the
node refuses to start. Before `repair.json` nothing is changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ssgovern import limits
from ssgovern.errors import ConfigError, CorruptionError, DiskFullError
from ssgovern.model import SHARDS, ShardId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.identity import Identity
from ssgovern.node.marks import Damaged
from ssgovern.runtime import Disk, Runtime
from ssgovern.storage.files import (
    TEMPORARY_SUFFIX,
    create_durably,
    is_disk_full,
    pin_names,
    remove_if_there,
    storage_failed,
)
from ssgovern.storage.format import (
    LogEntry,
    SegmentHeader,
    cut_record,
    encode_records,
    encode_segment_header,
    epoch_promise,
    salt_of,
)
from ssgovern.storage.reader import segment_name
from ssgovern.storage.salvage import Salvage
from ssgovern.storage.snapshot import snapshot_named

METADATA = ("metadata", "metadata-snapshots")
_NEW = ".repaired"
_BATCH = 256
_COPY_BYTES = 1 << 20

OpenDisk = Callable[[str], Disk]


class Repaired(NamedTuple):
    """What a repair did."""

    aside: str
    """The folder in the data directory with all that was taken away."""
    shards: tuple[ShardId, ...]
    """Those that may have lost something."""
    votes: bool
    refetched: bool
    """The shards are fetched from other nodes; else they go on with what is left."""


def is_unfinished(root: Disk) -> bool:
    """Tell whether a repair was decided and not finished."""
    return marks.REPAIRING in root.names()


async def repair(
    open_disk: OpenDisk,
    data_dir: str,
    runtime: Runtime,
    found: Salvage,
    *,
    accept_loss: bool,
    metadata_damaged: bool,
) -> Repaired:
    """Repair the log and the snapshots of a data directory, and a candidate's metadata.

    Raises ConfigError if something of a single node is lost and its loss is not accepted;
    DiskFullError (nothing was changed), StorageFailedError (to be done again).
    """
    root = open_disk(data_dir)
    identity = identities.read(root)
    lost = tuple(ShardId(shard.shard) for shard in found.in_doubt())
    if lost and not identity.clustered and not accept_loss:
        raise ConfigError(
            f"{len(lost)} shards may have lost entries, and a single node has nowhere to fetch "
            "them from: --accept-loss goes on with what is left; a backup may have more"
        )
    aside = f"set-aside-{runtime.wall_ms()}"
    removed: dict[str, list[str]] = {}
    renamed: dict[str, dict[str, str]] = {}
    changed = identity
    if found.is_damaged:
        if lost and not identity.clustered:
            changed = identity._replace(cluster_id=runtime.random_bytes(16))
        new = segment_name(found.sequence + 1)
        wal = open_disk(f"{data_dir}/wal")
        removed["wal"] = found.segments
        removed["snapshots"] = _snapshots_to_go(open_disk(f"{data_dir}/snapshots"), found, identity)
        renamed["wal"] = {new + _NEW: new}
    if metadata_damaged:
        changed = changed._replace(candidate=False)
        for name in METADATA:
            removed[name] = open_disk(f"{data_dir}/{name}").names()
    await _keep_aside(open_disk, data_dir, aside, removed)
    if found.is_damaged:
        await create_durably(wal, new + _NEW, _new_log(found, identity))
    refetched = identity.clustered
    marked = Damaged(lost if refetched else (), votes=metadata_damaged)
    journal: dict[str, object] = {
        "set_aside": aside,
        "remove": removed,
        "rename": renamed,
        "damaged": {"shards": list(marked.shards), "votes": marked.votes},
        "cluster_id": changed.cluster_id.hex(),
        "candidate": changed.candidate,
    }
    await marks.write_mark(root, marks.REPAIRING, journal)
    await finish_repair(open_disk, data_dir)
    return Repaired(aside, lost, metadata_damaged, refetched)


async def finish_repair(open_disk: OpenDisk, data_dir: str) -> str:
    """Do what `repair.json` says, as often as it takes; return the folder of what was set aside.

    Raises CorruptionError if it cannot be understood, StorageFailedError.
    """
    root = open_disk(data_dir)
    journal = marks.read_mark(root, marks.REPAIRING)
    identity = identities.read(root)
    try:
        damaged = journal["damaged"]
        removed = journal["remove"]
        renamed = journal["rename"]
        changed = identity._replace(
            cluster_id=bytes.fromhex(str(journal["cluster_id"])),
            candidate=journal["candidate"] is True,
        )
        if not (
            isinstance(damaged, dict) and isinstance(removed, dict) and isinstance(renamed, dict)
        ):
            raise TypeError("no tables")
        lost = [ShardId(int(shard)) for shard in damaged["shards"]]
        votes = damaged["votes"] is True
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"not a list of what to repair: {error}", segment=marks.REPAIRING, offset=0, shard=None
        ) from error
    before = marks.read_damaged(root)
    shards = tuple(sorted({*before.shards, *lost}))
    await marks.write_damaged(root, Damaged(shards, votes=votes or before.votes))
    await identities.change(root, identity, changed)
    for directory in sorted({*removed, *renamed}):
        disk = open_disk(f"{data_dir}/{directory}")
        await _swap(disk, renamed.get(directory, {}), removed.get(directory, []))
    await marks.remove_mark(root, marks.REPAIRING)
    return str(journal["set_aside"])


async def _swap(disk: Disk, renamed: dict[str, str], removed: Sequence[str]) -> None:
    try:
        names = disk.names()
        for source, target in sorted(renamed.items()):
            if source in names:
                await disk.rename(source, target)
        await disk.sync_directory()
        for name in removed:
            await remove_if_there(disk, name)
    except OSError as error:
        raise storage_failed("putting the repaired log in place", error) from error
    await pin_names(disk)


async def _keep_aside(
    open_disk: OpenDisk, data_dir: str, aside: str, removed: dict[str, list[str]]
) -> None:
    target = open_disk(f"{data_dir}/{aside}")
    for directory, names in sorted(removed.items()):
        source = open_disk(f"{data_dir}/{directory}")
        for name in names:
            await copy_file(source, target, name, f"{directory}.{name}")
    await create_durably(target, "README.json", [_story(removed)])


def _story(removed: dict[str, list[str]]) -> bytes:
    story = {
        "what": "files that a repair took out of the data directory, named by where they were",
        "files": removed,
    }
    return json.dumps(story, indent=2).encode()


def _snapshots_to_go(disk: Disk, found: Salvage, identity: Identity) -> list[str]:
    bad = {snapshot.name for snapshot in found.bad_snapshots}
    emptied = {shard.shard for shard in found.in_doubt()} if identity.clustered else set()
    names: list[str] = []
    for name in disk.names():
        named = snapshot_named(name)
        if named is not None and (name in bad or named[0] in emptied):
            names.append(name)
    return names


def _new_log(found: Salvage, identity: Identity) -> Iterator[bytes]:
    """Yield a segment with all that is kept of the log, and what was promised."""
    new_life = bool(found.in_doubt()) and not identity.clustered
    least = found.epoch_max + limits.EPOCHS_PER_LIFE if new_life else 0
    records: list[LogEntry] = []
    for shard in range(SHARDS):
        epoch = max(found.promises.get(shard, 0), least)
        if epoch:
            records.append(epoch_promise(shard, epoch))
    for left in found.shards:
        if left.doubt and identity.clustered:
            records.append(cut_record(left.shard, 0, 0))
            continue
        records += [
            LogEntry(record.shard, record.epoch, record.revision, record.body)
            for record in left.entries
        ]
    lsn = base_lsn = found.end_lsn
    salt = salt_of(identity.node_uuid)
    batches = [records[start : start + _BATCH] for start in range(0, len(records), _BATCH)]
    end_lsn = base_lsn
    for batch in batches:
        end_lsn += len(encode_records(batch, end_lsn, base_lsn, salt))
    header = SegmentHeader(identity.node_uuid, found.sequence + 1, base_lsn, end_lsn)
    yield encode_segment_header(header)
    for batch in batches:
        encoded = encode_records(batch, lsn, base_lsn, salt)
        lsn += len(encoded)
        yield encoded


async def copy_file(source: Disk, target: Disk, name: str, to: str) -> None:
    """Copy a file durably. Raises DiskFullError (nothing under its name), StorageFailedError."""
    temporary = to + TEMPORARY_SUFFIX
    size, offset = source.size(name), 0
    try:
        await remove_if_there(target, temporary)
        await target.append(temporary, (b"",), sync=False)
        while offset < size and (piece := source.read(name, offset, _COPY_BYTES)):
            await target.append(temporary, (piece,), sync=False)
            offset += len(piece)
            await asyncio.sleep(0)
        await target.sync(temporary)
        await target.rename(temporary, to)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left to keep {name} aside") from error
        raise storage_failed(f"keeping {name} aside", error) from error
    await pin_names(target)


async def forget_votes(open_disk: OpenDisk, data_dir: str, runtime: Runtime) -> Repaired:
    """Make a candidate an ordinary node: its metadata log is set aside, its data stays.

    For one that was left behind when the others were given another list of candidates. Raises
    ConfigError if it is none.
    """
    identity = identities.read(open_disk(data_dir))
    if not identity.clustered or not identity.candidate:
        raise ConfigError("this is not the data directory of a candidate")
    nothing = Salvage([])
    return await repair(
        open_disk, data_dir, runtime, nothing, accept_loss=False, metadata_damaged=True
    )
