"""`ss-govern bench` against a real node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import NodeProcess

COMMAND = (sys.executable, "-m", "ssgovern.cli.main")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path / "node")
    one.start()
    yield one
    one.kill()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_bench_measures_and_leaves_nothing_behind(node: NodeProcess) -> None:
    """Every workload was answered, and no instance of the benchmark is left."""
    server = ("--server", node.address)
    assert run("status", *server, "--timeout", "30").returncode == 0
    measured = run("bench", *server, "--seconds", "0.3", "--connections", "4", "--json")
    assert measured.returncode == 0, measured.stderr
    rows = json.loads(measured.stdout)
    assert [row["connections"] for row in rows] == [4, 4, 1]
    assert all(row["per_second"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in rows)
    left = json.loads(run("status", *server, "--json").stdout)
    assert left["instances"] == 0


def test_bench_without_a_node_says_what_to_do() -> None:
    """Nobody there: exit code 3 and a sentence, no traceback."""
    refused = run("bench", "--server", "127.0.0.1:1", "--seconds", "0.1")
    assert refused.returncode == 3
    assert "no node answers at 127.0.0.1:1" in refused.stderr
    assert "Traceback" not in refused.stderr
