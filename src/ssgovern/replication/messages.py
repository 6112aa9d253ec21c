"""What goes into the replication cores and what comes out of them.

Events are requests of peers and of the controller; effects are deeds for the driver, to be done
in the order in which they are listed. A message is an event at its receiver and travels in a
`Send`. Refuses to know how any of it looks on the wire.

Invariant: whatever a node says carries the epoch it said it in; what a replica says also
carries its node epoch (which of its lives it is), so that nothing of an earlier life counts
for a later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.replication.primary import Proposal


class LogItem(Protocol):
    """An entry as the log keeps it; a `Proposal` is one too."""

    @property
    def epoch(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Entry:
    """An entry as a replica gets it: bytes whose meaning only `registry` knows."""

    __slots__ = ("body", "epoch", "revision")

    def __init__(self, epoch: int, revision: int, body: bytes) -> None:
        self.epoch = epoch
        self.revision = revision
        self.body = body

    def __repr__(self) -> str:
        return f"<Entry {self.epoch}/{self.revision}>"


class Member(NamedTuple):
    """A node in one of its lives: a restart gives it a new node epoch."""

    node: NodeId
    node_epoch: int


# --- from the controller --------------------------------------------------------------------


@dataclass(slots=True)
class Assigned:
    """The shard's row of the shard map. `version` rises with every change of the row.

    `replicas` are all nodes that keep the shard, the primary left out; `in_sync` includes it.
    """

    shard: ShardId
    epoch: int
    version: int
    primary: NodeId | None
    in_sync: tuple[Member, ...]
    replicas: tuple[NodeId, ...]


@dataclass(slots=True)
class InSyncRefused:
    """The controller did not take a proposed in-sync set; another may be proposed."""

    shard: ShardId
    epoch: int
    version: int


# --- from primary to replica ----------------------------------------------------------------


@dataclass(slots=True)
class AppendEntries:
    """Entries that follow `prev`, and how far the primary has committed. May be empty."""

    shard: ShardId
    source: NodeId
    epoch: int
    prev: LogPosition
    entries: Sequence[LogItem]
    committed: int


@dataclass(slots=True)
class InstallSnapshot:
    """The shard's whole state at a committed position, put together again by the driver.

    `replaces`: the commit position of the replica that the primary's log contradicts, or None.
    Only with acknowledgements by fewer than all can there be one.
    """

    shard: ShardId
    source: NodeId
    epoch: int
    position: LogPosition
    state: bytes
    replaces: LogPosition | None = None


# --- from replica to primary ----------------------------------------------------------------


@dataclass(slots=True)
class Appended:
    """The replica has all up to `held` on disk, equal to the primary's log of this epoch."""

    shard: ShardId
    source: NodeId
    node_epoch: int
    epoch: int
    held: int
    version: int = 0
    """Of the row that the replica followed when it said so: which of its copies it speaks of, if
    the shard was taken from it and given back."""


@dataclass(slots=True)
class Mismatch:
    """The replica does not have `prev`. `hint`: its highest position that may agree.

    `floor` is its commit position: what is at or below it cannot be truncated.
    """

    shard: ShardId
    source: NodeId
    node_epoch: int
    epoch: int
    prev: LogPosition
    hint: LogPosition
    floor: LogPosition
    version: int = 0


@dataclass(slots=True)
class Fenced:
    """The replica obeys `epoch` and refuses all older ones."""

    shard: ShardId
    source: NodeId
    epoch: int


Message: TypeAlias = AppendEntries | InstallSnapshot | Appended | Mismatch | Fenced


# --- effects --------------------------------------------------------------------------------


@dataclass(slots=True)
class Send:
    target: NodeId
    message: Message


@dataclass(slots=True)
class SendSnapshot:
    """Take the shard's state at the commit position and send it as an `InstallSnapshot`."""

    target: NodeId
    shard: ShardId
    epoch: int
    replaces: LogPosition | None


@dataclass(slots=True)
class Persist:
    """Write and sync, before any later effect: promise, then cut, then entries.

    `epoch` 0: no promise. `keep` is the last revision that stays, None: nothing is cut.
    `on_persisted(mark)` of the core says that it is done.
    """

    shard: ShardId
    epoch: int
    keep: int | None
    entries: Sequence[LogItem]
    mark: int


@dataclass(slots=True)
class Install:
    """Replace state and log of the shard by a snapshot, durably."""

    snapshot: InstallSnapshot


@dataclass(slots=True)
class Apply:
    """These entries are committed: apply them, in order. Nothing of it needs a sync."""

    shard: ShardId
    entries: Sequence[LogItem]


@dataclass(slots=True)
class Commit:
    """What this primary proposed is committed: apply, then answer who waits."""

    shard: ShardId
    proposals: Sequence[Proposal]


@dataclass(slots=True)
class StepDown:
    """No longer the primary. Whether `unknown` commit under another epoch nobody can tell."""

    shard: ShardId
    epoch: int
    reason: str
    unknown: Sequence[Proposal]


@dataclass(slots=True)
class ProposeInSync:
    """Ask the controller for another in-sync set: compare-and-set on (epoch, version)."""

    shard: ShardId
    source: NodeId
    epoch: int
    version: int
    in_sync: tuple[Member, ...]


@dataclass(slots=True)
class Resign:
    """Ask the controller for another epoch: the node it names does not lead this one any more.

    Sent by the driver, again and again, while the shard map names its node for an epoch that
    it has led and left.
    """

    shard: ShardId
    source: NodeId
    epoch: int


Effect: TypeAlias = (
    Send | SendSnapshot | Persist | Install | Apply | Commit | StepDown | ProposeInSync
)

ACKS_ALL: Final = 0
"""Every member of the in-sync set must hold an entry before it commits."""
