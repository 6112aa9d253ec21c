"""What an operator asks of the cluster: how it is, and that it changes.

Knows how such requests are worded; any node passes them on to the controller, so they go to
whichever node the client is connected to. Invariant: what might do more when it is done twice
is not repeated after a lost answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ssgovern.client.session import Session
from ssgovern.client.values import ClusterNode, ClusterStatus, ShardPiece, ShardRow
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import LogPosition, ShardId
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

COMMAND_TIMEOUT_S = 15.0
"""A command waits for a controller to be elected, if need be, and for the log."""
_SETTINGS = frozenset(native_pb2.ChangeSettings.DESCRIPTOR.fields_by_name)


class Administration:
    """The part of `Registry` that is about the cluster itself."""

    _session: Session
    _timeout_s: float

    async def cluster_status(
        self, shards: bool = False, *, timeout: float | None = None
    ) -> ClusterStatus:
        """Ask a node about the cluster; with `shards` also who keeps each of them."""
        answer = await self._session.call(
            MessageType.CLUSTER_STATUS,
            native_pb2.ClusterStatusRequest(shards=shards),
            native_pb2.ClusterStatusResponse,
            self._deadline(timeout),
            repeatable=True,
        )
        return _status(answer)

    async def cluster_leave(self, node_id: int, *, timeout: float | None = None) -> str:
        """Have everything moved away from a node, which is then removed for good.

        This and the other commands return what was decided, as a sentence; doing it may take
        longer. Raises InvalidArgumentError if it cannot be.
        """
        return await self._command(native_pb2.ClusterCommandRequest(leave=node_id), timeout)

    async def cluster_stay(self, node_id: int, *, timeout: float | None = None) -> str:
        """Take back that a node shall leave."""
        return await self._command(native_pb2.ClusterCommandRequest(stay=node_id), timeout)

    async def cluster_transfer(self, shard: int, to: int, *, timeout: float | None = None) -> str:
        """Make a node the primary of a shard."""
        transfer = native_pb2.TransferShard(shard=shard, to=to)
        return await self._command(native_pb2.ClusterCommandRequest(transfer=transfer), timeout)

    async def cluster_transfer_controller(self, to: int, *, timeout: float | None = None) -> str:
        """Hand the controller's duty to another candidate."""
        return await self._command(
            native_pb2.ClusterCommandRequest(transfer_controller=to), timeout
        )

    async def cluster_settings(self, *, timeout: float | None = None, **changes: int) -> str:
        """Change settings by name: `copies`, `min_in_sync`, `moves_max`, `fence_after_ms`,
        `lost_after_ms`. What is not named stays.
        """
        unknown = sorted(changes.keys() - _SETTINGS)
        if unknown or not changes:
            raise InvalidArgumentError(
                f"settings {', '.join(unknown) or '(none)'}: allowed are "
                f"{', '.join(sorted(_SETTINGS))}",
                field="settings",
            )
        try:
            settings = native_pb2.ChangeSettings(**changes)
        except ValueError as error:
            raise InvalidArgumentError(f"settings {changes}: {error}", field="settings") from None
        return await self._command(native_pb2.ClusterCommandRequest(settings=settings), timeout)

    async def cluster_candidates(
        self, *, add: int = 0, remove: int = 0, timeout: float | None = None
    ) -> str:
        """Make a node a candidate, or one that is no longer; 0: none."""
        change = native_pb2.CandidateChange(add=add, remove=remove)
        return await self._command(native_pb2.ClusterCommandRequest(candidates=change), timeout)

    async def cluster_unclean(
        self, shard: int, node_id: int, *, timeout: float | None = None
    ) -> str:
        """Promote a node that may lack what was acknowledged. The last resort.

        Not repeated when its answer is lost: look at `cluster_status` then.
        """
        unclean = native_pb2.UncleanElection(shard=shard, node_id=node_id)
        return await self._command(
            native_pb2.ClusterCommandRequest(unclean=unclean), timeout, repeatable=False
        )

    async def read_shard(
        self, shard: int, *, timeout: float | None = None
    ) -> AsyncIterator[ShardPiece]:
        """Read all that a shard holds, as it is when this begins, piece by piece; for a backup.

        `timeout` is for each piece. Nothing is repeated: whoever it fails for begins anew.
        """
        await self._session.connected(self._deadline(timeout))
        node = self._session.primary_of_shard(ShardId(shard))
        number = 0
        while True:
            answer = await self._session.ask(
                node,
                MessageType.READ_SHARD,
                native_pb2.ReadShardRequest(shard=shard, number=number),
                native_pb2.ReadShardResponse,
                self._deadline(timeout),
            )
            position = LogPosition(answer.epoch, answer.revision)
            yield ShardPiece(position, answer.instances, answer.chunk)
            if answer.done:
                return
            number += 1

    async def _command(
        self,
        request: native_pb2.ClusterCommandRequest,
        timeout: float | None,
        *,
        repeatable: bool = True,
    ) -> str:
        answer = await self._session.call(
            MessageType.CLUSTER_COMMAND,
            request,
            native_pb2.ClusterCommandResponse,
            self._deadline(max(COMMAND_TIMEOUT_S, self._timeout_s) if timeout is None else timeout),
            repeatable=repeatable,
        )
        return answer.sentence

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._timeout_s if timeout is None else timeout
        return asyncio.get_running_loop().time() + seconds


def _status(answer: native_pb2.ClusterStatusResponse) -> ClusterStatus:
    return ClusterStatus(
        cluster_id=answer.cluster_id,
        map_version=answer.map_version,
        controller_id=answer.controller_id,
        term=answer.term,
        index=answer.index,
        nodes=tuple(map(_node, answer.nodes)),
        shards=tuple(map(_row, answer.shards)),
        copies=answer.copies,
        min_in_sync=answer.min_in_sync,
        shards_total=answer.shards_total,
        shards_unavailable=answer.shards_unavailable,
        shards_below_copies=answer.shards_below_copies,
        moves=answer.moves,
        node_id=answer.node_id,
        controller_heard=answer.controller_heard,
        candidates=tuple(answer.candidates),
        node_id_next=answer.node_id_next,
    )


def _node(line: native_pb2.ClusterNodeStatus) -> ClusterNode:
    return ClusterNode(
        node_id=line.node_id,
        name=line.name,
        address=line.address,
        zone=line.zone,
        live=line.live,
        leaving=line.leaving,
        lost=line.lost,
        candidate=line.candidate,
        primaries=line.primaries,
        holds=line.holds,
        in_sync=line.in_sync,
        session=line.session,
    )


def _row(line: native_pb2.ShardStatus) -> ShardRow:
    return ShardRow(
        shard=line.shard,
        epoch=line.epoch,
        version=line.version,
        primary=line.primary,
        holders=tuple(line.holders),
        in_sync=tuple(line.in_sync),
        eligible=tuple(line.eligible),
        incoming=line.incoming,
        outgoing=line.outgoing,
        successor=line.successor,
    )
