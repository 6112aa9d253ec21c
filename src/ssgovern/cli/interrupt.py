"""Ctrl-C and SIGTERM as an event: the first asks to stop, the second stops at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ssgovern.cli.exits import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def stop_requested() -> AsyncIterator[asyncio.Event]:
    """Give an event that is set by the first signal; a second one ends the process."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def on_signal() -> None:
        if event.is_set():
            os._exit(EXIT_INTERRUPTED)
        event.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield event
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
