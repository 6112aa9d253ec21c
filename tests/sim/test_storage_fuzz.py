"""The crash fuzz of storage: clean without planted bugs, and not blind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ssgovern.sim.storage_fuzz import Machine, RunReport, fuzz
from ssgovern.sim.storage_mutants import MUTANTS

RUNS_TO_FIND = {
    "ack-before-sync": 50,
    "retry-failed-sync": 100,
    "rename-without-directory-sync": 50,
    "trust-names-in-cache": 8000,
    "remove-without-directory-sync": 200,
    "trust-old-tail": 500,
    "trust-proven-end": 12_000,
    "cut-proven-loss": 200,
    "refused-batch-half-cut": 2000,
    "refused-batch-not-cut": 100,
    "damaged-snapshot-is-empty": 2000,
    "cut-ignored": 60,
    "replacement-ignored": 40,
    "replaced-alone": 900,
    "replacement-below-snapshot-ignored": 50,
    "log-over-snapshot": 300,
    "missing-cut-not-written": 400,
}
"""Four to seven times the mean, or more. A run takes about 4 ms."""


def test_no_violation_without_planted_bugs() -> None:
    """Nothing acknowledged is lost, nothing refused comes back, no damage goes unnoticed."""
    failed = fuzz(400)
    assert failed is None, "\n".join([*failed.story, f"seed {failed.seed}: {failed.violation}"])


def test_the_fuzz_visits_every_kind_of_trouble() -> None:
    """A fuzz that never fills the disk or fails a sync proves nothing about it."""
    total: Counter[str] = Counter()

    def add(report: RunReport) -> None:
        total.update(report.counts)

    fuzz(400, on_report=add)
    expected = {
        "append",
        "batch refused",
        "bit rot",
        "both",
        "corruption reported",
        "cut",
        "disk full at recovery",
        "eviction of clean pages",
        "install",
        "kill",
        "missing cut",
        "power cut",
        "recovery",
        "release",
        "replacement",
        "snapshot",
        "snapshot refused",
        "storage failed",
    }
    assert {event for event in expected if total[event] < 10} == set()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if RUNS_TO_FIND[name] >= 2000 else [])
        for name in sorted(MUTANTS)
    ],
)
def test_planted_bugs_are_found(name: str) -> None:
    """Each planted bug is found within its stated number of runs."""
    failed = fuzz(RUNS_TO_FIND[name], first_seed=10_000, mutant=MUTANTS[name])
    assert failed is not None, f"{name} was not found: the fuzz has become blind"
    assert Machine(failed.seed, MUTANTS[name]).run().violation == failed.violation


def test_a_seed_is_the_whole_run() -> None:
    """The same seeds give the same events in processes with different hash seeds."""
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "ssgovern.sim.storage_fuzz", "--runs", "60", "--seed", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "60 x run" in outputs[0]
