"""What a node tells Prometheus of each shard it leads.

Only who leads a shard tells of it, so that over the whole cluster there are so many series as
there are shards, whatever the number of nodes and copies. Refuses to know HTTP, and anything of
single services or instances.
"""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ssgovern.model import LogPosition
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.node.metrics import Families
from ssgovern.node.node import Node


class ShardMetrics:
    """The part with a sample for each shard."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __call__(self) -> Families:
        """Yield it."""
        if not self._node.listening:
            return
        instances = _of_shards("shard_instances", "Instances in a shard that is led here")
        entries = CounterMetricFamily(
            "ssgovern_shard_entries",
            "Entries ever committed to a shard that is led here: its revision",
            labels=["shard"],
        )
        epochs = _of_shards("shard_epoch", "Epoch of a shard that is led here")
        lags = _of_shards(
            "shard_replication_lag_entries",
            "Entries that the furthest replica of a shard is not known to hold",
        )
        for shard, lag in self._led():
            state = self._node.states[shard]
            position: LogPosition = state.position
            name = [str(shard)]
            instances.add_metric(name, state.instances)
            entries.add_metric(name, position.revision)
            epochs.add_metric(name, position.epoch)
            lags.add_metric(name, lag)
        yield from (instances, entries, epochs, lags)

    def _led(self) -> list[tuple[int, int]]:
        """Return the shards led here, each with the lag of its furthest replica."""
        node = self._node
        if not isinstance(node, ClusterNode):
            return [(shard, 0) for shard in range(len(node.states))]
        return [
            (shard, max((lag for _, lag in primary.lags()), default=0))
            for shard, primary in sorted(node.host.primaries.items())
        ]


def _of_shards(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ssgovern_{name}", text, labels=["shard"])
