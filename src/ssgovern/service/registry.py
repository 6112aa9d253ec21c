"""Register, deregister, update, read, list: what a node does for whoever asks.

Knows shards, sessions and the log by their cores; knows no connection and no message framing,
and no shard map: a `Placement` says what this node may do for a shard. Writes are proposed to
the log of their shard and answered through a `Waiter` when they are committed; reads answer at
once from committed state. Touched by one task's loop only.

Invariants: the directory holds exactly the services with instances of all states here; an end
of a session that is due in a shard is proposed there before anything else of that session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import (
    InvalidArgumentError,
    OverloadedError,
    ShardMovedError,
    ShardUnavailableError,
)
from ssgovern.model import LogPosition, Outcome, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.registry.directory import Directory
from ssgovern.registry.events import RecentEvents
from ssgovern.registry.sessions import Connection, Session, SessionTable, shards_of
from ssgovern.registry.state import NO_SESSION, Change, ShardState
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.service import checks
from ssgovern.service.ends import EndsDue
from ssgovern.service.leases import Leases
from ssgovern.service.placement import (
    ALL_SHARDS,
    Placement,
    Standalone,
    check_holds,
    mask_from_wire,
    mask_of,
)
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2, raw_pb2
from ssgovern.wire.records import Record

_PAGE_TOKEN_JOINT = " "
"""No name has a space in it."""


class Proposer(Protocol):
    """The way into the log of this node's shards."""

    def check_room(self, entries: int, size_bytes: int) -> None:
        """Raise OverloadedError or ShuttingDownError if so much cannot be taken now."""

    def propose(self, shard: ShardId, record: Record, waiter: Waiter) -> Proposal:
        """Queue a record for the log; the waiter hears of it exactly once."""


class Followers(Protocol):
    """Who follows what changes in shards, and has to know when a state is replaced."""

    def suspend(self, state: ShardState, untold: list[Change]) -> None:
        """A state goes away. Nothing of its shard may be told until it is resumed.

        `untold` are its last changes, which were not offered.
        """

    def resume(self, state: ShardState) -> None:
        """The state of a suspended shard may be told of."""


class RegistryService:
    """The registry of one node: all its shards, its sessions and its directory.

    `states` is shared with who gave it: a state that is replaced is replaced there.
    """

    def __init__(
        self,
        states: list[ShardState],
        sessions: SessionTable,
        proposer: Proposer,
        wall_ms: Callable[[], int],
        placement: Placement | None = None,
    ) -> None:
        self._states = states
        self._proposer = proposer
        self._wall_ms = wall_ms
        self._ends_due = EndsDue()
        self.placement: Placement = placement or Standalone()
        self.followers: Followers | None = None
        self.sessions = sessions
        self.leases = Leases(self)
        self.events = RecentEvents()
        for state in states:
            state.events = self.events
        self.directory = Directory()
        self.directory.fill(key for state in states for key in _with_instances(state))
        # What was taken since the start, whatever became of it.
        self.registrations = self.deregistrations = self.updates = 0
        self.expirations = 0

    # --- writes ----------------------------------------------------------------------------

    def register(
        self,
        session: Session | None,
        request: native_pb2.RegisterRequest,
        waiter: Waiter,
        lease_ms: int = 0,
    ) -> list[Proposal]:
        """Propose every registration of the request or none; return the proposals.

        None is proposed, and the error names the first such shard, if this node may not write
        all of them. Without a session they are of nobody. `lease_ms`: of a session that is a
        lease; who registers for one asks `leases`.
        """
        registrations = request.registrations
        checks.batch(len(registrations))
        owner = NO_SESSION if session is None else session.id
        time_ms = self._wall_ms()
        records = [
            checks.registered(
                checks.service_key(registration.service),
                registration.instance,
                owner,
                time_ms,
                lease_ms,
            )
            for registration in registrations
        ]
        if len(records) > 1:
            checks.distinct(records)
        proposer = self._proposer
        check_write = self.placement.check_write
        size_bytes = 0
        shards = []
        for record in records:
            shard = shard_of(*record.key)
            check_write(shard)
            shards.append(shard)
            size_bytes += len(record.instance)
        proposer.check_room(len(records), size_bytes)
        ends_due = self._ends_due.by_shard
        proposals = []
        for shard, record in zip(shards, records, strict=True):
            if session is not None:
                if ends_due:
                    self._end_first(owner, shard)
                self.sessions.claim(session, 1 << shard)
            proposals.append(proposer.propose(shard, record, waiter))
        self.registrations += len(proposals)
        return proposals

    def deregister(
        self, session: Session, request: native_pb2.DeregisterRequest, waiter: Waiter
    ) -> None:
        """Propose to remove an instance."""
        key = checks.service_key(request.service)
        checks.named_instance(request.instance_id)
        shard = shard_of(*key)
        self.placement.check_write(shard)
        self._proposer.check_room(1, request.ByteSize())
        record = log_pb2.Record(
            time_ms=self._wall_ms(),
            deregistered=log_pb2.InstanceDeregistered(
                service=key_to_wire(key),
                instance_id=request.instance_id,
                session_id=self._owner(session, request),
                any_owner=request.any_owner,
                if_revision=request.if_revision,
            ),
        )
        self._proposer.propose(shard, record, waiter)
        self.deregistrations += 1

    def update(self, session: Session, request: native_pb2.UpdateRequest, waiter: Waiter) -> None:
        """Propose to change fields of an instance."""
        key = checks.service_key(request.service)
        checks.named_instance(request.instance_id)
        checks.change(request.change)
        shard = shard_of(*key)
        self.placement.check_write(shard)
        self._proposer.check_room(1, request.ByteSize())
        record = log_pb2.Record(
            time_ms=self._wall_ms(),
            updated=log_pb2.InstanceUpdated(
                service=key_to_wire(key),
                instance_id=request.instance_id,
                session_id=self._owner(session, request),
                any_owner=request.any_owner,
                if_revision=request.if_revision,
                change=request.change,
            ),
        )
        self._proposer.propose(shard, record, waiter)
        self.updates += 1

    def _owner(
        self, session: Session, request: native_pb2.DeregisterRequest | native_pb2.UpdateRequest
    ) -> SessionId:
        """Return as whom a session asks for a change: as itself, or as a lease it has."""
        return self.leases.owner(request.lease) if request.HasField("lease") else session.id

    # --- sessions --------------------------------------------------------------------------

    def hello(
        self, session_id: SessionId, connection: Connection, now_ms: float, end_waiter: Waiter
    ) -> tuple[Session, Connection | None, bool]:
        """Open or resume a session on a connection.

        Return it, the connection that spoke for it before (to be closed), and whether the
        session was alive, which means that all it registered is still there.
        """
        session = self.sessions.find(session_id)
        if session is not None and session.ended:
            # Some of what it registered may be gone: the rest goes first, then it starts anew.
            self.end_session(session, log_pb2.SESSION_END_EXPIRED, end_waiter)
            session = None
        if session is not None and session.is_lease:
            raise InvalidArgumentError(
                "the session is a lease: it is renewed, and has no connection", field="session_id"
            )
        resumed = session is not None
        if session is None:
            session = self.sessions.open(session_id, now_ms)
        before = self.sessions.attach(session, connection, now_ms)
        return session, before, resumed

    def end_session(self, session: Session, reason: log_pb2.SessionEnd, waiter: Waiter) -> int:
        """Propose the end of a session in every shard it may own something in; return how many.

        From now on the session is unknown: what it asks for after this must not reach the log,
        or it would outlive its end. One that says hello again starts anew. Shards of which
        another node is primary by now are left to that node; in those that can take nothing now
        the end stays due, see `retry_ends`.
        """
        self.sessions.end(session)
        count = 0
        for shard in shards_of(session.shards):
            if self._may_end(session.id, shard, reason):
                self._propose_end(session.id, shard, reason, waiter)
                count += 1
        if reason == log_pb2.SESSION_END_EXPIRED:
            self.expirations += 1
        return count

    def retry_ends(self) -> int:
        """Propose ends that were due where the log could take nothing; return how many.

        To be called with every tick. At most about `limits.ENDS_RETRIED_MAX` at a time, shared
        among the shards that take entries, so that none of them waits for another.
        """
        shards = self._ends_due.shards()
        count = 0
        for shard in shards:
            try:
                self.placement.check_write(shard)
            except ShardMovedError:
                self._ends_due.drop(shard)
                continue
            except (ShardUnavailableError, OverloadedError):
                continue
            share = max(1, limits.ENDS_RETRIED_MAX // len(shards))
            for session_id, reason in self._ends_due.take(shard, share):
                self._propose_end(session_id, shard, reason, self._ends_due)
                count += 1
        return count

    @property
    def ends_due(self) -> int:
        """Ends of sessions that wait for a shard to take them."""
        return len(self._ends_due)

    def retry_end(self, session_id: SessionId, shard: ShardId, now_ms: float) -> None:
        """The log could not take a session's end: let it expire again a little later."""
        session = self.sessions.find(session_id)
        if session is None:
            session = self.sessions.open(session_id, now_ms)
            session.ended = True
        self.sessions.claim(session, 1 << shard)

    def claim(self, session: Session, request: native_pb2.ClaimRequest) -> native_pb2.ClaimResponse:
        """Take over what the session registered with another node; return what is not there.

        Not there, or of another session, or about to end: the client registers that again.
        """
        checks.claimed(request)
        claims = [(checks.service_key(each.service), each) for each in request.claimed]
        for key, each in claims:
            shard = shard_of(*key)
            self.placement.check_write(shard)
            # What was committed before this node took over must be applied, too.
            self.placement.check_read(shard, replica_too=False)
            for instance_id in each.instance_ids:
                checks.named_instance(instance_id)
        # The end of a session takes all of a shard, so it is asked for once, before any answer.
        shards = dict.fromkeys(shard_of(*key) for key, _ in claims)
        ending = {shard: None for shard in shards if self._end_first(session.id, shard)}
        self.sessions.claim(session, mask_of(shards))
        response = native_pb2.ClaimResponse()
        for key, each in claims:
            shard = shard_of(*key)
            service = None if shard in ending else self._states[shard].services.get(key)
            entries = {} if service is None else service.instances
            missing = [
                instance_id
                for instance_id in each.instance_ids
                if (entry := entries.get(instance_id)) is None or entry.session_id != session.id
            ]
            if missing:
                response.missing.add(service=each.service, instance_ids=missing)
        return response

    def _may_end(self, session_id: SessionId, shard: ShardId, reason: log_pb2.SessionEnd) -> bool:
        """Whether an end can be proposed; if not, it is noted as due or left to another node."""
        try:
            self.placement.check_write(shard)
        except ShardMovedError:
            return False
        except (ShardUnavailableError, OverloadedError):
            self._ends_due.add(session_id, shard, reason)
            return False
        return True

    def _propose_end(
        self, session_id: SessionId, shard: ShardId, reason: log_pb2.SessionEnd, waiter: Waiter
    ) -> None:
        record = log_pb2.Record(time_ms=self._wall_ms())
        record.session_ended.session_id = session_id
        record.session_ended.reason = reason
        self._proposer.propose(shard, record, waiter)

    def _end_first(self, session_id: SessionId, shard: ShardId) -> bool:
        """Propose an end that is due before what the session does next; return if there was one.

        The shard takes entries now.
        """
        reason = self._ends_due.take_one(session_id, shard)
        if reason is None:
            return False
        self._propose_end(session_id, shard, reason, self._ends_due)
        return True

    # --- shards come and go ----------------------------------------------------------------

    def claim_shards(self, shards: Iterable[ShardId], now_ms: float) -> int:
        """This node became primary of these shards: it is now the one to end sessions there.

        Every session that owns something in them gets a full time to live, connected or not;
        return how many.
        """
        table = self.sessions
        count = 0
        for shard in shards:
            state = self._states[shard]
            for session_id in state.owned:
                lease_ms = state.lease_ms(session_id)
                session = table.find(session_id)
                if session is not None and session.ended:
                    # Its end was for what it had before, not for what comes with this shard.
                    for other in shards_of(session.shards):
                        self._ends_due.add(session_id, other, log_pb2.SESSION_END_EXPIRED)
                    table.end(session)
                    session = None
                if session is None and lease_ms:
                    session = table.open_lease(session_id, now_ms, lease_ms)
                elif session is None:
                    session = table.open(session_id, now_ms)
                else:
                    # Also if it is connected: it may have been silent here and heard there.
                    table.renew(session, now_ms)
                    if session.is_lease:
                        table.extend(session, lease_ms)
                table.claim(session, 1 << shard)
                count += 1
        return count

    def unclaim_shards(self, shards: Iterable[ShardId]) -> None:
        """This node is primary of these shards no more: sessions there are another's to end."""
        leaving = list(shards)
        for shard in leaving:
            self._ends_due.drop(shard)
        self.sessions.unclaim_all(mask_of(leaving))

    def drop_shard(self, shard: ShardId) -> None:
        """Forget the state of a shard that left this node.

        Subscriptions to what is in it stay noted and are told nothing, above all no empty list.
        """
        self.unclaim_shards((shard,))
        self._replace(ShardState(shard))

    def adopt_shard(self, shard: ShardId, state: ShardState) -> None:
        """Let a state take the place of the one that is here, after a snapshot was installed.

        Subscribers are told what it changes for them, at once if the node holds the shard, else
        when `resume_shard` is called. Also how a shard that was dropped comes back, empty or not.
        """
        assert state.shard == shard, f"{state!r} offered as shard {shard}"
        self._replace(state)
        if self.placement.holds(shard):
            self.resume_shard(shard)

    def resume_shard(self, shard: ShardId) -> None:
        """The shard may be served from here again. Harmless if it was never suspended."""
        if self.followers is not None:
            self.followers.resume(self._states[shard])

    def _replace(self, state: ShardState) -> None:
        shard = state.shard
        before = self._states[shard]
        untold = self.take_changes((shard,))
        if self.followers is not None:
            self.followers.suspend(before, untold)
        # What it saw before it came here was told to nobody, and is in the directory from now.
        state.take_changes()
        state.events = self.events
        self.directory.replace(_with_instances(before), _with_instances(state))
        self._states[shard] = state

    # --- reads -----------------------------------------------------------------------------

    def get(self, request: native_pb2.GetRequest) -> bytes:
        """Return an encoded GetResponse."""
        key = checks.service_key(request.service)
        shard = shard_of(*key)
        self.placement.check_read(shard, replica_too=request.replica_too)
        state = self._states[shard]
        service = state.services.get(key)
        entries = () if service is None else service.instances.values()
        return raw_pb2.RawGetResponse(
            epoch=state.position.epoch,
            revision=state.position.revision,
            instances=[entry.encoded for entry in entries],
            service_revision=0 if service is None else service.revision,
        ).SerializeToString()

    def list_services(
        self, request: native_pb2.ListServicesRequest
    ) -> native_pb2.ListServicesResponse:
        """Return a page of the services that have instances.

        Of the shards asked for, each of which must be held here; of all if none is named.
        """
        checks.listing(request)
        shards = mask_from_wire(request.shards) or ALL_SHARDS
        check_holds(self.placement, shards)
        size = min(request.page_size or limits.LIST_PAGE_MAX, limits.LIST_PAGE_MAX)
        namespace, group, prefix = request.namespace, request.group, request.prefix
        start = ServiceKey(namespace, group, prefix)
        if request.page_token:
            last_group, _, last_service = request.page_token.partition(_PAGE_TOKEN_JOINT)
            # No name has a "\0" in it: this is the first key after the last one looked at.
            start = max(start, ServiceKey(namespace, last_group, last_service + "\0"))
        response = native_pb2.ListServicesResponse()
        for looked_at, key in enumerate(self.directory.after(start)):
            matches = key.service.startswith(prefix)
            if key.namespace != namespace or (group and (key.group != group or not matches)):
                break
            if matches and (shards == ALL_SHARDS or shards >> shard_of(*key) & 1):
                self._summarize(key, response.services.add())
            if len(response.services) == size or looked_at == limits.LIST_SCAN_MAX:
                response.next_page_token = f"{key.group}{_PAGE_TOKEN_JOINT}{key.service}"
                break
        return response

    def _summarize(self, key: ServiceKey, summary: native_pb2.ServiceSummary) -> None:
        service = self.state_of(key).services[key]
        wire_key = summary.service
        wire_key.namespace, wire_key.group, wire_key.service = key
        summary.instances = len(service.instances)
        summary.available = service.available
        summary.revision = service.revision

    def state_of(self, key: ServiceKey) -> ShardState:
        """Return the state of the shard that holds a service."""
        return self._states[shard_of(*key)]

    # --- what the log committed ------------------------------------------------------------

    def state_at(self, shard: ShardId) -> ShardState:
        """Return the state of a shard; another one may take its place later."""
        return self._states[shard]

    def apply(self, proposal: Proposal) -> Outcome:
        """Apply a committed entry."""
        return self._states[proposal.shard].apply(
            proposal.epoch, proposal.revision, proposal.record
        )

    def take_changes(self, shards: Iterable[ShardId]) -> list[Change]:
        """Return what changed in these shards and bring the directory up to date."""
        changes: list[Change] = []
        for shard in shards:
            state = self._states[shard]
            if state.emptied:
                self.leases.forget_emptied(state)
            changes += state.take_changes()
        for change in changes:
            if change.whole != (not change.service.instances):
                if change.whole:
                    self.directory.add(change.service.key)
                else:
                    self.directory.remove(change.service.key)
        return changes

    def totals(self) -> tuple[int, int]:
        """Return how many services have instances and how many instances there are."""
        return len(self.directory), sum(state.instances for state in self._states)

    def position(self, shard: ShardId) -> LogPosition:
        """Return up to where a shard is applied."""
        return self._states[shard].position


def _with_instances(state: ShardState) -> list[ServiceKey]:
    return [service.key for service in state.services.values() if service.instances]
