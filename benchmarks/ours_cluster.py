"""Our own cluster as a contender: three nodes, every write acknowledged by all of them.

Each connection writes to services whose primary is the node it goes to, as a client does that
follows the shard map. What the cluster holds is asked of each node: all of them hold every shard.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from benchmarks.contender import Address, Place
from benchmarks.load import ClosedLoop, LoadError, Tally
from benchmarks.nodes import NODES, Names, Nodes, cluster
from benchmarks.ours import Registering, status
from ssgovern.version import __version__

_SESSIONS_END_S_MAX = 90.0
_OUR_OWN_SESSIONS = 6


class OurCluster:
    """Nodes of this checkout. `services` is how many each connection writes to, in turn."""

    name = "ss-govern"
    operation = "register"
    warm_up_s = 2.0

    def __init__(self, services: int = 1) -> None:
        self._services = services
        self.settings = f"{NODES} nodes, {NODES} copies, acks = all, defaults (durability = sync)"

    def absent(self) -> str | None:
        return None

    def version(self) -> str:
        return __version__

    @contextlib.asynccontextmanager
    async def start(self, place: Place) -> AsyncIterator["OurClusterServer"]:
        async with cluster(place) as nodes:
            server = OurClusterServer(nodes, self._services)
            await server.open()
            yield server


class OurClusterServer:
    """A running cluster."""

    def __init__(self, nodes: Nodes, services: int) -> None:
        self._nodes = nodes
        self._services = services
        self._numbers = {node.address: node.number for node in nodes.all()}
        self._names: Names
        self._held = 0
        self.pids = [node.pid for node in nodes.all()]
        self.addresses = [node.address for node in nodes.all()]

    async def open(self) -> None:
        self._names = Names(await self._nodes.primaries())

    async def prepare(self, _services: Sequence[int]) -> None:
        """Nothing: services need no parents."""

    def client(
        self, address: Address, _service: int, tally: Tally, in_flight: int, value: bytes
    ) -> ClosedLoop:
        del value  # the instance itself is registered; `value` is the same, encoded
        services = self._names.take(self._numbers[address], self._services)
        return Registering(services, tally, in_flight)

    async def confirm(self, _services: Sequence[int], acked: int) -> None:
        wanted = self._held + acked
        try:
            # The run's sessions end a second after their connections, which costs a change of
            # each of their instances. That belongs to no run.
            async with asyncio.timeout(_SESSIONS_END_S_MAX):
                for address in self.addresses:
                    said = await status(address)
                    while said.sessions > _OUR_OWN_SESSIONS or said.instances != wanted:
                        await asyncio.sleep(0.5)
                        said = await status(address)
        except TimeoutError:
            raise LoadError(
                f"{acked} registrations were acknowledged; the node at {address[1]} holds"
                f" {said.instances - self._held}, with {said.sessions} sessions"
            ) from None
        self._held = wanted
