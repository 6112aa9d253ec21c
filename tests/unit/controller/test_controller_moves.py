"""Who gets what: even, spread over zones, and with few moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tame import MakeCluster

from ssgovern.controller.controller import Controller
from ssgovern.controller.placement import Share, shares
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import Settings
from ssgovern.model import SHARDS, NodeId
from ssgovern.sim.controller_scale import TameCluster


def nodes_of(sizes: dict[str, int]) -> dict[str, list[NodeId]]:
    count = iter(range(1, 1000))
    return {zone: [NodeId(next(count)) for _ in range(size)] for zone, size in sizes.items()}


@pytest.mark.parametrize(
    ("sizes", "copies", "wanted"),
    [
        ({"a": 3}, 3, [Share(256, 256)] * 3),
        ({"a": 5}, 3, [Share(153, 154)] * 5),
        # Three zones, three copies: each zone has each shard once, whatever its size.
        ({"a": 1, "b": 1, "c": 4}, 3, [Share(256, 256)] * 2 + [Share(64, 64)] * 4),
        # A zone takes no more than one copy of each shard.
        ({"a": 1, "b": 1, "c": 8}, 2, [Share(128, 128)] * 2 + [Share(32, 32)] * 8),
        # Fewer zones than copies: each has each shard at least once.
        ({"a": 1, "b": 5}, 3, [Share(256, 256)] + [Share(102, 103)] * 5),
    ],
)
def test_shares(sizes: dict[str, int], copies: int, wanted: list[Share]) -> None:
    """As even as the rule about zones allows."""
    zones = nodes_of(sizes)
    given = shares(zones, SHARDS, copies)
    assert [given[node] for nodes in zones.values() for node in nodes] == wanted


def spread(cluster: TameCluster) -> set[int]:
    nodes = cluster.state.nodes
    return {len({nodes[node].zone for node in row.holders}) for row in cluster.state.rows}


def assert_even(cluster: TameCluster) -> None:
    for loads in cluster.loads():
        assert max(loads.values()) - min(loads.values()) <= 1, loads


@pytest.mark.parametrize(("nodes", "zones"), [(3, 1), (4, 1), (6, 3), (7, 1), (10, 5)])
def test_the_first_placement_is_even_at_once(
    nodes: int, zones: int, make_cluster: MakeCluster
) -> None:
    """256 empty shards are placed by one record: copies, zones and primaries."""
    cluster = make_cluster(nodes, shards=SHARDS, zones=zones)
    assert cluster.state.map_version == 1
    assert spread(cluster) == {min(3, zones)}
    assert_even(cluster)


@pytest.mark.parametrize("nodes", [3, 9])
def test_a_join_moves_the_share_of_the_new_node_and_no_more(
    nodes: int, make_cluster: MakeCluster
) -> None:
    """Copies that move are about 1/n of all, and all of them go to the new node."""
    cluster = make_cluster(nodes, shards=SHARDS)
    cluster.join(nodes + 1, "z0")
    cluster.settle()
    assert_even(cluster)
    assert cluster.moves == cluster.loads()[0][NodeId(nodes + 1)]
    assert cluster.moves == SHARDS * 3 // (nodes + 1)
    assert cluster.handovers <= 2 * SHARDS // (nodes + 1) + nodes


def test_what_one_node_loses_falls_to_many(make_cluster: MakeCluster) -> None:
    """The shards of a dead node are promoted and copied on all others, not on a neighbour."""
    cluster = make_cluster(9, shards=SHARDS)
    cluster.kill([4])
    cluster.look()
    primaries = cluster.loads()[1]
    assert max(primaries.values()) <= 28 + 14
    cluster.settle()
    assert cluster.moves == 0, "it may be back soon"
    cluster.wait(60_000)
    cluster.settle()
    assert 85 <= cluster.moves <= 86
    assert_even(replaced(cluster, NodeId(4)))


def replaced(cluster: TameCluster, gone: NodeId) -> TameCluster:
    assert all(gone not in row.holders for row in cluster.state.rows)
    return cluster


def test_a_node_that_comes_back_soon_moves_no_copy(make_cluster: MakeCluster) -> None:
    """Only primaries move: away to others, and back again for balance."""
    cluster = make_cluster(6, shards=SHARDS, zones=3)
    cluster.kill([2])
    cluster.settle()
    assert (cluster.moves, cluster.handovers) == (0, 0)
    cluster.join(2, "z2", b"2")
    cluster.settle()
    assert cluster.moves == 0
    assert 0 < cluster.handovers <= SHARDS // 6 + 6
    assert_even(cluster)


def test_a_lost_zone_is_copied_into_the_others_and_returns(make_cluster: MakeCluster) -> None:
    """Two zones hold all copies while the third is away, and a third of them once it is back."""
    cluster = make_cluster(6, shards=SHARDS, zones=3)
    cluster.kill([3, 6])
    cluster.settle()
    cluster.wait(60_000)
    cluster.settle()
    assert spread(cluster) == {2}
    assert {len(row.in_sync) for row in cluster.state.rows} == {3}
    cluster.join(3, "z0", b"2")
    cluster.join(6, "z0", b"2")
    cluster.settle()
    assert spread(cluster) == {3}
    assert_even(cluster)


def test_no_more_under_way_than_allowed_and_every_step_is_resumed(
    make_cluster: MakeCluster,
) -> None:
    """With a new controller at every pass, a join ends where it would have ended."""
    settings = Settings(copies=3, nodes_initial=3, min_in_sync=2, moves_max=3)
    cluster = make_cluster(3, shards=24, settings=settings)
    cluster.join(4, "z0")
    busiest = 0
    for _ in range(200):
        cluster.controller = Controller(cluster.state, cluster.now_ms)
        cluster.look()
        busiest = max(busiest, sum(row.in_flight for row in cluster.state.rows))
        if not cluster._obey():
            break
    assert busiest == 3
    assert_even(cluster)
    assert all(not row.in_flight for row in cluster.state.rows)


def test_a_copy_goes_only_when_the_new_one_is_in_sync(make_cluster: MakeCluster) -> None:
    """Until its primary says so, the one that goes stays and stays in sync."""
    cluster = make_cluster(3, shards=12)
    cluster.join(4, "z0")
    cluster.look()
    moved = [row for row in cluster.state.rows if row.incoming != NOBODY]
    assert len(moved) == 8
    assert all(row.outgoing in row.in_sync and len(row.in_sync) == 3 for row in moved)
    assert cluster.look().records == ()
    cluster.settle()
    assert_even(cluster)


def test_more_and_fewer_copies(make_cluster: MakeCluster) -> None:
    """Shards follow the setting, up and down."""
    cluster = make_cluster(4, shards=12)
    for copies in (2, 4, 1):
        wanted = replace(cluster.state.settings, copies=copies, min_in_sync=1)
        cluster.commit(cluster.controller.decide_settings(wanted))
        cluster.settle()
        assert {len(row.in_sync) for row in cluster.state.rows} == {copies}
        assert_even(cluster)


def test_a_pass_says_what_and_why(make_cluster: MakeCluster) -> None:
    """One sentence for people, and the same words in the log."""
    cluster = make_cluster(3, shards=3)
    cluster.kill([3])
    decision = cluster.look()
    assert decision.sentence.count("\n") == 0
    assert decision.sentence == (
        f"Fenced node 3 (silent for 5 s), primary of 1 shard; {decision.records[1].reason}."
    )
    assert cluster.look().sentence == ""
