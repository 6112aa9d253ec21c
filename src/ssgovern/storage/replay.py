"""The log of one shard, as its records in the WAL leave it.

Pure: records go in in their order, the entries behind the shard's snapshot come out. Knows the
four things that happen to a log: it grows, an entry replaces what stands from its revision on,
a cut takes away what follows a position, and a cut begins it anew behind a snapshot that came
from elsewhere. Does not know what entries mean.

The snapshot is the truth about what it covers. Where the log contradicts it, the log is what was
there before: the snapshot was put in its place, and the cut that says so did not reach the disk.
(That what is committed is never contradicted is what acknowledgements by all are for; a snapshot
that lies lower than one that is on disk cannot be told from an old one.)

Invariants: revisions follow each other; epochs never fall within the log as it is at any point.
They do fall from record to record: what replaces an entry may be of an older epoch than it.
"""

from __future__ import annotations

from ssgovern.errors import CorruptionError
from ssgovern.model import ORIGIN, LogPosition
from ssgovern.storage.format import CUT, ENTRY, LogEntry, WalRecord, cut_record


class ShardReplay:
    """Takes the ENTRY and CUT records of one shard."""

    __slots__ = ("_base", "_base_epoch", "_begun", "_epochs", "_kept", "_last", "shard", "snapshot")

    def __init__(self, shard: int, snapshot: LogPosition = ORIGIN) -> None:
        """`snapshot`: the position of the shard's snapshot, ORIGIN if it has none."""
        self.shard = shard
        self.snapshot = snapshot
        self._begun = False
        self._base = 0
        self._base_epoch: int | None = 0
        """Of the revision before the first one here; None: it stood in a segment that is gone."""
        self._epochs: list[int] = []
        """Of every entry from `_base` on."""
        self._kept: list[WalRecord] = []
        """The last ones of these: the entries above both the base and the snapshot."""
        self._last: WalRecord | None = None

    def __repr__(self) -> str:
        return (
            f"<ShardReplay shard={self.shard} snapshot={self.snapshot!r} base={self._base} "
            f"tail={self.tail!r}>"
        )

    @property
    def tail(self) -> LogPosition:
        """Where the log ends; its epoch is 0 if it is not known."""
        epoch = self._epochs[-1] if self._epochs else self._base_epoch
        return LogPosition(epoch or 0, self._base + len(self._epochs))

    def on_record(self, record: WalRecord) -> None:
        """Take the next record. Raises CorruptionError if it cannot follow those before it."""
        self._last = record
        if record.kind == ENTRY:
            self._on_entry(record)
        elif record.kind == CUT:
            self._on_cut(record.position)

    def _on_entry(self, record: WalRecord) -> None:
        epoch, revision = record.epoch, record.revision
        if not self._begun:
            self._restart(revision - 1, None)
        end = self._base + len(self._epochs)
        if revision <= end:
            self._truncate(revision - 1)
        elif revision != end + 1:
            raise self._corruption(
                f"entry {revision} follows {self.tail!r}: what is between, or its snapshot, "
                "is missing"
            )
        if epoch < self.tail.epoch:
            raise self._corruption(f"entry {record.position!r} follows {self.tail!r}")
        self._epochs.append(epoch)
        if revision > self.snapshot.revision:
            self._kept.append(record)

    def _on_cut(self, position: LogPosition) -> None:
        if self._begun and self._epoch_at(position.revision) == position.epoch:
            self._truncate(position.revision)
        else:
            self._restart(position.revision, position.epoch)

    def _restart(self, base: int, epoch: int | None) -> None:
        self._begun = True
        self._base = base
        self._base_epoch = epoch if base else 0
        self._epochs.clear()
        self._kept.clear()

    def _truncate(self, keep: int) -> None:
        if keep < self._base:
            # What it replaces began in a segment that is gone.
            self._restart(keep, None)
            return
        del self._epochs[keep - self._base :]
        del self._kept[max(0, keep - max(self._base, self.snapshot.revision)) :]

    def _epoch_at(self, revision: int) -> int | None:
        index = revision - self._base - 1
        if index == -1:
            return self._base_epoch
        return self._epochs[index] if 0 <= index < len(self._epochs) else None

    def entries(self) -> list[WalRecord]:
        """Return the entries behind the snapshot, in order, after the last record.

        Raises CorruptionError if some between the snapshot and the log are missing.
        """
        return self._kept if self._has_snapshot() else []

    def missing_cut(self) -> LogEntry | None:
        """Return the cut that did not reach the disk after the snapshot did, if there is one.

        It has to be written before anything else of the shard: what is written next follows the
        snapshot and not what stands in the log.
        """
        if not self._begun or self._has_snapshot():
            return None
        return cut_record(self.shard, *self.snapshot)

    def _has_snapshot(self) -> bool:
        """Tell whether the snapshot is of this log; else it was put in the place of the log."""
        snapshot, tail = self.snapshot, self.tail
        if snapshot.revision > tail.revision:
            return False
        if snapshot.revision < self._base:
            if tail.epoch < snapshot.epoch:
                return False
            raise self._corruption(
                f"the log begins with {self._base + 1}, its snapshot ends at {snapshot!r}: what is "
                "between, or a newer snapshot, is missing"
            )
        epoch = self._epoch_at(snapshot.revision)
        if epoch is None:
            # Where the log begins here is all that is known of what stood before.
            return bool(self._kept) and self._kept[0].epoch >= snapshot.epoch
        return epoch == snapshot.epoch

    def _corruption(self, message: str) -> CorruptionError:
        offset = 0 if self._last is None else self._last.lsn
        return CorruptionError(message, segment="wal", offset=offset, shard=self.shard)
