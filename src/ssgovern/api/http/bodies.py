"""What the open API answers, as types: its documents and their description come from them.

Names are those of the command line's `--json`. Knows no requests and no state. A field is added
freely and never renamed: programs of others read these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

StatusName = Literal["up", "starting", "stopping", "down"]


class Body(BaseModel):
    """Anything that is sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Body):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="name of the kind of problem, a URI that is not to be fetched")
    title: str
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="for people")
    code: int = Field(description="stable number of the kind of problem")
    retry: str = Field(description="what helps: never, same_node or after_refresh")
    fields: dict[str, str] = Field(description="for programs: what the detail says in words")


class Health(Body):
    """Whether a node lives, or is ready."""

    status: Literal["ok", "not ready"]
    detail: str = Field(description="why it is not ready; empty if it is")


class ServiceSummary(Body):
    """A service in a list."""

    group: str
    service: str
    instances: int
    available: int = Field(description="instances that take traffic")
    revision: int = Field(description="of its last change, in its shard")


class ServicePage(Body):
    """Some of the services of a namespace, in the order of their names."""

    namespace: str
    services: list[ServiceSummary]
    next_page_token: str | None = Field(description="for the next page; null: this was the last")
    complete: bool = Field(description="false: of the shards that this node holds only")


# A dict, because a page has a thousand: as a model each costs twice as much.
@with_config(ConfigDict(extra="forbid"))
class Instance(TypedDict):
    """One running copy of a service."""

    id: str
    host: str
    port: int
    weight: float
    status: Annotated[StatusName, Field(description="what the instance says of itself")]
    healthy: Annotated[bool, Field(description="what is measured")]
    enabled: Annotated[bool, Field(description="what an operator decided")]
    available: Annotated[
        bool, Field(description="whether it takes traffic: all of these, and a weight")
    ]
    ephemeral: bool
    lease_ms: Annotated[
        int, Field(description="it is gone if its lease is not renewed for so long; 0: no lease")
    ]
    zone: str
    version: str
    metadata: dict[str, str]
    revision: Annotated[int, Field(description="of its last change, in its shard")]
    registered_at_ms: int


class InstancePage(Body):
    """Some of the instances of a service, all of one revision."""

    namespace: str
    group: str
    service: str
    epoch: int
    revision: int = Field(description="of the service's last change, in its shard; 0: none known")
    total: int = Field(description="instances there are")
    instances: list[Instance]
    next_page_token: str | None = Field(description="for the next page; null: this was the last")


class InstanceAnswer(Body):
    """One instance."""

    instance: Instance


class Lease(Body):
    """What keeps an instance registered."""

    token: str = Field(description="who shows it, in the header Lease, is the owner: keep it")
    ttl_ms: int = Field(description="it ends after so long without a renewal")
    expires_at_ms: int = Field(description="renew before, by the node's clock; sooner is better")


class Registered(Body):
    """An instance that is registered."""

    id: str
    epoch: int
    revision: int = Field(description="of this registration, in its shard")
    lease: Lease | None = Field(description="null: it stays until it is deregistered")


class Deregistered(Body):
    """An instance that is not there any more."""

    removed: bool = Field(description="false: there was none")
    epoch: int
    revision: int


class Renewed(Body):
    """A lease that has its full time again."""

    ttl_ms: int
    expires_at_ms: int


class RenewalResult(Body):
    """What became of one lease."""

    renewed: bool
    ttl_ms: int = Field(description="0: it was not renewed")
    problem: Problem | None = Field(description="why it was not; null: it was")


class Renewals(Body):
    """What became of leases, in the order of the request."""

    results: list[RenewalResult]


class Subscriber(Body):
    """Somebody who follows a service."""

    session_id: str
    client_name: str
    address: str
    node_id: int = Field(description="the node it is connected to")
    says: bool = Field(description="it says what it has applied; if not, its client is older")
    epoch: int
    revision: int = Field(description="up to where it has applied the service; 0: not said")
    behind_ms: int = Field(description="for how long it has lacked something; 0: it lacks nothing")
    disconnected: bool = Field(description="its connection is lost, its session has not ended yet")


class Subscribers(Body):
    """Who follows a service, and what each has of it."""

    namespace: str
    group: str
    service: str
    subscribers: list[Subscriber]
    complete: bool = Field(description="false: there are more, or a node did not answer")


class Drained(Body):
    """How far an instance is out of traffic."""

    applied: bool = Field(description="every live subscriber knows that it is out of service")
    removed: bool = Field(description="it was deregistered after that")
    epoch: int
    revision: int = Field(description="at which it went out of service")
    subscribers: int
    lacking: list[Subscriber] = Field(description="some of those who do not know yet")
    lacking_total: int
    silent_total: int = Field(description="those who do not say what they have applied")
    unreachable_nodes: list[int] = Field(description="nodes that did not answer for theirs")


class Decided(Body):
    """What the cluster's controller decided."""

    sentence: str


class FailedNode(Body):
    """A node that did not answer for what it knows."""

    node_id: int
    detail: str


class Session(Body):
    """A client's identity across reconnects, or a lease, as all nodes together know it."""

    id: str
    client_name: str = Field(description="empty: it is not connected")
    address: str
    connected: bool
    connected_ms: int = Field(description="for so long")
    heard_ms: int = Field(description="so long ago something was heard of it")
    lease: bool = Field(description="it is kept by requests and never has a connection")
    ttl_ms: int
    instances: int
    subscriptions: int
    protected: bool = Field(description="it would have expired, and protection holds it")
    nodes: list[int] = Field(description="ids of the nodes that know it")


class SessionPage(Body):
    """Some of the sessions, in the order of their ids."""

    sessions: list[Session]
    total: int = Field(description="sessions at all nodes; one at several counts at each")
    next_page_token: str | None = Field(description="for the next page; null: this was the last")
    failed_nodes: list[FailedNode]


class FieldChange(Body):
    """A field before and after; long values are cut."""

    name: str
    before: str
    after: str


class Event(Body):
    """Something that happened to an instance, or was decided about the cluster."""

    kind: str = Field(
        description="registered, replaced, deregistered, updated, expired, left, unhealthy, "
        "out_of_service, in_service, cluster, or missed: nobody remembers what was here"
    )
    time_ms: int = Field(description="by the clock of the node that decided it; 0: not known")
    namespace: str
    group: str
    service: str
    instance_id: str
    address: str
    shard: int
    epoch: int
    revision: int
    session_id: str = Field(description="whose request it was")
    changes: list[FieldChange]
    reason: str = Field(description="of the cluster: one sentence")


class EventPage(Body):
    """The newest events, oldest first."""

    events: list[Event]
    failed_nodes: list[FailedNode]


class AuditEntry(Body):
    """What somebody changed, or was refused."""

    node_id: int = Field(description="of the node that was asked")
    number: int = Field(description="rises by one with each entry of a node")
    time_ms: int = Field(description="by the clock of that node")
    who: str
    origin: str = Field(description="the address it came from")
    way: str = Field(description="native, http or console")
    action: str
    target: str
    outcome: str = Field(description="ok, or the name of the error")
    detail: str
    changes: list[FieldChange]


class AuditPage(Body):
    """Some of the audit, the newest first."""

    entries: list[AuditEntry]
    next_page_token: str | None = Field(description="for the next page; null: this was the last")
    failed_nodes: list[FailedNode]


class Namespace(Body):
    """An environment, isolated from all others."""

    namespace: str


class NamespacePage(Body):
    """Some of the namespaces that have services, in the order of their names."""

    namespaces: list[Namespace]
    next_page_token: str | None = Field(description="for the next page; null: this was the last")


class Cluster(Body):
    """The cluster, as the node that answers knows it."""

    cluster_id: str
    node_id: int = Field(description="the node that answers")
    controller_id: int = Field(description="0: none is known, or the node stands alone")
    controller_heard: bool = Field(description="the answering node heard from it within its lease")
    term: int
    map_version: int
    metadata_index: int
    candidates: list[int]
    copies: int
    min_in_sync: int
    nodes: int
    nodes_live: int
    shards: int
    shards_unavailable: int
    shards_below_copies: int
    moves: int


class ClusterNode(Body):
    """A node of the cluster."""

    id: int
    name: str
    address: str = Field(description="of its native port; empty: the node that answers, by itself")
    zone: str
    live: bool
    leaving: bool
    lost: bool
    candidate: bool
    primaries: int
    holds: int
    in_sync: int


class ClusterNodes(Body):
    """All nodes, in the order of their ids."""

    map_version: int
    nodes: list[ClusterNode]


class Shard(Body):
    """Who has one shard."""

    shard: int
    epoch: int
    primary: int = Field(description="0: none at present")
    holders: list[int]
    in_sync: list[int]
    incoming: int = Field(description="node that it is being copied to; 0: none")
    outgoing: int = Field(description="node that is to drop it; 0: none")
    successor: int = Field(description="who it is being handed over to; 0: nobody")


class Shards(Body):
    """The shard map."""

    map_version: int
    shards: list[Shard]


class NodeStatus(Body):
    """One node by itself."""

    node_id: int
    node_name: str
    cluster_id: str
    version: str
    uptime_ms: int
    services: int
    instances: int
    sessions: int
    sessions_protected: int
    connections: int
    subscriptions: int
    entries_committed: int
    wal_bytes: int
    wal_segments: int
    wal_batches: int
    wal_sync_us: int = Field(description="of the last batch, microseconds")
    writes_refused: str = Field(description="why; empty: they are taken")
    map_version: int
    loop_stall_ms_max: int
    pushes: int
    expirations: int
    resident_bytes: int
    durability: str
    ready: bool
    not_ready: str = Field(description="why it is not; empty if it is")
