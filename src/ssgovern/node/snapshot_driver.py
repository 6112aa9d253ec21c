"""The one task that takes snapshots and lets go of the log before them.

When the log has grown enough, every shard that moved since its last snapshot gets a new one,
one after the other, encoded a chunk at a time between writes; then the segments that only held
what is in snapshots are removed. Growth is measured against what the snapshots weigh, so that
the bytes written twice stay a fixed share of those written once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ssgovern.errors import DiskFullError
from ssgovern.model import LogPosition
from ssgovern.node.log_driver import LogDriver
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.runtime import Disk
from ssgovern.storage.snapshot import write_snapshot

log = logging.getLogger("ssgovern.snapshots")

_LOOK_EVERY_S = 1.0
_AFTER_FULL_S = 10.0


class SnapshotDriver:
    """Owner of the snapshot directory."""

    def __init__(
        self,
        disk: Disk,
        identity: bytes,
        states: Sequence[ShardState],
        snapshotted: dict[int, LogPosition],
        log_driver: LogDriver,
        *,
        wal_bytes: int,
    ) -> None:
        self._disk = disk
        self._identity = identity
        self._states = states
        self._snapshotted = snapshotted
        self._sizes: dict[int, int] = {}
        self._log = log_driver
        self._wal_bytes = wal_bytes
        self._left_bytes = 0
        """Log that the last snapshots could not make superfluous: its newest segment."""
        self._turn = asyncio.Lock()

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
                await asyncio.sleep(0)
            freed_bytes = await self._log.release(self._snapshotted)
            self._left_bytes, _ = self._log.wal_size
            log.info("%d snapshots taken, %d bytes of log removed", taken, freed_bytes)
            return taken
