"""The client's map: what nodes say comes in, what changed comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.client.addresses import Address
from ssgovern.client.shard_map import MAP_GAP, ClientMap, mask_of
from ssgovern.client.spread import Spread
from ssgovern.errors import RemoteProtocolError
from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.wire.pb import native_pb2

HERE = Address("here", 7420)
OURS, OTHERS = b"o" * 16, b"x" * 16


def update(
    version: int,
    rows: dict[int, tuple[int, int]],
    *,
    since: int = 0,
    nodes: dict[int, str] | None = None,
    live: bool = True,
    cluster_id: bytes = OURS,
) -> native_pb2.ShardMapUpdate:
    message = native_pb2.ShardMapUpdate(cluster_id=cluster_id, since=since, version=version)
    for number, address in (nodes or {}).items():
        message.nodes.add(node_id=number, name=f"n{number}", address=address, live=live)
    for shard, (epoch, primary) in rows.items():
        message.rows.add(
            shard=shard, epoch=epoch, primary=primary, holders=[1, 2, 3], in_sync=[1, 2, 3]
        )
    return message


def three_nodes() -> ClientMap:
    found = ClientMap()
    found.apply(update(5, {0: (1, 1), 1: (1, 2)}, nodes={1: "", 2: "b:1", 3: "c:2"}), HERE)
    return found


def test_an_empty_address_is_the_one_that_was_dialled() -> None:
    """A node that does not say where it is, is where it answered."""
    found = three_nodes()
    assert found.address_of(NodeId(1)) == HERE
    assert found.addresses() == [HERE, Address("b", 1), Address("c", 2)]
    assert found.address_of(NodeId(9)) is None


def test_an_update_tells_which_shards_are_led_by_another() -> None:
    """Primary or epoch: both are to be claimed; a row that only lost a replica is not."""
    found = three_nodes()
    change = found.apply(update(6, {0: (2, 1), 1: (1, 2)}, since=5), HERE)
    assert change is not MAP_GAP
    assert (change.led, change.rows, change.nodes) == ((0,), (0,), False)
    message = update(7, {0: (2, 1)}, since=6)
    del message.rows[0].in_sync[0]
    change = found.apply(message, HERE)
    assert change is not MAP_GAP
    assert (change.led, change.rows) == ((), (0,))


def test_a_gap_changes_nothing() -> None:
    """An update on top of what we have not got has the whole map asked for."""
    found = three_nodes()
    assert found.apply(update(9, {0: (9, 3)}, since=6), HERE) is MAP_GAP
    assert (found.version, found.primary_of(ShardId(0))) == (5, 1)
    # Overlapping what we have is no gap.
    assert found.apply(update(9, {0: (9, 3)}, since=2), HERE) is not MAP_GAP
    assert found.primary_of(ShardId(0)) == 3


def test_an_older_map_is_ignored() -> None:
    """Within one cluster the map never goes back, nor does a row."""
    found = three_nodes()
    found.apply(update(8, {0: (4, 2)}, since=5), HERE)
    assert not found.apply(update(7, {0: (9, 3)}), HERE)
    assert not found.apply(update(9, {0: (3, 1)}, since=8), HERE)
    assert (found.version, found.primary_of(ShardId(0))) == (9, 2)


def test_another_clusters_map_is_refused_until_we_start_over() -> None:
    """Two clusters never mix in one map."""
    found = three_nodes()
    foreign = update(50, {0: (1, 7)}, nodes={7: "x:1"}, cluster_id=OTHERS)
    with pytest.raises(RemoteProtocolError, match="another cluster"):
        found.apply(foreign, HERE)
    assert (found.version, sorted(found.nodes)) == (5, [1, 2, 3])
    found.start_over(OTHERS)
    assert not found
    found.apply(foreign, HERE)
    assert (sorted(found.nodes), found.is_single) == ([7], True)


@pytest.mark.parametrize("address", ["[::1", "x:0", " "])
def test_a_map_that_makes_no_sense_changes_nothing(address: str) -> None:
    """Garbage is the node's fault and leaves the map as it was."""
    found = three_nodes()
    with pytest.raises(RemoteProtocolError):
        found.apply(update(6, {0: (2, 1)}, since=5, nodes={1: address}), HERE)
    with pytest.raises(RemoteProtocolError):
        found.apply(update(6, {0: (2, 1), SHARDS: (2, 1)}, since=5), HERE)
    assert (found.version, found.primary_of(ShardId(0))) == (5, 1)


def test_a_node_without_a_map_is_all_there_is() -> None:
    """A node older than maps leads every shard; a map that comes later takes its place."""
    found = ClientMap()
    found.assume_single(NodeId(4), "old", HERE)
    assert found.is_single
    assert len(found.shards_led_by(NodeId(4))) == SHARDS
    found.apply(update(1, {0: (1, 2)}, nodes={1: "", 2: "b:1"}), HERE)
    assert not found.is_single
    assert found.primary_of(ShardId(0)) == 2


@given(st.sets(st.integers(0, SHARDS - 1)))
def test_a_mask_names_its_shards(shards: set[int]) -> None:
    """Bit i of byte i/8 is shard i."""
    mask = mask_of([ShardId(number) for number in sorted(shards)])
    assert len(mask) == SHARDS // 8
    assert {n for n in range(SHARDS) if mask[n // 8] >> (n % 8) & 1} == shards


# --- which node to read from -------------------------------------------------------------------


def test_clients_spread_over_all_holders_and_each_likes_few() -> None:
    """One order of nodes for all shards; the first places are shared out evenly."""
    found = three_nodes()
    chosen = {1: 0, 2: 0, 3: 0}
    for number in range(300):
        spread = Spread(number.to_bytes(16, "big"), found)
        node = spread.holder(ShardId(0), 0.0)
        assert node == spread.holder(ShardId(1), 0.0)
        chosen[node] += 1
    assert min(chosen.values()) > 70, chosen


def test_a_node_left_out_is_taken_again_after_a_while() -> None:
    """While one is left out the next is chosen; with all left out, who failed first."""
    found = three_nodes()
    spread = Spread(b"s" * 16, found)
    best = spread.holder(ShardId(0), 0.0)
    spread.avoid(best, 1.0, 11.0)
    second = spread.holder(ShardId(0), 2.0)
    assert second != best
    assert spread.holder(ShardId(0), 11.0) == best
    spread.avoid(second, 2.0, 12.0)
    [third] = {NodeId(1), NodeId(2), NodeId(3)} - {best, second}
    spread.avoid(third, 3.0, 13.0)
    assert spread.holder(ShardId(0), 4.0) == best
    spread.avoid(best, 4.0, 14.0)
    assert spread.holder(ShardId(0), 5.0) == second


def test_who_is_dead_or_behind_is_chosen_last() -> None:
    """In sync and alive before anything else."""
    found = three_nodes()
    spread = Spread(b"s" * 16, found)
    best = spread.holder(ShardId(0), 0.0)
    message = update(6, {0: (1, 1)}, since=5)
    del message.rows[0].in_sync[:]
    message.rows[0].in_sync.extend(n for n in (1, 2, 3) if n != best)
    found.apply(message, HERE)
    assert spread.holder(ShardId(0), 0.0) != best
    assert not spread.is_good(ShardId(0), best, 0.0)
    assert spread.is_good(ShardId(1), best, 0.0)
    dead = update(7, {}, since=6, nodes={1: "", 2: "b:1", 3: "c:2"})
    for node in dead.nodes:
        node.live = node.node_id == best
    found.apply(dead, HERE)
    assert spread.holder(ShardId(0), 0.0) == best
    assert spread.holder(ShardId(9), 0.0) == 0
