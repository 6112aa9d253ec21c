"""`demo`: a registry at work in half a minute, with real processes that are really killed.

Every step prints the command a user would type and what came of it. What it claims is checked:
an instance that is lost, or a dead one that comes back, ends it with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from ssgovern.cli.children import Child
from ssgovern.cli.connection import log_for
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.interrupt import stop_requested
from ssgovern.cli.output import Cell, print_table, toned
from ssgovern.cli.shapes import print_instances
from ssgovern.client.registry import Registry, connect
from ssgovern.client.subscription import PrefixSubscription
from ssgovern.client.values import Change
from ssgovern.errors import ConfigError

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_TOLD_TIMEOUT_S = 15.0
_MARKER = ".ss-govern-demo"


@dataclass(frozen=True, slots=True)
class _Service:
    service: str
    port: int
    options: tuple[str, ...] = ()


_SERVICES = (
    _Service("orders", 8080, ("--meta", "lane=gray")),
    _Service("orders", 8081),
    _Service("orders", 8082, ("--weight", "50")),
    _Service("payments", 9090, ("--zone", "eu-1")),
    _Service("users", 9191, ("--version", "2.1.0")),
)
_VICTIM = 1

_HELP = """\b
Examples:
  ss-govern demo                   stays at the end, for you to try things; Ctrl-C stops all
  ss-govern demo --exit            leaves by itself
Everything it makes is in --data-dir, which it empties when it starts.
"""


@click.command(epilog=_HELP)
@click.option(
    "-d",
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("ss-govern-demo"),
    show_default=True,
    help="Where the node's data and the logs go.",
)
@click.option("-p", "--port", type=click.IntRange(0, 65535), help="[default: 7420, or a free one]")
@click.option("--exit", "leave", is_flag=True, help="Leave at the end instead of staying.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def demo(
    data_dir: Path,
    port: int | None,
    leave: bool,
    debug: bool,
) -> int:
    """Show in a minute what a node does: register, kill, be told, kill the node, lose nothing."""
    log_for(debug=debug)
    _empty(data_dir)
    return asyncio.run(_Demo(data_dir, _free_port(port)).run(leave=leave))


class _Demo:
    def __init__(self, directory: Path, port: int) -> None:
        self._address = f"{_HOST}:{port}"
        self._port = port
        self._directory = directory
        self._node = Child(
            "the node",
            ("server", "--data-dir", str(directory / "node"), "--port", str(port)),
            directory / "node.log",
        )
        self._services = [
            Child(
                f"{s.service}-{s.port}",
                (
                    *("register", s.service, "--host", _HOST, "--port", str(s.port)),
                    *(*s.options, "--server", self._address),
                ),
                directory / f"{s.service}-{s.port}.log",
            )
            for s in _SERVICES
        ]

    async def run(self, *, leave: bool) -> int:
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
                _say("Stopping everything.")
                await self._stop()

    async def _stop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for child in self._services:
                tasks.create_task(child.stop())
        await self._node.stop()

    async def _story(self, *, leave: bool) -> int:
        await self._start_node()
        async with self._connected() as registry:
            await self._register(registry)
            await self._kill_one(registry)
            code = await self._kill_node(registry)
        if code == EXIT_OK and not leave:
            await self._stay()
        return code

    def _connected(self) -> Registry:
        return connect(self._address)

    # --- the steps -------------------------------------------------------------------------

    async def _start_node(self) -> None:
        _step("1. Start a node")
        _command(self._node.arguments)
        seconds = await self._serving()
        _say(f"It serves after {seconds:.2f} s: process {self._node.pid}, log {self._node.log}")

    async def _serving(self) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._node.start()
        await self._node.listening(_HOST, self._port, _START_TIMEOUT_S)
        return loop.time() - began

    async def _register(self, registry: Registry) -> None:
        _step("2. Register five instances of three services, each a process of its own")
        for child in self._services:
            _command(child.arguments)
            await child.start()
        async with asyncio.timeout(_START_TIMEOUT_S):
            for name in sorted({s.service for s in _SERVICES}):
                expected = sum(s.service == name for s in _SERVICES)
                async with registry.subscribe(name) as view:
                    while len(view.instances) < expected:
                        await anext(aiter(view))
        _command(("services",))
        await _show_services(registry)
        _command(("get", "orders"))
        await _show_instances(registry, "orders")

    async def _kill_one(self, registry: Registry) -> None:
        child, victim = self._services[_VICTIM], _SERVICES[_VICTIM]
        _step(f"3. Kill one of them with SIGKILL: {victim.service} on port {victim.port}")
        loop = asyncio.get_running_loop()
        async with registry.subscribe(victim.service) as view, asyncio.timeout(_TOLD_TIMEOUT_S):
            _say(f"watching {victim.service}: {len(view.instances)} instances")
            _say(f"kill -9 {child.pid}")
            began = loop.time()
            await child.kill()
            async for change in view:
                if any(gone.port == victim.port for gone in change.removed):
                    break
            ms = (loop.time() - began) * 1000
            left = ", ".join(instance.id for instance in view.instances)
        _say(
            f"The watcher was told after {toned(f'{ms:.0f} ms', 'good', sys.stdout)}"
            f" (a lost connection has 1 s to come back). Left: {left}"
        )

    async def _kill_node(self, registry: Registry) -> int:
        _step("4. Kill the node itself with SIGKILL, and start it again")
        before = await _everything(registry)
        told: list[Change] = []

        async def listen(view: PrefixSubscription) -> None:
            async for change in view:
                told.append(change)  # noqa: PERF401 - looked at before the end

        async with registry.subscribe_prefix("") as view:
            listening = asyncio.create_task(listen(view))
            _say(f"there are {len(before)} instances, and a watcher. kill -9 {self._node.pid}")
            await self._node.kill()
            seconds = await self._serving()
            _say(f"started again, it serves after {seconds:.2f} s")
            async with asyncio.timeout(_START_TIMEOUT_S):
                # All processes and this one: each with the session it had.
                while (await registry.status()).connections < len(before) + 1:
                    await asyncio.sleep(0.05)
                while not view.is_current:
                    await asyncio.sleep(0.05)
            after = await _everything(registry)
        await listening
        if after != before or told:
            click.echo(f"Error: before {before}, after {after}, told {told}.", err=True)
            return EXIT_FAILED
        _say(
            toned("Everything is still there", "good", sys.stdout)
            + f": {len(after)} instances, and the dead one stayed dead. The processes are"
            " connected again by themselves; the watcher was told nothing, for nothing changed."
        )
        await _show_services(registry)
        return EXIT_OK

    async def _stay(self) -> None:
        program = _program()
        server = "" if self._port == 7420 else f" -s {self._address}"
        _step("5. It keeps running. Try, in another terminal:")
        for line in (
            f"{program} watch 'o*'{server}                 and, in a third:",
            f"{program} update orders {_HOST}:8080 --disable{server}",
            f"{program} register orders --port 8090{server}",
            f"{program} status{server}",
            f"{program} wal inspect {self._directory / 'node'} --records",
            f"kill -9 {self._services[0].pid}                       that is orders on port 8080",
        ):
            click.echo(f"    {line}")
        _say("Ctrl-C stops everything.")
        async with asyncio.TaskGroup() as tasks:
            for child in (self._node, *self._services):
                if child.is_alive:
                    tasks.create_task(_report_end(child))
        _say("All processes have ended.")


async def _report_end(child: Child) -> None:
    pid = child.pid
    code = await child.gone()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    _say(f"{child.name} (process {pid}) has ended: {how}")


async def _everything(registry: Registry) -> list[str]:
    """Return all instances of the demonstration, as they are answered by the node."""
    return [
        f"{name}/{instance.id}"
        for name in sorted({s.service for s in _SERVICES})
        for instance in sorted(await registry.get(name), key=lambda found: found.id)
    ]


async def _show_services(registry: Registry) -> None:
    print_table(
        ("SERVICE", "INSTANCES", "AVAILABLE"),
        [
            (Cell(s.service, "strong"), str(s.instances), str(s.available))
            for s in await registry.services()
        ],
        right=("INSTANCES", "AVAILABLE"),
    )


async def _show_instances(registry: Registry, service: str) -> None:
    print_instances(await registry.get(service))


# --- around it -----------------------------------------------------------------------------


def _empty(directory: Path) -> None:
    """Make the directory, or empty it if a demonstration made it."""
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARKER).exists():
        raise ConfigError(
            f"{directory} holds what no demonstration made; name another --data-dir",
            path=str(directory),
        )
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / _MARKER).touch()


def _free_port(wanted: int | None) -> int:
    for port in (7420, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            # As the node will: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"port {wanted} is in use; name another --port or none", port=str(wanted))


def _program() -> str:
    """Return how the user can call us from here."""
    if shutil.which("ss-govern"):
        return "ss-govern"
    script = Path(sys.argv[0])
    if script.name == "ss-govern":
        return os.path.relpath(script) if script.is_absolute() else str(script)
    return "python -m ssgovern.cli.main"


def _step(title: str) -> None:
    click.echo(f"\n{toned(title, 'strong', sys.stdout)}")


def _command(arguments: tuple[str, ...]) -> None:
    click.echo(f"  {toned('$', 'dim', sys.stdout)} ss-govern {' '.join(arguments)}")


def _say(text: str) -> None:
    click.echo(f"  {text}")
