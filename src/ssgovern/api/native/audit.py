"""The audit on the native port: what is written down of requests, and reading it.

Written down is what operators change, when it is committed, with what it was before, and what is
refused; what clients do with instances of their own is not. A node's own sessions are left out:
who they act for is written down where that was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssgovern.api.native import replies
from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.errors import ShardMovedError, ShardUnavailableError, SsGovernError
from ssgovern.model import LogPosition, Outcome
from ssgovern.registry.sessions import Session
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.service.access import INTERNAL
from ssgovern.service.audit import Changed
from ssgovern.service.events import change_at
from ssgovern.wire.codec import decode, key_from_wire
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
    changes: Sequence[Changed] = (),
) -> None:
    """Write down what a client asked for, unless it is a node itself."""
    principal = connection.principal
    if principal is None or principal.credential != INTERNAL:
        connection.host.audit.note(
            principal,
            connection.peer,
            WAY,
            action,
            target,
            error=error,
            detail=detail,
            changes=changes,
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


_Change = native_pb2.UpdateRequest | native_pb2.DeregisterRequest
_ELSEWHERE = (ShardMovedError, ShardUnavailableError)


class _Noted:
    """Answers a change of an operator, and writes down what came of it."""

    __slots__ = ("_answer", "_connection", "_request")

    def __init__(self, connection: NativeConnection, request: _Change, answer: Waiter) -> None:
        self._connection = connection
        self._request = request
        self._answer = answer

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self._answer.on_outcome(proposal, outcome)
        request = self._request
        if outcome.error is not None:
            _note_change(self._connection, request, error=outcome.error, detail=_asked(request))
            return
        changes = change_at(
            self._connection.host.registry.events,
            LogPosition(proposal.epoch, proposal.revision),
            key_from_wire(request.service),
            request.instance_id,
        )
        _note_change(self._connection, request, changes=changes)


def _asked(request: _Change) -> str:
    if isinstance(request, native_pb2.DeregisterRequest):
        return ""
    return str(request.change).replace("\n", " ").strip()


def _note_change(
    connection: NativeConnection,
    request: _Change,
    *,
    error: SsGovernError | None = None,
    detail: str = "",
    changes: Sequence[Changed] = (),
) -> None:
    key = request.service
    is_update = isinstance(request, native_pb2.UpdateRequest)
    note(
        connection,
        "update" if is_update else "deregister",
        f"{key.namespace}/{key.group}/{key.service}/{request.instance_id}",
        error=error,
        detail=detail,
        changes=changes,
    )


def _noting(handler: Handler, type_: MessageType) -> Handler:
    """Return a handler of changes that writes down those of an operator."""

    def answer(
        connection: NativeConnection, session: Session, request_id: int, body: bytes
    ) -> None:
        request: _Change
        if type_ is MessageType.UPDATE:
            request = decode(native_pb2.UpdateRequest, body)
            operators = request.any_owner or request.change.HasField("out_of_service")
        else:
            request = decode(native_pb2.DeregisterRequest, body)
            operators = request.any_owner
        if not operators:
            handler(connection, session, request_id, body)
        elif connection.forward:
            _pass_on(connection, session, request_id, body, request)
        else:
            _propose(connection, session, request_id, request)

    def _pass_on(
        connection: NativeConnection,
        session: Session,
        request_id: int,
        body: bytes,
        request: _Change,
    ) -> None:
        # Another node may carry it out, and only the client is told what came of it.
        detail = f"asked for, by way of this node: {_asked(request)}".rstrip(": ")
        try:
            handler(connection, session, request_id, body)
        except _ELSEWHERE:
            _note_change(connection, request, detail=detail)
            raise
        _note_change(connection, request, detail=detail)

    return answer


def _propose(
    connection: NativeConnection, session: Session, request_id: int, request: _Change
) -> None:
    connection.take_slot()
    registry = connection.host.registry
    if isinstance(request, native_pb2.UpdateRequest):
        updated = _Noted(connection, request, replies.UpdateReply(connection, request_id))
        registry.update(session, request, updated)
    else:
        removed = _Noted(connection, request, replies.DeregisterReply(connection, request_id))
        registry.deregister(session, request, removed)
    connection.in_flight += 1


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
