"""What every test shares: options, and the rule that nothing a test began outlives it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# One profile for everyone: the same examples in every run, none of them judged by the clock of
# a machine that is shared.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what happened into the scenarios instead of comparing; review the diff",
    )
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write missing and differing golden files; a change to existing bytes needs an ADR",
    )


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """No test leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        # One that was told to end may need a moment; one that was not will not use it.
        thread.join(2.0)
    left = [thread.name for thread in left if thread.is_alive()]
    assert not left, f"threads left running: {left}"


@pytest.fixture(autouse=True)
def _no_task_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test's loop ends with tasks that only its closing cancels."""
    left: list[str] = []
    original = asyncio.Runner.close

    def close(runner: asyncio.Runner) -> None:
        loop = runner._loop  # type: ignore[attr-defined]
        if loop is not None and not loop.is_closed():
            left.extend(repr(task) for task in asyncio.all_tasks(loop))
        original(runner)

    monkeypatch.setattr(asyncio.Runner, "close", close)
    yield
    if left:
        gc.collect()
    assert not left, f"tasks left running: {left}"
