"""The SDK against several nodes: routes, failover, claims. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import groupby

import pytest
from fake_cluster import ClusterStage, Row
from stage import Stage, connect, instance, key

from ssgovern import Registration
from ssgovern.errors import (
    NotOwnerError,
    OutcomeUnknownError,
    ShardUnavailableError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.model import ServiceKey, shard_of
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait in virtual time."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


def led_by(stage: ClusterStage, number: int, count: int = 1) -> list[ServiceKey]:
    """Return services whose primary is a node."""
    named = (key(f"s{index}") for index in range(10_000))
    found = (each for each in named if stage.cluster.row(each).primary == number)
    return [next(found) for _ in range(count)]


# --- routes ------------------------------------------------------------------------------------


def test_one_seed_is_enough_to_reach_every_primary() -> None:
    """Each request goes to the primary of its shard, and nowhere else."""
    stage = ClusterStage()

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            for number in (1, 2, 3):
                [service] = led_by(stage, number)
                handle = await registry.register(service.service, port=1)
                await handle.update(weight=2.0)
                assert len(await registry.get(service.service)) == 1
                await handle.deregister()
                node = stage.cluster.nodes[number]
                for type_ in (
                    MessageType.REGISTER,
                    MessageType.UPDATE,
                    MessageType.GET,
                    MessageType.DEREGISTER,
                ):
                    assert node.count(type_) == 1
            hellos = [
                message
                for node in stage.cluster.nodes.values()
                for type_, message in node.requests
                if type_ is MessageType.HELLO
            ]
            assert len(hellos) == 3
            assert all(hello == hellos[0] for hello in hellos)

    stage.play(program)


def test_many_registrations_are_split_by_primary_and_answered_in_order() -> None:
    """One request for each primary; outcomes are in the order of what was asked."""
    stage = ClusterStage()

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.wait_connected()
            wanted = [(f"s{n}", instance(n)) for n in range(60)]
            outcomes = await registry.register_all(wanted)
            assert [(o.key.service, o.instance.id) for o in outcomes] == [
                (service, each.id) for service, each in wanted
            ]
            assert stage.cluster.count(MessageType.REGISTER) == 3

            refusing = stage.cluster.nodes[2]
            refusing.refusals[MessageType.REGISTER] = [NotOwnerError("not yours")]
            outcomes = await registry.register_all(wanted)
            for (service, _), outcome in zip(wanted, outcomes, strict=True):
                theirs = stage.cluster.row(key(service)).primary == 2
                assert isinstance(outcome, NotOwnerError if theirs else Registration)

    stage.play(program)


def test_a_moved_shard_is_found() -> None:
    """'Not mine' has the map looked at and the request sent to who has the shard now."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.register(service.service, port=1)

            def move(shard: int, row: Row) -> bool:
                if shard != shard_of(*service):
                    return False
                row.primary, row.epoch = 3, row.epoch + 1
                return True

            stage.cluster.change(move, tell=False)
            started = now()
            assert len(await registry.get(service.service)) == 1
            assert now() - started < 0.5
            # Batches too: the whole request was refused, nothing was done.
            stage.cluster.change(move, tell=False)
            others = [(each.service, instance(7)) for each in led_by(stage, 3, 3)]
            stage.cluster.rows[shard_of(*service)].primary = 1
            outcomes = await registry.register_all([(service.service, instance(1)), *others])
            assert all(isinstance(outcome, Registration) for outcome in outcomes)

    stage.play(program)


def test_services_are_listed_from_all_primaries_in_order() -> None:
    """A listing covers every shard once, whoever has it, and is sorted."""
    stage = ClusterStage(size=4, copies=2)
    names = sorted(f"s{n}" for n in range(40))
    for name in names:
        stage.cluster.nodes[1].put(key(name), instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            assert [line.service for line in await registry.services()] == names
            # A shard that moved meanwhile is asked of who has it.

            def move(shard: int, row: Row) -> bool:
                row.primary, row.epoch = row.holders[1], row.epoch + 1
                return True

            stage.cluster.change(move, tell=False)
            assert [line.service for line in await registry.services("s1")] == [
                name for name in names if name.startswith("s1")
            ]

    stage.play(program)


def test_what_may_be_stale_is_read_from_any_holder() -> None:
    """With `stale_ok` a replica answers while the primary is dead; without, the primary must."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)
    stage.cluster.nodes[1].put(service, instance(1))

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.wait_connected()
            assert len(await registry.get(service.service)) == 1
            stage.kill(2)
            started = now()
            assert len(await registry.get(service.service, stale_ok=True)) == 1
            assert now() - started < 3.0
            with pytest.raises(UnavailableError, match=r"node 2 at n2:7420"):
                await registry.get(service.service, timeout=1.0)

    stage.play(program)


# --- failover ----------------------------------------------------------------------------------


def test_a_dead_primary_is_latency_and_no_error() -> None:
    """Requests for a shard whose primary died wait for the next one, within their deadline."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.register(service.service, port=1)
            stage.kill(2)
            stage.world.after(5.5, lambda: stage.cluster.fail_over(2, tell=False))
            started = now()
            await registry.register(service.service, port=2)
            assert 5.5 <= now() - started < 6.5
            # Who lives is not affected.
            [other] = led_by(stage, 1)
            started = now()
            await registry.register(other.service, port=2)
            assert now() - started < 0.1

    stage.play(program)


def test_a_silent_primary_is_latency_and_no_error() -> None:
    """A primary that stands still is given up after its silence, and the next one is asked."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.register(service.service, port=1)
            stage.cluster.nodes[2].ignores_all = True
            stage.world.after(5.0, lambda: stage.cluster.fail_over(2))
            started = now()
            await registry.register(service.service, port=2)
            assert now() - started < 6.0

    stage.play(program)


def test_a_shard_without_primary_is_refused_at_the_deadline() -> None:
    """Nobody takes over: the caller is told at its deadline, with the reason, and not before."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.wait_connected()
            await registry.get(service.service)
            stage.cluster.nodes[2].unavailable[shard_of(*service)] = None
            started = now()
            with pytest.raises(ShardUnavailableError, match="lease"):
                await registry.register(service.service, port=1, timeout=3.0)
            assert 2.0 < now() - started <= 3.0
            maps = stage.cluster.count(MessageType.SHARD_MAP)
            assert maps < 3.0 / 0.2 + 5

            def orphan(shard: int, row: Row) -> bool:
                row.primary = 0 if row.primary == 2 else row.primary
                return True

            stage.cluster.change(orphan)
            await asyncio.sleep(0.1)
            started = now()
            with pytest.raises(UnavailableError, match="no node is primary"):
                await registry.get(service.service, timeout=2.0)
            assert 2.0 <= now() - started <= 2.1

    stage.play(program)


def test_an_unknown_outcome_is_repeated_only_if_it_may_be() -> None:
    """'May or may not be done' is done again if that does no harm, and told otherwise."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            node = stage.cluster.nodes[2]
            node.in_doubt = 1
            handle = await registry.register(service.service, port=1)
            assert node.count(MessageType.REGISTER) == 2
            node.in_doubt = 1
            with pytest.raises(OutcomeUnknownError):
                await registry.deregister(
                    service.service, handle.instance.id, if_revision=handle.revision
                )
            assert node.count(MessageType.DEREGISTER) == 1

    stage.play(program)


def test_a_claim_after_failover_registers_only_what_is_missing() -> None:
    """The new primary is asked what it has of ours; what it has is not registered again."""
    stage = ClusterStage()
    services = led_by(stage, 2, 5)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.register_all([(each.service, instance(1)) for each in services])
            before = cluster.count(MessageType.REGISTER)
            # The next primaries know the session already, as they do from the shard's log.
            for node in cluster.nodes.values():
                node.sessions.setdefault(bytes.fromhex(registry.session_id), {})
            stage.kill(2)
            lost = services[3]
            del cluster.services[lost]["i1"]
            cluster.fail_over(2)
            await until(lambda: bool(cluster.services[lost]), 3.0)
            await asyncio.sleep(3.0)
            assert cluster.count(MessageType.REGISTER) == before + 1
            [request] = [
                message
                for node in cluster.nodes.values()
                for type_, message in node.requests[-20:]
                if type_ is MessageType.REGISTER and node.number != 2
            ]
            assert isinstance(request, native_pb2.RegisterRequest)
            assert [item.service.service for item in request.registrations] == [lost.service]
            claimed = [
                item.service.service
                for node in cluster.nodes.values()
                for type_, message in node.requests
                if type_ is MessageType.CLAIM and isinstance(message, native_pb2.ClaimRequest)
                for item in message.claimed
            ]
            assert sorted(claimed) == sorted(each.service for each in services)

    stage.play(program)


def test_a_primary_that_cannot_act_yet_is_claimed_from_later() -> None:
    """A claim that is refused for one shard is made for the others, and again for that one."""
    stage = ClusterStage()
    services = led_by(stage, 2, 6)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.register_all([(each.service, instance(1)) for each in services])
            for node in cluster.nodes.values():
                node.sessions.setdefault(bytes.fromhex(registry.session_id), {})
                node.unavailable[shard_of(*services[0])] = None
            for each in services:
                del cluster.services[each]["i1"]
            stage.kill(2)
            cluster.fail_over(2)
            await until(lambda: all(cluster.services[each] for each in services[1:]), 3.0)
            assert not cluster.services[services[0]]
            for node in cluster.nodes.values():
                node.unavailable.clear()
            await until(lambda: bool(cluster.services[services[0]]), 3.0)

    stage.play(program)


def test_a_node_that_does_not_know_the_session_gets_its_own_shards_again() -> None:
    """`resumed` false: all that is held in shards of that node is registered, and no more."""
    stage = ClusterStage()
    mine, others = led_by(stage, 2, 3), led_by(stage, 3, 3)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            held = [(each.service, instance(1)) for each in (*mine, *others)]
            await registry.register_all(held)
            cluster.nodes[2].end_session(bytes.fromhex(registry.session_id))
            assert not any(cluster.services[each] for each in mine)
            await until(lambda: all(cluster.services[each] for each in mine), 5.0)
            assert cluster.nodes[2].count(MessageType.REGISTER) == 2
            assert cluster.nodes[3].count(MessageType.REGISTER) == 1

    stage.play(program)


def test_an_acknowledgement_of_an_epoch_that_ended_is_claimed() -> None:
    """Committed by the old primary, told after its end: the new one is asked for it."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.get(service.service)

            def move(shard: int, row: Row) -> bool:
                if shard != shard_of(*service):
                    return False
                row.primary, row.epoch = 3, row.epoch + 1
                return True

            await registry.register(service.service, port=1)
            cluster.nodes[3].sessions[bytes.fromhex(registry.session_id)] = {}
            cluster.change(move)
            await until(lambda: cluster.nodes[3].count(MessageType.CLAIM) == 1, 3.0)
            # As if the answer of the old primary came only now.
            cluster.services[service].clear()
            registry._session.on_registered(service, 2)
            await asyncio.sleep(3.0)
            assert cluster.nodes[3].count(MessageType.CLAIM) == 1
            registry._session.on_registered(service, 1)
            await until(lambda: bool(cluster.services[service]), 3.0)

    stage.play(program)


# --- the map and connections -------------------------------------------------------------------


def test_if_no_known_node_answers_the_seeds_are_tried() -> None:
    """All nodes are gone; the one that comes back is found, whichever it is."""
    stage = ClusterStage()

    async def program(runtime: SimRuntime) -> None:
        states: list[bool] = []
        async with stage.connect(
            runtime, on_connection=lambda state: states.append(state.connected)
        ) as registry:
            await registry.wait_connected()
            for number in (1, 2, 3):
                stage.kill(number)
            await until(lambda: not registry.connection.connected)
            stage.cluster.processes[3].start()
            state = await registry.wait_connected(timeout=10)
            assert state.node_name == "n3"
            await asyncio.sleep(0)
            # Each reason is told; that it is gone and back, once.
            assert [each for each, _ in groupby(states)] == [True, False, True]

    stage.play(program)


def test_losing_home_is_no_disconnection_while_another_node_answers() -> None:
    """Connected means that some node answers."""
    stage = ClusterStage()
    [service] = led_by(stage, 3)

    async def program(runtime: SimRuntime) -> None:
        states: list[bool] = []
        async with stage.connect(
            runtime, on_connection=lambda state: states.append(state.connected)
        ) as registry:
            await registry.register(service.service, port=1)
            stage.kill(1)
            await until(lambda: registry.connection.node_name == "n3")
            await asyncio.sleep(1.0)
            assert all(states)
            # The map comes from there now.
            stage.cluster.fail_over(1)
            await asyncio.sleep(0.1)
            [was_led_by_1] = [
                each for each in (key(f"s{n}") for n in range(99)) if shard_of(*each) % 3 == 0
            ][:1]
            started = now()
            await registry.register(was_led_by_1.service, port=1)
            assert now() - started < 0.5

    stage.play(program)


def test_connections_that_nobody_needs_are_closed() -> None:
    """After half a minute only those are left that hold or follow something, and one at least."""
    stage = ClusterStage()
    [held] = led_by(stage, 3)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            handle = await registry.register(held.service, port=1)
            for number in (1, 2):
                await registry.get(led_by(stage, number)[0].service)
            assert [len(node.connections) for node in cluster.nodes.values()] == [1, 1, 1]
            await asyncio.sleep(40)
            assert [len(node.connections) for node in cluster.nodes.values()] == [0, 0, 1]
            assert registry.connection.node_name == "n3"
            assert registry.connection.connected
            await handle.deregister()
            await asyncio.sleep(60)
            assert [len(node.connections) for node in cluster.nodes.values()] == [0, 0, 1]
            assert cluster.nodes[3].count(MessageType.GOODBYE) == 0

    stage.play(program)


def test_close_says_goodbye_to_every_node() -> None:
    """Leaving removes what was registered, wherever it was."""
    stage = ClusterStage()

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            for number in (1, 2, 3):
                await registry.register(led_by(stage, number)[0].service, port=1)
        assert not any(stage.cluster.services.values())
        assert len(asyncio.all_tasks()) == 1

    stage.play(program)


def test_a_node_of_another_cluster_is_not_talked_to() -> None:
    """What answers at an address of the map with another cluster's id gets nothing of ours."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        async with stage.connect(runtime) as registry:
            await registry.wait_connected()
            stage.cluster.nodes[2].cluster_id = b"x" * 16
            with pytest.raises(UnavailableError, match="another cluster"):
                await registry.register(service.service, port=1, timeout=2.0)
            assert stage.cluster.nodes[2].count(MessageType.REGISTER) == 0

    stage.play(program)


def test_many_callers_cost_few_questions_for_the_map() -> None:
    """However many requests wait for a primary, the map is asked for a few times a second."""
    stage = ClusterStage()
    services = led_by(stage, 2, 50)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.get(services[0].service)
            for each in services:
                cluster.nodes[2].unavailable[shard_of(*each)] = None
            maps = cluster.count(MessageType.SHARD_MAP)

            async def register(service: ServiceKey) -> None:
                await registry.register(service.service, port=1)

            stage.world.after(5.0, lambda: cluster.fail_over(2))
            async with asyncio.TaskGroup() as group:
                for each in services:
                    group.create_task(register(each))
            assert cluster.count(MessageType.SHARD_MAP) - maps < 5.5 / 0.2 + 3
            for each in services:
                assert len(await registry.get(each.service)) == 1

    stage.play(program)


def test_a_node_older_than_shard_maps_is_all_there_is() -> None:
    """A node that does not know the question is used as before, and asked nothing else new."""
    stage = Stage()
    unknown = UnsupportedTypeError("type 51 is not known here")
    stage.node.refusals[MessageType.SHARD_MAP] = [unknown] * 1000

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe_prefix("") as everything:
            await registry.register_all([(f"s{number}", instance(number)) for number in range(5)])
            stage.restart_node(down_s=1.0)
            await asyncio.sleep(5.0)
            assert len(await registry.services()) == 5
            await until(lambda: everything.is_current)
            assert len(everything.services) == 5
            assert stage.node.count(MessageType.REGISTER) == 1
            assert stage.node.count(MessageType.CLAIM) == 0

    stage.play(program)


def test_a_lost_push_of_the_map_is_noticed() -> None:
    """A newer version in a heartbeat, or a push on top of what was missed, has it asked for."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.register(service.service, port=1)
            session = bytes.fromhex(registry.session_id)
            cluster.nodes[3].sessions[session] = {}

            def move(shard: int, row: Row) -> bool:
                if shard != shard_of(*service):
                    return False
                row.primary, row.epoch = 3, row.epoch + 1
                return True

            cluster.change(move, tell=False)
            cluster.change(lambda shard, row: shard == 0)
            await until(lambda: cluster.nodes[3].count(MessageType.CLAIM) == 1, 1.5)
            cluster.change(move, tell=False)
            await until(lambda: cluster.nodes[3].count(MessageType.CLAIM) == 2, 3.5)

    stage.play(program)


def test_a_node_with_an_older_map_takes_nothing_back() -> None:
    """Told an older map, the client keeps its own."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            await registry.wait_connected()
            older = cluster.update(0)
            for node in cluster.nodes.values():
                node.map_lags = older
            cluster.fail_over(2)
            await asyncio.sleep(0.1)
            stage.kill(1)
            await asyncio.sleep(1.0)
            started = now()
            await registry.register(service.service, port=1)
            assert now() - started < 0.5

    stage.play(program)


def test_a_home_that_hears_nothing_is_not_the_only_one_asked() -> None:
    """A node cut off from the controller keeps its old map; the others' is found."""
    stage = ClusterStage()
    [service] = led_by(stage, 2)

    async def program(runtime: SimRuntime) -> None:
        cluster = stage.cluster
        async with stage.connect(runtime) as registry:
            for number in (1, 2, 3):
                await registry.get(led_by(stage, number)[0].service)
            home = cluster.nodes[1]
            assert registry.connection.node_name == "n1"
            home.map_lags = cluster.update(0)
            cluster.followers.clear()
            stage.kill(2)
            cluster.fail_over(2)
            if cluster.row(service).primary == 1:
                cluster.change(lambda shard, row: _lead(row, 3, shard == shard_of(*service)))
            started = now()
            await registry.register(service.service, port=1)
            assert now() - started < 1.5

    stage.play(program)


def _lead(row: Row, primary: int, wanted: bool) -> bool:
    if wanted:
        row.primary, row.epoch = primary, row.epoch + 1
    return wanted


def test_a_node_that_leads_again_is_dialled_soon_however_long_it_was_down() -> None:
    """What is held at a new primary is claimed at once: not after a pause that grew meanwhile."""
    for seed in range(4):
        stage = ClusterStage(seed)
        services = led_by(stage, 2, 4)

        async def program(
            runtime: SimRuntime, stage: ClusterStage = stage, services: list[ServiceKey] = services
        ) -> None:
            async with stage.connect(runtime) as registry:
                await registry.register_all([(each.service, instance(1)) for each in services])
                stage.kill(2)
                # Long enough for the longest pauses, and nobody else is given its shards.
                await asyncio.sleep(20.0)
                stage.cluster.processes[2].start()
                hellos = stage.cluster.nodes[2].count(MessageType.HELLO)

                def again(_: int, row: Row) -> bool:
                    row.epoch += row.primary == 2
                    return row.primary == 2

                stage.cluster.change(again)
                started = now()
                await until(
                    lambda: stage.cluster.nodes[2].count(MessageType.HELLO) > hellos, timeout_s=1.0
                )
                assert now() - started < 0.6

        stage.play(program)


def test_close_ends_although_a_dial_succeeds_meanwhile() -> None:
    """A connection that was in the making when the client was closed keeps nobody waiting."""
    for tenths in range(30, 90, 4):
        stage = ClusterStage()
        [service] = led_by(stage, 2)

        async def program(
            runtime: SimRuntime,
            stage: ClusterStage = stage,
            service: ServiceKey = service,
            away_s: float = tenths / 10.0,
        ) -> None:
            machine = stage.cluster.processes[2]
            async with stage.connect(runtime) as registry:
                await registry.register(service.service, port=1)
                machine.kill(power=True)
                # Until, now and then, it is dialled while its machine is switched off.
                await asyncio.sleep(away_s)
                stage.world.after(0.05, machine.start)
                started = now()
            assert now() - started < 2.0
            assert len(asyncio.all_tasks()) == 1

        stage.play(program)
