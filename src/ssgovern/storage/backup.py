"""A backup: the states of many shards in one file, and what has to be known of them.

Knows how a backup is framed and how its end proves that it is whole; refuses to know what chunks
mean and where they come from. It belongs to no node: whoever has the file can read it.

    header    envelope of: 16s id of the backup
    piece     u32 crc of the rest | u32 length | u8 kind | body; kinds:
                1 a shard begins: u16 shard | u32 epoch | u64 revision
                2 a chunk of its state
                3 the manifest, JSON; the last piece
    trailer   u64 where the manifest begins | u32 crc

Invariants:
- A file under its final name is whole and durable, and was never there before: it is written
  under a temporary name, synced, renamed.
- CRCs start from the header's CRC plus the offset: a piece of another backup, or in another
  place, is not valid. The manifest says of each shard how many bytes and chunks it has, and
  their SHA-256; without manifest and trailer a file is no backup.
- Memory is bounded by the largest piece, whatever the size of the backup.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ssgovern import limits
from ssgovern.errors import ConfigError, CorruptionError, DiskFullError
from ssgovern.model import SHARDS, LogPosition
from ssgovern.runtime import Disk
from ssgovern.storage.envelope import (
    IDENTITY_BYTES,
    decode_envelope,
    encode_envelope,
    envelope_bytes,
    header_crc,
)
from ssgovern.storage.files import (
    TEMPORARY_SUFFIX,
    is_disk_full,
    pin_names,
    remove_if_there,
    storage_failed,
)

FORMAT_VERSION: Final = 1

_MAGIC: Final = b"SSGOVBAK"
_HEADER: Final = struct.Struct(">16s")
_CRC: Final = struct.Struct(">I")
_PIECE: Final = struct.Struct(">IIB")
_PIECE_AFTER_CRC: Final = struct.Struct(">IB")
_SHARD: Final = struct.Struct(">HIQ")
_TRAILER: Final = struct.Struct(">QI")
_OFFSET: Final = struct.Struct(">Q")
_HEADER_BYTES: Final = envelope_bytes(_HEADER)

_BEGIN: Final = 1
_CHUNK: Final = 2
_MANIFEST: Final = 3


class ShardSaved(NamedTuple):
    """What the manifest says of a shard."""

    shard: int
    position: LogPosition
    chunks: int
    size_bytes: int
    sha256: str
    instances: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    backup_id: bytes
    taken_at_ms: int
    cluster_id: bytes
    source: str
    """For people: where it was taken, and what that means."""
    program: str
    shards: tuple[ShardSaved, ...] = ()
    epoch_max: int = 0
    """No epoch that the source knew of is higher."""
    cluster: Mapping[str, object] = field(default_factory=dict)
    """Nodes and settings of the cluster it was taken of, for people; empty of a single node."""

    @property
    def instances(self) -> int:
        return sum(saved.instances for saved in self.shards)

    @property
    def size_bytes(self) -> int:
        return sum(saved.size_bytes for saved in self.shards)

    def document(self) -> dict[str, object]:
        """Return it as it stands in the file."""
        return {
            "format": FORMAT_VERSION,
            "backup_id": self.backup_id.hex(),
            "taken_at_ms": self.taken_at_ms,
            "cluster_id": self.cluster_id.hex(),
            "source": self.source,
            "program": self.program,
            "epoch_max": self.epoch_max,
            "cluster": dict(self.cluster),
            "shards": [
                {
                    "shard": saved.shard,
                    "epoch": saved.position.epoch,
                    "revision": saved.position.revision,
                    "chunks": saved.chunks,
                    "bytes": saved.size_bytes,
                    "sha256": saved.sha256,
                    "instances": saved.instances,
                }
                for saved in self.shards
            ],
        }


class _Tally:
    """Counts a shard's chunks as they pass."""

    def __init__(self, shard: int, position: LogPosition) -> None:
        self.shard = shard
        self.position = position
        self.chunks = 0
        self.size_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self.chunks += 1
        self.size_bytes += len(chunk)
        self._digest.update(len(chunk).to_bytes(4, "big"))
        self._digest.update(chunk)

    def saved(self, instances: int) -> ShardSaved:
        return ShardSaved(
            self.shard,
            self.position,
            self.chunks,
            self.size_bytes,
            self._digest.hexdigest(),
            instances,
        )


class BackupWriter:
    """Writes one backup, a shard after the other. `begin` first, `finish` or `give_up` last."""

    def __init__(self, disk: Disk, name: str, backup_id: bytes) -> None:
        assert len(backup_id) == IDENTITY_BYTES, f"an id has {IDENTITY_BYTES} bytes"
        self._disk = disk
        self._name = name
        self._temporary = name + TEMPORARY_SUFFIX
        self.backup_id = backup_id
        self._salt = 0
        self._offset = 0
        self._tally: _Tally | None = None
        self._shard_at = 0
        self.saved: list[ShardSaved] = []
        """The shards that are done."""

    async def begin(self) -> None:
        """Begin the file. Raises ConfigError if there is one of that name already."""
        self._refuse_to_replace()
        header = encode_envelope(_MAGIC, FORMAT_VERSION, _HEADER.pack(self.backup_id))
        self._salt = header_crc(header)
        try:
            await remove_if_there(self._disk, self._temporary)
        except OSError as error:
            raise storage_failed(f"removing {self._temporary}", error) from error
        await self._write(header)

    async def begin_shard(self, shard: int, position: LogPosition) -> None:
        """Begin the state of a shard. Its chunks follow."""
        assert self._tally is None, "one shard after the other"
        self._tally = _Tally(shard, position)
        self._shard_at = self._offset
        await self._piece(_BEGIN, _SHARD.pack(shard, *position))

    async def add(self, chunk: bytes) -> None:
        """Add a chunk of the state."""
        assert self._tally is not None, "a chunk of no shard"
        self._tally.add(chunk)
        await self._piece(_CHUNK, chunk)

    async def drop_shard(self) -> None:
        """Take back what was written of a shard that is not whole; nothing if there is none."""
        if self._tally is None:
            return
        self._tally = None
        try:
            await self._disk.truncate(self._temporary, self._shard_at)
        except OSError as error:
            raise storage_failed(f"cutting {self._temporary}", error) from error
        self._offset = self._shard_at

    @property
    def size_bytes(self) -> int:
        """What was written so far."""
        return self._offset

    def end_shard(self, instances: int) -> ShardSaved:
        """Take that the state is whole."""
        assert self._tally is not None, "a shard ends that did not begin"
        saved = self._tally.saved(instances)
        self._tally = None
        self.saved.append(saved)
        return saved

    async def finish(self, manifest: Manifest) -> int:
        """Add the manifest and give the file its name; return its size. Durable on return."""
        assert self._tally is None, "a shard is not whole"
        at = self._offset
        document = json.dumps(manifest.document(), indent=1, ensure_ascii=True)
        await self._piece(_MANIFEST, document.encode())
        begins = _OFFSET.pack(at)
        crc = zlib.crc32(begins, self._salt + self._offset)
        await self._write(_TRAILER.pack(at, crc))
        try:
            await self._disk.sync(self._temporary)
            self._refuse_to_replace()
            await self._disk.rename(self._temporary, self._name)
        except OSError as error:
            raise storage_failed(f"writing {self._name}", error) from error
        await pin_names(self._disk)
        return self._offset

    async def give_up(self) -> None:
        """Remove what was written so far."""
        try:
            await remove_if_there(self._disk, self._temporary)
        except OSError as error:
            raise storage_failed(f"removing {self._temporary}", error) from error

    async def _piece(self, kind: int, body: bytes) -> None:
        if len(body) > limits.BACKUP_PIECE_BYTES_MAX:
            raise ConfigError(
                f"a piece of {len(body)} bytes does not fit into a backup, "
                f"{limits.BACKUP_PIECE_BYTES_MAX} do"
            )
        head = _PIECE_AFTER_CRC.pack(len(body), kind)
        crc = zlib.crc32(body, zlib.crc32(head, self._salt + self._offset))
        await self._write(_CRC.pack(crc) + head + body)

    async def _write(self, encoded: bytes) -> None:
        try:
            await self._disk.append(self._temporary, (encoded,), sync=False)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(f"no space left to write {self._name}") from error
            raise storage_failed(f"writing {self._name}", error) from error
        self._offset += len(encoded)

    def _refuse_to_replace(self) -> None:
        if self._name in self._disk.names():
            raise ConfigError(f"{self._name} is there already: a backup replaces nothing")


class Backup:
    """A backup that was found. Its end is checked, its shards are when they are read."""

    def __init__(self, disk: Disk, name: str) -> None:
        """Raises CorruptionError if it is no backup, or not whole; ConfigError if it is newer."""
        self._disk = disk
        self._name = name
        self.size_bytes = disk.size(name)
        header = disk.read(name, 0, _HEADER_BYTES)
        fields = decode_envelope(
            header, _MAGIC, FORMAT_VERSION, _HEADER.size, name=name, shard=None
        )
        (self._backup_id,) = _HEADER.unpack(fields)
        self._salt = header_crc(header)
        self._manifest_at = self._find_manifest()
        self.manifest = self._read_manifest()

    def shards(self) -> Iterator[tuple[ShardSaved, Iterator[bytes]]]:
        """Yield each shard with its chunks, which have to be taken before the next shard.

        A shard counts only when its last chunk was taken: then it is checked against the
        manifest. Raises CorruptionError.
        """
        offset = _HEADER_BYTES
        for saved in self.manifest.shards:
            kind, body = self._read_piece(offset)
            if kind != _BEGIN or len(body) != _SHARD.size:
                raise self._corruption(offset, "a shard is missing", saved.shard)
            shard, epoch, revision = _SHARD.unpack(body)
            if (shard, LogPosition(epoch, revision)) != (saved.shard, saved.position):
                raise self._corruption(offset, "not the shard that the manifest names", shard)
            offset += _PIECE.size + len(body)
            cursor = _Cursor(offset)
            yield saved, self._chunks(saved, cursor)
            assert cursor.done, "the chunks of a shard are taken before the next shard"
            offset = cursor.offset
        if offset != self._manifest_at:
            raise self._corruption(offset, "there is more than the manifest names")

    def verify(self) -> None:
        """Read everything. Raises CorruptionError."""
        for _, chunks in self.shards():
            for _ in chunks:
                pass

    def _chunks(self, saved: ShardSaved, cursor: _Cursor) -> Iterator[bytes]:
        tally = _Tally(saved.shard, saved.position)
        for _ in range(saved.chunks):
            kind, chunk = self._read_piece(cursor.offset)
            if kind != _CHUNK:
                raise self._corruption(cursor.offset, "a chunk is missing", saved.shard)
            tally.add(chunk)
            cursor.offset += _PIECE.size + len(chunk)
            cursor.done = tally.chunks == saved.chunks
            if cursor.done and tally.saved(saved.instances) != saved:
                raise self._corruption(
                    cursor.offset, "not the content that the manifest names", saved.shard
                )
            yield chunk

    def _find_manifest(self) -> int:
        offset = self.size_bytes - _TRAILER.size
        trailer = self._disk.read(self._name, max(0, offset), _TRAILER.size)
        if offset < _HEADER_BYTES or len(trailer) != _TRAILER.size:
            raise self._corruption(0, "the backup is cut short")
        at, crc = _TRAILER.unpack(trailer)
        valid = zlib.crc32(_OFFSET.pack(at), self._salt + offset) == crc
        if not valid or not _HEADER_BYTES <= at <= offset - _PIECE.size:
            raise self._corruption(offset, "the backup is cut short, or its end is damaged")
        return int(at)

    def _read_manifest(self) -> Manifest:
        kind, body = self._read_piece(self._manifest_at)
        if kind != _MANIFEST:
            raise self._corruption(self._manifest_at, "the manifest is missing")
        if self._manifest_at + _PIECE.size + len(body) + _TRAILER.size != self.size_bytes:
            raise self._corruption(self._manifest_at, "something follows the manifest")
        try:
            manifest = _manifest_of(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            raise self._corruption(self._manifest_at, f"not a manifest: {error}") from error
        if manifest.backup_id != self._backup_id:
            raise self._corruption(self._manifest_at, "the manifest of another backup")
        return manifest

    def _read_piece(self, offset: int) -> tuple[int, bytes]:
        head = self._disk.read(self._name, offset, _PIECE.size)
        if len(head) < _PIECE.size:
            raise self._corruption(offset, "the backup is cut short")
        crc, length, kind = _PIECE.unpack(head)
        if length > min(limits.BACKUP_PIECE_BYTES_MAX, self.size_bytes - offset - _PIECE.size):
            raise self._corruption(offset, "a piece is longer than the backup")
        body = self._disk.read(self._name, offset + _PIECE.size, length)
        expected = zlib.crc32(body, zlib.crc32(head[_CRC.size :], self._salt + offset))
        if len(body) != length or crc != expected:
            raise self._corruption(offset, "a piece is damaged")
        return kind, body

    def _corruption(self, offset: int, message: str, shard: int | None = None) -> CorruptionError:
        return CorruptionError(message, segment=self._name, offset=offset, shard=shard)


class _Cursor:
    """Where the reader of a shard's chunks is."""

    __slots__ = ("done", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.done = False


def _manifest_of(fields: dict[str, object]) -> Manifest:
    found: list[ShardSaved] = []
    lines = fields["shards"]
    cluster = fields["cluster"]
    if not isinstance(lines, list) or not isinstance(cluster, dict):
        raise TypeError("no list of shards")
    for line in lines:
        saved = ShardSaved(
            _number(line, "shard"),
            LogPosition(_number(line, "epoch"), _number(line, "revision")),
            _number(line, "chunks"),
            _number(line, "bytes"),
            str(line["sha256"]),
            _number(line, "instances"),
        )
        if saved.shard >= SHARDS or not saved.chunks or (found and saved.shard <= found[-1].shard):
            raise ValueError(f"shard {saved.shard} is out of order")
        if saved.position.epoch > limits.EPOCH_MAX or saved.position.revision > limits.REVISION_MAX:
            raise ValueError(f"a position of shard {saved.shard} that cannot be")
        found.append(saved)
    return Manifest(
        bytes.fromhex(str(fields["backup_id"])),
        _number(fields, "taken_at_ms"),
        bytes.fromhex(str(fields["cluster_id"])),
        str(fields["source"]),
        str(fields["program"]),
        tuple(found),
        _number(fields, "epoch_max"),
        cluster,
    )


def _number(fields: Mapping[str, object], name: str) -> int:
    value = fields[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is not a number from 0")
    return value
