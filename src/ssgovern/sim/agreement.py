"""An agreed log without consensus: what the drivers of a cluster's metadata may expect of one.

The world itself keeps the one order of entries, elects a candidate that reaches a majority, and
is as unhelpful as consensus may be: an old leader thinks that it leads until it is told or has
been without a majority for a while, an append of which nobody knows the outcome may turn up later
or never, candidates see entries late, and a new one may get a snapshot in their place.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ssgovern.controller.log import Entry
from ssgovern.errors import (
    FencedError,
    InvalidArgumentError,
    NotControllerError,
    OverloadedError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.node.metadata import Metadata
from ssgovern.sim.process import Process
from ssgovern.sim.world import World

_TICK_S: Final = 0.05
_ELECTION_S: Final = (1.0, 2.0)
_DEPOSED_AFTER_S: Final = 2.0


@dataclass(slots=True)
class _Append:
    """An append that is under way at some candidate."""

    log: CandidateLog
    term: int
    body: bytes
    future: asyncio.Future[int]


class Agreement:
    """The order of entries, and who leads. Part of the world: survives every process."""

    def __init__(self, world: World, candidates: Iterable[NodeId], shards: int) -> None:
        self.world = world
        self.rng = random.Random(f"{world.seed}/agreement")
        self.entries: list[bytes] = []
        self.term = 0
        self.leader = NodeId(0)
        self.elections = 0
        self.append_s = (0.001, 0.01)
        self.is_harsh = True
        """Some outcomes are never known to who asked."""
        self.candidates = tuple(candidates)
        self.learners: tuple[NodeId, ...] = ()
        self.logs: dict[NodeId, CandidateLog] = {}
        """Of the processes that run, or ran last."""
        self.reference = Metadata(shards)
        """What replaying all of it makes."""
        self._term_start = 0
        self._leading: CandidateLog | None = None
        self._leaderless_since = 0.0
        self._patience_s = 0.5
        self._pending: list[_Append] = []
        world.after(_TICK_S, self._tick)

    # --- the world's part ------------------------------------------------------------------

    def reaches(self, source: Process, target: Process) -> bool:
        """Whether two processes can talk to each other now."""
        if not (source.alive and target.alive) or source.paused or target.paused:
            return False
        if source.machine is target.machine:
            return True
        network = self.world.network
        ways = ((source, target), (target, source))
        return not any(network.link(a.machine.name, b.machine.name).cut for a, b in ways)

    def _has_majority(self, node: NodeId) -> bool:
        log = self.logs.get(node)
        if log is None or not log.process.alive or log.process.paused:
            return False
        heard = sum(
            other in self.logs and self.reaches(log.process, self.logs[other].process)
            for other in self.candidates
        )
        return heard * 2 > len(self.candidates)

    def _tick(self) -> None:
        now = self.world.now
        self.world.after(_TICK_S, self._tick)
        self._notice_death()
        if self.leader in self.candidates and self._has_majority(self.leader):
            self._leaderless_since = now
            self.logs[self.leader].note_confirmed()
        elif now - self._leaderless_since >= self._patience_s:
            self._elect()
        for log in list(self.logs.values()):
            if log.process.paused:
                # It counts the time in which it runs.
                log.alone_since += _TICK_S
            elif log.process.alive:
                self._inform(log)

    def _notice_death(self) -> None:
        """Who starts again does not lead any more, however quickly it came back."""
        if self.logs.get(self.leader) is not self._leading or (
            self._leading is not None and self._leading.is_dead()
        ):
            self.leader, self._leading = NodeId(0), None

    def _elect(self, preferred: NodeId | None = None) -> None:
        able = [node for node in self.candidates if self._has_majority(node)]
        if not able:
            return
        self.leader = preferred if preferred in able else self.rng.choice(able)
        self._leading = self.logs[self.leader]
        self.term += 1
        self.elections += 1
        self._leaderless_since = self.world.now
        self._patience_s = self.rng.uniform(*_ELECTION_S)
        for append in [append for append in self._pending if append.term < self.term]:
            self._pending.remove(append)
            # It was on some disks: the new leader has it, or not.
            if self.rng.random() < 0.5:
                self._commit(append.body)
        self._commit(b"")
        self._term_start = len(self.entries)

    def _inform(self, log: CandidateLog) -> None:
        """Let a candidate know what it can know."""
        leader = self.logs.get(self.leader)
        if leader is log:
            hears_leader = self._has_majority(self.leader)
        else:
            hears_leader = leader is not None and self.reaches(leader.process, log.process)
        if hears_leader:
            log.alone_since = self.world.now
            delay_s = self.rng.uniform(0.0, 0.03)
            self.world.after(delay_s, log.learn, self.leader, self.term, self._term_start)
        elif log.believes_leader and self.world.now - log.alone_since > _DEPOSED_AFTER_S:
            if leader is log:
                # It takes an election to lead again.
                self.leader, self._leading = NodeId(0), None
            self.world.after(0.0, log.learn, NodeId(0), log.term, 0)

    def _commit(self, body: bytes) -> int:
        self.entries.append(body)
        self.reference.apply(len(self.entries), body)
        return len(self.entries)

    def append(self, append: _Append) -> None:
        """Take an append, a moment later; never one of an old leader."""
        if append.term != self.term:
            return
        self._pending.append(append)
        self.world.after(self.rng.uniform(*self.append_s), self._try, append)

    def _try(self, append: _Append) -> None:
        if append not in self._pending:
            return
        self._notice_death()
        if append.term != self.term or not self._has_majority(self.leader):
            # Nobody knows: tried again until this leader, or another, knows.
            self.world.after(0.05, self._try, append)
            return
        self._pending.remove(append)
        index = self._commit(append.body)
        if self.is_harsh and self.rng.random() < 0.01:
            # It is done, and who asked never hears of it.
            self._elect()
            return
        append.log.deliver(self.term, index, append.future)

    def transfer(self, target: NodeId) -> None:
        """Elect a candidate, if it can be."""
        self._elect(preferred=target)


class CandidateLog:
    """What one process sees of the agreement: the seam that the controller's driver uses."""

    def __init__(
        self, agreement: Agreement, node: NodeId, process: Process, metadata: Metadata
    ) -> None:
        self.process = process
        self.believes_leader = False
        self.alone_since = agreement.world.now
        self.on_role: Callable[[], None] = lambda: None
        self._agreement = agreement
        self._node = node
        self._metadata = metadata
        self._term = 0
        self._term_start = 0
        self._leader = NodeId(0)
        self._confirmed_at = -1e9
        self._loop = asyncio.get_running_loop()
        self._incarnation = process.incarnation
        self._waiting: list[asyncio.Future[int]] = []
        agreement.logs[node] = self

    # --- called by the world ---------------------------------------------------------------

    def is_dead(self) -> bool:
        return not self.process.alive or self.process.incarnation != self._incarnation

    def note_confirmed(self) -> None:
        self._confirmed_at = self.process.monotonic()

    def learn(self, leader: NodeId, term: int, term_start: int) -> None:
        if not self.is_dead():
            self._loop.call_soon(self._learn, leader, term, term_start)

    def deliver(self, term: int, index: int, future: asyncio.Future[int]) -> None:
        if not self.is_dead():
            self._loop.call_soon(self._deliver, term, index, future)

    # --- in the process --------------------------------------------------------------------

    def _learn(self, leader: NodeId, term: int, term_start: int) -> None:
        if term < self._term:
            return
        before = self._leader, self._term, self.is_leader
        self._leader, self._term, self._term_start = leader, term, term_start
        self.believes_leader = leader == self._node
        self._apply(len(self._agreement.entries))
        if not self.believes_leader or term != before[1]:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_exception(UnavailableError("lost the lead meanwhile"))
        if before != (self._leader, self._term, self.is_leader):
            self.on_role()

    def _apply(self, index: int) -> None:
        reference, behind = self._agreement.reference, index - self._metadata.index
        if behind > 20 and self._agreement.rng.random() < 0.5:
            self._metadata.on_restored(Entry(reference.index, reference.snapshot()))
        self._apply_one_by_one(self._metadata.index + 1, index)

    def _apply_one_by_one(self, first: int, last: int) -> None:
        entries = self._agreement.entries
        self._metadata.on_applied(
            Entry(number, entries[number - 1]) for number in range(first, last + 1)
        )

    def _deliver(self, term: int, index: int, future: asyncio.Future[int]) -> None:
        self._apply_one_by_one(self._metadata.index + 1, index)
        if not future.done():
            future.set_result(index)

    # --- the seam --------------------------------------------------------------------------

    @property
    def term(self) -> int:
        return self._term

    @property
    def leader_id(self) -> NodeId | None:
        return self._leader or None

    @property
    def is_leader(self) -> bool:
        return self.believes_leader and self._metadata.index >= self._term_start

    @property
    def confirmed_at(self) -> float:
        return self._confirmed_at if self.is_leader else 0.0

    @property
    def candidates(self) -> tuple[NodeId, ...]:
        return self._agreement.candidates

    @property
    def learners(self) -> tuple[NodeId, ...]:
        return self._agreement.learners

    async def append(self, body: bytes, *, after: int) -> int:
        if not self.is_leader:
            raise FencedError("this node is not the controller")
        if any(self._agreement.entries[after : self._metadata.index]) or self._waiting:
            raise FencedError(f"there is another record behind {after}")
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting.append(future)
        try:
            self._agreement.append(_Append(self, self._term, body, future))
            return await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int:
        self._must_lead()
        voters, learners = tuple(sorted(voters)), tuple(sorted(learners))
        before = (*self._agreement.candidates, *self._agreement.learners)
        if any(node not in before for node in voters):
            raise InvalidArgumentError("a new voter has to be a learner")
        if any(
            node not in self._agreement.logs
            or self._agreement.logs[node]._metadata.index + 5 < self._metadata.index
            for node in voters
        ):
            raise OverloadedError("not caught up")
        await asyncio.sleep(0.01)
        self._must_lead()
        self._agreement.candidates, self._agreement.learners = voters, learners
        return self._metadata.index

    async def transfer(self, target: NodeId) -> bool:
        self._must_lead()
        if target not in self._agreement.candidates:
            raise InvalidArgumentError(f"node {target} is no voter")
        self._agreement.world.after(0.01, self._agreement.transfer, target)
        for _ in range(10):
            await asyncio.sleep(0.1)
            if not self.believes_leader:
                return True
        return False

    def _must_lead(self) -> None:
        if not self.is_leader or self._agreement.leader != self._node:
            raise NotControllerError("another leads", controller=self._leader)
