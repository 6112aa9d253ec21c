"""What goes wrong among candidates, drawn from the seed; nothing of it outlasts `heal`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ssgovern.model import NodeId
from ssgovern.sim.disk import UNLIMITED
from ssgovern.sim.process import Process

if TYPE_CHECKING:
    from ssgovern.sim.candidates import Request, Run

FAULTS: Final = (
    "kill",
    "power",
    "pause",
    "cut",
    "cut_one_way",
    "isolate_leader",
    "network",
    "disk_full",
    "slow_disk",
    "sync_error",
    "failpoint",
    "transfer",
    "members",
)


class Nemesis:
    """Brings faults over the candidates of one run; each run knows some of them."""

    def __init__(self, run: Run, rng: random.Random) -> None:
        self._run = run
        self._world = run.world
        self._rng = rng
        self._faults = sorted(rng.sample(FAULTS, rng.randint(2, 7)), key=FAULTS.index)
        self._gap_s = rng.choice((0.5, 1.5, 3.0))
        self._healed = False
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        self._world.after(self._rng.uniform(0.2, 1.0), self._strike)

    def _strike(self) -> None:
        if self._healed:
            return
        fault = self._rng.choice(self._faults)
        self.counts[fault] += 1
        self._world.note(fault)
        strike: Callable[[Process], None] = getattr(self, f"_{fault}")
        strike(self._victim())
        self._world.after(self._rng.expovariate(1.0 / self._gap_s), self._strike)

    def _victim(self) -> Process:
        leader = self._run.leader() if self._rng.random() < 0.4 else None
        node = self._rng.choice(self._run.nodes) if leader is None else leader.id
        return self._run.processes[node]

    def _later(self, most_s: float, act: Callable[[], object]) -> None:
        self._world.after(self._rng.uniform(0.1, most_s), act)

    def _restart(self, process: Process) -> None:
        if not process.alive:
            process.start()

    def _kill(self, process: Process) -> None:
        process.kill()
        self._later(self._rng.choice((0.2, 4.0)), lambda: self._restart(process))

    def _power(self, process: Process) -> None:
        victims = [process]
        if self._rng.random() < 0.2:
            victims = list(self._run.processes.values())
        for victim in victims:
            victim.kill(power=True)
            self._later(self._rng.choice((0.2, 4.0)), partial(self._restart, victim))

    def _pause(self, process: Process) -> None:
        process.pause()
        self._later(self._rng.choice((0.5, 5.0)), process.resume)

    def _cut(self, process: Process) -> None:
        self._partition(
            self._rng.sample(self._run.nodes, self._rng.randint(1, len(self._run.nodes) // 2))
        )

    def _isolate_leader(self, process: Process) -> None:
        leader = self._run.leader()
        if leader is not None:
            self._partition([leader.id])

    def _partition(self, here: Sequence[NodeId]) -> None:
        there = [f"n{node}" for node in self._run.nodes if node not in here]
        self._world.network.partition([f"n{node}" for node in here], there)
        self._later(self._rng.choice((1.0, 6.0)), self._world.network.heal)

    def _cut_one_way(self, process: Process) -> None:
        one, other = self._rng.sample(self._run.nodes, 2)
        self._world.network.cut(f"n{one}", f"n{other}", both=False)
        self._later(4.0, self._world.network.heal)

    def _network(self, process: Process) -> None:
        one, other = self._rng.sample(self._run.nodes, 2)
        self._world.network.set_link(
            f"n{one}",
            f"n{other}",
            latency=self._rng.choice((0.0005, 0.05)),
            loss=self._rng.choice((0.0, 0.05)),
        )

    def _disk_full(self, process: Process) -> None:
        disks = process.machine.disks.values()
        for disk in disks:
            disk.capacity_bytes = disk.used_bytes + self._rng.randrange(600)
        self._later(4.0, lambda: self._free(process))

    def _free(self, process: Process) -> None:
        for disk in process.machine.disks.values():
            disk.capacity_bytes = UNLIMITED
        self._restart_if_stopped(process)

    def _restart_if_stopped(self, process: Process) -> None:
        if not process.alive:
            self._later(1.0, lambda: self._restart(process))

    def _slow_disk(self, process: Process) -> None:
        timing = process.machine.disk_timing
        timing.slow_probability, timing.slow = 0.1, (0.1, 1.5)
        self._later(4.0, lambda: setattr(timing, "slow_probability", 0.0))

    def _sync_error(self, process: Process) -> None:
        disks = process.machine.disks
        if disks:
            disks[self._rng.choice(sorted(disks))].fail_syncs = 1
            self._later(3.0, lambda: self._restart_if_stopped(process))

    def _failpoint(self, process: Process) -> None:
        name = self._rng.choice(("raft.before_write", "raft.after_write", "raft.before_snapshot"))
        power = self._rng.random() < 0.5

        def die(victim: Process, name: str) -> None:
            if victim is process:
                self._world.failpoints.pop(name, None)
                self._later(2.0, lambda: self._restart(process))
                victim.crash(power=power)

        self._world.failpoints[name] = die

    def _transfer(self, process: Process) -> None:
        """Whoever leads is asked to hand over; it does so in its own time."""
        self._ask_leader(lambda driver: driver.transfer(self._rng.choice(self._run.nodes)))

    def _members(self, process: Process) -> None:
        """A voter goes, or one that is gone comes back: as a listener first."""
        leader = self._run.leader()
        if leader is None:
            return
        voters, learners = list(leader.candidates), list(leader.learners)
        gone = [node for node in self._run.nodes if node not in voters and node not in learners]
        if learners:
            voters += learners
            learners = []
        elif gone:
            learners = gone[:1]
        else:
            voters.remove(self._rng.choice(voters))
        self._ask_leader(lambda driver: driver.change_members(voters, learners))

    def _ask_leader(self, request: Request) -> None:
        for life in self._run.lives.values():
            if life.driver is not None and life.driver.is_leader:
                life.asked.append(request)

    def heal(self) -> None:
        self._healed = True
        world = self._world
        world.note("heal")
        world.failpoints.clear()
        world.network.heal()
        for one in self._run.nodes:
            for other in self._run.nodes:
                if one != other:
                    world.network.set_link(
                        f"n{one}", f"n{other}", latency=0.0005, jitter=0.0005, loss=0.0
                    )
        for process in self._run.processes.values():
            for disk in process.machine.disks.values():
                disk.capacity_bytes, disk.fail_syncs = UNLIMITED, 0
            process.machine.disk_timing.slow_probability = 0.0
            process.resume()
            self._restart(process)
