"""`python -m ssgovern.sim`: simulate one seed or many."""

from __future__ import annotations

import argparse
import sys

from ssgovern.sim.harness import Result, simulate
from ssgovern.sim.mutants import HONEST, MUTANTS
from ssgovern.sim.swarm import Totals, run_swarm, wall_s


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, options.mutant, options.minutes, trace=options.trace)
    return _many(options.seeds, options.jobs, options.mutant, options.minutes, options.keep_going)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ssgovern.sim",
        description="Simulate a node and its clients under faults; every seed is another run.",
    )
    parser.add_argument("--seeds", type=_seeds, default=range(100), help="0-1999, or one number")
    parser.add_argument("--seed", type=int, help="run this one and say what happened")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--minutes", type=float, help="virtual minutes of faults in each seed")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="plant this bug")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell the story")
    parser.add_argument("--keep-going", action="store_true", help="do not stop after 5 failures")
    return parser


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _command(seed: int, mutant: str, minutes: float | None) -> str:
    command = f"python -m ssgovern.sim --seed {seed}"
    command += f" --mutant {mutant}" if mutant else ""
    return command + (f" --minutes {minutes:g}" if minutes is not None else "")


def _one(seed: int, mutant: str, minutes: float | None, *, trace: bool) -> int:
    began_s = wall_s()
    planted = MUTANTS[mutant] if mutant else HONEST
    result = simulate(seed, mutant=planted, minutes=minutes, trace=trace)
    for line in result.story:
        print(line)
    print(f"seed {seed}: {result.scenario}")
    print(
        f"{result.virtual_s:.1f} virtual s in {wall_s() - began_s:.1f} s, {result.events} events, "
        f"{result.lives} lives, {result.committed} entries, {result.acknowledged} acknowledged, "
        f"{result.expired} expired; faults {result.faults}"
    )
    print(f"digest {result.digest}")
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 0 if result.is_clean else 1


def _many(seeds: range, jobs: int, mutant: str, minutes: float | None, keep_going: bool) -> int:
    began_s = wall_s()

    def on_result(result: Result, totals: Totals) -> bool:
        if not result.is_clean:
            print(f"\nFAILED seed {result.seed}: {result.violations[0]}")
            print(f"    {result.scenario}")
            print(f"    faults {result.faults}, digest {result.digest}")
            print(f"    again: {_command(result.seed, mutant, minutes)} --trace")
        if totals.seeds % 20 == 0 or not result.is_clean:
            print(f"\r{totals.describe(wall_s() - began_s)}", end="", flush=True)
        if mutant:
            return result.is_clean
        return keep_going or len(totals.failures) < 5

    totals = run_swarm(seeds, jobs=jobs, mutant=mutant, minutes=minutes, on_result=on_result)
    print(f"\r{totals.describe(wall_s() - began_s)}")
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
