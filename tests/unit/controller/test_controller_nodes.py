"""Who belongs to the cluster: what is granted, what is refused and in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tame import MakeCluster

from ssgovern.controller.controller import Controller
from ssgovern.controller.nodes import Registration
from ssgovern.controller.state import (
    NodeMarked,
    NodeRegistered,
    NodeRemoved,
    NodesFenced,
    Settings,
)
from ssgovern.errors import (
    FencedError,
    InvalidArgumentError,
    NotFoundError,
    Retry,
    SsGovernError,
    UnsupportedVersionError,
)
from ssgovern.model import NodeId, ShardId
from ssgovern.sim.controller_scale import CLUSTER, TameCluster

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def registration(cluster: TameCluster, node: NodeId) -> Registration:
    """Return what a known node says when its process started anew."""
    known = cluster.state.nodes[node]
    return Registration(
        node,
        known.name,
        known.address,
        known.zone,
        known.directory_id,
        b"another boot",
        directory_cluster_id=CLUSTER,
    )


def test_a_restart_fences_the_old_session_before_it_grants_a_new_one(
    make_cluster: MakeCluster,
) -> None:
    """The node leaves every in-sync set in between, and its session rises."""
    cluster = make_cluster(3)
    asked = registration(cluster, TWO)
    decision = cluster.controller.decide_registration(asked, cluster.now_ms)
    kinds = [type(record.change) for record in decision.records]
    assert kinds.index(NodesFenced) < kinds.index(NodeRegistered)
    cluster.commit(decision)
    assert cluster.state.nodes[TWO].session == 2
    assert all(TWO not in row.in_sync for row in cluster.state.rows)
    assert all(row.primary != TWO for row in cluster.state.rows)
    with pytest.raises(FencedError):
        cluster.controller.hear(TWO, 1, cluster.now_ms)
    cluster.controller.hear(TWO, 2, cluster.now_ms)


def test_asking_again_changes_nothing(make_cluster: MakeCluster) -> None:
    """A node whose answer was lost asks again and has the session it has."""
    cluster = make_cluster(3)
    asked = replace(registration(cluster, TWO), boot_id=cluster.state.nodes[TWO].boot_id)
    decision = cluster.controller.decide_registration(asked, cluster.now_ms)
    assert decision.records == ()
    assert "session 1 already" in decision.sentence
    cluster.controller.decide_registration(asked, 4_000)
    fenced = cluster.controller.decide_pass(8_999).records[0].change
    assert fenced == NodesFenced((ONE, THREE)), "asking again is a sign of life"


REFUSED: dict[str, tuple[dict[str, object], type[SsGovernError], str]] = {
    "wrong cluster": (
        {"cluster_id": b"some other one"},
        InvalidArgumentError,
        "configured for cluster",
    ),
    "directory of another cluster": (
        {"directory_cluster_id": b"other"},
        InvalidArgumentError,
        "data directory of node 2 belongs",
    ),
    "two nodes with one id": (
        {"directory_id": b"another"},
        InvalidArgumentError,
        "belongs to another data directory",
    ),
    "copied directory": (
        {"address": "elsewhere:7420"},
        InvalidArgumentError,
        "copied data directory",
    ),
    "newer": ({"formats": (2, 3)}, UnsupportedVersionError, "too new"),
    "older": ({"formats": (0, 0)}, UnsupportedVersionError, "too old"),
    "name taken": ({"name": "node-1"}, InvalidArgumentError, "taken by node 1"),
    "no id": ({"node": NodeId(0)}, InvalidArgumentError, "from 1"),
    "address taken": (
        {"node": NodeId(9), "name": "x", "address": "node-1.example.internal:7420"},
        InvalidArgumentError,
        "taken by node 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, make_cluster: MakeCluster) -> None:
    """Each with words that say what to do, and without a record."""
    cluster = make_cluster(3)
    fields, kind, words = REFUSED[name]
    asked = replace(registration(cluster, TWO), **fields)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        cluster.controller.decide_registration(asked, cluster.now_ms)


def test_a_node_that_moved_is_let_in_when_the_old_address_is_silent(
    make_cluster: MakeCluster,
) -> None:
    """Until then trying again helps, and the error says so."""
    cluster = make_cluster(3)
    asked = replace(registration(cluster, TWO), address="elsewhere:7420")
    with pytest.raises(InvalidArgumentError) as error:
        cluster.controller.decide_registration(asked, cluster.now_ms)
    assert error.value.retry is Retry.SAME_NODE
    cluster.kill([2])
    cluster.commit(cluster.controller.decide_registration(asked, cluster.now_ms))
    assert cluster.state.nodes[TWO].address == "elsewhere:7420"


def test_silence_is_fenced_after_its_time_and_not_before(make_cluster: MakeCluster) -> None:
    """4.999 s are no reason, 5 s are."""
    cluster = make_cluster(3)
    cluster.away[TWO] = None
    cluster.wait(4_999)
    assert cluster.look().records == ()
    cluster.wait(1)
    decision = cluster.look()
    assert NodesFenced((TWO,)) in [record.change for record in decision.records]
    assert decision.sentence.startswith("Fenced node 2 (silent for 5 s)")


def test_a_new_controller_gives_everybody_the_full_time(make_cluster: MakeCluster) -> None:
    """What the old one heard is not known to the new one, and nobody pays for it."""
    cluster = make_cluster(3)
    cluster.wait(60_000)
    heir = Controller(cluster.state, 60_000)
    assert heir.decide_pass(64_999).records == ()
    assert heir.decide_pass(65_000).records != ()


def test_a_stall_of_the_controller_is_nobodys_silence(make_cluster: MakeCluster) -> None:
    """What it could not hear it does not hold against anybody; what comes after it does."""
    cluster = make_cluster(3)
    cluster.controller.suspend(20_000)
    assert cluster.controller.decide_pass(24_999).records == ()
    assert cluster.controller.decide_pass(25_000).records != ()


def test_a_node_just_fenced_is_not_given_up_for_an_earlier_absence(
    make_cluster: MakeCluster,
) -> None:
    """The time after which shards are copied elsewhere begins with each fencing."""
    cluster = make_cluster(3)
    cluster.kill([2])
    cluster.look()
    cluster.join(2, "z0", b"2")
    cluster.settle()
    cluster.wait(500_000)
    cluster.kill([2])
    assert not any(isinstance(record.change, NodeMarked) for record in cluster.look().records)
    cluster.wait(60_000)
    assert NodeMarked(TWO, leaving=False, lost=True) in [r.change for r in cluster.look().records]


def test_a_node_leaves_and_its_id_is_never_given_again(make_cluster: MakeCluster) -> None:
    """It hands over, its copies go elsewhere, it is removed, and it cannot come back."""
    cluster = make_cluster(4)
    asked = registration(cluster, TWO)
    cluster.commit(cluster.controller.decide_leave(TWO))
    assert cluster.controller.decide_leave(TWO).records == ()
    cluster.settle()
    assert TWO not in cluster.state.nodes
    assert all(len(row.in_sync) == 3 and TWO not in row.holders for row in cluster.state.rows)
    with pytest.raises(InvalidArgumentError, match="left the cluster for good"):
        cluster.controller.decide_registration(asked, cluster.now_ms)
    with pytest.raises(NotFoundError):
        cluster.controller.decide_leave(TWO)


def test_leaving_can_be_taken_back(make_cluster: MakeCluster) -> None:
    """The node takes its share again."""
    cluster = make_cluster(4, shards=12)
    cluster.commit(cluster.controller.decide_leave(TWO))
    cluster.look()
    cluster.commit(cluster.controller.decide_stay(TWO))
    cluster.settle()
    copies, primaries = cluster.loads()
    assert max(copies.values()) - min(copies.values()) <= 1
    assert sorted(primaries.values()) == [3, 3, 3, 3]
    assert not any(isinstance(r.change, NodeRemoved) for r in cluster.look().records)


def test_too_few_would_remain(make_cluster: MakeCluster) -> None:
    """A node may not leave if writes would be refused without it."""
    cluster = make_cluster(2)
    with pytest.raises(InvalidArgumentError, match="min_in_sync is 2"):
        cluster.controller.decide_leave(ONE)
    cluster.commit(cluster.controller.decide_settings(Settings(copies=3, min_in_sync=1)))
    cluster.commit(cluster.controller.decide_leave(ONE))
    cluster.settle()
    assert list(cluster.state.nodes) == [TWO]
    with pytest.raises(InvalidArgumentError, match="0 nodes"):
        cluster.controller.decide_leave(TWO)


def test_a_damaged_log_is_not_eligible(make_cluster: MakeCluster) -> None:
    """Of the shards a node says are damaged, it is no last hope; of the others it is."""
    cluster = make_cluster(1, shards=4, settings=Settings(copies=1))
    cluster.kill([1])
    assert "UNAVAILABLE, waiting for node 1" in cluster.look().sentence
    asked = replace(registration(cluster, ONE), damaged=(ShardId(2), ShardId(77)))
    cluster.commit(cluster.controller.decide_registration(asked, cluster.now_ms))
    assert [row.primary for row in cluster.state.rows] == [1, 1, 0, 1]
    assert "no copy of what was acknowledged is known" in cluster.look().sentence
