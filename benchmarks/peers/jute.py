"""Just enough of ZooKeeper's client protocol: open a session, create znodes, count children.

Messages are the records of zookeeper.jute, big-endian, each behind its length. A server
answers the requests of one connection in their order, so an answer belongs to the oldest
request outstanding; its xid must say so too, and its error must be 0.
"""

import asyncio
import struct
from collections import deque
from itertools import repeat
from time import perf_counter

from benchmarks.load import ClosedLoop, Tally

CREATE, EXISTS = 1, 3
PERSISTENT = 0
NO_NODE, NODE_EXISTS = -101, -110
_SESSION_MS = 30_000
# world:anyone may do all (ZooDefs.Ids.OPEN_ACL_UNSAFE).
_OPEN_ACL = struct.pack(">ii", 1, 31) + struct.pack(">i", 5) + b"world"
_OPEN_ACL += struct.pack(">i", 6) + b"anyone"
_XID_MAX = 2**31 - 1
_XID_WATCH, _XID_PING = -1, -2

_reply = struct.Struct(">iiqi").unpack_from
_REPLY_BYTES = 20


def text(value: bytes) -> bytes:
    """Encode a ustring or a buffer."""
    return struct.pack(">i", len(value)) + value


def packet(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def connect_request() -> bytes:
    """Encode the request for a new session (no read-only server accepted)."""
    return packet(struct.pack(">iqiq", 0, 0, _SESSION_MS, 0) + text(bytes(16)) + b"\x00")


def create_request(xid: int, path: bytes, value: bytes) -> bytes:
    """Encode a create of a persistent znode."""
    body = text(path) + text(value) + _OPEN_ACL + struct.pack(">i", PERSISTENT)
    return packet(struct.pack(">ii", xid, CREATE) + body)


def exists_request(xid: int, path: bytes) -> bytes:
    return packet(struct.pack(">ii", xid, EXISTS) + text(path) + b"\x00")


def children(stat: bytes) -> int:
    """Return numChildren of a Stat record."""
    number: int = struct.unpack_from(">qqqqiiiqii", stat)[9]
    return number


class CreateClient(ClosedLoop):
    """Creates znodes whose paths differ only in a number of fixed width, for ever."""

    def __init__(
        self, tally: Tally, in_flight: int, *, prefix: bytes, digits: int, value: bytes
    ) -> None:
        super().__init__(tally, in_flight)
        whole = create_request(0, prefix + bytes(digits), value)
        start = 4 + 4 + 4 + 4 + len(prefix)
        self._head = whole[:4]
        self._before = whole[8:start]
        self._after = whole[start + digits :]
        self._digits = b"%%0%dd" % digits
        self._pack = struct.Struct(f">4si{len(self._before)}s{digits}s{len(self._after)}s").pack
        self._number_end = min(10**digits, _XID_MAX)
        self._sent = 0
        self._answers = 0
        self._sent_at: deque[float] = deque()
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write(connect_request())

    def issue(self, count: int) -> None:
        first = self._sent
        self._sent += count
        if self._sent >= self._number_end:
            self.refuse("connection is used up: no more numbers")
            return
        self._sent_at.extend(repeat(perf_counter(), count))
        pack, head, before, after = self._pack, self._head, self._before, self._after
        digits = self._digits
        self._write(
            b"".join([pack(head, n, before, digits % n, after) for n in range(first, self._sent)])
        )

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        at, end, done = 0, len(data), 0
        if not self.ready.done():
            at = self._session_opened(data)
        now, sampling = perf_counter(), self.tally.sampling
        while end - at >= _REPLY_BYTES:
            length, xid, _, error = _reply(data, at)
            if at + 4 + length > end:
                break
            at += 4 + length
            if error or xid != self._answers:
                if xid in (_XID_WATCH, _XID_PING):
                    continue
                self.refuse(f"answer {xid} with error {error}; expected {self._answers} and 0")
                return
            self._answers += 1
            done += 1
            sent = self._sent_at.popleft()
            if sampling:
                self.tally.latencies.append(now - sent)
        self._tail = data[at:]
        if done:
            self.answered(done)

    def _session_opened(self, data: bytes) -> int:
        """Return the bytes of the connect response, 0 if it is not all there."""
        if len(data) < 4 or len(data) < 4 + struct.unpack_from(">i", data)[0]:
            return 0
        length, _, time_out, _ = struct.unpack_from(">iiiq", data)
        if time_out <= 0:
            self.refuse("no session given")
        else:
            self.ready.set_result(None)
        return 4 + int(length)

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


class Caller:
    """One session that asks one thing at a time: for what comes before and after the load."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._xid = 0

    async def open(self) -> None:
        self._writer.write(connect_request())
        await self._packet()

    async def create(self, path: bytes) -> int:
        """Create a persistent znode without content; return the error."""
        self._xid += 1
        self._writer.write(create_request(self._xid, path, b""))
        return (await self._answer())[0]

    async def children(self, path: bytes) -> int:
        """Return the number of children of a znode, 0 if there is none."""
        self._xid += 1
        self._writer.write(exists_request(self._xid, path))
        error, body = await self._answer()
        return 0 if error == NO_NODE else children(body)

    def close(self) -> None:
        self._writer.close()

    async def _answer(self) -> tuple[int, bytes]:
        while True:
            body = await self._packet()
            xid, _, error = struct.unpack_from(">iqi", body)
            if xid == self._xid:
                return error, body[16:]

    async def _packet(self) -> bytes:
        (length,) = struct.unpack(">i", await self._reader.readexactly(4))
        return await self._reader.readexactly(length)
