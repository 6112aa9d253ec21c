"""Which node is primary of which shard, at which epoch.

Immutable: a change is a new map with a higher version. Two nodes with the same version hold
identical maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from ssgovern.model.slots import ShardId

NodeId = NewType("NodeId", int)


@dataclass(frozen=True, slots=True)
class ShardAssignment:
    """One row of the map. The primary is a member of its in-sync set."""

    epoch: int
    primary: NodeId
    replicas: tuple[NodeId, ...] = ()
    in_sync: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardMap:
    """The table of all shards; `shards[i]` is shard i."""

    version: int
    shards: tuple[ShardAssignment, ...]

    def assignment(self, shard: ShardId) -> ShardAssignment:
        """Return the row of a shard."""
        return self.shards[shard]
