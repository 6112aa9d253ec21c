"""What this node keeps of one shard, in which role, and who is to know of it.

Records and seams without behaviour; `ShardHost` is their only owner. Invariants: a shard is
primary or replica or between the two (`switching`), never both; the log goes with it from role
to role; nothing is fed to a core while its role is being switched or a snapshot is being put in
place of its state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ssgovern import limits
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.model import ORIGIN, NodeId, Outcome, ShardId
from ssgovern.node.replication_sender import size_of
from ssgovern.registry.state import ShardState
from ssgovern.replication.messages import Assigned, Effect, Member, Message
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary
from ssgovern.replication.shard_log import ShardLog


class HostedShard:
    """One shard on this node."""

    __slots__ = (
        "backlog",
        "held",
        "installing",
        "led",
        "log",
        "primary",
        "promised",
        "replica",
        "serving",
        "settled",
        "shard",
        "switching",
        "writes",
    )

    def __init__(self, shard: ShardId, log: ShardLog, promised: int) -> None:
        self.shard = shard
        self.log = log
        self.promised = promised
        """Highest epoch that this node's disk says it obeys, as of the last role."""
        self.primary: ReplicatedPrimary | None = None
        self.replica: ReplicaLog | None = None
        self.switching = False
        """Its role changes as soon as what was asked of the disk before is there."""
        self.backlog: deque[Message] = deque(maxlen=limits.REPLICATION_BACKLOG_MAX)
        """Came while the role was being switched; what does not fit is sent again."""
        self.writes = 0
        """Effects of the replica that wait for the disk."""
        self.installing = False
        """Its core took a snapshot that is not in place yet."""
        self.held: deque[Effect] = deque()
        """Effects of the replica behind a snapshot that is being installed."""
        self.led = 0
        """Highest epoch this life of the node has led, or begun to: it is not led again."""
        self.serving = False
        """Its sessions were given their time, which is done once it may act as primary."""
        self.settled = False
        """It was in sync in this life, and has applied all that was committed before the epoch of
        then: what is here is the shard, not an old picture of it."""

    @property
    def obeys(self) -> int:
        """The highest epoch that this node promised to obey."""
        return self.promised if self.replica is None else self.replica.promised

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is here, and the log on disk says so."""
        has_role = self.replica is not None or self.primary is not None
        return not has_role and not self.switching and self.log.tail == ORIGIN

    def may_lead(self, epoch: int) -> bool:
        """Tell whether this life of the node may begin an epoch: one that is new to it.

        The row that grants it may be late, and another primary may have begun a later one.
        """
        return epoch > self.led and epoch >= self.obeys and epoch > self.log.tail.epoch

    def remember(self, message: Message) -> None:
        """Keep a message for the role that is to come, as far as there is room."""
        backlog = self.backlog
        backlog.append(message)
        size_bytes = sum(map(size_of, backlog))
        while size_bytes > limits.REPLICATION_BACKLOG_BYTES_MAX:
            size_bytes -= size_of(backlog.popleft())

    def __repr__(self) -> str:
        role = self.primary or self.replica or "no role"
        marks = " switching" * self.switching + " installing" * self.installing
        return f"<HostedShard {self.shard} {role!r}{marks}>"


def assigned_of(shard: ShardId, row: ShardRow, session_of: Callable[[NodeId], int]) -> Assigned:
    """Return a row as replication cores take it, each member in the life that it has now."""
    return Assigned(
        shard,
        row.epoch,
        row.version,
        None if row.primary == NOBODY else row.primary,
        tuple(Member(node, session_of(node)) for node in row.in_sync),
        tuple(node for node in row.holders if node != row.primary),
    )


class Registry(Protocol):
    """What the registry's use cases have to know of shards that come, change and go."""

    def adopt_shard(self, shard: ShardId, state: ShardState) -> None: ...

    def resume_shard(self, shard: ShardId) -> None: ...

    def drop_shard(self, shard: ShardId) -> None: ...


class Owner(Protocol):
    """What the node does about what the shards say."""

    def on_applied(self, shards: Iterable[ShardId]) -> None:
        """These shards' states have moved: tell subscribers."""

    def on_serving(self, began: Sequence[ShardId], ended: Sequence[ShardId]) -> None:
        """This node began to act as primary of some shards, and ended to for others."""

    def on_done(self) -> None:
        """A good moment to send answers that collected."""


class _Nobody:
    """Waits for an entry whose proposer is gone."""

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """Nobody listens."""


NOBODY_WAITS = _Nobody()
