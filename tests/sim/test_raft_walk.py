"""The random walks over bare Raft cores: clean without planted bugs, and not blind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from ssgovern.sim.raft_mutants import MUTANTS
from ssgovern.sim.raft_walk import Walk, WalkReport, search

WALKS_TO_FIND = {
    "ack-before-sync": 100,
    "changes-without-joint": 800,
    "commits-to-own-last": 100,
    "counts-itself-early": 500,
    "cuts-on-every-append": 600,
    "does-not-repair": 1000,
    "keeps-config-of-cut-entries": 500,
    "keeps-conflicts": 50,
    "leaves-joint-early": 150,
    "own-vote-before-sync": 1000,
    "reads-at-once": 50,
    "reads-before-own-commit": 50,
    "vote-without-log-check": 100,
}
"""Several times the mean. A walk takes about 10 ms."""

WALKS_TO_FIND_RARE = {
    "counts-old-terms": 3000,
    "reads-by-older-round": 5000,
    "vote-not-persisted": 6000,
}


def test_no_violation_without_planted_bugs() -> None:
    """One leader per term, one entry per index, no stale read, and agreement after healing."""
    failed = search(200)
    assert failed is None, "\n".join([*failed.stories, f"seed {failed.seed}: {failed.violation}"])


def test_the_walk_visits_every_kind_of_trouble() -> None:
    """A walk that never changes its members proves nothing about changes of members."""
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)

    search(150, on_report=add)
    expected = {
        "applied": 1000,
        "calm": 15,
        "change: Accepted": 50,
        "compaction": 50,
        "crash": 500,
        "election": 300,
        "read": 300,
        "read lost": 100,
        "snapshot installed": 10,
        "transfer": 50,
    }
    assert {event for event, least in expected.items() if total[event] < least} == set()


def _find(name: str, walks: int, first_seed: int) -> None:
    failed = search(walks, first_seed=first_seed, raft=MUTANTS[name])
    assert failed is not None, f"{name} was not found: the walk has become blind"
    assert Walk(failed.seed, MUTANTS[name]).run().violation == failed.violation


@pytest.mark.parametrize("name", sorted(WALKS_TO_FIND))
def test_planted_bugs_of_raft_are_found(name: str) -> None:
    """Each planted bug is found within its stated number of walks."""
    _find(name, WALKS_TO_FIND[name], 10_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(WALKS_TO_FIND_RARE))
def test_rare_planted_bugs_of_raft_are_found(name: str) -> None:
    """So are those that need a long chain of mishaps."""
    _find(name, WALKS_TO_FIND_RARE[name], 20_000)


def test_every_mutant_has_a_budget() -> None:
    """No planted bug is left out."""
    assert sorted({**WALKS_TO_FIND, **WALKS_TO_FIND_RARE}) == sorted(MUTANTS)


def test_a_seed_is_the_whole_walk() -> None:
    """The same seeds give the same events in processes with different hash seeds."""
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "ssgovern.sim.raft_walk", "--walks", "30", "--seed", "7"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "30 x walk" in outputs[0]
