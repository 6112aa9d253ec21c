"""One seed: a node, its clients, what goes wrong, and the verdict.

First the world is unkind and only safety is demanded; then everything is healed and, within a
bound, progress and convergence; at last the node is stopped and started in good order.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ssgovern.errors import DiskFullError, StorageFailedError
from ssgovern.sim.checkers import Checker
from ssgovern.sim.claims import Claims
from ssgovern.sim.convergence import check_converged
from ssgovern.sim.lease_keeper import CLIENTS
from ssgovern.sim.loop import SimLoop
from ssgovern.sim.mutants import HONEST, Mutant
from ssgovern.sim.nemesis import Nemesis, start
from ssgovern.sim.raw_clients import RawClient
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan, Scenario, draw, with_knobs
from ssgovern.sim.trace import Kind
from ssgovern.sim.workload import Life, Stage
from ssgovern.sim.world import World

_Main = Callable[[SimRuntime], Coroutine[object, object, None]]

_TOO_COMMON = frozenset({Kind.BATCH, Kind.SEGMENT, Kind.DISK, Kind.CONNECT})
_LOOK_EVERY_S = 0.25
_QUIET_S = 7.0
_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed."""

    seed: int
    digest: str
    violations: tuple[str, ...]
    scenario: str
    virtual_s: float
    events: int
    committed: int
    acknowledged: int
    expired: int
    lives: int
    faults: dict[str, int]
    story: tuple[str, ...]
    """With `trace`: what was done to whom, and what everybody logged."""
    counts: dict[str, int] = field(default_factory=dict)
    """What happened inside how often, where that is counted."""

    @property
    def is_clean(self) -> bool:
        return not self.violations


def simulate(
    seed: int, *, mutant: Mutant = HONEST, minutes: float | None = None, trace: bool = False
) -> Result:
    """Run one seed to its end, or to its first violation."""
    scenario = draw(seed, minutes=minutes)
    with World(seed, trace=trace) as world, with_knobs(scenario.knobs):
        run = Run(world, scenario, mutant)
        with logs_judged(world, run.checker, verbose=trace) as logged:
            run.play()
        return run.result(story_of(world, logged))


class Run:
    """All that takes part in one seed."""

    def __init__(self, world: World, scenario: Scenario, mutant: Mutant) -> None:
        self._world = world
        self._scenario = scenario
        self._mutant = mutant
        self._raw: dict[str, RawClient] = {}
        world.network.defaults.latency = scenario.latency_s
        world.network.defaults.jitter = scenario.latency_s
        world.network.defaults.loss = scenario.loss
        world.network.split_probability = scenario.split
        self._node = world.process("node", self._node_main, clock_rate=scenario.node_clock_rate)
        self._node.machine.disk_timing = scenario.disk_timing()
        self.checker = Checker(world, scenario, self._node)
        self._stage = Stage(self.checker, scenario.services, mutant.change_client)
        self._stage.nodes = lambda: [] if self.checker.node is None else [self.checker.node]
        self._clients = [
            world.process(plan.name, self._client_main(plan), clock_rate=plan.clock_rate)
            for plan in scenario.clients
        ]
        self._nemesis = Nemesis(world, scenario, self.checker, self._node, self._clients)

    # --- processes -------------------------------------------------------------------------

    async def _node_main(self, runtime: SimRuntime) -> None:
        node = self._mutant.node(self._scenario.server, runtime, self.checker)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.stop)
        try:
            await node.run()
        except* (StorageFailedError, DiskFullError) as failures:
            self._world.note("the node stopped: its disk failed")
            if not self.checker.disk_failed:
                self.checker.fail(f"B1: the node stopped without a reason: {failures!r}")
        else:
            left = sorted(task.get_name() for task in asyncio.all_tasks() if not task.done())
            self.checker.expect(left == ["node-main"], f"B1: the node left tasks behind: {left}")
        self._nemesis.node_died()

    def _client_main(self, plan: ClientPlan) -> _Main:
        async def run_sdk(runtime: SimRuntime) -> None:
            await Life(plan, self._stage, runtime).run()

        async def run_raw(runtime: SimRuntime) -> None:
            client = self._raw[plan.name] = CLIENTS[plan.kind](plan, self._stage, runtime)
            await client.run()

        return run_raw if plan.kind in CLIENTS else run_sdk

    # --- the play --------------------------------------------------------------------------

    def play(self) -> None:
        world, scenario = self._world, self._scenario
        self.checker.on_started()
        self._node.start()
        for client in self._clients:
            world.after(world.app_rng.uniform(0.0, 1.0), start, client)
        self._nemesis.start()
        self._look()
        if not self._run(scenario.chaos_s):
            return
        self._nemesis.heal()
        self._stage.is_calm = True
        session, protection = scenario.server.session, scenario.server.protection
        settle_s = 14.0 + (2 * session.ttl_ms + protection.hold_ms) / 1000.0
        if not self._run(settle_s):
            return
        self._stage.is_writing = False
        if not self._run(_QUIET_S):
            return
        self._check_converged()
        if not self.checker.violations:
            self._stop_and_start()

    def _run(self, seconds: float) -> bool:
        """Go on for a while; False if it ended in a violation."""
        if not self.checker.violations:
            self._world.run(self._world.now + seconds)
        return not self.checker.violations

    def _look(self) -> None:
        self.checker.look()
        self._world.after(_LOOK_EVERY_S, self._look)

    def _stop_and_start(self) -> None:
        """A stop in good order loses nothing and takes its time, but not for ever."""
        self._node.terminate()
        lives = self._node.incarnation
        if not self._world.run_until(
            lambda: self._node.incarnation > lives, self._world.now + _STOP_S
        ):
            if not self.checker.violations:
                self.checker.fail(f"L1: told to stop, the node still runs after {_STOP_S:.0f} s")
            return
        self._run(5.0)
        self.checker.expect(self.checker.node is not None, "L1: the node did not come back")
        self.checker.look_closely()

    # --- the end ---------------------------------------------------------------------------

    def _check_converged(self) -> None:
        checker = self.checker
        if checker.node is None:
            checker.fail("L1: healed, and the node does not serve")
            return
        checker.look_closely()
        hold_s = self._scenario.server.protection.hold_ms / 1000.0
        check_converged(checker, self._stage, self._raw, self._clients, hold_s)

    def result(self, story: tuple[str, ...]) -> Result:
        checker, world = self.checker, self._world
        return Result(
            seed=self._scenario.seed,
            digest=world.digest(),
            violations=tuple(checker.violations),
            scenario=str(self._scenario),
            virtual_s=world.now,
            events=world.events,
            committed=sum(shard.revision for shard in checker.ledger.shards),
            acknowledged=checker.acknowledged,
            expired=checker.judge.expired,
            lives=checker.lives,
            faults=dict(self._nemesis.counts),
            story=story,
        )


class _Judge(logging.Handler):
    """What production code logs as its own fault is a violation."""

    def __init__(self, world: World, checker: Claims) -> None:
        super().__init__()
        self._world = world
        self._checker = checker
        self.logged: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        loop = asyncio._get_running_loop()
        who = loop.process.name if isinstance(loop, SimLoop) else "-"
        message = f"{who} {record.name}: {record.getMessage()}"
        self.logged.append((self._world.now, message))
        at_fault = record.levelno >= logging.CRITICAL or (
            record.levelno >= logging.ERROR and record.name == "ssgovern.client"
        )
        if at_fault:
            cause = "" if record.exc_info is None else f": {record.exc_info[1]!r}"
            self._checker.fail(f"B1: logged: {message}{cause}")


@contextmanager
def logs_judged(
    world: World, checker: Claims, *, verbose: bool
) -> Iterator[list[tuple[float, str]]]:
    """Let the judge hear all logs, and nobody else; yield what was logged, with the time."""
    logger = logging.getLogger("ssgovern")
    judge = _Judge(world, checker)
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [judge], False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield judge.logged
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def story_of(world: World, logged: list[tuple[float, str]]) -> tuple[str, ...]:
    if world.trace.entries is None:
        return ()
    told = [(when, f"{when:12.6f} {message}") for when, message in logged]
    told += [
        (entry.when, str(entry)) for entry in world.trace.entries if entry.kind not in _TOO_COMMON
    ]
    return tuple(line for _, line in sorted(told, key=lambda item: item[0]))
