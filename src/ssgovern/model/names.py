"""Names of services and the rules they obey.

A name may be any printable text without white space (service names of Dubbo, Spring, Nacos
and Chinese ones all fit), but not `*` or `?`, which patterns use, and not `@@`, which joins
the three parts of a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, LimitExceededError

DEFAULT_NAMESPACE = "default"
DEFAULT_GROUP = "default"


class ServiceKey(NamedTuple):
    """The full name of a service."""

    namespace: str
    group: str
    service: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.group}/{self.service}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """All services of a namespace and group whose names start with `prefix`.

    Not a tuple: it would equal the `ServiceKey` of the service that is named like its prefix.
    """

    namespace: str
    group: str
    prefix: str

    def matches(self, key: ServiceKey) -> bool:
        """Tell whether the pattern covers a service."""
        return (
            key.namespace == self.namespace
            and key.group == self.group
            and key.service.startswith(self.prefix)
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.group}/{self.prefix}*"


def check_name(field: str, name: str) -> None:
    """Raise unless `name` may name a namespace, group, service or instance."""
    if not name:
        raise InvalidArgumentError(f"{field} is empty", field=field)
    check_text(field, name, limits.NAME_BYTES_MAX)
    if " " in name or "*" in name or "?" in name or "@@" in name:
        raise InvalidArgumentError(
            f"{field} {name!r}: spaces, '*', '?' and '@@' are not allowed", field=field
        )


def check_prefix(field: str, prefix: str) -> None:
    """Raise unless `prefix` may begin a service's name; an empty one begins all."""
    if prefix:
        check_name(field, prefix)


def check_text(field: str, text: str, bytes_max: int) -> None:
    """Raise unless `text` is printable and at most `bytes_max` bytes long in UTF-8."""
    if not text.isprintable():
        raise InvalidArgumentError(
            f"{field} {text[:80]!r}: only printable characters are allowed", field=field
        )
    if len(text) > bytes_max or (not text.isascii() and len(text.encode()) > bytes_max):
        raise LimitExceededError(
            f"{field} is longer than {bytes_max} bytes", field=field, limit=bytes_max
        )


def check_key(key: ServiceKey) -> None:
    """Raise unless all three parts of a key are valid names."""
    valid_key(*key)


@lru_cache(maxsize=16384)
def valid_key(namespace: str, group: str, service: str) -> ServiceKey:
    """Return the key of a service; raise unless all three parts are valid names.

    Remembers the valid ones: few services are asked for often.
    """
    check_name("namespace", namespace)
    check_name("group", group)
    check_name("service", service)
    return ServiceKey(namespace, group, service)
