"""What a node of a cluster tells Prometheus besides: its shards, its peers, its part in deciding.

Refuses to know HTTP. What is said of the whole cluster is what this node has replayed, so every
node says about the same; which of them is right is for who looks at all of them.
"""

from __future__ import annotations

import asyncio

from ssgovern.controller.rules import unavailable
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.node.metrics import Families, counter, gauge, labelled


class ClusterMetrics:
    """The part that only nodes of a cluster have."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> Families:
        """Yield it."""
        if not self._node.listening:
            return
        yield from self._shards()
        yield from self._replication()
        yield from self._membership()
        yield from self._deciding()
        yield from self._cluster()

    def _shards(self) -> Families:
        node = self._node
        shards: dict[str, float] = {"primary": 0, "replica": 0, "none": 0}
        instances: dict[str, float] = {"primary": 0, "replica": 0}
        for hosted, state in zip(node.host.hosted, node.states, strict=True):
            role = "primary" if hosted.primary else "replica" if hosted.replica else "none"
            shards[role] += 1
            if role in instances:
                instances[role] += state.instances
        yield labelled("shards", "Shards by this node's role in them", "role", shards)
        yield labelled(
            "instances_by_role", "Instances by this node's role in their shard", "role", instances
        )
        yield counter("promotions", "Times this node became primary", node.host.promotions)
        epochs = [primary.epoch for primary in node.host.primaries.values()]
        yield gauge(
            "epoch_max",
            "Highest epoch of the shards this node is primary of",
            max(epochs, default=0),
        )

    def _replication(self) -> Families:
        node = self._node
        peers = [peer for peer in node.metadata.state.nodes if peer != node.me]
        lags: dict[str, float] = {str(peer): 0 for peer in peers}
        for primary in node.host.primaries.values():
            for peer, entries in primary.lags():
                if str(peer) in lags:
                    lags[str(peer)] += entries
        yield labelled(
            "replication_lag_entries",
            "Entries that a replica is not known to hold, over all shards led here",
            "peer",
            lags,
        )
        yield labelled(
            "peer_link_open",
            "1 if this node reaches the peer",
            "peer",
            {str(peer): node.links.is_open(peer) for peer in peers},
        )
        yield counter(
            "peer_pushes_dropped",
            "Messages to peers that found no link, or too much waiting",
            node.links.pushes_dropped,
        )
        sent, installed = node.host.snapshots()
        yield counter("shard_snapshots_sent", "Shards sent whole to replicas", sent)
        yield counter("shard_snapshots_installed", "Shards taken whole from primaries", installed)

    def _membership(self) -> Families:
        member = self._node.member
        left_s = max(0.0, member.lease_until_ms / 1000.0 - self._loop.time())
        yield gauge("lease_left_seconds", "How long this node may act without being heard", left_s)
        yield gauge("has_session", "1 if the controller granted a session", member.session > 0)

    def _deciding(self) -> Families:
        node = self._node
        candidate = node.candidate
        yield gauge("candidate", "1 if this node votes", candidate is not None)
        yield gauge(
            "controller",
            "1 if this node is the controller",
            candidate is not None and candidate.controller.is_controller,
        )
        term = node.metadata.term if candidate is None else candidate.raft.term
        yield gauge("term", "The term, as far as this node has heard", term)
        won = 0 if candidate is None else candidate.elections_won
        yield counter("elections_won", "Elections this node has won", won)
        yield gauge("metadata_index", "Entries of the metadata log replayed", node.metadata.index)

    def _cluster(self) -> Families:
        metadata = self._node.metadata
        state = metadata.state
        live = sum(each.live for each in state.nodes.values())
        nodes: dict[str, float] = {"live": live, "fenced": len(state.nodes) - live}
        yield labelled("cluster_nodes", "Nodes of the cluster", "state", nodes)
        yield gauge("map_version", "Version of the shard map known here", metadata.map_version)
        yield gauge(
            "cluster_shards_unavailable", "Shards that nobody serves", len(unavailable(state))
        )
        yield gauge(
            "cluster_shards_below_copies",
            "Shards with fewer copies in sync than wanted",
            metadata.shards_below_copies(),
        )
        yield gauge(
            "cluster_moves", "Moves and hand-overs of shards", sum(r.in_flight for r in state.rows)
        )
