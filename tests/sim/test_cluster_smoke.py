"""Whole clusters under faults: fixed seeds, at every change."""

from __future__ import annotations

import pytest

from ssgovern.model import slots
from ssgovern.sim.cluster_harness import simulate_cluster
from ssgovern.sim.few_shards import few_shards
from ssgovern.sim.harness import Result
from ssgovern.sim.swarm import Totals

REGRESSIONS = {
    300135: "a node that had left for good kept clients that the cluster never heard of",
    300037: "a candidate that no configuration names was not found after all power was lost",
    4: "a session that ended in one shard and was known again by another seemed whole",
    18: "a recorder did not know the address of the node that gave it the map",
    52: "an update said that what its caller held was not there",
}


def _checked(result: Result, mode: str) -> Result:
    assert result.is_clean, (
        f"{result.violations}\n{result.scenario}\n"
        f"again: python -m ssgovern.sim --{mode} --seed {result.seed} --trace"
    )
    return result


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_cluster_keeps_its_promises_through_faults(seed: int) -> None:
    """Every checker holds through faults, and all is well a while after they end."""
    result = _checked(simulate_cluster(seed), "cluster")

    assert result.acknowledged > 20
    assert result.counts["recorded calls"] > 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_smoke_set_of_clusters_finds_nothing_and_sees_enough() -> None:
    """A dozen clusters: nothing is violated, and what is to be survived has happened."""
    totals = Totals()
    for seed in range(12):
        totals.add(_checked(simulate_cluster(seed), "cluster"))

    for happened in (
        "promotion",
        "election",
        "primary stepped down",
        "old epoch refused",
        "shard snapshot received",
        "session ended",
        "metadata compacted",
        "transfer_controller",
    ):
        assert totals.counts[happened], f"never happened: {happened}"
    assert totals.acknowledged > 1000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_was_once_found_is_not_found_again(seed: int) -> None:
    """Seeds that found something."""
    _checked(simulate_cluster(seed), "cluster")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(6))
def test_one_thing_that_stays_broken_stops_nobody(seed: int) -> None:
    """With one permanent fault writes go on and terms come to rest."""
    _checked(simulate_cluster(seed, liveness=True), "liveness")


def test_few_shards_are_few_for_one_world_only() -> None:
    """Everybody who knows the number of shards knows the other one inside, and none outside."""
    before = (slots.SHARDS, slots.shard_of("default", "default", "orders"))
    with few_shards(8):
        assert slots.SHARDS == 8
        assert {slots.shard_of("default", "default", f"s{n}") for n in range(200)} == set(range(8))
    assert before == (slots.SHARDS, slots.shard_of("default", "default", "orders"))
