"""One running copy of a service, as callers see it.

Three things are kept apart, because they have three owners: `status` is what the instance says
of itself, `healthy` is what is measured, `enabled` is what an operator decided and survives
that the instance registers again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, LimitExceededError
from ssgovern.model.names import check_name, check_text

_USUAL = re.compile(r"[!-)+->A-~]*")
"""Printable ASCII without space, `*`, `?` and `@`: allowed in every field."""

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Status(IntEnum):
    """What an instance says of itself."""

    UP = 0
    STARTING = 1
    STOPPING = 2
    DOWN = 3


@dataclass(frozen=True, slots=True)
class Instance:
    """A value: it never changes, a newer state of the instance is a new value.

    `weight` is relative (0 takes no traffic), `revision` is the shard's revision of the last
    change of this instance (0: not registered), `registered_at_ms` is wall time, for display,
    `lease_ms` is the time to live of the lease that keeps it (0: a session does, or nobody).
    """

    id: str
    host: str
    port: int
    weight: float = 100.0
    status: Status = Status.UP
    healthy: bool = True
    enabled: bool = True
    ephemeral: bool = True
    zone: str = ""
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA)
    revision: int = 0
    registered_at_ms: int = 0
    lease_ms: int = 0

    @property
    def available(self) -> bool:
        """Whether callers should send traffic here."""
        return self.status is Status.UP and self.healthy and self.enabled and self.weight > 0.0

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return instance_id(self.host, self.port)


def instance_id(host: str, port: int) -> str:
    """Return the id an instance gets that does not bring its own."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_instance(
    instance_id: str,
    host: str,
    port: int,
    weight: float,
    zone: str,
    version: str,
) -> None:
    """Raise unless these fields may be registered. Metadata: `check_metadata`."""
    together = f"{instance_id}{host}{zone}{version}"
    if (
        len(together) <= limits.ZONE_BYTES_MAX
        and instance_id
        and host
        and 1 <= port <= 65535
        and 0.0 <= weight <= limits.WEIGHT_MAX
        and _USUAL.fullmatch(together)
    ):
        # All that is usual passes at once; what is not is looked at field by field.
        return
    check_name("instance id", instance_id)
    if not host:
        raise InvalidArgumentError("host is empty", field="host")
    check_text("host", host, limits.HOST_BYTES_MAX)
    if " " in host:
        raise InvalidArgumentError(f"host {host!r} has a space in it", field="host")
    if not 1 <= port <= 65535:
        raise InvalidArgumentError(f"port {port}: allowed are 1 to 65535", field="port")
    check_weight(weight)
    if zone:
        check_text("zone", zone, limits.ZONE_BYTES_MAX)
    if version:
        check_text("version", version, limits.VERSION_BYTES_MAX)


def check_weight(weight: float) -> None:
    """Raise unless the weight is a finite number from 0 to `limits.WEIGHT_MAX`."""
    if not 0.0 <= weight <= limits.WEIGHT_MAX or math.isnan(weight):
        raise InvalidArgumentError(
            f"weight {weight}: allowed are 0 to {limits.WEIGHT_MAX:g}", field="weight"
        )


def check_metadata(metadata: Mapping[str, str], size_bytes: int | None = None) -> None:
    """Raise unless the metadata keeps to the limits. Values may be any text.

    `size_bytes` is the encoded size of it all, or more, where it is known.
    """
    keys = "".join(metadata)
    if (
        len(metadata) <= limits.METADATA_PAIRS_MAX
        and len(keys) <= limits.METADATA_KEY_BYTES_MAX
        and size_bytes is not None
        and size_bytes <= limits.METADATA_VALUE_BYTES_MAX
        and keys.isascii()
        and keys.isprintable()
        and "" not in metadata
    ):
        return
    if len(metadata) > limits.METADATA_PAIRS_MAX:
        raise LimitExceededError(
            f"{len(metadata)} metadata pairs: at most {limits.METADATA_PAIRS_MAX} are allowed",
            field="metadata",
            limit=limits.METADATA_PAIRS_MAX,
        )
    for key, value in metadata.items():
        if not key:
            raise InvalidArgumentError("metadata key is empty", field="metadata")
        check_text("metadata key", key, limits.METADATA_KEY_BYTES_MAX)
        if len(value) * 4 > limits.METADATA_VALUE_BYTES_MAX and (
            len(value.encode()) > limits.METADATA_VALUE_BYTES_MAX
        ):
            raise LimitExceededError(
                f"metadata value of {key!r} is longer than {limits.METADATA_VALUE_BYTES_MAX} bytes",
                field="metadata",
                limit=limits.METADATA_VALUE_BYTES_MAX,
            )
