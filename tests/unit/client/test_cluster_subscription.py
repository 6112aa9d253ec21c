"""Following services in a cluster: which node tells, moves without a gap, and never backwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from fake_cluster import ClusterStage, Row
from stage import ids, instance, key

from ssgovern.errors import ShardMovedError
from ssgovern.model import SHARDS, ServiceKey, shard_of
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType

ORDERS = key("orders")


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait in virtual time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


def follows(stage: ClusterStage, service: ServiceKey = ORDERS) -> list[int]:
    return stage.cluster.followers_of(service)


# --- where -------------------------------------------------------------------------------------


def test_subscriptions_of_one_client_share_a_node_and_clients_spread() -> None:
    """A client needs one node for all its lists; many clients use all nodes about equally."""
    used: Counter[int] = Counter()
    for seed in range(45):
        stage = ClusterStage(seed)

        async def program(runtime: SimRuntime, stage: ClusterStage = stage) -> None:
            async with stage.connect(runtime) as registry:
                for number in range(20):
                    subscription = registry.subscribe(f"s{number}")
                    await subscription.open()
                nodes = {each for n in range(20) for each in follows(stage, key(f"s{n}"))}
                assert len(nodes) == 1
                used.update(nodes)

        stage.play(program)
    assert sorted(used) == [1, 2, 3]
    assert min(used.values()) >= 7, used


def test_a_lost_node_is_left_at_once() -> None:
    """The list stays, and another node goes on with it from the position it has."""
    stage = ClusterStage()
    stage.cluster.nodes[1].put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
            [node] = follows(stage)
            stage.kill(node)
            started = now()
            while follows(stage) in ([], [node]) or not orders.is_current:
                assert ids(orders.instances) == ["i1"]
                await asyncio.sleep(0.001)
            assert now() - started < 0.5
            stage.at_node(stage.cluster.nodes[node].put, ORDERS, instance(2))
            change = await anext(orders)
            assert (ids(change.added), ids(change.removed)) == (["i2"], [])

    stage.play(program)


def test_all_holders_gone_and_one_back_is_found() -> None:
    """While no node that keeps the shard answers, all are tried in turn."""
    stage = ClusterStage()
    stage.cluster.nodes[1].put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with (
            stage.connect(runtime, "n1:7420,n2:7420,n3:7420") as registry,
            registry.subscribe("orders") as orders,
        ):
            for back in (1, 2, 3):
                for number in (1, 2, 3):
                    stage.kill(number)
                await until(lambda: not orders.is_current)
                await asyncio.sleep(10)
                events = stage.world.events
                await asyncio.sleep(60)
                assert stage.world.events - events < 60 * 200, "dials like a storm"
                stage.cluster.processes[back].start()
                await until(lambda: orders.is_current, 10.0)
                for number in (1, 2, 3):
                    if number != back:
                        stage.cluster.processes[number].start()

    stage.play(program, within_s=600)


def test_a_returned_node_is_taken_again_later_and_without_a_gap() -> None:
    """The subscription goes back 5 to 30 seconds after, and the new one is told before the old
    one ends; clients do not come back in the same moment."""
    returns: list[float] = []
    for seed in range(8):
        stage = ClusterStage(seed)
        stage.cluster.nodes[1].put(ORDERS, instance(1))

        async def program(runtime: SimRuntime, stage: ClusterStage = stage) -> None:
            async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
                [node] = follows(stage)
                stage.kill(node)
                stage.cluster.fail_over(node)
                # As long as it is dead nobody moves.
                await asyncio.sleep(60)
                [other] = follows(stage)
                stage.cluster.processes[node].start()
                stage.cluster.give_back(node)
                started = now()
                while follows(stage) != [node]:
                    assert other in follows(stage) or node in follows(stage)
                    assert orders.is_current
                    await asyncio.sleep(0.001)
                returns.append(now() - started)
                stage.at_node(stage.cluster.nodes[1].put, ORDERS, instance(2))
                assert ids((await anext(orders)).added) == ["i2"]

        stage.play(program)
    assert all(4.9 <= each <= 31.0 for each in returns), returns
    assert max(returns) - min(returns) > 3.0


def test_a_node_that_fell_behind_is_left_for_one_in_sync() -> None:
    """Out of the in-sync set: the subscription moves, and is current all the time."""
    stage = ClusterStage()

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
            [node] = follows(stage)

            def shrink(shard: int, row: Row) -> bool:
                row.in_sync = [number for number in row.in_sync if number != node]
                row.primary = row.in_sync[0]
                row.epoch += 1
                return True

            stage.cluster.change(shrink)
            while node in follows(stage):
                assert orders.is_current
                await asyncio.sleep(0.001)
            assert len(follows(stage)) == 1

    stage.play(program)


def test_a_shard_that_left_the_node_is_followed() -> None:
    """A node that keeps a shard no more is left, also if it refused before the map told."""
    stage = ClusterStage(size=4, copies=2)
    shard_number = shard_of(*ORDERS)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
            row = cluster.row(ORDERS)
            old = list(row.holders)
            fresh = [number for number in (1, 2, 3, 4) if number not in old]

            def move(shard: int, row: Row) -> bool:
                if shard != shard_number:
                    return False
                row.holders, row.in_sync, row.primary = fresh, list(fresh), fresh[0]
                row.epoch += 1
                return True

            cluster.change(move)
            await until(lambda: follows(stage)[0] in fresh and len(follows(stage)) == 1)
            await until(lambda: orders.is_current)

            fresh, old = old, fresh
            cluster.change(move, tell=False)
            async with registry.subscribe_prefix("ord", timeout=5) as both:
                assert both.is_current
            await until(lambda: orders.is_current)
            stage.at_node(cluster.nodes[fresh[0]].put, ORDERS, instance(5))
            assert ids((await anext(orders)).added) == ["i5"]

    stage.play(program)


# --- never backwards ---------------------------------------------------------------------------


def test_a_node_that_lags_takes_nothing_back_and_is_not_current() -> None:
    """Its older list is not shown; the list counts as current when the node has caught up."""
    stage = ClusterStage()
    stage.cluster.nodes[1].put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
            [node] = follows(stage)
            others = [number for number in (1, 2, 3) if number != node]
            for number in others:
                cluster.nodes[number].lag()
            stage.at_node(cluster.nodes[node].put, ORDERS, instance(2))
            await anext(orders)
            stage.kill(node)
            await until(lambda: not orders.is_current)
            await asyncio.sleep(8.0)
            assert ids(orders.instances) == ["i1", "i2"]
            assert not orders.is_current
            assert cluster.count(MessageType.GET) < 20
            for number in others:
                cluster.nodes[number].catch_up()
            started = now()
            await until(lambda: orders.is_current)
            assert now() - started < 2.1
            stage.at_node(cluster.nodes[others[0]].put, ORDERS, instance(3))
            change = await anext(orders)
            assert (ids(change.added), ids(change.removed)) == (["i3"], [])

    stage.play(program)


def test_what_was_lost_with_its_epoch_is_taken_back() -> None:
    """A newer epoch with a lower revision is the truth: the log was cut, and so is the list."""
    stage = ClusterStage()
    for number in (1, 2, 3):
        stage.cluster.nodes[1].put(ORDERS, instance(number))

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry, registry.subscribe("orders") as orders:
            assert orders.revision == 3
            [node] = follows(stage)
            stage.kill(node)
            del cluster.services[ORDERS]["i3"]
            cluster.changed[ORDERS].pop()
            cluster.revision = 2
            cluster.fail_over(node)
            for row in cluster.rows:
                row.epoch += 1
            change = await anext(orders)
            assert ids(change.removed) == ["i3"]
            await until(lambda: orders.is_current)

    stage.play(program)


# --- many services -----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "copies"), [(3, 3), (5, 2), (4, 1)])
def test_a_prefix_is_followed_at_as_many_nodes_as_it_takes(size: int, copies: int) -> None:
    """At entry everything is there, from whichever node; changes come once, wherever made."""
    stage = ClusterStage(size=size, copies=copies)
    names = sorted(f"pay-{number}" for number in range(40))
    for name in names:
        stage.cluster.nodes[1].put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry, registry.subscribe_prefix("pay-") as pay:
            assert list(pay.services) == names
            assert pay.is_current
            for number in range(5):
                fresh = key(f"pay-new{number}")
                stage.at_node(stage.cluster.nodes[1].put, fresh, instance(7))
                change = await anext(pay)
                assert (change.service, ids(change.added)) == (fresh.service, ["i7"])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await anext(pay)

    stage.play(program)


def test_a_prefix_survives_each_node_in_turn() -> None:
    """Whichever node goes, its shards come from others; nothing is told as gone that is not."""
    stage = ClusterStage(size=4, copies=2)
    names = sorted(f"pay-{number}" for number in range(30))
    for name in names:
        stage.cluster.nodes[1].put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with (
            stage.connect(runtime, "n1:7420,n2:7420") as registry,
            registry.subscribe_prefix("pay-") as pay,
        ):
            for number in (1, 2, 3, 4):
                stage.kill(number)
                await asyncio.sleep(1.0)
                cluster.fail_over(number)
                await until(lambda: pay.is_current, 10.0)
                assert list(pay.services) == names
                fresh = key(f"pay-{number}")
                stage.at_node(
                    cluster.primary_of(fresh).put, fresh, instance(1, weight=float(number))
                )
                change = await anext(pay)
                assert (change.service, ids(change.changed)) == (fresh.service, ["i1"])
                cluster.processes[number].start()
                cluster.give_back(number)
                await asyncio.sleep(40)
                assert pay.is_current
            assert list(pay.services) == names

    stage.play(program, within_s=400)


def test_a_prefix_over_two_nodes_is_whole_at_the_one_that_is_left() -> None:
    """What was asked of two nodes in parts is asked of one, of which each part awaits its own."""
    stage = ClusterStage(size=2, copies=2)
    names = sorted(f"pay-{number}" for number in range(30))
    for name in names:
        stage.cluster.nodes[1].put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with (
            stage.connect(runtime, "n1:7420,n2:7420") as registry,
            registry.subscribe_prefix("pay-") as pay,
        ):
            # So that some shards are followed here, and some there.
            halves = {1: range(0, SHARDS, 2), 2: range(1, SHARDS, 2)}
            for node, shards in halves.items():
                cluster.change(lambda shard, row, n=node, s=shards: keep_only(shard, row, n, s))
            await asyncio.sleep(60)
            assert {n for name in names for n in cluster.followers_of(key(name))} == {1, 2}
            cluster.leave(2)
            stage.kill(2)
            stage.kill(1)
            await asyncio.sleep(1.0)
            cluster.processes[1].start()
            await until(lambda: pay.is_current, 20.0)
            assert list(pay.services) == names

    stage.play(program, within_s=200)


def keep_only(shard: int, row: Row, node: int, shards: range) -> bool:
    """Leave some shards to one node."""
    if shard not in shards:
        return False
    row.holders = row.in_sync = [node]
    row.epoch += row.primary != node
    row.primary = node
    return True


def test_whatever_happens_lists_converge_and_nothing_is_left_behind() -> None:
    """Random failures, moves and changes; in the end every list is right and current."""
    for seed in range(8):
        stage = ClusterStage(seed, size=4, copies=2)
        names = [f"s{number}" for number in range(12)]

        async def program(
            runtime: SimRuntime, stage: ClusterStage = stage, names: list[str] = names
        ) -> None:
            cluster = stage.cluster
            rng = runtime.rng
            async with stage.connect(runtime, "n1:7420,n2:7420,n3:7420,n4:7420") as registry:
                lists = [registry.subscribe(name, timeout=30) for name in names[:6]]
                for each in lists:
                    await each.open()
                async with registry.subscribe_prefix("s", timeout=30) as everything:
                    down = 0
                    for step in range(60):
                        service = key(names[rng.randrange(len(names))])
                        node = cluster.primary_of(service)
                        if rng.random() < 0.7:
                            node.put(service, instance(rng.randrange(5), weight=float(step)))
                        else:
                            node.take(service, f"i{rng.randrange(5)}")
                        if rng.random() < 0.15 and not down:
                            down = 1 + rng.randrange(4)
                            stage.kill(down)
                            cluster.fail_over(down, tell=rng.random() < 0.5)
                        elif down and rng.random() < 0.3:
                            cluster.processes[down].start()
                            cluster.give_back(down)
                            down = 0
                        await asyncio.sleep(rng.uniform(0.0, 3.0))
                    if down:
                        cluster.processes[down].start()
                        cluster.give_back(down)
                    await asyncio.sleep(100)
                    for each in lists:
                        assert each.is_current
                        there = sorted(cluster.services.get(key(each.service), {}))
                        assert ids(each.instances) == there
                    assert everything.is_current
                    for name in names:
                        there = sorted(cluster.services.get(key(name), {}))
                        assert ids(everything.instances(name)) == there
                for each in lists:
                    each.close()
                await asyncio.sleep(5)
                left = [
                    connection.targets
                    for node in cluster.nodes.values()
                    for connection in node.connections
                    if connection.targets
                ]
                assert left == []

        stage.play(program, within_s=600)


def test_a_refused_subscription_is_not_made_current_by_another() -> None:
    """What a prefix of the same node brings does not stand for what was not subscribed to."""
    stage = ClusterStage(size=1, copies=1)
    stage.cluster.nodes[1].put(key("orders"), instance(1))

    async def program(runtime: SimRuntime) -> None:
        node = stage.cluster.nodes[1]
        async with stage.connect(runtime) as registry, asyncio.TaskGroup() as group:
            await registry.wait_connected()
            node.refusals[MessageType.SUBSCRIBE] = [ShardMovedError("not yet")]
            orders = registry.subscribe("orders")
            entering = group.create_task(orders.__aenter__())
            await asyncio.sleep(0)
            async with registry.subscribe_prefix("ord"):
                node.refusals[MessageType.SUBSCRIBE] = [ShardMovedError("not yet")] * 4
                await entering
            await asyncio.sleep(5)
            stage.at_node(node.put, key("orders"), instance(2))
            await until(lambda: len(orders.instances) == 2, 5.0)
            await orders.__aexit__(None, None, None)

    stage.play(program, within_s=60)
