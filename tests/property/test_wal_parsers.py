"""The parsers of what is on disk, fed anything."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import LogPosition
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage import CUT, EPOCH, LogEntry, Wal, WalRecord, load_snapshots
from ssgovern.storage.format import (
    ENTRY,
    SegmentHeader,
    encode_records,
    encode_segment_header,
    parse_records,
    salt_of,
)
from ssgovern.storage.inspect import EndSeen, inspect_wal
from ssgovern.storage.reader import SegmentReader, find_segments, segment_name
from ssgovern.storage.snapshot import encode_snapshot, snapshot_name

IDENTITY = b"0123456789abcdef"
SALT = salt_of(IDENTITY)
entries = st.builds(
    LogEntry,
    shard=st.integers(0, 255),
    epoch=st.integers(0, 2**32 - 1),
    revision=st.integers(0, 2**64 - 1),
    body=st.binary(max_size=80),
    kind=st.sampled_from([ENTRY, EPOCH, CUT]),
)
lsns = st.integers(0, 2**63)


async def _no_latency(operation: str) -> None:
    return None


def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waits for something")


def recover(image: DiskImage) -> list[WalRecord]:
    records: list[WalRecord] = []
    run(Wal.recover(SimDisk(image, _no_latency), identity=IDENTITY, on_record=records.append))
    return records


def image_of(files: dict[str, bytes]) -> DiskImage:
    image = DiskImage()
    for name, content in files.items():
        image.append(name, [content])
    return image


def segment(batches: list[list[LogEntry]], sequence: int = 1, base_lsn: int = 0) -> bytes:
    header = SegmentHeader(IDENTITY, sequence, base_lsn, base_lsn)
    encoded, lsn = [encode_segment_header(header)], base_lsn
    for batch in batches:
        encoded.append(encode_records(batch, lsn, lsn, SALT))
        lsn += len(encoded[-1])
    return b"".join(encoded)


def as_entry(record: WalRecord) -> LogEntry:
    return LogEntry(record.shard, record.epoch, record.revision, record.body, record.kind)


@given(st.lists(entries, max_size=8), lsns)
def test_records_round_trip(batch: list[LogEntry], lsn: int) -> None:
    """What was encoded is decoded, field by field."""
    encoded = encode_records(batch, lsn, lsn, SALT)
    parsed = parse_records(encoded, lsn, SALT)
    assert [as_entry(record) for record in parsed.records] == batch
    assert (parsed.consumed, parsed.damaged) == (len(encoded), False)


@given(st.binary(max_size=400), lsns)
def test_no_bytes_are_a_record_by_chance(garbage: bytes, lsn: int) -> None:
    """The parser never raises, and finds no record in noise."""
    parsed = parse_records(garbage, lsn, SALT)
    assert (parsed.records, parsed.consumed) == ([], 0)


@given(st.lists(st.lists(entries, max_size=4), max_size=5), st.integers(1, 300), st.data())
def test_any_chunking_reads_the_same(
    batches: list[list[LogEntry]], chunk_bytes: int, data: st.DataObject
) -> None:
    """However small the chunks and wherever the file ends, the whole records come out."""
    content = segment(batches)
    length = data.draw(st.integers(60, len(content)))
    image = image_of({segment_name(1): content[:length]})
    disk = SimDisk(image, _no_latency)
    reader = SegmentReader(disk, find_segments(disk)[0], chunk_bytes=chunk_bytes)
    pieces = []
    while (piece := reader.next_piece()) is not None:
        pieces.append(piece)
    expected = parse_records(content[60:length], 0, SALT)
    assert [record for piece in pieces for record in piece.records] == expected.records
    assert b"".join(piece.encoded for piece in pieces) == content[60 : 60 + expected.consumed]
    assert reader.leftover_bytes == length - 60 - expected.consumed


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_recovery_of_noise_is_a_documented_error(first: bytes, second: bytes) -> None:
    """Files of noise under our names are refused, and nothing else is raised."""
    image = image_of({segment_name(1): first, segment_name(2): second})
    try:
        recover(image)
    except (CorruptionError, ConfigError):
        return
    raise AssertionError("noise was taken for a log")


@settings(max_examples=300)
@given(
    st.lists(st.lists(entries, min_size=1, max_size=3), min_size=1, max_size=5),
    st.integers(0, 2**32),
    st.sampled_from(["flip", "cut", "insert", "delete", "overwrite", "append"]),
)
def test_mutated_logs_give_a_prefix_or_a_documented_error(
    batches: list[list[LogEntry]], seed: int, mutation: str
) -> None:
    """Whatever happens to the bytes: a prefix of the entries, or a refusal; never other entries.

    And what is recovered is recovered again; and inspection does not raise.
    """
    rng = random.Random(seed)
    content = bytearray(segment(batches))
    at = rng.randrange(len(content))
    match mutation:
        case "flip":
            content[at] ^= 1 << rng.randrange(8)
        case "cut":
            del content[at:]
        case "insert":
            content[at:at] = rng.randbytes(rng.randrange(1, 50))
        case "delete":
            del content[at : at + rng.randrange(1, 50)]
        case "overwrite":
            start = rng.randrange(len(content))
            content[at : at + 40] = content[start : start + 40]
        case "append":
            content += rng.randbytes(rng.randrange(1, 200))
    image = image_of({segment_name(1): bytes(content)})
    *_, end = inspect_wal(SimDisk(image, _no_latency))
    assert isinstance(end, EndSeen)
    try:
        records = recover(image)
    except (CorruptionError, ConfigError):
        return
    flat = [each for batch in batches for each in batch]
    found = [as_entry(record) for record in records]
    assert found == flat[: len(found)]
    assert [as_entry(record) for record in recover(image)][: len(found)] == found


@given(st.lists(st.binary(max_size=100), max_size=6), st.integers(0, 2**32))
def test_mutated_snapshots_are_whole_or_refused(chunks: list[bytes], seed: int) -> None:
    """A snapshot gives exactly its chunks, or a documented error."""
    rng = random.Random(seed)
    name = snapshot_name(7, LogPosition(3, 41))
    content = bytearray(b"".join(encode_snapshot(IDENTITY, 7, LogPosition(3, 41), chunks)))
    start, stop = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    content[start:stop] = rng.choice([b"", content[:40], rng.randbytes(stop - start)])
    image = image_of({name: bytes(content)})
    try:
        (snapshot,) = run(load_snapshots(SimDisk(image, _no_latency), IDENTITY))
        assert list(snapshot.chunks()) == chunks
    except (CorruptionError, ConfigError):
        return
