"""A simulated process: a main coroutine on a loop of its own, on a machine.

Killing drops the loop: no `finally`, no cancellation, no callback runs any more, as after
SIGKILL. What the kernel does for the dead (closing sockets, keeping the page cache) is done by the
machine. Each start is a new incarnation; dead loops are kept until the world ends, so that nothing
of them is finalized in the middle of a run.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, NoReturn

from ssgovern.sim.loop import SimCrash, SimLoop
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from ssgovern.sim.machine import Machine


class Process:
    """One process, through all its lives. `World.process()` makes it, `start()` starts it."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        main: Callable[[SimRuntime], Coroutine[object, object, object]],
        number: int,
        *,
        clock_rate: float,
    ) -> None:
        self.world = machine.world
        self.machine = machine
        self.name = name
        self.main = main
        self.number = number
        self.clock_rate = clock_rate
        # How much longer than usual its callbacks take.
        self.slowness = 1.0
        self.incarnation = 0
        self.paused = False
        self.loop: SimLoop | None = None
        self.runtime: SimRuntime | None = None
        self._graveyard: list[SimLoop] = []
        self._descriptors = 2
        machine.processes.append(self)

    def __repr__(self) -> str:
        state = "paused" if self.paused else "alive" if self.alive else "dead"
        return f"<Process {self.name}/{self.incarnation} {state}>"

    @property
    def alive(self) -> bool:
        return self.loop is not None

    def start(self) -> None:
        """Start a new incarnation, switching the machine on if it is off."""
        assert self.loop is None, f"{self!r} runs already"
        self.machine.power_on()
        self.incarnation += 1
        self._record(Kind.START, self.incarnation, note=self.name)
        self.loop = loop = SimLoop(self)  # type: ignore[abstract]
        self.runtime = runtime = SimRuntime(self, loop)
        # As an event of its own: we may be inside a callback of another process.
        self.world.after(0.0, self._boot, loop, runtime)

    def _boot(self, loop: SimLoop, runtime: SimRuntime) -> None:
        if not loop.is_closed():
            loop.create_task(self.main(runtime), name=f"{self.name}-main").add_done_callback(
                self._on_main_done
            )

    def kill(self, *, power: bool = False) -> None:
        """End it at once, as SIGKILL does; with `power`, cut the power of its machine.

        Called from inside the process's own code, the rest of that callback still runs, without
        effect; `crash()` does not even let it.
        """
        if power:
            self.machine.power_off()
            return
        loop = self.loop
        if loop is not None:
            self._record(Kind.KILL, note=self.name)
            self.drop()
            loop.release_descriptors()

    def crash(self, *, power: bool = False) -> NoReturn:
        """Kill it, and leave the callback that is running. For failpoints."""
        self.kill(power=power)
        raise SimCrash

    def terminate(self) -> None:
        """Send SIGTERM: its handler is called, or it is killed if it has none."""
        if self.loop is not None and not self.loop.deliver_signal(signal.SIGTERM):
            self.kill()

    def pause(self) -> None:
        """Stop running it, as SIGSTOP does. The kernel goes on for it."""
        if self.alive and not self.paused:
            self.paused = True
            self._record(Kind.PAUSE)

    def resume(self) -> None:
        if self.loop is not None and self.paused:
            self.paused = False
            self._record(Kind.RESUME)
            self.loop.wake()

    def monotonic(self) -> float:
        """Return its monotonic time."""
        return self.machine.clock_origin + self.world.now * self.clock_rate

    # For its loop and machine

    def next_descriptor(self) -> int:
        self._descriptors += 1
        return self._descriptors

    def drop(self) -> None:
        """Run nothing more of the current incarnation."""
        if self.loop is not None:
            self.loop.die()
            self._graveyard.append(self.loop)
            self.loop = None
            self.paused = False

    def on_exit(self, cause: BaseException | None) -> None:
        """The process ended by itself: its main coroutine did, or it called `sys.exit`."""
        self._record(Kind.EXIT)
        self.world.record_exit(self.name, self.incarnation, cause)
        self.kill()

    def _on_main_done(self, task: asyncio.Task[object]) -> None:
        if task.cancelled():
            cause: BaseException | None = asyncio.CancelledError("the main coroutine")
        else:
            cause = task.exception()
        self.on_exit(cause)

    def end(self) -> list[SimLoop]:
        """The world ends: report what nobody saw, and return all loops there were."""
        if self.loop is not None:
            self.loop.report_unseen()
        self.drop()
        graves, self._graveyard = self._graveyard, []
        return graves

    def _record(self, kind: Kind, *values: int, note: str = "") -> None:
        self.world.trace.add(self.world.now, kind, self.number, *values, note=note)
