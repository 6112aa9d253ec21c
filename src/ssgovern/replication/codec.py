"""What primaries and replicas say to each other, as bytes and back. The layout is `peer.proto`.

Bodies of entries pass through as they are. Nothing is known here of links, frames or who is
primary of what; what was said long ago is told from what is new by the cores.

Invariant: what is returned is well-formed (entries follow `prev` and each other, epochs never
fall, all numbers fit on disk), whoever made the bytes; all else is a `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from ssgovern import limits
from ssgovern.errors import RemoteProtocolError
from ssgovern.model import SHARDS, LogPosition, NodeId, ShardId
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Entry,
    Fenced,
    InstallSnapshot,
    Message,
    Mismatch,
)
from ssgovern.wire.handmade import append_entries, appended, replication_batch
from ssgovern.wire.pb import peer_pb2

_LENGTH_BYTES: Final = 4
_EPOCH_MAX: Final = limits.EPOCH_MAX
_REVISION_MAX: Final = limits.REVISION_MAX
_ENTRIES_MAX: Final = limits.BATCH_ENTRIES_MAX
_BODY_BYTES_MAX: Final = limits.WAL_RECORD_BYTES_MAX


EncodedAppends = dict[ShardId, tuple[AppendEntries, bytes]]
"""The newest append of each shard and its bytes, for batches to other nodes that hold it too."""


def encode_batch(
    node_epoch: int, messages: Sequence[Message], encoded: EncodedAppends | None = None
) -> bytes:
    """Return a batch of messages to one node. `node_epoch`: which life of the sender it is.

    All but `InstallSnapshot`, which travels in pieces (`encode_snapshot_pieces`).
    """
    # The hottest loop of replication. Made by hand, an append costs a third of what building
    # the message costs; the rare kinds follow as protobuf writes them.
    parts = [replication_batch(node_epoch)]
    rare = peer_pb2.ReplicationBatch()
    for message in messages:
        if type(message) is AppendEntries:
            known = None if encoded is None else encoded.get(message.shard)
            if known is not None and known[0] is message:
                parts.append(known[1])
                continue
            parts.append(part := _append_to_wire(message))
            if encoded is not None:
                encoded[message.shard] = message, part
        elif type(message) is Appended:
            parts.append(appended(message.shard, message.epoch, message.held, message.version))
        elif type(message) is Mismatch:
            rare.mismatches.add(
                shard=message.shard,
                epoch=message.epoch,
                prev=_position_to_wire(message.prev),
                hint=_position_to_wire(message.hint),
                floor=_position_to_wire(message.floor),
                version=message.version,
            )
        else:
            assert type(message) is Fenced, f"{message!r} travels in pieces"
            rare.fenced.add(shard=message.shard, epoch=message.epoch)
    parts.append(rare.SerializeToString())
    return b"".join(parts)


def decode_batch(source: NodeId, body: bytes) -> list[Message]:
    """Return the messages of a batch, those of one kind and shard in their order.

    Raises RemoteProtocolError.
    """
    if len(body) > limits.REPLICATION_BATCH_BYTES_MAX:
        raise RemoteProtocolError(
            f"a batch of {len(body)} bytes", limit=limits.REPLICATION_BATCH_BYTES_MAX
        )
    try:
        batch = peer_pb2.ReplicationBatch.FromString(body)
    except DecodeError:
        raise RemoteProtocolError("not a batch of replication messages") from None
    count = len(batch.appends) + len(batch.appended) + len(batch.mismatches) + len(batch.fenced)
    if count > limits.REPLICATION_BATCH_MESSAGES_MAX:
        raise RemoteProtocolError(
            f"a batch of {count} messages", limit=limits.REPLICATION_BATCH_MESSAGES_MAX
        )
    node_epoch = batch.node_epoch
    messages: list[Message] = [_append_from_wire(source, wire) for wire in batch.appends]
    for acknowledged in batch.appended:
        shard, epoch = _checked(acknowledged.shard, acknowledged.epoch)
        held = acknowledged.held
        if held > _REVISION_MAX:
            raise RemoteProtocolError(f"shard {shard}: revision {held} is out of range")
        messages.append(Appended(shard, source, node_epoch, epoch, held, acknowledged.version))
    for mismatch in batch.mismatches:
        shard, epoch = _checked(mismatch.shard, mismatch.epoch)
        messages.append(
            Mismatch(
                shard,
                source,
                node_epoch,
                epoch,
                _position_from_wire(mismatch.prev),
                _position_from_wire(mismatch.hint),
                _position_from_wire(mismatch.floor),
                mismatch.version,
            )
        )
    for fenced in batch.fenced:
        shard, epoch = _checked(fenced.shard, fenced.epoch)
        messages.append(Fenced(shard, source, epoch))
    return messages


def _append_to_wire(message: AppendEntries) -> bytes:
    entries, epoch = message.entries, message.epoch
    # Epochs never fall within a log: if the first is the newest, all are.
    mixed = bool(entries) and entries[0].epoch != epoch
    return append_entries(
        message.shard,
        epoch,
        message.prev,
        message.committed,
        [entry.body for entry in entries],
        [entry.epoch for entry in entries] if mixed else (),
    )


def _append_from_wire(source: NodeId, wire: peer_pb2.AppendEntries) -> AppendEntries:
    shard, epoch, committed = wire.shard, wire.epoch, wire.committed
    prev_epoch, revision = prev = LogPosition(wire.prev_epoch, wire.prev_revision)
    epochs = wire.epochs
    entries: list[Entry] = []
    longest = 0
    for body in wire.bodies:
        revision += 1
        if len(body) > longest:
            longest = len(body)
        entries.append(Entry(epoch, revision, body))
    if epochs:
        _check_epochs(shard, epochs, len(entries), prev_epoch, epoch)
        for entry, entry_epoch in zip(entries, epochs, strict=True):
            entry.epoch = entry_epoch
    if (
        shard >= SHARDS
        or len(entries) > _ENTRIES_MAX
        or not prev_epoch <= epoch <= _EPOCH_MAX
        or revision > _REVISION_MAX
        or committed > _REVISION_MAX
        or longest > _BODY_BYTES_MAX
    ):
        raise RemoteProtocolError(
            f"shard {shard}, epoch {epoch}: {len(entries)} entries of up to {longest} bytes and "
            f"up to revision {revision} behind {prev!r}, committed {committed}: "
            "a number is out of range"
        )
    return AppendEntries(ShardId(shard), source, epoch, prev, entries, committed)


def _check_epochs(
    shard: int, epochs: Sequence[int], count: int, prev_epoch: int, epoch: int
) -> None:
    if len(epochs) != count:
        raise RemoteProtocolError(f"shard {shard}: {len(epochs)} epochs of {count} entries")
    before = prev_epoch
    for one in epochs:
        if one < before:
            raise RemoteProtocolError(f"shard {shard}: an entry of epoch {one} after {before}")
        before = one
    if before > epoch:
        raise RemoteProtocolError(f"shard {shard}: an entry of epoch {before}, sent in {epoch}")


def _checked(shard: int, epoch: int) -> tuple[ShardId, int]:
    if shard >= SHARDS:
        raise RemoteProtocolError(f"there is no shard {shard}")
    if epoch > _EPOCH_MAX:
        raise RemoteProtocolError(f"shard {shard}: epoch {epoch} is out of range")
    return ShardId(shard), epoch


def _position_to_wire(position: LogPosition) -> peer_pb2.Position:
    return peer_pb2.Position(epoch=position.epoch, revision=position.revision)


def _position_from_wire(wire: peer_pb2.Position) -> LogPosition:
    if wire.epoch > _EPOCH_MAX or wire.revision > _REVISION_MAX:
        raise RemoteProtocolError(f"position {wire.epoch}/{wire.revision} is out of range")
    return LogPosition(wire.epoch, wire.revision)


# --- a shard's whole state ------------------------------------------------------------------


def encode_snapshot_pieces(
    shard: ShardId,
    epoch: int,
    position: LogPosition,
    replaces: LogPosition | None,
    chunks: Iterable[bytes],
    *,
    transfer: int,
) -> Iterator[bytes]:
    """Yield the pieces of a snapshot, one per chunk, as they are asked for.

    `transfer` rises with each snapshot that is sent to the same node.
    """
    waiting: bytes | None = None
    number = 0

    def piece(chunk: bytes, *, done: bool) -> bytes:
        wire = peer_pb2.ShardSnapshot(
            shard=shard,
            epoch=epoch,
            position=_position_to_wire(position),
            transfer=transfer,
            number=number,
            chunk=chunk,
            done=done,
        )
        if replaces is not None:
            wire.replaces.CopyFrom(_position_to_wire(replaces))
        return wire.SerializeToString()

    for chunk in chunks:
        if waiting is not None:
            yield piece(waiting, done=False)
            number += 1
        waiting = chunk
    yield piece(waiting or b"", done=True)


class _Arriving:
    """The snapshot of one shard that is being put together."""

    __slots__ = ("epoch", "parts", "position", "replaces", "size_bytes", "transfer")

    def __init__(
        self,
        epoch: int,
        transfer: int,
        position: LogPosition,
        replaces: LogPosition | None,
    ) -> None:
        self.epoch = epoch
        self.transfer = transfer
        self.position = position
        self.replaces = replaces
        self.parts: list[bytes] = []
        """Of each piece: its length, its bytes."""
        self.size_bytes = 0

    @property
    def next_number(self) -> int:
        return len(self.parts) // 2


class SnapshotAssembler:
    """Puts the snapshots that one node sends together, within bounded memory.

    A first piece begins its transfer, in place of what was arriving for the shard unless that is
    of a newer epoch. (The number of a transfer does not outlive who counts, so a lower one may
    well be newer.) A piece that does not follow the last one ends the transfer, as does one for
    which there is no room: who sent it sends the snapshot again.
    """

    __slots__ = ("_arriving", "_bytes_max", "_size_bytes", "_source", "dropped")

    def __init__(
        self, source: NodeId, *, bytes_max: int = limits.REPLICATION_SNAPSHOT_BYTES_MAX
    ) -> None:
        """`bytes_max` is for all shards together."""
        self._source = source
        self._bytes_max = bytes_max
        self._arriving: dict[ShardId, _Arriving] = {}
        self._size_bytes = 0
        self.dropped = 0
        """Transfers given up because there was no room for them."""

    def __repr__(self) -> str:
        return (
            f"<SnapshotAssembler source={self._source} arriving={list(self._arriving)} "
            f"bytes={self._size_bytes}>"
        )

    def add(self, body: bytes) -> InstallSnapshot | None:
        """Take a piece; return the snapshot if it was the last. Raises RemoteProtocolError."""
        try:
            piece = peer_pb2.ShardSnapshot.FromString(body)
        except DecodeError:
            raise RemoteProtocolError("not a piece of a snapshot") from None
        shard, epoch = _checked(piece.shard, piece.epoch)
        arriving = self._arriving.get(shard)
        if piece.number == 0 and (arriving is None or arriving.epoch <= epoch):
            arriving = self._begin(shard, piece)
        elif arriving is None or (arriving.epoch, arriving.transfer) != (epoch, piece.transfer):
            return None
        elif arriving.next_number != piece.number:
            self._drop(shard)
            return None
        if not self._collect(shard, arriving, piece.chunk) or not piece.done:
            return None
        self._drop(shard)
        state = b"".join(arriving.parts)
        return InstallSnapshot(
            shard, self._source, epoch, arriving.position, state, arriving.replaces
        )

    def _begin(self, shard: ShardId, piece: peer_pb2.ShardSnapshot) -> _Arriving:
        position = _position_from_wire(piece.position)
        if position.epoch > piece.epoch:
            raise RemoteProtocolError(
                f"shard {shard}: a snapshot at {position!r}, sent in epoch {piece.epoch}"
            )
        replaces = _position_from_wire(piece.replaces) if piece.HasField("replaces") else None
        self._drop(shard)
        arriving = _Arriving(piece.epoch, piece.transfer, position, replaces)
        self._arriving[shard] = arriving
        return arriving

    def _collect(self, shard: ShardId, arriving: _Arriving, chunk: bytes) -> bool:
        size_bytes = len(chunk) + _LENGTH_BYTES
        if self._size_bytes + size_bytes > self._bytes_max:
            self.dropped += 1
            self._drop(shard)
            return False
        arriving.parts += (len(chunk).to_bytes(_LENGTH_BYTES, "big"), chunk)
        arriving.size_bytes += size_bytes
        self._size_bytes += size_bytes
        return True

    def _drop(self, shard: ShardId) -> None:
        arriving = self._arriving.pop(shard, None)
        if arriving is not None:
            self._size_bytes -= arriving.size_bytes


def state_of(chunks: Iterable[bytes]) -> bytes:
    """Return chunks as the one `state` of an `InstallSnapshot`."""
    parts: list[bytes] = []
    for chunk in chunks:
        parts += (len(chunk).to_bytes(_LENGTH_BYTES, "big"), chunk)
    return b"".join(parts)


def chunks_of(state: bytes) -> Iterator[bytes]:
    """Yield the chunks of a `state` that `SnapshotAssembler` or `state_of` made."""
    start, size = 0, len(state)
    while start < size:
        chunk = start + _LENGTH_BYTES
        start = chunk + int.from_bytes(state[start:chunk], "big")
        assert start <= size, "made by the assembler, which knows the lengths"
        yield state[chunk:start]
