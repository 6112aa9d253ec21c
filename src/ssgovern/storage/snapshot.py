"""Snapshots: the whole state of one shard at one position of its log, a file each.

Knows how a snapshot is framed and replaced, not what its chunks mean. It has a directory (a
`Disk`) of its own, so that its syncs do not stand in the way of the WAL's.

    file name   shard-<3 digits>-<epoch, 8 hex digits>-<revision, 16 hex digits>.snap
    header      envelope of: 16s node identity | u16 shard | u32 epoch | u64 revision
    chunk       u32 crc of the rest | u32 length | bytes
    footer      u32 crc of the rest | u32 0xffffffff | u32 chunks | u64 bytes of all chunks

Invariants:
- A file under its final name is whole and durable. Damage is therefore never a torn write: it is
  `CorruptionError`, and never taken for an empty state.
- CRCs start from the header's CRC plus the offset: chunks of another snapshot, or in another
  place, are not valid.
- An older snapshot is removed only when the newer one is durable, name and all.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from ssgovern import limits
from ssgovern.errors import CorruptionError
from ssgovern.model import LogPosition
from ssgovern.runtime import Disk
from ssgovern.storage.envelope import (
    check_identity,
    decode_envelope,
    encode_envelope,
    envelope_bytes,
    header_crc,
)
from ssgovern.storage.files import (
    TEMPORARY_SUFFIX,
    create_durably,
    pin_names,
    remove_if_there,
    storage_failed,
)

FORMAT_VERSION: Final = 1

_MAGIC: Final = b"SSGOVSNP"
_HEADER: Final = struct.Struct(">16sHIQ")
_CRC: Final = struct.Struct(">I")
_CHUNK: Final = struct.Struct(">II")
_FOOTER: Final = struct.Struct(">IIIQ")
_FOOTER_MARK: Final = 0xFFFFFFFF
_NAME: Final = re.compile(r"shard-(\d{3,5})-([0-9a-f]{8})-([0-9a-f]{16})\.snap")

HEADER_BYTES: Final = envelope_bytes(_HEADER)


def snapshot_name(shard: int, position: LogPosition) -> str:
    return f"shard-{shard:03d}-{position.epoch:08x}-{position.revision:016x}.snap"


def encode_snapshot(
    identity: bytes, shard: int, position: LogPosition, chunks: Iterable[bytes]
) -> Iterator[bytes]:
    """Yield the bytes of a snapshot file, in pieces worth a write each."""
    header = encode_envelope(_MAGIC, FORMAT_VERSION, _HEADER.pack(identity, shard, *position))
    salt = header_crc(header)
    parts = [header]
    offset, part_bytes, chunk_count, chunk_bytes = HEADER_BYTES, HEADER_BYTES, 0, 0
    for chunk in chunks:
        length = len(chunk).to_bytes(4, "big")
        crc = zlib.crc32(chunk, zlib.crc32(length, salt + offset))
        parts += (_CRC.pack(crc), length, chunk)
        offset += _CHUNK.size + len(chunk)
        part_bytes += _CHUNK.size + len(chunk)
        chunk_count += 1
        chunk_bytes += len(chunk)
        if part_bytes >= limits.SNAPSHOT_CHUNK_BYTES:
            yield b"".join(parts)
            parts, part_bytes = [], 0
    footer = _FOOTER.pack(0, _FOOTER_MARK, chunk_count, chunk_bytes)[_CRC.size :]
    parts += (_CRC.pack(zlib.crc32(footer, salt + offset)), footer)
    yield b"".join(parts)


async def write_snapshot(
    disk: Disk, identity: bytes, shard: int, position: LogPosition, chunks: Iterable[bytes]
) -> int:
    """Write a snapshot, durable on return, and remove older ones of the shard. Return its size.

    `chunks` is taken a few at a time between writes, so that a lazy iterable over a frozen state
    does not stall the loop. Entries up to `position` must be durable or not be needed.
    Raises DiskFullError (all is as it was), StorageFailedError.
    """
    name = snapshot_name(shard, position)
    size = await create_durably(disk, name, encode_snapshot(identity, shard, position, chunks))
    try:
        for other in disk.names():
            parsed = _parse_name(other)
            if parsed is not None and parsed[0] == shard and parsed[1] < position:
                await remove_if_there(disk, other)
    except OSError as error:
        raise storage_failed(f"removing snapshots older than {name}", error) from error
    return size


class SnapshotFile:
    """A snapshot that was found. Its header is checked, its chunks are when they are read."""

    __slots__ = ("_disk", "_salt", "name", "position", "shard", "size_bytes")

    def __init__(self, disk: Disk, identity: bytes, name: str) -> None:
        header = disk.read(name, 0, HEADER_BYTES)
        self._disk = disk
        self.name = name
        self.size_bytes = disk.size(name)
        self.shard, self.position = _check_header(header, identity, name)
        self._salt = header_crc(header)
        if snapshot_name(self.shard, self.position) != name:
            raise self._corruption(0, f"the header says {self.shard} at {self.position!r}")

    def __repr__(self) -> str:
        return f"<SnapshotFile shard={self.shard} at={self.position!r}>"

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks in order. Raises CorruptionError, if need be after the last one.

        So the state is only complete when this has ended by itself. Reads block.
        """
        offset, chunk_count, chunk_bytes = HEADER_BYTES, 0, 0
        while True:
            head = self._disk.read(self.name, offset, _CHUNK.size)
            if len(head) < _CHUNK.size:
                raise self._corruption(offset, "the snapshot is cut short")
            crc, length = _CHUNK.unpack(head)
            if length == _FOOTER_MARK:
                break
            if offset + length > self.size_bytes:
                raise self._corruption(offset, "a chunk is longer than the snapshot")
            chunk = self._disk.read(self.name, offset + _CHUNK.size, length)
            expected = zlib.crc32(chunk, zlib.crc32(head[_CRC.size :], self._salt + offset))
            if len(chunk) != length or crc != expected:
                raise self._corruption(offset, "a chunk is damaged")
            yield chunk
            offset += _CHUNK.size + length
            chunk_count += 1
            chunk_bytes += length
        footer = self._disk.read(self.name, offset, _FOOTER.size + 1)
        valid = (
            len(footer) == _FOOTER.size
            and _CRC.unpack_from(footer)[0] == zlib.crc32(footer[_CRC.size :], self._salt + offset)
            and _FOOTER.unpack(footer)[2:] == (chunk_count, chunk_bytes)
        )
        if not valid:
            raise self._corruption(offset, "the end of the snapshot is damaged")

    def verify(self) -> None:
        """Read everything. Raises CorruptionError."""
        for _ in self.chunks():
            pass

    def _corruption(self, offset: int, message: str) -> CorruptionError:
        return CorruptionError(message, segment=self.name, offset=offset, shard=self.shard)


async def load_snapshots(disk: Disk, identity: bytes) -> list[SnapshotFile]:
    """Return the newest snapshot of each shard, by shard, and remove leftovers.

    Raises CorruptionError for a damaged header (a damaged chunk: when it is read), ConfigError
    for the snapshot of another node or a newer program, StorageFailedError.
    """
    await pin_names(disk)
    newest: dict[int, tuple[LogPosition, str]] = {}
    superseded: list[tuple[int, str]] = []
    leftovers: list[str] = []
    for name in disk.names():
        if name.endswith(TEMPORARY_SUFFIX) and _parse_name(name.removesuffix(TEMPORARY_SUFFIX)):
            leftovers.append(name)
        if (parsed := _parse_name(name)) is None:
            continue
        shard, position = parsed
        # Names sort by shard, epoch, revision: a later one of the same shard is newer.
        if shard in newest:
            superseded.append((shard, newest[shard][1]))
        newest[shard] = (position, name)
    found = {shard: SnapshotFile(disk, identity, newest[shard][1]) for shard in sorted(newest)}
    try:
        for name in leftovers:
            await remove_if_there(disk, name)
        for shard, name in superseded:
            # A second copy of the truth goes only when the first is known to be good.
            found[shard].verify()
            await remove_if_there(disk, name)
    except OSError as error:
        raise storage_failed("removing old snapshots", error) from error
    return list(found.values())


async def remove_snapshots(disk: Disk, shard: int) -> None:
    """Remove every snapshot of a shard that is here no more, durably.

    The log must say by then that the shard begins anew. Raises StorageFailedError.
    """
    try:
        for name in disk.names():
            parsed = _parse_name(name)
            if parsed is not None and parsed[0] == shard:
                await remove_if_there(disk, name)
        await disk.sync_directory()
    except OSError as error:
        raise storage_failed(f"removing the snapshots of shard {shard}", error) from error


def snapshot_named(name: str) -> tuple[int, LogPosition] | None:
    """Return shard and position of which a file, by its name, is the snapshot."""
    return _parse_name(name)


def _parse_name(name: str) -> tuple[int, LogPosition] | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return int(match[1]), LogPosition(int(match[2], 16), int(match[3], 16))


def _check_header(header: bytes, identity: bytes, name: str) -> tuple[int, LogPosition]:
    parsed = _parse_name(name)
    fields = decode_envelope(
        header,
        _MAGIC,
        FORMAT_VERSION,
        _HEADER.size,
        name=name,
        shard=None if parsed is None else parsed[0],
    )
    found_identity, shard, epoch, revision = _HEADER.unpack(fields)
    check_identity(found_identity, identity, name=name)
    return shard, LogPosition(epoch, revision)
