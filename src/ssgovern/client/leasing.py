"""Instances kept by leases, for who registers on behalf of others; not public.

A lease is a time-bound claim whose owner has no connection of its own: it has a secret, and
shows it with every request. What is registered here is not this client's: it is not registered
again when a session is lost, and does not go when the client is closed.

Every request goes to the primary of the shard and is repeated until its deadline, as doing it
twice is doing it once; but not after a lost answer if it depends on a revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ssgovern import limits
from ssgovern.client.backoff import Backoff
from ssgovern.client.holdings import registration
from ssgovern.client.registration import checked
from ssgovern.client.registry import Registry
from ssgovern.client.session import RETRY_FIRST_S, RETRY_MOST_S, Session
from ssgovern.errors import InvalidArgumentError, RemoteProtocolError, Retry, SsGovernError
from ssgovern.model import (
    Instance,
    LogPosition,
    NodeId,
    ServiceKey,
    SessionId,
    check_key,
    check_name,
    session_id_of,
)
from ssgovern.model.session import SESSION_SECRET_BYTES
from ssgovern.wire.codec import error_from_message, instance_from_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has the secret is the owner. A lease keeps instances of one shard.

    `ttl_ms` matters when something is registered: so long it lives without a renewal.
    """

    secret: bytes = field(repr=False)
    ttl_ms: int = limits.LEASE_TTL_MS_DEFAULT

    def __post_init__(self) -> None:
        if len(self.secret) != SESSION_SECRET_BYTES:
            raise InvalidArgumentError(
                f"the secret of a lease has {SESSION_SECRET_BYTES} bytes", field="lease"
            )

    @property
    def id(self) -> SessionId:
        """Return what nodes know it by; may be shown to anyone."""
        return session_id_of(self.secret)

    def to_wire(self) -> native_pb2.Lease:
        """Return it as requests carry it."""
        return native_pb2.Lease(session_id=self.id, session_secret=self.secret, ttl_ms=self.ttl_ms)


class Kept(NamedTuple):
    """A registration that was acknowledged."""

    instance_id: str
    position: LogPosition


class Deregistered(NamedTuple):
    """Whether there was something to remove, and the position since which it is not there."""

    removed: bool
    position: LogPosition


class Updated(NamedTuple):
    """An instance as it is now, and the position since which it is."""

    instance: Instance
    position: LogPosition


class Leasing:
    """What leases are used for, over the connections of a client."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __repr__(self) -> str:
        return f"<Leasing over {self._registry!r}>"

    @property
    def _session(self) -> Session:
        return self._registry._session

    async def register(
        self, key: ServiceKey, instance: Instance, lease: Lease | None, deadline: float
    ) -> Kept:
        """Register an instance for a lease; an instance with the same id is replaced.

        Lease None: kept by nobody, for an instance that is not ephemeral. `deadline` is time of
        the loop. An empty id is filled in.
        """
        check_key(key)
        instance = checked(instance)
        request = native_pb2.RegisterRequest(
            registrations=[registration(key, instance)],
            lease=native_pb2.Lease() if lease is None else lease.to_wire(),
        )
        backoff: Backoff | None = None
        while True:
            response = await self._session.call(
                MessageType.REGISTER,
                request,
                native_pb2.RegisterResponse,
                deadline,
                repeatable=True,
                key=key,
            )
            if len(response.results) != 1:
                raise RemoteProtocolError(
                    f"one registration was answered by {len(response.results)} results"
                )
            [result] = response.results
            if not result.HasField("error"):
                return Kept(result.instance_id, LogPosition(result.epoch, result.revision))
            error = error_from_message(result.error)
            if error.retry is Retry.NEVER:
                raise error
            self._session.refresh_after(self._session.primary_of(key), [error])
            if backoff is None:
                rng = self._session.runtime.rng
                backoff = Backoff(rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
            if not await self._session.pause(backoff, deadline, error):
                raise error

    async def renew(self, key: ServiceKey, lease: Lease, deadline: float) -> int:
        """Give a lease a full time to live again and return it, in milliseconds.

        0: there is no such lease in the service's shard any more, or nothing is left of what it
        kept; register again.
        """
        [outcome] = await self.renew_all([(key, lease)], deadline)
        if isinstance(outcome, SsGovernError):
            raise outcome
        return outcome

    async def renew_all(
        self, leases: Sequence[tuple[ServiceKey, Lease]], deadline: float
    ) -> list[int | SsGovernError]:
        """Renew many leases in few requests; return of each what `renew` would, or raise.

        Those that may yet be renewed are tried until the deadline.
        """
        for key, _ in leases:
            check_key(key)
        outcomes: list[int | SsGovernError] = [0] * len(leases)
        left = list(range(len(leases)))
        backoff: Backoff | None = None
        session = self._session
        while left:
            if not session.is_connected:
                # Before there is a connection there is no map to go by.
                await session.connected(deadline)
            by_node: dict[NodeId, list[int]] = {}
            for index in left:
                by_node.setdefault(session.primary_of(leases[index][0]), []).append(index)
            async with asyncio.TaskGroup() as tasks:
                for node, indices in by_node.items():
                    for start in range(0, len(indices), limits.RENEWALS_MAX):
                        part = indices[start : start + limits.RENEWALS_MAX]
                        tasks.create_task(self._renew_at(node, leases, part, outcomes, deadline))
            left = [index for index in left if _may_be_repeated(outcomes[index])]
            if not left:
                break
            last = outcomes[left[0]]
            assert isinstance(last, SsGovernError), "only those are left"
            if backoff is None:
                rng = session.runtime.rng
                backoff = Backoff(rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
            if not await session.pause(backoff, deadline, last):
                break
        return outcomes

    async def _renew_at(
        self,
        node: NodeId,
        leases: Sequence[tuple[ServiceKey, Lease]],
        indices: Sequence[int],
        outcomes: list[int | SsGovernError],
        deadline: float,
    ) -> None:
        request = native_pb2.RenewRequest(
            renewals=[
                native_pb2.Renewal(
                    service=key_to_wire(key), session_id=lease.id, session_secret=lease.secret
                )
                for key, lease in (leases[index] for index in indices)
            ]
        )
        kind, answer = MessageType.RENEW, native_pb2.RenewResponse
        results: list[int | SsGovernError]
        try:
            response = await self._session.ask(node, kind, request, answer, deadline)
        except SsGovernError as error:
            results = [error] * len(indices)
        else:
            results = [
                error_from_message(result.error)
                if result.HasField("error")
                else result.ttl_ms * result.known
                for result in response.results
            ]
            if len(results) != len(indices):
                results = [
                    RemoteProtocolError(
                        f"{len(indices)} renewals were answered by {len(results)} results"
                    )
                ] * len(indices)
            self._session.refresh_after(node, results)
        for index, result in zip(indices, results, strict=True):
            outcomes[index] = result

    async def deregister(
        self,
        key: ServiceKey,
        instance_id: str,
        lease: Lease | None,
        deadline: float,
        *,
        if_revision: int = 0,
    ) -> Deregistered:
        """Remove an instance, as the lease's owner; lease None: whoever's it is."""
        check_key(key)
        check_name("instance id", instance_id)
        response = await self._session.call(
            MessageType.DEREGISTER,
            native_pb2.DeregisterRequest(
                service=key_to_wire(key),
                instance_id=instance_id,
                any_owner=lease is None,
                if_revision=if_revision,
                lease=None if lease is None else lease.to_wire(),
            ),
            native_pb2.DeregisterResponse,
            deadline,
            repeatable=not if_revision,
            key=key,
        )
        return Deregistered(response.removed, LogPosition(response.epoch, response.revision))

    async def update(
        self,
        key: ServiceKey,
        instance_id: str,
        change: native_pb2.InstanceChange,
        lease: Lease | None,
        deadline: float,
        *,
        if_revision: int = 0,
    ) -> Updated:
        """Change fields of an instance, as the lease's owner; lease None: whoever's it is."""
        check_key(key)
        check_name("instance id", instance_id)
        response = await self._session.call(
            MessageType.UPDATE,
            native_pb2.UpdateRequest(
                service=key_to_wire(key),
                instance_id=instance_id,
                any_owner=lease is None,
                if_revision=if_revision,
                change=change,
                lease=None if lease is None else lease.to_wire(),
            ),
            native_pb2.UpdateResponse,
            deadline,
            repeatable=not if_revision,
            key=key,
        )
        return Updated(
            instance_from_wire(response.instance), LogPosition(response.epoch, response.revision)
        )


def _may_be_repeated(outcome: int | SsGovernError) -> bool:
    return isinstance(outcome, SsGovernError) and outcome.retry is not Retry.NEVER
