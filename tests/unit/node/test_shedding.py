"""When a node sends its clients to others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ssgovern import limits
from ssgovern.errors import SsGovernError
from ssgovern.node.shedding import send_elsewhere
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

CUT_OFF_S = limits.NODE_CUT_OFF_AFTER_MS / 1000.0


class Stage:
    """A node as far as its lease goes, and what its clients were told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lease_until_ms = 0.0
        self.refusal = ""
        self.has_joined = True
        self.told: list[str] = []
        self._process = world.process("node", self._main)
        self._process.start()

    async def _main(self, runtime: SimRuntime) -> None:
        await send_elsewhere(self, self._shed, has_joined=lambda: self.has_joined)

    def _shed(self, error: SsGovernError) -> int:
        self.told.append(error.message)
        return 1

    def lease(self, seconds: float) -> None:
        loop = self._process.loop
        assert loop is not None
        self.lease_until_ms = (loop.time() + seconds) * 1000.0

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)
        assert not self.world.errors


@pytest.fixture
def stage() -> Iterator[Stage]:
    with World(1) as world:
        yield Stage(world)


def test_who_is_cut_off_sends_them_away_once(stage: Stage) -> None:
    """Who comes back then found no other node, and is served; after the next lease it may again."""
    stage.run(0.1)
    stage.lease(1.0)
    stage.run(1.0 + CUT_OFF_S - 0.6)
    assert not stage.told
    stage.run(5.0)
    assert len(stage.told) == 1
    assert "cut off" in stage.told[0]
    stage.lease(1.0)
    stage.run(6.0 + CUT_OFF_S)
    assert len(stage.told) == 2


def test_who_has_yet_to_join_keeps_them(stage: Stage) -> None:
    """There is nothing yet that others know better."""
    stage.has_joined = False
    stage.run(20.0)
    assert not stage.told


def test_whom_the_cluster_does_not_take_sends_them_away_again_and_again(stage: Stage) -> None:
    """Until it is taken: there is nothing that it could tell."""
    stage.refusal = "node id 2 left the cluster for good"
    stage.run(3.2)
    assert len(stage.told) == 6
    assert "left the cluster for good" in stage.told[0]
    stage.refusal = ""
    stage.lease(60.0)
    stage.run(10.0)
    assert len(stage.told) == 6
