"""What people are told of sessions and of what happened, put together from many nodes.

Pure. Every node that holds a shard tells what it applied there, so most is heard several times;
what was heard before is known by its position. Invariants: nothing is told twice, and what
happened in one shard is told in its order; a session is one, however many nodes know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter

from ssgovern.model import LogPosition, NodeId, ServiceKey
from ssgovern.wire.codec import key_from_wire
from ssgovern.wire.pb import native_pb2


class EventKind(StrEnum):
    """What happened."""

    REGISTERED = "registered"
    REPLACED = "replaced"
    DEREGISTERED = "deregistered"
    UPDATED = "updated"
    EXPIRED = "expired"
    LEFT = "left"
    UNHEALTHY = "unhealthy"
    OUT_OF_SERVICE = "out_of_service"
    IN_SERVICE = "in_service"
    CLUSTER = "cluster"
    MISSED = "missed"
    """Something happened that no node remembers any more, or that is not known here."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of an instance, before and after; long values are cut."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `time_ms`: since 1970, by the clock of who decided it; 0: unknown.

    Of an instance: `key`, `instance_id`, where it is and who asked for it (`session_id`). Of the
    cluster: `reason`, one sentence; `position.revision` is then the index of the metadata log.
    """

    kind: EventKind
    time_ms: int
    position: LogPosition
    shard: int = 0
    key: ServiceKey | None = None
    instance_id: str = ""
    address: str = ""
    session_id: str = ""
    changes: tuple[FieldChange, ...] = ()
    reason: str = ""

    @property
    def is_cluster(self) -> bool:
        """Whether it is about nodes and shards, and not about an instance."""
        return self.kind is EventKind.CLUSTER


@dataclass(frozen=True, slots=True)
class EventPage:
    """The newest events, oldest first, and which nodes did not answer, and why."""

    events: tuple[Event, ...]
    failed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionAtNode:
    """What one node knows of a session. Times are ages; `closed_ms` 0: not closed."""

    node_id: int
    client_name: str
    address: str
    connected: bool
    connected_ms: int
    heard_ms: int
    closed_ms: int
    shards: int
    instances: int
    subscriptions: int
    is_protected: bool


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A session, as all nodes together know it."""

    session_id: str
    lease: bool
    ttl_ms: int
    nodes: tuple[SessionAtNode, ...]

    @property
    def client_name(self) -> str:
        """What the client calls itself; empty while it is connected nowhere."""
        return next((each.client_name for each in self.nodes if each.client_name), "")

    @property
    def address(self) -> str:
        """Where it connects from."""
        return next((each.address for each in self.nodes if each.address), "")

    @property
    def connected(self) -> bool:
        """Whether it is connected to any node."""
        return any(each.connected for each in self.nodes)

    @property
    def connected_ms(self) -> int:
        """For how long it has been."""
        return max(each.connected_ms for each in self.nodes)

    @property
    def heard_ms(self) -> int:
        """How long ago any node heard it last."""
        return min(each.heard_ms for each in self.nodes)

    @property
    def instances(self) -> int:
        """Instances it owns."""
        return sum(each.instances for each in self.nodes)

    @property
    def subscriptions(self) -> int:
        """Subscriptions it has, each counted at every node that serves a part of it."""
        return sum(each.subscriptions for each in self.nodes)

    @property
    def is_protected(self) -> bool:
        """Whether it would have expired and is held back."""
        return any(each.is_protected for each in self.nodes)


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions in the order of their ids; `next_after` empty: these were the last.

    `total` counts what nodes know, so a session that several know counts several times.
    """

    sessions: tuple[SessionStatus, ...]
    next_after: str
    total: int
    failed: tuple[tuple[int, str], ...] = ()


# --- events -------------------------------------------------------------------------------


_KINDS = {
    number: EventKind(name.removeprefix("EVENT_").lower())
    for name, number in native_pb2.EventKind.items()
    if number
}


def event_of(said: native_pb2.Event) -> Event:
    """Return an event as it came."""
    return Event(
        _KINDS.get(said.kind, EventKind.MISSED),
        said.time_ms,
        LogPosition(said.epoch, said.revision),
        said.shard,
        key_from_wire(said.service) if said.HasField("service") else None,
        said.instance_id,
        said.address,
        said.session_id.hex(),
        tuple(FieldChange(each.name, each.before, each.after) for each in said.changes),
        said.reason,
    )


class Heard:
    """What was heard already: the newest position of each shard and what was told at it."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, dict[tuple[object, ...], None]]] = {}

    def take(self, event: Event) -> bool:
        """Return whether an event is news. One node's events come in the order of each shard."""
        place = -1 if event.is_cluster else event.shard
        # An entry may be several events: the end of a session, a decision about many shards.
        which = (event.reason,) if event.is_cluster else (event.key, event.instance_id)
        revision, told = self._places.get(place, (-1, {}))
        if event.position.revision < revision:
            return False
        if event.position.revision > revision:
            self._places[place] = event.position.revision, {which: None}
            return True
        if which in told:
            return False
        told[which] = None
        return True


def merged(answers: Iterable[Sequence[Event]]) -> list[Event]:
    """Return what several nodes told of one past, each event once, by time."""
    found: dict[tuple[object, ...], Event] = {}
    for events in answers:
        for event in events:
            name = event.reason if event.is_cluster else event.instance_id
            identity = event.is_cluster, event.shard, event.position.revision, event.key, name
            found.setdefault(identity, event)
    return in_order(found.values())


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return events by time, those of one shard in its order whatever its primaries' clocks."""
    by_place = sorted(events, key=attrgetter("is_cluster", "shard", "position.revision"))
    latest: dict[tuple[bool, int], int] = {}
    placed: list[tuple[int, Event]] = []
    for event in by_place:
        place = event.is_cluster, event.shard
        latest[place] = max(event.time_ms, latest.get(place, 0))
        placed.append((latest[place], event))
    placed.sort(key=lambda each: each[0])
    return [event for _, event in placed]


# --- sessions -----------------------------------------------------------------------------


def merged_sessions(answers: Sequence[native_pb2.SessionsResponse], limit: int) -> SessionPage:
    """Return a page from the pages of several nodes that begin at the same place.

    It ends where the first of them that goes on ends: behind it something may be missing.
    """
    ends = [answer.next_after for answer in answers if answer.next_after]
    end = min(ends, default=b"")
    found: dict[bytes, SessionStatus] = {}
    for answer in answers:
        for each in answer.sessions:
            if end and each.session_id > end:
                continue
            at_node = _session_at(NodeId(answer.node_id), each)
            known = found.get(each.session_id)
            if known is None:
                found[each.session_id] = SessionStatus(
                    each.session_id.hex(), each.lease, each.ttl_ms, (at_node,)
                )
            else:
                found[each.session_id] = replace(known, nodes=(*known.nodes, at_node))
    ids = sorted(found)
    if len(ids) > limit:
        ids = ids[:limit]
        end = ids[-1]
    return SessionPage(
        tuple(found[session_id] for session_id in ids),
        end.hex(),
        sum(answer.total for answer in answers),
    )


def _session_at(node: NodeId, each: native_pb2.SessionSummary) -> SessionAtNode:
    return SessionAtNode(
        node,
        each.client_name,
        each.address,
        each.connected,
        each.connected_ms,
        each.heard_ms,
        each.closed_ms,
        each.shards,
        each.instances,
        each.subscriptions,
        each.is_protected,
    )
