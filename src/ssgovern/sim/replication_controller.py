"""The controller of the model: one shard's placement, decided atomically.

In production it is the Raft group's state; here it is one object, so what it decides is
committed when it decides it. It refuses to be careful about whom it suspects: safety must not
depend on that.

Invariants: epochs and versions rise; whoever may be promoted holds all that is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ssgovern.model import NodeId, ShardId
from ssgovern.replication.messages import (
    Assigned,
    InSyncRefused,
    Member,
    Message,
    ProposeInSync,
    Resign,
)

SHARD: Final = ShardId(7)
CONTROLLER: Final = NodeId(0)


@dataclass(slots=True)
class Register:
    """A node that began a new life. `intact`: its log proves that it lost nothing."""

    source: NodeId
    life: int
    intact: bool


@dataclass(slots=True)
class Registered:
    life: int
    node_epoch: int


Parcel: TypeAlias = (
    Message | Assigned | InSyncRefused | ProposeInSync | Resign | Register | Registered
)


class ModelController:
    """Assigns one shard. `publish` goes to everybody, `choose` picks whom to promote.

    `eligible` (KIP-966): nodes that left the in-sync set when it fell below the minimum. As
    nothing commits below it, they still hold all that is committed, and may be promoted when
    nobody in the set can be.
    """

    def __init__(
        self,
        nodes: Sequence[NodeId],
        min_in_sync: int,
        *,
        send: Callable[[NodeId, Parcel], None],
        choose: Callable[[Sequence[NodeId]], NodeId],
        changed: Callable[[], None],
    ) -> None:
        self.send = send
        self.choose = choose
        self.changed = changed
        self.min_in_sync = min_in_sync
        self.nodes = tuple(nodes)
        self.epoch = 0
        self.version = 0
        self.primary: NodeId | None = None
        self.in_sync: list[NodeId] = list(nodes)
        self.eligible: list[NodeId] = []
        self.alive: list[NodeId] = list(nodes)
        self.node_epochs = dict.fromkeys(nodes, 0)
        self.lives = dict.fromkeys(nodes, 0)

    def row(self) -> Assigned:
        return Assigned(
            SHARD,
            self.epoch,
            self.version,
            self.primary,
            tuple(Member(node, self.node_epochs[node]) for node in sorted(self.in_sync)),
            tuple(node for node in self.nodes if node != self.primary),
        )

    def publish(self) -> None:
        """Tell everybody of a change."""
        self.version += 1
        self.repeat()
        self.changed()

    def repeat(self) -> None:
        row = self.row()
        for node in self.nodes:
            self.send(node, row)

    def candidates(self) -> list[NodeId]:
        """Return who may be promoted: each holds all that is committed."""
        in_sync = [node for node in self.in_sync if node in self.alive]
        return in_sync or [node for node in self.eligible if node in self.alive]

    def promote(self, node: NodeId) -> None:
        self.epoch += 1
        self.primary = node
        if node not in self.in_sync:
            self.in_sync.append(node)
        self._settle_eligible()

    def elect(self) -> None:
        self.primary = None
        candidates = self.candidates()
        if candidates:
            self.promote(self.choose(candidates))

    def fence(self, node: NodeId) -> None:
        """Take a node for dead."""
        if node not in self.alive:
            return
        self.alive.remove(node)
        self._leave(node)
        if self.primary == node:
            self.elect()
        self.publish()

    def unfence(self, node: NodeId) -> None:
        """A heartbeat of a node that was taken for dead arrived."""
        if node in self.alive or self.node_epochs[node] == 0:
            return
        self.alive.append(node)
        if self.primary is None:
            self.elect()
        self.publish()

    def transfer(self, node: NodeId) -> None:
        """Promote a member of the in-sync set although the primary lives."""
        if node in self.in_sync and node in self.alive and node != self.primary:
            self.promote(node)
            self.publish()

    def on_resign(self, event: Resign) -> None:
        if (event.source, event.epoch) == (self.primary, self.epoch):
            self.elect()
            self.publish()

    def on_register(self, event: Register) -> None:
        node = event.source
        if event.life > self.lives[node]:
            self.lives[node] = event.life
            self.leave_life(node, intact=event.intact)
            self.node_epochs[node] += 1
            if node not in self.alive:
                self.alive.append(node)
            if self.primary is None:
                self.elect()
            self.publish()
        if event.life == self.lives[node]:
            answer = Registered(event.life, self.node_epochs[node])
            self.send(node, answer)
            self.send(node, self.row())

    def leave_life(self, node: NodeId, *, intact: bool) -> None:
        """Unclean exclusion: a new life never inherits a place in the in-sync set."""
        if self.lives[node] == 1:
            return
        self.fence(node)
        if not intact and node in self.eligible:
            self.eligible.remove(node)

    def on_propose(self, event: ProposeInSync) -> None:
        if event.epoch != self.epoch or event.source != self.primary:
            return
        if self.is_current(event) and self.is_acceptable(event):
            chosen = [member.node for member in event.in_sync]
            for node in [node for node in self.in_sync if node not in chosen]:
                self._leave(node)
            self.in_sync = chosen
            self._settle_eligible()
            self.publish()
        else:
            refused = InSyncRefused(SHARD, self.epoch, event.version)
            self.send(event.source, refused)

    def is_current(self, event: ProposeInSync) -> bool:
        return event.version == self.version

    def is_acceptable(self, event: ProposeInSync) -> bool:
        return all(
            member.node in self.alive and self.is_same_life(member) for member in event.in_sync
        )

    def is_same_life(self, member: Member) -> bool:
        return self.node_epochs[member.node] == member.node_epoch

    def _leave(self, node: NodeId) -> None:
        if node in self.in_sync:
            self.in_sync.remove(node)
            if len(self.in_sync) < self.min_in_sync:
                self.eligible.append(node)

    def _settle_eligible(self) -> None:
        enough = len(self.in_sync) >= self.min_in_sync
        self.eligible = [node for node in self.eligible if not enough and node not in self.in_sync]
