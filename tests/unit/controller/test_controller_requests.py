"""Several requests decided as one entry, and what operators may order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tame import MakeCluster

from ssgovern.controller.attempts import COPY_PAUSE_MS, COPY_PAUSE_MS_MAX, Attempts
from ssgovern.controller.replicas import InSyncRequest
from ssgovern.controller.requests import (
    Candidates,
    ChangeSettings,
    Decided,
    Leave,
    Request,
    Stay,
    Transfer,
    Unclean,
    decide_requests,
    sentences,
)
from ssgovern.controller.rules import Decision, named
from ssgovern.controller.settings import FENCE_AFTER_MS_MIN
from ssgovern.controller.state import NodeRegistered, Settings
from ssgovern.errors import FencedError, InvalidArgumentError, NotFoundError
from ssgovern.model import NodeId, ShardId
from ssgovern.sim.controller_scale import TameCluster

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def decide(cluster: TameCluster, *asked: Request) -> Decided:
    controller = cluster.controller
    return decide_requests(
        controller.state, controller.soft, controller.rules, asked, cluster.now_ms
    )


def commit(cluster: TameCluster, decided: Decided) -> None:
    cluster.commit(Decision(decided.records))


def without(cluster: TameCluster, shard: int, node: NodeId) -> InSyncRequest:
    """Return what the primary of a shard asks when a node fell behind."""
    row = cluster.state.rows[shard]
    session = {node: cluster.state.nodes[node].session for node in row.in_sync}
    return InSyncRequest(
        ShardId(shard),
        row.primary,
        session[row.primary],
        row.epoch,
        row.version,
        tuple((other, session[other]) for other in row.in_sync if other != node),
    )


def replica(cluster: TameCluster, shard: int) -> NodeId:
    row = cluster.state.rows[shard]
    return next(node for node in row.in_sync if node != row.primary)


def test_each_is_decided_in_the_state_that_the_others_lead_to(make_cluster: MakeCluster) -> None:
    """Of two changes of one row the second is too late; of two rows both are made."""
    cluster = make_cluster(3)
    first = without(cluster, 0, replica(cluster, 0))
    other = without(cluster, 1, replica(cluster, 1))
    decided = decide(cluster, first, first, other)
    kinds = [type(outcome) for outcome in decided.outcomes]
    assert kinds == [Decision, FencedError, Decision]
    before = cluster.state.copy()
    commit(cluster, decided)
    changed = [old != new for old, new in zip(before.rows, cluster.state.rows, strict=True)]
    assert changed == [True, True, False, False, False, False]


def test_deciding_changes_nothing(make_cluster: MakeCluster) -> None:
    """Not before the records are committed."""
    cluster = make_cluster(4)
    before = cluster.state.copy()
    decide(cluster, Leave(TWO), Transfer(ShardId(0), replica(cluster, 0)))
    assert cluster.state.rows == before.rows
    assert cluster.state.nodes == before.nodes


def test_refusals_are_outcomes(make_cluster: MakeCluster) -> None:
    """Each has its own error, and what is possible is done."""
    cluster = make_cluster(4)
    decided = decide(
        cluster,
        Leave(NodeId(99)),
        Transfer(ShardId(999), TWO),
        Unclean(ShardId(0), TWO),
        Leave(TWO),
        Stay(TWO),
    )
    kinds = [type(outcome) for outcome in decided.outcomes]
    assert kinds == [NotFoundError, InvalidArgumentError, InvalidArgumentError, Decision, Decision]
    commit(cluster, decided)
    assert not cluster.state.nodes[TWO].leaving


def test_settings_that_are_not_named_stay(make_cluster: MakeCluster) -> None:
    """Two changes of different settings do not undo each other."""
    cluster = make_cluster(3)
    before = cluster.state.settings
    commit(
        cluster,
        decide(
            cluster,
            ChangeSettings(copies=2),
            ChangeSettings(moves_max=3, min_in_sync=1),
            ChangeSettings(fence_after_ms=FENCE_AFTER_MS_MIN, lost_after_ms=1),
        ),
    )
    assert cluster.state.settings == replace(
        before,
        copies=2,
        moves_max=3,
        min_in_sync=1,
        fence_after_ms=FENCE_AFTER_MS_MIN,
        lost_after_ms=1,
    )
    (outcome,) = decide(cluster, ChangeSettings(fence_after_ms=FENCE_AFTER_MS_MIN - 1)).outcomes
    assert isinstance(outcome, InvalidArgumentError)


def test_who_is_a_candidate_is_written_down_once(make_cluster: MakeCluster) -> None:
    """Only what changes; and the node's session, positions and silence stay what they were."""
    cluster = make_cluster(3)
    cluster.wait(1_000)
    cluster.away[TWO] = None
    cluster.wait(4_000)
    decided = decide(cluster, Candidates((ONE, TWO)))
    changes = [record.change for record in decided.records]
    assert [c.node.id for c in changes if isinstance(c, NodeRegistered)] == [ONE, TWO]
    commit(cluster, decided)
    assert [node.candidate for node in cluster.state.sorted_nodes()] == [True, True, False]
    assert decide(cluster, Candidates((ONE, TWO))).records == ()
    cluster.wait(1_000)
    assert "Fenced node 2" in cluster.look().sentence, "being a candidate is no sign of life"
    commit(cluster, decide(cluster, Candidates((ONE,))))
    assert not cluster.state.nodes[TWO].candidate


def test_a_candidate_is_not_removed_before_it_votes_no_more(make_cluster: MakeCluster) -> None:
    """Its copies go at once; it stays one of the cluster until the others agree without it."""
    cluster = make_cluster(4)
    commit(cluster, decide(cluster, Candidates((ONE, TWO, THREE)), Leave(TWO)))
    cluster.settle()
    assert TWO in cluster.state.nodes
    assert not any(TWO in row.holders for row in cluster.state.rows)
    commit(cluster, decide(cluster, Candidates((ONE, THREE))))
    cluster.settle()
    assert TWO in cluster.state.retired


@pytest.mark.parametrize(
    ("voters", "nodes", "advice"),
    [
        ((1, 2, 3), 3, "candidates add NODE`, once another node has joined."),
        ((1, 2, 3), 5, "no more than 1 would: `ss-govern cluster candidates add 4`."),
        ((1, 2, 3, 4), 5, ""),
        ((1, 2), 3, ""),
        ((3,), 4, ""),
    ],
)
def test_leaving_says_if_an_even_number_votes_then(
    make_cluster: MakeCluster, voters: tuple[int, ...], nodes: int, advice: str
) -> None:
    """And which node could take its place; who does not vote is not missed."""
    cluster = make_cluster(nodes, settings=Settings(copies=2, min_in_sync=1, nodes_initial=nodes))
    commit(cluster, decide(cluster, Candidates(tuple(map(NodeId, voters)))))
    (outcome,) = decide(cluster, Leave(ONE)).outcomes
    assert isinstance(outcome, Decision)
    assert outcome.sentence.endswith(advice or ") was asked to leave.")


def test_leaving_says_if_fewer_nodes_than_copies_are_left(make_cluster: MakeCluster) -> None:
    """The operator learns at once that the next failure would cost more."""
    cluster = make_cluster(3, settings=Settings(copies=3, min_in_sync=2, nodes_initial=3))
    (outcome,) = decide(cluster, Leave(ONE)).outcomes
    assert isinstance(outcome, Decision)
    assert outcome.sentence.endswith("was asked to leave; 2 nodes left for 3 copies.")


def test_shards_that_met_the_same_fate_are_one_sentence(make_cluster: MakeCluster) -> None:
    """What a node falls behind in is said at once; what was refused is not said here."""
    cluster = make_cluster(3, settings=Settings(copies=3, min_in_sync=2, nodes_initial=3))
    mine = [shard for shard, row in enumerate(cluster.state.rows) if row.primary == ONE]
    asked: list[Request] = [without(cluster, shard, TWO) for shard in mine]
    asked += [Leave(NodeId(99)), Leave(THREE)]
    said = sentences(asked, decide(cluster, *asked).outcomes)
    assert len(mine) > 1
    assert said == [
        f"Node 2 fell behind in {named(mine, 'shard')}, says its primary 1.",
        "Node 3 (node-3) was asked to leave; 2 nodes left for 3 copies.",
    ]


def test_a_refused_setting_says_what_is_allowed(make_cluster: MakeCluster) -> None:
    """The operator need not guess."""
    (outcome,) = decide(make_cluster(3), ChangeSettings(copies=3, min_in_sync=4)).outcomes
    assert isinstance(outcome, InvalidArgumentError)
    assert outcome.message == (
        "min_in_sync = 4 is not allowed: it has to be 1 to 3, the number of copies"
    )


def test_the_only_candidate_may_not_leave(make_cluster: MakeCluster) -> None:
    """Nobody could decide anything without it."""
    cluster = make_cluster(4)
    decided = decide(cluster, Candidates((ONE,)), Leave(ONE))
    assert isinstance(decided.outcomes[1], InvalidArgumentError)
    assert "only candidate" in decided.outcomes[1].message


def test_an_unclean_promotion_leaves_nobody_eligible(make_cluster: MakeCluster) -> None:
    """Who had more may not become primary again: its log is another branch now."""
    cluster = make_cluster(3, shards=1, settings=Settings(copies=3, min_in_sync=2, nodes_initial=3))
    primary = cluster.state.rows[0].primary
    behind, last = (node for node in cluster.state.rows[0].in_sync if node != primary)
    for node in (behind, last):
        commit(cluster, decide(cluster, without(cluster, 0, node)))
    cluster.kill([primary, last])
    cluster.look()
    assert cluster.state.rows[0].primary == 0
    assert cluster.state.rows[0].eligible == tuple(sorted((primary, last)))
    commit(cluster, decide(cluster, Unclean(ShardId(0), behind)))
    row = cluster.state.rows[0]
    assert (row.primary, row.in_sync, row.eligible) == (behind, (behind,), ())
    cluster.state.validate()


@pytest.mark.parametrize("failures", [1, 2, 3, 10])
def test_a_node_that_leaves_copies_unfinished_waits_longer_each_time(failures: int) -> None:
    """Twice as long, up to a limit; one that is finished ends that."""
    attempts = Attempts()
    now_ms = 0.0
    for _ in range(failures):
        now_ms += COPY_PAUSE_MS_MAX
        attempts.end_pauses(now_ms)
        attempts.copy_failed(ONE, now_ms)
    pause_ms = min(COPY_PAUSE_MS * 2 ** (failures - 1), COPY_PAUSE_MS_MAX)
    assert not attempts.end_pauses(now_ms + pause_ms - 1)
    assert not attempts.may_copy_to(ONE)
    assert attempts.end_pauses(now_ms + pause_ms)
    assert attempts.may_copy_to(ONE)
    attempts.copy_done(ONE)
    attempts.copy_failed(ONE, now_ms)
    assert attempts.end_pauses(now_ms + COPY_PAUSE_MS)


def test_copies_of_an_ill_node_go_elsewhere(make_cluster: MakeCluster) -> None:
    """What one node does not take, another does; the shards have their copies meanwhile."""
    cluster = make_cluster(4, shards=12)
    cluster.join(5)
    cluster.stuck[NodeId(5)] = None
    cluster.kill([4])
    cluster.wait(60_000)
    for _ in range(40):
        cluster.settle()
        cluster.wait(5_000)
    staying = [ONE, TWO, THREE]
    assert all(sum(node in staying for node in row.in_sync) == 3 for row in cluster.state.rows)
