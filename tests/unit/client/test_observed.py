"""What several nodes tell of one past, and of the same sessions, put together."""

from __future__ import annotations

from ssgovern.client.observed import Event, EventKind, Heard, event_of, merged, merged_sessions
from ssgovern.model import LogPosition, ServiceKey
from ssgovern.wire.pb import native_pb2

KEY = ServiceKey("prod", "default", "orders")


def event(revision: int, time_ms: int, *, shard: int = 1, instance_id: str = "a") -> Event:
    return Event(
        EventKind.UPDATED, time_ms, LogPosition(1, revision), shard, KEY, instance_id=instance_id
    )


def decided(index: int, reason: str, time_ms: int = 5) -> Event:
    return Event(EventKind.CLUSTER, time_ms, LogPosition(0, index), reason=reason)


def test_what_primary_and_replica_tell_is_told_once() -> None:
    """By its place in the log, also where one entry is several events."""
    ended = [event(7, 70, instance_id="a"), event(7, 70, instance_id="b")]
    primary = [event(5, 50), *ended, decided(3, "x"), decided(3, "y")]
    replica = [event(6, 60), *reversed(ended), decided(3, "x"), decided(4, "x")]
    found = merged([primary, replica])
    assert [(each.position.revision, each.instance_id or each.reason) for each in found] == [
        (3, "x"),
        (3, "y"),
        (4, "x"),
        (5, "a"),
        (6, "a"),
        (7, "a"),
        (7, "b"),
    ]


def test_clocks_do_not_change_the_order_within_a_shard() -> None:
    """A new primary whose clock is behind goes on where the old one ended."""
    found = merged([[event(1, 100), event(2, 40), event(9, 70, shard=2)]])
    assert [(each.shard, each.position.revision) for each in found] == [(2, 9), (1, 1), (1, 2)]


def test_who_follows_several_nodes_hears_each_event_once() -> None:
    """Whoever tells it first; what others tell of it later is known by its position."""
    heard = Heard()
    told = [
        event(5, 0, instance_id="a"),
        event(5, 0, instance_id="a"),
        event(5, 0, instance_id="b"),
        event(6, 0),
        event(5, 0, instance_id="b"),
        event(5, 0, shard=2),
        decided(1, "x"),
        decided(1, "y"),
        decided(1, "x"),
        decided(2, "x"),
    ]
    assert [heard.take(each) for each in told] == [
        True, False, True, True, False, True, True, True, False, True,
    ]  # fmt: skip


def test_a_kind_that_is_not_known_here_is_something_that_was_missed() -> None:
    """A node of a newer version does not break an older client."""
    assert event_of(native_pb2.Event(kind=99)).kind is EventKind.MISSED  # type: ignore[arg-type]


def _page(
    node: int, *ids: int, more: bool = False, **fields: object
) -> native_pb2.SessionsResponse:
    summaries = [
        native_pb2.SessionSummary(session_id=bytes([each]), **fields)  # type: ignore[arg-type]
        for each in ids
    ]
    end = bytes([ids[-1]]) if more else b""
    return native_pb2.SessionsResponse(
        node_id=node, sessions=summaries, next_after=end, total=len(ids)
    )


def test_a_session_that_several_nodes_know_is_one() -> None:
    """What it owns is added up, and it is connected if it is so anywhere."""
    page = merged_sessions(
        [
            _page(1, 7, instances=2, heard_ms=900, client_name="shop", connected=True),
            _page(2, 7, 8, instances=3, heard_ms=100),
        ],
        limit=10,
    )
    first, second = page.sessions
    assert (first.session_id, first.instances, first.heard_ms) == ("07", 5, 100)
    assert (first.connected, first.client_name) == (True, "shop")
    assert [each.node_id for each in first.nodes] == [1, 2]
    assert (second.session_id, second.connected, second.client_name) == ("08", False, "")
    assert (page.total, page.next_after) == (3, "")


def test_a_page_ends_where_the_shortest_of_its_parts_ends() -> None:
    """What lies behind is left for the next page, where that node tells it too."""
    page = merged_sessions([_page(1, 1, 3, more=True), _page(2, 2, 4, 5)], limit=10)
    assert [each.session_id for each in page.sessions] == ["01", "02", "03"]
    assert page.next_after == "03"
    page = merged_sessions([_page(1, 1, 3), _page(2, 2, 4, 5)], limit=2)
    assert [each.session_id for each in page.sessions] == ["01", "02"]
    assert page.next_after == "02"
