"""Faults over processes that do nothing: each begins, ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from ssgovern.errors import SsGovernError
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.cluster_nemesis import ClusterNemesis
from ssgovern.sim.cluster_scenario import (
    ADMIN_FAULTS,
    FAULTS,
    LASTING_FAULTS,
    MUTE_FOR_EVER,
    TOPOLOGIES,
    ClusterScenario,
    draw_cluster,
)
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World


async def _idle(runtime: SimRuntime) -> None:
    disk = runtime.open_disk("data")
    while True:
        with contextlib.suppress(OSError, SsGovernError):
            await disk.append("file", [b"x"], sync=False)
        await asyncio.sleep(0.5)


class Setting:
    """A world of idle processes with a nemesis over them."""

    def __init__(self, world: World, scenario: ClusterScenario) -> None:
        self.world = world
        self.checker = ClusterChecker(world, scenario)
        self.watches: list[NodeWatch] = [
            self.checker.watch(plan, world.process(plan.name, _idle)) for plan in scenario.nodes
        ]
        self.clients = [world.process(plan.name, _idle) for plan in scenario.clients]
        self.commands: list[str] = []
        self.nemesis = ClusterNemesis(
            world,
            scenario,
            self.checker,
            self.watches,
            self.clients,
            primary=lambda: self.watches[0].process,
            controller=lambda: self.watches[-1].process,
            command=self.commands.append,
        )
        for watch in self.watches:
            self.nemesis.start_node(watch.process)
        for client in self.clients:
            client.start()

    @property
    def processes(self) -> list[Process]:
        return [*(watch.process for watch in self.watches), *self.clients]

    def is_cut(self) -> bool:
        return any(link.cut for link in self.world.network._links.values())


def _scenario(seed: int, *faults: str, lasting: str = "") -> ClusterScenario:
    drawn = draw_cluster(seed, liveness=bool(lasting))
    return replace(drawn, faults=faults, lasting=lasting, gap_s=1.0, calm_s=1.0)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_with_the_heal(fault: str) -> None:
    """After a heal every node runs, nothing is cut or full, and nothing strikes any more."""
    for seed in range(3):
        with World(seed) as world:
            setting = Setting(world, _scenario(seed, fault))
            setting.nemesis.start()
            world.run(12.0)
            assert setting.nemesis.counts[fault] > 2
            if fault in ADMIN_FAULTS:
                assert fault in setting.commands
            setting.nemesis.heal()
            world.run(world.now + 1.0)
            counts = dict(setting.nemesis.counts)
            lives = [process.incarnation for process in setting.processes]
            world.run(world.now + 40.0)
            assert dict(setting.nemesis.counts) == counts
            assert lives == [process.incarnation for process in setting.processes]
            assert all(watch.process.alive for watch in setting.watches)
            assert not any(process.paused for process in setting.processes)
            assert not setting.is_cut()
            assert not world.failpoints
            assert not setting.checker.violations, setting.checker.violations
            assert not any(watch.disk_failed for watch in setting.watches)
            for watch in setting.watches:
                assert watch.process.slowness == 1.0
                assert watch.process.machine.disk_timing.slow_probability == 0.0
                for disk in watch.process.machine.disks.values():
                    assert disk.capacity_bytes > 1 << 60


@pytest.mark.parametrize("fault", [*LASTING_FAULTS, MUTE_FOR_EVER])
def test_a_lasting_fault_lasts_and_is_the_only_one(fault: str) -> None:
    """One thing is broken, at one node, and nothing repairs it."""
    for seed in range(4):
        with World(seed) as world:
            setting = Setting(world, _scenario(seed, lasting=fault))
            setting.nemesis.start()
            world.run(60.0)
            dead = [watch for watch in setting.watches if not watch.process.alive]
            slow = [w for w in setting.watches if w.process.machine.disk_timing.sync[0] > 0.1]
            full = [w for w in setting.watches if w.disk_failed]
            broken = len(dead) + len(slow) + len(full) + setting.is_cut()
            assert broken == 1, (fault, dead, slow, full)
            assert setting.nemesis.counts == {fault: 1}


def test_partitions_of_every_shape_cut_something() -> None:
    """A partition that separates nobody from nobody tests nothing."""
    for fault in ("isolate", "split", "ring", "bridge", "one_way", "swizzle"):
        cuts = 0
        for seed in range(6):
            with World(seed) as world:
                setting = Setting(world, _scenario(seed, fault))
                setting.nemesis.start()
                for step in range(60):
                    world.run(1.0 + step * 0.25)
                    cuts += setting.is_cut()
        assert cuts > 10, fault


def test_scenarios_are_drawn_from_all_there_is() -> None:
    """Over some seeds every topology and every fault comes up, and every seed draws the same."""
    drawn = [draw_cluster(seed) for seed in range(120)]
    assert {each.topology.name for each in drawn} == {each.name for each in TOPOLOGIES}
    assert {fault for each in drawn for fault in each.faults} == set(FAULTS)
    assert {draw_cluster(n, liveness=True).lasting for n in range(60)} == {
        *LASTING_FAULTS,
        MUTE_FOR_EVER,
    }
    assert any(each.only_nodes_suffer for each in drawn)
    assert any(node.joins_late for each in drawn for node in each.nodes)
    assert str(draw_cluster(7)) == str(draw_cluster(7))
    for each in drawn:
        assert each.addresses
        assert all(node.server.is_clustered for node in each.nodes)
