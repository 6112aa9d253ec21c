"""`demo`: a registry at work in half a minute, with real processes that are really killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ssgovern.cli.children import Child
from ssgovern.cli.connection import log_for
from ssgovern.cli.demo_cluster import NODES_MAX, ClusterDemonstration
from ssgovern.cli.demo_parts import (
    HOST,
    START_TIMEOUT_S,
    Demonstration,
    command,
    console_port,
    empty,
    everything,
    free_ports,
    program,
    say,
    show_services,
    step,
)
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.output import toned
from ssgovern.client.registry import Registry
from ssgovern.client.subscription import PrefixSubscription
from ssgovern.client.values import Change

_HELP = """\b
Examples:
  ss-govern demo                   stays at the end, for you to try things; Ctrl-C stops all
  ss-govern demo --nodes 3         a cluster: one of its nodes is killed, and nothing is lost
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
    help="Where the nodes' data and the logs go.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, NODES_MAX),
    default=1,
    show_default=True,
    help="How many nodes; with two or more they are a cluster.",
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    help="Of the first node, each further one 10 higher.  [default: 7420, or free ones]",
)
@click.option("--exit", "leave", is_flag=True, help="Leave at the end instead of staying.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def demo(
    data_dir: Path,
    nodes: int,
    port: int | None,
    leave: bool,
    debug: bool,
) -> int:
    """Show in a minute what a node does: register, kill, be told, kill the node, lose nothing."""
    log_for(debug=debug)
    empty(data_dir)
    ports = free_ports(port, nodes)
    story: Demonstration
    if nodes == 1:
        story = _NodeDemonstration(data_dir, ports[0])
    else:
        story = ClusterDemonstration(data_dir, ports)
    return asyncio.run(story.run(leave=leave))


class _NodeDemonstration(Demonstration):
    def __init__(self, directory: Path, port: int) -> None:
        self._port = port
        arguments = ["server", "--data-dir", str(directory / "node"), "--port", str(port)]
        self.console_port = console_port(port)
        if self.console_port:
            arguments += ["--http-port", str(self.console_port)]
        self._node = Child("the node", tuple(arguments), directory / "node.log")
        super().__init__(directory, [self._node], f"{HOST}:{port}")

    async def _tell(self) -> int:
        await self._start_node()
        async with self._connected() as registry:
            step("2. Register five instances of three services, each a process of its own")
            await self._register(registry)
            await self._kill_one(registry, 3)
            return await self._kill_node(registry)

    async def _start_node(self) -> None:
        step("1. Start a node")
        command(self._node.arguments)
        seconds = await self._serving()
        say(f"It serves after {seconds:.2f} s: process {self._node.pid}, log {self._node.log}")

    async def _serving(self) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._node.start()
        await self._node.listening(HOST, self._port, START_TIMEOUT_S)
        return loop.time() - began

    async def _kill_node(self, registry: Registry) -> int:
        step("4. Kill the node itself with SIGKILL, and start it again")
        before = await everything(registry)
        told: list[Change] = []

        async def listen(view: PrefixSubscription) -> None:
            async for change in view:
                told.append(change)  # noqa: PERF401 - looked at before the end

        async with registry.subscribe_prefix("") as view:
            listening = asyncio.create_task(listen(view))
            say(f"there are {len(before)} instances, and a watcher. kill -9 {self._node.pid}")
            await self._node.kill()
            seconds = await self._serving()
            say(f"started again, it serves after {seconds:.2f} s")
            async with asyncio.timeout(START_TIMEOUT_S):
                # All processes and this one: each with the session it had.
                while (await registry.status()).connections < len(before) + 1:
                    await asyncio.sleep(0.05)
                while not view.is_current:
                    await asyncio.sleep(0.05)
            after = await everything(registry)
        await listening
        if after != before or told:
            click.echo(f"Error: before {before}, after {after}, told {told}.", err=True)
            return EXIT_FAILED
        say(
            toned("Everything is still there", "good", sys.stdout)
            + f": {len(after)} instances, and the dead one stayed dead. The processes are"
            " connected again by themselves; the watcher was told nothing, for nothing changed."
        )
        await show_services(registry)
        return EXIT_OK

    def _suggestions(self) -> Iterator[str]:
        own = program()
        server = "" if self._port == 7420 else f" -s {self._address}"
        yield f"{own} watch 'o*'{server}                 and, in a third:"
        yield f"{own} update orders {HOST}:8080 --disable{server}"
        yield f"{own} register orders --port 8090{server}"
        yield f"{own} status{server}"
        yield f"{own} wal inspect {self._directory / 'node'} --records"
        yield f"kill -9 {self._services[0].pid}                       that is orders on port 8080"
