"""The bookkeeping of a TCP stream: whatever order segments come in, bytes come out in one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssgovern.sim.streams import RECEIVE_BUFFER_BYTES, ReceiveStream, Segment, SendStream


def segments_of(chunks: list[bytes]) -> list[Segment]:
    stream = SendStream(1)
    segments = []
    for chunk in chunks:
        stream.write(chunk)
        segments += _sendable(stream)
    stream.finish()
    return segments + _sendable(stream)


def _sendable(stream: SendStream) -> list[Segment]:
    segments = []
    while (segment := stream.next_segment()) is not None:
        segments.append(segment)
    return segments


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20), st.randoms(use_true_random=False))
def test_segments_in_any_order_and_number_make_the_same_stream(
    chunks: list[bytes], rng: st.DataObject
) -> None:
    """Duplicates and overtaking change nothing, and nothing is waited for that has come."""
    segments = segments_of(chunks)
    arriving = segments + rng.sample(segments, len(segments) // 2)
    rng.shuffle(arriving)
    stream = ReceiveStream(1)
    for segment in arriving:
        before = stream.next
        assert stream.accept(segment) == (stream.next > before)
    assert stream.read(1 << 20) == b"".join(chunks)
    assert stream.is_last_received
    assert stream.next == segments[-1].end


def test_no_more_is_sent_than_the_window_allows() -> None:
    """What does not fit the peer's buffer waits for an acknowledgement with a new limit."""
    sender, receiver = SendStream(1), ReceiveStream(1)
    sender.write(b"x" * (RECEIVE_BUFFER_BYTES + 10))
    first = _sendable(sender)
    for segment in first:
        receiver.accept(segment)
    assert receiver.unread == RECEIVE_BUFFER_BYTES
    assert sender.on_ack(receiver.next, receiver.limit)
    assert _sendable(sender) == []
    receiver.read(4)
    assert not sender.on_ack(receiver.next, receiver.limit)
    assert [len(segment.payload) for segment in _sendable(sender)] == [4]
    assert sender.is_outstanding
    assert not sender.is_finished


def test_a_stream_is_finished_when_its_last_segment_is_acknowledged() -> None:
    """Not when it was sent."""
    sender = SendStream(0)
    sender.write(b"abc")
    sender.finish()
    segments = _sendable(sender)
    assert [(each.start, each.end, each.is_last) for each in segments] == [
        (0, 1, False),
        (1, 4, False),
        (4, 5, True),
    ]
    sender.on_ack(4, 1000)
    assert not sender.is_finished
    sender.on_ack(5, 1000)
    assert sender.is_finished
