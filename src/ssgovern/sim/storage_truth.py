"""What the crash fuzz of storage knows to have been written, and what of it has to survive.

The checker's own memory, apart from anything that is tested. A shard's log is the sum of its
changes: each keeps the entries up to some revision and adds others behind them, so growing,
replacing, cutting and taking over a snapshot are one thing. Whatever a crash leaves is the sum of
the first of these changes, and of no fewer than were acknowledged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

from ssgovern.model import LogPosition
from ssgovern.storage import SnapshotFile

_FACT: Final = struct.Struct(">IQI")


class ViolationError(AssertionError):
    """An invariant does not hold."""


class Fact(NamedTuple):
    """An entry as the checker remembers it."""

    epoch: int
    revision: int
    checksum: int


class Change(NamedTuple):
    """One change of a log: `keep` entries stay, others follow."""

    keep: int
    added: tuple[Fact, ...]


class ShardTruth:
    """What was appended to one shard, and how much of it has to survive what."""

    __slots__ = (
        "_durable_count",
        "_spare",
        "changes",
        "committed",
        "durable",
        "epoch",
        "epoch_max",
        "facts",
        "promised",
        "returned",
    )

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        """The sum of all changes."""
        self.changes: list[Change] = []
        self.returned = 0
        """Changes whose append returned."""
        self.durable = 0
        """Changes that are durable."""
        self._durable_count = 0
        """Entries in their sum."""
        self.committed = 0
        """Entries up to this revision are in a snapshot, or about to be: nothing cuts them."""
        self.epoch = 1
        self.epoch_max = 1
        self.promised = 0
        """The highest epoch whose promise is durable."""
        self._spare: list[int] = []
        """Epochs below `epoch_max` that nothing was written in."""

    def change(self, keep: int, *added: Fact) -> None:
        self.changes.append(Change(keep, added))
        self.facts[keep:] = added

    def take_back(self, count: int, facts: list[Fact]) -> None:
        """Forget all but `count` changes, whose sum is `facts`."""
        del self.changes[count:]
        self.facts = facts

    def note_returned(self) -> None:
        self.returned = len(self.changes)

    def note_durable(self) -> None:
        """What returned is durable. To be called when no change is on its way."""
        self.durable = self.returned
        self._durable_count = len(self.facts)

    def settled(self) -> int:
        """Return up to which revision the log is durable and no change on its way cuts it."""
        return min([self._durable_count, *(change.keep for change in self.changes[self.durable :])])

    def epoch_of(self, keep: int) -> int:
        return self.facts[keep - 1].epoch if keep else 0

    def begin_epoch(self, rng: Random) -> int:
        """Return an epoch above all others, and leave some out now and then."""
        skipped = rng.choice((0, 0, 1, 2))
        self._spare += range(self.epoch_max + 1, self.epoch_max + 1 + skipped)
        self.epoch_max += skipped + 1
        self.epoch = self.epoch_max
        return self.epoch

    def branch_epoch(self, keep: int, rng: Random) -> int:
        """Return an epoch that a log with these entries may go on in, on another branch.

        Never one that was used: equal positions mean equal prefixes. What came from a primary
        before the last one may be of an older epoch than what it replaces.
        """
        older = [epoch for epoch in self._spare if epoch >= self.epoch_of(keep)]
        epoch = rng.choice(older) if older and rng.random() < 0.5 else self.begin_epoch(rng)
        if epoch in self._spare:
            self._spare.remove(epoch)
        self.begin_epoch(rng)
        return epoch

    def survivors(self, facts: list[Fact]) -> int | None:
        """Return how many changes (at most) make these facts, None if no number does."""
        summed: list[Fact] = []
        found = None if facts else 0
        for number, change in enumerate(self.changes, 1):
            summed[change.keep :] = change.added
            if summed == facts:
                found = number
        return found

    def adopt(self, facts: list[Fact], count: int, promised: int, committed: int) -> None:
        """After a recovery, what was found is durable, and what was not is gone."""
        del self.changes[count:]
        self.facts = facts
        self.note_returned()
        self.note_durable()
        self.promised = promised
        self.committed = committed
        self.epoch = max(promised, facts[-1].epoch if facts else 1)
        self.epoch_max = max(self.epoch_max, self.epoch)


class Truth:
    """Of all shards; checks what a recovery found against it."""

    def __init__(self, shards: int) -> None:
        self.shards = {shard: ShardTruth() for shard in range(shards)}
        self.only_killed = False
        """Since the last recovery the process died, but no byte was lost with it."""
        self.bit_rotted_anywhere = False

    def check_and_adopt(
        self,
        found: dict[int, list[Fact]],
        promises: dict[int, int],
        snapshotted: dict[int, LogPosition],
    ) -> None:
        for shard, truth in self.shards.items():
            facts = found[shard]
            count = truth.survivors(facts)
            if count is None:
                raise ViolationError(
                    f"shard {shard}: recovered what was not appended, or out of order, "
                    f"or what was gone: {facts[-3:]}"
                )
            at_least = truth.returned if self.only_killed else truth.durable
            if count < at_least and not self.bit_rotted_anywhere:
                raise ViolationError(
                    f"shard {shard}: {count} changes recovered, {at_least} were acknowledged"
                )
            known = max(promises[shard], facts[-1].epoch if facts else 0)
            if known < truth.promised and not self.bit_rotted_anywhere:
                raise ViolationError(
                    f"shard {shard}: promise {truth.promised} forgotten, {known} known"
                )
            position = snapshotted.get(shard)
            truth.adopt(facts, count, promises[shard], position.revision if position else 0)


def chunks_of(facts: list[Fact]) -> Iterator[bytes]:
    """Yield facts as the chunks of a snapshot."""
    for start in range(0, len(facts), 16):
        yield b"".join(_FACT.pack(*fact) for fact in facts[start : start + 16])


def facts_of(snapshot: SnapshotFile) -> list[Fact]:
    """Return the facts in a snapshot."""
    facts = [Fact(*fields) for chunk in snapshot.chunks() for fields in _FACT.iter_unpack(chunk)]
    last = LogPosition(facts[-1].epoch, facts[-1].revision) if facts else None
    if last != snapshot.position:
        raise ViolationError(f"{snapshot!r} ends at {last!r}")
    return facts
