"""The frame parser, however the bytes come and whatever they are."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, RemoteProtocolError
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import (
    FLAG_MORE,
    HEADER,
    Frame,
    FrameReader,
    MessageAssembler,
    encode_frame,
    encode_message,
)
from ssgovern.wire.pb import log_pb2, native_pb2, raw_pb2

FRAMES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([0, FLAG_MORE]),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=200),
    ),
    max_size=12,
)


def encoded(frames: list[Frame]) -> bytes:
    return b"".join(
        encode_frame(kind, type_, request_id, body, flags)
        for kind, flags, type_, request_id, body in frames
    )


def read_all(reader: FrameReader, data: bytes) -> list[Frame]:
    reader.receive_data(data)
    frames = []
    while (frame := reader.next_frame()) is not None:
        frames.append(frame)
    return frames


@given(FRAMES, st.lists(st.integers(0, 3000)), st.binary(max_size=HEADER.size - 1))
def test_any_chunking_gives_the_same_frames(
    frames: list[Frame], cuts: list[int], trailing: bytes
) -> None:
    """Whole, byte by byte or in random chunks, with a rest that is no frame yet: the same."""
    data = encoded(frames) + trailing
    assert read_all(FrameReader(), data) == frames
    one_by_one, chunked = FrameReader(), FrameReader()
    assert [f for byte in data for f in read_all(one_by_one, bytes([byte]))] == frames
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(bounds)]
    assert [f for part in parts for f in read_all(chunked, part)] == frames
    assert one_by_one.buffered_bytes == chunked.buffered_bytes == len(trailing)


@given(FRAMES, st.data())
def test_mutated_bytes_never_break_the_reader(frames: list[Frame], data: st.DataObject) -> None:
    """Bytes of any kind give frames within the limits or a protocol error, nothing else."""
    mutated = bytearray(encoded(frames))
    for _ in range(data.draw(st.integers(0, 5))):
        if mutated:
            mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    reader = FrameReader(body_bytes_max=100)
    try:
        for frame in read_all(reader, bytes(mutated)):
            assert len(frame[4]) <= 100
    except RemoteProtocolError:
        pass
    else:
        assert reader.buffered_bytes <= len(mutated)


@given(st.binary(max_size=400))
def test_garbage(garbage: bytes) -> None:
    """The same for bytes that never were frames."""
    with suppress(RemoteProtocolError):
        read_all(FrameReader(), garbage)


@given(st.integers(0, 5 * limits.FRAME_CHUNK_BYTES), st.integers(1, 1000))
def test_messages_are_put_together_again(length: int, request_id: int) -> None:
    """A message of any length comes out as it went in, with others between its frames."""
    body = (bytes(range(256)) * (length // 256 + 1))[:length]
    assembler = MessageAssembler()
    got = []
    for frame_bytes in encode_message(4, 40, request_id, body):
        assert len(frame_bytes) <= limits.FRAME_CHUNK_BYTES + HEADER.size
        (frame,) = read_all(FrameReader(), frame_bytes)
        between: Frame = (2, 0, 2, request_id, b"beat")
        assert assembler.add(between) == between
        if (message := assembler.add(frame)) is not None:
            got.append(message)
    assert got == [(4, 0, 40, request_id, body)]
    assert assembler._parts == {}
    assert assembler._bytes == 0


BODIES = {
    kind: kind.FromString(b"")
    for kind in (
        native_pb2.HelloRequest,
        native_pb2.RegisterRequest,
        native_pb2.UpdateRequest,
        native_pb2.SubscribeRequest,
        native_pb2.Snapshot,
        native_pb2.Error,
        raw_pb2.RawDelta,
        log_pb2.Record,
        log_pb2.SnapshotChunk,
    )
}


@given(st.sampled_from(sorted(BODIES, key=lambda kind: kind.DESCRIPTOR.name)), st.data())
def test_bodies_of_any_bytes_decode_or_are_refused(kind: type, data: st.DataObject) -> None:
    """A body is decoded or refused as an invalid argument; no other error comes out."""
    if data.draw(st.booleans()):
        body = data.draw(st.binary(max_size=300))
    else:
        request = native_pb2.RegisterRequest()
        registration = request.registrations.add()
        registration.service.service = data.draw(st.text(max_size=20))
        registration.instance.metadata["k"] = data.draw(st.text(max_size=20))
        mutated = bytearray(request.SerializeToString())
        for _ in range(data.draw(st.integers(0, 4))):
            mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
        body = bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
    with suppress(InvalidArgumentError):
        decode(kind, body)
