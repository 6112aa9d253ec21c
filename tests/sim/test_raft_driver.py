"""Candidates on simulated disks, clocks and TCP: nothing appended is lost, and no bug hides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ssgovern.model import NodeId
from ssgovern.sim.candidates import Report, Run, search
from ssgovern.sim.candidates_mutants import MUTANTS

SEEDS_TO_FIND = {
    "ack-before-sync": 60,
    "answers-before-applying": 100,
    "appends-anywhere": 10,
    "drops-what-does-not-fit": 200,
    "forgets-beginning": 100,
    "promise-lost-at-release": 60,
    "vote-not-persisted": 20,
}
"""Six times the mean, or more. A seed takes about half a second."""

LATE = ("answers-before-applying", "forgets-beginning")


def test_no_violation_without_planted_bugs() -> None:
    """One leader per term, one sequence for all, nothing appended is lost, and agreement."""
    total: Counter[str] = Counter()

    def add(report: Report) -> None:
        total.update(report.counts)

    failed = search(range(10), on_report=add)
    assert failed is None, "\n".join([*failed.stories, f"seed {failed.seed}", *failed.violations])
    expected = {"acknowledged": 1000, "read": 300, "election": 20, "snapshot restored": 5}
    assert {event for event, least in expected.items() if total[event] < least} == set()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LATE)) for name in sorted(MUTANTS)],
)
def test_planted_bugs_are_found(name: str) -> None:
    """Each planted bug is found within its stated number of seeds."""
    first = 7_000  # Where most come early.
    failed = search(range(first, first + SEEDS_TO_FIND[name]), mutant=MUTANTS[name])
    assert failed is not None, f"{name} was not found: the simulation has become blind"


@pytest.mark.slow
def test_a_seed_is_the_whole_run() -> None:
    """The same seeds give the same events in processes with different hash seeds."""
    program = (
        "from ssgovern.sim.candidates import Run\n"
        "print([(r.digest, sorted(r.counts.items())) for r in (Run(s).play() for s in (3, 4))])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


# --- one fault at a time ----------------------------------------------------------------------


@contextmanager
def group() -> Iterator[Run]:
    """A group that has a leader, and in which nothing goes wrong but what the test does."""
    run = Run(1)
    with run.world:
        run.start()
        run.expect_leader("after the start")
        run.go_on(1.0)
        yield run
    assert run.judge.violations == []
    assert run.world.errors == []


def leader_of(run: Run) -> NodeId:
    leader = run.leader()
    assert leader is not None
    return leader.id


def test_a_leader_whose_disk_is_full_lets_another_lead() -> None:
    """It cannot write what it decides; the others can, and go on."""
    with group() as run:
        old = leader_of(run)
        for disk in run.processes[old].machine.disks.values():
            disk.capacity_bytes = disk.used_bytes
        acknowledged = run.judge.acknowledged
        elected = run.world.run_until(
            lambda: leader_of_or_none(run) not in (None, old), run.world.now + 6.0
        )
        assert elected
        run.go_on(1.0)
        assert run.judge.acknowledged > acknowledged
        assert run.processes[old].alive


def leader_of_or_none(run: Run) -> NodeId | None:
    leader = run.leader()
    return None if leader is None else leader.id


def test_slow_syncs_make_nobody_stand_for_election() -> None:
    """Heartbeats do not queue behind the disk."""
    with group() as run:
        leader, elections = leader_of(run), run.judge.elections
        for process in run.processes.values():
            process.machine.disk_timing.sync = (2.5, 3.0)
        acknowledged = run.judge.acknowledged
        run.go_on(30.0)
        assert (leader_of(run), run.judge.elections) == (leader, elections)
        assert run.judge.acknowledged > acknowledged


def test_who_slept_does_not_stand_for_election() -> None:
    """A process that was stopped for long comes back as a follower of who leads."""
    with group() as run:
        leader, elections = leader_of(run), run.judge.elections
        sleeper = next(node for node in run.nodes if node != leader)
        for _ in range(5):
            run.processes[sleeper].pause()
            run.go_on(10.0)
            run.processes[sleeper].resume()
            run.go_on(1.0)
        assert (leader_of(run), run.judge.elections) == (leader, elections)


def test_a_leader_that_slept_says_nothing_of_the_meantime() -> None:
    """When it wakes, it was confirmed before it slept, and not since."""
    with group() as run:
        leader = leader_of(run)
        process = run.processes[leader]
        driver = run.lives[leader].driver
        assert driver is not None
        process.pause()
        slept_at = process.monotonic()
        run.go_on(10.0)
        assert process.monotonic() > slept_at + 9.0
        assert 0.0 < driver.confirmed_at <= slept_at
        process.resume()
        run.go_on(2.0)
        assert leader_of(run) != leader


@pytest.mark.slow
def test_a_candidate_that_was_gone_for_long_takes_a_snapshot() -> None:
    """What it missed is not in anybody's log any more."""
    with group() as run:
        gone = next(node for node in run.nodes if node != leader_of(run))
        run.processes[gone].kill(power=True)
        for process in run.processes.values():
            process.machine.disk_timing.sync = (0.0002, 0.0005)
        run.pace_s = 0.002
        run.world.run_until(lambda: len(run.judge.truth) > 5000, run.world.now + 60.0)
        assert len(run.judge.truth) > 5000
        restored = run.judge.restored
        run.processes[gone].start()
        run.go_on(5.0)
        assert run.judge.restored > restored
        driver, leader = run.lives[gone].driver, run.leader()
        assert driver is not None
        assert leader is not None
        assert driver.applied_index > 5000
