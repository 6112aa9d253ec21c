"""How a node of a cluster ends its waiting while it stops. In virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ssgovern.model import NodeId
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World


class StoppingNode(ClusterNode):
    """A node that waits for others to take its shards, and has lost all of them."""

    def __init__(self) -> None:
        self.host = SimpleNamespace(on_lost=lambda _: None)  # type: ignore[assignment]
        self._handing_over = None

    def _is_alone(self) -> bool:
        return True

    async def wait_for_others(self, wait_s: float) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(wait_s) as self._handing_over:
                await asyncio.Event().wait()


def _play(wait_s: float, lost_after_s: float) -> float:
    """Return for how long a node waited that lost two others, one right after the other."""
    waited: list[float] = []

    async def program(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        node = StoppingNode()

        def lose() -> None:
            node._on_link_lost(NodeId(2))
            loop.call_soon(node._on_link_lost, NodeId(3))

        started = loop.time()
        loop.call_later(lost_after_s, lose)
        await node.wait_for_others(wait_s)
        waited.append(loop.time() - started)

    with World(1) as world:
        # What is due at one moment is then run in one turn.
        world.wake_jitter = world.callback_cost = 0.0
        world.process("node", program).start()
        world.run(30.0)
        assert not world.errors, [str(error) for error in world.errors]
    [waited_s] = waited
    return waited_s


def test_who_loses_everybody_waits_no_longer() -> None:
    """Where all nodes stop nobody takes the shards: the wait ends with the last connection."""
    assert _play(10.0, 2.0) == pytest.approx(2.0)


def test_who_loses_everybody_just_when_the_time_is_up_stops_as_well() -> None:
    """A connection lost in the very turn in which the wait ends breaks nothing (cluster 100477)."""
    assert _play(2.0, 2.0) == pytest.approx(2.0)
