"""What this client has registered, to be registered again if its session is lost.

Pure. Holds only what a node acknowledged and what the caller has not asked to remove since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssgovern import limits
from ssgovern.model import Instance, ServiceKey
from ssgovern.wire.codec import instance_to_wire, key_to_wire
from ssgovern.wire.pb import native_pb2

_BATCH_BYTES_MAX = limits.FRAME_BODY_BYTES_MAX
_ITEM_OVERHEAD_BYTES = 8
"""Tag and length of one item of a repeated field."""


class Holdings:
    """The instances of one session, in the order in which they were registered."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[ServiceKey, str], Instance] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<Holdings {len(self._held)}>"

    def hold(self, key: ServiceKey, instance: Instance) -> None:
        """Remember an instance as it was acknowledged."""
        self._held[key, instance.id] = instance

    def drop(self, key: ServiceKey, instance_id: str) -> None:
        """Forget an instance, held or not."""
        self._held.pop((key, instance_id), None)

    def held(self, key: ServiceKey, instance_id: str) -> Instance | None:
        """Return an instance as it was last acknowledged."""
        return self._held.get((key, instance_id))

    def registrations(self) -> list[native_pb2.Registration]:
        """Return everything held, as messages."""
        return [registration(key, instance) for (key, _), instance in self._held.items()]


def registration(key: ServiceKey, instance: Instance) -> native_pb2.Registration:
    """Return the message that registers an instance. What the node sets is left out."""
    message = instance_to_wire(instance)
    for field in ("unhealthy", "out_of_service", "revision", "registered_at_ms"):
        message.ClearField(field)
    return native_pb2.Registration(service=key_to_wire(key), instance=message)


def in_batches(
    registrations: Iterable[native_pb2.Registration],
) -> Iterator[list[native_pb2.Registration]]:
    """Cut registrations into requests that keep to the limits of count and size."""
    batch: list[native_pb2.Registration] = []
    batch_bytes = 0
    for item in registrations:
        item_bytes = item.ByteSize() + _ITEM_OVERHEAD_BYTES
        if batch and (
            len(batch) >= limits.REGISTER_BATCH_MAX or batch_bytes + item_bytes > _BATCH_BYTES_MAX
        ):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += item_bytes
    if batch:
        yield batch
