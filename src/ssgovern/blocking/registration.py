"""What `register` returns to callers without an event loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Literal, Self, overload

from ssgovern.blocking.thread import LoopThread
from ssgovern.client.registration import Registration as AsyncRegistration
from ssgovern.client.subscribers import Release
from ssgovern.model import Instance, ServiceKey, Status


class Registration:
    """See `ssgovern.Registration`."""

    def __init__(self, thread: LoopThread, registration: AsyncRegistration) -> None:
        self._thread = thread
        self._registration = registration

    def __repr__(self) -> str:
        return repr(self._registration)

    @property
    def key(self) -> ServiceKey:
        """The full name of the service."""
        return self._registration.key

    @property
    def instance(self) -> Instance:
        """The instance as last registered or updated through this object."""
        return self._registration.instance

    @property
    def revision(self) -> int:
        """The shard's revision of that."""
        return self._registration.revision

    @overload
    def deregister(self, *, wait: Literal[False] = False, timeout: float | None = None) -> bool: ...

    @overload
    def deregister(self, *, wait: Literal[True], timeout: float | None = None) -> Release: ...

    def deregister(self, *, wait: bool = False, timeout: float | None = None) -> bool | Release:
        """Remove the instance; with `wait`, wait until every live subscriber knows."""
        if wait:
            return self._thread.call(self._registration.deregister(wait=True, timeout=timeout))
        return self._thread.call(self._registration.deregister(timeout=timeout))

    def drain(
        self, *, deregister: bool = True, grace: float = 0.0, timeout: float | None = None
    ) -> Release:
        """Take the instance out of traffic, wait until every live subscriber knows, remove it."""
        return self._thread.call(
            self._registration.drain(deregister=deregister, grace=grace, timeout=timeout)
        )

    def update(
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
        """Change fields of the instance."""
        return self._thread.call(
            self._registration.update(
                weight=weight,
                status=status,
                enabled=enabled,
                metadata=metadata,
                metadata_set=metadata_set,
                metadata_remove=metadata_remove,
                timeout=timeout,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.deregister()
