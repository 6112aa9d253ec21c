"""Candidates under the simulator: real drivers of Raft on simulated disks, clocks and TCP.

The links are a few lines of their own, so that nothing but Raft, its driver and its storage is
on trial. First the world is unkind and only safety is demanded; then everything heals and,
within a bound, a leader and agreement.

`python -m ssgovern.sim.candidates --seeds N --first S [--mutant NAME]`
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, NamedTuple

from ssgovern.controller.log import Entry
from ssgovern.errors import (
    DiskFullError,
    FencedError,
    InvalidArgumentError,
    NotControllerError,
    OverloadedError,
    StorageFailedError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.node.raft_codec import decode_messages
from ssgovern.node.raft_driver import RaftDriver
from ssgovern.raft import Config, Settings, Snapshot
from ssgovern.sim.candidates_judge import AppliedState, Judge
from ssgovern.sim.candidates_mutants import HONEST, MUTANTS, CandidateMutant
from ssgovern.sim.candidates_nemesis import Nemesis
from ssgovern.sim.disk import PowerCut
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import with_knobs
from ssgovern.sim.world import World

_PORT: Final = 7420
_HEAD: Final = struct.Struct(">IQ")
_BACKLOG_BYTES: Final = 1 << 20
_LEADER_WITHIN_S: Final = 4.0
_CALM_S: Final = 14.0
"""After healing: links redial, the last faults end, a leader is elected, appends go through."""
Request = Callable[[RaftDriver], Coroutine[object, object, object]]


class Report(NamedTuple):
    seed: int
    violations: list[str]
    counts: Counter[str]
    digest: str
    stories: list[str]


class Candidate:
    """One life of a candidate: its driver, its links, and a controller of sorts."""

    def __init__(self, run: Run, node: NodeId, runtime: SimRuntime) -> None:
        self.run_ = run
        self.node = node
        self.runtime = runtime
        self.state = AppliedState(node)
        self.driver: RaftDriver | None = None
        self.asked: deque[Request] = deque(maxlen=4)
        """What an operator wants of it, one thing after the other."""
        self._writers: dict[NodeId, asyncio.StreamWriter] = {}
        self._rng = random.Random(f"{run.seed}/{node}/{runtime.process.incarnation}")
        self._proposals = 0
        self._term = 0

    async def run(self) -> None:
        run, runtime = self.run_, self.runtime
        storage, recovered = await run.mutant.storage.open(
            runtime.open_disk("metadata"),
            runtime.open_disk("metadata-snapshots"),
            b"candidate-%06d" % self.node,
            first=Snapshot(config=Config(run.voters)),
            segment_bytes=run.segment_bytes,
        )
        run.judge.on_recovered(self.node, recovered)
        core = run.mutant.raft(
            b"sim", self.node, runtime.rng.randrange, **recovered._asdict(), settings=run.settings
        )
        driver = self.driver = run.mutant.driver(
            core,
            storage,
            runtime,
            send=self._send,
            on_applied=self._on_applied,
            on_restored=self._on_restored,
            on_role=self._on_role,
            snapshot=self.state.encode,
        )
        self._term = driver.term
        server = await asyncio.start_server(self._serve, "0.0.0.0", _PORT)
        async with server, asyncio.TaskGroup() as group:
            group.create_task(driver.run())
            group.create_task(self._append())
            group.create_task(self._read())
            group.create_task(self._obey())
            for other in run.nodes:
                if other != self.node:
                    group.create_task(self._link(other))

    # --- links -----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length, source = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                body = await reader.readexactly(length)
                if not body and not writer.is_closing():
                    writer.write(b".")
                elif body and self.driver is not None:
                    self.driver.receive(NodeId(source), body)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            _abort(writer)

    async def _link(self, other: NodeId) -> None:
        """Keep a connection; nothing heard for a second means that it is none."""
        while True:
            await asyncio.sleep(0.1)
            try:
                async with asyncio.timeout(1.0):
                    reader, writer = await asyncio.open_connection(f"n{other}", _PORT)
            except OSError:
                continue
            self._writers[other] = writer
            try:
                while not writer.is_closing():
                    writer.write(_HEAD.pack(0, self.node))
                    async with asyncio.timeout(1.0):
                        await reader.readexactly(1)
                    await asyncio.sleep(0.3)
            except (OSError, asyncio.IncompleteReadError):
                pass
            del self._writers[other]
            _abort(writer)

    def _send(self, node: NodeId, body: bytes) -> bool:
        for message in decode_messages(body):
            self.run_.judge.on_said(message)
        writer = self._writers.get(node)
        if writer is None or writer.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            return False
        writer.write(_HEAD.pack(len(body), self.node) + body)
        return True

    # --- what the driver tells -------------------------------------------------------------

    def _on_applied(self, entries: Sequence[Entry]) -> None:
        self.run_.judge.on_applied(self.state, entries)

    def _on_restored(self, snapshot: Entry) -> None:
        self.run_.judge.on_restored(self.state, snapshot)

    def _on_role(self) -> None:
        driver, judge = self.driver, self.run_.judge
        assert driver is not None, "it speaks"
        judge.expect(driver.term >= self._term, f"C3: the term fell at node {self.node}")
        self._term = driver.term
        if driver.leader_id == self.node:
            judge.on_elected(self.node, driver.term, self.run_.world.now)

    # --- its duty --------------------------------------------------------------------------

    async def _append(self) -> None:
        driver, judge, run = self.driver, self.run_.judge, self.run_
        assert driver is not None, "made before"
        while True:
            await asyncio.sleep(self._rng.uniform(0.0, 2.0) * run.pace_s)
            if not run.is_writing or not (driver.is_leader or self._rng.random() < 0.02):
                continue
            self._proposals += 1
            body = b"%d.%d.%d" % (self.node, self.runtime.process.incarnation, self._proposals)
            body += bytes(self._rng.choice((0, 0, 100, 1500)))
            # Sometimes one who does not know yet what was decided.
            after = driver.applied_index - (self._rng.random() < 0.05)
            try:
                index = await driver.append(body, after=max(after, 0))
            except (FencedError, OverloadedError):
                judge.on_refused(body)
            except UnavailableError:
                run.counts["append of unknown outcome"] += 1
            else:
                judge.on_acknowledged(body, index, max(after, 0))

    async def _read(self) -> None:
        driver, judge = self.driver, self.run_.judge
        assert driver is not None, "made before"
        while True:
            await asyncio.sleep(self._rng.uniform(0.0, 0.5))
            if (confirmed_at := driver.confirmed_at) > 0.0:
                judge.on_confirmed(self.node, driver.term, self._world_time(confirmed_at))
            known = judge.highest_acknowledged
            try:
                index = await driver.confirm_read()
            except (NotControllerError, OverloadedError):
                continue
            judge.on_read(index, known, driver.applied_index)

    async def _obey(self) -> None:
        assert self.driver is not None, "made before"
        while True:
            await asyncio.sleep(0.1)
            if self.asked:
                try:
                    await self.asked.popleft()(self.driver)
                    self.run_.counts["request fulfilled"] += 1
                except (
                    FencedError,
                    InvalidArgumentError,
                    NotControllerError,
                    OverloadedError,
                    UnavailableError,
                ):
                    self.run_.counts["request refused"] += 1

    def _world_time(self, when: float) -> float:
        process = self.runtime.process
        return (when - process.machine.clock_origin) / process.clock_rate


class Run:
    """All that takes part in one seed."""

    def __init__(self, seed: int, mutant: CandidateMutant = HONEST) -> None:
        self.seed = seed
        self.mutant = mutant
        self.judge = Judge()
        self.counts: Counter[str] = Counter()
        self.world = World(seed)
        self._rng = rng = random.Random(f"{seed}/candidates")
        self.nodes = tuple(NodeId(number) for number in range(1, rng.choice((3, 3, 5)) + 1))
        self.voters = self.nodes
        self.pace_s = rng.choice((0.01, 0.05, 0.2))
        self.segment_bytes = rng.choice((1 << 10, 4 << 10, 64 << 10))
        self.settings = Settings(
            append_bytes_max=rng.choice((100, 4000)),
            append_entries_max=rng.choice((1, 4, 64)),
            appends_in_flight_max=rng.choice((1, 4, 16)),
            snapshot_chunk_bytes=rng.choice((256, 1 << 16)),
        )
        self._knobs = {
            "METADATA_LOG_ENTRIES_MAX": rng.choice((10, 40, 2000)),
            "METADATA_LOG_ENTRIES_KEPT": rng.choice((0, 5, 500)),
            "FRAME_CHUNK_BYTES": rng.choice((500, 256 << 10)),
        }
        self.is_writing = True
        self._chaos_s = rng.uniform(8.0, 20.0)
        self.lives: dict[NodeId, Candidate] = {}
        defaults = self.world.network.defaults
        defaults.latency = defaults.jitter = rng.choice((0.0002, 0.002, 0.02))
        defaults.loss = rng.choice((0.0, 0.0, 0.02))
        power_cut = rng.choice(list(PowerCut))
        self._sync_s = rng.choice(((0.0002, 0.002), (0.002, 0.02), (0.01, 0.06)))
        self.processes: dict[NodeId, Process] = {}
        for node in self.nodes:
            rate = rng.choice((1.0, 0.98, 1.02))
            process = self.world.process(f"n{node}", self._main_of(node), clock_rate=rate)
            process.machine.power_cut = power_cut
            process.machine.disk_timing.sync = self._sync_s
            self.processes[node] = process

    def _main_of(self, node: NodeId) -> Callable[[SimRuntime], Coroutine[object, object, None]]:
        async def main(runtime: SimRuntime) -> None:
            life = self.lives[node] = Candidate(self, node, runtime)
            try:
                await life.run()
            except* (StorageFailedError, DiskFullError):
                self.counts["stopped by its disk"] += 1

        return main

    # --- the play --------------------------------------------------------------------------

    def play(self) -> Report:
        world = self.world
        with world, with_knobs(self._knobs):
            nemesis = Nemesis(self, self._rng)
            self.start()
            self.expect_leader("after the start")
            nemesis.start()
            self.go_on(self._chaos_s)
            nemesis.heal()
            self.expect_leader("after healing", settle_s=3.0)
            self.go_on(_CALM_S)
            self._check_agreement()
        for error in world.errors:
            self.judge.violations.append(str(error))
        self.counts += nemesis.counts
        return self._report()

    def start(self) -> None:
        for process in self.processes.values():
            process.start()
        self._look()

    def go_on(self, seconds: float) -> None:
        if not self.judge.violations:
            self.world.run(self.world.now + seconds)

    def _look(self) -> None:
        """Processes that ended come back, and a violation ends the play."""
        if self.judge.violations:
            self.world.stop()
        self.world.after(0.25, self._look)

    def leader(self) -> RaftDriver | None:
        """The controller, if there is exactly one that others have reason to believe in."""
        leading = [driver for driver in self._drivers() if driver.is_leader]
        return max(leading, key=lambda driver: driver.term, default=None)

    def _drivers(self) -> list[RaftDriver]:
        return [
            life.driver
            for node, life in self.lives.items()
            if life.driver is not None and self.processes[node].alive
        ]

    def expect_leader(self, when: str, *, settle_s: float = 0.0) -> None:
        if self.judge.violations:
            return
        until = self.world.now + settle_s + _LEADER_WITHIN_S
        elected = self.world.run_until(lambda: self.leader() is not None, until)
        self.judge.expect(elected or bool(self.judge.violations), f"L1: no leader {when}")

    def _check_agreement(self) -> None:
        judge = self.judge
        if judge.violations:
            return
        leader = self.leader()
        judge.expect(leader is not None, "L1: healed, and nobody leads")
        if leader is None:
            return
        acknowledged = judge.acknowledged
        self.go_on(3.0)
        judge.expect(judge.acknowledged > acknowledged, f"L1: nothing is appended: {leader!r}")
        self.is_writing = False
        self.go_on(3.0)
        for node in leader.candidates:
            driver = self.lives[node].driver
            agrees = driver is not None and driver.applied_index == leader.applied_index
            judge.expect(agrees, f"L1: node {node} is behind: {driver!r} {leader!r}")
        judge.expect(
            len(judge.truth) >= judge.highest_acknowledged, "C4: what was appended is gone"
        )

    def _report(self) -> Report:
        judge = self.judge
        self.counts.update(
            {
                "acknowledged": judge.acknowledged,
                "refused": judge.refused,
                "applied": len(judge.truth),
                "election": judge.elections,
                "read": judge.reads,
                "snapshot restored": judge.restored,
                "life": sum(process.incarnation for process in self.processes.values()),
                "run": 1,
            }
        )
        stories: list[str] = []
        if judge.violations:
            for node, life in self.lives.items():
                if life.driver is not None:
                    stories += [f"node {node}: {line}" for line in life.driver.story()]
                    stories.append(repr(life.driver))
        return Report(self.seed, judge.violations, self.counts, self.world.digest(), stories)


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.transport.abort()


def search(
    seeds: range,
    *,
    mutant: CandidateMutant = HONEST,
    on_report: Callable[[Report], None] | None = None,
) -> Report | None:
    """Play seeds until one violates something. Return its report, None if none does."""
    for seed in seeds:
        report = Run(seed, mutant).play()
        if on_report is not None:
            on_report(report)
        if report.violations:
            return report
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.candidates")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this bug")
    options = parser.parse_args(arguments)
    mutant = MUTANTS[options.mutant] if options.mutant else HONEST
    total: Counter[str] = Counter()
    seeds = range(options.first, options.first + options.seeds)
    failed = search(seeds, mutant=mutant, on_report=lambda report: total.update(report.counts))
    for event, count in sorted(total.items()):
        print(f"{count:12,} x {event}")
    if failed is None:
        return 0
    print("\n".join([*failed.stories, *failed.violations]))
    again = f" --mutant {options.mutant}" if options.mutant else ""
    print(f"again: python -m ssgovern.sim.candidates --seeds 1 --first {failed.seed}{again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
