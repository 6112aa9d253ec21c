"""Frames at their limits."""

from __future__ import annotations

import pytest

from ssgovern import limits
from ssgovern.errors import RemoteProtocolError
from ssgovern.wire.frames import (
    FLAG_MORE,
    HEADER,
    FrameReader,
    MessageAssembler,
    encode_frame,
    encode_message,
)


def test_the_longest_frame_passes_and_one_byte_more_does_not() -> None:
    """The limit is on the header: no body of a frame that is too long is stored."""
    reader = FrameReader()
    reader.receive_data(encode_frame(1, 2, 3, b"x" * limits.FRAME_BODY_BYTES_MAX))
    assert reader.next_frame() is not None
    reader.receive_data(encode_frame(1, 2, 3, b"x" * (limits.FRAME_BODY_BYTES_MAX + 1))[:12])
    with pytest.raises(RemoteProtocolError):
        reader.next_frame()


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(7, 1, 0, 1, 1),
        HEADER.pack(8, 0, 0, 1, 1),
        HEADER.pack(8, 5, 0, 1, 1),
        HEADER.pack(8, 1, 2, 1, 1),
        HEADER.pack(0xFFFFFFFF, 1, 0, 1, 1),
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
    ],
)
def test_what_is_no_frame(header: bytes) -> None:
    """Lengths, kinds and flags that cannot be are a protocol error, as are other protocols."""
    reader = FrameReader()
    reader.receive_data(header)
    with pytest.raises(RemoteProtocolError):
        reader.next_frame()


def test_single_bytes_cost_no_more_than_the_frame() -> None:
    """A peer that sends a long frame byte by byte does not make the reader copy it each time."""
    reader = FrameReader()
    frame = encode_frame(1, 2, 3, b"x" * 5000)
    buffers = {id(reader._buffer)}
    for position in range(len(frame) - 1):
        reader.receive_data(frame[position : position + 1])
        assert reader.next_frame() is None
        buffers.add(id(reader._buffer))
    assert len(buffers) <= 4
    reader.receive_data(frame[-1:])
    assert reader.next_frame() == (1, 0, 2, 3, b"x" * 5000)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_messages_are_cut_at_the_chunk(extra: int) -> None:
    """A body of exactly one chunk is one frame; none is empty."""
    frames = encode_message(4, 40, 0, b"x" * (limits.FRAME_CHUNK_BYTES + extra))
    assert len(frames) == (2 if extra == 1 else 1)
    assert all(len(frame) > HEADER.size for frame in frames)


def test_a_message_beyond_the_limit() -> None:
    """Parts are not collected without end."""
    assembler = MessageAssembler(bytes_max=100)
    assert assembler.add((4, FLAG_MORE, 40, 1, b"x" * 60)) is None
    with pytest.raises(RemoteProtocolError):
        assembler.add((4, FLAG_MORE, 40, 2, b"x" * 60))


@pytest.mark.parametrize("record", [b"\x16\x03\x01\x02\x00", b"\x15\x03\x03\x00\x02"])
def test_records_of_tls_are_recognised(record: bytes) -> None:
    """Who mixes up ports with and without TLS is told so, and not that a frame is too long."""
    reader = FrameReader()
    reader.receive_data(record + b"\x00" * 20)
    with pytest.raises(RemoteProtocolError, match="records of TLS"):
        reader.next_frame()
