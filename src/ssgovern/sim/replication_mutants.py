"""Planted bugs of replication, each a mistake that a real system has made or nearly made.

Production code has no switches for them: each is an override of one well-named method.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ssgovern.model import NodeId
from ssgovern.replication.messages import (
    AppendEntries,
    Assigned,
    Effect,
    Member,
    ProposeInSync,
)
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.replication.progress import Progress
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary
from ssgovern.sim.replication_controller import ModelController
from ssgovern.sim.replication_model import Cores
from ssgovern.wire.records import Record


class Mutant(NamedTuple):
    cores: Cores = Cores()
    controller: type[ModelController] = ModelController


HONEST: Final = Mutant()


class _IgnoresEpoch(ReplicaLog):
    """Takes entries of any primary, however old."""

    __slots__ = ()

    def on_append(self, event: AppendEntries) -> list[Effect]:
        epoch = self.epoch
        event = AppendEntries(
            event.shard,
            event.source,
            max(event.epoch, epoch),
            event.prev,
            event.entries,
            event.committed,
        )
        return super().on_append(event)


class _TruncatesToCommitted(ReplicaLog):
    """Cuts what it does not know to be committed at each new epoch (Kafka before KIP-101)."""

    __slots__ = ()

    def on_assigned(self, event: Assigned) -> list[Effect]:
        effects = super().on_assigned(event)
        if effects and self.log.tail_revision > self.committed:
            self.log.truncate(self.committed)
            self._synced = min(self._synced, self.committed)
            for write in self._pending:
                write.end = min(write.end, self.committed)
            effects.append(self._persist(0, self.committed, ()))
        return effects


class _MajorityAcknowledges(ReplicatedPrimary):
    """Commits what most of the set hold."""

    __slots__ = ()

    def _reached(self) -> int:
        if self.deposed or len(self.in_sync) < self._settings.min_in_sync:
            return self.committed
        own = self._persisted[self.node]
        held = sorted([own, *self._held()])
        return min(own, held[(len(held) - 1) // 2])


class _IgnoresMinimum(ReplicatedPrimary):
    """Goes on alone while the controller believes that nothing is committed."""

    __slots__ = ()

    def _reached(self) -> int:
        settings = self._settings
        self._settings = settings._replace(min_in_sync=0)
        reached = super()._reached()
        self._settings = settings
        return reached


class _NoMaximalSet(ReplicatedPrimary):
    """Takes the set it asked for as granted."""

    __slots__ = ()

    def _maximal(self) -> list[NodeId]:
        members = self._proposed[-1] if self._proposed else self.in_sync
        return [member.node for member in members if member.node != self.node]


class _CountsItselfEarly(ReplicatedPrimary):
    """Takes what it proposed for persisted."""

    __slots__ = ()

    def propose(self, body: bytes, record: Record, waiter: Waiter) -> Proposal:
        proposal = super().propose(body, record, waiter)
        self._persisted[self.node] = self.tail
        return proposal


class _ServesEarly(ReplicatedPrimary):
    """Takes its own commit position for the shard's from the first moment."""

    __slots__ = ()

    @property
    def serving(self) -> bool:
        return not self.deposed


class _JoinsEarly(ReplicatedPrimary):
    """Takes who reached its own commit position for complete, before its epoch began."""

    __slots__ = ()

    def _may_join(self, progress: Progress) -> bool:
        return progress.confirmed and progress.matched >= self.committed


class _ElectsAnybody(ModelController):
    """Prefers any primary to none."""

    def candidates(self) -> list[NodeId]:
        return super().candidates() or sorted(self.alive)


class _ForgetsLives(ModelController):
    """Takes a member back whichever life of it was meant."""

    def is_same_life(self, member: Member) -> bool:
        return True


class _KeepsMembership(ModelController):
    """Lets a restarted node keep its place in the in-sync set."""

    def leave_life(self, node: NodeId, *, intact: bool) -> None:
        return


class _NoCompareAndSet(ModelController):
    """Takes a set whatever version of the row it was made for."""

    def is_current(self, event: ProposeInSync) -> bool:
        return True


MUTANTS: Final = {
    "replica-ignores-epoch": Mutant(Cores(replica=_IgnoresEpoch)),
    "truncate-to-committed": Mutant(Cores(replica=_TruncatesToCommitted)),
    "majority-acknowledges": Mutant(Cores(primary=_MajorityAcknowledges)),
    "minimum-ignored": Mutant(Cores(primary=_IgnoresMinimum)),
    "no-maximal-set": Mutant(Cores(primary=_NoMaximalSet)),
    "counts-itself-before-sync": Mutant(Cores(primary=_CountsItselfEarly)),
    "serves-before-epoch-start": Mutant(Cores(primary=_ServesEarly)),
    "joins-before-epoch-start": Mutant(Cores(primary=_JoinsEarly)),
    "unclean-election": Mutant(controller=_ElectsAnybody),
    "rejoin-without-node-epoch": Mutant(controller=_ForgetsLives),
    "restart-keeps-membership": Mutant(controller=_KeepsMembership),
    "no-compare-and-set": Mutant(controller=_NoCompareAndSet),
}
