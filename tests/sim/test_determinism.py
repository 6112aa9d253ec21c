"""The seed decides everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import busy_world

HERE = Path(__file__).parent


def digest_in_a_new_interpreter(seed: int, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(HERE / "busy_world.py"), str(seed)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_a_seed_gives_the_same_trace_in_any_interpreter() -> None:
    """Neither hash seeds nor addresses nor what ran before enter what happens."""
    digests = [digest_in_a_new_interpreter(1, hash_seed) for hash_seed in (7, 14)]
    digests += [busy_world.run(1), busy_world.run(1)]
    assert len(set(digests)) == 1


def test_another_seed_gives_another_trace() -> None:
    """Digests do tell runs apart."""
    assert len({busy_world.run(seed) for seed in range(5)}) == 5


def test_a_digest_notices_a_single_byte() -> None:
    """A run that sends other bytes is another run."""
    assert busy_world.run(1) != busy_world.run(1, greeting=b"hellp")
