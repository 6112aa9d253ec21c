"""The decisions of a cluster of one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssgovern.model import LogPosition, NodeId, ShardAssignment, ShardMap


def decide_shard_map(
    node_id: NodeId, recovered: Sequence[LogPosition], promised: Mapping[int, int]
) -> ShardMap:
    """Make a node primary of all its shards, each at an epoch never used before.

    `recovered` is the last position in the log of each shard, `promised` the highest epoch its
    log has promised to obey. The version is the highest epoch granted, which rises with every
    start because each start writes its epochs down.
    """
    shards = tuple(
        ShardAssignment(
            epoch=max(position.epoch, promised.get(shard, 0)) + 1,
            primary=node_id,
            replicas=(),
            in_sync=(node_id,),
        )
        for shard, position in enumerate(recovered)
    )
    return ShardMap(version=max(shard.epoch for shard in shards), shards=shards)
