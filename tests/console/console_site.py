"""A cluster of real nodes with consoles, and where the browser of this machine is."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from clusters import Cluster
from processes import free_port

SECONDS_MAX = 60.0


def browser_path() -> str | None:
    """Return the browser of this machine; None: there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )


class Site:
    """A cluster whose nodes have consoles."""

    def __init__(self, root: Path) -> None:
        self.cluster = Cluster(root, 3)
        self.ports: dict[int, int] = {}
        for number, node in self.cluster.nodes.items():
            self.ports[number] = free_port()
            node.arguments = (*node.arguments, "--http-port", str(self.ports[number]))

    def address(self, number: int = 1) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"

    def wait(self, number: int) -> None:
        """Wait until a node listens for HTTP."""
        until(lambda: _listens(self.ports[number]))


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < ends, "it does not come to hold"
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
