"""The HTTP port never lets what it reads reach the loop as a failure, whatever it reads."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from web import Site, in_loop

from ssgovern.api.http.server import Bounds, HttpServer

_PIECES = st.sampled_from(
    [
        b"GET /healthz/live HTTP/1.1\r\n",
        b"HEAD /api/v1/status HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://[::1/%zz?%FF#x HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"host: 127.0.0.1\r\n",
        b"host: [\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n",
        b"connection: close\r\n",
        b"expect: 100-continue\r\n",
        b"content-length: 5\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"content-length: -1\r\n",
        b"transfer-encoding: chunked\r\n",
        b"accept: application/openmetrics-text; version=\xff\r\n",
        b"if-none-match: \x01\r\n",
        b"\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"\x00",
        b"a" * 20_000,
    ]
)


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=40)), max_size=12), st.booleans())
def test_no_bytes_are_a_fault_of_ours(pieces: list[bytes], at_once: bool) -> None:
    """In one piece or in many: an answer or a close, and the next client is served."""
    faults: list[object] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        site = Site()
        server = HttpServer(site.front, lambda: 0, Bounds(head_ms=50, request_ms=50, idle_ms=50))
        _, port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in [b"".join(pieces)] if at_once else pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
            await reader.read()
        except ConnectionError:
            pass
        writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz/live HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await server.stop()
        await asyncio.sleep(0.001)

    in_loop(body)
    assert not faults, faults
