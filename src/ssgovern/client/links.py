"""Connections to nodes: one at most to each, made while it is needed.

Knows dialling, hellos, heartbeats and pauses; what a connection is for, and what has to be done
before it may be used, is its owner's. Every connection says hello with the same session.
Invariants: while no connection is open, all known addresses are tried in turn, those the caller
gave among them; between two rounds of dialling there is always a pause; a node is dialled by one
task at most; a hello whose answer was lost is remembered, because it may have opened a session
that the next hello would resume, empty.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from ssgovern.client.addresses import Address
from ssgovern.client.backoff import Backoff
from ssgovern.client.feeds import Feeder
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    RemoteProtocolError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel, open_channel
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

M = TypeVar("M", bound=Message)

DIAL_TIMEOUT_S = 3.0
HELLO_TIMEOUT_S = 5.0
STABLE_AFTER_S = 10.0
"""A connection that lasted so long was a good one: the next loss starts with short pauses."""
SILENT_BEATS_MAX = 2
"""Heartbeats in a row without any sign of the node before the connection is given up."""
REDIAL_FIRST_S = 0.1
REDIAL_MOST_S = 3.0
LED_SPREAD_S = 0.5
"""Within so long clients dial a node that was given shards of theirs: not all at once."""
IDLE_CLOSE_S = 30.0
"""A connection nobody needs any more is kept so long."""


class _IdleError(UnavailableError):
    """Nobody needs the connection."""


class Link:
    """One node, and the connection to it while there is one."""

    __slots__ = (
        "_backoff",
        "address",
        "busy_s",
        "claims_due",
        "feeder",
        "follows",
        "leads",
        "lost_s",
        "map_version",
        "name",
        "node_id",
        "open",
        "ready",
        "reason",
        "tries",
        "unsure",
        "urgent",
        "used",
        "waiting",
        "working",
    )

    def __init__(self, node_id: NodeId, feeder: Feeder) -> None:
        self.node_id = node_id
        self.feeder = feeder
        self.name = ""
        self.address: Address | None = None
        """Where it last answered."""
        self.open: Channel | None = None
        """Past its hello, if it is still there."""
        self.ready: Channel | None = None
        """Past what has to be registered again: open for requests."""
        self.reason = "no connection yet"
        self.unsure = False
        """A hello opened a new session, or may have, and not all of it was done."""
        self.follows = False
        """The node pushes changes of the shard map."""
        self.lost_s = -math.inf
        """When the last connection that was past its hello was lost."""
        self.map_version = 0
        """The node's, as far as it said."""
        self.waiting = 0
        """Requests that wait for a connection to this node."""
        self.urgent = asyncio.Event()
        """Set when somebody waits: no time for being considerate."""
        self.leads = asyncio.Event()
        """Set when shards of ours were given to this node: whoever did that had heard of it."""
        self.claims_due = asyncio.Event()
        self.used = False
        """A request was sent since this was last looked at."""
        self.busy_s = 0.0
        self.working = False
        """A task keeps the connection."""
        self.tries = 0
        self._backoff: Backoff | None = None

    def __repr__(self) -> str:
        state = "ready" if self.ready else "open" if self.open else f"closed ({self.reason})"
        return f"<Link {self.node_id} at {self.address} {state}>"

    @property
    def channel(self) -> Channel | None:
        """The connection, if requests may be sent on it now."""
        ready = self.ready
        return ready if ready is not None and ready.is_open else None

    def backoff(self, runtime: Runtime) -> Backoff:
        """Return the pauses between dials, which outlive the task that dials."""
        if self._backoff is None:
            self._backoff = Backoff(runtime.rng, first_s=REDIAL_FIRST_S, most_s=REDIAL_MOST_S)
        return self._backoff


class LinkOwner(Protocol):
    """What the connections are for."""

    def is_needed(self, link: Link) -> bool:
        """Tell whether a connection to a node is to be had at present."""

    def addresses_of(self, link: Link) -> list[Address]:
        """Return where a node may be reached."""

    def known_addresses(self) -> list[Address]:
        """Return all addresses at which a node of the cluster may be."""

    def feeder_for(self, node_id: NodeId) -> Feeder:
        """Return the feeder of a node that was not known before."""

    def on_hello(self, link: Link, address: Address, hello: native_pb2.HelloResponse) -> None:
        """A node answered. Raises what makes it useless."""

    async def prepare(self, link: Link, channel: Channel, hello: native_pb2.HelloResponse) -> None:
        """Do what has to be done before requests are sent."""

    def on_ready(self, link: Link) -> None:
        """Requests may be sent."""

    async def attend(self, link: Link, channel: Channel) -> None:
        """Do what is to be done on a connection as long as there is one; never returns."""

    def on_lost(self, link: Link, address: Address, cause: SsGovernError | None) -> None:
        """A connection is gone."""

    def on_unreachable(self, link: Link | None, address: Address, cause: SsGovernError) -> None:
        """There is no node at an address; `link`: the one that was looked for, if any."""

    def on_push(self, link: Link, type_: int, body: bytes) -> None:
        """A node pushed something."""

    def on_map_version(self, link: Link, version: int) -> None:
        """A node said which shard map it has."""


class _Tap:
    """Where pushes of a connection go; whose they are is known after its hello."""

    __slots__ = ("_owner", "link")

    def __init__(self, owner: LinkOwner) -> None:
        self._owner = owner
        self.link: Link | None = None

    def __call__(self, type_: int, request_id: int, body: bytes) -> None:
        del request_id  # A push names what it is about; it may serve several subscriptions.
        if self.link is not None:
            self._owner.on_push(self.link, type_, body)


class Links:
    """All connections of one session. `run` is its task and owns all others."""

    def __init__(
        self,
        hello: native_pb2.HelloRequest,
        runtime: Runtime,
        owner: LinkOwner,
        tls: TlsDialler | None = None,
    ) -> None:
        self._hello_body = encode(hello)
        self._tls = tls
        self._runtime = runtime
        self._owner = owner
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._unanswered: dict[Address, NodeId] = {}
        """Hellos whose answer was lost, and whom they were meant for."""
        self.by_node: dict[NodeId, Link] = {}

    def __repr__(self) -> str:
        return f"<Links {list(self.by_node.values())}>"

    # --- nodes -----------------------------------------------------------------------------

    def of(self, node_id: NodeId) -> Link:
        """Return the link of a node, connected or not."""
        link = self.by_node.get(node_id)
        if link is None:
            link = self.by_node[node_id] = Link(node_id, self._owner.feeder_for(node_id))
        return link

    def ready(self) -> list[Link]:
        """Return the links on which requests may be sent."""
        return [link for link in self.by_node.values() if link.channel is not None]

    def ensure(self, link: Link, *, within_s: float = 0.0) -> None:
        """See to it that there is, within so many seconds, a task that keeps a connection."""
        if not link.working and self._group is not None and not self._closing.is_set():
            link.working = True
            name = f"ssgovern node {link.node_id}"
            self._group.create_task(self._keep(link, within_s), name=name)

    def open_channels(self) -> list[Channel]:
        """Return all connections that are past their hello."""
        found = [link.open for link in self.by_node.values()]
        return [channel for channel in found if channel is not None and channel.is_open]

    def close(self, error: SsGovernError) -> None:
        """Give up all connections and make no more."""
        self._closing.set()
        for link in self.by_node.values():
            link.urgent.set()
            link.leads.set()
            if link.open is not None:
                link.open.give_up(error)

    # --- dialling --------------------------------------------------------------------------

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Look for a node whenever there is none, until `close`."""
        self._group = group
        loop = asyncio.get_running_loop()
        rng = self._runtime.rng
        backoff = Backoff(rng, first_s=REDIAL_FIRST_S, most_s=REDIAL_MOST_S)
        # Many clients are given the same list; not all of them should load its first node.
        number = rng.randrange(len(self._owner.known_addresses()))
        tried = 0
        while not self._closing.is_set():
            channels = self.open_channels()
            if channels:
                started_s = loop.time()
                await channels[0].wait_lost()
                tried = 0
                if loop.time() - started_s >= STABLE_AFTER_S:
                    backoff.reset()
                if not self.open_channels():
                    await self._sleep(backoff.next_pause_s())
                continue
            addresses = self._owner.known_addresses()
            address = addresses[number % len(addresses)]
            started_s = loop.time()
            if not self._is_dialled(address):
                await self._serve(address, None)
            if loop.time() - started_s >= STABLE_AFTER_S:
                backoff.reset()
                tried = 0
            else:
                number = (number + 1) % len(addresses)
                tried += 1
            if tried % len(addresses) == 0:
                await self._sleep(backoff.next_pause_s())
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Before Python 3.13 a group whose tasks failed in the moment of its cancellation
            # says only that they failed. Tasks that dial have to end, too.
            raise asyncio.CancelledError

    def _is_dialled(self, address: Address) -> bool:
        """Whether some other task tries this address already."""
        return any(
            link.working and address in self._owner.addresses_of(link)
            for link in self.by_node.values()
        )

    async def _keep(self, link: Link, within_s: float) -> None:
        """Keep a connection to a node as long as it is needed."""
        loop = asyncio.get_running_loop()
        backoff = link.backoff(self._runtime)
        try:
            if within_s and link.open is None:
                await self._until_urgent(link, self._runtime.rng.uniform(0.0, within_s))
            if loop.time() - link.lost_s < REDIAL_FIRST_S:
                # A process that dies is dialled in vain, or worse: its socket still takes a hello
                # that nobody answers, after which nothing is sure to be there.
                await self._sleep(backoff.next_pause_s())
            while not self._closing.is_set() and self._owner.is_needed(link):
                started_s = loop.time()
                if link.open is not None:
                    await link.open.wait_lost()
                    # Whoever made the connection has yet to notice.
                    await asyncio.sleep(0)
                else:
                    addresses = self._owner.addresses_of(link)
                    address = addresses[link.tries % len(addresses)]
                    link.tries += 1
                    await self._serve(address, link)
                if loop.time() - started_s >= STABLE_AFTER_S:
                    backoff.reset()
                if self._owner.is_needed(link):
                    await self._pause(link, backoff)
        finally:
            link.working = False

    async def _pause(self, link: Link, backoff: Backoff) -> None:
        """Pause before the next dial, but not for long once the node leads what we hold.

        Sessions have one time to live to come to a new primary, and a pause that grew while it
        was down may be longer than that.
        """
        try:
            async with asyncio.timeout(backoff.next_pause_s()):
                await link.leads.wait()
        except TimeoutError:
            return
        link.leads.clear()
        backoff.reset()
        await self._sleep(self._runtime.rng.uniform(0.0, LED_SPREAD_S))

    async def _serve(self, address: Address, expected: Link | None) -> None:
        """Dial an address and live with the node there until the connection is lost."""
        owner = self._owner
        tap = _Tap(owner)
        try:
            channel = await open_channel(
                address.host,
                address.port,
                tap,
                deadline=asyncio.get_running_loop().time() + DIAL_TIMEOUT_S,
                tls=self._tls,
            )
        except UnavailableError as error:
            owner.on_unreachable(expected, address, error)
            return
        if self._closing.is_set():
            channel.abort()
            return
        cause: SsGovernError | None = None
        link: Link | None = None
        try:
            hello = await self._hello(channel, address, expected)
            link = tap.link = self._adopt(channel, address, expected, hello)
            if hello.wants_applied:
                # Before anything is subscribed to: from then on the node counts on it.
                channel.send(link.feeder.applied.begin())
            interval_s = max(hello.heartbeat_interval_ms, 10) / 1000.0
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_alive(link, channel, interval_s))
                group.create_task(self._work(link, channel, hello))
        except* SsGovernError as errors:
            cause = _first_of(errors)
        finally:
            ended = cause or ClosedError("the client was closed")
            channel.give_up(ended)
            if link is None:
                owner.on_unreachable(expected, address, channel.cause or ended)
            elif link.open is channel:
                link.open = link.ready = None
                link.lost_s = asyncio.get_running_loop().time()
                link.follows = False
                idle = isinstance(cause, _IdleError)
                owner.on_lost(link, address, None if idle else channel.cause or cause)

    async def _hello(
        self, channel: Channel, address: Address, expected: Link | None
    ) -> native_pb2.HelloResponse:
        meant_for = NodeId(0) if expected is None else expected.node_id
        lost = self._unanswered.get(address)
        # A hello whose answer is lost may have opened the session: the next one would resume
        # it, empty. Only an answer can tell.
        self._unanswered[address] = meant_for if lost in (None, meant_for) else NodeId(0)
        deadline = asyncio.get_running_loop().time() + HELLO_TIMEOUT_S
        body = await channel.send_request(MessageType.HELLO, self._hello_body, deadline)
        hello = decode_or_give_up(channel, native_pb2.HelloResponse, body)
        if lost is None:
            del self._unanswered[address]
        return hello

    def _adopt(
        self,
        channel: Channel,
        address: Address,
        expected: Link | None,
        hello: native_pb2.HelloResponse,
    ) -> Link:
        """Let a connection be that of the node that answered."""
        node_id = NodeId(hello.node_id)
        if expected is not None and expected.node_id != node_id:
            raise UnavailableError(
                f"at {address} node {node_id} answered, and not node {expected.node_id}"
            )
        link = self.of(node_id)
        self._owner.on_hello(link, address, hello)
        unanswered = self._unanswered
        sure = not link.unsure and not any(
            meant_for in (0, node_id) for meant_for in unanswered.values()
        )
        for other in [each for each, meant_for in unanswered.items() if meant_for == node_id]:
            del unanswered[other]
        unanswered.pop(address, None)
        link.unsure = not (hello.resumed and sure)
        if link.open is not None:
            link.open.give_up(UnavailableError(f"{address} is the same node, reached anew"))
            self._owner.on_lost(link, address, None)
        link.open = channel
        link.ready = None
        link.address = address
        link.name = hello.node_name or str(node_id)
        link.map_version = hello.map_version
        link.busy_s = asyncio.get_running_loop().time()
        link.tries = 0
        return link

    async def _work(self, link: Link, channel: Channel, hello: native_pb2.HelloResponse) -> None:
        await self._owner.prepare(link, channel, hello)
        if link.open is not channel:
            raise channel.cause or UnavailableError("the connection was replaced")
        link.unsure = False
        link.ready = channel
        _logger.info(
            "connected to %s at %s, session %s",
            link.name,
            link.address,
            "resumed" if hello.resumed else "opened",
        )
        self._owner.on_ready(link)
        await self._owner.attend(link, channel)

    async def _keep_alive(self, link: Link, channel: Channel, interval_s: float) -> None:
        """Beat until the connection is lost or of no use; raise why.

        Silence is counted in beats, not in seconds: if it was this process that stood still,
        the answers are waiting to be read, and one more beat lets them in.
        """
        loop = asyncio.get_running_loop()
        silent = 0
        body = encode(native_pb2.HeartbeatRequest())
        while True:
            due = loop.time() + interval_s
            received = channel.messages_received
            try:
                applied = link.feeder.applied.take(loop.time())
                answer = await channel.send_request(MessageType.HEARTBEAT, body, due, ahead=applied)
                silent = 0
                beat = decode_or_give_up(channel, native_pb2.HeartbeatResponse, answer)
                link.map_version = beat.map_version
                self._owner.on_map_version(link, beat.map_version)
            except DeadlineExceededError:
                silent = 0 if channel.messages_received != received else silent + 1
                if silent >= SILENT_BEATS_MAX:
                    raise UnavailableError(
                        f"{channel.peer} has been silent for {silent} heartbeats"
                    ) from None
            if self._is_idle(link, channel, loop.time()):
                raise _IdleError("nobody needs the connection")
            if await channel.wait_lost(max(0.0, due - loop.time())):
                raise channel.cause or UnavailableError(f"connection to {channel.peer} lost")

    def _is_idle(self, link: Link, channel: Channel, now_s: float) -> bool:
        if link.used or self._owner.is_needed(link) or channel.in_flight:
            link.used = False
            link.busy_s = now_s
            return False
        others = any(other is not link for other in self.ready())
        return others and now_s - link.busy_s >= IDLE_CLOSE_S

    async def _sleep(self, pause_s: float) -> None:
        """Pause, unless the client is closed meanwhile."""
        try:
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _until_urgent(self, link: Link, pause_s: float) -> None:
        link.urgent.clear()
        if link.waiting:
            return
        try:
            async with asyncio.timeout(pause_s):
                await link.urgent.wait()
        except TimeoutError:
            return


def decode_or_give_up(channel: Channel, kind: type[M], body: bytes) -> M:
    """Decode an answer; a node that sends garbage is not talked to any further."""
    try:
        return decode(kind, body)
    except InvalidArgumentError as error:
        fault = RemoteProtocolError(f"{channel.peer}: {error.message}")
        channel.give_up(fault)
        raise fault from None


def _first_of(errors: ExceptionGroup[SsGovernError]) -> SsGovernError:
    """Return the error that ended a connection; what followed from it comes later."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, SsGovernError), "split by this very type"
    return found
