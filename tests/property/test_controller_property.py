"""Placement and rows for any cluster: shares add up, rest is even, no order of nodes matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssgovern.controller.codec import (
    decode_record,
    decode_snapshot,
    encode_record,
    encode_snapshot,
)
from ssgovern.controller.placement import shares
from ssgovern.controller.rows import ShardRow, placed, promoted, row_fault, with_in_sync
from ssgovern.controller.state import Record, RowsChanged, Settings
from ssgovern.model import NodeId, ShardId
from ssgovern.sim.controller_scale import TameCluster

ZONES = st.lists(st.integers(1, 6), min_size=1, max_size=5)
NODE = st.integers(0, 2**40).map(NodeId)
NODES = st.lists(NODE, max_size=5, unique=True).map(tuple)
ROWS = st.builds(
    ShardRow,
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    NODE,
    NODES,
    NODES,
    NODES,
    NODE,
    NODE,
    NODE,
)


@given(ZONES, st.integers(1, 300), st.integers(1, 5))
def test_shares_add_up(sizes: list[int], shards: int, copies: int) -> None:
    """All copies can be placed within the shares, which differ by at most one within a zone."""
    copies = min(copies, sum(sizes))
    count = iter(range(1, 100))
    zones = {f"z{i}": [NodeId(next(count)) for _ in range(n)] for i, n in enumerate(sizes)}
    given_shares = shares(zones, shards, copies)
    assert sum(share.least for share in given_shares.values()) <= shards * copies
    assert sum(share.most for share in given_shares.values()) >= shards * copies
    for nodes in zones.values():
        assert len({given_shares[node] for node in nodes}) == 1
        share = given_shares[nodes[0]]
        assert share.least <= share.most <= min(shards, share.least + 1)
        if len(zones) >= copies:
            assert share.least * len(nodes) <= shards


@given(ZONES, st.integers(1, 40), st.integers(1, 4), st.integers(0, 10))
def test_any_cluster_comes_to_rest_evenly(
    sizes: list[int], shards: int, copies: int, dies: int
) -> None:
    """Placed, one node lost for good and one joined: copies, zones and primaries are right."""
    total = sum(sizes)
    settings = Settings(copies=copies, min_in_sync=1, nodes_initial=total, moves_max=50)
    cluster = TameCluster(settings, shards)
    number = 0
    for zone, size in enumerate(sizes):
        for _ in range(size):
            number += 1
            cluster.join(number, f"z{zone}")
    cluster.settle()
    _check_rest(cluster, copies)
    # With one copy of each, what the dead node had is gone until it comes back.
    if total > 1 and copies > 1:
        cluster.kill([dies % total + 1])
        cluster.settle()
        cluster.wait(settings.lost_after_ms)
        cluster.settle()
        _check_rest(cluster, copies)
    cluster.join(number + 1, "z0")
    cluster.settle()
    _check_rest(cluster, copies)


def _check_rest(cluster: TameCluster, copies: int) -> None:
    state = cluster.state
    state.validate()
    zone_of = {node.id: node.zone for node in state.sorted_nodes() if node.takes_shards}
    zones = sorted(set(zone_of.values()))
    copies = min(copies, len(zone_of))
    for row in state.rows:
        assert len(row.holders) == len(row.in_sync) == copies
        assert len({zone_of[node] for node in row.holders}) == min(copies, len(zones))
    held, leading = cluster.loads()
    for zone in zones:
        loads = [held[node] for node in zone_of if zone_of[node] == zone]
        assert max(loads) - min(loads) <= 1
    if len({sum(other == zone for other in zone_of.values()) for zone in zones}) == 1:
        loads = [held[node] for node in zone_of]
        assert max(loads) - min(loads) <= 1
    loads = [leading[node] for node in zone_of]
    assert max(loads) - min(loads) <= 1


@given(st.lists(st.tuples(st.integers(0, 255).map(ShardId), ROWS), max_size=4), st.text())
def test_any_record_comes_back_from_its_bytes(
    rows: list[tuple[ShardId, ShardRow]], reason: str
) -> None:
    """Whatever a row says survives the log, and a snapshot."""
    record = Record(reason, RowsChanged(), tuple(rows))
    assert decode_record(encode_record(record)) == record
    cluster = TameCluster(Settings(), 256)
    cluster.state.replay(record)
    back, _ = decode_snapshot(encode_snapshot(cluster.state, 1))
    assert back.rows == cluster.state.rows


@given(
    st.integers(1, 3),
    st.lists(st.sets(st.integers(1, 4)), max_size=8),
)
def test_rows_stay_sound_through_any_changes(minimum: int, sets: list[set[int]]) -> None:
    """In-sync sets that shrink and grow, and promotions of who may be: invariants hold."""
    row = placed(ShardRow(), [NodeId(n) for n in (1, 2, 3, 4)], NodeId(1))
    for wanted in sets:
        before = row
        row = with_in_sync(row, [NodeId(node) for node in sorted(wanted)], minimum)
        assert row_fault(row, minimum) is None
        assert (row.epoch, row.version) == (before.epoch, before.version + 1)
        able = row.in_sync or row.eligible
        if not row.primary and able:
            row = promoted(row, able[-1], minimum)
            assert row_fault(row, minimum) is None
            assert row.epoch == before.epoch + 1
