"""A replicated shard in miniature: the real cores, a model of all that is around them.

Nodes with a disk that may lag behind and lose what it was not made to keep, a network that is a
list, and the controller of `replication_controller`. No clock
and no event loop: whoever drives the model says what happens next. The controller may suspect
anybody at any time, so nothing here can lean on leases.

`Truth` is told of everything and knows what no single node can: how far the shard is committed.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ssgovern.model import ORIGIN, LogPosition, NodeId, Outcome
from ssgovern.replication.messages import (
    ACKS_ALL,
    Appended,
    AppendEntries,
    Apply,
    Assigned,
    Commit,
    Effect,
    Fenced,
    Install,
    InstallSnapshot,
    InSyncRefused,
    LogItem,
    Member,
    Mismatch,
    Persist,
    ProposeInSync,
    Resign,
    Send,
    SendSnapshot,
    StepDown,
)
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.replication.shard_log import ShardLog
from ssgovern.sim.replication_controller import (
    CONTROLLER,
    SHARD,
    ModelController,
    Parcel,
    Register,
    Registered,
)
from ssgovern.wire.pb import log_pb2

RECORD: Final = log_pb2.Record()
VALIDATE_EVERY: Final = 8
LEASE_FOREVER: Final = 1 << 60


class ViolationError(AssertionError):
    """An invariant does not hold."""


class Nobody:
    """Waits for nothing."""

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """Nobody listens."""


NOBODY: Final = Nobody()


def digest_of(before: int, entry: LogItem) -> int:
    return zlib.crc32(entry.body, zlib.crc32(b"%d/%d" % (entry.epoch, entry.revision), before))


class Truth:
    """What was ever committed. `lossy`: with acknowledgements by fewer than all it may change."""

    def __init__(self, lossy: bool) -> None:
        self.lossy = lossy
        self.positions: list[LogPosition] = [ORIGIN]
        self.digests: dict[LogPosition, int] = {ORIGIN: 0}
        self.primaries: dict[int, NodeId] = {}

    @property
    def committed(self) -> LogPosition:
        return self.positions[-1]

    def on_primary(self, epoch: int, node: NodeId) -> None:
        """P1: an epoch has one primary."""
        if self.primaries.setdefault(epoch, node) != node:
            raise ViolationError(f"epoch {epoch}: {node} beside {self.primaries[epoch]}")

    def on_commit(self, entry: LogItem) -> None:
        """P2, P5: what is committed at a revision never changes, and has no gap before it."""
        position = LogPosition(entry.epoch, entry.revision)
        if self.lossy:
            return
        if entry.revision < len(self.positions):
            if self.positions[entry.revision] != position:
                raise ViolationError(
                    f"committed {self.positions[entry.revision]} became {position}"
                )
        elif entry.revision == len(self.positions):
            self.positions.append(position)
        else:
            raise ViolationError(f"{position} committed after {self.committed}")

    def on_apply(self, node: NodeId, entry: LogItem, digest: int) -> None:
        """Equal positions, equal states; and no replica applies what is not committed."""
        position = LogPosition(entry.epoch, entry.revision)
        if self.digests.setdefault(position, digest) != digest:
            raise ViolationError(f"node {node} has another state at {position}")
        if not self.lossy and entry.revision >= len(self.positions):
            raise ViolationError(f"node {node} applied {position} before it was committed")


class ModelDisk:
    """What a node finds again after a restart."""

    def __init__(self) -> None:
        self.promise = 0
        self.digest = 0
        self.log = ShardLog(SHARD, ORIGIN)

    @property
    def epoch(self) -> int:
        return max(self.promise, self.log.tail.epoch)

    def write(self, persist: Persist) -> None:
        self.promise = max(self.promise, persist.epoch)
        if persist.keep is not None:
            self.log.truncate(min(persist.keep, self.log.tail_revision))
        self.append(persist.entries)

    def append(self, entries: Sequence[LogItem]) -> None:
        """Write entries; one at a revision that is there replaces it and all that follows."""
        for entry in entries:
            self.log.truncate(min(entry.revision - 1, self.log.tail_revision))
            self.log.append(entry)

    def install(self, position: LogPosition, digest: int) -> None:
        self.log.reset(position)
        self.digest = digest


@dataclass(slots=True)
class OwnWrite:
    """Proposals of a primary on their way to its disk."""

    core: ReplicatedPrimary
    entries: list[Proposal]


@dataclass(frozen=True, slots=True)
class Cores:
    """The classes to run: the real ones, or with a planted bug."""

    replica: type[ReplicaLog] = ReplicaLog
    primary: type[ReplicatedPrimary] = ReplicatedPrimary


class ModelNode:
    """One node: its cores as a driver would run them."""

    def __init__(self, node: NodeId, cluster: Cluster) -> None:
        self.node = node
        self.cluster = cluster
        self.disk = ModelDisk()
        self.life = 0
        self.intact = True
        self.events = 0
        self.boot()

    def boot(self) -> None:
        """Begin a life with what is on disk. Nothing is served before the controller knows it."""
        self.life += 1
        self.node_epoch = 0
        self.led = 0
        self.named = 0
        self.version = 0
        self.core: ReplicaLog | ReplicatedPrimary | None = None
        self.queue: deque[Effect | OwnWrite] = deque()
        log = self.disk.log
        self.log = ShardLog(SHARD, log.base, log.between(log.base.revision, log.tail_revision))
        self.applied = log.base
        self.digest = self.disk.digest

    def __repr__(self) -> str:
        return f"<ModelNode {self.node}/{self.node_epoch} {self.core!r} queue={len(self.queue)}>"

    # --- messages --------------------------------------------------------------------------

    def on_parcel(self, parcel: Parcel) -> None:
        core = self.core
        if isinstance(parcel, Registered):
            if parcel.life == self.life and core is None:
                self.node_epoch = parcel.node_epoch
                self.intact = True
                self._follow(self.log.base.revision)
        elif core is None:
            return
        elif isinstance(parcel, Assigned):
            self._on_row(parcel)
        elif isinstance(parcel, AppendEntries | InstallSnapshot):
            self._on_primary_speaks(parcel)
        elif isinstance(core, ReplicatedPrimary):
            self._on_answer(core, parcel)

    def _on_primary_speaks(self, parcel: AppendEntries | InstallSnapshot) -> None:
        core = self.core
        if isinstance(core, ReplicatedPrimary):
            if parcel.epoch < core.epoch:
                fenced = Fenced(SHARD, self.node, core.epoch)
                self.cluster.send(self.node, parcel.source, fenced)
                return
            if parcel.epoch == core.epoch:
                raise ViolationError(f"{core!r} heard another primary: {parcel}")
            self._perform(core.on_fenced(Fenced(SHARD, parcel.source, parcel.epoch)))
            core = self.core
        assert isinstance(core, ReplicaLog)
        if isinstance(parcel, AppendEntries):
            self.queue += core.on_append(parcel)
        else:
            self.queue += core.on_snapshot(parcel)
        self._validate()

    def _on_answer(self, core: ReplicatedPrimary, parcel: Parcel) -> None:
        if isinstance(parcel, Appended):
            self._perform(core.on_appended(parcel))
        elif isinstance(parcel, Mismatch):
            self._perform(core.on_mismatch(parcel))
        elif isinstance(parcel, Fenced):
            self._perform(core.on_fenced(parcel))
        elif isinstance(parcel, InSyncRefused):
            core.on_in_sync_refused(parcel)
        self._validate()

    def _on_row(self, row: Assigned) -> None:
        if row.version <= self.version:
            return
        self.version = row.version
        self.named = row.epoch if row.primary == self.node else 0
        if isinstance(self.core, ReplicatedPrimary):
            self._perform(self.core.on_assigned(row, self.cluster.now_ms))
        core = self.core
        if isinstance(core, ReplicaLog):
            me = Member(self.node, self.node_epoch)
            mine = row.primary == self.node and me in row.in_sync
            # An epoch is led once: a primary that stepped down may have given positions
            # away that it does not remember.
            if mine and row.epoch > self.led and row.epoch >= core.epoch:
                self._lead(core, row, me)
            else:
                self.queue += core.on_assigned(row)

    # --- roles -----------------------------------------------------------------------------

    def _follow(self, committed: int) -> None:
        self.core = self.cluster.cores.replica(
            self.node, self.node_epoch, self.disk.epoch, self.log, committed
        )

    def _lead(self, core: ReplicaLog, row: Assigned, me: Member) -> None:
        self.run_queue(len(self.queue))
        log, committed = core.log, core.committed
        inherited = [
            Proposal(SHARD, entry.epoch, entry.revision, entry.body, RECORD, NOBODY)
            for entry in log.between(committed, log.tail_revision)
        ]
        self.led = row.epoch
        self.cluster.truth.on_primary(row.epoch, self.node)
        settings, now_ms = self.cluster.settings, self.cluster.now_ms
        primary = self.cluster.cores.primary(me, row, log, committed, inherited, settings, now_ms)
        primary.on_lease(LEASE_FOREVER)
        self.core = primary
        self.propose(b"")

    def propose(self, body: bytes) -> None:
        """Take a write as a driver would: append, queue for the own disk, send."""
        core = self.core
        assert isinstance(core, ReplicatedPrimary)
        proposal = core.propose(body, RECORD, NOBODY)
        self.queue.append(OwnWrite(core, [proposal]))
        self._perform(core.replicate())

    def on_link(self, node: NodeId) -> None:
        """The connection to another node was made anew."""
        if isinstance(self.core, ReplicatedPrimary):
            self._perform(self.core.on_link(node))
            self._validate()

    def tick(self) -> None:
        if isinstance(self.core, ReplicatedPrimary):
            self._perform(self.core.on_tick(self.cluster.now_ms))
            self._validate()
        elif self.core is not None and self.named and self.named == self.led:
            self.cluster.send(self.node, CONTROLLER, Resign(SHARD, self.node, self.led))

    # --- effects ---------------------------------------------------------------------------

    def run_queue(self, count: int) -> None:
        """Let the disk do so many things; what waits for them follows."""
        for _ in range(min(count, len(self.queue))):
            effect = self.queue.popleft()
            if isinstance(effect, OwnWrite):
                self.disk.append(effect.entries)
                revision = effect.entries[-1].revision
                committed: list[Proposal] = effect.core.on_persisted(self.node, revision)
                self._commit(committed)
                if effect.core is self.core:
                    self._perform(effect.core.replicate())
            elif isinstance(effect, Persist):
                self.disk.write(effect)
                if isinstance(self.core, ReplicaLog):
                    self.core.on_persisted(effect.mark)
            else:
                self._perform([effect])

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.cluster.send(self.node, effect.target, effect.message)
            elif isinstance(effect, Commit):
                self._commit(effect.proposals)
                if isinstance(self.core, ReplicatedPrimary):
                    self._perform(self.core.replicate())
            elif isinstance(effect, Apply):
                self._apply(effect.entries)
            elif isinstance(effect, ProposeInSync):
                self.cluster.send(self.node, CONTROLLER, effect)
            elif isinstance(effect, SendSnapshot):
                state = b"%d" % self.digest
                snapshot = InstallSnapshot(
                    SHARD, self.node, effect.epoch, self.applied, state, effect.replaces
                )
                self.cluster.send(self.node, effect.target, snapshot)
            elif isinstance(effect, Install):
                self.applied = effect.snapshot.position
                self.digest = int(effect.snapshot.state)
                self.disk.install(self.applied, self.digest)
            elif isinstance(effect, StepDown):
                self.step_down(effect.reason)

    def step_down(self, reason: str) -> None:
        core = self.core
        assert isinstance(core, ReplicatedPrimary)
        self.cluster.tell(f"{self.node} steps down from shard {SHARD}: {reason}")
        self.run_queue(len(self.queue))
        self._follow(core.committed)

    def _commit(self, proposals: Sequence[Proposal]) -> None:
        for proposal in proposals:
            self.cluster.truth.on_commit(proposal)
        self._apply(proposals)
        if proposals:
            self.cluster.check_holders()

    def _apply(self, entries: Sequence[LogItem]) -> None:
        for entry in entries:
            if entry.revision != self.applied.revision + 1:
                raise ViolationError(f"{self!r} applies {entry!r} after {self.applied}")
            self.digest = digest_of(self.digest, entry)
            self.applied = LogPosition(entry.epoch, entry.revision)
            self.cluster.truth.on_apply(self.node, entry, self.digest)

    def _validate(self) -> None:
        """Validate the core now and then: it takes as long as the log is."""
        self.events += 1
        if self.core is not None and self.events % VALIDATE_EVERY == 0:
            self.core.validate()

    # --- what befalls a node ---------------------------------------------------------------

    def snapshot(self, retain: int) -> None:
        """Write a snapshot and forget the log before it, but for a few entries in memory."""
        self.disk.log.release(self.applied.revision)
        self.disk.digest = self.digest
        if self.core is not None:
            self.core.release(retain)
            self._validate()

    def fill_disk(self) -> None:
        """The disk refuses all that is under way."""
        core = self.core
        if any(isinstance(effect, Install) for effect in self.queue):
            self.crash(0, 0)
        elif isinstance(core, ReplicatedPrimary):
            self.queue.clear()
            core.on_append_failed(self.node)
            if core.deposed:
                self.step_down(core.deposed)
            else:
                core.validate()
        elif core is not None:
            while self.queue and not isinstance(self.queue[0], Persist):
                self.run_queue(1)
            self.queue.clear()
            core.on_append_failed()
            core.validate()

    def crash(self, written: int, lost: int) -> None:
        """Die and start again. `written`: writes that reached the disk though nobody was told.

        `lost`: entries that the disk loses although it had said they were safe; the log then
        does not prove intact.
        """
        for effect in self.queue:
            if written and isinstance(effect, Persist | OwnWrite):
                written -= 1
                if isinstance(effect, Persist):
                    self.disk.write(effect)
                else:
                    self.disk.append(effect.entries)
            elif isinstance(effect, Install):
                break
        log = self.disk.log
        # Remembered until the controller knows: a second crash must not make the log look whole.
        self.intact = self.intact and not lost
        log.truncate(max(log.base.revision, log.tail_revision - lost))
        self.boot()
        self.register()

    def register(self) -> None:
        """Tell the controller of this life; again, until it answers."""
        if self.core is None:
            self.cluster.send(self.node, CONTROLLER, Register(self.node, self.life, self.intact))


class Cluster:
    """Nodes, controller, network and truth of one shard.

    `choose` decides among candidates for promotion, `tell` hears what is worth telling.
    """

    def __init__(
        self,
        count: int,
        settings: ReplicationSettings,
        *,
        cores: Cores,
        controller: type[ModelController],
        choose: Callable[[Sequence[NodeId]], NodeId],
        tell: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.cores = cores
        self.tell = tell
        self.now_ms = 0
        self.truth = Truth(lossy=settings.acks != ACKS_ALL)
        self.parcels: list[tuple[NodeId, NodeId, Parcel]] = []
        self.cut: list[tuple[NodeId, NodeId]] = []
        ids = [NodeId(number) for number in range(1, count + 1)]
        self.nodes = {node: ModelNode(node, self) for node in ids}
        self.controller = controller(
            ids,
            settings.min_in_sync,
            send=lambda node, parcel: self.send(CONTROLLER, node, parcel),
            choose=choose,
            changed=self.check_holders,
        )
        for node in self.nodes.values():
            node.register()

    def send(self, source: NodeId, target: NodeId, parcel: Parcel) -> None:
        if (source, target) not in self.cut:
            self.parcels.append((source, target, parcel))

    def deliver(self, source: NodeId, target: NodeId, parcel: Parcel) -> None:
        if (source, target) in self.cut:
            return
        if target != CONTROLLER:
            self.nodes[target].on_parcel(parcel)
        elif isinstance(parcel, Register):
            self.controller.on_register(parcel)
        elif isinstance(parcel, ProposeInSync):
            self.controller.on_propose(parcel)
        elif isinstance(parcel, Resign):
            self.controller.on_resign(parcel)

    def check_holders(self) -> None:
        """P4: who may be promoted and lives the life that the controller means holds it all."""
        truth, controller = self.truth, self.controller
        if truth.lossy:
            return
        committed = truth.committed
        for member in (*controller.in_sync, *controller.eligible):
            node = self.nodes[member]
            if node.core is None or node.node_epoch != controller.node_epochs[member]:
                continue
            log = node.disk.log
            if log.base.revision > committed.revision:
                raise ViolationError(f"{node!r} snapshotted beyond {committed}")
            if log.position_at(committed.revision) != committed:
                raise ViolationError(
                    f"node {member} may be promoted and lacks {committed}: it has {log.tail}"
                )

    def check_reads(self) -> None:
        """A read at the serving primary reflects all that was ever committed (KIP-966)."""
        controller = self.controller
        if controller.primary is None or self.truth.lossy:
            return
        node = self.nodes[controller.primary]
        core = node.core
        if (
            isinstance(core, ReplicatedPrimary)
            and core.epoch == controller.epoch
            and core.serving
            and core.committed < self.truth.committed.revision
        ):
            raise ViolationError(
                f"{core!r} serves reads at {core.committed}, committed is {self.truth.committed}"
            )

    def check(self) -> None:
        """Every check that is too dear, or not tied to an event, to be made at each step."""
        self.check_holders()
        self.check_reads()
        for node in self.nodes.values():
            if node.core is not None:
                node.core.validate()
