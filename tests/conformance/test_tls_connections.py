"""A connection with TLS behaves as one without, for the protocol above it, on both real loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Dialler, Papers
from places import PLACES, Run
from test_connections import HOST, MEGABYTE, Echo, Observer, Recorder

from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.tls import TlsError, TlsListener, dial_tls
from ssgovern.transport.tls_context import dialling_context
from ssgovern.wire.frames import Frame, Kind, encode_frame

PLAIN_ANSWER = b"this port speaks TLS"


@pytest.fixture(params=["stock", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return PLACES[request.param]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("tls"))


class Site:
    """A listener, its port, and the protocols it made."""

    def __init__(self, listener: TlsListener, port: int) -> None:
        self.listener = listener
        self.port = port
        self.accepted: asyncio.Queue[Any] = asyncio.Queue()


@asynccontextmanager
async def listening(
    papers: Papers,
    make: Callable[[], Any] = Recorder,
    demand: ssl.VerifyMode = ssl.CERT_NONE,
    **bounds: int,
) -> AsyncIterator[Site]:
    context = papers.listening(demand)
    site = Site(TlsListener(lambda: context, **bounds), 0)

    def accept() -> Any:
        protocol = make()
        site.accepted.put_nowait(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    server = await loop.create_server(site.listener.accepting(accept, PLAIN_ANSWER), HOST, 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        site.listener.stop()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(
    papers: Papers,
    server_protocol: Callable[[], Observer] = Recorder,
    client_protocol: Callable[[], Observer] = Recorder,
) -> AsyncIterator[tuple[Any, Any]]:
    async with listening(papers, server_protocol) as site:
        client: Any = await dial_tls(client_protocol, HOST, site.port, papers.dialler())  # type: ignore[type-var]
        accepted = await site.accepted.get()
        try:
            yield client, accepted
        finally:
            for end in (client, accepted):
                end.seen = list(end.seen)
                if not end.lost.done():
                    end.transport.abort()
            await asyncio.sleep(0.01)


# --- as without ----------------------------------------------------------------------------


def test_an_echo_comes_back_whole_whatever_its_size(run: Run, papers: Papers) -> None:
    """All bytes arrive once and in order, however records are cut."""

    async def body() -> list[bool]:
        outcomes = []
        async with connected(papers, Echo) as (client, _):
            sent = b""
            for size in (1, 10, 16384, 16385, 70_000, 3 * MEGABYTE):
                payload = (b"%09d\n" % size) * (size // 10 + 1)
                sent += payload
                client.transport.write(payload)
                outcomes.append(await client.received_bytes(len(sent)) == sent)
            client.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
            outcomes.append((await client.received_bytes(len(sent) + 3)).endswith(b"abc"))
        return outcomes

    assert run(body) == [True] * 7


def test_what_is_written_before_close_arrives_before_the_end(run: Run, papers: Papers) -> None:
    """`close` flushes; both ends then see a clean end, each thing once and in order."""

    async def body() -> Any:
        async with connected(papers) as (client, server):
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


def test_a_writer_is_paused_while_nobody_reads_and_all_that_waits_is_counted(
    run: Run, papers: Papers
) -> None:
    """What waits to be sent is what the socket did not take, to the last record of it."""

    async def body() -> Any:
        async with connected(papers) as (client, server):
            server.transport.pause_reading()
            client.transport.set_write_buffer_limits(high=100_000, low=10_000)
            written = 0
            while "pause" not in client.seen and written < 64 * MEGABYTE:
                client.transport.write(b"x" * 50_000)
                written += 50_000
                await asyncio.sleep(0)
            before = client.transport.get_write_buffer_size()
            client.transport.write(b"x" * 2 * MEGABYTE)
            written += 2 * MEGABYTE
            grown = client.transport.get_write_buffer_size() - before
            held = len(server.received)
            server.transport.resume_reading()
            await client.until(lambda: "resume" in client.seen)
            drained = client.transport.get_write_buffer_size()
            await server.received_bytes(written)
            return before > 100_000, grown, held, drained <= 10_000, len(server.received) == written

    counted, grown, held, drained, whole = run(body)
    assert counted
    assert 2 * MEGABYTE <= grown < 2.1 * MEGABYTE
    assert held == 0
    assert drained
    assert whole


def test_nothing_is_received_while_reading_is_paused(run: Run, papers: Papers) -> None:
    """`pause_reading` holds back data until `resume_reading`, also from inside `data_received`."""

    class OneAtATime(Recorder):
        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            self.transport.pause_reading()
            super().data_received(data)

    async def body() -> Any:
        async with connected(papers, OneAtATime) as (client, server):
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


def test_reading_may_be_paused_before_anything_came(run: Run, papers: Papers) -> None:
    """What arrives together with the end of the handshake waits for a reader that is not ready."""

    class NotYet(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    class Eager(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"hello")

    async def body() -> Any:
        async with connected(papers, NotYet, Eager) as (_, server):
            await asyncio.sleep(0.05)
            held = bytes(server.received)
            server.transport.resume_reading()
            return held, await server.received_bytes(5)

    assert run(body) == (b"", b"hello")


def test_abort_loses_the_connection_at_both_ends(run: Run, papers: Papers) -> None:
    """`abort` ends it here without an error and drops what was buffered; the peer sees an end."""

    async def body() -> Any:
        async with connected(papers) as (client, server):
            server.transport.pause_reading()
            client.transport.write(b"x" * 32 * MEGABYTE)
            client.transport.abort()
            lost = await asyncio.shield(client.lost)
            server.transport.resume_reading()
            await asyncio.shield(server.lost)
            return lost, client.seen, 0 < len(server.received) < 32 * MEGABYTE

    assert run(body) == (None, ["made", "pause", "lost"], True)


def test_a_failing_protocol_loses_its_connection(run: Run, papers: Papers) -> None:
    """An exception out of `data_received` is reported, and ends that connection with it."""

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def body() -> Any:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        async with connected(papers, Failing) as (client, server):
            client.transport.write(b"x")
            error = await asyncio.shield(server.lost)
            await asyncio.shield(client.lost)
            return reported, repr(error)

    assert run(body) == (["ZeroDivisionError()"], "ZeroDivisionError()")


def test_what_is_known_of_the_connection(run: Run, papers: Papers) -> None:
    """Addresses are those of the socket; that there is TLS, and whose certificate, can be seen."""

    async def body() -> Any:
        async with connected(papers) as (client, server):
            ends = client.transport, server.transport
            return (
                ends[0].get_extra_info("peername") == ends[1].get_extra_info("sockname"),
                [each.get_extra_info("sslcontext") is not None for each in ends],
                bool(ends[0].get_extra_info("peercert")),
                bool(ends[1].get_extra_info("peercert")),
                ends[0].get_extra_info("ssl_object").version(),
                ends[0].get_extra_info("no such thing", "default"),
                ends[0].can_write_eof(),
            )

    assert run(body) == (True, [True, True], True, False, "TLSv1.3", "default", False)


class Frames(FrameConnection):
    """Collects frames; answers each with its own body if it is told to."""

    def __init__(self, *, answers: bool = False) -> None:
        super().__init__(body_bytes_max=8 * MEGABYTE)
        self.answers = answers
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self.successor: FrameConnection | None = None
        self.closed = asyncio.Event()

    def on_frame(self, frame: Frame) -> None:
        self.bodies.put_nowait(frame[4])
        if self.answers:
            self.send_all([encode_frame(Kind.PUSH, 1, 1, frame[4])])
        if self.successor is not None:
            self.hand_over(self.successor)

    def on_closed(self, cause: Exception | None) -> None:
        self.closed.set()


def test_large_frames_pass_whole_and_a_connection_can_be_handed_over(
    run: Run, papers: Papers
) -> None:
    """A frame of many records is one frame, and another protocol may go on with the connection."""

    async def body() -> Any:
        async with listening(papers, Frames) as site:
            client = await dial_tls(
                lambda: Frames(answers=False), HOST, site.port, papers.dialler()
            )
            server = await site.accepted.get()
            server.successor = Frames(answers=True)
            large = bytes(range(256)) * 4096 * 5
            client.send(encode_frame(Kind.PUSH, 1, 1, large))
            first = await server.bodies.get()
            client.send(encode_frame(Kind.PUSH, 1, 1, b"to the next"))
            answer = await client.bodies.get()
            is_open = client.is_open, server.is_open, server.closed.is_set()
            client.close()
            await server.successor.closed.wait()
            await client.closed.wait()
            return first == large, answer, is_open, client.is_open, client.outbound_bytes

    assert run(body) == (True, b"to the next", (True, False, True), False, 0)


# --- refusals ------------------------------------------------------------------------------


async def refused(site: Site, dialler: Dialler, host: str = HOST) -> str:
    with pytest.raises(TlsError) as caught:
        await dial_tls(Recorder, host, site.port, dialler)
    return str(caught.value)


def test_who_is_not_whom_one_trusts_is_not_talked_to(
    run: Run, papers: Papers, tmp_path: Path
) -> None:
    """Another CA, or another name, ends the dial with words for it, and the listener counts it."""

    async def body() -> Any:
        other = Papers(tmp_path / "other", "another CA")
        async with listening(papers) as site:
            stranger = await refused(site, other.dialler())
            misnamed = Dialler(papers.dialler().context)
            misnamed.trust = lambda host, port: Dialler.trust(misnamed, "example.org", port)  # type: ignore[method-assign]
            name = await refused(site, misnamed)
            while site.listener.handshakes_failed < 2:
                await asyncio.sleep(0.01)
            return stranger, name, site.listener.handshakes, site.accepted.qsize()

    stranger, name, handshakes, accepted = run(body)
    assert "not signed by a CA that is trusted here" in stranger
    assert "its certificate is not for example.org" in name
    assert (handshakes, accepted) == (0, 0)


def test_who_has_to_show_a_certificate_and_does_not_reads_why(
    run: Run, papers: Papers, tmp_path: Path
) -> None:
    """With TLS 1.3 the dialler is through before it is refused: the connection's end says why."""

    async def body() -> Any:
        other = Papers(tmp_path / "other", "another CA")
        foreign = Dialler(dialling_context(str(papers.ca), other.client))
        causes = []
        async with listening(papers, Recorder, ssl.CERT_REQUIRED) as site:
            for dialler in (papers.dialler(), foreign):
                client = await dial_tls(Recorder, HOST, site.port, dialler)
                client.transport.write(b"x" * 1000)
                causes.append(str(await client.lost))
            admitted = await dial_tls(Recorder, HOST, site.port, papers.dialler(shown=True))
            server = await site.accepted.get()
            names = server.transport.get_extra_info("peercert")["subject"]
            admitted.transport.close()
            await admitted.lost
            await server.lost
        return causes, names

    (nothing, foreign), names = run(body)
    assert "it wants a certificate from this side" in nothing
    assert "it does not trust the CA that signed this side's certificate" in foreign
    assert names == ((("commonName", "client"),),)


def test_who_comes_without_tls_is_told_in_its_own_protocol(run: Run, papers: Papers) -> None:
    """A listener answers what is no TLS with words that its sender can read, and closes."""

    async def body() -> Any:
        async with listening(papers) as site:
            reader, writer = await asyncio.open_connection(HOST, site.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer, site.accepted.qsize(), site.listener.handshakes_failed

    assert run(body) == (PLAIN_ANSWER, 0, 1)


def test_a_port_without_tls_is_recognised(run: Run, papers: Papers) -> None:
    """Whoever answers a handshake with something else, or by closing, is said to do so."""

    class Rude(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"\0\0\0\x08what?")

    class Gone(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.close()

    async def body() -> Any:
        loop = asyncio.get_running_loop()
        causes = []
        for make in (Rude, Gone):
            server = await loop.create_server(make, HOST, 0)
            site = Site(TlsListener(papers.listening), server.sockets[0].getsockname()[1])
            causes.append(await refused(site, papers.dialler()))
            server.close()
        await asyncio.sleep(0.01)
        return causes

    rude, gone = run(body)
    assert rude == "it does not speak TLS"
    assert "does it speak TLS?" in gone


def test_garbage_amid_records_ends_the_connection_with_an_error(run: Run, papers: Papers) -> None:
    """What cannot be decrypted is never handed on."""

    async def body() -> Any:
        async with connected(papers) as (client, server):
            raw = client.transport.get_extra_info("socket")
            duplicate = socket.socket(fileno=socket.dup(raw.fileno()))
            duplicate.setblocking(True)
            duplicate.sendall(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
            duplicate.close()
            return repr(await asyncio.shield(server.lost)), bytes(server.received)

    error, received = run(body)
    assert error.startswith("TlsError(")
    assert received == b""


def test_handshakes_under_way_are_limited(run: Run, papers: Papers) -> None:
    """One connection more than may be shaking hands is closed at once, the others are kept."""

    async def body() -> Any:
        async with listening(papers, handshakes_max=2) as site:
            idle = [await asyncio.open_connection(HOST, site.port) for _ in range(2)]
            reader, writer = await asyncio.open_connection(HOST, site.port)
            ended = await reader.read()
            for _, each in [*idle, (reader, writer)]:
                each.close()
                await each.wait_closed()
            while site.listener.handshakes_failed < 3:
                await asyncio.sleep(0.01)
            client = await dial_tls(Recorder, HOST, site.port, papers.dialler())
            client.transport.close()
            await client.lost
            await (await site.accepted.get()).lost
            return ended, site.listener.handshakes

    assert run(body) == (b"", 1)


def test_a_handshake_that_does_not_end_is_ended(run: Run, papers: Papers) -> None:
    """Who connects and says nothing is closed after the time for handshakes."""

    async def body() -> Any:
        async with listening(papers, handshake_ms=50) as site:
            reader, writer = await asyncio.open_connection(HOST, site.port)
            ended = await reader.read()
            writer.close()
            await writer.wait_closed()
            return ended, site.listener.handshakes_failed

    assert run(body) == (b"", 1)
