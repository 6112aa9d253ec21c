"""The one task that owns the log of a node of a cluster.

One batch holds what this node proposes as primary and what it has to keep as replica, so that
all of it shares a sync. Proposals leave for the replicas before the batch is written here: this
node is a member like any other. What waits for the disk without being a proposal (a replica's
entries, promises, cuts) is a `Write`.

Invariant: everything about one shard is written in the order in which it was asked for, also
when the node's part in it changes: whoever changes it waits (`after_all`) for what came before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ssgovern import limits
from ssgovern.errors import DiskFullError, OutcomeUnknownError, SsGovernError
from ssgovern.model import NodeId, Outcome, ShardId
from ssgovern.node.log_driver import LogDriver
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replicated import ReplicatedPrimary
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal


class Write:
    """Records for the log, and what to do when they are on disk, or when it is full."""

    __slots__ = ("entries", "on_refused", "on_written", "size_bytes")

    def __init__(
        self,
        entries: Sequence[LogEntry],
        on_written: Callable[[], None],
        on_refused: Callable[[], None],
    ) -> None:
        self.entries: list[LogEntry] = []
        self.on_written = on_written
        self.on_refused = on_refused
        self.size_bytes = 0
        self.add(entries)

    def add(self, entries: Sequence[LogEntry]) -> None:
        """Add records, which is possible as long as the write is the last in the queue."""
        self.entries += entries
        for entry in entries:
            self.size_bytes += len(entry.body)


class ReplicatedLogDriver(LogDriver):
    """Owner of the `Wal` of a node that has peers."""

    def __init__(
        self,
        wal: Wal,
        primaries: dict[ShardId, ReplicatedPrimary],
        node_id: NodeId,
        *,
        on_committed: Callable[[list[Proposal]], None],
        on_batch: Callable[[Iterable[ShardId]], None],
        on_done: Callable[[], None],
        on_deposed: Callable[[ShardId], None],
        failpoint: Callable[[str], None],
    ) -> None:
        """`on_batch` sends to the replicas what these shards were given; `on_done` sends what
        collected while a batch was done.
        """
        super().__init__(wal, primaries, node_id, on_committed=on_committed, failpoint=failpoint)
        self._primaries = primaries
        self._on_batch = on_batch
        self._on_done = on_done
        self._on_deposed = on_deposed
        self._writes: deque[Write] = deque()
        self._after: deque[tuple[int, int, Callable[[], None]]] = deque()
        self._in_hand = 0
        """Proposals in the batch that is being written."""
        self._proposals_done = 0
        self._writes_asked = self._writes_done = 0

    # --- asking ----------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Queue records; one of its two callbacks is called from this driver's task."""
        self._writes.append(write)
        self._writes_asked += 1
        self._wake()

    def is_last(self, write: Write) -> bool:
        """Tell whether a write waits still and nothing was queued behind it."""
        return bool(self._writes) and self._writes[-1] is write

    def after_all(self, done: Callable[[], None]) -> None:
        """Call `done` when all that was asked for before is on disk, or was refused."""
        self._after.append(
            (self._proposals_done + len(self._queue) + self._in_hand, self._writes_asked, done)
        )
        self._wake()

    def inherit(self, proposals: Sequence[Proposal]) -> None:
        """Count what an earlier primary left, on disk and not yet known to be committed."""
        self._uncommitted += len(proposals)
        self._uncommitted_bytes += sum(len(proposal.body) for proposal in proposals)

    def forget(self, proposals: Iterable[Proposal]) -> None:
        """Stop counting proposals of which nobody can tell any more whether they commit."""
        for proposal in proposals:
            self._uncommitted -= 1
            self._uncommitted_bytes -= len(proposal.body)

    def committed(self, proposals: Sequence[Proposal]) -> None:
        """Take note that proposals were committed by what replicas said."""
        self.forget(proposals)
        self.entries += len(proposals)

    # --- WalDriver -------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(self._queue or self._writes or self._after)

    async def _write_next(self) -> None:
        batch = self._next_batch()
        writes = self._next_writes()
        if batch:
            self._on_batch(dict.fromkeys(proposal.shard for proposal in batch))
        entries = [LogEntry(p.shard, p.epoch, p.revision, p.body) for p in batch]
        for write in writes:
            entries += write.entries
        self._in_hand = len(batch)
        try:
            if entries:
                await self._append(entries)
        except DiskFullError as error:
            self._in_hand = 0
            self._refuse(batch, error)
            self._refuse_writes(writes)
        else:
            self._in_hand = 0
            self._proposals_done += len(batch)
            self._writes_done += len(writes)
            self._commit(batch)
            for write in writes:
                write.on_written()
        self._run_due()
        self._on_done()

    def _next_writes(self) -> list[Write]:
        writes: list[Write] = []
        size_bytes = 0
        while self._writes:
            size_bytes += self._writes[0].size_bytes
            if writes and size_bytes > limits.BATCH_BYTES_MAX:
                break
            writes.append(self._writes.popleft())
        return writes

    def _run_due(self) -> None:
        after = self._after
        while after and after[0][0] <= self._proposals_done and after[0][1] <= self._writes_done:
            after.popleft()[2]()

    def _commit(self, batch: list[Proposal]) -> None:
        persisted: dict[ShardId, int] = {}
        for proposal in batch:
            persisted[proposal.shard] = proposal.revision
        if batch:
            self.batches += 1
        committed: list[Proposal] = []
        for shard, revision in persisted.items():
            committed += self._primaries[shard].on_persisted(self._node_id, revision)
        if committed:
            self.committed(committed)
            self._on_committed(committed)

    def _refuse(self, batch: list[Proposal], error: DiskFullError) -> None:
        self._note_refused(error)
        queued = [*batch, *self._queue]
        self._queue.clear()
        self._proposals_done += len(queued)
        for shard in dict.fromkeys(proposal.shard for proposal in queued):
            primary = self._primaries[shard]
            was_deposed = bool(primary.deposed)
            withdrawn = primary.on_append_failed(self._node_id)
            reason: SsGovernError = error
            if primary.deposed:
                # Replicas may hold it, and then another primary commits it.
                reason = OutcomeUnknownError(
                    f"the disk of shard {shard}'s primary is full and the entry was on its way "
                    "to replicas: it may or may not be committed"
                )
            self.forget(withdrawn)
            for proposal in withdrawn:
                proposal.waiter.on_outcome(proposal, Outcome(error=reason))
            if primary.deposed and not was_deposed:
                self._on_deposed(shard)

    def _refuse_writes(self, writes: list[Write]) -> None:
        # Whatever is queued behind them rests on them.
        refused = [*writes, *self._writes]
        self._writes.clear()
        self._writes_done += len(refused)
        for write in refused:
            write.on_refused()
