"""What has to be true of a node, looked at from outside and inside, at every moment.

The names of the invariants are those of the project's reliability notes: C3 and D1 (nothing that
was committed is lost), D2 (nothing comes back), D3 (nothing vanishes for no reason), P5 (an entry
never changes), R1 and R2 (revisions), W1 to W3 (subscribers), S1 to S3 (sessions), B1 (bounds).
The first violation ends the run: what follows from it teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssgovern import limits
from ssgovern.model import LogPosition
from ssgovern.registry.sessions import Session
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import Proposal
from ssgovern.sim.claims import Claims, difference
from ssgovern.sim.ledger import LedgerEntry, Owned
from ssgovern.sim.sessions_judge import SessionsJudge
from ssgovern.wire.codec import instance_from_wire
from ssgovern.wire.pb import model_pb2

if TYPE_CHECKING:
    from ssgovern.sim.observed import ObservedNode
    from ssgovern.sim.process import Process
    from ssgovern.sim.scenario import Scenario
    from ssgovern.sim.world import World

_EVENTS_PER_S_MAX = 100_000
# What a batch of answers may add to a full buffer.
_OUTBOUND_BYTES_MAX = limits.OUTBOUND_HARD_BYTES + (1 << 20)


class Checker(Claims):
    """Observer of the node, and the judge of what its clients say."""

    def __init__(self, world: World, scenario: Scenario, process: Process) -> None:
        super().__init__(world)
        self.scenario = scenario
        self.node: ObservedNode | None = None
        """The node while it serves."""
        self.judge = SessionsJudge(process, scenario.server, self.fail)
        self.disk_failed = False
        """Disks give errors, or did not long ago: the node may stop by itself."""
        self.writes_may_fail = False
        """Disks are full, or were not long ago."""
        self.slack_s = 0.0
        """By how much faults may have lengthened what durability at intervals may lose."""
        self.lost_cache = False
        """The page cache was lost since the log last came back."""
        self._ended_at = 0.0
        """When the last life ended that had its log: nobody synced anything after that."""
        self._has_log = False
        self.lives = 0
        self._looks = 0

    # --- the node's life -------------------------------------------------------------------

    def on_started(self) -> None:
        self.lives += 1
        self.node = None
        self.judge.on_started()

    def on_down(self) -> None:
        self.node = None
        if self._has_log:
            self._has_log = False
            self._ended_at = self.world.now

    def on_ready(self, node: ObservedNode) -> None:
        self.node = node
        self.judge.on_ready(node.registry.sessions)
        self.world.note(f"serving, epoch {node.states[0].position.epoch}")

    def on_recovered(self, node: ObservedNode) -> None:
        self._has_log = True
        for state in node.states:
            self._settle(state)
            self.compare(state)
        self.lost_cache = False
        node.validate()

    def _settle(self, state: ShardState) -> None:
        """Compare the log that came back with the one there was, and go on from it."""
        shard, position = state.shard, state.position
        ledger = self.ledger.shards[shard]
        if position.revision < ledger.revision:
            lost = self.ledger.lose(shard, position.revision)
            if not self._may_be_lost(lost):
                self.fail(
                    f"C3: shard {shard} came back at {position!r}, but {lost[-1].epoch}/"
                    f"{lost[-1].revision} was committed at {lost[-1].when:.6f}"
                )
            ledger = self.ledger.shards[shard]
        for revision in range(ledger.revision + 1, position.revision + 1):
            body = self.ledger.proposed(shard, position.epoch, revision)
            if body is None:
                self.fail(
                    f"P5: shard {shard} came back with {position.epoch}/{revision}, which "
                    "nobody proposed or which was refused"
                )
                return
            self._apply(shard, LedgerEntry(position.epoch, revision, body, self.world.now))
        self.expect(
            ledger.position == position,
            f"P5: shard {shard} came back at {position!r}, it was at {ledger.position!r}",
        )

    def _may_be_lost(self, lost: Sequence[LedgerEntry]) -> bool:
        if self.scenario.is_sync or not self.lost_cache:
            return False
        window_s = self.scenario.server.durability_interval_ms / 1000.0
        window_s += 4 * self.scenario.sync_s[1] + self.slack_s + 0.1
        return self._ended_at - lost[0].when <= window_s

    def compare(self, state: ShardState) -> None:
        """D1, D3: the node holds what its log amounts to, neither more nor less."""
        ledger = self.ledger.shards[state.shard]
        if ledger.position != state.position:
            self.fail(f"P5: shard {state.shard} is at {state.position!r}, not {ledger.position!r}")
            return
        for key, history in ledger.services.items():
            service = state.services.get(key)
            held = {}
            if service is not None:
                for entry in service.instances.values():
                    instance = instance_from_wire(model_pb2.Instance.FromString(entry.encoded))
                    held[entry.id] = Owned(instance, entry.session_id)
            if held != history.now:
                self.fail(f"D1: {key} at {state.position!r} {difference(history.now, held)}")
            out = {} if service is None else service.out_of_service
            if sorted(out) != sorted(history.out_of_service):
                self.fail(f"D1: {key}: out of service {sorted(out)}, not {history.out_of_service}")
        for key, service in state.services.items():
            if service.instances and key not in ledger.services:
                self.fail(f"D2: {key} has instances that nobody registered")

    # --- the log ---------------------------------------------------------------------------

    def on_proposed(self, proposal: Proposal) -> None:
        self.ledger.propose(*_position(proposal), proposal.body)

    def on_withdrawn(self, proposals: Sequence[Proposal]) -> None:
        for proposal in proposals:
            self.ledger.withdraw(*_position(proposal))
        self.expect(
            self.writes_may_fail, "a write was refused for want of space on a disk that had some"
        )

    def on_committed(self, proposals: Sequence[Proposal]) -> None:
        for proposal in proposals:
            ledger = self.ledger.shards[proposal.shard]
            if proposal.revision != ledger.revision + 1 or proposal.epoch < ledger.position.epoch:
                self.fail(f"P5: {proposal!r} committed after {ledger.position!r}")
                return
            if self.ledger.proposed(*_position(proposal)) != proposal.body:
                self.fail(f"P5: {proposal!r} committed, which was refused")
                return
            entry = LedgerEntry(proposal.epoch, proposal.revision, proposal.body, self.world.now)
            self._apply(proposal.shard, entry)

    def _apply(self, shard: int, entry: LedgerEntry) -> None:
        record = self.ledger.shards[shard].apply(entry)
        self.check_registered(record, entry)

    # --- sessions --------------------------------------------------------------------------

    def on_heard(self, session: Session) -> None:
        self.judge.on_heard(session)

    def on_detached(self, session: Session) -> None:
        self.judge.on_detached(session)

    def on_session_end(self, session: Session, *, expired: bool) -> None:
        self.judge.on_end(session, expired=expired)

    # --- all the time ----------------------------------------------------------------------

    def look(self) -> None:
        """Look the node over. Called again and again, while nothing of it runs."""
        if self.world.errors:
            self.fail(f"B1: unhandled: {self.world.errors[0]}")
        if self.world.events > _EVENTS_PER_S_MAX * (self.world.now + 10.0):
            self.fail(f"B1: {self.world.events} events: something goes round in circles")
        node = self.node
        if node is None:
            return
        self._looks += 1
        self._check_bounds(node)
        excused = self.writes_may_fail or node.writes_refused or node.server.stopping
        if not excused:
            self.judge.look(node.registry.sessions)
        if self._looks % 4 == 0:
            self.look_closely()

    def look_closely(self) -> None:
        node = self.node
        if node is None:
            return
        try:
            node.validate()
        except (AssertionError, KeyError) as error:
            self.fail(f"B1: an invariant of a core is broken: {error!r}")
            return
        listed = []
        for state in node.states:
            if state.services:
                self.compare(state)
                self._check_catch_up(state)
                listed += [key for key, service in state.services.items() if service.instances]
        self.expect(
            node.registry.directory._keys == sorted(listed),
            "the directory does not list the services that have instances",
        )

    def _check_catch_up(self, state: ShardState) -> None:
        """W3: a subscriber that resumes from anywhere learns exactly what it lacks."""
        rng = self.world.app_rng
        ledger = self.ledger.shards[state.shard]
        for key in state.services:
            entry = ledger.entries[rng.randrange(len(ledger.entries))]
            known = LogPosition(entry.epoch, entry.revision)
            found = state.catch_up(key, known)
            now = ledger.at(key, ledger.revision)
            upserted = [
                instance_from_wire(model_pb2.Instance.FromString(encoded))
                for encoded in found.upserted
            ]
            told = {} if found.kind == "snapshot" else dict(ledger.at(key, known.revision))
            for name in found.removed:
                told.pop(name, None)
            told.update((instance.id, instance) for instance in upserted)
            if told != now:
                self.fail(
                    f"W3: {key}: who resumes from {known!r} gets a {found.kind} that leads "
                    f"elsewhere: {difference(now, told)}"
                )

    def _check_bounds(self, node: ObservedNode) -> None:
        services = sum(len(state.services) for state in node.states)
        waiting = node.waiting_entries
        # Ends of sessions and starts of epochs are not refused, and are bounded by themselves.
        allowed = limits.UNCOMMITTED_ENTRIES_MAX + 256 * (1 + len(self.scenario.clients))
        self.expect(waiting <= allowed, f"B1: {waiting} entries wait for the log")
        pending = len(node.push._pending)
        self.expect(pending <= services, f"B1: {pending} changes wait for {services} services")
        for connection in node.server._connections:
            bytes_waiting = connection.outbound_bytes
            self.expect(
                bytes_waiting <= _OUTBOUND_BYTES_MAX, f"B1: {bytes_waiting} bytes wait to be read"
            )
            self.expect(
                connection.in_flight <= limits.IN_FLIGHT_PER_CONNECTION_MAX + 1,
                f"B1: {connection.in_flight} requests of {connection!r} are in flight",
            )
            # A service may be followed before it ever had an instance.
            known = len(self.ledger.names) + len(self.scenario.services)
            self.expect(
                len(connection.behind) <= known,
                f"B1: {connection!r} lacks {len(connection.behind)} of {known} services",
            )


def _position(proposal: Proposal) -> tuple[int, int, int]:
    return proposal.shard, proposal.epoch, proposal.revision
