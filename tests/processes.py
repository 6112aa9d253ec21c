"""A node in a process of its own, on a port that stays the same over its lives."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

EXIT_S_MAX = 60.0


def free_port() -> int:
    """Return a port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NodeProcess:
    """`ss-govern server` as anyone would start it; may be killed and started again."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        host: str = "127.0.0.1",
        port: int = 0,
        launcher: tuple[str, ...] = (),
        log: Path | None = None,
    ) -> None:
        """`launcher` is a command that replaces itself by the one it is given."""
        self.data_dir = data_dir
        self.arguments = arguments
        self.host = host
        self.port = port or free_port()
        self.address = f"{host}:{self.port}"
        self.log = log or data_dir.with_suffix(".log")
        """What it says over all its lives."""
        self._launcher = launcher
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it serves a moment later."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._launcher,
                    *(sys.executable, "-m", "ssgovern.cli.main", "server"),
                    *("--data-dir", str(self.data_dir)),
                    *("--listen-host", self.host, "--listen-port", str(self.port)),
                    *self.arguments,
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Send a signal and wait for its end; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        return process.wait(EXIT_S_MAX)

    def ended(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        process, self._process = self._process, None
        assert process is not None, "it was not started"
        return process.wait(EXIT_S_MAX)

    def said(self) -> str:
        """Return what it has said so far, over all its lives."""
        return self.log.read_text() if self.log.exists() else ""
