"""A node and its clients under faults: fixed seeds, at every change."""

from __future__ import annotations

import pytest

from ssgovern.sim.harness import simulate


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_no_seed_of_the_smoke_set_finds_anything(first: int) -> None:
    """Every checker holds through faults, heals and a stop in good order."""
    for seed in range(first, first + 6):
        result = simulate(seed)
        assert result.is_clean, (
            f"{result.violations}\n{result.scenario}\n"
            f"again: python -m ssgovern.sim --seed {seed} --trace"
        )


def test_the_smoke_set_exercises_what_it_is_for() -> None:
    """A run in which nothing happens proves nothing."""
    results = [simulate(seed) for seed in (0, 11)]

    assert sum(result.acknowledged for result in results) > 100
    assert sum(result.lives for result in results) > 6
    assert all(result.faults for result in results)
