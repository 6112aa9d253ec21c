"""The demonstration's own decisions: who votes, on which ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ssgovern.cli.demo_cluster import NODES_MAX, configurations
from ssgovern.cli.demo_parts import HOST, free_ports
from ssgovern.errors import ConfigError
from ssgovern.node.config_load import load_config


@pytest.mark.parametrize("count", range(2, NODES_MAX + 1))
def test_any_number_of_nodes_is_one_cluster(count: int, tmp_path: Path) -> None:
    """Each configuration is valid; three vote, or one if there are not as many."""
    ports = [7420 + 10 * number for number in range(count)]
    nodes = []
    for text in configurations(tmp_path / 'a "b"', ports):
        file = tmp_path / "node.toml"
        file.write_text(text, encoding="utf-8")
        nodes.append(load_config(file, {}, {}))
    assert [node.node.id for node in nodes] == list(range(1, count + 1))
    assert len({node.data_dir for node in nodes}) == count
    votes = 3 if count >= 3 else 1
    assert [node.is_candidate for node in nodes] == [n < votes for n in range(count)]
    assert all(node.seeds or votes == 1 for node in nodes)
    for node, port in zip(nodes, ports, strict=True):
        assert node.advertised(port) == f"{HOST}:{port}"


def test_ports_are_those_asked_for_or_it_is_said() -> None:
    """Ten apart; if one of them is taken, none is used."""
    first = min(free_ports(0, 1)[0], 65_000)
    with socket.socket() as taken:
        taken.bind((HOST, first + 10))
        taken.listen()
        with pytest.raises(ConfigError, match="in use"):
            free_ports(first, 2)
    assert free_ports(first, 2) == [first, first + 10]


def test_any_free_ports_differ() -> None:
    """Nodes do not get each other's port."""
    ports = free_ports(0, 5)
    assert len(set(ports)) == 5
