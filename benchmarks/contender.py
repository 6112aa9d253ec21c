"""What a server must offer to be measured, and how one is started and stopped.

A contender is one process or, in a cluster, several. It is started with an empty directory on
the cores it is given, prepared, loaded through connections it builds itself, asked whether it
really holds what it acknowledged, stopped by its own process ids, and its directory is removed.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.load import ClosedLoop, LoadError, Tally

HOST = "127.0.0.1"
Address = tuple[str, int]
START_S_MAX = 60.0
STOP_S_MAX = 20.0


class StartError(RuntimeError):
    """A server did not come up; the message ends with the last lines it logged."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server runs: an own directory, and the cores of the server and of the load."""

    directory: Path
    server_cores: Sequence[int]
    load_cores: Sequence[int]

    def member(self, number: int) -> "Place":
        """Return where one process of several runs."""
        return Place(self.directory / str(number), self.server_cores, self.load_cores)


class Server(Protocol):
    """A running server. `services` are numbers that make keys of separate runs distinct."""

    @property
    def pids(self) -> Sequence[int]: ...

    @property
    def addresses(self) -> Sequence[Address]:
        """Where clients connect; several take turns."""

    async def prepare(self, services: Sequence[int], /) -> None:
        """Do what has to exist before the first request, parents of keys for instance."""

    def client(
        self, address: Address, service: int, tally: Tally, in_flight: int, value: bytes
    ) -> ClosedLoop:
        """Build a connection to `address` that writes new keys of this service for ever."""

    async def confirm(self, services: Sequence[int], acked: int, /) -> None:
        """Raise `LoadError` unless the server holds exactly what it acknowledged."""


class Contender(Protocol):
    """A kind of server that can be started here."""

    @property
    def name(self) -> str: ...

    @property
    def operation(self) -> str:
        """One durable write, in the server's own words."""

    @property
    def settings(self) -> str:
        """Everything that is not the server's default and may bear on the figures."""

    @property
    def warm_up_s(self) -> float:
        """Least time under load before figures mean something (compilers at run time)."""

    def absent(self) -> str | None:
        """Say what is missing and which package has it; None if it can be started."""

    def version(self) -> str: ...

    def start(self, place: Place) -> AbstractAsyncContextManager[Server]: ...


def free_port() -> int:
    """Return a loopback port nobody listens on; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Run the calling thread on these cores; a process started meanwhile inherits them.

    Set before the start and not after it: runtimes count their cores once, at the start,
    and threads that already run keep the mask they were born with.
    """
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextlib.asynccontextmanager
async def running(
    argv: Sequence[str], place: Place, *, files: Mapping[str, str] | None = None
) -> AsyncIterator["Process"]:
    """Run a command on the server's cores in a directory that holds just `files`.

    Stops it and removes the directory after.

    The process is asked to stop and, if it does not, killed: always by its own id.
    """
    shutil.rmtree(place.directory, ignore_errors=True)
    place.directory.mkdir(parents=True)
    for name, text in (files or {}).items():
        (place.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (place.directory / name).write_text(text)
    log = place.directory / "server.log"
    with log.open("wb") as output, on_cores(place.server_cores):
        process = subprocess.Popen(
            [*dying_with_us(), *argv],
            cwd=place.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(process, log)
    finally:
        await _stop(process)
        shutil.rmtree(place.directory, ignore_errors=True)


class Process:
    """A started command and its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def until_serving(
        self, probe: Callable[[], Awaitable[None]], *, within_s: float = START_S_MAX
    ) -> None:
        """Call the probe until it does not fail; raise `StartError` if that takes too long."""
        why = "it did not answer"
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if (code := self._process.poll()) is not None:
                        raise StartError(f"it exited with {code}:\n{self.last_lines()}")
                    try:
                        await probe()
                    except (OSError, LoadError) as fault:
                        why = str(fault)
                    else:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StartError(
                f"not serving after {within_s} s ({why}):\n{self.last_lines()}"
            ) from None

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-count:])


def dying_with_us() -> list[str]:
    """Return what makes a server stop if this process is killed, where the system has it.

    It replaces itself by the server, so the process id is the server's.
    """
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


async def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    loop = asyncio.get_running_loop()
    end = loop.time() + STOP_S_MAX
    while process.poll() is None:
        if loop.time() > end:
            process.kill()
        await asyncio.sleep(0.02)
