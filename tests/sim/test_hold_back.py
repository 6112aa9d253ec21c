"""A message may be overtaken by what comes later over another connection."""

from __future__ import annotations

import asyncio

from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

PORT = 7420


def test_what_is_held_back_arrives_late_and_in_order_although_its_sender_died() -> None:
    """Old connections are slow, new ones are not, and a power cut takes back nothing sent."""
    heard: list[tuple[float, bytes]] = []

    class Ear(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.append((asyncio.get_running_loop().time() - began, data))

    began = 0.0

    async def listen(runtime: SimRuntime) -> None:
        nonlocal began
        loop = asyncio.get_running_loop()
        began = loop.time()
        server = await loop.create_server(Ear, "0.0.0.0", PORT)
        await server.serve_forever()

    with World(1) as world:

        async def speak(runtime: SimRuntime) -> None:
            loop = asyncio.get_running_loop()
            old, _ = await loop.create_connection(asyncio.Protocol, "there", PORT)
            assert world.network.delay_connections("here", "there", 5.0) == 1
            old.write(b"one")
            old.write(b"two")
            await asyncio.sleep(0.5)
            new, _ = await loop.create_connection(asyncio.Protocol, "there", PORT)
            new.write(b"later")
            await asyncio.sleep(10.0)

        world.process("there", listen).start()
        world.run(1.0)
        here = world.process("here", speak)
        here.start()
        world.run(2.0)
        here.kill(power=True)
        world.run(20.0)
    assert b"".join(word for _, word in heard) == b"lateronetwo"
    assert heard[0][0] < 2.0
    assert heard[-1][0] > 5.5
