"""What operators may want of the controller, from the message that says it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ssgovern.controller.requests import ChangeSettings, Leave, Stay, Transfer, Unclean
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import NodeId, ShardId
from ssgovern.wire.pb import native_pb2


@dataclass(frozen=True, slots=True)
class AddCandidate:
    node: NodeId


@dataclass(frozen=True, slots=True)
class RemoveCandidate:
    node: NodeId


@dataclass(frozen=True, slots=True)
class TransferController:
    to: NodeId


Command = (
    Leave
    | Stay
    | Transfer
    | ChangeSettings
    | Unclean
    | TransferController
    | AddCandidate
    | RemoveCandidate
)


def command_of(request: native_pb2.ClusterCommandRequest) -> Command:
    """Return what is wanted. Raises InvalidArgumentError if nothing is, or of a newer version."""
    match request.WhichOneof("command"):
        case "leave":
            return Leave(NodeId(request.leave))
        case "stay":
            return Stay(NodeId(request.stay))
        case "transfer":
            return Transfer(ShardId(request.transfer.shard), NodeId(request.transfer.to))
        case "settings":
            return _settings(request.settings)
        case "transfer_controller":
            return TransferController(NodeId(request.transfer_controller))
        case "candidates":
            return _candidates(request.candidates)
        case "unclean":
            return Unclean(ShardId(request.unclean.shard), NodeId(request.unclean.node_id))
        case _:
            raise InvalidArgumentError("the command is not known to this version", field="command")


def _candidates(change: native_pb2.CandidateChange) -> AddCandidate | RemoveCandidate:
    if bool(change.add) == bool(change.remove):
        raise InvalidArgumentError("add one candidate or remove one", field="candidates")
    if change.add:
        return AddCandidate(NodeId(change.add))
    return RemoveCandidate(NodeId(change.remove))


def _settings(change: native_pb2.ChangeSettings) -> ChangeSettings:
    return ChangeSettings(
        change.copies if change.HasField("copies") else None,
        change.min_in_sync if change.HasField("min_in_sync") else None,
        change.moves_max if change.HasField("moves_max") else None,
        change.fence_after_ms if change.HasField("fence_after_ms") else None,
        change.lost_after_ms if change.HasField("lost_after_ms") else None,
    )
