"""The random walks over replication: clean without planted bugs, and not blind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ssgovern.sim.replication_mutants import MUTANTS
from ssgovern.sim.replication_walk import Walk, WalkReport, walk

WALKS_TO_FIND = {
    "counts-itself-before-sync": 30,
    "joins-before-epoch-start": 400,
    "majority-acknowledges": 50,
    "minimum-ignored": 30,
    "no-compare-and-set": 300,
    "no-maximal-set": 50,
    "rejoin-without-node-epoch": 3000,
    "replica-ignores-epoch": 1500,
    "restart-keeps-membership": 60,
    "serves-before-epoch-start": 50,
    "truncate-to-committed": 100,
    "unclean-election": 50,
}
"""Four times the mean of three, or more. A walk of a thousand steps takes about 10 ms."""


def test_no_violation_without_planted_bugs() -> None:
    """Nothing committed is lost, changed or seen early, and after the faults all are equal."""
    failed = walk(200)
    assert failed is None, "\n".join([*failed.story, f"seed {failed.seed}: {failed.violation}"])


def test_the_walks_visit_every_kind_of_trouble() -> None:
    """A walk that never cuts a log or sends a snapshot proves nothing about it."""
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)

    walk(200, on_report=add)
    expected = {
        "convergence",
        "crash",
        "cut",
        "cut entries",
        "double failover",
        "full disk",
        "loss",
        "lost entries",
        "node needs",
        "pause",
        "refused epoch",
        "snapshot at",
        "suspicion",
        "the disk refused",
        "transfer",
        "write",
    }
    assert {event for event in expected if total[event] < 10} == set()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if WALKS_TO_FIND[name] >= 3000 else [])
        for name in sorted(MUTANTS)
    ],
)
def test_planted_bugs_are_found(name: str) -> None:
    """Each planted bug is found within its stated number of walks."""
    failed = walk(WALKS_TO_FIND[name], first_seed=0, mutant=MUTANTS[name])
    assert failed is not None, f"{name} was not found: the walks have become blind"
    assert Walk(failed.seed, MUTANTS[name]).run().violation == failed.violation


def test_a_seed_is_the_whole_walk() -> None:
    """The same seeds give the same events in processes with different hash seeds."""
    command = [sys.executable, "-m", "ssgovern.sim.replication_walk", "--walks", "20"]
    outputs = [
        subprocess.run(
            [*command, "--seed", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "20 x walk" in outputs[0]


def test_a_failure_prints_its_story() -> None:
    """The command ends with the seed and the broken invariant, and an exit code."""
    command = [sys.executable, "-m", "ssgovern.sim.replication_walk", "--walks", "30"]
    done = subprocess.run(
        [*command, "--mutant", "unclean-election"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("seed ")
