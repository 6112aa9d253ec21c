"""The log of one shard, as its primary keeps it.

Pure. Proposals get their log position here and wait until every member of the in-sync set has
them on disk (PacificA, KIP-966); then they are committed, in order, and only then may anyone
see what they did. This node is a member like any other: what it proposed counts as held by it
only when its own disk says so.

Invariants: `committed <= persisted by each member <= tail`; waiting proposals are exactly those
in `(committed, tail]`.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from ssgovern.model import LogPosition, NodeId, Outcome, ShardId
from ssgovern.wire.records import Record


class Waiter(Protocol):
    """Who proposed something and wants to know what became of it."""

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """The proposal was committed and applied, or `outcome.error` says why it never will."""


class Proposal:
    """An entry on its way into the log. Also what storage writes: shard, position, body."""

    __slots__ = ("body", "epoch", "record", "revision", "shard", "waiter")

    def __init__(
        self,
        shard: ShardId,
        epoch: int,
        revision: int,
        body: bytes,
        record: Record,
        waiter: Waiter,
    ) -> None:
        self.shard = shard
        self.epoch = epoch
        self.revision = revision
        self.body = body
        self.record = record
        self.waiter = waiter

    def __repr__(self) -> str:
        return f"<Proposal shard={self.shard} {self.epoch}/{self.revision}>"


class PrimaryLog:
    """Positions, waiting proposals and the in-sync set of one shard."""

    __slots__ = ("_persisted", "_waiting", "committed", "epoch", "shard", "tail")

    def __init__(
        self, shard: ShardId, epoch: int, tail: LogPosition, in_sync: tuple[NodeId, ...]
    ) -> None:
        assert epoch > tail.epoch, f"shard {shard}: epoch {epoch} was used before ({tail!r})"
        assert in_sync, f"shard {shard}: an empty in-sync set would commit anything"
        self.shard = shard
        self.epoch = epoch
        self.tail = tail.revision
        """Revision of the last proposal."""
        self.committed = tail.revision
        self._persisted = dict.fromkeys(in_sync, tail.revision)
        self._waiting: deque[Proposal] = deque()

    def __repr__(self) -> str:
        return (
            f"<PrimaryLog shard={self.shard} epoch={self.epoch} tail={self.tail} "
            f"committed={self.committed}>"
        )

    def propose(self, body: bytes, record: Record, waiter: Waiter) -> Proposal:
        """Give an entry the next position. The caller appends it to the log of the node."""
        self.tail += 1
        proposal = Proposal(self.shard, self.epoch, self.tail, body, record, waiter)
        self._waiting.append(proposal)
        return proposal

    def on_persisted(self, member: NodeId, revision: int) -> list[Proposal]:
        """A member has everything up to `revision` on disk. Return what is committed by it."""
        persisted = self._persisted
        assert revision <= self.tail, f"{self!r}: {member} persisted {revision}, never proposed"
        if revision > persisted[member]:
            persisted[member] = revision
        reached = min(persisted.values())
        waiting = self._waiting
        committed = []
        while waiting and waiting[0].revision <= reached:
            committed.append(waiting.popleft())
        self.committed = reached
        return committed

    def on_append_failed(self, member: NodeId) -> list[Proposal]:
        """This node's disk refused what it had not persisted yet; nobody has seen any of it.

        Return the proposals withdrawn. Their revisions are given out again, which is safe
        because only a member that persisted an entry could ever have counted for it.
        """
        held = self._persisted[member]
        assert all(revision <= held for revision in self._persisted.values()), (
            f"{self!r}: another member holds what this node could not write"
        )
        withdrawn = []
        while self._waiting and self._waiting[-1].revision > held:
            withdrawn.append(self._waiting.pop())
        self.tail = held
        withdrawn.reverse()
        return withdrawn

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        assert self.committed <= min(self._persisted.values()) <= self.tail, self
        revisions = [proposal.revision for proposal in self._waiting]
        assert revisions == list(range(self.committed + 1, self.tail + 1)), self
