"""Which namespaces there are, as far as a node's shards tell.

Translates and decides nothing, as `questions` does.
"""

from __future__ import annotations

from itertools import islice

from ssgovern import limits
from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.model import check_prefix
from ssgovern.registry.directory import Directory
from ssgovern.registry.sessions import Session
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


def page_of_namespaces(
    directory: Directory, request: native_pb2.NamespacesRequest
) -> native_pb2.NamespacesResponse:
    """Return a page of the namespaces. Raises InvalidArgumentError."""
    check_prefix("prefix", request.prefix)
    check_prefix("after", request.after)
    size = min(request.page_size or limits.LIST_PAGE_MAX, limits.LIST_PAGE_MAX)
    found = list(islice(directory.namespaces(request.prefix, request.after), size + 1))
    return native_pb2.NamespacesResponse(namespaces=found[:size], more=len(found) > size)


def _namespaces(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(native_pb2.NamespacesRequest, body)
    response = page_of_namespaces(connection.host.registry.directory, request)
    connection.reply(MessageType.NAMESPACES, request_id, response.SerializeToString())


HANDLERS: dict[int, Handler] = {MessageType.NAMESPACES: _namespaces}
