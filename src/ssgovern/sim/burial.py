"""Closing what a dead process left half-done, without a sound.

A killed process runs no more code. Its coroutines still exist as Python objects, and dropping
them would warn ("never awaited", "ignored GeneratorExit") and run their `finally` blocks at a
moment the garbage collector chooses. They are closed here instead, at the end of the world.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Final

# A `finally` block that awaits refuses to be closed, once per await.
_ATTEMPTS_MAX: Final = 100
# Everything but KeyboardInterrupt, which is meant for us.
_LAST_WORDS: Final = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)


def close_coroutine(coroutine: Coroutine[Any, Any, object] | Generator[Any, Any, object]) -> None:
    """Close a coroutine however often its `finally` blocks await; what they raise is dropped."""
    for _ in range(_ATTEMPTS_MAX):
        try:
            coroutine.close()
        except RuntimeError as error:
            if "ignored GeneratorExit" not in str(error):
                return
        except _LAST_WORDS:
            return
        else:
            return


def close_async_generator(generator: AsyncGenerator[object, object]) -> None:
    """Close an asynchronous generator outside of any loop."""
    for _ in range(_ATTEMPTS_MAX):
        closing = generator.aclose()
        try:
            # A step, rather than a close: one that was never started would warn.
            closing.send(None)
        except _LAST_WORDS:  # StopIteration when it is done
            return
        close_coroutine(closing)
