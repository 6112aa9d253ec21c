"""The nodes of a cluster of ours, as processes that may be killed, paused and started again.

Knows processes and what the cluster says of itself; no load. Every process is stopped by its own
id, and dies with this one. A node keeps its port and its data over its lives.
"""

import asyncio
import contextlib
import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence

from benchmarks.contender import HOST, Address, Place, StartError, dying_with_us, free_port
from benchmarks.contender import on_cores as running_on
from ssgovern import connect
from ssgovern.client.registry import Registry
from ssgovern.client.values import ClusterStatus
from ssgovern.errors import SsGovernError
from ssgovern.model import ShardId, shard_of

NODES = 3
FORM_S_MAX = 30.0
_STOP_S_MAX = 30.0
_POLL_S = 0.1
NAMESPACE, GROUP = "prod", "DEFAULT"


class Node:
    """One node: number, port, directory, and its process if it runs."""

    def __init__(self, number: int, place: Place, options: Sequence[str]) -> None:
        self.number = number
        self._place = place
        self._options = options
        self.address: Address = (HOST, free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def check(self) -> None:
        """Raise StartError if its process ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise StartError(f"node {self.number} exited with {code}:\n{self.last_lines()}")

    @property
    def pid(self) -> int:
        assert self._process is not None, f"node {self.number} does not run"
        return self._process.pid

    def start(self, options: Sequence[str]) -> None:
        """Start it; it serves a moment later."""
        directory = self._place.directory
        directory.mkdir(parents=True, exist_ok=True)
        argv = [*dying_with_us(), sys.executable, "-m", "ssgovern.cli.main", "server"]
        argv += ["--node-id", str(self.number), "--node-name", f"node-{self.number}"]
        argv += ["--data-dir", str(directory / "data"), "--listen-port", str(self.address[1])]
        with (directory / "server.log").open("ab") as log, running_on(self._place.server_cores):
            self._process = subprocess.Popen(
                [*argv, *options, *self._options],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal and go on."""
        assert self._process is not None, f"node {self.number} does not run"
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end of the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        end = time.monotonic() + _STOP_S_MAX
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
            await asyncio.sleep(0.01)

    def last_lines(self, count: int = 12) -> str:
        """Return the end of its log."""
        log = self._place.directory / "server.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


class Nodes:
    """A cluster whose first nodes are its candidates; the others join by address."""

    def __init__(self, place: Place, candidates: int, options: Sequence[str]) -> None:
        self._place = place
        self._options = options
        self._by_number: dict[int, Node] = {}
        self._registry: Registry
        for _ in range(candidates):
            self._new()
        self._candidates = ",".join(
            f"{node.number}@{HOST}:{node.address[1]}" for node in self.all()
        )

    def _new(self) -> Node:
        number = len(self._by_number) + 1
        node = Node(number, self._place.member(number), self._options)
        self._by_number[number] = node
        return node

    def __getitem__(self, number: int) -> Node:
        return self._by_number[number]

    def all(self) -> list[Node]:
        """Return all nodes there ever were, by number."""
        return list(self._by_number.values())

    def start(self, number: int) -> None:
        """Start a node, for the first time or again."""
        self._by_number[number].start(["--cluster-candidates", self._candidates])

    def join(self) -> Node:
        """Start one node more, which is no candidate."""
        seeds = ",".join(f"{HOST}:{node.address[1]}" for node in self.all())
        node = self._new()
        node.start(["--cluster-join", seeds])
        return node

    @property
    def seeds(self) -> list[str]:
        """The addresses of all nodes, for clients."""
        return [f"{host}:{port}" for host, port in (node.address for node in self.all())]

    async def status(self, *, shards: bool = False) -> ClusterStatus:
        """Ask the cluster how it is."""
        return await self._registry.cluster_status(shards)

    async def until(
        self, reached: Callable[[ClusterStatus], bool], what: str, *, within_s: float
    ) -> float:
        """Wait until the cluster says so; return the seconds it took. Raises StartError."""
        began = time.monotonic()
        said = "nothing"
        while time.monotonic() - began < within_s:
            for node in self.all():
                node.check()
            try:
                status = await self._registry.cluster_status(timeout=2.0)
            except SsGovernError as error:
                said = str(error)
            else:
                if reached(status):
                    return time.monotonic() - began
                said = describe(status)
            await asyncio.sleep(_POLL_S)
        last = "\n".join(f"node {node.number}:\n{node.last_lines(4)}" for node in self.all())
        raise StartError(f"not {what} after {within_s:.0f} s; the cluster says: {said}\n{last}")

    async def open(self) -> None:
        """Begin to ask. The client is that of an operator and holds nothing."""
        self._registry = connect(self.seeds, client_name="benchmark", namespace=NAMESPACE)
        await self._registry.open()

    async def close(self) -> None:
        """Stop every process and forget what it kept."""
        await self._registry.close()
        for node in self.all():
            if node.is_running:
                # A paused process would not hear that it is to stop.
                node.send(signal.SIGCONT)
            await node.end(signal.SIGTERM)
        shutil.rmtree(self._place.directory, ignore_errors=True)

    @property
    def registry(self) -> Registry:
        """The operator's client."""
        return self._registry

    async def primaries(self) -> dict[ShardId, int]:
        """Return the primary of every shard."""
        status = await self.status(shards=True)
        return {ShardId(row.shard): row.primary for row in status.shards}


@contextlib.asynccontextmanager
async def cluster(
    place: Place, *, nodes: int = NODES, options: Sequence[str] = ()
) -> AsyncIterator[Nodes]:
    """Run a cluster of that many candidates, formed and balanced."""
    shutil.rmtree(place.directory, ignore_errors=True)
    running = Nodes(place, nodes, options)
    for node in running.all():
        running.start(node.number)
    await running.open()
    try:
        await running.until(is_balanced, "formed", within_s=FORM_S_MAX)
        yield running
    finally:
        await running.close()


def is_whole(status: ClusterStatus) -> bool:
    """Tell whether every shard is served and has all its copies in sync."""
    return (
        status.controller_heard
        and not status.shards_unavailable
        and not status.shards_below_copies
        and all(node.live for node in status.nodes)
    )


def is_balanced(status: ClusterStatus) -> bool:
    """Tell whether it is whole, at rest, and the primaries are spread evenly."""
    primaries = [node.primaries for node in status.nodes if not node.leaving]
    return (
        is_whole(status)
        and not status.moves
        and sum(primaries) == status.shards_total
        and max(primaries) - min(primaries) <= 2
    )


def describe(status: ClusterStatus) -> str:
    """Say in a line how a cluster is."""
    nodes = ", ".join(
        f"{node.node_id}{'' if node.live else ' dead'}: {node.primaries} primaries,"
        f" {node.in_sync} of {node.holds} in sync"
        for node in status.nodes
    )
    return (
        f"{status.shards_unavailable} shards unavailable, {status.shards_below_copies} below"
        f" copies, {status.moves} moves; {nodes}"
    )


class Names:
    """Names of services, by the node that is the primary of their shard."""

    def __init__(self, primaries: dict[ShardId, int], prefix: str = "orders") -> None:
        self._primaries = primaries
        self._prefix = prefix
        self._numbers = itertools.count()
        self._found: dict[int, list[int]] = {node: [] for node in dict.fromkeys(primaries.values())}

    def take(self, node: int, count: int = 1) -> list[int]:
        """Return numbers of services that nobody has taken, in different shards if possible."""
        found = self._found[node]
        while len(found) < count:
            number = next(self._numbers)
            shard = shard_of(NAMESPACE, GROUP, f"{self._prefix}-{number}")
            self._found[self._primaries[shard]].append(number)
        taken, self._found[node] = found[:count], found[count:]
        return taken
