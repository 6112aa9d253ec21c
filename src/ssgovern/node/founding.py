"""When a cluster may be founded, and as which. Pure; asked again until it is done.

A cluster is founded once, by the controller, when it has heard every candidate: only then is it
certain that none of them belongs to a cluster already, and how many bring data of a time when
they were alone. One may: its cluster id and its data become the cluster's, and it has to lead the
founding, as nobody else knows the epochs of its shards. What two bring cannot be made one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ssgovern.model import NodeId
from ssgovern.transport.handshake import PeerIdentity, PeerSaid


class Claim(NamedTuple):
    """What a candidate says its data directory belongs to; empty: to nothing yet."""

    cluster_id: bytes = b""
    single_node_cluster_id: bytes = b""
    """It served alone, under this id."""


class FoundAs(NamedTuple):
    """Found it now; `inherits`: from this node's own data, under their id."""

    cluster_id: bytes
    inherits: bool


class LetFound(NamedTuple):
    """Another candidate has to: hand the lead over to it."""

    node: NodeId


class Waits(NamedTuple):
    """Nothing can be done now, and why."""

    why: str
    for_ever: bool
    """Only an operator can change it."""


def claims_of(me: PeerIdentity, said: Mapping[NodeId, PeerSaid]) -> dict[NodeId, Claim]:
    """Return what this node and those that it heard belong to."""
    claims = {
        node: Claim(hello.cluster_id, hello.single_node_cluster_id) for node, hello in said.items()
    }
    claims[me.node_id] = Claim(me.cluster_id, me.single_node_cluster_id)
    return claims


def decide_founding_step(
    me: NodeId,
    candidates: tuple[NodeId, ...],
    claims: Mapping[NodeId, Claim],
    new_cluster_id: bytes,
) -> FoundAs | LetFound | Waits:
    """Decide what the leader of an empty metadata log does. `claims` includes its own."""
    missing = [node for node in candidates if node not in claims]
    belonging = [node for node in candidates if node in claims and claims[node].cluster_id]
    if belonging:
        node = belonging[0]
        return Waits(
            f"node {node} belongs to cluster {claims[node].cluster_id.hex()} already, and the "
            "other candidates know nothing of it: did they lose their data directories, or do "
            f"they name the wrong nodes? To join that cluster, start them with cluster.join and "
            f"let it add them as candidates; a new cluster needs an empty directory on node {node}",
            for_ever=True,
        )
    alone = [node for node in candidates if node in claims and claims[node].single_node_cluster_id]
    if len(alone) > 1:
        return Waits(
            f"nodes {', '.join(map(str, alone))} each bring data of a time when they were alone, "
            "and two cannot be made one: keep one of these nodes, and start the others with an "
            "empty data directory (set the old one aside; `ss-govern backup` reads it)",
            for_ever=True,
        )
    if missing:
        return Waits(
            f"waiting for {_named(missing)} to be there: a cluster is founded by all its "
            "candidates together",
            for_ever=False,
        )
    if not alone:
        return FoundAs(new_cluster_id, inherits=False)
    if alone[0] != me:
        return LetFound(alone[0])
    return FoundAs(claims[me].single_node_cluster_id, inherits=True)


def _named(nodes: list[NodeId]) -> str:
    numbers = ", ".join(map(str, nodes))
    return f"candidate {numbers}" if len(nodes) == 1 else f"candidates {numbers}"
