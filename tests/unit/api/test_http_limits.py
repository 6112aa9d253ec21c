"""The HTTP port against clients that send too much, too slowly, too often, or not HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from web import Site, in_loop

from ssgovern import limits
from ssgovern.api.http.server import Bounds, HttpServer

LIVE = b"GET /healthz/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


class Port:
    """A port that serves, and what clients do to it."""

    def __init__(self, site: Site, server: HttpServer, port: int) -> None:
        self.site = site
        self.server = server
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *pieces: bytes) -> bytes:
        """Send pieces, read until the port closes; return what it said."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        said = await reader.read()
        writer.close()
        return said


@asynccontextmanager
async def serving(bounds: Bounds) -> AsyncIterator[Port]:
    site = Site()
    server = HttpServer(site.front, lambda: 1_700_000_000_000, bounds)
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield Port(site, server, port)
    finally:
        await server.stop()
        assert len(server) == 0
        # The far ends see the close.
        await asyncio.sleep(0.01)


def on_port(body: Callable[[Port], Awaitable[None]], **bounds: int) -> None:
    async def run() -> None:
        async with serving(Bounds(**bounds)) as port:
            await body(port)

    in_loop(run)


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


def test_a_connection_may_ask_again() -> None:
    """Two requests at once, and their answers in order; the date is the node's."""

    async def body(port: Port) -> None:
        said = await port.say(LIVE + LIVE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert said.count(b"HTTP/1.1 200 OK") == 2
        assert b"date: Tue, 14 Nov 2023 22:13:20 GMT" in said
        assert port.site.front.answers[2] == 2

    on_port(body)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * (1 << 20),
        b"GET / HTTP/1.1\r\nx: " + b"a" * (limits.HTTP_HEAD_BYTES_MAX + 1) + b"\r\n\r\n",
        b"GET /" + b"a" * (1 << 20),
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
    ],
    ids=["endless header", "long header", "long path", "many headers"],
)
def test_a_head_that_is_too_large_is_refused_before_it_ends(head: bytes) -> None:
    """Whatever it is large by; and the client can read why although it still sends."""

    async def body(port: Port) -> None:
        said = await port.say(head)
        assert status_of(said) == 431
        assert b'"code":2' in said
        assert port.server.refused == 1

    on_port(body)


def test_the_largest_head_passes() -> None:
    """The limit refuses what is beyond it, not what reaches it."""

    async def body(port: Port) -> None:
        room = limits.HTTP_HEAD_BYTES_MAX - 200
        close = b"\r\nconnection: close\r\nx: " + b"a" * room + b"\r\n\r\n"
        said = await port.say(LIVE.replace(b"\r\n\r\n", close))
        assert status_of(said) == 200

    on_port(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz/live HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n" + b"a" * 1_000_000,
        b"GET /healthz/live HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        b"10000\r\n" + b"a" * 0x10000 + b"\r\n" + b"10000\r\n" + b"a" * 0x10000 + b"\r\n",
    ],
    ids=["announced", "chunked"],
)
def test_a_body_that_is_too_large_is_cut_off(request_: bytes) -> None:
    """Nothing here reads bodies, and nobody's is kept."""

    async def body(port: Port) -> None:
        said = await port.say(request_)
        assert not said or status_of(said) in (200, 413)
        assert port.server.refused == 1

    on_port(body)


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    """With a reason, and before anything is answered."""

    async def body(port: Port) -> None:
        said = await port.say(b"GET /healthz/live HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
        assert status_of(said) == 413
        assert port.site.front.answers[2] == 0

    on_port(body)


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"hello\r\n\r\n", b"GET  HTTP/9\r\n\r\n"]
)
def test_what_is_not_http_is_refused(nonsense: bytes) -> None:
    """TLS to the wrong port, for one."""

    async def body(port: Port) -> None:
        said = await port.say(nonsense)
        assert status_of(said) == 400
        assert b"application/problem+json" in said

    on_port(body)


def test_a_head_that_comes_too_slowly_is_refused() -> None:
    """A client that sends a byte now and then holds nothing for long."""

    async def body(port: Port) -> None:
        reader, writer = await port.connect()
        said = asyncio.ensure_future(reader.read())
        for byte in b"GET /healthz/live HTTP/1.1\r\nx: " + b"a" * 1000:
            if said.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert status_of(await said) == 408
        writer.close()

    on_port(body, head_ms=300)


def test_who_says_nothing_is_sent_away() -> None:
    """Neither at the beginning nor after a request."""

    async def body(port: Port) -> None:
        assert await port.say() == b""
        said = await port.say(LIVE)
        assert status_of(said) == 200
        assert len(port.server) == 0

    on_port(body, head_ms=100, idle_ms=100)


def test_who_does_not_read_is_cut_off() -> None:
    """Answers that nobody takes are not kept for ever, and stop further requests."""

    async def body(port: Port) -> None:
        _, writer = await port.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = LIVE.replace(b"/healthz/live", b"/api/v1/cluster/shards")
        writer.write(request * 4000)
        while len(port.server):
            await asyncio.sleep(0.02)
        assert port.site.front.answers[2] < 4000
        writer.transport.abort()

    on_port(body, request_ms=300, idle_ms=300)


def test_one_connection_too_many_is_told_so() -> None:
    """Those that are there do not notice."""

    async def body(port: Port) -> None:
        first_reader, first = await port.connect()
        _, second = await port.connect()
        while len(port.server) < 2:
            await asyncio.sleep(0.01)
        assert status_of(await port.say()) == 503
        first.write(LIVE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert status_of(await first_reader.read()) == 200
        first.close()
        second.close()

    on_port(body, connections_max=2)


def test_stopping_leaves_nothing_behind() -> None:
    """Idle, half a request, an answer nobody reads: all are gone when `stop` returns."""

    async def body(port: Port) -> None:
        _, idle = await port.connect()
        _, half = await port.connect()
        half.write(LIVE[:20])
        _, deaf = await port.connect()
        deaf.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.write(LIVE.replace(b"/healthz/live", b"/api/v1/cluster/shards") * 2000)
        while len(port.server) < 3 or not port.site.front.answers[2]:
            await asyncio.sleep(0.01)
        await port.server.stop()
        assert len(port.server) == 0
        for writer in (idle, half, deaf):
            writer.transport.abort()

    on_port(body)
