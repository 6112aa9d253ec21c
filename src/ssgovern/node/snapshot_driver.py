"""The one task that takes snapshots and lets go of the log before them.

When the log has grown enough, every shard that moved since its last snapshot gets a new one,
one after the other, encoded a chunk at a time between writes; then the segments that only held
what is in snapshots are removed. Growth is measured against what the snapshots weigh, so that
the bytes written twice stay a fixed share of those written once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from ssgovern.errors import DiskFullError
from ssgovern.model import LogPosition, ShardId
from ssgovern.node.wal_driver import WalDriver
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.runtime import Disk
from ssgovern.storage.snapshot import remove_snapshots, write_snapshot

log = logging.getLogger("ssgovern.snapshots")

_LOOK_EVERY_S = 1.0
_AFTER_FULL_S = 10.0
_EVERYTHING = LogPosition(1 << 32, 1 << 64)
"""Behind every entry there can be."""


class SnapshotDriver:
    """Owner of the snapshot directory."""

    def __init__(
        self,
        disk: Disk,
        identity: bytes,
        states: Sequence[ShardState],
        snapshotted: dict[int, LogPosition],
        log_driver: WalDriver,
        *,
        wal_bytes: int,
        is_gone: Callable[[int], bool] | None = None,
    ) -> None:
        """`is_gone` tells of shards that left this node, which need no log and no snapshot."""
        self._disk = disk
        self._identity = identity
        self._states = states
        self._snapshotted = snapshotted
        self._sizes: dict[int, int] = {}
        self._log = log_driver
        self._wal_bytes = wal_bytes
        self._gone = is_gone
        self._left_bytes = 0
        """Log that the last snapshots could not make superfluous: its newest segment."""
        self._turn = asyncio.Lock()
        self.taken = 0

    async def run(self) -> None:
        """Take snapshots when it is time, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            size_bytes, _ = self._log.wal_size
            grown_bytes = size_bytes - self._left_bytes
            if grown_bytes < max(self._wal_bytes, sum(self._sizes.values())):
                continue
            try:
                await self.snapshot_all()
            except DiskFullError as error:
                log.error("no snapshot taken, the log keeps growing: %s", error)
                await asyncio.sleep(_AFTER_FULL_S)

    async def snapshot_all(self, *, empty_too: bool = True) -> int:
        """Bring the snapshots of all shards up to date; return how many were taken.

        Shards with nothing in them hold old segments in place, but replay in no time.
        """
        async with self._turn:
            taken = 0
            for state in self._states:
                if self._is_gone(state.shard):
                    await self._remove(state.shard)
                    continue
                if state.position == self._snapshotted.get(state.shard):
                    continue
                if not state.services and not empty_too:
                    continue
                captured = capture(state)
                # A snapshot must not be ahead of the log it stands for.
                await self._log.sync()
                self._sizes[state.shard] = await write_snapshot(
                    self._disk,
                    self._identity,
                    state.shard,
                    captured.position,
                    encode_chunks(captured),
                )
                self._snapshotted[state.shard] = captured.position
                taken += 1
                self.taken += 1
                await asyncio.sleep(0)
            freed_bytes = await self._log.release(self._covered())
            self._left_bytes, _ = self._log.wal_size
            log.info("%d snapshots taken, %d bytes of log removed", taken, freed_bytes)
            return taken

    async def keep(self, shard: ShardId, position: LogPosition, chunks: Iterable[bytes]) -> None:
        """Keep the snapshot of a shard that came from elsewhere, durable on return.

        It stands for no part of the log before the log itself says so: none is removed for it.
        Raises DiskFullError (nothing changed), StorageFailedError.
        """
        async with self._turn:
            self._sizes[shard] = await write_snapshot(
                self._disk, self._identity, shard, position, chunks
            )
            self._snapshotted.pop(shard, None)

    def _is_gone(self, shard: int) -> bool:
        return self._gone is not None and self._gone(shard)

    def _covered(self) -> dict[int, LogPosition]:
        covered = dict(self._snapshotted)
        for state in self._states:
            if self._is_gone(state.shard):
                covered[state.shard] = _EVERYTHING
        return covered

    async def _remove(self, shard: ShardId) -> None:
        if self._snapshotted.pop(shard, None) is not None:
            self._sizes.pop(shard, None)
            await remove_snapshots(self._disk, shard)
