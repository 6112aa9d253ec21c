"""Bytes of WAL segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssgovern import limits
from ssgovern.errors import ConfigError, CorruptionError, LimitExceededError
from ssgovern.storage.envelope import encode_envelope
from ssgovern.storage.format import (
    CUT,
    MARK,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    LogEntry,
    SegmentHeader,
    cut_record,
    decode_segment_header,
    encode_records,
    encode_segment_header,
    epoch_promise,
    parse_records,
    salt_of,
)

GOLDEN = Path(__file__).parent / "golden"
IDENTITY = b"0123456789abcdef"
SALT = salt_of(IDENTITY)
HEADER = SegmentHeader(IDENTITY, sequence=7, base_lsn=1 << 33, synced_lsn=(1 << 33) + 99)
ENTRIES = (
    LogEntry(7, 3, 41, b"first"),
    epoch_promise(7, 4, 41),
    LogEntry(255, 0xFFFFFFFF, (1 << 64) - 1, b""),
    LogEntry(0, 0, 0, b"", MARK),
)


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def test_segment_header_golden() -> None:
    """The bytes of a segment header never change within a format version."""
    assert encode_segment_header(HEADER) == golden("segment_header_v1")
    assert decode_segment_header(golden("segment_header_v1"), "wal") == HEADER


def test_records_golden() -> None:
    """The bytes of records never change within a format version."""
    encoded = encode_records(ENTRIES, 5000, 4900, SALT)
    assert encoded == golden("records_v1")
    parsed = parse_records(golden("records_v1"), 5000, SALT)
    assert [LogEntry(r.shard, r.epoch, r.revision, r.body, r.kind) for r in parsed.records] == list(
        ENTRIES
    )
    assert [record.synced_lsn for record in parsed.records] == [4900] * 4
    assert parsed.records[0].lsn == 5000
    assert parsed.records[-1].end_lsn == 5000 + len(encoded)


def test_cut_golden() -> None:
    """The bytes of a cut never change within a format version."""
    encoded = encode_records([cut_record(7, 3, 40)], 5000, 4900, SALT)
    assert encoded == golden("record_cut_v1")
    (record,) = parse_records(golden("record_cut_v1"), 5000, SALT).records
    assert (record.kind, record.shard, record.position, record.body) == (CUT, 7, (3, 40), b"")


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    """A damaged header is never believed, nor taken for one of a newer program."""
    encoded = encode_segment_header(HEADER)
    for bit in range(len(encoded) * 8):
        damaged = bytearray(encoded)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError) as caught:
            decode_segment_header(bytes(damaged), "wal-x.log")
        assert (caught.value.segment, caught.value.shard) == ("wal-x.log", None)


def test_every_cut_header_is_noticed() -> None:
    """A header cut short is damage, at any length."""
    encoded = encode_segment_header(HEADER)
    for length in range(SEGMENT_HEADER_BYTES):
        with pytest.raises(CorruptionError):
            decode_segment_header(encoded[:length], "wal-x.log")


def test_newer_format_is_told_from_damage() -> None:
    """A file of a newer program says so, whatever its fields look like."""
    newer = encode_envelope(b"SSGOVWAL", 2, b"other fields")
    with pytest.raises(ConfigError, match="written in format 2"):
        decode_segment_header(newer, "wal-x.log")


def test_every_flipped_bit_of_a_record_is_noticed() -> None:
    """No single damaged bit of a record yields a record."""
    encoded = encode_records(ENTRIES[:1], 5000, 4900, SALT)
    for bit in range(len(encoded) * 8):
        damaged = bytearray(encoded)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parse_records(bytes(damaged), 5000, SALT).records == []


@pytest.mark.parametrize(("lsn", "salt"), [(5001, SALT), (5000, SALT + 1)])
def test_a_record_is_only_valid_in_its_place(lsn: int, salt: int) -> None:
    """A record from another place of the log, or of another node, is not a record."""
    encoded = encode_records(ENTRIES[:1], 5000, 4900, SALT)
    assert parse_records(encoded, lsn, salt).records == []


def test_parsing_stops_before_an_incomplete_record() -> None:
    """Records are taken as far as they are whole; the rest may still come."""
    encoded = encode_records(ENTRIES, 5000, 0, SALT)
    first = RECORD_HEADER_BYTES + len(ENTRIES[0].body)
    for length in range(first, first + RECORD_HEADER_BYTES):
        parsed = parse_records(encoded[:length], 5000, SALT)
        assert (len(parsed.records), parsed.consumed, parsed.damaged) == (1, first, False)


def test_an_impossible_length_is_damage_at_once() -> None:
    """No memory is spent on a length above the limit."""
    encoded = bytearray(encode_records(ENTRIES[:1], 5000, 0, SALT))
    encoded[4:8] = (limits.WAL_RECORD_BYTES_MAX + 1).to_bytes(4, "big")
    parsed = parse_records(bytes(encoded), 5000, SALT)
    assert (parsed.records, parsed.consumed, parsed.damaged) == ([], 0, True)


def test_too_large_a_body_is_refused() -> None:
    """What recovery would not read back is not written."""
    body = bytes(limits.WAL_RECORD_BYTES_MAX)
    assert encode_records([LogEntry(0, 1, 1, body)], 0, 0, SALT)
    with pytest.raises(LimitExceededError):
        encode_records([LogEntry(0, 1, 1, body + b"x")], 0, 0, SALT)
