"""The command against real clusters: what people type, in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster
from processes import NodeProcess, free_port

TIMEOUT_S = 180.0
PROGRAM = (sys.executable, "-m", "ssgovern.cli.main")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.parametrize("nodes", [2, 3, 4] if os.environ.get("CLUSTER_FAULTS") else [3])
def test_the_demonstration_of_a_cluster_loses_nothing(nodes: int, tmp_path: Path) -> None:
    """Its primary is killed; it checks by itself that nothing is missing, and leaves nothing."""
    done = run("demo", "--nodes", str(nodes), "--exit", "-d", str(tmp_path / "demo"), "-p", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another node took over" in done.stdout
    assert "Nothing was lost: 4 instances as before" in done.stdout
    assert done.stderr == ""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, candidates=3)
    cluster.start()
    yield cluster
    cluster.kill()


def status_when(address: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the status until it is as wanted."""
    until = time.monotonic() + TIMEOUT_S / 2
    while True:
        asked = run("cluster", "status", "--json", "--server", address, "--timeout", "30")
        found = json.loads(asked.stdout) if asked.returncode == 0 else {}
        if found and holds(found):
            return dict(found)
        assert time.monotonic() < until, asked.stdout + asked.stderr


def is_good(nodes: int) -> Callable[[dict[str, Any]], bool]:
    return lambda found: found["health"] == "good" and len(found["nodes"]) == nodes


@pytest.mark.timeout(240)
def test_a_dead_candidate_is_replaced_as_the_guide_says(three: Cluster, tmp_path: Path) -> None:
    """join, candidates add, candidates remove, leave: each says what it did, and all is well."""
    ask = three.nodes[1].address
    status_when(ask, is_good(3))
    three.nodes[3].kill(signal.SIGKILL)
    status_when(ask, lambda found: found["health"] == "degraded" and found["controller_id"] != 3)

    file, port = tmp_path / "4.toml", free_port()
    written = run(
        *("cluster", "join", "--to", ask, "--port", str(port), "-d", str(tmp_path / "node-4")),
        *("--write", str(file)),
    )
    assert written.stdout == f"{file} is for node 4: ss-govern server --config {file}\n"
    four = NodeProcess(tmp_path / "node-4", "--config", str(file))
    four.port, four.address = port, f"127.0.0.1:{port}"
    three.nodes[4] = four
    four.start()
    status_when(ask, lambda found: any(node["node_id"] == 4 for node in found["nodes"]))

    for *said, answer in (
        ("candidates", "add", "4", "Node 4 is a candidate now."),
        ("candidates", "remove", "n3", "Node 3 is no longer a candidate."),
        ("leave", "n3", "Node 3 (n3) was asked to leave."),
    ):
        done = run("cluster", *said, "--server", ask, "--timeout", "30")
        assert done.stdout == f"{answer}\n", done.stderr
    found = status_when(ask, is_good(3))
    assert found["candidates"] == [1, 2, 4]
    assert found["node_id_next"] == 5
