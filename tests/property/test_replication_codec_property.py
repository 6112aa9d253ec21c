"""Messages of replication as bytes: what goes in comes out, and no bytes harm who reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssgovern.errors import RemoteProtocolError
from ssgovern.limits import EPOCH_MAX, REVISION_MAX
from ssgovern.model import SHARDS, LogPosition, NodeId, ShardId
from ssgovern.replication.codec import (
    SnapshotAssembler,
    chunks_of,
    decode_batch,
    encode_batch,
    encode_snapshot_pieces,
    state_of,
)
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Entry,
    Fenced,
    InstallSnapshot,
    Message,
    Mismatch,
)

ME, NODE_EPOCH = NodeId(300), 7
SHARD_IDS = st.integers(0, SHARDS - 1).map(ShardId)
EPOCHS = st.integers(0, EPOCH_MAX)
REVISIONS = st.integers(0, REVISION_MAX)
POSITIONS = st.builds(LogPosition, EPOCHS, REVISIONS)


@st.composite
def appends(draw: st.DrawFn) -> AppendEntries:
    epochs = sorted(draw(st.lists(EPOCHS, min_size=2, max_size=7)))
    if draw(st.booleans()):
        # What is usual: all of the epoch they are sent in.
        epochs[1:] = [epochs[-1]] * (len(epochs) - 1)
    revision = draw(st.integers(0, REVISION_MAX - len(epochs)))
    entries = [
        Entry(epoch, revision + 1 + at, draw(st.binary(max_size=20)))
        for at, epoch in enumerate(epochs[1:-1])
    ]
    prev = LogPosition(epochs[0], revision)
    return AppendEntries(draw(SHARD_IDS), ME, epochs[-1], prev, entries, draw(REVISIONS))


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    appends(),
    st.builds(Appended, SHARD_IDS, st.just(ME), st.just(NODE_EPOCH), EPOCHS, REVISIONS),
    st.builds(
        Mismatch,
        SHARD_IDS,
        st.just(ME),
        st.just(NODE_EPOCH),
        EPOCHS,
        POSITIONS,
        POSITIONS,
        POSITIONS,
    ),
    st.builds(Fenced, SHARD_IDS, st.just(ME), EPOCHS),
)


def shown(message: Message) -> object:
    """Return something that is equal for equal messages; entries compare by identity."""
    if isinstance(message, AppendEntries):
        entries = [(entry.epoch, entry.revision, entry.body) for entry in message.entries]
        return (message.shard, message.epoch, message.prev, entries, message.committed)
    return message


def by_shard_and_kind(messages: list[Message]) -> dict[tuple[int, str], list[object]]:
    found: dict[tuple[int, str], list[object]] = {}
    for message in messages:
        key = (message.shard, type(message).__name__)
        found.setdefault(key, []).append(shown(message))
    return found


def assert_well_formed(message: Message) -> None:
    """Assert what the cores and the log on disk take for granted."""
    assert 0 <= message.shard < SHARDS
    assert 0 <= message.epoch <= EPOCH_MAX
    match message:
        case AppendEntries():
            before = message.prev
            for entry in message.entries:
                assert (entry.revision, entry.epoch >= before.epoch) == (before.revision + 1, True)
                before = LogPosition(entry.epoch, entry.revision)
            assert before.epoch <= message.epoch
            assert max(before.revision, message.committed) <= REVISION_MAX
        case Appended():
            assert message.held <= REVISION_MAX
        case Mismatch():
            for position in (message.prev, message.hint, message.floor):
                assert position <= (EPOCH_MAX, REVISION_MAX)
        case _:
            pass


@given(st.lists(MESSAGES, max_size=8))
def test_messages_come_back(messages: list[Message]) -> None:
    """All that is encoded comes back, that of one shard and kind in its order."""
    back = decode_batch(ME, encode_batch(NODE_EPOCH, messages))
    assert by_shard_and_kind(back) == by_shard_and_kind(messages)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.data())
def test_changed_bytes_are_refused_or_well_formed(
    messages: list[Message], draws: st.DataObject
) -> None:
    """Whatever happened to the bytes: an error of the protocol, or messages the cores may take."""
    body = bytearray(encode_batch(NODE_EPOCH, messages))
    for _ in range(draws.draw(st.integers(1, 4))):
        at = draws.draw(st.integers(0, len(body) - 1))
        body[at] = draws.draw(st.integers(0, 255))
    cut = draws.draw(st.integers(0, len(body)))
    for mutated in (bytes(body), bytes(body[:cut])):
        try:
            decoded = decode_batch(ME, mutated)
        except RemoteProtocolError:
            continue
        for message in decoded:
            assert_well_formed(message)


@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=5),
    POSITIONS,
    st.none() | POSITIONS,
    st.data(),
)
def test_changed_pieces_are_refused_dropped_or_a_snapshot(
    chunks: list[bytes], position: LogPosition, replaces: LogPosition | None, draws: st.DataObject
) -> None:
    """Pieces give the snapshot they were made from; changed ones no other kind of failure."""
    pieces = list(
        encode_snapshot_pieces(ShardId(7), position.epoch, position, replaces, chunks, transfer=1)
    )
    assembler = SnapshotAssembler(ME)
    *first, last = [assembler.add(piece) for piece in pieces]
    assert first == [None] * (len(pieces) - 1)
    expected = InstallSnapshot(
        ShardId(7), ME, position.epoch, position, state_of(chunks or [b""]), replaces
    )
    assert last == expected
    assert list(chunks_of(last.state)) == (chunks or [b""])

    number = draws.draw(st.integers(0, len(pieces) - 1))
    changed = bytearray(pieces[number])
    at = draws.draw(st.integers(0, len(changed) - 1))
    changed[at] = draws.draw(st.integers(0, 255))
    pieces[number] = bytes(changed)
    for piece in pieces:
        try:
            arrived = assembler.add(piece)
        except RemoteProtocolError:
            continue
        if arrived is not None:
            list(chunks_of(arrived.state))
