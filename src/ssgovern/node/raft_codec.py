"""What candidates say to each other, as bytes and back. The layout is `RaftBatch` of `peer.proto`.

Knows which fields a kind of message has, and nothing of what any of it means.

Invariant: what `decode_messages` returns is well-formed as the core's own messages are (entries
follow each other, terms never fall, members are sorted), whoever made the bytes; all else is a
`RemoteProtocolError`. The core asserts such things, because they would be mistakes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import assert_never

from google.protobuf.message import DecodeError

from ssgovern import limits
from ssgovern.errors import RemoteProtocolError
from ssgovern.model import NodeId
from ssgovern.raft import Config, Entry, Message
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    NewerTerm,
    Payload,
    PreVote,
    PreVoteAnswer,
    SnapshotAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from ssgovern.wire.pb import peer_pb2

_Wire = peer_pb2.RaftMessage


def encode_messages(messages: Sequence[Message]) -> bytes:
    """Return a batch of messages to one node, in their order."""
    return peer_pb2.RaftBatch(messages=map(_to_wire, messages)).SerializeToString()


def decode_messages(body: bytes) -> list[Message]:
    """Return the messages of a batch. Raises RemoteProtocolError."""
    try:
        batch = peer_pb2.RaftBatch.FromString(body)
    except DecodeError:
        raise RemoteProtocolError("not a batch of Raft messages") from None
    if len(batch.messages) > limits.RAFT_BATCH_MESSAGES_MAX:
        raise RemoteProtocolError(
            f"a batch of {len(batch.messages)} messages", limit=limits.RAFT_BATCH_MESSAGES_MAX
        )
    return [_from_wire(message) for message in batch.messages]


def config_to_wire(config: Config) -> peer_pb2.RaftConfig:
    """Return the members as a message."""
    return peer_pb2.RaftConfig(
        voters=config.voters, outgoing=config.outgoing, learners=config.learners
    )


def config_from_wire(message: peer_pb2.RaftConfig) -> Config:
    """Return the members that a message names. Raises RemoteProtocolError."""
    config = Config(_ids(message.voters), _ids(message.outgoing), _ids(message.learners))
    for ids in config:
        if any(one >= other for one, other in pairwise(ids)):
            raise RemoteProtocolError(f"members that are not sorted: {config!r}")
    if any(node in config.voters for node in config.learners):
        raise RemoteProtocolError(f"a member that votes and learns: {config!r}")
    if config.outgoing and not config.voters:
        raise RemoteProtocolError(f"members who go, and nobody who comes: {config!r}")
    return config


# --- to the wire ----------------------------------------------------------------------------


def _to_wire(message: Message) -> peer_pb2.RaftMessage:
    wire = _Wire(
        cluster=message.cluster,
        source=message.source,
        target=message.target,
        term=message.term,
    )
    match message:
        case PreVote() | Vote():
            wire.kind = _Wire.KIND_PRE_VOTE
            wire.index, wire.index_term = message.last_index, message.last_term
            if isinstance(message, Vote):
                wire.kind, wire.transfer = _Wire.KIND_VOTE, message.transfer
        case PreVoteAnswer():
            wire.kind, wire.granted = _Wire.KIND_PRE_VOTE_ANSWER, message.granted
        case VoteAnswer():
            wire.kind, wire.granted = _Wire.KIND_VOTE_ANSWER, message.granted
        case Append():
            wire.kind, wire.commit = _Wire.KIND_APPEND, message.commit
            wire.index, wire.index_term = message.prev_index, message.prev_term
            wire.entries.extend(map(_entry_to_wire, message.entries))
        case AppendAnswer():
            wire.kind, wire.granted = _Wire.KIND_APPEND_ANSWER, message.ok
            wire.index = message.index
            wire.hint_index, wire.hint_term = message.hint_index, message.hint_term
        case Heartbeat():
            wire.kind, wire.commit = _Wire.KIND_HEARTBEAT, message.commit
            wire.round, wire.tick = message.round, message.tick
        case HeartbeatAnswer():
            wire.kind = _Wire.KIND_HEARTBEAT_ANSWER
            wire.round, wire.tick = message.round, message.tick
        case InstallSnapshot():
            wire.kind = _Wire.KIND_INSTALL_SNAPSHOT
            wire.index, wire.index_term = message.index, message.snapshot_term
            wire.config.CopyFrom(config_to_wire(message.config))
            wire.offset, wire.chunk, wire.done = message.offset, message.chunk, message.done
        case SnapshotAnswer():
            wire.kind = _Wire.KIND_SNAPSHOT_ANSWER
            wire.index, wire.offset = message.index, message.offset
        case NewerTerm():
            wire.kind = _Wire.KIND_NEWER_TERM
        case TimeoutNow():
            wire.kind = _Wire.KIND_TIMEOUT_NOW
        case _:
            assert_never(message)
    return wire


def _entry_to_wire(entry: Entry) -> peer_pb2.RaftEntry:
    wire = peer_pb2.RaftEntry(index=entry.index, term=entry.term)
    if isinstance(entry.payload, Config):
        wire.config.CopyFrom(config_to_wire(entry.payload))
    elif entry.payload is not None:
        wire.command = entry.payload
    return wire


# --- and back -------------------------------------------------------------------------------


def _from_wire(wire: peer_pb2.RaftMessage) -> Message:
    make = _DECODERS.get(wire.kind)
    if make is None:
        raise RemoteProtocolError(f"a Raft message of unknown kind {wire.kind}")
    if not wire.source or not wire.target:
        raise RemoteProtocolError("a Raft message from or to nobody")
    positions = (wire.index, wire.commit, wire.hint_index, wire.offset, wire.round, wire.tick)
    if max(positions) > limits.REVISION_MAX:
        raise RemoteProtocolError("a Raft message with a number out of range")
    if max(wire.term, wire.index_term, wire.hint_term) > limits.EPOCH_MAX:
        raise RemoteProtocolError("a Raft message with a term out of range")
    return make(wire)


def _append(wire: peer_pb2.RaftMessage) -> Append:
    if len(wire.entries) > limits.BATCH_ENTRIES_MAX:
        raise RemoteProtocolError(
            f"{len(wire.entries)} entries in a message", limit=limits.BATCH_ENTRIES_MAX
        )
    entries = tuple(map(_entry_from_wire, wire.entries))
    index, term = wire.index, wire.index_term
    for entry in entries:
        if entry.index != index + 1 or not term <= entry.term <= wire.term:
            raise RemoteProtocolError(
                f"entry {entry.term}/{entry.index} follows {term}/{index} in term {wire.term}"
            )
        index, term = entry.index, entry.term
    if index > limits.REVISION_MAX:
        raise RemoteProtocolError(f"an entry at {index}")
    return Append(*_head(wire), wire.index, wire.index_term, entries, wire.commit)


def _entry_from_wire(wire: peer_pb2.RaftEntry) -> Entry:
    payload: Payload = None
    match wire.WhichOneof("payload"):
        case "command":
            payload = wire.command
            if len(payload) > limits.WAL_RECORD_BYTES_MAX:
                raise RemoteProtocolError(
                    f"an entry of {len(payload)} bytes", limit=limits.WAL_RECORD_BYTES_MAX
                )
        case "config":
            payload = config_from_wire(wire.config)
        case _:
            pass
    return Entry(wire.index, wire.term, payload)


def _install(wire: peer_pb2.RaftMessage) -> InstallSnapshot:
    return InstallSnapshot(
        *_head(wire),
        wire.index,
        wire.index_term,
        config_from_wire(wire.config),
        wire.offset,
        wire.chunk,
        wire.done,
    )


def _head(wire: peer_pb2.RaftMessage) -> tuple[bytes, NodeId, NodeId, int]:
    return wire.cluster, NodeId(wire.source), NodeId(wire.target), wire.term


def _ids(numbers: Iterable[int]) -> tuple[NodeId, ...]:
    return tuple(map(NodeId, numbers))


_DECODERS: dict[int, Callable[[peer_pb2.RaftMessage], Message]] = {
    _Wire.KIND_PRE_VOTE: lambda m: PreVote(*_head(m), m.index, m.index_term),
    _Wire.KIND_PRE_VOTE_ANSWER: lambda m: PreVoteAnswer(*_head(m), m.granted),
    _Wire.KIND_VOTE: lambda m: Vote(*_head(m), m.index, m.index_term, m.transfer),
    _Wire.KIND_VOTE_ANSWER: lambda m: VoteAnswer(*_head(m), m.granted),
    _Wire.KIND_APPEND: _append,
    _Wire.KIND_APPEND_ANSWER: lambda m: AppendAnswer(
        *_head(m), m.granted, m.index, m.hint_index, m.hint_term
    ),
    _Wire.KIND_HEARTBEAT: lambda m: Heartbeat(*_head(m), m.commit, m.round, m.tick),
    _Wire.KIND_HEARTBEAT_ANSWER: lambda m: HeartbeatAnswer(*_head(m), m.round, m.tick),
    _Wire.KIND_INSTALL_SNAPSHOT: _install,
    _Wire.KIND_SNAPSHOT_ANSWER: lambda m: SnapshotAnswer(*_head(m), m.index, m.offset),
    _Wire.KIND_NEWER_TERM: lambda m: NewerTerm(*_head(m)),
    _Wire.KIND_TIMEOUT_NOW: lambda m: TimeoutNow(*_head(m)),
}
