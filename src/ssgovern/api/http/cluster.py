"""The cluster over HTTP: how it is, as the node that answers knows it, and what it is told to do.

Each function answers one operation and refuses to know paths, headers and sockets. Commands are
the controller's to decide, whichever node is asked.
"""

from __future__ import annotations

from ssgovern.api.http import asks, bodies
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.errors import InvalidArgumentError
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_COMMAND_MS = 15_000
"""A command waits for a controller to be elected, if need be, and for the log."""


async def status(desk: Desk, _asked: Asked) -> Answer:
    """Return the cluster at a glance."""
    found = desk.backend.cluster_status(shards=False)
    body = bodies.Cluster(
        cluster_id=found.cluster_id.hex(),
        node_id=found.node_id,
        controller_id=found.controller_id,
        controller_heard=found.controller_heard,
        term=found.term,
        map_version=found.map_version,
        metadata_index=found.index,
        candidates=list(found.candidates),
        copies=found.copies,
        min_in_sync=found.min_in_sync,
        nodes=len(found.nodes),
        nodes_live=sum(node.live for node in found.nodes),
        shards=found.shards_total,
        shards_unavailable=found.shards_unavailable,
        shards_below_copies=found.shards_below_copies,
        moves=found.moves,
    )
    return Answer(body)


async def nodes(desk: Desk, _asked: Asked) -> Answer:
    """Return all nodes."""
    found = desk.backend.cluster_status(shards=False)
    body = bodies.ClusterNodes(
        map_version=found.map_version,
        nodes=[
            bodies.ClusterNode(
                id=node.node_id,
                name=node.name,
                address=node.address,
                zone=node.zone,
                live=node.live,
                leaving=node.leaving,
                lost=node.lost,
                candidate=node.candidate,
                primaries=node.primaries,
                holds=node.holds,
                in_sync=node.in_sync,
            )
            for node in found.nodes
        ],
    )
    return Answer(body)


async def shards(desk: Desk, _asked: Asked) -> Answer:
    """Return the shard map."""
    found = desk.backend.cluster_status(shards=True)
    body = bodies.Shards(
        map_version=found.map_version,
        shards=[
            bodies.Shard(
                shard=row.shard,
                epoch=row.epoch,
                primary=row.primary,
                holders=list(row.holders),
                in_sync=list(row.in_sync),
                incoming=row.incoming,
                outgoing=row.outgoing,
                successor=row.successor,
            )
            for row in found.shards
        ],
    )
    return Answer(body)


async def node_status(desk: Desk, _asked: Asked) -> Answer:
    """Return the node that answers, by itself."""
    found = desk.backend.status()
    not_ready = desk.backend.not_ready()
    body = bodies.NodeStatus(
        node_id=found.node_id,
        node_name=found.node_name,
        cluster_id=found.cluster_id.hex(),
        version=found.version,
        uptime_ms=found.uptime_ms,
        services=found.services,
        instances=found.instances,
        sessions=found.sessions,
        sessions_protected=found.sessions_protected,
        connections=found.connections,
        subscriptions=found.subscriptions,
        entries_committed=found.entries_committed,
        wal_bytes=found.wal_bytes,
        wal_segments=found.wal_segments,
        wal_batches=found.wal_batches,
        wal_sync_us=found.wal_sync_us,
        writes_refused=found.writes_refused,
        map_version=found.map_version,
        loop_stall_ms_max=found.loop_stall_ms_max,
        pushes=found.pushes,
        expirations=found.expirations,
        resident_bytes=found.resident_bytes,
        durability=found.durability,
        ready=not not_ready,
        not_ready=not_ready,
    )
    return Answer(body)


# --- commands -----------------------------------------------------------------------------


async def leave(desk: Desk, asked: Asked) -> Answer:
    """Have everything moved away from a node, which is then removed for good."""
    return await _command(desk, native_pb2.ClusterCommandRequest(leave=_node(asked)))


async def stay(desk: Desk, asked: Asked) -> Answer:
    """Take back that a node shall leave."""
    return await _command(desk, native_pb2.ClusterCommandRequest(stay=_node(asked)))


async def transfer_controller(desk: Desk, asked: Asked) -> Answer:
    """Hand the controller's duty to another candidate."""
    command = native_pb2.ClusterCommandRequest(transfer_controller=_node(asked))
    return await _command(desk, command)


def _node(asked: Asked) -> int:
    assert isinstance(asked.body, asks.NodeAsk), "the operation says what is asked"
    return asked.body.node


async def transfer(desk: Desk, asked: Asked) -> Answer:
    """Make a node the primary of a shard."""
    body = asked.body
    assert isinstance(body, asks.TransferAsk), "the operation says what is asked"
    wanted = native_pb2.TransferShard(shard=body.shard, to=body.to)
    return await _command(desk, native_pb2.ClusterCommandRequest(transfer=wanted))


async def settings(desk: Desk, asked: Asked) -> Answer:
    """Change settings of the cluster."""
    body = asked.body
    assert isinstance(body, asks.SettingsAsk), "the operation says what is asked"
    changes = body.model_dump(exclude_none=True)
    if not changes:
        raise InvalidArgumentError("no setting is named", field="body")
    wanted = native_pb2.ChangeSettings(**changes)
    return await _command(desk, native_pb2.ClusterCommandRequest(settings=wanted))


async def _command(desk: Desk, command: native_pb2.ClusterCommandRequest) -> Answer:
    decided = await desk.backend.gateway.call(
        MessageType.CLUSTER_COMMAND,
        command,
        native_pb2.ClusterCommandResponse,
        repeatable=True,
        timeout_ms=_COMMAND_MS,
    )
    return Answer(bodies.Decided(sentence=decided.sentence))
