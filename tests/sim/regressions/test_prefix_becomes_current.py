"""Found by seed 252: a prefix waited for ever to be told of a service that never was."""

from __future__ import annotations

import asyncio

import pytest

from ssgovern.client.registry import Registry, connect
from ssgovern.client.subscription import PrefixSubscription
from ssgovern.errors import UnavailableError
from ssgovern.node.config import ListenConfig, ServerConfig
from ssgovern.node.node import Node
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

CONFIG = ServerConfig(listen=ListenConfig(host="0.0.0.0", insecure=True))


async def _wait_for_ghost(registry: Registry) -> None:
    with pytest.raises(UnavailableError):
        await registry.subscribe("ghost", timeout=0.5).open()


def test_a_prefix_is_current_whatever_else_was_asked_for_in_vain() -> None:
    """A service that nobody could tell us of does not keep a prefix that covers it waiting."""
    following: list[PrefixSubscription] = []

    async def node(runtime: SimRuntime) -> None:
        await Node(CONFIG, runtime).run()

    async def client(runtime: SimRuntime) -> None:
        registry = connect("node", runtime=runtime)
        async with registry, registry.subscribe_prefix("") as everything:
            following.append(everything)
            while registry.connection.connected:
                await asyncio.sleep(0.1)
            await _wait_for_ghost(registry)
            await asyncio.get_running_loop().create_future()

    with World(1) as world:
        server = world.process("node", node)
        server.start()
        world.process("client", client).start()
        assert world.run_until(lambda: bool(following), 5.0)
        assert following[0].is_current
        server.kill()
        world.run(world.now + 3.0)
        assert not following[0].is_current
        server.start()

        assert world.run_until(lambda: following[0].is_current, world.now + 10.0)
        assert not world.errors
