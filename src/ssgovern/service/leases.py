"""Leases: instances of clients that have no connection, kept alive by one request at a time.

A lease is a session of its own, named by the hash of its secret, that owns instances in one
shard. Here is what asks for one may do: register for it, renew it, act as its owner. That it
expires, is held back and is taken over by another primary is as with every session. Knows no
connection; time comes in.

Invariants: a lease is there while it owns something or may come to; of its times to live the
longest that was promised holds; whoever renews it is heard, also while nobody may act for the
shard, and is told of success only by who is surely its primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssgovern.errors import InvalidArgumentError, OutcomeUnknownError, SsGovernError
from ssgovern.model import Outcome, SessionId, ShardId, shard_of
from ssgovern.registry.sessions import Session, shards_of
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.service import checks
from ssgovern.wire.codec import error_to_wire
from ssgovern.wire.pb import log_pb2, native_pb2

if TYPE_CHECKING:
    from ssgovern.service.registry import RegistryService


class Leases:
    """The part of a `RegistryService` that is about leases."""

    def __init__(self, registry: RegistryService) -> None:
        self._registry = registry
        self._table = registry.sessions
        self.renewals = 0

    def __repr__(self) -> str:
        return f"<Leases renewals={self.renewals}>"

    def __len__(self) -> int:
        """Return how many there are, counted anew each time."""
        return sum(self._table.leases_per_shard)

    # --- requests --------------------------------------------------------------------------

    def register(
        self,
        request: native_pb2.RegisterRequest,
        waiter: Waiter,
        end_waiter: Waiter,
        now_ms: float,
    ) -> list[Proposal]:
        """Propose every registration of the request for its lease, or none.

        `end_waiter` hears of the end of what the lease had before, if that is due.
        """
        checks.batch(len(request.registrations))
        if checks.is_nobody(request.lease):
            checks.persistent(request.registrations)
            return self._registry.register(None, request, waiter)
        lease_id = self.owner(request.lease)
        ttl_ms = checks.lease_ttl_ms(request.lease.ttl_ms)
        shard = _only_shard(request)
        lease = self._open(lease_id, shard, ttl_ms, now_ms, end_waiter)
        try:
            proposals = self._registry.register(
                lease, request, _UnderWay(self, lease, waiter), lease_ms=ttl_ms
            )
        except SsGovernError:
            self._table.drop_idle(lease)
            raise
        lease.under_way += len(proposals)
        return proposals

    def owner(self, lease: native_pb2.Lease) -> SessionId:
        """Return as whose owner a request is made. Raises SessionForeignError."""
        return checks.lease_id(lease.session_id, lease.session_secret)

    def renew(self, request: native_pb2.RenewRequest, now_ms: float) -> native_pb2.RenewResponse:
        """Give leases a full time to live; say of each whether it was there."""
        checks.renewals(len(request.renewals))
        response = native_pb2.RenewResponse()
        for renewal in request.renewals:
            result = response.results.add()
            try:
                ttl_ms = self._renew(renewal, now_ms)
            except SsGovernError as error:
                result.error.CopyFrom(error_to_wire(error))
            else:
                result.known, result.ttl_ms = ttl_ms > 0, ttl_ms
        self.renewals += len(request.renewals)
        return response

    def _renew(self, renewal: native_pb2.Renewal, now_ms: float) -> int:
        key = checks.service_key(renewal.service)
        lease_id = checks.lease_id(renewal.session_id, renewal.session_secret)
        shard = shard_of(*key)
        lease = self._table.find(lease_id)
        if lease is not None and (
            lease.ended or not lease.is_lease or not lease.shards >> shard & 1
        ):
            lease = None
        if lease is not None:
            # Before anything is refused: while nobody may act for the shard nobody could tell,
            # either, that it is renewed in time.
            self._table.renew(lease, now_ms)
        self._registry.placement.check_read(shard, replica_too=False)
        if lease is None or self._maybe_forget(lease, self._registry.state_at(shard)):
            return 0
        return int(lease.ttl_ms)

    def _open(
        self,
        lease_id: SessionId,
        shard: ShardId,
        ttl_ms: int,
        now_ms: float,
        end_waiter: Waiter,
    ) -> Session:
        lease = self._table.find(lease_id)
        if lease is not None and lease.ended:
            # Some of what it had may be gone: the rest goes first, then it starts anew.
            self._registry.end_session(lease, log_pb2.SESSION_END_EXPIRED, end_waiter)
            lease = None
        if lease is None:
            return self._table.open_lease(lease_id, now_ms, ttl_ms)
        if not lease.is_lease:
            raise InvalidArgumentError(
                "the lease has the secret of a client's session; it needs one of its own",
                field="lease",
            )
        if lease.shards & ~(1 << shard):
            [other, *_] = shards_of(lease.shards)
            raise InvalidArgumentError(
                f"the lease keeps instances of shard {other}, and these are of shard {shard}: "
                "each shard needs a lease of its own",
                field="lease",
            )
        self._table.renew(lease, now_ms)
        self._table.extend(lease, ttl_ms)
        return lease

    # --- what the log decided --------------------------------------------------------------

    def settled(self, lease: Session, proposal: Proposal, outcome: Outcome) -> None:
        """A registration for a lease was decided."""
        if isinstance(outcome.error, OutcomeUnknownError):
            # It may yet be committed, by whoever leads next. So the lease stays as long as the
            # shard does, or until it expires: its end has to come after that.
            return
        lease.under_way -= 1
        if outcome.error is not None:
            self._maybe_forget(lease, self._registry.state_at(proposal.shard))

    def forget_emptied(self, state: ShardState) -> None:
        """Forget the leases with nothing left of those that lost something in a shard."""
        for session_id in state.emptied:
            session = self._table.find(session_id)
            if session is not None and session.is_lease:
                self._maybe_forget(session, state)

    def _maybe_forget(self, lease: Session, state: ShardState) -> bool:
        """Forget a lease if nothing is left of it in its shard and nothing can come."""
        if lease.under_way or lease.id in state.owned or self._table.find(lease.id) is not lease:
            return False
        self._table.unclaim(lease, 1 << state.shard)
        return self._table.drop_idle(lease)


class _UnderWay:
    """The waiter of registrations for a lease, around the one who answers."""

    __slots__ = ("_lease", "_leases", "_waiter")

    def __init__(self, leases: Leases, lease: Session, waiter: Waiter) -> None:
        self._leases = leases
        self._lease = lease
        self._waiter = waiter

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self._leases.settled(self._lease, proposal, outcome)
        self._waiter.on_outcome(proposal, outcome)


def _only_shard(request: native_pb2.RegisterRequest) -> ShardId:
    """Return the shard of all registrations of a request."""
    shards = dict.fromkeys(
        shard_of(*checks.service_key(each.service)) for each in request.registrations
    )
    first, *others = shards
    if others:
        raise InvalidArgumentError(
            f"a lease keeps instances of one shard, and these are of {len(shards)}",
            field="registrations",
        )
    return first
