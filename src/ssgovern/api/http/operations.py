"""All operations of the open API, as data: its routes and its description are made from this.

An operation that is not in this table does not exist, and none is there undescribed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from ssgovern.api.http import bodies, reads
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.reads import Answer, Asked
from ssgovern.errors import ErrorCode

PREFIX = "/api/v1"
DOCUMENT_PATH = f"{PREFIX}/openapi.json"

_STARTING_OR_STOPPING = (ErrorCode.UNAVAILABLE, ErrorCode.SHUTTING_DOWN)
_OF_A_SHARD = (ErrorCode.SHARD_MOVED, ErrorCode.SHARD_UNAVAILABLE)
_OF_THE_REQUEST = (ErrorCode.INVALID_ARGUMENT, ErrorCode.LIMIT_EXCEEDED)


Action = Literal["read", "register", "write", "admin"]
"""What somebody needs the right to."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. Parts of `path` in braces are names, percent-encoded."""

    id: str
    path: str
    summary: str
    answer: type[BaseModel]
    handle: Callable[[Backend, Asked], Answer]
    query: type[bodies.Query] = bodies.Query
    errors: tuple[ErrorCode, ...] = ()
    action: Action = "read"
    tagged: bool = False
    """Its answers have an ETag, and If-None-Match is honoured."""

    @property
    def all_errors(self) -> tuple[ErrorCode, ...]:
        """Whatever it may answer instead."""
        return (*_OF_THE_REQUEST, *_STARTING_OR_STOPPING, *self.errors)


OPERATIONS = (
    Operation(
        "listServices",
        f"{PREFIX}/namespaces/{{namespace}}/services",
        "The services of a namespace that have instances, in pages",
        bodies.ServicePage,
        reads.services,
        bodies.ServicesQuery,
        _OF_A_SHARD,
    ),
    Operation(
        "getService",
        f"{PREFIX}/namespaces/{{namespace}}/services/{{group}}/{{service}}",
        "The instances of a service, in pages; none if it is not known",
        bodies.InstancePage,
        reads.instances,
        bodies.PageQuery,
        (*_OF_A_SHARD, ErrorCode.REVISION_CONFLICT),
        tagged=True,
    ),
    Operation(
        "getCluster",
        f"{PREFIX}/cluster",
        "The cluster at a glance, as the node that answers knows it",
        bodies.Cluster,
        reads.cluster,
    ),
    Operation(
        "listNodes",
        f"{PREFIX}/cluster/nodes",
        "The nodes of the cluster",
        bodies.ClusterNodes,
        reads.nodes,
    ),
    Operation(
        "listShards",
        f"{PREFIX}/cluster/shards",
        "Who is primary of which shard, who holds it, who is in sync",
        bodies.Shards,
        reads.shards,
    ),
    Operation(
        "getStatus",
        f"{PREFIX}/status",
        "The node that answers, by itself",
        bodies.NodeStatus,
        reads.node_status,
    ),
)
