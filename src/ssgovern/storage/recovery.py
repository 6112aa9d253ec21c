"""Reading the log back after a crash, and settling where it continues.

Knows what survives a crash of the process and of the machine. Knows nothing of what entries
mean; it hands them out in order and forgets them.

The order of steps is the point of this module:

1. The directory is synced before anything is believed or removed (`files.pin_names`).
2. Every segment but the last is durable by construction: its successor was created only after
   it had been synced. Any damage in it is a proven loss.
3. In the last segment a record says how much was durable when it was written. Damage below the
   highest such claim, also one found behind the damage, is a proven loss; the rest is a torn
   tail, never acknowledged as durable, and is cut.
4. The log goes on in a file that the recovery itself has written and synced, never in an old
   one: after a failed sync the page cache shows bytes that are not on disk and a later sync
   succeeds without writing them. What is kept but not proven (or, of a small segment, all) is
   copied there. It takes effect by one rename, so that a crash at any step before it repeats
   the recovery from the same bytes.

A proven loss raises `CorruptionError` and changes no segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from ssgovern.errors import CorruptionError
from ssgovern.model import LogPosition
from ssgovern.runtime import Disk
from ssgovern.storage.envelope import check_identity
from ssgovern.storage.files import (
    TEMPORARY_SUFFIX,
    create_durably,
    pin_names,
    remove_if_there,
    storage_failed,
)
from ssgovern.storage.format import (
    CUT,
    ENTRY,
    EPOCH,
    MARK,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    WalRecord,
    encode_records,
    encode_segment_header,
    epoch_promise,
    parse_records,
    salt_of,
)
from ssgovern.storage.reader import (
    CHUNK_BYTES,
    Piece,
    SegmentFile,
    SegmentReader,
    find_segments,
    is_segment_leftover,
    segment_name,
)


class RecoveryProgress(NamedTuple):
    segment: str
    bytes_done: int
    bytes_total: int
    records: int


@dataclass(slots=True)
class Segment:
    """A segment in use. `last`: per shard with entries or cuts here, where its log ended then.

    That is enough to know which snapshot makes the segment superfluous: one at or behind that
    position (of a log that has both) is behind every entry of the segment that still counts,
    however many higher revisions were cut or replaced in it.
    """

    sequence: int
    base_lsn: int
    file_bytes: int
    last: dict[int, LogPosition] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return segment_name(self.sequence)


@dataclass(slots=True)
class LogState:
    """What is known of the log as a whole. `promises`: per shard, the highest epoch promised."""

    identity: bytes
    segments: list[Segment] = field(default_factory=list)
    promises: dict[int, int] = field(default_factory=dict)
    end_lsn: int = 0
    synced_lsn: int = 0
    proven_lsn: int = 0
    """The highest synced LSN that stands in the log itself: what a reader could prove."""


OnRecord = Callable[[WalRecord], None]
OnProgress = Callable[[RecoveryProgress], Awaitable[None]]


async def open_segment(
    disk: Disk, state: LogState, *, tail: Sequence[bytes] = (), replace_last: bool = False
) -> None:
    """Create the next segment (or the last one anew), durable, and make it the last of `state`.

    It begins with `tail`, the records that stand last in the log (whole ones in each piece),
    and with every promise in force that is not in `tail`: so that promises outlive the segments
    they were made in.
    Raises DiskFullError (nothing changed), StorageFailedError.
    """
    salt = salt_of(state.identity)
    previous = state.segments[-1].sequence if state.segments else 0
    sequence = previous if replace_last else previous + 1
    base_lsn = lsn = state.end_lsn - sum(map(len, tail))
    segment = Segment(sequence, base_lsn, 0)
    promises = dict(state.promises)
    for encoded in tail:
        for record in parse_records(encoded, lsn, salt).records:
            if record.kind in (ENTRY, CUT):
                segment.last[record.shard] = record.position
            elif record.kind == EPOCH and promises.get(record.shard) == record.epoch:
                del promises[record.shard]
        lsn += len(encoded)
    entries = [epoch_promise(shard, epoch) for shard, epoch in sorted(promises.items())]
    carried = encode_records(entries, lsn, base_lsn, salt)
    end_lsn = lsn + len(carried)
    header = encode_segment_header(SegmentHeader(state.identity, sequence, base_lsn, end_lsn))
    segment.file_bytes = await create_durably(disk, segment.name, (header, *tail, carried))
    if replace_last:
        del state.segments[-1]
    state.segments.append(segment)
    state.end_lsn = state.synced_lsn = state.proven_lsn = end_lsn


class Recovery:
    """One recovery of the log in `disk`: replays all of it and makes it fit for appending.

    What `on_record` was given is durable only when `run` returns.
    """

    chunk_bytes: ClassVar[int] = CHUNK_BYTES
    rewrite_bytes_max: ClassVar[int] = 1 << 20

    def __init__(
        self, disk: Disk, identity: bytes, on_record: OnRecord, on_progress: OnProgress | None
    ) -> None:
        self._disk = disk
        self._state = LogState(identity)
        self._on_record = on_record
        self._on_progress = on_progress
        self._bytes_done = 0
        self._bytes_total = 0
        self._records = 0
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0

    async def run(self) -> LogState:
        await pin_names(self._disk)
        await _remove_leftovers(self._disk)
        files = find_segments(self._disk)
        for file in files:
            check_identity(file.header.identity, self._state.identity, name=file.name)
        self._bytes_total = sum(file.file_bytes for file in files)
        for file in files:
            await self._replay(file)
        await self._settle_end()
        return self._state

    async def _settle_end(self) -> None:
        """Let the log go on in a file that this recovery has written and synced.

        Even a file that ends where it is proven durable is not continued: a cut that was made
        but not synced may be undone by the next power cut, and old bytes come back.
        """
        state, kept = self._state, self._kept
        if not state.segments:
            await open_segment(self._disk, state)
            return
        kept_from = state.end_lsn - self._kept_bytes
        if kept_from == state.segments[-1].base_lsn:
            # All of a small segment: write it anew, or a node that starts often makes many.
            await open_segment(self._disk, state, tail=kept, replace_last=True)
            return
        while kept and kept_from + len(kept[0]) <= state.proven_lsn:
            kept_from += len(kept.popleft())
        if kept and kept_from < state.proven_lsn:
            kept[0] = kept[0][state.proven_lsn - kept_from :]
        await open_segment(self._disk, state, tail=kept)

    async def _replay(self, file: SegmentFile) -> None:
        state = self._state
        segment = Segment(file.header.sequence, file.header.base_lsn, file.file_bytes)
        state.segments.append(segment)
        state.proven_lsn = max(state.proven_lsn, file.header.synced_lsn)
        reader = SegmentReader(self._disk, file, chunk_bytes=self.chunk_bytes)
        while (piece := reader.next_piece()) is not None:
            self._deliver(piece, segment)
            if file.end_lsn is None:
                self._keep(piece)
            await self._report(segment.name, self._bytes_done + reader.offset)
        self._bytes_done += file.file_bytes
        self._judge_end(reader)
        state.end_lsn = reader.lsn

    def _keep(self, piece: Piece) -> None:
        """Hold on to the bytes that `_settle_end` writes anew: what is not proven, or little.

        These very bytes were checked. A second look might find others, since pages that a
        failed sync left behind may be dropped at any time.
        """
        kept = self._kept
        kept.append(piece.encoded)
        self._kept_bytes += len(piece.encoded)
        end_lsn = piece.lsn + len(piece.encoded)
        while (
            self._kept_bytes > self.rewrite_bytes_max
            and end_lsn - self._kept_bytes + len(kept[0]) <= self._state.proven_lsn
        ):
            self._kept_bytes -= len(kept.popleft())

    def _judge_end(self, reader: SegmentReader) -> None:
        reader.check_end(self._state.proven_lsn)

    def _deliver(self, piece: Piece, segment: Segment) -> None:
        promises, last, deliver = self._state.promises, segment.last, self._on_record
        proven_lsn = self._state.proven_lsn
        for record in piece.records:
            _, synced_lsn, kind, shard, epoch, revision, _ = record
            if synced_lsn > proven_lsn:
                proven_lsn = synced_lsn
            if kind in (ENTRY, CUT):
                last[shard] = LogPosition(epoch, revision)
            elif kind == EPOCH:
                promises[shard] = max(epoch, promises.get(shard, 0))
            elif kind == MARK:
                continue
            else:
                raise CorruptionError(
                    f"a record of unknown kind {kind}",
                    segment=segment.name,
                    offset=record.lsn - segment.base_lsn + SEGMENT_HEADER_BYTES,
                    shard=shard,
                )
            deliver(record)
        self._state.proven_lsn = proven_lsn
        self._records += len(piece.records)

    async def _report(self, segment: str, bytes_done: int) -> None:
        if self._on_progress is not None:
            progress = RecoveryProgress(segment, bytes_done, self._bytes_total, self._records)
            await self._on_progress(progress)


async def _remove_leftovers(disk: Disk) -> None:
    try:
        for name in disk.names():
            if is_segment_leftover(name, TEMPORARY_SUFFIX):
                await remove_if_there(disk, name)
    except OSError as error:
        raise storage_failed("removing leftovers", error) from error
