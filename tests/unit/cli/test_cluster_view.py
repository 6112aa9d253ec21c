"""How a cluster is shown: its health, what to do about it, its nodes and shards."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ssgovern.cli.cluster import unclean_warning
from ssgovern.cli.cluster_view import (
    candidate_rows,
    facts_of,
    health_of,
    node_rows,
    nodes_document,
    ranges,
    shard_rows,
    status_document,
)
from ssgovern.cli.output import Cell
from ssgovern.client.values import ClusterNode, ClusterStatus, ShardRow
from ssgovern.errors import NotFoundError


def node(node_id: int, **fields: object) -> ClusterNode:
    defaults = ClusterNode(
        node_id=node_id,
        name=f"n{node_id}",
        address=f"10.0.0.{node_id}:7420",
        zone="",
        live=True,
        leaving=False,
        lost=False,
        candidate=node_id <= 3,
        primaries=64,
        holds=192,
        in_sync=192,
        session=1,
    )
    return dataclasses.replace(defaults, **fields)  # type: ignore[arg-type]


def row(shard: int, primary: int = 1, **fields: object) -> ShardRow:
    holders = (1, 2, 3)
    defaults = ShardRow(
        shard=shard,
        epoch=1,
        version=1,
        primary=primary,
        holders=holders,
        in_sync=holders,
        eligible=(),
        incoming=0,
        outgoing=0,
        successor=0,
    )
    return dataclasses.replace(defaults, **fields)  # type: ignore[arg-type]


def status(**fields: object) -> ClusterStatus:
    defaults = ClusterStatus(
        cluster_id=b"\x01" * 16,
        map_version=812,
        controller_id=3,
        term=4,
        index=99,
        nodes=(node(3), node(1), node(4), node(2)),
        shards=(),
        copies=3,
        min_in_sync=2,
        shards_total=256,
        shards_unavailable=0,
        shards_below_copies=0,
        moves=0,
        node_id=1,
        controller_heard=True,
        candidates=(1, 2, 3),
    )
    return dataclasses.replace(defaults, **fields)  # type: ignore[arg-type]


def texts(rows: list[list[str | Cell]]) -> list[list[str]]:
    return [[c.text if isinstance(c, Cell) else c for c in line] for line in rows]


def test_a_healthy_cluster_needs_no_advice() -> None:
    """All served, all copied, nobody away: one sentence and nothing to do."""
    health = health_of(status())
    assert health == ("good", "all 256 shards are served, in 3 copies", ())
    two = status(nodes=(node(1), node(2)), candidates=(1,), copies=2)
    assert health_of(two).word == "good", "of two nodes, one candidate is what there can be"


@pytest.mark.parametrize(
    ("fields", "word", "sentence", "advice"),
    [
        (
            {"controller_heard": False},
            "bad",
            "node 1 hears no controller",
            "2 of the 3 candidates must run and reach each other: 3 (10.0.0.3:7420), 1 (",
        ),
        (
            {"shards_unavailable": 1, "nodes": (node(1), node(2, live=False))},
            "bad",
            "1 shard is served by nobody, 1 node away",
            "start node 2 (n2) again: only there is what was acknowledged last",
        ),
        (
            {"shards_unavailable": 2},
            "bad",
            "2 shards are served by nobody",
            "gets one within seconds",
        ),
        (
            {"nodes": (node(1), node(3), node(4), node(2, live=False))},
            "degraded",
            "1 node away",
            "`ss-govern cluster candidates add NODE` and `remove 2`, then `ss-govern cluster leave",
        ),
        (
            {"nodes": (node(1), node(2), node(3), node(4, live=False, lost=True))},
            "degraded",
            "1 node away",
            "If it never does: `ss-govern cluster leave 4`",
        ),
        (
            {"shards_below_copies": 9, "nodes": (node(1), node(2))},
            "degraded",
            "9 shards are below 3 copies",
            "3 copies need as many nodes, 2 can take them: start another one",
        ),
        (
            {"nodes": (node(1), node(2))},
            "degraded",
            "3 copies are wanted, 2 nodes can take them",
            "start another one",
        ),
        (
            {"candidates": (1, 2)},
            "degraded",
            "2 candidates",
            "survives no more than one less: `ss-govern cluster candidates add ",
        ),
        (
            {"candidates": (1,)},
            "degraded",
            "1 candidate",
            "node 1 decides alone, and without it nobody does: `ss-govern cluster candidates add",
        ),
        ({"map_version": 0}, "bad", "no shard has been placed yet", "all candidates have to be"),
        ({"shards_below_copies": 1}, "degraded", "1 shard is below 3", "copies are being made"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    fields: dict[str, object], word: str, sentence: str, advice: str
) -> None:
    """Refused is bad, one failure from it is degraded; each comes with a next step."""
    health = health_of(status(**fields))
    assert health.word == word
    assert health.sentence.startswith(sentence)
    assert any(advice in line for line in health.advice)


def test_the_facts_name_the_controller_and_who_was_asked() -> None:
    """What one node says is shown as that node's view."""
    facts = {name: c.text if isinstance(c, Cell) else c for name, c in facts_of(status()).items()}
    assert facts["controller"] == "node 3 (n3), term 4"
    assert facts["seen by"] == "node 1, shard map 812"
    assert facts["under way"] == "nothing"
    silent = facts_of(status(controller_heard=False))["controller"]
    assert silent == Cell("not heard", "bad")
    busy = facts_of(status(moves=2, nodes=(node(4, leaving=True, holds=7),)))["under way"]
    assert busy == Cell("2 moves, node 4 is leaving, 7 shards to go", "warn")


def test_nodes_are_shown_by_id_with_role_and_state() -> None:
    """The controller is told from the other candidates, and those from nodes without a vote."""
    shown = status(nodes=(node(4, zone="b"), node(3), node(2, live=False, leaving=True), node(1)))
    rows = texts(node_rows(shown))
    assert [(line[0], line[4], line[5]) for line in rows] == [
        ("1", "candidate", "live"),
        ("2", "candidate", "away, leaving"),
        ("3", "controller", "live"),
        ("4", "node", "live"),
    ]
    assert rows[3] == ["4", "n4", "10.0.0.4:7420", "b", "node", "live", "64", "128"]
    assert [line[0] for line in texts(candidate_rows(shown))] == ["1", "2", "3"]


def test_shards_of_one_fate_share_a_line_and_trouble_comes_first() -> None:
    """Unavailable, below copies, in motion, then the rest, whatever their numbers are."""
    shards = (
        *(row(number) for number in (0, 1, 2, 5)),
        row(3, primary=2),
        row(4, incoming=4, outgoing=1, holders=(1, 2, 3, 4)),
        row(6, in_sync=(1,)),
        row(7, primary=0, in_sync=(), eligible=(2,)),
        row(8, successor=2),
    )
    rows = texts(shard_rows(status(shards=shards)))
    assert [(line[0], line[1], line[5]) for line in rows] == [
        ("1", "UNAVAILABLE, waits for 2", "7"),
        ("1", "1 of 3 in sync", "6"),
        ("1", "moving 1 -> 4", "4"),
        ("1", "handing over to 2", "8"),
        ("4", "in sync", "0-2 5"),
        ("1", "in sync", "3"),
    ]
    assert rows[4][2:5] == ["1", "2, 3", "1, 2, 3"]


@pytest.mark.parametrize(
    ("numbers", "text"), [((), ""), ((4,), "4"), ((2, 1, 3, 7, 9, 8), "1-3 7-9"), ((1, 3), "1 3")]
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    """Numbers that follow each other are a range."""
    assert ranges(numbers) == text


def test_programs_get_everything_as_json() -> None:
    """The documents can be written as JSON and say health in one word."""
    document = json.loads(json.dumps(status_document(status(shards=(row(1),)))))
    assert document["health"] == "good"
    assert document["cluster_id"] == "01" * 16
    assert document["shards"][0]["in_sync"] == [1, 2, 3]
    nodes = nodes_document(status())
    assert [one["controller"] for one in nodes] == [True, False, False, False]


def test_an_unclean_promotion_says_who_has_everything_and_what_may_be_lost() -> None:
    """Nobody has to know the protocol to see that starting another node would lose nothing."""
    lost = row(7, primary=0, in_sync=(), eligible=(2, 3))
    text = unclean_warning(status(shards=(lost,)), 7, 1)
    assert "served by nobody" in text
    assert "All that was acknowledged is on: 3 (n3), 2 (n2)." in text
    assert "lost for good" in text
    alone = row(7, primary=0, in_sync=(), eligible=())
    assert "No other node is known to have more" in unclean_warning(status(shards=(alone,)), 7, 1)
    served = unclean_warning(status(shards=(row(7),)), 7, 1)
    assert "served by node 1: nothing needs to be lost" in served
    with pytest.raises(NotFoundError):
        unclean_warning(status(shards=()), 7, 1)
