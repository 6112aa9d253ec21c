"""The simulated network: links between machines, and what is done to them.

A link is one direction between two machines. It has a latency, jitter, a loss rate, a bandwidth
that all its connections share, and may be cut. What TCP makes of a link is `ssgovern.sim.tcp`.

Invariants: a machine always reaches itself; a link keeps its identity for the life of the world,
so endpoints may hold on to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ssgovern.sim.handshake import Handshake
from ssgovern.sim.tcp import Endpoint
from ssgovern.sim.trace import Kind

if TYPE_CHECKING:
    from ssgovern.sim.machine import Machine
    from ssgovern.sim.world import World

# Headers of a segment on the wire.
_HEADER_BYTES: Final = 60
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class Link:
    """One direction between two machines. Times in seconds; change it whenever you like."""

    latency: float = 0.0005
    jitter: float = 0.0005
    loss: float = 0.0
    bytes_per_second: float = 125e6
    cut: bool = False
    # When the wire has sent what was given to it.
    free_at: float = 0.0


class Network:
    """All links. `defaults` is copied into links on their first use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._links: dict[tuple[str, str], Link] = {}
        self.defaults = Link()
        self.loopback = Link(latency=20e-6, jitter=10e-6, bytes_per_second=4e9)
        # How often a read returns less than has arrived.
        self.split_probability = 0.2
        self.segments = 0
        self._endpoints = 0

    def link(self, source: str, target: str) -> Link:
        """Return the link from one machine to another."""
        link = self._links.get((source, target))
        if link is None:
            link = replace(self.loopback if source == target else self.defaults)
            self._links[source, target] = link
        return link

    # Faults

    def set_link(
        self,
        source: str,
        target: str,
        *,
        latency: float | None = None,
        jitter: float | None = None,
        loss: float | None = None,
        bytes_per_second: float | None = None,
        both: bool = True,
    ) -> None:
        """Change what is given of a link, and of its opposite unless told otherwise."""
        self._record(source, target, "set")
        for link in self._directions(source, target, both=both):
            link.latency = link.latency if latency is None else latency
            link.jitter = link.jitter if jitter is None else jitter
            link.loss = link.loss if loss is None else loss
            if bytes_per_second is not None:
                link.bytes_per_second = bytes_per_second

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Let nothing pass from now on, in one direction or both. Senders are not told."""
        if source == target:
            raise ValueError(f"machine {source!r} cannot be cut off from itself")
        self._record(source, target, "cut both" if both else "cut")
        for link in self._directions(source, target, both=both):
            link.cut = True

    def restore(self, source: str, target: str, *, both: bool = True) -> None:
        """Undo `cut`."""
        self._record(source, target, "restore both" if both else "restore")
        for link in self._directions(source, target, both=both):
            link.cut = False

    def partition(self, left: Iterable[str], right: Iterable[str]) -> None:
        """Cut every machine on the left off from every machine on the right."""
        right = list(right)
        for source in left:
            for target in right:
                self.cut(source, target)

    def isolate(self, name: str) -> None:
        """Cut a machine off from all others there are."""
        self.partition([name], [other for other in self._world.machines if other != name])

    def heal(self) -> None:
        """Restore every link that is cut. Latency, loss and bandwidth stay as they are."""
        self._world.trace.add(self._world.now, Kind.LINK, note="heal")
        for link in self._links.values():
            link.cut = False

    def reset_connections(self, left: str, right: str) -> int:
        """Reset every connection between two machines, as a firewall would; return how many."""
        hit = [
            endpoint
            for endpoint in self._world.machine(left).endpoints
            if endpoint.remote_machine.name == right and endpoint.is_established()
        ]
        for endpoint in hit:
            endpoint.reset_by_network()
        return len(hit)

    def delay_connections(self, source: str, target: str, delay_s: float) -> int:
        """Hold back what the connections there are will carry one way; return how many.

        New connections are not slower: what comes by them overtakes what was sent before.
        """
        hit = [
            endpoint
            for endpoint in self._world.machine(source).endpoints
            if endpoint.remote_machine.name == target and endpoint.is_established()
        ]
        for endpoint in hit:
            endpoint.hold_back(delay_s)
        return len(hit)

    def _directions(self, source: str, target: str, *, both: bool) -> Iterator[Link]:
        yield self.link(source, target)
        if both:
            yield self.link(target, source)

    def _record(self, source: str, target: str, note: str) -> None:
        machine = self._world.machine
        self._world.trace.add(
            self._world.now,
            Kind.LINK,
            machine(source).number,
            machine(target).number,
            note=note,
        )

    # Connections

    def resolve(self, source: Machine, host: str) -> Machine | None:
        """Return the machine a name means, seen from `source`."""
        if host in _LOOPBACK_NAMES:
            return source
        return self._world.machines.get(host)

    def connect(self, source: Machine, target: Machine, port: int) -> Endpoint:
        """Begin a handshake; the endpoint's owner is told how it ends."""
        local = (source.name, source.next_port())
        endpoint = Endpoint(self._world, source, target, local, (target.name, port))
        Handshake(self._world, endpoint).send_syn()
        return endpoint

    def next_endpoint(self) -> int:
        """Return the number of a new endpoint."""
        self._endpoints += 1
        return self._endpoints

    def transit(self, link: Link, size: int = 0) -> float | None:
        """Return when a packet sent now arrives, or None if the link is cut."""
        if link.cut:
            return None
        now = self._world.now
        link.free_at = max(link.free_at, now) + (size + _HEADER_BYTES) / link.bytes_per_second
        return link.free_at + link.latency + self._world.net_rng.random() * link.jitter

    def transit_or_lose(self, link: Link, size: int = 0) -> float | None:
        """Return when a packet sent now arrives, or None if it never will."""
        arrival = self.transit(link, size)
        if link.loss > 0.0 and self._world.net_rng.random() < link.loss:
            return None
        return arrival

    def close(self) -> None:
        """Forget everything."""
        for machine in self._world.machines.values():
            machine.endpoints.clear()
            machine.listeners.clear()
        self._links.clear()
