"""What can be read over HTTP: from committed state into documents, at once.

Each function answers one operation and refuses to know paths, headers and sockets. What costs
time is limited by the page: nothing here walks all that a node holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from pydantic import BaseModel

from ssgovern.api.http import bodies
from ssgovern.api.http.backend import Backend
from ssgovern.errors import InvalidArgumentError, RevisionConflictError, ShardMovedError
from ssgovern.model import SHARDS, ServiceKey, ShardId, shard_of, valid_key
from ssgovern.service.placement import Placement, mask_of, mask_to_wire
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import model_pb2, native_pb2

_STATUS_NAMES: tuple[bodies.StatusName, ...] = ("up", "starting", "stopping", "down")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as it says what is wanted."""

    path: Mapping[str, str]
    query: bodies.Query


@dataclass(frozen=True, slots=True)
class Answer:
    """A document. `tag` is equal as long as it is, whichever node of the cluster answers."""

    body: BaseModel
    tag: str = ""


# --- services -----------------------------------------------------------------------------


def services(backend: Backend, asked: Asked) -> Answer:
    """Return a page of the services of a namespace."""
    query = asked.query
    assert isinstance(query, bodies.ServicesQuery), "the operation says what is asked"
    registry = backend.registry
    namespace = asked.path["namespace"]
    shards = b""
    complete = True
    if query.scope == "node":
        held = held_shards(registry.placement)
        complete = held == (1 << SHARDS) - 1
        if not held:
            return Answer(_no_services(namespace))
        shards = mask_to_wire(held)
    request = native_pb2.ListServicesRequest(
        namespace=namespace,
        group=query.group,
        prefix=query.prefix,
        page_size=query.page_size,
        page_token=query.page_token,
        shards=shards,
    )
    try:
        found = registry.list_services(request)
    except ShardMovedError as error:
        raise with_holders(error, registry.placement) from None
    page = bodies.ServicePage(
        namespace=namespace,
        services=[
            bodies.ServiceSummary(
                group=each.service.group,
                service=each.service.service,
                instances=each.instances,
                available=each.available,
                revision=each.revision,
            )
            for each in found.services
        ],
        next_page_token=found.next_page_token or None,
        complete=complete,
    )
    return Answer(page)


def _no_services(namespace: str) -> bodies.ServicePage:
    return bodies.ServicePage(
        namespace=namespace, services=[], next_page_token=None, complete=False
    )


def held_shards(placement: Placement) -> int:
    """Return the mask of the shards that a node may tell of."""
    return mask_of(ShardId(shard) for shard in range(SHARDS) if placement.holds(ShardId(shard)))


def instances(backend: Backend, asked: Asked) -> Answer:
    """Return a page of the instances of a service, as this node's copy of its shard has them.

    A replica's copy may be a moment behind its primary's; the revision says how far it is.
    """
    query = asked.query
    assert isinstance(query, bodies.PageQuery), "the operation says what is asked"
    registry = backend.registry
    key = valid_key(asked.path["namespace"], asked.path["group"], asked.path["service"])
    _check_read(registry, key)
    state = registry.state_of(key)
    service = state.services.get(key)
    revision = 0 if service is None else service.revision
    entries = {} if service is None else service.instances
    tag = f"{state.position.epoch}.{revision}"
    first = _first_of(query.page_token, tag)
    # In the order in which they came, which holds as long as the revision: sorting would cost
    # a service of a hundred thousand instances with every page.
    shown = [entry.encoded for entry in islice(entries.values(), first, first + query.page_size)]
    last = first + len(shown)
    # What is in the state was checked when it came: checking it again doubles the cost.
    page = bodies.InstancePage.model_construct(
        namespace=key.namespace,
        group=key.group,
        service=key.service,
        epoch=state.position.epoch,
        revision=revision,
        total=len(entries),
        instances=[instance_body(model_pb2.Instance.FromString(each)) for each in shown],
        next_page_token=f"{tag}.{last}" if last < len(entries) else None,
    )
    return Answer(page, f"{tag}.{first}.{query.page_size}")


def _check_read(registry: RegistryService, key: ServiceKey) -> None:
    try:
        registry.placement.check_read(shard_of(*key), replica_too=True)
    except ShardMovedError as error:
        raise with_holders(error, registry.placement) from None


def _first_of(token: str, tag: str) -> int:
    """Return where a page begins."""
    if not token:
        return 0
    of, _, first = token.rpartition(".")
    if not (first.isascii() and first.isdigit() and len(first) <= 9 and of.count(".") == 1):
        raise InvalidArgumentError("page_token is none that was given out", field="page_token")
    if of != tag:
        raise RevisionConflictError(
            "the service changed between two pages: begin with the first again", field="page_token"
        )
    return int(first)


def instance_body(message: model_pb2.Instance) -> bodies.Instance:
    """Return an instance as it is sent."""
    enabled, healthy = not message.out_of_service, not message.unhealthy
    up = message.status == model_pb2.STATUS_UP
    return bodies.Instance(
        id=message.id,
        host=message.host,
        port=message.port,
        weight=message.weight,
        status=_STATUS_NAMES[message.status],
        healthy=healthy,
        enabled=enabled,
        available=up and healthy and enabled and message.weight > 0.0,
        ephemeral=not message.persistent,
        zone=message.zone,
        version=message.version,
        metadata=dict(sorted(message.metadata.items())),
        revision=message.revision,
        registered_at_ms=message.registered_at_ms,
    )


def with_holders(error: ShardMovedError, placement: Placement) -> ShardMovedError:
    """Return the error with the nodes that have the shard, for whoever reads it."""
    update = placement.map_update(0)
    row = next((row for row in update.rows if str(row.shard) == error.fields.get("shard")), None)
    if row is None:
        return error
    nodes = {node.node_id: node for node in update.nodes}
    holders = [nodes[holder] for holder in row.holders if holder in nodes]
    named = ", ".join(f"{node.name} (id {node.node_id}, {node.address})" for node in holders)
    told = ShardMovedError(f"{error.message}; ask {named}" if named else error.message)
    told.fields = {**error.fields, "holders": ",".join(str(node.node_id) for node in holders)}
    return told


# --- the cluster --------------------------------------------------------------------------


def cluster(backend: Backend, _asked: Asked) -> Answer:
    """Return the cluster at a glance."""
    status = backend.cluster_status(shards=False)
    body = bodies.Cluster(
        cluster_id=status.cluster_id.hex(),
        node_id=status.node_id,
        controller_id=status.controller_id,
        controller_heard=status.controller_heard,
        term=status.term,
        map_version=status.map_version,
        metadata_index=status.index,
        candidates=list(status.candidates),
        copies=status.copies,
        min_in_sync=status.min_in_sync,
        nodes=len(status.nodes),
        nodes_live=sum(node.live for node in status.nodes),
        shards=status.shards_total,
        shards_unavailable=status.shards_unavailable,
        shards_below_copies=status.shards_below_copies,
        moves=status.moves,
    )
    return Answer(body)


def nodes(backend: Backend, _asked: Asked) -> Answer:
    """Return all nodes."""
    status = backend.cluster_status(shards=False)
    body = bodies.ClusterNodes(
        map_version=status.map_version,
        nodes=[
            bodies.ClusterNode(
                id=node.node_id,
                name=node.name,
                address=node.address,
                zone=node.zone,
                live=node.live,
                leaving=node.leaving,
                lost=node.lost,
                candidate=node.candidate,
                primaries=node.primaries,
                holds=node.holds,
                in_sync=node.in_sync,
            )
            for node in status.nodes
        ],
    )
    return Answer(body)


def shards(backend: Backend, _asked: Asked) -> Answer:
    """Return the shard map."""
    status = backend.cluster_status(shards=True)
    body = bodies.Shards(
        map_version=status.map_version,
        shards=[
            bodies.Shard(
                shard=row.shard,
                epoch=row.epoch,
                primary=row.primary,
                holders=list(row.holders),
                in_sync=list(row.in_sync),
                incoming=row.incoming,
                outgoing=row.outgoing,
                successor=row.successor,
            )
            for row in status.shards
        ],
    )
    return Answer(body)


def node_status(backend: Backend, _asked: Asked) -> Answer:
    """Return the node that answers, by itself."""
    status = backend.status()
    not_ready = backend.not_ready()
    body = bodies.NodeStatus(
        node_id=status.node_id,
        node_name=status.node_name,
        cluster_id=status.cluster_id.hex(),
        version=status.version,
        uptime_ms=status.uptime_ms,
        services=status.services,
        instances=status.instances,
        sessions=status.sessions,
        sessions_protected=status.sessions_protected,
        connections=status.connections,
        subscriptions=status.subscriptions,
        entries_committed=status.entries_committed,
        wal_bytes=status.wal_bytes,
        wal_segments=status.wal_segments,
        wal_batches=status.wal_batches,
        wal_sync_us=status.wal_sync_us,
        writes_refused=status.writes_refused,
        map_version=status.map_version,
        loop_stall_ms_max=status.loop_stall_ms_max,
        pushes=status.pushes,
        expirations=status.expirations,
        resident_bytes=status.resident_bytes,
        durability=status.durability,
        ready=not not_ready,
        not_ready=not_ready,
    )
    return Answer(body)
