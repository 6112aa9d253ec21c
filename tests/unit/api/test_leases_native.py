"""Leases over the native protocol, on one node and on a few that share the shards."""

from __future__ import annotations

import asyncio

import pytest
from builders import ORDERS, instance, secret_of, session_of
from lite import Lites, simulate_lites
from nodes import RefusedError, Stage, simulate

from ssgovern.errors import ErrorCode
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

LEASE = native_pb2.Lease(session_id=session_of("l"), session_secret=secret_of("l"), ttl_ms=4_000)
KEY = key_to_wire(ORDERS)
REGISTER = native_pb2.RegisterRequest(
    registrations=[native_pb2.Registration(service=KEY, instance=instance("a"))], lease=LEASE
)
RENEW = native_pb2.RenewRequest(
    renewals=[
        native_pb2.Renewal(service=KEY, session_id=session_of("l"), session_secret=secret_of("l"))
    ]
)


def test_a_batch_is_answered_in_its_order() -> None:
    """Several instances of one lease come back with their results, and are renewed together."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("a")
        request = native_pb2.RegisterRequest(lease=LEASE)
        for name in ("x", "y", "z"):
            request.registrations.add(service=KEY, instance=instance(name))
        answer = native_pb2.RegisterResponse.FromString(
            await raw.ask(MessageType.REGISTER, request)
        )
        assert [result.instance_id for result in answer.results] == ["x", "y", "z"]
        renewed = native_pb2.RenewResponse.FromString(await raw.ask(MessageType.RENEW, RENEW))
        assert list(renewed.results) == [native_pb2.RenewResult(known=True, ttl_ms=4_000)]
        raw.close()
        await asyncio.sleep(3.0)
        other = await stage.client("b")
        assert await other.ids() == ["x", "y", "z"]
        await asyncio.sleep(1.75)
        await other.heartbeat()
        assert await other.ids() == []

    simulate(body)


@pytest.mark.parametrize(
    ("type_", "request_"),
    [
        (MessageType.REGISTER, REGISTER),
        (
            MessageType.DEREGISTER,
            native_pb2.DeregisterRequest(service=KEY, instance_id="a", lease=LEASE),
        ),
    ],
    ids=["register", "deregister"],
)
def test_no_node_passes_on_what_is_asked_for_a_lease(
    type_: MessageType,
    request_: native_pb2.RegisterRequest | native_pb2.DeregisterRequest,
) -> None:
    """A client that knows one node is told that a lease is the primary's, and nothing is done."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        await asyncio.sleep(0.1)
        raw = await lites.nodes[1].client("a", forward=True)
        with pytest.raises(RefusedError) as refused:
            await raw.ask(type_, request_)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        assert lites.nodes[2].ids(ORDERS) == []

    simulate_lites(2, body)


def test_another_node_says_whom_to_ask() -> None:
    """A renewal that reaches a node that is not the primary is answered with where to go."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        await asyncio.sleep(0.1)
        raw = await lites.nodes[1].client("a")
        answer = native_pb2.RenewResponse.FromString(await raw.ask(MessageType.RENEW, RENEW))
        [result] = answer.results
        assert result.error.code == ErrorCode.SHARD_MOVED
        with pytest.raises(RefusedError) as refused:
            await raw.ask(MessageType.REGISTER, REGISTER)
        assert refused.value.code is ErrorCode.SHARD_MOVED
        primary = await lites.nodes[2].client("b")
        await primary.ask(MessageType.REGISTER, REGISTER)
        assert lites.nodes[2].ids(ORDERS) == ["a"]

    simulate_lites(2, body)
