"""The one task that owns the log of a node by itself.

Takes proposals in batches, writes and syncs each batch once, and only then commits it: applies
the entries, answers who proposed them, and hands the changes to the push driver. While a batch
is being synced the next one collects, so that the disk is never idle under load and a single
request waits for one sync only.

Two failures are told apart. A full disk refuses the batch and everything queued behind it, as
if never asked; the next proposal tries again. Anything else from the disk ends the node:
nothing is known any more (fsyncgate).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import DiskFullError, OverloadedError, ShuttingDownError
from ssgovern.model import NodeId, Outcome, ShardId
from ssgovern.node.wal_driver import WalDriver
from ssgovern.replication.primary import PrimaryLog, Proposal, Waiter
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal
from ssgovern.wire.records import Record, encode_record


class PrimaryLogs(Protocol):
    """The logs that may be written to, by shard."""

    def __getitem__(self, shard: ShardId, /) -> PrimaryLog: ...


class LogDriver(WalDriver):
    """Owner of the `Wal` and of every `PrimaryLog`; the `Proposer` of the services.

    With `sync_interval_s` a batch is committed at once; a power cut may then lose what was
    acknowledged since the last sync.
    """

    def __init__(
        self,
        wal: Wal,
        logs: PrimaryLogs,
        node_id: NodeId,
        *,
        on_committed: Callable[[list[Proposal]], None],
        failpoint: Callable[[str], None],
        sync_interval_s: float | None = None,
    ) -> None:
        super().__init__(wal, failpoint=failpoint, sync_interval_s=sync_interval_s)
        self._logs = logs
        self._node_id = node_id
        self._on_committed = on_committed
        self._queue: deque[Proposal] = deque()
        self._uncommitted = 0
        self._uncommitted_bytes = 0

    @property
    def uncommitted(self) -> tuple[int, int]:
        """Entries that wait to be committed, and their bytes."""
        return self._uncommitted, self._uncommitted_bytes

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

    # --- WalDriver -------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(self._queue)

    async def _write_next(self) -> None:
        batch = self._next_batch()
        try:
            await self._append([LogEntry(p.shard, p.epoch, p.revision, p.body) for p in batch])
        except DiskFullError as error:
            self._refuse(batch, error)
            return
        self._commit(batch)

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
        self._note_refused(error)
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
