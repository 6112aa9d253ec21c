"""What a client asks for people who look on: sessions, and what happened lately.

Every node answers for itself, so all are asked; what each said is put together by `observed`.
Invariant: a node that does not answer is named with what the others said; only if none answers
is it an error.
"""

from __future__ import annotations

from collections.abc import Callable

from ssgovern import limits
from ssgovern.client.asking import ask_all
from ssgovern.client.event_feed import EventFeed
from ssgovern.client.observed import EventPage, SessionPage, event_of, merged, merged_sessions
from ssgovern.client.session import Session
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import check_name, check_text
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


class Observing:
    """The part of `Registry` that is for looking on."""

    namespace: str
    _session: Session
    _deadline: Callable[[float | None], float]

    async def sessions(
        self,
        *,
        id_prefix: str = "",
        client_name: str = "",
        after: str = "",
        limit: int = limits.SESSIONS_PAGE_MAX,
        timeout: float | None = None,
    ) -> SessionPage:
        """Return a page of the sessions that nodes know, of clients and of leases.

        `client_name`: of clients whose name has this in it. `after`: the `next_after` of the
        page before. Ids are in hexadecimal. A page may have fewer than `limit` and not be the
        last.
        """
        check_text("client_name", client_name, limits.CLIENT_NAME_BYTES_MAX)
        if not 1 <= limit <= limits.SESSIONS_PAGE_MAX:
            raise InvalidArgumentError(
                f"limit {limit}: allowed are 1 to {limits.SESSIONS_PAGE_MAX}", field="limit"
            )
        request = native_pb2.SessionsRequest(
            id_prefix=_id_bytes("id_prefix", id_prefix),
            client_name=client_name,
            after=_id_bytes("after", after),
            page_size=limit,
        )
        answers, failed = await ask_all(
            self._session,
            MessageType.SESSIONS,
            request,
            native_pb2.SessionsResponse,
            self._deadline(timeout),
        )
        page = merged_sessions(answers, limit)
        return SessionPage(page.sessions, page.next_after, page.total, failed)

    async def events(
        self,
        service: str = "",
        *,
        group: str = "",
        all_namespaces: bool = False,
        cluster: bool = False,
        limit: int = 100,
        timeout: float | None = None,
    ) -> EventPage:
        """Return the newest events that nodes remember, oldest first.

        Of a service, a group, or the namespace; with `cluster` also what was decided about
        nodes and shards. Nodes remember the last 10,000 changes or so, since their start.
        """
        request = self._events_request(service, group, all_namespaces, cluster)
        if not 1 <= limit <= limits.EVENTS_PAGE_MAX:
            raise InvalidArgumentError(
                f"limit {limit}: allowed are 1 to {limits.EVENTS_PAGE_MAX}", field="limit"
            )
        request.newest = True
        request.limit = limit
        answers, failed = await ask_all(
            self._session,
            MessageType.EVENTS,
            request,
            native_pb2.EventsResponse,
            self._deadline(timeout),
        )
        found = merged([event_of(said) for said in answer.events] for answer in answers)
        return EventPage(tuple(found[-limit:]), failed)

    def follow_events(
        self,
        service: str = "",
        *,
        group: str = "",
        all_namespaces: bool = False,
        cluster: bool = False,
        limit: int = 0,
    ) -> EventFeed:
        """Follow what happens: `async with` it and iterate. Begins with the newest `limit`."""
        request = self._events_request(service, group, all_namespaces, cluster)
        if not 0 <= limit <= limits.EVENTS_PAGE_MAX:
            raise InvalidArgumentError(
                f"limit {limit}: allowed are 0 to {limits.EVENTS_PAGE_MAX}", field="limit"
            )
        self._session.check_started()
        return EventFeed(self._session, request, limit)

    def _events_request(
        self, service: str, group: str, all_namespaces: bool, cluster: bool
    ) -> native_pb2.EventsRequest:
        for field, name in (("service", service), ("group", group)):
            if name:
                check_name(field, name)
        if all_namespaces and (service or group):
            raise InvalidArgumentError("a service is in one namespace", field="all_namespaces")
        return native_pb2.EventsRequest(
            namespace="" if all_namespaces else self.namespace,
            group=group,
            service=service,
            cluster=cluster,
        )


def _id_bytes(field: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidArgumentError(
            f"{field} {text!r}: ids are hexadecimal, two digits a byte", field=field
        ) from None
