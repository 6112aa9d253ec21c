"""All operations of the open API, as data: its routes and its description are made from this.

An operation that is not in this table does not exist, and none is there undescribed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from ssgovern.api.http import asks, bodies, cluster, listing, reads
from ssgovern.api.http.answers import Answer, Stream
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.errors import ErrorCode

PREFIX = "/api/v1"
DOCUMENT_PATH = f"{PREFIX}/openapi.json"
SERVICE = f"{PREFIX}/namespaces/{{namespace}}/services/{{group}}/{{service}}"
INSTANCES = f"{SERVICE}/instances"

_STARTING_OR_STOPPING = (ErrorCode.UNAVAILABLE, ErrorCode.SHUTTING_DOWN)
_FORWARDED = (
    ErrorCode.SHARD_UNAVAILABLE,
    ErrorCode.OVERLOADED,
    ErrorCode.DEADLINE_EXCEEDED,
)
_OF_THE_REQUEST = (ErrorCode.INVALID_ARGUMENT, ErrorCode.LIMIT_EXCEEDED)


Action = Literal["read", "register", "write", "admin"]
"""What somebody needs the right to."""


Handle = Callable[[Desk, Asked], Awaitable[Answer | Stream]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. Parts of `path` in braces are names, percent-encoded."""

    id: str
    path: str
    summary: str
    answer: type[BaseModel]
    handle: Handle
    query: type[asks.Query] = asks.Query
    errors: tuple[ErrorCode, ...] = ()
    method: Literal["GET", "PUT", "POST", "PATCH", "DELETE"] = "GET"
    action: Action = "read"
    action_as_owner: Action | None = None
    """What is enough for who shows the lease of the instance."""
    body: type[asks.Ask] | None = None
    headers: tuple[str, ...] = ()
    """Headers that matter: of HEADERS."""
    made: bool = False
    """201 if something is there that was not before."""
    tagged: bool = False
    """Its answers have an ETag; of a GET, If-None-Match is honoured."""
    streams: bool = False
    """It may also be had as server-sent events."""

    @property
    def all_errors(self) -> tuple[ErrorCode, ...]:
        """Whatever it may answer instead."""
        return (*_OF_THE_REQUEST, *_STARTING_OR_STOPPING, *self.errors)


OPERATIONS = (
    Operation(
        "listNamespaces",
        f"{PREFIX}/namespaces",
        "The namespaces that have services, in pages",
        bodies.NamespacePage,
        listing.namespaces,
        asks.NamespacesQuery,
        _FORWARDED,
    ),
    Operation(
        "listServices",
        f"{PREFIX}/namespaces/{{namespace}}/services",
        "The services of a namespace that have instances, in pages",
        bodies.ServicePage,
        listing.services,
        asks.ServicesQuery,
        _FORWARDED,
    ),
    Operation(
        "getService",
        SERVICE,
        "The instances of a service, in pages; none if it is not known",
        bodies.InstancePage,
        reads.instances,
        asks.InstancesQuery,
        (*_FORWARDED, ErrorCode.REVISION_CONFLICT),
        tagged=True,
    ),
    Operation(
        "getInstance",
        f"{INSTANCES}/{{id}}",
        "One instance; its ETag is its revision",
        bodies.InstanceAnswer,
        reads.instance,
        asks.InstanceQuery,
        (*_FORWARDED, ErrorCode.NOT_FOUND),
        tagged=True,
    ),
    Operation(
        "getCluster",
        f"{PREFIX}/cluster",
        "The cluster at a glance, as the node that answers knows it",
        bodies.Cluster,
        cluster.status,
    ),
    Operation(
        "listNodes",
        f"{PREFIX}/cluster/nodes",
        "The nodes of the cluster",
        bodies.ClusterNodes,
        cluster.nodes,
    ),
    Operation(
        "listShards",
        f"{PREFIX}/cluster/shards",
        "Who is primary of which shard, who holds it, who is in sync",
        bodies.Shards,
        cluster.shards,
    ),
    Operation(
        "getStatus",
        f"{PREFIX}/status",
        "The node that answers, by itself",
        bodies.NodeStatus,
        cluster.node_status,
    ),
)
