"""What leaves a node for another one: few frames, none that the other would refuse."""

from __future__ import annotations

from hosting import FakeLinks

from ssgovern import limits
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.node.replication_sender import Outbox
from ssgovern.replication.codec import decode_batch
from ssgovern.replication.messages import Appended, AppendEntries, Entry, Message

ME, PEER, THIRD = NodeId(1), NodeId(2), NodeId(3)
SHARD = ShardId(7)


def sent(*messages: Message) -> list[list[Message]]:
    """Let messages leave for a peer in one turn; return what it gets, frame by frame."""
    links = FakeLinks()
    outbox = Outbox(links, lambda: 9)
    for message in messages:
        outbox.add(PEER, message)
    outbox.flush()
    return [decode_batch(ME, body) for _, _, body in links.sent]


def test_no_frame_holds_more_messages_than_are_accepted() -> None:
    """Short messages must not fill a frame by their number before they fill it by their bytes."""
    count = limits.REPLICATION_BATCH_MESSAGES_MAX + 1
    frames = sent(*(Appended(SHARD, ME, 9, 1, held) for held in range(count)))
    assert sum(map(len, frames)) == count
    assert len(frames) > 1


def test_frames_end_at_their_size_and_keep_the_order() -> None:
    """Whatever is collected leaves, in its order, a single long message too."""
    long = b"x" * (limits.REPLICATION_BATCH_BYTES // 3)
    appends = [
        AppendEntries(SHARD, ME, 1, LogPosition(1, n), [Entry(1, n + 1, long)], 0)
        for n in range(1, 6)
    ]
    entries = [Entry(1, 7 + n, long) for n in range(4)]
    appends.append(AppendEntries(SHARD, ME, 1, LogPosition(1, 6), entries, 0))
    frames = sent(*appends)
    assert [len(frame) for frame in frames] == [2, 2, 1, 1]
    decoded = [message for frame in frames for message in frame]
    assert [m.prev.revision for m in decoded if isinstance(m, AppendEntries)] == [1, 2, 3, 4, 5, 6]


def test_all_who_are_sent_one_append_get_its_bytes() -> None:
    """What is encoded once arrives everywhere as it was meant."""
    links = FakeLinks()
    outbox = Outbox(links, lambda: 9)
    append = AppendEntries(SHARD, ME, 1, LogPosition(1, 1), [Entry(1, 2, b"body")], 1)
    for node in (PEER, THIRD):
        outbox.add(node, append)
    outbox.flush()
    (first, _, to_peer), (second, _, to_third) = links.sent
    assert (first, second) == (PEER, THIRD)
    assert to_peer == to_third
