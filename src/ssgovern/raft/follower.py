"""The side of the log that obeys: appends, heartbeats and snapshots of the term's leader.

The core has checked the term: what arrives here is from the one leader of the node's own term.

Invariant: the commit index only follows what this leader is known to share with us.
"""

from __future__ import annotations

from ssgovern.raft.membership import Config
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    Snapshot,
    SnapshotAnswer,
)
from ssgovern.raft.state import SafetyViolationError, State


class _Arriving:
    """A snapshot of which some pieces are here."""

    __slots__ = ("config", "index", "payload", "snapshot_term", "term")

    def __init__(self, message: InstallSnapshot) -> None:
        self.term = message.term
        self.index = message.index
        self.snapshot_term = message.snapshot_term
        self.config: Config = message.config
        self.payload = bytearray()

    def belongs_with(self, message: InstallSnapshot) -> bool:
        # Another leader's snapshot of the same entry may be other bytes.
        return (self.term, self.index) == (message.term, message.index)


class Follower:
    __slots__ = ("_arriving", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._arriving: _Arriving | None = None

    def on_append(self, message: Append) -> None:
        log = self._state.log
        prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
        if prev_index < log.commit:
            # The committed part equals every leader's log; parts of it may be compacted away.
            skipped = log.commit - prev_index
            if len(entries) <= skipped:
                self._answer(message, log.commit)
                return
            prev_index, prev_term = log.commit, entries[skipped - 1].term
            entries = entries[skipped:]
        if not log.matches(prev_index, prev_term):
            self._refuse(message)
            return
        self._store(entries)
        last_new = prev_index + len(entries)
        self._follow_commit(message.commit, last_new)
        self._answer(message, last_new)

    def _store(self, entries: tuple[Entry, ...]) -> None:
        """Add what is new. Only a conflict cuts the log: an old append that comes late says
        nothing about what came after it."""
        log = self._state.log
        for entry in entries:
            if log.matches(entry.index, entry.term):
                continue
            if entry.index <= log.last_index:
                self._cut(entry.index)
            log.append(entry)

    def _follow_commit(self, commit: int, last_new: int) -> None:
        # Not our own last index: what we hold beyond may not be this leader's.
        self._state.log.commit_to(min(commit, last_new))

    def _cut(self, first: int) -> None:
        """A conflict: what an older leader gave us from here on was never committed."""
        log = self._state.log
        if first <= log.commit:
            raise SafetyViolationError(f"told to drop committed entry {first}: {log!r}")
        self._state.note(f"drops {log.last_index - first + 1} entries from {first} on")
        log.truncate(first)

    def _answer(self, message: Append | InstallSnapshot, index: int) -> None:
        state = self._state
        state.say(
            AppendAnswer(
                state.cluster,
                state.id,
                message.source,
                state.term,
                ok=True,
                index=index,
                hint_index=0,
                hint_term=0,
            )
        )

    def _refuse(self, message: Append) -> None:
        state, log = self._state, self._state.log
        hint = max(log.last_not_after(message.prev_index, message.prev_term), log.commit)
        state.say(
            AppendAnswer(
                state.cluster,
                state.id,
                message.source,
                state.term,
                ok=False,
                index=message.prev_index,
                hint_index=hint,
                hint_term=log.term_at(hint) or 0,
            )
        )

    def on_heartbeat(self, message: Heartbeat) -> None:
        state, log = self._state, self._state.log
        if message.commit > log.last_index:
            # The leader names only what we acknowledged, and of one leader nothing is cut.
            raise SafetyViolationError(
                f"entry {message.commit} was acknowledged, and the disk lost it: {log!r}"
            )
        log.commit_to(message.commit)
        state.say_now(
            HeartbeatAnswer(
                state.cluster, state.id, message.source, state.term, message.round, message.tick
            )
        )

    def on_install(self, message: InstallSnapshot) -> None:
        state, log = self._state, self._state.log
        if message.index <= log.commit:
            self._answer(message, log.commit)
            return
        if self._holds(message):
            # The log has it all, and maybe acknowledged entries beyond, which must stay.
            log.commit_to(message.index)
            self._answer(message, message.index)
            return
        arriving = self._arriving
        if arriving is None or not arriving.belongs_with(message):
            if arriving is not None and (message.term, message.index) < (
                arriving.term,
                arriving.index,
            ):
                return
            arriving = self._arriving = _Arriving(message)
        if message.offset == len(arriving.payload):
            arriving.payload += message.chunk
            if message.done:
                self._install(arriving)
                self._answer(message, log.commit)
                return
        state.say_now(
            SnapshotAnswer(
                state.cluster,
                state.id,
                message.source,
                state.term,
                arriving.index,
                len(arriving.payload),
            )
        )

    def _holds(self, message: InstallSnapshot) -> bool:
        return self._state.log.matches(message.index, message.snapshot_term)

    def _install(self, arriving: _Arriving) -> None:
        snapshot = Snapshot(
            arriving.index, arriving.snapshot_term, arriving.config, bytes(arriving.payload)
        )
        self._arriving = None
        self._state.note(f"installs the snapshot at {snapshot.term}/{snapshot.index}")
        self._state.log.install(snapshot)
