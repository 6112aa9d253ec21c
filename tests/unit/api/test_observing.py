"""Sessions and events, as a node tells them: over its native port, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from builders import BILLING, ORDERS, session_of
from nodes import Raw, RefusedError, Stage, for_real, simulate

import ssgovern
from ssgovern import limits
from ssgovern.client.observed import Event, EventKind
from ssgovern.errors import ErrorCode
from ssgovern.model import ServiceKey
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import access_pb2, native_pb2


async def sessions(raw: Raw, **fields: object) -> native_pb2.SessionsResponse:
    request = native_pb2.SessionsRequest(**fields)  # type: ignore[arg-type]
    return native_pb2.SessionsResponse.FromString(await raw.ask(MessageType.SESSIONS, request))


async def events(raw: Raw, **fields: object) -> native_pb2.EventsResponse:
    request = native_pb2.EventsRequest(**fields)  # type: ignore[arg-type]
    return native_pb2.EventsResponse.FromString(await raw.ask(MessageType.EVENTS, request))


def kinds(answer: native_pb2.EventsResponse) -> list[str]:
    names = [native_pb2.EventKind.Name(each.kind) for each in answer.events]
    return [name.removeprefix("EVENT_").lower() for name in names]


# --- sessions -----------------------------------------------------------------------------


def test_a_session_is_shown_with_what_it_has() -> None:
    """Who it is, since when, what it owns and follows; after its connection is lost, that too."""

    async def body(stage: Stage) -> None:
        looker = await stage.client("looker")
        other = await stage.client("other")
        await other.register("a", "b")
        await other.subscribe()
        await asyncio.sleep(1.0)
        await other.heartbeat()
        await asyncio.sleep(0.3)
        answer = await sessions(looker, id_prefix=session_of("other"))
        [found] = answer.sessions
        assert (answer.total, answer.next_after, answer.node_id) == (2, b"", 1)
        assert (found.client_name, found.connected, found.lease) == ("raw", True, False)
        assert (found.instances, found.shards, found.subscriptions) == (2, 1, 1)
        assert 1_200 <= found.connected_ms <= 1_500
        assert 250 <= found.heard_ms <= 450
        other.close()
        await asyncio.sleep(0.5)
        [found] = (await sessions(looker, id_prefix=session_of("other"))).sessions
        assert (found.connected, found.client_name, found.instances) == (False, "", 2)
        assert found.closed_ms >= 400
        await asyncio.sleep(2.5)
        assert not (await sessions(looker, id_prefix=session_of("other"))).sessions

    simulate(body)


def test_sessions_come_in_pages_each_once() -> None:
    """In the order of their ids, all that match, whatever the size of the pages."""

    async def body(stage: Stage) -> None:
        names = [f"client-{number}" for number in range(7)]
        for name in names:
            await (await stage.connect(name)).hello(client_name=f"Shop {name}")
        looker = await stage.client("looker")
        found: list[bytes] = []
        after = b""
        while True:
            page = await sessions(looker, client_name="sHOP", page_size=3, after=after)
            found += [each.session_id for each in page.sessions]
            after = page.next_after
            if not after:
                break
        assert found == sorted(session_of(name) for name in names)

    simulate(body)


# --- events -------------------------------------------------------------------------------


def test_what_happens_to_instances_is_told_in_words() -> None:
    """Each kind of change, with fields before and after where there are both."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("one")
        await raw.register("a", weight=1.0)
        await raw.register("a", weight=2.0, metadata={"lane": "gray"})
        for change in (
            native_pb2.InstanceChange(weight=50.0),
            native_pb2.InstanceChange(out_of_service=True),
            native_pb2.InstanceChange(out_of_service=False),
        ):
            request = native_pb2.UpdateRequest(instance_id="a", change=change)
            request.service.namespace, request.service.group, request.service.service = ORDERS
            await raw.ask(MessageType.UPDATE, request)
        await raw.deregister("a")
        answer = await events(raw)
        assert kinds(answer) == [
            "registered", "replaced", "updated", "out_of_service", "in_service", "deregistered",
        ]  # fmt: skip
        replaced, updated = answer.events[1], answer.events[2]
        assert [(each.name, each.before, each.after) for each in replaced.changes] == [
            ("weight", "1", "2"),
            ("metadata.lane", "", "gray"),
        ]
        assert [(each.name, each.before, each.after) for each in updated.changes] == [
            ("weight", "2", "50")
        ]
        assert {each.session_id for each in answer.events} == {session_of("one")}
        assert [each.revision for each in answer.events] == list(range(2, 8))
        assert all(each.address == "10.0.0.1:8080" and each.time_ms for each in answer.events)
        assert answer.last == 6

    simulate(body)


def test_the_end_of_a_session_says_why() -> None:
    """Expired or left; of a persistent instance, that it is unhealthy."""

    async def body(stage: Stage) -> None:
        silent, polite = await stage.client("silent"), await stage.client("polite")
        await silent.register("a")
        await silent.register("p", persistent=True)
        await polite.register("b")
        await polite.ask(MessageType.GOODBYE)
        silent.close()
        await asyncio.sleep(3.0)
        looker = await stage.client("looker")
        found = await events(looker)
        told = zip(kinds(found), found.events, strict=True)
        assert [(kind, each.instance_id) for kind, each in told][3:] == [
            ("left", "b"),
            ("expired", "a"),
            ("unhealthy", "p"),
        ]

    simulate(body)


def test_events_of_one_service_alone() -> None:
    """By namespace, group and service; the reader goes on behind what was left out, too."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("one")
        other = ServiceKey("dev", "default", "orders")
        for key in (ORDERS, BILLING, other):
            await raw.register("a", key=key)
        names = {"namespace": "prod", "group": "default", "service": "orders"}
        found = await events(raw, **names)
        assert ([each.service.service for each in found.events], found.last) == (["orders"], 3)
        assert len((await events(raw, namespace="prod")).events) == 2
        assert [
            each.service.namespace for each in (await events(raw, newest=True, limit=1)).events
        ] == ["dev"]
        with pytest.raises(RefusedError) as refused:
            await events(raw, service="orders")
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT

    simulate(body)


def test_who_waits_is_answered_when_something_happens_that_it_asked_for() -> None:
    """Not by what happens elsewhere, and at its time if nothing does."""

    async def body(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        looker, raw = await stage.client("looker"), await stage.client("one")
        began = loop.time()
        nothing = await events(looker, wait_ms=2_000)
        assert not nothing.events
        assert 2.0 <= loop.time() - began < 2.3
        waiting = asyncio.ensure_future(
            events(looker, wait_ms=20_000, namespace="prod", group="default", service="orders")
        )
        await asyncio.sleep(0.5)
        await raw.register("a", key=BILLING)
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await raw.register("a")
        began = loop.time()
        answer = await waiting
        assert loop.time() - began < 0.3
        assert (kinds(answer), answer.last) == (["registered"], 2)
        assert stage.node.server.observing.waiting == 0

    simulate(body)


def test_who_waits_and_goes_is_forgotten() -> None:
    """A connection that is gone leaves nothing behind; more than may wait are refused."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("one")
        request = native_pb2.EventsRequest(wait_ms=20_000)
        tasks = [
            asyncio.ensure_future(raw.ask(MessageType.EVENTS, request))
            for _ in range(limits.EVENTS_WAITING_MAX)
        ]
        await asyncio.sleep(0.1)
        assert stage.node.server.observing.waiting == limits.EVENTS_WAITING_MAX
        with pytest.raises(RefusedError) as refused:
            await events(await stage.client("two"), wait_ms=1)
        assert refused.value.code is ErrorCode.OVERLOADED
        for task in tasks:
            task.cancel()
        raw.close()
        await asyncio.sleep(0.5)
        assert stage.node.server.observing.waiting == 0

    simulate(body)


def test_who_goes_on_behind_what_is_forgotten_is_told_so() -> None:
    """`lost` is said when events between were forgotten, and not when the life is another."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("one")
        await raw.register("a")
        first = await events(raw)
        for number in range(limits.EVENTS_MAX // 1000 + 1):
            await raw.register(*[f"i{number}-{each}" for each in range(1000)])
        later = await events(raw, life=first.life, after=first.last, limit=1)
        assert later.lost
        assert not (await events(raw, life=b"another", after=first.last, limit=1)).lost
        assert not (await events(raw, life=first.life, after=later.last, limit=1)).lost

    simulate(body)


# --- who may look ---------------------------------------------------------------------------


def test_who_may_read_a_part_sees_what_happened_there_and_no_more() -> None:
    """Events of what one may read; sessions and everything only for who may read everything."""

    async def body(stage: Stage) -> None:
        before = await stage.client("before")
        admin = await stage.connect("admin")
        await admin.hello(token=await token_of(before, "admin"))
        grant = access_pb2.AccessGrant(namespace="prod", service="default/shop-*", actions=["read"])
        role = access_pb2.AccessRole(name="shop", grants=[grant])
        await admin.ask(MessageType.ACCESS, native_pb2.AccessRequest(role=role))
        reader, shop = await stage.connect("reader"), await stage.connect("shop")
        await reader.hello(token=await token_of(admin, "reader"))
        await shop.hello(token=await token_of(admin, "shop"))
        everything: list[dict[str, object]] = [
            {},
            {"namespace": "prod"},
            {"namespace": "prod", "group": "default"},
            {"namespace": "prod", "service": "shop-cart"},
            {"namespace": "prod", "group": "default", "service": "orders"},
        ]
        for fields in everything:
            await events(reader, **fields)
            with pytest.raises(RefusedError) as refused:
                await events(shop, **fields)
            assert refused.value.code is ErrorCode.PERMISSION_DENIED, fields
        await events(shop, namespace="prod", group="default", service="shop-cart")
        await sessions(reader)
        with pytest.raises(RefusedError) as refused:
            await sessions(shop)
        assert refused.value.code is ErrorCode.PERMISSION_DENIED

    simulate(body)


async def token_of(raw: Raw, *roles: str) -> str:
    request = native_pb2.AccessRequest(token=access_pb2.AccessToken(roles=roles))
    answer = await raw.ask(MessageType.ACCESS, request)
    return native_pb2.AccessResponse.FromString(answer).token


# --- the SDK at a node that stands alone ----------------------------------------------------


def test_the_sdk_reads_and_follows_what_happens(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Sessions by name, the newest events, and each that follows, once."""

    async def body(stage: Stage) -> None:
        address = f"127.0.0.1:{stage.ready.port}"
        async with (
            ssgovern.connect(address, namespace="test", client_name="watcher") as watcher,
            ssgovern.connect(address, namespace="test", client_name="shop/1") as shop,
        ):
            await shop.register("orders", port=1, host="10.0.0.1")
            page = await watcher.sessions(client_name="shop")
            [found] = page.sessions
            assert (found.session_id, found.instances) == (shop.session_id, 1)
            assert (found.connected, page.failed, page.next_after) == (True, (), "")

            [event] = (await watcher.events()).events
            assert (event.kind, event.instance_id) == (EventKind.REGISTERED, "10.0.0.1:1")
            assert event.key == ServiceKey("test", "default", "orders")
            assert event.session_id == shop.session_id
            async with watcher.follow_events("orders", limit=1) as feed:
                assert await anext(feed) == event
                await shop.register("billing", port=1, host="10.0.0.1")
                await shop.update("orders", "10.0.0.1:1", weight=7)
                updated = await anext(feed)
                assert isinstance(updated, Event)
                assert [(c.name, c.before, c.after) for c in updated.changes] == [
                    ("weight", "100", "7")
                ]
            assert len((await watcher.events(limit=2)).events) == 2

    for_real(body, tmp_path)
