"""The event loop of one simulated process.

It is an asyncio loop in all that code running on it can observe: callbacks run first in, first
out; timers in the order of their deadlines; input and output are signalled when the loop has
gone through what was ready. It never sleeps, has no selector and no threads: the world calls it.

Invariants:
- the loop is current exactly while one of its batches runs;
- a dead loop runs nothing, ever, and accepts anything: a killed process does not notice;
- one process never schedules a callback on the loop of another: that is a value that leaked.
"""

from __future__ import annotations

import asyncio
import collections
from asyncio import Handle, TimerHandle, events
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from ssgovern.sim.burial import bury_coroutine
from ssgovern.sim.loop_network import LoopNetwork
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ssgovern.sim.process import Process

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Finished tasks are forgotten when this many more than last time have been made.
_TASKS_SLACK: Final = 256


class SimCrash(SystemExit):
    """Ends the callback in which a failpoint killed its process.

    A `SystemExit`, because that is what passes through asyncio's tasks and handles. By the time
    it is raised the process is dead, so code it passes on its way out has no effect.
    """


class SimTask(asyncio.Task[T]):
    """A task that hashes by a number given out in order, so that sets of tasks have an order."""

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: SimLoop,
        name: str | None,
        context: Context | None,
    ) -> None:
        # First of all: the constructor adds the task to a set.
        self._identity = loop.process.world.next_identity()
        if name is None:
            name = f"{loop.process.name}-{self._identity}"
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._identity


class SimFuture(asyncio.Future[T]):
    """A future that hashes by a number given out in order."""

    def __init__(self, *, loop: SimLoop) -> None:
        self._identity = loop.process.world.next_identity()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._identity


class SimLoop(LoopNetwork):
    """The loop of one incarnation of a process. Made by `Process.start()`."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        self._world = process.world
        self._ready: collections.deque[Handle] = collections.deque()
        # Timers that came due while the process was paused.
        self._overdue: list[TimerHandle] = []
        self._scheduled = False
        self._held = False
        self._dead = False
        self._busy_until = 0.0
        self._tasks: list[SimTask[Any]] = []
        self._tasks_limit = _TASKS_SLACK
        self._exception_handler: _ExceptionHandler | None = None
        self._signal_handlers: dict[int, tuple[Callable[..., object], tuple[object, ...]]] = {}

    def __repr__(self) -> str:
        state = "dead" if self._dead else "alive"
        return f"<SimLoop {self.process.name}/{self.process.incarnation} {state}>"

    # Time and callbacks

    def time(self) -> float:
        """Return the monotonic time of this process: with its own origin, at its own rate."""
        return self.process.monotonic()

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, self, context)
        if not self._dead:
            running = events._get_running_loop()
            if running is not None and running is not self:
                raise RuntimeError(f"{running!r} calls {callback!r} on {self!r}")
            self._ready.append(handle)
            if not self._scheduled:
                self._schedule()
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        delay = max(delay, 0.0)
        process = self.process
        handle = TimerHandle(process.monotonic() + delay, callback, args, self, context)
        if not self._dead:
            world = self._world
            world.at(world.now + delay / process.clock_rate, self._on_timer, handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _on_timer(self, handle: TimerHandle) -> None:
        if handle._cancelled or self._dead:
            return
        if self.process.paused:
            self._overdue.append(handle)
            return
        self._ready.append(handle)
        if not self._scheduled:
            self._schedule()

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        self._world.on_timer_cancelled()

    def _signal(self, handle: Handle) -> None:
        """Queue a reader or writer that the kernel found ready."""
        self._ready.append(handle)
        if not self._scheduled:
            self._schedule()

    # Running

    def _schedule(self) -> None:
        world = self._world
        self._scheduled = True
        when = world.now + world.sched_rng.random() * world.wake_jitter
        world.at(max(when, self._busy_until), self._run_batch)

    def _run_batch(self) -> None:
        if self._dead:
            return
        process, world, ready = self.process, self._world, self._ready
        if process.paused:
            self._held = True
            return
        # What becomes ready meanwhile waits for the next batch, as in asyncio.
        count = len(ready)
        ran = 0
        events._set_running_loop(self)
        try:
            while ran < count and not self._dead:
                handle = ready.popleft()
                ran += 1
                if not handle._cancelled:
                    handle._run()
        except SimCrash:
            assert self._dead, "a SimCrash is raised after the process was killed"
        except SystemExit as exit_:
            if not self._dead:
                process.on_exit(exit_)
        finally:
            events._set_running_loop(None)
        world.callbacks += ran
        world.trace.add(world.now, Kind.BATCH, process.number, ran)
        self._busy_until = world.now + ran * world.callback_cost * process.slowness
        self._scheduled = False
        if ready:
            self._schedule()

    def wake(self) -> None:
        """Continue after a pause: input and output first, then the timers that came due."""
        self._ready.extend(self._overdue)
        self._overdue.clear()
        if self._held:
            self._held = False
            self._world.after(0.0, self._run_batch)
        elif self._ready and not self._scheduled:
            self._schedule()

    # Futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = SimTask(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_limit:
            # One that failed unseen stays: somebody may yet look, or `report_unseen` will.
            self._tasks = [task for task in self._tasks if not task.done() or _is_unseen(task)]
            self._tasks_limit = 2 * len(self._tasks) + _TASKS_SLACK
        return task

    def get_task_factory(self) -> None:
        return None

    # State

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._dead

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Do nothing: debug mode measures real time."""

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        pass

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        raise RuntimeError(
            f"{func!r} asks for a thread, which a simulated process has not: "
            "blocking work belongs behind ssgovern.runtime"
        )

    # Signals

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self._signal_handlers[sig] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signal_handlers.pop(sig, None) is not None

    def deliver_signal(self, sig: int) -> bool:
        """Call the handler of a signal from the loop; False if the process has none."""
        if sig not in self._signal_handlers:
            return False
        callback, args = self._signal_handlers[sig]
        self._signal(Handle(callback, args, self, None))
        return True

    # Errors

    def set_exception_handler(self, handler: _ExceptionHandler | None) -> None:
        self._exception_handler = handler

    def get_exception_handler(self) -> _ExceptionHandler | None:
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self._world.record_error(
            self.process.name, str(context.get("message")), context.get("exception")
        )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._dead:
            return
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)

    # The end

    def die(self) -> None:
        """Run nothing more."""
        self._dead = True
        self._ready.clear()
        self._overdue.clear()

    def report_unseen(self) -> None:
        """Report tasks that failed and that nobody looked at, while the loop still lives."""
        for task in self._tasks:
            if task.done() and _is_unseen(task):
                error = None if task.cancelled() else task.exception()
                name = task.get_name()
                self._world.record_error(
                    self.process.name, f"nobody saw the failure of task {name}", error
                )

    def bury(self) -> None:
        """Close what the dead loop left. Only `World.close()` does this."""
        assert self._dead, "only the dead are buried"
        self._bury_sockets()
        while self._tasks:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                if not task.done():
                    # Attributes that asyncio checks when a task or future is dropped.
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    coroutine = task.get_coro()
                    if coroutine is not None:
                        bury_coroutine(coroutine)
                task._log_traceback = False


_ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def _is_unseen(task: asyncio.Task[Any]) -> bool:
    return bool(task._log_traceback)
