"""A cluster of real processes on one machine, and a load that knows what it was promised."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from processes import NodeProcess

import ssgovern
from ssgovern import Registration
from ssgovern.client.values import ClusterStatus

SERVICES = 12
ANSWER_S_MAX = 60.0


class Cluster:
    """Nodes by id: some of them candidates, the rest joined to these."""

    def __init__(
        self,
        root: Path,
        candidates: int,
        others: int = 0,
        *arguments: str,
        place: Callable[[int, Path], NodeProcess] | None = None,
    ) -> None:
        """`place` makes a node, by its id and data directory, somewhere else than usual."""
        self._root = root
        self._arguments = arguments
        self._place = place or (lambda _number, data_dir: NodeProcess(data_dir))
        self.nodes: dict[int, NodeProcess] = {}
        ids = range(1, candidates + 1)
        voters = {number: self._place(number, root / f"node-{number}") for number in ids}
        self.candidates = ",".join(f"{n}@{node.address}" for n, node in voters.items())
        for number, node in voters.items():
            node.arguments = self._of(number, "--cluster-candidates", self.candidates)
            self.nodes[number] = node
        for number in range(candidates + 1, candidates + others + 1):
            self.add(number)

    def _of(self, number: int, *cluster: str) -> tuple[str, ...]:
        name = ("--node-id", str(number), "--node-name", f"n{number}")
        return (*name, *cluster, *self._arguments)

    def add(self, number: int) -> NodeProcess:
        """Return a new node that joins; it is to be started."""
        seeds = ",".join(node.address for node in self.nodes.values())
        node = self._place(number, self._root / f"node-{number}")
        node.arguments = self._of(number, "--cluster-join", seeds)
        self.nodes[number] = node
        return node

    def except_for(self, *numbers: int) -> list[str]:
        """Return the addresses of all nodes but these."""
        return [node.address for number, node in self.nodes.items() if number not in numbers]

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes.values()]

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    def kill(self) -> None:
        for node in self.nodes.values():
            # A stopped process hears SIGKILL all the same.
            node.kill(signal.SIGKILL)

    def connect(self, **options: object) -> ssgovern.Registry:
        options = {"timeout": ANSWER_S_MAX, "namespace": "test", **options}
        return ssgovern.connect(self.addresses, **options)  # type: ignore[arg-type]


async def until_status(
    registry: ssgovern.Registry, holds: Callable[[ClusterStatus], bool], timeout_s: float = 60.0
) -> ClusterStatus:
    """Wait until what a node says of the cluster is so; return it."""
    status: ClusterStatus | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                status = await registry.cluster_status(timeout=timeout_s)
                if holds(status):
                    return status
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"the cluster did not get there: {status}") from None


def is_whole(nodes: int) -> Callable[[ClusterStatus], bool]:
    """All nodes are there, every shard has its primary and all its copies, nothing moves."""

    def holds(status: ClusterStatus) -> bool:
        return (
            sum(node.live for node in status.nodes) == nodes
            and status.map_version > 0
            and not status.shards_unavailable
            and not status.shards_below_copies
            and not status.moves
            and all(node.primaries for node in status.nodes)
        )

    return holds


class Load:
    """Writers that note what was acknowledged, and a subscriber that must not be misled.

    Half of what they register is persistent: a client that finds an ephemeral instance missing
    registers it again, which would hide that it was lost.
    """

    def __init__(self, timeout_s: float = ANSWER_S_MAX) -> None:
        self._timeout_s = timeout_s
        self.counts = True
        """Whether what is acknowledged from now on is a promise."""
        self.present: dict[tuple[str, str], Registration] = {}
        self.absent: dict[tuple[str, str], None] = {}
        self.errors: list[Exception] = []
        self.acknowledged = 0
        self.longest_gap_s = 0.0
        self.false_empties = 0
        self._stop = False

    @asynccontextmanager
    async def on(self, registry: ssgovern.Registry, writers: int = 8) -> AsyncIterator[Load]:
        """Run while the body does; check in the end that nothing was lost."""
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self._follow(registry))
            tasks = [group.create_task(self._write(registry, number)) for number in range(writers)]
            await self.more(20)
            yield self
            self._stop = True
            for task in tasks:
                await task
            follower.cancel()
        await self.check(registry)

    async def more(self, count: int) -> None:
        """Wait until so many more writes were acknowledged."""
        wanted = self.acknowledged + count
        async with asyncio.timeout(ANSWER_S_MAX):
            while self.acknowledged < wanted:
                await asyncio.sleep(0.005)

    async def _write(self, registry: ssgovern.Registry, writer: int) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while not self._stop:
            number += 1
            service = f"orders-{(writer + number) % SERVICES}"
            began = loop.time()
            try:
                if number % 4 == 0 and self.present:
                    place = next(p for p in self.present if p[1].startswith(f"w{writer}-"))
                    registration = self.present.pop(place)  # from now on unknown
                    await registration.deregister(timeout=self._timeout_s)
                    if self.counts:
                        self.absent[place] = None
                else:
                    registration = await registry.register(
                        service,
                        host="10.0.0.1",
                        port=1 + number % 60_000,
                        instance_id=f"w{writer}-{number}",
                        ephemeral=bool(number % 2),
                        timeout=self._timeout_s,
                    )
                    if self.counts:
                        self.present[service, registration.instance.id] = registration
                self.acknowledged += 1
            except ssgovern.SsGovernError as error:
                self.errors.append(error)
            self.longest_gap_s = max(self.longest_gap_s, loop.time() - began)
            await asyncio.sleep(0.002)

    async def _follow(self, registry: ssgovern.Registry) -> None:
        await registry.register("always", host="10.0.0.9", port=1)
        async with registry.subscribe("always") as always:
            async for _ in always:
                self.false_empties += not always.instances

    async def check(self, registry: ssgovern.Registry) -> None:
        """Assert that what was acknowledged is there, and what was removed is not."""
        there: set[tuple[str, str]] = set()
        for number in range(SERVICES):
            service = f"orders-{number}"
            there |= {(service, one.id) for one in await registry.get(service)}
        lost = [place for place in self.present if place not in there]
        resurrected = [place for place in self.absent if place in there]
        assert not lost, f"{len(lost)} of {len(self.present)} lost: {lost[:5]}"
        assert not resurrected, f"{len(resurrected)} came back: {resurrected[:5]}"
        assert not self.errors, self.errors[:3]
        assert not self.false_empties
