"""The control path under faults at random, and a planted bug that such walks have to find."""

from __future__ import annotations

from collections import Counter

import pytest

from ssgovern.sim.control_mutants import GrantsUnconfirmed
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


@pytest.mark.slow
def test_a_planted_bug_is_found() -> None:
    """A walk that cannot fail proves nothing: here leases are granted by who is not confirmed."""
    assert walk_many(10, node_type=GrantsUnconfirmed) is not None
