"""Clients that take and take, never read, never speak or never leave: others do not notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from builders import ORDERS, instance
from nodes import RefusedError, Stage, for_real, simulate

from ssgovern import limits
from ssgovern.errors import ErrorCode
from ssgovern.model import ServiceKey
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import HEADER, Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2


async def fill(stage: Stage, count: int, *, metadata: dict[str, str] | None = None) -> None:
    """Register `count` instances of one service."""
    client = await stage.client("filler")
    for start in range(0, count, 500):
        ids = [f"i{n}" for n in range(start, min(start + 500, count))]
        await client.register(*ids, metadata=metadata)


async def others_do_not_notice(stage: Stage, name: str = "other") -> None:
    """Another client is served within half a second."""
    async with asyncio.timeout(0.5):
        other = await stage.client(name)
        await other.register(f"of-{name}")
        assert f"of-{name}" in await other.ids()
        other.close()


def waiting_bytes(stage: Stage) -> int:
    """What the node keeps for clients that have not read it."""
    return sum(
        connection.outbound_bytes + sum(map(len, connection._output))
        for connection in stage.node.server._connections
    )


@pytest.mark.parametrize("real", [False, True])
def test_answers_asked_for_in_one_breath_are_bounded(real: bool, tmp_path: Path) -> None:
    """Many requests for long answers in one read do not pile up beyond the limit."""

    async def body(stage: Stage) -> None:
        await fill(stage, 500, metadata={"k": "v" * 200})
        greedy = await stage.client("greedy")
        greedy.stop_reading()
        request = native_pb2.GetRequest(service=key_to_wire(ORDERS)).SerializeToString()
        answer_bytes = len(stage.node.registry.get(native_pb2.GetRequest.FromString(request)))
        one_read = b"".join(
            encode_frame(Kind.REQUEST, MessageType.GET, n, request) for n in range(1, 500)
        )
        await greedy.send(one_read)
        for _ in range(100):
            await asyncio.sleep(0.001)
            assert waiting_bytes(stage) < 2 * limits.OUTBOUND_SOFT_BYTES + answer_bytes
        await others_do_not_notice(stage)

    if real:
        for_real(body, tmp_path)
    else:
        simulate(body)


def test_who_stops_reading_is_refused_and_then_closed() -> None:
    """A client that never reads is told to, and closed when it takes nothing for long."""

    async def body(stage: Stage) -> None:
        await fill(stage, 500, metadata={"k": "v" * 200})
        deaf = await stage.client("deaf")
        deaf.stop_reading()
        request = native_pb2.GetRequest(service=key_to_wire(ORDERS)).SerializeToString()
        heartbeat = encode_frame(Kind.REQUEST, MessageType.HEARTBEAT, 1, b"")
        for n in range(200):
            await deaf.send(encode_frame(Kind.REQUEST, MessageType.GET, n + 1, request))
        open_before = len(stage.node.server)
        seconds = 0
        while len(stage.node.server) >= open_before:
            await deaf.send(heartbeat)
            await asyncio.sleep(1.0)
            seconds += 1
            assert seconds < 40, "it is still open"
            await others_do_not_notice(stage, f"other{seconds}")
        assert seconds >= limits.OUTBOUND_STALL_MS / 1000 - 2

    simulate(body)


def test_a_subscriber_that_does_not_read_costs_no_memory() -> None:
    """Changes for a subscriber that does not read become one, and reading brings it up to date."""

    async def body(stage: Stage) -> None:
        slow = await stage.client("slow")
        await slow.subscribe()
        await slow.push()
        slow.stop_reading()
        writer = await stage.client("writer")
        for n in range(300):
            await writer.register(f"i{n % 10}", metadata={"k": f"{n}" + "v" * 4000})
            if n % 20 == 0:
                for client in (slow, writer):
                    await client.send(encode_frame(Kind.REQUEST, MessageType.HEARTBEAT, 9, b""))
            assert waiting_bytes(stage) < 3 * limits.OUTBOUND_SOFT_BYTES
        slow.resume_reading()
        final = {found.id: found.revision for found in (await writer.get()).instances}
        state: dict[str, int] = {}
        while state != final:
            async with asyncio.timeout(1.0):
                pushed = await slow.push()
            if isinstance(pushed, native_pb2.Snapshot):
                state = {found.id: found.revision for found in pushed.instances}
            elif isinstance(pushed, native_pb2.Delta):
                state.update({found.id: found.revision for found in pushed.upserted})

    simulate(body)


def test_refused_connections_leave_nothing_behind() -> None:
    """A node on which nothing is written keeps nothing of the connections it refused."""

    async def body(stage: Stage) -> None:
        kept = [await stage.client(f"kept{n}") for n in range(3)]
        for _ in range(20):
            refused = await stage.connect()
            assert await refused.closed() == ErrorCode.OVERLOADED
        assert len(stage.node.server) == 3
        assert stage.node.server._with_output == []
        for client in kept:
            await client.heartbeat()

    simulate(body, limits={"connections_max": 3})


def test_too_many_from_one_address() -> None:
    """One address may not take all connections."""

    async def body(stage: Stage) -> None:
        first = await stage.client("first")
        assert await (await stage.connect()).closed() == ErrorCode.OVERLOADED
        first.close()
        await asyncio.sleep(0.1)
        await stage.client("second")

    simulate(body, limits={"connections_per_address_max": 1})


def test_who_says_no_hello_is_closed() -> None:
    """A connection without a hello, even one that talks, is closed in time."""

    async def body(stage: Stage) -> None:
        silent = await stage.connect()
        asyncio_loop = asyncio.get_running_loop()
        began = asyncio_loop.time()
        await silent.closed()
        waited = asyncio_loop.time() - began
        assert limits.HELLO_TIMEOUT_MS / 1000 <= waited <= limits.HELLO_TIMEOUT_MS / 1000 + 2
        assert len(stage.node.server) == 0
        talker = await stage.connect()
        with pytest.raises(RefusedError) as refused:
            await talker.get()
        assert refused.value.code == ErrorCode.HELLO_REQUIRED
        await talker.closed()

    simulate(body)


def test_who_said_goodbye_and_stays_is_closed() -> None:
    """A connection whose session has ended is closed even if its client never closes it."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        await client.register("one")
        await client.subscribe()
        await client.ask(MessageType.GOODBYE)
        with pytest.raises(RefusedError) as refused:
            await client.heartbeat()
        assert refused.value.code == ErrorCode.SESSION_UNKNOWN
        await asyncio.sleep(limits.HELLO_TIMEOUT_MS / 1000 + 2)
        assert len(stage.node.server) == 0
        assert stage.node.push.subscriptions.count == 0

    simulate(body)


def test_who_is_told_to_go_and_does_not_read_is_closed() -> None:
    """A superseded connection whose client does not even read that it is goes in time."""

    async def body(stage: Stage) -> None:
        await fill(stage, 500, metadata={"k": "v" * 200})
        deaf = await stage.client("deaf")
        deaf.stop_reading()
        request = native_pb2.GetRequest(service=key_to_wire(ORDERS)).SerializeToString()
        while not waiting_bytes(stage):
            await deaf.send(encode_frame(Kind.REQUEST, MessageType.GET, 1, request))
            await asyncio.sleep(0.01)
        assert waiting_bytes(stage) < limits.OUTBOUND_SOFT_BYTES
        connections = len(stage.node.server)
        again = await stage.client("deaf")
        assert len(stage.node.server) == connections + 1
        await asyncio.sleep(limits.HELLO_TIMEOUT_MS / 1000 + 2)
        assert len(stage.node.server) == connections
        await again.heartbeat()

    simulate(body, session={"ttl_ms": 60_000})


def test_too_many_requests_in_flight() -> None:
    """Beyond the limit requests are refused, each once; all others are answered."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        count = limits.IN_FLIGHT_PER_CONNECTION_MAX + 100
        frames = []
        for n in range(count):
            request = native_pb2.RegisterRequest()
            request.registrations.add(service=key_to_wire(ORDERS), instance=instance(f"i{n}"))
            frames.append(
                encode_frame(Kind.REQUEST, MessageType.REGISTER, n + 1, request.SerializeToString())
            )
        await client.send(b"".join(frames))
        codes: list[ErrorCode] = []
        for n in range(count):
            try:
                await client.answer(n + 1)
            except RefusedError as error:
                codes.append(error.code)
        assert codes == [ErrorCode.OVERLOADED] * len(codes)
        assert len(codes) < 200
        assert len(await client.ids()) == count - len(codes)

    simulate(body)


def test_half_a_frame_and_silence_keeps_no_one_waiting() -> None:
    """A client that stops in the middle of a frame disturbs only itself."""

    async def body(stage: Stage) -> None:
        client = await stage.client("half")
        frame = encode_frame(Kind.REQUEST, MessageType.GET, 1, b"x" * 1000)
        await client.send(frame[: HEADER.size + 10])
        await others_do_not_notice(stage)
        # Its session expires like that of anyone who falls silent.
        assert await client.closed() == ErrorCode.SESSION_UNKNOWN

    simulate(body)


def test_listing_always_comes_to_an_end() -> None:
    """Pages lead through all services once, whatever their names are."""

    async def body(stage: Stage) -> None:
        client = await stage.client("a")
        keys = [
            ServiceKey("prod", group, service)
            for group in ("a", "a@", "b", "@")
            for service in ("@svc", "svc", "x@", "订单")
        ]
        for key in keys:
            await client.register("one", key=key)
        for size in (1, 2, 3, 100):
            found: list[ServiceKey] = []
            token = ""
            while True:
                request = native_pb2.ListServicesRequest(
                    namespace="prod", page_size=size, page_token=token
                )
                page = native_pb2.ListServicesResponse.FromString(
                    await client.ask(MessageType.LIST_SERVICES, request)
                )
                for item in page.services:
                    key = item.service
                    found.append(ServiceKey(key.namespace, key.group, key.service))
                token = page.next_page_token
                assert len(found) <= len(keys), "pages repeat"
                if not token:
                    break
            assert found == sorted(keys)

    simulate(body)
