"""Having requests of a client answered by whom they concern.

Each is asked of the node that the shard map names, this one included, and asked again elsewhere
while nothing was done and there is time. A batch goes to several nodes and comes back as one
answer, in the order of the request. Refuses to know of links and holdings more than a relay
offers. What is not known to have been done is repeated only if doing it twice is doing it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from ssgovern import limits
from ssgovern.api.native import replies
from ssgovern.api.native.relay_client import Client, ClientRelay, Hub, in_parallel
from ssgovern.api.native.relay_map import NOBODY
from ssgovern.api.native.relay_pages import merge_pages
from ssgovern.errors import (
    InvalidArgumentError,
    OutcomeUnknownError,
    SessionUnknownError,
    ShardMovedError,
    ShardUnavailableError,
    ShuttingDownError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId, shard_of
from ssgovern.registry.sessions import shards_of
from ssgovern.service import checks
from ssgovern.service.placement import ALL_SHARDS, mask_from_wire, mask_to_wire
from ssgovern.transport.channel import ConnectionLostError
from ssgovern.wire.codec import decode, error_from_message, error_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_REPEAT_MIN_S = 0.05
_REPEAT_MAX_S = 0.5
_REPEATABLE = frozenset(
    map(
        int,
        (
            MessageType.REGISTER,
            MessageType.GET,
            MessageType.LIST_SERVICES,
            MessageType.SUBSCRIBE,
            MessageType.CLAIM,
        ),
    )
)


class Asked(NamedTuple):
    """One request, on whose behalf and until when."""

    hub: Hub
    relay: ClientRelay
    client: Client
    type: int
    body: bytes
    deadline: float


class _Answer:
    """Takes the answer of this node's own log, as a connection would."""

    def __init__(self) -> None:
        self.in_flight = 1
        self.body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(self, type_: int, request_id: int, body: bytes) -> None:
        if not self.body.done():
            self.body.set_result(body)

    def reply_error(self, type_: int, request_id: int, error: native_pb2.Error) -> None:
        if not self.body.done():
            self.body.set_exception(error_from_message(error))


async def ask(asked: Asked) -> bytes:
    """Return the answer to a request. Raises what came of it last when there is no more time."""
    answering = ANSWERING[asked.type]
    loop = asyncio.get_running_loop()
    pause_s = _REPEAT_MIN_S
    while True:
        try:
            return await answering(asked)
        except SsGovernError as error:
            if not _helps_to_repeat(error, asked.type) or loop.time() + pause_s >= asked.deadline:
                raise _as_told(error) from None
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _REPEAT_MAX_S)


def _helps_to_repeat(error: SsGovernError, type_: int) -> bool:
    if isinstance(error, OutcomeUnknownError) or (
        isinstance(error, ConnectionLostError) and error.sent
    ):
        return type_ in _REPEATABLE
    return isinstance(
        error,
        (
            ShardMovedError,
            ShardUnavailableError,
            ShuttingDownError,
            SessionUnknownError,
            UnavailableError,
        ),
    )


def _as_told(error: SsGovernError) -> SsGovernError:
    """Return an error as the client is to hear it, whose own session and connection are well."""
    if isinstance(error, ConnectionLostError) and error.sent:
        return OutcomeUnknownError(
            "the node that was asked for it was lost: it may or may not be done"
        )
    if isinstance(error, (UnavailableError, SessionUnknownError)):
        return ShardUnavailableError(f"the node to ask could not be asked: {error.message}")
    return error


# --- one service --------------------------------------------------------------------------


async def _get(asked: Asked) -> bytes:
    request = decode(native_pb2.GetRequest, asked.body)
    key = checks.service_key(request.service)
    shard = shard_of(*key)
    shard_map = asked.hub.shard_map()
    node = shard_map.reader(shard) if request.replica_too else shard_map.primary(shard)
    if node == asked.hub.me:
        return asked.hub.registry.get(request)
    return await _ask_node(asked, node, asked.body)


async def _deregister(asked: Asked) -> bytes:
    request = decode(native_pb2.DeregisterRequest, asked.body)
    _refuse_lease(request)
    key = checks.service_key(request.service)
    node = asked.hub.shard_map().primary(shard_of(*key))
    if node == asked.hub.me:
        answer = _Answer()
        asked.hub.registry.deregister(
            asked.relay.session, request, replies.DeregisterReply(answer, 0)
        )
        body = await answer.body
    else:
        body = await _ask_node(asked, node, asked.body)
    asked.relay.release(key, request.instance_id)
    return body


async def _update(asked: Asked) -> bytes:
    request = decode(native_pb2.UpdateRequest, asked.body)
    _refuse_lease(request)
    node = asked.hub.shard_map().primary(shard_of(*checks.service_key(request.service)))
    if node == asked.hub.me:
        answer = _Answer()
        asked.hub.registry.update(asked.relay.session, request, replies.UpdateReply(answer, 0))
        return await answer.body
    return await _ask_node(asked, node, asked.body)


async def _ask_node(asked: Asked, node: NodeId, body: bytes) -> bytes:
    if node == NOBODY:
        raise ShardUnavailableError("the shard has no primary at present")
    channel = await asked.relay.link(node).ready(asked.deadline)
    return await channel.request(asked.type, body, asked.deadline)


def _refuse_lease(
    request: native_pb2.RegisterRequest | native_pb2.DeregisterRequest | native_pb2.UpdateRequest,
) -> None:
    """Raise if a request is on behalf of a lease, which is kept at its shard's primary alone."""
    if request.HasField("lease"):
        raise InvalidArgumentError(
            "what concerns a lease is not passed on: ask the primary of its shard", field="lease"
        )


# --- registering --------------------------------------------------------------------------


class _Batch:
    """Registrations on their way to several primaries."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        request = decode(native_pb2.RegisterRequest, asked.body)
        _refuse_lease(request)
        self._registrations = list(request.registrations)
        checks.batch(len(self._registrations))
        # Checked whole, because a fault in it must leave nothing done anywhere.
        session_id = asked.relay.session_id
        records = [
            checks.registered(checks.service_key(each.service), each.instance, session_id, 0)
            for each in self._registrations
        ]
        checks.distinct(records)
        asked.relay.check_room(len(records))
        self._keys = [record.key for record in records]
        self._results: dict[int, native_pb2.RegisterResult] = {}
        self._failures: dict[int, SsGovernError] = {}

    async def register(self) -> bytes:
        """Register everything with whoever is primary, again where nothing was done."""
        loop = asyncio.get_running_loop()
        pause_s = _REPEAT_MIN_S
        waiting = list(range(len(self._keys)))
        while True:
            await self._attempt(waiting)
            waiting = [
                number
                for number, error in self._failures.items()
                if _helps_to_repeat(error, self._asked.type)
            ]
            if not waiting or loop.time() + pause_s >= self._asked.deadline:
                return self._answer()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _REPEAT_MAX_S)

    async def _attempt(self, waiting: list[int]) -> None:
        shard_map = self._asked.hub.shard_map()
        by_node: dict[NodeId, list[int]] = {}
        for number in waiting:
            node = shard_map.primary(shard_of(*self._keys[number]))
            by_node.setdefault(node, []).append(number)
        await in_parallel(self._part(node, numbers) for node, numbers in by_node.items())

    async def _part(self, node: NodeId, numbers: list[int]) -> None:
        hub, relay = self._asked.hub, self._asked.relay
        shard_map = hub.shard_map()
        request = native_pb2.RegisterRequest(
            registrations=[self._registrations[number] for number in numbers]
        )
        try:
            if node == hub.me:
                answer = _Answer()
                waiter = replies.RegisterBatchReply(answer, 0)
                waiter.expect(hub.registry.register(relay.session, request, waiter))
                body = await answer.body
            else:
                body = await _ask_node(self._asked, node, request.SerializeToString())
            results = decode(native_pb2.RegisterResponse, body).results
        except SsGovernError as error:
            self._failures.update(dict.fromkeys(numbers, error))
            return
        for number, result in zip(numbers, results, strict=False):
            self._failures.pop(number, None)
            self._results[number] = result
            if not result.HasField("error"):
                key = self._keys[number]
                relay.hold(key, result.instance_id, shard_map.office(shard_of(*key)))

    def _answer(self) -> bytes:
        if not self._results:
            raise _as_told(next(iter(self._failures.values())))
        for number, error in self._failures.items():
            self._results[number] = native_pb2.RegisterResult(
                instance_id=self._registrations[number].instance.id,
                error=error_to_wire(_as_told(error)),
            )
        ordered = [self._results[number] for number in sorted(self._results)]
        return native_pb2.RegisterResponse(results=ordered).SerializeToString()


async def _register(asked: Asked) -> bytes:
    return await _Batch(asked).register()


# --- many services ------------------------------------------------------------------------


async def _list_services(asked: Asked) -> bytes:
    request = decode(native_pb2.ListServicesRequest, asked.body)
    checks.listing(request)
    hub = asked.hub
    shard_map, holds = hub.shard_map(), hub.registry.placement.holds
    by_node: dict[NodeId, int] = {}
    for shard in shards_of(mask_from_wire(request.shards) or ALL_SHARDS):
        node = hub.me if holds(shard) else shard_map.reader(shard)
        if node == NOBODY or (node == hub.me and not holds(shard)):
            raise ShardUnavailableError(f"no node can list shard {shard} now", shard=shard)
        by_node[node] = by_node.get(node, 0) | 1 << shard
    size = min(request.page_size or limits.LIST_PAGE_MAX, limits.LIST_PAGE_MAX)
    pages = await in_parallel(
        _page(asked, node, request, shards) for node, shards in by_node.items()
    )
    whole = []
    for page in pages:
        if isinstance(page, SsGovernError):
            raise page
        whole.append(page)
    return merge_pages(whole, size).SerializeToString()


async def _page(
    asked: Asked, node: NodeId, request: native_pb2.ListServicesRequest, shards: int
) -> native_pb2.ListServicesResponse | SsGovernError:
    part = native_pb2.ListServicesRequest()
    part.CopyFrom(request)
    part.shards = mask_to_wire(shards)
    try:
        if node == asked.hub.me:
            return asked.hub.registry.list_services(part)
        body = await _ask_node(asked, node, part.SerializeToString())
        return decode(native_pb2.ListServicesResponse, body)
    except SsGovernError as error:
        return error


async def _subscribe(asked: Asked) -> bytes:
    request = decode(native_pb2.SubscribeRequest, asked.body)
    target, known = checks.subscription(request)
    checks.subscriptions(asked.relay.subscription_count)
    number = asked.client.new_subscription_id()
    await asked.relay.subscribe(asked.client, number, target, known, asked.deadline)
    return native_pb2.SubscribeResponse(subscription_id=number).SerializeToString()


ANSWERING: dict[int, Callable[[Asked], Coroutine[None, None, bytes]]] = {
    MessageType.GET: _get,
    MessageType.DEREGISTER: _deregister,
    MessageType.UPDATE: _update,
    MessageType.REGISTER: _register,
    MessageType.LIST_SERVICES: _list_services,
    MessageType.SUBSCRIBE: _subscribe,
}
"""What can be asked of other nodes."""
