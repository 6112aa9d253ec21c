"""Who was busy: CPU seconds of processes, of cores, and the time a disk had work.

A throughput says nothing about a server unless it was the server that had no more to give.
Read before and after an interval, `shares` tells who was at the limit: the server's core,
the disk, or the load generator (then the figure is the generator's, not the server's).

Linux only (/proc, /sys). Process times have the kernel's tick as resolution (10 ms), so
intervals of less than a second mean little.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Seconds since boot that one core spent working, idle, and idle with I/O outstanding."""

    busy_s: float
    idle_s: float
    waiting_s: float


@dataclass(frozen=True, slots=True)
class DiskTimes:
    """Since boot: seconds with a request in flight, and cache flushes (what a sync ends in)."""

    busy_s: float
    flushes: int


@dataclass(frozen=True, slots=True)
class Reading:
    at_s: float
    server_s: float
    load_s: float
    server_core: CoreTimes
    load_core: CoreTimes
    disk: DiskTimes | None


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of an interval, 0 to 1, and disk flushes per second.

    `server` and `load` are of one core, however many the processes used. A core's own share
    holds the kernel's work for it too, and whatever strangers ran there; that of several cores
    is their mean.
    """

    seconds: float
    server: float
    load: float
    server_core: float
    server_core_waiting: float
    load_core: float
    disk: float | None
    flushes: float | None


def process_cpu_s(pid: int) -> float:
    """Return the user and system seconds of a process, all its threads, finished ones too."""
    text = Path(f"/proc/{pid}/stat").read_text()
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def core_times(core: int) -> CoreTimes:
    """Return the times of one core; interrupts and stolen time count as busy."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *numbers = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, waiting, irq, softirq, steal = map(int, numbers[:8])
            busy = user + nice + system + irq + softirq + steal
            return CoreTimes(busy / _TICKS_PER_S, idle / _TICKS_PER_S, waiting / _TICKS_PER_S)
    raise LookupError(f"/proc/stat has no core {core}")


def _sum(times: Iterable[CoreTimes]) -> CoreTimes:
    every = list(times)
    return CoreTimes(
        sum(each.busy_s for each in every),
        sum(each.idle_s for each in every),
        sum(each.waiting_s for each in every),
    )


def disk_times(directory: Path) -> DiskTimes | None:
    """Return what the directory's disk did since boot; None if it has no counters.

    A file system without a block device of its own (overlay, tmpfs) has none.
    """
    device = directory.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    try:
        counters = path.read_text().split()
    except FileNotFoundError:
        return None
    # Flushes are counted since Linux 5.5.
    return DiskTimes(int(counters[9]) / 1000, int(counters[15]) if len(counters) > 15 else 0)


class Observer:
    """Reads all the clocks that concern servers under load, at one moment.

    Servers and load may share cores; several cores are read as one.
    """

    def __init__(
        self,
        *,
        server_pids: Sequence[int],
        server_cores: Sequence[int],
        load_cores: Sequence[int],
        directory: Path,
    ) -> None:
        self._server_pids = server_pids
        self._server_cores = server_cores
        self._load_cores = load_cores
        self._directory = directory

    def read(self) -> Reading:
        return Reading(
            at_s=asyncio.get_running_loop().time(),
            server_s=sum(process_cpu_s(pid) for pid in self._server_pids),
            load_s=process_cpu_s(os.getpid()),
            server_core=_sum(core_times(core) for core in self._server_cores),
            load_core=_sum(core_times(core) for core in self._load_cores),
            disk=disk_times(self._directory),
        )


def shares(before: Reading, after: Reading) -> Shares:
    """Return what each took of the interval between two readings."""
    seconds = after.at_s - before.at_s
    server_core, waiting = _core_shares(before.server_core, after.server_core)
    load_core, _ = _core_shares(before.load_core, after.load_core)
    disk = flushes = None
    if before.disk is not None and after.disk is not None:
        disk = min(1.0, (after.disk.busy_s - before.disk.busy_s) / seconds)
        flushes = (after.disk.flushes - before.disk.flushes) / seconds
    return Shares(
        seconds=seconds,
        server=(after.server_s - before.server_s) / seconds,
        load=(after.load_s - before.load_s) / seconds,
        server_core=server_core,
        server_core_waiting=waiting,
        load_core=load_core,
        disk=disk,
        flushes=flushes,
    )


def _core_shares(before: CoreTimes, after: CoreTimes) -> tuple[float, float]:
    busy = after.busy_s - before.busy_s
    idle = after.idle_s - before.idle_s
    waiting = after.waiting_s - before.waiting_s
    total = busy + idle + waiting
    # A tickless idle core may report nothing at all over a short interval.
    return (busy / total, waiting / total) if total > 0 else (0.0, 0.0)
