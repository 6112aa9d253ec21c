"""How every file of a data directory begins, in every format version.

    8s magic | u32 format version | u32 crc of these 12 bytes | fields | u32 crc of all before

Invariant: the first 16 bytes keep their meaning for ever, so that an older program says "newer
format" where it would otherwise say "damaged". Knows nothing of the fields.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from ssgovern.errors import ConfigError, CorruptionError

IDENTITY_BYTES: Final = 16
_PREFIX: Final = struct.Struct(">8sI")
_CRC: Final = struct.Struct(">I")
_FIELDS_OFFSET: Final = _PREFIX.size + _CRC.size


def envelope_bytes(fields: struct.Struct) -> int:
    """Return the length of a header with these fields."""
    return _FIELDS_OFFSET + fields.size + _CRC.size


def encode_envelope(magic: bytes, version: int, fields: bytes) -> bytes:
    prefix = _PREFIX.pack(magic, version)
    checked = prefix + _CRC.pack(zlib.crc32(prefix)) + fields
    return checked + _CRC.pack(zlib.crc32(checked))


def decode_envelope(
    encoded: bytes, magic: bytes, version: int, fields_bytes: int, *, name: str, shard: int | None
) -> bytes:
    """Return the fields. `name` and `shard` are for errors. Raises CorruptionError, ConfigError."""
    end = _FIELDS_OFFSET + fields_bytes
    prefix = encoded[: _PREFIX.size]
    damaged = CorruptionError("damaged header", segment=name, offset=0, shard=shard)
    if len(encoded) < _FIELDS_OFFSET or prefix[: len(magic)] != magic:
        raise damaged
    if _CRC.unpack_from(encoded, _PREFIX.size)[0] != zlib.crc32(prefix):
        raise damaged
    found_version = _PREFIX.unpack(prefix)[1]
    if found_version != version:
        raise ConfigError(
            f"{name} is written in format {found_version}, this program reads format {version}: "
            "start the program that wrote it, or a newer one",
            file=name,
        )
    if len(encoded) < end + _CRC.size:
        raise damaged
    if _CRC.unpack_from(encoded, end)[0] != zlib.crc32(encoded[:end]):
        raise damaged
    return encoded[_FIELDS_OFFSET:end]


def header_crc(encoded: bytes) -> int:
    """Return the checksum at the end of an encoded header."""
    return int.from_bytes(encoded[-_CRC.size :], "big")


def check_identity(found: bytes, expected: bytes, *, name: str) -> None:
    """Refuse a file of another node. Raises ConfigError."""
    if found != expected:
        raise ConfigError(
            f"{name} was written by node {found.hex()}, this is node {expected.hex()}: "
            "the data directory belongs to another node",
            file=name,
        )
