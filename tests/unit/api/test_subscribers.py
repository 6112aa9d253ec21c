"""Subscribers that say what they have applied, over real frames: node, SDK, clients of old."""

from __future__ import annotations

import asyncio

from builders import ORDERS
from nodes import Stage, simulate

import ssgovern
from ssgovern.errors import ErrorCode
from ssgovern.model import Status
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import applied_pb2


def connect(stage: Stage, name: str) -> ssgovern.Registry:
    runtime = stage.node._runtime
    assert isinstance(runtime, SimRuntime)
    return ssgovern.connect(
        f"127.0.0.1:{stage.ready.port}", namespace="prod", client_name=name, runtime=runtime
    )


def test_deregistering_waits_for_every_subscriber() -> None:
    """When a removal that waits returns, no subscriber has the instance any more."""

    async def body(stage: Stage) -> None:
        async with connect(stage, "a") as a, connect(stage, "b") as b, connect(stage, "c") as c:
            registration = await a.register("orders", host="10.0.0.1", port=1)
            async with b.subscribe("orders") as one, c.subscribe_prefix("ord") as two:
                assert one.instances
                assert two.instances("orders")
                release = await registration.deregister(wait=True)
                assert release.complete
                assert release.removed
                assert release.gone is not None
                assert release.gone.subscribers == 2
                assert not one.instances
                assert not two.instances("orders")

    simulate(body)


def test_draining_goes_step_by_step() -> None:
    """A drained instance is out of traffic everywhere before it is removed everywhere."""

    async def body(stage: Stage) -> None:
        async with connect(stage, "a") as a, connect(stage, "b") as b:
            registration = await a.register("orders", host="10.0.0.1", port=1)
            async with b.subscribe("orders") as orders:
                seen = []

                async def follow() -> None:
                    seen.extend([(c.changed, c.removed) async for c in orders])

                following = asyncio.get_running_loop().create_task(follow())
                release = await registration.drain(grace=2.0)
                assert release.complete
                assert release.removed
            await following
            [(changed, _), (_, removed)] = seen
            assert [each.status for each in changed] == [Status.STOPPING]
            assert [each.id for each in removed] == ["10.0.0.1:1"]

    simulate(body)


def test_an_operator_drains_what_is_not_his() -> None:
    """Put out of service by an operator, an instance stays registered unless he asks for more."""

    async def body(stage: Stage) -> None:
        async with connect(stage, "a") as a, connect(stage, "b") as b:
            await a.register("orders", host="10.0.0.1", port=1)
            async with b.subscribe("orders") as orders:
                release = await b.drain("orders", "10.0.0.1:1", any_owner=True)
                assert release.complete
                assert not release.removed
                [instance] = orders.instances
                assert not instance.enabled

    simulate(body)


def test_who_says_nothing_is_named_and_not_waited_for() -> None:
    """A client of old is listed as one that does not say, and holds nothing up."""

    async def body(stage: Stage) -> None:
        old = await stage.client("old")
        await old.subscribe(ORDERS)
        async with connect(stage, "a") as a:
            registration = await a.register("orders", host="10.0.0.1", port=1)
            release = await registration.deregister(wait=True)
            assert release.complete
            assert release.gone is not None
            assert [each.client_name for each in release.gone.silent] == ["raw"]
            [row] = (await a.subscribers("orders")).subscribers
            assert not row.says
            assert row.position is None

    simulate(body)


def test_who_has_not_applied_it_is_named_in_time() -> None:
    """A subscriber that says nothing more of a change is named at the deadline, not later."""

    async def body(stage: Stage) -> None:
        stuck = await stage.client("stuck")
        await stuck.send(encode_frame(Kind.PUSH, MessageType.APPLIED, 0, b""))
        await stuck.subscribe(ORDERS)
        loop = asyncio.get_running_loop()
        async with connect(stage, "a") as a:
            registration = await a.register("orders", host="10.0.0.1", port=1)
            began_s = loop.time()
            release = await registration.deregister(wait=True, timeout=3.0)
            assert loop.time() - began_s <= 3.0
            assert release.removed
            assert not release.complete
            assert release.gone is not None
            assert [each.client_name for each in release.gone.lacking] == ["raw"]

    simulate(body)


def test_what_was_applied_is_seen_with_the_next_heartbeat() -> None:
    """Without anybody waiting, a node knows soon what its subscribers have applied."""

    async def body(stage: Stage) -> None:
        async with (
            connect(stage, "a") as a,
            connect(stage, "b") as b,
            b.subscribe("orders"),
        ):
            await a.register("orders", host="10.0.0.1", port=1)
            await asyncio.sleep(1.5)
            found = await a.subscribers("orders")
            [row] = found.subscribers
            assert row.says
            assert row.session_id == b.session_id
            assert found.position is not None
            assert row.position == found.position
            assert row.behind_s == 0.0
            assert not found.lacking(found.position)
            assert stage.node.drivers.push.applied_delays.count

    simulate(body)


def test_other_pushes_from_clients_close_the_connection() -> None:
    """Of all that nodes push, clients may push back nothing but what they have applied."""

    async def body(stage: Stage) -> None:
        for type_, said in (
            (MessageType.DELTA, b""),
            (MessageType.APPLIED, b"\xff"),
        ):
            raw = await stage.client(f"raw {type_}")
            await raw.send(encode_frame(Kind.PUSH, type_, 0, said))
            assert await raw.closed() is ErrorCode.PROTOCOL

    simulate(body)


def test_too_many_services_at_once_close_the_connection() -> None:
    """A message about more services than may be in one is not the protocol."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("raw")
        said = applied_pb2.Applied()
        for _ in range(1001):
            said.services.add(service=key_to_wire(ORDERS), epoch=1, revision=1)
        await raw.send(encode_frame(Kind.PUSH, MessageType.APPLIED, 0, said.SerializeToString()))
        assert await raw.closed() is ErrorCode.PROTOCOL

    simulate(body)
