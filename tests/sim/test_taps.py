"""Watching and changing production classes from outside, and leaving them as they were."""

from __future__ import annotations

import pytest

from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.taps import Taps, current_process
from ssgovern.sim.world import World


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int, *, times: int = 1) -> int:
        self.value += amount * times
        return self.value


class Inheriting(Counter):
    pass


def test_watchers_hear_of_calls_in_a_process_and_of_no_others() -> None:
    """A watcher is told who called what on which object, before and after it was done."""
    heard: list[tuple[str, str, int]] = []

    def note(when: str) -> object:
        def tell(process: Process, counter: Counter, amount: int, *, times: int = 1) -> None:
            heard.append((when, process.name, counter.value))

        return tell

    async def main(runtime: SimRuntime) -> None:
        assert Counter(1).add(2, times=3) == 7

    with World(1) as world, Taps() as taps:
        taps.before(Counter, "add", note("before"))  # type: ignore[arg-type]
        taps.after(Counter, "add", note("after"))  # type: ignore[arg-type]
        world.process("p", main).start()
        world.run(1.0)
        Counter(5).add(1)
        assert current_process() is None
    assert heard == [("before", "p", 1), ("after", "p", 7)]


def test_a_method_can_be_replaced_and_is_put_back() -> None:
    """What one world plants, the next one does not find."""
    before = dict(Counter.__dict__)
    with Taps() as taps:
        taps.replace(Counter, "add", lambda add: lambda self, amount: add(self, -amount))
        taps.replace(Inheriting, "add", lambda add: lambda self, amount: add(self, 2 * amount))
        assert Counter(0).add(1) == -1
        assert Inheriting(0).add(1) == -2
    assert dict(Counter.__dict__) == before
    assert "add" not in Inheriting.__dict__


def test_a_name_that_is_gone_is_noticed() -> None:
    """A watcher of a method that was renamed would watch nothing."""
    with Taps() as taps, pytest.raises(AssertionError, match="renamed"):
        taps.replace(Counter, "remove", lambda remove: remove)
