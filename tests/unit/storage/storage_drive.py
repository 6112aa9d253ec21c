"""Runs coroutines that await nothing but a disk, without an event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage import LogEntry, Wal, WalRecord

T = TypeVar("T")
IDENTITY = b"0123456789abcdef"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns; it must not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waits for something")


async def no_latency(operation: str) -> None:
    return None


def disk_on(image: DiskImage) -> SimDisk:
    return SimDisk(image, no_latency)


def recover(image: DiskImage, **options: Any) -> tuple[Wal, list[WalRecord]]:
    """Recover the log on `image`; return it and the records it handed out."""
    records: list[WalRecord] = []
    wal = run(Wal.recover(disk_on(image), identity=IDENTITY, on_record=records.append, **options))
    return wal, records


def entry(shard: int, revision: int, body: bytes = b"body", epoch: int = 1) -> LogEntry:
    return LogEntry(shard, epoch, revision, body)
