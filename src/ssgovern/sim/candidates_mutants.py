"""Planted bugs of the driver of Raft and of its storage.

Production code has no switches for them: a mutant overrides one method.
"""

from __future__ import annotations

from typing import Final, NamedTuple

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


MUTANTS: Final[dict[str, CandidateMutant]] = {
    "vote-not-persisted": CandidateMutant(storage=_VoteNotPersisted),
    "ack-before-sync": CandidateMutant(driver=_AckBeforeSync),
    "promise-lost-at-release": CandidateMutant(storage=_PromiseLostAtRelease),
}
