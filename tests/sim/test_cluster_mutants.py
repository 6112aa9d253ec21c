"""The simulation of clusters is itself tested: it finds planted bugs within a stated budget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern.sim.cluster_harness import simulate_cluster, simulate_plot
from ssgovern.sim.cluster_mutants import CLUSTER_MUTANTS, HONEST, ClusterMutant
from ssgovern.sim.cluster_plots import PLOTS
from ssgovern.sim.harness import Result

# The first seed that finds each, when it was last looked, and by which invariant.
BY_SEEDS = {
    "no_full_ttl_after_promotion": (0, "S1"),
    "client_ignores_changes": (0, "W2"),
    "lease_taken_for_a_session": (4, "S4"),
    "majority_acknowledges": (15, "P5"),
    "acknowledges_before_sync": (2, "C1"),
    "promoted_forgets_tail": (2, "P5"),
}

# By which invariant the plot of each finds it. What a cast did not show, the next one may.
BY_PLOTS = {
    "reads_past_lease": "R2",
    "lease_outlasts_fence": "R2",
    "fences_early": "R2",
    "serves_before_epoch_start": "R2",
    "previous_epoch_not_compared": "P5",
    "primary_alone_acknowledges": "P5",
    "minimum_ignored": "P5",
    "unclean_election": "P5",
    "joins_without_catching_up": "P5",
    "replica_acknowledges_before_sync": "P5",
    "client_never_claims": "D1",
    "blames_the_next": "L1",
}

_SEEDS_MAX = 40
"""Some seeds give the roles to nodes with which a plot cannot be played."""


def _plays(plot: str, mutant: ClusterMutant, casts: int) -> Iterator[Result]:
    """Play a plot with so many casts."""
    for seed in range(_SEEDS_MAX):
        if casts == 0:
            return
        result = simulate_plot(PLOTS[plot], seed, mutant=mutant)
        if result.counts["played"]:
            casts -= 1
            yield result
    pytest.fail(f"{plot} cannot be played with the first {_SEEDS_MAX} seeds")


def _find(name: str) -> int | None:
    """Return the first seed that finds it; those before the one that last did cost too much."""
    first, _ = BY_SEEDS[name]
    seeds: list[int] = [first, *range(CLUSTER_MUTANTS[name].seeds)]
    for seed in seeds:
        if not simulate_cluster(seed, mutant=CLUSTER_MUTANTS[name]).is_clean:
            return seed
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BY_SEEDS)
def test_a_planted_bug_of_a_cluster_is_found_within_its_budget(name: str) -> None:
    """A bug of this kind cannot hide from so many clusters."""
    assert _find(name) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BY_PLOTS)
def test_a_planted_bug_is_found_by_its_plot(name: str) -> None:
    """What random seeds hardly ever meet is met on purpose, and breaks what it has to break."""
    mutant = CLUSTER_MUTANTS[name]
    for result in _plays(mutant.plot, mutant, mutant.casts):
        if not result.is_clean:
            assert f" {BY_PLOTS[name]}: " in result.violations[0]
            return
    pytest.fail(f"{mutant.plot} does not show {name} any more")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_without_a_planted_bug_ends_well(plot: str) -> None:
    """What a plot finds is the planted bug's doing; and every plot can be played."""
    [result] = _plays(plot, HONEST, 1)
    assert result.is_clean, f"{plot} with seed {result.seed}: {result.violations}"


def test_every_planted_bug_is_looked_for() -> None:
    """No mutant is kept that nothing finds, and no plot that finds nothing."""
    assert {*BY_SEEDS, *BY_PLOTS} == set(CLUSTER_MUTANTS)
    assert {name for name, mutant in CLUSTER_MUTANTS.items() if mutant.plot} == set(BY_PLOTS)
    assert {mutant.plot for mutant in CLUSTER_MUTANTS.values() if mutant.plot} == set(PLOTS)
