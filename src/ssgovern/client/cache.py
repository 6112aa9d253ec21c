"""The last good lists on disk, for a client that starts while no server answers.

One file per service: written aside, synced, renamed. Knows no connection. Invariants: what is
damaged is ignored and never an error to the caller; a list on disk is one that a node told us;
writing is coalesced, so that a busy service costs at most one write per `WRITE_INTERVAL_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.client.view import ServiceView
from ssgovern.errors import SsGovernError
from ssgovern.model import Instance, LogPosition, Pattern, ServiceKey
from ssgovern.runtime import Disk, Runtime
from ssgovern.wire.codec import (
    decode,
    encode,
    instance_from_wire,
    instance_to_wire,
    key_from_wire,
    key_to_wire,
)
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

WRITE_INTERVAL_S = 1.0

_MAGIC = b"SSGLIST1"
_HEADER = struct.Struct("!8sIq16s")
"""Magic, CRC-32 of all that follows it, wall time of writing, cluster id; then a Snapshot."""
_CRC_END = 12
_SUFFIX = ".list"
_ENCODE_SLICE = 256
"""Instances encoded before the loop gets a turn."""
_ASIDE = ".aside"


@dataclass(frozen=True, slots=True)
class CachedList:
    """A list as it was kept: where it came from, what it stood for and when it was written."""

    key: ServiceKey
    cluster_id: bytes
    position: LogPosition
    instances: tuple[Instance, ...]
    written_at_ms: int


class Cache:
    """A directory of lists, owned by one client. One task runs `run`; the rest is synchronous."""

    def __init__(self, disk: Disk, runtime: Runtime) -> None:
        self._disk = disk
        self._runtime = runtime
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._dirty: dict[ServiceKey, tuple[ServiceView, bytes]] = {}
        self._wakeup = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failing = False

    def __repr__(self) -> str:
        return f"<Cache services={len(self._sizes)} dirty={len(self._dirty)}>"

    # --- reading ---------------------------------------------------------------------------

    def load(self, key: ServiceKey) -> CachedList | None:
        """Return what was kept of a service, or None."""
        name = _name_of(key)
        if name not in self._sizes:
            return None
        kept = self._read(name)
        return kept if kept is not None and kept.key == key else None

    def load_matching(self, pattern: Pattern) -> Iterator[CachedList]:
        """Yield what was kept of all services that a pattern covers."""
        for name in sorted(self._sizes):
            kept = self._read(name)
            if kept is not None and pattern.matches(kept.key):
                yield kept

    def _read(self, name: str) -> CachedList | None:
        try:
            return parse_list(self._disk.read(name))
        except (OSError, ValueError, SsGovernError) as error:
            _logger.warning("kept list %s is ignored: %s", name, error)
            return None

    # --- writing ---------------------------------------------------------------------------

    def mark(self, view: ServiceView, cluster_id: bytes) -> None:
        """Have the list of a view written soon."""
        self._dirty[view.key] = (view, cluster_id)
        self._wakeup.set()

    async def open(self) -> None:
        """Look at what is there, and remove what an earlier life did not finish."""
        for name in self._disk.names():
            if name.endswith(_ASIDE):
                await self._disk.remove(name)
            elif name.endswith(_SUFFIX):
                self._sizes[name] = self._disk.size(name)
        self._bytes = sum(self._sizes.values())

    async def run(self) -> None:
        """Write what is marked, again and again, until `stop`; then write the rest and close.

        Not to be cancelled: a file half written would be continued by the next write.
        """
        while not self._stopping.is_set():
            await self._wakeup.wait()
            self._wakeup.clear()
            await self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_INTERVAL_S):
                    await self._stopping.wait()
        await self._flush()
        await self._disk.close()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()
        self._wakeup.set()

    async def _flush(self) -> None:
        written = False
        try:
            while self._dirty:
                key = next(iter(self._dirty))
                view, cluster_id = self._dirty[key]
                del self._dirty[key]
                written = await self._write(view, cluster_id) or written
            if written:
                await self._disk.sync_directory()
                self._failing = False
        except OSError as error:
            # The lists in memory are what counts; the next change tries again.
            self._warn_once("lists cannot be kept on disk: %s", error)

    def _warn_once(self, message: str, *args: object) -> None:
        if not self._failing:
            _logger.warning(message, *args)
        self._failing = True

    async def _write(self, view: ServiceView, cluster_id: bytes) -> bool:
        name = _name_of(view.key)
        kept = CachedList(
            view.key, cluster_id, view.position, view.instances, self._runtime.wall_ms()
        )
        body = []
        for part in _encoded_parts(kept):
            body.append(part)
            # The caller's loop is not held up by a list of thousands.
            await asyncio.sleep(0)
        content = _with_header(kept, b"".join(body))
        size_before = self._sizes.get(name, 0)
        if self._bytes - size_before + len(content) > limits.CLIENT_CACHE_BYTES_MAX:
            self._warn_once(
                "lists on disk reached %d bytes: %s is not kept",
                limits.CLIENT_CACHE_BYTES_MAX,
                view.key,
            )
            return False
        aside = name + _ASIDE
        try:
            await self._disk.append(aside, [content], sync=True)
            await self._disk.rename(aside, name)
        except OSError:
            # If even this fails, the next write makes a file whose checksum is wrong: ignored.
            with contextlib.suppress(OSError):
                await self._disk.remove(aside)
            raise
        self._sizes[name] = len(content)
        self._bytes += len(content) - size_before
        return True


def encode_list(kept: CachedList) -> bytes:
    """Return the content of a file."""
    return _with_header(kept, b"".join(_encoded_parts(kept)))


def _encoded_parts(kept: CachedList) -> Iterator[bytes]:
    """Yield the Snapshot in parts: protobuf merges what is concatenated."""
    yield encode(
        native_pb2.Snapshot(
            service=key_to_wire(kept.key),
            epoch=kept.position.epoch,
            revision=kept.position.revision,
        )
    )
    for start in range(0, len(kept.instances), _ENCODE_SLICE):
        some = kept.instances[start : start + _ENCODE_SLICE]
        yield encode(native_pb2.Snapshot(instances=map(instance_to_wire, some)))


def _with_header(kept: CachedList, body: bytes) -> bytes:
    header = _HEADER.pack(_MAGIC, 0, kept.written_at_ms, kept.cluster_id)
    crc = zlib.crc32(body, zlib.crc32(header[_CRC_END:]))
    return _HEADER.pack(_MAGIC, crc, kept.written_at_ms, kept.cluster_id) + body


def parse_list(content: bytes) -> CachedList:
    """Return what a file holds. Raises ValueError or InvalidArgumentError."""
    if len(content) < _HEADER.size:
        raise ValueError(f"{len(content)} bytes are too few")
    magic, crc, written_at_ms, cluster_id = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise ValueError("it does not begin as a list does")
    if zlib.crc32(memoryview(content)[_CRC_END:]) != crc:
        raise ValueError("its checksum is wrong")
    snapshot = decode(native_pb2.Snapshot, content[_HEADER.size :])
    return CachedList(
        key_from_wire(snapshot.service),
        cluster_id,
        LogPosition(snapshot.epoch, snapshot.revision),
        tuple(map(instance_from_wire, snapshot.instances)),
        written_at_ms,
    )


def _name_of(key: ServiceKey) -> str:
    """Names may be any text, file names may not: hence a hash. The file itself names the key."""
    text = "\0".join(key).encode()
    return hashlib.sha256(text).hexdigest()[:40] + _SUFFIX
