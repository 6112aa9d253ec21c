"""Where a service lives: its slot and the shard that holds the slot.

16384 slots, CRC16-XMODEM as in Redis Cluster, cut into shards of equal runs of slots. Both
numbers are fixed when a cluster is created.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import lru_cache
from typing import NewType

Slot = NewType("Slot", int)
ShardId = NewType("ShardId", int)

SLOTS = 16384
SHARDS = 256
SLOTS_PER_SHARD = SLOTS // SHARDS


def slot_of(namespace: str, group: str, service: str) -> Slot:
    """Return the slot of a service."""
    return Slot(crc_hqx(f"{namespace}@@{group}@@{service}".encode(), 0) & (SLOTS - 1))


def shard_of_slot(slot: Slot) -> ShardId:
    """Return the shard that holds a slot."""
    return ShardId(slot // SLOTS_PER_SHARD)


@lru_cache(maxsize=16384)
def shard_of(namespace: str, group: str, service: str) -> ShardId:
    """Return the shard that holds a service."""
    key = f"{namespace}@@{group}@@{service}".encode()
    return ShardId((crc_hqx(key, 0) & (SLOTS - 1)) // SLOTS_PER_SHARD)
