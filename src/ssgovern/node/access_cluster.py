"""Access control of a node of a cluster: it follows the metadata log, and asks the controller.

What was set up while the node was alone is in its directory still (`access_store`): it holds
until the cluster is founded, and comes along if this node founds it.
"""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message

from ssgovern.controller.access import NOBODY_YET, AccessState
from ssgovern.errors import InvalidArgumentError, UnavailableError
from ssgovern.node.access_setup import check_set_up
from ssgovern.node.access_store import load
from ssgovern.node.config import ServerConfig
from ssgovern.node.identity import Identity
from ssgovern.node.member_driver import MemberDriver
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.runtime import Disk
from ssgovern.service.access import Access
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2, peer_pb2

_COMMAND_TIMEOUT_S = 30.0


def begin(config: ServerConfig, access: Access, root: Disk, identity: Identity) -> AccessState:
    """Return who was set up while the node was alone. Raises ConfigError if somebody has to be."""
    brought = NOBODY_YET if identity.clustered else load(root)
    access.replace(brought)
    joins = identity.clustered or not config.is_candidate
    check_set_up(config, access, has_cluster=joins)
    return brought


def follow(access: Access, metadata: Metadata) -> None:
    """Let what the metadata log says hold, as soon as it says anything."""

    def on_change(_change: MetadataChange) -> None:
        if metadata.state.access is not NOBODY_YET:
            access.replace(metadata.state.access)

    metadata.listeners.append(on_change)


async def command(
    member: MemberDriver, metadata: Metadata, request: native_pb2.ClusterCommandRequest
) -> native_pb2.ClusterCommandResponse:
    """Pass an operator's command on to the controller; return what it decided."""
    return await _forward(member, metadata, peer_pb2.ForwardedCommandRequest(command=request))


async def decide(
    member: MemberDriver,
    metadata: Metadata,
    config: ServerConfig,
    request: native_pb2.AccessRequest,
) -> str:
    """Have the controller decide a change of access; return its sentence."""
    if not config.cluster_secret:
        raise InvalidArgumentError(
            "nodes know each other by cluster.secret where access is controlled: set it on every "
            "node first (`ss-govern cluster secret` makes one)"
        )
    forwarded = peer_pb2.ForwardedCommandRequest(access=request)
    return (await _forward(member, metadata, forwarded)).sentence


async def _forward(
    member: MemberDriver, metadata: Metadata, forwarded: Message
) -> native_pb2.ClusterCommandResponse:
    if not metadata.map_version:
        # It does not know yet who may do what.
        raise UnavailableError("this node does not know its cluster yet: ask another, or wait")
    deadline = asyncio.get_running_loop().time() + _COMMAND_TIMEOUT_S
    answer = await member.ask_controller(
        MessageType.FORWARDED_COMMAND, encode(forwarded), deadline, patient=True
    )
    return native_pb2.ClusterCommandResponse.FromString(answer)
