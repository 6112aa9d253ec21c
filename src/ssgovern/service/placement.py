"""Which shards this node may act for, as the use cases ask it.

The use cases know no shard map, no lease and no log: they ask a `Placement` before they do
anything, and what it raises is the answer to the client. Invariant: whatever a check raises,
nothing was done, so that the same request may be sent again, here or elsewhere.

A shard mask is a number of which bit i stands for shard i; on the wire it is those bits in
bytes, lowest first (`mask_from_wire`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ssgovern.errors import InvalidArgumentError, ShardMovedError
from ssgovern.model import SHARDS, NodeId, ShardId, ShardMap
from ssgovern.wire.pb import native_pb2

ALL_SHARDS = (1 << SHARDS) - 1
"""The mask of every shard."""

_MASK_BYTES = SHARDS // 8
_ONLY = NodeId(1)


class Placement(Protocol):
    """What a node may do for each shard now. Every answer holds for this turn of the loop."""

    def check_write(self, shard: ShardId) -> None:
        """Raise unless entries of the shard may be proposed here.

        ShardMovedError: another node is the primary; ShardUnavailableError: nobody may act
        now, or this node may not; OverloadedError: too much waits. Nothing was done.
        """

    def check_read(self, shard: ShardId, *, replica_too: bool) -> None:
        """Raise unless the shard may be read here: as its primary, or also as a replica.

        ShardMovedError or ShardUnavailableError.
        """

    def holds(self, shard: ShardId) -> bool:
        """Whether the shard's state is here, as primary or replica, fit for subscriptions."""

    def map_update(self, since: int) -> native_pb2.ShardMapUpdate:
        """Return what changed in the shard map since a version; everything if that is unknown."""

    @property
    def map_version(self) -> int:
        """Version of the shard map this node knows."""


class Standalone:
    """The placement of a node that is all there is: everything is allowed."""

    def __init__(
        self,
        shard_map: ShardMap | None = None,
        *,
        node_id: NodeId = _ONLY,
        node_name: str = "",
        cluster_id: bytes = b"",
    ) -> None:
        self._map = shard_map
        self._node_id = node_id
        self._node_name = node_name
        self._cluster_id = cluster_id

    def check_write(self, shard: ShardId) -> None:
        """Allow."""

    def check_read(self, shard: ShardId, *, replica_too: bool) -> None:
        """Allow."""

    def holds(self, shard: ShardId) -> bool:
        """Say yes."""
        return True

    @property
    def map_version(self) -> int:
        """Version of the map; 0 if this node was given none."""
        return 0 if self._map is None else self._map.version

    def map_update(self, since: int) -> native_pb2.ShardMapUpdate:
        """Return the whole map, or nothing if the client has it already.

        An empty address stands for the one at which the client reached this node.
        """
        version = self.map_version
        known = since == version and since > 0
        update = native_pb2.ShardMapUpdate(
            cluster_id=self._cluster_id, since=version if known else 0, version=version
        )
        if known or self._map is None:
            return update
        node_id = self._node_id
        update.nodes.add(node_id=node_id, name=self._node_name, live=True)
        for shard, row in enumerate(self._map.shards):
            update.rows.add(
                shard=shard,
                epoch=row.epoch,
                primary=node_id,
                holders=(node_id,),
                in_sync=(node_id,),
            )
        return update


# --- masks --------------------------------------------------------------------------------


def mask_of(shards: Iterable[ShardId]) -> int:
    """Return the mask of some shards."""
    mask = 0
    for shard in shards:
        mask |= 1 << shard
    return mask


def mask_from_wire(shards: bytes) -> int:
    """Return the mask a request gives; 0 if it gives none. Raises InvalidArgumentError."""
    mask = int.from_bytes(shards, "little")
    if len(shards) > _MASK_BYTES or (shards and not mask):
        raise InvalidArgumentError(
            f"a shard mask names one or more of {SHARDS} shards, bit i of byte i/8 shard i; "
            "leave it out for all",
            field="shards",
        )
    return mask


def mask_to_wire(mask: int) -> bytes:
    """Return a mask as requests carry it."""
    return mask.to_bytes(_MASK_BYTES, "little")


def check_holds(placement: Placement, mask: int) -> None:
    """Raise ShardMovedError unless this node holds every shard of the mask."""
    missing = [
        shard
        for shard in range(SHARDS)
        if mask >> shard & 1 and not placement.holds(ShardId(shard))
    ]
    if missing:
        raise ShardMovedError(
            f"this node does not hold {len(missing)} of the shards asked for, "
            f"shard {missing[0]} among them; ask with a mask of what a node holds",
            field="shards",
            shard=missing[0],
            map_version=placement.map_version,
        )
