"""The examples are configurations that a node takes, and fit together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssgovern.node.config import ServerConfig
from ssgovern.node.config_load import load_config

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.rglob("*.toml"))
DIRECTORIES = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


def loaded(file: Path, directory: Path) -> ServerConfig:
    """Load a file, with its secret where a test may put one."""
    secret = directory / "secret"
    secret.write_text("0123456789abcdef", encoding="utf-8")
    text = file.read_text(encoding="utf-8").replace("/etc/ss-govern/cluster.secret", str(secret))
    copy = directory / file.name
    copy.write_text(text, encoding="utf-8")
    return load_config(copy, {}, {})


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_an_example_is_a_valid_configuration(file: Path, tmp_path: Path) -> None:
    """Nothing is wrong with any of them."""
    loaded(file, tmp_path)


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda directory: directory.name)
def test_the_nodes_of_an_example_are_one_cluster(directory: Path, tmp_path: Path) -> None:
    """Ids, names and addresses differ, candidates agree, and who joins knows a candidate."""
    nodes = [loaded(file, tmp_path) for file in sorted(directory.glob("*.toml"))]
    count = {"two-nodes": 2, "three-nodes": 3, "six-nodes": 6}[directory.name]
    assert len(nodes) == count
    for values in (
        {node.node.id for node in nodes},
        {node.node.name for node in nodes},
        {node.advertised(node.listen.port) for node in nodes},
    ):
        assert len(values) == count
    (candidates,) = {node.candidates for node in nodes if node.is_candidate}
    assert [c.node_id for c in candidates] == [n.node.id for n in nodes if n.is_candidate]
    for node in nodes:
        if node.is_candidate:
            mine = next(c.address for c in candidates if c.node_id == node.node.id)
            assert str(mine) == node.advertised(node.listen.port)
        else:
            assert {*node.seeds} <= {c.address for c in candidates}


def test_every_example_is_named_in_the_readme() -> None:
    """A reader finds all of them, and nothing that is not there."""
    named = set(re.findall(r"\]\(([\w./-]+)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    inside = {name.rstrip("/") for name in named if not name.startswith("..")}
    assert inside == {path.name for path in EXAMPLES.iterdir() if path.name != "README.md"}
