"""What may be asked over the open API, as types: parameters and bodies.

Checked against these before anything is done; their description comes from them, too. Names are
those of the answers (`bodies`). Limits of values are the model's and are checked where the value
is used; here is what bounds memory and shape.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ssgovern import limits
from ssgovern.api.http.bodies import StatusName
from ssgovern.model import SHARDS

Name = Annotated[str, Field(max_length=limits.NAME_BYTES_MAX)]
Pair = Annotated[
    str,
    StringConstraints(
        pattern=r"^[^=]+=",
        max_length=limits.METADATA_KEY_BYTES_MAX + limits.METADATA_VALUE_BYTES_MAX + 1,
    ),
]


class Query(BaseModel):
    """Parameters behind the question mark. This one: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PageQuery(Query):
    """Which page."""

    page_size: int = Field(
        default=limits.HTTP_PAGE_DEFAULT, ge=1, le=limits.HTTP_PAGE_MAX, description="at most"
    )
    page_token: str = Field(
        default="", max_length=4 * limits.NAME_BYTES_MAX, description="from the page before"
    )


class NamespacesQuery(PageQuery):
    """Which namespaces."""

    prefix: Name = Field(default="", description="of the namespace's name")


class ServicesQuery(PageQuery):
    """Which services."""

    prefix: Name = Field(default="", description="of the service's name")
    name: Name = Field(default="", description="a pattern of the name: * any signs, ? any one")
    group: Name = Field(default="", description="empty: of all groups")
    health: Literal["", "all", "some", "none"] = Field(
        default="", description="how many of its instances take traffic"
    )
    scope: Literal["cluster", "node"] = Field(
        default="cluster", description="node: only what the answering node holds"
    )


class InstancesQuery(PageQuery):
    """Which instances, and when."""

    zone: str = Field(default="", max_length=limits.ZONE_BYTES_MAX, description="empty: any")
    version: str = Field(default="", max_length=limits.VERSION_BYTES_MAX, description="empty: any")
    healthy: bool | None = Field(default=None, description="what is measured")
    enabled: bool | None = Field(default=None, description="what an operator decided")
    available: bool | None = Field(default=None, description="whether it takes traffic")
    metadata: list[Pair] = Field(
        default=[],
        max_length=limits.HTTP_PAIRS_MAX,
        description="key=value; given more than once: all of them",
    )
    fresh: bool = Field(
        default=False,
        description="ask the shard's primary: no acknowledged write is missed",
    )
    after: str = Field(
        default="",
        pattern=r"^([0-9]{1,10}\.[0-9]{1,19})?$",
        description="epoch.revision of an earlier answer: with `wait`, answer when that is old",
    )
    wait: str = Field(
        default="",
        pattern=r"^([0-9]{1,5}(ms|s)?)?$",
        description=f"how long to wait, as 30s or 500ms; at most {limits.HTTP_WAIT_MS // 1000}s; "
        "304 if nothing changed in that time",
    )

    @property
    def is_plain(self) -> bool:
        """Whether it asks for all instances as they are, as most do."""
        return self.model_fields_set <= {"page_size", "page_token"}


class InstanceQuery(Query):
    """How to read an instance."""

    fresh: bool = Field(
        default=False,
        description="ask the shard's primary: no acknowledged write is missed",
    )


class SubscribersQuery(Query):
    """How many subscribers."""

    limit: int = Field(
        default=limits.HTTP_PAGE_DEFAULT, ge=1, le=limits.HTTP_PAGE_MAX, description="at most"
    )


class SessionsQuery(Query):
    """Which sessions."""

    id_prefix: str = Field(
        default="", pattern=r"^([0-9a-f]{2}){0,16}$", description="of the id, in hexadecimal"
    )
    client_name: str = Field(
        default="",
        max_length=limits.CLIENT_NAME_BYTES_MAX,
        description="of clients whose name has this in it",
    )
    page_size: int = Field(
        default=limits.HTTP_PAGE_DEFAULT, ge=1, le=limits.SESSIONS_PAGE_MAX, description="at most"
    )
    page_token: str = Field(
        default="", pattern=r"^([0-9a-f]{2}){0,16}$", description="from the page before"
    )


class EventsQuery(Query):
    """Which events."""

    namespace: Name = Field(default="", description="empty: of all namespaces")
    group: Name = Field(default="", description="empty: of all groups")
    service: Name = Field(default="", description="empty: of all services")
    cluster: bool = Field(default=False, description="also what was decided about nodes and shards")
    limit: int = Field(
        default=limits.HTTP_PAGE_DEFAULT,
        ge=1,
        le=limits.EVENTS_PAGE_MAX,
        description="the newest so many",
    )


class AuditQuery(Query):
    """Which entries of the audit."""

    who: str = Field(
        default="",
        max_length=limits.AUDIT_TEXT_CHARS_MAX,
        description="only of a user or token, by its whole name there; empty: of all",
    )
    page_size: int = Field(
        default=limits.HTTP_PAGE_DEFAULT, ge=1, le=limits.AUDIT_PAGE_MAX, description="at most"
    )
    page_token: str = Field(
        default="", max_length=4 * limits.NAME_BYTES_MAX, description="from the page before"
    )


# --- bodies -------------------------------------------------------------------------------


class Ask(BaseModel):
    """The body of a request. This one is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    in_audit: ClassVar[bool] = True
    """Whether what it asks for is written down: not if a secret is in it."""


Metadata = Annotated[dict[str, str], Field(max_length=limits.METADATA_PAIRS_MAX)]
Weight = Annotated[float, Field(ge=0.0, le=limits.WEIGHT_MAX)]
Ttl = Annotated[int, Field(ge=limits.LEASE_TTL_MS_MIN, le=limits.LEASE_TTL_MS_MAX)]
Id = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]


class InstanceAsk(Ask):
    """An instance to register."""

    host: str = Field(min_length=1, max_length=limits.HOST_BYTES_MAX)
    port: int = Field(ge=1, le=65535)
    weight: Weight = 100.0
    status: StatusName = "up"
    zone: str = Field(default="", max_length=limits.ZONE_BYTES_MAX)
    version: str = Field(default="", max_length=limits.VERSION_BYTES_MAX)
    metadata: Metadata = {}
    ephemeral: bool = Field(
        default=True,
        description="it has a lease and is gone without it; false: it stays until deregistered",
    )
    ttl_ms: Ttl = Field(
        default=limits.LEASE_TTL_MS_DEFAULT, description="of the lease, which ends without renewal"
    )


class NewInstanceAsk(InstanceAsk):
    """An instance to register under an id that it brings or is given."""

    id: Name = Field(default="", description="empty: host:port")


class PatchAsk(Ask):
    """What to change of an instance (RFC 7396); what is left out stays."""

    weight: Weight = Field(default=0.0)
    status: StatusName = Field(default="up", description="what the instance says of itself")
    enabled: bool = Field(
        default=True,
        description="what an operator decides; it survives that the instance registers again",
    )
    metadata: (
        Annotated[dict[str, str | None], Field(max_length=2 * limits.METADATA_PAIRS_MAX)] | None
    ) = Field(default=None, description="pairs to set, or with null to remove; null: all removed")


class RenewalAsk(Ask):
    """One lease to renew."""

    in_audit = False

    namespace: Name
    group: Name
    service: Name = Field(description="one in which the lease keeps an instance")
    lease: str = Field(max_length=limits.HTTP_LEASE_CHARS_MAX, description="as it was given out")


class RenewalsAsk(Ask):
    """Leases to renew."""

    in_audit = False

    leases: list[RenewalAsk] = Field(max_length=limits.HTTP_RENEWALS_MAX)


class DrainAsk(Ask):
    """How to take an instance out of traffic."""

    timeout_ms: int = Field(
        default=15_000, ge=0, le=limits.HTTP_WAIT_MS, description="how long to wait for subscribers"
    )
    deregister: bool = Field(
        default=False, description="remove it, too, after every live subscriber knows"
    )


class NodeAsk(Ask):
    """A node of the cluster."""

    node: Id


class TransferAsk(Ask):
    """Which shard is to have which primary."""

    shard: int = Field(ge=0, lt=SHARDS)
    to: Id = Field(description="id of the node")


class SettingsAsk(Ask):
    """Settings of the cluster; what is left out stays."""

    copies: int | None = Field(default=None, ge=1, le=100)
    min_in_sync: int | None = Field(default=None, ge=1, le=100)
    moves_max: int | None = Field(default=None, ge=0, le=1_000_000)
    fence_after_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    lost_after_ms: int | None = Field(default=None, ge=0, le=31_536_000_000 // 10)
