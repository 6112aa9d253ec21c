"""Does what the replicas of this node decide: what rests on the disk, after it is there.

Effects of one shard are done in their order. Those with nothing to write and nothing ahead of
them in the queue of the disk are done at once; all others ride with a `Write`. A snapshot is
installed beside everything else: the shard's other effects wait for it, other shards' do not.

What a full disk refused is dropped with all that rests on it, and nothing else: the core takes it
back. A snapshot cannot be taken back, because the core has forgotten the log before it, so it
waits for space; from when the core took it until it is in place nothing is fed to the core.

Refuses to know roles and the shard map.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, assert_never

from ssgovern import limits
from ssgovern.errors import DiskFullError
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.node.hosted import HostedShard
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver, Write
from ssgovern.registry.snapshot import restore_chunk
from ssgovern.registry.state import ShardState
from ssgovern.replication.codec import chunks_of
from ssgovern.replication.messages import (
    Apply,
    Commit,
    Effect,
    Install,
    InstallSnapshot,
    LogItem,
    Message,
    Persist,
    ProposeInSync,
    Send,
    SendSnapshot,
    StepDown,
)
from ssgovern.replication.replica import ReplicaLog
from ssgovern.storage.format import LogEntry, cut_record, epoch_promise
from ssgovern.wire.pb import log_pb2

log = logging.getLogger("ssgovern.shards")

KeepSnapshot = Callable[[ShardId, LogPosition, Sequence[bytes]], Awaitable[None]]
"""Writes a shard's snapshot, durable on return. Raises DiskFullError."""


class _Work(NamedTuple):
    """Effects of one replica that wait for the disk."""

    group: asyncio.TaskGroup
    hosted: HostedShard
    replica: ReplicaLog
    mark: int
    """Of the last `Persist` that they rest on, which may be none of them."""
    effects: list[Effect]


class ReplicaDriver:
    """The deeds of all replicas of a node."""

    def __init__(
        self,
        driver: ReplicatedLogDriver,
        *,
        send: Callable[[NodeId, Message], None],
        apply: Callable[[ShardId, Sequence[LogItem]], None],
        keep_snapshot: KeepSnapshot,
        adopt: Callable[[ShardId, ShardState], None],
    ) -> None:
        self._driver = driver
        self._send = send
        self._apply = apply
        self._keep_snapshot = keep_snapshot
        self._adopt = adopt
        self._collecting: tuple[Write | None, list[_Work]] = (None, [])
        """What is taken by the next batch, and the effects that wait for it."""
        self.installed = 0

    def do(self, group: asyncio.TaskGroup, hosted: HostedShard, effects: list[Effect]) -> None:
        """Do effects of a shard's replica, now or when it is their turn."""
        if not effects:
            return
        if hosted.installing:
            hosted.held += effects
            return
        waits = hosted.writes > 0
        for effect in effects:
            if isinstance(effect, Persist):
                waits = True
            elif isinstance(effect, Install):
                hosted.installing = True
        if not waits:
            self._carry_out(group, hosted, effects)
            return
        replica = hosted.replica
        assert replica is not None, f"{hosted!r} has effects of a replica"
        self._queue(_Work(group, hosted, replica, replica.asked, effects))

    def _queue(self, work: _Work) -> None:
        write, works = self._collecting
        if (
            write is None
            or not self._driver.is_last(write)
            or write.size_bytes > limits.BATCH_BYTES_MAX
        ):
            works = []
            write = Write([], partial(self._on_written, works), partial(self._on_refused, works))
            self._collecting = write, works
            self._driver.write(write)
        for effect in work.effects:
            if isinstance(effect, Persist):
                write.add(_records_of(effect, work.replica))
        work.hosted.writes += 1
        works.append(work)

    def _on_written(self, works: list[_Work]) -> None:
        for group, hosted, replica, mark, effects in works:
            hosted.writes -= 1
            if hosted.replica is replica:
                replica.on_persisted(mark)
                self._carry_out(group, hosted, effects)

    def _on_refused(self, works: list[_Work]) -> None:
        for work in works:
            group, hosted, replica, mark, effects = work
            hosted.writes -= 1
            if hosted.replica is not replica:
                continue
            if any(isinstance(effect, Install) for effect in effects):
                asyncio.get_running_loop().call_later(
                    limits.SHARD_INSTALL_RETRY_MS / 1000.0, self._queue, work
                )
            elif mark <= replica.persisted:
                # It was in the queue for the sake of the order: all it rests on is on disk.
                self._carry_out(group, hosted, effects)
            else:
                replica.on_append_failed()

    def _carry_out(
        self, group: asyncio.TaskGroup, hosted: HostedShard, effects: Sequence[Effect]
    ) -> None:
        for number, effect in enumerate(effects):
            match effect:
                case Persist():
                    pass
                case Send():
                    self._send(effect.target, effect.message)
                case Apply():
                    self._apply(effect.shard, effect.entries)
                case Install():
                    hosted.held.extendleft(reversed(effects[number + 1 :]))
                    group.create_task(
                        self._install(group, hosted, effect.snapshot),
                        name=f"install-{hosted.shard}",
                    )
                    return
                case SendSnapshot() | Commit() | StepDown() | ProposeInSync():
                    raise AssertionError(f"{hosted!r}: {effect} is a primary's")
                case _:
                    assert_never(effect)

    # --- snapshots -------------------------------------------------------------------------

    async def _install(
        self, group: asyncio.TaskGroup, hosted: HostedShard, snapshot: InstallSnapshot
    ) -> None:
        """Put a snapshot in place of state and log, durably, and go on behind it."""
        replica, shard, position = hosted.replica, hosted.shard, snapshot.position
        chunks = list(chunks_of(snapshot.state))
        state = ShardState(shard)
        for chunk in chunks:
            restore_chunk(state, log_pb2.SnapshotChunk.FromString(chunk))
            await asyncio.sleep(0)
        state.position = position
        state.history_floor = position.revision
        while not await self._is_kept(shard, position, chunks):
            await asyncio.sleep(limits.SHARD_INSTALL_RETRY_MS / 1000.0)
        # Without it a later start would take what the log had before for what follows.
        while not await self._is_cut(shard, position):
            await asyncio.sleep(limits.SHARD_INSTALL_RETRY_MS / 1000.0)
        hosted.installing = False
        if hosted.replica is not replica:
            hosted.held.clear()
            return
        self.installed += 1
        self._adopt(shard, state)
        held, hosted.held = list(hosted.held), type(hosted.held)()
        self.do(group, hosted, held)

    async def _is_kept(
        self, shard: ShardId, position: LogPosition, chunks: Sequence[bytes]
    ) -> bool:
        try:
            await self._keep_snapshot(shard, position, chunks)
        except DiskFullError as error:
            log.warning("no space to take shard %d over, trying again: %s", shard, error)
            return False
        return True

    async def _is_cut(self, shard: ShardId, position: LogPosition) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._driver.write(
            Write(
                [cut_record(shard, position.epoch, position.revision)],
                lambda: done.set_result(True),
                lambda: done.set_result(False),
            )
        )
        return await done


def _records_of(effect: Persist, replica: ReplicaLog) -> list[LogEntry]:
    """Return the records of the log that make `effect` durable: promise, cut, entries."""
    shard = effect.shard
    records = [epoch_promise(shard, effect.epoch)] if effect.epoch else []
    if effect.keep is not None:
        kept = replica.log.position_at(effect.keep)
        records.append(
            cut_record(shard, replica.epoch if kept is None else kept.epoch, effect.keep)
        )
    records += [
        LogEntry(shard, entry.epoch, entry.revision, entry.body) for entry in effect.entries
    ]
    return records
