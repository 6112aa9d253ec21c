"""Backup, restore and repair of real processes' directories, by the commands an operator types."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, Load, is_whole, until_status
from processes import NodeProcess

import ssgovern
from ssgovern.client.values import ClusterStatus

Program = Callable[[], Coroutine[object, object, None]]
PATIENCE = ("--session-ttl-ms", "3600000", "--session-close-grace-ms", "3600000")


def play(program: Program) -> None:
    asyncio.run(program(), debug=False)


def command(*arguments: object, code: int = 0) -> str:
    """Run a command of ss-govern; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ssgovern.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


async def commanded(*arguments: object, code: int = 0) -> str:
    """Run a command while this loop goes on."""
    return await asyncio.to_thread(lambda: command(*arguments, code=code))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 3)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
def nodes() -> Iterator[list[NodeProcess]]:
    started: list[NodeProcess] = []
    yield started
    for node in started:
        node.kill(signal.SIGKILL)


async def listed(registry: ssgovern.Registry) -> dict[str, set[str]]:
    """Return the ids of all instances of the load, by service."""
    found: dict[str, set[str]] = {}
    for number in range(12):
        found[f"orders-{number}"] = {one.id for one in await registry.get(f"orders-{number}")}
    return found


def running(
    data_dir: Path, nodes: list[NodeProcess], *arguments: str, port: int = 0
) -> NodeProcess:
    node = NodeProcess(data_dir, *arguments, port=port)
    nodes.append(node)
    node.start()
    return node


def connect(node: NodeProcess) -> ssgovern.Registry:
    return ssgovern.connect(node.address, namespace="test", timeout=60.0)


@pytest.mark.timeout(240)
def test_what_was_acknowledged_before_a_backup_is_restored(
    three: Cluster, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Of a cluster under load: all that was there throughout, nothing that was gone before."""
    file, restored = tmp_path / "b.ssgb", tmp_path / "restored"
    before: dict[tuple[str, str], Any] = {}
    gone: list[tuple[str, str]] = []
    still: list[tuple[str, str]] = []

    async def take() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            for number in range(100):
                service, name = f"orders-{number % 12}", f"kept-{number}"
                kept = await registry.register(service, host="h", port=1, instance_id=name)
                load.present[service, name] = kept
            async with load.on(registry):
                await load.more(200)
                before.update(load.present)
                gone.extend(load.absent)
                servers = ",".join(three.addresses)
                said = json.loads(await commanded("backup", file, "-s", servers, "--json"))
                still.extend(place for place in before if place in load.present)
                await load.more(50)
            assert len(said["shards"]) == 256
            assert [node["id"] for node in said["cluster"]["nodes"]] == [1, 2, 3]
            assert await registry.cluster_status()

    async def compare() -> None:
        node = running(restored, nodes, *PATIENCE)
        async with connect(node) as registry:
            found = await listed(registry)
        missing = [place for place in still if place[1] not in found[place[0]]]
        back = [place for place in gone if place[1] in found[place[0]]]
        assert not missing
        assert not back
        assert len(still) >= 100

    play(take)
    assert "verified" in command("backup", file, "--verify")
    assert "replaces nothing" in command("backup", file, "-s", three.addresses[0], code=2)
    assert "256 of 256" in command("restore", file, "--data-dir", restored)
    assert "not empty" in command("restore", file, "--data-dir", restored, code=2)
    play(compare)


@pytest.mark.timeout(180)
def test_clients_take_nothing_of_the_old_life_for_current(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """After a restore at the same address a client's list is what the node has, all of what the
    client itself registered is there again, and no call fails."""
    file, old, new = tmp_path / "b.ssgb", tmp_path / "old", tmp_path / "new"

    async def program() -> None:
        node = running(old, nodes)
        async with connect(node) as registry, connect(node) as other:
            await other.register(
                "orders", host="10.0.0.9", port=9, instance_id="c", ephemeral=False
            )
            await registry.register("orders", host="10.0.0.1", port=1, instance_id="a")
            async with registry.subscribe("orders") as orders:
                await until(lambda: ids(orders) == ["a", "c"])
                await commanded("backup", file, "-s", node.address)
                # What happens now is not in the backup.
                await registry.register("orders", host="10.0.0.1", port=2, instance_id="b")
                await other.deregister("orders", "c")
                await until(lambda: ids(orders) == ["a", "b"])
                node.kill(signal.SIGKILL)
                await commanded("restore", file, "--data-dir", new)
                running(new, nodes, port=node.port)
                await until(lambda: ids(orders) == ["a", "b", "c"])
                found = sorted(one.id for one in await registry.get("orders"))
                assert found == ["a", "b", "c"]

    play(program)


def ids(subscription: Any) -> list[str]:
    return sorted(one.id for one in subscription.instances)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.05)


def damage(data_dir: Path, log: str = "wal", at: int = 0) -> None:
    """Flip a bit of a log, in the middle of what is written if it is not said where."""
    path = max((data_dir / log).iterdir())
    content = bytearray(path.read_bytes())
    written = len(content.rstrip(b"\0"))
    content[at or written // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.timeout(240)
def test_a_damaged_node_repairs_and_is_back_in_sync(three: Cluster) -> None:
    """It refuses to start and says what to do; then it has everything again, nothing is lost."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                await load.more(300)
                victim = three.nodes[2]
                victim.kill(signal.SIGKILL)
                damage(victim.data_dir)
                victim.start()
                assert victim.ended() == 1
                assert "ss-govern fsck" in victim.said()
                said = await commanded("fsck", "-d", victim.data_dir, code=1)
                assert "may have lost entries" in said
                said = await commanded("fsck", "-d", victim.data_dir, "--repair")
                assert "fetches" in said
                assert list(victim.data_dir.glob("set-aside-*/wal.*"))
                victim.start()
                await load.more(100)
                await until_status(registry, is_whole(3))
                assert not (victim.data_dir / "damaged.json").exists()
            # Whatever the others do now, what it fetched is complete.
            three.nodes[1].kill(signal.SIGKILL)
            await load.check(registry)

    play(program)


@pytest.mark.timeout(240)
def test_a_single_node_asks_before_it_loses_anything(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Its damage is repaired only with the loss accepted; its clients bring back what they hold."""
    data_dir = tmp_path / "data"

    async def program() -> None:
        node = running(data_dir, nodes)
        async with connect(node) as registry:
            for number in range(20):
                await registry.register("orders", host="10.0.0.1", port=1 + number)
            node.kill(signal.SIGKILL)
            damage(data_dir)
            assert "--accept-loss" in await commanded("fsck", "-d", data_dir, code=1)
            assert "--accept-loss" in await commanded("fsck", "-d", data_dir, "--repair", code=2)
            await commanded("fsck", "-d", data_dir, "--repair", "--accept-loss")
            assert "Nothing is damaged" in await commanded("fsck", "-d", data_dir)
            node.start()

            async with asyncio.timeout(60):
                while len(await registry.get("orders")) != 20:
                    await asyncio.sleep(0.05)

    play(program)


@pytest.mark.timeout(240)
def test_a_candidate_that_forgot_its_votes_is_one_again_after_it_was_removed(
    three: Cluster,
) -> None:
    """Until then it serves its shards and does not vote, however often it starts."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                victim = three.nodes[2]
                victim.kill(signal.SIGKILL)
                damage(victim.data_dir, "metadata", at=200)
                victim.start()
                assert victim.ended() == 1
                said = await commanded("fsck", "-d", victim.data_dir, "--repair")
                assert "no candidate until it was removed" in said
                for _ in range(2):
                    victim.start()
                    await until_status(registry, is_whole(3))
                    assert (victim.data_dir / "damaged.json").exists()
                    victim.kill(signal.SIGKILL)
                victim.start()
                await until_status(registry, is_whole(3))
                status = await registry.cluster_status()
                if status.controller_id == 2:
                    raise AssertionError("it leads without its votes")
                await registry.cluster_candidates(remove=2)
                await until(lambda: not (victim.data_dir / "damaged.json").exists())
                await registry.cluster_candidates(add=2)
                await until_status(registry, lambda status: sorted(status.candidates) == [1, 2, 3])
                await load.more(50)

    play(program)


@pytest.mark.timeout(300)
def test_a_lost_majority_of_candidates_is_recovered(three: Cluster, tmp_path: Path) -> None:
    """One candidate decides alone, the other that is left follows it, and nothing is lost."""

    async def program() -> None:
        load = Load()
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                await load.more(100)
            one, two, survivor = three.nodes[1], three.nodes[2], three.nodes[3]
            one.kill(signal.SIGKILL)
            survivor.kill(signal.SIGKILL)
            answered = await commanded("cluster", "recover", "-d", survivor.data_dir, code=2)
            assert "node 2 answers" in answered
            two.kill(signal.SIGKILL)
            one.data_dir.rename(tmp_path / "burnt")
            del three.nodes[1]
            await commanded("cluster", "recover", "-d", survivor.data_dir, "--yes")
            await commanded("cluster", "rejoin", "-d", two.data_dir)
            survivor.start()
            two.start()
            await until_status(registry, serves_with(2))
            status = await registry.cluster_status()
            assert status.candidates == (3,)
            await load.check(registry)
            for number in range(20):
                await registry.register("later", host="10.0.0.1", port=1 + number)
            await registry.cluster_candidates(add=2)
            await registry.cluster_leave(1)
            three.add(4).start()
            await until_status(registry, is_whole(3))
            await load.check(registry)
            assert len(await registry.get("later")) == 20

    play(program)


def serves_with(nodes: int) -> Callable[[ClusterStatus], bool]:
    """So many nodes are there, and every shard has its primary and as many copies."""

    def holds(status: ClusterStatus) -> bool:
        live = [node for node in status.nodes if node.live]
        return (
            status.controller_heard
            and len(live) == nodes
            and not status.shards_unavailable
            and all(node.in_sync == status.shards_total for node in live)
        )

    return holds
