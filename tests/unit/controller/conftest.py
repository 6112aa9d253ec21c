"""A tame cluster for each test, whose invariants are checked when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tame import MakeCluster

from ssgovern.controller.state import Settings
from ssgovern.sim.controller_scale import TameCluster


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Make a cluster of so many nodes, at rest: `make_cluster(3, zones=2)`."""
    made: list[TameCluster] = []

    def make(
        nodes: int, *, shards: int = 6, zones: int = 1, settings: Settings | None = None
    ) -> TameCluster:
        wanted = settings or Settings(copies=3, nodes_initial=nodes, min_in_sync=min(2, nodes))
        cluster = TameCluster(wanted, shards)
        made.append(cluster)
        for number in range(1, nodes + 1):
            cluster.join(number, f"z{number % zones}")
        if nodes:
            cluster.settle()
        cluster.begin()
        return cluster

    yield make
    for cluster in made:
        cluster.state.validate()
