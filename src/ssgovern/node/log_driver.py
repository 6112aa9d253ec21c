"""The one task that owns this node's log.

Takes proposals in batches, writes and syncs each batch once, and only then commits it: applies
the entries, answers who proposed them, and hands the changes to the push driver. While a batch
is being synced the next one collects, so that the disk is never idle under load and a single
request waits for one sync only.

Two failures are told apart. A full disk refuses the batch and everything queued behind it, as
if never asked; the next proposal tries again. Anything else from the disk ends the node:
nothing is known any more (fsyncgate).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ssgovern import limits
from ssgovern.errors import DiskFullError, OverloadedError, ShuttingDownError
from ssgovern.model import LogPosition, NodeId, Outcome, ShardId
from ssgovern.replication.primary import PrimaryLog, Proposal, Waiter
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal
from ssgovern.wire.records import Record, encode_record

log = logging.getLogger("ssgovern.log")

_MARK_AFTER_S = 1.0


class LogDriver:
    """Owner of the `Wal` and of every `PrimaryLog`; the `Proposer` of the services.

    `sync_interval_s` None: a batch is committed when it is on disk. Otherwise it is committed
    at once and synced so often; a power cut may then lose what was acknowledged since.
    """

    def __init__(
        self,
        wal: Wal,
        logs: Sequence[PrimaryLog],
        node_id: NodeId,
        *,
        on_committed: Callable[[list[Proposal]], None],
        failpoint: Callable[[str], None],
        sync_interval_s: float | None = None,
    ) -> None:
        self._wal = wal
        self._wal_turn = asyncio.Lock()
        self._logs = logs
        self._node_id = node_id
        self._on_committed = on_committed
        self._failpoint = failpoint
        self._sync_interval_s = sync_interval_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Proposal] = deque()
        self._uncommitted = 0
        self._uncommitted_bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._closing = False
        self._drained = asyncio.Event()
        self._unsynced_since: float | None = None
        self._unmarked_since: float | None = None
        self.writes_refused = ""
        """Why the last write was refused; empty while writes work."""
        self.entries = 0
        self.batches = 0
        self.last_write_s = 0.0

    @property
    def wal_size(self) -> tuple[int, int]:
        """Bytes and segments of the log on disk."""
        return self._wal.size_bytes, len(self._wal.segments)

    # --- Proposer --------------------------------------------------------------------------

    def check_room(self, entries: int, size_bytes: int) -> None:
        """Raise unless so much may be proposed now."""
        if self._closing:
            raise ShuttingDownError("this node is stopping")
        if (
            self._uncommitted + entries > limits.UNCOMMITTED_ENTRIES_MAX
            or self._uncommitted_bytes + size_bytes > limits.UNCOMMITTED_BYTES_MAX
        ):
            raise OverloadedError(
                f"{self._uncommitted} entries wait for the log already; try again in a moment"
            )

    def propose(self, shard: ShardId, record: Record, waiter: Waiter) -> Proposal:
        """Queue a record; the waiter hears of it from this driver's task, never from here."""
        body = encode_record(record)
        proposal = self._logs[shard].propose(body, record, waiter)
        self._queue.append(proposal)
        self._uncommitted += 1
        self._uncommitted_bytes += len(body)
        self._wake()
        return proposal

    # --- the task --------------------------------------------------------------------------

    async def run(self) -> None:
        """Write batches until `drain`. Raises StorageFailedError."""
        while True:
            await self._wait()
            if self._queue:
                await self._write(self._next_batch())
            # After each batch: under load the queue is never found empty.
            await self._maybe_sync()
            if self._closing and not self._queue:
                self._drained.set()
                return

    async def drain(self) -> None:
        """Take nothing new, write what is queued, sync, and let `run` end."""
        self._closing = True
        self._wake()
        await self._drained.wait()

    async def sync(self) -> None:
        """Make durable what was written without a sync; nothing to do where each batch is."""
        if self._sync_interval_s is None:
            return
        async with self._wal_turn:
            # Looked at when it is our turn: a sync under way is one to wait for.
            if self._unsynced_since is not None:
                self._unsynced_since = None
                await self._wal.sync()

    async def release(self, snapshotted: Mapping[int, LogPosition]) -> int:
        """Remove segments that snapshots have made superfluous; return the bytes freed."""
        return await self._wal.release(snapshotted)

    async def _wait(self) -> None:
        """Return when there is something to write or something is due."""
        if self._queue or self._closing:
            return
        # A bare future and a timer: an event with a time-out costs a lone request a tenth more.
        self._waiting = self._loop.create_future()
        due = self._next_due()
        timer = None if due is None else self._loop.call_at(due, self._wake)
        await self._waiting
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _next_due(self) -> float | None:
        due = [
            since + delay
            for since, delay in (
                (self._unsynced_since, self._sync_interval_s),
                (self._unmarked_since, _MARK_AFTER_S),
            )
            if since is not None and delay is not None
        ]
        return min(due, default=None)

    def _next_batch(self) -> list[Proposal]:
        queue = self._queue
        batch: list[Proposal] = []
        size_bytes = 0
        while queue and len(batch) < limits.BATCH_ENTRIES_MAX:
            size_bytes += len(queue[0].body)
            if batch and size_bytes > limits.BATCH_BYTES_MAX:
                break
            batch.append(queue.popleft())
        return batch

    async def _write(self, batch: list[Proposal]) -> None:
        started = self._loop.time()
        entries = [LogEntry(p.shard, p.epoch, p.revision, p.body) for p in batch]
        self._failpoint("log.before_write")
        try:
            async with self._wal_turn:
                await self._wal.append(entries, sync=self._sync_interval_s is None)
        except DiskFullError as error:
            self._refuse(batch, error)
            return
        self._failpoint("log.after_write")
        now = self._loop.time()
        self.last_write_s = now - started
        if self._sync_interval_s is None:
            self._unmarked_since = now
        else:
            # These records say themselves what was synced before them.
            self._unmarked_since = None
            if self._unsynced_since is None:
                self._unsynced_since = now
        self.writes_refused = ""
        self._commit(batch)

    def _commit(self, batch: list[Proposal]) -> None:
        persisted: dict[ShardId, int] = {}
        for proposal in batch:
            persisted[proposal.shard] = proposal.revision
            self._uncommitted_bytes -= len(proposal.body)
        self._uncommitted -= len(batch)
        self.entries += len(batch)
        self.batches += 1
        committed: list[Proposal] = []
        for shard, revision in persisted.items():
            committed += self._logs[shard].on_persisted(self._node_id, revision)
        self._on_committed(committed)

    def _refuse(self, batch: list[Proposal], error: DiskFullError) -> None:
        if not self.writes_refused:
            log.error("writes are refused until there is space again: %s", error)
        self.writes_refused = str(error)
        queued = [*batch, *self._queue]
        self._queue.clear()
        for shard in dict.fromkeys(proposal.shard for proposal in queued):
            self._logs[shard].on_append_failed(self._node_id)
        self._uncommitted -= len(queued)
        self._uncommitted_bytes -= sum(len(proposal.body) for proposal in queued)
        outcome = Outcome(error=error)
        for proposal in queued:
            proposal.waiter.on_outcome(proposal, outcome)
        # Answers of refused proposals leave like those of committed ones.
        self._on_committed([])

    async def _maybe_sync(self) -> None:
        now = self._loop.time()
        interval = self._sync_interval_s
        if self._unsynced_since is not None and interval is not None:
            if now >= self._unsynced_since + interval or self._closing:
                await self.sync()
                self._unmarked_since = now
        elif self._unmarked_since is not None and now >= self._unmarked_since + _MARK_AFTER_S:
            self._unmarked_since = None
            try:
                async with self._wal_turn:
                    await self._wal.mark()
            except DiskFullError:
                # The mark only narrows what a later recovery can prove; the next batch
                # proves the same.
                log.warning("no space for a mark in the log")
