"""The asking end of a connection, against a peer that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ssgovern import limits
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    LimitExceededError,
    NotFoundError,
    RemoteProtocolError,
    UnavailableError,
)
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.transport.channel import Channel, ConnectionLostError, open_channel
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import encode, error_to_wire
from ssgovern.wire.frames import FLAG_MORE, Frame, Kind, MessageType, encode_frame

GET = MessageType.GET


class Peer(FrameConnection):
    """Keeps what comes; answers when told to."""

    def __init__(self, peers: list[Peer]) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.echoes = False
        peers.append(self)

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        if self.echoes:
            self.answer(frame)

    def answer(self, frame: Frame, body: bytes | None = None) -> None:
        _, _, type_, request_id, asked = frame
        reply = asked if body is None else body
        self.send(encode_frame(Kind.RESPONSE, type_, request_id, reply))


Body = Callable[[Channel, Peer, list[bytes]], Awaitable[None]]


def play(body: Body) -> None:
    """Run a test between a channel and its peer in a simulated world."""
    with World(1) as world:

        async def ask(runtime: SimRuntime) -> None:
            peers: list[Peer] = []
            pushes: list[bytes] = []
            loop = asyncio.get_running_loop()
            await loop.create_server(lambda: Peer(peers), "127.0.0.1", 7420)
            channel = await open_channel(
                "127.0.0.1", 7420, lambda type_, id_, body: pushes.append(body), deadline=now() + 3
            )
            await until(lambda: bool(peers))
            await body(channel, peers[0], pushes)

        asker = world.process("asker", ask)
        asker.start()
        assert world.run_until(lambda: not asker.alive, 60.0), "the test was stuck"
        cause = world.exits[-1].cause
        if cause is not None:
            raise cause
        assert not world.errors, [str(error) for error in world.errors]


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_answers_find_their_requests_in_any_order() -> None:
    """Requests are pipelined and each gets the answer with its own id."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        asked = [channel.send_request(GET, b"%d" % n, now() + 5) for n in range(10)]
        await until(lambda: len(peer.frames) == 10)
        for frame in reversed(peer.frames):
            peer.answer(frame)
        assert [await answer for answer in asked] == [b"%d" % n for n in range(10)]
        assert channel.in_flight == 0

    play(body)


def test_an_answer_may_come_in_several_frames() -> None:
    """Frames with MORE are put together, with other answers in between."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        long = channel.send_request(GET, b"long", now() + 5)
        short = channel.send_request(GET, b"short", now() + 5)
        await until(lambda: len(peer.frames) == 2)
        long_id = peer.frames[0][3]
        peer.send(encode_frame(Kind.RESPONSE, GET, long_id, b"abc", FLAG_MORE))
        peer.answer(peer.frames[1])
        peer.send(encode_frame(Kind.RESPONSE, GET, long_id, b"def"))
        assert await short == b"short"
        assert await long == b"abcdef"

    play(body)


def test_an_error_frame_raises_the_documented_error() -> None:
    """An error of the node is raised with its code and fields."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        answer = channel.send_request(GET, b"", now() + 5)
        await until(lambda: bool(peer.frames))
        error = encode(error_to_wire(NotFoundError("no such service", service="x")))
        peer.send(encode_frame(Kind.ERROR, GET, peer.frames[0][3], error))
        with pytest.raises(NotFoundError, match="no such service") as caught:
            await answer
        assert caught.value.fields == {"service": "x"}

    play(body)


def test_a_deadline_ends_a_request_and_its_late_answer_is_ignored() -> None:
    """A request without an answer ends at its deadline, and the connection goes on."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        started = now()
        with pytest.raises(DeadlineExceededError):
            await channel.request(GET, b"", started + 2)
        assert 2 <= now() - started < 2.1
        peer.answer(peer.frames[0])
        peer.echoes = True
        assert await channel.request(GET, b"next", now() + 2) == b"next"

    play(body)


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    """A caller that gives up frees its place, and the late answer harms nobody."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        task = asyncio.ensure_future(channel.request(GET, b"", now() + 50))
        await until(lambda: bool(peer.frames))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert channel.in_flight == 0
        peer.answer(peer.frames[0])
        peer.echoes = True
        assert await channel.request(GET, b"x", now() + 2) == b"x"

    play(body)


def test_a_lost_connection_fails_what_was_sent_and_refuses_what_was_not() -> None:
    """Who was sent hears that its outcome is unknown, who was not that it surely had none."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        answer = channel.send_request(GET, b"", now() + 50)
        await until(lambda: bool(peer.frames))
        peer.abort()
        with pytest.raises(ConnectionLostError) as caught:
            await answer
        assert caught.value.sent
        assert await channel.wait_lost(5)
        with pytest.raises(ConnectionLostError) as caught:
            await channel.request(GET, b"", now() + 5)
        assert not caught.value.sent

    play(body)


def test_giving_up_what_is_gone_is_harmless() -> None:
    """Whoever notices a loss late may still give the connection up, on any kind of loop."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        peer.abort()
        assert await channel.wait_lost(5)
        channel.give_up(ClosedError("enough"))
        channel.abort()
        assert not channel.is_open
        assert channel.local_host == ""
        assert isinstance(channel.cause, UnavailableError)

    play(body)


def test_given_up_it_says_why() -> None:
    """Pending requests are told the cause with which a connection was given up."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        answer = channel.send_request(GET, b"", now() + 50)
        channel.give_up(ClosedError("enough"))
        with pytest.raises(ClosedError, match="enough"):
            await answer

    play(body)


def test_in_flight_is_bounded_and_waiting_has_the_deadline() -> None:
    """The request beyond the bound is sent when one ends, or fails in its own time, unsent."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        most = limits.IN_FLIGHT_PER_CONNECTION_MAX
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(channel.request(GET, b"%d" % n, now() + 30)) for n in range(most)
            ]
            await until(lambda: len(peer.frames) == most)
            with pytest.raises(DeadlineExceededError) as caught:
                await channel.request(GET, b"late", now() + 1)
            assert caught.value.fields["sent"] == "no"
            extra = group.create_task(channel.request(GET, b"extra", now() + 30))
            await asyncio.sleep(0.1)
            assert len(peer.frames) == most
            peer.echoes = True
            peer.answer(peer.frames[0])
            assert await extra == b"extra"
            for frame in peer.frames[1:most]:
                peer.answer(frame)
        assert [task.result() for task in tasks] == [b"%d" % n for n in range(most)]

    play(body)


def test_a_peer_that_does_not_read_holds_requests_back() -> None:
    """With the buffers full, a request waits within its deadline instead of piling up."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        assert peer.transport is not None
        peer.transport.pause_reading()
        big = b"x" * limits.FRAME_BODY_BYTES_MAX
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(channel.request(GET, big, now() + 5)) for _ in range(6)]
            await asyncio.sleep(1)
            assert channel.outbound_bytes <= 2 * (limits.OUTBOUND_SOFT_BYTES + len(big))
            peer.echoes = True
            peer.transport.resume_reading()
            assert [await task == big for task in tasks] == [True] * 6

    play(body)


def test_too_long_a_request_is_refused_before_it_is_sent() -> None:
    """A body that no node takes is the caller's error, and the connection stays."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        with pytest.raises(LimitExceededError):
            await channel.request(GET, bytes(limits.FRAME_BODY_BYTES_MAX + 1), now() + 5)
        assert channel.is_open

    play(body)


def test_pushes_are_handed_over_in_order() -> None:
    """Pushes arrive in order, also those cut into frames."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        peer.send(encode_frame(Kind.PUSH, MessageType.DELTA, 0, b"1"))
        peer.send(encode_frame(Kind.PUSH, MessageType.SNAPSHOT, 0, b"2", FLAG_MORE))
        peer.send(encode_frame(Kind.PUSH, MessageType.SNAPSHOT, 0, b"3"))
        peer.send(encode_frame(Kind.PUSH, MessageType.DELTA, 0, b"4"))
        await until(lambda: len(pushes) == 3)
        assert pushes == [b"1", b"23", b"4"]

    play(body)


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        encode_frame(Kind.REQUEST, GET, 1, b""),
        encode_frame(Kind.RESPONSE, MessageType.HELLO, 1, b""),
        encode_frame(Kind.ERROR, GET, 1, b"\xff"),
    ],
    ids=["http", "a request", "another type", "unreadable error"],
)
def test_what_is_not_the_protocol_ends_the_connection(garbage: bytes) -> None:
    """Garbage closes this connection, and pending requests hear of it."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        answer = channel.send_request(GET, b"", now() + 50)
        await until(lambda: bool(peer.frames))
        peer.send(garbage)
        with pytest.raises(ConnectionLostError):
            await answer
        assert isinstance(channel.cause, RemoteProtocolError)
        assert not channel.is_open

    play(body)


def test_dialling_nobody_is_unavailable() -> None:
    """A refused or unanswered dial raises UnavailableError within its deadline."""

    async def body(channel: Channel, peer: Peer, pushes: list[bytes]) -> None:
        with pytest.raises(UnavailableError):
            await open_channel("127.0.0.1", 1, lambda *push: None, deadline=now() + 2)

    play(body)
