"""Many seeds in several processes, and the report of what they found."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ssgovern.sim import cluster_mutants
from ssgovern.sim.cluster_harness import simulate_cluster
from ssgovern.sim.harness import Result, simulate
from ssgovern.sim.mutants import HONEST, MUTANTS


class Mode(Enum):
    """What a seed is a seed of."""

    NODE = "node"
    CLUSTER = "cluster"
    LIVENESS = "liveness"


class Task(NamedTuple):
    """How seeds are to be run."""

    mode: Mode = Mode.NODE
    mutant: str = ""
    minutes: float | None = None


@dataclass(slots=True)
class Totals:
    """What a swarm has done so far."""

    seeds: int = 0
    events: int = 0
    virtual_s: float = 0.0
    committed: int = 0
    acknowledged: int = 0
    expired: int = 0
    lives: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Faults brought, and what happened inside."""
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.committed += result.committed
        self.acknowledged += result.acknowledged
        self.expired += result.expired
        self.lives += result.lives
        self.counts.update(result.faults)
        self.counts.update(result.counts)
        if not result.is_clean:
            self.failures.append(result)

    def describe(self, wall_s: float) -> str:
        each_s = max(wall_s, 1e-9)
        return (
            f"{self.seeds} seeds in {wall_s:.0f} s: {len(self.failures)} failed; "
            f"{self.virtual_s / 3600:.2f} virtual hours ({self.virtual_s / each_s:.0f}x), "
            f"{self.events / each_s / 1000:.0f} k events/s, {self.lives} lives of nodes, "
            f"{self.acknowledged} acknowledged writes, {self.expired} sessions expired"
        )


def run_seed(seed: int, task: Task, *, trace: bool = False) -> Result:
    """Run one seed, in whatever process this is."""
    if task.mode is Mode.NODE:
        node_mutant = MUTANTS[task.mutant] if task.mutant else HONEST
        return simulate(seed, mutant=node_mutant, minutes=task.minutes, trace=trace)
    planted = cluster_mutants.HONEST
    if task.mutant:
        planted = cluster_mutants.CLUSTER_MUTANTS[task.mutant]
    return simulate_cluster(
        seed,
        mutant=planted,
        liveness=task.mode is Mode.LIVENESS,
        minutes=task.minutes,
        trace=trace,
    )


def run_swarm(
    seeds: range,
    task: Task,
    *,
    jobs: int,
    on_result: Callable[[Result, Totals], bool],
) -> Totals:
    """Run all seeds, in their order as far as reporting goes; stop when `on_result` says so."""
    totals = Totals()
    for result in _results(seeds, task, jobs):
        totals.add(result)
        if not on_result(result, totals):
            break
    return totals


def _results(seeds: range, task: Task, jobs: int) -> Iterator[Result]:
    if jobs <= 1:
        for seed in seeds:
            yield run_seed(seed, task)
        return
    # Fresh interpreters: what a process of ours happens to have in memory must not matter.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: list[concurrent.futures.Future[Result]] = []
        try:
            for seed in seeds:
                waiting.append(pool.submit(run_seed, seed, task))
                if len(waiting) > 4 * jobs:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def wall_s() -> float:
    """Return real time, for progress only: nothing simulated sees it."""
    return time.perf_counter()  # noqa: TID251
