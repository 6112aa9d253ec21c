"""Planted bugs of Raft, each one that a real implementation has had.

Production code has no switches for them: a mutant overrides one well-named method.
"""

from __future__ import annotations

from typing import Final

from ssgovern.model import NodeId
from ssgovern.raft import Config, Entry, HardState, Message, Raft, RaftLog, Ready
from ssgovern.raft.follower import Follower
from ssgovern.raft.leader import Leader
from ssgovern.raft.messages import Heartbeat, HeartbeatAnswer, PreVote, Vote
from ssgovern.raft.progress import Progress


class _VoteNotPersisted(Raft):
    """Grants a vote and forgets it in a crash."""

    def ready(self) -> Ready | None:
        batch = super().ready()
        if batch is None or batch.hard_state is None:
            return batch
        if batch.hard_state.vote not in (None, self.id):
            batch = batch._replace(hard_state=HardState(batch.hard_state.term, None))
            self._batch = batch
        return batch


class _AckBeforeSync(Raft):
    """Everything it says leaves at once."""

    def urgent(self) -> list[Message]:
        messages = super().urgent() + self.state.after_sync
        self.state.after_sync.clear()
        return messages


class _OwnVoteBeforeSync(Raft):
    def _campaign(self, *, transfer: bool) -> None:
        super()._campaign(transfer=transfer)
        self._granted[self.id] = True
        self._count_votes()


class _VoteWithoutLogCheck(Raft):
    def _has_all_of_mine(self, message: PreVote | Vote) -> bool:
        return True


class _CountsOldTerms(Leader):
    """Commits entries of older terms by counting (Figure 8 of the paper)."""

    def _may_count(self, index: int) -> bool:
        return True


class _CountsItselfEarly(Leader):
    def _own_match(self) -> int:
        return self._state.log.last_index


class _ReadsAtOnce(Leader):
    def read(self, context: object) -> None:
        self._state.reads.append((self._state.log.commit, context))


class _ReadsBeforeOwnCommit(Leader):
    """Confirms that it leads, but a new leader's commit index may be of yesterday."""

    def read(self, context: object) -> None:
        self.reads.ask(self._state.log.commit, context)

    def _release_reads(self) -> None:
        term_start, self.term_start = self.term_start, 0
        super()._release_reads()
        self.term_start = term_start


class _ReadsByOlderRound(Leader):
    """Takes answers to heartbeats that left before the read for a confirmation."""

    def read(self, context: object) -> None:
        index = max(self._state.log.commit, self.term_start)
        self.reads._confirming.append((self.reads.round, index, context))
        self._release_reads()


class _ChangesWithoutJoint(Leader):
    """From the old voters to any new ones in a single step."""

    def _next_config(self, voters: list[NodeId], learners: set[NodeId]) -> Config:
        return Config(tuple(voters), (), tuple(sorted(learners)))


class _LeavesJointEarly(Leader):
    """Does not wait for the joint config to be committed."""

    def _append_config(self, config: Config) -> None:  # type: ignore[override]
        super()._append_config(config)
        if config.is_joint:
            super()._append_config(config.settled())


class _DoesNotRepair(Leader):
    """Never asks what became of an append that nobody answered."""

    def on_heartbeat_answer(self, message: HeartbeatAnswer) -> None:
        super().on_heartbeat_answer(message)
        for peer in self.progress.values():
            peer.nudged = False


class _KeepsConflicts(Follower):
    def _store(self, entries: tuple[Entry, ...]) -> None:
        log = self._state.log
        for entry in entries:
            if entry.index > log.last_index and entry.term >= log.last_term:
                log.append(entry)


class _CutsOnEveryAppend(Follower):
    """A late append shortens the log to where it ends."""

    def _store(self, entries: tuple[Entry, ...]) -> None:
        super()._store(entries)
        log = self._state.log
        if entries and log.commit <= entries[-1].index < log.last_index:
            log.truncate(entries[-1].index + 1)


class _CommitsToOwnLast(Follower):
    """Takes its own last entry for one that the leader has too."""

    def _follow_commit(self, commit: int, last_new: int) -> None:
        log = self._state.log
        log.commit_to(min(commit, log.last_index))

    def on_heartbeat(self, message: Heartbeat) -> None:
        commit = min(message.commit, self._state.log.last_index)
        super().on_heartbeat(message._replace(commit=commit))


class _BeatsWithCommit(Leader):
    """Leaves it to the follower to know how far its log is the leader's."""

    def _commit_within(self, peer: Progress) -> int:
        return self._state.log.commit


class _CommitsByOwnLast(Raft):
    leader_type = _BeatsWithCommit
    follower_type = _CommitsToOwnLast


class _KeepsConfigOfCutEntries(RaftLog):
    def truncate(self, first: int) -> None:
        configs = list(self._configs)
        super().truncate(first)
        self._configs = configs


def _with_leader(leader: type[Leader]) -> type[Raft]:
    return type(f"Raft{leader.__name__}", (Raft,), {"leader_type": leader})


def _with_follower(follower: type[Follower]) -> type[Raft]:
    return type(f"Raft{follower.__name__}", (Raft,), {"follower_type": follower})


def _with_log(log: type[RaftLog]) -> type[Raft]:
    return type(f"Raft{log.__name__}", (Raft,), {"log_type": log})


MUTANTS: Final[dict[str, type[Raft]]] = {
    "ack-before-sync": _AckBeforeSync,
    "changes-without-joint": _with_leader(_ChangesWithoutJoint),
    "commits-to-own-last": _CommitsByOwnLast,
    "counts-itself-early": _with_leader(_CountsItselfEarly),
    "counts-old-terms": _with_leader(_CountsOldTerms),
    "cuts-on-every-append": _with_follower(_CutsOnEveryAppend),
    "does-not-repair": _with_leader(_DoesNotRepair),
    "keeps-config-of-cut-entries": _with_log(_KeepsConfigOfCutEntries),
    "keeps-conflicts": _with_follower(_KeepsConflicts),
    "leaves-joint-early": _with_leader(_LeavesJointEarly),
    "own-vote-before-sync": _OwnVoteBeforeSync,
    "reads-at-once": _with_leader(_ReadsAtOnce),
    "reads-before-own-commit": _with_leader(_ReadsBeforeOwnCommit),
    "reads-by-older-round": _with_leader(_ReadsByOlderRound),
    "vote-not-persisted": _VoteNotPersisted,
    "vote-without-log-check": _VoteWithoutLogCheck,
}
