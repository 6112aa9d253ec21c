"""The simulation of clusters is itself tested: it finds planted bugs within a stated budget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern.sim.cluster_harness import simulate_cluster, simulate_plot
from ssgovern.sim.cluster_mutants import CLUSTER_MUTANTS, HONEST, ClusterMutant
from ssgovern.sim.cluster_plots import PLOTS
from ssgovern.sim.harness import Result

# By which invariant the plot of each finds it. What a cast did not show, the next one may.
BY_PLOTS = {
    "reads_past_lease": "R2",
    "lease_outlasts_fence": "R2",
    "fences_early": "R2",
    "serves_before_epoch_start": "R2",
    "previous_epoch_not_compared": "P5",
    "primary_alone_acknowledges": "P5",
    "majority_acknowledges": "P5",
    "minimum_ignored": "P5",
    "acknowledges_before_sync": "C1",
    "replica_acknowledges_before_sync": "P5",
    "unclean_election": "P5",
    "promoted_forgets_tail": "P5",
    "joins_without_catching_up": "P5",
    "no_full_ttl_after_promotion": "S1",
    "lease_taken_for_a_session": "S4",
    "client_never_claims": "D1",
    "client_ignores_changes": "D1",
    "blames_the_next": "L1",
}

# What every second random seed finds: that they find nothing otherwise is worth something.
BY_SEEDS = (
    "no_full_ttl_after_promotion",
    "client_ignores_changes",
    "acknowledges_before_sync",
    "promoted_forgets_tail",
)

_CASTS = 6
_SEEDS = 10
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BY_SEEDS)
def test_a_planted_bug_of_a_cluster_is_found_by_random_seeds(name: str) -> None:
    """A bug of this kind cannot hide from so many clusters."""
    mutant = CLUSTER_MUTANTS[name]
    assert not all(simulate_cluster(seed, mutant=mutant).is_clean for seed in range(_SEEDS))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BY_PLOTS)
def test_a_planted_bug_is_found_by_its_plot(name: str) -> None:
    """What random seeds hardly ever meet is met on purpose, and breaks what it has to break."""
    mutant = CLUSTER_MUTANTS[name]
    for result in _plays(mutant.plot, mutant, _CASTS):
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
    assert set(BY_PLOTS) == set(CLUSTER_MUTANTS)
    assert set(BY_SEEDS) <= set(CLUSTER_MUTANTS)
    assert {mutant.plot for mutant in CLUSTER_MUTANTS.values()} == set(PLOTS)
