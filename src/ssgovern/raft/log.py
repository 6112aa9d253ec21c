"""The log of one node: entries, the snapshot below them, and how far each purpose has come.

Knows nothing of terms to come, votes or peers. The members in force are a matter of the log:
those of its last change, committed or not (thesis 4.1); cutting the log takes a change back.

Invariants: indexes are consecutive and terms never fall; `base <= snapshot <= applied <= commit
<= last`; `durable <= handed <= last`. What is committed is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssgovern.model import NodeId
from ssgovern.raft.membership import Config
from ssgovern.raft.messages import Entry, Snapshot


class RaftLog:
    __slots__ = (
        "_configs",
        "_entries",
        "_installed",
        "applied",
        "base_index",
        "base_term",
        "commit",
        "durable",
        "handed",
        "snapshot",
    )

    def __init__(self, snapshot: Snapshot, entries: Iterable[Entry]) -> None:
        """Start from what the disk holds: a snapshot, and entries that may begin below it."""
        self.snapshot = snapshot
        self.base_index = snapshot.index
        """Index of the entry before the first kept one; at most that of the snapshot."""
        self.base_term = snapshot.term
        self._entries = _after_snapshot(snapshot, entries)
        self.commit = snapshot.index
        self.applied = snapshot.index
        """The last entry handed out to be applied."""
        self.durable = self.last_index
        """This node's disk is known to hold all up to here."""
        self.handed = self.last_index
        """The last entry handed out to be written."""
        self._installed: Snapshot | None = None
        """A leader's snapshot that was not handed out to be written yet."""
        self._configs: list[tuple[int, Config]] = [(snapshot.index, snapshot.config)]
        self._note_configs(self._entries)

    def __repr__(self) -> str:
        return (
            f"<RaftLog {self.base_term}/{self.base_index}..{self.last_term}/{self.last_index} "
            f"commit={self.commit} applied={self.applied} durable={self.durable}>"
        )

    # --- reading ---------------------------------------------------------------------------

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    @property
    def config(self) -> Config:
        """The members in force."""
        return self._configs[-1][1]

    @property
    def config_index(self) -> int:
        return self._configs[-1][0]

    def config_at(self, index: int) -> Config:
        """Return the members at `index`, which is not below the snapshot."""
        return next(config for at, config in reversed(self._configs) if at <= index)

    def may_campaign(self, node: NodeId) -> bool:
        """Say whether a node votes by any config that may still be in force.

        Who is voted out by its last entry has to stand for election all the same until that
        entry is committed: nobody without the entry could win against it (thesis 4.2.2).
        """
        for at, config in reversed(self._configs):
            if config.is_voter(node):
                return True
            if at <= self.commit:
                return False
        return False

    def term_at(self, index: int) -> int | None:
        """Return the term of an entry, None if this log does not hold it (any more)."""
        offset = index - self.base_index
        if offset == 0:
            return self.base_term
        return self._entries[offset - 1].term if 0 < offset <= len(self._entries) else None

    def matches(self, index: int, term: int) -> bool:
        return self.term_at(index) == term

    def entries(self, first: int, last: int) -> Sequence[Entry]:
        assert first > self.base_index, f"entry {first} was compacted away: {self!r}"
        return self._entries[first - self.base_index - 1 : last - self.base_index]

    def batch(self, first: int, bytes_max: int, count_max: int) -> tuple[Entry, ...]:
        """Return entries from `first` on, at least one if there is one."""
        found = self.entries(first, first + count_max - 1)
        size_bytes = 0
        for count, entry in enumerate(found):
            size_bytes += entry.size_bytes
            if count and size_bytes > bytes_max:
                return tuple(found[:count])
        return tuple(found)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Say whether a log that ends there holds all that may be committed here (5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def last_not_after(self, index: int, term: int) -> int:
        """Return the last index <= `index` whose term is <= `term`: where two logs may meet."""
        index = min(index, self.last_index)
        while (found := self.term_at(index)) is not None and found > term:
            index -= 1
        return index

    # --- writing ---------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        assert entry.index == self.last_index + 1, f"a gap before {entry.index}: {self!r}"
        assert entry.term >= self.last_term, f"term {entry.term} after {self.last_term}"
        self._entries.append(entry)
        if isinstance(entry.payload, Config):
            self._configs.append((entry.index, entry.payload))

    def truncate(self, first: int) -> None:
        """Drop `first` and all after it, and the changes of members among them."""
        assert first > self.commit, f"entry {first} is committed: {self!r}"
        del self._entries[first - self.base_index - 1 :]
        self.handed = min(self.handed, first - 1)
        self.durable = min(self.durable, first - 1)
        while self._configs[-1][0] >= first:
            self._configs.pop()

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; it never falls. Return whether it rose."""
        assert index <= self.last_index, f"entry {index} is not here: {self!r}"
        if index <= self.commit:
            return False
        self.commit = index
        return True

    def persisted(self, index: int, term: int) -> None:
        """The disk holds all up to this entry, unless it was replaced in the meantime.

        The term tells: an index alone could by now mean another entry, never written.
        """
        if index > self.durable and self.matches(index, term):
            self.durable = index

    def take_committed(self) -> tuple[Entry, ...]:
        """Hand out what is committed and was not handed out before."""
        found = tuple(self.entries(self.applied + 1, self.commit))
        self.applied = self.commit
        return found

    def take_installed(self) -> Snapshot | None:
        """Hand out the snapshot that replaced this log, once."""
        found, self._installed = self._installed, None
        return found

    def compact(self, index: int, payload: bytes, keep: int) -> None:
        """Put a snapshot in place of what was applied; `keep` entries before it stay for
        followers that are a little behind."""
        term = self.term_at(index)
        assert self.snapshot.index < index <= self.applied, f"no snapshot at {index}: {self!r}"
        assert term is not None, "what is above the snapshot is in the log"
        self.snapshot = Snapshot(index, term, self.config_at(index), payload)
        later = [(at, config) for at, config in self._configs if at > index]
        self._configs = [(index, self.snapshot.config), *later]
        base = max(self.base_index, index - keep)
        base_term = self.term_at(base)
        assert base_term is not None, "the new base is between the old one and the snapshot"
        del self._entries[: base - self.base_index]
        self.base_index, self.base_term = base, base_term

    def install(self, snapshot: Snapshot) -> None:
        """Replace everything by a leader's snapshot, which this log does not contain."""
        assert snapshot.index > self.commit, f"{snapshot.index} is below: {self!r}"
        self.snapshot = self._installed = snapshot
        self._entries.clear()
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self.commit = self.applied = self.handed = self.durable = snapshot.index
        self._configs = [(snapshot.index, snapshot.config)]

    def _note_configs(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if isinstance(entry.payload, Config):
                self._configs.append((entry.index, entry.payload))

    def validate(self) -> None:
        assert self.base_index <= self.snapshot.index <= self.applied, repr(self)
        assert self.applied <= self.commit <= self.last_index, repr(self)
        assert self.durable <= self.handed <= self.last_index, repr(self)
        assert self.term_at(self.snapshot.index) == self.snapshot.term, repr(self)
        index, term = self.base_index, self.base_term
        for entry in self._entries:
            assert entry.index == index + 1, f"{entry.index} after {index}"
            assert entry.term >= term, f"term {entry.term} after {term}"
            index, term = entry.index, entry.term
        expected = [(self.snapshot.index, self.snapshot.config)]
        expected += [
            (entry.index, entry.payload)
            for entry in self._entries
            if isinstance(entry.payload, Config) and entry.index > self.snapshot.index
        ]
        assert self._configs == expected, f"{self._configs} != {expected}"


def _after_snapshot(snapshot: Snapshot, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that continue the snapshot.

    A crash between writing an installed snapshot and dropping the log it replaces leaves a log
    that may be of another history. It continues the snapshot only if it holds the snapshot's
    own entry, or begins right after it.
    """
    kept: list[Entry] = []
    continues = False
    for position, entry in enumerate(entries):
        if entry.index == snapshot.index:
            continues = entry.term == snapshot.term
        elif entry.index > snapshot.index:
            if position == 0 and entry.index == snapshot.index + 1:
                continues = True
            if not continues:
                return []
            kept.append(entry)
    return kept
