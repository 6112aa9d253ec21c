"""Whose a data directory is."""

from __future__ import annotations

import json

import pytest
from nodes import run_world

from ssgovern.controller.state import Node
from ssgovern.errors import ConfigError, CorruptionError
from ssgovern.model import NodeId
from ssgovern.node.identity import FILE, change, load_or_create, peers_of
from ssgovern.sim.runtime import SimRuntime

DATA = "/data"


def test_an_identity_is_made_once() -> None:
    """The second start finds what the first one made, and nobody else makes the same."""
    made = []

    async def life(runtime: SimRuntime) -> None:
        made.append(await load_or_create(runtime.open_disk(DATA), NodeId(3), runtime))

    async def elsewhere(runtime: SimRuntime) -> None:
        made.append(await load_or_create(runtime.open_disk("/other"), NodeId(3), runtime))

    run_world(0, life, life, elsewhere)
    assert made[0] == made[1]
    assert made[0].node_uuid != made[2].node_uuid
    assert made[0].cluster_id != made[2].cluster_id
    assert len(made[0].node_uuid) == 16


def test_a_directory_of_another_node() -> None:
    """A directory that was copied, or named by mistake, is refused."""

    async def one(runtime: SimRuntime) -> None:
        await load_or_create(runtime.open_disk(DATA), NodeId(1), runtime)

    async def two(runtime: SimRuntime) -> None:
        with pytest.raises(ConfigError, match="belongs to node 1"):
            await load_or_create(runtime.open_disk(DATA), NodeId(2), runtime)

    run_world(0, one, two)


def test_where_other_candidates_are_is_kept() -> None:
    """What a node noted of them is there at its next start."""
    peers = ((NodeId(2), "b:7420"), (NodeId(3), "c:7420"))
    found = []

    async def one(runtime: SimRuntime) -> None:
        disk = runtime.open_disk(DATA)
        made = await load_or_create(disk, NodeId(1), runtime, clustered=True)
        await change(disk, made, made._replace(candidate=True, peers=peers))

    async def again(runtime: SimRuntime) -> None:
        disk = runtime.open_disk(DATA)
        found.append(await load_or_create(disk, NodeId(1), runtime, clustered=True))

    run_world(0, one, again)
    assert found[0].peers == peers


def test_candidates_that_the_configuration_names_are_not_noted() -> None:
    """Only who else votes, and who is elsewhere by now."""
    nodes = [
        Node(NodeId(number), f"n{number}", f"{at}:1", "", b"", b"", 1, candidate=number < 4)
        for number, at in enumerate("abcd", 1)
    ]
    named = {NodeId(1): "a:1", NodeId(2): "before:1"}
    assert peers_of(nodes, NodeId(1), named) == ((2, "b:1"), (3, "c:1"))


GOOD = {"format": 1, "cluster_id": "00" * 16, "node_id": 1, "node_uuid": "11" * 16}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CorruptionError),
        (b"\xff\xfe", CorruptionError),
        (b"[]", CorruptionError),
        (b"{}", CorruptionError),
        (json.dumps(GOOD | {"node_uuid": "zz"}).encode(), CorruptionError),
        (json.dumps(GOOD | {"node_uuid": "11"}).encode(), CorruptionError),
        (json.dumps(GOOD | {"peers": [1]}).encode(), CorruptionError),
        (json.dumps(GOOD | {"cluster_id": ""}).encode(), CorruptionError),
        (json.dumps(GOOD | {"node_id": "1"}).encode(), CorruptionError),
        (json.dumps(GOOD | {"format": 99}).encode(), ConfigError),
    ],
)
def test_a_file_that_makes_no_sense(content: bytes, error: type[Exception]) -> None:
    """A damaged identity is never replaced by a new one, and a newer format is named."""

    async def life(runtime: SimRuntime) -> None:
        disk = runtime.open_disk(DATA)
        await disk.append(FILE, [content], sync=True)
        with pytest.raises(error):
            await load_or_create(disk, NodeId(1), runtime)
        assert disk.read(FILE) == content

    run_world(0, life)
