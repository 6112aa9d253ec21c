"""A simulated machine: power, ports, disks and a wall clock; what survives a process.

A process killed on a machine leaves the kernel alive: its page cache, its half-sent segments and
the goodbyes of its sockets. A power cut leaves what reached the platters and nothing else.
"""

from __future__ import annotations

import collections
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ssgovern.sim.disk import DiskImage, PowerCut
from ssgovern.sim.system import Acceptor, Address, os_error
from ssgovern.sim.tcp import Endpoint
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from ssgovern.sim.process import Process
    from ssgovern.sim.world import World

# 2023-11-14 22:13:20 UTC.
_EPOCH_MS: Final = 1_700_000_000_000
_FIRST_EPHEMERAL_PORT: Final = 32768
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_HOSTS: Final = frozenset({"", "0.0.0.0", "::"})


@dataclass(slots=True)
class DiskTiming:
    """How long disk operations take, in virtual seconds: `(least, most)`, drawn evenly."""

    write: tuple[float, float] = (5e-6, 50e-6)
    sync: tuple[float, float] = (0.0002, 0.002)
    # Any operation may be stuck behind something else.
    slow_probability: float = 0.0
    slow: tuple[float, float] = (0.5, 5.0)


class Listener:
    """A bound port. Nothing connects before `backlog` is set, which is what `listen` does."""

    def __init__(self, machine: Machine, port: int, *, loopback_only: bool) -> None:
        self.address: Address = (machine.name, port)
        self.loopback_only = loopback_only
        self.backlog = 0
        self.queue: collections.deque[Endpoint] = collections.deque()
        self.owner: Acceptor | None = None
        self.is_open = True
        self._machine = machine

    def is_full(self) -> bool:
        return len(self.queue) > self.backlog

    def offer(self, endpoint: Endpoint) -> None:
        """A handshake is over: the process may accept, when it comes to it."""
        self.queue.append(endpoint)
        if self.owner is not None:
            self.owner.on_readable()

    def close(self) -> None:
        """Reset what nobody accepted, and free the port."""
        if not self.is_open:
            return
        self.is_open = False
        self.owner = None
        self._machine.listeners.pop(self.address[1], None)
        while self.queue:
            self.queue.popleft().abort()


class Machine:
    """One machine. `World.machine(name)` makes it; its name is its host name."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.powered = True
        self.processes: list[Process] = []
        self.disks: dict[str, DiskImage] = {}
        self.disk_timing = DiskTiming()
        # What a power cut leaves of unsynced writes.
        self.power_cut = PowerCut.PREFIX
        # Kernel objects, in order of creation.
        self.listeners: dict[int, Listener] = {}
        self.endpoints: dict[Endpoint, None] = {}
        self._port = _FIRST_EPHEMERAL_PORT
        self._wall_offset_ms = 0
        # Monotonic clocks begin anywhere, so that comparing those of two machines shows.
        self.clock_origin = world.sched_rng.uniform(1e3, 1e5)

    def __repr__(self) -> str:
        return f"<Machine {self.name} {'on' if self.powered else 'off'}>"

    # Power

    def power_off(self) -> None:
        """Cut the power: every process is gone, and what was not synced is lost."""
        if not self.powered:
            return
        world = self.world
        world.trace.add(world.now, Kind.POWER_OFF, self.number, note=self.name)
        self.powered = False
        for process in self.processes:
            process.drop()
        for endpoint in list(self.endpoints):
            endpoint.vanish()
        self.endpoints.clear()
        self.listeners.clear()
        for path in sorted(self.disks):
            self.disks[path].cut_power(world.disk_rng, self.power_cut)

    def power_on(self) -> None:
        """Boot. The monotonic clock begins anew; processes are not started."""
        if not self.powered:
            self.powered = True
            self.clock_origin = self.world.sched_rng.uniform(1e3, 1e5) - self.world.now

    # Disks and clocks

    def disk(self, path: str) -> DiskImage:
        """Return the disk behind an absolute path, adding an empty one if it is new."""
        image = self.disks.get(path)
        if image is None:
            image = self.disks[path] = DiskImage()
        return image

    def wall_ms(self) -> int:
        return _EPOCH_MS + int(self.world.now * 1000) + self._wall_offset_ms

    def step_wall_clock(self, offset_ms: int) -> None:
        """Turn the wall clock forth or back. Monotonic clocks do not notice."""
        self.world.trace.add(self.world.now, Kind.CLOCK, self.number, offset_ms)
        self._wall_offset_ms += offset_ms

    # Ports

    def next_port(self) -> int:
        """Return a port not used before."""
        self._port += 1
        return self._port

    def bind(self, host: str | None, port: int) -> Listener:
        """Reserve a port, any if it is 0."""
        loopback_only = host in _LOOPBACK_HOSTS
        if host is not None and not loopback_only and host not in (*_ANY_HOSTS, self.name):
            raise os_error(errno.EADDRNOTAVAIL, f"{host!r} is not an address of {self.name}")
        port = port or self.next_port()
        if port in self.listeners:
            raise os_error(errno.EADDRINUSE, f"port {port} of {self.name} is in use")
        listener = self.listeners[port] = Listener(self, port, loopback_only=loopback_only)
        return listener

    def listener(self, port: int, *, loopback: bool) -> Listener | None:
        """Return what listens on a port, for a caller on this machine or another one."""
        listener = self.listeners.get(port)
        if listener is None or not listener.backlog or (listener.loopback_only and not loopback):
            return None
        return listener
