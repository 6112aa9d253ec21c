"""What goes wrong in a cluster, and when: faults drawn from the seed, each with its own end.

Nothing it starts outlasts `heal`: a fault that is due after it does nothing. Liveness mode has
one fault instead, which never ends (`begin_lasting`).

Knows processes, machines and the network. Who is primary and who is controller it is told, so
that faults can be aimed; commands of operators are a client's doing (`cluster_admin`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.cluster_scenario import MUTE_FOR_EVER, PORT, ClusterScenario
from ssgovern.sim.cluster_stand_ins import StandIns
from ssgovern.sim.disk import UNLIMITED, PowerCut
from ssgovern.sim.nemesis import start
from ssgovern.sim.observed import FAILPOINTS
from ssgovern.sim.process import Process
from ssgovern.sim.world import World

# A disk that was full or stuck may answer for what it was given then this much later.
_DISK_MEMORY_S: Final = 8.0

Aim = Callable[[], Process | None]
"""Returns who is what a fault is aimed at now; None: nobody."""


class ClusterNemesis:
    """Brings faults over nodes, clients and the wires between them until it is told to heal."""

    def __init__(
        self,
        world: World,
        scenario: ClusterScenario,
        checker: ClusterChecker,
        watches: Sequence[NodeWatch],
        clients: Sequence[Process],
        *,
        primary: Aim,
        controller: Aim,
        command: Callable[[str], None],
        has_left: Callable[[Process], bool] = lambda _: False,
    ) -> None:
        self._world = world
        self._scenario = scenario
        self._checker = checker
        self._watches = list(watches)
        self._nodes = [watch.process for watch in watches]
        self._clients = list(clients)
        self._primary = primary
        self._controller = controller
        self._command = command
        self._has_left = has_left
        # Made only where there are any: processes are numbered, and digests know the numbers.
        needed = {"mute", "wrong_disk"}.intersection(scenario.faults)
        is_needed = bool(needed) or scenario.lasting == MUTE_FOR_EVER or scenario.is_played
        self.stand_ins = StandIns(world, self._nodes if is_needed else (), PORT)
        self._rng: random.Random = world.fault_rng
        self._healed = False
        self._absent: dict[str, None] = {}
        """Nodes that are not to be started (yet)."""
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin, once the cluster had time to be founded."""
        scenario = self._scenario
        if scenario.lasting:
            self._world.after(scenario.calm_s, self.begin_lasting)
        else:
            self._world.after(scenario.calm_s, self._strike)

    def _strike(self) -> None:
        if self._healed or not self._scenario.faults:
            return
        fault = self._rng.choice(self._scenario.faults)
        self.counts[fault] += 1
        self._world.note(fault)
        strike: Callable[[], None] = getattr(self, f"_{fault}", lambda: self._command(fault))
        strike()
        self._world.after(self._rng.expovariate(1.0 / self._scenario.gap_s), self._strike)

    def _later(self, least_s: float, most_s: float, act: Callable[[], None]) -> None:
        """Do something after a while, unless all has been healed by then."""
        self._world.after(self._rng.uniform(least_s, most_s), self._unless_healed, act)

    def _unless_healed(self, act: Callable[[], None]) -> None:
        if not self._healed:
            act()

    # --- nodes -------------------------------------------------------------------------------

    def _watch(self, node: Process) -> NodeWatch:
        return self._watches[self._nodes.index(node)]

    def _some_node(self) -> Process:
        return self._rng.choice(self._nodes)

    def start_node(self, node: Process) -> None:
        """Start a node that is down, unless it is to stay away or has left the cluster."""
        if not (node.alive or node.name in self._absent or self._has_left(node)):
            self.stand_ins.end_mute(node)
            self._watch(node).on_started()
            node.start()

    def node_died(self, node: Process) -> None:
        """A node is dead, whoever did it: it comes back after a while."""
        self._watch(node).on_down()
        away_s = self._rng.choice([0.5, 4.0, 12.0])
        delay_s = 0.5 if self._healed else self._rng.uniform(0.05, away_s)
        self._world.after(delay_s, self.start_node, node)

    def _kill(self) -> None:
        self._kill_node(self._some_node())

    def _kill_primary(self) -> None:
        self._kill_node(self._primary())

    def _kill_controller(self) -> None:
        self._kill_node(self._controller())

    def _kill_node(self, node: Process | None) -> None:
        if node is not None and node.alive:
            node.kill()
            self.node_died(node)

    def _power(self) -> None:
        self._cut_power(self._some_node())

    def _power_some(self) -> None:
        for node in self._rng.sample(self._nodes, self._rng.randint(1, len(self._nodes))):
            self._cut_power(node)

    def _power_all(self) -> None:
        for node in self._nodes:
            self._cut_power(node)

    def _cut_power(self, node: Process) -> None:
        if node.machine.powered and node.alive:
            node.machine.power_cut = self._draw_power_cut()
            node.kill(power=True)
            self.node_died(node)

    def _draw_power_cut(self) -> PowerCut:
        if self._rng.random() < 0.7:
            return self._scenario.power_cut
        return self._rng.choice(list(PowerCut))

    def _stop(self) -> None:
        self._some_node().terminate()

    def _failpoint(self) -> None:
        self._arm(
            self._some_node(), self._rng.choice(FAILPOINTS), self._rng.choice([0, 0, 3, 20, 100])
        )

    def _arm(self, node: Process, name: str, skip: int) -> None:
        """Let a node die at a named place, when it has passed it so often."""
        power = self._rng.random() < 0.6
        power_cut = self._draw_power_cut()
        left = skip

        def die(process: Process, reached: str) -> None:
            nonlocal left
            if process is not node or not process.alive:
                return
            if left > 0:
                left -= 1
                return
            del self._world.failpoints[reached]
            self._world.note(f"{node.name} dies at {reached}")
            process.machine.power_cut = power_cut
            self.node_died(node)
            process.crash(power=power)

        self._world.failpoints[name] = die

    def _recovery_crash(self) -> None:
        """Die now, and again while coming back."""
        node = self._some_node()
        self._cut_power(node) if self._rng.random() < 0.5 else self._kill_node(node)
        disk_points = [name for name in FAILPOINTS if name.startswith("disk.")]
        self._arm(node, self._rng.choice(disk_points), self._rng.choice([0, 0, 1, 2, 5]))

    def _pause(self) -> None:
        self._pause_node(self._some_node(), self._rng.choice([0.4, 1.5, 5.0]))

    def _pause_long(self) -> None:
        """Longer than any lease: who wakes up is somebody of the past."""
        aims = [self._primary(), self._controller(), self._some_node()]
        self._pause_node(self._rng.choice(aims), self._rng.choice([7.0, 20.0]))

    def _pause_node(self, node: Process | None, most_s: float) -> None:
        if node is not None and node.alive and not node.paused:
            node.pause()
            self._watch(node).judge.on_paused()
            self._later(0.2, most_s, lambda: self._resume_node(node))

    def _resume_node(self, node: Process) -> None:
        if node.paused:
            self._watch(node).judge.on_resumed()
            node.resume()

    def _slow_node(self) -> None:
        node = self._some_node()
        node.slowness = self._rng.choice([1.0, 20.0, 100.0])
        self._later(1.0, 8.0, lambda: setattr(node, "slowness", 1.0))

    def _clock_step(self) -> None:
        self._some_node().machine.step_wall_clock(self._rng.randint(-3_600_000, 3_600_000))

    def _mute(self) -> None:
        """Somebody takes a dead node's connections, and says nothing, until it is back."""
        node = self._rng.choice([self._controller(), self._some_node()])
        if node is not None and node.alive:
            self._kill_node(node)
            self.stand_ins.begin_mute(node)

    # --- disks -------------------------------------------------------------------------------

    def _wrong_disk(self) -> None:
        """A node comes back with nothing under its old id, and later with its own disk."""
        node = self._some_node()
        # Who alone decides and has forgotten all founds another cluster: nobody can know better.
        is_alone = self._scenario.topology.candidates == 1 and node is self._nodes[0]
        if is_alone or any(self.stand_ins.has_wrong_disk(each) for each in self._nodes):
            return
        if node.alive:
            self._kill_node(node)
        self.stand_ins.mount_wrong_disk(node)
        self._watch(node).wrong_disk = True
        self._later(4.0, 15.0, lambda: self._right_disk(node))

    def _right_disk(self, node: Process) -> None:
        if self.stand_ins.has_wrong_disk(node):
            self._kill_node(node)
            self.stand_ins.mount_right_disk(node)
            self._watch(node).wrong_disk = False

    def _sync_error(self) -> None:
        node = self._some_node()
        disks = node.machine.disks
        if disks:
            disks[self._rng.choice(sorted(disks))].fail_syncs = 1
            self._watch(node).disk_failed = True
            if self._rng.random() < 0.5:
                self._later(0.1, 3.0, lambda: _evict(node))

    def _disk_full(self) -> None:
        node = self._some_node()
        disks = node.machine.disks
        if not disks:
            return
        paths = sorted(disks) if self._rng.random() < 0.6 else [self._rng.choice(sorted(disks))]
        for path in paths:
            disks[path].capacity_bytes = disks[path].used_bytes + self._rng.randrange(600)
        self._watch(node).disk_failed = True
        self._later(0.5, self._rng.choice([3.0, 10.0]), lambda: _free_disks(node))

    def _slow_disk(self) -> None:
        node = self._some_node()
        timing = node.machine.disk_timing
        timing.slow = (0.2, self._rng.choice([1.0, 5.0]))
        timing.slow_probability = self._rng.choice([0.01, 0.1])
        self._later(1.0, 8.0, lambda: setattr(timing, "slow_probability", 0.0))

    # --- the network -------------------------------------------------------------------------

    def _duration_s(self) -> float:
        return self._rng.choice([1.0, 4.0, 8.0, 15.0])

    def _isolate(self) -> None:
        self._isolate_node(self._some_node())

    def _isolate_primary(self) -> None:
        self._isolate_node(self._primary())

    def _isolate_node(self, node: Process | None) -> None:
        """Cut a node off: from the other nodes, and perhaps from clients as well."""
        if node is None:
            return
        others = [other for other in self._nodes if other is not node]
        if self._rng.random() < 0.5:
            others += self._clients
        self._cut_pairs([(node, other) for other in others])

    def _split(self) -> None:
        """Two sides that do not hear each other; clients are on either."""
        members = [*self._nodes, *self._clients]
        left = [member for member in members if self._rng.random() < 0.5]
        right = [member for member in members if member not in left]
        self._cut_pairs([(a, b) for a in left for b in right])

    def _ring(self) -> None:
        """Every node hears its two neighbours only."""
        nodes, count = self._shuffled_nodes(), len(self._nodes)
        self._cut_pairs(
            [
                (nodes[i], nodes[j])
                for i in range(count)
                for j in range(i + 1, count)
                if (j - i) % count not in (1, count - 1) or (count == 3 and (i, j) == (0, 2))
            ]
        )

    def _bridge(self) -> None:
        """Two halves that only one node hears both of."""
        bridge, *others = self._shuffled_nodes()
        half = len(others) // 2
        del bridge
        self._cut_pairs([(a, b) for a in others[:half] for b in others[half:]])

    def _one_way(self) -> None:
        """What one node says does not reach another, or does not reach any."""
        node = self._rng.choice([self._some_node(), self._controller() or self._some_node()])
        others = [other for other in self._nodes if other is not node]
        if others and self._rng.random() < 0.6:
            others = [self._rng.choice(others)]
        pairs = [(node, other) for other in others]
        if self._rng.random() < 0.5:
            pairs = [(b, a) for a, b in pairs]
        self._cut_pairs(pairs, both=False)

    def _swizzle(self) -> None:
        """Nodes are cut off one after the other and come back in another order."""
        chosen = self._rng.sample(self._nodes, self._rng.randint(1, len(self._nodes)))
        for index, node in enumerate(chosen):
            others = [other for other in self._nodes if other is not node]
            pairs = [(node, other) for other in others]
            self._later(0.4 * index, 0.4 * index + 0.4, partial(self._cut, pairs, both=True))
        for index, node in enumerate(self._rng.sample(chosen, len(chosen))):
            others = [other for other in self._nodes if other is not node]
            pairs = [(node, other) for other in others]
            least_s = 0.4 * len(chosen) + 1.0 * index
            self._later(least_s, least_s + 2.0, partial(self._restore, pairs, both=True))

    def _cut_client(self) -> None:
        client = self._rng.choice(self._clients)
        nodes = [node for node in self._nodes if self._rng.random() < 0.6]
        self._cut_pairs([(client, node) for node in nodes], both=self._rng.random() < 0.7)

    def _reset(self) -> None:
        members = [*self._nodes, *self._clients]
        for index, left in enumerate(members):
            for right in members[index + 1 :]:
                if self._rng.random() < 0.3:
                    self._world.network.reset_connections(left.machine.name, right.machine.name)

    def _late(self) -> None:
        """What somebody says arrives long after it has come back by another connection."""
        source = self._rng.choice([*self._nodes, *self._nodes, *self._clients])
        delay_s = self._rng.choice([3.0, 6.0, 12.0])
        for node in self._nodes:
            if node is not source and self._rng.random() < 0.7:
                self._world.network.delay_connections(
                    source.machine.name, node.machine.name, delay_s
                )
        if source in self._nodes:
            after_s = self._rng.uniform(0.0, 0.5)
            self._later(after_s, after_s, lambda: self._cut_power(source))

    def _lossy(self) -> None:
        left, right = self._some_node(), self._rng.choice([*self._nodes, *self._clients])
        if left is not right:
            self._world.network.set_link(
                left.machine.name,
                right.machine.name,
                latency=self._rng.choice([0.0005, 0.02, 0.2]),
                loss=self._rng.choice([0.0, 0.02, 0.2]),
                jitter=self._rng.choice([0.0, 0.05]),
                bytes_per_second=self._rng.choice([125e6, 200e3]),
            )
            self._later(2.0, 10.0, lambda: self._clear_link(left, right))

    def _shuffled_nodes(self) -> list[Process]:
        return self._rng.sample(self._nodes, len(self._nodes))

    def _cut_pairs(self, pairs: Sequence[tuple[Process, Process]], *, both: bool = True) -> None:
        self._cut(pairs, both=both)
        self._later(0.5, self._duration_s(), lambda: self._restore(pairs, both=both))

    def _cut(self, pairs: Sequence[tuple[Process, Process]], *, both: bool) -> None:
        for left, right in pairs:
            self._world.network.cut(left.machine.name, right.machine.name, both=both)

    def _restore(self, pairs: Sequence[tuple[Process, Process]], *, both: bool) -> None:
        for left, right in pairs:
            self._world.network.restore(left.machine.name, right.machine.name, both=both)

    def _clear_link(self, left: Process, right: Process) -> None:
        self._world.network.set_link(
            left.machine.name,
            right.machine.name,
            latency=self._scenario.latency_s,
            jitter=self._scenario.latency_s,
            loss=0.0,
            bytes_per_second=125e6,
        )

    # --- clients -----------------------------------------------------------------------------

    def _client_kill(self) -> None:
        client = self._rng.choice(self._clients)
        if client.alive:
            # Without power nobody says goodbye for the dead: nodes have to notice by themselves.
            client.kill(power=self._rng.random() < 0.5)
            self._later(0.1, self._rng.choice([1.0, 10.0]), lambda: start(client))

    def _client_stop(self) -> None:
        client = self._rng.choice(self._clients)
        client.terminate()
        self._later(1.5, 10.0, lambda: start(client))

    def _client_pause(self) -> None:
        client = self._rng.choice(self._clients)
        client.pause()
        self._later(0.2, self._rng.choice([1.0, 10.0]), client.resume)

    # --- one fault for ever ------------------------------------------------------------------

    def begin_lasting(self) -> None:
        """Break one thing and leave it broken: a majority can always do without it."""
        fault = self._scenario.lasting
        self.counts[fault] += 1
        aims = [self._primary(), self._controller(), self._some_node()]
        node = self._rng.choice([aim for aim in aims if aim is not None])
        other = self._rng.choice([each for each in self._nodes if each is not node])
        self._world.note(f"{fault} {node.name}")
        match fault:
            case "dead_node":
                self._absent[node.name] = None
                node.kill()
                self._watch(node).on_down()
            case "mute_node":
                self._absent[node.name] = None
                node.kill()
                self._watch(node).on_down()
                self.stand_ins.begin_mute(node)
            case "isolated_node":
                self._cut([(node, each) for each in self._nodes if each is not node], both=True)
            case "one_way_cut":
                self._cut([(node, other)], both=False)
            case "no_link":
                self._cut([(node, other)], both=True)
            case "slow_disk":
                node.machine.disk_timing.sync = (0.3, 0.8)
            case _:
                assert fault == "full_disk", fault
                for disk in node.machine.disks.values():
                    disk.capacity_bytes = disk.used_bytes
                self._watch(node).disk_failed = True

    # --- the end -----------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault and bring all nodes back; dead clients stay dead."""
        self._healed = True
        world = self._world
        world.note("heal")
        world.failpoints.clear()
        world.network.heal()
        members = [*self._nodes, *self._clients]
        for index, left in enumerate(members):
            for right in members[index + 1 :]:
                self._clear_link(left, right)
        for client in self._clients:
            client.resume()
        for node in self._nodes:
            _free_disks(node)
            for disk in node.machine.disks.values():
                disk.fail_syncs = 0
            node.machine.disk_timing.slow_probability = 0.0
            node.machine.disk_timing.sync = (0.0002, 0.002)
            node.slowness = 1.0
            self._resume_node(node)
            self._right_disk(node)
            if self._has_left(node):
                # It may not have heard of that; whoever removed it stops it.
                node.terminate()
            self.start_node(node)
        world.after(_DISK_MEMORY_S, self._forget_disks)

    def _forget_disks(self) -> None:
        for watch in self._watches:
            watch.disk_failed = False


def _evict(node: Process) -> None:
    """The kernel drops clean pages while nobody runs, as it may."""
    if not node.alive:
        for path in sorted(node.machine.disks):
            node.machine.disks[path].evict_clean_pages()


def _free_disks(node: Process) -> None:
    for disk in node.machine.disks.values():
        disk.capacity_bytes = UNLIMITED
