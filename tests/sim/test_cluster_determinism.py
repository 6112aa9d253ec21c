"""A cluster takes one course for one seed, whatever the process it is simulated in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SCRIPT = "import sys; from ssgovern.sim.__main__ import main; sys.exit(main(sys.argv[1:]))"


def _digest(seed: int, hash_seed: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "--cluster", "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    [line] = [line for line in found.stdout.splitlines() if line.startswith("digest ")]
    return line.removeprefix("digest ")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [0, 7])
def test_one_seed_one_course(seed: int) -> None:
    """Processes with different hash seeds and addresses do the very same things."""
    assert _digest(seed, "1") == _digest(seed, "31337")
