"""What a node of a cluster says to clients: the map, what is elsewhere, and the cluster itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from builders import BILLING, ORDERS
from lite import Lites, simulate_lites
from nodes import Raw, RefusedError, Stage, simulate

from ssgovern import limits
from ssgovern.errors import ErrorCode, NotFoundError, Retry, UnavailableError
from ssgovern.model import SHARDS, shard_of
from ssgovern.service.placement import mask_of, mask_to_wire
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2


async def map_of(raw: Raw, known: int = 0, *, follow: bool = False) -> native_pb2.ShardMapUpdate:
    request = native_pb2.ShardMapRequest(known_version=known, follow=follow)
    return native_pb2.ShardMapUpdate.FromString(await raw.ask(MessageType.SHARD_MAP, request))


async def map_version(raw: Raw) -> int:
    answer = await raw.ask(MessageType.HEARTBEAT)
    return native_pb2.HeartbeatResponse.FromString(answer).map_version


async def pushed_map(raw: Raw) -> native_pb2.ShardMapUpdate:
    update = await raw.push()
    assert isinstance(update, native_pb2.ShardMapUpdate)
    return update


async def refused(raw: Raw, type_: int, request: Any) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        await raw.ask(type_, request)
    return error.value


async def claimed(raw: Raw, *ids: str) -> list[str]:
    """Claim instances of ORDERS; return which are missing."""
    request = native_pb2.ClaimRequest()
    request.claimed.add(service=key_to_wire(ORDERS), instance_ids=ids)
    answer = native_pb2.ClaimResponse.FromString(await raw.ask(MessageType.CLAIM, request))
    return [each for item in answer.missing for each in item.instance_ids]


# --- a node that is all there is ----------------------------------------------------------


def test_a_single_node_has_a_map() -> None:
    """A node without a cluster names itself as the primary of everything, at no address."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("a")
        update = await map_of(raw)
        assert [(node.address, node.live) for node in update.nodes] == [("", True)]
        assert [row.shard for row in update.rows] == list(range(SHARDS))
        assert {row.primary for row in update.rows} == {update.nodes[0].node_id}
        assert update.version == await map_version(raw)
        again = await map_of(raw, update.version)
        assert (list(again.rows), again.version) == ([], update.version)

    simulate(body)


@pytest.mark.parametrize("type_", [MessageType.CLUSTER_STATUS, MessageType.CLUSTER_COMMAND])
def test_a_single_node_is_no_cluster(type_: MessageType) -> None:
    """What only a cluster can answer is refused by a single node with what to do."""

    async def body(stage: Stage) -> None:
        raw = await stage.client("a")
        error = await refused(raw, type_, native_pb2.ClusterCommandRequest(leave=2))
        assert error.code == ErrorCode.INVALID_ARGUMENT
        assert "not part of a cluster" in str(error)

    simulate(body)


# --- the map ------------------------------------------------------------------------------


def test_following_the_map() -> None:
    """A follower is pushed what changed, everyone else hears of it with the next heartbeat."""

    async def body(lites: Lites) -> None:
        follower = await lites.nodes[1].client("a")
        other = await lites.nodes[1].client("b")
        known = await map_of(follower, follow=True)
        shard = lites.place(ORDERS, 2)
        update = await pushed_map(follower)
        assert update.since == known.version
        assert [(row.shard, row.primary) for row in update.rows] == [(shard, 2)]
        assert await map_version(other) == update.version
        assert other.pushes == []

    simulate_lites(2, body)


def test_a_follower_that_reads_nothing_gets_one_update_for_many() -> None:
    """Updates that a follower could not take reach it as one, from the version it was told."""

    async def body(lites: Lites) -> None:
        node = lites.nodes[1]
        raw = await node.client("a")
        known = await map_of(raw, follow=True)
        (connection,) = node.server._connections
        connection._write_paused = True
        shards = []
        for key in (ORDERS, BILLING):
            shards.append(lites.place(key, 2))
            await asyncio.sleep(1)
        connection.resume_writing()
        update = await pushed_map(raw)
        assert (update.since, update.version) == (known.version, lites.version)
        assert sorted(row.shard for row in update.rows) == sorted(shards)

    simulate_lites(2, body)


def test_who_is_told_anything_is_sent_away_from_a_node_that_is_cut_off() -> None:
    """Of services or of the map: both would grow old. Who only asks may stay."""

    async def body(lites: Lites) -> None:
        node = lites.nodes[1]
        follower = await node.client("a")
        asker = await node.client("b")
        await map_of(follower, follow=True)
        assert node.server.shed_subscribers(UnavailableError("cut off")) == 1
        await asyncio.sleep(1)
        assert len(node.server) == 1
        await map_version(asker)

    simulate_lites(1, body)


def test_a_follower_that_is_gone_is_forgotten() -> None:
    """A closed connection follows nothing."""

    async def body(lites: Lites) -> None:
        node = lites.nodes[1]
        raw = await node.client("a")
        await map_of(raw, follow=True)
        raw.close()
        await asyncio.sleep(1)
        lites.place(ORDERS, 2)
        await asyncio.sleep(1)
        assert len(node.server._map_followers) == 0

    simulate_lites(2, body)


# --- what is elsewhere --------------------------------------------------------------------


def test_what_is_elsewhere_is_refused_and_nothing_is_done() -> None:
    """Writes, reads and subscriptions of a shard that is elsewhere name it and the map."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("a")
        shard = lites.place(ORDERS, 2)
        service = key_to_wire(ORDERS)
        both = native_pb2.RegisterRequest()
        for key in (BILLING, ORDERS):
            both.registrations.add(service=key_to_wire(key), instance={"host": "h", "port": 1})
        for type_, request in [
            (MessageType.REGISTER, both),
            (
                MessageType.DEREGISTER,
                native_pb2.DeregisterRequest(service=service, instance_id="a"),
            ),
            (MessageType.UPDATE, native_pb2.UpdateRequest(service=service, instance_id="a")),
            (MessageType.GET, native_pb2.GetRequest(service=service)),
            (MessageType.GET, native_pb2.GetRequest(service=service, replica_too=True)),
            (MessageType.LIST_SERVICES, native_pb2.ListServicesRequest(namespace="prod")),
            (MessageType.SUBSCRIBE, native_pb2.SubscribeRequest(service=service)),
            (
                MessageType.SUBSCRIBE,
                native_pb2.SubscribeRequest(
                    pattern=native_pb2.Pattern(namespace="prod", group="default")
                ),
            ),
            (
                MessageType.CLAIM,
                native_pb2.ClaimRequest(
                    claimed=[native_pb2.Claimed(service=service, instance_ids=["a"])]
                ),
            ),
        ]:
            error = await refused(raw, type_, request)
            assert (error.code, error.retry) == (ErrorCode.SHARD_MOVED, Retry.AFTER_REFRESH), type_
            assert error.fields["shard"] == str(shard)
            assert error.fields["map_version"] == str(lites.version)
        assert lites.nodes[1].ids(BILLING) == []
        assert raw.pushes == []

    simulate_lites(2, body)


def test_a_replica_answers_those_who_let_it() -> None:
    """A replica is read if the request allows it, followed, listed, and never written."""

    async def body(lites: Lites) -> None:
        owner = await lites.nodes[1].client("owner")
        await owner.register("a")
        lites.place(ORDERS, 2, 1)
        raw = await lites.nodes[1].client("a")
        request = native_pb2.GetRequest(service=key_to_wire(ORDERS))
        assert (await refused(raw, MessageType.GET, request)).code == ErrorCode.SHARD_MOVED
        request.replica_too = True
        answer = native_pb2.GetResponse.FromString(await raw.ask(MessageType.GET, request))
        assert [found.id for found in answer.instances] == ["a"]
        await raw.subscribe()
        snapshot = await raw.push()
        assert isinstance(snapshot, native_pb2.Snapshot)
        assert [found.id for found in snapshot.instances] == ["a"]
        with pytest.raises(RefusedError) as error:
            await raw.register("b")
        assert error.value.code == ErrorCode.SHARD_MOVED

    simulate_lites(2, body)


def test_a_primary_that_may_not_act() -> None:
    """A primary without its lease says that nothing was done and that a newer map may help."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        lites.rows[shard_of(*ORDERS)].is_idle = True
        with pytest.raises(RefusedError) as error:
            await raw.register("a")
        assert (error.value.code, error.value.retry) == (
            ErrorCode.SHARD_UNAVAILABLE,
            Retry.AFTER_REFRESH,
        )
        lites.rows[shard_of(*ORDERS)].is_idle = False
        assert await raw.ids() == []

    simulate_lites(1, body)


def test_masks_in_requests() -> None:
    """A list and a pattern with a mask are of these shards only; a mask of nothing is refused."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("a")
        await raw.register("b", key=BILLING)
        lites.place(BILLING, 2)
        mine = mask_to_wire(mask_of([shard_of(*ORDERS)]))
        listing = native_pb2.ListServicesRequest(namespace="prod", shards=mine)
        answer = native_pb2.ListServicesResponse.FromString(
            await raw.ask(MessageType.LIST_SERVICES, listing)
        )
        assert [each.service.service for each in answer.services] == ["orders"]
        pattern = native_pb2.Pattern(namespace="prod", group="default")
        request = native_pb2.SubscribeRequest(pattern=pattern, shards=mine)
        request.known.add(service=key_to_wire(BILLING), epoch=1, revision=2)
        error = await refused(raw, MessageType.SUBSCRIBE, request)
        assert (error.code, error.fields["field"]) == (ErrorCode.INVALID_ARGUMENT, "known")
        del request.known[:]
        await raw.ask(MessageType.SUBSCRIBE, request)
        snapshot = await raw.push()
        assert isinstance(snapshot, native_pb2.Snapshot)
        assert snapshot.service.service == "orders"
        for bad in (bytes(SHARDS // 8), b"\1" * (SHARDS // 8 + 1)):
            listing.shards = request.shards = bad
            for type_, wrong in ((MessageType.LIST_SERVICES, listing), (30, request)):
                assert (await refused(raw, type_, wrong)).code == ErrorCode.INVALID_ARGUMENT

    simulate_lites(2, body)


def test_a_list_of_shards_that_are_elsewhere() -> None:
    """A list without a mask is refused by a node that does not hold everything, never cut."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        lites.place(BILLING, 2)
        error = await refused(
            raw, MessageType.LIST_SERVICES, native_pb2.ListServicesRequest(namespace="prod")
        )
        assert (error.code, error.fields["field"]) == (ErrorCode.SHARD_MOVED, "shards")

    simulate_lites(2, body)


# --- sessions -----------------------------------------------------------------------------


def test_claiming_after_a_change_of_primary() -> None:
    """The new primary knows what the session registered, and names what is not there or not its."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("mine", "lost")
        await (await lites.nodes[1].client("b")).register("foreign")
        lites.place(ORDERS, 2)
        taken = await lites.nodes[2].client("a")
        assert await claimed(taken, "mine", "lost") == []
        await taken.deregister("lost")
        assert await claimed(taken, "mine", "lost", "foreign") == ["lost", "foreign"]

    simulate_lites(2, body)


def test_a_new_primary_lets_sessions_live_and_ends_those_that_do_not_come() -> None:
    """After a change of primary a session has a full time to live there, connected or not."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("x")
        lites.place(ORDERS, 2)
        node = lites.nodes[2]
        await asyncio.sleep(4.5)
        assert node.has_session("a")
        back = await node.client("a")
        for _ in range(8):
            await asyncio.sleep(1)
            await back.heartbeat()
        assert node.ids(ORDERS) == ["x"]
        back.close()
        await asyncio.sleep(7)
        assert node.ids(ORDERS) == []
        assert not node.has_session("a")

    simulate_lites(2, body)


def test_a_node_ends_no_session_in_shards_of_another() -> None:
    """When a session expires on a node that lost its shards, what it registered stays."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("x")
        lites.place(ORDERS, 2, 1)
        there = await lites.nodes[2].client("a")
        raw.close()
        for _ in range(8):
            await asyncio.sleep(1)
            await there.heartbeat()
        assert not lites.nodes[1].has_session("a")
        assert lites.nodes[2].ids(ORDERS) == ["x"]

    simulate_lites(2, body)


def test_goodbye_ends_what_is_here() -> None:
    """A goodbye ends the session where this node is primary, and waits for no other node."""

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        await raw.register("x")
        await raw.register("y", key=BILLING)
        lites.place(BILLING, 2, 1)
        await raw.ask(MessageType.GOODBYE)
        assert lites.nodes[1].ids(ORDERS) == []
        assert lites.nodes[2].ids(BILLING) == ["y"]

    simulate_lites(2, body)


# --- the cluster --------------------------------------------------------------------------


def test_status_and_commands_are_the_nodes() -> None:
    """Status is answered at once, a command when it is decided, and neither holds up the rest."""
    decided = asyncio.Event()

    def status(request: native_pb2.ClusterStatusRequest) -> native_pb2.ClusterStatusResponse:
        return native_pb2.ClusterStatusResponse(node_id=1, copies=3 if request.shards else 0)

    async def command(
        request: native_pb2.ClusterCommandRequest,
    ) -> native_pb2.ClusterCommandResponse:
        await decided.wait()
        if request.leave == 9:
            raise NotFoundError("there is no node 9")
        return native_pb2.ClusterCommandResponse(sentence=f"node {request.leave} leaves")

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        answer = await raw.ask(
            MessageType.CLUSTER_STATUS, native_pb2.ClusterStatusRequest(shards=True)
        )
        assert native_pb2.ClusterStatusResponse.FromString(answer).copies == 3
        for number, leave in ((100, 2), (101, 9)):
            request = native_pb2.ClusterCommandRequest(leave=leave).SerializeToString()
            await raw.send(encode_frame(Kind.REQUEST, MessageType.CLUSTER_COMMAND, number, request))
        await raw.heartbeat()
        await raw.register("x")
        decided.set()
        response = native_pb2.ClusterCommandResponse.FromString(await raw.answer(100))
        assert response.sentence == "node 2 leaves"
        with pytest.raises(RefusedError) as error:
            await raw.answer(101)
        assert error.value.code == ErrorCode.NOT_FOUND
        empty = await refused(raw, MessageType.CLUSTER_COMMAND, native_pb2.ClusterCommandRequest())
        assert empty.code == ErrorCode.INVALID_ARGUMENT

    simulate_lites(1, body, status=status, command=command)


def test_commands_are_bounded() -> None:
    """More commands than a node sees to at once are refused, and room returns with answers."""
    decided = asyncio.Event()

    async def command(
        request: native_pb2.ClusterCommandRequest,
    ) -> native_pb2.ClusterCommandResponse:
        await decided.wait()
        return native_pb2.ClusterCommandResponse()

    async def body(lites: Lites) -> None:
        raw = await lites.nodes[1].client("a")
        request = native_pb2.ClusterCommandRequest(leave=2)
        for number in range(limits.CLUSTER_COMMANDS_MAX):
            await raw.send(
                encode_frame(
                    Kind.REQUEST,
                    MessageType.CLUSTER_COMMAND,
                    100 + number,
                    request.SerializeToString(),
                )
            )
        error = await refused(raw, MessageType.CLUSTER_COMMAND, request)
        assert error.code == ErrorCode.OVERLOADED
        decided.set()
        for number in range(limits.CLUSTER_COMMANDS_MAX):
            await raw.answer(100 + number)
        await raw.ask(MessageType.CLUSTER_COMMAND, request)

    simulate_lites(1, body, command=command)
