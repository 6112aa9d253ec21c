"""The demonstration of a cluster: a primary is killed, and what was there stays there."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from ssgovern.cli.children import Child
from ssgovern.cli.cluster import show_status
from ssgovern.cli.demo_parts import (
    HOST,
    Demonstration,
    command,
    console_port,
    everything,
    program,
    say,
    show_services,
    step,
)
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.output import toned
from ssgovern.client.registry import Registry
from ssgovern.client.subscription import Subscription
from ssgovern.client.values import Change, ClusterStatus
from ssgovern.errors import SsGovernError
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE, shard_of

NODES_MAX = 9
_SERVICE = "orders"
_NEW_PORT = 8099
_WRITE_TIMEOUT_S = 30.0
_UNTIL_TIMEOUT_S = 120.0
_POLL_S = 0.1


class ClusterDemonstration(Demonstration):
    """A cluster of two to nine nodes on this machine; up to three of them vote."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self.console_port = console_port(ports[0], ports)
        for number, text in enumerate(configurations(directory, ports), start=1):
            (directory / f"node-{number}.toml").write_text(text, encoding="utf-8")
        nodes = [
            Child(
                f"node {number}",
                ("server", "--config", str(directory / f"node-{number}.toml")),
                directory / f"node-{number}.log",
            )
            for number in range(1, len(ports) + 1)
        ]
        super().__init__(directory, nodes, ",".join(f"{HOST}:{port}" for port in ports))

    async def _tell(self) -> int:
        step(f"1. Start {len(self._nodes)} nodes, each with a configuration of its own")
        began = asyncio.get_running_loop().time()
        for node in self._nodes:
            command(node.arguments)
            await node.start()
        async with self._connected() as registry:
            found = await self._until(registry, self._is_served, "form a cluster")
            seconds = asyncio.get_running_loop().time() - began
            say(f"They are a cluster after {seconds:.1f} s.")
            if not self._is_whole(found):
                say(f"Copying {found.shards_below_copies} shards to the nodes that joined.")
                found = await self._until(registry, self._is_whole, "copy every shard")
            seconds = asyncio.get_running_loop().time() - began
            say(f"Every shard is in {found.copies} copies after {seconds:.1f} s.")
            click.echo()
            show_status(found)
            step("2. Register five instances of three services, each a process of its own")
            await self._register(registry)
            await self._kill_one(registry, 3)
            code = await self._kill_primary(registry)
            if code == EXIT_OK:
                await show_services(registry)
            return code

    # --- the cluster -----------------------------------------------------------------------

    def _is_served(self, found: ClusterStatus) -> bool:
        return (
            found.controller_heard
            and sum(node.live for node in found.nodes) == len(self._nodes)
            and found.map_version > 0
            and not found.shards_unavailable
        )

    def _is_whole(self, found: ClusterStatus) -> bool:
        return self._is_served(found) and not found.shards_below_copies

    async def _until(
        self, registry: Registry, is_so: Callable[[ClusterStatus], bool], what: str
    ) -> ClusterStatus:
        """Ask until the cluster is as wanted. Raises with the nodes' last words."""
        problem = ""
        try:
            async with asyncio.timeout(_UNTIL_TIMEOUT_S):
                while True:
                    for node in self._nodes:
                        if not node.is_alive:
                            raise click.ClickException(f"{node.name} ended:\n{node.last_words()}")
                    try:
                        found = await registry.cluster_status(shards=True, timeout=2.0)
                    except SsGovernError as error:
                        problem = error.message
                    else:
                        problem = f"{sum(node.live for node in found.nodes)} nodes are there"
                        if is_so(found):
                            return found
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            words = "\n".join(f"  {node.name}:\n{node.last_words(4)}" for node in self._nodes)
            raise click.ClickException(
                f"they did not {what} within {_UNTIL_TIMEOUT_S:g} s ({problem}):\n{words}"
            ) from None

    async def _chosen(self, registry: Registry) -> tuple[int, Child]:
        """Return the shard of a service and its primary, one that the cluster can do without."""
        shard = shard_of(DEFAULT_NAMESPACE, DEFAULT_GROUP, _SERVICE)
        found = await registry.cluster_status(shards=True)
        primary = _primary(found, shard)
        if len(found.candidates) == 1 and primary in found.candidates:
            # Whoever has the only vote is needed to decide who takes over.
            (other,) = (node.node_id for node in found.nodes if node.node_id != primary)
            say(await registry.cluster_transfer(shard, other))
            found = await self._until(
                registry, lambda seen: _primary(seen, shard) == other, "hand the shard over"
            )
            primary = other
        return shard, self._nodes[primary - 1]

    # --- the failure -----------------------------------------------------------------------

    async def _kill_primary(self, registry: Registry) -> int:
        step(f"4. Kill a node with SIGKILL: the primary of the shard that has {_SERVICE}")
        shard, victim = await self._chosen(registry)
        before = await everything(registry)
        loop = asyncio.get_running_loop()
        async with registry.subscribe(_SERVICE) as view:
            seen = _Seen(view)
            listening = asyncio.create_task(seen.listen())
            say(
                f"{victim.name} is the primary of shard {shard}; a watcher sees"
                f" {len(view.instances)} instances. kill -9 {victim.pid}"
            )
            began = loop.time()
            await victim.kill()
            new = await registry.register(
                _SERVICE, host=HOST, port=_NEW_PORT, timeout=_WRITE_TIMEOUT_S
            )
            seconds = loop.time() - began
            say(
                f"A new instance of {_SERVICE} was registered after"
                f" {toned(f'{seconds:.1f} s', 'good', sys.stdout)}: another node took over."
            )
            await new.deregister(timeout=_WRITE_TIMEOUT_S)
            survived = await everything(registry)
            say(f"{victim.name} is started again.")
            began = loop.time()
            await victim.start()
            await self._until(registry, self._is_whole, "become whole again")
            say(f"After {loop.time() - began:.1f} s it has caught up: every shard is in sync.")
        await listening
        lost = [change for change in seen.changes if seen.is_loss(change)]
        after = await everything(registry)
        if not before == survived == after or lost or not seen.least:
            click.echo(
                f"Error: before {before}, then {survived}, after {after}; the watcher was told"
                f" {lost}, its shortest list had {seen.least} instances.",
                err=True,
            )
            return EXIT_FAILED
        say(
            toned("Nothing was lost", "good", sys.stdout)
            + f": {len(after)} instances as before. The watcher never saw fewer than {seen.least};"
            " it was told of the new instance, and nothing else."
        )
        return EXIT_OK

    def _suggestions(self) -> Iterator[str]:
        own = program()
        first = f"{HOST}:{self._ports[0]}"
        server = "" if self._ports[0] == 7420 else f" -s {first}"
        more = len(self._nodes) + 1
        yield f"{own} cluster status{server}"
        yield f"{own} cluster shards{server}"
        yield (
            f"{own} cluster join --to {first} --port {self._ports[-1] + 10}"
            f" --data-dir {self._directory / f'node-{more}'}   one more node"
        )
        yield f"{own} cluster leave {more} --wait{server}        and away again"
        yield f"{own} watch orders{server}                 while you"
        last = self._nodes[-1]
        yield f"kill -9 {last.pid}                         that is {last.name}, and"
        yield f"{own} {' '.join(last.arguments)}"


def _primary(found: ClusterStatus, shard: int) -> int:
    return next(row.primary for row in found.shards if row.shard == shard)


class _Seen:
    """What a watcher of one service was told."""

    def __init__(self, view: Subscription) -> None:
        self._view = view
        self.changes: list[Change] = []
        self.least = len(view.instances)

    async def listen(self) -> None:
        """Write down every change until the subscription is closed."""
        async for change in self._view:
            self.changes.append(change)
            self.least = min(self.least, len(self._view.instances))

    def is_loss(self, change: Change) -> bool:
        """Whether something went that nobody had taken away."""
        return any(gone.port != _NEW_PORT for gone in change.removed)


def configurations(directory: Path, ports: Sequence[int]) -> Iterator[str]:
    """Yield a configuration for each node: three candidates if there are as many, else one."""
    votes = 3 if len(ports) >= 3 else 1
    candidates = ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(ports[:votes], start=1))
    for number, port in enumerate(ports, start=1):
        told = (
            f'candidates = "{candidates}"'
            if number <= votes
            else f'join = "{",".join(f"{HOST}:{port}" for port in ports[:votes])}"'
        )
        yield (
            f"data_dir = {json.dumps(str(directory / f'node-{number}'))}\n"
            f'\n[node]\nname = "node-{number}"\nid = {number}\n'
            f'\n[listen]\nhost = "{HOST}"\nport = {port}\n'
            f"\n[cluster]\n{told}\n"
            + (f"\n[http]\nport = {behind}\n" if (behind := console_port(port, ports)) else "")
        )
