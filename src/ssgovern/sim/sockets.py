"""Descriptors: the sockets of one process, between its loop and the simulated kernel.

They look like non-blocking `socket.socket` objects to asyncio's transports. Readiness is level
triggered, as with a selector: a watched descriptor is signalled once per batch for as long as it
is ready. A descriptor decides nothing about TCP; that is `ssgovern.sim.tcp`.
"""

from __future__ import annotations

import errno
import socket
from asyncio import Future, Handle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ssgovern.sim.streams import Bytes
from ssgovern.sim.system import Address, os_error
from ssgovern.sim.tcp import Endpoint

if TYPE_CHECKING:
    from ssgovern.sim.loop_network import LoopNetwork

# Accepted and remembered. Keep-alive probes are not simulated: their period is hours, and what
# must notice a silent peer sooner has its own pings.
_HARMLESS_OPTIONS: Final = frozenset(
    {
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", -1)),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", -1)),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", -1)),
    }
)
# Linux's number, so that simulations mean the same on systems that lack it.
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)


class Descriptor:
    """What a loop can watch."""

    family: Final = socket.AF_INET
    type: Final = socket.SOCK_STREAM
    proto: Final = socket.IPPROTO_TCP

    def __init__(self, loop: LoopNetwork) -> None:
        self._loop = loop
        self._fd = loop.adopt(self)
        self._reader: Handle | None = None
        self._writer: Handle | None = None
        # The handle is in the loop's queue already.
        self._read_signalled = False
        self._write_signalled = False
        self._options: dict[tuple[int, int], int] = {}

    def fileno(self) -> int:
        return self._fd

    def is_readable(self) -> bool:
        raise NotImplementedError

    def is_writable(self) -> bool:
        return False

    def release(self) -> None:
        """Give up the kernel's side of it."""
        raise NotImplementedError

    def close(self) -> None:
        if self._fd < 0:
            return
        self.unwatch_read()
        self.unwatch_write()
        self._loop.forget(self._fd)
        self._fd = -1
        self.release()

    # Readiness

    def on_readable(self) -> None:
        """Tell the loop, if it watches and has not been told."""
        if self._reader is not None and not self._read_signalled and self.is_readable():
            self._read_signalled = True
            self._loop._signal(self._reader)

    def on_writable(self) -> None:
        """Tell the loop, if it watches and has not been told."""
        if self._writer is not None and not self._write_signalled and self.is_writable():
            self._write_signalled = True
            self._loop._signal(self._writer)

    def watch_read(self, handle: Handle) -> Handle:
        self.unwatch_read()
        self._reader = handle
        self.on_readable()
        return handle

    def watch_write(self, handle: Handle) -> Handle:
        self.unwatch_write()
        self._writer = handle
        self.on_writable()
        return handle

    def unwatch_read(self) -> bool:
        if self._reader is None:
            return False
        self._reader.cancel()
        self._reader = None
        self._read_signalled = False
        return True

    def unwatch_write(self) -> bool:
        if self._writer is None:
            return False
        self._writer.cancel()
        self._writer = None
        self._write_signalled = False
        return True

    # Options

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if (level, option) not in _HARMLESS_OPTIONS:
            raise os_error(errno.ENOPROTOOPT)
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int) -> int:
        return self._options.get((level, option), 0)


class StreamSocket(Descriptor):
    """One end of a connection, as a process holds it."""

    def __init__(self, loop: LoopNetwork, endpoint: Endpoint) -> None:
        super().__init__(loop)
        self._endpoint = endpoint
        endpoint.owner = self
        # Resolved when the handshake ends, if somebody waits for that.
        self.connected: Future[None] | None = None

    def on_connected(self, error: OSError | None) -> None:
        if self.connected is not None:
            self._loop.call_soon(_settle, self.connected, error)

    def is_readable(self) -> bool:
        return self._endpoint.is_readable()

    def is_writable(self) -> bool:
        return self._endpoint.is_writable()

    def recv(self, count: int) -> bytes:
        self._read_signalled = False
        try:
            return self._endpoint.receive(count)
        finally:
            self.on_readable()

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        received = self.recv(len(buffer))
        buffer[: len(received)] = received
        return len(received)

    def send(self, payload: Bytes) -> int:
        self._write_signalled = False
        try:
            return self._endpoint.send(payload)
        finally:
            self.on_writable()

    def sendmsg(self, payloads: Iterable[Bytes]) -> int:
        return self.send(b"".join(payloads))

    def shutdown(self, how: int) -> None:
        if how != socket.SHUT_WR:
            raise NotImplementedError("the simulator shuts down the writing side only")
        self._endpoint.finish()

    def release(self) -> None:
        self._endpoint.close()

    def getsockname(self) -> Address:
        return self._endpoint.local

    def getpeername(self) -> Address:
        return self._endpoint.remote

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if (level, option) == (socket.IPPROTO_TCP, _TCP_USER_TIMEOUT):
            self._options[level, option] = value
            self._endpoint.set_user_timeout(value / 1000)
        else:
            super().setsockopt(level, option, value)


class ListeningSocket(Descriptor):
    """A bound port; connections are refused until `listen`."""

    def __init__(self, loop: LoopNetwork, host: str | None, port: int) -> None:
        # Binding may fail, and must not leave a descriptor behind.
        self._listener = loop.process.machine.bind(host, port)
        super().__init__(loop)
        self._listener.owner = self

    def listen(self, backlog: int) -> None:
        self._listener.backlog = backlog

    def is_readable(self) -> bool:
        return bool(self._listener.queue)

    def accept(self) -> StreamSocket | None:
        """Return the next connection, or None."""
        self._read_signalled = False
        queue = self._listener.queue
        connection = StreamSocket(self._loop, queue.popleft()) if queue else None
        self.on_readable()
        return connection

    def release(self) -> None:
        self._listener.close()

    def getsockname(self) -> Address:
        return self._listener.address


def _settle(waiter: Future[None], error: OSError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
