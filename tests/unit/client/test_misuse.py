"""The SDK in the hands of callers that cancel, forget, mistype and give up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stage import Stage, connect, ids

import ssgovern
from ssgovern.errors import (
    ClosedError,
    InvalidArgumentError,
    OverloadedError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType


def test_a_cancelled_close_leaves_nobody_waiting() -> None:
    """Whenever who closes is cancelled, and however often, closing again ends."""
    for turns in range(1, 8):
        stage = Stage()

        async def program(runtime: SimRuntime, stage: Stage = stage, turns: int = turns) -> None:
            registry = connect(runtime, cache_dir="lists")
            await registry.open()
            await registry.wait_connected()
            stage.node.ignores_all = True
            closing = asyncio.ensure_future(registry.close())
            await asyncio.sleep(0.5)
            for _ in range(2):
                closing.cancel()
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await registry.close()

        stage.play(program)


def test_a_client_that_was_not_entered_says_so_at_once() -> None:
    """No request waits for a connection that nobody makes."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        registry = connect(runtime)
        with pytest.raises(ClosedError, match="async with"):
            await registry.get("orders")
        with pytest.raises(ClosedError, match="async with"):
            registry.subscribe("orders")
        with pytest.raises(ClosedError, match="async with"):
            registry.subscribe_prefix("or")

    stage.play(program)


def test_asking_a_closed_client_for_ever_costs_no_memory() -> None:
    """Each refusal is an error of its own: one error raised again keeps every traceback."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry, registry.subscribe("orders") as orders:
            pass
        for attempt in (registry.get("orders"), registry.get("orders")):
            with pytest.raises(ClosedError) as refused:
                await attempt
            assert len(refused.traceback) < 8
        for _ in range(2):
            with pytest.raises(ClosedError) as refused:
                await registry.subscribe("orders").open()
            assert len(refused.traceback) < 5
        assert orders.instances == ()

    stage.play(program)


def test_what_is_asked_to_go_while_registering_again_does_not_come_back() -> None:
    """A deregistration given up while a new session is being filled still counts."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.register("orders", port=1, host="h", instance_id="gone")
            await registry.register("orders", port=2, host="h", instance_id="stays")
            refusals: list[SsGovernError] = [OverloadedError("later") for _ in range(3)]
            stage.node.refusals[MessageType.REGISTER] = refusals
            stage.restart_node(lossy=True)
            async with asyncio.timeout(10):
                while len(refusals) > 1:
                    await asyncio.sleep(0.01)
            with pytest.raises(SsGovernError):
                await registry.deregister("orders", "gone", timeout=0.01)
            assert ids(await registry.get("orders")) == ["stays"]

    stage.play(program)


@pytest.mark.parametrize("pairs", [{"a": 1}, {1: "a"}, {"a": None}, {"a": "\udcff"}])
def test_metadata_that_is_no_text_is_refused_in_words(pairs: dict[Any, Any]) -> None:
    """Numbers and undecodable text are the caller's mistake, not a failure of the encoder."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            with pytest.raises(InvalidArgumentError, match="text"):
                await registry.register("orders", port=1, metadata=pairs)
            with pytest.raises(InvalidArgumentError, match="text"):
                await registry.update("orders", "i1", metadata_set=pairs)

    stage.play(program)


@pytest.mark.parametrize("revision", [-1, 1 << 64])
def test_a_revision_that_cannot_be_is_refused_in_words(revision: int) -> None:
    """A condition must fit the field it is sent in."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            with pytest.raises(InvalidArgumentError, match="revision"):
                await registry.deregister("orders", "i1", if_revision=revision)
            with pytest.raises(InvalidArgumentError, match="revision"):
                await registry.update("orders", "i1", weight=1, if_revision=revision)

    stage.play(program)


def test_a_name_that_cannot_be_a_host_is_unavailable() -> None:
    """What the resolver of the standard library rejects does not end the client."""

    async def program() -> None:
        async with ssgovern.connect("a..b:1", timeout=0.2) as registry:
            for _ in range(2):
                with pytest.raises(UnavailableError, match="not the name of a host"):
                    await registry.get("orders")

    asyncio.run(program())
