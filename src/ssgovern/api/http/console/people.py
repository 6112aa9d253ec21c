"""Views of the past and of clients: time lines, sessions, subscribers, the audit, rights.

From values to pieces; knows no gateway and no request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from ssgovern import limits
from ssgovern.api.http.console.look import Look, View, add_list, dom_id, service_url
from ssgovern.client.observed import Event, EventKind, EventPage, SessionPage
from ssgovern.client.subscribers import ServiceSubscribers, Subscriber
from ssgovern.errors import SsGovernError
from ssgovern.model import LogPosition
from ssgovern.wire.pb import native_pb2

_BEHIND_S = 2.5
"""What subscribers have applied comes with their heartbeats: a second or two say nothing."""
_MARKS = {
    EventKind.REGISTERED: ("ok", "+"),
    EventKind.REPLACED: ("ok", "↻"),
    EventKind.DEREGISTERED: ("off", "−"),
    EventKind.UPDATED: ("info", "~"),
    EventKind.EXPIRED: ("bad", "✕"),
    EventKind.LEFT: ("off", "−"),
    EventKind.UNHEALTHY: ("bad", "■"),
    EventKind.OUT_OF_SERVICE: ("warn", "○"),
    EventKind.IN_SERVICE: ("ok", "●"),
    EventKind.CLUSTER: ("info", "◆"),
    EventKind.MISSED: ("off", "…"),
}


class Item(NamedTuple):
    """One line of a time line."""

    id: str
    time_ms: int
    mark: tuple[str, str]
    service: str
    service_url: str
    text: str
    detail: str


def timeline(look: Look, id_: str, page: EventPage | SsGovernError, nothing: str) -> str:
    """Return a time line as one piece, newest first."""
    if isinstance(page, SsGovernError):
        return look.piece("timeline", id_, [], page.message)
    items = [item_of(look, event, with_service=id_ != "timeline") for event in page.events]
    return look.piece("timeline", id_, items[::-1], nothing)


def events(look: Look, page: EventPage | SsGovernError) -> View:
    """The page of events."""
    view = View()
    fault = page.message if isinstance(page, SsGovernError) else ""
    items = (
        []
        if isinstance(page, SsGovernError)
        else [item_of(look, event, with_service=True) for event in page.events][::-1]
    )
    view.pieces["events-empty"] = look.piece("emptiness", "events", not items, fault)
    add_list(view, "events", ((each.id, look.piece("event_row", each)) for each in items))
    return view


def item_of(look: Look, event: Event, *, with_service: bool) -> Item:
    """Return an event in words."""
    said = look.say(
        f"event_{event.kind}", id=event.instance_id, address=event.address, reason=event.reason
    )
    key = event.key
    place = "c" if event.is_cluster else str(event.shard)
    return Item(
        id=dom_id(
            "e",
            place,
            str(event.position.epoch),
            str(event.position.revision),
            event.instance_id or event.reason[:60],
        ),
        time_ms=event.time_ms,
        mark=_MARKS[event.kind],
        service=key.service if key is not None and with_service else "",
        service_url=service_url(key) if key is not None and with_service else "",
        text=said,
        detail=_changes(event.changes),
    )


class _Change(Protocol):
    """A field, before and after: of an event or of the audit."""

    @property
    def name(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...


def _changes(changes: Iterable[_Change]) -> str:
    return "; ".join(f"{each.name}: {each.before or '∅'} → {each.after or '∅'}" for each in changes)


# --- sessions -----------------------------------------------------------------------------


def sessions(look: Look, page: SessionPage | SsGovernError, names: dict[int, str]) -> View:
    """The page of sessions."""
    view = View()
    found = () if isinstance(page, SsGovernError) else page.sessions
    fault = page.message if isinstance(page, SsGovernError) else ""
    more = not isinstance(page, SsGovernError) and bool(page.next_after)
    view.pieces["sessions-count"] = look.piece("count_of", len(found), more)
    view.pieces["sessions-empty"] = look.piece("emptiness", "sessions", not found, fault)
    add_list(
        view,
        "sessions",
        (
            (
                dom_id("x", each.session_id),
                look.piece(
                    "session_row",
                    each,
                    [names.get(at.node_id, str(at.node_id)) for at in each.nodes],
                ),
            )
            for each in found
        ),
    )
    return view


# --- subscribers --------------------------------------------------------------------------


class Row(NamedTuple):
    """A subscriber, as it is shown."""

    client: str
    address: str
    node: str
    applied: str
    state: str
    behind_ms: float


def subscribers(
    look: Look, found: ServiceSubscribers | SsGovernError, names: dict[int, str]
) -> str:
    """Return who follows a service, those who are behind first."""
    if isinstance(found, SsGovernError):
        return look.piece("subscribers_fault", found.message)
    rows = [_row(each, found.position, names) for each in found.subscribers]
    order = ("behind", "silent", "current")
    rows.sort(key=lambda row: (order.index(row.state), row.client, row.address))
    most = limits.CONSOLE_PAGE
    return look.piece("subscribers", rows[:most], max(0, len(rows) - most))


def _row(each: Subscriber, newest: LogPosition | None, names: dict[int, str]) -> Row:
    if not each.says:
        state = "silent"
    elif each.behind_s > _BEHIND_S or (each.position is None and newest is not None):
        state = "behind"
    else:
        state = "current"
    return Row(
        each.client_name or each.session_id[:12],
        each.address,
        names.get(each.node_id, str(each.node_id)),
        str(each.position.revision) if each.position is not None else "–",
        state,
        round(each.behind_s) * 1000.0,
    )


# --- the audit, rights --------------------------------------------------------------------


def audit(
    look: Look, found: Sequence[native_pb2.AuditEntry] | SsGovernError, names: dict[int, str]
) -> View:
    """The page of the audit."""
    view = View()
    fault = found.message if isinstance(found, SsGovernError) else ""
    entries = () if isinstance(found, SsGovernError) else found
    view.pieces["audit-empty"] = look.piece("emptiness", "audit", not entries, fault)
    add_list(
        view,
        "audit",
        (
            (
                dom_id("a", str(each.node_id), str(each.number)),
                look.piece(
                    "audit_row",
                    each,
                    names.get(each.node_id, str(each.node_id)),
                    _changes(each.changes),
                ),
            )
            for each in entries
        ),
    )
    return view


def access(look: Look, found: native_pb2.AccessResponse | SsGovernError, now_ms: int) -> View:
    """The page of users, tokens and roles."""
    view = View()
    if isinstance(found, SsGovernError):
        view.pieces["rights"] = look.piece("rights_fault", found.message)
    else:
        view.pieces["rights"] = look.piece("rights", found, now_ms)
    return view
