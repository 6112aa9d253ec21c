"""What goes wrong, and when: faults drawn from the seed, each with its own end.

Nothing it starts outlasts `heal`: a fault that is due after it does nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from ssgovern.sim.checkers import Checker
from ssgovern.sim.disk import UNLIMITED, PowerCut
from ssgovern.sim.observed import FAILPOINTS
from ssgovern.sim.process import Process
from ssgovern.sim.scenario import Scenario
from ssgovern.sim.world import World

# A disk that was full or stuck may answer for what it was given then this much later.
_DISK_MEMORY_S: Final = 8.0
_SLOW_DISK_S: Final = 6.0


class Nemesis:
    """Brings faults over one node and its clients until it is told to heal."""

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        checker: Checker,
        node: Process,
        clients: list[Process],
    ) -> None:
        self._world = world
        self._scenario = scenario
        self._checker = checker
        self._node = node
        self._clients = clients
        self._rng: random.Random = world.fault_rng
        self._healed = False
        self.counts: dict[str, int] = {}

    def start(self) -> None:
        self._world.after(self._rng.uniform(0.5, 2.0), self._strike)

    def _strike(self) -> None:
        if self._healed:
            return
        fault = self._rng.choice(self._scenario.faults)
        self.counts[fault] = self.counts.get(fault, 0) + 1
        self._world.note(fault)
        strike: Callable[[], None] = getattr(self, f"_{fault}")
        strike()
        self._world.after(self._rng.expovariate(1.0 / self._scenario.gap_s), self._strike)

    def _later(self, least_s: float, most_s: float, act: Callable[[], None]) -> None:
        """Do something after a while, unless all has been healed by then."""
        self._world.after(self._rng.uniform(least_s, most_s), self._unless_healed, act)

    def _unless_healed(self, act: Callable[[], None]) -> None:
        if not self._healed:
            act()

    # --- the node --------------------------------------------------------------------------

    def restart_node(self) -> None:
        if not self._node.alive:
            self._checker.on_started()
            self._node.start()

    def node_died(self) -> None:
        """The node is dead, whoever did it: it comes back after a while."""
        self._checker.on_down()
        self._world.after(0.5 if self._healed else self._rng.uniform(0.05, 3.0), self.restart_node)

    def _kill(self) -> None:
        if self._node.alive:
            self._node.kill()
            self.node_died()

    def _power(self) -> None:
        if self._node.machine.powered:
            self._node.machine.power_cut = self._draw_power_cut()
            self._checker.lost_cache = True
            self._node.kill(power=True)
            self.node_died()

    def _draw_power_cut(self) -> PowerCut:
        if self._rng.random() < 0.7:
            return self._scenario.power_cut
        return self._rng.choice(list(PowerCut))

    def _stop(self) -> None:
        self._node.terminate()

    def _failpoint(self) -> None:
        name = self._rng.choice(FAILPOINTS)
        self._arm(name, self._rng.choice([0, 0, 3, 20, 100]))

    def _arm(self, name: str, skip: int) -> None:
        """Let the node die at a named place, when it has passed it so often."""
        power = self._rng.random() < 0.6
        power_cut = self._draw_power_cut()
        left = skip

        def die(process: Process, reached: str) -> None:
            nonlocal left
            if process is not self._node or not process.alive:
                return
            if left > 0:
                left -= 1
                return
            del self._world.failpoints[reached]
            self._world.note(f"dies at {reached}")
            process.machine.power_cut = power_cut
            self._checker.lost_cache |= power
            self.node_died()
            process.crash(power=power)

        self._world.failpoints[name] = die

    def _recovery_crash(self) -> None:
        """Die now, and again while coming back."""
        self._power() if self._rng.random() < 0.5 else self._kill()
        disk_points = [name for name in FAILPOINTS if name.startswith("disk.")]
        self._arm(self._rng.choice(disk_points), self._rng.choice([0, 0, 1, 2, 5]))

    def _pause_node(self) -> None:
        self._checker.slack_s += 10.0
        if self._node.alive and not self._node.paused:
            self._node.pause()
            self._checker.judge.on_paused()
            self._later(0.2, self._rng.choice([1.0, 8.0]), self._resume_node)

    def _resume_node(self) -> None:
        if self._node.paused:
            self._checker.judge.on_resumed()
            self._node.resume()

    def _slow_node(self) -> None:
        self._node.slowness = self._rng.choice([1.0, 20.0, 200.0])

    def _clock_step(self) -> None:
        self._node.machine.step_wall_clock(self._rng.randint(-3_600_000, 3_600_000))

    # --- its disks -------------------------------------------------------------------------

    def _sync_error(self) -> None:
        disks = self._node.machine.disks
        if disks:
            path = self._rng.choice(sorted(disks))
            disks[path].fail_syncs = 1
            self._checker.lost_cache = True
            self._checker.disk_failed = True
            if self._rng.random() < 0.5:
                self._later(0.1, 3.0, self._evict)

    def _evict(self) -> None:
        """The kernel drops clean pages while nobody runs, as it may."""
        if not self._node.alive:
            for path in sorted(self._node.machine.disks):
                self._node.machine.disks[path].evict_clean_pages()

    def _disk_full(self) -> None:
        disks = self._node.machine.disks
        if not disks:
            return
        paths = sorted(disks) if self._rng.random() < 0.6 else [self._rng.choice(sorted(disks))]
        for path in paths:
            disks[path].capacity_bytes = disks[path].used_bytes + self._rng.randrange(600)
        self._checker.disk_failed = True
        self._checker.writes_may_fail = True
        self._later(0.5, 6.0, self._free_disks)

    def _free_disks(self) -> None:
        for disk in self._node.machine.disks.values():
            disk.capacity_bytes = UNLIMITED

    def _slow_disk(self) -> None:
        timing = self._node.machine.disk_timing
        self._checker.slack_s += 4 * _SLOW_DISK_S
        timing.slow = (0.2, self._rng.choice([1.0, 5.0]))
        timing.slow_probability = self._rng.choice([0.01, 0.1])
        self._later(1.0, 6.0, self._unslow_disk)

    def _unslow_disk(self) -> None:
        self._node.machine.disk_timing.slow_probability = 0.0

    # --- the network -----------------------------------------------------------------------

    def _some_client(self) -> Process:
        return self._rng.choice(self._clients)

    def _cut_between(self, name: str, *, both: bool) -> None:
        here = self._node.machine.name
        ends = (here, name) if self._rng.random() < 0.5 else (name, here)
        self._world.network.cut(*ends, both=both)
        self._later(
            0.3,
            self._rng.choice([2.0, 8.0, 30.0]),
            lambda: self._world.network.restore(*ends, both=both),
        )

    def _cut(self) -> None:
        self._cut_between(self._some_client().machine.name, both=True)

    def _cut_one_way(self) -> None:
        self._cut_between(self._some_client().machine.name, both=False)

    def _cut_all(self) -> None:
        self._world.network.isolate(self._node.machine.name)
        self._later(0.3, self._rng.choice([2.0, 8.0]), self._world.network.heal)

    def _reset(self) -> None:
        for client in self._clients:
            if self._rng.random() < 0.5:
                self._world.network.reset_connections(self._node.machine.name, client.machine.name)

    def _network(self) -> None:
        self._world.network.set_link(
            self._node.machine.name,
            self._some_client().machine.name,
            latency=self._rng.choice([0.0005, 0.02, 0.2]),
            loss=self._rng.choice([0.0, 0.02, 0.2]),
            jitter=self._rng.choice([0.0, 0.05]),
            bytes_per_second=self._rng.choice([125e6, 20e3]),
        )

    # --- clients ---------------------------------------------------------------------------

    def _client_kill(self) -> None:
        self._kill_client(self._some_client())

    def _mass_kill(self) -> None:
        share = self._rng.choice([0.5, 1.0])
        for client in self._clients:
            if self._rng.random() < share:
                self._kill_client(client)

    def _kill_client(self, client: Process) -> None:
        if not client.alive:
            return
        # Without power nobody says goodbye for the dead: the node has to notice by itself.
        client.kill(power=self._rng.random() < 0.5)
        self._later(0.1, self._rng.choice([1.0, 10.0]), lambda: start(client))

    def _client_stop(self) -> None:
        """A client ends in good order, and says goodbye if it can."""
        client = self._some_client()
        client.terminate()
        self._later(1.5, 10.0, lambda: start(client))

    def _pause_client(self) -> None:
        client = self._some_client()
        client.pause()
        self._later(0.2, self._rng.choice([1.0, 10.0]), client.resume)

    # --- the end ---------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault and bring the node back; dead clients stay dead."""
        self._healed = True
        world, node = self._world, self._node
        world.note("heal")
        world.failpoints.clear()
        world.network.heal()
        for client in self._clients:
            world.network.set_link(
                node.machine.name,
                client.machine.name,
                latency=0.0005,
                jitter=0.0005,
                loss=0.0,
                bytes_per_second=125e6,
            )
            client.resume()
        for disk in node.machine.disks.values():
            disk.capacity_bytes = UNLIMITED
            disk.fail_syncs = 0
        node.machine.disk_timing.slow_probability = 0.0
        node.machine.disk_timing.sync = (0.0002, 0.002)
        node.slowness = 1.0
        self._resume_node()
        self.restart_node()
        world.after(_DISK_MEMORY_S, self._forget_disk)

    def _forget_disk(self) -> None:
        self._checker.writes_may_fail = False
        self._checker.disk_failed = False


def start(process: Process) -> None:
    """Start a process that may have been started meanwhile."""
    if not process.alive:
        process.start()
