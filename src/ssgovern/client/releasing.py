"""Taking an instance away without losing a request: wait until every subscriber knows.

Knows how such requests are worded and asked of all nodes, since each node answers for those
connected to it. Invariants: nothing here outlives its deadline; what is called complete was
answered with yes by every live node within so short a time that no subscriber can have passed
from one to another unseen, because a node remembers who left it for as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from ssgovern import limits
from ssgovern.client.holdings import Holdings
from ssgovern.client.session import Session
from ssgovern.client.subscribers import (
    Delivery,
    Release,
    ServiceSubscribers,
    Subscriber,
    merged,
    subscriber_from_wire,
)
from ssgovern.errors import (
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    Retry,
    SsGovernError,
)
from ssgovern.model import (
    DEFAULT_GROUP,
    ORIGIN,
    LogPosition,
    NodeId,
    ServiceKey,
    ShardId,
    check_name,
)
from ssgovern.wire.codec import instance_from_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, model_pb2, native_pb2

M = TypeVar("M", bound=Message)

OnDelivery = Callable[[Delivery], None]

CONFIRM_S = 1.0
"""All nodes have to say yes within so long. No longer than a node remembers who left it, which
is the grace of closed connections."""
ROUND_S = 0.8
"""How long nodes are let wait before they say how far it is."""
ANSWER_S = 2.0
"""Beyond that a node is given so long to answer."""
MARGIN_S = 0.3
"""Nodes are asked to answer so long before the caller's time is up."""
PAUSE_S = 0.1


@dataclass(slots=True)
class _Answers:
    """What all nodes said."""

    said: dict[NodeId, applied_pb2.AwaitAppliedResponse] = field(default_factory=dict)
    failed: dict[NodeId, SsGovernError] = field(default_factory=dict)


class Releasing:
    """The part of `Registry` that knows how far changes have got."""

    _session: Session
    _holdings: Holdings
    _timeout_s: float

    async def subscribers(
        self, service: str, *, group: str = DEFAULT_GROUP, timeout: float | None = None
    ) -> ServiceSubscribers:
        """Ask all nodes who follows a service and what each has applied.

        What subscribers say comes with their heartbeats, so it may be a second old.
        """
        key = self._key(service, group)
        deadline = self._deadline(timeout)
        rows: list[Subscriber] = []
        latest = [ORIGIN]
        failed: dict[NodeId, SsGovernError] = {}

        async def ask_one(node: NodeId) -> None:
            request = applied_pb2.SubscribersRequest(service=key_to_wire(key))
            try:
                while True:
                    page = await self._session.ask(
                        node,
                        MessageType.SUBSCRIBERS,
                        request,
                        applied_pb2.SubscribersResponse,
                        min(deadline, asyncio.get_running_loop().time() + ANSWER_S),
                    )
                    rows.extend(subscriber_from_wire(row, node) for row in page.subscribers)
                    latest.append(LogPosition(page.epoch, page.revision))
                    if not page.next_after:
                        return
                    request.after = page.next_after
            except SsGovernError as error:
                failed[node] = error

        nodes = await self._on_all_nodes(ask_one, deadline)
        for error in failed.values():
            _raise_if_refused(error)
        if len(failed) == len(nodes):
            raise next(iter(failed.values()))
        position = max(latest)
        return ServiceSubscribers(
            key, None if position == ORIGIN else position, merged(rows), tuple(sorted(failed))
        )

    async def await_applied(
        self,
        service: str,
        position: LogPosition,
        *,
        group: str = DEFAULT_GROUP,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Delivery:
        """Wait until every live subscriber of a service has applied a position.

        Returns when they have, or when the time is up, with those who have not: look at
        `complete`. `on_progress` hears about once a second how far it is.
        """
        key = self._key(service, group)
        return await self._await_applied(key, position, self._deadline(timeout), on_progress)

    async def release(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Release:
        """Remove an instance and wait until every live subscriber knows that it is gone.

        Raises what `deregister` raises; that some do not know in time is no error.
        """
        key = self._key(service, group)
        check_name("instance id", instance_id)
        return await self._release(
            key, instance_id, any_owner, None, self._deadline(timeout), on_progress
        )

    async def drain(
        self,
        service: str,
        instance_id: str,
        *,
        group: str = DEFAULT_GROUP,
        any_owner: bool = False,
        deregister: bool = False,
        grace: float = 0.0,
        timeout: float | None = None,
        on_progress: OnDelivery | None = None,
    ) -> Release:
        """Take an instance out of traffic and wait until every live subscriber knows.

        With `deregister` it is then given `grace` seconds to finish what it is at, removed, and
        that is waited for, too; if some do not know in time, it is not removed.

        Its owner says by this that it is stopping, which ends when it registers again. With
        `any_owner` it is put out of service by an operator's switch, which stays until it is
        put back with `update(enabled=True)`.
        """
        key = self._key(service, group)
        check_name("instance id", instance_id)
        if grace < 0.0:
            raise InvalidArgumentError(f"grace {grace}: seconds, 0 or more", field="grace")
        deadline = self._deadline(timeout)
        if any_owner:
            change = native_pb2.InstanceChange(out_of_service=True)
        else:
            change = native_pb2.InstanceChange(status=model_pb2.STATUS_STOPPING)
        request = native_pb2.UpdateRequest(
            service=key_to_wire(key), instance_id=instance_id, any_owner=any_owner, change=change
        )
        response = await self._call_update(request, key, deadline)
        if self._holdings.held(key, instance_id) is not None:
            self._holdings.hold(key, instance_from_wire(response.instance))
        position = LogPosition(response.epoch, response.revision)
        drained = await self._await_applied(key, position, deadline, on_progress)
        if not deregister or not drained.complete:
            return Release(key, instance_id, drained, removed=False, gone=None)
        await asyncio.sleep(grace)
        # The grace is the caller's own wish and not part of the time for subscribers.
        return await self._release(
            key, instance_id, any_owner, drained, deadline + grace, on_progress
        )

    async def _release(
        self,
        key: ServiceKey,
        instance_id: str,
        any_owner: bool,
        drained: Delivery | None,
        deadline: float,
        on_progress: OnDelivery | None,
    ) -> Release:
        response = await self._deregister(key, instance_id, any_owner, 0, deadline)
        position = LogPosition(response.epoch, response.revision)
        # Also if there was none to remove: a first attempt may have done it, whose answer was
        # lost.
        gone = await self._await_applied(key, position, deadline, on_progress)
        return Release(key, instance_id, drained, response.removed, gone)

    # --- asking all nodes ------------------------------------------------------------------

    async def _await_applied(
        self,
        key: ServiceKey,
        position: LogPosition,
        deadline: float,
        on_progress: OnDelivery | None,
    ) -> Delivery:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            wait_s = min(ROUND_S, deadline - began_s - MARGIN_S)
            try:
                answers, nodes = await self._ask_all(key, position, max(0.0, wait_s), deadline)
            except SsGovernError as error:
                # What was to be waited for is done; that nobody can be asked is no failure of it.
                _raise_if_refused(error)
                answers, nodes = _Answers(), []
            ended_s = loop.time()
            delivery = _delivery(key, position, answers, nodes != self._live_nodes())
            if delivery.complete and ended_s - began_s <= CONFIRM_S:
                return delivery
            if on_progress is not None:
                on_progress(delivery)
            older = answers.failed and all(map(_is_older, answers.failed.values()))
            only_older = older and all(each.applied for each in answers.said.values())
            if only_older or ended_s + PAUSE_S + MARGIN_S >= deadline:
                return delivery
            if answers.failed or not answers.said:
                await asyncio.sleep(PAUSE_S)

    async def _ask_all(
        self, key: ServiceKey, position: LogPosition, wait_s: float, deadline: float
    ) -> tuple[_Answers, list[NodeId]]:
        answers = _Answers()
        request = applied_pb2.AwaitAppliedRequest(
            service=key_to_wire(key),
            epoch=position.epoch,
            revision=position.revision,
            timeout_ms=min(int(wait_s * 1000.0), limits.AWAIT_APPLIED_MS_MAX),
        )
        until = min(deadline, asyncio.get_running_loop().time() + wait_s + ANSWER_S)

        async def ask_one(node: NodeId) -> None:
            try:
                answers.said[node] = await self._session.ask(
                    node,
                    MessageType.AWAIT_APPLIED,
                    request,
                    applied_pb2.AwaitAppliedResponse,
                    until,
                )
            except SsGovernError as error:
                answers.failed[node] = error

        nodes = await self._on_all_nodes(ask_one, deadline)
        for error in answers.failed.values():
            _raise_if_refused(error)
        return answers, nodes

    async def _on_all_nodes(
        self, ask_one: Callable[[NodeId], Coroutine[None, None, None]], deadline: float
    ) -> list[NodeId]:
        """Run a question that raises nothing for every live node, side by side; return them."""
        await self._session.connected(deadline)
        nodes = self._live_nodes()
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(ask_one(node))
        return nodes

    def _live_nodes(self) -> list[NodeId]:
        shard_map = self._session.map
        if shard_map.is_single:
            return [self._session.primary_of_shard(ShardId(0))]
        return [node.id for node in shard_map.nodes.values() if node.live]

    # --- of Registry -----------------------------------------------------------------------

    def _key(self, service: str, group: str) -> ServiceKey:
        raise NotImplementedError

    def _deadline(self, timeout: float | None) -> float:
        raise NotImplementedError

    async def _call_update(
        self, request: native_pb2.UpdateRequest, key: ServiceKey, deadline: float
    ) -> native_pb2.UpdateResponse:
        raise NotImplementedError

    async def _deregister(
        self,
        key: ServiceKey,
        instance_id: str,
        any_owner: bool,
        if_revision: int,
        deadline: float,
    ) -> native_pb2.DeregisterResponse:
        raise NotImplementedError


def _delivery(
    key: ServiceKey, position: LogPosition, answers: _Answers, nodes_changed: bool
) -> Delivery:
    said = answers.said
    lacking = [subscriber_from_wire(row, node) for node in said for row in said[node].lacking]
    silent = [subscriber_from_wire(row, node) for node in said for row in said[node].silent]
    named = {each.session_id for each in lacking}
    return Delivery(
        key,
        position,
        complete=bool(said)
        and not (answers.failed or nodes_changed)
        and all(each.applied for each in said.values()),
        subscribers=sum(each.subscribers_total for each in said.values()),
        lacking=merged(lacking),
        # One that is on two nodes is counted once, as far as it is named.
        lacking_total=sum(each.lacking_total for each in said.values())
        - (len(lacking) - len(named)),
        silent=merged(silent),
        silent_total=sum(each.silent_total for each in said.values()),
        unanswered=tuple(
            sorted({*answers.failed, *(node for node in said if said[node].node_lacks)})
        ),
    )


def _is_older(error: SsGovernError) -> bool:
    return error.code is ErrorCode.UNSUPPORTED_TYPE


def _raise_if_refused(error: SsGovernError) -> None:
    """Raise what is the same at every node, and at any time."""
    if (
        error.retry is Retry.NEVER
        and not _is_older(error)
        and not isinstance(error, DeadlineExceededError)
    ):
        raise error
