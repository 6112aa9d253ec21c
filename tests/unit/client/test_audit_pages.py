"""The audit of many nodes in pages, without nodes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssgovern.client.auditing import _places, _text, merged
from ssgovern.errors import InvalidArgumentError
from ssgovern.wire.pb import native_pb2

Entries = list[native_pb2.AuditEntry]


def entries(node: int, times_ms: Sequence[int]) -> Entries:
    """What a node wrote down, numbered from 1."""
    return [
        native_pb2.AuditEntry(node_id=node, number=number, time_ms=time_ms)
        for number, time_ms in enumerate(times_ms, 1)
    ]


def answer(kept: Entries, before: int, limit: int) -> Entries:
    """As a node answers."""
    return [each for each in reversed(kept) if not before or each.number < before][:limit]


def walk(nodes: dict[int, Entries], limit: int, *, noting: int = 0) -> Entries:
    """Read all pages; after each, a node writes one more entry down."""
    told: Entries = []
    token = ""
    while True:
        places = _places(token)
        said = {node: answer(kept, places.get(node, 0), limit) for node, kept in nodes.items()}
        page, places, is_more = merged(said, places, limit)
        told += page
        assert len(page) <= limit
        if not is_more:
            return told
        token = _text(places)
        if noting:
            kept = nodes[noting]
            kept.append(native_pb2.AuditEntry(node_id=noting, number=len(kept) + 1, time_ms=10**9))


times = st.lists(st.integers(0, 50), max_size=12)


@given(st.dictionaries(st.integers(1, 4), times, min_size=1), st.integers(1, 7))
def test_each_entry_is_told_once(found: dict[int, list[int]], limit: int) -> None:
    """By all pages together, each node's by falling number, though clocks were set back."""
    nodes = {node: entries(node, sorted_or_not) for node, sorted_or_not in found.items()}
    told = walk(nodes, limit)
    assert sorted((e.node_id, e.number) for e in told) == sorted(
        (e.node_id, e.number) for kept in nodes.values() for e in kept
    )
    for node in nodes:
        numbers = [each.number for each in told if each.node_id == node]
        assert numbers == sorted(numbers, reverse=True)


@given(st.dictionaries(st.integers(1, 4), times, min_size=1), st.integers(1, 7))
def test_pages_go_by_time_where_clocks_do(found: dict[int, list[int]], limit: int) -> None:
    """The newest first, of all nodes."""
    told = walk({node: entries(node, sorted(each)) for node, each in found.items()}, limit)
    assert [each.time_ms for each in told] == sorted((e.time_ms for e in told), reverse=True)


def test_what_is_written_down_meanwhile_is_left_out() -> None:
    """A walk ends, and tells what was there when it began, though a node goes on writing."""
    nodes = {1: entries(1, []), 2: entries(2, [5, 6, 7]), 3: entries(3, [1, 2])}
    told = walk(nodes, 1, noting=1)
    assert [(each.node_id, each.number) for each in told] == [
        (2, 3),
        (2, 2),
        (2, 1),
        (3, 2),
        (3, 1),
    ]


@pytest.mark.parametrize(
    "text", ["x", "1", "1.0", "1.2-", "1.2-1.3", "-1.2", "1.2.3", "1." + "9" * 20]
)
def test_what_no_page_ended_with_is_refused(text: str) -> None:
    """A token that was made up is told from one that was given."""
    with pytest.raises(InvalidArgumentError):
        _places(text)
    assert _places("1.5-12.7") == {1: 5, 12: 7}
