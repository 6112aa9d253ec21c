"""What a node makes of its rows: roles that follow each other, however they meet."""

from __future__ import annotations

import asyncio

import pytest
from hosting import (
    PEER,
    SHARD,
    Hosting,
    row,
    settle,
    simulate,
)

from ssgovern.errors import OutcomeUnknownError, ShardUnavailableError
from ssgovern.model import ORIGIN, LogPosition
from ssgovern.replication.messages import Appended, Fenced
from ssgovern.wire.frames import MessageType


async def primary(node: Hosting) -> None:
    """Let this node be the primary of the first shard, with node 2 as its replica."""
    node.found()
    node.agree(s0=row(1, 2))
    await settle()
    node.held(1)
    await settle()


# --- epochs ----------------------------------------------------------------------------------


def test_an_epoch_older_than_what_is_promised_is_not_led() -> None:
    """A row that comes late names an epoch that others have left behind, as this node knows."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, 3, primary=3))
        await settle()
        # Epoch 2 was to be this node's, but it did not hear of it before epoch 3 began.
        node.append(3, ORIGIN, "", "a")
        await settle()
        node.agree(s0=row(1, 2, 3, primary=1, epoch=2, version=2))
        await settle()
        assert node[SHARD].primary is None
        assert node[SHARD].led == 0
        node.append(3, LogPosition(3, 2), "b")
        await settle()
        assert [said.held for said in node.said(Appended)] == [2, 3]

    simulate(body)


def test_an_epoch_is_led_once_in_a_life() -> None:
    """Who stepped down says so until the row names another epoch, and never leads it again."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.tell(Fenced(SHARD, PEER, 2))
        await settle()
        assert node[SHARD].primary is None
        await asyncio.sleep(1)
        assert node[SHARD].primary is None
        assert node.asked[-1][0] == MessageType.SHARD_RESIGNED
        node.agree(s0=row(1, 2, epoch=3, version=2))
        await settle()
        assert node[SHARD].primary is not None
        assert node.host.promotions == 2

    simulate(body)


def test_a_promise_outlives_the_shard() -> None:
    """A shard that left and comes back finds the node obeying what it obeyed before."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(5, ORIGIN, "", "a")
        await settle()
        node.agree(s0=row(2, 3, primary=2, version=2))
        await settle()
        assert node.host.is_gone(SHARD)
        node.agree(s0=row(1, 2, 3, primary=2, version=3, in_sync=(2, 3)))
        await settle()
        node.said(Appended)
        node.append(4, ORIGIN, "", "x")
        await settle()
        assert [said.epoch for said in node.said(Fenced)] == [5]

    simulate(body)


# --- who ends sessions -----------------------------------------------------------------------


def test_sessions_of_a_shard_are_left_to_others_even_if_it_never_served() -> None:
    """They may have registered since the promotion, and are not this node's to end."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2))
        await settle()
        asked = node.propose("a")
        node.tell(Fenced(SHARD, PEER, 2))
        await settle()
        assert isinstance(asked.error, OutcomeUnknownError)
        assert (node.began, node.ended) == ([], [SHARD])

    simulate(body)


# --- the end ---------------------------------------------------------------------------------


def test_who_gave_up_its_lease_answers_no_reads() -> None:
    """Others may be promoted at once, so not even a heartbeat's late answer lets it go on."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.placement.check_read(SHARD, replica_too=False)
        node.host.give_up_lease()
        node.lease()
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=False)
        node.placement.check_read(SHARD, replica_too=True)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)

    simulate(body)


def test_the_log_ends_although_peers_go_on() -> None:
    """Those who were not told yet send to the last moment; their entries are not waited for."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()

        async def load() -> None:
            revision = 0
            while True:
                node.append(1, LogPosition(1 if revision else 0, revision), f"i{revision}")
                revision += 1
                await asyncio.sleep(0.0003)

        loading = asyncio.get_running_loop().create_task(load())
        await settle()
        node.host.hears = False
        async with asyncio.timeout(1):
            await node.driver.drain()
        loading.cancel()

    simulate(body)
