"""Found by seed 12: sessions expired right after a start that took longer than their time."""

from __future__ import annotations

import asyncio

from ssgovern.client.registry import Registry, connect
from ssgovern.node.config import ListenConfig, ServerConfig, SessionConfig
from ssgovern.node.node import Node
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

CONFIG = ServerConfig(
    listen=ListenConfig(host="0.0.0.0", insecure=True),
    session=SessionConfig(ttl_ms=5000, heartbeat_interval_ms=1000, close_grace_ms=1000),
)


def test_a_slow_start_is_not_held_against_those_who_could_not_speak() -> None:
    """A session has its full time to live from the moment at which its node listens again."""
    nodes: list[Node] = []
    clients: list[Registry] = []

    async def node(runtime: SimRuntime) -> None:
        nodes.append(Node(CONFIG, runtime))
        await nodes[-1].run()

    async def client(runtime: SimRuntime) -> None:
        async with connect("node", runtime=runtime) as registry:
            clients.append(registry)
            await registry.register("orders", port=80)
            await asyncio.get_running_loop().create_future()

    with World(1) as world:
        server = world.process("node", node)
        server.start()
        world.process("client", client).start()
        world.run(3.0)
        server.kill()
        server.machine.disk_timing.sync = (6.0, 6.0)
        server.start()
        restarted_at = world.now
        assert world.run_until(lambda: not clients[0].connection.connected, 60.0)
        assert world.run_until(lambda: clients[0].connection.connected, 60.0)
        assert world.now > restarted_at + 6.0, "the disk was not slow enough to tell"
        world.run(world.now + 2.0)

        assert len(nodes) == 2
        assert nodes[1].registry.expirations == 0
        assert nodes[1].registry.totals() == (1, 1)
