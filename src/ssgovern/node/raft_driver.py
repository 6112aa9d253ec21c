"""The owner of this candidate's Raft: its clock, its disk, its messages; the metadata log.

Does what the core says in the order of `Ready`, and refuses to know what entries mean, how
messages travel, and who the controller is besides who leads.

Invariants:
- One batch is written at a time, with one sync, and nothing that it promises leaves before.
  What promises nothing leaves at once, whatever the disk does: no election because of a slow one.
- One tick per wake-up: a loop that stood still does not catch up, or it would stand for election
  for having slept.
- What was applied was handed to `on_applied` in order, without gaps, before anybody's `append`
  of it returns.
- A full disk promises nothing and loses nothing: the same batch is written again until it fits.
  A candidate that leads meanwhile offers its office to another, since it can do nothing in it.
- Anything else that fails ends `run`: a core that is in doubt does not go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ssgovern import limits
from ssgovern.controller.log import Entry
from ssgovern.errors import (
    DiskFullError,
    FencedError,
    InvalidArgumentError,
    LimitExceededError,
    NotControllerError,
    OverloadedError,
    RemoteProtocolError,
    ShuttingDownError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.node.raft_codec import decode_messages, encode_messages
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.raft import (
    Accepted,
    Message,
    Raft,
    Ready,
    Refusal,
    SafetyViolationError,
    Settings,
    Snapshot,
)
from ssgovern.raft import Entry as RaftEntry
from ssgovern.raft.messages import Append, InstallSnapshot
from ssgovern.runtime import Runtime

log = logging.getLogger("ssgovern.raft")

SETTINGS: Final = Settings(
    append_bytes_max=limits.RAFT_MESSAGE_BYTES_MAX,
    appends_in_flight_max=limits.RAFT_APPENDS_IN_FLIGHT_MAX,
    snapshot_chunk_bytes=limits.RAFT_MESSAGE_BYTES_MAX,
)
"""With ticks of 100 ms: elections after 1 to 2 s of silence, heartbeats each 100 ms."""

_MARK_AFTER_S: Final = 1.0
_MESSAGE_BYTES: Final = 64
"""About what a message takes besides the payloads in it, and an entry besides its own."""
_TRY_AGAIN: Final = (Refusal.FULL, Refusal.TRANSFERRING, Refusal.CHANGE_IN_PROGRESS)


class _Waiter(NamedTuple):
    """Somebody who wants to know whether the entry of this term is the one at its index."""

    term: int
    future: asyncio.Future[int]


class RaftDriver:
    """Owner of one `Raft` and its storage; a `controller.log.MetadataLog`.

    `send` takes an encoded `RaftBatch` for one node and may drop it. `on_applied` gets committed
    entries in order, also those that are consensus' own (with an empty body); `on_restored` a
    snapshot in place of all entries up to its index: at the start, and when this candidate had
    fallen far behind. `on_role` is called when `term`, `leader_id` or `is_leader` changed.
    `snapshot` encodes the state as it is at the last applied entry. All of these are called
    from within, and must neither block nor raise.
    """

    def __init__(
        self,
        raft: Raft,
        storage: RaftStorage,
        runtime: Runtime,
        *,
        send: Callable[[NodeId, bytes], bool],
        on_applied: Callable[[Sequence[Entry]], None],
        on_restored: Callable[[Entry], None],
        on_role: Callable[[], None],
        snapshot: Callable[[], bytes],
        tick_ms: int = limits.RAFT_TICK_MS,
    ) -> None:
        self._raft = raft
        self._storage = storage
        self._runtime = runtime
        self._send_body = send
        self._on_applied = on_applied
        self._on_restored = on_restored
        self._on_role = on_role
        self._encode_state = snapshot
        self._tick_s = tick_ms / 1000.0
        self._loop = asyncio.get_running_loop()
        self._tick_times: deque[float] = deque(
            [self._loop.time()], maxlen=4 * raft.state.settings.election_ticks
        )
        """When the last ticks were; the last one is that of the core's own `now`."""
        self._role = (raft.term, raft.leader_id, False)
        self._waiters: dict[int, _Waiter] = {}
        self._reads = 0
        self._wake: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._closed = False
        self._unmarked_since: float | None = None
        self._to_compact: Snapshot | None = None
        self._compact_wanted = asyncio.Event()
        self._uncompacted_entries = 0
        self._uncompacted_bytes = 0
        self.applied_index = 0
        """The last entry that `on_applied` or `on_restored` was given."""
        self.disk_full = ""
        """Why nothing can be written; empty while the disk takes what it is given."""

    def __repr__(self) -> str:
        return f"<RaftDriver applied={self.applied_index} {self._raft!r}>"

    # --- what is known ---------------------------------------------------------------------

    @property
    def id(self) -> NodeId:
        return self._raft.id

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def leader_id(self) -> NodeId | None:
        """Who leads, as far as this candidate knows. A leader need not be ready to decide yet."""
        return self._raft.leader_id

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads and has applied all that its predecessors committed."""
        leader = self._raft.leader
        return leader is not None and self.applied_index >= leader.term_start

    @property
    def confirmed_at(self) -> float:
        """Return a moment, in `loop.time()`, before which no other candidate had been elected
        in a later term; 0.0 if this one is not the controller.

        A majority obeyed this one after that moment; it leans on no other clock. How much later
        others may have been elected is not known here: who needs certainty asks `confirm_read`.
        """
        leader = self._raft.leader
        if leader is None or not self.is_leader:
            return 0.0
        ticks_ago = self._raft.state.settings.election_ticks - leader.lease_ticks_left()
        if not 0 <= ticks_ago < len(self._tick_times):
            return 0.0
        return self._tick_times[-1 - ticks_ago]

    @property
    def candidates(self) -> tuple[NodeId, ...]:
        """Who votes, by the last entry about it, committed or not."""
        return tuple(self._raft.log.config.all_voters())

    @property
    def learners(self) -> tuple[NodeId, ...]:
        return self._raft.log.config.learners

    def story(self) -> list[str]:
        """Return the last turns of this candidate's life, oldest first."""
        return self._raft.story()

    def read(self, after: int) -> list[Entry] | None:
        """Return what was applied behind an index; None if a snapshot is in its place."""
        raft_log = self._raft.log
        if after < raft_log.base_index:
            return None
        return [_committed(entry) for entry in raft_log.entries(after + 1, self.applied_index)]

    # --- requests --------------------------------------------------------------------------

    async def append(self, body: bytes, *, after: int) -> int:
        """Commit an entry behind all records up to `after`; see `MetadataLog.append`."""
        assert body, "an empty body is an entry of the log's own"
        if len(body) > limits.METADATA_ENTRY_BYTES_MAX:
            raise LimitExceededError(
                f"an entry of {len(body)} bytes for the metadata log, "
                f"{limits.METADATA_ENTRY_BYTES_MAX} are allowed",
                limit="METADATA_ENTRY_BYTES_MAX",
            )
        if not self.is_leader:
            raise FencedError("this node is not the controller")
        if self._has_records_after(after):
            raise FencedError(f"there is another record behind {after} in the metadata log")
        return await self._outcome(self._propose(body))

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int:
        """Change who votes and who listens; return the index at which it is done.

        A new voter has to be a learner that caught up. Raises NotControllerError,
        OverloadedError (nothing was done, try again; a learner is behind, too),
        InvalidArgumentError, UnavailableError
        if this node stopped being the leader meanwhile: then the change may be done, or undone,
        or half way and completed by the next leader.
        """
        self._check_room()
        voters = tuple(voters)
        result = self._raft.change_members(voters, learners)
        if result is Refusal.NOT_CAUGHT_UP and set(voters) <= {*self.candidates, *self.learners}:
            raise OverloadedError("a learner has not caught up yet; nothing was done")
        index = await self._outcome(self._accepted(result))
        # The first of two entries asks both groups; when it is committed the second follows.
        raft_log = self._raft.log
        last, term = raft_log.config_index, raft_log.term_at(raft_log.config_index)
        if last > self.applied_index and term is not None:
            return await self._outcome(Accepted(last, term))
        return max(index, last)

    def leader_gone(self, node: NodeId) -> None:
        """Take note that no process answers where the leader was: it need not be waited for."""
        if self._raft.leader_id == node:
            self._raft.leader_gone(node)
            self._stir()

    async def transfer(self, target: NodeId) -> bool:
        """Hand leadership to another voter; return whether this node no longer leads.

        Raises NotControllerError, InvalidArgumentError if the node is no voter, OverloadedError.
        """
        term = self.term
        self._refuse(self._raft.transfer(target))
        self._stir()
        while (leader := self._raft.leader) is not None and self.term == term:
            if leader.transferee is None:
                return False
            await asyncio.sleep(self._tick_s)
        return True

    async def confirm_read(self) -> int:
        """Return an index, already applied here, behind which nothing was committed before this
        call. Raises NotControllerError if this node does not lead (any more)."""
        if self._closed:
            raise ShuttingDownError("this node is stopping")
        if self._reads >= limits.METADATA_WAITING_MAX:
            raise OverloadedError(f"{self._reads} reads wait to be confirmed already")
        confirmed: asyncio.Future[int] = self._loop.create_future()
        self._refuse(self._raft.read(confirmed))
        self._reads += 1
        self._stir()
        return await confirmed

    def _has_records_after(self, after: int) -> bool:
        raft_log = self._raft.log
        if not raft_log.base_index <= after <= raft_log.last_index:
            return True
        entries = raft_log.entries(after + 1, raft_log.last_index)
        return any(isinstance(entry.payload, bytes) for entry in entries)

    def _propose(self, body: bytes) -> Accepted:
        self._check_room()
        return self._accepted(self._raft.propose(body))

    def _check_room(self) -> None:
        if self._closed:
            raise ShuttingDownError("this node is stopping")
        if len(self._waiters) >= limits.METADATA_WAITING_MAX:
            raise OverloadedError(f"{len(self._waiters)} wait for the metadata log already")

    def _accepted(self, result: Accepted | Refusal) -> Accepted:
        if isinstance(result, Refusal):
            self._refuse(result)
            raise AssertionError("a refusal is an error")
        self._stir()
        return result

    def _refuse(self, refusal: Refusal | None) -> None:
        if refusal is None:
            return
        if refusal is Refusal.NOT_LEADER:
            raise NotControllerError(
                "another candidate is the controller", controller=self.leader_id or 0
            )
        if refusal in _TRY_AGAIN or refusal is Refusal.TERM_NOT_COMMITTED:
            raise OverloadedError(f"{refusal}; nothing was done, try again in a moment")
        raise InvalidArgumentError(f"{refusal}; nothing was done")

    async def _outcome(self, accepted: Accepted) -> int:
        if accepted.index <= self.applied_index:
            # Alone, with nothing to wait for, it is applied while it is proposed.
            return accepted.index
        future: asyncio.Future[int] = self._loop.create_future()
        replaced = self._waiters.pop(accepted.index, None)
        if replaced is not None:
            # Of an earlier term of ours. Had it been committed, it would still be in our log.
            _fail(replaced.future, FencedError("another controller appended there"))
        self._waiters[accepted.index] = _Waiter(accepted.term, future)
        return await future

    # --- events ----------------------------------------------------------------------------

    def receive(self, source: NodeId, body: bytes) -> None:
        """Take in what another candidate sent. Raises RemoteProtocolError."""
        messages = decode_messages(body)
        if any(message.source != source for message in messages):
            raise RemoteProtocolError(f"node {source} sends messages of another node")
        if self._failure is not None:
            return
        try:
            for message in messages:
                self._raft.step(message)
        except (SafetyViolationError, AssertionError) as failure:
            # Not the link's business: the core is in doubt, and nothing more is heard or said.
            self._failure = failure
            self._wake_up()
            return
        self._stir()

    def _stir(self) -> None:
        """Something happened in the core: say what can be said, and let the rest be done."""
        if self._failure is not None or self._closed:
            return
        self._send(self._raft.urgent())
        self._notice_role()
        self._wake_up()

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def _notice_role(self) -> None:
        role = (self.term, self.leader_id, self.is_leader)
        before, self._role = self._role, role
        if role == before:
            return
        if role[1:] != before[1:]:
            log.info("term %d: %s", role[0], _describe(self._raft.id, *role[1:]))
        if self._raft.leader is None and self._waiters:
            waiting = list(self._waiters.values())
            self._loop.call_later(limits.METADATA_UNRESOLVED_MS / 1000.0, _give_up, waiting)
        self._on_role()

    def _send(self, messages: Iterable[Message]) -> None:
        per_node: dict[NodeId, list[Message]] = {}
        for message in messages:
            per_node.setdefault(message.target, []).append(message)
        for node, batch in per_node.items():
            for part in _in_frames(batch):
                self._send_body(node, encode_messages(part))

    # --- the tasks -------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled. Raises StorageFailedError, SafetyViolationError, in a group."""
        snapshot = self._raft.log.snapshot
        if snapshot.index:
            self._restore(snapshot)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_time(), name="raft-time")
                group.create_task(self._keep_log(), name="raft-log")
                group.create_task(self._keep_snapshots(), name="raft-snapshots")
        finally:
            self._closed = True
            for waiter in self._waiters.values():
                _fail(waiter.future, UnavailableError("this node is stopping"))
            self._waiters.clear()

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._raft.tick()
            self._tick_times.append(self._loop.time())
            self._stir()

    async def _keep_log(self) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            batch = self._raft.ready()
            if batch is None:
                await self._wait()
                continue
            if batch.must_sync:
                await self._write(batch)
            self._raft.persisted(batch)
            self._send(batch.messages)
            self._apply(batch)
            self._stir()
            self._maybe_compact()

    async def _wait(self) -> None:
        """Return when something happened; meanwhile prove, once, that the last batch is there."""
        self._wake = self._loop.create_future()
        timer = None
        if self._unmarked_since is not None:
            timer = self._loop.call_at(self._unmarked_since + _MARK_AFTER_S, self._wake_up)
        await self._wake
        if timer is None or self._unmarked_since is None:
            return
        timer.cancel()
        if self._loop.time() >= self._unmarked_since + _MARK_AFTER_S:
            self._unmarked_since = None
            try:
                await self._storage.mark()
            except DiskFullError:
                # It only narrows what a recovery can prove; the next batch proves the same.
                log.warning("no space for a mark in the metadata log")

    async def _write(self, batch: Ready) -> None:
        while True:
            self._runtime.failpoint("raft.before_write")
            try:
                await self._storage.write(batch)
            except DiskFullError as error:
                if not self.disk_full:
                    log.error("this candidate promises nothing until there is space: %s", error)
                self.disk_full = str(error)
                self._maybe_hand_over()
                await asyncio.sleep(limits.METADATA_RETRY_MS / 1000.0)
            else:
                break
        self._runtime.failpoint("raft.after_write")
        self._unmarked_since = self._loop.time()
        self.disk_full = ""

    def _maybe_hand_over(self) -> None:
        """Let another lead while this disk is full, one that was heard of a moment ago."""
        leader = self._raft.leader
        if leader is None or leader.transferee is not None:
            return
        since = self._raft.state.now - self._raft.state.settings.election_ticks // 2
        heard = [
            node
            for node, peer in leader.progress.items()
            if peer.heard_tick >= since and self._raft.log.config.is_voter(node)
        ]
        if heard:
            self._raft.transfer(heard[self._runtime.rng.randrange(len(heard))])
            self._stir()

    # --- applying --------------------------------------------------------------------------

    def _apply(self, batch: Ready) -> None:
        if batch.snapshot is not None:
            self._restore(batch.snapshot)
        if batch.committed:
            self._uncompacted_entries += len(batch.committed)
            self._uncompacted_bytes += sum(entry.size_bytes for entry in batch.committed)
            self._on_applied([_committed(entry) for entry in batch.committed])
            self.applied_index = batch.committed[-1].index
            for entry in batch.committed:
                self._resolve(entry.index, entry.term)
        for index, context in batch.reads:
            assert isinstance(context, asyncio.Future), "what `confirm_read` gave"
            assert index <= self.applied_index, f"a read of {index} comes early: {self!r}"
            self._reads -= 1
            if not context.done():
                context.set_result(index)
        for context in batch.lost_reads:
            assert isinstance(context, asyncio.Future), "what `confirm_read` gave"
            self._reads -= 1
            _fail(context, NotControllerError("no longer the controller", controller=0))

    def _restore(self, snapshot: Snapshot) -> None:
        self._on_restored(Entry(snapshot.index, snapshot.payload))
        self.applied_index = snapshot.index
        self._uncompacted_entries = self._uncompacted_bytes = 0
        for index in [index for index in self._waiters if index <= snapshot.index]:
            _fail(self._waiters.pop(index).future, _unknown())

    def _resolve(self, index: int, term: int) -> None:
        waiter = self._waiters.pop(index, None)
        if waiter is None or waiter.future.done():
            return
        if waiter.term == term:
            waiter.future.set_result(index)
        else:
            waiter.future.set_exception(FencedError("another controller appended there"))

    # --- snapshots -------------------------------------------------------------------------

    def _maybe_compact(self) -> None:
        if (
            self._uncompacted_entries < limits.METADATA_LOG_ENTRIES_MAX
            and self._uncompacted_bytes < limits.METADATA_LOG_BYTES_MAX
        ) or self._compact_wanted.is_set():
            return
        if self._raft.log.applied != self.applied_index:
            # A snapshot came in during the sync: the next batch brings it.
            return
        self._to_compact = self._raft.compact(
            self.applied_index, self._encode_state(), keep=limits.METADATA_LOG_ENTRIES_KEPT
        )
        self._uncompacted_entries = self._uncompacted_bytes = 0
        self._compact_wanted.set()

    async def _keep_snapshots(self) -> None:
        complained = False
        while True:
            await self._compact_wanted.wait()
            assert self._to_compact is not None, "set with the event"
            self._runtime.failpoint("raft.before_snapshot")
            try:
                freed_bytes = await self._storage.compact(self._to_compact)
            except DiskFullError as error:
                if not complained:
                    log.error("no space for a snapshot of the metadata: %s", error)
                complained = True
                await asyncio.sleep(limits.METADATA_RETRY_MS / 1000.0)
            else:
                log.debug("snapshot at %d, %d bytes freed", self._to_compact.index, freed_bytes)
                complained = False
                self._compact_wanted.clear()


def _committed(entry: RaftEntry) -> Entry:
    payload = entry.payload
    return Entry(entry.index, payload if isinstance(payload, bytes) else b"")


def _in_frames(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the messages in parts that are worth a frame each."""
    part: list[Message] = []
    part_bytes = 0
    for message in messages:
        size_bytes = _MESSAGE_BYTES
        if isinstance(message, Append):
            size_bytes += sum(_MESSAGE_BYTES + entry.size_bytes for entry in message.entries)
        elif isinstance(message, InstallSnapshot):
            size_bytes += len(message.chunk)
        if part and part_bytes + size_bytes > limits.FRAME_CHUNK_BYTES:
            yield part
            part, part_bytes = [], 0
        part.append(message)
        part_bytes += size_bytes
    if part:
        yield part


def _describe(me: NodeId, leader_id: NodeId | None, is_leader: bool) -> str:
    if is_leader:
        return "this candidate is the controller"
    if leader_id == me:
        return "this candidate is elected"
    return f"node {leader_id} leads" if leader_id else "nobody is known to lead"


def _give_up(waiting: Sequence[_Waiter]) -> None:
    for waiter in waiting:
        _fail(waiter.future, _unknown())


def _unknown() -> UnavailableError:
    return UnavailableError("no longer the controller; it is not known whether it is committed")


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
