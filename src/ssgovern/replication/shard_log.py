"""The end of one shard's log in memory: what may have to be sent, compared or cut.

Older entries live on only in the shard's state and its snapshots. The log goes with the shard
from role to role: a replica that is promoted hands it to the primary it becomes.

Invariants: revisions follow each other without a gap from `base` to `tail`; epochs never fall.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ssgovern.model import LogPosition, ShardId
from ssgovern.replication.messages import LogItem


def _epoch_of(entry: LogItem) -> int:
    return entry.epoch


class ShardLog:
    """Entries after `base`, the last position that is known only as a position."""

    __slots__ = ("_entries", "base", "shard")

    def __init__(self, shard: ShardId, base: LogPosition, entries: Sequence[LogItem] = ()) -> None:
        self.shard = shard
        self.base = base
        self._entries: list[LogItem] = list(entries)

    def __repr__(self) -> str:
        return f"<ShardLog shard={self.shard} base={self.base} tail={self.tail}>"

    @property
    def tail(self) -> LogPosition:
        """Position of the last entry."""
        if self._entries:
            last = self._entries[-1]
            return LogPosition(last.epoch, last.revision)
        return self.base

    @property
    def tail_revision(self) -> int:
        return self.base.revision + len(self._entries)

    def ends_at(self, position: LogPosition) -> bool:
        """Tell whether this is the position of the last entry."""
        if not self._entries:
            return position == self.base
        last = self._entries[-1]
        return last.revision == position.revision and last.epoch == position.epoch

    def position_at(self, revision: int) -> LogPosition | None:
        """Return the position of a revision, None if the log has it not or no longer."""
        index = revision - self.base.revision - 1
        if 0 <= index < len(self._entries):
            return LogPosition(self._entries[index].epoch, revision)
        return self.base if index == -1 else None

    def entries(self, after: int, count_max: int, bytes_max: int) -> list[LogItem]:
        """Return entries that follow revision `after`; at least one if there is one."""
        start = after - self.base.revision
        assert start >= 0, f"{self!r}: entries after {after} are gone"
        chosen = self._entries[start : start + count_max]
        size_bytes = 0
        for index, entry in enumerate(chosen):
            size_bytes += len(entry.body)
            if index and size_bytes > bytes_max:
                del chosen[index:]
                break
        return chosen

    def between(self, after: int, up_to: int) -> list[LogItem]:
        """Return the entries in `(after, up_to]`, all of which are here."""
        start = after - self.base.revision
        assert start >= 0, f"{self!r}: entries after {after} are gone"
        return self._entries[start : up_to - self.base.revision]

    def last_up_to(self, limit: LogPosition) -> LogPosition | None:
        """Return the last position of ours with neither epoch nor revision above `limit`.

        Where two logs differ, this is the last place at which they can agree (KIP-279).
        None: it lies before `base`.
        """
        base = self.base
        if limit.epoch < base.epoch or limit.revision < base.revision:
            return None
        of_epoch = bisect_right(self._entries, limit.epoch, key=_epoch_of)
        return self.position_at(min(base.revision + of_epoch, limit.revision))

    def append(self, entry: LogItem) -> None:
        self._entries.append(entry)

    def extend(self, entries: Sequence[LogItem]) -> None:
        self._entries += entries

    def truncate(self, keep: int) -> None:
        """Forget what follows revision `keep`."""
        assert keep >= self.base.revision, f"{self!r}: cannot be cut to {keep}"
        del self._entries[keep - self.base.revision :]

    def release(self, up_to: int) -> None:
        """Forget entries up to a revision: nobody here needs their bytes any more."""
        position = self.position_at(up_to)
        if position is not None:
            del self._entries[: up_to - self.base.revision]
            self.base = position

    def reset(self, base: LogPosition) -> None:
        """Start anew after a snapshot."""
        self._entries.clear()
        self.base = base

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        before = self.base
        for entry in self._entries:
            assert entry.revision == before.revision + 1, self
            assert entry.epoch >= before.epoch, self
            before = LogPosition(entry.epoch, entry.revision)
