"""What a client may ask that has nothing to do with its own registrations and subscriptions.

Translates and decides nothing, as connections do. Whoever adds a request that needs no state of
the connection adds it in a module of this shape and names its handlers to the server.
"""

from __future__ import annotations

from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


def _status(connection: NativeConnection, _session: Session, request_id: int, body: bytes) -> None:
    decode(native_pb2.StatusRequest, body)
    status = connection.host.status()
    connection.reply(MessageType.STATUS, request_id, status.SerializeToString())


def _claim(connection: NativeConnection, session: Session, request_id: int, body: bytes) -> None:
    request = decode(native_pb2.ClaimRequest, body)
    response = connection.host.registry.claim(session, request)
    connection.reply(MessageType.CLAIM, request_id, response.SerializeToString())


def _shard_map(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(native_pb2.ShardMapRequest, body)
    update = connection.host.shard_map(connection, request)
    connection.reply(MessageType.SHARD_MAP, request_id, update.SerializeToString())


def _cluster_status(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(native_pb2.ClusterStatusRequest, body)
    response = connection.host.cluster_status(request)
    connection.reply(MessageType.CLUSTER_STATUS, request_id, response.SerializeToString())


def _read_shard(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(native_pb2.ReadShardRequest, body)
    response = connection.host.read_shard(connection, request)
    connection.reply(MessageType.READ_SHARD, request_id, response.SerializeToString())


def _cluster_command(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    connection.take_slot()
    request = decode(native_pb2.ClusterCommandRequest, body)
    connection.host.cluster_command(connection, request_id, request)
    connection.in_flight += 1


HANDLERS: dict[int, Handler] = {
    MessageType.STATUS: _status,
    MessageType.CLAIM: _claim,
    MessageType.SHARD_MAP: _shard_map,
    MessageType.CLUSTER_STATUS: _cluster_status,
    MessageType.READ_SHARD: _read_shard,
    MessageType.CLUSTER_COMMAND: _cluster_command,
}
