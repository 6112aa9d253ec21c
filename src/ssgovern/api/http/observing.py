"""Looking on over HTTP: sessions, what happened lately, and the audit, of all nodes together.

Asks through the node's own client, which merges what nodes say; here it becomes documents.
Knows no sockets. Invariant: a node that did not answer is named, so that nobody takes a part
for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ssgovern import limits
from ssgovern.api.http import asks, bodies
from ssgovern.api.http.answers import Answer, Stream
from ssgovern.api.http.asked import EVENTS_MEDIA_TYPE, Asked
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.watching import BEAT, event_bytes, failure
from ssgovern.client.observed import Event, SessionStatus
from ssgovern.errors import InvalidArgumentError, SsGovernError
from ssgovern.wire.pb import native_pb2

_LOOK_S = limits.HTTP_WATCH_LOOK_MS / 1000.0
_BEAT_S = limits.HTTP_STREAM_BEAT_MS / 1000.0


async def sessions(desk: Desk, asked: Asked) -> Answer:
    """Return a page of the sessions that nodes know."""
    query = asked.query
    assert isinstance(query, asks.SessionsQuery), "the operation says what is asked"
    registry = await desk.backend.gateway.registry()
    page = await registry.sessions(
        id_prefix=query.id_prefix,
        client_name=query.client_name,
        after=query.page_token,
        limit=query.page_size,
    )
    return Answer(
        bodies.SessionPage(
            sessions=[_session(each) for each in page.sessions],
            total=page.total,
            next_page_token=page.next_after or None,
            failed_nodes=_failed(page.failed),
        )
    )


def _failed(failed: tuple[tuple[int, str], ...]) -> list[bodies.FailedNode]:
    return [bodies.FailedNode(node_id=node, detail=detail) for node, detail in failed]


def _session(each: SessionStatus) -> bodies.Session:
    return bodies.Session(
        id=each.session_id,
        client_name=each.client_name,
        address=each.address,
        connected=each.connected,
        connected_ms=each.connected_ms,
        heard_ms=each.heard_ms,
        lease=each.lease,
        ttl_ms=each.ttl_ms,
        instances=each.instances,
        subscriptions=each.subscriptions,
        protected=any(node.is_protected for node in each.nodes),
        nodes=[node.node_id for node in each.nodes],
    )


# --- events -------------------------------------------------------------------------------


async def events(desk: Desk, asked: Asked) -> Answer | Stream:
    """Return the newest events, or a stream that begins with them."""
    query = asked.query
    assert isinstance(query, asks.EventsQuery), "the operation says what is asked"
    if (query.group or query.service) and not query.namespace:
        raise InvalidArgumentError("a group or a service is in a namespace", field="namespace")
    if EVENTS_MEDIA_TYPE in asked.headers.get("accept", ""):
        desk.watches.check_room()
        wakeup = asyncio.Event()
        return Stream(_followed(desk, asked, query, wakeup), wakeup.set)
    registry = await desk.backend.gateway.registry(query.namespace)
    page = await registry.events(
        query.service,
        group=query.group,
        all_namespaces=not query.namespace,
        cluster=query.cluster,
        limit=query.limit,
    )
    return Answer(
        bodies.EventPage(
            events=[_event(each) for each in page.events], failed_nodes=_failed(page.failed)
        )
    )


async def _followed(
    desk: Desk, asked: Asked, query: asks.EventsQuery, wakeup: asyncio.Event
) -> AsyncGenerator[bytes]:
    """Yield events as they happen, and a comment now and then."""
    with desk.watches.one_more(wakeup):
        try:
            registry = await desk.backend.gateway.registry(query.namespace)
            feed = registry.follow_events(
                query.service,
                group=query.group,
                all_namespaces=not query.namespace,
                cluster=query.cluster,
                limit=query.limit,
            )
            async with feed:
                quiet_s = _BEAT_S
                while not (desk.watches.stopping or wakeup.is_set()):
                    asked.give_time(limits.HTTP_REQUEST_MS)
                    try:
                        async with asyncio.timeout(_LOOK_S):
                            found = await feed.next_event()
                    except TimeoutError:
                        quiet_s += _LOOK_S
                        if quiet_s >= _BEAT_S:
                            quiet_s = 0.0
                            yield BEAT
                        continue
                    quiet_s = 0.0
                    yield event_bytes("event", _event(found).model_dump())
        except SsGovernError as error:
            yield failure(error)


def _event(each: Event) -> bodies.Event:
    key = each.key
    return bodies.Event(
        kind=each.kind.value,
        time_ms=each.time_ms,
        namespace="" if key is None else key.namespace,
        group="" if key is None else key.group,
        service="" if key is None else key.service,
        instance_id=each.instance_id,
        address=each.address,
        shard=each.shard,
        epoch=each.position.epoch,
        revision=each.position.revision,
        session_id=each.session_id,
        changes=[
            bodies.FieldChange(name=field.name, before=field.before, after=field.after)
            for field in each.changes
        ],
        reason=each.reason,
    )


# --- the audit ----------------------------------------------------------------------------


async def audit(desk: Desk, asked: Asked) -> Answer:
    """Return a page of what nodes wrote down of changes and refusals."""
    query = asked.query
    assert isinstance(query, asks.AuditQuery), "the operation says what is asked"
    page = await desk.backend.gateway.audit(query.who, query.page_token, query.page_size)
    return Answer(
        bodies.AuditPage(
            entries=[_entry(each) for each in page.entries],
            next_page_token=page.next_after or None,
            failed_nodes=_failed(page.failed),
        )
    )


def _entry(each: native_pb2.AuditEntry) -> bodies.AuditEntry:
    return bodies.AuditEntry(
        node_id=each.node_id,
        number=each.number,
        time_ms=each.time_ms,
        who=each.who,
        origin=each.origin,
        way=each.way,
        action=each.action,
        target=each.target,
        outcome=each.outcome,
        detail=each.detail,
        changes=[
            bodies.FieldChange(name=field.name, before=field.before, after=field.after)
            for field in each.changes
        ],
    )
