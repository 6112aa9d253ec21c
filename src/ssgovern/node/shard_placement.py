"""What a node of a cluster may do for each shard now: by its role, its lease and the map.

Refuses to change anything. Invariant: a write or a read at the primary is allowed only while this
node's lease keeps everybody else from being promoted past it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.errors import ShardMovedError, ShardUnavailableError, SsGovernError
from ssgovern.model import NodeId, ShardId
from ssgovern.node.hosted import HostedShard
from ssgovern.node.metadata import Metadata
from ssgovern.wire.pb import native_pb2


class Host(Protocol):
    """Who has the shards."""

    @property
    def hosted(self) -> Sequence[HostedShard]: ...

    stopping: bool


class ShardPlacement:
    """The `service.placement.Placement` of a node of a cluster."""

    def __init__(self, node: NodeId, metadata: Metadata, host: Host) -> None:
        self._node = node
        self._metadata = metadata
        self._host = host
        self._loop = asyncio.get_running_loop()

    @property
    def map_version(self) -> int:
        return self._metadata.map_version

    def map_update(self, since: int) -> native_pb2.ShardMapUpdate:
        return self._metadata.map_update(since, self._node)

    def check_write(self, shard: ShardId) -> None:
        primary = self._host.hosted[shard].primary
        if primary is None:
            raise self._not_here(shard)
        refusal = primary.refusal(self._now_ms())
        if refusal is not None:
            raise refusal
        if not primary.has_begun:
            raise ShardUnavailableError(
                f"the primary of shard {shard} found no space yet to begin its epoch", shard=shard
            )
        if self._host.stopping or self._row(shard).successor != NOBODY:
            raise ShardUnavailableError(
                f"shard {shard} is being handed over: ask again in a moment", shard=shard
            )

    def check_read(self, shard: ShardId, *, replica_too: bool) -> None:
        hosted = self._host.hosted[shard]
        primary = hosted.primary
        if primary is not None and primary.may_read(self._now_ms()):
            return
        if replica_too and self.holds(shard):
            return
        if primary is None:
            raise self._not_here(shard)
        raise ShardUnavailableError(
            f"the primary of shard {shard} may not act: it has not heard from the controller, "
            "or has not finished its start",
            shard=shard,
        )

    def holds(self, shard: ShardId) -> bool:
        # What was in sync and applied once in this life is the shard as it was a moment ago, even
        # if it is behind now; what never was may be of last week.
        return self._host.hosted[shard].settled

    def _not_here(self, shard: ShardId) -> SsGovernError:
        primary = self._row(shard).primary
        if primary in (NOBODY, self._node):
            return ShardUnavailableError(
                f"shard {shard} has no primary at present: ask again in a moment", shard=shard
            )
        return ShardMovedError(
            f"node {primary} is the primary of shard {shard}",
            shard=shard,
            node=primary,
            map_version=self.map_version,
        )

    def _row(self, shard: ShardId) -> ShardRow:
        return self._metadata.state.rows[shard]

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000.0)
