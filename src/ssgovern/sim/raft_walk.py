"""Random walks over bare Raft cores: no loop, no time, only events in an order that a seed
chooses. Far cheaper than whole nodes, so it sees the rare interleavings.

The world is as bad as the protocol allows: messages are lost, doubled, reordered and cut off in
one direction; syncs take a while, in which events go on; crashes lose what was not synced, or
all but a prefix of it; members come and go; logs are compacted under slow followers. At the end
of some walks everything heals, and the group has to agree again.

What must hold: C1 one leader per term; C2 nodes apply the same entry at the same index, in
order, and snapshots hold the state they claim; C3 terms and commit indexes never fall; logs that
share an entry share its prefix; a leader holds all that was committed in earlier terms; a read
sees all that was committed before it was asked for.

`python -m ssgovern.sim.raft_walk --walks N --seed S [--mutant NAME]`
"""

from __future__ import annotations

import argparse
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from ssgovern.model import NodeId
from ssgovern.raft import (
    Config,
    Entry,
    HardState,
    Message,
    Raft,
    Ready,
    SafetyViolationError,
    Settings,
    Snapshot,
)
from ssgovern.sim.raft_mutants import MUTANTS

CLUSTER: Final = b"walk"
STEPS: Final = 1500
SPARE: Final = 2
"""Nodes that are no members at first."""
_NET_MAX: Final = 150
_CALM_ROUNDS: Final = 150


class ViolationError(Exception):
    """An invariant does not hold."""


class WalkReport(NamedTuple):
    seed: int
    steps: int
    violation: str | None
    counts: Counter[str]
    stories: list[str]


class _Disk:
    """What one node has synced."""

    __slots__ = ("entries", "hard", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.hard = HardState()
        self.snapshot = snapshot
        self.entries: list[Entry] = []

    def write(self, batch: Ready) -> None:
        if batch.snapshot is not None:
            self.snapshot, self.entries = batch.snapshot, []
        if batch.hard_state is not None:
            self.hard = batch.hard_state
        self.write_entries(batch.entries)

    def write_entries(self, entries: tuple[Entry, ...]) -> None:
        if entries:
            first = entries[0].index
            while self.entries and self.entries[-1].index >= first:
                self.entries.pop()
            self.entries += entries

    def write_part(self, batch: Ready, parts: int) -> None:
        """Write a prefix: the snapshot, the promise, then entries, as far as `parts` goes."""
        if parts > 0 and batch.snapshot is not None:
            # The log it replaces is dropped after it; a crash may come between.
            self.snapshot = batch.snapshot
        if parts > 1 and batch.snapshot is not None:
            self.entries = []
        if parts > 2 and batch.hard_state is not None:
            self.hard = batch.hard_state
        if parts > 3:
            self.write_entries(batch.entries[: parts - 3])


class Walk:
    """One walk. Everything it does follows from the seed."""

    def __init__(self, seed: int, raft: type[Raft] = Raft) -> None:
        self.seed = seed
        self._rng = rng = random.Random(seed)
        self._raft = raft
        self._short_lives = rng.random() < 0.25
        """Leaders that die early and have rivals, with one entry per append: what it takes to
        see entries of several terms at one index."""
        voters = rng.choice((3, 5)) if self._short_lives else rng.choice((3, 3, 3, 5, 1))
        self._members_change = not self._short_lives and (voters == 1 or rng.random() < 0.5)
        spare = SPARE if self._members_change else 0
        self._ids = [NodeId(number) for number in range(1, voters + spare + 1)]
        self._settings = Settings(
            election_ticks=3 if self._short_lives else rng.choice((3, 5, 10)),
            append_entries_max=1 if self._short_lives else rng.choice((1, 1, 2, 64)),
            appends_in_flight_max=rng.choice((1, 2, 8)),
            snapshot_chunk_bytes=rng.choice((2, 64)),
            caught_up_entries=rng.choice((1, 8)),
        )
        self._compacts = rng.random() < 0.7
        self._crash_share = 0.02 if self._short_lives else rng.choice((0.001, 0.005, 0.02))
        self._amnesia_share = rng.choice((0.0, 0.3))
        self._partition_share = rng.choice((0.003, 0.01, 0.025))
        self._tick_share = rng.choice((0.15, 0.25, 0.35))
        self._quick_share = rng.choice((0.95, 0.95, 0.5, 0.2))
        """How many of the syncs are done before anything else happens."""
        self._slow = NodeId(0)
        """The node whose clock hardly goes: it was paused, or has a slow disk."""
        begin = Snapshot(0, 0, Config(tuple(self._ids[:voters])), _payload(0, 0))
        self._disks = {
            node: _Disk(begin if node <= voters else Snapshot(payload=_payload(0, 0)))
            for node in self._ids
        }
        self._cores: dict[NodeId, Raft] = {}
        self._batches: dict[NodeId, Ready | None] = {}
        self._chains: dict[NodeId, int] = {}
        """What each node has applied, as a checksum."""
        self._commits: dict[NodeId, int] = {}
        self._terms: dict[NodeId, int] = dict.fromkeys(self._ids, 0)
        self._net: list[Message] = []
        self._cut: dict[tuple[NodeId, NodeId], bool] = {}
        self._leaders: dict[int, NodeId] = {}
        self._applied: list[Entry] = []
        """By index from 1 on: what was applied, by whoever was first."""
        self._truth: list[int] = [0]
        """Checksums of the state at each index."""
        self._committed: list[tuple[int, int]] = []
        """By index from 1 on: term of the entry, and term in which it was committed."""
        self.counts: Counter[str] = Counter()
        self._proposals = 0
        for node in self._ids:
            self._boot(node)

    # --- one node --------------------------------------------------------------------------

    def _boot(self, node: NodeId) -> None:
        disk = self._disks[node]
        core = self._raft(
            CLUSTER,
            node,
            self._rng.randrange,
            hard_state=disk.hard,
            snapshot=disk.snapshot,
            entries=disk.entries,
            settings=self._settings,
        )
        self._cores[node] = core
        self._batches[node] = None
        self._commits[node] = core.log.commit
        self._terms[node] = core.term
        self._restore(node, disk.snapshot)
        core.validate()

    def _restore(self, node: NodeId, snapshot: Snapshot) -> None:
        index, chain = _parse(snapshot.payload)
        if index != snapshot.index or chain != self._truth[index]:
            raise ViolationError(f"node {node} has another state at {index}: {snapshot!r}")
        self._chains[node] = chain

    def _send(self, messages: list[Message] | tuple[Message, ...]) -> None:
        for message in messages:
            if (message.source, message.target) not in self._cut:
                self._net.append(message)
        if len(self._net) > _NET_MAX:
            del self._net[: _NET_MAX // 2]

    def _begin_sync(self, node: NodeId) -> None:
        if self._batches[node] is None:
            self._batches[node] = self._cores[node].ready()

    def _end_sync(self, node: NodeId) -> None:
        batch, core = self._batches[node], self._cores[node]
        if batch is None:
            return
        self._batches[node] = None
        self._disks[node].write(batch)
        core.persisted(batch)
        self._send(batch.messages)
        self._apply(node, batch)
        self._watch(node)
        promised = batch.hard_state is not None and batch.hard_state.vote not in (None, node)
        if promised and self._rng.random() < self._amnesia_share:
            # The moment at which a vote that is only said, not written, would be given twice.
            self._crash(node)

    def _apply(self, node: NodeId, batch: Ready) -> None:
        if batch.snapshot is not None:
            self._restore(node, batch.snapshot)
            self.counts["snapshot installed"] += 1
        for entry in batch.committed:
            chain = zlib.crc32(repr(entry).encode(), self._chains[node])
            self._chains[node] = chain
            if entry.index == len(self._applied) + 1:
                self._applied.append(entry)
                self._truth.append(chain)
                self.counts["applied"] += 1
            elif entry != self._applied[entry.index - 1] or chain != self._truth[entry.index]:
                first = self._applied[entry.index - 1]
                raise ViolationError(f"node {node} applies {entry!r}, another {first!r}")
        for index, asked in batch.reads:
            assert isinstance(asked, int), "what this walk gave"
            self.counts["read"] += 1
            if index < asked:
                raise ViolationError(f"stale read at {index}, {asked} was committed: {node}")
        self.counts["read lost"] += len(batch.lost_reads)

    def _crash(self, node: NodeId) -> None:
        """Lose what was not synced: nothing, all, or all but a prefix of the last batch."""
        rng = self._rng
        if rng.random() < 0.7:
            self._begin_sync(node)
        batch = self._batches[node]
        kind = rng.randrange(3)
        if batch is not None and kind:
            parts = 4 + len(batch.entries)
            self._disks[node].write_part(batch, parts if kind == 1 else rng.randrange(parts))
        self.counts["crash"] += 1
        self._boot(node)

    def _compact(self, node: NodeId) -> None:
        """Snapshot what this node applied; only when nothing is on its way to its disk."""
        core, disk = self._cores[node], self._disks[node]
        log = core.log
        if self._batches[node] is not None or log.applied - log.snapshot.index < 6:
            return
        if log.applied > log.handed:
            return
        index = log.applied
        snapshot = core.compact(
            index, _payload(index, self._chains[node]), keep=self._rng.choice((0, 0, 3))
        )
        disk.snapshot = snapshot
        if self._rng.random() < 0.8:
            disk.entries = [entry for entry in disk.entries if entry.index > index]
        self.counts["compaction"] += 1

    # --- what must hold --------------------------------------------------------------------

    def _watch(self, node: NodeId) -> None:
        core = self._cores[node]
        log = core.log
        if core.term < self._terms[node] or log.commit < self._commits[node]:
            raise ViolationError(f"term or commit index fell: {core!r}")
        self._terms[node] = core.term
        if log.commit > self._commits[node]:
            self._watch_commit(node, self._commits[node])
            self._commits[node] = log.commit
        if core.leader is not None and self._leaders.get(core.term) != node:
            if core.term in self._leaders:
                raise ViolationError(f"two leaders in term {core.term}: {core!r}")
            self._leaders[core.term] = node
            self.counts["election"] += 1
            self._watch_completeness(core)

    def _watch_commit(self, node: NodeId, before: int) -> None:
        core = self._cores[node]
        for index in range(max(before, core.log.base_index) + 1, core.log.commit + 1):
            term = core.log.term_at(index)
            assert term is not None, "within the log"
            if index > len(self._committed):
                if index > len(self._committed) + 1:
                    raise ViolationError(f"{index} is committed, those before are not: {core!r}")
                self._committed.append((term, core.term))
            elif self._committed[index - 1][0] != term:
                raise ViolationError(f"{index} is committed with two terms: {core!r}")

    def _watch_completeness(self, core: Raft) -> None:
        log = core.log
        for index in range(log.base_index + 1, len(self._committed) + 1):
            term, committed_in = self._committed[index - 1]
            if committed_in < core.term and log.term_at(index) != term:
                raise ViolationError(f"leads without committed {term}/{index}: {core!r}")

    def _watch_matching(self, one: Raft, other: Raft) -> None:
        low = max(one.log.base_index, other.log.base_index)
        index = min(one.log.last_index, other.log.last_index)
        while index > low and one.log.term_at(index) != other.log.term_at(index):
            index -= 1
        if index > low and one.log.entries(low + 1, index) != other.log.entries(low + 1, index):
            raise ViolationError(f"logs differ below {index}: {one!r} {other!r}")

    # --- steps -----------------------------------------------------------------------------

    def step(self) -> None:
        rng = self._rng
        choice = rng.random()
        node = self._ids[int(rng.random() * len(self._ids))]
        if choice < self._tick_share:
            if node != self._slow or rng.random() < 0.1:
                self._cores[node].tick()
        elif choice < 0.82:
            if not self._net:
                return
            node = self._deliver()
        elif choice < 0.90:
            node = self._request(node)
        elif choice < 0.93:
            self._end_sync(node)
        elif choice < 0.94:
            self._cores[node].validate()
            self._watch_matching(self._cores[node], self._cores[rng.choice(self._ids)])
        elif choice < 0.955 and self._compacts:
            self._compact(node)
        elif choice < 0.965 and self._members_change:
            self._change_members()
        elif choice < 0.968:
            self._hand_over()
        elif choice < 0.974 and self._short_lives:
            # Two at once, as the jitter of time-outs would seldom have it.
            for rival in rng.sample(self._ids, 2):
                self._cores[rival].campaign()
                self._send(self._cores[rival].urgent())
        elif choice < 0.978 and self._short_lives:
            # Right or wrong: it must only cost an election.
            leader = self._cores[node].leader_id
            if leader is not None:
                self._cores[node].leader_gone(leader)
        self._watch(node)
        if rng.random() < 0.9:
            self._send(self._cores[node].urgent())
        if rng.random() < 0.8:
            self._begin_sync(node)
            if rng.random() < self._quick_share:
                self._end_sync(node)
        trouble = rng.random()
        if trouble < self._crash_share:
            leading = self._leading() if rng.random() < 0.4 else None
            self._crash(rng.choice(self._ids) if leading is None else leading.id)
        elif trouble < self._crash_share + self._partition_share:
            self._partition()

    def _deliver(self) -> NodeId:
        rng, net = self._rng, self._net
        # Mostly in order: with pure chaos hardly a follower would ever be up to date.
        place = int(rng.random() * len(net)) if rng.random() < 0.3 else 0
        message = net[place] if rng.random() < 0.04 else net.pop(place)
        if rng.random() > 0.03 and (message.source, message.target) not in self._cut:
            self._cores[message.target].step(message)
        return message.target

    def _request(self, node: NodeId) -> NodeId:
        # Mostly of one that leads or thinks so: the others only refuse.
        core = (self._leading() if self._rng.random() < 0.8 else None) or self._cores[node]
        self._proposals += 1
        core.propose(b"%d" % self._proposals)
        if self._rng.random() < 0.4:
            core.read(len(self._committed))
        return core.id

    def _partition(self) -> None:
        rng = self._rng
        self._cut = {}
        self._slow = rng.choice(self._ids) if rng.random() < 0.4 else NodeId(0)
        kind = rng.random()
        if kind < 0.4:
            leading = self._leading() if rng.random() < 0.6 else None
            alone = rng.choice(self._ids) if leading is None else leading.id
            self._slow = alone if rng.random() < 0.5 else self._slow
            for node in self._ids:
                if node != alone:
                    self._cut[alone, node] = self._cut[node, alone] = True
        elif kind < 0.55:
            here = rng.sample(self._ids, len(self._ids) // 2)
            for one in here:
                for other in self._ids:
                    if other not in here:
                        self._cut[one, other] = self._cut[other, one] = True
        elif kind < 0.7:
            for _ in self._ids:
                one, other = rng.sample(self._ids, 2)
                self._cut[one, other] = True

    def _leading(self) -> Raft | None:
        leading = [core for core in self._cores.values() if core.leader is not None]
        return self._rng.choice(leading) if leading else None

    def _change_members(self) -> None:
        core, rng = self._leading(), self._rng
        if core is None or core.leader is None:
            return
        config = core.log.config
        voters, learners = list(config.voters), list(config.learners)
        outside = [node for node in self._ids if node not in config.members()]
        ready = [node for node in learners if core.leader.is_caught_up(node)]
        kind = rng.randrange(4)
        if outside and (kind == 0 or not (learners or len(voters) > 2)):
            learners.append(rng.choice(outside))
        elif ready and kind <= 2:
            added = ready[: rng.choice((1, 2))]
            voters += added
            learners = [node for node in learners if node not in added]
            if kind == 2 and len(voters) > 2:
                voters.remove(rng.choice(voters))
        elif len(voters) > 1:
            for _ in range(rng.choice((1, 1, 2))):
                if len(voters) > 1:
                    voters.remove(rng.choice(voters))
        self.counts[f"change: {type(core.change_members(voters, learners)).__name__}"] += 1
        self._watch(core.id)

    def _hand_over(self) -> None:
        core = self._leading()
        if core is not None and core.transfer(self._rng.choice(self._ids)) is None:
            self.counts["transfer"] += 1

    # --- the end ---------------------------------------------------------------------------

    def calm(self) -> None:
        """Heal everything, and demand that the members agree again."""
        self._cut = {}
        for round_ in range(_CALM_ROUNDS):
            for node in self._ids:
                self._cores[node].tick()
                self._work(node)
            for _ in range(8):
                net, self._net = self._net, []
                for message in net:
                    self._cores[message.target].step(message)
                for node in self._ids:
                    self._work(node)
            if round_ == _CALM_ROUNDS // 2:
                leading = self._newest_leader()
                if leading is None or not isinstance(leading.propose(b"calm"), tuple):
                    raise ViolationError("no leader that takes a proposal after all has healed")
        leading = self._newest_leader()
        assert leading is not None, "there was one, and nothing happened since"
        log = leading.log
        for node in log.config.members():
            other = self._cores[node].log
            if log.commit != log.last_index or other.applied != log.applied:
                raise ViolationError(f"no convergence: {leading!r} {self._cores[node]!r}")

    def _newest_leader(self) -> Raft | None:
        leading = [core for core in self._cores.values() if core.leader is not None]
        return max(leading, key=lambda core: core.term, default=None)

    def _work(self, node: NodeId) -> None:
        self._watch(node)
        self._send(self._cores[node].urgent())
        self._begin_sync(node)
        self._end_sync(node)

    def run(self, steps: int = STEPS) -> WalkReport:
        violation: str | None = None
        step = 0
        try:
            for step in range(steps):  # noqa: B007  # the report says how far it came
                self.step()
            if self.seed % 8 == 0:
                self.counts["calm"] += 1
                self.calm()
        except (ViolationError, SafetyViolationError, AssertionError) as error:
            violation = f"{type(error).__name__}: {error}"
        stories: list[str] = []
        if violation is not None:
            for node, core in self._cores.items():
                stories += [f"node {node}: {line}" for line in core.story()]
                stories.append(repr(core))
        self.counts["step"] += step + 1
        self.counts["walk"] += 1
        return WalkReport(self.seed, step, violation, self.counts, stories)


def _payload(index: int, chain: int) -> bytes:
    return b"%d %d" % (index, chain)


def _parse(payload: bytes) -> tuple[int, int]:
    index, chain = payload.split()
    return int(index), int(chain)


def search(
    walks: int,
    *,
    first_seed: int = 0,
    raft: type[Raft] = Raft,
    on_report: Callable[[WalkReport], None] | None = None,
) -> WalkReport | None:
    """Run seeds until one violates an invariant. Return its report, None if none does."""
    for seed in range(first_seed, first_seed + walks):
        report = Walk(seed, raft).run()
        if on_report is not None:
            on_report(report)
        if report.violation is not None:
            return report
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.raft_walk")
    parser.add_argument("--walks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this bug")
    options = parser.parse_args(arguments)
    raft = MUTANTS[options.mutant] if options.mutant else Raft
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)

    failed = search(options.walks, first_seed=options.seed, raft=raft, on_report=add)
    for event, count in sorted(total.items()):
        print(f"{count:12,} x {event}")
    if failed is None:
        return 0
    print("\n".join(failed.stories))
    print(f"violation at step {failed.steps}: {failed.violation}")
    again = f" --mutant {options.mutant}" if options.mutant else ""
    print(f"again: python -m ssgovern.sim.raft_walk --walks 1 --seed {failed.seed}{again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
