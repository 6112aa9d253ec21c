"""Clusters of real processes: killed, paused, stopped, grown and shrunk under load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from clusters import Cluster, Load, is_whole, until_status

import ssgovern
from ssgovern.client.values import ClusterStatus

ROUNDS = int(os.environ.get("CLUSTER_KILL_ROUNDS", "2"))

Program = Callable[[], Coroutine[object, object, None]]


def has_joined(number: int) -> Callable[[ClusterStatus], bool]:
    return lambda status: any(node.node_id == number for node in status.nodes)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, candidates=3)
    cluster.start()
    yield cluster
    cluster.kill()


def play(program: Program) -> None:
    asyncio.run(program(), debug=False)


@pytest.mark.timeout(120 + 40 * ROUNDS)
def test_a_killed_node_costs_seconds_and_nothing_else(three: Cluster) -> None:
    """No acknowledged write is lost, no call fails, no list is falsely empty, whoever is killed."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                for number in range(ROUNDS):
                    victim = three.nodes[3 - number % 3]
                    victim.kill(signal.SIGKILL)
                    await load.more(200)
                    victim.start()
                    await until_status(registry, is_whole(3))
        print(f"{load.acknowledged} writes, longest gap {load.longest_gap_s:.2f} s")

    play(program)


@pytest.mark.timeout(180)
def test_a_rolling_restart_is_seen_by_nobody(three: Cluster) -> None:
    """Every node stops in good order and comes back, one after the other, without an error."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                for node in three.nodes.values():
                    assert node.kill(signal.SIGTERM) == 0
                    await load.more(100)
                    node.start()
                    await until_status(registry, is_whole(3))
        print(f"{load.acknowledged} writes, longest gap {load.longest_gap_s:.2f} s")

    play(program)


@pytest.mark.timeout(180)
def test_a_paused_primary_wakes_up_as_a_replica(three: Cluster) -> None:
    """Who slept through its own failover does no harm, and is in sync again by itself."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                three.nodes[1].send(signal.SIGSTOP)
                await load.more(400)
                others = three.connect()
                async with others as elsewhere:
                    await until_status(
                        elsewhere, lambda status: sum(n.live for n in status.nodes) == 2
                    )
                three.nodes[1].send(signal.SIGCONT)
                await until_status(registry, is_whole(3))

    play(program)


@pytest.mark.timeout(180)
def test_a_node_is_added_and_another_leaves(three: Cluster) -> None:
    """A fourth node takes its share; one that is asked to leave hands its share on and goes."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                three.add(4).start()
                await until_status(
                    registry,
                    lambda status: (
                        is_whole(4)(status) and min(node.primaries for node in status.nodes) >= 60
                    ),
                    timeout_s=90,
                )
                await registry.cluster_leave(4)
                await until_status(
                    registry,
                    lambda status: all(node.node_id != 4 for node in status.nodes),
                    timeout_s=90,
                )
        assert three.nodes.pop(4).kill(signal.SIGTERM) == 0

    play(program)


@pytest.mark.timeout(240)
def test_candidates_change_while_writes_go_on(three: Cluster) -> None:
    """Two that joined vote, one of the first does not; the controller dies: it all goes on."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                for number in (4, 5):
                    three.add(number).start()
                    await until_status(registry, has_joined(number))
                    # At once: it has to catch up first, and that is not the operator's business.
                    said = await registry.cluster_candidates(add=number)
                    assert said == f"Node {number} is a candidate now."
                status = await registry.cluster_status()
                assert status.candidates == (1, 2, 3, 4, 5)
                gone = 1 if status.controller_id != 1 else 2
                await registry.cluster_candidates(remove=gone)
                old = status.controller_id
                three.nodes[old].kill(signal.SIGKILL)
                others = tuple(n for n in (1, 2, 3, 4, 5) if n != gone)
                await until_status(
                    registry,
                    lambda status: (
                        status.controller_id != old
                        and status.controller_heard
                        and status.candidates == others
                    ),
                )
                await load.more(200)

    play(program)


@pytest.mark.timeout(120)
def test_a_cluster_that_stops_as_a_whole_waits_for_nobody(three: Cluster) -> None:
    """All nodes are told to stop at once: those that are left do not wait for others to help."""

    async def program() -> None:
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))

    play(program)
    for node in three.nodes.values():
        node.send(signal.SIGTERM)
    for node in three.nodes.values():
        # A signal that means nothing: only its end is waited for.
        assert node.kill(signal.SIGCONT) == 0
        said = node.data_dir.with_suffix(".log").read_text()
        assert "nobody took the shards over in time" not in said


@pytest.mark.timeout(120)
def test_two_nodes_survive_the_one_that_does_not_vote(tmp_path: Path) -> None:
    """With one candidate and one more node, writes go on without the other node."""
    cluster = Cluster(tmp_path, 1, 1)
    cluster.start()

    async def program() -> None:
        load = Load()
        async with cluster.connect() as registry:
            await until_status(registry, is_whole(2))
            async with load.on(registry):
                cluster.nodes[2].kill(signal.SIGKILL)
                await load.more(200)
                cluster.nodes[2].start()
                await until_status(registry, is_whole(2))

    try:
        play(program)
    finally:
        cluster.kill()


@pytest.mark.timeout(120)
def test_a_single_node_becomes_the_first_of_three(tmp_path: Path) -> None:
    """What it held alone, persistent and of living sessions, is in the cluster it founds."""
    cluster = Cluster(tmp_path, 3)
    first = cluster.nodes[1]
    clustered, first.arguments = first.arguments, ("--node-id", "1", "--node-name", "n1")
    first.start()

    async def program() -> None:
        async with ssgovern.connect(first.address, namespace="test", timeout=60.0) as registry:
            for number in range(200):
                await registry.register(
                    f"kept-{number % 7}", host="10.0.0.1", port=1 + number, ephemeral=False
                )
            assert first.kill(signal.SIGTERM) == 0
            first.arguments = clustered
            cluster.start()
            await until_status(registry, is_whole(3))
            found = [len(await registry.get(f"kept-{number}")) for number in range(7)]
            assert sum(found) == 200, found

    try:
        play(program)
    finally:
        cluster.kill()
