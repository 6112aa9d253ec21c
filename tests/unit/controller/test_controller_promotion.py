"""Who becomes primary, who may not, and what everybody is told when nobody may."""

from __future__ import annotations

import pytest
from tame import MakeCluster

from ssgovern.controller.controller import Controller, decide_founding
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import NOBODY, ShardRow, placed, promoted, row_fault, with_in_sync
from ssgovern.controller.settings import check_settings
from ssgovern.controller.state import ClusterState, Settings
from ssgovern.errors import FencedError, InvalidArgumentError
from ssgovern.model import LogPosition, NodeId, ShardAssignment, ShardId, ShardMap
from ssgovern.sim.controller_scale import TameCluster

A, B, C = NodeId(1), NodeId(2), NodeId(3)
S0 = ShardId(0)


def request(
    cluster: TameCluster, members: dict[NodeId, int], *, version: int | None = None
) -> InSyncRequest:
    row = cluster.state.rows[0]
    session = cluster.state.nodes[row.primary].session
    asked_version = row.version if version is None else version
    return InSyncRequest(S0, row.primary, session, row.epoch, asked_version, tuple(members.items()))


def sole_shard(make_cluster: MakeCluster, min_in_sync: int = 2) -> TameCluster:
    """A cluster of three with one shard, of which node 1 is primary."""
    cluster = make_cluster(
        3, shards=1, settings=Settings(copies=3, nodes_initial=3, min_in_sync=min_in_sync)
    )
    if cluster.state.rows[0].primary != A:
        cluster.commit(cluster.controller.decide_transfer(S0, A))
        row = cluster.state.rows[0]
        resigned = Resigned(S0, row.primary, 1, row.epoch, row.version)
        cluster.commit(cluster.controller.decide_resigned(resigned))
    return cluster


def test_the_highest_log_position_wins(make_cluster: MakeCluster) -> None:
    """Not the highest id: it has more of what was not acknowledged yet."""
    cluster = sole_shard(make_cluster)
    cluster.controller.hear(B, 1, 0, {S0: LogPosition(1, 9)})
    cluster.controller.hear(C, 1, 0, {S0: LogPosition(1, 8)})
    epoch = cluster.state.rows[0].epoch
    cluster.kill([1])
    cluster.look()
    row = cluster.state.rows[0]
    assert (row.primary, row.epoch, row.in_sync) == (B, epoch + 1, (B, C))


def test_the_higher_id_wins_a_tie(make_cluster: MakeCluster) -> None:
    """The outcome is predictable."""
    cluster = sole_shard(make_cluster)
    cluster.kill([1])
    cluster.look()
    assert cluster.state.rows[0].primary == C


def test_who_is_not_in_sync_is_not_promoted(make_cluster: MakeCluster) -> None:
    """The last in sync dies: who fell behind while it wrote alone stays out, loudly."""
    cluster = sole_shard(make_cluster, min_in_sync=1)
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1})))
    assert cluster.state.rows[0].eligible == ()
    cluster.kill([1])
    said = cluster.look().sentence
    row = cluster.state.rows[0]
    assert (row.primary, row.in_sync, row.eligible) == (NOBODY, (), (A,))
    assert said.endswith("Shard 0 UNAVAILABLE, waiting for node 1.")
    cluster.join(1, "z0", b"2")
    assert cluster.state.rows[0].primary == A
    assert "All shards have a primary again" in cluster.look().sentence


def test_who_left_when_nothing_could_be_committed_is_eligible(make_cluster: MakeCluster) -> None:
    """Below the minimum nothing is acknowledged, so who left still has it all."""
    cluster = sole_shard(make_cluster)
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1, C: 1})))
    assert cluster.state.rows[0].eligible == ()
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1})))
    assert cluster.state.rows[0].eligible == (C,)
    cluster.kill([1])
    cluster.look()
    row = cluster.state.rows[0]
    assert (row.primary, row.in_sync, row.eligible) == (C, (C,), (A,))


def test_nodes_that_fall_silent_together_are_all_eligible(make_cluster: MakeCluster) -> None:
    """Power fails: whoever comes back first, even node 2 alone, has all that was acknowledged."""
    cluster = sole_shard(make_cluster)
    cluster.kill([1, 2, 3])
    cluster.look()
    assert cluster.state.rows[0].eligible == (A, B, C)
    cluster.join(2, "z0", b"2")
    assert cluster.state.rows[0].primary == B


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_rows_after_any_promotion_are_sound(minimum: int) -> None:
    """From the in-sync set or from who is eligible, the row's invariants hold."""
    row = placed(ShardRow(), [A, B, C], A)
    for gone in ([B, C], [C], []):
        row = with_in_sync(row, gone, minimum)
        assert row_fault(row, minimum) is None
    for node in row.eligible:
        raised = promoted(row, node, minimum)
        assert row_fault(raised, minimum) is None
        assert raised.epoch == row.epoch + 1


def test_in_sync_is_compare_and_set(make_cluster: MakeCluster) -> None:
    """A request made at an older version of the row is refused, and one that is not is not."""
    cluster = sole_shard(make_cluster)
    old = cluster.state.rows[0].version
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1})))
    with pytest.raises(FencedError, match="read on and ask again"):
        cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1, C: 1}, version=old))
    decision = cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1, C: 1}))
    assert decision.sentence == "Node 3 caught up in shard 0, says its primary 1."


def test_a_member_of_an_older_life_is_refused(make_cluster: MakeCluster) -> None:
    """A node that restarted since it caught up has to catch up again."""
    cluster = sole_shard(make_cluster)
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1})))
    cluster.join(3, "z0", b"2")
    with pytest.raises(FencedError, match="restarted since session 1"):
        cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1, C: 1}))
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1, B: 1, C: 2})))
    assert cluster.state.rows[0].in_sync == (A, B, C)


@pytest.mark.parametrize("members", [{B: 1, C: 1}, {A: 1, NodeId(9): 1}, {}])
def test_sets_that_can_never_be(members: dict[NodeId, int], make_cluster: MakeCluster) -> None:
    """Without the primary, or with who does not hold the shard: no retry helps."""
    cluster = sole_shard(make_cluster)
    with pytest.raises(InvalidArgumentError):
        cluster.controller.decide_in_sync(request(cluster, members))
    with pytest.raises(InvalidArgumentError, match="no shard 7"):
        cluster.controller.decide_in_sync(InSyncRequest(ShardId(7), A, 1, 1, 1, ()))


def test_a_hand_over_that_nobody_answers_is_taken_back(make_cluster: MakeCluster) -> None:
    """The primary goes on, and its late word that it stopped is refused."""
    cluster = sole_shard(make_cluster)
    cluster.commit(cluster.controller.decide_transfer(S0, B))
    row = cluster.state.rows[0]
    late = Resigned(S0, A, 1, row.epoch, row.version)
    cluster.look()
    cluster.wait(4_999)
    cluster.look()
    assert cluster.state.rows[0].successor == B
    cluster.wait(1)
    assert "took back the hand-over" in cluster.look().sentence.lower()
    with pytest.raises(FencedError):
        cluster.controller.decide_resigned(late)
    assert cluster.state.rows[0].primary == A


def test_a_single_node_becomes_the_first_of_several() -> None:
    """It keeps its data and its epochs; others join and take their share."""
    alone = ShardMap(7, tuple(ShardAssignment(epoch, A, (), (A,)) for epoch in (7, 3, 5)))
    cluster = TameCluster(Settings(), 3)
    state = ClusterState(3)
    first = Registration(
        A, "node-1", "node-1.example.internal:7420", "", b"%016d" % 1, b"1".rjust(16, b"0")
    )
    for record in decide_founding(state, b"id", Settings(), (first, alone)).records:
        state.replay(record)
    state.validate()
    cluster.controller = Controller(state, 0)
    cluster.join(2)
    assert "UNAVAILABLE, waiting for node 1" in cluster.look().sentence
    cluster.join(1)
    assert [(row.epoch, row.primary) for row in cluster.state.rows] == [(8, A), (4, A), (6, A)]
    cluster.join(3)
    cluster.settle()
    copies, primaries = cluster.loads()
    assert set(copies.values()) == {3}
    assert set(primaries.values()) == {1}


def test_lowering_the_minimum_takes_eligibility(make_cluster: MakeCluster) -> None:
    """From then on writes go on without those who left: they no longer hold it all."""
    cluster = sole_shard(make_cluster)
    cluster.commit(cluster.controller.decide_in_sync(request(cluster, {A: 1})))
    assert cluster.state.rows[0].eligible == (B, C)
    cluster.commit(
        cluster.controller.decide_settings(Settings(copies=3, nodes_initial=3, min_in_sync=1))
    )
    assert cluster.state.rows[0].eligible == ()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(copies=0),
        Settings(copies=2, min_in_sync=3),
        Settings(min_in_sync=0),
        Settings(moves_max=0),
        Settings(fence_after_ms=10),
        Settings(format_version=2),
    ],
)
def test_settings_that_cannot_work(settings: Settings) -> None:
    """Refused with the name of the field."""
    with pytest.raises(InvalidArgumentError) as error:
        check_settings(settings)
    assert hasattr(settings, error.value.fields["field"])


def test_nobody_waits_for_a_replica_whose_process_is_gone(make_cluster: MakeCluster) -> None:
    """It leaves the in-sync set at once; where it is primary its lease has to end first."""
    cluster = sole_shard(make_cluster)
    controller = cluster.controller
    controller.note_gone(C, gone=True)
    cluster.commit(controller.decide_pass(cluster.now_ms))
    row = cluster.state.rows[0]
    assert (row.primary, row.in_sync) == (A, (A, B))
    controller.note_gone(A, gone=True)
    cluster.commit(controller.decide_pass(cluster.now_ms))
    assert cluster.state.rows[0] == row


def test_the_last_copy_but_one_is_waited_for(make_cluster: MakeCluster) -> None:
    """Below min_in_sync nothing commits, so that nobody is taken out for the sake of it."""
    cluster = sole_shard(make_cluster, min_in_sync=3)
    cluster.controller.note_gone(C, gone=True)
    cluster.commit(cluster.controller.decide_pass(cluster.now_ms))
    assert cluster.state.rows[0].in_sync == (A, B, C)
