"""A service's list: what the node pushes comes in, what the caller sees comes out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from stage import ids, instance, key

from ssgovern.client.changes import ChangeQueue, MergedChange
from ssgovern.client.values import Change
from ssgovern.client.view import GAP, ServiceView
from ssgovern.model import ORIGIN, Instance, LogPosition

ORDERS = key("orders")


def view_with(*instances: Instance, revision: int = 5) -> ServiceView:
    view = ServiceView(ORDERS)
    view.on_snapshot(LogPosition(1, revision), instances)
    return view


def test_the_first_snapshot_adds_everything() -> None:
    """A view that knows nothing sees a snapshot as so many additions, in the order of ids."""
    view = ServiceView(ORDERS)
    change = view.on_snapshot(LogPosition(1, 5), [instance(2), instance(1)])
    assert change is not None
    assert ids(change.added) == ["i1", "i2"]
    assert ids(view.instances) == ["i1", "i2"]


def test_a_later_snapshot_shows_only_differences() -> None:
    """A snapshot never removes and adds what was there before and still is."""
    view = view_with(instance(1), instance(2), instance(3))
    heavier = instance(2, weight=7.0)
    change = view.on_snapshot(LogPosition(1, 9), [instance(1), heavier, instance(4)])
    assert change == Change(
        ORDERS, added=(instance(4),), changed=(heavier,), removed=(instance(3),), revision=9
    )


def test_an_equal_snapshot_is_no_change() -> None:
    """A snapshot that says what is known moves the position and tells nobody."""
    view = view_with(instance(1))
    before = view.instances
    assert view.on_snapshot(LogPosition(2, 9), [instance(1)]) is None
    assert view.position == LogPosition(2, 9)
    assert view.instances is before


def test_a_snapshot_from_the_past_is_ignored() -> None:
    """The list of a node that lags does not replace a newer one."""
    view = view_with(instance(1), revision=9)
    assert view.on_snapshot(LogPosition(1, 8), []) is None
    assert ids(view.instances) == ["i1"]


def test_an_empty_list_is_taken_when_it_is_told() -> None:
    """An empty snapshot at a newer revision empties the list."""
    view = view_with(instance(1))
    change = view.on_snapshot(LogPosition(1, 6), [])
    assert change is not None
    assert ids(change.removed) == ["i1"]
    assert view.instances == ()


def test_a_delta_applies_from_since_to_its_revision() -> None:
    """A delta fits any state between `since` and its revision."""
    for since in (0, 4, 5):
        view = view_with(instance(1), instance(2), revision=5)
        change = view.on_delta(
            since, LogPosition(1, 8), [instance(3), instance(1, weight=1.0)], ["i2", "i9"]
        )
        assert isinstance(change, Change)
        assert (ids(change.added), ids(change.changed), ids(change.removed)) == (
            ["i3"],
            ["i1"],
            ["i2"],
        )
        assert change.revision == view.position.revision == 8


def test_a_known_delta_is_ignored() -> None:
    """A delta up to a revision that is known already changes nothing."""
    view = view_with(instance(1), revision=5)
    assert view.on_delta(3, LogPosition(1, 5), [], ["i1"]) is None
    assert view.on_delta(0, LogPosition(1, 4), [], ["i1"]) is None
    assert ids(view.instances) == ["i1"]


def test_a_missing_delta_is_a_gap_until_a_snapshot() -> None:
    """A delta that does not fit is a gap; the list stays, and only a snapshot closes it."""
    view = view_with(instance(1), revision=5)
    assert view.on_delta(6, LogPosition(1, 7), [], ["i1"]) is GAP
    assert view.known == ORIGIN
    assert view.on_delta(7, LogPosition(1, 8), [instance(3)], []) is None
    assert ids(view.instances) == ["i1"]
    view.on_snapshot(LogPosition(1, 8), [instance(3)])
    assert not view.has_gap
    assert ids(view.instances) == ["i3"]
    assert view.known == LogPosition(1, 8)


def test_a_delta_of_a_newer_epoch_with_an_older_revision_is_a_gap() -> None:
    """A log that lost its tail is not continued: what we know of it never was committed."""
    view = view_with(instance(1), revision=9)
    assert view.on_delta(3, LogPosition(2, 7), [], ["i1"]) is GAP
    assert ids(view.instances) == ["i1"]


def test_current_moves_the_position_only() -> None:
    """To be told that one is current changes no list."""
    view = view_with(instance(1), revision=5)
    assert view.on_current(LogPosition(2, 50)) is None
    assert view.position == LogPosition(2, 50)
    assert view.on_delta(40, LogPosition(2, 51), [instance(2)], []) is not None
    assert ids(view.instances) == ["i1", "i2"]


def test_current_without_a_list_is_a_gap() -> None:
    """A node that takes us for current while we have nothing is asked for everything."""
    assert ServiceView(ORDERS).on_current(LogPosition(1, 3)) is GAP


def test_a_new_service_of_a_pattern_begins_with_a_delta() -> None:
    """A delta since the beginning applies to a service never heard of."""
    view = ServiceView(ORDERS)
    assert isinstance(view.on_delta(0, LogPosition(1, 3), [instance(1)], []), Change)
    assert ServiceView(ORDERS).on_delta(2, LogPosition(1, 3), [instance(1)], []) is GAP


def test_a_position_of_another_log_is_not_built_upon() -> None:
    """After the cluster changed the list stays, deltas do not apply and any snapshot does."""
    view = view_with(instance(1), revision=500)
    view.forget_position()
    assert view.known == ORIGIN
    assert view.on_delta(0, LogPosition(1, 2), [instance(2)], []) is GAP
    assert ids(view.instances) == ["i1"]
    change = view.on_snapshot(LogPosition(1, 2), [instance(2)])
    assert change is not None
    assert (ids(change.added), ids(change.removed)) == (["i2"], ["i1"])


# --- against a log, with loss ------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # which instance
        st.one_of(st.none(), st.integers(1, 3)),  # removed, or its new weight
        st.sampled_from(["delta", "delta", "merge", "lose", "twice", "snapshot", "old", "current"]),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_a_view_is_right_or_knows_that_it_is_not(
    steps: list[tuple[int, int | None, str]],
) -> None:
    """Whatever is lost, repeated or late, a view without a gap is the node's list as told."""
    truth: dict[str, Instance] = {}
    at: dict[int, dict[str, Instance]] = {0: {}}
    view = ServiceView(ORDERS)
    view.on_snapshot(LogPosition(1, 0), [])
    seen: dict[str, Instance] = {}
    told = 0  # the node's idea of where this subscriber is
    for number, weight, fate in steps:
        revision = len(at)
        name = f"i{number}"
        if weight is None:
            truth.pop(name, None)
        else:
            truth[name] = instance(number, weight=float(weight), revision=revision)
        at[revision] = dict(truth)
        if fate == "merge":
            continue
        since, told = told, revision
        before = at[since]
        upserted = [i for i in truth.values() if before.get(i.id) != i]
        removed = [i for i in before if i not in truth]
        position = LogPosition(1, revision)
        outcomes: list[object] = []
        if fate in ("delta", "twice"):
            outcomes += [
                view.on_delta(since, position, upserted, removed)
                for _ in range(1 + (fate == "twice"))
            ]
        elif fate == "snapshot":
            outcomes.append(view.on_snapshot(position, truth.values()))
        elif fate == "old":
            outcomes.append(view.on_snapshot(LogPosition(1, since), before.values()))
            outcomes.append(view.on_delta(since, position, upserted, removed))
        elif fate == "current" and before == truth:
            outcomes.append(view.on_delta(since, position, [], []))
        for outcome in outcomes:
            if isinstance(outcome, Change):
                for gone in outcome.removed:
                    assert seen.pop(gone.id) == gone
                for new in outcome.added:
                    assert new.id not in seen
                    seen[new.id] = new
                for new in outcome.changed:
                    assert seen[new.id] != new
                    seen[new.id] = new
        assert list(view.instances) == sorted(seen.values(), key=lambda i: i.id)
        assert seen == at[view.position.revision], "a list is that of its position, always"
    position = LogPosition(1, len(at))
    view.on_snapshot(position, truth.values())
    assert {i.id: i for i in view.instances} == truth
    assert not view.has_gap


# --- changes that wait -------------------------------------------------------------------------


def change_of(revision: int, **parts: tuple[Instance, ...]) -> Change:
    return Change(
        ORDERS,
        added=parts.get("added", ()),
        changed=parts.get("changed", ()),
        removed=parts.get("removed", ()),
        revision=revision,
    )


def test_merged_changes_cancel_out() -> None:
    """Added and removed is nothing, removed and added is changed, added and changed is added."""
    merged = MergedChange(ORDERS)
    merged.add(change_of(1, added=(instance(1), instance(2)), removed=(instance(3),)))
    merged.add(change_of(2, removed=(instance(1),), changed=(instance(2, weight=2.0),)))
    merged.add(change_of(3, added=(instance(3, weight=3.0),)))
    assert merged.as_change() == change_of(
        3, added=(instance(2, weight=2.0),), changed=(instance(3, weight=3.0),)
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60), st.integers(1, 5))
def test_a_bounded_queue_leads_to_the_same_list(
    steps: list[tuple[int, bool]], changes_max: int
) -> None:
    """Merged or not, the changes read lead from the list at the start to that at the end."""
    queue = ChangeQueue(changes_max)
    truth: dict[str, Instance] = {}
    for revision, (number, there) in enumerate(steps, 1):
        old, new = truth.get(f"i{number}"), instance(number, revision=revision)
        if there:
            truth[new.id] = new
            queue.put(change_of(revision, **{"changed" if old else "added": (new,)}))
        elif old is not None:
            del truth[new.id]
            queue.put(change_of(revision, removed=(old,)))
        assert len(queue) <= changes_max + 1
    seen: dict[str, Instance] = {}
    last = 0
    while (change := queue.pop()) is not None:
        assert change.revision > last
        last = change.revision
        for gone in change.removed:
            del seen[gone.id]
        for new in change.added:
            assert new.id not in seen
            seen[new.id] = new
        for new in change.changed:
            assert new.id in seen
            seen[new.id] = new
    assert seen == truth


def test_restored_lists_keep_their_position() -> None:
    """A list kept on disk resumes from where it was written."""
    view = ServiceView(ORDERS)
    view.restore(LogPosition(3, 7), [replace(instance(1), revision=7)])
    assert view.known == LogPosition(3, 7)
    assert ids(view.instances) == ["i1"]
