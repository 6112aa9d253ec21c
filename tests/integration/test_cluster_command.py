"""The command against real clusters: what people type, in real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 180.0
PROGRAM = (sys.executable, "-m", "ssgovern.cli.main")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_the_demonstration_of_a_cluster_loses_nothing(nodes: int, tmp_path: Path) -> None:
    """Its primary is killed; it checks by itself that nothing is missing, and leaves nothing."""
    done = run("demo", "--nodes", str(nodes), "--exit", "-d", str(tmp_path / "demo"), "-p", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another node took over" in done.stdout
    assert "Nothing was lost: 4 instances as before" in done.stdout
    assert done.stderr == ""
