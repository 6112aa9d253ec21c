"""Pages as they are now: what the picture of the cluster and the state of a service look like.

Knows no request, no stream and nothing that changes: the same function makes a page and keeps it
live. Invariant: what a view costs is bounded by what it shows, not by what there is, except for
one pass over the services' counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from urllib.parse import urlencode

from ssgovern import limits
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.console.look import Look, View, add_list, dom_id, service_url
from ssgovern.api.http.console.picture import Line, Picture
from ssgovern.model import NodeId, ServiceKey, shard_of, slot_of
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2, raw_pb2

PAGE = limits.CONSOLE_PAGE
ATTENTION = 6
SORTED_MAX = 5_000
"""More instances than this are shown in the order in which they came."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a table is wanted."""

    q: str = ""
    ns: str = ""
    sort: str = "name"
    attention: bool = False
    first: int = 0

    def query(self, **other: object) -> str:
        """Return this as the query of an address, some of it changed."""
        said: dict[str, object] = {
            "q": self.q,
            "ns": self.ns,
            "sort": "" if self.sort == "name" else self.sort,
            "attention": "1" if self.attention else "",
            "first": self.first or "",
        } | other
        return urlencode({name: value for name, value in said.items() if value})


@dataclass(frozen=True, slots=True)
class NodeLine:
    """What pages show of a node."""

    id: int
    name: str
    address: str
    zone: str
    live: bool
    lost: bool
    leaving: bool
    candidate: bool
    controller: bool
    alone: bool
    here: bool
    primaries: int
    holds: int
    in_sync: int
    why: str
    """Why it did not answer; empty if it did."""
    status: native_pb2.StatusResponse | None


def node_lines(picture: Picture) -> list[NodeLine]:
    """Return all nodes."""
    cluster = picture.cluster
    alone = len(cluster.nodes) <= 1 and not cluster.controller_id
    return [
        NodeLine(
            id=node.node_id,
            name=node.name or f"node-{node.node_id}",
            address=node.address,
            zone=node.zone,
            live=node.live,
            lost=node.lost,
            leaving=node.leaving,
            candidate=node.candidate,
            controller=node.node_id == cluster.controller_id,
            alone=alone,
            here=node.node_id == cluster.node_id,
            primaries=node.primaries,
            holds=node.holds,
            in_sync=node.in_sync,
            why=picture.unreachable.get(NodeId(node.node_id), "") if node.live else "",
            status=picture.statuses.get(NodeId(node.node_id)),
        )
        for node in cluster.nodes
    ]


def node_names(picture: Picture) -> dict[int, str]:
    """Return the names of nodes by their ids."""
    return {node.node_id: node.name or f"node-{node.node_id}" for node in picture.cluster.nodes}


# --- overview -----------------------------------------------------------------------------


def overview(look: Look, picture: Picture) -> View:
    """The cluster at a glance."""
    view = View()
    nodes = node_lines(picture)
    lines = picture.lines
    view.pieces["health"] = _health(look, picture, nodes)
    last = picture.samples[-1] if picture.samples else None
    p99 = next((each.push_ms_p99 for each in reversed(picture.samples) if each.push_ms_p99), None)
    view.pieces["cards"] = look.piece(
        "cards",
        picture.totals(),
        sum(node.live for node in nodes),
        len(nodes),
        None if last is None else last.changes_per_s,
        p99,
        len(picture.namespaces),
    )
    add_list(view, "nodes", ((f"node-{node.id}", look.piece("node_row", node)) for node in nodes))
    if lines:
        lacking = [line for line in lines if line.missing]
        worst = nlargest(ATTENTION, lacking, key=_urgency)
        more = len(lacking) if len(lacking) > ATTENTION else 0
        view.pieces["attention"] = look.piece("attention", worst, more)
    else:
        view.pieces["attention"] = look.piece("no_services")
    samples = picture.samples
    view.points = {
        "changes": [(each.time_ms, _rounded(each.changes_per_s)) for each in samples],
        "p50": [(each.time_ms, _rounded(each.push_ms_p50)) for each in samples],
        "p99": [(each.time_ms, _rounded(each.push_ms_p99)) for each in samples],
    }
    return view


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _urgency(line: Line) -> tuple[bool, float, int]:
    return (line.available == 0, line.missing / line.instances, line.missing)


def _health(look: Look, picture: Picture, nodes: list[NodeLine]) -> str:
    say, cluster = look.say, picture.cluster
    bad: list[str] = []
    notes: list[str] = []
    if cluster.shards_unavailable:
        bad.append(say("why_unavailable", n=cluster.shards_unavailable, of=cluster.shards_total))
    alone = len(nodes) <= 1
    if not alone and not (cluster.controller_id and cluster.controller_heard):
        bad.append(say("why_controller"))
    for node in nodes:
        if not node.live:
            notes.append(say("why_dead", node=node.name))
        elif node.why:
            notes.append(say("why_silent", node=node.name, why=node.why))
        if node.status is not None and node.status.writes_refused:
            bad.append(say("why_refused", node=node.name, why=node.status.writes_refused))
        if node.leaving:
            notes.append(f"{node.name}: {say('leaving')}")
    if cluster.shards_below_copies and not alone:
        notes.append(say("why_below", n=cluster.shards_below_copies))
    if cluster.moves:
        notes.append(say("why_moves", n=cluster.moves))
    if protected := picture.totals().protected:
        notes.append(say("why_protected", n=protected))
    if empty := sum(1 for line in picture.lines if not line.available):
        notes.append(say("why_no_instances", n=empty))
    level = "bad" if bad else "attention" if notes else "good"
    text = ""
    if level == "good":
        text = (
            say("good_alone")
            if alone
            else say("good_cluster", nodes=len(nodes), copies=cluster.copies)
        )
    return look.piece("health", level, say(f"health_{level}"), text, bad + notes)


# --- services -----------------------------------------------------------------------------


def services(
    look: Look,
    picture: Picture,
    asked: Asked,
    may_read: Callable[[ServiceKey], bool] | None = None,
) -> View:
    """A page of the list of services, of those that may be shown."""
    found = picture.of_namespace(asked.ns)
    if may_read is not None:
        found = [line for line in found if may_read(line.key)]
    if asked.q:
        wanted = asked.q.casefold()
        found = [line for line in found if wanted in line.key.service.casefold()]
    if asked.attention:
        found = [line for line in found if line.missing]
    if asked.sort == "instances":
        found = sorted(found, key=lambda line: (-line.instances, line.key))
    elif asked.sort == "missing":
        found = sorted(found, key=lambda line: (line.available > 0, -line.missing, line.key))
    view = View()
    first = _first(asked.first, len(found))
    shown = found[first : first + PAGE]
    view.pieces["pager"] = _pager(look, "/services", asked, first, len(shown), len(found))
    add_list(
        view,
        "services",
        ((dom_id("s", *line.key), look.piece("service_row", line)) for line in shown),
    )
    view.pieces["empty"] = (
        look.piece("empty", "", "")
        if shown
        else look.piece("empty", look.say("no_match"), look.say("no_match_text"))
        if picture.lines
        else look.piece("empty", look.say("no_services"), "", "teach")
    )
    return view


def _first(asked: int, total: int) -> int:
    """Return where a page begins; one that is beyond the end shows the last."""
    first = asked - asked % PAGE
    return first if first < total else max(0, (total - 1) - (total - 1) % PAGE)


def _pager(look: Look, path: str, asked: Asked, first: int, shown: int, total: int) -> str:
    before = f"{path}?{asked.query(first=max(0, first - PAGE))}" if first else ""
    after = f"{path}?{asked.query(first=first + PAGE)}" if first + PAGE < total else ""
    return look.piece("pager", first + 1, first + shown, total, before, after)


# --- one service --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A service, and the instances of it that are shown."""

    shard: int
    epoch: int
    revision: int
    total: int
    available: int
    matching: int
    first: int
    shown: list[model_pb2.Instance]


async def read_service(backend: Backend, key: ServiceKey, asked: Asked) -> Found:
    """Read a page of a service: here if the node holds it, else from who does.

    What the filter looks for is searched in the encoded instances, so only what is shown is
    decoded.
    """
    registry = backend.registry
    shard = shard_of(*key)
    if registry.placement.holds(shard):
        state = registry.state_of(key)
        service = state.services.get(key)
        entries = {} if service is None else service.instances
        encoded = [entry.encoded for entry in entries.values()]
        available = 0 if service is None else service.available
        revision = 0 if service is None else service.revision
        epoch = state.position.epoch
        names = list(entries)
    else:
        answer = await backend.gateway.call(
            MessageType.GET,
            native_pb2.GetRequest(
                service=model_pb2.ServiceKey(
                    namespace=key.namespace, group=key.group, service=key.service
                ),
                replica_too=True,
            ),
            raw_pb2.RawGetResponse,
            repeatable=True,
            key=key,
        )
        encoded, names = list(answer.instances), []
        epoch, revision = answer.epoch, answer.revision
        available = 0
    total = len(encoded)
    if asked.q:
        wanted = asked.q.encode()
        kept = [index for index, each in enumerate(encoded) if wanted in each]
    else:
        kept = list(range(total))
    if names and len(kept) <= SORTED_MAX:
        kept.sort(key=names.__getitem__)
    first = _first(asked.first, len(kept))
    shown = [
        model_pb2.Instance.FromString(encoded[index]) for index in islice(kept, first, first + PAGE)
    ]
    return Found(int(shard), epoch, revision, total, available, len(kept), first, shown)


def service(look: Look, picture: Picture, key: ServiceKey, found: Found, asked: Asked) -> View:
    """A service with its instances."""
    view = View()
    timeline: list[object] = []
    view.pieces["timeline"] = look.piece(
        "timeline", "timeline", timeline, look.say("timeline_none")
    )
    view.pieces["subscribers"] = look.piece("subscribers", [], 0)
    line = next((each for each in picture.of_namespace(key.namespace) if each.key == key), None)
    if line is not None and not found.available and found.total == line.instances:
        # Another node's list does not say it; its count does.
        found = _with_available(found, line.available)
    names = node_names(picture)
    row = picture.row(found.shard)
    primary = "" if row is None or not row.primary else names.get(row.primary, str(row.primary))
    replicas = (
        []
        if row is None
        else [names.get(each, str(each)) for each in row.holders if each != row.primary]
    )
    slot = slot_of(*key)
    view.pieces["facts"] = look.piece("facts", key, found, primary, replicas, slot)
    view.pieces["pager"] = _pager(
        look, service_url(key), asked, found.first, len(found.shown), found.matching
    )
    add_list(
        view,
        "instances",
        ((dom_id("i", each.id), look.piece("instance_row", key, each)) for each in found.shown),
    )
    view.pieces["empty"] = (
        look.piece("empty", "", "")
        if found.shown
        else look.piece("empty", look.say("no_instances"), look.say("no_instances_text"))
    )
    return view


def _with_available(found: Found, available: int) -> Found:
    return Found(
        found.shard,
        found.epoch,
        found.revision,
        found.total,
        available,
        found.matching,
        found.first,
        found.shown,
    )


# --- the cluster --------------------------------------------------------------------------


def cluster(look: Look, picture: Picture) -> View:
    """Nodes, and who keeps which shard."""
    view = View()
    nodes = node_lines(picture)
    names = node_names(picture)
    known = picture.cluster
    view.pieces["cluster-facts"] = look.piece(
        "cluster_facts",
        known,
        names.get(known.controller_id, "") if known.controller_heard else "",
        [names.get(each, str(each)) for each in known.candidates],
        len(nodes) <= 1,
    )
    rows = picture.rows()
    add_list(
        view,
        "lanes",
        ((f"lane-{node.id}", look.piece("lane", node, _squares(node.id, rows))) for node in nodes),
    )
    add_list(
        view, "node-cards", ((f"card-{node.id}", look.piece("node_card", node)) for node in nodes)
    )
    return view


def shard(look: Look, picture: Picture, number: int) -> str:
    """Who keeps one shard."""
    names = node_names(picture)
    row = picture.row(number)
    assert row is not None, "there is a row for every shard"
    used = [*row.holders, *row.in_sync, row.primary, row.incoming, row.outgoing]
    return look.piece(
        "shard", row, {each: names.get(each, str(each)) if each else "–" for each in used}
    )


def _squares(node_id: int, rows: Iterable[native_pb2.ShardStatus]) -> list[tuple[str, str]]:
    """Return one path for each kind of square: 256 elements a node would be too many."""
    paths: Mapping[str, list[str]] = {
        kind: [] for kind in ("none", "primary", "sync", "behind", "incoming", "nobody")
    }
    for row in rows:
        x, y = row.shard % 64 * 10, row.shard // 64 * 10
        if row.primary == node_id:
            kind = "primary"
        elif row.incoming == node_id:
            kind = "incoming"
        elif node_id in row.in_sync:
            kind = "sync"
        elif node_id in row.holders:
            kind = "behind"
        else:
            kind = "none"
        paths["none" if kind == "none" else kind].append(_SQUARES[kind](x, y))
        if not row.primary and kind != "none":
            paths["nobody"].append(f"M{x + 2} {y + 2}l5.5 5.5m0 -5.5l-5.5 5.5")
    return [(kind, "".join(each)) for kind, each in paths.items() if each]


def _full(x: int, y: int) -> str:
    return f"M{x + 0.5:g} {y + 0.5:g}h8.5v8.5h-8.5z"


def _framed(x: int, y: int) -> str:
    return f"M{x + 1.4:g} {y + 1.4:g}h6.7v6.7h-6.7z"


_SQUARES: Mapping[str, Callable[[int, int], str]] = {
    "none": _full,
    "primary": _full,
    "sync": _framed,
    "behind": _framed,
    "incoming": _framed,
}
