"""The one node's shard map: every start grants epochs that were never used."""

from __future__ import annotations

from ssgovern.controller.standalone import decide_shard_map
from ssgovern.model import LogPosition, NodeId, ShardId

ME = NodeId(4)


def test_epochs_rise_above_log_and_promises() -> None:
    """Each shard's new epoch is above what its log has and what it promised to obey."""
    recovered = [LogPosition(0, 0), LogPosition(3, 17), LogPosition(2, 5)]
    made = decide_shard_map(ME, recovered, {2: 9})
    assert [row.epoch for row in made.shards] == [1, 4, 10]
    assert made.version == 10


def test_the_node_is_primary_of_all_and_alone_in_sync() -> None:
    """With one node there is nobody else."""
    made = decide_shard_map(ME, [LogPosition(0, 0)] * 3, {})
    for shard in range(3):
        row = made.assignment(ShardId(shard))
        assert (row.primary, row.replicas, row.in_sync) == (ME, (), (ME,))
