"""Random walks over the controller's core: nodes come, crash, hang, return and leave.

No loop and no network. One walk is one cluster; a walk is its seed, and repeats exactly. Nodes
are a few facts each, a shard's log is the number of its entries, and the metadata log is a list
of bytes. Controllers are replaced at any moment, also with only a part of a decision committed;
requests of primaries are delivered late, or never. Then faults stop, some nodes stay dead, and
the cluster has to come to rest.

What must hold after every record: the invariants of `ClusterState.validate`; versions and epochs
rise; one primary per (shard, epoch); who is in sync, eligible or promoted has all that was
acknowledged; nobody is in sync but by its current session; nobody is fenced who was heard; no
more under way than allowed; a copy in sync is dropped only when all others are in sync. What
must hold at rest: every shard has a primary or nobody who could be it, copies and zones are what
they can be, copies and primaries are even within one, and coming to rest took few moves.

`controller_mutants` holds planted bugs, each of which the walk has to find.

    python -m ssgovern.sim.controller_walk --walks 1000 [--seed 0] [--mutant NAME]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from ssgovern import limits
from ssgovern.controller.codec import (
    decode_record,
    decode_snapshot,
    encode_record,
    encode_snapshot,
)
from ssgovern.controller.controller import Controller, decide_founding
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.rules import Decision, Rules
from ssgovern.controller.state import (
    ClusterState,
    NodesFenced,
    Settings,
)
from ssgovern.errors import FencedError, InvalidArgumentError
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.sim.controller_judge import Judge, ViolationError, must
from ssgovern.sim.controller_mutants import MUTANTS

SHARDS: Final = 12
STEPS: Final = 250
CLUSTER: Final = b"walk-over-nodes!"
REST_ROUNDS_MAX: Final = 600
LOST_AFTER_MS: Final = 20_000


@dataclass(slots=True)
class Process:
    """A node as it really is."""

    id: NodeId
    zone: str
    boot: int = 1
    up: bool = True
    reachable: bool = True
    session: int = 0
    """The one it believes to have; 0: none."""
    damaged: tuple[ShardId, ...] = ()
    """Shards whose log was damaged and that the controller was not told of yet."""
    entries: list[int] = field(default_factory=lambda: [0] * SHARDS)

    @property
    def talks(self) -> bool:
        return self.up and self.reachable


@dataclass(slots=True)
class WalkReport:
    """What came of a walk."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    violation: str | None = None
    story: list[str] = field(default_factory=list)


class Walk:
    """One cluster's life."""

    def __init__(self, seed: int, mutant: type[Rules] = Rules) -> None:
        self.rng = random.Random(f"controller-walk-{seed}")
        self.report = WalkReport(seed)
        self.rules = mutant()
        self.now_ms = 0.0
        self.log: list[bytes] = []
        self.processes: dict[NodeId, Process] = {}
        self.acked = [0] * SHARDS
        self.heard: dict[NodeId, float] = {}
        self.late: list[InSyncRequest | Resigned] = []
        self.judge = Judge(self.report.counts)
        self.standby = ClusterState(SHARDS)
        self.standby_at = 0
        self.calm = False
        self.next_id = 1
        zones = self.rng.choice((1, 1, 2, 3, 3))
        self.zones = [f"z{number}" for number in range(zones)]
        copies = self.rng.choice((1, 2, 3, 3))
        settings = Settings(
            copies=copies,
            min_in_sync=self.rng.randint(1, min(copies, 2)),
            moves_max=self.rng.randint(1, 4),
            nodes_initial=self.rng.randint(1, 3),
            lost_after_ms=LOST_AFTER_MS,
        )
        state = ClusterState(SHARDS)
        for record in decide_founding(state, CLUSTER, settings).records:
            self.log.append(encode_record(record))
            state.replay(record)
        self.controller = Controller(state, self.now_ms, self.rules)

    # --- running ---------------------------------------------------------------------------

    def run(self) -> WalkReport:
        """Walk, come to rest, and report."""
        try:
            for _ in range(self.rng.randint(1, 6)):
                self.join()
            names = list(self.STEPS)
            weights = [self.STEPS[name] for name in names]
            for _ in range(STEPS):
                name = self.rng.choices(names, weights)[0]
                self.report.counts[name] += 1
                step: Callable[[], None] = getattr(self, name)
                step()
            self.rest()
        except AssertionError as error:
            self.report.violation = str(error)
        return self.report

    STEPS: Final = {
        "beat": 40,
        "look": 25,
        "write": 30,
        "catch_up": 30,
        "deliver": 12,
        "resign": 12,
        "join": 2,
        "crash": 3,
        "restart": 6,
        "hide": 2,
        "show": 3,
        "leave": 1,
        "stay": 1,
        "transfer": 2,
        "take_over": 4,
        "settings": 1,
        "refused": 1,
    }

    @property
    def state(self) -> ClusterState:
        return self.controller.state

    def say(self, line: str) -> None:
        self.report.story.append(f"{self.now_ms / 1000:7.1f} {line}")

    def pick(self, processes: list[Process]) -> Process | None:
        return self.rng.choice(processes) if processes else None

    def commit(self, decision: Decision) -> bool:
        """Append what was decided; the controller may be replaced half way. True: all of it."""
        if decision.sentence:
            self.say(decision.sentence)
        for record in decision.records:
            if not self.calm and self.rng.random() < 0.03:
                self.report.counts["decision cut short"] += 1
                self.take_over()
                return False
            body = encode_record(record)
            must(decode_record(body) == record, "a record changes on its way to disk")
            before = tuple(self.state.rows), self.state.map_version
            self.judge.before(self.state, record, self.now_ms)
            self.log.append(body)
            self.controller.replay(record, self.now_ms)
            self.judge.after(self.state, record, *before)
            for shard, row in enumerate(self.state.rows):
                self._check_entries(ShardId(shard), row)
        return True

    def _check_entries(self, shard: ShardId, row: ShardRow) -> None:
        for node in (*row.in_sync, *row.eligible):
            process = self.processes[node]
            must(
                shard in process.damaged or process.entries[shard] >= self.acked[shard],
                f"shard {shard}: node {node} has {process.entries[shard]} of {self.acked[shard]} "
                f"acknowledged entries and may be primary: {row}",
            )

    def check_standby(self) -> None:
        """A candidate that only replays has the same map at the same version."""
        while self.standby_at < len(self.log):
            self.standby.replay(decode_record(self.log[self.standby_at]))
            self.standby_at += 1
            known = self.judge.maps.get(self.standby.map_version, tuple(self.standby.rows))
            must(
                tuple(self.standby.rows) == known,
                f"two maps have version {self.standby.map_version}",
            )
        ours, theirs = encode_snapshot(self.state, 0), encode_snapshot(self.standby, 0)
        must(ours == theirs, "a standby differs from the controller")

    # --- steps -----------------------------------------------------------------------------

    def take_over(self) -> None:
        """Another candidate becomes controller: it replays, and knows nothing soft."""
        self.check_standby()
        if self.rng.random() < 0.5:
            state, _ = decode_snapshot(encode_snapshot(self.standby, len(self.log)))
        else:
            state = ClusterState(SHARDS)
            for body in self.log:
                state.replay(decode_record(body))
        self.now_ms += self.rng.choice((0, 300, 2_000))
        self.controller = Controller(state, self.now_ms, self.rules)
        self.heard = dict.fromkeys(self.heard, self.now_ms)
        self.say("another controller takes over")

    def join(self) -> None:
        if len(self.processes) >= 8:
            return
        process = Process(NodeId(self.next_id), self.rng.choice(self.zones))
        self.next_id += 1
        self.processes[process.id] = process
        self.register(process)

    def register(self, process: Process) -> None:
        asked = self.registration(process)
        decision = self.controller.decide_registration(asked, self.now_ms)
        if any(isinstance(record.change, NodesFenced) for record in decision.records):
            self.report.counts["fenced at restart"] += 1
        if not self.commit(decision):
            return
        process.session = self.state.nodes[process.id].session
        process.damaged = ()
        self.heard[process.id] = self.now_ms

    def registration(self, process: Process) -> Registration:
        return Registration(
            process.id,
            f"n{process.id}",
            f"10.0.0.{process.id}:7420",
            process.zone,
            b"directory%d" % process.id,
            b"boot%d" % process.boot,
            directory_cluster_id=CLUSTER,
            damaged=process.damaged,
        )

    def beat(self) -> None:
        """Time passes; who can talk is heard, and registers if it has no session."""
        self.now_ms += self.rng.choice((200, 500, 1_000))
        for process in list(self.processes.values()):
            if process.talks and self.rng.random() < 0.9:
                self.talk(process)
            if process.reachable:
                self.controller.note_gone(process.id, gone=not process.up)

    def talk(self, process: Process) -> None:
        if process.session == 0:
            if self.retired(process):
                return
            self.register(process)
            return
        positions = {ShardId(shard): LogPosition(1, n) for shard, n in enumerate(process.entries)}
        try:
            self.controller.hear(process.id, process.session, self.now_ms, positions)
            self.heard[process.id] = self.now_ms
        except FencedError:
            process.session = 0

    def retired(self, process: Process) -> bool:
        if process.id in self.state.retired:
            try:
                self.controller.decide_registration(self.registration(process), self.now_ms)
            except InvalidArgumentError:
                return True
            raise ViolationError("a node that left came back")
        return False

    def look(self) -> None:
        decision = self.controller.decide_pass(self.now_ms)
        for record in decision.records:
            if isinstance(record.change, NodesFenced):
                self.report.counts["fenced for silence"] += 1
                for node in record.change.nodes:
                    silence_ms = self.now_ms - self.heard[node]
                    least_ms = self.state.settings.fence_after_ms
                    if not self.current(node):
                        # That life of it is over, whether it was started again or not.
                        least_ms = limits.NODE_GONE_AFTER_MS
                    must(
                        silence_ms >= least_ms,
                        f"node {node} was fenced after {silence_ms} ms",
                    )
        self.commit(decision)

    def current(self, node: NodeId, session: int | None = None) -> bool:
        """Whether a node runs in the life that the cluster knows (or in a given one)."""
        known = self.state.nodes.get(node)
        process = self.processes[node]
        if known is None or not known.live or not process.up:
            return False
        return process.session == (known.session if session is None else session)

    def write(self) -> None:
        """A write to some shard: all in sync, and all asked to be, have it before it counts."""
        shard = ShardId(self.rng.randrange(SHARDS))
        row = self.state.rows[shard]
        if row.primary == NOBODY or len(row.in_sync) < self.state.settings.min_in_sync:
            return
        sessions = {node: self.processes[node].session for node in row.in_sync}
        for asked in self.late:
            if (asked.shard, asked.epoch, asked.version) != (shard, row.epoch, row.version):
                continue
            if isinstance(asked, Resigned):
                return
            sessions |= dict(asked.in_sync)
        if all(self.current(node, session) for node, session in sessions.items()):
            self.acked[shard] += 1
            self.report.counts["write acknowledged"] += 1
            for node in sessions:
                self.processes[node].entries[shard] = self.acked[shard]

    def catch_up(self) -> None:
        """A primary brings a holder up to date, or leaves one behind, and asks for it."""
        shard = ShardId(self.rng.randrange(SHARDS))
        asked = self.wish(shard, everybody=False)
        if asked is not None:
            self.ask(asked)

    def wish(self, shard: ShardId, *, everybody: bool) -> InSyncRequest | None:
        row = self.state.rows[shard]
        if row.primary == NOBODY or not self.current(row.primary):
            return None
        if any(
            (asked.shard, asked.epoch, asked.version) == (shard, row.epoch, row.version)
            for asked in self.late
        ):
            return None
        behind = [node for node in row.holders if node not in row.in_sync and self.current(node)]
        wanted = set(row.in_sync)
        if everybody or (behind and self.rng.random() < 0.8):
            for node in behind if everybody else [self.rng.choice(behind)]:
                self.processes[node].entries[shard] = self.processes[row.primary].entries[shard]
                wanted.add(node)
        elif len(row.in_sync) > 1:
            other = self.rng.choice([node for node in row.in_sync if node != row.primary])
            if self.current(other) and self.rng.random() < 0.9:
                return None
            wanted.discard(other)
        if wanted == set(row.in_sync):
            return None
        return InSyncRequest(
            shard,
            row.primary,
            self.processes[row.primary].session,
            row.epoch,
            row.version,
            tuple((node, self.processes[node].session) for node in sorted(wanted)),
        )

    def resign(self) -> None:
        """A primary that is to hand over stops, and says so."""
        for shard, row in enumerate(self.state.rows):
            if row.successor != NOBODY and self.current(row.primary) and self.rng.random() < 0.8:
                session = self.processes[row.primary].session
                self.ask(Resigned(ShardId(shard), row.primary, session, row.epoch, row.version))

    def ask(self, asked: InSyncRequest | Resigned) -> None:
        if self.rng.random() < 0.4:
            self.late.append(asked)
        else:
            self.answer(asked)

    def deliver(self) -> None:
        """A late request arrives, after whatever happened meanwhile."""
        if self.late:
            asked = self.late.pop(self.rng.randrange(len(self.late)))
            if self.rng.random() < 0.9:
                self.answer(asked)

    def answer(self, asked: InSyncRequest | Resigned) -> None:
        try:
            if isinstance(asked, Resigned):
                decision = self.controller.decide_resigned(asked)
            else:
                decision = self.controller.decide_in_sync(asked)
        except FencedError:
            self.report.counts["request refused"] += 1
            return
        except InvalidArgumentError:
            self.report.counts["request impossible"] += 1
            return
        sessions = asked.in_sync if isinstance(asked, InSyncRequest) else ()
        for node, session in (*sessions, (asked.node, asked.session)):
            known = self.state.nodes[node].session
            must(session == known, f"node {node}: session {session} passed for {known}")
        self.commit(decision)

    def crash(self) -> None:
        process = self.pick([process for process in self.processes.values() if process.up])
        if process is not None:
            process.up = False
            self.say(f"node {process.id} crashes")

    def restart(self) -> None:
        process = self.pick(list(self.processes.values()))
        if process is None:
            return
        process.up = True
        process.boot += 1
        process.session = 0
        if self.rng.random() < 0.08:
            damaged = [ShardId(s) for s in range(SHARDS) if self.rng.random() < 0.3]
            for shard in damaged:
                process.entries[shard] = 0
            process.damaged = tuple(sorted({*process.damaged, *damaged}))
            self.report.counts["damaged"] += 1
        self.say(f"node {process.id} starts")

    def hide(self) -> None:
        process = self.pick([process for process in self.processes.values() if process.talks])
        if process is not None:
            process.reachable = False
            self.say(f"node {process.id} is cut off")

    def show(self) -> None:
        process = self.pick([p for p in self.processes.values() if not p.reachable])
        if process is not None:
            process.reachable = True

    def leave(self) -> None:
        node = self.rng.choice(sorted(self.state.nodes)) if self.state.nodes else None
        if node is None:
            return
        try:
            self.commit(self.controller.decide_leave(node))
        except InvalidArgumentError:
            self.report.counts["leave refused"] += 1

    def stay(self) -> None:
        leaving = [node.id for node in self.state.sorted_nodes() if node.leaving]
        if leaving:
            self.commit(self.controller.decide_stay(self.rng.choice(leaving)))

    def transfer(self) -> None:
        shard = ShardId(self.rng.randrange(SHARDS))
        row = self.state.rows[shard]
        if row.in_sync and self.controller.rules.room(self.state) > 0:
            try:
                to = self.rng.choice(row.in_sync)
                self.commit(self.controller.decide_transfer(shard, to))
            except InvalidArgumentError:
                self.report.counts["transfer refused"] += 1

    def settings(self) -> None:
        now = self.state.settings
        copies = self.rng.randint(1, 3)
        wanted = replace(
            now,
            copies=copies,
            min_in_sync=self.rng.randint(1, min(2, copies)),
            moves_max=self.rng.randint(1, 4),
        )
        self.commit(self.controller.decide_settings(wanted))

    def refused(self) -> None:
        """Registrations that must never succeed."""
        known = self.pick([p for p in self.processes.values() if p.id in self.state.nodes])
        if known is None:
            return
        honest = self.registration(known)
        for bad in (
            replace(honest, cluster_id=b"another cluster!"),
            replace(honest, directory_cluster_id=b"another cluster!"),
            replace(honest, directory_id=b"another directory"),
            replace(honest, node=NodeId(999)),
        ):
            try:
                self.controller.decide_registration(bad, self.now_ms)
            except InvalidArgumentError:
                continue
            raise ViolationError(f"was not refused: {bad}")

    # --- coming to rest --------------------------------------------------------------------

    def rest(self) -> None:
        """Faults stop; some nodes stay dead. Everything has to become even and quiet."""
        for process in self.processes.values():
            process.reachable = True
            if self.rng.random() < 0.8 and not process.up:
                process.up = True
                process.boot += 1
                process.session = 0
        self.calm = True
        self.say("faults stop")
        moves = self.judge.moves
        quiet = 0
        until_ms = self.now_ms + LOST_AFTER_MS + 3 * self.state.settings.fence_after_ms
        for _ in range(REST_ROUNDS_MAX):
            length = len(self.log)
            self.now_ms += 1_000
            for process in list(self.processes.values()):
                if process.talks:
                    self.talk(process)
            while self.late:
                self.deliver()
            for shard in range(SHARDS):
                asked = self.wish(ShardId(shard), everybody=True)
                if asked is not None:
                    self.answer(asked)
            self.resign()
            self.look()
            quiet = quiet + 1 if len(self.log) == length and not self.late else 0
            if quiet >= 8 and self.now_ms > until_ms:
                break
        else:
            raise ViolationError(f"no rest: {self.report.story[-4:]}")
        self.check_standby()
        self.judge.at_rest(self.state, self.judge.moves - moves)


def walk_many(
    walks: int,
    *,
    first_seed: int = 0,
    mutant: type[Rules] = Rules,
    on_report: Callable[[WalkReport], None] | None = None,
) -> WalkReport | None:
    """Walk with many seeds; return the first that found a violation, or None."""
    for seed in range(first_seed, first_seed + walks):
        report = Walk(seed, mutant).run()
        if on_report is not None:
            on_report(report)
        if report.violation is not None:
            return report
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run walks from the command line; 1 if one found a violation."""
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.controller_walk")
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args(arguments)
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)

    failed = walk_many(
        options.walks,
        first_seed=options.seed,
        mutant=MUTANTS.get(options.mutant, Rules),
        on_report=add,
    )
    for event, count in sorted(total.items()):
        print(f"{count:9} {event}")
    if failed is None:
        print(f"no violation in {options.walks} walks")
        return 0
    print(*failed.story, f"seed {failed.seed}: {failed.violation}", sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
