"""What subscribers say they have applied, and who asks about it.

Translates and decides nothing: `service.applied` does. Every node answers for those who are
connected to it, wherever their lists come from; who wants to know of all of them asks all nodes.
"""

from __future__ import annotations

from ssgovern import limits
from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import LogPosition
from ssgovern.registry.sessions import Session
from ssgovern.service import checks
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2


def _subscribers(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(applied_pb2.SubscribersRequest, body)
    key = checks.service_key(request.service)
    most = limits.SUBSCRIBERS_PAGE_MAX
    host = connection.host
    response = host.push.applied.page(
        key, request.after, min(request.page_size or most, most), host.now_ms() / 1000.0
    )
    connection.reply(MessageType.SUBSCRIBERS, request_id, response.SerializeToString())


def _await_applied(
    connection: NativeConnection, _session: Session, request_id: int, body: bytes
) -> None:
    request = decode(applied_pb2.AwaitAppliedRequest, body)
    key = checks.service_key(request.service)
    if not request.epoch:
        raise InvalidArgumentError("a position has an epoch, and it is not 0", field="epoch")
    connection.take_slot()
    timeout_ms = min(request.timeout_ms, limits.AWAIT_APPLIED_MS_MAX)

    def answer(response: applied_pb2.AwaitAppliedResponse) -> None:
        connection.in_flight -= 1
        connection.reply(MessageType.AWAIT_APPLIED, request_id, response.SerializeToString())
        connection.flush()

    host = connection.host
    host.push.applied.wait(
        key,
        LogPosition(request.epoch, request.revision),
        (host.now_ms() + timeout_ms) / 1000.0,
        answer,
    )
    connection.in_flight += 1


HANDLERS: dict[int, Handler] = {
    MessageType.SUBSCRIBERS: _subscribers,
    MessageType.AWAIT_APPLIED: _await_applied,
}
