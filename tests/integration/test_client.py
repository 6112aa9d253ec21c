"""The SDK and a real node in a process of its own, which is killed and comes back."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from processes import NodeProcess

import ssgovern
from ssgovern import Change, Instance, Registration
from ssgovern.errors import NotFoundError, NotOwnerError, RevisionConflictError

TIMEOUT_S = 30.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path / "node")
    one.start()
    yield one
    one.kill()


def play(program: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run a program; it must leave no task behind."""

    async def main() -> None:
        await program()
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()

    asyncio.run(main(), debug=False)


def connect(node: NodeProcess, **options: object) -> ssgovern.Registry:
    return ssgovern.connect(
        node.address,
        namespace="test",
        **{"timeout": TIMEOUT_S, **options},  # type: ignore[arg-type]
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def next_change(following: ssgovern.Subscription | ssgovern.PrefixSubscription) -> Change:
    async with asyncio.timeout(TIMEOUT_S):
        return await anext(following)


def ids(instances: tuple[Instance, ...]) -> list[str]:
    return [each.id for each in instances]


def test_register_discover_and_be_told(node: NodeProcess) -> None:
    """What one client registers, updates and removes, another sees as it happens."""

    async def program() -> None:
        async with connect(node) as one, connect(node) as two:
            async with two.subscribe("orders") as orders:
                assert orders.instances == ()
                handle = await one.register("orders", port=8080, metadata={"lane": "gray"})
                change = await next_change(orders)
                assert ids(change.added) == ["127.0.0.1:8080"]
                assert await two.get("orders") == orders.instances
                await handle.update(weight=1.5, metadata_set={"a": "b"})
                [changed] = (await next_change(orders)).changed
                assert changed == handle.instance
                with pytest.raises(NotOwnerError):
                    await two.deregister("orders", changed.id)
                with pytest.raises(RevisionConflictError):
                    await one.deregister("orders", changed.id, if_revision=1)
                await two.update("orders", changed.id, enabled=False, any_owner=True)
                assert not (await next_change(orders)).changed[0].enabled
                with pytest.raises(NotFoundError):
                    orders.choose()
                assert await handle.deregister()
                assert ids((await next_change(orders)).removed) == [changed.id]
            assert (await one.status()).sessions == 2

    play(program)


def test_a_killed_node_comes_back_unnoticed(node: NodeProcess) -> None:
    """After `kill -9` the session resumes: same revision, no change told, lists never empty."""

    async def program() -> None:
        async with connect(node) as one, connect(node) as two:
            handle = await one.register("orders", port=8080)
            async with two.subscribe("orders") as orders, two.subscribe_prefix("") as everything:
                for _ in range(3):
                    node.kill()
                    await until(lambda: not orders.is_current and not one.connection.connected)
                    assert ids(orders.instances) == [handle.instance.id]
                    assert orders.choose().port == 8080
                    node.start()
                    await until(lambda: orders.is_current and everything.is_current)
                    await one.wait_connected()
                    [found] = await one.get("orders")
                    assert found.revision == handle.revision
                await handle.update(weight=7.0)
                change = await next_change(orders)
                assert [each.weight for each in change.changed] == [7.0]
                assert not change.added
                assert not change.removed
                assert (await next_change(everything)) == change

    play(program)


def test_a_node_that_lost_its_data_is_told_everything_again(node: NodeProcess) -> None:
    """Registered again in batches; a follower sees its instances change, never come and go."""

    async def program() -> None:
        async with connect(node) as one, connect(node) as two:
            many = [("orders", Instance(id="", host="h", port=port)) for port in range(1, 1501)]
            outcomes = await one.register_all(many)
            assert all(isinstance(outcome, Registration) for outcome in outcomes)
            async with two.subscribe("orders") as orders:
                assert len(orders.instances) == 1500
                node.kill()
                shutil.rmtree(node.data_dir)
                node.start()
                await until(lambda: not orders.is_current)
                await one.wait_connected()
                assert len(await one.get("orders")) == 1500
                await until(lambda: orders.is_current and len(orders.instances) == 1500)

    play(program)


def test_a_stopped_node_is_waited_for(node: NodeProcess) -> None:
    """SIGTERM and a new start in the middle of a load lose none of its registrations."""

    async def program() -> None:
        async with connect(node) as registry:
            await registry.wait_connected()

            async def load(first: int) -> None:
                for number in range(first, first + 100):
                    await registry.register(f"s{number % 7}", port=1 + number, host="h")

            async with asyncio.TaskGroup() as group:
                for first in range(0, 1000, 100):
                    group.create_task(load(first))
                await asyncio.sleep(0.1)
                await asyncio.get_running_loop().run_in_executor(None, node.kill, signal.SIGTERM)
                node.start()
            found = await registry.services("s", group="default")
            assert sum(line.instances for line in found) == 1000

    play(program)


def test_thousands_at_once_are_within_the_limits(node: NodeProcess) -> None:
    """More requests than may be in flight wait for their turn, and none is refused."""

    async def program() -> None:
        async with connect(node) as registry:
            async with asyncio.TaskGroup() as group:
                for number in range(6000):
                    group.create_task(registry.register("orders", port=1 + number, host="h"))
            assert len(await registry.get("orders")) == 6000
            # More than one frame: put together from several.
            async with registry.subscribe("orders") as orders:
                assert len(orders.instances) == 6000

    play(program)


def test_a_large_prefix_is_entered_whole(node: NodeProcess) -> None:
    """All services of a prefix are there at entry, and again after the node was away."""

    async def program() -> None:
        async with connect(node) as one, connect(node) as two:
            many = [(f"s{n:04}", Instance(id="i", host="h", port=1)) for n in range(2500)]
            await one.register_all(many)
            async with two.subscribe_prefix("s") as following:
                assert len(following.services) == 2500
                node.kill()
                await until(lambda: not following.is_current)
                assert len(following.services) == 2500
                node.start()
                await until(lambda: following.is_current)
                assert len(following.services) == 2500
                assert await one.deregister("s0007", "i")
                assert (await next_change(following)).service == "s0007"

    play(program)


def test_lists_on_disk_serve_a_client_that_starts_alone(node: NodeProcess, tmp_path: Path) -> None:
    """With no node to be reached, the last list is there, stale, and becomes current later."""

    async def program() -> None:
        cache = tmp_path / "cache"
        async with connect(node) as one:
            await one.register("orders", port=8080, ephemeral=False)
            async with connect(node, cache_dir=cache) as two, two.subscribe("orders"):
                pass
        node.kill()
        async with (
            connect(node, cache_dir=cache) as three,
            three.subscribe("orders") as orders,
        ):
            assert ids(orders.instances) == ["127.0.0.1:8080"]
            assert not orders.is_current
            assert orders.stale_since is not None
            node.start()
            await until(lambda: orders.is_current)
            assert ids(orders.instances) == ["127.0.0.1:8080"]

    play(program)


def test_the_blocking_twin_lives_through_a_restart(node: NodeProcess) -> None:
    """The façade does the same from ordinary threads, and ends its own."""
    before = threading.active_count()
    with ssgovern.blocking.connect(node.address, timeout=TIMEOUT_S) as registry:
        handle = registry.register("orders", port=8080)
        with registry.subscribe("orders") as orders:
            node.kill()
            node.start()
            handle.update(weight=3.0)
            change = orders.next_change(timeout=TIMEOUT_S)
            assert change is not None
            assert [each.weight for each in change.changed] == [3.0]
    assert threading.active_count() == before
