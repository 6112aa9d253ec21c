"""Waiting for subscribers, where nodes are not what the client hopes for."""

from __future__ import annotations

import asyncio

import pytest
from stage import Stage, connect

from ssgovern.errors import NotOwnerError, UnsupportedTypeError
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType


def test_a_node_that_is_older_is_named_at_once() -> None:
    """The removal is done, and that nobody can say who knows of it is told without a wait."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            registration = await registry.register("orders", host="10.0.0.1", port=1)
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            release = await registration.deregister(wait=True, timeout=20.0)
            assert loop.time() - began_s < 1.0
            assert release.removed
            assert not release.complete
            assert release.gone is not None
            assert release.gone.unanswered == (1,)
            with pytest.raises(UnsupportedTypeError):
                await registry.subscribers("orders")

    stage.play(program)


def test_a_node_that_never_answers_costs_no_more_than_the_time_given() -> None:
    """The removal is known to be done; the wait ends at the deadline, whatever nodes do."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.register("orders", host="10.0.0.1", port=1)
            stage.at_node(stage.node.mute.update, {MessageType.AWAIT_APPLIED: 1000})
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            release = await registry.release("orders", "10.0.0.1:1", timeout=6.0)
            assert 3.0 < loop.time() - began_s <= 6.0
            assert release.removed
            assert not release.complete

    stage.play(program)


def test_what_is_refused_is_raised() -> None:
    """A removal that is not allowed is an error, and nothing is waited for."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            stage.node.refusals[MessageType.DEREGISTER] = [NotOwnerError("another's")]
            with pytest.raises(NotOwnerError):
                await registry.release("orders", "10.0.0.1:1")
            assert not stage.node.count(MessageType.AWAIT_APPLIED)

    stage.play(program)
