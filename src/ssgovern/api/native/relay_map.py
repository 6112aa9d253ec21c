"""The shard map as a relay needs it: whom to ask for a shard, and where that node listens.

A value, made anew from each version of the map.
"""

from __future__ import annotations

from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.wire.pb import native_pb2

NOBODY = NodeId(0)

Office = tuple[NodeId, int]
"""A shard's primary and the epoch in which it is that."""


class RelayMap:
    """See the module."""

    __slots__ = ("_addresses", "_holders", "_live", "_offices", "version")

    def __init__(self, update: native_pb2.ShardMapUpdate) -> None:
        self.version = update.version
        self._addresses = {NodeId(node.node_id): node.address for node in update.nodes}
        self._live = {NodeId(node.node_id): node.live for node in update.nodes}
        self._offices: list[Office] = [(NOBODY, 0)] * SHARDS
        self._holders: list[tuple[NodeId, ...]] = [()] * SHARDS
        for row in update.rows:
            self._offices[row.shard] = (NodeId(row.primary), row.epoch)
            self._holders[row.shard] = tuple(map(NodeId, row.holders))

    def office(self, shard: ShardId) -> Office:
        """Return the primary of a shard and its epoch."""
        return self._offices[shard]

    def primary(self, shard: ShardId) -> NodeId:
        """Return who may write a shard; NOBODY if that is open."""
        return self._offices[shard][0]

    def reader(self, shard: ShardId) -> NodeId:
        """Return who may be read and followed: the primary while it lives, else a replica."""
        primary = self.primary(shard)
        for node in (primary, *self._holders[shard]):
            if self._live.get(node, False):
                return node
        return NOBODY

    def holds(self, node: NodeId, shard: ShardId) -> bool:
        """Whether a node holds a shard, and lives."""
        return node in self._holders[shard] and self._live.get(node, False)

    def address(self, node: NodeId) -> str:
        """Return where a node listens; empty if that is not known."""
        return self._addresses.get(node, "")
