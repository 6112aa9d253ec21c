"""The last resort when a majority of candidates is lost for good: one of them goes on without.

Works on the directory of a stopped candidate. It takes all that this candidate's metadata log
holds for agreed, and rewrites it as a snapshot, in a new term, with the candidates that are named.
The others may have agreed on things that this one never heard of, and nobody can know which.
Therefore everything that otherwise only rises is raised by `limits.EPOCHS_PER_LIFE`, more than
they can have used: the term, the index of the log, the version of the map, the epoch and version
of each shard, the session of each node. So whatever a node or a client knows, what is decided
from here on is newer. All nodes are fenced and register again.

What may be lost: decisions of the last moments. If one of them took a node out of a shard's
in-sync set, that node may be promoted all the same, without the writes that came after. The
choice among those who are there is by the longest log, as ever.

Crash-safe: the old bytes are kept aside first; then it is what a follower does with a snapshot
that its leader sent (`RaftStorage.write`), which leaves the old log or the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ssgovern import limits
from ssgovern.controller.codec import encode_snapshot
from ssgovern.controller.rows import with_in_sync
from ssgovern.controller.state import ClusterState
from ssgovern.errors import ConfigError
from ssgovern.model import NodeId, ShardId
from ssgovern.node import identity as identities
from ssgovern.node.metadata import Metadata
from ssgovern.node.raft_storage import RaftStorage, Recovered
from ssgovern.node.repair import METADATA, OpenDisk, copy_file
from ssgovern.raft import Config, HardState, Ready, Snapshot
from ssgovern.runtime import Runtime

_RAISED = limits.EPOCHS_PER_LIFE


class Candidate(NamedTuple):
    """A candidate as this directory knows it; the address is empty if it is not known."""

    node: NodeId
    address: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a stopped candidate knows of its cluster."""

    me: NodeId
    voters: tuple[Candidate, ...]
    state: ClusterState
    index: int
    term: int
    recovered: Recovered


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done."""

    aside: str
    voters: tuple[NodeId, ...]
    term: int
    index: int
    waiting: tuple[ShardId, ...]
    """Shards of which no node is known to have everything: `cluster unclean` is for those."""


async def look_at(open_disk: OpenDisk, data_dir: str) -> Known:
    """Read what a stopped candidate knows. Raises ConfigError if it is none, CorruptionError."""
    _, known = await _open(open_disk, data_dir)
    return known


async def recover_alone(
    open_disk: OpenDisk, data_dir: str, runtime: Runtime, voters: Sequence[NodeId]
) -> Recovery:
    """Make `voters` the candidates, decided by this one alone.

    Others among them have to be candidates of before, with their directories; they take over what
    this one says. Raises ConfigError if that cannot be, DiskFullError, StorageFailedError.
    """
    await _keep_aside(open_disk, data_dir, aside := f"set-aside-{runtime.wall_ms()}")
    storage, known = await _open(open_disk, data_dir)
    wanted = tuple(sorted(set(voters)))
    before = {candidate.node for candidate in known.voters}
    if known.me not in wanted:
        raise ConfigError(f"node {known.me}, whose directory this is, has to be a candidate")
    strangers = [node for node in wanted if node not in before]
    if strangers:
        raise ConfigError(
            f"node {strangers[0]} was no candidate: add it when the cluster runs again "
            "(`ss-govern cluster candidates add`)"
        )
    term = known.term + _RAISED
    index = known.index + _RAISED
    if term > limits.EPOCH_MAX - _RAISED:
        raise ConfigError("the terms of this cluster cannot be raised any further")
    state = raised(known.state, wanted)
    payload = encode_snapshot(state, index)
    snapshot = Snapshot(index, term, Config(wanted), payload)
    await storage.write(Ready(snapshot, HardState(term), (), (), (index, term), (), (), ()))
    waiting = tuple(
        ShardId(shard) for shard, row in enumerate(state.rows) if row.epoch and not row.eligible
    )
    return Recovery(aside, wanted, term, index, waiting)


def raised(state: ClusterState, voters: Sequence[NodeId]) -> ClusterState:
    """Return the state as it is in the cluster's new life: nobody is in, everything is newer."""
    new = state.copy()
    new.map_version += _RAISED
    for node in new.sorted_nodes():
        new.nodes[node.id] = replace(
            node, live=False, session=node.session + _RAISED, candidate=node.id in voters
        )
    for shard, row in enumerate(new.rows):
        if not row.epoch:
            continue
        left = with_in_sync(row, (), max(1, new.settings.min_in_sync))
        new.rows[shard] = replace(left, epoch=row.epoch + _RAISED, version=row.version + _RAISED)
    new.validate()
    return new


async def _open(open_disk: OpenDisk, data_dir: str) -> tuple[RaftStorage, Known]:
    identity = identities.read(open_disk(data_dir))
    if not identity.candidate:
        raise ConfigError("this is not the data directory of a candidate")
    log, snapshots = (open_disk(f"{data_dir}/{name}") for name in METADATA)
    storage, found = await RaftStorage.open(log, snapshots, identity.node_uuid, first=None)
    metadata = Metadata()
    if found.snapshot.payload:
        metadata.restore(found.snapshot.payload)
    metadata.index = found.snapshot.index
    config = found.snapshot.config
    for entry in found.entries:
        if isinstance(entry.payload, Config):
            config = entry.payload
        body = entry.payload if isinstance(entry.payload, bytes) else b""
        metadata.apply(entry.index, body)
    if not metadata.state.cluster_id:
        raise ConfigError("this candidate has not seen its cluster founded: there is nothing yet")
    nodes = metadata.state.nodes
    voters = tuple(
        Candidate(node, nodes[node].address if node in nodes else "")
        for node in config.all_voters()
    )
    known = Known(
        identity.node_id, voters, metadata.state, metadata.index, found.hard_state.term, found
    )
    return storage, known


async def _keep_aside(open_disk: OpenDisk, data_dir: str, aside: str) -> None:
    target = open_disk(f"{data_dir}/{aside}")
    for directory in METADATA:
        source = open_disk(f"{data_dir}/{directory}")
        for name in source.names():
            await copy_file(source, target, name, f"{directory}.{name}")
