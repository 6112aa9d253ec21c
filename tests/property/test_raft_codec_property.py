"""Raft's messages as bytes: what goes in comes out, and no bytes harm who reads them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.errors import RemoteProtocolError
from ssgovern.limits import EPOCH_MAX, REVISION_MAX
from ssgovern.model import NodeId
from ssgovern.node.raft_codec import decode_messages, encode_messages
from ssgovern.raft import Config, Entry, Message
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    NewerTerm,
    PreVote,
    PreVoteAnswer,
    SnapshotAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
    describe,
)
from ssgovern.wire.pb import peer_pb2

NODES = st.integers(1, 2**64 - 1).map(NodeId)
TERMS = st.integers(0, EPOCH_MAX)
NUMBERS = st.integers(0, REVISION_MAX)
HEADS = st.tuples(st.binary(max_size=16), NODES, NODES, TERMS)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any config that is sound: a learner may be outgoing, a voter may be both."""
    ids = sorted(draw(st.sets(NODES, max_size=6)))
    learners = [node for node in ids if draw(st.booleans())]
    voters = [node for node in ids if node not in learners]
    outgoing = [node for node in ids if voters and draw(st.booleans())]
    return Config(tuple(voters), tuple(outgoing), tuple(learners))


PAYLOADS = st.none() | st.binary(max_size=20) | configs()


@st.composite
def appends(draw: st.DrawFn) -> Append:
    cluster, source, target, _ = draw(HEADS)
    terms = sorted(draw(st.lists(TERMS, min_size=2, max_size=6)))
    prev_index = draw(st.integers(0, REVISION_MAX - len(terms)))
    entries = tuple(
        Entry(prev_index + 1 + at, term, draw(PAYLOADS)) for at, term in enumerate(terms[1:-1])
    )
    return Append(cluster, source, target, terms[-1], prev_index, terms[0], entries, draw(NUMBERS))


def kind_of(kind: type, *fields: st.SearchStrategy[object]) -> st.SearchStrategy[Message]:
    return st.tuples(HEADS, *fields).map(lambda drawn: kind(*drawn[0], *drawn[1:]))


KINDS: dict[type, st.SearchStrategy[Message]] = {
    PreVote: kind_of(PreVote, NUMBERS, TERMS),
    PreVoteAnswer: kind_of(PreVoteAnswer, st.booleans()),
    Vote: kind_of(Vote, NUMBERS, TERMS, st.booleans()),
    VoteAnswer: kind_of(VoteAnswer, st.booleans()),
    Append: appends(),
    AppendAnswer: kind_of(AppendAnswer, st.booleans(), NUMBERS, NUMBERS, TERMS),
    Heartbeat: kind_of(Heartbeat, NUMBERS, NUMBERS, NUMBERS),
    HeartbeatAnswer: kind_of(HeartbeatAnswer, NUMBERS, NUMBERS),
    InstallSnapshot: kind_of(
        InstallSnapshot, NUMBERS, TERMS, configs(), NUMBERS, st.binary(), st.booleans()
    ),
    SnapshotAnswer: kind_of(SnapshotAnswer, NUMBERS, NUMBERS),
    NewerTerm: kind_of(NewerTerm),
    TimeoutNow: kind_of(TimeoutNow),
}
MESSAGES = st.one_of(list(KINDS.values()))


def assert_well_formed(message: Message) -> None:
    """Assert what the core takes for granted of what is said to it."""
    assert message.source > 0
    assert message.target > 0
    match message:
        case InstallSnapshot():
            message.config.validate()
        case Append():
            index, term = message.prev_index, message.prev_term
            for entry in message.entries:
                assert (entry.index, entry.term >= term) == (index + 1, True)
                index, term = entry.index, entry.term
                if isinstance(entry.payload, Config):
                    entry.payload.validate()
            assert term <= message.term or not message.entries
            assert index <= REVISION_MAX
        case _:
            pass


def test_every_kind_of_message_is_drawn() -> None:
    """A new message of the core needs bytes and a strategy."""
    assert set(KINDS) == set(get_args(Message))


@given(st.lists(MESSAGES, max_size=4))
def test_messages_come_back(messages: list[Message]) -> None:
    """What is encoded decodes to equal messages of the same types, in order."""
    back = decode_messages(encode_messages(messages))
    assert back == messages
    # Named tuples compare as tuples do: the type is part of what is said.
    assert [type(message) for message in back] == [type(message) for message in messages]


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_changed_bytes_are_refused_or_well_formed(
    messages: list[Message], draws: st.DataObject
) -> None:
    """Whatever happened to the bytes: an error of the protocol, or messages the core may take."""
    body = bytearray(encode_messages(messages))
    for _ in range(draws.draw(st.integers(1, 4))):
        at = draws.draw(st.integers(0, len(body) - 1))
        body[at] = draws.draw(st.integers(0, 255))
    cut = draws.draw(st.integers(0, len(body)))
    for mutated in (bytes(body), bytes(body[:cut])):
        try:
            decoded = decode_messages(mutated)
        except RemoteProtocolError:
            continue
        for message in decoded:
            assert_well_formed(message)
            describe(message)


WELL = peer_pb2.RaftMessage(kind=peer_pb2.RaftMessage.KIND_APPEND, source=1, target=2, term=5)
ENTRIES = [peer_pb2.RaftEntry(index=8, term=5)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"kind": 0}, "unknown kind"),
        ({"kind": 99}, "unknown kind"),
        ({"source": 0}, "nobody"),
        ({"target": 0}, "nobody"),
        ({"term": EPOCH_MAX + 1}, "term"),
        ({"commit": REVISION_MAX + 1}, "range"),
        ({"index": 3, "entries": ENTRIES}, "follows"),
        ({"index": 7, "index_term": 6, "entries": ENTRIES}, "follows"),
        ({"entries": ENTRIES * 1025}, "1025 entries"),
        ({"entries": [peer_pb2.RaftEntry(index=1, command=bytes(1048577))]}, "1048577 bytes"),
        ({"index": 7, "term": 4, "entries": ENTRIES}, "follows"),
        (
            {
                "kind": peer_pb2.RaftMessage.KIND_INSTALL_SNAPSHOT,
                "config": peer_pb2.RaftConfig(voters=[2, 1]),
            },
            "not sorted",
        ),
        (
            {
                "kind": peer_pb2.RaftMessage.KIND_INSTALL_SNAPSHOT,
                "config": peer_pb2.RaftConfig(voters=[1], learners=[1]),
            },
            "votes and learns",
        ),
        (
            {
                "kind": peer_pb2.RaftMessage.KIND_INSTALL_SNAPSHOT,
                "config": peer_pb2.RaftConfig(outgoing=[1]),
            },
            "nobody who comes",
        ),
    ],
)
def test_what_the_core_would_trip_over(wrong: dict[str, object], reason: str) -> None:
    """Well-formed bytes that say what no candidate says are a protocol error with words."""
    message = peer_pb2.RaftMessage()
    message.CopyFrom(WELL)
    message.MergeFrom(peer_pb2.RaftMessage(**wrong))  # type: ignore[arg-type]
    for field, value in wrong.items():
        if value == 0:
            setattr(message, field, 0)
    body = peer_pb2.RaftBatch(messages=[message]).SerializeToString()
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_messages(body)


def test_batches_without_end() -> None:
    """A few bytes must not become many objects."""
    with pytest.raises(RemoteProtocolError, match="a batch of 16385"):
        decode_messages(peer_pb2.RaftBatch(messages=[WELL] * 16_385).SerializeToString())
