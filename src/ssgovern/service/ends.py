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
        self.by_shard: dict[ShardId, dict[SessionId, log_pb2.SessionEnd]] = {}
        """Has no shard without any. To be read only: an attribute, because writes look at it."""

    def __repr__(self) -> str:
        return f"<EndsDue {len(self)} in {len(self.by_shard)} shards>"

    def __len__(self) -> int:
        return sum(map(len, self.by_shard.values()))

    def add(self, session_id: SessionId, shard: ShardId, reason: log_pb2.SessionEnd) -> None:
        """Note that the session is to end in the shard."""
        self.by_shard.setdefault(shard, {})[session_id] = reason

    def shards(self) -> list[ShardId]:
        """Return the shards with ends due."""
        return list(self.by_shard)

    def take(self, shard: ShardId, count: int) -> list[tuple[SessionId, log_pb2.SessionEnd]]:
        """Remove and return the oldest ends of a shard, at most so many."""
        due = self.by_shard[shard]
        taken = list(islice(due.items(), count))
        for session_id, _ in taken:
            del due[session_id]
        if not due:
            del self.by_shard[shard]
        return taken

    def take_one(self, session_id: SessionId, shard: ShardId) -> log_pb2.SessionEnd | None:
        """Remove and return the end of one session in a shard, if it is due."""
        due = self.by_shard.get(shard)
        reason = None if due is None else due.pop(session_id, None)
        if not due:
            self.by_shard.pop(shard, None)
        return reason

    def drop(self, shard: ShardId) -> None:
        """Forget the ends of a shard that is another node's now."""
        self.by_shard.pop(shard, None)

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """The log could not take an end after all: it is due again."""
        if outcome.error is not None:
            record = proposal.record
            assert isinstance(record, log_pb2.Record), f"{proposal!r} ends a session"
            ended = record.session_ended
            self.add(SessionId(ended.session_id), proposal.shard, ended.reason)
