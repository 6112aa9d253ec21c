"""The client's session with the cluster: which node is asked what, and again after a failure.

Knows routes, retries and deadlines; connections and the map are `Nodes`'. Invariants: a request
goes to the primary of its shard, unless its caller takes what is a little old; none outlives
its deadline, and none is repeated that might then have a second effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from ssgovern import limits
from ssgovern.client.addresses import Address
from ssgovern.client.backoff import Backoff
from ssgovern.client.credentials import TokenSource, token_of
from ssgovern.client.holdings import Holdings
from ssgovern.client.links import Link, decode_or_give_up
from ssgovern.client.nodes import Nodes
from ssgovern.client.shard_map import NOBODY
from ssgovern.client.values import ConnectionState
from ssgovern.client.watches import Watches
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    Retry,
    ShardUnavailableError,
    SsGovernError,
    UnauthenticatedError,
    UnavailableError,
)
from ssgovern.model import NodeId, ServiceKey, ShardId, session_id_of, shard_of
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel, ConnectionLostError
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

M = TypeVar("M", bound=Message)

GOODBYE_TIMEOUT_S = 1.0
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0
NEWS_MOST_S = 0.5
"""The longest pause of who waits for another primary: a change of the map ends it sooner."""
MAP_TIMEOUT_S = 1.0
MAP_PAUSE_S = 0.2
STALE_READ_S = 1.0
"""How long one node is given for a read that another may answer too."""
_ASK_THE_MAP = (
    ErrorCode.SHARD_MOVED,
    ErrorCode.SHARD_UNAVAILABLE,
    ErrorCode.OUTCOME_UNKNOWN,
    ErrorCode.NOT_CONTROLLER,
)
_IN_DOUBT = (ErrorCode.UNAVAILABLE, ErrorCode.OUTCOME_UNKNOWN)
_ASK_THE_MAP_IF_MANY = (ErrorCode.SHUTTING_DOWN, ErrorCode.FENCED, ErrorCode.UNAVAILABLE)


class Session:
    """One session with the cluster. `run` is its task; `call` may be used by many."""

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        runtime: Runtime,
        client_name: str,
        holdings: Holdings,
        watches: Watches,
        on_state: Callable[[ConnectionState], None],
        tls: TlsDialler | None = None,
        token: TokenSource | None = "",
    ) -> None:
        assert addresses, "checked where addresses are parsed"
        self._addresses = tuple(addresses)
        self.runtime = runtime
        self._holdings = holdings
        secret = runtime.random_bytes(16)
        self._session_id = session_id_of(secret)
        hello = native_pb2.HelloRequest(
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION_MAX,
            role=native_pb2.ROLE_CLIENT,
            client_name=client_name,
            session_id=self._session_id,
            session_secret=secret,
            token=token_of(token, self._session_id),
        )
        self._nodes = Nodes(
            addresses,
            hello,
            runtime=runtime,
            # Asked for each time: the simulator replaces them.
            holdings=lambda: self._holdings,
            watches=watches,
            on_state=on_state,
            tls=tls,
        )
        self.map = self._nodes.map
        self._links = self._nodes.links
        self._in_flight = asyncio.Semaphore(limits.CLIENT_IN_FLIGHT_MAX)
        self._started = False
        self._closed: SsGovernError | None = None

    def __repr__(self) -> str:
        state = f"connected to {self.state.address}" if self.state.connected else "disconnected"
        return f"<Session {self._session_id.hex()} {state} held={len(self._holdings)}>"

    @property
    def id(self) -> bytes:
        """What nodes know this client by. May be shown to anyone."""
        return self._session_id

    # --- requests --------------------------------------------------------------------------

    async def call(
        self,
        type_: int,
        request: Message,
        answer: type[M],
        deadline: float,
        *,
        repeatable: bool,
        key: ServiceKey | None = None,
    ) -> M:
        """Send a request and return the answer, over as many connections as it takes.

        It goes to the primary of the key's shard; without a key to any node. A request that is
        not `repeatable` is sent again only if it surely had no effect. Raises the node's error;
        UnavailableError if no node could be reached in time; DeadlineExceededError if one was
        and did not answer.
        """
        body = encode(request)
        backoff: Backoff | None = None
        if self._in_flight.locked():
            await self._wait_turn(deadline)
        else:
            await self._in_flight.acquire()
        try:
            while True:
                link = self._route(key) or await self._reach(key, deadline)
                channel = link.ready
                assert channel is not None, "a link that was found ready, in this turn"
                try:
                    reply = await channel.request(type_, body, deadline)
                    return decode_or_give_up(channel, answer, reply)
                except ConnectionLostError as error:
                    if error.sent and not repeatable:
                        raise UnavailableError(
                            f"{error.message}; whether the request took effect is not known",
                            sent="yes",
                        ) from None
                    last: SsGovernError = error
                    self._nodes.want_map()
                except DeadlineExceededError:
                    # Ours, or the node's own: in both the time is used up.
                    raise
                except SsGovernError as error:
                    if error.retry is Retry.NEVER or (error.code in _IN_DOUBT and not repeatable):
                        raise
                    self._refresh(link, channel, error)
                    last = error
                if backoff is None:
                    rng = self.runtime.rng
                    backoff = Backoff(rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
                if not await self.pause(backoff, deadline, last):
                    raise last
        finally:
            self._in_flight.release()

    async def read_stale(
        self, type_: int, request: Message, answer: type[M], deadline: float, key: ServiceKey
    ) -> M:
        """Ask any node that keeps the key's shard, and another if it does not answer soon."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(self.runtime.rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        skip = NOBODY
        while not self.map.is_single:
            node = self._holder_of(key, skip)
            limit = min(deadline, loop.time() + STALE_READ_S)
            try:
                return await self.ask(node, type_, request, answer, limit)
            except SsGovernError as error:
                if error.retry is Retry.NEVER or limit == deadline:
                    raise
                last = error
            skip = node
            if not await self.pause(backoff, deadline, last):
                raise last
        return await self.call(type_, request, answer, deadline, repeatable=True, key=key)

    async def ask(
        self, node: NodeId, type_: int, request: Message, answer: type[M], deadline: float
    ) -> M:
        """Send a request to one node, once.

        Raises the node's error, ConnectionLostError, or UnavailableError if there is no
        connection by the deadline or the map changed while it was waited for.
        """
        body = encode(request)
        if self._in_flight.locked():
            await self._wait_turn(deadline)
        else:
            await self._in_flight.acquire()
        try:
            link = self._links.by_node.get(node)
            if link is None or link.channel is None:
                link = await self._reach_node(node, deadline)
            link.used = True
            channel = link.ready
            assert channel is not None, "a link that was found ready, in this turn"
            try:
                return decode_or_give_up(
                    channel, answer, await channel.request(type_, body, deadline)
                )
            except SsGovernError as error:
                self._refresh(link, channel, error)
                raise
        finally:
            self._in_flight.release()

    def primary_of(self, key: ServiceKey) -> NodeId:
        """Return the node to which what concerns a service goes; 0: nobody at present."""
        return self.primary_of_shard(shard_of(*key))

    def primary_of_shard(self, shard: ShardId) -> NodeId:
        """Return the node to which what concerns a shard goes; 0: nobody at present."""
        home = self._nodes.home
        if self.map.is_single and home is not None:
            return home.node_id
        return self.map.primary_of(shard)

    async def pause(self, backoff: Backoff, deadline: float, last: SsGovernError) -> bool:
        """Wait before a request is repeated; False, at once, if there is no time for that."""
        pause_s = backoff.next_pause_s()
        waits_for_map = not self.map.is_single and last.retry is Retry.AFTER_REFRESH
        if waits_for_map:
            pause_s = min(pause_s, NEWS_MOST_S)
        if asyncio.get_running_loop().time() + pause_s >= deadline:
            return False
        if not waits_for_map:
            await asyncio.sleep(pause_s)
            return True
        try:
            async with asyncio.timeout(pause_s):
                await self._nodes.news.wait()
        except TimeoutError:
            pass
        return True

    async def connected(self, deadline: float) -> Channel:
        """Return a connection to any node, waiting for one until the deadline."""
        link = self._route(None) or await self._reach(None, deadline)
        channel = link.ready
        assert channel is not None, "a link that was found ready, in this turn"
        return channel

    def start(self) -> None:
        """Let requests wait for the connections that `run` is about to make."""
        self._started = True

    def check_started(self) -> None:
        """Raise ClosedError if nobody is going to make a connection."""
        if not self._started:
            raise ClosedError("the client is not open; use it with `async with`")

    def refresh_after(self, node: NodeId, outcomes: Sequence[object]) -> None:
        """Look at the map, or redial, if a part of a node's answer asks for it."""
        for outcome in outcomes:
            if isinstance(outcome, SsGovernError) and outcome.retry is Retry.AFTER_REFRESH:
                link = self._links.of(node)
                if link.ready is not None:
                    self._refresh(link, link.ready, outcome)
                return

    def _refresh(self, link: Link, channel: Channel, error: SsGovernError) -> None:
        """Do what an error asks for before anything is sent again."""
        if error.retry is not Retry.AFTER_REFRESH or isinstance(error, DeadlineExceededError):
            return
        many = not self.map.is_single
        if error.code in _ASK_THE_MAP or (many and error.code in _ASK_THE_MAP_IF_MANY):
            told = error.fields.get("map_version", "")
            if told.isdecimal():
                link.map_version = max(link.map_version, int(told))
            self._nodes.want_map()
        elif link.open is channel:
            channel.give_up(error)

    async def _wait_turn(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._in_flight.acquire()
        except TimeoutError:
            raise DeadlineExceededError(
                "too many requests in flight: the time ran out", sent="no"
            ) from None

    # --- routes ----------------------------------------------------------------------------

    def _route(self, key: ServiceKey | None) -> Link | None:
        """Return the link for a request if it is ready."""
        if key is None or self.map.is_single:
            link = self._nodes.home
        else:
            link = self._links.by_node.get(self.primary_of(key))
        if link is None or link.channel is None:
            return None
        link.used = True
        return link

    def _holder_of(self, key: ServiceKey, skip: NodeId) -> NodeId:
        """Return a node that keeps a shard, rather one to which there is a connection."""
        shard = shard_of(*key)
        row = self.map.rows.get(shard)
        holders = [node for node in (() if row is None else row.holders) if node != skip]
        links = self._links.by_node
        ready = [node for node in holders if node in links and links[node].channel is not None]
        if ready:
            return self._nodes.spread.best(ready)
        best = self._nodes.spread.holder(shard, asyncio.get_running_loop().time())
        return best if best != skip or not holders else self._nodes.spread.best(holders)

    async def _reach(self, key: ServiceKey | None, deadline: float) -> Link:
        """Wait until a request can be sent."""
        while True:
            self._check_open()
            link = self._route(key)
            if link is not None:
                return link
            node = NOBODY
            if key is not None and not self.map.is_single:
                node = self.primary_of(key)
                if not node:
                    self._nodes.want_map()
            if not await self._wait_for(node, deadline):
                raise UnavailableError(self._why_not(key, node))

    async def _reach_node(self, node: NodeId, deadline: float) -> Link:
        if not node:
            self._nodes.want_map()
            raise ShardUnavailableError("nobody serves the shard at present")
        news = self._nodes.news
        while True:
            self._check_open()
            link = self._links.of(node)
            if link.channel is not None:
                return link
            if news is not self._nodes.news:
                raise ConnectionLostError(f"node {node}: {link.reason}", sent=False)
            if not await self._wait_for(node, deadline):
                raise UnavailableError(self._why_not(None, node))

    def _check_open(self) -> None:
        self.check_started()
        if self._closed is not None:
            # A new one each time: one that is raised again and again collects tracebacks.
            raise ClosedError(self._closed.message)
        if self._nodes.refused and self._nodes.home is None:
            raise UnauthenticatedError(self._nodes.refused)

    async def _wait_for(self, node: NodeId, deadline: float) -> bool:
        """Wait until something changed that may help, with a connection to a node in the making.

        Returns False if the time runs out first.
        """
        link = self._links.of(node) if node else None
        if link is not None:
            link.waiting += 1
            link.urgent.set()
            self._links.ensure(link)
        self._nodes.changed.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await self._nodes.changed.wait()
        except TimeoutError:
            return False
        finally:
            if link is not None:
                link.waiting -= 1
        return True

    def _why_not(self, key: ServiceKey | None, node: NodeId) -> str:
        if node and not self.map.is_single:
            link = self._links.of(node)
            at = ", ".join(map(str, self._nodes.addresses_of(link)))
            what = "" if key is None else f", which has shard {shard_of(*key)}"
            return f"node {node} at {at}{what}: {link.reason}"
        if key is not None and not self.map.is_single:
            return f"no node is primary of shard {shard_of(*key)} at present"
        addresses = ", ".join(map(str, self._addresses))
        return f"no node at {addresses}: {self.state.reason or 'no connection yet'}"

    # --- its life --------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether a node answers, so that the map is known too."""
        return self._nodes.home is not None

    @property
    def state(self) -> ConnectionState:
        """Whether there is a node to talk to."""
        return self._nodes.state

    def on_registered(self, key: ServiceKey, epoch: int) -> None:
        """Take that something was committed in an epoch; if it has ended since, claim it."""
        if not self.map.is_single:
            self._nodes.on_registered(key, epoch)

    async def run(self) -> None:
        """Keep connections until `close`."""
        await self._nodes.run()

    async def say_goodbye(self) -> None:
        """End the session at all nodes, so that what it registered goes at once. Never raises."""
        await self._nodes.say_goodbye()

    def close(self, error: SsGovernError) -> None:
        """Refuse what waits and what comes; `run` ends by itself or may be cancelled."""
        if self._closed is None:
            self._closed = error
        self._nodes.close(error)
