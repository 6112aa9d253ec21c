"""What the native protocol asks of access control, and what it asks about it.

Says for each type of request which right it takes; `service.access` knows who has it. While
access is not controlled nothing of this is on the way of a request: the server then answers by
its plain table of handlers. Invariant: a type that is not named in `GUARDS` takes the right to
everything, so that a new one is never open by oversight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ssgovern.api.native import audit
from ssgovern.api.native.connection import Handler, NativeConnection
from ssgovern.controller.access_codec import state_to_show
from ssgovern.errors import PermissionDeniedError, SsGovernError, UnauthenticatedError
from ssgovern.model import Pattern, ServiceKey
from ssgovern.registry.sessions import Session
from ssgovern.registry.subscriptions import MaskedPattern, Target
from ssgovern.service import checks
from ssgovern.service.access import Access, Action, Principal
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, model_pb2, native_pb2

Guard = Callable[[Access, Principal | None, bytes], None]
"""Raises PermissionDeniedError or UnauthenticatedError, or what is wrong with the request."""


def guarded(handlers: Mapping[int, Handler]) -> dict[int, Handler]:
    """Return handlers that answer who has the right to ask, and refuse others."""
    return {
        type_: _guarded(type_, handler, GUARDS.get(type_, _unnamed))
        for type_, handler in handlers.items()
    }


def _guarded(type_: int, handler: Handler, guard: Guard) -> Handler:
    def answer(
        connection: NativeConnection, session: Session, request_id: int, body: bytes
    ) -> None:
        try:
            guard(connection.host.access, connection.principal, body)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            audit.note(connection, audit.name_of(type_), error=error)
            raise
        handler(connection, session, request_id, body)

    return answer


# --- what each request takes ------------------------------------------------------------------


def _nothing(_access: Access, _principal: Principal | None, _body: bytes) -> None:
    """Asked about itself, or makes less of what it has."""


def _everywhere(action: Action) -> Guard:
    def guard(access: Access, principal: Principal | None, _body: bytes) -> None:
        access.check_everywhere(principal, action)

    return guard


def _somewhere(action: Action) -> Guard:
    def guard(access: Access, principal: Principal | None, _body: bytes) -> None:
        access.check_somewhere(principal, action)

    return guard


def _any_right(access: Access, principal: Principal | None, _body: bytes) -> None:
    """The shard map: whoever may do anything needs it for that."""
    if principal is None or principal.refusal:
        access.check_everywhere(principal, "read")


def _register(access: Access, principal: Principal | None, body: bytes) -> None:
    if _has_everywhere(principal, "register"):
        return
    for each in decode(native_pb2.RegisterRequest, body).registrations:
        _check(access, principal, "register", each.service)


def _deregister(access: Access, principal: Principal | None, body: bytes) -> None:
    request = decode(native_pb2.DeregisterRequest, body)
    _check(access, principal, "write" if request.any_owner else "register", request.service)


def _update(access: Access, principal: Principal | None, body: bytes) -> None:
    request = decode(native_pb2.UpdateRequest, body)
    operators = request.any_owner or request.change.HasField("out_of_service")
    _check(access, principal, "write" if operators else "register", request.service)


def _get(access: Access, principal: Principal | None, body: bytes) -> None:
    if not _has_everywhere(principal, "read"):
        _check(access, principal, "read", decode(native_pb2.GetRequest, body).service)


def _list_services(access: Access, principal: Principal | None, body: bytes) -> None:
    request = decode(native_pb2.ListServicesRequest, body)
    prefix = request.prefix if request.group else ""
    access.check_prefix(principal, "read", request.namespace, request.group, prefix)


def _subscribe(access: Access, principal: Principal | None, body: bytes) -> None:
    if not _has_everywhere(principal, "read"):
        target, _ = checks.subscription(decode(native_pb2.SubscribeRequest, body))
        check_target(access, principal, target)


def _events(access: Access, principal: Principal | None, body: bytes) -> None:
    request = decode(native_pb2.EventsRequest, body)
    namespace, group, service = request.namespace, request.group, request.service
    if not namespace:
        access.check_everywhere(principal, "read")
    elif group and service:
        access.check(principal, "read", namespace, group, service)
    else:
        access.check_prefix(principal, "read", namespace, group, "")


def _subscribers(access: Access, principal: Principal | None, body: bytes) -> None:
    _check(access, principal, "read", decode(applied_pb2.SubscribersRequest, body).service)


def _await_applied(access: Access, principal: Principal | None, body: bytes) -> None:
    _check(access, principal, "read", decode(applied_pb2.AwaitAppliedRequest, body).service)


def _check(
    access: Access, principal: Principal | None, action: Action, key: model_pb2.ServiceKey
) -> None:
    access.check(principal, action, key.namespace, key.group, key.service)


def check_target(access: Access, principal: Principal | None, target: Target) -> None:
    """Raise unless somebody may follow a service, or all of a pattern."""
    if isinstance(target, ServiceKey):
        access.check(principal, "read", *target)
        return
    pattern: Pattern = target.pattern if isinstance(target, MaskedPattern) else target
    access.check_prefix(principal, "read", pattern.namespace, pattern.group, pattern.prefix)


def _has_everywhere(principal: Principal | None, action: Action) -> bool:
    return principal is not None and not principal.refusal and action in principal.everywhere


_unnamed = _everywhere("admin")
GUARDS: dict[int, Guard] = {
    MessageType.GOODBYE: _nothing,
    MessageType.UNSUBSCRIBE: _nothing,
    MessageType.SHARD_MAP: _any_right,
    MessageType.STATUS: _somewhere("read"),
    MessageType.CLUSTER_STATUS: _somewhere("read"),
    MessageType.REGISTER: _register,
    MessageType.DEREGISTER: _deregister,
    MessageType.UPDATE: _update,
    MessageType.CLAIM: _somewhere("register"),
    MessageType.GET: _get,
    MessageType.LIST_SERVICES: _list_services,
    MessageType.NAMESPACES: _everywhere("read"),
    MessageType.RENEW: _somewhere("register"),
    MessageType.SUBSCRIBE: _subscribe,
    MessageType.SUBSCRIBERS: _subscribers,
    MessageType.AWAIT_APPLIED: _await_applied,
    MessageType.READ_SHARD: _everywhere("read"),
    MessageType.SESSIONS: _everywhere("read"),
    MessageType.EVENTS: _events,
    MessageType.CLUSTER_COMMAND: _everywhere("admin"),
    MessageType.ACCESS: _everywhere("admin"),
    MessageType.AUDIT: _everywhere("admin"),
}


# --- who is connected while rights change -------------------------------------------------------


def look_again(
    access: Access, connections: Iterable[NativeConnection], changed: Sequence[Principal]
) -> None:
    """Send away who is nobody any more, or follows what it may not follow any more.

    Who connected while access was not controlled shows now what it showed then.
    """
    others = dict.fromkeys(changed)
    for connection in connections:
        session = connection.session
        if session is None:
            continue
        principal = connection.principal
        try:
            if principal is None:
                connection.principal = access.authenticate(connection.token, session.id)
            elif principal not in others:
                continue
            elif principal.refusal:
                raise UnauthenticatedError(principal.refusal)
            elif connection.forward:
                # What it follows is spread over other nodes: it says all of it again.
                raise PermissionDeniedError(f"the rights of {principal.name} changed")
            for target in connection.subscriptions.values():
                check_target(access, connection.principal, target)
        except SsGovernError as error:
            connection.refuse(error)


# --- requests about access ----------------------------------------------------------------------


def _access(connection: NativeConnection, _session: Session, request_id: int, body: bytes) -> None:
    request = decode(native_pb2.AccessRequest, body)
    access = connection.host.access
    if request.WhichOneof("command") == "question":
        response = native_pb2.AccessResponse(
            state=state_to_show(access.state),
            principal="" if connection.principal is None else connection.principal.name,
            enforced=access.enforced,
        )
        connection.reply(MessageType.ACCESS, request_id, response.SerializeToString())
        return
    connection.take_slot()
    connection.host.administer(connection, request_id, request)
    connection.in_flight += 1


HANDLERS: dict[int, Handler] = {MessageType.ACCESS: _access}
