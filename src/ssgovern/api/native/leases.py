"""Renewing leases over the native protocol.

Translates and decides nothing. Registrations and changes on behalf of a lease are requests of
their own kinds, with the lease in them.
"""

from __future__ import annotations

from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


def _renew(connection: NativeConnection, _session: Session, request_id: int, body: bytes) -> None:
    request = decode(native_pb2.RenewRequest, body)
    host = connection.host
    response = host.registry.leases.renew(request, host.now_ms())
    connection.reply(MessageType.RENEW, request_id, response.SerializeToString())


HANDLERS: dict[int, Handler] = {MessageType.RENEW: _renew}
