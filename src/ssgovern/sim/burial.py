"""Ending what a dead process left half-done, without a sound.

A killed process runs no more code. Its coroutines still exist as Python objects, and dropping
them would warn ("never awaited", "ignored GeneratorExit") and run their `finally` blocks at a
moment the garbage collector chooses. They are ended here instead, at the end of the world.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Final

# A `finally` block that awaits needs another throw for each await; one that loops is left.
_ATTEMPTS_MAX: Final = 100


class _Buried(BaseException):
    """Ends a coroutine from its innermost await outwards.

    Closing would not do: a coroutine that awaits while it is closed makes the one around it
    end first, and stays behind itself.
    """


def bury_coroutine(coroutine: Coroutine[Any, Any, object] | Generator[Any, Any, object]) -> None:
    """End a coroutine however often its `finally` blocks await; what they raise is dropped."""
    for _ in range(_ATTEMPTS_MAX):
        try:
            coroutine.throw(_Buried())
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - its last words, StopIteration if it has none
            return


def bury_async_generator(generator: AsyncGenerator[object, object]) -> None:
    """End an asynchronous generator outside of any loop."""
    closing = generator.aclose()
    try:
        closing.send(None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - its last words, StopIteration if it has none
        return
    bury_coroutine(closing)
