"""What every demonstration shares: the processes it registers, its steps, its way of speaking.

A demonstration prints the command a user would type and what came of it, and checks what it
claims: an instance that is lost, or a dead one that comes back, ends it with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ssgovern.cli.children import Child
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.interrupt import stop_requested
from ssgovern.cli.output import Cell, print_table, toned
from ssgovern.cli.shapes import print_instances
from ssgovern.client.registry import Registry, connect
from ssgovern.errors import ConfigError

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
_TOLD_TIMEOUT_S = 15.0
_MARKER = ".ss-govern-demo"
_PORT = 7420
_PORT_STEP = 10


@dataclass(frozen=True, slots=True)
class Service:
    """One process that registers itself."""

    service: str
    port: int
    options: tuple[str, ...] = ()


SERVICES = (
    Service("orders", 8080, ("--meta", "lane=gray")),
    Service("orders", 8081),
    Service("orders", 8082, ("--weight", "50")),
    Service("payments", 9090, ("--zone", "eu-1")),
    Service("users", 9191, ("--version", "2.1.0")),
)
_VICTIM = 1


class Demonstration(ABC):
    """Processes, and a story told with them. `run` it once."""

    def __init__(self, directory: Path, nodes: Sequence[Child], address: str) -> None:
        self._directory = directory
        self._nodes = nodes
        self._address = address
        self._services = [
            Child(
                f"{s.service}-{s.port}",
                (
                    *("register", s.service, "--host", HOST, "--port", str(s.port)),
                    *(*s.options, "--server", address),
                ),
                directory / f"{s.service}-{s.port}.log",
            )
            for s in SERVICES
        ]

    console_port = 0
    """Where the first node has its console; 0: nowhere."""

    @abstractmethod
    async def _tell(self) -> int:
        """Tell the story up to its end; return the exit code."""

    @abstractmethod
    def _suggestions(self) -> Iterator[str]:
        """Yield what to try while everything keeps running."""

    async def run(self, *, leave: bool) -> int:
        """Tell the story, stay unless told to leave, and stop every process."""
        async with stop_requested() as stop:
            try:
                story = asyncio.create_task(self._story(leave=leave))
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait({story, stopped}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if not story.done():
                    story.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await story
                    return EXIT_OK
                return story.result()
            finally:
                say("Stopping everything.")
                await self._stop()

    async def _stop(self) -> None:
        for children in (self._services, self._nodes):
            async with asyncio.TaskGroup() as tasks:
                for child in children:
                    tasks.create_task(child.stop())

    async def _story(self, *, leave: bool) -> int:
        code = await self._tell()
        if code == EXIT_OK and not leave:
            await self._stay()
        return code

    def _connected(self) -> Registry:
        return connect(self._address)

    # --- steps -----------------------------------------------------------------------------

    async def _register(self, registry: Registry) -> None:
        """Start the processes that register, and show what there is then."""
        for child in self._services:
            command(child.arguments)
            await child.start()
        async with asyncio.timeout(START_TIMEOUT_S):
            for name in sorted({s.service for s in SERVICES}):
                expected = sum(s.service == name for s in SERVICES)
                async with registry.subscribe(name) as view:
                    while len(view.instances) < expected:
                        await anext(aiter(view))
        command(("services",))
        await show_services(registry)
        command(("get", "orders"))
        print_instances(await registry.get("orders"))

    async def _kill_one(self, registry: Registry, number: int) -> None:
        """Kill one of the processes; a watcher has to be told."""
        child, victim = self._services[_VICTIM], SERVICES[_VICTIM]
        step(f"{number}. Kill one of them with SIGKILL: {victim.service} on port {victim.port}")
        loop = asyncio.get_running_loop()
        async with registry.subscribe(victim.service) as view, asyncio.timeout(_TOLD_TIMEOUT_S):
            say(f"watching {victim.service}: {len(view.instances)} instances")
            say(f"kill -9 {child.pid}")
            began = loop.time()
            await child.kill()
            async for change in view:
                if any(gone.port == victim.port for gone in change.removed):
                    break
            ms = (loop.time() - began) * 1000
            left = ", ".join(instance.id for instance in view.instances)
        say(
            f"The watcher was told after {toned(f'{ms:.0f} ms', 'good', sys.stdout)}"
            f" (a lost connection has 1 s to come back). Left: {left}"
        )

    async def _stay(self) -> None:
        if self.console_port:
            step("It keeps running. Open the console in a browser:")
            click.echo(f"    {toned(f'http://{HOST}:{self.console_port}/', 'strong', sys.stdout)}")
            click.echo()
            say("And try, in another terminal:")
        else:
            step("It keeps running. Try, in another terminal:")
        for line in self._suggestions():
            click.echo(f"    {line}")
        say("Ctrl-C stops everything.")
        async with asyncio.TaskGroup() as tasks:
            for child in (*self._nodes, *self._services):
                if child.is_alive:
                    tasks.create_task(_report_end(child))
        say("All processes have ended.")


async def _report_end(child: Child) -> None:
    pid = child.pid
    code = await child.gone()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    say(f"{child.name} (process {pid}) has ended: {how}")


async def everything(registry: Registry) -> list[str]:
    """Return all instances of the demonstration, as they are answered."""
    return [
        f"{name}/{instance.id}"
        for name in sorted({s.service for s in SERVICES})
        for instance in sorted(await registry.get(name), key=lambda found: found.id)
    ]


async def show_services(registry: Registry) -> None:
    """Print the list of services."""
    print_table(
        ("SERVICE", "INSTANCES", "AVAILABLE"),
        [
            (Cell(s.service, "strong"), str(s.instances), str(s.available))
            for s in await registry.services()
        ],
        right=("INSTANCES", "AVAILABLE"),
    )


# --- around it -----------------------------------------------------------------------------


def empty(directory: Path) -> None:
    """Make the directory, or empty it if a demonstration made it."""
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARKER).exists():
        raise ConfigError(
            f"{directory} holds what no demonstration made; name another --data-dir",
            path=str(directory),
        )
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / _MARKER).touch()


def free_ports(wanted: int | None, count: int) -> list[int]:
    """Return ports for the nodes: those that were asked for, the usual ones, or any."""
    for first in (_PORT, 0) if wanted is None else (wanted,):
        numbers = [first + number * _PORT_STEP if first else 0 for number in range(count)]
        with contextlib.ExitStack() as probes:
            try:
                # All at once: the system must not give the same free port twice.
                return [_bound(probes.enter_context(socket.socket()), port) for port in numbers]
            except (OSError, OverflowError):
                continue
    raise ConfigError(
        f"port {wanted} is in use, or one of the {count - 1} behind it; name another --port or none"
        if count > 1
        else f"port {wanted} is in use; name another --port or none",
        port=str(wanted),
    )


def console_port(port: int, others: Sequence[int] = ()) -> int:
    """Return where a node's console goes: the port behind its own; 0, for none, if it is taken."""
    if port + 1 in others:
        return 0
    with socket.socket() as probe:
        try:
            return _bound(probe, port + 1)
        except (OSError, OverflowError):
            return 0


def _bound(probe: socket.socket, port: int) -> int:
    # As the node will: a port in TIME_WAIT is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((HOST, port))
    return int(probe.getsockname()[1])


def program() -> str:
    """Return how the user can call us from here."""
    if shutil.which("ss-govern"):
        return "ss-govern"
    script = Path(sys.argv[0])
    if script.name == "ss-govern":
        return os.path.relpath(script) if script.is_absolute() else str(script)
    return "python -m ssgovern.cli.main"


def step(title: str) -> None:
    """Print the title of a step."""
    click.echo(f"\n{toned(title, 'strong', sys.stdout)}")


def command(arguments: Sequence[str]) -> None:
    """Print what a user would type."""
    click.echo(f"  {toned('$', 'dim', sys.stdout)} ss-govern {' '.join(arguments)}")


def say(text: str) -> None:
    """Print what came of it."""
    click.echo(f"  {text}")
