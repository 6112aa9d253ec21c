"""`ss-govern bench` against real nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
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


@pytest.mark.timeout(120)
def test_bench_of_a_cluster_survives_the_death_of_a_node(tmp_path: Path) -> None:
    """Each request goes to its primary; what a dead one did not answer, its successor does."""
    cluster = Cluster(tmp_path, candidates=3)
    cluster.start()
    try:
        server = ("--server", cluster.nodes[2].address)
        assert run("services", *server, "--timeout", "60").returncode == 0
        command = [*COMMAND, "bench", *server, "--seconds", "8", "--connections", "9", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
            with pytest.raises(subprocess.TimeoutExpired):
                bench.wait(4)
            cluster.nodes[1].kill(signal.SIGKILL)
            stdout, stderr = bench.communicate(timeout=90)
        assert bench.returncode == 0, stderr
        registrations, reads, _ = json.loads(stdout)
        assert registrations["moves"] + reads["moves"] > 0
    finally:
        cluster.kill()
