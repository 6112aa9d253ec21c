"""Frames of the native protocol: `u32 length | u8 kind | u8 flags | u16 type | u32 request id`.

Big endian; `length` counts what follows it. Pure: bytes come in, frames go out. A limit is
checked on the header, before a body is stored. Storing and parsing are two calls, as in h11.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from ssgovern import limits
from ssgovern.errors import RemoteProtocolError

HEADER = struct.Struct("!IBBHI")
_LENGTH_BYTES = 4
_REST_BYTES = HEADER.size - _LENGTH_BYTES

PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1

FLAG_MORE = 1
"""The body goes on in the next frame of the same kind and request id."""


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    RESPONSE = 2
    ERROR = 3
    PUSH = 4


class MessageType(IntEnum):
    """Which message the body holds. Numbers are never reused."""

    HELLO = 1
    HEARTBEAT = 2
    GOODBYE = 3
    REGISTER = 10
    DEREGISTER = 11
    UPDATE = 12
    RENEW = 13
    GET = 20
    LIST_SERVICES = 21
    SUBSCRIBE = 30
    UNSUBSCRIBE = 31
    SNAPSHOT = 40
    DELTA = 41
    CURRENT = 42
    APPLIED = 43
    STATUS = 50
    SHARD_MAP = 51
    """Also pushed: what changed in the map."""
    CLAIM = 52
    CLUSTER_STATUS = 53
    CLUSTER_COMMAND = 54
    READ_SHARD = 55
    SUBSCRIBERS = 56
    AWAIT_APPLIED = 57
    SESSIONS = 58
    EVENTS = 59
    AUDIT = 60
    ACCESS = 61
    NAMESPACES = 62
    PEER_HELLO = 100
    PEER_PROOF = 101
    PEER_PING = 102
    NODE_REGISTER = 110
    NODE_HEARTBEAT = 111
    IN_SYNC_CHANGE = 112
    SHARD_RESIGNED = 113
    METADATA_FETCH = 114
    FORWARDED_COMMAND = 115
    NODE_STOPPING = 116
    RAFT = 120
    """From here on pushes: what one node tells another."""
    REPLICATION = 121
    SHARD_SNAPSHOT = 122
    METADATA = 123


_TLS_RECORDS = (0x1503, 0x1603)
"""How a record of TLS begins, an alert or a handshake; no frame may be that long."""

Frame = tuple[int, int, int, int, bytes]
"""Kind, flags, type, request id, body. A plain tuple: one is made per message."""


class FrameReader:
    """Cuts a stream of bytes into frames, however the stream was split."""

    __slots__ = ("_body_bytes_max", "_buffer", "_offset")

    def __init__(self, body_bytes_max: int = limits.FRAME_BODY_BYTES_MAX) -> None:
        self._buffer: bytes | bytearray = b""
        self._offset = 0
        self._body_bytes_max = body_bytes_max

    @property
    def buffered_bytes(self) -> int:
        """Bytes received that did not yet make a frame."""
        return len(self._buffer) - self._offset

    def receive_data(self, data: bytes) -> None:
        """Store bytes as they came from the peer. Call `next_frame` until it returns None."""
        buffer = self._buffer
        if self._offset == len(buffer):
            self._buffer = data
            self._offset = 0
        elif isinstance(buffer, bytearray):
            if self._offset:
                del buffer[: self._offset]
                self._offset = 0
            buffer += data
        else:
            # Only here is a part of a frame copied; a bytearray then grows in amortised O(1),
            # so that a peer that sends single bytes costs no more than one that does not.
            joined = bytearray(buffer[self._offset :])
            joined += data
            self._buffer = joined
            self._offset = 0

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None if more bytes are needed.

        Raises RemoteProtocolError; the reader must not be used after it.
        """
        buffer = self._buffer
        offset = self._offset
        available = len(buffer) - offset
        if available < HEADER.size:
            return None
        length, kind, flags, type_, request_id = HEADER.unpack_from(buffer, offset)
        body_bytes = length - _REST_BYTES
        if body_bytes > self._body_bytes_max:
            if length >> 16 in _TLS_RECORDS:
                raise RemoteProtocolError(
                    "these are records of TLS: one side speaks it and the other does not"
                )
            raise RemoteProtocolError(
                f"frame of {length} bytes: allowed are {self._body_bytes_max + _REST_BYTES}",
                limit=self._body_bytes_max,
            )
        if body_bytes < 0 or not 1 <= kind <= 4 or flags & ~FLAG_MORE:
            raise RemoteProtocolError(
                f"not a frame: length {length}, kind {kind}, flags {flags:#x}; "
                "is the other side speaking the native protocol?"
            )
        end = offset + HEADER.size + body_bytes
        if end > len(buffer):
            return None
        self._offset = end
        body = buffer[offset + HEADER.size : end]
        return kind, flags, type_, request_id, body if type(body) is bytes else bytes(body)


def encode_frame(kind: int, type_: int, request_id: int, body: bytes, flags: int = 0) -> bytes:
    """Return one frame. `body` must not be longer than the receiver's limit."""
    return HEADER.pack(len(body) + _REST_BYTES, kind, flags, type_, request_id) + body


def encode_message(kind: int, type_: int, request_id: int, body: bytes) -> list[bytes]:
    """Return the frames of a message: one, or several if the body is longer than a chunk."""
    chunk = limits.FRAME_CHUNK_BYTES
    if len(body) <= chunk:
        return [encode_frame(kind, type_, request_id, body)]
    last = (len(body) - 1) // chunk * chunk
    frames = [
        encode_frame(kind, type_, request_id, body[start : start + chunk], FLAG_MORE)
        for start in range(0, last, chunk)
    ]
    frames.append(encode_frame(kind, type_, request_id, body[last:]))
    return frames


class MessageAssembler:
    """Puts messages together that came in several frames. One per connection."""

    __slots__ = ("_bytes", "_bytes_max", "_parts")

    def __init__(self, bytes_max: int = limits.MESSAGE_BYTES_MAX) -> None:
        self._parts: dict[tuple[int, int, int], list[bytes]] = {}
        self._bytes = 0
        self._bytes_max = bytes_max

    def add(self, frame: Frame) -> Frame | None:
        """Return the whole message (flags 0) if this frame ends one, else None.

        Raises RemoteProtocolError when the parts held grow beyond the limit.
        """
        kind, flags, type_, request_id, body = frame
        if not flags and not self._parts:
            return frame
        key = (kind, type_, request_id)
        parts = self._parts.get(key)
        if flags & FLAG_MORE:
            self._bytes += len(body)
            if self._bytes > self._bytes_max:
                raise RemoteProtocolError(
                    f"message longer than {self._bytes_max} bytes", limit=self._bytes_max
                )
            if parts is None:
                self._parts[key] = [body]
            else:
                parts.append(body)
            return None
        if parts is None:
            return frame
        del self._parts[key]
        self._bytes -= sum(map(len, parts))
        parts.append(body)
        return kind, 0, type_, request_id, b"".join(parts)
