"""A world in which much goes wrong: what runs of it agree on, the seed decided.

`python busy_world.py SEED` prints the digest.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

NAMES = ("n0", "n1", "n2")
PORT = 7000


class Peer(asyncio.Protocol):
    """Passes what it hears on to all connections, a few times, in the order of a set."""

    def __init__(self, peers: set[Peer], runtime: SimRuntime) -> None:
        self.peers = peers
        self.runtime = runtime
        self.transport: asyncio.Transport

    def __hash__(self) -> int:
        # Equal for all: the order of the set is that of insertion, as for tasks it is given.
        return 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peers.add(self)

    def data_received(self, data: bytes) -> None:
        if self.runtime.rng.random() < 0.35:
            for peer in self.peers:
                if not peer.transport.is_closing():
                    peer.transport.write(data[: 1 + self.runtime.rng.randrange(len(data))])

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers.discard(self)


async def node(runtime: SimRuntime, greeting: bytes) -> None:
    loop = asyncio.get_running_loop()
    disk = runtime.open_disk("data")
    peers: set[Peer] = set()
    await loop.create_server(lambda: Peer(peers, runtime), None, PORT)

    async def talk_to(name: str) -> None:
        while True:
            try:
                async with asyncio.timeout(1):
                    transport, _ = await loop.create_connection(
                        lambda: Peer(peers, runtime), name, PORT
                    )
                transport.write(greeting + runtime.random_bytes(20))
                await asyncio.sleep(2 * runtime.rng.random())
                transport.close()
            except (OSError, TimeoutError):
                await asyncio.sleep(0.1)

    async def store() -> None:
        while True:
            await disk.append("log", [runtime.random_bytes(100)], sync=True)
            await asyncio.sleep(0.01)

    async def cancelled_family() -> None:
        while True:
            try:
                async with asyncio.timeout(0.2), asyncio.TaskGroup() as group:
                    for _ in range(7):
                        group.create_task(store())
            except TimeoutError:
                pass

    async with asyncio.TaskGroup() as group:
        for name in NAMES:
            if name != runtime.process.name:
                group.create_task(talk_to(name))
        group.create_task(cancelled_family())


def disturb(world: World) -> None:
    rng = world.fault_rng
    process = world.processes[rng.choice(NAMES)]
    match rng.randrange(6):
        case 0:
            process.kill(power=rng.random() < 0.5)
        case 1:
            process.pause()
        case 2:
            world.network.cut(*rng.sample(NAMES, 2), both=rng.random() < 0.5)
        case 3:
            world.network.set_link(*rng.sample(NAMES, 2), latency=0.05, loss=0.1)
        case 4:
            world.network.reset_connections(*rng.sample(NAMES, 2))
        case _:
            world.network.heal()
            for each in world.processes.values():
                each.resume()
                if not each.alive:
                    each.start()
    world.after(rng.random(), disturb, world)


def run(seed: int, greeting: bytes = b"hello") -> str:
    with World(seed) as world:
        for name in NAMES:
            world.process(name, lambda runtime: node(runtime, greeting)).start()
        world.after(0.5, disturb, world)
        world.run(8.0)
        assert not world.errors, world.errors
        return world.digest()


if __name__ == "__main__":
    print(run(int(sys.argv[1])))
