"""What every owner of this node's log does: one task, one write at a time, syncs and marks.

Refuses to know what is written; `LogDriver` and `ReplicatedLogDriver` do. Invariant: one call on
the `Wal` at a time, except for the release of old segments.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from ssgovern.errors import DiskFullError
from ssgovern.model import LogPosition
from ssgovern.node.histogram import Histogram
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal

log = logging.getLogger("ssgovern.log")

_MARK_AFTER_S = 1.0
_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
_WRITES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


class WalDriver:
    """Owner of the `Wal`. Subclasses say what there is to write.

    `sync_interval_s` None: every write is synced. Otherwise it is synced so often; a power cut
    may then lose what was written since.
    """

    def __init__(
        self,
        wal: Wal,
        *,
        failpoint: Callable[[str], None],
        sync_interval_s: float | None = None,
    ) -> None:
        self._wal = wal
        self._wal_turn = asyncio.Lock()
        self._failpoint = failpoint
        self._sync_interval_s = sync_interval_s
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._closing = False
        self._drained = asyncio.Event()
        self._unsynced_since: float | None = None
        self._unmarked_since: float | None = None
        self.writes_refused = ""
        """Why the last write was refused; empty while writes work."""
        self.entries = 0
        self.batches = 0
        self.last_write_s = 0.0
        self.clock: Callable[[], float] = self._loop.time
        self.batch_sizes = Histogram(_BATCHES)
        self.write_times = Histogram(_WRITES_S)
        """Of a batch, with its sync if it has one."""

    @property
    def wal_size(self) -> tuple[int, int]:
        """Bytes and segments of the log on disk."""
        return self._wal.size_bytes, len(self._wal.segments)

    # --- for subclasses --------------------------------------------------------------------

    def _has_work(self) -> bool:
        """Whether anything waits to be written."""
        raise NotImplementedError

    async def _write_next(self) -> None:
        """Write the next batch and do what follows from it."""
        raise NotImplementedError

    async def _append(self, entries: Sequence[LogEntry]) -> None:
        """Write one batch. Raises DiskFullError (as if never asked), StorageFailedError."""
        started = self.clock()
        self._failpoint("log.before_write")
        async with self._wal_turn:
            await self._wal.append(entries, sync=self._sync_interval_s is None)
        self._failpoint("log.after_write")
        now = self._loop.time()
        self.last_write_s = self.clock() - started
        self.write_times.observe(self.last_write_s)
        self.batch_sizes.observe(len(entries))
        if self._sync_interval_s is None:
            self._unmarked_since = now
        else:
            # These records say themselves what was synced before them.
            self._unmarked_since = None
            if self._unsynced_since is None:
                self._unsynced_since = now
        self.writes_refused = ""

    def _note_refused(self, error: DiskFullError) -> None:
        if not self.writes_refused:
            log.error("writes are refused until there is space again: %s", error)
        self.writes_refused = str(error)

    # --- the task --------------------------------------------------------------------------

    async def run(self) -> None:
        """Write batches until `drain`. Raises StorageFailedError."""
        while True:
            await self._wait()
            if self._has_work():
                await self._write_next()
            # After each batch: under load the queue is never found empty.
            await self._maybe_sync()
            if self._closing and not self._has_work():
                self._drained.set()
                return

    async def drain(self) -> None:
        """Take nothing new, write what is queued, sync, and let `run` end."""
        self._closing = True
        self._wake()
        await self._drained.wait()

    async def sync(self) -> None:
        """Make durable what was written without a sync; nothing to do where each batch is."""
        if self._sync_interval_s is None:
            return
        async with self._wal_turn:
            # Looked at when it is our turn: a sync under way is one to wait for.
            if self._unsynced_since is not None:
                self._unsynced_since = None
                await self._wal.sync()

    async def release(self, snapshotted: Mapping[int, LogPosition]) -> int:
        """Remove segments that snapshots have made superfluous; return the bytes freed."""
        return await self._wal.release(snapshotted)

    async def _wait(self) -> None:
        """Return when there is something to write or something is due."""
        if self._closing or self._has_work():
            return
        # A bare future and a timer: an event with a time-out costs a lone request a tenth more.
        self._waiting = self._loop.create_future()
        due = self._next_due()
        timer = None if due is None else self._loop.call_at(due, self._wake)
        await self._waiting
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _next_due(self) -> float | None:
        due = [
            since + delay
            for since, delay in (
                (self._unsynced_since, self._sync_interval_s),
                (self._unmarked_since, _MARK_AFTER_S),
            )
            if since is not None and delay is not None
        ]
        return min(due, default=None)

    async def _maybe_sync(self) -> None:
        now = self._loop.time()
        interval = self._sync_interval_s
        if self._unsynced_since is not None and interval is not None:
            if now >= self._unsynced_since + interval or self._closing:
                await self.sync()
                self._unmarked_since = now
        elif self._unmarked_since is not None and now >= self._unmarked_since + _MARK_AFTER_S:
            self._unmarked_since = None
            try:
                async with self._wal_turn:
                    await self._wal.mark()
            except DiskFullError:
                # The mark only narrows what a later recovery can prove; the next batch
                # proves the same.
                log.warning("no space for a mark in the log")
