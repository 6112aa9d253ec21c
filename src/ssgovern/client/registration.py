"""An instance that this client registered: the caller's handle, and what is checked before.

Knows how an instance has to look; sending is the registry's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, overload

from ssgovern import limits
from ssgovern.client.holdings import registration
from ssgovern.client.subscribers import Release
from ssgovern.errors import InvalidArgumentError, LimitExceededError
from ssgovern.model import (
    Instance,
    ServiceKey,
    Status,
    check_instance,
    check_metadata,
    instance_id,
)

if TYPE_CHECKING:
    from ssgovern.client.registry import Registry


class Registration:
    """One instance that this client registered and keeps registered.

    As a context manager it deregisters the instance at the end.
    """

    __slots__ = ("_registry", "instance", "key", "revision")

    def __init__(
        self, registry: Registry, key: ServiceKey, instance: Instance, revision: int
    ) -> None:
        self._registry = registry
        self.key = key
        self.instance = instance
        """As last registered or updated through this object."""
        self.revision = revision
        """The shard's revision of that."""

    def __repr__(self) -> str:
        return f"<Registration {self.key} {self.instance.id} revision={self.revision}>"

    @overload
    async def deregister(
        self, *, wait: Literal[False] = False, timeout: float | None = None
    ) -> bool: ...

    @overload
    async def deregister(self, *, wait: Literal[True], timeout: float | None = None) -> Release: ...

    async def deregister(
        self, *, wait: bool = False, timeout: float | None = None
    ) -> bool | Release:
        """Remove the instance; return whether it was still there.

        With `wait`: until every live subscriber knows; see `Registry.release`.
        """
        service, name, group = self.key.service, self.instance.id, self.key.group
        if wait:
            return await self._registry.release(service, name, group=group, timeout=timeout)
        return await self._registry.deregister(service, name, group=group, timeout=timeout)

    async def drain(
        self,
        *,
        deregister: bool = True,
        grace: float = 0.0,
        timeout: float | None = None,
    ) -> Release:
        """Say that the instance is stopping, wait until every live subscriber knows, finish for
        `grace` seconds, remove it and wait for that, too; see `Registry.drain`.
        """
        return await self._registry.drain(
            self.key.service,
            self.instance.id,
            group=self.key.group,
            deregister=deregister,
            grace=grace,
            timeout=timeout,
        )

    async def update(
        self,
        *,
        weight: float | None = None,
        status: Status | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        metadata_set: Mapping[str, str] | None = None,
        metadata_remove: Iterable[str] = (),
        timeout: float | None = None,
    ) -> Instance:
        """Change fields of the instance; see `Registry.update`."""
        updated = await self._registry.update(
            self.key.service,
            self.instance.id,
            group=self.key.group,
            weight=weight,
            status=status,
            enabled=enabled,
            metadata=metadata,
            metadata_set=metadata_set,
            metadata_remove=metadata_remove,
            timeout=timeout,
        )
        self.instance, self.revision = updated, updated.revision
        return updated

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.deregister()


def check_pairs(metadata: Mapping[str, str]) -> None:
    """Raise unless these pairs may be sent."""
    pairs: Iterable[tuple[object, object]] = metadata.items()
    for key, value in pairs:
        # Callers without types find out here, and so does text that came from bytes that are
        # no UTF-8: what encodes messages has no words for either.
        if not (isinstance(key, str) and isinstance(value, str) and _is_encodable(value)):
            raise InvalidArgumentError(
                f"metadata {key!r}: {value!r}: keys and values are text", field="metadata"
            )
    check_metadata(metadata)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_revision(revision: int) -> None:
    """Raise unless this may be the revision of a condition; 0 is none."""
    if not 0 <= revision < 1 << 64:
        raise InvalidArgumentError(
            f"revision {revision}: allowed are 0 to {(1 << 64) - 1}", field="if_revision"
        )


def checked(instance: Instance) -> Instance:
    """Return an instance with its id, or raise what the node would answer."""
    if not instance.id:
        instance = replace(instance, id=instance_id(instance.host, instance.port))
    check_instance(
        instance.id,
        instance.host,
        instance.port,
        instance.weight,
        instance.zone,
        instance.version,
    )
    check_pairs(instance.metadata)
    encoded_bytes = registration(ServiceKey("", "", ""), instance).instance.ByteSize()
    if encoded_bytes > limits.INSTANCE_BYTES_MAX:
        raise LimitExceededError(
            f"instance {instance.id!r} takes {encoded_bytes} bytes: at most "
            f"{limits.INSTANCE_BYTES_MAX} are allowed",
            field="metadata",
            limit=limits.INSTANCE_BYTES_MAX,
        )
    return instance
