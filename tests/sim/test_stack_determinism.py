"""The whole stack, production node and SDK, takes one course for one seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ssgovern.sim.harness import simulate

_SCRIPT = "import sys; from ssgovern.sim.__main__ import main; sys.exit(main(sys.argv[1:]))"


def _digest_elsewhere(seed: int, hash_seed: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    [line] = [line for line in found.stdout.splitlines() if line.startswith("digest ")]
    return line.removeprefix("digest ")


@pytest.mark.parametrize("seed", [2, 15])
def test_one_seed_one_course_whatever_the_process(seed: int) -> None:
    """Processes with different hash seeds and addresses do the very same things."""
    digests = [_digest_elsewhere(seed, hash_seed) for hash_seed in ("1", "31337")]

    assert digests == [simulate(seed).digest] * 2
