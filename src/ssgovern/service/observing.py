"""The sessions of one node, page by page, for people.

Pages follow the order of ids, which is made once for many pages: sorting 100,000 ids for each
would stop the loop. So a session that came within the last moments may be missing from a listing;
none is listed twice. Knows a connection only as something with a name and an address.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import NodeId, SessionId, check_text
from ssgovern.model.session import SESSION_ID_BYTES
from ssgovern.registry.sessions import Connection, Session, shards_of
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import native_pb2


class Speaker(NamedTuple):
    """What is shown of the connection that speaks for a session."""

    client_name: str
    address: str
    subscriptions: int


class SessionReads:
    """Answers which sessions a node knows."""

    def __init__(
        self,
        registry: RegistryService,
        node_id: NodeId,
        speaker_of: Callable[[Connection], Speaker],
    ) -> None:
        self._registry = registry
        self._speaker_of = speaker_of
        self._node_id = node_id
        self._order: list[SessionId] = []
        self._ordered_at_ms = -math.inf

    def read(
        self, request: native_pb2.SessionsRequest, now_ms: float
    ) -> native_pb2.SessionsResponse:
        """Return a page. Raises InvalidArgumentError for what is no prefix of an id."""
        prefix = request.id_prefix
        if max(len(prefix), len(request.after)) > SESSION_ID_BYTES:
            raise InvalidArgumentError(
                f"a session id has {SESSION_ID_BYTES} bytes", field="id_prefix"
            )
        check_text("client_name", request.client_name, limits.CLIENT_NAME_BYTES_MAX)
        wanted = request.client_name.casefold()
        size = min(request.page_size or limits.SESSIONS_PAGE_MAX, limits.SESSIONS_PAGE_MAX)
        table = self._registry.sessions
        response = native_pb2.SessionsResponse(node_id=self._node_id, total=len(table))
        order = self._ordered(now_ms)
        first = bisect_left(order, prefix)
        if request.after:
            first = max(first, bisect_right(order, request.after))
        for place in range(first, len(order)):
            session_id = order[place]
            if not session_id.startswith(prefix):
                break
            if len(response.sessions) == size or place - first == limits.SESSIONS_SCAN_MAX:
                response.next_after = order[place - 1]
                break
            session = table.find(session_id)
            if session is None:
                continue
            connection = session.connection
            speaker = None if connection is None else self._speaker_of(connection)
            if wanted and (speaker is None or wanted not in speaker.client_name.casefold()):
                continue
            self._summarize(session, speaker, now_ms, response.sessions.add())
        return response

    def _ordered(self, now_ms: float) -> list[SessionId]:
        if now_ms - self._ordered_at_ms >= limits.SESSIONS_ORDER_MS:
            self._order = sorted(self._registry.sessions.ids())
            self._ordered_at_ms = now_ms
        return self._order

    def _summarize(
        self,
        session: Session,
        speaker: Speaker | None,
        now_ms: float,
        summary: native_pb2.SessionSummary,
    ) -> None:
        table = self._registry.sessions
        summary.session_id = session.id
        summary.heard_ms = int(table.age_ms(session.last_heard_ms, now_ms))
        summary.shards = session.shards.bit_count()
        summary.instances = sum(
            len(self._registry.state_at(shard).owned.get(session.id, ()))
            for shard in shards_of(session.shards)
        )
        summary.is_protected = session.held_since_ms is not None
        summary.lease = session.is_lease
        summary.ttl_ms = int(session.ttl_ms)
        if session.closed_at_ms is not None:
            summary.closed_ms = int(table.age_ms(session.closed_at_ms, now_ms))
        if speaker is not None:
            summary.connected = True
            summary.client_name = speaker.client_name
            summary.address = speaker.address
            summary.subscriptions = speaker.subscriptions
            summary.connected_ms = int(table.age_ms(session.attached_at_ms, now_ms))
