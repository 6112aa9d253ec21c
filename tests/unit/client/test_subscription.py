"""Following services: lists that stay, changes that lead from one to the next, and the cache."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from stage import Stage, connect, ids, instance, key

from ssgovern import Change, ServiceKey
from ssgovern.client.cache import CachedList, encode_list, parse_list
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from ssgovern.model import LogPosition
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.codec import instance_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

ORDERS = key("orders")


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait in virtual time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def shape(change: Change) -> tuple[list[str], list[str], list[str]]:
    return ids(change.added), ids(change.changed), ids(change.removed)


def test_a_subscriber_sees_the_list_and_then_each_change() -> None:
    """At entry the list is there; each change comes once, with what is different."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            assert ids(orders.instances) == ["i1"]
            assert orders.is_current
            assert orders.stale_since is None
            stage.at_node(stage.node.put, ORDERS, instance(2))
            assert shape(await anext(orders)) == (["i2"], [], [])
            stage.at_node(stage.node.put, ORDERS, instance(1, weight=1.0))
            assert shape(await anext(orders)) == ([], ["i1"], [])
            stage.at_node(stage.node.take, ORDERS, "i1")
            change = await anext(orders)
            assert shape(change) == ([], [], ["i1"])
            assert change.service == "orders"
            assert change.revision == orders.revision == stage.node.revision
            assert ids(orders.instances) == ["i2"]

    stage.play(program)


def test_a_service_need_not_exist() -> None:
    """An empty list that was told is a list, and the first instance is a change."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            assert orders.instances == ()
            assert orders.is_current
            with pytest.raises(NotFoundError):
                orders.choose()
            stage.at_node(stage.node.put, ORDERS, instance(1))
            assert shape(await anext(orders)) == (["i1"], [], [])
            assert orders.choose().id == "i1"

    stage.play(program)


def test_a_restart_is_not_seen_but_what_changed_meanwhile_is() -> None:
    """While the node is away the list stays; afterwards only true differences are told."""
    stage = Stage()
    for number in (1, 2):
        stage.node.put(ORDERS, instance(number))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            stage.restart_node(down_s=1.0)
            stage.node.take(ORDERS, "i1")
            stage.node.put(ORDERS, instance(3))
            await until(lambda: not orders.is_current)
            assert ids(orders.instances) == ["i1", "i2"]
            assert orders.stale_since is not None
            assert orders.choose().id in ("i1", "i2")
            assert shape(await anext(orders)) == (["i3"], [], ["i1"])
            await until(lambda: orders.is_current)
            request = stage.node.last(MessageType.SUBSCRIBE)
            assert isinstance(request, native_pb2.SubscribeRequest)
            assert request.known[0].revision == 2

            # Nothing changed: nobody is told anything.
            stage.restart_node(down_s=1.0)
            await until(lambda: not orders.is_current)
            await until(lambda: orders.is_current)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await anext(orders)

    stage.play(program)


def test_another_cluster_at_the_same_address_starts_from_a_snapshot() -> None:
    """A position of a log that is gone is not used; the list is compared, not replaced blindly."""
    stage = Stage()
    for number in range(1, 6):
        stage.node.put(ORDERS, instance(number))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            stage.restart_node(lossy=True)
            stage.node.put(ORDERS, instance(9))
            change = await anext(orders)
            assert shape(change) == (["i9"], [], ["i1", "i2", "i3", "i4", "i5"])
            assert change.revision == 1
            request = stage.node.last(MessageType.SUBSCRIBE)
            assert isinstance(request, native_pb2.SubscribeRequest)
            assert not request.known

    stage.play(program)


def test_a_lost_delta_is_repaired_by_a_snapshot() -> None:
    """A delta that does not fit makes the client ask anew; the difference is told as one change."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            stage.node.deltas_lost = 2
            stage.at_node(stage.node.put, ORDERS, instance(2))
            stage.at_node(stage.node.take, ORDERS, "i1")
            stage.at_node(stage.node.put, ORDERS, instance(3))
            assert shape(await anext(orders)) == (["i2", "i3"], [], ["i1"])
            assert orders.is_current
            assert stage.node.count(MessageType.UNSUBSCRIBE) == 1
            [connection] = stage.node.connections
            assert list(connection.targets.values()) == [ORDERS]
            stage.at_node(stage.node.put, ORDERS, instance(4))
            assert shape(await anext(orders)) == (["i4"], [], [])

    stage.play(program)


def test_a_slow_reader_gets_merged_changes_in_bounded_memory() -> None:
    """Ten thousand changes unread are kept as one per service, and lead to the present list."""
    stage = Stage()
    stage.node.put(ORDERS, instance(0))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            for number in range(5000):
                stage.at_node(stage.node.put, ORDERS, instance(1, weight=float(number)))
                stage.at_node(stage.node.take, ORDERS, "i0")
                stage.at_node(stage.node.put, ORDERS, instance(0, weight=float(number)))
                if number % 100 == 0:
                    await asyncio.sleep(0.01)
                    assert len(orders._queue) <= 1100
            await until(lambda: orders.revision == stage.node.revision)
            seen = {"i0": instance(0)}
            count = 0
            async with asyncio.timeout(1):
                while len(orders._queue):
                    change = await anext(orders)
                    count += 1
                    for gone in change.removed:
                        del seen[gone.id]
                    for new in (*change.added, *change.changed):
                        seen[new.id] = new
            assert count < 1100
            assert seen == {each.id: each for each in orders.instances}

    stage.play(program)


def test_subscriptions_to_one_service_share_what_is_sent() -> None:
    """Two readers are one subscription at the node, which ends with the last of them."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            async with registry.subscribe("orders") as one:
                async with registry.subscribe("orders") as two:
                    stage.at_node(stage.node.put, ORDERS, instance(2))
                    assert shape(await anext(one)) == shape(await anext(two)) == (["i2"], [], [])
                stage.at_node(stage.node.put, ORDERS, instance(3))
                assert shape(await anext(one)) == (["i3"], [], [])
                assert stage.node.count(MessageType.SUBSCRIBE) == 1
            await until(lambda: stage.node.count(MessageType.UNSUBSCRIBE) == 1)
            assert ids(one.instances) == ["i1", "i2", "i3"]
            # Entered anew: from the node, not from what is long gone.
            stage.at_node(stage.node.put, ORDERS, instance(4))
            async with registry.subscribe("orders") as three:
                assert ids(three.instances) == ["i1", "i2", "i3", "i4"]
            assert one.choose().id in ids(one.instances)

    stage.play(program)


def test_entered_and_left_in_haste_leaves_nothing_at_the_node() -> None:
    """However subscriptions are opened and closed, the node ends with what is wanted."""
    for seed in range(20):
        stage = Stage(seed)
        stage.node.put(ORDERS, instance(1))

        async def program(runtime: SimRuntime, stage: Stage = stage) -> None:
            async with connect(runtime) as registry:
                for _ in range(10):
                    task = asyncio.ensure_future(registry.subscribe("orders").open())
                    await asyncio.sleep(runtime.rng.uniform(0, 0.002))
                    task.cancel()
                    await asyncio.sleep(0)
                    assert task.done()
                async with registry.subscribe("orders") as orders:
                    assert ids(orders.instances) == ["i1"]
                    await asyncio.sleep(1)
                    [connection] = stage.node.connections
                    assert list(connection.targets.values()) == [ORDERS]
                    stage.at_node(stage.node.put, ORDERS, instance(2))
                    assert shape(await anext(orders)) == (["i2"], [], [])

        stage.play(program)


def test_a_refused_subscription_raises() -> None:
    """A refusal for good reaches who enters; 'try later' is tried later."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            stage.node.refusals[MessageType.SUBSCRIBE] = [LimitExceededError("too many")]
            with pytest.raises(LimitExceededError):
                await registry.subscribe("orders").open()
            stage.node.refusals[MessageType.SUBSCRIBE] = [OverloadedError("later")] * 3
            async with registry.subscribe("orders") as orders:
                assert ids(orders.instances) == ["i1"]
            with pytest.raises(InvalidArgumentError):
                registry.subscribe("or ders")
            with pytest.raises(ValueError, match="fastest"):
                registry.subscribe("orders", strategy="fastest")

    stage.play(program)


# --- many services -----------------------------------------------------------------------------


def test_a_prefix_is_entered_whole_and_follows_new_services() -> None:
    """At entry all services are there, pages and all; services that come are told by name."""
    stage = Stage()
    for name in ("pay-a", "pay-b", "pay-c", "pay-d", "other"):
        stage.node.put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe_prefix("pay-") as pay:
            assert pay.services == ("pay-a", "pay-b", "pay-c", "pay-d")
            assert pay.is_current
            assert ids(pay.instances("pay-b")) == ["i1"]
            assert pay.instances("other") == pay.instances("nothing") == ()
            stage.at_node(stage.node.put, key("pay-x"), instance(7))
            change = await anext(pay)
            assert (change.service, shape(change)) == ("pay-x", (["i7"], [], []))
            stage.at_node(stage.node.take, key("pay-a"), "i1")
            change = await anext(pay)
            assert (change.service, shape(change)) == ("pay-a", ([], [], ["i1"]))
            assert pay.services == ("pay-b", "pay-c", "pay-d", "pay-x")

            # What vanished while the node was away is told too.
            stage.restart_node()
            stage.node.take(key("pay-b"), "i1")
            await until(lambda: not pay.is_current)
            change = await anext(pay)
            assert (change.service, shape(change)) == ("pay-b", ([], [], ["i1"]))
            await until(lambda: pay.is_current)

            stage.restart_node(lossy=True)
            await until(lambda: not pay.is_current)
            await until(lambda: pay.is_current)
            assert pay.services == ()

    stage.play(program)


def test_a_prefix_is_not_current_before_its_last_service_was_told() -> None:
    """A node that tells services one by one, late, is waited for at entry and after a return."""
    stage = Stage()
    for name in ("pay-a", "pay-b", "pay-c"):
        stage.node.put(key(name), instance(1))
    stage.node.catch_up_late_s = 0.3

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe_prefix("pay-") as pay:
            assert pay.services == ("pay-a", "pay-b", "pay-c")
            stage.restart_node()
            for name in ("pay-a", "pay-b", "pay-c"):
                stage.node.take(key(name), "i1")
            await until(lambda: not pay.is_current)
            assert pay.services == ("pay-a", "pay-b", "pay-c")
            await until(lambda: pay.is_current)
            assert pay.services == ()

    stage.play(program)


def test_a_prefix_is_not_entered_with_what_is_known_of_one_of_its_services() -> None:
    """Without a node, a list that another subscription has is no list of all services."""
    stage = Stage()
    for name in ("pay-a", "pay-b"):
        stage.node.put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("pay-a"):
            stage.process.kill()
            with pytest.raises(UnavailableError):
                await registry.subscribe_prefix("pay-").open()
            stage.process.start()
            async with registry.subscribe_prefix("pay-", timeout=20) as pay:
                assert pay.services == ("pay-a", "pay-b")

    stage.play(program)


def test_left_in_the_middle_of_repairs_leaves_nothing_at_the_node() -> None:
    """Whatever is being asked for again when readers leave, the node is told to stop."""
    for seed in range(30):
        stage = Stage(seed)
        stage.node.put(ORDERS, instance(1))

        async def program(runtime: SimRuntime, stage: Stage = stage) -> None:
            async with connect(runtime) as registry:
                for round_number in range(5):
                    async with (
                        registry.subscribe("orders"),
                        registry.subscribe_prefix("") as everything,
                    ):
                        for number in range(12):
                            stage.node.deltas_lost = number % 2
                            stage.at_node(
                                stage.node.put, ORDERS, instance(1, weight=round_number + number)
                            )
                            await asyncio.sleep(runtime.rng.uniform(0, 0.001))
                    assert everything.services == ("orders",)
                await asyncio.sleep(1)
                [connection] = stage.node.connections
                assert connection.targets == {}

        stage.play(program)


def test_a_prefix_and_one_of_its_services_may_both_be_followed() -> None:
    """Told twice by the node, each reader hears of each change once."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as one:
            async with registry.subscribe_prefix("") as all_of_them:
                for number in range(2, 6):
                    stage.at_node(stage.node.put, ORDERS, instance(number))
                    expected = ([f"i{number}"], [], [])
                    assert shape(await anext(one)) == shape(await anext(all_of_them)) == expected
                # A gap is repaired for both.
                stage.node.deltas_lost = 1
                stage.at_node(stage.node.take, ORDERS, "i1")
                stage.at_node(stage.node.take, ORDERS, "i2")
                assert shape(await anext(one)) == ([], [], ["i1", "i2"])
                assert shape(await anext(all_of_them)) == ([], [], ["i1", "i2"])
                await until(lambda: one.is_current and all_of_them.is_current)
            stage.at_node(stage.node.put, ORDERS, instance(9))
            assert shape(await anext(one)) == (["i9"], [], [])

    stage.play(program)


# --- the lists on disk -------------------------------------------------------------------------


def two_lives(
    between: Callable[[Stage, SimRuntime], None], *, subscribe_to: str = "orders"
) -> list[object]:
    """Fill a cache, let something happen, start again without a node; return what was seen."""
    stage = Stage()
    for number in (1, 2):
        stage.node.put(ORDERS, instance(number))
    found: list[object] = []

    async def program(runtime: SimRuntime) -> None:
        async with (
            connect(runtime, cache_dir="/cache") as registry,
            registry.subscribe("orders") as orders,
        ):
            stage.at_node(stage.node.put, ORDERS, instance(3))
            await anext(orders)
        stage.process.kill()
        between(stage, runtime)
        async with connect(runtime, cache_dir="/cache") as registry:
            started = asyncio.get_running_loop().time()
            try:
                async with registry.subscribe(subscribe_to, timeout=5.0) as orders:
                    found.append(ids(orders.instances))
                    found.append(orders.is_current)
                    assert orders.stale_since is not None
                    assert orders.choose().id in found[0]
                    stage.process.start()
                    stage.node.take(ORDERS, "i2")
                    found.append(shape(await anext(orders)))
                    await until(lambda: orders.is_current)
            except UnavailableError as error:
                found.append(error)
            found.append(timedelta(seconds=asyncio.get_running_loop().time() - started))

    stage.play(program)
    return found


def test_without_a_node_the_last_lists_are_served_from_disk() -> None:
    """A client that starts alone enters soon, with the last list marked stale, and catches up."""
    listed, current, change, _ = two_lives(lambda stage, runtime: None)
    assert listed == ["i1", "i2", "i3"]
    assert current is False
    assert change == ([], [], ["i2"])


def test_a_service_that_is_not_on_disk_is_unavailable_rather_than_empty() -> None:
    """No node and no list kept: an error after the timeout, never an empty list."""
    error, took = two_lives(lambda stage, runtime: None, subscribe_to="others")
    assert isinstance(error, UnavailableError)
    assert timedelta(seconds=5) <= took < timedelta(seconds=5.2)  # type: ignore[operator]


def damage(stage: Stage, runtime: SimRuntime) -> None:
    disk = runtime.process.machine.disk("/cache")
    for name in disk.names():
        disk.flip_bit(name, disk.size(name) // 2, 3)


def cut_short(stage: Stage, runtime: SimRuntime) -> None:
    disk = runtime.process.machine.disk("/cache")
    for name in disk.names():
        disk.truncate(name, 10)


@pytest.mark.parametrize("between", [damage, cut_short])
def test_damaged_lists_are_ignored(
    between: Callable[[Stage, SimRuntime], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A list that is not what was written counts as none, with a warning."""
    with caplog.at_level(logging.WARNING, "ssgovern.client"):
        error, _ = two_lives(between)
    assert isinstance(error, UnavailableError)
    assert "ignored" in caplog.text


def test_a_full_disk_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Lists that cannot be kept are warned of once; everything else goes on."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        runtime.process.machine.disk("/cache").capacity_bytes = 10
        async with (
            connect(runtime, cache_dir="/cache") as registry,
            registry.subscribe("orders") as orders,
        ):
            for number in range(2, 6):
                stage.at_node(stage.node.put, ORDERS, instance(number))
                await anext(orders)
                await asyncio.sleep(2)
            assert len(orders.instances) == 5

    with caplog.at_level(logging.WARNING, "ssgovern.client"):
        stage.play(program)
    assert caplog.text.count("cannot be kept") == 1


def test_a_busy_service_is_written_once_a_second() -> None:
    """Changes in quick succession cost one write per interval."""
    stage = Stage()
    stage.node.put(ORDERS, instance(1))

    async def program(runtime: SimRuntime) -> None:
        disk = runtime.process.machine.disk("/cache")
        async with (
            connect(runtime, cache_dir="/cache") as registry,
            registry.subscribe("orders"),
        ):
            await asyncio.sleep(2)
            kept: dict[bytes, None] = {}
            for number in range(1000):
                stage.at_node(stage.node.put, ORDERS, instance(1, weight=float(number)))
                await asyncio.sleep(0.01)
                for name in disk.names():
                    if name.endswith(".list"):
                        kept[disk.read(name)] = None
            assert 9 <= len(kept) <= 13

    stage.play(program)


def test_a_long_list_is_kept_without_holding_up_the_loop() -> None:
    """A list of thousands is encoded in slices, between which the caller's tasks run."""
    stage = Stage()
    for number in range(3000):
        stage.node.services.setdefault(ORDERS, {})[f"i{number}"] = instance_to_wire(
            instance(1, id=f"i{number}")
        )
    stage.node.revision = 1

    async def program(runtime: SimRuntime) -> None:
        async with (
            connect(runtime, cache_dir="lists") as registry,
            registry.subscribe("orders"),
        ):
            cache = registry._watches.cache
            assert cache is not None
            turns = 0
            while cache._dirty:
                await asyncio.sleep(0)
            while not cache._sizes:
                turns += 1
                await asyncio.sleep(0)
            assert turns >= 3000 // 256
        stage.process.kill()
        async with (
            connect(runtime, cache_dir="lists") as registry,
            registry.subscribe("orders") as kept,
        ):
            assert len(kept.instances) == 3000

    stage.play(program)


def test_a_kept_list_reads_as_it_was_written() -> None:
    """What is written is read, and no prefix or changed byte of it is taken for a list."""
    kept = CachedList(
        ServiceKey("n", "g", "s"),
        b"c" * 16,
        LogPosition(3, 99),
        (instance(1, metadata={"lane": "gray"}), instance(2, healthy=False)),
        1_700_000_000_000,
    )
    content = encode_list(kept)
    assert parse_list(content) == kept
    for at in range(len(content)):
        with pytest.raises(ValueError, match=r"."):
            parse_list(content[:at])
        with pytest.raises(ValueError, match=r"."):
            parse_list(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
