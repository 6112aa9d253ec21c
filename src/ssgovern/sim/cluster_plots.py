"""Plots: short plays of a small cluster, each directed at one situation.

Random seeds meet some situations so rarely that a bug which shows nowhere else hides from
thousands of them. A plot brings its situation about on purpose: it waits until the cluster is as
it has to be, does one thing, waits again. Only conditions and spans of virtual time are named, no
positions and no message numbers, so that a plot survives changes of what it plays with.

A plot is a generator that yields what it waits for: seconds, or `until(...)`. The cast is one
shard's primary, its replicas, and the controller; where the founding gave the roles to the wrong
nodes a plot ends with `UnsuitableError`, and another seed is taken.

Knows what may be done to processes and what nodes have in memory. Refuses to know verdicts: they
are the checkers', as for any other seed; a plot only demands that it could be played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.model import ShardId, shard_of
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.cluster_judge import ClusterJudge
from ssgovern.sim.cluster_nemesis import ClusterNemesis
from ssgovern.sim.cluster_scenario import ClusterScenario, cast_cluster
from ssgovern.sim.disk import PowerCut
from ssgovern.sim.nemesis import start
from ssgovern.sim.process import Process
from ssgovern.sim.recorder import RECORDED
from ssgovern.sim.workload import Stage, key_of
from ssgovern.sim.world import World

_LOOK_S = 0.0005
"""Shorter than a wire is: what one node tells another is seen before it arrives."""


class UnsuitableError(Exception):
    """The roles fell to nodes with which this plot cannot be played."""


class Until(NamedTuple):
    """Wait until something holds. If it does not in time, that is a failure, or is taken."""

    holds: Callable[[], bool]
    within_s: float
    required: bool = True


Steps = Iterator[float | Until]


def until(holds: Callable[[], bool], within_s: float = 20.0) -> Until:
    return Until(holds, within_s)


def if_ever(holds: Callable[[], bool], within_s: float) -> Until:
    """Wait for something that a planted bug brings about, and nothing else does."""
    return Until(holds, within_s, required=False)


class Director:
    """What a plot may do, and see."""

    def __init__(
        self,
        world: World,
        checker: ClusterChecker,
        judge: ClusterJudge,
        nemesis: ClusterNemesis,
        watches: Sequence[NodeWatch],
        clients: Sequence[Process],
        stage: Stage,
    ) -> None:
        self.stage = stage
        self._world = world
        self._checker = checker
        self._judge = judge
        self._nemesis = nemesis
        self._watches = {watch.process.name: watch for watch in watches}
        self.nodes = [watch.process for watch in watches]
        self.clients = {client.name: client for client in clients}
        # Not before: a world may have another number of shards.
        self.shard: ShardId = shard_of(*key_of(RECORDED[0]))
        self.is_over = False
        self.is_unsuitable = False

    def begin(self, steps: Steps) -> None:
        self._next(steps)

    def _next(self, steps: Steps) -> None:
        try:
            wanted = next(steps)
        except StopIteration:
            self.is_over = True
            return
        except UnsuitableError:
            self.is_over = self.is_unsuitable = True
            return
        if isinstance(wanted, Until):
            self._look(steps, wanted, self._world.now + wanted.within_s)
        else:
            self._world.after(wanted, self._next, steps)

    def _look(self, steps: Steps, wanted: Until, end: float) -> None:
        if wanted.holds():
            self._next(steps)
        elif self._world.now < end:
            self._world.after(_LOOK_S, self._look, steps, wanted, end)
        elif wanted.required:
            self._checker.fail(f"L1: what the plot waits for did not happen until {end:.3f}")
        else:
            self._next(steps)

    # --- who is what -------------------------------------------------------------------------

    def is_founded(self) -> bool:
        """Whether every shard is served and fully copied."""
        return next(self._judge.incomplete(), None) is None

    def _row(self) -> ShardRow:
        """Return the shard's row in the newest metadata of a living node."""
        state = self._judge.newest()
        return ShardRow() if state is None else state.rows[self.shard]

    def in_sync(self, node: Process) -> bool:
        return self.number(node) in self._row().in_sync

    def leads(self, node: Process) -> bool:
        return self._row().primary == self.number(node)

    def is_followed(self, node: Process) -> bool:
        """Whether somebody else leads the shard."""
        return self._row().primary not in (NOBODY, self.number(node))

    def is_member(self, node: Process) -> bool:
        """Whether the cluster counts with a node."""
        state = self._judge.newest()
        found = None if state is None else state.nodes.get(self._watches[node.name].plan.number)
        return found is not None and found.live

    def number(self, node: Process) -> int:
        return int(self._watches[node.name].plan.number)

    def applied(self, node: Process) -> int:
        """Return up to where a node applied the shard; 0 if it does not run."""
        running = self._watches[node.name].node
        return 0 if running is None else running.states[self.shard].position.revision

    def primary(self) -> Process:
        found = self._judge.primary_of(self.shard)
        assert found is not None, "asked while there is one"
        return found

    def controller(self) -> Process:
        found = self._judge.controller()
        assert found is not None, "asked while there is one"
        return found

    def others(self, *nodes: Process) -> list[Process]:
        return [node for node in self.nodes if node not in nodes]

    # --- what is done ------------------------------------------------------------------------

    def cut(self, node: Process, others: Sequence[Process]) -> None:
        for other in others:
            self._world.network.cut(node.machine.name, other.machine.name)

    def restore(self, node: Process, others: Sequence[Process]) -> None:
        for other in others:
            self._world.network.restore(node.machine.name, other.machine.name)

    def kill(self, node: Process, *, power: bool = False) -> None:
        """Let a node die; it stays away until it is started, or all is healed."""
        if power:
            node.machine.power_cut = PowerCut.ALL_LOST
        node.kill(power=power)
        self._watches[node.name].on_down()

    def start(self, node: Process) -> None:
        self._nemesis.start_node(node)

    def mute(self, node: Process) -> None:
        """Kill a node, and have somebody take its connections and say nothing."""
        self.kill(node)
        self._nemesis.stand_ins.begin_mute(node)

    def slow_disk(self, node: Process, least_s: float, most_s: float) -> None:
        node.machine.disk_timing.sync = (least_s, most_s)

    def slow_wire(self, source: Process, target: Process, bytes_per_second: float) -> None:
        self._world.network.set_link(
            source.machine.name, target.machine.name, bytes_per_second=bytes_per_second
        )

    def clients_of(self, kind: str) -> list[Process]:
        plans = self._checker.scenario.clients
        return [self.clients[plan.name] for plan in plans if plan.kind == kind]

    def dismiss(self, clients: Sequence[Process]) -> None:
        for client in clients:
            client.kill()

    def renew(self, clients: Sequence[Process]) -> None:
        """Have clients forget what they know and whom they talk to."""
        for client in clients:
            client.kill()
            start(client)


class Plot(NamedTuple):
    """A cast, and what happens to it."""

    scenario: Callable[[int], ClusterScenario]
    steps: Callable[[Director], Steps]


# --- leases ----------------------------------------------------------------------------------


def _primary_cut_off(d: Director) -> Steps:
    """A primary is cut off from all nodes, not from who reads; others write where its shard went.

    Whatever it answers when another has taken a write may be old.
    """
    yield until(d.is_founded)
    primary = d.primary()
    if primary is d.controller():
        raise UnsuitableError
    yield 3.0
    writers = d.clients_of("recorder")
    d.cut(primary, [*d.others(primary), *writers])
    yield 1.5
    d.renew(writers)
    yield until(lambda: d.is_followed(primary))
    yield 5.0
    # Their answers are in; what comes now is about the cluster, and they are many.
    d.dismiss([*d.clients_of("reader"), *writers[1:]])


def _readers(seed: int) -> ClusterScenario:
    kinds = ["recorder"] * 4 + ["reader"] * 4
    return cast_cluster(seed, kinds, copies=3, min_in_sync=1, pace_s=0.05)


# --- in-sync sets ----------------------------------------------------------------------------


def _two_and_a_judge(d: Director) -> tuple[Process, Process, Process]:
    """Return primary and replica of the shard, neither of which is the controller; and that."""
    controller, primary = d.controller(), d.primary()
    replica = next(node for node in d.nodes if d.in_sync(node) and node is not primary)
    if controller in (primary, replica):
        raise UnsuitableError
    return primary, replica, controller


def _two_copies(seed: int, min_in_sync: int = 1) -> ClusterScenario:
    kinds = ["recorder"] * 3 + ["reader"] * 3
    return cast_cluster(seed, kinds, copies=2, min_in_sync=min_in_sync, pace_s=0.1)


def _loses_its_replica(d: Director) -> Steps:
    """A primary loses its only replica, is asked to write, and dies: will the replica follow it?

    With a minimum of two it may: nothing was acknowledged meanwhile. With one it must not.
    """
    yield until(d.is_founded)
    primary, replica, _ = _two_and_a_judge(d)
    yield 2.0
    d.cut(primary, [replica])
    yield until(lambda: not d.in_sync(replica))
    yield 3.0
    d.kill(primary)
    yield if_ever(lambda: d.leads(replica), 10.0)
    yield 3.0


def _late_replica(d: Director) -> Steps:
    """A replica comes back, is brought up to date over a slow wire, and loses its primary."""
    yield until(d.is_founded)
    primary, replica, _ = _two_and_a_judge(d)
    yield 2.0
    d.cut(replica, d.others(replica))
    yield until(lambda: not d.in_sync(replica))
    yield 4.0
    d.slow_wire(primary, replica, 2_000.0)
    d.restore(replica, d.others(replica))
    yield if_ever(lambda: d.in_sync(replica), 10.0)
    d.kill(primary, power=True)
    yield if_ever(lambda: d.leads(replica), 10.0)
    yield 3.0


def _one_behind(d: Director) -> Steps:
    """One of two replicas is behind and in sync all the same; the others die, one comes back.

    Who restarted is out of the set, so that the one behind follows: it has all that was committed.
    """
    yield until(d.is_founded)
    yield 2.0
    primary = d.primary()
    behind, other = sorted(d.others(primary), key=lambda node: node is not d.controller())
    d.cut(primary, [behind])
    yield 1.5
    d.kill(primary)
    d.kill(other)
    yield 0.5
    d.start(other)
    yield until(lambda: d.is_followed(primary))
    yield 3.0


# --- disks -----------------------------------------------------------------------------------


def _power_cut_of_all(d: Director) -> Steps:
    """The power fails while slow disks still write what a primary waits for; it stays away."""
    yield until(d.is_founded)
    primary = d.primary()
    replicas = d.others(primary)
    for replica in replicas:
        d.slow_disk(replica, 0.3, 0.5)
    yield 4.0
    for node in d.nodes:
        d.kill(node, power=True)
    yield 0.5
    for replica in replicas:
        d.slow_disk(replica, 0.0002, 0.002)
        d.start(replica)
    yield until(lambda: d.is_followed(primary))
    yield 4.0


def _three_copies(seed: int, min_in_sync: int = 2) -> ClusterScenario:
    return cast_cluster(seed, ["recorder"] * 4, copies=3, min_in_sync=min_in_sync, pace_s=0.1)


# --- epochs ----------------------------------------------------------------------------------


def _slow_beginning(d: Director) -> Steps:
    """A primary dies before it said how far it committed; who follows is slow to begin."""
    yield until(d.is_founded)
    primary, replica, _ = _two_and_a_judge(d)
    yield 2.0
    yield until(lambda: d.applied(primary) > d.applied(replica))
    d.kill(primary)
    d.slow_disk(replica, 1.5, 2.0)
    yield until(lambda: d.leads(replica))
    yield 6.0


def _tail_of_an_epoch(d: Director) -> Steps:
    """A primary cut off is given entries that nobody else has; who follows begins and is idle."""
    yield until(d.is_founded)
    yield 2.0
    old = d.primary()
    d.cut(old, d.others(old))
    yield 1.0
    d.stage.is_writing = False
    yield until(lambda: d.is_followed(old))
    yield 4.0
    d.restore(old, d.others(old))
    yield 4.0


# --- finding the controller ------------------------------------------------------------------


def _mute_candidate(d: Director) -> Steps:
    """A node that is no candidate starts while the first it would ask takes its time."""
    yield until(d.is_founded)
    mute, newcomer = d.nodes[0], d.nodes[-1]
    d.mute(mute)
    d.kill(newcomer)
    yield until(lambda: not d.is_member(mute) and not d.is_member(newcomer))
    d.start(newcomer)
    yield until(lambda: d.is_member(newcomer), 20.0)


def _one_more(seed: int) -> ClusterScenario:
    kinds = ["recorder"]
    return cast_cluster(seed, kinds, copies=2, min_in_sync=1, pace_s=0.5, others=1)


# --- sessions --------------------------------------------------------------------------------


def _session_lost_unnoticed(d: Director) -> Steps:
    """A client is cut off from the primary until its session ends there, which then dies."""
    yield until(d.is_founded)
    primary = d.primary()
    yield 6.0
    # Whoever writes finds out what is missing, and repairs it.
    d.stage.is_writing = False
    yield 1.0
    d.cut(primary, d.clients_of("provider"))
    yield 9.0
    d.kill(primary)
    yield until(lambda: d.is_followed(primary))
    yield 4.0


def _sessions_change_hands(d: Director) -> Steps:
    """The primary of sessions and leases dies, of some not long before they would have ended."""
    yield until(d.is_founded)
    primary = d.primary()
    yield 6.0
    d.kill(primary)
    yield until(lambda: d.is_followed(primary))
    yield 16.0


def _keepers(seed: int) -> ClusterScenario:
    kinds = ["provider"] * 2 + ["lease_keeper"] * 2 + ["recorder"]
    return cast_cluster(seed, kinds, copies=3, min_in_sync=1, pace_s=0.3, services=4)


def _providers(seed: int) -> ClusterScenario:
    kinds = ["provider"] * 2 + ["recorder"]
    return cast_cluster(seed, kinds, copies=3, min_in_sync=1, pace_s=0.3, services=4)


PLOTS: dict[str, Plot] = {
    "primary_cut_off": Plot(_readers, _primary_cut_off),
    "minimum_not_reached": Plot(lambda seed: _two_copies(seed, 2), _loses_its_replica),
    "only_copy": Plot(_two_copies, _loses_its_replica),
    "late_replica": Plot(_two_copies, _late_replica),
    "one_behind": Plot(lambda seed: _three_copies(seed, 1), _one_behind),
    "power_cut_of_all": Plot(_three_copies, _power_cut_of_all),
    "slow_beginning": Plot(_two_copies, _slow_beginning),
    "tail_of_an_epoch": Plot(_three_copies, _tail_of_an_epoch),
    "mute_candidate": Plot(_one_more, _mute_candidate),
    "sessions_change_hands": Plot(_keepers, _sessions_change_hands),
    "session_lost_unnoticed": Plot(_providers, _session_lost_unnoticed),
}
