"""The thread in which the asynchronous client runs for callers that have no event loop.

Any number of threads may call. Invariants: `end` ends the thread, whatever state the client is
in; a call that is interrupted leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ssgovern.errors import ClosedError

T = TypeVar("T")

CLOSE_TIMEOUT_S = 10.0
_TURNS_TO_END = 1000
"""Turns of the loop that cancelled tasks get to end in."""


class LoopThread:
    """A thread that runs an event loop until `end`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._gate = threading.Lock()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="ssgovern client", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def check_caller(self) -> None:
        """Raise if the caller would wait for ever: for itself, or for a thread it has not."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call from within a callback would wait for itself")
        if os.getpid() != self._process:
            raise ClosedError(
                "the client belongs to the process this one was forked from; connect again here"
            )

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; TimeoutError cancels it."""
        try:
            # Before the gate: when the process forked, another thread may have held it.
            self.check_caller()
        except BaseException:
            coroutine.close()
            raise
        with self._gate:
            if self._ending:
                coroutine.close()
                raise ClosedError("the client was closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise ClosedError("the client was closed") from None
        finally:
            # Interrupted or out of time: nobody waits for it any more.
            future.cancel()

    def look(self, function: Callable[[], T]) -> T:
        """Run a function on the loop, where nothing changes meanwhile, and return its result.

        After the end there is no loop, and nothing changes any more either.
        """

        async def looked() -> T:
            return function()

        if not self._ending:
            try:
                return self.call(looked())
            except ClosedError:
                # Ended by another thread meanwhile, or what `function` itself has to say.
                if not self._ending:
                    raise
        self._thread.join(CLOSE_TIMEOUT_S)
        return function()

    def end(self) -> None:
        """Cancel what is left, stop the loop and wait for the thread."""
        with self._gate:
            # What was handed over before is on the loop and will be cancelled there.
            if not self._ending:
                self._ending = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._cancel_all()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            self._loop.close()

    def _cancel_all(self) -> None:
        cancelled: dict[asyncio.Task[Any], None] = {}
        for _ in range(_TURNS_TO_END):
            left = [task for task in asyncio.all_tasks(self._loop) if not task.done()]
            if not left:
                return
            for task in sorted(left, key=asyncio.Task.get_name):
                if task not in cancelled:
                    cancelled[task] = None
                    task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
