"""What each kind of record does to a shard, and what followers are told of it."""

from __future__ import annotations

import pytest
from builders import (
    BILLING,
    ORDERS,
    Shard,
    deregistered,
    ended,
    epoch_started,
    registered,
    session_of,
    updated,
)

from ssgovern import limits
from ssgovern.errors import ErrorCode
from ssgovern.model import LogPosition, Outcome, ServiceKey
from ssgovern.wire.pb import log_pb2, model_pb2, native_pb2


def instances(shard: Shard, key: ServiceKey = ORDERS) -> dict[str, model_pb2.Instance]:
    service = shard.state.services.get(key)
    found = () if service is None else service.instances.values()
    return {entry.id: model_pb2.Instance.FromString(entry.encoded) for entry in found}


def code_of(outcome: Outcome) -> ErrorCode | None:
    return None if outcome.error is None else outcome.error.code


# --- registering ---------------------------------------------------------------------------


def test_a_registration_is_stored_with_what_the_node_sets(shard: Shard) -> None:
    """What the caller sent is kept; revision, time, health and admin state are the node's."""
    shard.apply(epoch_started())
    lie = {"revision": 99, "unhealthy": 1, "out_of_service": 1, "registered_at_ms": 7}
    shard.apply(registered("s", "a", time_ms=1234, metadata={"lane": "gray"}, **lie))
    found = instances(shard)["a"]
    assert found.revision == 2
    assert found.registered_at_ms == 1234
    assert not found.unhealthy
    assert not found.out_of_service
    assert dict(found.metadata) == {"lane": "gray"}
    assert shard.state.services[ORDERS].available == 1


def test_registering_again_replaces(shard: Shard) -> None:
    """The same id registered again is one instance, with the newer fields."""
    shard.apply(registered("s", "a", weight=1.0), registered("s", "a", weight=2.0))
    assert shard.state.instances == 1
    assert instances(shard)["a"].weight == 2.0
    assert len(shard.state.owned[session_of("s")]) == 1


def test_another_session_takes_over(shard: Shard) -> None:
    """Who registers an id last owns it; the end of its first owner then means nothing."""
    shard.apply(registered("old", "a"), registered("new", "a"))
    assert session_of("old") not in shard.state.owned
    shard.apply(ended("old"))
    assert list(instances(shard)) == ["a"]
    shard.apply(ended("new"))
    assert instances(shard) == {}


def test_persistent_taken_over_by_ephemeral_goes_with_its_session(shard: Shard) -> None:
    """What an instance is depends on its last registration alone."""
    shard.apply(registered("s", "a", persistent=True), registered("s", "a"), ended("s"))
    assert instances(shard) == {}


# --- the end of sessions -------------------------------------------------------------------


def test_the_end_of_a_session_removes_what_it_owned(shard: Shard) -> None:
    """Ephemeral instances go, in all services; those of others stay."""
    shard.apply(
        registered("s", "a"),
        registered("s", "b", key=BILLING),
        registered("t", "c"),
    )
    assert shard.apply(ended("s")).removed
    assert list(instances(shard)) == ["c"]
    assert instances(shard, BILLING) == {}
    assert shard.state.instances == 1


def test_persistent_instances_become_unhealthy(shard: Shard) -> None:
    """A persistent instance outlives its session, unhealthy and owned by nobody."""
    shard.apply(registered("s", "a", persistent=True), ended("s"))
    assert instances(shard)["a"].unhealthy
    assert shard.state.services[ORDERS].available == 0
    assert shard.state.owned == {}
    shard.apply(registered("s", "a", persistent=True))
    assert not instances(shard)["a"].unhealthy


def test_what_belongs_to_nobody_may_be_changed_by_anybody(shard: Shard) -> None:
    """An instance without a session has no owner to protect."""
    shard.apply(registered("s", "a", persistent=True), ended("s"))
    assert code_of(shard.apply(updated("t", "a", weight=5.0))) is None
    assert shard.apply(deregistered("t", "a")).removed


def test_the_end_of_an_unknown_session_changes_nothing(shard: Shard) -> None:
    """An end takes its revision and does nothing else."""
    shard.apply(registered("s", "a"))
    assert not shard.apply(ended("t")).removed
    assert shard.revision == 2
    assert list(instances(shard)) == ["a"]


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [deregistered, updated])
def test_only_the_owner_may_change(shard: Shard, build: object) -> None:
    """Another session is refused, unless it says any_owner; a refusal changes nothing."""
    shard.apply(registered("s", "a"))
    before = instances(shard)
    assert code_of(shard.apply(build("t", "a"))) == ErrorCode.NOT_OWNER  # type: ignore[operator]
    assert instances(shard) == before
    assert shard.revision == 2
    assert code_of(shard.apply(build("t", "a", any_owner=True))) is None  # type: ignore[operator]


@pytest.mark.parametrize("build", [deregistered, updated])
def test_only_at_the_revision_named(shard: Shard, build: object) -> None:
    """With a revision, a change happens only if the instance was last changed at it."""
    shard.apply(registered("s", "a"), registered("s", "b"))
    refused = shard.apply(build("s", "a", if_revision=2))  # type: ignore[operator]
    assert code_of(refused) == ErrorCode.REVISION_CONFLICT
    assert refused.error is not None
    assert refused.error.fields["revision"] == "1"
    assert code_of(shard.apply(build("s", "a", if_revision=1))) is None  # type: ignore[operator]


def test_deregistering_what_is_not_there_is_no_error(shard: Shard) -> None:
    """Removing twice says so, and is fine."""
    shard.apply(registered("s", "a"))
    assert shard.apply(deregistered("s", "a")).removed
    again = shard.apply(deregistered("s", "a"))
    assert not again.removed
    assert again.error is None


def test_updating_what_is_not_there(shard: Shard) -> None:
    """An update needs something to update."""
    assert code_of(shard.apply(updated("s", "a", weight=1.0))) == ErrorCode.NOT_FOUND


def test_entries_commit_in_order(shard: Shard) -> None:
    """A gap in the log is our own fault, and stops the node."""
    with pytest.raises(AssertionError, match="commit in order"):
        shard.state.apply(1, 2, epoch_started())


def test_a_record_of_an_unknown_kind_is_not_skipped(shard: Shard) -> None:
    """What is not understood must not be taken for nothing: states would differ."""
    with pytest.raises(AssertionError, match="unknown kind"):
        shard.state.apply(1, 1, log_pb2.Record())


# --- updates -------------------------------------------------------------------------------


def test_an_update_changes_only_what_it_names(shard: Shard) -> None:
    """Absent fields stay; metadata is cleared, removed and set in this order."""
    shard.apply(registered("s", "a", metadata={"x": "1", "y": "2"}, zone="z"))
    shard.apply(updated("s", "a", weight=0.0))
    found = instances(shard)["a"]
    assert (found.weight, found.zone, found.revision) == (0.0, "z", 2)
    assert shard.state.services[ORDERS].available == 0
    change = native_pb2.InstanceChange(metadata_remove=["x", "y"], metadata_set={"y": "3"})
    shard.apply(updated("s", "a", change))
    assert dict(instances(shard)["a"].metadata) == {"y": "3"}
    change = native_pb2.InstanceChange(metadata_clear=True, metadata_set={"w": "4"})
    shard.apply(updated("s", "a", change))
    assert dict(instances(shard)["a"].metadata) == {"w": "4"}


def test_an_update_keeps_the_owner(shard: Shard) -> None:
    """An operator's change does not make the operator's session the owner."""
    shard.apply(registered("s", "a"), updated("operator", "a", any_owner=True, weight=1.0))
    shard.apply(ended("operator"))
    assert list(instances(shard)) == ["a"]
    shard.apply(ended("s"))
    assert instances(shard) == {}


def test_out_of_service_survives_a_new_registration(shard: Shard) -> None:
    """What an operator decided holds until an operator decides otherwise."""
    shard.apply(registered("s", "a"))
    shard.apply(updated("operator", "a", any_owner=True, out_of_service=True))
    assert shard.state.services[ORDERS].available == 0
    shard.apply(ended("s"))
    shard.apply(registered("t", "a", out_of_service=0))
    assert instances(shard)["a"].out_of_service
    shard.apply(updated("operator", "a", any_owner=True, out_of_service=False))
    shard.apply(registered("t", "a"))
    assert not instances(shard)["a"].out_of_service
    assert shard.state.services[ORDERS].available == 1


def test_too_much_metadata_by_updates(shard: Shard) -> None:
    """Updates cannot grow an instance beyond what a registration may have."""
    pairs = {f"k{n}": "v" for n in range(limits.METADATA_PAIRS_MAX)}
    shard.apply(registered("s", "a", metadata=pairs))
    one_more = native_pb2.InstanceChange(metadata_set={"more": "v"})
    assert code_of(shard.apply(updated("s", "a", one_more))) == ErrorCode.LIMIT_EXCEEDED
    long = native_pb2.InstanceChange(metadata_set={f"k{n}": "v" * 4000 for n in range(5)})
    assert code_of(shard.apply(updated("s", "a", long))) == ErrorCode.LIMIT_EXCEEDED
    assert dict(instances(shard)["a"].metadata) == pairs


def test_the_largest_instance_can_be_taken_out_of_service(shard: Shard) -> None:
    """What the node adds to an instance does not count against it."""
    pairs = {f"k{n}": "v" * 4000 for n in range(4)}
    largest = registered("s", "a", metadata=pairs)
    missing = limits.INSTANCE_BYTES_MAX - largest.registered.instance.ByteSize()
    largest.registered.instance.zone = "z" * (missing - 3)
    assert largest.registered.instance.ByteSize() == limits.INSTANCE_BYTES_MAX
    shard.apply(largest)
    assert code_of(shard.apply(updated("o", "a", any_owner=True, out_of_service=True))) is None


# --- limits of a shard ---------------------------------------------------------------------


def test_the_last_operators_mark_can_be_set_twice(shard: Shard) -> None:
    """At the limit of marks only new ones are refused."""
    shard.apply(registered("s", "a"), registered("s", "b"))
    service = shard.state.services[ORDERS]
    for n in range(limits.ADMIN_STATES_PER_SERVICE_MAX - 1):
        service.out_of_service[f"x{n}"] = None
    assert code_of(shard.apply(updated("s", "a", out_of_service=True))) is None
    assert code_of(shard.apply(updated("s", "a", out_of_service=True))) is None
    refused = shard.apply(updated("s", "b", out_of_service=True))
    assert code_of(refused) == ErrorCode.LIMIT_EXCEEDED
    assert not instances(shard)["b"].out_of_service


def test_a_session_at_its_limit_can_still_renew(shard: Shard) -> None:
    """A session that owns as much as it may can register again what it owns."""
    # The owned set is filled by hand: a hundred thousand registrations take too long here.
    shard.apply(registered("s", "a"))
    owned = shard.state.owned[session_of("s")]
    entry = next(iter(owned))
    fillers = [object() for _ in range(limits.INSTANCES_PER_SESSION_MAX - 1)]
    owned.update(dict.fromkeys(fillers))  # type: ignore[arg-type]
    try:
        assert code_of(shard.apply(registered("s", "b"))) == ErrorCode.LIMIT_EXCEEDED
        assert code_of(shard.apply(registered("s", "a", weight=5.0))) is None
        assert entry not in owned
    finally:
        for filler in fillers:
            del owned[filler]  # type: ignore[arg-type]


# --- what followers are told ---------------------------------------------------------------


def test_changes_of_one_tick_are_one(shard: Shard) -> None:
    """Between two looks each service has one change, in which the last of an instance counts."""
    shard.apply(registered("s", "a"), registered("s", "x", key=BILLING))
    shard.state.take_changes()
    shard.apply(
        registered("s", "b"),
        registered("s", "a", weight=3.0),
        deregistered("s", "b"),
        registered("s", "c"),
    )
    (change,) = shard.state.take_changes()
    assert (change.since, change.revision, change.whole) == (1, 6, False)
    assert list(change.upserted) == ["a", "c"]
    assert list(change.removed) == ["b"]
    assert shard.state.take_changes() == []


def test_the_first_change_of_an_empty_service_is_whole(shard: Shard) -> None:
    """A service that had no instances is told as all there is."""
    shard.apply(registered("s", "a"), registered("s", "b"))
    (change,) = shard.state.take_changes()
    assert change.whole
    assert list(change.upserted) == ["a", "b"]


def test_changes_merge_like_one(shard: Shard) -> None:
    """Two changes merged tell the same as one taken later."""
    shard.apply(registered("s", "a"))
    shard.state.take_changes()
    shard.apply(registered("s", "b"), deregistered("s", "a"))
    (first,) = shard.state.take_changes()
    shard.apply(registered("s", "a"), deregistered("s", "b"))
    (second,) = shard.state.take_changes()
    first.merge(second)
    assert (first.since, first.revision) == (1, 5)
    assert list(first.upserted) == ["a"]
    assert list(first.removed) == ["b"]


# --- catching up ---------------------------------------------------------------------------


def at(revision: int, epoch: int = 1) -> LogPosition:
    return LogPosition(epoch, revision)


def test_who_knows_nothing_gets_a_snapshot(shard: Shard) -> None:
    """From the origin there is only a snapshot, at the shard's own revision."""
    shard.apply(epoch_started(), registered("s", "a"), registered("s", "x", key=BILLING))
    missing = shard.state.catch_up(ORDERS, at(0, 0))
    assert (missing.kind, missing.revision) == ("snapshot", 3)
    assert len(missing.upserted) == 1


def test_who_knows_all_is_current(shard: Shard) -> None:
    """Entries of other services do not make anybody stale."""
    shard.apply(epoch_started(), registered("s", "a"), registered("s", "x", key=BILLING))
    missing = shard.state.catch_up(ORDERS, at(2))
    assert (missing.kind, missing.revision) == ("current", 3)


def test_who_missed_some_gets_a_delta(shard: Shard) -> None:
    """Between two revisions only what changed is told, each instance once."""
    shard.apply(epoch_started(), *(registered("s", f"i{n}") for n in range(5)))
    shard.apply(registered("s", "i0", weight=1.0), registered("s", "i0", weight=2.0))
    shard.apply(deregistered("s", "i1"))
    missing = shard.state.catch_up(ORDERS, at(6))
    assert (missing.kind, missing.since, missing.revision) == ("delta", 6, 9)
    assert [model_pb2.Instance.FromString(e).weight for e in missing.upserted] == [2.0]
    assert missing.removed == ["i1"]


def test_a_delta_that_is_all_is_told_as_a_snapshot(shard: Shard) -> None:
    """Where every instance changed, a snapshot says the same with fewer words."""
    shard.apply(epoch_started(), registered("s", "a"), registered("s", "a", weight=1.0))
    assert shard.state.catch_up(ORDERS, at(2)).kind == "snapshot"


def test_a_service_that_is_gone_is_an_empty_snapshot(shard: Shard) -> None:
    """Who knew instances of a service that has none is told so, whatever it knew."""
    shard.apply(epoch_started(), registered("s", "a"), deregistered("s", "a"))
    for known in (at(0, 0), at(2), at(3)):
        missing = shard.state.catch_up(ORDERS, known)
        assert (missing.kind, missing.upserted, missing.revision) == ("snapshot", [], 3)


def test_beyond_the_history_there_is_a_snapshot(shard: Shard) -> None:
    """Older than what is remembered is a snapshot; just young enough is a delta."""
    kept = limits.HISTORY_CHANGES_PER_SHARD
    shard.apply(epoch_started(), *(registered("s", f"i{n}") for n in range(20)))
    # Revision 1 + 20, then as many changes as are kept push out all of these.
    shard.apply(*(registered("s", f"i{n % 10}") for n in range(kept)))
    assert shard.state.history_floor == 21
    assert shard.state.catch_up(ORDERS, at(20)).kind == "snapshot"
    assert shard.state.catch_up(ORDERS, at(21)).kind == "delta"


def test_a_service_is_forgotten_with_its_history(shard: Shard) -> None:
    """An empty service costs memory only while its removal is remembered."""
    shard.apply(registered("s", "a"), deregistered("s", "a"))
    assert ORDERS in shard.state.services
    shard.apply(
        *(registered("s", "b", key=BILLING) for _ in range(limits.HISTORY_CHANGES_PER_SHARD))
    )
    assert ORDERS not in shard.state.services


def test_an_operators_mark_keeps_a_service_known(shard: Shard) -> None:
    """A mark on an instance that is gone is not forgotten with its history."""
    shard.apply(registered("s", "a"), updated("s", "a", out_of_service=True))
    shard.apply(deregistered("s", "a"))
    shard.apply(
        *(registered("s", "b", key=BILLING) for _ in range(limits.HISTORY_CHANGES_PER_SHARD))
    )
    shard.apply(registered("t", "a"))
    assert instances(shard)["a"].out_of_service


def test_one_end_larger_than_the_history(shard: Shard) -> None:
    """A session that takes more with it than is remembered leaves resumers to a snapshot."""
    count = limits.HISTORY_CHANGES_PER_SHARD + 88
    shard.apply(epoch_started(), *(registered("s", f"i{n}") for n in range(count)))
    shard.apply(registered("t", "stays"))
    before = shard.revision
    shard.apply(ended("s"))
    assert list(instances(shard)) == ["stays"]
    assert shard.state.catch_up(ORDERS, at(before)).kind == "snapshot"
    assert shard.state.catch_up(ORDERS, at(before + 1)).kind == "current"


# --- epochs --------------------------------------------------------------------------------


def test_a_position_of_a_lost_branch_is_not_trusted(shard: Shard) -> None:
    """A position beyond where the next epoch began was never committed here."""
    shard.apply(epoch_started(), registered("s", "a"), registered("s", "b"))
    shard.epoch = 2
    shard.apply(epoch_started(), registered("s", "a"))
    assert shard.state.catch_up(ORDERS, at(3, 1)).kind == "delta"
    assert shard.state.catch_up(ORDERS, at(4, 1)).kind == "snapshot"
    assert shard.state.catch_up(ORDERS, at(5, 2)).kind == "current"
    assert shard.state.catch_up(ORDERS, at(6, 2)).kind == "snapshot"
    assert shard.state.catch_up(ORDERS, at(3, 2)).kind == "snapshot"
    assert shard.state.catch_up(ORDERS, at(3, 7)).kind == "snapshot"


def test_epochs_remembered_are_bounded(shard: Shard) -> None:
    """Of many epochs the last ones are known; older positions take a snapshot."""
    shard.apply(epoch_started(), registered("s", "a"))
    for epoch in range(2, limits.EPOCH_STARTS_KEPT + 5):
        shard.epoch = epoch
        shard.apply(epoch_started())
    assert len(shard.state.epoch_starts) == limits.EPOCH_STARTS_KEPT
    assert shard.state.catch_up(ORDERS, at(2, 1)).kind == "snapshot"
    newest = LogPosition(shard.epoch, shard.revision)
    assert shard.state.catch_up(ORDERS, newest).kind == "current"
