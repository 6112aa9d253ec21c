"""What operators may want, as the message says it."""

from __future__ import annotations

import pytest

from ssgovern.controller.requests import ChangeSettings, Leave, Stay, Transfer, Unclean
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import NodeId, ShardId
from ssgovern.node.commands import (
    AddCandidate,
    Command,
    RemoveCandidate,
    TransferController,
    command_of,
)
from ssgovern.wire.pb.native_pb2 import (
    CandidateChange,
    ClusterCommandRequest,
    TransferShard,
    UncleanElection,
)
from ssgovern.wire.pb.native_pb2 import (
    ChangeSettings as WireSettings,
)

COMMANDS: list[tuple[ClusterCommandRequest, Command]] = [
    (ClusterCommandRequest(leave=3), Leave(NodeId(3))),
    (ClusterCommandRequest(stay=3), Stay(NodeId(3))),
    (
        ClusterCommandRequest(transfer=TransferShard(shard=7, to=3)),
        Transfer(ShardId(7), NodeId(3)),
    ),
    (
        ClusterCommandRequest(settings=WireSettings(copies=2, lost_after_ms=0)),
        ChangeSettings(copies=2, lost_after_ms=0),
    ),
    (ClusterCommandRequest(transfer_controller=3), TransferController(NodeId(3))),
    (ClusterCommandRequest(candidates=CandidateChange(add=3)), AddCandidate(NodeId(3))),
    (ClusterCommandRequest(candidates=CandidateChange(remove=3)), RemoveCandidate(NodeId(3))),
    (
        ClusterCommandRequest(unclean=UncleanElection(shard=7, node_id=3)),
        Unclean(ShardId(7), NodeId(3)),
    ),
]


@pytest.mark.parametrize(("said", "meant"), COMMANDS)
def test_each_command(said: ClusterCommandRequest, meant: Command) -> None:
    """It means what it says; what is not set is not wanted."""
    assert command_of(said) == meant


def test_every_command_is_known() -> None:
    """A new one in the protocol needs a meaning."""
    known = {said.WhichOneof("command") for said, _ in COMMANDS}
    fields = ClusterCommandRequest.DESCRIPTOR.oneofs_by_name["command"].fields
    assert {field.name for field in fields} == known


@pytest.mark.parametrize(
    "said",
    [
        ClusterCommandRequest(),
        ClusterCommandRequest(candidates=CandidateChange()),
        ClusterCommandRequest(candidates=CandidateChange(add=1, remove=2)),
    ],
)
def test_what_says_nothing_is_refused(said: ClusterCommandRequest) -> None:
    """An empty command, or one that wants two things, is the documented error."""
    with pytest.raises(InvalidArgumentError):
        command_of(said)
