"""What one durable append costs on this disk: the baseline of every latency here.

An append that makes the file longer also makes the file system commit the new size; one
into space that was written before does not. Both are measured, because a log may choose.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

APPEND_BYTES = 256


@dataclass(frozen=True, slots=True)
class SyncCost:
    """Seconds for one write and its `fdatasync`."""

    samples: int
    p50_s: float
    p99_s: float


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of an already sorted list; it must not be empty."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(
    directory: Path,
    *,
    growing: bool = True,
    samples_max: int = 2000,
    seconds_max: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> SyncCost:
    """Append 256 bytes and fdatasync, one after the other; blocks the caller meanwhile."""
    record = bytes(range(256))[:APPEND_BYTES]
    path = directory / "fsync.probe"
    file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        if not growing:
            # Written, not merely allocated: unwritten extents need a commit as well.
            os.write(file, bytes(APPEND_BYTES * samples_max))
            os.fsync(file)
            os.lseek(file, 0, os.SEEK_SET)
        seconds: list[float] = []
        end = clock() + seconds_max
        while len(seconds) < samples_max:
            start = clock()
            os.write(file, record)
            os.fdatasync(file)
            done = clock()
            seconds.append(done - start)
            if done > end:
                break
    finally:
        os.close(file)
        path.unlink()
    seconds.sort()
    return SyncCost(len(seconds), percentile(seconds, 0.50), percentile(seconds, 0.99))
