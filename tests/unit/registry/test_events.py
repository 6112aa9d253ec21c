"""Recent events: numbered, bounded by number and by bytes, what is noted of what entries do."""

from __future__ import annotations

import pytest
from builders import deregistered, ended, registered, session_of, updated

from ssgovern.model import LogPosition, ServiceKey, ShardId
from ssgovern.registry.events import DEREGISTERED, REGISTERED, UPDATED, Event, RecentEvents
from ssgovern.registry.state import Entry, Service, ShardState
from ssgovern.wire.pb import log_pb2, native_pb2

HERE = LogPosition(1, 1)


def _entry(size_bytes: int = 10) -> Entry:
    return Entry(
        Service(ServiceKey("d", "g", "s")),
        "a",
        b"x" * size_bytes,
        session_of("s"),
        persistent=False,
        available=True,
    )


def test_the_oldest_events_are_forgotten_and_numbers_go_on() -> None:
    """However many there are, so many are kept, the newest, under the numbers they had."""
    events = RecentEvents(entries_max=3)
    for time_ms in range(1, 6):
        events.note(time_ms, HERE, None, _entry(), b"", UPDATED)
    assert (events.first, events.last, len(events)) == (3, 5, 3)
    assert [(number, each.time_ms) for number, each in events.after(0)] == [(3, 3), (4, 4), (5, 5)]
    assert [number for number, _ in events.after(4)] == [5]
    assert [number for number, _ in events.after(5)] == []
    assert [number for number, _ in events.newest()] == [5, 4, 3]


def test_large_instances_push_out_more_events() -> None:
    """Bytes of instances before and after count, and those of what is forgotten no longer."""
    events = RecentEvents(entries_max=100, bytes_max=1000)
    for _ in range(10):
        events.note(1, HERE, _entry(100), _entry(100), b"", UPDATED)
    assert (len(events), events.size_bytes) == (5, 1000)
    events.note(1, HERE, None, _entry(5_000), b"", UPDATED)
    assert (len(events), events.size_bytes) == (0, 0)
    assert events.first == events.last + 1


def _applied(*records: log_pb2.Record) -> list[Event]:
    state = ShardState(ShardId(0))
    state.events = RecentEvents()
    for revision, record in enumerate(records, 1):
        state.apply(1, revision, record)
    return [event for _, event in state.events.after(0)]


def test_entries_that_change_an_instance_are_noted_with_before_and_after() -> None:
    """Registered, again, updated, deregistered: each with who asked, when, and where."""
    change = native_pb2.InstanceChange(weight=1.0)
    records = [
        registered("s", "a"),
        registered("s", "a"),
        updated("s", "a", change),
        deregistered("s", "a"),
    ]
    for time_ms, record in enumerate(records, 1):
        record.time_ms = time_ms
    found = _applied(*records)
    assert [event.position.revision for event in found] == [1, 2, 3, 4]
    assert [event.before is None for event in found] == [True, False, False, False]
    assert [event.after is None for event in found] == [False, False, False, True]
    assert {event.session_id for event in found} == {session_of("s")}
    assert [event.cause for event in found] == [REGISTERED, REGISTERED, UPDATED, DEREGISTERED]
    assert [event.time_ms for event in found] == [1, 2, 3, 4]


def test_entries_that_change_nothing_are_not_noted() -> None:
    """What is refused, or finds nothing to remove, is no event."""
    found = _applied(
        deregistered("s", "a"), registered("s", "a"), deregistered("t", "a"), ended("t")
    )
    assert [event.position.revision for event in found] == [2]


@pytest.mark.parametrize("reason", [log_pb2.SESSION_END_EXPIRED, log_pb2.SESSION_END_GOODBYE])
def test_an_end_of_a_session_is_an_event_of_each_instance(reason: log_pb2.SessionEnd) -> None:
    """Ephemeral ones are gone after it, persistent ones are unhealthy."""
    end = ended("s")
    end.session_ended.reason = reason
    found = _applied(registered("s", "a"), registered("s", "b", persistent=True), end)[2:]
    assert [(event.entry.id, event.after is None, event.cause) for event in found] == [
        ("a", True, reason),
        ("b", False, reason),
    ]
