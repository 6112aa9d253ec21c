"""What a simulated kernel and the processes on it say to each other: addresses, errors, readiness.

The kernel's side (`tcp`, `machine`) knows the owners of its objects by these protocols only.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeAlias

Address: TypeAlias = tuple[str, int]


class Acceptor(Protocol):
    """The descriptor of a process that listens."""

    def on_readable(self) -> None: ...


class Owner(Acceptor, Protocol):
    """The descriptor of a process that holds one end of a connection."""

    def on_connected(self, error: OSError | None) -> None: ...

    def on_writable(self) -> None: ...


def os_error(code: int, message: str | None = None) -> OSError:
    """Return the exception the system raises for an errno."""
    return OSError(code, message or os.strerror(code))
