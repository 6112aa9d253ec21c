"""The log of one shard, as a primary with replicas keeps it.

Pure: a `PrimaryLog` that sends what it is given and commits over the in-sync set (PacificA,
KIP-966). Refuses to know what entries mean, how messages travel, and any clock: time is in the
events and serves only reads, the lease and the judgement of lag. Writes are safe without it.

Invariants:
- An entry commits when every member of every in-sync set that may be in force holds it: the set
  assigned, and each one proposed since, because the controller may have taken it already.
- Nothing commits while the set assigned is smaller than `min_in_sync`: what the controller
  believes of members it removed then stays true.
- The commit position is good for reads only once the first entry of this epoch is committed:
  before that, an earlier primary may have committed more than this one knows of.
- A log position is given to one entry only. Where the own disk refuses what replicas may hold,
  the primary steps down instead of giving the revisions out again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ssgovern.errors import (
    OverloadedError,
    ShardMovedError,
    ShardUnavailableError,
    SsGovernError,
)
from ssgovern.model import LogPosition, NodeId
from ssgovern.replication.messages import (
    ACKS_ALL,
    Appended,
    AppendEntries,
    Assigned,
    Commit,
    Effect,
    Fenced,
    InSyncRefused,
    Member,
    Mismatch,
    ProposeInSync,
    Send,
    SendSnapshot,
    StepDown,
)
from ssgovern.replication.primary import PrimaryLog, Proposal, Waiter
from ssgovern.replication.progress import Mode, Progress
from ssgovern.replication.shard_log import ShardLog
from ssgovern.wire.records import Record

STORY_LINES = 32


class ReplicationSettings(NamedTuple):
    """`acks`: how many of the in-sync set, this node included, or ACKS_ALL.

    Fewer than all is lossy: a promoted member may lack what was acknowledged.
    """

    acks: int = ACKS_ALL
    min_in_sync: int = 1
    in_flight_max: int = 8
    """Appends on their way to one replica."""
    append_entries_max: int = 512
    append_bytes_max: int = 256 << 10
    uncommitted_max: int = 65_536
    lag_ms_max: int = 4_000
    """A member that has been behind for so long is to leave the in-sync set."""
    snapshot_ticks_max: int = 20


class ReplicatedPrimary(PrimaryLog):
    """Positions, waiting proposals, replicas and in-sync set of one shard."""

    __slots__ = (
        "_asked",
        "_counted",
        "_log",
        "_node_epoch",
        "_progress",
        "_proposed",
        "_sent",
        "_settings",
        "_story",
        "deposed",
        "epoch_start",
        "in_sync",
        "lease_until_ms",
        "node",
        "version",
    )

    def __init__(
        self,
        me: Member,
        assigned: Assigned,
        log: ShardLog,
        committed: int,
        inherited: Sequence[Proposal],
        settings: ReplicationSettings,
        now_ms: int,
    ) -> None:
        """`inherited` are the entries after `committed`; all of `log` is on disk.

        The first proposal has to be the record that starts the epoch.
        """
        assert assigned.primary == me.node, f"{me} is not the primary: {assigned}"
        super().__init__(log.shard, assigned.epoch, log.tail, (me.node,))
        self.committed = committed
        self._waiting = deque(inherited)
        self.node = me.node
        self._node_epoch = me.node_epoch
        self._log = log
        self._settings = settings
        self.epoch_start = self.tail + 1
        """Revision of the first entry of this epoch."""
        self.version = assigned.version
        self.in_sync = assigned.in_sync
        self.deposed = ""
        """Why this node is no longer the primary; empty while it is."""
        self.lease_until_ms = 0
        self._proposed: list[tuple[Member, ...]] = []
        """In-sync sets asked for at this version: one of them may be in force already."""
        self._asked: ProposeInSync | None = None
        self._counted: list[Progress | None] | None = None
        """All others that have to hold an entry before it commits; None: to be found anew."""
        self._sent = 0
        self._progress: dict[NodeId, Progress] = {}
        self._story: deque[str] = deque(maxlen=STORY_LINES)
        # In an epoch that is new nothing of before can be said.
        self._follow_row(assigned, now_ms, since=0)

    def __repr__(self) -> str:
        members = ",".join(str(member.node) for member in self.in_sync)
        return (
            f"<ReplicatedPrimary shard={self.shard} epoch={self.epoch} tail={self.tail} "
            f"committed={self.committed} in_sync={members}/v{self.version}"
            f"{' deposed' if self.deposed else ''}>"
        )

    def story(self) -> list[str]:
        """Return the last unusual things that happened here, oldest first."""
        return list(self._story)

    # --- what may be done now --------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether the epoch's first entry was proposed, and not withdrawn since."""
        return self.tail >= self.epoch_start

    @property
    def serving(self) -> bool:
        """Whether the commit position is known to cover all that was ever committed."""
        return not self.deposed and self.committed >= self.epoch_start

    def may_read(self, now_ms: int) -> bool:
        """Tell whether a read here and now is the newest: the lease keeps others from writing."""
        return self.serving and now_ms < self.lease_until_ms

    def refusal(self, now_ms: int) -> SsGovernError | None:
        """Return why a write cannot be taken now, None if it can. Ask before `propose`."""
        if self.deposed:
            return ShardMovedError(f"shard {self.shard} has moved: {self.deposed}")
        if now_ms >= self.lease_until_ms:
            return ShardUnavailableError(
                f"the primary of shard {self.shard} has not heard from the controller in time",
                shard=self.shard,
            )
        if len(self.in_sync) < self._settings.min_in_sync:
            return ShardUnavailableError(
                f"{len(self.in_sync)} nodes in sync for shard {self.shard}, "
                f"min_in_sync is {self._settings.min_in_sync}",
                shard=self.shard,
            )
        if self.tail - self.committed >= self._settings.uncommitted_max:
            return OverloadedError(f"{self.tail - self.committed} entries wait for replicas")
        return None

    def on_lease(self, until_ms: int) -> None:
        """The controller answered: it promotes nobody before `until_ms` of this node's clock.

        Counted from when the question was sent, not from when the answer came.
        """
        self.lease_until_ms = max(self.lease_until_ms, until_ms)

    # --- the log ---------------------------------------------------------------------------

    def propose(self, body: bytes, record: Record, waiter: Waiter) -> Proposal:
        assert not self.deposed, f"{self!r}: {self.deposed}"
        proposal = super().propose(body, record, waiter)
        self._log.append(proposal)
        return proposal

    def on_persisted(self, member: NodeId, revision: int) -> list[Proposal]:
        """This node's disk has everything up to `revision`. Return what is committed by it."""
        assert member == self.node, f"{self!r}: replicas say what they hold by `on_appended`"
        assert revision <= self.tail or self.deposed, f"{self!r}: {revision} was never proposed"
        self._persisted[member] = max(self._persisted[member], revision)
        return self._advance()

    def on_append_failed(self, member: NodeId) -> list[Proposal]:
        """This node's disk refused what it had not persisted yet. Return what is withdrawn.

        If any of it was sent, this primary is deposed: replicas may hold it, its revisions
        cannot be given again, and of all that waits nobody can tell what becomes of it.
        """
        held = self._persisted[member]
        if self._sent > held:
            self._depose("its disk refused entries that replicas may have")
        lowest = held if not self.deposed else self.committed
        withdrawn = [proposal for proposal in self._waiting if proposal.revision > lowest]
        for _ in withdrawn:
            self._waiting.pop()
        self.tail = held
        self._log.truncate(held)
        return withdrawn

    def replicate(self) -> list[Effect]:
        """Send what can be sent. Once for a batch of proposals, and a moment after commits.

        May be done before the own disk has the batch: this node is a member like any other.
        Without entries it says how far this primary has committed, to those who do not know.
        """
        effects: list[Effect] = []
        if not self.deposed:
            for progress in self._progress.values():
                self._send_to(progress, effects)
        return effects

    def release(self, retain: int) -> None:
        """Forget committed entries but the last `retain`; who needs older ones gets a snapshot."""
        self._log.release(min(self.committed, self.tail - retain))

    # --- what replicas say -----------------------------------------------------------------

    def on_appended(self, event: Appended) -> list[Effect]:
        progress = self._speaker(event)
        if progress is None:
            return self._maybe_outdated(event.epoch, event.source)
        if event.held > self.tail:
            # Only what was sent can be held in this epoch.
            self._story.append(f"node {event.source} claims {event.held}, tail is {self.tail}")
            return []
        progress.on_held(event.held)
        effects: list[Effect] = []
        committed = self._advance()
        if committed:
            effects.append(Commit(self.shard, committed))
        # That it is committed goes with the next entries, or with the owner's `replicate`: under
        # load it would be as many messages again.
        self._send_to(progress, effects, news=False)
        if self._asked is None and self._joins(progress):
            # It may join now: a move waits for that, and so does a set below its minimum.
            self._asked = self._ask((*self.in_sync, Member(progress.node, progress.node_epoch)))
            effects.append(self._asked)
        return effects

    def on_mismatch(self, event: Mismatch) -> list[Effect]:
        progress = self._speaker(event)
        if progress is None:
            return self._maybe_outdated(event.epoch, event.source)
        progress.answered = True
        if progress.is_stale(event.prev.revision):
            return []
        if progress.confirmed and event.hint.revision < progress.matched:
            self._story.append(f"node {event.source} gave up what it held")
            progress.begin_life(progress.node_epoch, self.tail)
        log, floor = self._log, event.floor
        agreed = log.last_up_to(event.hint)
        if log.position_at(floor.revision) != floor:
            # Either our log begins later, or (with acknowledgements by fewer than all) the
            # replica committed what we never had.
            lacking = floor.revision < log.base.revision
            return [self._send_snapshot(progress, None if lacking else floor)]
        if agreed is None:
            return [self._send_snapshot(progress, None)]
        progress.probe(max(agreed.revision, floor.revision, progress.matched) + 1)
        effects: list[Effect] = []
        self._send_to(progress, effects)
        return effects

    def on_fenced(self, event: Fenced) -> list[Effect]:
        return self._maybe_outdated(event.epoch, event.source)

    def on_link(self, node: NodeId) -> list[Effect]:
        """The link to a node was made anew: what was on its way is lost."""
        progress = self._progress.get(node)
        if progress is None or self.deposed:
            return []
        progress.probe(progress.matched + 1 if progress.confirmed else self.tail + 1)
        effects: list[Effect] = []
        self._send_to(progress, effects)
        return effects

    # --- what the controller says ----------------------------------------------------------

    def on_assigned(self, event: Assigned, now_ms: int) -> list[Effect]:
        if self.deposed or event.version <= self.version:
            return []
        me = Member(self.node, self._node_epoch)
        if event.epoch > self.epoch or event.primary != self.node or me not in event.in_sync:
            return self._step_down(f"epoch {event.epoch} belongs to node {event.primary}")
        self.version = event.version
        self.in_sync = event.in_sync
        # Whatever was asked for at an older version can no longer come into force.
        self._proposed.clear()
        self._asked = None
        self._follow_row(event, now_ms, since=event.version)
        members = ",".join(str(member.node) for member in event.in_sync)
        self._story.append(f"in-sync set {members} at version {event.version}")
        committed = self._advance()
        effects: list[Effect] = [Commit(self.shard, committed)] if committed else []
        return effects + self.replicate()

    def on_settings(self, settings: ReplicationSettings) -> list[Effect]:
        """Other settings hold. To be told before any row that was decided under them."""
        self._settings = settings
        committed = self._advance()
        return [Commit(self.shard, committed)] if committed else []

    def on_in_sync_refused(self, event: InSyncRefused) -> None:
        """Another set may be asked for, and who was to join has to show that it lives.

        What was refused still counts until the version rises: a copy of the question may be on
        its way and find the controller of another mind.
        """
        if self._asked is None or (event.epoch, event.version) != (self.epoch, self.version):
            return
        for member in self._asked.in_sync:
            progress = self._progress.get(member.node)
            if member not in self.in_sync and progress is not None:
                progress.begin_life(progress.node_epoch, self.tail)
        self._asked = None

    def on_tick(self, now_ms: int) -> list[Effect]:
        """Send again what seems lost, and ask for an in-sync set that fits how replicas do."""
        if self.deposed:
            return []
        effects: list[Effect] = []
        for progress in self._progress.values():
            progress.on_tick(self._settings.snapshot_ticks_max)
            self._send_to(progress, effects)
        desired = self._desired_in_sync(now_ms)
        if self._asked is None and (desired != self.in_sync or self._proposed):
            self._asked = self._ask(desired)
        if self._asked is not None:
            effects.append(self._asked)
        return effects

    # --- inside ----------------------------------------------------------------------------

    def _follow_row(self, row: Assigned, now_ms: int, *, since: int) -> None:
        self._counted = None
        node_epochs = dict(row.in_sync)
        before, self._progress = self._progress, {}
        for node in sorted({*row.replicas, *node_epochs}):
            if node == self.node:
                continue
            progress = before.get(node)
            node_epoch = node_epochs.get(node, 0)
            if progress is None:
                progress = Progress(node, node_epoch, self.tail, now_ms, since)
            elif node_epoch > progress.node_epoch:
                progress.begin_life(node_epoch, self.tail)
            self._progress[node] = progress

    def _speaker(self, event: Appended | Mismatch) -> Progress | None:
        """Return who said this, if it counts: in this epoch, by this life of a replica."""
        if self.deposed or event.epoch != self.epoch:
            return None
        progress = self._progress.get(event.source)
        if progress is None or event.node_epoch < progress.node_epoch:
            return None
        if event.version < progress.since:
            return None
        if event.node_epoch > progress.node_epoch:
            progress.begin_life(event.node_epoch, self.tail)
        return progress

    def _maybe_outdated(self, epoch: int, source: NodeId) -> list[Effect]:
        if self.deposed or epoch <= self.epoch:
            return []
        return self._step_down(f"node {source} obeys epoch {epoch}")

    def _step_down(self, reason: str) -> list[Effect]:
        self._depose(reason)
        unknown = list(self._waiting)
        self._waiting.clear()
        return [StepDown(self.shard, self.epoch, reason, unknown)]

    def _depose(self, reason: str) -> None:
        self.deposed = reason
        self._story.append(f"deposed: {reason}")

    def _send_to(self, progress: Progress, effects: list[Effect], *, news: bool = True) -> None:
        """Send what can be sent; with `news`, also if it is the commit position alone."""
        settings = self._settings
        while progress.mode is not Mode.SNAPSHOT:
            streaming = progress.mode is Mode.STREAM
            if len(progress.in_flight) >= (settings.in_flight_max if streaming else 1):
                return
            after = progress.next_revision - 1
            if streaming and after >= self.tail and (not news or progress.told >= self.committed):
                return
            append = self._append_after(after, effects)
            if append is None:
                effects.append(self._send_snapshot(progress, None))
                return
            sent = len(append.entries)
            progress.on_sent(after, sent, self.committed)
            self._sent = max(self._sent, after + sent)
            effects.append(Send(progress.node, append))

    def _append_after(self, after: int, effects: Sequence[Effect]) -> AppendEntries | None:
        """Return the append that follows a revision, None if the log has it no longer."""
        before = effects[-1] if effects else None
        if isinstance(before, Send):
            # Replicas in step are sent the same, which then is encoded once.
            same = before.message
            if isinstance(same, AppendEntries) and same.prev.revision == after:
                return same
        log, settings = self._log, self._settings
        prev = log.position_at(after)
        if prev is None:
            return None
        entries = log.entries(after, settings.append_entries_max, settings.append_bytes_max)
        return AppendEntries(self.shard, self.node, self.epoch, prev, entries, self.committed)

    def _send_snapshot(self, progress: Progress, replaces: LogPosition | None) -> Effect:
        progress.expect_snapshot(replaces)
        self._story.append(f"node {progress.node} needs a snapshot")
        return SendSnapshot(progress.node, self.shard, self.epoch, replaces)

    def _advance(self) -> list[Proposal]:
        reached = self._reached()
        committed: list[Proposal] = []
        if reached > self.committed:
            waiting = self._waiting
            while waiting and waiting[0].revision <= reached:
                committed.append(waiting.popleft())
            self.committed = reached
        return committed

    def _reached(self) -> int:
        """Return how far every set that may be in force holds the log."""
        if self.deposed or len(self.in_sync) < self._settings.min_in_sync:
            return self.committed
        own = self._persisted[self.node]
        held = self._held()
        acks = self._settings.acks
        if acks == ACKS_ALL:
            return min(own, min(held)) if held else own
        held.sort(reverse=True)
        needed = min(acks - 1, len(held))
        return min(own, held[needed - 1]) if needed else own

    def _held(self) -> list[int]:
        """Return how far each of the others holds the log that has to, for it to commit."""
        counted = self._counted
        if counted is None:
            counted = self._counted = [self._progress.get(node) for node in self._maximal()]
        return [0 if each is None or not each.confirmed else each.matched for each in counted]

    def _maximal(self) -> list[NodeId]:
        """Return all others that are in an in-sync set that may be in force (KIP-966)."""
        members = [*self.in_sync]
        for proposed in self._proposed:
            members += proposed
        return [node for node in dict.fromkeys(m.node for m in members) if node != self.node]

    def _desired_in_sync(self, now_ms: int) -> tuple[Member, ...]:
        members = [Member(self.node, self._node_epoch)]
        current = dict(self.in_sync)
        for node, progress in self._progress.items():
            lag_ms = progress.lag_ms(self.tail, now_ms)
            if current.get(node) == progress.node_epoch:
                if lag_ms <= self._settings.lag_ms_max:
                    members.append(Member(node, progress.node_epoch))
            elif node not in current and self._may_join(progress):
                members.append(Member(node, progress.node_epoch))
        return tuple(sorted(members))

    def _joins(self, progress: Progress) -> bool:
        """Tell whether a replica that is in no set in force or asked for may be in one."""
        if self._counted is not None and progress in self._counted:
            return False
        return (
            not self._proposed
            and all(member.node != progress.node for member in self.in_sync)
            and self._may_join(progress)
        )

    def _ask(self, desired: Sequence[Member]) -> ProposeInSync:
        """Ask for a set, which from now on may be in force."""
        wanted = tuple(sorted(desired))
        if wanted not in self._proposed:
            self._proposed.append(wanted)
            self._counted = None
        return ProposeInSync(self.shard, self.node, self.epoch, self.version, wanted)

    def _may_join(self, progress: Progress) -> bool:
        """Tell whether a replica has all that any primary can have committed."""
        return progress.confirmed and progress.matched >= max(self.committed, self.epoch_start)

    def lags(self) -> list[tuple[NodeId, int]]:
        """Return how many entries each replica is not known to hold."""
        return [(node, self.tail - progress.matched) for node, progress in self._progress.items()]

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator."""
        assert self.committed <= self.tail, self
        if self.deposed:
            return
        super().validate()
        self._log.validate()
        assert self._log.tail_revision == self.tail, self
        for progress in self._progress.values():
            assert progress.matched < progress.next_revision, (self, progress)
            assert progress.matched <= self.tail, (self, progress)
            assert len(progress.in_flight) <= self._settings.in_flight_max, (self, progress)
