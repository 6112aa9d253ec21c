"""The audit on the native port: what is written down of requests, and reading it.

Written down is what operators change and what is refused; what clients do with instances of
their own is not. A node's own sessions are left out: who they act for is written down where that
was asked.
"""

from __future__ import annotations

from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.errors import SsGovernError
from ssgovern.registry.sessions import Session
from ssgovern.service.access import INTERNAL
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

WAY = "native"


def note(
    connection: NativeConnection,
    action: str,
    target: str = "",
    *,
    error: SsGovernError | None = None,
    detail: str = "",
) -> None:
    """Write down what a client asked for, unless it is a node itself."""
    principal = connection.principal
    if principal is None or principal.credential != INTERNAL:
        connection.host.audit.note(
            principal, connection.peer, WAY, action, target, error=error, detail=detail
        )


def name_of(type_: int) -> str:
    """Return what a request is called in the audit."""
    try:
        return MessageType(type_).name.lower()
    except ValueError:
        return f"type {type_}"


def _audit(connection: NativeConnection, _session: Session, request_id: int, body: bytes) -> None:
    request = decode(native_pb2.AuditRequest, body)
    response = connection.host.audit.page(request)
    connection.reply(MessageType.AUDIT, request_id, response.SerializeToString())


def _noting(handler: Handler, type_: MessageType) -> Handler:
    """Return a handler of changes that writes down those of an operator."""

    def answer(
        connection: NativeConnection, session: Session, request_id: int, body: bytes
    ) -> None:
        handler(connection, session, request_id, body)
        request: native_pb2.UpdateRequest | native_pb2.DeregisterRequest
        if type_ is MessageType.UPDATE:
            request = decode(native_pb2.UpdateRequest, body)
        else:
            request = decode(native_pb2.DeregisterRequest, body)
        operators = request.any_owner
        detail = ""
        if isinstance(request, native_pb2.UpdateRequest):
            operators = operators or request.change.HasField("out_of_service")
            detail = str(request.change).replace("\n", " ").strip()
        if operators:
            key = request.service
            target = f"{key.namespace}/{key.group}/{key.service}/{request.instance_id}"
            note(connection, name_of(type_), target, detail=detail)

    return answer


def noting(handlers: dict[int, Handler]) -> dict[int, Handler]:
    """Return handlers of which those that change instances write down what operators do."""
    return {
        **handlers,
        **{
            int(type_): _noting(handlers[type_], type_)
            for type_ in (MessageType.UPDATE, MessageType.DEREGISTER)
        },
    }


HANDLERS: dict[int, Handler] = {MessageType.AUDIT: _audit}
