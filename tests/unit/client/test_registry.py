"""The SDK against a node that can be told to misbehave, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from stage import ADDRESS, Stage, connect, ids, instance, key

import ssgovern
from ssgovern import Change, Instance, Status
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    NotOwnerError,
    OverloadedError,
    ShuttingDownError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType

ORDERS = key("orders")


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait in virtual time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


# --- registering -------------------------------------------------------------------------------


def test_a_registration_carries_what_was_said() -> None:
    """All fields reach the node; the host is the address by which the node is reached."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime, zone="z1") as registry:
            handle = await registry.register(
                "orders",
                port=8080,
                weight=3.0,
                version="2.1",
                metadata={"lane": "gray"},
                status=Status.STARTING,
            )
            [held] = await registry.get("orders")
            assert held.id == handle.instance.id == f"{held.host}:8080"
            assert held.host
            assert (held.weight, held.version, held.zone, held.status) == (
                3.0,
                "2.1",
                "z1",
                Status.STARTING,
            )
            assert dict(held.metadata) == {"lane": "gray"}
            assert held.ephemeral
            assert handle.revision == held.revision > 0

            updated = await handle.update(weight=9.0, metadata_set={"a": "b"})
            assert updated.weight == handle.instance.weight == 9.0
            assert dict(updated.metadata) == {"lane": "gray", "a": "b"}
            assert await handle.deregister()
            assert not await handle.deregister()
            assert await registry.get("orders") == ()

    stage.play(program)


def test_close_says_goodbye() -> None:
    """Leaving the context removes ephemeral instances at once, also when it is left by an error."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async def leave_by_an_error() -> None:
            async with connect(runtime) as registry:
                await registry.register("orders", port=1)
                assert stage.node.services[ORDERS]
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await leave_by_an_error()
        assert not stage.node.services[ORDERS]
        assert not stage.node.sessions

    stage.play(program)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda r: r.register("orders", port=0, host="h"), InvalidArgumentError),
        (lambda r: r.register("or ders", port=1, host="h"), InvalidArgumentError),
        (lambda r: r.register("orders", port=1, host="h", weight=-1), InvalidArgumentError),
        (
            lambda r: r.register("orders", port=1, host="h", weight=float("nan")),
            InvalidArgumentError,
        ),
        (lambda r: r.register("x" * 300, port=1, host="h"), LimitExceededError),
        (
            lambda r: r.register(
                "orders", port=1, host="h", metadata={str(n): "v" * 4000 for n in range(5)}
            ),
            LimitExceededError,
        ),
        (lambda r: r.update("orders", "i1", weight=1e9), InvalidArgumentError),
        (lambda r: r.get(""), InvalidArgumentError),
        (lambda r: r.services("a*"), InvalidArgumentError),
        (lambda r: r.deregister("orders", ""), InvalidArgumentError),
    ],
)
def test_what_is_not_allowed_is_not_even_sent(
    call: Callable[[Any], Any], kind: type[SsGovernError]
) -> None:
    """A value outside the limits raises the node's error without a node."""
    stage = Stage()
    stage.process.kill()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            with pytest.raises(kind):
                await call(registry)

    stage.play(program)


def test_register_all_cuts_batches_and_tells_each_outcome() -> None:
    """Many instances go in batches within the limits; one that is refused affects no other."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            many = [
                ("orders", Instance(id="", host="10.0.0.1", port=port, metadata={"p": "x" * 1500}))
                for port in range(1, 2001)
            ]
            outcomes = await registry.register_all(many)
            assert len(outcomes) == 2000
            assert all(isinstance(outcome, ssgovern.Registration) for outcome in outcomes)
            assert len(stage.node.services[ORDERS]) == 2000
            assert stage.node.count(MessageType.REGISTER) == 4

            refusal = NotOwnerError("not yours")
            stage.node.refusals[MessageType.REGISTER] = [refusal]
            [outcome] = await registry.register_all([("orders", instance(1))])
            assert isinstance(outcome, NotOwnerError)

    stage.play(program)


# --- losing the connection ---------------------------------------------------------------------


def test_a_restarted_node_resumes_the_session() -> None:
    """A node that remembers the session is sent no registration a second time."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.register("orders", port=8080)
            stage.restart_node(down_s=2.0)
            await asyncio.sleep(0.01)
            assert len(await registry.get("orders", timeout=10)) == 1
            assert stage.node.hellos == 2
            assert stage.node.count(MessageType.REGISTER) == 1

    stage.play(program)


def test_a_lost_session_is_registered_again_before_anything_else() -> None:
    """A node that forgot the session is sent all that is held, then requests, then the rest."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            kept = await registry.register("orders", port=1)
            await registry.register("orders", port=2)
            gone = await registry.register("orders", port=3)
            await kept.update(weight=42.0)
            await gone.deregister()
            async with registry.subscribe("orders") as orders:
                stage.restart_node(lossy=True)
                stage.node.requests.clear()
                await asyncio.sleep(0.01)
                found = await registry.get("orders", timeout=10)
                assert [(each.port, each.weight) for each in found] == [(1, 42.0), (2, 100.0)]
                upkeep = (MessageType.HEARTBEAT, MessageType.SHARD_MAP)
                kinds = [type_ for type_, _ in stage.node.requests if type_ not in upkeep]
                assert kinds[:2] == [MessageType.HELLO, MessageType.REGISTER]
                await until(lambda: orders.is_current)
                assert ids(orders.instances) == ids(found)

    stage.play(program)


def test_a_lost_answer_to_a_hello_does_not_lose_registrations() -> None:
    """A hello whose answer is lost opened an empty session: resuming that is not enough."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.register("orders", port=1)
            stage.node.cut[MessageType.HELLO] = 1
            stage.restart_node(lossy=True)
            await asyncio.sleep(0.01)
            assert len(await registry.get("orders", timeout=10)) == 1

    stage.play(program)


def test_registering_again_goes_on_where_it_was_cut() -> None:
    """A connection lost while all is registered again does not leave the half of it."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            many = [("orders", Instance(id="", host="h", port=port)) for port in range(1, 2501)]
            await registry.register_all(many)
            stage.node.cut[MessageType.REGISTER] = 2
            stage.node.refusals[MessageType.REGISTER] = [OverloadedError("later")] * 2
            stage.restart_node(lossy=True)
            await asyncio.sleep(0.01)
            assert len(await registry.get("orders", timeout=20)) == 2500

    stage.play(program)


def test_what_was_asked_to_go_is_not_brought_back() -> None:
    """A deregistration of unknown outcome still keeps a lost session from registering again."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            gone = await registry.register("orders", port=1)
            await registry.register("orders", port=2)
            stage.process.kill()
            with pytest.raises(UnavailableError):
                await gone.deregister(timeout=1)
            stage.node.restart_lossy()
            stage.process.start()
            assert [each.port for each in await registry.get("orders", timeout=20)] == [2]

    stage.play(program)


def test_an_expired_session_is_noticed_by_its_heartbeat() -> None:
    """A session that the node ended while connected is opened and filled again."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.register("orders", port=1)
            stage.at_node(stage.node.end_session, bytes.fromhex(registry.session_id))
            await until(lambda: not stage.node.services[ORDERS])
            await until(lambda: bool(stage.node.services[ORDERS]), 5.0)

    stage.play(program)


def test_silence_is_noticed_within_three_heartbeats() -> None:
    """A node that takes everything and answers nothing is given up after two to three beats."""
    stage = Stage()
    states: list[ssgovern.ConnectionState] = []

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime, on_connection=states.append) as registry:
            await registry.wait_connected()
            await asyncio.sleep(10.5)
            assert [state.connected for state in states] == [True]
            stage.node.ignores_all = True
            started = now()
            await until(lambda: not registry.connection.connected)
            assert 1.9 <= now() - started <= 3.2
            assert "silent" in registry.connection.reason
            stage.node.ignores_all = False
            await registry.wait_connected(timeout=20)
            assert stage.node.count(MessageType.REGISTER) == 0

    stage.play(program)


def test_a_process_that_stood_still_does_not_blame_the_node() -> None:
    """After a pause shorter than its time to live the client keeps its connection."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            process = runtime.process
            stage.world.after(0.5, process.pause)
            stage.world.after(4.5, process.resume)
            await asyncio.sleep(10)
            assert stage.node.hellos == 1

    stage.play(program)


def test_redialling_is_no_storm() -> None:
    """While no node answers, dials become few; when one is back, it is found within seconds."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            await asyncio.sleep(20)
            stage.process.kill()
            events = stage.world.events
            await asyncio.sleep(300)
            # 1.5 to 3 seconds between dials; a dial costs a few dozen events.
            assert stage.world.events - events < 300 / 1.5 * 60
            stage.process.start()
            started = now()
            await registry.wait_connected(timeout=20)
            assert now() - started < 3.2

    stage.play(program, within_s=600)


def test_a_node_that_refuses_every_hello_is_not_hammered() -> None:
    """Hellos that are refused count as failures: their pauses grow."""
    stage = Stage()
    stage.node.refusals[MessageType.HELLO] = [ShuttingDownError("stopping")] * 1000

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            with pytest.raises(UnavailableError, match="stopping"):
                await registry.get("orders", timeout=60)
        assert stage.node.count(MessageType.HELLO) < 50

    stage.play(program)


def test_all_seed_addresses_are_tried() -> None:
    """One living node among the addresses is found at once, whichever it is."""
    for seed in range(4):
        stage = Stage(seed)

        async def program(runtime: SimRuntime) -> None:
            addresses = ["dead1:7420", "node:1", ADDRESS]
            async with ssgovern.connect(addresses, namespace="test", runtime=runtime) as registry:
                state = await registry.wait_connected(timeout=10)
                assert state.address == ADDRESS
                assert state.node_name == "fake"

        stage.play(program)


# --- requests and their deadlines --------------------------------------------------------------


def test_without_a_node_a_request_fails_at_its_deadline() -> None:
    """A request waits for a node as long as its caller allows, and says what is wrong."""
    stage = Stage()
    stage.process.kill()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            started = now()
            with pytest.raises(UnavailableError, match="node:7420"):
                await registry.get("orders", timeout=2.5)
            assert 2.5 <= now() - started < 2.6

    stage.play(program)


def test_a_request_waits_for_a_node_that_comes() -> None:
    """A program may start before its registry."""
    stage = Stage()
    stage.process.kill()

    async def program(runtime: SimRuntime) -> None:
        stage.world.after(3.0, stage.process.start)
        async with connect(runtime) as registry:
            await registry.register("orders", port=1, timeout=10)

    stage.play(program)


@pytest.mark.parametrize("fault", ["cut", "mute"])
def test_a_request_whose_answer_is_lost_is_repeated(fault: str) -> None:
    """What may be repeated is, on a new connection; a silent one uses up the deadline."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            getattr(stage.node, fault)[MessageType.REGISTER] = 2
            if fault == "cut":
                await registry.register("orders", port=1)
                assert stage.node.count(MessageType.REGISTER) == 3
            else:
                with pytest.raises(DeadlineExceededError):
                    await registry.register("orders", port=1)
            assert stage.node.services[ORDERS]

    stage.play(program)


@pytest.mark.parametrize("verb", ["deregister", "update"])
def test_a_conditional_request_is_never_repeated_blindly(verb: str) -> None:
    """With `if_revision` a lost answer is an unknown outcome, and the error says so."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            type_ = MessageType.DEREGISTER if verb == "deregister" else MessageType.UPDATE
            stage.node.cut[type_] = 1

            async def ask() -> None:
                if verb == "deregister":
                    await registry.deregister("orders", "i1", if_revision=1)
                else:
                    await registry.update("orders", "i1", weight=1, if_revision=1)

            with pytest.raises(UnavailableError, match="not known"):
                await ask()
            assert stage.node.count(type_) == 1
            # Refused without effect: this may be repeated.
            stage.node.put(ORDERS, instance(1))
            stage.node.refusals[type_] = [OverloadedError("later"), ShuttingDownError("bye")]
            await ask()
            assert stage.node.count(type_) == 4

    stage.play(program)


def test_an_overloaded_node_is_asked_again_with_pauses() -> None:
    """'Try later' is obeyed: pauses grow, and at the deadline the node's error is raised."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            stage.node.refusals[MessageType.GET] = [OverloadedError("later")] * 3
            await registry.get("orders")
            assert stage.node.count(MessageType.GET) == 4
            assert stage.node.hellos == 1

            stage.node.requests.clear()
            stage.node.refusals[MessageType.GET] = [OverloadedError("later")] * 1000
            started = now()
            with pytest.raises(OverloadedError):
                await registry.get("orders", timeout=20)
            assert 15 < now() - started <= 20
            assert stage.node.count(MessageType.GET) < 30

    stage.play(program)


def test_a_refusal_for_good_is_raised_at_once() -> None:
    """An error with retry NEVER is not repeated."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            stage.node.refusals[MessageType.GET] = [NotFoundError("no")]
            with pytest.raises(NotFoundError):
                await registry.get("orders")
            assert stage.node.count(MessageType.GET) == 1

    stage.play(program)


def test_a_node_that_stops_is_left_and_found_again() -> None:
    """'Shutting down' makes the client dial again and repeat the request."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            stage.node.refusals[MessageType.REGISTER] = [ShuttingDownError("bye")]
            await registry.register("orders", port=1)
            assert stage.node.hellos == 2

    stage.play(program)


def test_services_are_read_page_by_page() -> None:
    """All pages of a listing are read, and prefix and group narrow it."""
    stage = Stage()
    for name in ("a1", "a2", "a3", "b1"):
        stage.node.put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            assert [s.service for s in await registry.services()] == ["a1", "a2", "a3", "b1"]
            found = await registry.services("a", group="default")
            assert [(s.service, s.group, s.instances) for s in found] == [
                ("a1", "default", 1),
                ("a2", "default", 1),
                ("a3", "default", 1),
            ]
            assert await registry.services("a", group="other") == []
            assert (await registry.status()).node_name == "fake"

    stage.play(program)


# --- closing -----------------------------------------------------------------------------------


def test_close_ends_whatever_waits() -> None:
    """Closing while disconnected is quick; waiting requests and iterations end."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        registry = connect(runtime)
        await registry.open()
        orders = registry.subscribe("orders")
        await orders.open()

        async def read() -> list[Change]:
            return [change async for change in orders]

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            await asyncio.sleep(1)
            stage.process.kill()
            await asyncio.sleep(1)

            async def ask() -> None:
                with pytest.raises(ClosedError):
                    await registry.get("orders", timeout=100)

            async def enter() -> None:
                with pytest.raises(ClosedError):
                    await registry.subscribe("others", timeout=100).open()

            group.create_task(ask())
            group.create_task(enter())
            await asyncio.sleep(1)
            started = now()
            await registry.close()
            await registry.close()
            assert now() - started < 1.1
            assert await reading == []
        assert ids(orders.instances) == ["i1"]
        assert orders.choose().id == "i1"
        assert not orders.is_current
        with pytest.raises(ClosedError):
            await registry.get("orders")
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []

    stage.play(program)


def test_close_when_the_node_is_deaf_takes_a_second() -> None:
    """A goodbye that is not answered does not hold up the program."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        registry = connect(runtime)
        await registry.open()
        await registry.wait_connected()
        stage.node.ignores_all = True
        started = now()
        await registry.close()
        assert now() - started < 1.1
        assert len(asyncio.all_tasks()) == 1

    stage.play(program)


def test_never_opened_and_never_connected_close_at_once() -> None:
    """Closing is safe in every state, also from within a cancelled program."""
    stage = Stage()
    stage.process.kill()

    async def program(runtime: SimRuntime) -> None:
        started = now()
        await connect(runtime).close()
        async with connect(runtime):
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), connect(runtime) as registry:
                await registry.get("orders", timeout=100)
        assert now() - started < 2.1
        assert len(asyncio.all_tasks()) == 1

    stage.play(program)
