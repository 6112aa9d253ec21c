"""A node in a process of its own, on a port that stays the same over its lives."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

EXIT_S_MAX = 60.0


_PORTS = range(20_000, 30_000)
"""Below those that systems give to whoever dials: a node that is down finds its port free again."""
_WORKERS = 4
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_ports = itertools.cycle(_PORTS[_WORKER::_WORKERS])
# Not those of the run before, whose connections may linger.
for _ in range(os.getpid() % len(_PORTS)):
    next(_ports)


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else is given for a long while."""
    for port in _ports:
        with socket.socket() as probe:
            # As servers do: what lingers of connections is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("the ports of a cycle do not end")


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
