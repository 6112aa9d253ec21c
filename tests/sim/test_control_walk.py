"""The control path under faults at random, and the planted bugs that such walks have to find."""

from __future__ import annotations

from collections import Counter

import pytest

from ssgovern.sim.control_mutants import GapIgnored, GrantsUnconfirmed
from ssgovern.sim.control_nodes import ControlNode
from ssgovern.sim.control_walk import walk_many


def test_walks_find_nothing() -> None:
    """Whatever fails: no lease outlives its session's fencing, and all comes to rest."""
    counts: Counter[str] = Counter()
    assert walk_many(4, counts=counts) is None
    assert counts["fenced"] > 10, "the walk has to get somewhere"
    assert counts["election"] > 10, "the walk has to get somewhere"


@pytest.mark.slow
def test_many_walks_find_nothing() -> None:
    """The same, longer."""
    assert walk_many(40, first_seed=1000) is None


@pytest.mark.parametrize(
    ("mutant", "first_seed", "walks"), [(GrantsUnconfirmed, 0, 10), (GapIgnored, 12, 10)]
)
def test_planted_bugs_are_found(mutant: type[ControlNode], first_seed: int, walks: int) -> None:
    """A walk that cannot fail proves nothing."""
    assert walk_many(walks, first_seed=first_seed, node_type=mutant) is not None
