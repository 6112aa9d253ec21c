"""Snapshots of a shard: whole, in chunks of bounded size, equal for equal states."""

from __future__ import annotations

from builders import BILLING, ORDERS, Shard, deregistered, registered, session_of, updated

from ssgovern import limits
from ssgovern.model import LogPosition, ShardId
from ssgovern.registry.snapshot import capture, digest_chunks, encode_chunks, restore
from ssgovern.registry.state import ShardState


def restored(shard: Shard) -> ShardState:
    state = ShardState(ShardId(7))
    restore(state, shard.state.position, list(encode_chunks(capture(shard.state))))
    state.validate()
    return state


def test_an_empty_shard_has_one_chunk(shard: Shard) -> None:
    """Even nothing is written down as something."""
    assert list(encode_chunks(capture(shard.state))) == [b""]


def test_everything_comes_back(shard: Shard) -> None:
    """Owners, admin state, availability, position and counts survive a round trip."""
    shard.apply(
        registered("s", "a"),
        registered("t", "b", persistent=True),
        registered("s", "x", key=BILLING, weight=0.0),
        updated("o", "b", any_owner=True, out_of_service=True),
        registered("s", "gone"),
        updated("s", "gone", out_of_service=True),
        deregistered("s", "gone"),
    )
    state = restored(shard)
    assert state.position == LogPosition(1, 7)
    assert state.history_floor == 7
    assert state.instances == 3
    assert set(state.owned) == {session_of("s"), session_of("t")}
    assert state.services[ORDERS].available == 1
    assert set(state.services[ORDERS].out_of_service) == {"b", "gone"}
    assert digest_chunks(state) == digest_chunks(shard.state)


def test_a_long_service_is_cut_into_chunks(shard: Shard) -> None:
    """No chunk is much longer than the limit, and the parts make one service again."""
    for n in range(1200):
        shard.apply(registered("s", f"i{n}", metadata={"k": "v" * 500}))
    chunks = list(encode_chunks(capture(shard.state)))
    assert len(chunks) > 2
    assert max(map(len, chunks)) < 3 * limits.SNAPSHOT_CHUNK_BYTES
    state = restored(shard)
    assert list(state.services[ORDERS].instances) == [f"i{n}" for n in range(1200)]


def test_digests_ignore_order_and_history(shard: Shard) -> None:
    """States that hold the same have the same digest, however they got there."""
    other = Shard()
    shard.apply(registered("s", "a"), registered("s", "b"), registered("s", "b"))
    other.apply(registered("s", "a"), registered("s", "a"), registered("s", "b"))
    assert digest_chunks(shard.state) != digest_chunks(other.state)
    other.apply(registered("s", "a"), registered("s", "b"))
    shard.apply(registered("s", "b"), registered("s", "a"))
    shard.apply(registered("s", "a"), registered("s", "b"))
    other.apply(registered("s", "a"), registered("s", "b"))
    assert digest_chunks(shard.state) == digest_chunks(other.state)


def test_who_resumes_after_a_restore(shard: Shard) -> None:
    """A restored shard has no history: a subscriber is current or takes a snapshot."""
    shard.apply(registered("s", "a"), registered("s", "b"), registered("s", "x", key=BILLING))
    state = restored(shard)
    state.epoch_starts.append(LogPosition(1, 1))
    assert state.catch_up(ORDERS, LogPosition(1, 2)).kind == "current"
    assert state.catch_up(ORDERS, LogPosition(1, 1)).kind == "snapshot"


def test_equal_instances_have_equal_bytes(shard: Shard) -> None:
    """Two replicas hold the same bytes, in whatever order metadata was put into a message."""
    other = Shard()
    pairs = {f"k{n}": str(n) for n in range(20)}
    shard.apply(registered("s", "a", metadata=pairs))
    other.apply(registered("s", "a", metadata=dict(reversed(pairs.items()))))
    assert digest_chunks(shard.state) == digest_chunks(other.state)
