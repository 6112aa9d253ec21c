"""Links between nodes, over real sockets and simulated ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from peers import ASK, TELL, Post, identity_of
from places import Run

from ssgovern import limits
from ssgovern.errors import DeadlineExceededError, FencedError, UnavailableError
from ssgovern.model import NodeId
from ssgovern.runtime import Runtime
from ssgovern.runtime.real import RealRuntime
from ssgovern.sim.loop import SimLoop
from ssgovern.transport import handshake
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import Frame, Kind, MessageType, encode_frame
from ssgovern.wire.pb import peer_pb2

HOST = "127.0.0.1"
ONE, TWO = NodeId(1), NodeId(2)


def runtime_here() -> Runtime:
    loop = asyncio.get_running_loop()
    if isinstance(loop, SimLoop):
        assert loop.process.runtime is not None
        return loop.process.runtime
    return RealRuntime()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def posts(*secrets: bytes) -> AsyncIterator[list[Post]]:
    """Nodes 1, 2, ... that all dial each other."""
    runtime = runtime_here()
    made = [
        Post(identity_of(number, secret=secret), runtime)
        for number, secret in enumerate(secrets, start=1)
    ]
    ports = [(await post.server.listen(HOST, 0))[1] for post in made]
    addresses = {NodeId(n): f"{HOST}:{port}" for n, port in enumerate(ports, start=1)}
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(post.keep()) for post in made]
            for post in made:
                post.links.set_peers(addresses)
            yield made
            for task in tasks:
                task.cancel()
    finally:
        for post in made:
            post.server.stop_accepting()
            post.server.close_all()
        await asyncio.sleep(0.05)


def both_open(one: Post, two: Post) -> bool:
    return one.links.is_open(TWO) and two.links.is_open(ONE)


def test_what_is_told_and_asked_arrives(run: Run) -> None:
    """Pushes in order and whole, whatever their length; answers, errors, deadlines."""

    async def body() -> Any:
        async with posts(b"s", b"s") as (one, two):
            await until(lambda: both_open(one, two))
            sizes = [0, 1, 1000, limits.FRAME_BODY_BYTES_MAX, 3_000_000, 5]
            for size in sizes:
                assert one.links.send(TWO, TELL, b"x" * size)
            await until(lambda: len(two.told) == len(sizes))
            loop = asyncio.get_running_loop()
            answer = await one.links.request(TWO, ASK, b"y" * 1_000_000, loop.time() + 5)

            async def refuse(source: NodeId, type_: int, body: bytes) -> bytes:
                raise FencedError("no", epoch=3)

            async def wait(source: NodeId, type_: int, body: bytes) -> bytes:
                await asyncio.sleep(1.0)
                return b""

            two.answer = refuse
            with pytest.raises(FencedError) as refused:
                await one.links.request(TWO, ASK, b"", loop.time() + 5)
            two.answer = wait
            with pytest.raises(DeadlineExceededError):
                await one.links.request(TWO, ASK, b"", loop.time() + 0.05)
            paced = await one.links.send_paced(TWO, TELL, [b"z" * 250_000] * 20)
            return (
                [len(body) for _, _, body in two.told[: len(sizes)]] == sizes,
                len(answer),
                refused.value.fields,
                paced,
                len(two.told) - len(sizes),
            )

    assert run(body) == (True, 1_000_000, {"epoch": "3"}, True, 20)


def test_a_link_that_was_closed_is_made_again(run: Run) -> None:
    """The far end closes all its links; soon there are new ones."""

    async def body() -> Any:
        async with posts(b"s", b"s") as (one, two):
            await until(lambda: both_open(one, two))
            for connection in list(two.acceptor._connections):
                connection.abort()
            await until(lambda: one.story == ["link 2", "lost 2", "link 2"])
            assert one.links.send(TWO, TELL, b"again")
            await until(lambda: bool(two.told))
            return two.told, len(two.acceptor)

    assert run(body) == ([(ONE, TELL, b"again")], 1)


def test_a_node_that_does_not_listen_is_refused(run: Run) -> None:
    """It is known to be gone, until it listens."""

    async def body() -> Any:
        async with posts(b"s", b"s") as (one, two):
            await until(lambda: both_open(one, two))
            before = one.links.is_refused(TWO)
            two.server.stop_accepting()
            two.acceptor.close_all()
            await until(lambda: one.links.is_refused(TWO))
            loop = asyncio.get_running_loop()
            with pytest.raises(UnavailableError, match="no link to node 2"):
                await one.links.request(TWO, ASK, b"", loop.time() + 5)
            return before, one.links.is_open(TWO), "refused" in one.links.failure(TWO)

    assert run(body) == (False, False, True)


def test_nodes_with_different_secrets_have_no_links(run: Run) -> None:
    """Each end says why; nothing was heard of the other."""

    async def body() -> Any:
        async with posts(b"s", b"t", b"") as (one, two, three):
            trio = (one, two, three)
            await until(
                lambda: all(
                    post.links.refusal(NodeId(other))
                    for post in trio
                    for other in (1, 2, 3)
                    if other != post.me.node_id
                )
            )
            return (
                one.links.refusal(TWO).partition(":")[0],
                three.links.refusal(TWO).partition(":")[0],
                one.hellos + two.hellos + three.hellos,
            )

    assert run(body) == (
        "node 2 has another cluster secret than this node",
        "node 2 has a cluster secret and this node has none",
        [],
    )


def test_a_node_that_does_not_read_loses_messages_and_its_link(run: Run) -> None:
    """What waits for it is bounded; the link is aborted after some pings."""

    class Deaf(FrameConnection):
        """Knows the secret, and stops reading once it has shown that."""

        def on_frame(self, frame: Frame) -> None:
            _, _, type_, request_id, body = frame
            answer: Any = peer_pb2.PeerProofResponse()
            if type_ == MessageType.PEER_HELLO:
                request = peer_pb2.PeerHelloRequest.FromString(body)
                _, answer = handshake.answer_hello(identity_of(2, secret=b"s"), request, b"2" * 32)
            else:
                assert self.transport is not None
                self.transport.pause_reading()
                deaf.append(self)
            self.send(encode_frame(Kind.RESPONSE, type_, request_id, encode(answer)))

    deaf: list[Deaf] = []

    async def body() -> Any:
        deaf.clear()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Deaf, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with posts(b"s") as (one,):
                one.links.set_peers({TWO: f"{HOST}:{port}"})
                await until(lambda: one.links.is_open(TWO))
                taken = 0
                while one.links.send(TWO, TELL, b"x" * 1_000_000):
                    taken += 1
                    assert taken < 1000
                began = loop.time()
                await until(lambda: not one.links.is_open(TWO))
                lasted = loop.time() - began
                return 32 < taken < 80, lasted > 1.4, one.links.pushes_dropped
        finally:
            server.close()
            for line in deaf:
                line.abort()
            await asyncio.sleep(0.05)

    assert run(body) == (True, True, 1)
