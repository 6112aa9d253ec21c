"""Clusters of real processes on a network that loses what passes between some of its machines.

Three nodes in network namespaces 1 to 3, clients in 4, and one client in 5 that goes with the
side that is cut off. Needs the right to make network namespaces; skipped with the reason where
that is missing. `PARTITION_S` makes each partition longer, `CLUSTER_FAULTS=all` also cuts the
other one of each pair.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from clusters import SERVICES, Cluster, Load, is_whole, until_status
from hosts import Hosts
from processes import NodeProcess

import ssgovern
from ssgovern.client.values import ClusterStatus
from ssgovern.errors import SsGovernError

ALL = os.environ.get("CLUSTER_FAULTS", "") == "all"
PARTITION_S = float(os.environ.get("PARTITION_S", "0"))
CALL_S_MAX = 10.0
"""The deadline of every call of the load; none may fail."""
WHOLE_S_MAX = 15.0 * float(os.environ.get("CLUSTER_PATIENCE", "2"))
"""After the network works again; a machine that others use as well gets twice the time."""
CLIENTS, CUT_OFF = 4, 5
SECRET = "of-three-nodes-and-nobody-else"

pytestmark = pytest.mark.timeout(180 + 10 * PARTITION_S)


class Site:
    """The cluster and its network."""

    def __init__(self, hosts: Hosts, root: Path) -> None:
        self.hosts = hosts

        def place(number: int, data_dir: Path) -> NodeProcess:
            return NodeProcess(
                data_dir, host=hosts.address(number), port=7420, launcher=hosts.launcher(number)
            )

        trusted = ("--listen-insecure", "--cluster-secret", SECRET)
        self.cluster = Cluster(root, 3, 0, *trusted, place=place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts = Hosts(5)
    try:
        if reason := hosts.build():
            pytest.skip(f"may not make a network: {reason}")
        one = Site(hosts, tmp_path_factory.mktemp("site"))
        one.cluster.start()
        yield one
        one.cluster.kill()
    finally:
        hosts.remove()


Body = Callable[[ssgovern.Registry, Load, ClusterStatus], Awaitable[None]]


def is_well(status: ClusterStatus) -> bool:
    return is_whole(3)(status) and status.controller_heard


def play(
    site: Site, body: Body, *, call_s_max: float = CALL_S_MAX, nobody_leads: bool = False
) -> None:
    """Break the network under load; then everything has to become whole again by itself."""

    async def program() -> None:
        loop = asyncio.get_running_loop()
        load = Load(call_s_max)
        async with site.cluster.connect(timeout=call_s_max) as registry:
            before = await until_status(registry, is_well)
            async with load.on(registry):
                try:
                    await body(registry, load, before)
                    await asyncio.sleep(PARTITION_S)
                finally:
                    site.hosts.heal()
                healed = loop.time()
                after = await until_status(registry, is_well, WHOLE_S_MAX)
                took_s = loop.time() - healed
            print(
                f"{load.acknowledged} writes, longest gap {load.longest_gap_s:.2f} s, whole after "
                f"{took_s:.1f} s, terms {before.term} to {after.term}"
            )
            # One election, or one whose votes were split.
            elected = nobody_leads or after.controller_id != before.controller_id
            most = before.term + (2 if elected else 0)
            assert before.term <= after.term <= most, (before, after)

    with site.hosts.on(CLIENTS):
        asyncio.run(program())


def others_than(node: int) -> list[int]:
    return [number for number in (1, 2, 3) if number != node]


def live(status: ClusterStatus) -> list[int]:
    return [node.node_id for node in status.nodes if node.live]


async def write_where_nobody_hears(address: str, rounds: int) -> None:
    """Ask a node that is cut off to register something in every service of the load."""
    async with ssgovern.connect(address, namespace="test", timeout=1.0) as registry:
        for number in range(rounds * SERVICES):
            with pytest.raises(SsGovernError):
                await registry.register(
                    f"orders-{number % SERVICES}",
                    host="h",
                    port=1,
                    instance_id=f"unheard-{number}",
                )


@pytest.mark.parametrize("role", ["controller", "other"] if ALL else ["controller"])
def test_a_node_that_is_cut_off_is_replaced(site: Site, role: str) -> None:
    """Writes go on without it, and none is acknowledged on its side."""

    async def body(registry: ssgovern.Registry, load: Load, before: ClusterStatus) -> None:
        controller = before.controller_id
        victim = controller if role == "controller" else others_than(controller)[0]
        majority = others_than(victim)
        alone = site.cluster.nodes[victim].address
        site.hosts.cut([victim, CUT_OFF], [*majority, CLIENTS])
        async with asyncio.TaskGroup() as group:
            group.create_task(site.hosts.play(CUT_OFF, lambda: write_where_nobody_hears(alone, 1)))
            status = await until_status(registry, lambda status: live(status) == majority)
            await load.more(300)
        assert not status.shards_unavailable
        if role == "other":
            assert (status.controller_id, status.term) == (controller, before.term)

    play(site, body)


@pytest.mark.parametrize("deaf", ["other", "controller"] if ALL else ["other"])
def test_one_direction_is_lost(site: Site, deaf: str) -> None:
    """Two nodes of which one does not hear the other: a stable controller, and service goes on."""

    async def body(registry: ssgovern.Registry, load: Load, before: ClusterStatus) -> None:
        controller = before.controller_id
        other = others_than(controller)[0]
        if deaf == "controller":
            site.hosts.cut_one_way(other, controller)
        else:
            site.hosts.cut_one_way(controller, other)
        await until_status(registry, lambda status: len(live(status)) == 2)
        await load.more(300)

    play(site, body)


def test_one_node_is_the_only_bridge(site: Site) -> None:
    """Two nodes that do not hear each other both stay, and hold each other's copies no longer."""

    async def body(registry: ssgovern.Registry, load: Load, before: ClusterStatus) -> None:
        one, other = others_than(before.controller_id)
        site.hosts.cut([one], [other])
        status = await until_status(registry, lambda status: status.shards_below_copies > 0)
        await load.more(300)
        status = await registry.cluster_status()
        assert live(status) == [1, 2, 3], "the controller hears everybody"
        assert status.term == before.term

    play(site, body)


def test_nobody_hears_anybody(site: Site) -> None:
    """Three nodes alone acknowledge nothing and raise no term; then they are one cluster again."""

    async def body(registry: ssgovern.Registry, load: Load, before: ClusterStatus) -> None:
        site.hosts.cut([1], [2, 3])
        site.hosts.cut([2], [3])
        for address in site.cluster.addresses:
            async with ssgovern.connect(address, timeout=CALL_S_MAX) as alone:
                await until_status(alone, lambda status: not status.controller_heard)
        acknowledged = load.acknowledged
        await asyncio.sleep(1.0)
        assert load.acknowledged == acknowledged

    play(site, body, call_s_max=60.0, nobody_leads=True)
