"""Registering for those who have no connection, with the SDK and a real node, simulated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from builders import BILLING, ORDERS, secret_of
from nodes import Stage, config_of, run_world, serving

import ssgovern
from ssgovern import limits
from ssgovern.client.leasing import Lease, Leasing
from ssgovern.errors import (
    InvalidArgumentError,
    NotOwnerError,
    SessionForeignError,
    UnavailableError,
)
from ssgovern.model import Instance, ServiceKey
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

LEASE = Lease(secret_of("lease"), 4000)
OTHER = Lease(secret_of("other"), 4000)

Body = Callable[[Stage, ssgovern.Registry, Leasing], Coroutine[Any, Any, None]]


def instance(name: str, **fields: Any) -> Instance:
    return Instance(id=name, host="10.0.0.1", port=80, **fields)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def play(*bodies: Body) -> None:
    """Run bodies with a node and a client of it, each in a life of the node."""

    def life(body: Body) -> Callable[[SimRuntime], Coroutine[Any, Any, None]]:
        async def run(runtime: SimRuntime) -> None:
            async with serving(config_of("/data"), runtime) as stage:
                address = f"127.0.0.1:{stage.ready.port}"
                async with ssgovern.connect(address, namespace="prod", runtime=runtime) as registry:
                    await body(stage, registry, Leasing(registry))

        return run

    run_world(1, *map(life, bodies))


async def ids(registry: ssgovern.Registry, key: ServiceKey = ORDERS) -> list[str]:
    found = await registry.get(key.service, group=key.group)
    return [each.id for each in found]


def test_a_lease_lives_as_long_as_it_is_renewed() -> None:
    """What it keeps is there while it is renewed, and gone a time to live after that."""

    async def body(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        kept = await leasing.register(ORDERS, instance("a"), LEASE, soon())
        assert kept.instance_id == "a"
        for _ in range(5):
            await asyncio.sleep(3.0)
            assert await leasing.renew(ORDERS, LEASE, soon()) == 4000
        [found] = await registry.get(ORDERS.service, group=ORDERS.group)
        assert (found.lease_ms, found.revision) == (4000, kept.position.revision)
        await asyncio.sleep(3.5)
        assert await ids(registry) == ["a"]
        await asyncio.sleep(1.5)
        assert await ids(registry) == []
        assert await leasing.renew(ORDERS, LEASE, soon()) == 0

    play(body)


def test_it_is_not_this_clients() -> None:
    """What was registered for a lease stays when the client that asked for it closes."""

    async def body(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        async with ssgovern.connect(
            f"127.0.0.1:{stage.ready.port}", runtime=registry._runtime
        ) as other:
            await Leasing(other).register(ORDERS, instance("a"), LEASE, soon())
        await asyncio.sleep(3.0)
        assert await ids(registry) == ["a"]
        assert await leasing.renew(ORDERS, LEASE, soon()) == 4000

    play(body)


def test_only_the_owner_may_change_it() -> None:
    """Who shows another lease is refused, an operator is not."""

    async def body(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await leasing.register(ORDERS, instance("a"), LEASE, soon())
        change = native_pb2.InstanceChange(weight=7.0)
        with pytest.raises(NotOwnerError):
            await leasing.update(ORDERS, "a", change, OTHER, soon())
        with pytest.raises(NotOwnerError):
            await leasing.deregister(ORDERS, "a", OTHER, soon())
        updated = await leasing.update(ORDERS, "a", change, LEASE, soon())
        assert (updated.instance.weight, updated.instance.lease_ms) == (7.0, 4000)
        change = native_pb2.InstanceChange(weight=8.0)
        assert (await leasing.update(ORDERS, "a", change, None, soon())).instance.weight == 8.0
        gone = await leasing.deregister(ORDERS, "a", LEASE, soon())
        assert gone.removed
        assert gone.position.revision > updated.position.revision
        assert len(stage.node.registry.leases) == 0

    play(body)


def test_a_restart_gives_every_lease_its_own_time() -> None:
    """After a restart a lease has all of its time to live again, not that of a session."""
    lease = Lease(secret_of("long"), 20_000)

    async def before(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await leasing.register(ORDERS, instance("a"), lease, soon())

    async def after(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await asyncio.sleep(18.0)
        assert await ids(registry) == ["a"]
        await asyncio.sleep(3.0)
        assert await ids(registry) == []

    play(before, after)


def test_nobody_keeps_what_is_persistent() -> None:
    """Registered without a lease an instance stays, healthy, when nobody is left."""

    async def before(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await leasing.register(ORDERS, instance("p", ephemeral=False), None, soon())
        with pytest.raises(InvalidArgumentError):
            await leasing.register(ORDERS, instance("e"), None, soon())

    async def after(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await asyncio.sleep(30.0)
        [found] = await registry.get(ORDERS.service, group=ORDERS.group)
        assert (found.id, found.healthy, found.lease_ms) == ("p", True, 0)

    play(before, after)


def test_a_persistent_instance_of_a_lease_that_ended_is_unhealthy() -> None:
    """A lease that keeps a persistent instance measures its health, as a session does."""

    async def body(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await leasing.register(ORDERS, instance("p", ephemeral=False), LEASE, soon())
        await asyncio.sleep(5.0)
        [found] = await registry.get(ORDERS.service, group=ORDERS.group)
        assert (found.healthy, found.lease_ms) == (False, 0)

    play(body)


def test_many_are_renewed_at_once() -> None:
    """Each has its own outcome: renewed, unknown, or refused."""
    forged = native_pb2.Renewal(session_id=LEASE.id, session_secret=OTHER.secret)

    async def body(stage: Stage, registry: ssgovern.Registry, leasing: Leasing) -> None:
        await leasing.register(ORDERS, instance("a"), LEASE, soon())
        await leasing.register(BILLING, instance("b"), OTHER, soon())
        wanted = [(ORDERS, LEASE), (ORDERS, OTHER), (BILLING, OTHER)]
        assert await leasing.renew_all(wanted, soon()) == [4000, 0, 4000]
        many = [(BILLING, OTHER)] * (2 * limits.RENEWALS_MAX + 1)
        assert await leasing.renew_all(many, soon()) == [4000] * len(many)
        raw = await stage.client("raw")
        forged.service.CopyFrom(key_to_wire(ORDERS))
        request = native_pb2.RenewRequest(renewals=[forged])
        answer = native_pb2.RenewResponse.FromString(await raw.ask(MessageType.RENEW, request))
        assert answer.results[0].error.code == SessionForeignError.code

    play(body)


def test_without_a_node_each_renewal_fails_by_its_deadline() -> None:
    """Who cannot be reached cannot say; it is not taken for an unknown lease."""

    async def life(runtime: SimRuntime) -> None:
        async with ssgovern.connect("127.0.0.1:1", runtime=runtime) as registry:
            with pytest.raises(UnavailableError):
                await Leasing(registry).renew(ORDERS, LEASE, soon(1.0))

    run_world(1, life)


def test_a_secret_is_not_shown() -> None:
    """The secret of a lease is in no text about it, and has to have its length."""
    assert LEASE.secret.hex() not in repr(LEASE)
    assert repr(LEASE.secret) not in repr(LEASE)
    with pytest.raises(InvalidArgumentError):
        Lease(b"short")
