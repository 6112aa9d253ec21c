"""All operations of the open API, as data: its routes and its description are made from this.

An operation that is not in this table does not exist, and none is there undescribed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from ssgovern.api.http import (
    asks,
    bodies,
    cluster,
    draining,
    leases,
    listing,
    observing,
    reads,
    watching,
    writes,
)
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
_CHANGING = (*_FORWARDED, ErrorCode.OUTCOME_UNKNOWN, ErrorCode.DISK_FULL)
_CHANGING_ONE = (
    *_CHANGING,
    ErrorCode.NOT_FOUND,
    ErrorCode.NOT_OWNER,
    ErrorCode.SESSION_FOREIGN,
    ErrorCode.REVISION_CONFLICT,
)
_COMMANDING = (
    ErrorCode.OVERLOADED,
    ErrorCode.DEADLINE_EXCEEDED,
    ErrorCode.NOT_CONTROLLER,
    ErrorCode.OUTCOME_UNKNOWN,
    ErrorCode.UNSUPPORTED_TYPE,
)
_OF_THE_REQUEST = (ErrorCode.INVALID_ARGUMENT, ErrorCode.LIMIT_EXCEEDED)


HEADERS = {
    "Lease": "the lease of the instance: whoever shows it acts as the owner",
    "If-Match": "the ETag of the instance: only if it is still that; *: only if there is one",
    "If-None-Match": "*: only if there is none",
    "Last-Event-ID": "id of the last event of a stream that broke off: go on from there",
}
"""Headers that operations heed, and what they say."""

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

    def needs(self, asked: Asked) -> Action:
        """Return what a request takes the right to."""
        if self.action_as_owner is None or "lease" not in asked.headers:
            return self.action
        # What an operator decides is not the owner's to say.
        operators = asked.body is not None and "enabled" in asked.body.model_fields_set
        return self.action if operators else self.action_as_owner

    @property
    def all_errors(self) -> tuple[ErrorCode, ...]:
        """Whatever it may answer instead."""
        return (
            *_OF_THE_REQUEST,
            ErrorCode.UNAUTHENTICATED,
            ErrorCode.PERMISSION_DENIED,
            *_STARTING_OR_STOPPING,
            *self.errors,
        )


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
        "The instances of a service, in pages; none if it is not known. With `wait`, when it "
        "changes; as text/event-stream, all its changes",
        bodies.InstancePage,
        watching.service,
        asks.InstancesQuery,
        (*_FORWARDED, ErrorCode.REVISION_CONFLICT),
        headers=("Last-Event-ID",),
        tagged=True,
        streams=True,
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
        "registerInstance",
        f"{INSTANCES}/{{id}}",
        "Register an instance, or put it in place of the one with this id",
        bodies.Registered,
        writes.register,
        errors=(*_CHANGING, ErrorCode.SESSION_FOREIGN, ErrorCode.REVISION_CONFLICT),
        method="PUT",
        action="register",
        body=asks.InstanceAsk,
        headers=("Lease", "If-Match", "If-None-Match"),
        made=True,
        tagged=True,
    ),
    Operation(
        "registerNewInstance",
        INSTANCES,
        "Register an instance under an id that it brings, or that is made of host and port",
        bodies.Registered,
        writes.register_new,
        errors=(*_CHANGING, ErrorCode.SESSION_FOREIGN, ErrorCode.REVISION_CONFLICT),
        method="POST",
        action="register",
        body=asks.NewInstanceAsk,
        headers=("Lease", "If-None-Match"),
        made=True,
        tagged=True,
    ),
    Operation(
        "updateInstance",
        f"{INSTANCES}/{{id}}",
        "Change fields of an instance; with its lease as its owner, else as an operator",
        bodies.InstanceAnswer,
        writes.update,
        errors=_CHANGING_ONE,
        method="PATCH",
        action="write",
        action_as_owner="register",
        body=asks.PatchAsk,
        headers=("Lease", "If-Match"),
        tagged=True,
    ),
    Operation(
        "deregisterInstance",
        f"{INSTANCES}/{{id}}",
        "Remove an instance; with its lease as its owner, else as an operator",
        bodies.Deregistered,
        writes.deregister,
        errors=_CHANGING_ONE,
        method="DELETE",
        action="write",
        action_as_owner="register",
        headers=("Lease", "If-Match"),
    ),
    Operation(
        "drainInstance",
        f"{INSTANCES}/{{id}}/drain",
        "Take an instance out of service, wait until every live subscriber knows, and say who "
        "does not",
        bodies.Drained,
        draining.drain,
        errors=_CHANGING_ONE,
        method="POST",
        action="write",
        body=asks.DrainAsk,
        headers=("Lease", "If-Match"),
    ),
    Operation(
        "renewInstance",
        f"{INSTANCES}/{{id}}/lease",
        "Renew the lease of an instance; 404: it is gone, register again",
        bodies.Renewed,
        leases.renew,
        errors=(*_CHANGING, ErrorCode.SESSION_UNKNOWN, ErrorCode.SESSION_FOREIGN),
        method="PUT",
        action="register",
        headers=("Lease",),
    ),
    Operation(
        "renewLeases",
        f"{PREFIX}/leases/renew",
        "Renew leases of any services with one request",
        bodies.Renewals,
        leases.renew_many,
        method="POST",
        action="register",
        body=asks.RenewalsAsk,
    ),
    Operation(
        "listSubscribers",
        f"{SERVICE}/subscribers",
        "Who follows a service, and up to which revision each has applied it",
        bodies.Subscribers,
        draining.subscribers,
        asks.SubscribersQuery,
        _FORWARDED,
    ),
    Operation(
        "listSessions",
        f"{PREFIX}/sessions",
        "Sessions and leases, as all nodes together know them, in pages",
        bodies.SessionPage,
        observing.sessions,
        asks.SessionsQuery,
        _FORWARDED,
    ),
    Operation(
        "listEvents",
        f"{PREFIX}/events",
        "What happened lately to instances and the cluster; as text/event-stream, what happens",
        bodies.EventPage,
        observing.events,
        asks.EventsQuery,
        _FORWARDED,
        streams=True,
    ),
    Operation(
        "listAudit",
        f"{PREFIX}/audit",
        "Who changed what and who was refused, as all nodes together wrote it down, in pages",
        bodies.AuditPage,
        observing.audit,
        asks.AuditQuery,
        _FORWARDED,
        action="admin",
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
    Operation(
        "leaveCluster",
        f"{PREFIX}/cluster/leave",
        "Have everything moved away from a node, which is then removed for good",
        bodies.Decided,
        cluster.leave,
        errors=_COMMANDING,
        method="POST",
        action="admin",
        body=asks.NodeAsk,
    ),
    Operation(
        "stayInCluster",
        f"{PREFIX}/cluster/stay",
        "Take back that a node shall leave",
        bodies.Decided,
        cluster.stay,
        errors=_COMMANDING,
        method="POST",
        action="admin",
        body=asks.NodeAsk,
    ),
    Operation(
        "transferShard",
        f"{PREFIX}/cluster/transfer",
        "Make a node the primary of a shard",
        bodies.Decided,
        cluster.transfer,
        errors=_COMMANDING,
        method="POST",
        action="admin",
        body=asks.TransferAsk,
    ),
    Operation(
        "transferController",
        f"{PREFIX}/cluster/transfer-controller",
        "Hand the controller's duty to another candidate",
        bodies.Decided,
        cluster.transfer_controller,
        errors=_COMMANDING,
        method="POST",
        action="admin",
        body=asks.NodeAsk,
    ),
    Operation(
        "changeSettings",
        f"{PREFIX}/cluster/settings",
        "Change settings of the cluster",
        bodies.Decided,
        cluster.settings,
        errors=_COMMANDING,
        method="POST",
        action="admin",
        body=asks.SettingsAsk,
    ),
)
