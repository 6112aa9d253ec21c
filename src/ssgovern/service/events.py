"""What happened lately, for people: pages of a node's recent events, put into words.

Says what a reference to a before and an after means only when somebody reads it. Every holder of
a shard answers for what it applied, replicas too, and whoever asks several nodes drops what was
said before, by position: so what happened right before a primary failed is not lost with it.
Knows no connections and no waiting. Invariants: events come oldest first; whoever goes on behind
`last` misses nothing unless `lost` says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ssgovern import limits
from ssgovern.controller.state import Record, RowsChanged
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import LogPosition, NodeId, ServiceKey, check_name, shard_of
from ssgovern.registry.events import DEREGISTERED, REGISTERED, Event, RecentEvents
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2

_ROW_SENTENCES_MAX = 3
"""Of one entry about rows alone; a node that comes back changes up to all of them."""


class ClusterEvent(NamedTuple):
    """What one entry of the metadata log decided, in words."""

    log_index: int
    time_ms: int
    sentences: tuple[str, ...]


class ClusterEvents:
    """The newest decisions about the cluster, as this node replayed them."""

    def __init__(self, entries_max: int = limits.CLUSTER_EVENTS_MAX) -> None:
        self._events: deque[ClusterEvent] = deque(maxlen=entries_max)
        self.last_index = 0

    def note(self, index: int, time_ms: int, records: Sequence[Record]) -> None:
        """Take in an entry of the metadata log; they come in order."""
        self.last_index = index
        if sentences := tuple(_sentences(records)):
            self._events.append(ClusterEvent(index, time_ms, sentences))

    def after(self, index: int, most: int) -> list[ClusterEvent]:
        """Return the oldest behind an index."""
        return list(islice((each for each in self._events if each.log_index > index), most))

    def newest(self, most: int) -> list[ClusterEvent]:
        """Return the newest, oldest first."""
        return list(islice(reversed(self._events), most))[::-1]


class EventReads:
    """Answers what happened on one node in this life of it."""

    def __init__(self, recent: RecentEvents, life: bytes, node_id: NodeId) -> None:
        self._recent = recent
        self._life = life
        self._node_id = node_id
        self.cluster = ClusterEvents()

    def read(self, request: native_pb2.EventsRequest) -> native_pb2.EventsResponse:
        """Return a page. Raises InvalidArgumentError for names that cannot be."""
        for field in ("namespace", "group", "service"):
            if name := getattr(request, field):
                check_name(field, name)
        if request.service and not request.namespace:
            raise InvalidArgumentError("a service is in a namespace", field="namespace")
        most = min(request.limit or limits.EVENTS_PAGE_MAX, limits.EVENTS_PAGE_MAX)
        response = native_pb2.EventsResponse(node_id=self._node_id, life=self._life)
        if request.newest:
            self._newest(request, most, response)
        else:
            self._behind(request, most, response)
        return response

    def goes_on(
        self, request: native_pb2.EventsRequest, answered: native_pb2.EventsResponse
    ) -> None:
        """Let a request that found nothing ask for what is behind."""
        request.newest = False
        request.life = self._life
        request.after = answered.last
        request.after_index = answered.last_index

    def has_news(self, request: native_pb2.EventsRequest) -> bool:
        """Whether anything happened behind what a request that goes on has seen."""
        return self._recent.last > request.after or (
            request.cluster and self.cluster.last_index > request.after_index
        )

    def _newest(
        self,
        request: native_pb2.EventsRequest,
        most: int,
        response: native_pb2.EventsResponse,
    ) -> None:
        found = [event for _, event in islice(_wanted(self._recent.newest(), request), most)]
        response.events.extend(map(_said, reversed(found)))
        response.last = self._recent.last
        if request.cluster:
            _add_cluster(self.cluster.newest(most), response)
        response.last_index = self.cluster.last_index

    def _behind(
        self,
        request: native_pb2.EventsRequest,
        most: int,
        response: native_pb2.EventsResponse,
    ) -> None:
        recent = self._recent
        after = request.after if request.life == self._life else 0
        response.lost = 0 < after < recent.first - 1
        found = list(islice(_wanted(recent.after(after), request), most))
        response.events.extend(_said(event) for _, event in found)
        # Behind the last of a full page there may be more; else everything was looked at.
        response.last = found[-1][0] if len(found) == most else recent.last
        cluster = self.cluster.after(request.after_index, most) if request.cluster else []
        _add_cluster(cluster, response)
        full = len(cluster) == most
        response.last_index = cluster[-1].log_index if full else self.cluster.last_index


def _wanted(
    events: Iterable[tuple[int, Event]], request: native_pb2.EventsRequest
) -> Iterator[tuple[int, Event]]:
    namespace, group, service = request.namespace, request.group, request.service
    if not (namespace or group):
        yield from events
        return
    for number, event in events:
        key = event.entry.service.key
        if (
            (not namespace or key.namespace == namespace)
            and (not group or key.group == group)
            and (not service or key.service == service)
        ):
            yield number, event


def _add_cluster(events: Iterable[ClusterEvent], response: native_pb2.EventsResponse) -> None:
    for event in events:
        for sentence in event.sentences:
            response.events.add(
                kind=native_pb2.EVENT_CLUSTER,
                time_ms=event.time_ms,
                revision=event.log_index,
                reason=sentence,
            )


def _sentences(records: Sequence[Record]) -> Iterator[str]:
    of_rows = 0
    for record in records:
        if isinstance(record.change, RowsChanged):
            of_rows += 1
            if of_rows > _ROW_SENTENCES_MAX:
                continue
        if record.reason:
            yield record.reason[: limits.CLUSTER_EVENT_CHARS_MAX]
    if of_rows > _ROW_SENTENCES_MAX:
        yield f"and {of_rows - _ROW_SENTENCES_MAX} more changes of shards"


def change_at(
    recent: RecentEvents, position: LogPosition, key: ServiceKey, instance_id: str
) -> list[tuple[str, str, str]]:
    """Return what an entry changed of an instance: fields with their values before and after.

    Of one that was removed, where it was. Empty if nothing changed, or it is forgotten.
    """
    for _, event in recent.newest():
        entry = event.entry
        if (event.position, entry.id, entry.service.key) == (position, instance_id, key):
            if event.before is None:
                return []
            before = _decoded(event.before.encoded)
            if event.after is None:
                return [("address", _address(before), "")]
            return list(_cut_differences(before, _decoded(event.after.encoded)))
    return []


# --- words --------------------------------------------------------------------------------


def _said(event: Event) -> native_pb2.Event:
    """Return an event as it is told."""
    before = None if event.before is None else _decoded(event.before.encoded)
    after = None if event.after is None else _decoded(event.after.encoded)
    shown = after or before
    assert shown is not None, "nothing is no event"
    key: ServiceKey = event.entry.service.key
    said = native_pb2.Event(
        kind=_kind(event, before, after),
        time_ms=event.time_ms,
        instance_id=event.entry.id,
        address=_address(shown),
        shard=shard_of(*key),
        epoch=event.position.epoch,
        revision=event.position.revision,
        session_id=event.session_id,
    )
    wire_key = said.service
    wire_key.namespace, wire_key.group, wire_key.service = key
    if before is not None and after is not None:
        for name, was, now in _cut_differences(before, after):
            said.changes.add(name=name, before=was, after=now)
    return said


def _address(shown: model_pb2.Instance) -> str:
    host = f"[{shown.host}]" if ":" in shown.host else shown.host
    return f"{host}:{shown.port}"


def _cut_differences(
    before: model_pb2.Instance, after: model_pb2.Instance
) -> Iterator[tuple[str, str, str]]:
    for name, was, now in islice(_differences(before, after), limits.EVENT_FIELDS_MAX):
        yield name, _cut(was), _cut(now)


def _kind(
    event: Event, before: model_pb2.Instance | None, after: model_pb2.Instance | None
) -> native_pb2.EventKind:
    if after is None:
        if event.cause == DEREGISTERED:
            return native_pb2.EVENT_DEREGISTERED
        expired = event.cause == log_pb2.SESSION_END_EXPIRED
        return native_pb2.EVENT_EXPIRED if expired else native_pb2.EVENT_LEFT
    if before is None:
        return native_pb2.EVENT_REGISTERED
    if event.cause == REGISTERED:
        return native_pb2.EVENT_REPLACED
    if before.out_of_service != after.out_of_service:
        out = after.out_of_service
        return native_pb2.EVENT_OUT_OF_SERVICE if out else native_pb2.EVENT_IN_SERVICE
    if after.unhealthy and not before.unhealthy:
        return native_pb2.EVENT_UNHEALTHY
    return native_pb2.EVENT_UPDATED


_NOT_SAID = frozenset({"id", "revision", "registered_at_ms", "metadata"})
_FIELDS = [
    field.name for field in model_pb2.Instance.DESCRIPTOR.fields if field.name not in _NOT_SAID
]


def _differences(
    before: model_pb2.Instance, after: model_pb2.Instance
) -> Iterator[tuple[str, str, str]]:
    """Yield fields that differ with both values, as people are told them."""
    for name in _FIELDS:
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield name, _shown(name, was), _shown(name, now)
    for key in sorted({*before.metadata, *after.metadata}):
        had, has = before.metadata.get(key), after.metadata.get(key)
        if had != has:
            yield f"metadata.{key}", had or "", has or ""


def _shown(name: str, value: object) -> str:
    if name == "status" and isinstance(value, int):
        return model_pb2.Status.Name(model_pb2.Status.ValueType(value)).removeprefix("STATUS_")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(value: str) -> str:
    most = limits.EVENT_VALUE_CHARS_MAX
    return value if len(value) <= most else f"{value[: most - 1]}…"


def _decoded(encoded: bytes) -> model_pb2.Instance:
    return model_pb2.Instance.FromString(encoded)
