"""Bad input, a table: each gets the documented error or a closed connection, and nothing else.

After every case the same node still serves others, and what they registered is still there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from builders import BILLING, ORDERS, instance, secret_of, session_of
from google.protobuf.message import Message
from nodes import ClosedByNodeError, Raw, RefusedError, Stage, for_real, simulate

from ssgovern import limits
from ssgovern.errors import ErrorCode
from ssgovern.model import ServiceKey
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import FLAG_MORE, HEADER, Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2

INVALID, LIMIT = ErrorCode.INVALID_ARGUMENT, ErrorCode.LIMIT_EXCEEDED
KEY = key_to_wire(ORDERS)
SURROGATE = b"\xed\xa0\x80"


def registration(key: ServiceKey = ORDERS, **fields: object) -> native_pb2.RegisterRequest:
    request = native_pb2.RegisterRequest()
    request.registrations.add(
        service=key_to_wire(key),
        instance=instance(**{"instance_id": "x", **fields}),  # type: ignore[arg-type]
    )
    return request


def named(**parts: str) -> native_pb2.RegisterRequest:
    return registration(ORDERS._replace(**parts))


def subscription(**fields: object) -> native_pb2.SubscribeRequest:
    return native_pb2.SubscribeRequest(**fields)  # type: ignore[arg-type]


def update(**fields: object) -> native_pb2.UpdateRequest:
    return native_pb2.UpdateRequest(
        service=KEY,
        instance_id="mine",
        change=native_pb2.InstanceChange(**fields),  # type: ignore[arg-type]
    )


def twice() -> native_pb2.RegisterRequest:
    request = registration()
    request.MergeFrom(registration())
    return request


REGISTER, UPDATE, SUBSCRIBE = MessageType.REGISTER, MessageType.UPDATE, MessageType.SUBSCRIBE
GET, LIST, DEREGISTER = MessageType.GET, MessageType.LIST_SERVICES, MessageType.DEREGISTER

REQUESTS: dict[str, tuple[int, Message | bytes, ErrorCode]] = {
    # bytes that are no message
    "truncated body": (REGISTER, registration().SerializeToString()[:-3], INVALID),
    "garbage body": (REGISTER, b"\xff" * 50, INVALID),
    "garbage body of a get": (GET, b"\x0a\xff", INVALID),
    "garbage body of a goodbye": (MessageType.GOODBYE, b"\xff", INVALID),
    "garbage body of a status": (MessageType.STATUS, b"\xff", INVALID),
    "invalid UTF-8": (GET, b"\x0a\x05\x1a\x03" + SURROGATE, INVALID),
    "unknown type": (999, b"", ErrorCode.UNSUPPORTED_TYPE),
    "a push's type": (MessageType.DELTA, b"", ErrorCode.UNSUPPORTED_TYPE),
    "a second hello": (MessageType.HELLO, b"", ErrorCode.UNSUPPORTED_TYPE),
    # names
    "empty namespace": (REGISTER, named(namespace=""), INVALID),
    "empty group": (REGISTER, named(group=""), INVALID),
    "empty service": (REGISTER, named(service=""), INVALID),
    "space in a name": (REGISTER, named(service="a b"), INVALID),
    "star in a name": (REGISTER, named(service="a*"), INVALID),
    "joint in a name": (REGISTER, named(group="a@@b"), INVALID),
    "line feed in a name": (REGISTER, named(service="a\nb"), INVALID),
    "zero byte in a name": (REGISTER, named(service="a\0b"), INVALID),
    "long name": (REGISTER, named(service="x" * (limits.NAME_BYTES_MAX + 1)), LIMIT),
    "name long in bytes": (REGISTER, named(service="订" * 90), LIMIT),
    "get of no service": (GET, native_pb2.GetRequest(), INVALID),
    "no instance id to remove": (DEREGISTER, native_pb2.DeregisterRequest(service=KEY), INVALID),
    # instances
    "port 0": (REGISTER, registration(port=0), INVALID),
    "port 65536": (REGISTER, registration(port=65536), INVALID),
    "no host": (REGISTER, registration(host=""), INVALID),
    "space in the host": (REGISTER, registration(host="a b"), INVALID),
    "long host": (REGISTER, registration(host="h" * 256), LIMIT),
    "long id": (REGISTER, registration(instance_id="i" * 257), LIMIT),
    "negative weight": (REGISTER, registration(weight=-0.5), INVALID),
    "weight NaN": (REGISTER, registration(weight=math.nan), INVALID),
    "weight infinite": (REGISTER, registration(weight=math.inf), INVALID),
    "weight minus infinite": (REGISTER, registration(weight=-math.inf), INVALID),
    "weight beyond": (REGISTER, registration(weight=limits.WEIGHT_MAX + 1), INVALID),
    "unknown status": (REGISTER, registration(status=9), INVALID),
    "negative status": (REGISTER, registration(status=-1), INVALID),
    "long zone": (REGISTER, registration(zone="z" * 129), LIMIT),
    "long version": (REGISTER, registration(version="v" * 129), LIMIT),
    "control character in the zone": (REGISTER, registration(zone="a\tb"), INVALID),
    # metadata
    "too many pairs": (REGISTER, registration(metadata={f"k{n}": "" for n in range(65)}), LIMIT),
    "empty key": (REGISTER, registration(metadata={"": "v"}), INVALID),
    "long key": (REGISTER, registration(metadata={"k" * 129: "v"}), LIMIT),
    "control character in a key": (REGISTER, registration(metadata={"a\n": "v"}), INVALID),
    "long value": (REGISTER, registration(metadata={"k": "v" * 4097}), LIMIT),
    "value long in bytes": (REGISTER, registration(metadata={"k": "订" * 1400}), LIMIT),
    "long in all": (REGISTER, registration(metadata={f"{n}": "v" * 4000 for n in range(5)}), LIMIT),
    # batches
    "empty batch": (REGISTER, native_pb2.RegisterRequest(), INVALID),
    "id twice in a batch": (REGISTER, twice(), INVALID),
    "batch too long": (
        REGISTER,
        native_pb2.RegisterRequest(
            registrations=[native_pb2.Registration()] * (limits.REGISTER_BATCH_MAX + 1)
        ),
        LIMIT,
    ),
    # updates
    "update weight NaN": (UPDATE, update(weight=math.nan), INVALID),
    "update weight negative": (UPDATE, update(weight=-1.0), INVALID),
    "update status": (UPDATE, update(status=7), INVALID),
    "update long value": (UPDATE, update(metadata_set={"k": "v" * 4097}), LIMIT),
    "update too many removals": (UPDATE, update(metadata_remove=["k"] * 65), LIMIT),
    "update of nothing": (
        UPDATE,
        native_pb2.UpdateRequest(service=KEY, instance_id="none"),
        ErrorCode.NOT_FOUND,
    ),
    "update of another's": (
        UPDATE,
        native_pb2.UpdateRequest(service=KEY, instance_id="theirs"),
        ErrorCode.NOT_OWNER,
    ),
    "update at another revision": (
        UPDATE,
        native_pb2.UpdateRequest(service=KEY, instance_id="mine", if_revision=9999),
        ErrorCode.REVISION_CONFLICT,
    ),
    "removal of another's": (
        DEREGISTER,
        native_pb2.DeregisterRequest(service=KEY, instance_id="theirs"),
        ErrorCode.NOT_OWNER,
    ),
    # subscriptions and lists
    "subscription to nothing": (SUBSCRIBE, subscription(), INVALID),
    "subscription to a bad name": (
        SUBSCRIBE,
        subscription(service=key_to_wire(ServiceKey("n", "g", "a?"))),
        INVALID,
    ),
    "pattern without a group": (
        SUBSCRIBE,
        subscription(pattern=native_pb2.Pattern(namespace="n")),
        INVALID,
    ),
    "pattern with a star": (
        SUBSCRIBE,
        subscription(pattern=native_pb2.Pattern(namespace="n", group="g", prefix="*")),
        INVALID,
    ),
    "known and not subscribed": (
        SUBSCRIBE,
        subscription(
            service=KEY, known=[native_pb2.KnownService(service=key_to_wire(BILLING), revision=1)]
        ),
        INVALID,
    ),
    "end of no subscription": (
        MessageType.UNSUBSCRIBE,
        native_pb2.UnsubscribeRequest(subscription_id=99),
        ErrorCode.NOT_FOUND,
    ),
    "list of no namespace": (LIST, native_pb2.ListServicesRequest(), INVALID),
}


async def others_are_served(stage: Stage) -> None:
    """A client that comes now finds what was acknowledged and can write."""
    other = await stage.client("other")
    assert set(await other.ids()) >= {"mine", "theirs"}
    await other.register("others", key=BILLING)
    other.close()


async def a_moment() -> None:
    """Let the log commit and the other ends of connections notice."""
    await asyncio.sleep(0.1)


async def prepared(stage: Stage) -> Raw:
    """Return a client with an instance of its own beside another client's."""
    other = await stage.client("another")
    await other.register("theirs")
    client = await stage.client("a")
    await client.register("mine")
    return client


def check_requests(run: Callable[[Callable[[Stage], Awaitable[None]]], None]) -> None:
    async def body(stage: Stage) -> None:
        client = await prepared(stage)
        wrong: list[str] = []
        for name, (type_, request, code) in REQUESTS.items():
            try:
                await client.ask(type_, request)
                found: object = "accepted"
            except RefusedError as error:
                found = error.code
            if found != code:
                wrong.append(f"{name}: {found!r} instead of {code!r}")
            await client.heartbeat()
        assert wrong == []
        assert await client.ids() == ["mine", "theirs"]
        await others_are_served(stage)

    run(body)


def test_every_bad_request_gets_its_error() -> None:
    """Each request of the table is refused with its code, and its connection goes on."""
    check_requests(simulate)  # type: ignore[arg-type]


def test_every_bad_request_gets_its_error_on_this_machine(tmp_path: object) -> None:
    """The same with real sockets and a real disk."""
    check_requests(lambda body: for_real(body, tmp_path))  # type: ignore[arg-type]


# --- bytes that are not the protocol -------------------------------------------------------

GARBAGE: dict[str, bytes] = {
    "garbage": b"\x00\x01\x02" * 20,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "oversized frame": HEADER.pack(limits.FRAME_BODY_BYTES_MAX + 9, 1, 0, 10, 1),
    "frame of 4 GiB": HEADER.pack(0xFFFFFFFF, 1, 0, 10, 1),
    "length too small": HEADER.pack(3, 1, 0, 10, 1),
    "unknown kind": HEADER.pack(8, 9, 0, 10, 1),
    "unknown flag": HEADER.pack(8, 1, 0x80, 10, 1),
    "a response from a client": encode_frame(Kind.RESPONSE, MessageType.GET, 1, b""),
    "an error from a client": encode_frame(Kind.ERROR, MessageType.GET, 1, b""),
    "a push from a client": encode_frame(Kind.PUSH, MessageType.DELTA, 0, b""),
    "a request in parts": encode_frame(Kind.REQUEST, MessageType.GET, 1, b"", FLAG_MORE),
}


@pytest.mark.parametrize("welcomed", [False, True])
def test_what_is_not_the_protocol_closes_its_connection(welcomed: bool) -> None:
    """Protocol garbage ends the connection it came on, before a hello or after, and no other."""

    async def body(stage: Stage) -> None:
        await prepared(stage)
        for name, data in GARBAGE.items():
            raw = await (stage.client if welcomed else stage.connect)("garbage")
            await raw.send(data)
            async with asyncio.timeout(1.0):
                assert await raw.closed() in (ErrorCode.PROTOCOL, None), name
            await others_are_served(stage)
        await a_moment()
        assert len(stage.node.server) == 2

    simulate(body)


def test_a_good_request_before_garbage_is_answered() -> None:
    """What came before the garbage in the same bytes was a request like any other."""

    async def body(stage: Stage) -> None:
        await prepared(stage)
        raw = await stage.client("b")
        await raw.send(
            encode_frame(
                Kind.REQUEST, REGISTER, 50, registration(instance_id="kept").SerializeToString()
            )
            + GARBAGE["garbage"]
        )
        await raw.closed()
        # The session has its grace: what it registered is there until it ends.
        await a_moment()
        other = await stage.client("c")
        assert "kept" in await other.ids()

    simulate(body)


# --- hello and sessions --------------------------------------------------------------------

Hello: TypeAlias = dict[str, object]

HELLOS: dict[str, tuple[Hello, ErrorCode]] = {
    "too new": ({"version_min": 2, "version_max": 9}, ErrorCode.UNSUPPORTED_VERSION),
    "too old": ({"version_min": 0, "version_max": 0}, ErrorCode.UNSUPPORTED_VERSION),
    "min above max": ({"version_min": 5, "version_max": 1}, ErrorCode.UNSUPPORTED_VERSION),
    "a peer": ({"role": native_pb2.ROLE_PEER}, INVALID),
    "an unknown role": ({"role": 7}, INVALID),
    "no session": ({"session_id": b"", "session_secret": b""}, INVALID),
    "short secret": ({"session_secret": b"x"}, INVALID),
    "long id": ({"session_id": b"x" * 17}, INVALID),
    "wrong secret": ({"session_secret": secret_of("b")}, ErrorCode.SESSION_FOREIGN),
    "foreign session": ({"session_id": session_of("b")}, ErrorCode.SESSION_FOREIGN),
    "long client name": ({"client_name": "x" * 129}, LIMIT),
    "control characters": ({"client_name": "a\x1b[2J"}, INVALID),
}


def test_bad_hellos() -> None:
    """A hello that cannot be granted says why; a good one on the same connection still can."""

    async def body(stage: Stage) -> None:
        raw = await stage.connect("a")
        for name, (fields, code) in HELLOS.items():
            with pytest.raises(RefusedError) as refused:
                await raw.hello(**fields)
            assert refused.value.code == code, name
        assert len(stage.node.registry.sessions) == 0
        assert not (await raw.hello()).resumed

    simulate(body)


_HELLOS = (MessageType.HELLO, MessageType.HEARTBEAT, MessageType.PEER_HELLO)


@pytest.mark.parametrize("type_", [t for t in MessageType if t not in _HELLOS])
def test_no_request_before_hello(type_: MessageType) -> None:
    """Whatever is asked before a hello is refused with one and the same code."""

    async def body(stage: Stage) -> None:
        raw = await stage.connect()
        with pytest.raises(RefusedError) as refused:
            await raw.ask(type_)
        assert refused.value.code == ErrorCode.HELLO_REQUIRED

    simulate(body)


def test_a_node_that_is_alone_takes_no_links() -> None:
    """A node's hello is told that this one belongs to no cluster, and what to set."""

    async def body(stage: Stage) -> None:
        raw = await stage.connect()
        with pytest.raises(RefusedError, match=r"cluster\.candidates or cluster\.join") as refused:
            await raw.ask(MessageType.PEER_HELLO)
        assert refused.value.code == ErrorCode.PEER_REFUSED
        await raw.hello()

    simulate(body)


def test_heartbeat_of_no_session() -> None:
    """A heartbeat before hello is told to say hello, not that all is well."""

    async def body(stage: Stage) -> None:
        raw = await stage.connect()
        with pytest.raises(RefusedError) as refused:
            await raw.heartbeat()
        assert refused.value.code == ErrorCode.SESSION_UNKNOWN

    simulate(body)


def test_a_session_that_expired_is_told_so() -> None:
    """A client that was silent too long is told, and what it registered is gone."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        await client.register("one")
        assert await client.closed() == ErrorCode.SESSION_UNKNOWN
        again = await stage.connect("a")
        assert not (await again.hello()).resumed
        await a_moment()
        assert await again.ids() == []

    simulate(body)


def test_a_superseded_connection_is_told_so() -> None:
    """A newer connection of a session ends the older one, and keeps what it registered."""

    async def body(stage: Stage) -> None:
        first = await stage.client("a")
        await first.register("one")
        second = await stage.connect("a")
        assert (await second.hello()).resumed
        assert await first.closed() == ErrorCode.SESSION_SUPERSEDED
        await asyncio.sleep(3.0)
        await second.heartbeat()
        await asyncio.sleep(3.0)
        assert await second.ids() == ["one"]

    simulate(body)


def test_registrations_in_flight_when_superseded_are_kept() -> None:
    """What an old connection asked for and was not answered belongs to the session all the same."""

    async def body(stage: Stage) -> None:
        first = await stage.client("a")
        await first.send(
            encode_frame(
                Kind.REQUEST, REGISTER, 50, registration(instance_id="one").SerializeToString()
            )
        )
        second = await stage.connect("a")
        assert (await second.hello()).resumed
        await a_moment()
        assert await second.ids() == ["one"]

    simulate(body)


def test_goodbye_removes_what_is_in_flight_too() -> None:
    """A goodbye right behind a registration leaves nothing, and both are answered."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        await client.send(
            encode_frame(Kind.REQUEST, REGISTER, 50, registration().SerializeToString())
            + encode_frame(Kind.REQUEST, MessageType.GOODBYE, 51, b"")
            + encode_frame(Kind.REQUEST, REGISTER, 52, registration().SerializeToString())
        )
        await client.answer(50)
        with pytest.raises(RefusedError) as refused:
            await client.answer(52)
        assert refused.value.code == ErrorCode.SESSION_UNKNOWN
        await client.answer(51)
        other = await stage.client("b")
        assert await other.ids() == []

    simulate(body)


def test_subscriptions_are_limited() -> None:
    """Beyond the limit of subscriptions the next is refused; those there are stay."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        frame = subscription(service=KEY).SerializeToString()
        count = limits.SUBSCRIPTIONS_PER_SESSION_MAX
        for start in range(0, count, 1000):
            await client.send(
                b"".join(
                    encode_frame(Kind.REQUEST, SUBSCRIBE, 10_000 + start + n, frame)
                    for n in range(1000)
                )
            )
            await client.answer(10_000 + start + 999)
        with pytest.raises(RefusedError) as refused:
            await client.subscribe()
        assert refused.value.code == ErrorCode.LIMIT_EXCEEDED
        assert stage.node.push.subscriptions.count == count

    simulate(body)


def test_a_node_that_stops_says_so() -> None:
    """While a node stops, requests are refused with a code that sends clients elsewhere."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        await client.register("one")
        stage.node.server.stop_accepting()
        with pytest.raises(RefusedError) as refused:
            await client.register("two")
        assert refused.value.code == ErrorCode.SHUTTING_DOWN
        with pytest.raises((ConnectionError, ClosedByNodeError, RefusedError)):
            await stage.client("b")

    simulate(body)
