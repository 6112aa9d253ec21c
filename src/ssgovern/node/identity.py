"""Who a data directory belongs to: one small file, written once, never changed.

It keeps a directory that was copied from elsewhere, or named in the wrong configuration, from
being taken for this node's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ssgovern.controller.state import Node
from ssgovern.errors import ConfigError, CorruptionError, StorageFailedError
from ssgovern.model import NodeId
from ssgovern.node.marks import check_finished
from ssgovern.runtime import Disk, Runtime

FILE = "node.json"
FORMAT = 1
_TEMPORARY = FILE + ".tmp"
_ID_BYTES = 16


class Identity(NamedTuple):
    """Cluster, node number, and 16 bytes that no other node of any cluster has."""

    cluster_id: bytes
    """Empty: of a node that is to be one of several and belongs to no cluster yet."""
    node_id: NodeId
    node_uuid: bytes
    clustered: bool = False
    """The directory was written by a node of a cluster of several."""
    candidate: bool = False
    """It voted: what it promised then has to be here."""
    peers: tuple[tuple[NodeId, str], ...] = ()
    """Where other candidates are that its configuration does not name: without them there may be
    no majority, and without a majority nobody to ask. Changed only by who has a
    session: what is known without one may be of long ago."""


async def load_or_create(
    disk: Disk, node_id: NodeId, runtime: Runtime, *, clustered: bool = False
) -> Identity:
    """Return the identity in `disk`, or make one there.

    Raises ConfigError if the directory belongs to another node or to a cluster that the
    configuration does not speak of, or if something was begun in it and not finished;
    CorruptionError if the file cannot be understood.
    """
    check_finished(disk, has_identity=FILE in disk.names())
    if FILE in disk.names():
        identity = _parse(disk.read(FILE))
        if identity.node_id != node_id:
            raise ConfigError(
                f"the data directory belongs to node {identity.node_id}, not to node {node_id}: "
                "set node.id to that, or name another data directory"
            )
        if identity.clustered and not clustered:
            raise ConfigError(
                f"the data directory belongs to a node of cluster {identity.cluster_id.hex()}: "
                "set cluster.candidates or cluster.join, or name another data directory"
            )
        return identity
    cluster_id = b"" if clustered else runtime.random_bytes(_ID_BYTES)
    identity = Identity(cluster_id, node_id, runtime.random_bytes(_ID_BYTES), clustered)
    await _write(disk, identity)
    return identity


def peers_of(
    nodes: Iterable[Node], me: NodeId, named: Mapping[NodeId, str]
) -> tuple[tuple[NodeId, str], ...]:
    """Return the other candidates that are not named so, by id and address."""
    return tuple(
        (node.id, node.address)
        for node in nodes
        if node.candidate and node.id != me and named.get(node.id) != node.address
    )


def read(disk: Disk) -> Identity:
    """Return the identity in `disk`. Raises ConfigError if there is none, CorruptionError."""
    if FILE not in disk.names():
        raise ConfigError(f"there is no {FILE}: this is not the data directory of a node")
    return _parse(disk.read(FILE))


async def create(disk: Disk, identity: Identity) -> None:
    """Make a directory that of a node; what it is to begin with has to be there already."""
    assert FILE not in disk.names(), "a directory stays that of one node"
    await _write(disk, identity)


async def change(disk: Disk, identity: Identity, changed: Identity) -> Identity:
    """Write down what became of a node: its cluster, its part in it. Return that."""
    assert changed[1:3] == identity[1:3], "a directory stays that of one node"
    if changed != identity:
        await _write(disk, changed)
    return changed


async def _write(disk: Disk, identity: Identity) -> None:
    fields: dict[str, object] = {
        "format": FORMAT,
        "cluster_id": identity.cluster_id.hex(),
        "node_id": identity.node_id,
        "node_uuid": identity.node_uuid.hex(),
    }
    for name in ("clustered", "candidate"):
        if getattr(identity, name):
            fields[name] = True
    if identity.peers:
        fields["peers"] = {str(node): address for node, address in identity.peers}
    written = json.dumps(fields, indent=2)
    try:
        if _TEMPORARY in disk.names():
            await disk.remove(_TEMPORARY)
        await disk.append(_TEMPORARY, [written.encode()], sync=True)
        await disk.rename(_TEMPORARY, FILE)
        await disk.sync_directory()
    except OSError as error:
        raise StorageFailedError(f"cannot write {FILE}: {error.strerror}") from error


def _parse(content: bytes) -> Identity:
    try:
        fields = json.loads(content)
        if fields["format"] > FORMAT:
            raise ConfigError(
                f"{FILE} has format {fields['format']}, this version knows up to {FORMAT}: "
                "the data directory was written by a newer version"
            )
        cluster_id = bytes.fromhex(fields["cluster_id"])
        node_uuid = bytes.fromhex(fields["node_uuid"])
        node_id = fields["node_id"]
        clustered = fields.get("clustered", False) is True
        candidate = fields.get("candidate", False) is True
        peers = tuple((NodeId(int(node)), str(at)) for node, at in fields.get("peers", {}).items())
        lengths = (0, _ID_BYTES) if clustered else (_ID_BYTES,)
        if (
            len(cluster_id) not in lengths
            or len(node_uuid) != _ID_BYTES
            or type(node_id) is not int
        ):
            raise ValueError("an id of the wrong length or type")
        return Identity(cluster_id, NodeId(node_id), node_uuid, clustered, candidate, peers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(
            f"not a node identity: {error}", segment=FILE, offset=0, shard=None
        ) from error
