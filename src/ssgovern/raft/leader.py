"""What only a leader does: replicate, commit, confirm reads, change members, hand over.

Lives from its election to its stepping down, which it asks for by `finished`: the core decides.
All sending happens in `flush`, from what is known of each node by then, so that many proposals
make one append and many reads one round of heartbeats.

Invariants: everything committed by counting is of this term (Figure 8); this node counts only
with what its own disk holds; no change of members while the one before is not committed.
"""

from __future__ import annotations

from collections.abc import Iterable

from ssgovern.model import NodeId
from ssgovern.raft.membership import Config
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Entry,
    Heartbeat,
    HeartbeatAnswer,
    InstallSnapshot,
    Payload,
    SnapshotAnswer,
    TimeoutNow,
)
from ssgovern.raft.progress import Mode, Progress
from ssgovern.raft.reads import Reads
from ssgovern.raft.state import Accepted, Refusal, State


class Leader:
    def __init__(self, state: State) -> None:
        self._state = state
        self.progress: dict[NodeId, Progress] = {}
        self.reads = Reads()
        self.finished: str = ""
        """Why it must step down, empty while it need not."""
        self.transferee: NodeId | None = None
        self._transfer_until = 0
        self._next_heartbeat = state.now
        self._stirred = True
        log = state.log
        self.term_start = log.last_index + 1
        """Index of the entry this term begins with."""
        self._follow_members()
        waiting = log.entries(log.commit + 1, log.last_index)
        self.uncommitted_bytes = sum(entry.size_bytes for entry in waiting)
        self._append(None)

    def __repr__(self) -> str:
        peers = " ".join(f"{node}:{peer!r}" for node, peer in self.progress.items())
        return f"<Leader term={self._state.term} commit={self._state.log.commit} {peers}>"

    # --- requests --------------------------------------------------------------------------

    def propose(self, payload: bytes) -> Accepted | Refusal:
        if self.transferee is not None:
            return Refusal.TRANSFERRING
        wanted = self.uncommitted_bytes + len(payload)
        if self.uncommitted_bytes and wanted > self._state.settings.uncommitted_bytes_max:
            return Refusal.FULL
        return self._append(payload)

    def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId]
    ) -> Accepted | Refusal:
        """Begin to change the members; voters by way of a joint config that ends by itself."""
        if self.transferee is not None:
            return Refusal.TRANSFERRING
        if (refusal := self._refuse_change()) is not None:
            return refusal
        log = self._state.log
        voters = sorted(set(voters))
        if not voters:
            return Refusal.NO_VOTERS
        added = [node for node in voters if not log.config.is_voter(node)]
        if not all(map(self.is_caught_up, added)):
            return Refusal.NOT_CAUGHT_UP
        config = self._next_config(voters, set(learners) - set(voters))
        if config == log.config:
            return Refusal.NO_CHANGE
        return self._append_config(config)

    def _next_config(self, voters: list[NodeId], learners: set[NodeId]) -> Config:
        return self._state.log.config.towards(voters, learners)

    def _refuse_change(self) -> Refusal | None:
        log = self._state.log
        if log.config_index > log.commit or log.config.is_joint:
            return Refusal.CHANGE_IN_PROGRESS
        if log.commit < self.term_start:
            # Until then we do not know whether the last change is committed (Ongaro's fix).
            return Refusal.TERM_NOT_COMMITTED
        return None

    def is_caught_up(self, node: NodeId) -> bool:
        """Say whether a learner is near enough to vote without holding up what is committed."""
        peer = self.progress.get(node)
        if peer is None or not peer.match:
            return False
        return peer.match + self._state.settings.caught_up_entries >= self._state.log.last_index

    def read(self, context: object) -> None:
        # What older leaders committed is below the entry our term begins with, but we may not
        # know it yet: such a read waits for that entry.
        self.reads.ask(max(self._state.log.commit, self.term_start), context)
        self._stirred = True

    def transfer(self, target: NodeId) -> Refusal | None:
        if not self._state.log.config.is_voter(target) or target not in self.progress:
            return Refusal.NOT_A_VOTER
        if self.transferee is not None and self.transferee != target:
            return Refusal.TRANSFERRING
        self.transferee = target
        self._transfer_until = self._state.now + self._state.settings.election_ticks
        self._stirred = True
        self._state.note(f"hands over to {target}")
        self._maybe_hand_over()
        return None

    def _append(self, payload: Payload) -> Accepted:
        log, term = self._state.log, self._state.term
        entry = Entry(log.last_index + 1, term, payload)
        log.append(entry)
        self.uncommitted_bytes += entry.size_bytes
        self._stirred = True
        return Accepted(entry.index, term)

    def _append_config(self, config: Config) -> Accepted:
        self._state.note(f"appends {config!r}")
        accepted = self._append(config)
        self._follow_members()
        return accepted

    def _follow_members(self) -> None:
        """Members count from the moment their config is in the log."""
        state = self._state
        old, self.progress = self.progress, {}
        for node in state.log.config.members():
            if node != state.id:
                peer = old.get(node)
                self.progress[node] = peer or Progress(state.log.last_index + 1, state.now)
        if self.transferee not in self.progress:
            self.transferee = None

    # --- time ------------------------------------------------------------------------------

    def on_tick(self) -> None:
        state = self._state
        if self.lease_ticks_left() <= 0:
            # CheckQuorum: others may have a leader by now, and nothing we do can be confirmed.
            self.finished = "a majority is silent"
            return
        if self.transferee is not None and state.now >= self._transfer_until:
            state.note(f"{self.transferee} did not take over")
            self.transferee = None
        if state.now >= self._next_heartbeat:
            self._beat()

    def lease_ticks_left(self) -> int:
        """Return for how long a majority is still bound to refuse any other candidate.

        Counted from when we sent what they answered. Void once a handover has begun.
        """
        state = self._state

        def heard(node: NodeId) -> int:
            peer = self.progress.get(node)
            return state.now if peer is None else peer.heard_tick

        return state.log.config.agreed(heard) + state.settings.election_ticks - state.now

    def _beat(self) -> None:
        state = self._state
        self._next_heartbeat = state.now + state.settings.heartbeat_ticks
        round_ = self.reads.begin_round()
        for node, peer in self.progress.items():
            commit = self._commit_within(peer)
            state.say_now(
                Heartbeat(state.cluster, state.id, node, state.term, commit, round_, state.now)
            )
        self._release_reads()

    def _commit_within(self, peer: Progress) -> int:
        """Only what this node acknowledged: the rest of its log may not be ours."""
        return min(self._state.log.commit, peer.match)

    # --- answers ---------------------------------------------------------------------------

    def on_append_answer(self, message: AppendAnswer) -> None:
        peer = self.progress.get(message.source)
        log = self._state.log
        if peer is None or message.index > log.last_index:
            return
        self._stirred = True
        if message.ok:
            if peer.on_matched(message.index):
                self.maybe_commit()
                if message.source == self.transferee:
                    self._maybe_hand_over()
        else:
            peer.on_mismatch(
                message.index, log.last_not_after(message.hint_index, message.hint_term)
            )

    def on_heartbeat_answer(self, message: HeartbeatAnswer) -> None:
        peer = self.progress.get(message.source)
        if peer is None or message.tick > self._state.now:
            return
        behind = peer.match < self._state.log.last_index
        peer.on_heard(message.tick, message.round, behind=behind)
        self._stirred = True
        self._release_reads()

    def on_snapshot_answer(self, message: SnapshotAnswer) -> None:
        peer = self.progress.get(message.source)
        if peer is None or peer.snapshot is None or peer.snapshot.index != message.index:
            return
        if message.offset <= len(peer.snapshot.payload):
            peer.offset = message.offset
            peer.waiting = False
            self._stirred = True

    def _own_match(self) -> int:
        return self._state.log.durable

    def match_of(self, node: NodeId) -> int:
        if node == self._state.id:
            return self._own_match()
        peer = self.progress.get(node)
        return peer.match if peer is not None else 0

    def maybe_commit(self) -> None:
        log = self._state.log
        before = log.commit
        index = log.config.agreed(self.match_of)
        if index <= before or not self._may_count(index):
            return
        log.commit_to(index)
        self.uncommitted_bytes -= sum(e.size_bytes for e in log.entries(before + 1, index))
        self._stirred = True
        self._release_reads()
        if log.config_index <= index:
            self._on_config_committed()

    def _may_count(self, index: int) -> bool:
        """An entry of an older term may be on a majority and still be replaced (5.4.2)."""
        return self._state.log.term_at(index) == self._state.term

    def _on_config_committed(self) -> None:
        state = self._state
        config = state.log.config
        if config.is_joint:
            self._append_config(config.settled())
        elif not config.is_voter(state.id):
            self.finished = "no longer a voter"
            self.flush()
            best = max(config.voters, key=lambda node: (self.match_of(node), node))
            state.say_now(TimeoutNow(state.cluster, state.id, best, state.term))

    def _release_reads(self) -> None:
        log = self._state.log
        if log.commit < self.term_start:
            return

        def answered(node: NodeId) -> int:
            peer = self.progress.get(node)
            return self.reads.round if peer is None else peer.round

        self._state.reads.extend(self.reads.take_confirmed(log.config.agreed(answered)))

    def _maybe_hand_over(self) -> None:
        target, state = self.transferee, self._state
        if target is not None and self.progress[target].match == state.log.last_index:
            state.say_now(TimeoutNow(state.cluster, state.id, target, state.term))

    # --- sending ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Say all that is worth saying now."""
        if self.reads.want_round:
            self._beat()
        if self._stirred:
            self._stirred = False
            for node, peer in self.progress.items():
                self._feed(node, peer)

    def _feed(self, node: NodeId, peer: Progress) -> None:
        log, settings = self._state.log, self._state.settings
        while True:
            if peer.mode is not Mode.SNAPSHOT and peer.next <= log.base_index:
                self._state.note(f"sends {node} the snapshot at {log.snapshot.index}")
                peer.send_snapshot(log.snapshot)
            if peer.mode is Mode.SNAPSHOT:
                self._send_piece(node, peer)
                return
            if peer.waiting:
                return
            entries: tuple[Entry, ...] = ()
            if len(peer.in_flight) < settings.appends_in_flight_max:
                entries = log.batch(
                    peer.next, settings.append_bytes_max, settings.append_entries_max
                )
            unsure = peer.nudged or (peer.mode is Mode.PROBE and peer.match < log.last_index)
            tells_commit = peer.commit_sent < log.commit and peer.next > log.last_index
            if not (entries or unsure or tells_commit):
                return
            self._send_append(node, peer, entries)
            if not entries:
                return

    def _send_append(self, node: NodeId, peer: Progress, entries: tuple[Entry, ...]) -> None:
        state, log = self._state, self._state.log
        prev_index = peer.next - 1
        prev_term = log.term_at(prev_index)
        assert prev_term is not None, f"{node} needs {prev_index}, which is gone: {log!r}"
        state.say_now(
            Append(
                state.cluster,
                state.id,
                node,
                state.term,
                prev_index,
                prev_term,
                entries,
                log.commit,
            )
        )
        peer.commit_sent = log.commit
        peer.on_sent(prev_index + len(entries))

    def _send_piece(self, node: NodeId, peer: Progress) -> None:
        state, snapshot = self._state, peer.snapshot
        assert snapshot is not None, "set with the mode"
        if peer.waiting:
            return
        end = peer.offset + state.settings.snapshot_chunk_bytes
        state.say_now(
            InstallSnapshot(
                state.cluster,
                state.id,
                node,
                state.term,
                snapshot.index,
                snapshot.term,
                snapshot.config,
                peer.offset,
                snapshot.payload[peer.offset : end],
                end >= len(snapshot.payload),
            )
        )
        peer.waiting = True

    def validate(self) -> None:
        state, log = self._state, self._state.log
        members = [node for node in log.config.members() if node != state.id]
        assert list(self.progress) == members, f"{list(self.progress)} != {members}"
        waiting = log.entries(log.commit + 1, log.last_index)
        size_bytes = sum(entry.size_bytes for entry in waiting)
        assert self.uncommitted_bytes == size_bytes, f"{self.uncommitted_bytes} != {size_bytes}"
        assert all(e.term <= state.term for e in waiting), f"an entry of a later term: {log!r}"
        changes = [e for e in waiting if isinstance(e.payload, Config)]
        # A new leader does not know yet how much of what it inherited is committed.
        assert len(changes) <= 1 or log.commit < self.term_start, (
            f"changes of members in flight: {changes}"
        )
        self.reads.validate()
        for peer in self.progress.values():
            peer.validate()
            assert peer.match <= log.last_index, f"{peer!r} is ahead of {log!r}"
