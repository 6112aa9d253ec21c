"""The real disk and runtime, where they differ from a simulation."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ssgovern.runtime import SyncError
from ssgovern.runtime.real import RealDisk, RealRuntime, parse_failpoints


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    """A second process cannot write into a data directory in use; when it is closed, it can."""

    async def body() -> None:
        first = RealDisk(str(tmp_path / "a" / "b"))
        with pytest.raises(BlockingIOError, match="in use"):
            RealDisk(str(tmp_path / "a" / "b"))
        await first.close()
        await RealDisk(str(tmp_path / "a" / "b")).close()

    asyncio.run(body())


def test_reading_only_changes_nothing(tmp_path: Path) -> None:
    """A log in use can be read; what would write is refused; nothing is created."""

    async def body() -> None:
        writer = RealDisk(str(tmp_path))
        await writer.append("file", [b"content"], sync=False)
        reader = RealDisk(str(tmp_path), read_only=True)
        assert (reader.names(), reader.read("file")) == (["file"], b"content")
        with pytest.raises(OSError, match="reading only"):
            await reader.remove("file")
        await reader.close()
        await writer.close()
        with pytest.raises(FileNotFoundError):
            RealDisk(str(tmp_path / "missing"), read_only=True)

    asyncio.run(body())
    assert os.listdir(tmp_path) == ["file"]


def test_threads_and_descriptors_are_given_back(tmp_path: Path) -> None:
    """Many files need few descriptors, and closing leaves no thread and no descriptor."""

    async def body() -> int:
        disk = RealDisk(str(tmp_path))
        for number in range(100):
            await disk.append(f"file-{number}", [b"x"], sync=True)
        used = len(os.listdir("/dev/fd")) - before
        for number in range(100):
            assert disk.read(f"file-{number}") == b"x"
        await disk.close()
        await disk.close()
        return used

    threads, before = threading.active_count(), len(os.listdir("/dev/fd"))
    assert asyncio.run(body()) < 40
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == (threads, before)


def test_a_failed_sync_says_so(tmp_path: Path) -> None:
    """A sync that fails is told from a write that fails."""

    async def body() -> None:
        disk = RealDisk(str(tmp_path))
        os.symlink("/dev/null", tmp_path / "unsyncable")
        with pytest.raises(SyncError) as caught:
            await disk.append("unsyncable", [b"x"], sync=True)
        assert caught.value.errno == errno.EINVAL
        await disk.close()

    asyncio.run(body())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_no_failed_sync(tmp_path: Path) -> None:
    """A refused write is a plain OSError with ENOSPC."""

    async def body() -> None:
        disk = RealDisk(str(tmp_path))
        os.symlink("/dev/full", tmp_path / "full")
        with pytest.raises(OSError, match="No space left") as caught:
            await disk.append("full", [b"x", b"y"], sync=True)
        assert (caught.value.errno, isinstance(caught.value, SyncError)) == (errno.ENOSPC, False)
        await disk.close()

    asyncio.run(body())


def test_a_cancelled_call_still_takes_effect_and_hurts_nobody(tmp_path: Path) -> None:
    """What was handed to the disk is done, and later calls come after it."""

    async def body() -> bytes:
        disk = RealDisk(str(tmp_path))
        task = asyncio.ensure_future(disk.append("file", [b"first,"], sync=True))
        await asyncio.sleep(0)
        task.cancel()
        await disk.append("file", [b"second"], sync=True)
        content = disk.read("file")
        await disk.close()
        return content

    assert asyncio.run(body()) == b"first,second"


def test_failpoints_are_parsed() -> None:
    """Kill or sleep, at the first or at a later passage; faults name the part."""
    parsed = parse_failpoints("wal.after_sync=kill@20, net.after_send=sleep(3000)")
    assert [(p.action, p.sleep_ms, p.passages_left) for p in parsed.values()] == [
        ("kill", 0, 20),
        ("sleep", 3000, 1),
    ]
    assert parse_failpoints("") == {}
    for wrong in ("x", "x=die", "x=kill@", "x=sleep()", "a=kill;b=kill"):
        with pytest.raises(ValueError, match="failpoint"):
            parse_failpoints(wrong)


def test_a_failpoint_kills_at_the_given_passage() -> None:
    """The process dies as by SIGKILL, at that passage and not before."""
    program = (
        "from ssgovern.runtime.real import RealRuntime\n"
        "runtime = RealRuntime(failpoints='here=kill@3')\n"
        "for number in range(9):\n"
        "    runtime.failpoint('elsewhere')\n"
        "    print(number, flush=True)\n"
        "    runtime.failpoint('here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])
    assert "failpoint here" in done.stderr


def test_the_runtime_opens_disks_below_its_directory(tmp_path: Path) -> None:
    """Relative paths are the process's own; identities do not repeat."""
    runtime = RealRuntime(str(tmp_path))

    async def body() -> None:
        await runtime.open_disk("wal").close()

    asyncio.run(body())
    assert os.listdir(tmp_path) == ["wal"]
    assert runtime.random_bytes(16) != runtime.random_bytes(16)
    assert runtime.wall_ms() > 1_600_000_000_000
