"""An operator of a cluster: gives commands through the SDK while everything else goes wrong.

What is commanded is drawn elsewhere; here it is said, and the cluster may refuse it. Refusals are
counted and are no faults; that nothing is lost by a command is for the checkers to see.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable

from ssgovern.client.registry import Registry, connect
from ssgovern.errors import SsGovernError
from ssgovern.model import shard_of
from ssgovern.sim.cluster_scenario import ClusterScenario
from ssgovern.sim.recorder import RECORDED
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.workload import Stage, key_of

_HURRY = {"moves_max": 32}


class Orders:
    """What the operator is to command next, and how it went. Survives the operator's process."""

    def __init__(self) -> None:
        self.waiting: deque[str] = deque(maxlen=8)
        self.leaving: dict[int, None] = {}
        """Nodes that were told to leave and not to stay."""
        self.is_hurried = False
        """After all was healed: moves are no longer held back."""
        self.counts: Counter[str] = Counter()


class Admin:
    """One life of the operator's process."""

    def __init__(
        self, scenario: ClusterScenario, stage: Stage, orders: Orders, runtime: SimRuntime
    ) -> None:
        process = runtime.process
        self._rng = random.Random(f"{process.world.seed}/{process.name}/{process.incarnation}/use")
        self._scenario = scenario
        self._stage = stage
        self._orders = orders
        self._registry: Registry = connect(
            stage.addresses, client_name="admin", timeout=6.0, runtime=runtime
        )

    async def run(self) -> None:
        async with self._registry:
            while True:
                await asyncio.sleep(self._rng.uniform(0.1, 0.4))
                if self._stage.is_calm:
                    await self._take_back()
                elif self._orders.waiting:
                    await self._command(self._orders.waiting.popleft())

    async def _command(self, order: str) -> None:
        rng, scenario, registry = self._rng, self._scenario, self._registry
        nodes = [int(plan.number) for plan in scenario.nodes]
        match order:
            case "transfer_shard":
                service = rng.choice([*self._stage.services, *RECORDED])
                shard = shard_of(*key_of(service))
                await self._say(order, registry.cluster_transfer(shard, rng.choice(nodes)))
            case "transfer_controller":
                to = rng.randint(1, scenario.topology.candidates)
                await self._say(order, registry.cluster_transfer_controller(to))
            case "change_candidates":
                await self._say(order, registry.cluster_candidates(**self._candidates(nodes)))
            case "change_settings":
                await self._say(order, registry.cluster_settings(**self._settings()))
            case _:
                assert order == "leave", order
                if not self._orders.leaving:
                    node = rng.choice(nodes)
                    self._orders.leaving[node] = None
                    await self._say(order, registry.cluster_leave(node))
                    await asyncio.sleep(rng.choice([0.5, 3.0, 8.0]))
                    await self._take_back()

    def _candidates(self, nodes: list[int]) -> dict[str, int]:
        """Draw who is to vote, who is not to any more, or one in another's place."""
        add, remove = self._rng.choice(nodes), self._rng.choice(nodes)
        return self._rng.choice([{"add": add}, {"remove": remove}, {"add": add, "remove": remove}])

    def _settings(self) -> dict[str, int]:
        rng = self._rng
        copies = self._scenario.nodes[0].server.cluster.copies
        return rng.choice(
            [
                {"moves_max": rng.choice([1, 4, 32])},
                {"min_in_sync": rng.randint(1, max(1, copies - 1))},
                {"copies": rng.randint(2, max(2, min(3, self._scenario.topology.nodes)))},
            ]
        )

    async def _take_back(self) -> None:
        """Let who was to leave stay, unless it is gone already; and make up for lost time."""
        orders = self._orders
        if self._stage.is_calm and not orders.is_hurried:
            orders.is_hurried = await self._say("hurry", self._registry.cluster_settings(**_HURRY))
        for node in list(self._orders.leaving):
            if await self._say("stay", self._registry.cluster_stay(node)):
                del self._orders.leaving[node]

    async def _say(self, order: str, command: Awaitable[str]) -> bool:
        try:
            await command
        except SsGovernError as error:
            self._orders.counts[f"{order} {error.code.name}"] += 1
            return error.code.name == "INVALID_ARGUMENT"
        self._orders.counts[order] += 1
        return True
