"""A simulated world: virtual time, the queue of what happens next, and seeded chance.

All that happens is an event `(when, sequence, function, arguments)` on one heap, run by one
thread. The world knows machines, processes and the network by name only; what they do is theirs.

Invariants:
- the seed decides everything: the same seed and the same calls give the same `digest()` in any
  interpreter, whatever its hash seed and addresses;
- virtual time never falls, and events of one instant run in the order in which they were added;
- each stream of chance is drawn from for one purpose, so a draw in one never shifts another;
- nothing of a finished world runs again: `close()` buries what dead processes left behind.
"""

from __future__ import annotations

import gc
import heapq
import random
import sys
from asyncio import TimerHandle, events
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVarTuple

from ssgovern.sim.burial import bury_async_generator
from ssgovern.sim.loop import SimLoop
from ssgovern.sim.machine import Machine
from ssgovern.sim.network import Network
from ssgovern.sim.process import Process
from ssgovern.sim.trace import Kind, Trace

if TYPE_CHECKING:
    from ssgovern.sim.runtime import SimRuntime

Ts = TypeVarTuple("Ts")

# Cancelled timers stay in the heap until they are many and more than half of it.
_CANCELLED_TIMERS_MIN: Final = 4096


@dataclass(frozen=True, slots=True)
class ProcessError:
    """An exception that no code of the process handled."""

    when: float
    process: str
    message: str
    exception: BaseException | None

    def __str__(self) -> str:
        return f"{self.when:.6f} {self.process}: {self.message}: {self.exception!r}"


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """A main coroutine that ended. `cause` is None if it returned."""

    when: float
    process: str
    incarnation: int
    cause: BaseException | None


class World:
    """One deterministic world. Use as a context manager, or call `close()`.

    `callback_cost` is the virtual time one callback takes, `wake_jitter` the most by which a
    process that has work is late in being scheduled.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        trace: bool = False,
        callback_cost: float = 5e-6,
        wake_jitter: float = 50e-6,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self.callbacks = 0
        self.callback_cost = callback_cost
        self.wake_jitter = wake_jitter
        self.sched_rng = random.Random(f"{seed}/sched")
        self.net_rng = random.Random(f"{seed}/net")
        self.disk_rng = random.Random(f"{seed}/disk")
        self.fault_rng = random.Random(f"{seed}/fault")
        self.app_rng = random.Random(f"{seed}/app")
        self.trace = Trace(keep=trace)
        self.errors: list[ProcessError] = []
        self.exits: list[ProcessExit] = []
        self.failpoints: dict[str, Callable[[Process, str], None]] = {}
        # Called after every event. They may look at anything; what they change is part of the run.
        self.observers: list[Callable[[], None]] = []
        self.machines: dict[str, Machine] = {}
        self.processes: dict[str, Process] = {}
        self.network = Network(self)
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._sequence = 0
        self._identities = 0
        self._timers_cancelled = 0
        self._running = False
        self._stopping = False

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<World seed={self.seed!r} now={self.now:.6f} events={self.events}>"

    # What there is

    def machine(self, name: str) -> Machine:
        """Return the machine of that name, adding it (powered on, empty disks) if it is new."""
        machine = self.machines.get(name)
        if machine is None:
            machine = self.machines[name] = Machine(self, name, number=len(self.machines))
        return machine

    def process(
        self,
        name: str,
        main: Callable[[SimRuntime], Coroutine[object, object, object]],
        *,
        machine: str | None = None,
        clock_rate: float = 1.0,
    ) -> Process:
        """Add a process that will run `main`; `start()` starts it. Its machine defaults to `name`.

        `clock_rate` is by how much its monotonic clock runs fast (1.02) or slow (0.98).
        """
        if name in self.processes:
            raise ValueError(f"there is a process {name!r} already")
        process = Process(
            self.machine(machine or name),
            name,
            main,
            number=len(self.processes),
            clock_rate=clock_rate,
        )
        self.processes[name] = process
        return process

    # Time

    def at(self, when: float, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `function(*args)` at virtual time `when`, outside of any process."""
        assert when >= self.now, f"an event at {when} would turn time back from {self.now}"
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._heap, (when, sequence, function, args))

    def after(self, delay: float, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `function(*args)` in `delay` virtual seconds, outside of any process."""
        self.at(self.now + delay, function, *args)

    def run(self, until: float) -> None:
        """Let everything happen up to the virtual time `until`, or to a call of `stop()`."""
        self._stopping = False
        with self._exclusive():
            self._advance(until)
        if not self._stopping:
            self.now = max(self.now, until)

    def run_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Run until `condition()` holds, looked at after every event; False if it never did."""
        if condition():
            return True
        holds = False

        def look() -> None:
            nonlocal holds
            if condition():
                holds = True
                self.stop()

        self.observers.append(look)
        try:
            self.run(deadline)
        finally:
            self.observers.remove(look)
        return holds

    def stop(self) -> None:
        """Make the current `run()` return after this event."""
        self._stopping = True

    def _advance(self, until: float) -> None:
        heap, pop, observers = self._heap, heapq.heappop, self.observers
        while heap and heap[0][0] <= until:
            self.now, _, function, args = pop(heap)
            self.events += 1
            function(*args)
            if observers:
                for observer in observers:
                    observer()
            if self._stopping:
                break

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """No other loop, no second run inside, and no garbage collector: its timing is not ours."""
        if self._running or events._get_running_loop() is not None:
            raise RuntimeError("a world is run from outside of any event loop")
        self._running = True
        collecting = gc.isenabled()
        gc.disable()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_finalize_async_generator)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            if collecting:
                gc.enable()
            self._running = False

    # Records

    def digest(self) -> str:
        """Return the digest of all that happened so far."""
        return self.trace.digest()

    def note(self, text: str) -> None:
        """Add a line to the trace, and so to the digest."""
        self.trace.add(self.now, Kind.NOTE, note=text)

    def record_error(
        self, process: str, message: str, exception: BaseException | None = None
    ) -> None:
        self.errors.append(ProcessError(self.now, process, message, exception))

    def record_exit(self, process: str, incarnation: int, cause: BaseException | None) -> None:
        self.exits.append(ProcessExit(self.now, process, incarnation, cause))
        if cause is not None and not isinstance(cause, SystemExit):
            self.record_error(process, "the main coroutine failed", cause)

    # For the loops

    def next_identity(self) -> int:
        """Return a number never given before: what tasks and futures hash by."""
        self._identities = identity = self._identities + 1
        return identity

    def on_timer_cancelled(self) -> None:
        """Drop cancelled timers from the heap once they are most of it."""
        self._timers_cancelled += 1
        heap = self._heap
        if self._timers_cancelled > max(_CANCELLED_TIMERS_MIN, len(heap) // 2):
            heap[:] = [entry for entry in heap if not _is_cancelled_timer(entry[3])]
            heapq.heapify(heap)
            self._timers_cancelled = 0

    # The end

    def close(self) -> None:
        """End the world: report what was never reported, then bury every loop.

        Coroutines of dead processes are closed here, so their `finally` blocks run now, after
        all observation, against loops, sockets and disks that no longer do anything.
        """
        self._stopping = True
        self._heap.clear()
        loops = [loop for process in self.processes.values() for loop in process.end()]
        for loop in loops:
            loop.bury()
        self._heap.clear()
        self.network.close()
        self.observers.clear()


def _is_cancelled_timer(args: tuple[object, ...]) -> bool:
    return len(args) == 1 and isinstance(args[0], TimerHandle) and args[0].cancelled()


def _finalize_async_generator(generator: AsyncGenerator[object, object]) -> None:
    """What asyncio does for a generator that was dropped half-way: finish it in a task."""
    loop = events._get_running_loop()
    if isinstance(loop, SimLoop) and not loop.is_closed():
        loop.create_task(generator.aclose())
    else:
        bury_async_generator(generator)
