"""What the observer of a cluster lets pass, and what it must not: fed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ssgovern.model import LogPosition, NodeId, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.raft.core import Raft
from ssgovern.raft.membership import Config
from ssgovern.raft.messages import HardState, Snapshot
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import PrimaryLog
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.cluster_scenario import draw_cluster
from ssgovern.sim.cluster_taps import ClusterTaps
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.taps import Taps
from ssgovern.sim.world import World
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import log_pb2
from ssgovern.wire.records import decode_record, encode_record

KEY = ServiceKey("default", "default", "orders")
SHARD = ShardId(shard_of(*KEY))
ME = SessionId(b"s" * 16)


async def _idle(runtime: SimRuntime) -> None:
    """Be there."""


class Cluster:
    """Three nodes of which only the watchers exist."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.checker = ClusterChecker(world, draw_cluster(0))
        plan = self.checker.scenario.nodes[0]
        self.nodes: list[NodeWatch] = []
        for number in (1, 2, 3):
            process = world.process(f"n{number}", _idle)
            watch = self.checker.watches[process.name] = NodeWatch(plan, process, self.checker)
            self.nodes.append(watch)
            watch.on_started()
            process.start()

    def epoch(self, node: int, epoch: int) -> None:
        self.checker.on_primary(self.nodes[node], SHARD, epoch)

    def apply(self, node: int, epoch: int, revision: int, record: log_pb2.Record) -> None:
        body = encode_record(record)
        self.checker.on_applied(self.nodes[node], SHARD, epoch, revision, decode_record(body))

    def start(self, node: int, epoch: int, revision: int) -> None:
        record = log_pb2.Record()
        record.epoch_started.node_id = node + 1
        self.apply(node, epoch, revision, record)

    def register(self, node: int, epoch: int, revision: int, weight: float = 1.0) -> None:
        self.apply(node, epoch, revision, registered(weight))

    def violation(self) -> str:
        """The invariant that was broken first; empty if none was."""
        return self.checker.violations[0].split(" ")[1] if self.checker.violations else ""


def registered(weight: float) -> log_pb2.Record:
    record = log_pb2.Record(time_ms=1)
    record.registered.service.CopyFrom(key_to_wire(KEY))
    record.registered.instance.id = "i"
    record.registered.instance.host = "h"
    record.registered.instance.port = 1
    record.registered.instance.weight = weight
    record.registered.instance.metadata["a"] = "1"
    record.registered.instance.metadata["b"] = "2"
    record.registered.session_id = ME
    return record


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with World(1) as world:
        made = Cluster(world)
        made.checker.may_register(KEY, "i", ME)
        yield made


def test_nodes_that_apply_the_same_are_right(cluster: Cluster) -> None:
    """A failover in which everything survives breaks nothing."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 2)
    for node in (1, 2):
        record = log_pb2.Record()
        record.epoch_started.node_id = 1
        cluster.apply(node, 1, 1, record)
        cluster.register(node, 1, 2)
    cluster.epoch(1, 2)
    cluster.start(1, 2, 3)
    assert not cluster.checker.violations
    assert cluster.checker.committed == 3
    assert cluster.checker.counts["promotion"] == 1


def test_a_committed_entry_that_is_replaced_is_found(cluster: Cluster) -> None:
    """Another body, or another epoch, at a committed revision is a lost write."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 2)
    cluster.register(1, 1, 2, weight=2.0)
    assert cluster.violation() == "P5:"


def test_a_new_primary_that_lacks_what_was_committed_is_found(cluster: Cluster) -> None:
    """It begins its epoch at a revision that was given already."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 2)
    cluster.epoch(1, 2)
    assert not cluster.violation()
    cluster.start(1, 2, 2)
    assert cluster.violation() == "P5:"


def test_a_gap_and_an_epoch_that_falls_are_found(cluster: Cluster) -> None:
    """Revisions follow each other and epochs never fall."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 3)
    assert cluster.violation() == "P5:"


def test_two_primaries_of_one_epoch_are_found(cluster: Cluster) -> None:
    """Neither two nodes nor two lives of one lead the same epoch, nor one that has passed."""
    cluster.epoch(0, 1)
    cluster.epoch(0, 1)
    assert not cluster.violation()
    cluster.epoch(1, 1)
    assert cluster.violation() == "P1:"


def test_an_epoch_that_was_passed_is_not_led(cluster: Cluster) -> None:
    """Who comes late finds a newer epoch begun."""
    cluster.epoch(0, 2)
    cluster.start(0, 2, 1)
    cluster.epoch(1, 1)
    assert cluster.violation() == "P1:"


def test_who_hears_late_that_it_led_does_no_harm(cluster: Cluster) -> None:
    """Without a lease a node that was cut off may replay that a shard was given to it once."""
    cluster.epoch(0, 2)
    cluster.start(0, 2, 1)
    cluster.nodes[1].node = _Unheard()
    cluster.epoch(1, 1)
    assert not cluster.violation()


def test_what_nobody_asked_for_is_found(cluster: Cluster) -> None:
    """D2: a registration that was taken back does not come again."""
    cluster.checker._may_register[KEY, "i", ME] = False
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 2)
    assert cluster.violation() == "D2:"


def test_states_are_compared_at_their_own_revision(cluster: Cluster) -> None:
    """A replica that is behind is right; one that holds something else is not."""
    state = ShardState(SHARD)
    cluster.epoch(0, 1)
    first = log_pb2.Record()
    first.epoch_started.node_id = 1
    for revision, record in enumerate((first, registered(1.0), registered(2.0)), start=1):
        cluster.apply(0, 1, revision, record)
        if revision < 3:
            state.apply(1, revision, decode_record(encode_record(record)))
    cluster.checker.check_state(state, "n2")
    assert not cluster.violation()
    state.services[KEY].instances.clear()
    cluster.checker.check_state(state, "n2")
    assert cluster.violation() == "D1:"


def test_a_state_of_no_time_is_found(cluster: Cluster) -> None:
    """A node is not at a position that the log never had."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    state = ShardState(SHARD)
    state.position = LogPosition(7, 1)
    cluster.checker.check_state(state, "n2")
    assert cluster.violation() == "P5:"


def test_terms_have_one_leader_and_do_not_fall(cluster: Cluster) -> None:
    """C1, over restarts too."""
    checker, [one, two, _] = cluster.checker, cluster.nodes
    checker.on_raft_persisted(one, 3)
    checker.on_elected(one, 3)
    checker.on_elected(one, 3)
    checker.on_raft_started(one, 3)
    assert not cluster.violation()
    assert checker.leader() is one.process
    checker.on_elected(two, 3)
    assert cluster.violation() == "C1:"


def test_a_forgotten_term_is_found(cluster: Cluster) -> None:
    """A candidate that comes back in an older term may vote twice."""
    cluster.checker.on_raft_persisted(cluster.nodes[0], 3)
    cluster.checker.on_raft_started(cluster.nodes[0], 2)
    assert cluster.violation() == "C1:"


def test_metadata_is_the_same_everywhere(cluster: Cluster) -> None:
    """C2: one index, one entry."""
    for watch in cluster.nodes:
        cluster.checker.on_metadata(watch, 1, b"one")
    assert not cluster.violation()
    cluster.checker.on_metadata(cluster.nodes[0], 1, b"two")
    assert cluster.violation() == "C2:"


def _promote(cluster: Cluster) -> Session:
    """The session owns something; node 2 becomes primary of it."""
    cluster.epoch(0, 1)
    cluster.start(0, 1, 1)
    cluster.register(0, 1, 2)
    session = Session(ME, 0.0, 5_000.0)
    session.shards = 1 << SHARD
    cluster.nodes[1].judge.on_heard(session)
    cluster.world.run(30.0)
    cluster.epoch(1, 2)
    cluster.start(1, 2, 3)
    cluster.world.run(31.0)
    return session


def test_a_session_that_ends_right_after_a_promotion_is_found(cluster: Cluster) -> None:
    """S1: a new primary gives everybody a full time to live, however long they were silent."""
    session = _promote(cluster)
    cluster.checker.on_session_end(cluster.nodes[1], session, expired=True)
    assert cluster.violation() == "S1:"


def test_a_session_that_ends_in_time_after_a_promotion_is_right(cluster: Cluster) -> None:
    """After its full time, or when it came and went, it may end."""
    session = _promote(cluster)
    cluster.world.run(31.0 + cluster.nodes[1].plan.server.session.ttl_ms / 1000.0)
    cluster.checker.on_session_end(cluster.nodes[1], session, expired=True)
    assert not cluster.violation()


class _Unheard(ClusterNode):
    """A node that has no lease."""

    def __init__(self) -> None:
        self.member = SimpleNamespace(controller_heard=False)  # type: ignore[assignment]


def test_an_expiry_without_a_lease_is_found(cluster: Cluster) -> None:
    """S3: whom a node does not hear because it is cut off itself does not expire."""
    session = _promote(cluster)
    cluster.world.run(31.0 + cluster.nodes[1].plan.server.session.ttl_ms / 1000.0)
    cluster.nodes[1].node = _Unheard()
    cluster.checker.on_session_end(cluster.nodes[1], session, expired=False)
    assert not cluster.violation()
    cluster.checker.on_session_end(cluster.nodes[1], session, expired=True)
    assert cluster.violation() == "S3:"


@pytest.mark.parametrize("is_held", [True, False])
def test_an_end_counts_if_its_client_knows_what_it_had(cluster: Cluster, *, is_held: bool) -> None:
    """What was never acknowledged nobody claims at a new primary: that it ends there is right."""
    cluster.checker.is_held = lambda *_: is_held
    _promote(cluster)
    record = log_pb2.Record(time_ms=1)
    record.session_ended.session_id = ME
    record.session_ended.reason = log_pb2.SESSION_END_EXPIRED
    cluster.apply(1, 2, 4, record)
    assert not cluster.violation()
    assert list(cluster.checker.ended) == [ME] * is_held


def test_the_ears_are_where_the_cores_are_asked() -> None:
    """Real cores, driven inside simulated processes, reach the checker through the taps."""
    with World(2) as world, Taps() as taps:
        cluster = Cluster(world)
        ClusterTaps(cluster.checker).listen(taps)

        async def main(runtime: SimRuntime) -> None:
            log = PrimaryLog(SHARD, 1, LogPosition(0, 0), (NodeId(1),))
            assert log.epoch == 1
            state = ShardState(SHARD)
            record = log_pb2.Record()
            record.epoch_started.node_id = 1
            state.apply(1, 1, record)
            table = SessionTable(SessionTiming(), Protection(ProtectionPolicy(1.0, 9, 0.0, 1.0)))
            table.hear(table.open(ME, 0.0), 0.0)
            config = Config((NodeId(1),))
            raft = Raft(
                b"c",
                NodeId(1),
                lambda limit: 0,
                hard_state=HardState(4),
                snapshot=Snapshot(config=config),
            )
            raft.campaign()
            for _ in range(3):
                batch = raft.ready()
                if batch is not None:
                    raft.persisted(batch)

        process = Process(cluster.nodes[0].process.machine, "n1", main, number=9, clock_rate=1.0)
        process.start()
        world.run(1.0)
        checker = cluster.checker
        assert not world.errors
        assert not checker.violations
        assert checker.counts["primary began"] == 1
        assert checker.ledger.shards[SHARD].position == LogPosition(1, 1)
        assert checker.counts["election"] == 1
        assert checker.watches["n1"].term == 5
        assert checker.watches["n1"].judge._heard.keys() == {ME}
