"""One seed of a whole cluster: its nodes, its clients, what goes wrong, and the verdict.

First the cluster is founded; then the world is unkind and only safety is demanded; then everything
is healed and, within a bound, progress and convergence. In liveness mode one fault stays for ever
instead, and progress and quiet terms are demanded beside it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine

from ssgovern.errors import DiskFullError, StorageFailedError
from ssgovern.model import shard_of
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.node.node import Node, Ready
from ssgovern.runtime import Disk
from ssgovern.sim.cluster_admin import Admin, Orders
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.cluster_judge import ClusterJudge
from ssgovern.sim.cluster_mutants import HONEST, ClusterMutant
from ssgovern.sim.cluster_nemesis import ClusterNemesis
from ssgovern.sim.cluster_plots import Director, Plot
from ssgovern.sim.cluster_scenario import ClusterScenario, NodePlan, draw_cluster
from ssgovern.sim.cluster_taps import ClusterTaps
from ssgovern.sim.convergence import check_converged
from ssgovern.sim.few_shards import few_shards
from ssgovern.sim.harness import Result, logs_judged, story_of
from ssgovern.sim.histories import Histories, describe
from ssgovern.sim.lease_keeper import CLIENTS
from ssgovern.sim.linearizability import Verdict
from ssgovern.sim.nemesis import start
from ssgovern.sim.observed import FailpointDisk
from ssgovern.sim.process import Process
from ssgovern.sim.raw_clients import RawClient
from ssgovern.sim.recorder import RECORDED, Recorder
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan, with_knobs
from ssgovern.sim.taps import Taps
from ssgovern.sim.workload import Life, Stage, key_of
from ssgovern.sim.world import World

_Main = Callable[[SimRuntime], Coroutine[object, object, None]]

_LOOK_EVERY_S = 0.25
_SETTLE_S = 20.0
_QUIET_S = 9.0
_COPIES_S = 60
_LATE_JOINER_S = (2.0, 15.0)


def simulate_cluster(
    seed: int,
    *,
    mutant: ClusterMutant = HONEST,
    liveness: bool = False,
    minutes: float | None = None,
    trace: bool = False,
) -> Result:
    """Run one seed to its end, or to its first violation."""
    scenario = draw_cluster(seed, liveness=liveness, minutes=minutes)
    with (
        few_shards(scenario.shards),
        World(seed, trace=trace) as world,
        with_knobs(scenario.knobs),
        Taps() as taps,
    ):
        mutant.plant(taps)
        run = ClusterRun(world, scenario)
        ClusterTaps(run.checker).listen(taps)
        with logs_judged(world, run.checker, verbose=trace) as logged:
            run.play()
        return run.result(story_of(world, logged))


def simulate_plot(
    plot: Plot, seed: int, *, mutant: ClusterMutant = HONEST, trace: bool = False
) -> Result:
    """Play a plot to its end, or to the first violation.

    `counts["played"]` is 0 if the seed gave the roles to nodes with which it cannot be played.
    """
    scenario = plot.scenario(seed)
    with few_shards(scenario.shards), World(seed, trace=trace) as world, Taps() as taps:
        mutant.plant(taps)
        run = ClusterRun(world, scenario)
        ClusterTaps(run.checker).listen(taps)
        with logs_judged(world, run.checker, verbose=trace) as logged:
            run.play_plot(plot)
        return run.result(story_of(world, logged))


class SimNode(ClusterNode):
    """The production node of a cluster, on disks at which its process may die."""

    def __init__(self, watch: NodeWatch, runtime: SimRuntime) -> None:
        super().__init__(watch.plan.server, runtime, on_ready=self._tell_ready)
        self._watch = watch
        self._failpoint = runtime.failpoint

    def _tell_ready(self, ready: Ready) -> None:
        self._watch.node = self

    def _open_disk(self, path: str) -> Disk:
        return FailpointDisk(super()._open_disk(path), self._failpoint)


class ClusterRun:
    """All that takes part in one seed."""

    def __init__(self, world: World, scenario: ClusterScenario) -> None:
        self._world = world
        self._scenario = scenario
        self._raw: dict[str, RawClient] = {}
        self._recorders: dict[str, Recorder] = {}
        self._orders = Orders()
        self._histories = Histories(lambda: world.now)
        world.network.defaults.latency = scenario.latency_s
        world.network.defaults.jitter = scenario.latency_s
        world.network.defaults.loss = scenario.loss
        world.network.split_probability = scenario.split
        self.checker = ClusterChecker(world, scenario)
        self._watches = [self._add_node(plan) for plan in scenario.nodes]
        self._stage = Stage(
            self.checker, scenario.services, lambda _: None, addresses=scenario.addresses
        )
        self.checker.is_held = self._stage.is_held
        self._stage.nodes = self._running
        self._clients = [
            world.process(plan.name, self._client_main(plan), clock_rate=plan.clock_rate)
            for plan in scenario.clients
        ]
        self._judge = ClusterJudge(self.checker)
        self._nemesis = ClusterNemesis(
            world,
            scenario,
            self.checker,
            self._watches,
            self._clients,
            primary=self._some_primary,
            controller=self._judge.controller,
            command=self._orders.waiting.append,
            has_left=self._judge.has_left,
        )

    def _running(self) -> list[Node]:
        return [w.node for w in self._watches if w.node is not None and w.process.alive]

    # --- processes ---------------------------------------------------------------------------

    def _add_node(self, plan: NodePlan) -> NodeWatch:
        async def main(runtime: SimRuntime) -> None:
            await self._node_main(self.checker.watches[plan.name], runtime)

        process = self._world.process(plan.name, main, clock_rate=plan.clock_rate)
        process.machine.disk_timing = plan.disk_timing()
        return self.checker.watch(plan, process)

    async def _node_main(self, watch: NodeWatch, runtime: SimRuntime) -> None:
        node = SimNode(watch, runtime)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.stop)
        try:
            await node.run()
        except* (StorageFailedError, DiskFullError) as failures:
            self._world.note(f"{watch.process.name} stopped: its disk failed")
            if not watch.disk_failed:
                self.checker.fail(
                    f"B1: {watch.process.name} stopped without a reason: {failures!r}"
                )
        else:
            left = sorted(task.get_name() for task in asyncio.all_tasks() if not task.done())
            self.checker.expect(
                left == [f"{watch.process.name}-main"],
                f"B1: {watch.process.name} left tasks behind: {left}",
            )
        self._nemesis.node_died(watch.process)

    def _client_main(self, plan: ClientPlan) -> _Main:
        async def run_sdk(runtime: SimRuntime) -> None:
            await Life(plan, self._stage, runtime).run()

        async def run_raw(runtime: SimRuntime) -> None:
            client = self._raw[plan.name] = CLIENTS[plan.kind](plan, self._stage, runtime)
            await client.run()

        async def run_recorder(runtime: SimRuntime) -> None:
            client = Recorder(plan, self._stage, runtime, self._histories)
            self._raw[plan.name] = self._recorders[plan.name] = client
            await client.run()

        async def run_admin(runtime: SimRuntime) -> None:
            await Admin(self._scenario, self._stage, self._orders, runtime).run()

        if plan.kind == "admin":
            return run_admin
        if plan.kind in ("recorder", "reader"):
            return run_recorder
        return run_raw if plan.kind in CLIENTS else run_sdk

    def _some_primary(self) -> Process | None:
        service = self._world.fault_rng.choice([*self._stage.services, *RECORDED])
        return self._judge.primary_of(shard_of(*key_of(service)))

    # --- the play ----------------------------------------------------------------------------

    def play(self) -> None:
        scenario = self._scenario
        self._begin()
        self._nemesis.start()
        if not self._run(scenario.calm_s + scenario.chaos_s):
            return
        if scenario.lasting:
            self._live_on()
            return
        self._heal_and_judge()

    def play_plot(self, plot: Plot) -> None:
        """Have a director do what a nemesis does otherwise."""
        director = Director(
            self._world,
            self.checker,
            self._judge,
            self._nemesis,
            self._watches,
            self._clients,
            self._stage,
        )
        self._begin()
        director.begin(plot.steps(director))
        while not director.is_over:
            if not self._run(_LOOK_EVERY_S):
                break
        self.checker.counts["played"] = int(not director.is_unsuitable)
        if self.checker.violations or director.is_unsuitable:
            return
        # Cheaper than to wait for the end, where it is done once more.
        self._check_histories()
        self._heal_and_judge()

    def _begin(self) -> None:
        world = self._world
        for watch in self._watches:
            delay_s = world.app_rng.uniform(0.0, 1.0)
            if watch.plan.joins_late:
                delay_s = world.app_rng.uniform(*_LATE_JOINER_S)
            world.after(delay_s, self._nemesis.start_node, watch.process)
        for client in self._clients:
            world.after(world.app_rng.uniform(0.0, 3.0), start, client)
        self._look()

    def _heal_and_judge(self) -> None:
        if self.checker.violations:
            return
        self._nemesis.heal()
        self._stage.is_calm = True
        if self._settle():
            self._end()

    def _run(self, seconds: float) -> bool:
        """Go on for a while; False if it ended in a violation."""
        if not self.checker.violations:
            self._world.run(self._world.now + seconds)
        return not self.checker.violations

    def _look(self) -> None:
        self.checker.look()
        self._world.after(_LOOK_EVERY_S, self._look)

    def _settle(self) -> bool:
        """L1: once all is healed, every shard is served and fully copied within a bound."""
        if not self._run(1.0):
            return False
        healed = self._world.now
        whole = self._world.run_until(
            lambda: not self._judge.unserved() or bool(self.checker.violations),
            healed + 15.0,
        )
        if self.checker.violations:
            return False
        if not whole:
            self.checker.fail(f"L1: 15 s after all was healed: {self._judge.unserved()}")
            return False
        self.checker.counts["seconds to serve all"] += int(self._world.now - healed)
        ttl_s = self._scenario.nodes[0].server.session.ttl_ms / 1000.0
        return self._run(_SETTLE_S + 2.0 * ttl_s + 3.0) and self._complete()

    def _complete(self) -> bool:
        """L1: moves are throttled, so that all copies are there takes its time, not for ever."""
        for _ in range(_COPIES_S):
            if next(self._judge.incomplete(), None) is None:
                break
            if not self._run(1.0):
                return False
        return True

    def _end(self) -> None:
        self._stage.is_writing = False
        if not self._run(_QUIET_S):
            return
        for complaint in (*self._judge.incomplete(), *self._judge.unequal()):
            self.checker.fail(f"L1: {complaint}")
            return
        for watch in self._watches:
            if watch.node is not None:
                self.checker.look_closely(watch, watch.node)
        hold_s = self._scenario.nodes[0].server.protection.hold_ms / 1000.0
        check_converged(self.checker, self._stage, self._raw, self._clients_that_say(), hold_s)
        for name, recorder in self._recorders.items():
            alive = self._world.processes[name].alive
            self.checker.expect(
                recorder.done_in_calm > 0 or not alive,
                f"L1: {name}: nothing succeeded after all was healed",
            )
        self._check_histories()
        self._check_sessions()

    def _clients_that_say(self) -> list[Process]:
        admins = [plan.name for plan in self._scenario.clients if plan.kind == "admin"]
        return [client for client in self._clients if client.name not in admins]

    def _check_histories(self) -> None:
        for key, judgement in self._histories.judge().items():
            if judgement.verdict is Verdict.UNDECIDED:
                self.checker.counts["history undecided"] += 1
            complaint = describe(key, judgement)
            if complaint:
                self.checker.fail(complaint)

    def _check_sessions(self) -> None:
        """S1: if only nodes crashed, no living client's session ended."""
        if not self._scenario.only_nodes_suffer:
            return
        for life in self._stage.lives.values():
            ended = self.checker.ended.get(life.session_id)
            self.checker.expect(
                ended is None,
                f"S1: the session of {life.plan.name}, which lives, ended at {ended}; "
                "nothing but nodes failed",
            )

    # --- one fault for ever ------------------------------------------------------------------

    def _live_on(self) -> None:
        """L1: with one thing broken for good, writes succeed and nobody campaigns for ever."""
        self._stage.is_calm = True
        term = self.checker.term
        for recorder in self._recorders.values():
            recorder.longest_gap_s = recorder.last_write_at = 0.0
            recorder.done_in_calm = 0
        if not self._run(30.0):
            return
        self.checker.expect(
            self.checker.term <= term + 1,
            f"L1: terms went from {term} to {self.checker.term} in 30 s beside "
            f"{self._scenario.lasting}",
        )
        done = {name: each.done_in_calm for name, each in self._recorders.items()}
        self.checker.expect(
            all(done.values()), f"L1: beside {self._scenario.lasting} recorders got done {done}"
        )
        self._check_histories()

    # --- the result --------------------------------------------------------------------------

    def result(self, story: tuple[str, ...]) -> Result:
        checker, world = self.checker, self._world
        counts = checker.counts + self._orders.counts
        counts["recorded calls"] = len(self._histories)
        return Result(
            seed=self._scenario.seed,
            digest=world.digest(),
            violations=tuple(checker.violations),
            scenario=str(self._scenario),
            virtual_s=world.now,
            events=world.events,
            committed=checker.committed,
            acknowledged=checker.acknowledged,
            expired=sum(watch.judge.expired for watch in self._watches),
            lives=sum(watch.lives for watch in self._watches),
            faults=dict(self._nemesis.counts),
            story=story,
            counts=dict(counts),
        )
