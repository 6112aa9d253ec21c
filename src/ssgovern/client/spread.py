"""Which of a shard's nodes this client reads from.

Pure. Rendezvous hashing of session and node: a client prefers the nodes in one order for all
shards, so that it needs few connections, and clients spread evenly over the nodes. A node that
was lost is left out for a while. Only what is in sync and alive is chosen while there is any.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from ssgovern.client.shard_map import NOBODY, ClientMap
from ssgovern.model import NodeId, ShardId


class Spread:
    """The client's order of preference, and the nodes it leaves out."""

    __slots__ = ("_avoided", "_map", "_ranks", "_session_id")

    def __init__(self, session_id: bytes, shard_map: ClientMap) -> None:
        self._session_id = session_id
        self._map = shard_map
        self._ranks: dict[NodeId, bytes] = {}
        self._avoided: dict[NodeId, tuple[float, float]] = {}
        """Until when a node is left out, and since when, in the loop's time."""

    def avoid(self, node: NodeId, now_s: float, until_s: float) -> None:
        """Leave a node out for a while."""
        self._avoided[node] = (until_s, now_s)

    def avoids(self, node: NodeId, now_s: float) -> bool:
        """Tell whether a node is left out."""
        until_s, _ = self._avoided.get(node, (0.0, 0.0))
        return until_s > now_s

    def avoids_any(self, now_s: float) -> bool:
        """Tell whether any node is left out, and forget of those that no longer are."""
        self._avoided = {node: times for node, times in self._avoided.items() if times[0] > now_s}
        return bool(self._avoided)

    def is_good(self, shard: ShardId, node: NodeId, now_s: float) -> bool:
        """Tell whether there is no reason to leave a node for a shard."""
        row = self._map.rows.get(shard)
        if row is None or node not in row.holders:
            return False
        known = self._map.nodes.get(node)
        in_sync = not row.in_sync or node in row.in_sync
        return in_sync and known is not None and known.live and not self.avoids(node, now_s)

    def holder(self, shard: ShardId, now_s: float) -> NodeId:
        """Return the node to read a shard from; 0 if nobody keeps it."""
        row = self._map.rows.get(shard)
        if row is None or not row.holders:
            return NOBODY
        good = [node for node in row.holders if self.is_good(shard, node, now_s)]
        if good:
            return self.best(good)
        nodes = self._map.nodes
        live = [node for node in row.holders if node in nodes and nodes[node].live]
        # None is good: the one whose failure is the longest ago, so that all get their turn.
        failed = {node: self._avoided.get(node, (0.0, 0.0))[1] for node in live or row.holders}
        longest_ago = min(failed.values())
        return self.best([node for node, at_s in failed.items() if at_s == longest_ago])

    def best(self, nodes: Iterable[NodeId]) -> NodeId:
        """Return the node this client likes best of some."""
        return max(nodes, key=self._rank)

    def _rank(self, node: NodeId) -> bytes:
        rank = self._ranks.get(node)
        if rank is None:
            # Not a CRC: it is linear, and the order of nodes would be nearly the same for all.
            text = self._session_id + node.to_bytes(8, "big")
            rank = self._ranks[node] = blake2b(text, digest_size=8).digest()
        return rank
