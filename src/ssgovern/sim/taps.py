"""Methods of production classes, replaced for as long as one world runs.

How a node puts its cores together is its own business and changes; what the cores are asked does
not. So observers and planted bugs of a whole cluster sit on methods of classes, and ask the loop
that is running in which process they are. One world runs at a time in a process.

Invariant: outside of the `with` block every class is as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType, TracebackType

from ssgovern.sim.loop import SimLoop
from ssgovern.sim.process import Process

Method = Callable[..., object]
"""A method with its object as first argument."""

_ABSENT = object()


class Taps:
    """What was replaced, so that it can be put back."""

    def __init__(self) -> None:
        self._before: list[tuple[type | ModuleType, str, object]] = []

    def replace(
        self, owner: type | ModuleType, name: str, make: Callable[[Method], object]
    ) -> None:
        """Let a class or a module have `make(what it has)` under that name."""
        original = getattr(owner, name, None)
        assert original is not None, f"{owner.__name__} has no {name}: has it been renamed?"
        self._before.append((owner, name, owner.__dict__.get(name, _ABSENT)))
        setattr(owner, name, make(original))

    def after(self, owner: type, name: str, tell: Callable[..., None]) -> None:
        """Call `tell(process, object, arguments...)` whenever the method has returned."""

        def make(original: Method) -> Method:
            def watched(target: object, *arguments: object, **named: object) -> object:
                result = original(target, *arguments, **named)
                process = current_process()
                if process is not None:
                    tell(process, target, *arguments, **named)
                return result

            return watched

        self.replace(owner, name, make)

    def before(self, owner: type, name: str, tell: Callable[..., None]) -> None:
        """Call `tell(process, object, arguments...)` whenever the method is about to run."""

        def make(original: Method) -> Method:
            def watched(target: object, *arguments: object, **named: object) -> object:
                process = current_process()
                if process is not None:
                    tell(process, target, *arguments, **named)
                return original(target, *arguments, **named)

            return watched

        self.replace(owner, name, make)

    def __enter__(self) -> Taps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._before:
            owner, name, original = self._before.pop()
            if original is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def current_process() -> Process | None:
    """Return the simulated process whose code is running."""
    loop = asyncio._get_running_loop()
    return loop.process if isinstance(loop, SimLoop) else None
