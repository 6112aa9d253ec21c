"""Clients that know one node only: the cluster is to them as one node would be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from builders import BILLING, ORDERS, instance, session_of
from lite import Lites, simulate_lites
from nodes import Raw, RefusedError
from rig import Answer

from ssgovern import limits
from ssgovern.api.native.relay_pages import merge_pages
from ssgovern.errors import ErrorCode, SessionUnknownError
from ssgovern.model import ServiceKey, shard_of
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import applied_pb2, log_pb2, native_pb2

PAYMENT = ServiceKey("prod", "default", "payment")
KEYS = (ORDERS, BILLING, PAYMENT)


async def spread(lites: Lites) -> None:
    """Place the three services on three nodes, or as many as there are."""
    for number, key in enumerate(KEYS):
        lites.place(key, number % len(lites.nodes) + 1)
    await asyncio.sleep(0.1)


async def forwarded(lites: Lites, name: str = "a", node: int = 1) -> Raw:
    return await lites.nodes[node].client(name, forward=True)


async def live(raw: Raw, seconds: float) -> None:
    """Let time pass with heartbeats."""
    for _ in range(int(seconds / 0.5)):
        await asyncio.sleep(0.5)
        await raw.heartbeat()


async def register_all(raw: Raw, instance_id: str) -> native_pb2.RegisterResponse:
    """Register an instance of each service with one request."""
    request = native_pb2.RegisterRequest()
    for key in KEYS:
        request.registrations.add(service=key_to_wire(key), instance=instance(instance_id))
    return native_pb2.RegisterResponse.FromString(await raw.ask(MessageType.REGISTER, request))


def where(lites: Lites, key: ServiceKey) -> list[str]:
    """Return the ids of a service as its primary has them."""
    return lites.nodes[lites.rows[shard_of(*key)].primary].ids(key)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def next_told(raw: Raw) -> tuple[str, list[str]]:
    """Return the service of the next push, and the ids it brings."""
    push = await raw.push()
    assert isinstance(push, native_pb2.Snapshot | native_pb2.Delta)
    found = push.instances if isinstance(push, native_pb2.Snapshot) else push.upserted
    return push.service.service, sorted(each.id for each in found)


async def told(raw: Raw, key: ServiceKey) -> list[str]:
    """Return the ids in the next push of a service; pushes of others are passed over."""
    while True:
        service, ids = await next_told(raw)
        if service == key.service:
            return ids


async def subscribe_all(raw: Raw) -> int:
    """Subscribe to every service of the group."""
    pattern = native_pb2.Pattern(namespace="prod", group="default")
    answer = await raw.ask(MessageType.SUBSCRIBE, native_pb2.SubscribeRequest(pattern=pattern))
    return native_pb2.SubscribeResponse.FromString(answer).subscription_id


# --- requests -----------------------------------------------------------------------------


def test_a_batch_goes_to_all_it_concerns() -> None:
    """One request registers with several primaries, and is answered in its order."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        response = await register_all(raw, "x")
        assert [result.instance_id for result in response.results] == ["x"] * 3
        assert not any(result.HasField("error") for result in response.results)
        assert [lites.nodes[n].ids(key) for n, key in enumerate(KEYS, 1)] == [["x"]] * 3

    simulate_lites(3, body)


@pytest.mark.parametrize("fault", ["port", "twice"])
def test_a_fault_in_a_batch_leaves_nothing_anywhere(fault: str) -> None:
    """A batch of which one part cannot be is refused whole."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        request = native_pb2.RegisterRequest()
        for key in KEYS:
            request.registrations.add(service=key_to_wire(key), instance=instance("x"))
        if fault == "port":
            request.registrations[2].instance.port = 70_000
        else:
            request.registrations.append(request.registrations[2])
        with pytest.raises(RefusedError) as error:
            await raw.ask(MessageType.REGISTER, request)
        assert error.value.code == ErrorCode.INVALID_ARGUMENT
        assert [where(lites, key) for key in KEYS] == [[], [], []]

    simulate_lites(3, body)


def test_every_request_about_one_service() -> None:
    """Update, get and deregister reach the primary, and its refusals reach the client."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await raw.register("x", key=BILLING)
        request = native_pb2.UpdateRequest(service=key_to_wire(BILLING), instance_id="x")
        request.change.weight = 7.0
        answer = await raw.ask(MessageType.UPDATE, request)
        assert native_pb2.UpdateResponse.FromString(answer).instance.weight == 7.0
        assert await raw.ids(BILLING) == ["x"]
        request.instance_id = "y"
        with pytest.raises(RefusedError) as error:
            await raw.ask(MessageType.UPDATE, request)
        assert error.value.code == ErrorCode.NOT_FOUND
        assert (await raw.deregister("x", key=BILLING)).removed
        assert await raw.ids(BILLING) == []

    simulate_lites(2, body)


def test_others_are_told_where_to_ask() -> None:
    """A client that does not ask for it gets nothing passed on."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await lites.nodes[1].client("a")
        with pytest.raises(RefusedError) as error:
            await raw.register("x", key=BILLING)
        assert error.value.code == ErrorCode.SHARD_MOVED
        assert len(lites.nodes[1].relays) == 0

    simulate_lites(2, body)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lists_of_several_nodes_are_one(size: int) -> None:
    """Pages put together from all nodes have every service once, in the order of the names."""

    async def body(lites: Lites) -> None:
        raw = await forwarded(lites)
        names = [f"s{number:02}" for number in range(12)]
        for number, name in enumerate(names):
            key = ServiceKey("prod", "default", name)
            lites.place(key, number % 3 + 1)
            await raw.register("x", key=key)
        listed: list[str] = []
        request = native_pb2.ListServicesRequest(namespace="prod", page_size=size)
        while True:
            answer = await raw.ask(MessageType.LIST_SERVICES, request)
            page = native_pb2.ListServicesResponse.FromString(answer)
            assert len(page.services) <= size
            listed += [each.service.service for each in page.services]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert listed == names

    simulate_lites(3, body)


def test_a_page_ends_where_a_node_did() -> None:
    """Beyond what a node could look at nothing is listed, though others have more."""

    def page(*names: str, token: str = "") -> native_pb2.ListServicesResponse:
        response = native_pb2.ListServicesResponse(next_page_token=token)
        for name in names:
            response.services.add().service.CopyFrom(key_to_wire(ServiceKey("prod", "g", name)))
        return response

    merged = merge_pages([page("a", "c", token="g d"), page("b", "e"), page()], 10)
    assert [each.service.service for each in merged.services] == ["a", "b", "c"]
    assert merged.next_page_token == "g d"


def test_waiting_for_a_primary() -> None:
    """A request whose shard has no primary for a while is answered when it has one."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        row = lites.rows[shard_of(*BILLING)]
        row.is_idle = True
        asyncio.get_running_loop().call_later(2.0, setattr, row, "is_idle", False)
        await raw.register("x", key=BILLING)
        assert where(lites, BILLING) == ["x"]

    simulate_lites(2, body)


@pytest.mark.parametrize("key", [ORDERS, BILLING])
def test_waiting_ends(key: ServiceKey) -> None:
    """A shard that nobody serves is said to be unavailable in the end, wherever it is."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        lites.rows[shard_of(*key)].is_idle = True
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(RefusedError) as error:
            await raw.register("x", key=key)
        assert error.value.code == ErrorCode.SHARD_UNAVAILABLE
        assert 3.0 < loop.time() - before < limits.FORWARD_TIMEOUT_MS / 1000.0 + 0.5

    simulate_lites(2, body)


def test_part_of_a_batch_that_nobody_takes() -> None:
    """Of a batch, what nobody can take is refused for itself and the rest is done."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        lites.rows[shard_of(*BILLING)].is_idle = True
        response = await register_all(raw, "x")
        assert [result.error.code for result in response.results] == [
            0,
            ErrorCode.SHARD_UNAVAILABLE,
            0,
        ]
        assert [where(lites, key) for key in KEYS] == [["x"], [], ["x"]]

    simulate_lites(3, body)


def test_a_node_that_is_lost_with_what_it_was_asked() -> None:
    """What may or may not be done is said to be so; what can be repeated is done elsewhere."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2, 3)
        raw = await forwarded(lites)
        await raw.register("x")
        lites.nodes[2].stop_committing()
        update = native_pb2.UpdateRequest(service=key_to_wire(ORDERS), instance_id="x")
        update.change.weight = 7.0
        register = native_pb2.RegisterRequest()
        register.registrations.add(service=key_to_wire(ORDERS), instance=instance("y"))
        for number, (type_, request) in enumerate(
            [(MessageType.UPDATE, update), (MessageType.REGISTER, register)]
        ):
            await raw.send(
                encode_frame(Kind.REQUEST, type_, 100 + number, request.SerializeToString())
            )
        await asyncio.sleep(0.5)
        lites.nodes[2].crash()
        await asyncio.sleep(0.5)
        lites.place(ORDERS, 3)
        with pytest.raises(RefusedError) as error:
            await raw.answer(100)
        assert error.value.code == ErrorCode.OUTCOME_UNKNOWN
        await raw.answer(101)
        assert where(lites, ORDERS) == ["x", "y"]

    simulate_lites(3, body)


def test_what_is_passed_on_is_bounded() -> None:
    """More requests than a connection may have on their way are refused, and room returns."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        request = native_pb2.GetRequest(service=key_to_wire(ORDERS)).SerializeToString()
        most = limits.IN_FLIGHT_PER_CONNECTION_MAX
        await raw.send(
            b"".join(
                encode_frame(Kind.REQUEST, MessageType.GET, 100 + number, request)
                for number in range(most + 10)
            )
        )
        for number in range(most, most + 10):
            with pytest.raises(RefusedError) as error:
                await raw.answer(100 + number)
            assert error.value.code == ErrorCode.OVERLOADED
        for number in range(most):
            await raw.answer(100 + number)
        assert await raw.ids() == []

    simulate_lites(2, body)


# --- sessions -----------------------------------------------------------------------------


def test_what_is_elsewhere_lives_as_long_as_the_client() -> None:
    """Heartbeats to one node keep everything; when they end, everything ends in time."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        await live(raw, 12)
        assert [where(lites, key) for key in KEYS] == [["x"]] * 3
        await asyncio.sleep(12)
        assert [where(lites, key) for key in KEYS] == [[], [], []]
        assert len(lites.nodes[1].relays) == 0

    simulate_lites(3, body)


def test_a_silent_client_is_silent_everywhere() -> None:
    """Other nodes hear nothing on behalf of a client that is not heard itself."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x")
        await live(raw, 2)
        session = lites.nodes[2].rig.sessions.find(session_of("a"))
        assert session is not None
        await asyncio.sleep(1.0)
        heard_ms = session.last_heard_ms
        await asyncio.sleep(2.0)
        assert session.last_heard_ms == heard_ms
        await live(raw, 2)
        assert session.last_heard_ms > heard_ms

    simulate_lites(2, body)


def test_a_connection_that_closes_ends_everything() -> None:
    """A client that is gone without a word is gone from all nodes after the grace."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        raw.close()
        await asyncio.sleep(4)
        assert [where(lites, key) for key in KEYS] == [[], [], []]

    simulate_lites(3, body)


def test_coming_back_in_time() -> None:
    """On a new connection to the same node all is as it was."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        raw.close()
        await asyncio.sleep(0.5)
        again = await lites.nodes[1].client("a")
        again.close()
        await asyncio.sleep(0.1)
        again = await forwarded(lites)
        await live(again, 12)
        assert [where(lites, key) for key in KEYS] == [["x"]] * 3

    simulate_lites(3, body)


def test_a_return_that_is_no_return() -> None:
    """A client is told to be resumed only where what it has elsewhere is looked after."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        hello = {"forward": True}
        raw = await lites.nodes[1].client("a", **hello)
        await register_all(raw, "x")
        raw.close()
        await asyncio.sleep(0.1)
        again = await lites.connect(1, "a")
        assert (await again.hello(forward=True)).resumed
        again.close()
        await asyncio.sleep(0.1)
        elsewhere = await lites.connect(2, "a")
        assert not (await elsewhere.hello(forward=True)).resumed
        await register_all(elsewhere, "x")
        await live(elsewhere, 12)
        assert [where(lites, key) for key in KEYS] == [["x"]] * 3
        assert len(lites.nodes[1].relays) == 0

    simulate_lites(3, body)


def test_goodbye_everywhere() -> None:
    """A goodbye is answered when nothing of the session is left on any node."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        await raw.ask(MessageType.GOODBYE)
        assert [where(lites, key) for key in KEYS] == [[], [], []]
        assert not any(node.has_session("a") for node in lites.nodes.values())

    simulate_lites(3, body)


def test_a_change_of_primary_ends_nothing() -> None:
    """What a client registered lives on with the new primary, be it this node or another."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        lites.place(ORDERS, 2)
        lites.place(BILLING, 3)
        lites.place(PAYMENT, 1)
        await live(raw, 12)
        assert [where(lites, key) for key in KEYS] == [["x"]] * 3

    simulate_lites(3, body)


def test_what_was_registered_here_lives_on_elsewhere() -> None:
    """What needed no other node at first is looked after all the same when its shard leaves."""

    async def body(lites: Lites) -> None:
        raw = await forwarded(lites)
        await raw.register("x")
        await raw.register("gone")
        await raw.deregister("gone")
        lites.place(ORDERS, 2)
        await live(raw, 12)
        assert where(lites, ORDERS) == ["x"]

    simulate_lites(2, body)


def test_what_was_taken_back_is_not_missed() -> None:
    """A client that deregistered elsewhere goes on undisturbed when the primary changes."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x", "y")
        await raw.deregister("x")
        lites.place(ORDERS, 3)
        await live(raw, 8)
        assert where(lites, ORDERS) == ["y"]
        await raw.deregister("y")
        lites.place(ORDERS, 2)
        await live(raw, 3)

    simulate_lites(3, body)


def test_a_link_that_breaks_is_made_again() -> None:
    """A connection between nodes that is lost costs the client neither instances nor pushes."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x")
        await raw.subscribe()
        await live(raw, 1)
        for connection in list(lites.nodes[2].server._connections):
            connection.abort()
        await live(raw, 8)
        assert where(lites, ORDERS) == ["x"]
        raw.pushes.clear()
        owner = await lites.nodes[2].client("owner")
        await owner.register("new")
        assert "new" in await told(raw, ORDERS)

    simulate_lites(2, body)


def test_a_primary_that_dies_ends_nothing() -> None:
    """What a client registered lives on when its primary is gone and another took over."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await register_all(raw, "x")
        lites.nodes[2].crash()
        await live(raw, 3)
        lites.place(BILLING, 3)
        await live(raw, 12)
        assert [where(lites, key) for key in KEYS] == [["x"]] * 3
        await raw.register("y", key=BILLING)

    simulate_lites(3, body)


def test_what_is_lost_elsewhere_is_registered_again() -> None:
    """If something is gone on another node, the client is sent away to say hello and register."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x")
        other = await lites.nodes[2].client("other")
        await other.deregister("x", any_owner=True)
        lites.place(ORDERS, 3)
        assert await raw.closed() == ErrorCode.SESSION_UNKNOWN
        again = await lites.connect(1, "a")
        assert not (await again.hello(forward=True)).resumed
        await again.register("x")
        await live(again, 12)
        assert where(lites, ORDERS) == ["x"]

    simulate_lites(3, body)


def test_a_session_that_another_node_let_expire() -> None:
    """If another node had given the client up, the client begins anew, here as well."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x")
        registry = lites.nodes[2].rig.registry
        session = registry.sessions.find(session_of("a"))
        assert session is not None
        connection = session.connection
        assert connection is not None
        registry.end_session(session, log_pb2.SESSION_END_EXPIRED, Answer())
        connection.refuse(SessionUnknownError("expired"))
        assert await raw.closed() == ErrorCode.SESSION_UNKNOWN
        assert not (await (await lites.connect(1, "a")).hello(forward=True)).resumed

    simulate_lites(2, body)


def test_a_session_that_ended_elsewhere_does_not_live_on_here() -> None:
    """If another node took the session away, this one does not keep it as if nothing were."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.register("x")
        other = await lites.nodes[2].client("a")
        await other.ask(MessageType.GOODBYE)
        assert where(lites, ORDERS) == []
        await raw.closed()
        assert not (await (await lites.connect(1, "a")).hello(forward=True)).resumed

    simulate_lites(2, body)


# --- subscriptions ------------------------------------------------------------------------


def test_following_a_service_elsewhere() -> None:
    """A subscription is passed on, what is pushed comes back, and it ends when it is ended."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        owner = await lites.nodes[2].client("owner")
        await owner.register("a")
        raw = await forwarded(lites)
        number = await raw.subscribe()
        assert await told(raw, ORDERS) == ["a"]
        await owner.register("b")
        assert "b" in await told(raw, ORDERS)
        await raw.ask(
            MessageType.UNSUBSCRIBE, native_pb2.UnsubscribeRequest(subscription_id=number)
        )
        await owner.heartbeat()
        assert lites.nodes[2].rig.push.subscriptions.count == 0
        await owner.register("c")
        await raw.heartbeat()
        assert raw.pushes == []
        with pytest.raises(RefusedError) as error:
            await raw.ask(
                MessageType.UNSUBSCRIBE, native_pb2.UnsubscribeRequest(subscription_id=number)
            )
        assert error.value.code == ErrorCode.NOT_FOUND

    simulate_lites(2, body)


def test_following_a_pattern_on_all_nodes() -> None:
    """A pattern is followed on every node that holds some of it, this one included."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        number = await subscribe_all(raw)
        owner = await forwarded(lites, "owner", node=3)
        await register_all(owner, "x")
        assert sorted([await next_told(raw) for _ in KEYS]) == sorted(
            (key.service, ["x"]) for key in KEYS
        )
        assert [node.rig.push.subscriptions.count for node in lites.nodes.values()] == [1, 1, 1]
        await raw.ask(
            MessageType.UNSUBSCRIBE, native_pb2.UnsubscribeRequest(subscription_id=number)
        )
        await asyncio.sleep(0.2)
        assert [node.rig.push.subscriptions.count for node in lites.nodes.values()] == [0, 0, 0]

    simulate_lites(3, body)


@pytest.mark.parametrize("target", [1, 2, 3])
def test_subscriptions_follow_their_shard(target: int) -> None:
    """When a shard moves or its holder dies, those who follow it are told of it from elsewhere."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await raw.subscribe(BILLING)
        await subscribe_all(raw)
        if target == 3:
            lites.nodes[2].crash()
            await live(raw, 2)
        lites.place(BILLING, target)
        await live(raw, 2)
        # One for the service, one for the pattern's part; none is left where the shard was.
        counts = [node.rig.push.subscriptions.count for node in lites.nodes.values()]
        assert counts == {1: [2, 0, 1], 2: [1, 2, 1], 3: [1, 0, 3]}[target]
        owner = await lites.nodes[target].client("owner")
        raw.pushes.clear()
        await owner.register("new", key=BILLING)
        assert await told(raw, BILLING) == ["new"]

    simulate_lites(3, body)


def test_a_subscription_here_whose_shard_leaves() -> None:
    """What could be followed here at first is followed elsewhere when it leaves."""

    async def body(lites: Lites) -> None:
        raw = await forwarded(lites)
        await raw.subscribe()
        await subscribe_all(raw)
        lites.place(ORDERS, 2)
        await live(raw, 1)
        raw.pushes.clear()
        owner = await lites.nodes[2].client("owner")
        await owner.register("new")
        assert await told(raw, ORDERS) == ["new"]

    simulate_lites(2, body)


def test_a_client_that_is_gone_follows_nothing() -> None:
    """Subscriptions on other nodes end with the client's connection."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw = await forwarded(lites)
        await subscribe_all(raw)
        raw.close()
        await asyncio.sleep(0.5)
        assert [node.rig.push.subscriptions.count for node in lites.nodes.values()] == [0, 0]

    simulate_lites(2, body)


def test_a_client_that_does_not_read() -> None:
    """What other nodes push to a client that reads nothing waits there, and is one change then."""

    async def body(lites: Lites) -> None:
        lites.place(ORDERS, 2)
        raw = await forwarded(lites)
        await raw.subscribe()
        assert await told(raw, ORDERS) == []
        raw.stop_reading()
        owner = await lites.nodes[2].client("owner")
        most = 0
        for number in range(400):
            await owner.register(
                *(f"i{n}" for n in range(20)), metadata={"pad": f"{number}" * 1000}
            )
            (connection,) = [
                each for each in lites.nodes[1].server._connections if each.client_name == "raw"
            ]
            most = max(most, connection.outbound_bytes)
        assert most < 4 * limits.OUTBOUND_SOFT_BYTES
        raw.resume_reading()
        last = ""
        while last != "399" * 1000:
            push = await raw.push()
            assert isinstance(push, native_pb2.Snapshot | native_pb2.Delta)
            found = push.instances if isinstance(push, native_pb2.Snapshot) else push.upserted
            last = found[0].metadata["pad"]

    simulate_lites(2, body)


# --- what was applied ---------------------------------------------------------------------


async def say_applied(raw: Raw, key: ServiceKey, epoch: int, revision: int) -> None:
    """Say that a service is applied up to a position."""
    said = applied_pb2.Applied()
    said.services.add(service=key_to_wire(key), epoch=epoch, revision=revision)
    await raw.send(encode_frame(Kind.PUSH, MessageType.APPLIED, 0, said.SerializeToString()))


async def asked(raw: Raw) -> None:
    """Wait until the client is asked what it has applied."""
    while all(frame[2] != MessageType.APPLIED for frame in raw.pushes):
        await raw.heartbeat()
        await asyncio.sleep(0.05)


async def await_applied(
    raw: Raw, key: ServiceKey, at: tuple[int, int], timeout_ms: int
) -> applied_pb2.AwaitAppliedResponse:
    """Ask a node to answer when everybody there has applied a position."""
    request = applied_pb2.AwaitAppliedRequest(
        service=key_to_wire(key), epoch=at[0], revision=at[1], timeout_ms=timeout_ms
    )
    answer = await raw.ask(MessageType.AWAIT_APPLIED, request)
    return applied_pb2.AwaitAppliedResponse.FromString(answer)


def test_what_a_relayed_client_has_applied_counts_at_both_nodes() -> None:
    """The node a client is connected to and the one that tells it wait for the client's word."""

    async def body(lites: Lites) -> None:
        await spread(lites)
        raw, owner = await forwarded(lites), await forwarded(lites, "b", node=2)
        await raw.send(encode_frame(Kind.PUSH, MessageType.APPLIED, 0, b""))
        await raw.subscribe(BILLING)
        await raw.push()
        response = await owner.register("x", key=BILLING)
        at = response.results[0].epoch, response.results[0].revision
        askers = [await forwarded(lites, f"asks{node}", node=node) for node in (1, 2)]
        for asker in askers:
            answer = await await_applied(asker, BILLING, at, 200)
            assert not answer.applied
            assert [row.session_id for row in answer.lacking] == [session_of("a")]
        waiting = [
            asyncio.get_running_loop().create_task(await_applied(asker, BILLING, at, 5_000))
            for asker in askers
        ]
        await asked(raw)
        await say_applied(raw, BILLING, *at)
        for task in waiting:
            assert (await task).applied

    simulate_lites(2, body)
