"""Register, deregister, update, read, list: what a node does for whoever asks.

Knows shards, sessions and the log by their cores; knows no connection and no message framing.
Writes are proposed to the log of their shard and answered through a `Waiter` when they are
committed; reads answer at once from committed state. Touched by one task's loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ssgovern import limits
from ssgovern.model import LogPosition, Outcome, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.registry.directory import Directory
from ssgovern.registry.sessions import Connection, Session, SessionTable, shards_of
from ssgovern.registry.state import Change, ShardState
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.service import checks
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


class RegistryService:
    """The registry of one node: all its shards, its sessions and its directory."""

    def __init__(
        self,
        states: Sequence[ShardState],
        sessions: SessionTable,
        proposer: Proposer,
        wall_ms: Callable[[], int],
    ) -> None:
        self._states = states
        self._proposer = proposer
        self._wall_ms = wall_ms
        self.sessions = sessions
        self.directory = Directory()
        self.directory.fill(
            service.key
            for state in states
            for service in state.services.values()
            if service.instances
        )
        self.expirations = 0

    # --- writes ----------------------------------------------------------------------------

    def register(
        self, session: Session, request: native_pb2.RegisterRequest, waiter: Waiter
    ) -> list[Proposal]:
        """Propose every registration of the request or none; return the proposals."""
        registrations = request.registrations
        checks.batch(len(registrations))
        time_ms = self._wall_ms()
        records = [
            checks.registered(
                checks.service_key(registration.service),
                registration.instance,
                session.id,
                time_ms,
            )
            for registration in registrations
        ]
        if len(records) > 1:
            checks.distinct(records)
        proposer = self._proposer
        size_bytes = 0
        for record in records:
            size_bytes += len(record.instance)
        proposer.check_room(len(records), size_bytes)
        proposals = []
        for record in records:
            shard = shard_of(*record.key)
            self.sessions.claim(session, 1 << shard)
            proposals.append(proposer.propose(shard, record, waiter))
        return proposals

    def deregister(
        self, session: Session, request: native_pb2.DeregisterRequest, waiter: Waiter
    ) -> None:
        """Propose to remove an instance."""
        key = checks.service_key(request.service)
        checks.named_instance(request.instance_id)
        self._proposer.check_room(1, request.ByteSize())
        record = log_pb2.Record(
            time_ms=self._wall_ms(),
            deregistered=log_pb2.InstanceDeregistered(
                service=key_to_wire(key),
                instance_id=request.instance_id,
                session_id=session.id,
                any_owner=request.any_owner,
                if_revision=request.if_revision,
            ),
        )
        self._proposer.propose(shard_of(*key), record, waiter)

    def update(self, session: Session, request: native_pb2.UpdateRequest, waiter: Waiter) -> None:
        """Propose to change fields of an instance."""
        key = checks.service_key(request.service)
        checks.named_instance(request.instance_id)
        checks.change(request.change)
        self._proposer.check_room(1, request.ByteSize())
        record = log_pb2.Record(
            time_ms=self._wall_ms(),
            updated=log_pb2.InstanceUpdated(
                service=key_to_wire(key),
                instance_id=request.instance_id,
                session_id=session.id,
                any_owner=request.any_owner,
                if_revision=request.if_revision,
                change=request.change,
            ),
        )
        self._proposer.propose(shard_of(*key), record, waiter)

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
        resumed = session is not None
        if session is None:
            session = self.sessions.open(session_id, now_ms)
        before = self.sessions.attach(session, connection, now_ms)
        return session, before, resumed

    def end_session(self, session: Session, reason: log_pb2.SessionEnd, waiter: Waiter) -> int:
        """Propose the end of a session in every shard it may own something in; return how many.

        From now on the session is unknown: what it asks for after this must not reach the log,
        or it would outlive its end. One that says hello again starts anew.
        """
        self.sessions.end(session)
        time_ms = self._wall_ms()
        count = 0
        for shard in shards_of(session.shards):
            record = log_pb2.Record(time_ms=time_ms)
            record.session_ended.session_id = session.id
            record.session_ended.reason = reason
            self._proposer.propose(shard, record, waiter)
            count += 1
        if reason == log_pb2.SESSION_END_EXPIRED:
            self.expirations += 1
        return count

    def retry_end(self, session_id: SessionId, shard: ShardId, now_ms: float) -> None:
        """The log could not take a session's end: let it expire again a little later."""
        session = self.sessions.find(session_id)
        if session is None:
            session = self.sessions.open(session_id, now_ms)
            session.ended = True
        self.sessions.claim(session, 1 << shard)

    # --- reads -----------------------------------------------------------------------------

    def get(self, request: native_pb2.GetRequest) -> bytes:
        """Return an encoded GetResponse."""
        key = checks.service_key(request.service)
        state = self._states[shard_of(*key)]
        service = state.services.get(key)
        entries = () if service is None else service.instances.values()
        return raw_pb2.RawGetResponse(
            epoch=state.position.epoch,
            revision=state.position.revision,
            instances=[entry.encoded for entry in entries],
        ).SerializeToString()

    def list_services(
        self, request: native_pb2.ListServicesRequest
    ) -> native_pb2.ListServicesResponse:
        """Return a page of the services that have instances."""
        checks.listing(request)
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
            if matches:
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

    def apply(self, proposal: Proposal) -> Outcome:
        """Apply a committed entry."""
        return self._states[proposal.shard].apply(
            proposal.epoch, proposal.revision, proposal.record
        )

    def take_changes(self, shards: Iterable[ShardId]) -> list[Change]:
        """Return what changed in these shards and bring the directory up to date."""
        changes: list[Change] = []
        for shard in shards:
            changes += self._states[shard].take_changes()
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
