"""Connections behave the same on real sockets and on simulated ones.

Each test is one body of code, run in every place, with one expectation for all of them.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from places import Run

HOST = "127.0.0.1"
MEGABYTE = 1 << 20


class Observer(asyncio.BaseProtocol):
    """Writes down what happens to a connection, but for what it receives."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.received = bytearray()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.eof = asyncio.Event()
        self.changed = asyncio.Event()
        self.keep_open = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance in every place: uvloop has transports of its own.
        self.transport = cast("asyncio.Transport", transport)
        self._see("made")

    def eof_received(self) -> bool:
        self._see("eof")
        self.eof.set()
        return self.keep_open

    def pause_writing(self) -> None:
        self._see("pause")

    def resume_writing(self) -> None:
        self._see("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._see("lost")
        self.lost.set_result(exc)

    def _see(self, event: str) -> None:
        self.seen.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def received_bytes(self, count: int) -> bytes:
        await self.until(lambda: len(self.received) >= count)
        return bytes(self.received)


class Recorder(Observer, asyncio.Protocol):
    """Merges reads, whose borders mean nothing."""

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.seen[-1] != "data":
            self._see("data")
        self.changed.set()


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


@asynccontextmanager
async def connected(
    server_protocol: Callable[[], Observer] = Recorder,
    client_protocol: Callable[[], Observer] = Recorder,
) -> AsyncIterator[tuple[Observer, Observer]]:
    """A connection: the client's protocol and the server's."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Observer] = asyncio.Queue()

    def accept() -> Observer:
        protocol = server_protocol()
        accepted.put_nowait(protocol)
        return protocol

    server = await loop.create_server(accept, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    _, client = await loop.create_connection(client_protocol, HOST, port)
    accepting = await accepted.get()
    await accepting.until(lambda: bool(accepting.seen))
    try:
        yield client, accepting
    finally:
        server.close()
        for end in (client, accepting):
            # The test's result may hold the list; what follows is not part of it.
            end.seen = list(end.seen)
            # asyncio's `abort` fails after a close that had to flush.
            if not end.lost.done():
                end.transport.abort()
        # Not until they are lost: a test that failed must not hang as well.
        await asyncio.sleep(0.01)


def test_an_echo_comes_back_whole_whatever_its_size(run: Run) -> None:
    """All bytes arrive once and in order, however reads are split or merged."""

    async def body() -> list[bool]:
        outcomes = []
        async with connected(Echo) as (client, _):
            sent = b""
            for size in (1, 10, 1000, 70_000, 3 * MEGABYTE):
                payload = (b"%09d\n" % size) * (size // 10 + 1)
                sent += payload
                client.transport.write(payload)
                outcomes.append(await client.received_bytes(len(sent)) == sent)
        return outcomes

    assert run(body) == [True] * 5


def test_what_is_written_before_close_arrives_before_the_end(run: Run) -> None:
    """`close` flushes; both ends then see a clean end, each thing once and in order."""

    async def body() -> Any:
        async with connected() as (client, server):
            client.transport.write(b"x" * 3 * MEGABYTE)
            client.transport.close()
            closing = client.transport.is_closing()
            outcome = await asyncio.shield(client.lost), await asyncio.shield(server.lost)
            seen = [each for each in client.seen if each not in ("pause", "resume")]
            return closing, outcome, seen, server.seen, len(server.received)

    closing, outcome, client_seen, server_seen, received = run(body)
    assert closing
    assert outcome == (None, None)
    assert client_seen == ["made", "lost"]
    assert server_seen == ["made", "data", "eof", "lost"]
    assert received == 3 * MEGABYTE


def test_half_close_leaves_the_other_direction_open(run: Run) -> None:
    """After `write_eof`, an end whose peer keeps the connection still receives."""

    class KeepOpen(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.keep_open = True

    async def body() -> Any:
        async with connected(KeepOpen) as (client, server):
            client.transport.write(b"question")
            assert client.transport.can_write_eof()
            client.transport.write_eof()
            await server.eof.wait()
            server.transport.write(b"answer")
            answer = await client.received_bytes(6)
            still_open = not client.transport.is_closing(), not server.transport.is_closing()
            server.transport.close()
            lost = await asyncio.shield(client.lost), await asyncio.shield(server.lost)
            return bytes(server.received), answer, still_open, lost, client.seen, server.seen

    assert run(body) == (
        b"question",
        b"answer",
        (True, True),
        (None, None),
        ["made", "data", "eof", "lost"],
        ["made", "data", "eof", "lost"],
    )


def test_a_writer_is_paused_while_nobody_reads_and_resumed_after(run: Run) -> None:
    """`pause_writing` comes over the high mark of the buffer, `resume_writing` once it drained."""

    async def body() -> Any:
        async with connected() as (client, server):
            server.transport.pause_reading()
            reading_while_paused = server.transport.is_reading()
            client.transport.set_write_buffer_limits(high=100_000, low=10_000)
            written = 0
            while "pause" not in client.seen and written < 64 * MEGABYTE:
                client.transport.write(b"x" * 50_000)
                written += 50_000
                await asyncio.sleep(0)
            backlog = client.transport.get_write_buffer_size()
            received_while_paused = len(server.received)
            server.transport.resume_reading()
            await client.until(lambda: "resume" in client.seen)
            drained = client.transport.get_write_buffer_size()
            await server.received_bytes(written)
            return (
                reading_while_paused,
                client.transport.get_write_buffer_limits(),
                backlog > 100_000,
                received_while_paused,
                drained <= 10_000,
                client.seen,
                len(server.received) == written,
            )

    assert run(body) == (
        False,
        (10_000, 100_000),
        True,
        0,
        True,
        ["made", "pause", "resume"],
        True,
    )


def test_nothing_is_received_while_reading_is_paused(run: Run) -> None:
    """`pause_reading` holds back data until `resume_reading`, also from inside `data_received`."""

    class OneAtATime(Recorder):
        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            self.transport.pause_reading()
            super().data_received(data)

    async def body() -> Any:
        async with connected(OneAtATime) as (client, server):
            client.transport.write(b"first")
            first = await server.received_bytes(1)
            client.transport.write(b"second")
            await asyncio.sleep(0.05)
            held = bytes(server.received) == first
            while len(server.received) < 11:
                server.transport.resume_reading()
                await server.received_bytes(len(server.received) + 1)
            return held, bytes(server.received)

    assert run(body) == (True, b"firstsecond")


def test_the_end_of_the_stream_waits_for_a_paused_reader(run: Run) -> None:
    """A peer's close is not seen before what it sent is read."""

    async def body() -> Any:
        async with connected() as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"last words")
            client.transport.close()
            await asyncio.shield(client.lost)
            await asyncio.sleep(0.05)
            before = list(server.seen)
            server.transport.resume_reading()
            lost = await asyncio.shield(server.lost)
            return before, lost, server.seen, bytes(server.received)

    assert run(body) == (["made"], None, ["made", "data", "eof", "lost"], b"last words")


def test_connecting_to_a_port_without_a_server_is_refused(run: Run) -> None:
    """Refusal is an error of its own, and comes at once."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        started = loop.time()
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.create_connection(Recorder, HOST, port)
        return caught.value.errno, loop.time() - started < 5

    assert run(body) == (errno.ECONNREFUSED, True)


def test_a_port_is_bound_once(run: Run) -> None:
    """A second server on a port is refused, until the first is closed."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        first = await loop.create_server(Recorder, HOST, 0)
        port = first.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            await loop.create_server(Recorder, HOST, port)
        first.close()
        await first.wait_closed()
        second = await loop.create_server(Recorder, HOST, port)
        serving = first.is_serving(), second.is_serving()
        second.close()
        return caught.value.errno, serving

    assert run(body) == (errno.EADDRINUSE, (False, True))


def test_closing_a_server_leaves_its_connections(run: Run) -> None:
    """`Server.close` ends listening, nothing else."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        _, client = await loop.create_connection(Recorder, HOST, port)
        client.transport.write(b"ping")
        await client.received_bytes(4)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, HOST, port)
        client.transport.write(b"pong")
        answer = await client.received_bytes(8)
        client.transport.close()
        await client.lost
        return answer

    assert run(body) == b"pingpong"


def test_abort_loses_the_connection_at_both_ends(run: Run) -> None:
    """`abort` ends it here without an error and drops what was buffered; the peer sees an end."""

    async def body() -> Any:
        async with connected() as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"x" * 32 * MEGABYTE)
            client.transport.abort()
            lost = await asyncio.shield(client.lost)
            server.transport.resume_reading()
            await asyncio.shield(server.lost)
            return lost, client.seen, 0 < len(server.received) < 32 * MEGABYTE

    assert run(body) == (None, ["made", "pause", "lost"], True)


def test_closing_with_unread_bytes_resets_the_peer(run: Run) -> None:
    """A reader is told that its words were thrown away: a reset, not a clean end."""

    async def body() -> Any:
        async with connected() as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"never read")
            # Wait until it lies in the server's kernel.
            await asyncio.sleep(0.1)
            server.transport.abort()
            error = await asyncio.shield(client.lost)
            return type(error).__name__, getattr(error, "errno", None), client.seen

    assert run(body) == ("ConnectionResetError", errno.ECONNRESET, ["made", "lost"])


def test_writing_to_a_peer_that_is_gone_fails_in_the_end(run: Run) -> None:
    """A peer that closed answers what still comes with a reset; that ends the connection."""

    class KeepOpen(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.keep_open = True

    async def body() -> Any:
        async with connected(Recorder, KeepOpen) as (client, server):
            server.transport.abort()
            await client.eof.wait()
            while not client.lost.done():
                client.transport.write(b"anyone there?")
                await asyncio.sleep(0.01)
            return type(client.lost.result()), client.seen

    assert run(body) == (BrokenPipeError, ["made", "eof", "lost"])


def test_closing_twice_does_nothing(run: Run) -> None:
    """`close` may be called again, also after `connection_lost`, which comes once."""

    async def body() -> Any:
        async with connected() as (client, server):
            client.transport.write(b"in time")
            client.transport.close()
            client.transport.close()
            await asyncio.shield(client.lost)
            client.transport.close()
            await asyncio.shield(server.lost)
            return bytes(server.received), client.seen, client.transport.is_closing()

    assert run(body) == (b"in time", ["made", "lost"], True)


def test_a_buffered_protocol_receives_into_its_own_buffer(run: Run) -> None:
    """`get_buffer` and `buffer_updated` see every byte, with a buffer smaller than the data."""

    class Buffered(Observer, asyncio.BufferedProtocol):
        def __init__(self) -> None:
            super().__init__()
            self.buffer = bytearray(1000)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]
            self.changed.set()

    async def body() -> Any:
        payload = bytes(range(256)) * 100
        async with connected(Buffered) as (client, server):
            client.transport.write(payload)
            received = await server.received_bytes(len(payload))
            client.transport.close()
            return received == payload, await asyncio.shield(server.lost), server.seen

    assert run(body) == (True, None, ["made", "eof", "lost"])


def test_writelines_is_one_stream_with_write(run: Run) -> None:
    """Chunks arrive in order, between writes before and after, also when they do not fit."""

    async def body() -> Any:
        async with connected() as (client, server):
            chunks = [b"%06d" % number * 100 for number in range(2000)]
            client.transport.write(b"<")
            client.transport.writelines(chunks)
            client.transport.writelines([bytearray(b"a"), memoryview(b"b")])
            client.transport.write(b">")
            expected = b"<" + b"".join(chunks) + b"ab>"
            return await server.received_bytes(len(expected)) == expected

    assert run(body) is True


def test_addresses_and_socket_options(run: Run) -> None:
    """Each end's peer is the other end's own address; options of the socket can be set."""

    async def body() -> Any:
        async with connected() as (client, server):
            ends = client.transport, server.transport
            sockets = [end.get_extra_info("socket") for end in ends]
            for sock in sockets:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000)
            return (
                client.transport.get_extra_info("peername")
                == server.transport.get_extra_info("sockname"),
                client.transport.get_extra_info("sockname")
                == server.transport.get_extra_info("peername"),
                [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for sock in sockets],
                client.transport.get_extra_info("no such thing", "default"),
                client.transport.get_protocol() is client,
            )

    assert run(body) == (True, True, [3000, 3000], "default", True)


def test_a_failing_protocol_loses_its_connection(run: Run) -> None:
    """An exception out of `data_received` is reported, and ends that connection with it."""

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def body() -> Any:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        async with connected(Failing) as (client, server):
            client.transport.write(b"x")
            error = await asyncio.shield(server.lost)
            await asyncio.shield(client.lost)
            return reported, repr(error)

    assert run(body) == (["ZeroDivisionError()"], "ZeroDivisionError()")


def test_a_cancelled_connect_leaves_nothing_behind(run: Run) -> None:
    """Who gives up connecting is not called any more; the server sees an end at most."""

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        accepted: list[Recorder] = []

        def accept() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        made: list[Recorder] = []

        def make() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(accept, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(loop.create_connection(make, HOST, port))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.sleep(0.1)
        server.close()
        # uvloop makes the protocol before it connects.
        used = [protocol for protocol in made if protocol.seen]
        return used, [await protocol.lost for protocol in accepted]

    used, lost = run(body)
    assert used == []
    assert lost in ([], [None])


def test_streams_work_on_top(run: Run) -> None:
    """`open_connection` and `start_server`, which use most of the transport, work."""

    async def body() -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, HOST, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"one\ntwo\n")
            lines = [await reader.readline() for _ in range(2)]
            writer.write_eof()
            rest = await reader.read()
            writer.close()
            await writer.wait_closed()
        return lines, rest

    assert run(body) == ([b"ONE\n", b"TWO\n"], b"")
