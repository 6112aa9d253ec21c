"""The simulation of clusters is itself tested: it finds planted bugs within a budget of seeds."""

from __future__ import annotations

import pytest

from ssgovern.sim.cluster_harness import simulate_cluster
from ssgovern.sim.cluster_mutants import CLUSTER_MUTANTS

# The first seed that finds each, when it was last looked, and by which invariant.
FIRST_FOUND = {
    "primary_alone_acknowledges": (11, "P5"),
    "no_full_ttl_after_promotion": (0, "S1"),
    "client_ignores_changes": (0, "W2"),
    "lease_taken_for_a_session": (4, "S4"),
    "majority_acknowledges": (15, "P5"),
    "acknowledges_before_sync": (2, "C1"),
    "previous_epoch_not_compared": (18, "P5"),
    "promoted_forgets_tail": (2, "P5"),
    "unclean_election": (4, "P5"),
}


def _find(name: str) -> int | None:
    """Return the first seed that finds it; those before the one that last did cost too much."""
    first, _ = FIRST_FOUND[name]
    seeds: list[int] = [first, *range(CLUSTER_MUTANTS[name].seeds)]
    for seed in seeds:
        if not simulate_cluster(seed, mutant=CLUSTER_MUTANTS[name]).is_clean:
            return seed
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FIRST_FOUND)
def test_a_planted_bug_of_a_cluster_is_found_within_its_budget(name: str) -> None:
    """A bug of this kind cannot hide from so many clusters."""
    assert _find(name) is not None


def test_what_is_said_to_be_found_is_planted() -> None:
    """The table above speaks of mutants that there are."""
    assert set(FIRST_FOUND) <= set(CLUSTER_MUTANTS)
