"""All shards of a node of a cluster: roles, what reaches their cores, and what follows from it.

One object owns every replication core. It gives each shard the role that the shard map says,
feeds messages and row changes to its core, and does the effects in their order: what rests on
the disk waits for the log's driver, everything else is done at once. What use cases may do is
asked of it too (`Proposer`; `shard_placement` answers whether).

It refuses to know how nodes are reached, who decides, and what entries mean. Invariants: the
ones of `docs/adr/0009-replication.md`; an epoch is led at most once in a life of the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from ssgovern import limits
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.errors import OutcomeUnknownError
from ssgovern.model import ORIGIN, LogPosition, NodeId, Outcome, ShardId
from ssgovern.node.hosted import NOBODY_WAITS, HostedShard, Owner, Registry, assigned_of
from ssgovern.node.metadata import Metadata
from ssgovern.node.primary_driver import PrimaryDriver
from ssgovern.node.replica_driver import KeepSnapshot, ReplicaDriver
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver, Write
from ssgovern.node.replication_sender import AskController, Asker, Links, Outbox
from ssgovern.registry.snapshot import Captured, capture
from ssgovern.registry.state import ShardState
from ssgovern.replication.codec import SnapshotAssembler, decode_batch
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Assigned,
    Fenced,
    InstallSnapshot,
    LogItem,
    Member,
    Message,
    Mismatch,
)
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.replication.shard_log import ShardLog
from ssgovern.storage.format import cut_record
from ssgovern.wire.pb import log_pb2
from ssgovern.wire.records import Record, decode_record

log = logging.getLogger("ssgovern.shards")

_ASK_TIMEOUT_S = 2.0
_INSTALL_LOOK_S = 0.1
_TICK_S = limits.NODE_HEARTBEAT_MS / 1000.0


class ShardHost:
    """See the module. `start` before anything else, `run` as a task."""

    def __init__(
        self,
        node: NodeId,
        metadata: Metadata,
        states: Sequence[ShardState],
        logs: Sequence[ShardLog],
        promises: Mapping[int, int],
        *,
        links: Links,
        ask_controller: AskController,
        settings: Callable[[], ReplicationSettings],
        owner: Owner,
        wall_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._metadata = metadata
        self._states = states
        self._settings = settings
        self._in_force = settings()
        self._owner = owner
        self._wall_ms = wall_ms
        self._loop = asyncio.get_running_loop()
        self.hosted = [
            HostedShard(ShardId(shard), shard_log, promises.get(shard, 0))
            for shard, shard_log in enumerate(logs)
        ]
        self.primaries: dict[ShardId, ReplicatedPrimary] = {}
        self._outbox = Outbox(links, lambda: self.session)
        self._primary_driver = PrimaryDriver(
            node, self, links, Asker(ask_controller, _ASK_TIMEOUT_S), self._outbox.add
        )
        self._assemblers: dict[NodeId, SnapshotAssembler] = {}
        self._group: asyncio.TaskGroup
        self._driver: ReplicatedLogDriver
        self._replicas: ReplicaDriver
        self._registry: Registry
        self._serving_changed: dict[ShardId, bool] = {}
        self._unannounced: dict[ShardId, None] = {}
        """Shards of which replicas may not know yet how far they are committed."""
        self._announcing = False
        self._lease_until_ms = 0.0
        self.stopping = False
        """No new write is taken: what was taken is finished."""
        self.hears = True
        """Messages of other nodes are taken. Not while the log ends: they would never let it."""
        self._lease_given_up = False
        self.session: int = 0
        """The session that the controller granted to this life of the node; 0: none yet."""
        self.promotions = 0

    def start(
        self, driver: ReplicatedLogDriver, registry: Registry, keep_snapshot: KeepSnapshot
    ) -> None:
        """Take what the host needs and what needs the host."""
        self._driver = driver
        self._registry = registry
        self._replicas = ReplicaDriver(
            driver,
            send=self._outbox.add,
            apply=self._apply_entries,
            keep_snapshot=keep_snapshot,
            adopt=registry.adopt_shard,
        )

    async def run(self) -> None:
        """Tick, and own what takes longer than a turn of the loop. For ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await asyncio.sleep(_TICK_S)
                self._tick()

    # --- service.registry.Proposer ---------------------------------------------------------

    def check_room(self, entries: int, size_bytes: int) -> None:
        self._driver.check_room(entries, size_bytes)

    def propose(self, shard: ShardId, record: Record, waiter: Waiter) -> Proposal:
        return self._driver.propose(shard, record, waiter)

    # --- what the log's driver says --------------------------------------------------------

    def on_batch(self, shards: Iterable[ShardId]) -> None:
        """Send what these shards were given; their entries are about to be written here."""
        for shard in shards:
            primary = self.primaries.get(shard)
            if primary is not None:
                self._primary_driver.do(self._group, self.hosted[shard], primary.replicate())
        self._outbox.flush()

    def on_committed(self, committed: Sequence[Proposal]) -> None:
        """Apply and answer what this node's own disk was the last to hold."""
        self._apply_proposals(committed)

    def on_deposed(self, shard: ShardId) -> None:
        """The disk refused what replicas may have: this node leads the epoch no more."""
        hosted = self.hosted[shard]
        primary = hosted.primary
        assert primary is not None, f"{hosted!r} was deposed"
        log.warning("shard %d: %s", shard, primary.deposed)
        self.demote(hosted, ())

    # --- what other nodes say --------------------------------------------------------------

    def on_replication(self, source: NodeId, body: bytes) -> None:
        """Take a batch of messages. Raises RemoteProtocolError."""
        if not self.hears:
            return
        for message in decode_batch(source, body):
            self._on_message(self.hosted[message.shard], message)

    def on_snapshot_piece(self, source: NodeId, body: bytes) -> None:
        """Take a piece of a shard's state. Raises RemoteProtocolError."""
        if not self.hears:
            return
        assembler = self._assemblers.get(source)
        if assembler is None:
            assembler = self._assemblers[source] = SnapshotAssembler(source)
        snapshot = assembler.add(body)
        if snapshot is not None:
            self._on_message(self.hosted[snapshot.shard], snapshot)

    def on_link(self, node: NodeId) -> None:
        """The link to a node was made anew: what was on its way is lost."""
        for shard, primary in list(self.primaries.items()):
            self._primary_driver.do(self._group, self.hosted[shard], primary.on_link(node))
        self.flush()

    def on_lost(self, node: NodeId) -> None:
        """The node's own link to this one is gone, and what it was sending with it."""
        self._assemblers.pop(node, None)

    def flush(self) -> None:
        """Send what collected: messages of cores, then answers to clients."""
        if self._serving_changed:
            changed, self._serving_changed = self._serving_changed, {}
            self._owner.on_serving(
                [shard for shard, serving in changed.items() if serving],
                [shard for shard, serving in changed.items() if not serving],
            )
        self._outbox.flush()
        self._owner.on_done()
        if self._unannounced and not self._announcing:
            self._announcing = True
            self._loop.call_later(limits.COMMIT_ANNOUNCED_MS / 1000.0, self._announce)

    def _announce(self) -> None:
        """Tell replicas how far shards are committed that had nothing else to send since."""
        self._announcing = False
        shards, self._unannounced = self._unannounced, {}
        self.on_batch(shards)

    def _on_message(self, hosted: HostedShard, message: Message) -> None:
        if hosted.switching or (hosted.primary is None and hosted.replica is None):
            # The map that gives this node its role may be a moment behind.
            hosted.remember(message)
            return
        match message:
            case AppendEntries() | InstallSnapshot():
                self._on_primary_says(hosted, message)
            case Appended():
                if hosted.primary is not None:
                    self._primary_driver.do(
                        self._group, hosted, hosted.primary.on_appended(message)
                    )
            case Mismatch():
                if hosted.primary is not None:
                    self._primary_driver.do(
                        self._group, hosted, hosted.primary.on_mismatch(message)
                    )
            case Fenced():
                if hosted.primary is not None:
                    self._primary_driver.do(self._group, hosted, hosted.primary.on_fenced(message))

    def _on_primary_says(
        self, hosted: HostedShard, message: AppendEntries | InstallSnapshot
    ) -> None:
        primary, replica = hosted.primary, hosted.replica
        if replica is not None:
            if hosted.installing:
                return
            if isinstance(message, AppendEntries):
                effects = replica.on_append(message)
            else:
                effects = replica.on_snapshot(message)
            self._replicas.do(self._group, hosted, effects)
        elif primary is not None:
            if message.epoch > primary.epoch:
                self._primary_driver.do(
                    self._group,
                    hosted,
                    primary.on_fenced(Fenced(hosted.shard, message.source, message.epoch)),
                )
            else:
                fenced = Fenced(hosted.shard, self._node, primary.epoch)
                self._outbox.add(message.source, fenced)

    # --- what the controller says ----------------------------------------------------------

    def on_session(self, session: int) -> None:
        """The controller granted this node a session, or (0) its session has ended."""
        self.session = session
        if not session:
            # Others may be promoted already; the map will say who follows its primaries.
            self._end_lease()
            return
        for hosted in self.hosted:
            if hosted.replica is not None:
                # The same memory under another name: nothing that it acknowledged was lost.
                hosted.replica.node_epoch = session
            hosted.settled = False
        self.on_rows_changed([hosted.shard for hosted in self.hosted])

    def on_lease(self, until_ms: float) -> None:
        """Nobody is promoted past this node before `until_ms` of its own clock."""
        if self._lease_given_up:
            return
        self._lease_until_ms = max(self._lease_until_ms, until_ms)
        for primary in self.primaries.values():
            primary.on_lease(int(until_ms))

    def give_up_lease(self) -> None:
        """Act as primary no more: from now on others may be promoted past this node."""
        self._lease_given_up = True
        self._end_lease()

    def _end_lease(self) -> None:
        self._lease_until_ms = 0.0
        for primary in self.primaries.values():
            primary.lease_until_ms = 0

    def on_rows_changed(self, shards: Iterable[ShardId]) -> None:
        """The metadata changed, and the rows of these shards: take the roles that they give."""
        self._follow_settings()
        if not self.session:
            return
        for shard in shards:
            self._follow(self.hosted[shard])
        self.flush()

    def _follow_settings(self) -> None:
        # Before the rows: who left a set that is too small by then is taken to have it all.
        settings = self._settings()
        if settings != self._in_force:
            self._in_force = settings
            for shard, primary in list(self.primaries.items()):
                effects = primary.on_settings(settings)
                self._primary_driver.do(self._group, self.hosted[shard], effects)

    def _row(self, shard: ShardId) -> ShardRow:
        return self._metadata.state.rows[shard]

    def _session_of(self, node: NodeId) -> int:
        found = self._metadata.state.nodes.get(node)
        return 0 if found is None else found.session

    def _assigned(self, shard: ShardId, row: ShardRow) -> Assigned:
        return assigned_of(shard, row, self._session_of)

    def _follow(self, hosted: HostedShard) -> None:
        """Give a shard the role that its row says, as soon as that may be."""
        if hosted.switching:
            return
        shard = hosted.shard
        row = self._row(shard)
        mine = self._session_of(self._node) == self.session
        self._maybe_settle(hosted)
        if self._node not in row.holders:
            # Before the metadata knows of this life it may be of a time when the shard was not
            # here yet: what is on disk must not be given up for that.
            if mine or hosted.primary is not None:
                self._leave(hosted)
        elif hosted.primary is not None:
            self._primary_driver.do(
                self._group,
                hosted,
                hosted.primary.on_assigned(self._assigned(shard, row), self._now_ms()),
            )
            self._primary_driver.maybe_resign(self._group, hosted, row)
        elif row.primary == self._node and mine and hosted.may_lead(row.epoch):
            self._begin_switch(hosted, self._finish_promotion)
        elif hosted.replica is None:
            self._become_replica(hosted)
            self._drain(hosted)
        else:
            effects = hosted.replica.on_assigned(self._assigned(shard, row))
            self._replicas.do(self._group, hosted, effects)

    def _maybe_settle(self, hosted: HostedShard) -> None:
        """Take what is here for the shard, once it shows all that was committed before its epoch.

        Who is in sync has it in its log, and may not know yet that it is committed.
        """
        shard, row = hosted.shard, self._row(hosted.shard)
        if (
            not hosted.settled
            and self._node in row.in_sync
            and self._session_of(self._node) == self.session
            and self._states[shard].position.epoch >= row.epoch
        ):
            hosted.settled = True
            self._registry.resume_shard(shard)

    # --- changes of role -------------------------------------------------------------------

    def _begin_switch(self, hosted: HostedShard, finish: Callable[[HostedShard], None]) -> None:
        """Change the role when all that was asked of the disk so far is there."""
        hosted.switching = True
        self._driver.after_all(lambda: self._end_switch(hosted, finish))

    def _end_switch(self, hosted: HostedShard, finish: Callable[[HostedShard], None]) -> None:
        if hosted.installing:
            # Its effects are not done before the snapshot is in place.
            self._loop.call_later(_INSTALL_LOOK_S, self._begin_switch, hosted, finish)
            return
        hosted.switching = False
        finish(hosted)
        # The map may have moved on meanwhile.
        self._follow(hosted)
        self._drain(hosted)
        self.flush()

    def _drain(self, hosted: HostedShard) -> None:
        """Take what peers said while there was no role to take it in."""
        backlog, hosted.backlog = hosted.backlog, type(hosted.backlog)(maxlen=hosted.backlog.maxlen)
        for message in backlog:
            self._on_message(hosted, message)

    def _become_replica(self, hosted: HostedShard) -> None:
        shard_log = hosted.log
        epoch = max(hosted.promised, shard_log.tail.epoch)
        committed = self._states[hosted.shard].position.revision
        hosted.replica = ReplicaLog(self._node, self.session, epoch, shard_log, committed)
        row = self._row(hosted.shard)
        self._replicas.do(
            self._group, hosted, hosted.replica.on_assigned(self._assigned(hosted.shard, row))
        )

    def _finish_promotion(self, hosted: HostedShard) -> None:
        shard, row = hosted.shard, self._row(hosted.shard)
        if row.primary != self._node or not hosted.may_lead(row.epoch) or not self.session:
            return
        if self._session_of(self._node) != self.session:
            return
        hosted.led = row.epoch
        replica, hosted.replica = hosted.replica, None
        if replica is not None:
            hosted.promised = replica.promised
        committed = self._states[shard].position.revision
        assert replica is None or replica.committed == committed, f"{replica!r}: {committed}"
        inherited = [
            Proposal(
                shard,
                entry.epoch,
                entry.revision,
                entry.body,
                entry.record if isinstance(entry, Proposal) else decode_record(entry.body),
                NOBODY_WAITS,
            )
            for entry in hosted.log.between(committed, hosted.log.tail_revision)
        ]
        primary = ReplicatedPrimary(
            Member(self._node, self.session),
            self._assigned(shard, row),
            hosted.log,
            committed,
            inherited,
            self._settings(),
            self._now_ms(),
        )
        primary.on_lease(int(self._lease_until_ms))
        hosted.primary = self.primaries[shard] = primary
        self._driver.inherit(inherited)
        self.promotions += 1
        self._begin_epoch(shard)

    def _begin_epoch(self, shard: ShardId) -> None:
        record = log_pb2.Record(time_ms=self._wall_ms())
        record.epoch_started.node_id = self._node
        self._driver.propose(shard, record, NOBODY_WAITS)

    def demote(self, hosted: HostedShard, unknown: Sequence[Proposal]) -> None:
        """Stop acting as primary now; become a replica when the disk has what was asked of it."""
        self._driver.forget(unknown)
        error = OutcomeUnknownError(
            f"shard {hosted.shard} has another primary now: whether the entry is committed there "
            "this node cannot tell"
        )
        for proposal in unknown:
            proposal.waiter.on_outcome(proposal, Outcome(error=error))
        # Also if it did not serve yet: sessions may have registered with it since it led.
        hosted.serving = False
        self._serving_changed[hosted.shard] = False
        if not hosted.switching:
            self._begin_switch(hosted, self._finish_demotion)

    def _finish_demotion(self, hosted: HostedShard) -> None:
        primary = hosted.primary
        assert primary is not None, f"{hosted!r} is no primary"
        assert primary.deposed, f"{primary!r} was not deposed"
        hosted.primary = None
        del self.primaries[hosted.shard]
        if self._node in self._row(hosted.shard).holders:
            self._become_replica(hosted)

    def _leave(self, hosted: HostedShard) -> None:
        """This node is to hold the shard no more."""
        if hosted.primary is not None:
            row = self._row(hosted.shard)
            self._primary_driver.do(
                self._group,
                hosted,
                hosted.primary.on_assigned(self._assigned(hosted.shard, row), self._now_ms()),
            )
        elif hosted.replica is not None or hosted.log.tail != ORIGIN:
            self._begin_switch(hosted, self._finish_leaving)

    def _finish_leaving(self, hosted: HostedShard) -> None:
        if self._node in self._row(hosted.shard).holders:
            return
        shard = hosted.shard
        hosted.promised = hosted.obeys
        hosted.replica = None
        hosted.settled = False
        hosted.log.reset(ORIGIN)
        self._registry.drop_shard(shard)
        self._drop_from_disk(hosted)

    def _drop_from_disk(self, hosted: HostedShard) -> None:
        # Until the log says that the shard begins anew, nothing of it may be removed: what
        # would be left could not be told from a log with a hole in it.
        hosted.switching = True

        def again() -> None:
            self._loop.call_later(1.0, self._drop_from_disk, hosted)

        def gone() -> None:
            hosted.switching = False
            self._follow(hosted)

        self._driver.write(Write([cut_record(hosted.shard, 0, 0)], gone, again))

    # --- node.primary_driver.Deeds ---------------------------------------------------------

    def commit(self, proposals: Sequence[Proposal]) -> None:
        self._driver.committed(proposals)
        self._apply_proposals(proposals)

    def capture(self, shard: ShardId) -> Captured:
        return capture(self._states[shard])

    # --- what is committed -----------------------------------------------------------------

    def _apply_proposals(self, proposals: Sequence[Proposal]) -> None:
        """Apply, answer, tell: in that order, so that who is answered can read what it wrote."""
        states = self._states
        shards: dict[ShardId, None] = {}
        for proposal in proposals:
            shard = proposal.shard
            outcome = states[shard].apply(proposal.epoch, proposal.revision, proposal.record)
            proposal.waiter.on_outcome(proposal, outcome)
            shards[shard] = None
        self._owner.on_applied(shards)
        for shard in shards:
            hosted = self.hosted[shard]
            self._maybe_settle(hosted)
            primary = hosted.primary
            if primary is None:
                continue
            self._unannounced[shard] = None
            if not hosted.serving and primary.serving:
                hosted.serving = True
                self._serving_changed[shard] = True
            row = self._row(shard)
            if row.successor != NOBODY:
                self._primary_driver.maybe_resign(self._group, hosted, row)

    def _apply_entries(self, shard: ShardId, entries: Sequence[LogItem]) -> None:
        state = self._states[shard]
        for entry in entries:
            record = entry.record if isinstance(entry, Proposal) else decode_record(entry.body)
            state.apply(entry.epoch, entry.revision, record)
        self._owner.on_applied((shard,))
        self._maybe_settle(self.hosted[shard])

    # --- time ------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000.0)

    def _tick(self) -> None:
        now_ms = self._now_ms()
        for shard, primary in list(self.primaries.items()):
            self._primary_driver.do(self._group, self.hosted[shard], primary.on_tick(now_ms))
            if not primary.deposed and not primary.has_begun:
                # There was no space for the first entry, and nobody else was sent it.
                self._begin_epoch(shard)
        for hosted in self.hosted:
            core = hosted.primary or hosted.replica
            if core is not None and not hosted.switching:
                core.release(limits.REPLICATION_ENTRIES_RETAINED)
                self._maybe_settle(hosted)
            row = self._row(hosted.shard)
            if row.primary == self._node:
                self._primary_driver.maybe_resign(self._group, hosted, row)
        self.flush()

    # --- questions -------------------------------------------------------------------------

    def positions(self) -> dict[ShardId, LogPosition]:
        """Return the ends of the logs that are here."""
        return {
            hosted.shard: hosted.log.tail
            for hosted in self.hosted
            if hosted.replica is not None or hosted.primary is not None
        }

    def is_gone(self, shard: int) -> bool:
        """Tell whether nothing of a shard is here, and the log on disk says so."""
        return self.hosted[shard].is_gone

    def uncommitted(self) -> int:
        """Return how many entries of this node's primaries wait for somebody's disk."""
        return sum(primary.tail - primary.committed for primary in self.primaries.values())

    def snapshots(self) -> tuple[int, int]:
        """Return how many shards were sent whole, and how many were taken so."""
        return self._primary_driver.snapshots_sent, self._replicas.installed

    def validate(self) -> None:
        """Assert every invariant of every core. For the simulator and tests."""
        for hosted in self.hosted:
            assert hosted.primary is None or hosted.replica is None, hosted
            if hosted.switching or hosted.installing:
                continue
            if hosted.primary is not None:
                hosted.primary.validate()
            if hosted.replica is not None:
                hosted.replica.validate()
                applied = self._states[hosted.shard].position.revision
                assert hosted.replica.committed >= applied, hosted
