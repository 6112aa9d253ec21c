"""Ends of sessions that are decided and that their shards cannot take yet. Pure.

A shard without a lease or with too few in sync takes no entry for a while; the sessions that
ended meanwhile are forgotten here, so what remains of them is the note that their end is due.
Bounded by the sessions that owned something: a shard's notes go when the shard does.
"""

from __future__ import annotations

from itertools import islice

from ssgovern.model import Outcome, SessionId, ShardId
from ssgovern.replication.primary import Proposal
from ssgovern.wire.pb import log_pb2


class EndsDue:
    """The notes; also the waiter of ends that are proposed from them."""

    def __init__(self) -> None:
        self._due: dict[ShardId, dict[SessionId, log_pb2.SessionEnd]] = {}

    def __repr__(self) -> str:
        return f"<EndsDue {len(self)} in {len(self._due)} shards>"

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, session_id: SessionId, shard: ShardId, reason: log_pb2.SessionEnd) -> None:
        """Note that the session is to end in the shard."""
        self._due.setdefault(shard, {})[session_id] = reason

    def shards(self) -> list[ShardId]:
        """Return the shards with ends due."""
        return list(self._due)

    def take(self, shard: ShardId, count: int) -> list[tuple[SessionId, log_pb2.SessionEnd]]:
        """Remove and return the oldest ends of a shard, at most so many."""
        due = self._due[shard]
        taken = list(islice(due.items(), count))
        for session_id, _ in taken:
            del due[session_id]
        if not due:
            del self._due[shard]
        return taken

    def take_one(self, session_id: SessionId, shard: ShardId) -> log_pb2.SessionEnd | None:
        """Remove and return the end of one session in a shard, if it is due."""
        due = self._due.get(shard)
        reason = None if due is None else due.pop(session_id, None)
        if not due:
            self._due.pop(shard, None)
        return reason

    def drop(self, shard: ShardId) -> None:
        """Forget the ends of a shard that is another node's now."""
        self._due.pop(shard, None)

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """The log could not take an end after all: it is due again."""
        if outcome.error is not None:
            record = proposal.record
            assert isinstance(record, log_pb2.Record), f"{proposal!r} ends a session"
            ended = record.session_ended
            self.add(SessionId(ended.session_id), proposal.shard, ended.reason)
