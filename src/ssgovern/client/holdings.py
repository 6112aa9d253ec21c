"""What this client has registered, to be registered again if its session is lost.

Pure. Holds only what a node acknowledged and what the caller has not asked to remove since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssgovern import limits
from ssgovern.model import Instance, ServiceKey, ShardId, shard_of
from ssgovern.wire.codec import instance_to_wire, key_to_wire
from ssgovern.wire.pb import native_pb2

_BATCH_BYTES_MAX = limits.FRAME_BODY_BYTES_MAX
_ITEM_OVERHEAD_BYTES = 8
"""Tag and length of one item of a repeated field."""


class Holdings:
    """The instances of one session, by shard."""

    __slots__ = ("_held", "_shards")

    def __init__(self) -> None:
        self._held: dict[tuple[ServiceKey, str], Instance] = {}
        self._shards: dict[ShardId, dict[tuple[ServiceKey, str], None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<Holdings {len(self._held)}>"

    def hold(self, key: ServiceKey, instance: Instance) -> None:
        """Remember an instance as it was acknowledged."""
        self._held[key, instance.id] = instance
        self._shards.setdefault(shard_of(*key), {})[key, instance.id] = None

    def drop(self, key: ServiceKey, instance_id: str) -> None:
        """Forget an instance, held or not."""
        if self._held.pop((key, instance_id), None) is None:
            return
        shard = shard_of(*key)
        left = self._shards[shard]
        del left[key, instance_id]
        if not left:
            del self._shards[shard]

    def held(self, key: ServiceKey, instance_id: str) -> Instance | None:
        """Return an instance as it was last acknowledged."""
        return self._held.get((key, instance_id))

    def shards(self) -> list[ShardId]:
        """Return the shards in which anything is held."""
        return list(self._shards)

    def has_shard(self, shard: ShardId) -> bool:
        """Tell whether anything is held in a shard."""
        return shard in self._shards

    def ids_in(self, shards: Iterable[ShardId]) -> list[tuple[ServiceKey, str]]:
        """Return what is held in some shards."""
        return [each for shard in shards for each in self._shards.get(shard, ())]

    def registrations(
        self, held: Iterable[tuple[ServiceKey, str]]
    ) -> list[native_pb2.Registration]:
        """Return those that are held of some, as messages."""
        return [registration(each[0], self._held[each]) for each in held if each in self._held]


def registration(key: ServiceKey, instance: Instance) -> native_pb2.Registration:
    """Return the message that registers an instance. What the node sets is left out."""
    message = instance_to_wire(instance)
    for field in (
        "unhealthy",
        "out_of_service",
        "revision",
        "registered_at_ms",
        "lease_ms",
    ):
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
