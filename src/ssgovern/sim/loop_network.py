"""The network half of a simulated loop: servers, connections and readiness.

Only the kernel below is simulated. Transports and servers are asyncio's own classes; what they
ask of a selector loop (`_add_reader` and its like) is answered here.

It refuses what the simulator does not model (TLS, foreign sockets, datagrams) by name.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import Handle, base_events
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from ssgovern.sim.sockets import Descriptor, ListeningSocket, StreamSocket
from ssgovern.sim.transport import SimTransport

if TYPE_CHECKING:
    from ssgovern.sim.process import Process

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

# Options that change nothing here; any other that is set is refused.
_HARMLESS_OPTIONS: Final = frozenset(
    {"family", "proto", "flags", "interleave", "happy_eyeballs_delay"}
    | {"reuse_address", "reuse_port", "keep_alive"}
)


class LoopNetwork(asyncio.AbstractEventLoop):
    """Readiness and connection set-up of one loop."""

    process: Process

    def __init__(self) -> None:
        self._descriptors: dict[int, Descriptor] = {}
        # asyncio's transports enter themselves here.
        self._transports: dict[int, SimTransport] = {}

    def _signal(self, handle: Handle) -> None:
        """Queue a reader or writer that the kernel found ready."""
        raise NotImplementedError

    async def _end_if_dead(self) -> None:
        """A dead process gets no further: what it does on its way out reaches no kernel."""
        if self.is_closed():
            await self.create_future()

    # Connections

    async def create_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        host: str | None = None,
        port: int | None = None,
        **options: object,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Connect to `port` of the machine named `host`."""
        _refuse(options)
        await self._end_if_dead()
        if host is None or port is None:
            raise ValueError("host and port was not specified and no sock specified")
        connection = await self._connect(host, port)
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = SimTransport(self, connection, protocol, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def _connect(self, host: str, port: int) -> StreamSocket:
        network = self.process.world.network
        machine = network.resolve(self.process.machine, host)
        if machine is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        connected: asyncio.Future[None] = self.create_future()
        connection = StreamSocket(self, network.connect(self.process.machine, machine, port))
        connection.connected = connected
        try:
            await connected
        except BaseException:
            connection.close()
            raise
        return connection

    # Servers

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        backlog: int = 100,
        start_serving: bool = True,
        **options: object,
    ) -> base_events.Server:
        """Listen on a port of this machine: of loopback only, if `host` says so."""
        _refuse(options)
        if host is not None and not isinstance(host, str):
            raise NotImplementedError("the simulator binds one host name or all")
        await self._end_if_dead()
        listener = ListeningSocket(self, host, port or 0)
        server = base_events.Server(
            self, [cast("socket.socket", listener)], protocol_factory, None, backlog, None, None
        )
        if start_serving:
            server._start_serving()  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        return server

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        listener: ListeningSocket,
        sslcontext: None = None,
        server: base_events.Server | None = None,
        *_timeouts: object,
    ) -> None:
        self._add_reader(listener.fileno(), self._accept, protocol_factory, listener, server)

    def _stop_serving(self, listener: ListeningSocket) -> None:
        self._remove_reader(listener.fileno())
        listener.close()

    def _accept(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        listener: ListeningSocket,
        server: base_events.Server,
    ) -> None:
        connection = listener.accept()
        if connection is None:
            return
        try:
            SimTransport(self, connection, protocol_factory(), server=server)
        except BaseException:
            connection.close()
            raise

    # Readiness, as asyncio's transports ask for it

    def _add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> Handle:
        return self._descriptors[fd].watch_read(Handle(callback, args, self, None))

    def _remove_reader(self, fd: int) -> bool:
        descriptor = self._descriptors.get(fd)
        return descriptor is not None and descriptor.unwatch_read()

    def _add_writer(self, fd: int, callback: Callable[..., object], *args: object) -> Handle:
        return self._descriptors[fd].watch_write(Handle(callback, args, self, None))

    def _remove_writer(self, fd: int) -> bool:
        descriptor = self._descriptors.get(fd)
        return descriptor is not None and descriptor.unwatch_write()

    @property
    def _selector(self) -> _NoSelector:
        """What `repr` of a transport looks into."""
        return _NoSelector()

    # For descriptors and the end

    def adopt(self, descriptor: Descriptor) -> int:
        """Give a descriptor its number."""
        fd = self.process.next_descriptor()
        self._descriptors[fd] = descriptor
        return fd

    def forget(self, fd: int) -> None:
        """A descriptor was closed."""
        self._descriptors.pop(fd, None)
        self._transports.pop(fd, None)

    def release_descriptors(self) -> None:
        """What the kernel does for a process that is gone: close all it had open."""
        for descriptor in list(self._descriptors.values()):
            descriptor.release()

    def _bury_sockets(self) -> None:
        for transport in self._transports.values():
            transport.bury()
        self._transports.clear()
        self._descriptors.clear()


class _NoSelector:
    """Knows no descriptor, so that `repr` shows every transport as idle."""

    def get_key(self, fd: int) -> object:
        raise KeyError(fd)


def _refuse(options: dict[str, object]) -> None:
    for name, value in sorted(options.items()):
        if value is not None and name not in _HARMLESS_OPTIONS:
            raise NotImplementedError(f"the simulator has no {name}={value!r}")
