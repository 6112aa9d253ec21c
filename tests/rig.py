"""The cores of one node without its drivers: what is proposed commits when the test says so.

Sessions, shards, directory and pushes are the real ones. The log is a list; a `Follower` is a
subscriber that keeps the state it was told of, and fails on anything it must not be told.
"""

from __future__ import annotations

from builders import session_of

from ssgovern.errors import (
    DiskFullError,
    OverloadedError,
    ShardMovedError,
    ShardUnavailableError,
    SsGovernError,
)
from ssgovern.model import (
    SHARDS,
    LogPosition,
    NodeId,
    Outcome,
    ServiceKey,
    SessionId,
    ShardId,
    shard_of,
)
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.registry.subscriptions import Target
from ssgovern.replication.primary import PrimaryLog, Proposal, Waiter
from ssgovern.service.push import PushService, Who
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import key_from_wire
from ssgovern.wire.frames import FrameReader, MessageAssembler, MessageType
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2
from ssgovern.wire.records import Record, encode_record

ME = NodeId(1)


class Answer:
    """A waiter that keeps what it heard."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Proposal, Outcome]] = []

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self.outcomes.append((proposal, outcome))


class RetryEnds:
    """Waits for the ends of sessions as the session driver does."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.error is not None:
            ended = SessionId(proposal.record.session_ended.session_id)
            self._rig.registry.retry_end(ended, proposal.shard, self._rig.now_ms)


class Wire:
    """A connection, as far as sessions care."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refused: list[SsGovernError] = []

    def refuse(self, error: SsGovernError) -> None:
        self.refused.append(error)


class Places:
    """A placement that a test sets shard by shard; at first everything is allowed."""

    def __init__(self) -> None:
        self.elsewhere: dict[ShardId, None] = {}
        """Not held here at all."""
        self.replicas: dict[ShardId, None] = {}
        """Held here, with another node as primary."""
        self.idle: dict[ShardId, None] = {}
        """This node is primary and may not act now."""
        self.unread: dict[ShardId, None] = {}
        """This node is primary and has not yet applied all that was committed before it was."""
        self.map_version = 7

    def set(self, shard: ShardId, what: str) -> None:
        """Let a shard be "primary", "replica", "idle", "unread" or "elsewhere"."""
        for name, shards in (
            ("elsewhere", self.elsewhere),
            ("replica", self.replicas),
            ("idle", self.idle),
            ("unread", self.unread),
        ):
            shards.pop(shard, None)
            if name == what:
                shards[shard] = None

    def check_write(self, shard: ShardId) -> None:
        if shard in self.idle:
            raise ShardUnavailableError(f"shard {shard} has no lease", shard=shard)
        if shard in self.elsewhere or shard in self.replicas:
            raise self._moved(shard)

    def check_read(self, shard: ShardId, *, replica_too: bool) -> None:
        if (shard in self.idle or shard in self.unread) and not replica_too:
            raise ShardUnavailableError(f"shard {shard} has no lease", shard=shard)
        if shard in self.elsewhere or (shard in self.replicas and not replica_too):
            raise self._moved(shard)

    def holds(self, shard: ShardId) -> bool:
        return shard not in self.elsewhere

    def map_update(self, since: int) -> native_pb2.ShardMapUpdate:
        return native_pb2.ShardMapUpdate(since=since, version=self.map_version)

    def _moved(self, shard: ShardId) -> ShardMovedError:
        return ShardMovedError(
            f"shard {shard} is elsewhere", shard=shard, map_version=self.map_version
        )


class Rig:
    """See the module."""

    def __init__(
        self,
        *,
        ttl_ms: float = 5000,
        share: float = 1.0,
        sessions_min: int = 4,
        hold_ms: float = 10_000,
    ) -> None:
        self.now_ms = 0.0
        self.states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
        self.logs = [
            PrimaryLog(ShardId(shard), 1, LogPosition(0, 0), (ME,)) for shard in range(SHARDS)
        ]
        self.sessions = SessionTable(
            SessionTiming(ttl_ms=ttl_ms),
            Protection(ProtectionPolicy(share=share, sessions_min=sessions_min, hold_ms=hold_ms)),
        )
        self.places = Places()
        self.registry = RegistryService(self.states, self.sessions, self, lambda: 1000, self.places)
        self.push = PushService(self.registry)
        self.queue: list[Proposal] = []
        self.records: list[tuple[ShardId, log_pb2.Record]] = []
        self.full = False
        self.room = 1 << 30
        started = Answer()
        for shard in range(SHARDS):
            record = log_pb2.Record(epoch_started=log_pb2.EpochStarted(node_id=ME))
            self.propose(ShardId(shard), record, started)
        self.commit()

    # --- Proposer --------------------------------------------------------------------------

    def check_room(self, entries: int, size_bytes: int) -> None:
        if len(self.queue) + entries > self.room:
            raise OverloadedError("full")

    def propose(self, shard: ShardId, record: Record, waiter: Waiter) -> Proposal:
        body = encode_record(record)
        proposal = self.logs[shard].propose(body, record, waiter)
        self.queue.append(proposal)
        return proposal

    # --- requests --------------------------------------------------------------------------

    def register(
        self, session: Session, request: native_pb2.RegisterRequest, waiter: Waiter
    ) -> list[Proposal]:
        """Ask for a registration as a connection does."""
        return self.registry.register(session, request, waiter)

    # --- the log ---------------------------------------------------------------------------

    def commit(self, count: int | None = None) -> None:
        """Commit what was proposed (the first `count`), or refuse it all if the disk is full."""
        batch = self.queue[:count]
        if self.full:
            refused, self.queue = self.queue, []
            for shard in dict.fromkeys(proposal.shard for proposal in refused):
                self.logs[shard].on_append_failed(ME)
            for proposal in refused:
                proposal.waiter.on_outcome(proposal, Outcome(error=DiskFullError("full")))
            return
        del self.queue[: len(batch)]
        shards: dict[ShardId, None] = {}
        for proposal in batch:
            shards[proposal.shard] = None
            (committed,) = self.logs[proposal.shard].on_persisted(ME, proposal.revision)
            assert committed is proposal
            # As it will be read back from the log.
            copy = log_pb2.Record.FromString(proposal.body)
            self.records.append((proposal.shard, copy))
            proposal.waiter.on_outcome(proposal, self.registry.apply(proposal))
        self.push.offer(self.registry.take_changes(shards))

    def tell(self) -> None:
        """Write all that waits to subscribers, as the push driver does."""
        while self.tell_one():
            pass

    def tell_one(self) -> bool:
        """Tell one change to everybody; return whether there was one."""
        telling = self.push.next_change()
        if telling is None:
            return False
        change, frames, audience = telling
        for subscriber in audience:
            self.push.tell(subscriber, change, frames)
        return True

    def restart(self) -> None:
        """Begin a new epoch with the same states, as a node does that comes up again."""
        recovered = [state.position for state in self.states]
        self.logs = [
            PrimaryLog(ShardId(shard), position.epoch + 1, position, (ME,))
            for shard, position in enumerate(recovered)
        ]
        for shard in range(SHARDS):
            record = log_pb2.Record(epoch_started=log_pb2.EpochStarted(node_id=ME))
            self.propose(ShardId(shard), record, Answer())
        self.commit()

    def begin_epoch(self, shard: ShardId) -> None:
        """Begin the next epoch on the state of a shard, as whoever becomes its primary."""
        position = self.states[shard].position
        self.logs[shard] = PrimaryLog(shard, position.epoch + 1, position, (ME,))
        record = log_pb2.Record(epoch_started=log_pb2.EpochStarted(node_id=ME))
        self.propose(shard, record, Answer())

    # --- sessions --------------------------------------------------------------------------

    def hello(self, name: str, wire: Wire) -> tuple[Session, Wire | None, bool]:
        session, before, resumed = self.registry.hello(
            session_of(name), wire, self.now_ms, RetryEnds(self)
        )
        assert before is None or isinstance(before, Wire)
        return session, before, resumed

    def tick(self, until_ms: float) -> list[SessionId]:
        """Let time pass; propose the end of every session that expires and return them."""
        ended = []
        while self.now_ms + 250 <= until_ms:
            self.now_ms += 250
            self.registry.retry_ends()
            for session in self.sessions.tick(self.now_ms):
                self.registry.end_session(session, log_pb2.SESSION_END_EXPIRED, RetryEnds(self))
                ended.append(session.id)
        return ended

    def ids(self, key: ServiceKey) -> list[str]:
        """Return the ids of a service, sorted."""
        service = self.states[shard_of(*key)].services.get(key)
        return [] if service is None else sorted(service.instances)

    def validate(self) -> None:
        for state in self.states:
            state.validate()
        for primary in self.logs:
            primary.validate()
        self.sessions.validate()
        self.push.subscriptions.validate()
        with_instances = [
            key for state in self.states for key, found in state.services.items() if found.instances
        ]
        assert list(self.registry.directory._keys) == sorted(with_instances)


class Follower:
    """A subscriber that keeps up as far as it is let, and checks what it is told."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._reader = FrameReader()
        self._assembler = MessageAssembler()
        self.behind: dict[ServiceKey, LogPosition] = {}
        self.applied: dict[ServiceKey, LogPosition] | None = None
        self.asked = 0
        """How often it was asked to say what it has applied."""
        self.who = Who(session_of("follower"), "follower", "10.0.0.9:9")
        self.takes = True
        self.credit: int | None = None
        """Frames it still takes; None: any number."""
        self.may_repeat = False
        """A list that it has may be told again: after a state was replaced while it was told."""
        self.positions: dict[ServiceKey, LogPosition] = {}
        self.lists: dict[ServiceKey, dict[str, int]] = {}
        """Per service, the revision of each instance."""
        self.story: list[str] = []

    @property
    def can_take(self) -> bool:
        return self.takes and self.credit != 0

    def take(self, frame: bytes) -> None:
        if self.credit:
            self.credit -= 1
        self._reader.receive_data(frame)
        while (part := self._reader.next_frame()) is not None:
            message = self._assembler.add(part)
            if message is not None:
                self._told(message[2], message[4])

    def lacks(self) -> None:
        """Tests say themselves when it catches up; see `behind`."""

    def subscribe(self, target: Target, known: dict[ServiceKey, LogPosition] | None = None) -> None:
        self._rig.push.subscribe(self, target, known or {})

    def catch_up(self) -> None:
        """Take all that is lacking and can be taken."""
        while self._rig.push.catch_up(self):
            pass

    def resume(self, target: Target) -> None:
        """Subscribe on a new connection, from the positions it has."""
        self._reader = FrameReader()
        self._assembler = MessageAssembler()
        self.subscribe(target, dict(self.positions))

    def _told(self, type_: int, body: bytes) -> None:
        if type_ == MessageType.APPLIED:
            assert not body, "a node says nothing of its own"
            self.asked += 1
        elif type_ == MessageType.CURRENT:
            current = native_pb2.Current.FromString(body)
            key = key_from_wire(current.service)
            self.story.append(f"current {key.service} at {current.epoch}/{current.revision}")
            assert key in self.positions, f"{key}: told to have what it never got"
            self._advance(key, LogPosition(current.epoch, current.revision), True)
        elif type_ == MessageType.SNAPSHOT:
            snapshot = native_pb2.Snapshot.FromString(body)
            key = key_from_wire(snapshot.service)
            ids = sorted(found.id for found in snapshot.instances)
            self.story.append(
                f"snapshot {key.service} at {snapshot.epoch}/{snapshot.revision} {ids}"
            )
            self._advance(key, LogPosition(snapshot.epoch, snapshot.revision), self.may_repeat)
            self.lists[key] = {found.id: found.revision for found in snapshot.instances}
        else:
            delta = native_pb2.Delta.FromString(body)
            key = key_from_wire(delta.service)
            ids = sorted(f"+{found.id}" for found in delta.upserted)
            ids += sorted(f"-{gone}" for gone in delta.removed)
            self.story.append(
                f"delta {key.service} {delta.since}..{delta.epoch}/{delta.revision} {ids}"
            )
            assert key in self.positions, f"{key}: a delta before any list"
            known = self.positions[key].revision
            assert delta.since <= known < delta.revision, f"{key}: {delta} does not fit {known}"
            self._advance(key, LogPosition(delta.epoch, delta.revision), False)
            for found in delta.upserted:
                self.lists[key][found.id] = found.revision
            for gone in delta.removed:
                self.lists[key].pop(gone, None)

    def _advance(self, key: ServiceKey, position: LogPosition, may_stay: bool) -> None:
        before = self.positions.get(key)
        if before is not None:
            assert position > before or (may_stay and position == before), (
                f"{key}: told of {position!r} after {before!r}"
            )
        self.positions[key] = position

    def agrees(self, key: ServiceKey) -> bool:
        """Tell whether its list of a service is what the state holds."""
        service = self._rig.states[shard_of(*key)].services.get(key)
        entries = {} if service is None else service.instances
        mine = self.lists.get(key, {})
        return sorted(mine) == sorted(entries) and all(
            _revision_of(entries[instance_id].encoded) == revision
            for instance_id, revision in mine.items()
        )


def _revision_of(encoded: bytes) -> int:
    return model_pb2.Instance.FromString(encoded).revision
