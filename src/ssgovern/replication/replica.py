"""The log of one shard, as a replica keeps it.

Pure: batches come in as events; disk writes and replies leave as effects. The fencing rule
lives here, at the resource: what an older epoch sends is refused, whoever sends it and however
sure it is of being the primary.

Effects are done in their order; a reply never leaves before the `Persist` listed before it is
on disk. The driver may sync several batches at once and then says so (`on_persisted`).

Invariants: `committed <= tail`; the epoch never falls; nothing at or below `committed` is ever
cut (only a snapshot that the primary sends for that very reason replaces it, which takes
acknowledgements by fewer than all to happen).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Apply,
    Assigned,
    Effect,
    Fenced,
    Install,
    InstallSnapshot,
    LogItem,
    Mismatch,
    Persist,
    Send,
)
from ssgovern.replication.shard_log import ShardLog

STORY_LINES = 32


class _Write:
    """A `Persist` on its way, and what was so before it, in case the disk refuses it."""

    __slots__ = ("committed", "end", "mark", "promised")

    def __init__(self, mark: int, end: int, promised: int, committed: int) -> None:
        self.mark = mark
        self.end = end
        self.promised = promised
        self.committed = committed


class ReplicaLog:
    """A replica's promises, log and commit position for one shard."""

    __slots__ = (
        "_pending",
        "_promised",
        "_story",
        "_synced",
        "_writes",
        "committed",
        "epoch",
        "log",
        "node",
        "node_epoch",
        "persisted",
        "shard",
        "version",
    )

    def __init__(
        self, node: NodeId, node_epoch: int, epoch: int, log: ShardLog, committed: int
    ) -> None:
        """`epoch` is the highest promised on disk; all of `log` is on disk."""
        assert epoch >= log.tail.epoch, f"shard {log.shard}: promised {epoch}, holds {log.tail}"
        self.shard: ShardId = log.shard
        self.node = node
        self.node_epoch = node_epoch
        self.epoch = epoch
        """The newest epoch heard of: older ones are refused."""
        self.log = log
        self.committed = committed
        self.version = 0
        """Of the row that was followed last."""
        self._promised = epoch
        """What disk and every `Persist` on its way say of the epoch."""
        self._synced = log.tail_revision
        """Up to here the log on disk is the log here."""
        self._writes = 0
        self.persisted = 0
        """The mark of the newest `Persist` that is on disk."""
        self._pending: deque[_Write] = deque()
        self._story: deque[str] = deque(maxlen=STORY_LINES)

    def __repr__(self) -> str:
        return (
            f"<ReplicaLog shard={self.shard} epoch={self.epoch} tail={self.log.tail} "
            f"committed={self.committed}>"
        )

    @property
    def promised(self) -> int:
        """The highest epoch promised, on disk once every `Persist` so far is."""
        return self._promised

    @property
    def asked(self) -> int:
        """The mark of the newest `Persist`."""
        return self._writes

    def story(self) -> list[str]:
        """Return the last unusual things that happened here, oldest first."""
        return list(self._story)

    # --- events ----------------------------------------------------------------------------

    def on_assigned(self, event: Assigned) -> list[Effect]:
        """The controller granted an epoch: refuse older ones from now on."""
        self.version = max(self.version, event.version)
        return self._adopt(event.epoch) if event.epoch > self.epoch else []

    def on_append(self, event: AppendEntries) -> list[Effect]:
        if event.epoch < self.epoch:
            return self._refuse(event.source, event.epoch)
        # Hearing of an epoch is a promise to refuse all older ones: it has to be on disk
        # before we answer anything, even if we refuse this very batch.
        effects = self._adopt(event.epoch)

        entries = event.entries
        held = event.prev.revision + len(entries)
        # Nearly always a batch follows on all there is, and then there is nothing to compare.
        if not self.log.ends_at(event.prev):
            unknown = self._unknown(event)
            if isinstance(unknown, Send):
                return [*effects, unknown]
            entries = unknown
        if entries:
            effects.append(self._take(entries))
        effects.append(self._appended(event.source, held))
        # Bounded by what agrees with this primary: what lies beyond may be another's.
        committed = min(event.committed, held)
        if committed > self.committed:
            effects.append(self._commit(committed))
        return effects

    def on_snapshot(self, event: InstallSnapshot) -> list[Effect]:
        """A snapshot has come. It replaces the log unless that holds its position already."""
        if event.epoch < self.epoch:
            return self._refuse(event.source, event.epoch)
        effects = self._adopt(event.epoch)
        position = event.position
        floor = self._floor()
        if event.replaces != floor:
            if self.log.position_at(position.revision) == position:
                # Held, perhaps with more behind it, which stays.
                effects.append(self._appended(event.source, position.revision))
                if position.revision > self.committed:
                    effects.append(self._commit(position.revision))
                return effects
            if position.revision <= floor.revision:
                # Late: the commit position is beyond it.
                return effects
        self._story.append(f"snapshot at {position} replaces {self.log!r}")
        self.log.reset(position)
        self.committed = self._synced = position.revision
        self._pending.clear()
        return [*effects, Install(event), self._appended(event.source, position.revision)]

    def on_persisted(self, mark: int) -> None:
        """The `Persist` with this mark, and all before it, are on disk."""
        self.persisted = max(self.persisted, mark)
        pending = self._pending
        while pending and pending[0].mark <= mark:
            self._synced = pending.popleft().end

    def on_append_failed(self) -> None:
        """The disk refused every `Persist` not reported as done: as if never asked.

        The driver drops these and every effect behind them. (With an `Install` among what is
        dropped, it builds a new core from what is on disk.) A cut that the disk forgot and this
        log did not is harmless: what was cut was not committed, and what comes replaces it.
        """
        if not self._pending:
            return
        first = self._pending[0]
        self._pending.clear()
        self.log.truncate(self._synced)
        self.committed = first.committed
        self._promised = first.promised
        self._story.append(f"the disk refused entries; the tail is {self.log.tail} again")

    def release(self, retain: int) -> None:
        """Forget all but the last `retain` entries, and never one that may still be needed."""
        safe = self._pending[0].committed if self._pending else self.committed
        self.log.release(min(safe, self.log.tail_revision - retain))

    # --- inside ----------------------------------------------------------------------------

    def _floor(self) -> LogPosition:
        floor = self.log.position_at(self.committed)
        assert floor is not None, f"{self!r}: its own commit position is not in its log"
        return floor

    def _hint(self, prev: LogPosition) -> LogPosition:
        """Return the last position of ours that may agree with a log that has `prev`."""
        log = self.log
        limit = LogPosition(prev.epoch, min(prev.revision - 1, log.tail_revision))
        return log.last_up_to(limit) or log.base

    def _unknown(self, event: AppendEntries) -> Sequence[LogItem] | Send:
        """Return the entries that this log does not have, or the answer if it lacks `prev`."""
        prev, entries = event.prev, event.entries
        floor = self._floor()
        if prev.revision < floor.revision:
            # What is committed here is neither compared entry by entry nor cut: the batch
            # has to agree with us at the floor.
            skipped = floor.revision - prev.revision
            if skipped > len(entries) or entries[skipped - 1].epoch != floor.epoch:
                return self._mismatch(event, floor, floor)
            entries = entries[skipped:]
        elif self.log.position_at(prev.revision) != prev:
            # Equal revisions would not be enough: two primaries may have given the same
            # revision to different entries. The epoch in `prev` tells them apart.
            return self._mismatch(event, self._hint(prev), floor)
        return entries[self._first_unknown(entries) :]

    def _first_unknown(self, entries: Sequence[LogItem]) -> int:
        """Return the index of the first entry that this log does not have."""
        log = self.log
        for index, entry in enumerate(entries):
            position = log.position_at(entry.revision)
            if position is None or position.epoch != entry.epoch:
                return index
        return len(entries)

    def _take(self, entries: Sequence[LogItem]) -> Persist:
        """Append entries that follow on what agrees; cut what they contradict."""
        log = self.log
        keep = entries[0].revision - 1
        cut = keep < log.tail_revision
        if cut:
            self._story.append(f"cut {log.tail_revision - keep} entries after {keep}")
            log.truncate(keep)
            self._synced = min(self._synced, keep)
            for write in self._pending:
                write.end = min(write.end, keep)
        log.extend(entries)
        return self._persist(0, keep if cut else None, entries)

    def _commit(self, revision: int) -> Apply:
        entries = self.log.between(self.committed, revision)
        self.committed = revision
        return Apply(self.shard, entries)

    def _refuse(self, source: NodeId, epoch: int) -> list[Effect]:
        self._story.append(f"refused epoch {epoch} of node {source}: obeys {self.epoch}")
        return [*self._adopt(self.epoch), Send(source, Fenced(self.shard, self.node, self.epoch))]

    def _adopt(self, epoch: int) -> list[Effect]:
        if epoch > self.epoch:
            self._story.append(f"obeys epoch {epoch} instead of {self.epoch}")
            self.epoch = epoch
        if self._promised >= self.epoch:
            return []
        return [self._persist(self.epoch, None, ())]

    def _persist(self, epoch: int, keep: int | None, entries: Sequence[LogItem]) -> Persist:
        self._writes += 1
        self._pending.append(
            _Write(self._writes, self.log.tail_revision, self._promised, self.committed)
        )
        self._promised = max(self._promised, epoch)
        return Persist(self.shard, epoch, keep, entries, self._writes)

    def _appended(self, target: NodeId, held: int) -> Send:
        return Send(
            target,
            Appended(self.shard, self.node, self.node_epoch, self.epoch, held, self.version),
        )

    def _mismatch(self, event: AppendEntries, hint: LogPosition, floor: LogPosition) -> Send:
        return Send(
            event.source,
            Mismatch(
                *(self.shard, self.node, self.node_epoch, self.epoch),
                event.prev,
                hint,
                floor,
                self.version,
            ),
        )

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        self.log.validate()
        tail = self.log.tail_revision
        assert self.log.base.revision <= self.committed <= tail, self
        assert self._synced <= tail, self
        assert self.epoch >= self.log.tail.epoch, self
        ends = [write.end for write in self._pending]
        assert all(end <= tail for end in ends), (self, ends)
