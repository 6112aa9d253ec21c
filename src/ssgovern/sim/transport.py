"""The transport of a simulated connection: asyncio's own, over a simulated socket.

Closing, flow control, half close and error reports are not a copy that could differ from the
original. Where asyncio and uvloop disagree, the less forgiving of the two is simulated: once
`connection_lost` was called, uvloop refuses to write, and asyncio fails in `abort` if the close
before it had to flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ssgovern.sim.streams import Bytes

if TYPE_CHECKING:
    from asyncio import base_events

    from ssgovern.sim.loop_network import LoopNetwork
    from ssgovern.sim.sockets import StreamSocket

    class _SelectorSocketTransport(asyncio.Transport):
        """What is used of it: its name is private, its signature has not changed in years."""

        _sock: StreamSocket | None
        _closing: bool

        def __init__(
            self,
            loop: LoopNetwork,
            sock: StreamSocket,
            protocol: asyncio.BaseProtocol,
            waiter: asyncio.Future[None] | None = None,
            extra: dict[str, object] | None = None,
            server: base_events.Server | None = None,
        ) -> None: ...

else:
    from asyncio.selector_events import _SelectorSocketTransport


class SimTransport(_SelectorSocketTransport):
    """A connection as a protocol sees it, between `connection_made` and `connection_lost`."""

    def write(self, data: Bytes) -> None:
        self._check_alive("write")
        super().write(data)

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        self._check_alive("writelines")
        super().writelines(list_of_data)

    def write_eof(self) -> None:
        self._check_alive("write_eof")
        super().write_eof()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._check_alive("set_write_buffer_limits")
        super().set_write_buffer_limits(high, low)

    def abort(self) -> None:
        self._check_alive("abort")
        super().abort()

    def bury(self) -> None:
        """Let it and its stream be dropped: open, they would warn that they were not closed."""
        self._sock = None
        self._closing = True

    def _check_alive(self, call: str) -> None:
        if self._sock is None:
            raise RuntimeError(f"{call}() on a transport whose connection was lost")
