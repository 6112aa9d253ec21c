"""`python -m ssgovern.sim`: simulate one seed or many."""

from __future__ import annotations

import argparse
import sys

from ssgovern.sim.cluster_mutants import CLUSTER_MUTANTS
from ssgovern.sim.harness import Result
from ssgovern.sim.mutants import MUTANTS
from ssgovern.sim.swarm import Mode, Task, Totals, run_seed, run_swarm, wall_s

# What a long run has to have seen, or it proves less than it says.
_COVERED = (
    "promotion",
    "election",
    "primary stepped down",
    "old epoch refused",
    "shard snapshot received",
    "metadata compacted",
    "metadata restored",
    "session ended",
    "recorded calls",
    "transfer_shard",
    "transfer_controller",
    "leave",
    "change_settings",
    "change_candidates",
    "mute",
    "wrong_disk",
    "late",
)


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    mode = Mode.LIVENESS if options.liveness else Mode.CLUSTER if options.cluster else Mode.NODE
    known = MUTANTS if mode is Mode.NODE else CLUSTER_MUTANTS
    if options.mutant and options.mutant not in known:
        parser.error(f"--mutant: one of {', '.join(known)}")
    task = Task(mode, options.mutant, options.minutes)
    if options.seed is not None:
        return _one(options.seed, task, trace=options.trace)
    return _many(options.seeds, task, options.jobs, options.keep_going)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssgovern.sim",
        description="Simulate nodes and their clients under faults; every seed is another run.",
    )
    parser.add_argument("--cluster", action="store_true", help="several nodes, not one")
    parser.add_argument(
        "--liveness", action="store_true", help="several nodes and one permanent fault"
    )
    parser.add_argument("--seeds", type=_seeds, default=range(100), help="0-1999, or one number")
    parser.add_argument("--seed", type=int, help="run this one and say what happened")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--minutes", type=float, help="virtual minutes of faults in each seed")
    parser.add_argument("--mutant", default="", help="plant this bug")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell the story")
    parser.add_argument("--keep-going", action="store_true", help="do not stop after 5 failures")
    return parser


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _command(seed: int, task: Task) -> str:
    command = "python -m ssgovern.sim"
    command += "" if task.mode is Mode.NODE else f" --{task.mode.value}"
    command += f" --seed {seed}"
    command += f" --mutant {task.mutant}" if task.mutant else ""
    return command + (f" --minutes {task.minutes:g}" if task.minutes is not None else "")


def _one(seed: int, task: Task, *, trace: bool) -> int:
    began_s = wall_s()
    result = run_seed(seed, task, trace=trace)
    for line in result.story:
        print(line)
    print(f"seed {seed}: {result.scenario}")
    print(
        f"{result.virtual_s:.1f} virtual s in {wall_s() - began_s:.1f} s, {result.events} events, "
        f"{result.lives} lives, {result.committed} entries, {result.acknowledged} acknowledged, "
        f"{result.expired} expired; faults {result.faults}"
    )
    if result.counts:
        print(f"inside {result.counts}")
    print(f"digest {result.digest}")
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 0 if result.is_clean else 1


def _many(seeds: range, task: Task, jobs: int, keep_going: bool) -> int:
    began_s = wall_s()

    def on_result(result: Result, totals: Totals) -> bool:
        if not result.is_clean:
            print(f"\nFAILED seed {result.seed}: {result.violations[0]}")
            print(f"    {result.scenario}")
            print(f"    faults {result.faults}, digest {result.digest}")
            print(f"    again: {_command(result.seed, task)} --trace")
        if totals.seeds % 20 == 0 or not result.is_clean:
            print(f"\r{totals.describe(wall_s() - began_s)}", end="", flush=True)
        if task.mutant:
            return result.is_clean
        return keep_going or len(totals.failures) < 5

    totals = run_swarm(seeds, task, jobs=jobs, on_result=on_result)
    print(f"\r{totals.describe(wall_s() - began_s)}")
    if task.mode is not Mode.NODE:
        _print_coverage(totals)
    return 1 if totals.failures else 0


def _print_coverage(totals: Totals) -> None:
    print(", ".join(f"{name}: {count}" for name, count in sorted(totals.counts.items())))
    missing = [name for name in _COVERED if not totals.counts[name]]
    if missing:
        print(f"never happened: {', '.join(missing)}")


if __name__ == "__main__":
    sys.exit(main())
