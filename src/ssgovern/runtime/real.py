"""The real machine: a directory on a POSIX file system, the system's clock and randomness.

The only module of the runtime with threads and system calls. Decides nothing: no retries, no
interpretation of errors beyond telling a failed sync from a failed write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, NamedTuple

from ssgovern.runtime import Disk, Rng, SyncError

_OPEN_FILES_MAX: Final = 16
_IOV_MAX: Final = 1024
_CANNOT_RESERVE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.EINVAL)
_F_FULLFSYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)


class _Job(NamedTuple):
    deed: Callable[[], None]
    future: asyncio.Future[None]


class RealDisk:
    """One directory, written by one thread of its own, so that calls take effect in order.

    A directory has one writer: it is locked while this object is open, and opening it a second
    time raises BlockingIOError. `read_only` takes no lock and creates nothing.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self._path = os.path.abspath(path)
        self._read_only = read_only
        if not read_only:
            _make_directories(self._path)
        self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        if not read_only:
            try:
                fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._directory)
                raise BlockingIOError(
                    errno.EWOULDBLOCK, "the directory is in use by another process", self._path
                ) from error
        self._files: dict[str, _OpenFile] = {}
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<RealDisk {self._path}>"

    def names(self) -> list[str]:
        with os.scandir(self._path) as found:
            return sorted(item.name for item in found if item.is_file(follow_symlinks=False))

    def size(self, name: str) -> int:
        return os.stat(name, dir_fd=self._directory).st_size

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=self._directory)
        try:
            left = os.fstat(descriptor).st_size - offset if length < 0 else length
            chunks: list[bytes] = []
            while left > 0 and (chunk := os.pread(descriptor, left, offset)):
                chunks.append(chunk)
                offset += len(chunk)
                left -= len(chunk)
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            os.close(descriptor)

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        def deed() -> None:
            file = self._open(name, create=True)
            file.write(chunks)
            if sync:
                file.sync()

        await self._do(deed)

    async def reserve(self, name: str, size: int) -> None:
        await self._do(lambda: self._open(name).reserve(size))

    async def sync(self, name: str) -> None:
        await self._do(lambda: self._open(name).sync())

    async def truncate(self, name: str, size: int) -> None:
        def deed() -> None:
            file = self._open(name)
            file.cut(size)

        await self._do(deed)

    async def remove(self, name: str) -> None:
        def deed() -> None:
            os.unlink(name, dir_fd=self._directory)
            self._forget(name)

        await self._do(deed)

    async def rename(self, source: str, target: str) -> None:
        def deed() -> None:
            os.rename(source, target, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._forget(target)
            if (file := self._files.pop(source, None)) is not None:
                self._files[target] = file

        await self._do(deed)

    async def sync_directory(self) -> None:
        await self._do(lambda: _sync(self._directory, os.fsync))

    async def close(self) -> None:
        if self._closed:
            return
        if self._thread is not None:
            await self._do(lambda: None)
            self._jobs.put(None)
            self._thread.join()
        self._closed = True
        for name in list(self._files):
            self._forget(name)
        os.close(self._directory)

    async def _do(self, deed: Callable[[], None]) -> None:
        if self._closed or self._read_only:
            state = "closed" if self._closed else "open for reading only"
            raise OSError(errno.EROFS, f"the directory is {state}", self._path)
        if self._thread is None:
            # A daemon, so that a process told to stop at once is not held up by a slow disk.
            self._thread = threading.Thread(
                target=_work, args=(self._jobs,), name=f"disk {self._path}", daemon=True
            )
            self._thread.start()
        future = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(deed, future))
        await future

    def _open(self, name: str, *, create: bool = False) -> _OpenFile:
        file = self._files.get(name)
        if file is None:
            self._close_one_of_many()
            flags = os.O_WRONLY | (os.O_CREAT if create else 0)
            file = _OpenFile(os.open(name, flags, 0o640, dir_fd=self._directory))
            self._files[name] = file
        return file

    def _close_one_of_many(self) -> None:
        if len(self._files) < _OPEN_FILES_MAX:
            return
        # Not one with unsynced bytes: a write error is reported to descriptors open at the time.
        clean = next(
            (name for name, file in self._files.items() if not file.dirty and not file.reserved),
            None,
        )
        if clean is not None:
            self._forget(clean)

    def _forget(self, name: str) -> None:
        if (file := self._files.pop(name, None)) is not None:
            file.close()


class _OpenFile:
    __slots__ = ("_descriptor", "_end", "dirty", "reserved")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = os.fstat(descriptor).st_size
        """Where the next append goes: before what is reserved."""
        self.reserved = False
        self.dirty = True
        """May have unsynced bytes. True at first: another process may have written them."""

    def write(self, chunks: Sequence[bytes]) -> None:
        self.dirty = True
        for start in range(0, len(chunks), _IOV_MAX):
            views = [memoryview(chunk) for chunk in chunks[start : start + _IOV_MAX] if chunk]
            while views:
                written = os.pwritev(self._descriptor, views, self._end)
                self._end += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]

    def reserve(self, size: int) -> None:
        allocate = getattr(os, "posix_fallocate", None)
        length = size - self._end
        if allocate is None or length <= 0:
            return
        try:
            allocate(self._descriptor, self._end, length)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
            os.ftruncate(self._descriptor, self._end)
            return
        self.reserved = True

    def cut(self, size: int) -> None:
        self.dirty = True
        os.ftruncate(self._descriptor, size)
        self._end = size
        self.reserved = False

    def sync(self) -> None:
        _sync(self._descriptor, getattr(os, "fdatasync", os.fsync))
        self.dirty = False

    def close(self) -> None:
        if self.reserved:
            os.ftruncate(self._descriptor, self._end)
        os.close(self._descriptor)


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        failure: BaseException | None = None
        try:
            job.deed()
        except BaseException as error:  # noqa: BLE001 (it is raised where the call was awaited)
            failure = error
        # A loop that was closed meanwhile raises: nobody waits for this answer any more.
        with contextlib.suppress(RuntimeError):
            job.future.get_loop().call_soon_threadsafe(_resolve, job.future, failure)


def _resolve(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


def _sync(descriptor: int, system_call: Callable[[int], None]) -> None:
    try:
        if _F_FULLFSYNC is not None:
            # On macOS fsync leaves the bytes in the cache of the drive.
            fcntl.fcntl(descriptor, _F_FULLFSYNC)
        else:
            system_call(descriptor)
    except OSError as error:
        raise SyncError(error.errno, error.strerror) from error


def _make_directories(path: str) -> None:
    """Create `path` and what is missing above it, each durable in the one above."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make_directories(above)
    os.mkdir(path, 0o750)
    descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor, os.fsync)
    finally:
        os.close(descriptor)


class _Failpoint:
    __slots__ = ("action", "passages_left", "sleep_ms")

    def __init__(self, action: str, sleep_ms: int, passages: int) -> None:
        self.action = action
        self.sleep_ms = sleep_ms
        self.passages_left = passages


_FAILPOINT: Final = re.compile(r"([\w.]+)=(kill|sleep\((\d+)\))(?:@(\d+))?")


def parse_failpoints(specification: str) -> dict[str, _Failpoint]:
    """Parse `name=kill@20,other=sleep(3000)`: at the 20th passage die, at the first one sleep.

    Raises ValueError naming the part that is wrong.
    """
    failpoints: dict[str, _Failpoint] = {}
    for part in filter(None, (part.strip() for part in specification.split(","))):
        match = _FAILPOINT.fullmatch(part)
        if match is None:
            raise ValueError(f"failpoint {part!r}: expected name=kill[@N] or name=sleep(MS)[@N]")
        name, action, sleep_ms, passages = match.groups()
        failpoints[name] = _Failpoint(
            action.partition("(")[0], int(sleep_ms or 0), int(passages or 1)
        )
    return failpoints


def precise_s() -> float:
    """Return a clock for measuring: an event loop's own has milliseconds, and may stand still."""
    return time.perf_counter()


class RealRuntime:
    """What a process is given on a real machine.

    Relative paths of disks are below `directory`. `failpoints` is for tests only; this object
    never reads the environment.
    """

    def __init__(self, directory: str = ".", *, failpoints: str = "") -> None:
        self._directory = directory
        self._failpoints = parse_failpoints(failpoints)
        self._rng = random.Random()

    @property
    def rng(self) -> Rng:
        return self._rng

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def open_disk(self, path: str) -> Disk:
        return RealDisk(os.path.join(self._directory, path))

    def failpoint(self, name: str) -> None:
        if not self._failpoints:
            return
        failpoint = self._failpoints.get(name)
        if failpoint is None:
            return
        failpoint.passages_left -= 1
        if failpoint.passages_left != 0:
            return
        if failpoint.action == "kill":
            sys.stderr.write(f"failpoint {name}: killed\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(failpoint.sleep_ms / 1000)
