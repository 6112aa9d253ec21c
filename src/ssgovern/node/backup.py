"""A backup of data directories whose nodes do not run, and how any backup is put together.

What is read is what the node's own recovery would find, tried out on an overlay: nothing in the
directory is changed. Of a node of a cluster nobody knows here how much of its log was committed;
all of it is taken, so that nothing acknowledged that is there is left out. Of several nodes of
one cluster the longest log of each shard is taken.

Refuses to know where a backup is kept, and connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ssgovern.errors import ConfigError
from ssgovern.model import ORIGIN, ShardId
from ssgovern.node import identity as identities
from ssgovern.node import marks
from ssgovern.node.identity import Identity
from ssgovern.node.recovery import OnRecovered, recover
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.runtime import Disk
from ssgovern.storage.backup import BackupWriter, Manifest
from ssgovern.storage.overlay import OverlayDisk
from ssgovern.version import __version__

_SEGMENT_BYTES = 1 << 30

OnShard = Callable[[int, int], None]
"""Told how many shards are done, of how many."""


class DirectoryRead(NamedTuple):
    """What a data directory holds, with all entries of its log applied."""

    identity: Identity
    states: list[ShardState]
    epoch_max: int


async def read_directory(
    root: Disk, wal: Disk, snapshots: Disk, on_progress: OnRecovered
) -> DirectoryRead:
    """Read the directory of a node that does not run; nothing in it is changed.

    Raises ConfigError if it is no node's directory or something in it has to be finished first,
    CorruptionError if it is damaged.
    """
    identity = identities.read(root)
    marks.check_finished(root, has_identity=True)
    lost = marks.read_damaged(root).shards
    found = await recover(
        OverlayDisk(wal), OverlayDisk(snapshots), identity.node_uuid, _SEGMENT_BYTES, on_progress
    )
    epochs = [*found.wal.promises.values(), *(state.position.epoch for state in found.states)]
    # What is only the empty beginning of something lost is no copy of it.
    states = [state for state in found.states if state.shard not in lost]
    return DirectoryRead(identity, states, max(epochs, default=0))


class Longest(NamedTuple):
    """Of several directories of one cluster, the best copy of each shard."""

    cluster_id: bytes
    states: list[ShardState]
    epoch_max: int
    clustered: bool
    directories: int


def longest_of(read: Sequence[DirectoryRead]) -> Longest:
    """Choose the longest log of each shard. Raises ConfigError if they are of several clusters."""
    assert read, "at least one directory"
    first = read[0].identity
    best: dict[ShardId, ShardState] = {}
    for directory in read:
        identity = directory.identity
        if len(read) > 1 and not (
            identity.clustered and identity.cluster_id and identity.cluster_id == first.cluster_id
        ):
            raise ConfigError(
                "these data directories are not of nodes of one cluster: back each one up by itself"
            )
        for state in directory.states:
            known = best.get(state.shard)
            if state.position != ORIGIN and (known is None or known.position < state.position):
                best[state.shard] = state
    return Longest(
        first.cluster_id,
        [best[shard] for shard in sorted(best)],
        max(directory.epoch_max for directory in read),
        first.clustered,
        len(read),
    )


def source_of(found: Longest) -> str:
    """Say where a backup of directories comes from, and what that means."""
    if not found.clustered:
        return "the data directory of a single node"
    of = "one node" if found.directories == 1 else f"{found.directories} nodes"
    return (
        f"the data directories of {of} of a cluster: may hold writes that were never "
        "acknowledged, and lacks what only other nodes had"
    )


async def write_states(
    writer: BackupWriter, found: Longest, taken_at_ms: int, on_shard: OnShard
) -> Manifest:
    """Write a backup of states in memory; return its manifest."""
    await writer.begin()
    for number, state in enumerate(found.states):
        await writer.begin_shard(state.shard, state.position)
        for chunk in encode_chunks(capture(state)):
            await writer.add(chunk)
        writer.end_shard(state.instances)
        on_shard(number + 1, len(found.states))
    return await finish(
        writer,
        cluster_id=found.cluster_id,
        source=source_of(found),
        taken_at_ms=taken_at_ms,
        epoch_max=found.epoch_max,
    )


async def finish(
    writer: BackupWriter,
    *,
    cluster_id: bytes,
    source: str,
    taken_at_ms: int,
    epoch_max: int,
    cluster: Mapping[str, object] | None = None,
) -> Manifest:
    """Complete a backup whose shards are all written."""
    highest = max((saved.position.epoch for saved in writer.saved), default=0)
    manifest = Manifest(
        writer.backup_id,
        taken_at_ms,
        cluster_id,
        source,
        f"ss-govern {__version__}",
        tuple(writer.saved),
        max(epoch_max, highest),
        cluster or {},
    )
    await writer.finish(manifest)
    return manifest
