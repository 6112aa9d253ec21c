"""Does what the primaries of this node decide, and asks the controller on their behalf.

Everything a primary decides may be done at once and in order: what rests on its own disk it
decides only when the disk has it. Refuses to know how a shard came to its role.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ssgovern import limits
from ssgovern.controller.codec import in_sync_to_wire, resigned_to_wire
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.errors import FencedError, InvalidArgumentError, SsGovernError
from ssgovern.model import NodeId, ShardId
from ssgovern.node.hosted import HostedShard
from ssgovern.node.replication_sender import Asker, Links
from ssgovern.registry.snapshot import Captured, encode_chunks
from ssgovern.replication.codec import encode_snapshot_pieces
from ssgovern.replication.messages import (
    Commit,
    Effect,
    InSyncRefused,
    Message,
    ProposeInSync,
    Send,
    SendSnapshot,
    StepDown,
)
from ssgovern.replication.primary import Proposal
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import MessageType

log = logging.getLogger("ssgovern.shards")


class Deeds(Protocol):
    """What of a primary's decisions is the host's to do."""

    session: int

    def commit(self, proposals: Sequence[Proposal]) -> None:
        """These are committed: apply them, then answer who waits."""

    def demote(self, hosted: HostedShard, unknown: Sequence[Proposal]) -> None:
        """It leads no more."""

    def capture(self, shard: ShardId) -> Captured:
        """Return the shard's state as it is now."""


class PrimaryDriver:
    """The deeds of all primaries of a node."""

    def __init__(
        self,
        node: NodeId,
        deeds: Deeds,
        links: Links,
        asker: Asker,
        send: Callable[[NodeId, Message], None],
    ) -> None:
        self._node = node
        self._deeds = deeds
        self._links = links
        self._asker = asker
        self._send = send
        self._sending = asyncio.Semaphore(limits.SHARD_SNAPSHOTS_AT_ONCE)
        self._to_send: dict[tuple[ShardId, NodeId], SendSnapshot] = {}
        """Shards that are being sent whole or wait for their turn, each to a node once."""
        self.snapshots_sent = 0

    def do(self, group: asyncio.TaskGroup, hosted: HostedShard, effects: Sequence[Effect]) -> None:
        """Do effects of a shard's primary."""
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.target, effect.message)
                case Commit():
                    self._deeds.commit(effect.proposals)
                case SendSnapshot():
                    self._begin_to_send(group, hosted, effect)
                case StepDown():
                    log.debug("shard %d: no longer primary: %s", hosted.shard, effect.reason)
                    self._deeds.demote(hosted, effect.unknown)
                case ProposeInSync():
                    self._ask_in_sync(group, hosted, effect)
                case _:
                    raise AssertionError(f"{hosted!r}: {effect} is a replica's")

    def _ask_in_sync(
        self, group: asyncio.TaskGroup, hosted: HostedShard, effect: ProposeInSync
    ) -> None:
        asked = InSyncRequest(
            effect.shard,
            self._node,
            self._deeds.session,
            effect.epoch,
            effect.version,
            tuple((member.node, member.node_epoch) for member in effect.in_sync),
        )

        def refused(error: SsGovernError) -> None:
            if isinstance(error, FencedError | InvalidArgumentError) and hosted.primary is not None:
                hosted.primary.on_in_sync_refused(
                    InSyncRefused(effect.shard, effect.epoch, effect.version)
                )

        self._asker.ask(
            group,
            MessageType.IN_SYNC_CHANGE,
            effect.shard,
            encode(in_sync_to_wire(asked)),
            refused,
        )

    def maybe_resign(self, group: asyncio.TaskGroup, hosted: HostedShard, row: ShardRow) -> None:
        """Say that the primary whom the row names has stopped, if that is so.

        It stops for its successor when all that it was given is committed. It also says so
        when it led the row's epoch and does no more, or obeys a later one: then the epoch needs
        another.
        """
        primary = hosted.primary
        if row.primary != self._node or not self._deeds.session:
            return
        if primary is not None and not primary.deposed:
            handing_over = row.successor != NOBODY and row.epoch == primary.epoch
            if not handing_over or primary.committed < primary.tail or not primary.serving:
                return
        elif hosted.switching or hosted.may_lead(row.epoch):
            return
        said = Resigned(hosted.shard, self._node, self._deeds.session, row.epoch, row.version)
        self._asker.ask(
            group,
            MessageType.SHARD_RESIGNED,
            hosted.shard,
            encode(resigned_to_wire(said)),
            lambda error: log.debug("shard %d is not handed over: %s", said.shard, error),
        )

    def _begin_to_send(
        self, group: asyncio.TaskGroup, hosted: HostedShard, effect: SendSnapshot
    ) -> None:
        # A primary asks again if it hears nothing for a while, which a large shard may take.
        key = (effect.shard, effect.target)
        begun = key in self._to_send
        if not begun or self._to_send[key] != effect:
            self._to_send[key] = effect
        if not begun:
            group.create_task(self._send_shard(hosted, key), name=f"send-shard-{hosted.shard}")

    async def _send_shard(self, hosted: HostedShard, key: tuple[ShardId, NodeId]) -> None:
        sent: SendSnapshot | None = None
        try:
            while self._to_send[key] is not sent:
                async with self._sending:
                    sent = self._to_send[key]
                    await self._send_snapshot(hosted, sent)
        finally:
            del self._to_send[key]

    async def _send_snapshot(self, hosted: HostedShard, effect: SendSnapshot) -> None:
        primary = hosted.primary
        if primary is None or primary.deposed or primary.epoch != effect.epoch:
            return
        captured = self._deeds.capture(effect.shard)
        self.snapshots_sent += 1
        pieces = self._pieces(effect, captured)
        await self._links.send_paced(effect.target, MessageType.SHARD_SNAPSHOT, pieces)

    def _pieces(self, effect: SendSnapshot, captured: Captured) -> Iterable[bytes]:
        return encode_snapshot_pieces(
            effect.shard,
            effect.epoch,
            captured.position,
            effect.replaces,
            encode_chunks(captured),
            transfer=self.snapshots_sent,
        )
