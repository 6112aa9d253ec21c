"""Bytes of replication that no honest node sends, and snapshots in pieces."""

from __future__ import annotations

import pytest

from ssgovern.errors import RemoteProtocolError
from ssgovern.limits import EPOCH_MAX, REVISION_MAX, WAL_RECORD_BYTES_MAX
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.replication.codec import (
    EncodedAppends,
    SnapshotAssembler,
    chunks_of,
    decode_batch,
    encode_batch,
    encode_snapshot_pieces,
)
from ssgovern.replication.messages import AppendEntries, Entry
from ssgovern.wire.pb import peer_pb2

SENDER = NodeId(2)
SHARD = ShardId(7)
POSITION = LogPosition(4, 100)
OVER = REVISION_MAX + 1


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"shard": 256}, "shard 256"),
        ({"epoch": EPOCH_MAX + 1}, "out of range"),
        ({"prev_epoch": 10}, "behind 10/5"),
        ({"committed": OVER}, "committed"),
        ({"prev_revision": OVER}, "up to revision"),
        ({"prev_revision": REVISION_MAX}, "up to revision"),
        ({"epochs": [9]}, "1 epochs of 2 entries"),
        ({"epochs": [9, 9, 9]}, "3 epochs of 2 entries"),
        ({"epochs": [9, 8]}, "epoch 8 after 9"),
        ({"epochs": [2, 9]}, "epoch 2 after 3"),
        ({"epochs": [9, 10]}, "epoch 10, sent in 9"),
        ({"bodies": [b""] * 1025}, "1025 entries"),
        ({"bodies": [b"", bytes(WAL_RECORD_BYTES_MAX + 1)]}, "up to 1048577 bytes"),
    ],
)
def test_appends_that_would_trip_up_the_log(wrong: dict[str, object], reason: str) -> None:
    """What could not be written or would break the log's order is refused with words."""
    fields: dict[str, object] = {
        "shard": 1,
        "epoch": 9,
        "prev_epoch": 3,
        "prev_revision": 5,
        "bodies": [b"a", b"b"],
    }
    append = peer_pb2.AppendEntries(**{**fields, **wrong})  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_batch(SENDER, peer_pb2.ReplicationBatch(appends=[append]).SerializeToString())


@pytest.mark.parametrize(
    "batch",
    [
        peer_pb2.ReplicationBatch(appended=[peer_pb2.Appended(held=OVER)]),
        peer_pb2.ReplicationBatch(appended=[peer_pb2.Appended(shard=256)]),
        peer_pb2.ReplicationBatch(fenced=[peer_pb2.Fenced(shard=256)]),
        peer_pb2.ReplicationBatch(fenced=[peer_pb2.Fenced(epoch=EPOCH_MAX + 1)]),
        peer_pb2.ReplicationBatch(
            mismatches=[peer_pb2.Mismatch(hint=peer_pb2.Position(revision=OVER))]
        ),
        peer_pb2.ReplicationBatch(
            mismatches=[peer_pb2.Mismatch(floor=peer_pb2.Position(epoch=EPOCH_MAX + 1))]
        ),
    ],
)
def test_answers_out_of_range(batch: peer_pb2.ReplicationBatch) -> None:
    """Numbers that no log can reach are refused, whichever message they are in."""
    with pytest.raises(RemoteProtocolError, match=r"out of range|no shard"):
        decode_batch(SENDER, batch.SerializeToString())


@pytest.mark.parametrize(
    "batch",
    [
        peer_pb2.ReplicationBatch(appended=[peer_pb2.Appended()] * 16_385),
        peer_pb2.ReplicationBatch(appends=[peer_pb2.AppendEntries(bodies=[bytes(1 << 20)])] * 2),
    ],
)
def test_batches_without_end(batch: peer_pb2.ReplicationBatch) -> None:
    """A few bytes must not become many objects."""
    with pytest.raises(RemoteProtocolError, match="a batch of"):
        decode_batch(SENDER, batch.SerializeToString())


def test_the_usual_batch_says_no_epochs() -> None:
    """Entries of the epoch they are sent in cost their bodies and little more."""
    entries = [Entry(9, 6 + at, bytes(100)) for at in range(10)]
    message = AppendEntries(ShardId(1), SENDER, 9, LogPosition(9, 5), entries, 4)
    assert len(encode_batch(1, [message])) < 10 * 102 + 20


def pieces_of(
    *chunks: bytes,
    shard: ShardId = SHARD,
    epoch: int = 5,
    transfer: int = 1,
) -> list[bytes]:
    return list(encode_snapshot_pieces(shard, epoch, POSITION, None, chunks, transfer=transfer))


def test_pieces_are_made_as_they_are_asked_for() -> None:
    """A shard is encoded while it is sent: one chunk ahead, to know which is the last."""
    taken: list[int] = []

    def chunks() -> object:
        for number in range(5):
            taken.append(number)
            yield b"chunk"

    pieces = encode_snapshot_pieces(SHARD, 5, POSITION, None, chunks(), transfer=1)  # type: ignore[arg-type]
    next(pieces)
    assert taken == [0, 1]


def test_a_piece_that_is_missing_ends_its_transfer() -> None:
    """What was lost with a link is not papered over: nothing comes of the rest."""
    assembler = SnapshotAssembler(SENDER)
    first, second, third = pieces_of(b"a", b"b", b"c")
    assert [assembler.add(piece) for piece in (first, third, second, third)] == [None] * 4
    assert repr(assembler) == "<SnapshotAssembler source=2 arriving=[] bytes=0>"


def test_a_new_transfer_takes_the_place_of_the_old() -> None:
    """Pieces of an older transfer that come late are dropped and disturb nothing."""
    assembler = SnapshotAssembler(SENDER)
    old, new = pieces_of(b"old", b"old"), pieces_of(b"new", b"new", transfer=2)
    assert [assembler.add(piece) for piece in (old[0], new[0], old[1])] == [None] * 3
    snapshot = assembler.add(new[1])
    assert snapshot is not None
    assert list(chunks_of(snapshot.state)) == [b"new", b"new"]


def test_a_sender_that_started_again_counts_from_one() -> None:
    """The number of a transfer tells two apart, not which is newer: the first piece does."""
    assembler = SnapshotAssembler(SENDER)
    assembler.add(pieces_of(b"a", b"b", transfer=9)[0])
    assert [assembler.add(piece) is None for piece in pieces_of(b"c", b"d")] == [True, False]


def test_an_older_epoch_does_not_take_the_place_of_a_newer() -> None:
    """A primary of the past cannot end the transfer of its successor."""
    assembler = SnapshotAssembler(SENDER)
    new = pieces_of(b"a", b"b", epoch=6)
    assembler.add(new[0])
    assert [assembler.add(piece) for piece in pieces_of(b"c", b"d", transfer=2)] == [None, None]
    assert assembler.add(new[1]) is not None


def test_shards_arrive_side_by_side_within_the_limit() -> None:
    """Memory is bounded over all shards; what does not fit is dropped, the others go on."""
    assembler = SnapshotAssembler(SENDER, bytes_max=250)
    one = pieces_of(bytes(100), bytes(100), shard=ShardId(1))
    two = pieces_of(bytes(100), bytes(100), shard=ShardId(2))
    for piece in (one[0], two[0], two[1]):
        assert assembler.add(piece) is None
    assert assembler.dropped == 1
    assert assembler.add(one[1]) is not None
    assert repr(assembler) == "<SnapshotAssembler source=2 arriving=[] bytes=0>"


@pytest.mark.parametrize(
    "piece",
    [
        peer_pb2.ShardSnapshot(shard=256),
        peer_pb2.ShardSnapshot(epoch=EPOCH_MAX + 1),
        peer_pb2.ShardSnapshot(epoch=5, position=peer_pb2.Position(epoch=6, revision=1)),
        peer_pb2.ShardSnapshot(epoch=5, position=peer_pb2.Position(epoch=5, revision=OVER)),
        peer_pb2.ShardSnapshot(epoch=5, replaces=peer_pb2.Position(revision=OVER)),
    ],
)
def test_pieces_that_say_what_cannot_be(piece: peer_pb2.ShardSnapshot) -> None:
    """A snapshot of the future, or at no position a log can reach, is a protocol error."""
    with pytest.raises(RemoteProtocolError):
        SnapshotAssembler(SENDER).add(piece.SerializeToString())


def test_what_several_nodes_are_sent_is_encoded_once() -> None:
    """Bytes made for one node serve for all, but not for another append of the same shard."""
    entries = [Entry(5, 1, b"one")]
    older = AppendEntries(ShardId(7), NodeId(1), 5, LogPosition(0, 0), entries, 0)
    newer = AppendEntries(ShardId(7), NodeId(1), 5, LogPosition(5, 1), entries, 1)
    encoded: EncodedAppends = {}
    for messages in ([older], [older], [newer, older], [newer]):
        assert encode_batch(9, messages, encoded) == encode_batch(9, messages)
    assert encoded[ShardId(7)][0] is newer
