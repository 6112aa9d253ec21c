"""Many seeds in several processes, and the report of what they found."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ssgovern.sim.harness import Result, simulate
from ssgovern.sim.mutants import HONEST, MUTANTS


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
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.committed += result.committed
        self.acknowledged += result.acknowledged
        self.expired += result.expired
        self.lives += result.lives
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


def run_seed(seed: int, mutant: str, minutes: float | None) -> Result:
    """Run one seed, in whatever process this is."""
    return simulate(seed, mutant=MUTANTS[mutant] if mutant else HONEST, minutes=minutes)


def run_swarm(
    seeds: range,
    *,
    jobs: int,
    mutant: str = "",
    minutes: float | None = None,
    on_result: Callable[[Result, Totals], bool],
) -> Totals:
    """Run seeds, a few ahead of the oldest that is not done; stop when `on_result` says False."""
    totals = Totals()
    for result in _results(seeds, jobs, mutant, minutes):
        totals.add(result)
        if not on_result(result, totals):
            break
    return totals


def _results(seeds: range, jobs: int, mutant: str, minutes: float | None) -> Iterator[Result]:
    if jobs <= 1:
        for seed in seeds:
            yield run_seed(seed, mutant, minutes)
        return
    # Fresh interpreters: what a process of ours happens to have in memory must not matter.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: list[concurrent.futures.Future[Result]] = []
        try:
            for seed in seeds:
                waiting.append(pool.submit(run_seed, seed, mutant, minutes))
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
