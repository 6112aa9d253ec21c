"""What has to be true of a cluster, looked at from outside and inside, at every moment.

One ledger for all nodes: what any node is the first to apply is committed, and whatever another
node applies at that position has to be the same, for ever. The names of the invariants are those
of the reliability notes: C1, C2 (consensus), P1 to P5 (shards), D, R, W, S, B, L as for one node.
The first violation ends the run.

Knows cores by what they are asked (`cluster_taps` tells); knows nothing of how a node puts them
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ssgovern import limits
from ssgovern.model import ServiceKey, ShardId
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.registry.sessions import Session, shards_of
from ssgovern.sim.claims import Claims, difference
from ssgovern.sim.ledger import LedgerEntry, ShardLedger
from ssgovern.sim.sessions_judge import SessionsJudge
from ssgovern.wire.codec import instance_from_wire
from ssgovern.wire.pb import log_pb2, model_pb2
from ssgovern.wire.records import Record, encode_record

if TYPE_CHECKING:
    from ssgovern.node.metadata import Metadata
    from ssgovern.node.node import Node
    from ssgovern.registry.state import ShardState
    from ssgovern.sim.cluster_scenario import ClusterScenario, NodePlan
    from ssgovern.sim.process import Process
    from ssgovern.sim.world import World

_EVENTS_PER_S_MAX = 300_000
_OUTBOUND_BYTES_MAX = limits.OUTBOUND_HARD_BYTES + (1 << 20)
_CLOCK_TOLERANCE_MS = 600.0
"""A promotion is seen here when its first entry is applied, a tick or so before sessions are."""


class NodeWatch:
    """What the observer knows of one node, over all its lives."""

    def __init__(self, plan: NodePlan, process: Process, checker: ClusterChecker) -> None:
        self.plan = plan
        self.process = process
        self.node: Node | None = None
        """The node of the present life, once it is assembled."""
        self.judge = SessionsJudge(process, plan.server, checker.fail)
        self.metadata: Metadata | None = None
        """What the present life has replayed of the metadata log."""
        self.disk_failed = False
        """Its disks give errors, or did not long ago: it may stop by itself."""
        self.wrong_disk = False
        """An empty disk was mounted in place of its own."""
        self.lives = 0
        self.term = 0
        """The highest term its disk was told of."""
        self.map_version = 0
        """Of this life."""
        self.promoted: dict[int, float] = {}
        """By shard, when in this life it became primary, by the judge's clock."""

    def __repr__(self) -> str:
        return f"<NodeWatch {self.process.name} lives={self.lives} term={self.term}>"

    @property
    def has_lease(self) -> bool:
        """Whether its present life heard the controller not long ago."""
        node = self.node
        return not isinstance(node, ClusterNode) or node.member.controller_heard

    @property
    def is_down(self) -> bool:
        return not self.process.alive

    def on_started(self) -> None:
        self.lives += 1
        self.node = self.metadata = None
        self.map_version = 0
        self.promoted.clear()
        self.judge.on_started()

    def on_down(self) -> None:
        self.node = self.metadata = None


class ClusterChecker(Claims):
    """Observer of all nodes, and the judge of what their clients say."""

    def __init__(self, world: World, scenario: ClusterScenario) -> None:
        super().__init__(world)
        self.scenario = scenario
        self.watches: dict[str, NodeWatch] = {}
        """By name of the process."""
        self.counts: Counter[str] = Counter()
        """What happened how often: what never does is not tested."""
        self.lists_may_be_old = True
        self.term = 0
        """The highest in which anybody led."""
        self.ended: dict[bytes, float] = {}
        """When each session first lost something that its client knows it had, because it ended."""
        self.is_held: Callable[[bytes, ServiceKey, str], bool] = lambda *_: False
        """Whether a client that lives was acknowledged an instance and did not ask it to go."""
        self._leaders: dict[int, str] = {}
        self._primaries: dict[tuple[int, int], str] = {}
        self._metadata: dict[int, bytes] = {}
        self._maps: dict[int, tuple[object, ...]] = {}
        self._client_maps: dict[str, int] = {}
        self._looks = 0

    def watch(self, plan: NodePlan, process: Process) -> NodeWatch:
        """Add a node."""
        watch = self.watches[process.name] = NodeWatch(plan, process, self)
        return watch

    # --- logs of shards ----------------------------------------------------------------------

    def on_applied(
        self, watch: NodeWatch, shard: ShardId, epoch: int, revision: int, record: Record
    ) -> None:
        """P5, C2: what is applied at a position is the same everywhere and for ever."""
        ledger = self.ledger.shards[shard]
        body = encode_record(record)
        known = ledger.entry(revision)
        if known is not None:
            if known.epoch != epoch or not _same(known.body, body):
                self.fail(
                    f"P5: {watch.process.name} applied {epoch}/{revision} of shard {shard}: "
                    f"{_short(body)}; at {known.when:.6f} {known.epoch}/{revision} was committed: "
                    f"{_short(known.body)}"
                )
            self._maybe_promoted(watch, shard, epoch, record)
            return
        if revision != ledger.revision + 1 or epoch < ledger.position.epoch:
            self.fail(
                f"P5: {watch.process.name} applied {epoch}/{revision} of shard {shard} after "
                f"{ledger.position!r}"
            )
            return
        entry = LedgerEntry(epoch, revision, body, self.world.now)
        ended = entry.record.session_ended
        if ended.session_id:
            self._on_session_ended(shard, ended)
        self.check_registered(ledger.apply(entry), entry)
        self._maybe_promoted(watch, shard, epoch, record)

    def _maybe_promoted(self, watch: NodeWatch, shard: ShardId, epoch: int, record: Record) -> None:
        if not isinstance(record, log_pb2.Record) or not record.HasField("epoch_started"):
            return
        if self._primaries.get((shard, epoch)) == _life(watch):
            watch.promoted[shard] = watch.judge.running_ms()

    def _on_session_ended(self, shard: ShardId, change: log_pb2.SessionEnded) -> None:
        # What was never acknowledged nobody claims at a new primary: it ends there, as it should.
        for key, history in self.ledger.shards[shard].services.items():
            for name, owned in history.now.items():
                mine = owned.session_id == change.session_id and owned.instance.ephemeral
                if mine and self.is_held(change.session_id, key, name):
                    self.ended.setdefault(change.session_id, self.world.now)
        if change.reason == log_pb2.SESSION_END_EXPIRED:
            self.counts["session ended"] += 1

    def on_primary(self, watch: NodeWatch, shard: ShardId, epoch: int) -> None:
        """P1: one life of one node leads an epoch."""
        life = _life(watch)
        before = self._primaries.setdefault((shard, epoch), life)
        if before != life:
            self.fail(f"P1: shard {shard} epoch {epoch}: {before} was primary, now {life} is")
        newest = self.ledger.shards[shard].position.epoch
        if epoch <= newest and watch.has_lease:
            # Without a lease it has heard late of what it was: it can neither answer nor commit.
            self.fail(f"P1: {life} leads shard {shard} in epoch {epoch}, {newest} has begun")
        self.counts["primary began" if newest == 0 else "promotion"] += 1

    def check_state(self, state: ShardState, who: str) -> None:
        """D1, D3: a node holds what the log amounts to at its position, no more and no less."""
        ledger = self.ledger.shards[state.shard]
        position = state.position
        if position.revision == 0:
            return
        entry = ledger.entry(position.revision)
        if entry is None or entry.epoch != position.epoch:
            self.fail(f"P5: {who}: shard {state.shard} is at {position!r}, it never was there")
            return
        newest = position.revision == ledger.revision
        for key, service in state.services.items():
            held = {
                each.id: instance_from_wire(model_pb2.Instance.FromString(each.encoded))
                for each in service.instances.values()
            }
            if held != ledger.at(key, position.revision):
                self.fail(
                    f"D1: {who}: {key} at {position!r} "
                    f"{difference(dict(ledger.at(key, position.revision)), held)}"
                )
            if newest:
                owners = {each.id: each.session_id for each in service.instances.values()}
                now = ledger.services[key].now if key in ledger.services else {}
                right = {name: owned.session_id for name, owned in now.items()}
                self.expect(owners == right, f"D3: {who}: owners in {key} are wrong")
        for key in ledger.services:
            if key not in state.services and ledger.at(key, position.revision):
                self.fail(f"D1: {who}: {key} is missing at {position!r}")

    # --- consensus and metadata --------------------------------------------------------------

    def on_raft_started(self, watch: NodeWatch, term: int) -> None:
        self.expect(
            term >= watch.term or watch.wrong_disk,
            f"C1: {watch.process.name} came back in term {term}: {watch!r}",
        )

    def on_raft_persisted(self, watch: NodeWatch, term: int) -> None:
        if watch.wrong_disk:
            # Of that disk nobody was promised anything; nobody may listen to who has it.
            return
        if term < watch.term:
            self.fail(f"C1: {watch.process.name} went back to term {term}: {watch!r}")
        watch.term = term

    def on_elected(self, watch: NodeWatch, term: int) -> None:
        """C1: one candidate leads a term."""
        before = self._leaders.setdefault(term, watch.process.name)
        if before != watch.process.name:
            self.fail(f"C1: {before} and {watch.process.name} both lead term {term}")
        self.term = max(self.term, term)
        self.counts["election"] += 1

    def on_metadata(self, watch: NodeWatch, index: int, body: bytes) -> None:
        """C2: an index of the metadata log means the same on every node."""
        before = self._metadata.setdefault(index, body)
        if before != body:
            self.fail(f"C2: {watch.process.name} has another entry at metadata index {index}")

    def leader(self) -> Process | None:
        """Return who leads the highest term anybody ever led."""
        name = self._leaders.get(self.term)
        return None if name is None else self.watches[name].process

    def on_map(self, watch: NodeWatch, metadata: Metadata) -> None:
        """P3: a map version means the same map everywhere, and no node's version falls."""
        watch.metadata = metadata
        version = metadata.map_version
        if version < watch.map_version:
            self.fail(f"P3: {watch.process.name} has map {version} after {watch.map_version}")
        if version == watch.map_version:
            return
        watch.map_version = version
        rows = tuple(metadata.state.rows)
        if self._maps.setdefault(version, rows) != rows:
            self.fail(f"P3: {watch.process.name} has another map with version {version}")

    def on_client_map(self, process: Process, version: int) -> None:
        """P3: the map that a life of a client has never goes back."""
        life = f"{process.name}/{process.incarnation}"
        before = self._client_maps.get(life, 0)
        if version < before:
            self.fail(f"P3: client {life} has map {version} after {before}")
        self._client_maps[life] = version

    # --- sessions ----------------------------------------------------------------------------

    def on_session_end(self, watch: NodeWatch, session: Session, *, expired: bool) -> None:
        """S1: nobody's time is cut short, neither by silence nor by a change of the primary."""
        closed = watch.judge.closed_at(session.id)
        watch.judge.on_end(session, expired=expired)
        if not expired or session.ended:
            return
        if not watch.has_lease:
            self.fail(
                f"S3: {watch.process.name} lets session {session.id.hex()[:8]} expire, "
                "and has no lease itself"
            )
        now = watch.judge.running_ms()
        ttl_ms = session.ttl_ms if session.is_lease else watch.plan.server.session.ttl_ms
        for shard in shards_of(session.shards):
            since = watch.promoted.get(shard)
            if since is None or now - since >= ttl_ms - _CLOCK_TOLERANCE_MS:
                continue
            if closed is not None and closed >= since:
                # It came to this primary and left it again.
                continue
            if self._owns(shard, session.id):
                self.fail(
                    f"S1: session {session.id.hex()[:8]} expired in shard {shard} "
                    f"{now - since:.0f} ms after {watch.process.name} became its primary"
                )

    def _owns(self, shard: ShardId, session_id: bytes) -> bool:
        return any(
            owned.session_id == session_id
            for history in self.ledger.shards[shard].services.values()
            for owned in history.now.values()
        )

    # --- all the time ------------------------------------------------------------------------

    def look(self) -> None:
        """Look at everything once. Called again and again, while nothing runs."""
        if self.world.errors:
            self.fail(f"B1: unhandled: {self.world.errors[0]}")
        if self.world.events > _EVENTS_PER_S_MAX * (self.world.now + 10.0):
            self.fail(f"B1: {self.world.events} events: something goes round in circles")
        self._looks += 1
        for watch in self.watches.values():
            if watch.node is not None:
                self._check_bounds(watch, watch.node)
                if self._looks % 8 == 0:
                    self.look_closely(watch, watch.node)

    def look_closely(self, watch: NodeWatch, node: Node) -> None:
        """Validate every core of a node, and compare what it holds with the ledger."""
        try:
            node.validate()
        except (AssertionError, KeyError) as error:
            self.fail(f"B1: {watch.process.name}: an invariant of a core is broken: {error!r}")
            return
        for shard, ledger in enumerate(self.ledger.shards):
            if ledger.services:
                self.check_state(node.states[shard], watch.process.name)

    def _check_bounds(self, watch: NodeWatch, node: Node) -> None:
        for connection in node.server._connections:
            waiting = connection.outbound_bytes
            self.expect(
                waiting <= _OUTBOUND_BYTES_MAX,
                f"B1: {watch.process.name}: {waiting} bytes wait to be read",
            )

    @property
    def committed(self) -> int:
        return sum(shard.revision for shard in self.ledger.shards)

    def shards_used(self) -> list[tuple[int, ShardLedger]]:
        """Return the shards that ever held a service."""
        return [(n, shard) for n, shard in enumerate(self.ledger.shards) if shard.services]


def _life(watch: NodeWatch) -> str:
    return f"{watch.process.name}/{watch.process.incarnation}"


def _same(known: bytes, body: bytes) -> bool:
    """Tell whether two encodings say the same: the order of a map's entries is free."""
    return known == body or log_pb2.Record.FromString(known) == log_pb2.Record.FromString(body)


def _short(body: bytes) -> str:
    return " ".join(str(log_pb2.Record.FromString(body)).split())[:200]
