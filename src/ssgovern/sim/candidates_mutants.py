"""Planted bugs of the driver of Raft and of its storage.

Production code has no switches for them: a mutant overrides one method.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

from ssgovern.errors import DiskFullError
from ssgovern.node.raft_driver import RaftDriver
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.raft import HardState, Raft, Ready
from ssgovern.storage.format import LogEntry


class CandidateMutant(NamedTuple):
    """A planted bug, and within how many seeds it must be found."""

    raft: type[Raft] = Raft
    storage: type[RaftStorage] = RaftStorage
    driver: type[RaftDriver] = RaftDriver
    seeds: int = 100


HONEST: Final = CandidateMutant()


class _VoteNotPersisted(RaftStorage):
    """Writes the term down and forgets who got the vote."""

    def _promise(self, hard: HardState) -> LogEntry:
        return super()._promise(HardState(hard.term))


class _AckBeforeSync(RaftDriver):
    """Says what a batch promises, and then writes it."""

    async def _write(self, batch: Ready) -> None:
        self._send(batch.messages)
        await super()._write(batch)


class _PromiseLostAtRelease(RaftStorage):
    """Lets go of segments, and of the promise that stands in them."""

    async def _repeat_promise(self) -> None:
        # As if it had been written: nothing but the release depends on the number.
        self._promises += 1


class _DropsWhatDoesNotFit(RaftStorage):
    """Takes a full disk for one that has written."""

    async def write(self, batch: Ready) -> None:
        with contextlib.suppress(DiskFullError):
            await super().write(batch)


class _ForgetsThatTheLogBeginsAnew(RaftStorage):
    """Keeps what it had under a snapshot that came from the leader."""

    async def write(self, batch: Ready) -> None:
        if batch.snapshot is not None:
            await self._write_snapshot(batch.snapshot)
        await super().write(batch._replace(snapshot=None))


class _AnswersBeforeApplying(RaftDriver):
    """Lets a read go when it is confirmed, applied or not."""

    def _apply(self, batch: Ready) -> None:
        for index, context in batch.reads:
            if isinstance(context, asyncio.Future) and not context.done():
                context.set_result(min(index, self.applied_index))
        super()._apply(batch)


class _AppendsAnywhere(RaftDriver):
    """Does not look what is there already."""

    def _has_records_after(self, after: int) -> bool:
        return False


MUTANTS: Final[dict[str, CandidateMutant]] = {
    "vote-not-persisted": CandidateMutant(storage=_VoteNotPersisted),
    "ack-before-sync": CandidateMutant(driver=_AckBeforeSync),
    "answers-before-applying": CandidateMutant(driver=_AnswersBeforeApplying),
    "appends-anywhere": CandidateMutant(driver=_AppendsAnywhere),
    "drops-what-does-not-fit": CandidateMutant(storage=_DropsWhatDoesNotFit),
    "forgets-beginning": CandidateMutant(storage=_ForgetsThatTheLogBeginsAnew),
    "promise-lost-at-release": CandidateMutant(storage=_PromiseLostAtRelease),
}
