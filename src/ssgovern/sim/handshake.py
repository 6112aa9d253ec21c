"""How a TCP connection begins: SYN, SYN-ACK, and the first segment of the client.

Kernels shake hands without their processes: a paused one is connected to until its backlog is
full. A SYN that gets no answer is sent again; a machine without a listener refuses.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ssgovern.sim.tcp import Endpoint
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from ssgovern.sim.world import World

# Linux's figure: seven packets, and after 127 seconds the connection has timed out.
SYN_RETRIES: Final = 6


class Handshake:
    """The opening of one connection, from the client's first packet."""

    def __init__(self, world: World, client: Endpoint) -> None:
        self._world = world
        self._client = client
        self._server: Endpoint | None = None

    def send_syn(self, attempt: int = 0) -> None:
        """Send a SYN, and again after 1, 2, 4 ... seconds until there is an answer."""
        client = self._client
        if not client.is_connecting():
            return
        if attempt > SYN_RETRIES:
            client.fail(errno.ETIMEDOUT)
            return
        arrival = self._world.network.transit_or_lose(client.link)
        if arrival is not None:
            self._world.at(arrival, self._on_syn)
        self._world.after(float(1 << attempt), self.send_syn, attempt + 1)

    def _on_syn(self) -> None:
        """The SYN is at the server's machine."""
        client, network = self._client, self._world.network
        machine = client.remote_machine
        if client.link.cut or not machine.powered:
            return
        if self._server is None or self._server.is_gone():
            listener = machine.listener(client.remote[1], loopback=machine is client.machine)
            if listener is None:
                arrival = network.transit_or_lose(client.return_link)
                if arrival is not None:
                    self._world.at(arrival, self._on_refused)
                return
            if listener.is_full():
                # As if it had been lost; the client tries again.
                return
            self._server = Endpoint(
                self._world,
                machine,
                client.machine,
                client.remote,
                client.local,
                listener=listener,
            )
            self._server.meet(client)
        arrival = network.transit_or_lose(client.return_link)
        if arrival is not None:
            self._world.at(arrival, self._on_syn_ack, self._server)

    def _on_refused(self) -> None:
        client = self._client
        if client.is_connecting() and not client.return_link.cut:
            client.fail(errno.ECONNREFUSED)

    def _on_syn_ack(self, server: Endpoint) -> None:
        """The server's answer is at the client's machine."""
        client, world = self._client, self._world
        if client.return_link.cut or not client.machine.powered or server is not self._server:
            return
        if client.is_connecting():
            world.trace.add(
                world.now,
                Kind.CONNECT,
                client.machine.number,
                client.remote_machine.number,
                client.number,
            )
            client.meet(server)
            client.on_established()
        elif client.is_gone():
            client.meet(server)
            client.abort()
