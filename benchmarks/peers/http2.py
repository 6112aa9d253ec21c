"""Just enough HTTP/2 and gRPC to call one unary method over and over, as fast as can be.

Compression state: the first request on a connection enters its four literal headers into
the peer's table (as any gRPC client does); from then on every request is the same six
bytes of references, so nothing is ever encoded again and only the stream id differs.
The peer's encoder settles in the same way: its first trailers are literal and must spell
`grpc-status: 0`; the settled form is taken from the first trailers made of references
alone, and every later answer must equal it byte for byte. Thus each answer's status is
checked without a decoder.

Refuses to know: streaming, pushes, continuation frames, headers above one frame.
"""

import asyncio
import struct
from time import perf_counter

from benchmarks.load import ClosedLoop, Tally

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_HEADER_BYTES = 9

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_MAX = 2**31 - 1
_WINDOW_DEFAULT = 65_535
_WINDOW_REFILL = 2**29
_STREAM_ID_MAX = 2**31 - 1

# RFC 7541, Appendix A: indices into the static table.
_METHOD_POST, _SCHEME_HTTP = b"\x83", b"\x86"
_AUTHORITY, _PATH, _CONTENT_TYPE = 1, 4, 31
_INDEXED, _ADD_LITERAL = 0x80, 0x40
# The table's newest entry is 62; the four of the opening are the last ever entered.
_SETTLED = _METHOD_POST + _SCHEME_HTTP + bytes(_INDEXED | i for i in (65, 64, 63, 62))
_STATUS_OK = b"\x40\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x01\x30"
"""`grpc-status: 0`, entered as a literal, the name in Huffman code as encoders write it."""


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Encode one frame."""
    return len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body


class _Request:
    """The bytes of a request around what differs: the stream id, twice, and the number."""

    def __init__(self, block: bytes, before: bytes, digits: int, after: bytes) -> None:
        length = len(before) + digits + len(after)
        self.data_bytes = 5 + length
        self._head = frame(HEADERS, _END_HEADERS, 0, block)[:5]
        data_head = frame(DATA, _END_STREAM, 0, bytes(self.data_bytes))[:5]
        self._middle = block + data_head
        self._before = b"\x00" + struct.pack(">I", length) + before
        self._after = after
        self._digits = b"%%0%dd" % digits
        self._pack = struct.Struct(
            f">5sI{len(self._middle)}sI{len(self._before)}s{digits}s{len(after)}s"
        ).pack

    def encode(self, stream: int, number: int) -> bytes:
        return self._pack(
            self._head,
            stream,
            self._middle,
            stream,
            self._before,
            self._digits % number,
            self._after,
        )


class UnaryClient(ClosedLoop):
    """Calls one gRPC method with messages that differ only in a number of fixed width.

    A message is `before + number + after`. `last_message` is the most recent answer's body.
    """

    def __init__(
        self,
        tally: Tally,
        in_flight: int,
        *,
        authority: str,
        method: str,
        before: bytes,
        digits: int,
        after: bytes,
    ) -> None:
        super().__init__(tally, in_flight)
        self.last_message = b""
        opening = _opening_block(authority.encode(), method.encode())
        self._opening = _Request(opening, before, digits, after)
        self._request = _Request(_SETTLED, before, digits, after)
        self._number_end = 10**digits
        self._number = 0
        self._stream = 1
        self._owed = 0
        self._send_window = _WINDOW_DEFAULT
        self._unreported_bytes = 0
        self._tail = b""
        self._opened = False
        self._settled_trailers = b""
        self._sent_at: dict[int, float] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        window = struct.pack(">I", _WINDOW_MAX - _WINDOW_DEFAULT)
        self._write(_PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, window))

    def issue(self, count: int) -> None:
        allowed = self._send_window // self._request.data_bytes
        if count > allowed:
            # The peer's window opens again with a WINDOW_UPDATE; what is owed goes then.
            self._owed += count - allowed
            count = allowed
        first, number = self._stream, self._number
        after_last = first + 2 * count
        if after_last > _STREAM_ID_MAX or number + count > self._number_end:
            self.refuse("connection is used up: no more stream ids or numbers")
            return
        self._stream, self._number = after_last, number + count
        self._send_window -= count * self._request.data_bytes
        streams = range(first, after_last, 2)
        self._sent_at.update(dict.fromkeys(streams, perf_counter()))
        encode = self._request.encode
        requests = [encode(stream, number + i) for i, stream in enumerate(streams)]
        if first == 1 and requests:
            requests[0] = self._opening.encode(first, number)
        self._write(b"".join(requests))

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        at, end, done = 0, len(data), 0
        now = perf_counter()
        # The two frames that make up nearly everything are handled in line: a call per
        # frame would be a third of what a request costs here.
        while end - at >= _HEADER_BYTES:
            body = at + _HEADER_BYTES
            after = body + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
            if after > end:
                break
            kind = data[at + 3]
            if kind == HEADERS:
                if data[at + 4] & _END_STREAM:
                    if data[body:after] != self._settled_trailers:
                        self._unusual_trailers(data[body:after])
                    done += 1
                    self._note_latency(data[at + 5 : body], now)
            elif kind == DATA:
                self.last_message = data[body + 5 : after]
                self._unreported_bytes += after - body
            else:
                self._control(kind, data[at + 4], data[body:after])
            at = after
        self._tail = data[at:]
        if self._unreported_bytes > _WINDOW_REFILL:
            self._write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unreported_bytes)))
            self._unreported_bytes = 0
        if done:
            self.answered(done)

    def _note_latency(self, stream: bytes, now: float) -> None:
        sent = self._sent_at.pop(int.from_bytes(stream, "big"), None)
        if sent is None:
            self.refuse("answer on a stream that has no request")
        elif self.tally.sampling:
            self.tally.latencies.append(now - sent)

    def _unusual_trailers(self, block: bytes) -> None:
        if not self._opened and _STATUS_OK in block:
            self._opened = True
        elif self._opened and not self._settled_trailers and all(b & _INDEXED for b in block):
            self._settled_trailers = block
        else:
            self.refuse(f"answer is not grpc-status 0; its trailers are {block!r}")

    def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == WINDOW_UPDATE:
            # Those of single streams do not matter: no request comes near 64 KiB.
            self._window_opens(struct.unpack(">I", body)[0])
        elif kind == PING:
            if not flags & _ACK:
                self._write(frame(PING, _ACK, 0, body))
        elif kind == SETTINGS:
            if not flags & _ACK:
                self._write(frame(SETTINGS, _ACK, 0, b""))
                if not self.ready.done():
                    self.ready.set_result(None)
        else:
            self.refuse(f"unexpected frame {kind} with body {body[:80]!r}")

    def _window_opens(self, credit: int) -> None:
        self._send_window += credit
        if self._owed:
            owed, self._owed = self._owed, 0
            self.issue(owed)

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


def _opening_block(authority: bytes, method: bytes) -> bytes:
    return b"".join(
        (
            _METHOD_POST,
            _SCHEME_HTTP,
            bytes([_ADD_LITERAL | _PATH]) + _literal(method),
            bytes([_ADD_LITERAL | _AUTHORITY]) + _literal(authority),
            bytes([_ADD_LITERAL | _CONTENT_TYPE]) + _literal(b"application/grpc"),
            bytes([_ADD_LITERAL]) + _literal(b"te") + _literal(b"trailers"),
        )
    )


def _literal(text: bytes) -> bytes:
    assert len(text) < 0x7F, "longer strings need a multi-byte length"
    return bytes([len(text)]) + text
