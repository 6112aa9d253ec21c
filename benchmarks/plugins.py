"""What is measured: the only module here that knows both our own node and its peers.

A section is a table of its own in docs/benchmarks.md: single nodes on one core each, and
clusters on all cores. To put something of ours into the rows that have peers, it has to be a
`Contender` named `bench.OURS`: it starts in an empty directory (see `contender.running`) and
builds `ClosedLoop` connections. It then takes its turn in every round.

To add rows of our own, add a `Case(name, run)`:

    async def fan_out(bench: Bench) -> list[Result]:
        bench.say("10,000 subscribers")
        ...
        return [Result("one change to 10,000 subscribers, last told, p99",
                       {OURS: Figure(seconds, "s")}, wanted="≤ 300 ms", met=seconds <= 0.3)]

`VALUE` is what peers store for one instance: the bytes our own encoder makes of the instance
that our contender registers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import cases, cluster_cases, cluster_growth, compare, http_cases
from benchmarks.bench import Case
from benchmarks.contender import Contender
from benchmarks.nodes import NODES
from benchmarks.ours import OurNode
from benchmarks.ours_cluster import OurCluster
from benchmarks.peers.etcd import Etcd
from benchmarks.peers.zookeeper import ZooKeeper
from ssgovern.cli.load import sample_instance


@dataclass(frozen=True, slots=True)
class Section:
    """Cases that are measured alike and stand in one table."""

    title: str
    cases: Sequence[Case]
    contenders: Sequence[Contender]


NODE = Section(
    "one node",
    [*compare.CASES, *cases.CASES, *http_cases.CASES],
    [OurNode(), Etcd(), ZooKeeper()],
)
CLUSTER = Section(
    "a cluster",
    [*cluster_cases.CASES, *cluster_growth.CASES],
    [OurCluster(), Etcd(NODES), ZooKeeper(NODES)],
)
VALUE: bytes = sample_instance("10.1.2.3-00000001").SerializeToString()
