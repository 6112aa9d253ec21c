"""Registering many instances: cut into requests, each to the node that takes it.

Knows batches and outcomes; what an instance has to look like was checked before. Invariants:
every instance has one outcome, in the order of the caller's; one that is refused does not affect
the others; what was acknowledged is held from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ssgovern.client.backoff import Backoff
from ssgovern.client.holdings import Holdings, in_batches, registration
from ssgovern.client.session import RETRY_FIRST_S, RETRY_MOST_S, Session
from ssgovern.errors import RemoteProtocolError, Retry, SsGovernError
from ssgovern.model import Instance, NodeId, ServiceKey
from ssgovern.wire.codec import error_from_message
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

Wanted = tuple[ServiceKey, Instance]
Outcome = int | SsGovernError
"""The revision at which an instance was committed, or why it was not."""


class Registering:
    """One call of `register` or `register_all`."""

    def __init__(self, session: Session, holdings: Holdings) -> None:
        self._session = session
        self._holdings = holdings

    async def register(self, wanted: Sequence[Wanted], deadline: float) -> list[Outcome]:
        """Register instances; those that may yet be taken are tried until the deadline."""
        session = self._session
        outcomes: list[Outcome] = [0] * len(wanted)
        left = list(range(len(wanted)))
        backoff: Backoff | None = None
        while True:
            await self._round(wanted, left, outcomes, deadline)
            left = [index for index in left if _may_be_repeated(outcomes[index])]
            if not left:
                return outcomes
            last = outcomes[left[0]]
            assert isinstance(last, SsGovernError), "only those are left"
            if backoff is None:
                rng = session.runtime.rng
                backoff = Backoff(rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
            if not await session.pause(backoff, deadline, last):
                return outcomes

    async def _round(
        self,
        wanted: Sequence[Wanted],
        left: list[int],
        outcomes: list[Outcome],
        deadline: float,
    ) -> None:
        """Try all that are left once, those of different nodes at the same time."""
        session = self._session
        if not session.is_connected:
            try:
                # Before there is a connection there is no map to go by.
                await session.connected(deadline)
            except SsGovernError as error:
                for index in left:
                    outcomes[index] = error
                return
        if len(left) == 1:
            node = session.primary_of(wanted[left[0]][0])
            await self._group(node, wanted, left, outcomes, deadline)
            return
        groups: dict[NodeId, list[int]] = {}
        for index in left:
            groups.setdefault(session.primary_of(wanted[index][0]), []).append(index)
        if len(groups) == 1:
            for node, indices in groups.items():
                await self._group(node, wanted, indices, outcomes, deadline)
            return
        async with asyncio.TaskGroup() as tasks:
            for node, indices in groups.items():
                tasks.create_task(self._group(node, wanted, indices, outcomes, deadline))

    async def _group(
        self,
        node: NodeId,
        wanted: Sequence[Wanted],
        indices: list[int],
        outcomes: list[Outcome],
        deadline: float,
    ) -> None:
        """Try those of one node; 0: nobody takes them at present."""
        items = [registration(*wanted[index]) for index in indices]
        answered = 0
        for batch in in_batches(items):
            for outcome in await self._batch(node, batch, deadline):
                index = indices[answered]
                answered += 1
                if isinstance(outcome, SsGovernError):
                    outcomes[index] = outcome
                else:
                    outcomes[index] = outcome.revision
                    self._holdings.hold(*wanted[index])
                    self._session.on_registered(wanted[index][0], outcome.epoch)

    async def _batch(
        self, node: NodeId, batch: list[native_pb2.Registration], deadline: float
    ) -> list[native_pb2.RegisterResult | SsGovernError]:
        """Return for each registration its result, or its error."""
        request = native_pb2.RegisterRequest(registrations=batch)
        kind, answer = MessageType.REGISTER, native_pb2.RegisterResponse
        try:
            response = await self._session.ask(node, kind, request, answer, deadline)
        except SsGovernError as error:
            return [error] * len(batch)
        if len(response.results) != len(batch):
            fault = RemoteProtocolError(
                f"{len(batch)} registrations were answered by {len(response.results)} results"
            )
            return [fault] * len(batch)
        results: list[native_pb2.RegisterResult | SsGovernError] = [
            error_from_message(result.error) if result.HasField("error") else result
            for result in response.results
        ]
        if any(isinstance(result, SsGovernError) for result in results):
            self._session.refresh_after(node, results)
        return results


def _may_be_repeated(outcome: Outcome) -> bool:
    return isinstance(outcome, SsGovernError) and outcome.retry is not Retry.NEVER
