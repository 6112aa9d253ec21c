"""What an operator asks of the cluster, as the client words it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage, connect

from ssgovern.errors import (
    InvalidArgumentError,
    NotControllerError,
    ShardUnavailableError,
    UnavailableError,
)
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


def test_the_status_is_told_as_values() -> None:
    """Nodes and, if asked for, shards; everything frozen."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            brief = await registry.cluster_status()
            assert (brief.node_id, brief.candidates, brief.copies) == (1, (1, 2, 3), 3)
            [node] = brief.nodes
            assert (node.name, node.live, node.candidate, node.primaries) == (
                "fake",
                True,
                True,
                256,
            )
            assert brief.shards == ()
            [row] = (await registry.cluster_status(shards=True)).shards
            assert (row.shard, row.primary, row.holders, row.in_sync) == (7, 1, (1, 2), (1,))
            hash(brief)

    stage.play(program)


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (lambda r: r.cluster_leave(2), native_pb2.ClusterCommandRequest(leave=2)),
        (lambda r: r.cluster_stay(2), native_pb2.ClusterCommandRequest(stay=2)),
        (
            lambda r: r.cluster_transfer(7, 3),
            native_pb2.ClusterCommandRequest(transfer=native_pb2.TransferShard(shard=7, to=3)),
        ),
        (
            lambda r: r.cluster_transfer_controller(3),
            native_pb2.ClusterCommandRequest(transfer_controller=3),
        ),
        (
            lambda r: r.cluster_settings(copies=2, moves_max=4),
            native_pb2.ClusterCommandRequest(
                settings=native_pb2.ChangeSettings(copies=2, moves_max=4)
            ),
        ),
        (
            lambda r: r.cluster_candidates(add=4),
            native_pb2.ClusterCommandRequest(candidates=native_pb2.CandidateChange(add=4)),
        ),
        (
            lambda r: r.cluster_unclean(7, 3),
            native_pb2.ClusterCommandRequest(
                unclean=native_pb2.UncleanElection(shard=7, node_id=3)
            ),
        ),
    ],
)
def test_a_command_is_sent_once_and_its_sentence_returned(
    command: Callable[[Any], Any], sent: native_pb2.ClusterCommandRequest
) -> None:
    """Each command is what it says, and a controller that is not there yet is waited for."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            stage.node.refusals[MessageType.CLUSTER_COMMAND] = [
                NotControllerError("nobody yet"),
                ShardUnavailableError("nobody yet"),
            ]
            assert await command(registry) == f"decided: {sent.WhichOneof('command')}"
            assert stage.node.last(MessageType.CLUSTER_COMMAND) == sent
            assert stage.node.count(MessageType.CLUSTER_COMMAND) == 3
            assert stage.node.hellos == 1

    stage.play(program)


def test_the_last_resort_is_not_repeated_blindly() -> None:
    """A lost answer to an unclean election is an unknown outcome; other commands are repeated."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            await registry.wait_connected()
            stage.node.cut[MessageType.CLUSTER_COMMAND] = 1
            with pytest.raises(UnavailableError, match="not known"):
                await registry.cluster_unclean(7, 3)
            assert stage.node.count(MessageType.CLUSTER_COMMAND) == 1
            stage.node.cut[MessageType.CLUSTER_COMMAND] = 1
            await registry.cluster_leave(2)
            assert stage.node.count(MessageType.CLUSTER_COMMAND) == 3

    stage.play(program)


@pytest.mark.parametrize("changes", [{}, {"shards": 3}, {"copies": -1}, {"copies": 1 << 32}])
def test_settings_that_do_not_exist_are_not_sent(changes: dict[str, int]) -> None:
    """A wrong name or number is the caller's, and names what is allowed."""
    stage = Stage()

    async def program(runtime: SimRuntime) -> None:
        async with connect(runtime) as registry:
            with pytest.raises(InvalidArgumentError):
                await registry.cluster_settings(**changes)
            assert stage.node.count(MessageType.CLUSTER_COMMAND) == 0

    stage.play(program)
