"""A simulated world with one fake node and as many client programs as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fake_node import FakeNode

import ssgovern
from ssgovern.model import Instance, ServiceKey
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

Program = Callable[[SimRuntime], Coroutine[Any, Any, object]]

ADDRESS = "node:7420"


class Stage:
    """Time is virtual: a program may sleep for minutes and the test takes milliseconds."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.node = FakeNode()
        self.process = self.world.process("node", self.node.main)
        self.process.start()
        self._programs = 0

    def start(self, program: Program, name: str = "") -> None:
        """Start a client program beside others."""
        self._programs += 1
        self.world.process(name or f"program{self._programs}", program).start()

    def play(self, program: Program, *, within_s: float = 120.0) -> None:
        """Run a client program to its end; fail if it raised, was stuck or left an error.

        The world ends with it.
        """
        try:
            self._play(program, within_s)
        finally:
            self.world.close()

    def _play(self, program: Program, within_s: float) -> None:
        self._programs += 1
        process = self.world.process(f"program{self._programs}", program)
        process.start()
        before = len(self.world.exits)
        done = self.world.run_until(lambda: not process.alive, self.world.now + within_s)
        for end in self.world.exits[before:]:
            if end.cause is not None:
                raise end.cause
        assert done, f"the program was not through after {within_s} virtual seconds"
        assert not self.world.errors, [str(error) for error in self.world.errors]

    def at_node(self, deed: Callable[..., object], *args: object) -> None:
        """Have something done at the node, from a client program."""
        self.world.after(0.0, lambda: deed(*args))

    def restart_node(self, *, down_s: float = 0.5, lossy: bool = False) -> None:
        """Kill the node's process and start it again; call from a program."""
        self.process.kill()
        if lossy:
            self.node.restart_lossy()
        else:
            self.node.epoch += 1
        self.world.after(down_s, self.process.start)


def connect(runtime: SimRuntime, **options: Any) -> ssgovern.Registry:
    """Return a client in a simulated process."""
    return ssgovern.connect(ADDRESS, namespace="test", runtime=runtime, **options)


def key(service: str) -> ServiceKey:
    return ServiceKey("test", "default", service)


def instance(number: int, **fields: Any) -> Instance:
    return Instance(
        **{"id": f"i{number}", "host": f"10.0.0.{number}", "port": 8000 + number, **fields}
    )


def ids(instances: tuple[Instance, ...]) -> list[str]:
    return [each.id for each in instances]
