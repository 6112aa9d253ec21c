"""One node of a Raft group: terms, votes and roles, and the batch its owner has to carry out.

Pure. Refuses to know disks, clocks and connections; `Ready` states what has to be done and in
which order. Rules and names follow Ongaro's thesis: PreVote (9.6), CheckQuorum with leader
stickiness (6.2, 9.6), ReadIndex (6.4), joint consensus (4.3), leadership transfer (3.10).

The owner's loop, which is the contract:

    send(core.urgent())                  at any time, also while a sync is running
    batch = core.ready()                 one at a time
    write batch.snapshot, batch.hard_state, batch.entries; sync
    core.persisted(batch)
    send(batch.messages)                 they promise what was just synced
    restore batch.snapshot, apply batch.committed, serve batch.reads

Events may go in at any moment in between. An owner that cannot write must stop: nothing here
survives a disk that forgets. A node whose disk was lost comes back under a new id.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, assert_never

from ssgovern.model import NodeId
from ssgovern.raft.follower import Follower
from ssgovern.raft.leader import Leader
from ssgovern.raft.log import RaftLog
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    Message,
    NewerTerm,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    SnapshotAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from ssgovern.raft.state import Accepted, Jitter, Refusal, SafetyViolationError, Settings, State

GONE_TICKS = 3
"""Time for all voters to notice that their leader is dead."""

_NO_PROMISE = HardState()
_NOTHING = Snapshot()
_DEFAULTS = Settings()


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Ready(NamedTuple):
    """What is to be done, in the order of the fields."""

    snapshot: Snapshot | None
    """Replaces the whole log on disk (and, when it is applied, the state)."""
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    """Continue the log on disk; what it has from `entries[0].index` on is dropped first."""
    messages: tuple[Message, ...]
    """To be sent after the sync of all above."""
    last: tuple[int, int]
    """Index and term up to which the disk then holds the log."""
    committed: tuple[Entry, ...]
    reads: tuple[tuple[int, object], ...]
    """Contexts of reads to be served after `committed` was applied, with the index they see."""
    lost_reads: tuple[object, ...]
    """Contexts of reads that this node can no longer confirm: ask the next leader."""

    @property
    def must_sync(self) -> bool:
        return bool(self.entries or self.hard_state is not None or self.snapshot is not None)


class Raft:
    """The core of one node. Owned by one task."""

    leader_type: type[Leader] = Leader
    follower_type: type[Follower] = Follower
    log_type: type[RaftLog] = RaftLog

    def __init__(
        self,
        cluster: bytes,
        node: NodeId,
        jitter: Jitter,
        *,
        hard_state: HardState = _NO_PROMISE,
        snapshot: Snapshot = _NOTHING,
        entries: Iterable[Entry] = (),
        settings: Settings = _DEFAULTS,
    ) -> None:
        """Start from what the disk holds.

        The first start of a group gives all its voters the same `Snapshot(config=...)` of
        index 0; a node that is to join starts with none, and learns who there is.
        """
        assert node > 0, "ids of nodes begin at 1"
        self.state = State(cluster, node, settings, hard_state, self.log_type(snapshot, entries))
        self.role = Role.FOLLOWER
        self.leader_id: NodeId | None = None
        self.leader: Leader | None = None
        """Present while this node leads."""
        self.dropped = 0
        """Messages for another cluster or another node."""
        self._follower = self.follower_type(self.state)
        self._jitter = jitter
        self._granted: dict[NodeId, bool] = {}
        self._durable_term = hard_state.term
        self._batch: Ready | None = None
        self._timer_start = 0
        self._timeout_ticks = 0
        self._reset_timer()

    def __repr__(self) -> str:
        vote = self.state.hard.vote or "-"
        return (
            f"<Raft node={self.state.id} {self.role.value} term={self.term} vote={vote} "
            f"leader={self.leader_id or '-'} {self.state.log!r}>"
        )

    @property
    def id(self) -> NodeId:
        return self.state.id

    @property
    def term(self) -> int:
        return self.state.hard.term

    @property
    def log(self) -> RaftLog:
        return self.state.log

    def story(self) -> list[str]:
        """Return the last turns of this node's life, oldest first."""
        return self.state.story()

    # --- time ------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick pass."""
        self.state.now += 1
        if self.leader is not None:
            self.leader.on_tick()
            self._step_down_if_finished()
        elif self._elapsed() >= self._timeout_ticks:
            if self.state.log.may_campaign(self.id):
                self._pre_campaign()
            else:
                self._reset_timer()
                self.leader_id = None

    def _elapsed(self) -> int:
        return self.state.now - self._timer_start

    def _reset_timer(self) -> None:
        """A time-out in [1, 2) election times, in a band of its own for each voter.

        The highest id has the earliest band, so that among equals the outcome is known; jitter
        within the band keeps nodes apart whose clocks go alike.
        """
        self._timer_start = self.state.now
        voters = self.state.log.config.all_voters()
        place = sum(node > self.id for node in voters)
        ticks = self.state.settings.election_ticks
        band = max(1, ticks // max(1, len(voters)))
        self._timeout_ticks = ticks + place * band + self._jitter(band)

    # --- elections -------------------------------------------------------------------------

    def campaign(self) -> None:
        """Stand for election now, if this node is a voter without a leader's office."""
        if self.leader is None and self.state.log.may_campaign(self.id):
            self._pre_campaign()

    def leader_gone(self, node: NodeId) -> None:
        """Do not wait for the silence of a leader whose process is known to be dead.

        Only a hint: where it is wrong, the leader's next message is obeyed as ever. Those who
        noticed are given a moment, and stand for election in the order of their ids.
        """
        if self.role is not Role.FOLLOWER or self.leader_id != node:
            return
        self.leader_id = None
        place = sum(other not in (self.id, node) and other > self.id for other in self._voters())
        ticks = GONE_TICKS * (1 + place) + self._jitter(GONE_TICKS)
        self._timeout_ticks = min(self._timeout_ticks, self._elapsed() + ticks)
        self.state.note(f"leader {node} is gone")

    def _voters(self) -> list[NodeId]:
        return self.state.log.config.all_voters()

    def _pre_campaign(self) -> None:
        state, log = self.state, self.state.log
        self.role, self.leader_id = Role.PRE_CANDIDATE, None
        self._granted = {self.id: True}
        self._reset_timer()
        for node in log.config.all_voters():
            if node != self.id:
                state.say_now(
                    PreVote(
                        state.cluster,
                        state.id,
                        node,
                        state.term + 1,
                        log.last_index,
                        log.last_term,
                    )
                )
        self._count_votes()

    def _campaign(self, *, transfer: bool) -> None:
        state, log = self.state, self.state.log
        self.role, self.leader_id = Role.CANDIDATE, None
        # Our own vote counts when it is on disk, like any other.
        self._granted = {}
        state.promise(state.term + 1, self.id)
        self._reset_timer()
        state.note("stands for election")
        for node in log.config.all_voters():
            if node != self.id:
                state.say(
                    Vote(
                        state.cluster,
                        state.id,
                        node,
                        state.term,
                        log.last_index,
                        log.last_term,
                        transfer,
                    )
                )

    def _count_votes(self) -> None:
        if not self.state.log.config.has_majority(self._granted):
            return
        if self.role is Role.PRE_CANDIDATE:
            self._campaign(transfer=False)
        else:
            assert self.role is Role.CANDIDATE, f"who else counts votes: {self!r}"
            self._become_leader()

    def _become_leader(self) -> None:
        self.role, self.leader_id = Role.LEADER, self.id
        self.leader = self.leader_type(self.state)
        self.state.note("leads")

    def _become_follower(self, term: int, leader: NodeId | None) -> None:
        state = self.state
        if self.leader is not None:
            state.lost_reads += self.leader.reads.take_all()
            state.note("no longer leads")
            self.leader = None
        if term > state.term:
            state.promise(term, None)
        if self.role is not Role.FOLLOWER or leader is not None:
            # A higher term alone says nothing of a leader to wait for: a candidate that cannot
            # win must not put off those that can.
            self._reset_timer()
        self.role, self.leader_id = Role.FOLLOWER, leader

    def _step_down_if_finished(self) -> None:
        if self.leader is not None and self.leader.finished:
            self.state.note(f"steps down: {self.leader.finished}")
            self._become_follower(self.term, None)

    def _is_loyal(self) -> bool:
        """A node that hears its leader helps nobody to unseat it (6.2)."""
        return self.leader is not None or (
            self.leader_id is not None and self._elapsed() < self.state.settings.election_ticks
        )

    # --- messages --------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Take in one message of a peer."""
        state = self.state
        if message.cluster != state.cluster or message.target != state.id:
            self.dropped += 1
            return
        if message.term > state.term:
            if not self._adopt_term(message):
                return
        elif message.term < state.term:
            self._answer_past(message)
            return
        self._dispatch(message)
        self._step_down_if_finished()

    def _dispatch(self, message: Message) -> None:
        match message:
            case Append() | Heartbeat() | InstallSnapshot():
                self._obey(message)
            case AppendAnswer() | HeartbeatAnswer() | SnapshotAnswer():
                self._lead(message)
            case PreVote():
                self._on_pre_vote(message)
            case PreVoteAnswer():
                self._on_pre_vote_answer(message)
            case Vote():
                self._on_vote(message)
            case VoteAnswer():
                self._on_vote_answer(message)
            case TimeoutNow():
                self._on_timeout_now(message)
            case NewerTerm():
                pass  # Only its term mattered.
            case _:
                assert_never(message)

    def _adopt_term(self, message: Message) -> bool:
        """Follow a higher term. Return False if the message is to be ignored instead."""
        match message:
            case PreVote():
                return not self._is_loyal()
            case PreVoteAnswer(granted=True):
                return True
            case Vote(transfer=False) if self._is_loyal():
                return False
            case Append() | Heartbeat() | InstallSnapshot():
                self._become_follower(message.term, message.source)
            case _:
                self._become_follower(message.term, None)
        return True

    def _answer_past(self, message: Message) -> None:
        """Tell who is behind what term it is; a stale leader and a stuck candidate need it."""
        state = self.state
        match message:
            case Append() | Heartbeat() | InstallSnapshot():
                state.say_now(NewerTerm(state.cluster, state.id, message.source, state.term))
            case PreVote():
                state.say_now(
                    PreVoteAnswer(
                        state.cluster, state.id, message.source, state.term, granted=False
                    )
                )
            case _:
                pass

    def _on_pre_vote(self, message: PreVote) -> None:
        state = self.state
        granted = message.term > state.term and self._has_all_of_mine(message)
        term = message.term if granted else state.term
        state.say_now(PreVoteAnswer(state.cluster, state.id, message.source, term, granted))

    def _has_all_of_mine(self, message: PreVote | Vote) -> bool:
        return self.state.log.is_up_to_date(message.last_index, message.last_term)

    def _on_pre_vote_answer(self, message: PreVoteAnswer) -> None:
        asked = message.term == self.term + 1
        if self.role is Role.PRE_CANDIDATE and message.granted and asked:
            self._granted[message.source] = True
            self._count_votes()

    def _on_vote(self, message: Vote) -> None:
        # Whether the candidate is a member in our eyes is no question here: our config may be
        # older than its own, and a learner may be a voter without knowing it.
        state = self.state
        free = state.hard.vote == message.source or (
            state.hard.vote is None and self.leader_id is None
        )
        granted = free and self._has_all_of_mine(message)
        if granted:
            state.promise(state.term, message.source)
            self.role = Role.FOLLOWER if self.role is Role.PRE_CANDIDATE else self.role
            self._reset_timer()
        answer = VoteAnswer(state.cluster, state.id, message.source, state.term, granted)
        (state.say if granted else state.say_now)(answer)

    def _on_vote_answer(self, message: VoteAnswer) -> None:
        if self.role is Role.CANDIDATE and message.granted:
            self._granted[message.source] = True
            self._count_votes()

    def _obey(self, message: Append | Heartbeat | InstallSnapshot) -> None:
        if self.leader is not None:
            raise SafetyViolationError(f"node {message.source} leads in my term: {self!r}")
        if self.leader_id not in (None, message.source):
            raise SafetyViolationError(f"node {message.source} is the second leader: {self!r}")
        self.role, self.leader_id = Role.FOLLOWER, message.source
        self._reset_timer()
        match message:
            case Append():
                self._follower.on_append(message)
            case Heartbeat():
                self._follower.on_heartbeat(message)
            case InstallSnapshot():
                self._follower.on_install(message)

    def _lead(self, message: AppendAnswer | HeartbeatAnswer | SnapshotAnswer) -> None:
        if self.leader is None:
            return
        match message:
            case AppendAnswer():
                self.leader.on_append_answer(message)
            case HeartbeatAnswer():
                self.leader.on_heartbeat_answer(message)
            case SnapshotAnswer():
                self.leader.on_snapshot_answer(message)

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        if self.role is Role.FOLLOWER and self.state.log.may_campaign(self.id):
            self._campaign(transfer=True)

    # --- requests --------------------------------------------------------------------------

    def propose(self, payload: bytes) -> Accepted | Refusal:
        """Ask for an entry. Accepted is not committed: it may still vanish with this leader."""
        return Refusal.NOT_LEADER if self.leader is None else self.leader.propose(payload)

    def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> Accepted | Refusal:
        """Ask for these members. New voters have to be learners that caught up."""
        if self.leader is None:
            return Refusal.NOT_LEADER
        return self.leader.change_members(voters, learners)

    def read(self, context: object) -> Refusal | None:
        """Ask when a read may be served that sees all committed before now.

        The context comes back in `Ready.reads` or `Ready.lost_reads`.
        """
        if self.leader is None:
            return Refusal.NOT_LEADER
        self.leader.read(context)
        return None

    def transfer(self, target: NodeId) -> Refusal | None:
        """Hand leadership over. Proposals are refused until it worked or its time is up."""
        return Refusal.NOT_LEADER if self.leader is None else self.leader.transfer(target)

    def compact(self, index: int, payload: bytes, *, keep: int = 0) -> Snapshot:
        """Put the state at `index`, which was applied, in place of the log up to it.

        The owner has the returned snapshot on disk before it drops entries there.
        """
        self.state.log.compact(index, payload, keep)
        return self.state.log.snapshot

    # --- effects ---------------------------------------------------------------------------

    def urgent(self) -> list[Message]:
        """Return messages that promise nothing, to be sent at once."""
        if self.leader is not None:
            self.leader.flush()
        messages, self.state.at_once = self.state.at_once, []
        return messages

    def ready(self) -> Ready | None:
        """Return the next batch, None if there is nothing to do. One batch at a time."""
        assert self._batch is None, "the batch before was not reported as persisted"
        state, log = self.state, self.state.log
        if not (
            state.hard_changed
            or state.after_sync
            or log.handed < log.last_index
            or log.applied < log.commit
            or state.reads
            or state.lost_reads
        ):
            return None
        snapshot = log.take_installed()
        entries = tuple(log.entries(log.handed + 1, log.last_index))
        log.handed = log.last_index
        self._batch = Ready(
            snapshot,
            state.hard if state.hard_changed else None,
            entries,
            tuple(state.after_sync),
            (log.last_index, log.last_term),
            log.take_committed(),
            tuple(state.reads),
            tuple(state.lost_reads),
        )
        state.hard_changed = False
        state.after_sync.clear()
        state.reads.clear()
        state.lost_reads.clear()
        return self._batch

    def persisted(self, batch: Ready) -> None:
        """All that `batch` wanted written is on disk."""
        assert batch is self._batch, "batches are reported in order, once"
        self._batch = None
        if batch.hard_state is not None:
            self._durable_term = batch.hard_state.term
        self.state.log.persisted(*batch.last)
        if self.role is Role.CANDIDATE and self._durable_term == self.term:
            self._granted[self.id] = True
            self._count_votes()
        if self.leader is not None:
            self.leader.maybe_commit()
            self._step_down_if_finished()

    def validate(self) -> None:
        """Check every invariant; a failure is a bug here."""
        state = self.state
        state.log.validate()
        state.log.config.validate()
        assert (self.role is Role.LEADER) == (self.leader is not None), repr(self)
        assert self._durable_term <= state.term, f"durable {self._durable_term}: {self!r}"
        assert state.log.last_term <= state.term, f"an entry of a later term: {self!r}"
        if self.role in (Role.CANDIDATE, Role.LEADER):
            assert state.hard.vote == self.id, f"not its own vote: {self!r}"
        if self.leader is not None:
            assert self.leader_id == self.id, repr(self)
            assert self._durable_term == state.term, f"leads an unsynced term: {self!r}"
            self.leader.validate()
