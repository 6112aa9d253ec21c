"""The same operations on the real and on the simulated disk, with the same observations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ssgovern.model import LogPosition
from ssgovern.runtime import Disk
from ssgovern.runtime.real import RealDisk
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage import LogEntry, Wal, WalRecord, load_snapshots, write_snapshot

IDENTITY = b"0123456789abcdef"
Body = Callable[[Callable[[], Disk]], Coroutine[Any, Any, Any]]


async def _latency(operation: str) -> None:
    await asyncio.sleep(0)


def observe_both(body: Body, tmp_path: Path) -> tuple[Any, Any]:
    """Run `body` on both; it gets a function that opens the one directory again."""
    image = DiskImage()
    real = asyncio.run(body(lambda: RealDisk(str(tmp_path / "real"))))
    simulated = asyncio.run(body(lambda: SimDisk(image, _latency)))
    return real, simulated


async def _outcome(call: Awaitable[None]) -> str:
    try:
        await call
    except OSError as error:
        return type(error).__name__
    return "done"


async def _files(open_disk: Callable[[], Disk]) -> list[Any]:
    disk = open_disk()
    seen: list[Any] = [disk.names()]
    seen.append(await _outcome(disk.append("b", [b"one", b"", b"two"], sync=False)))
    seen.append(await _outcome(disk.append("a", [b"x" * 100_000] * 30, sync=True)))
    seen.append(await _outcome(disk.append("a", [bytes([i]) for i in range(256)] * 10, sync=True)))
    seen.append(await _outcome(disk.append("c", [], sync=False)))
    seen.append((disk.names(), disk.size("a"), disk.size("b"), disk.size("c")))
    seen.append((disk.read("b"), disk.read("b", 2), disk.read("b", 2, 3), disk.read("b", 5, 100)))
    seen.append((disk.read("b", 6), disk.read("b", 9, 9), disk.read("b", 0, 0)))
    seen.append(disk.read("a", 2_999_999))
    seen.append(await _outcome(disk.truncate("b", 4)))
    seen.append(await _outcome(disk.append("b", [b"!"], sync=True)))
    seen.append(disk.read("b"))
    seen.append(await _outcome(disk.truncate("b", 8)))
    seen.append(disk.read("b"))
    seen.append(await _outcome(disk.rename("b", "a")))
    seen.append((disk.names(), disk.read("a")))
    seen.append(await _outcome(disk.append("a", [b"after rename"], sync=True)))
    seen.append(await _outcome(disk.append("b", [b"again"], sync=False)))
    seen.append((disk.names(), disk.read("a"), disk.read("b")))
    seen.append(await _outcome(disk.sync("b")))
    seen.append(await _outcome(disk.sync_directory()))
    seen.append(await _outcome(disk.remove("c")))
    seen.append(await _outcome(disk.remove("no")))
    seen.append(await _outcome(disk.sync("no")))
    seen.append(await _outcome(disk.truncate("no", 0)))
    seen.append(await _outcome(disk.rename("no", "b")))
    for read in (lambda: disk.size("no"), lambda: disk.read("no")):
        with pytest.raises(FileNotFoundError):
            read()
    await disk.close()
    seen.append(await _outcome(disk.append("a", [b"late"], sync=False)))
    again = open_disk()
    seen.append([(name, again.read(name)) for name in again.names()])
    await again.close()
    return seen


def test_file_operations(tmp_path: Path) -> None:
    """Contents, sizes, names and errors are the same after every operation."""
    real, simulated = observe_both(_files, tmp_path)
    assert real == simulated


async def _reserve(open_disk: Callable[[], Disk]) -> list[Any]:
    disk = open_disk()
    await disk.append("log", [b"abc"], sync=True)
    await disk.reserve("log", 5000)
    await disk.append("log", [b"def"], sync=True)
    # A process that dies here leaves zeros behind what it wrote; one that closes does not.
    seen: list[Any] = [disk.read("log").rstrip(b"\0")]
    await disk.truncate("log", 4)
    await disk.append("log", [b"xyz"], sync=True)
    seen.append(disk.read("log"))
    await disk.reserve("log", 5000)
    await disk.close()
    again = open_disk()
    seen.append(again.read("log"))
    await again.append("log", [b"!"], sync=True)
    seen.append(again.read("log"))
    await again.close()
    return seen


def test_reserved_room_is_not_seen_after_an_orderly_end(tmp_path: Path) -> None:
    """Appends go where the written bytes end, cuts end a reservation, closing gives it back."""
    real, simulated = observe_both(_reserve, tmp_path)
    assert real == simulated == [b"abcdef", b"abcdxyz", b"abcdxyz", b"abcdxyz!"]


async def _order(open_disk: Callable[[], Disk]) -> bytes:
    disk = open_disk()
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(disk.append("log", [b"%d," % number], sync=number % 7 == 0))
    content = disk.read("log")
    await disk.close()
    return content


def test_calls_take_effect_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    """Appends that were started together stand in the file in the order of their calls."""
    real, simulated = observe_both(_order, tmp_path)
    assert real == simulated == b"".join(b"%d," % number for number in range(50))


async def _storage(open_disk: Callable[[], Disk]) -> list[Any]:
    seen: list[Any] = []
    for life in range(4):
        disk = open_disk()
        records: list[WalRecord] = []
        wal = await Wal.recover(
            disk, identity=IDENTITY, on_record=records.append, segment_bytes=3_000
        )
        seen.append((repr(wal), wal.segments, records))
        for number in range(20):
            entry = LogEntry(number % 5, 1, life * 20 + number, bytes(number * 10))
            await wal.append([entry], sync=number % 3 == 0)
        await wal.mark()
        await disk.close()
    return seen


def test_the_log_reads_the_same(tmp_path: Path) -> None:
    """Several lives of the log leave the same records and the same segments on both."""
    real, simulated = observe_both(_storage, tmp_path)
    assert real == simulated


async def _snapshots(open_disk: Callable[[], Disk]) -> list[Any]:
    disk = open_disk()
    chunks = [b"x" * 300_000] * 3
    for shard, revision in ((3, 1), (4, 1), (3, 2)):
        await write_snapshot(disk, IDENTITY, shard, LogPosition(1, revision), chunks)
    await disk.close()
    disk = open_disk()
    found = await load_snapshots(disk, IDENTITY)
    seen = [(each.name, each.size_bytes, len(list(each.chunks()))) for each in found]
    names = disk.names()
    await disk.close()
    return [names, seen]


def test_snapshots_read_the_same(tmp_path: Path) -> None:
    """The same snapshots stay, with the same bytes."""
    real, simulated = observe_both(_snapshots, tmp_path)
    assert real == simulated
