"""Processes that the demonstration starts, kills and looks after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ssgovern.errors import UnavailableError

_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02


class Child:
    """One process of ours, in a session of its own: Ctrl-C reaches it through us only."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.arguments = tuple(arguments)
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} {'alive' if self.is_alive else 'gone'}>"

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start `ss-govern` with the arguments; what it says goes to the log."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SS_GOVERN_")}
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ssgovern.cli.main",
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environ,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is there."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def gone(self) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self._process is not None, f"{self!r} was not started"
        return await self._process.wait()

    async def kill(self) -> None:
        """Kill it the hard way (SIGKILL) and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.gone()

    async def stop(self) -> None:
        """Ask it to stop; kill it if it does not."""
        if not self.is_alive:
            return
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.gone(), _STOP_TIMEOUT_S)
        except TimeoutError:
            await self.kill()

    async def listening(self, host: str, port: int, timeout_s: float) -> None:
        """Wait until somebody accepts connections there; raise if the process ends before."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                if not self.is_alive:
                    raise UnavailableError(
                        f"{self.name} did not start:\n{self.last_words()}"
                    ) from None
                if loop.time() > deadline:
                    raise UnavailableError(
                        f"{self.name} does not answer after {timeout_s:g} s:\n{self.last_words()}"
                    ) from None
                await asyncio.sleep(_POLL_S)
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
