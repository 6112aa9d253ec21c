"""The random walk over the controller: clean without planted bugs, and not blind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ssgovern.sim.controller_mutants import MUTANTS
from ssgovern.sim.controller_walk import Walk, WalkReport, walk_many

WALKS_TO_FIND = {
    "balance-ignored": 20,
    "drop-before-catch-up": 20,
    "eligible-forgotten": 20,
    "eligible-though-writes-went-on": 20,
    "epoch-not-raised": 10,
    "gone-is-not-awaited": 5,
    "fenced-too-early": 10,
    "promotion-of-any-holder": 20,
    "stale-session-accepted": 60,
    "throttle-ignored": 10,
}
"""Four times the worst of ten starts, or more. A walk takes about 30 ms."""


def test_no_violation_without_planted_bugs() -> None:
    """Whatever nodes, controllers and late requests do, the rules hold and rest is even."""
    failed = walk_many(80)
    assert failed is None, "\n".join([*failed.story, f"seed {failed.seed}: {failed.violation}"])


def test_the_walk_visits_every_kind_of_trouble() -> None:
    """A walk in which no decision is cut short proves nothing about resuming."""
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)

    walk_many(80, first_seed=5_000, on_report=add)
    expected = {
        "at rest, all checked",
        "at rest, even zones",
        "at rest, something unavailable",
        "damaged",
        "decision cut short",
        "fenced at restart",
        "fenced for silence",
        "hand-over begun",
        "leave refused",
        "move begun",
        "move ended",
        "request refused",
        "shard unavailable",
        "somebody eligible",
        "take_over",
        "write acknowledged",
    }
    assert {event for event in expected if total[event] < 10} == set()


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_planted_bugs_are_found(name: str) -> None:
    """Each planted bug is found within its stated number of walks."""
    failed = walk_many(WALKS_TO_FIND[name], first_seed=10_000, mutant=MUTANTS[name])
    assert failed is not None, f"{name} was not found: the walk has become blind"
    assert Walk(failed.seed, MUTANTS[name]).run().violation == failed.violation


def test_a_seed_is_the_whole_walk() -> None:
    """The same seeds give the same walks in processes with different hash seeds."""
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "ssgovern.sim.controller_walk", "--walks", "8", "--seed", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
