"""The audit on disk: lines of JSON in the data directory, the oldest files going first.

`audit.jsonl` is written to, `audit.1.jsonl` and on are older. What the disk does not take is
counted and said in the log: a node does not stop for it. Entries are synced, some together.
Invariant: a line that was torn, by a full disk or the end of a life, costs no other.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from ssgovern import limits
from ssgovern.runtime import Disk
from ssgovern.service.audit import Audit
from ssgovern.wire.pb import native_pb2

log = logging.getLogger("ssgovern.node")

FILE = "audit.jsonl"


class AuditLog:
    """Keeps the entries of an audit. `open` it once the directory is there; `run` is its task."""

    def __init__(self, audit: Audit, file_bytes: int = limits.AUDIT_FILE_BYTES) -> None:
        self._audit = audit
        self._file_bytes = file_bytes
        self._disk: Disk | None = None
        self._waiting: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._bytes = 0
        self._torn = False
        """The file may end within a line."""
        audit.on_entry = self._on_entry

    def open(self, disk: Disk, node_id: int) -> None:
        """Read the newest entries of earlier lives. A line that was torn is passed over."""
        self._disk = disk
        self._audit.node_id = node_id
        names = disk.names()
        # The one before, too: a file may have been begun a moment before the node ended.
        for name in (_name(1), FILE):
            if name in names:
                start = max(0, disk.size(name) - limits.AUDIT_READ_BYTES)
                lines = disk.read(name, start).split(b"\n")[1 if start else 0 :]
                self._audit.restore(entry for line in lines if (entry := _parsed(line)) is not None)
        if FILE in names:
            self._bytes = disk.size(FILE)
            self._torn = self._bytes > 0 and disk.read(FILE, self._bytes - 1) != b"\n"

    def _on_entry(self, entry: native_pb2.AuditEntry) -> None:
        if len(self._waiting) >= limits.AUDIT_WAITING_MAX:
            self._audit.lost += 1
            return
        line = json.dumps(MessageToDict(entry, preserving_proto_field_name=True), sort_keys=True)
        self._waiting.append(line.encode() + b"\n")
        self._woken.set()

    async def run(self) -> None:
        """Write what is noted, for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        disk = self._disk
        if disk is None or not self._waiting:
            return
        lines = list(self._waiting)
        self._waiting.clear()
        try:
            if self._bytes >= self._file_bytes:
                await _roll(disk)
                self._bytes, self._torn = 0, False
            written = [b"\n", *lines] if self._torn else lines
            self._torn = True
            await disk.append(FILE, written, sync=True)
            self._torn = False
            self._bytes += sum(map(len, written))
        except OSError as error:
            self._audit.lost += len(lines)
            log.error(
                "%d entries of the audit are not on disk: %s", len(lines), error.strerror or error
            )


async def _roll(disk: Disk) -> None:
    names = disk.names()
    for number in range(limits.AUDIT_FILES_KEPT - 1, -1, -1):
        name = _name(number)
        if name not in names:
            continue
        if number == limits.AUDIT_FILES_KEPT - 1:
            await disk.remove(name)
        else:
            await disk.rename(name, _name(number + 1))
    await disk.sync_directory()


def _name(number: int) -> str:
    return FILE if number == 0 else f"audit.{number}.jsonl"


def _parsed(line: bytes) -> native_pb2.AuditEntry | None:
    try:
        return ParseDict(json.loads(line), native_pb2.AuditEntry(), ignore_unknown_fields=True)
    except (ValueError, ParseError):
        return None
