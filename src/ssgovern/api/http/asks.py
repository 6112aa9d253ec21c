"""What may be asked over the open API, as types: parameters and bodies.

Checked against these before anything is done; their description comes from them, too. Names are
those of the answers (`bodies`). Limits of values are the model's and are checked where the value
is used; here is what bounds memory and shape.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ssgovern import limits

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


# --- bodies -------------------------------------------------------------------------------


class Ask(BaseModel):
    """The body of a request. This one is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
