"""Run the benchmark: `python -m benchmarks [--cluster] [--quick] [--only NAME,...] [--write FILE]`.

Progress goes to stderr while it works, the table to stdout when it is done. A run is of single
nodes or of clusters: a case that is named says which.
"""

import argparse
import asyncio
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import uvloop

from benchmarks import plugins, report
from benchmarks.bench import Bench, Case
from benchmarks.contender import Contender
from benchmarks.load import Timing
from benchmarks.plugins import CLUSTER, NODE

_ROUNDS = 3
_ROUNDS_MAX = 100
_REPEATS = 20
_REPEATS_QUICK = 2
_FULL = Timing(warm_up_s=2.0, measure_s=7.0)
_QUICK = Timing(warm_up_s=1.0, measure_s=2.0)
_DIRECTORY = Path(__file__).resolve().parent.parent / ".bench"


def main() -> int:
    arguments = _arguments()
    section = NODE if not arguments.cluster else CLUSTER
    cases, contenders = _selected(arguments.only, section)
    say = _progress(time.monotonic)

    cores = sorted(os.sched_getaffinity(0))
    server_cores, load_cores = (cores[:1], cores[1:2] or cores[:1])
    if section is CLUSTER:
        server_cores = load_cores = cores
    if len(cores) == 1:
        say("this machine has one core: server and load share it, ratios say little")
    missing = {c.name: report.NotMeasured(why) for c in contenders if (why := c.absent())}
    for name, left_out in missing.items():
        say(f"{name} is left out: {left_out.why}")

    _remove_leftovers()
    bench = Bench(
        directory=_DIRECTORY / str(os.getpid()),
        server_cores=server_cores,
        load_cores=load_cores,
        rounds=1 if arguments.quick else arguments.rounds or _ROUNDS,
        repeats=arguments.rounds or (_REPEATS_QUICK if arguments.quick else _REPEATS),
        quick=arguments.quick,
        timing=_QUICK if arguments.quick else _FULL,
        contenders=[c for c in contenders if c.name not in missing],
        missing=missing,
        value=plugins.VALUE,
        say=say,
    )
    bench.directory.mkdir(parents=True)
    try:
        os.sched_setaffinity(0, load_cores)
        results = uvloop.run(_run(cases, bench))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("stopped; the servers are stopped too")
        return 130
    finally:
        os.sched_setaffinity(0, cores)
        shutil.rmtree(bench.directory, ignore_errors=True)

    done = report.Report(
        machine=_machine(bench, cores),
        versions=[f"{c.name} {c.version()}: {c.settings}" for c in bench.contenders],
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        results=results,
    )
    print(report.text(done), end="")
    if arguments.write is not None:
        report.write_markdown(done, arguments.write, section.title)
        say(f"written to {arguments.write}")
    return 0


async def _run(cases: Sequence[Case], bench: Bench) -> list[report.Result]:
    task = asyncio.current_task()
    assert task is not None, "a coroutine run by a loop is in a task"
    # Cancelled rather than killed, so that the servers are stopped and cleaned up.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    results: list[report.Result] = []
    for case in cases:
        bench.say(case.name)
        results += await case.run(bench)
    return results


def _arguments() -> argparse.Namespace:
    sections = [NODE, CLUSTER]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ss-govern beside etcd and ZooKeeper, all durable: single nodes on a"
        " core each, or (--cluster) three of each kind on all cores.",
        epilog="; ".join(
            [
                *(
                    f"cases of {s.title}: {', '.join(case.name for case in s.cases)}"
                    for s in sections
                ),
                f"servers: {', '.join(c.name.lower() for c in NODE.contenders)}",
            ]
        ),
    )
    parser.add_argument("--cluster", action="store_true", help="the cases of a cluster")
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test")
    parser.add_argument(
        "--only",
        type=lambda names: [name.strip().lower() for name in names.split(",")],
        default=[],
        metavar="NAME,...",
        help="only these cases and these servers",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        help=f"rounds of each comparison (default {_ROUNDS}), or how often what is provoked"
        f" is provoked (default {_REPEATS})",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the figures into this Markdown file"
    )
    arguments = parser.parse_args()
    names = {s.title: {case.name for case in s.cases} for s in sections}
    known = {c.name.lower() for c in NODE.contenders}.union(*names.values())
    unknown = [name for name in arguments.only if name not in known]
    if unknown:
        parser.error(f"--only: no case or server is called {', '.join(unknown)}")
    asked = names[NODE.title].intersection(arguments.only)
    arguments.cluster |= bool(names[CLUSTER.title].intersection(arguments.only))
    if asked and arguments.cluster:
        parser.error(f"--only: {', '.join(sorted(asked))} is of a single node; run it by itself")
    if not 0 <= arguments.rounds <= _ROUNDS_MAX:
        parser.error(f"--rounds: 1 to {_ROUNDS_MAX}")
    return arguments


def _selected(only: Sequence[str], section: plugins.Section) -> tuple[list[Case], list[Contender]]:
    """Return the cases and servers named; all of a sort of which none is named."""
    some_cases = [case for case in section.cases if case.name in only]
    some_contenders = [c for c in section.contenders if c.name.lower() in only]
    return some_cases or list(section.cases), some_contenders or list(section.contenders)


def _remove_leftovers() -> None:
    """Remove directories of runs that were killed; those of live processes stay."""
    if _DIRECTORY.exists():
        for run in sorted(_DIRECTORY.iterdir()):
            if run.name.isdigit() and not Path("/proc", run.name).exists():
                shutil.rmtree(run, ignore_errors=True)


def _progress(clock: Callable[[], float]) -> Callable[[str], None]:
    start = clock()

    def say(line: str) -> None:
        print(f"{clock() - start:6.1f} s  {line}", file=sys.stderr, flush=True)

    return say


def _machine(bench: Bench, cores: Sequence[int]) -> list[str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if bench.is_shared:
        place = f"servers and load together on {len(cores)} of them"
    else:
        place = f"server on core {bench.server_cores[0]}, load on core {bench.load_cores[0]}"
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    rounds = "a smoke test, figures mean little: " if bench.quick else ""
    rounds += f"median of {bench.rounds} rounds of {bench.timing.measure_s:.0f} s"
    return [
        f"machine: {model}, {len(cores)} cores, {memory:.0f} GiB; {place}",
        f"system: {system}, uvloop {metadata.version('uvloop')}",
        f"measured: {time.strftime('%Y-%m-%d')}, {rounds}; value of {len(bench.value)} bytes",
    ]


if __name__ == "__main__":
    sys.exit(main())
