"""What a simulated process is given besides its loop: `ssgovern.runtime.Runtime`, from the seed.

Every life of a process draws from streams of its own, named by seed, process and incarnation, so
that one process drawing more or less changes no other.
"""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

from ssgovern.runtime import Disk
from ssgovern.sim.disk import SimDisk
from ssgovern.sim.system import os_error
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from asyncio import Future

    from ssgovern.sim.loop import SimLoop
    from ssgovern.sim.machine import Machine
    from ssgovern.sim.process import Process


class SimRuntime:
    """The runtime of one incarnation."""

    def __init__(self, process: Process, loop: SimLoop) -> None:
        life = f"{process.world.seed}/{process.name}/{process.incarnation}"
        self.process = process
        self.rng = random.Random(life)
        self._bytes_rng = random.Random(f"{life}/bytes")
        self._loop = loop

    def wall_ms(self) -> int:
        return self.process.machine.wall_ms()

    def random_bytes(self, count: int) -> bytes:
        return self._bytes_rng.randbytes(count)

    def open_disk(self, path: str) -> Disk:
        """Open a directory of the machine; a relative path lies under the process's name."""
        if not path.startswith("/"):
            path = f"/{self.process.name}/{path}"
        return _ProcessDisk(self._loop, self.process.machine, path)

    def failpoint(self, name: str) -> None:
        failpoints = self.process.world.failpoints
        if failpoints and name in failpoints:
            failpoints[name](self.process, name)


class _ProcessDisk(SimDisk):
    """A disk in the hands of one incarnation: its operations queue up, and end with it."""

    def __init__(self, loop: SimLoop, machine: Machine, path: str) -> None:
        super().__init__(machine.disk(path), self._take_time)
        self._loop = loop
        self._machine = machine
        self._free_at = 0.0

    def _check_open(self) -> None:
        if self._loop.is_closed():
            # The process is dead, and what it still does in leaving its callback has no effect.
            raise os_error(errno.EBADF)
        super()._check_open()

    async def _take_time(self, operation: str) -> None:
        machine, loop = self._machine, self._loop
        world, timing = machine.world, machine.disk_timing
        rng = world.disk_rng
        seconds = rng.uniform(*(timing.sync if operation.startswith("sync") else timing.write))
        if timing.slow_probability and rng.random() < timing.slow_probability:
            seconds += rng.uniform(*timing.slow)
        # Operations end in the order in which they began.
        self._free_at = max(self._free_at, world.now + seconds)
        ended: Future[None] = loop.create_future()
        world.at(self._free_at, _end_operation, ended)
        await ended
        world.trace.add(world.now, Kind.DISK, machine.number)


def _end_operation(ended: Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
