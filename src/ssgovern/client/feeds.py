"""One node as a source of lists: what is subscribed to there, and what it owes.

A feed is a part of a watch, some of its shards, subscribed to at one node; a feeder keeps a
node's feeds as they are wanted, over as many connections as it takes. Knows nothing of why a
feed is at this node. Invariants: a feed is current only after the node has told every service
of it on this connection, from a position no older than what was known when it told; a node
that lags is asked again until it has caught up, with pauses.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ssgovern.client.applied import Applied
from ssgovern.client.backoff import Backoff
from ssgovern.client.shard_map import mask_of
from ssgovern.errors import ErrorCode, Retry, SsGovernError
from ssgovern.model import LogPosition, NodeId, Pattern, ServiceKey, ShardId, shard_of
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel
from ssgovern.wire.codec import decode, encode, key_from_wire, key_to_wire, pattern_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

if TYPE_CHECKING:
    from ssgovern.client.watches import Watch

ANSWER_TIMEOUT_S = 10.0
PIPELINED_MAX = 64
"""Subscriptions asked for before the first is answered."""
PROBE_FIRST_S = 0.1
PROBE_MOST_S = 2.0
"""Pauses between questions to a node that lags."""
MOVED = (ErrorCode.SHARD_MOVED, ErrorCode.SHARD_UNAVAILABLE)


class Feed:
    """Some shards of a watch, subscribed to at one node."""

    __slots__ = (
        "awaited",
        "behind",
        "feeder",
        "is_current",
        "shards",
        "subscription_id",
        "told",
        "wanted",
        "watch",
    )

    def __init__(self, watch: Watch, feeder: Feeder, shards: list[ShardId]) -> None:
        self.watch = watch
        self.feeder = feeder
        self.shards = dict.fromkeys(shards)
        """Those for which the watch relies on this feed, or is about to."""
        self.subscription_id: int | None = None
        self.awaited: dict[ServiceKey, None] | None = None
        """Services the node has yet to tell; None: it is not known which."""
        self.told: dict[ServiceKey, None] | None = None
        """Of a pattern, while it is not known what to wait for: what was told so far."""
        self.behind: dict[ShardId, tuple[LogPosition, ServiceKey]] = {}
        """Shards told from before what was known: how far the node has to come, and a service
        to ask for."""
        self.is_current = False
        self.wanted = True

    def __repr__(self) -> str:
        state = "current" if self.is_current else f"awaited={self.awaited} behind={self.behind}"
        return f"<Feed {self.watch.target} node={self.feeder.node_id} {state}>"

    @property
    def is_settled(self) -> bool:
        """Whether the node has told all that it owes."""
        return self.awaited is not None and not self.awaited and not self.behind

    def restart(self) -> None:
        """Wait for everything again."""
        self.is_current = False
        self.behind.clear()
        if isinstance(self.watch.target, Pattern):
            self.awaited, self.told = None, {}
        else:
            self.awaited = {self.watch.target: None}

    def stop(self) -> None:
        """Wait for nothing: nothing is asked for. What other feeds of the node bring does not
        make this one current."""
        self.is_current = False
        self.awaited = self.told = None

    def on_told(self, key: ServiceKey, shard: ShardId, at: LogPosition, known: LogPosition) -> None:
        """Take that the node told a service as of `at`, where `known` was known already."""
        if self.told is not None:
            self.told[key] = None
        if self.awaited is not None:
            self.awaited.pop(key, None)
        target = self.behind.get(shard)
        if target is not None:
            # The revision is the shard's: any service tells how far the node has come.
            if at >= target[0]:
                del self.behind[shard]
        elif at < known:
            self.behind[shard] = known, key
            self.feeder.lags(self)


class FeedOwner(Protocol):
    """Who decides what is fed from where."""

    def known_of(self, feed: Feed) -> tuple[list[native_pb2.KnownService], list[ServiceKey]]:
        """Return the positions to name in a subscription, and the services that do not fit."""

    def loaded_of(self, feed: Feed) -> list[ServiceKey]:
        """Return the services of a feed of which there is a list."""

    def on_read(self, feeder: Feeder, key: ServiceKey, answer: native_pb2.GetResponse) -> None:
        """Take a list that was asked for."""

    def on_settled(self, feed: Feed) -> None:
        """The node has told all of a feed."""

    def on_moved(self, feed: Feed) -> None:
        """The node does not keep all shards of a feed."""

    def on_refused(self, feed: Feed, error: SsGovernError) -> None:
        """The node refuses a feed for good."""

    @property
    def is_single(self) -> bool:
        """Whether there is one node, which needs no mask."""


class _Asked(NamedTuple):
    """A subscription that waits for its answer."""

    feed: Feed
    answer: asyncio.Future[bytes]
    left_out: list[ServiceKey]


class Feeder:
    """All feeds of one node."""

    def __init__(self, node_id: NodeId, owner: FeedOwner, runtime: Runtime) -> None:
        self.node_id = node_id
        self._owner = owner
        self._runtime = runtime
        self._feeds: dict[Feed, None] = {}
        self._dirty: dict[Feed, None] = {}
        """Those for which something is to be asked of the node."""
        self._lagging: dict[Feed, None] = {}
        self._wakeup = asyncio.Event()
        self.is_connected = False
        self.applied = Applied()
        """What the node is yet to be told of what was applied."""

    def __repr__(self) -> str:
        return f"<Feeder node={self.node_id} feeds={len(self._feeds)}>"

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to come from this node."""
        return any(feed.wanted for feed in self._feeds)

    @property
    def feeds(self) -> list[Feed]:
        """What is subscribed to here, or to be."""
        return [feed for feed in self._feeds if feed.wanted]

    def add(self, feed: Feed) -> None:
        """Subscribe to a feed."""
        self._feeds[feed] = None
        self.ask(feed)

    def remove(self, feed: Feed) -> None:
        """End a feed."""
        feed.wanted = False
        feed.is_current = False
        if not self.is_connected or (feed.subscription_id is None and feed in self._dirty):
            # Nothing was asked of the node yet, or it is to be asked anew.
            self._drop(feed)
        elif feed in self._feeds:
            self.ask(feed)

    def ask(self, feed: Feed) -> None:
        """Ask for a feed, from the beginning if there is one already."""
        self._dirty[feed] = None
        self._wakeup.set()

    def lags(self, feed: Feed) -> None:
        """Ask the node until it has caught up."""
        self._lagging[feed] = None
        self._wakeup.set()

    def _drop(self, feed: Feed) -> None:
        for kept in (self._feeds, self._dirty, self._lagging):
            kept.pop(feed, None)

    # --- the connection --------------------------------------------------------------------

    def on_connected(self) -> None:
        """The node answered: everything is to be asked for."""
        self.is_connected = True
        for feed in self._feeds:
            self.ask(feed)

    def on_disconnected(self) -> None:
        """The connection is gone."""
        self.is_connected = False
        self.applied.end()
        self._lagging.clear()
        for feed in list(self._feeds):
            feed.subscription_id = None
            feed.stop()
            if not feed.wanted:
                self._drop(feed)
        self._dirty = dict.fromkeys(self._feeds)

    async def run(self, channel: Channel) -> None:
        """Keep the node's subscriptions equal to what is wanted, on one connection.

        Ends only by cancellation or by raising the error that makes the connection useless.
        """
        refusals = Backoff(self._runtime.rng, first_s=0.1, most_s=5.0)
        probes = Backoff(self._runtime.rng, first_s=PROBE_FIRST_S, most_s=PROBE_MOST_S)
        loop = asyncio.get_running_loop()
        probe_at: float | None = None
        while True:
            if not self._lagging:
                probes.reset()
                probe_at = None
            elif probe_at is None:
                probe_at = loop.time() + probes.next_pause_s()
            await self._woken(probe_at)
            refused: list[Feed] = []
            while self._dirty:
                asked: list[_Asked] = []
                for feed in list(self._dirty)[:PIPELINED_MAX]:
                    del self._dirty[feed]
                    sent = self._ask(channel, feed)
                    asked += [] if sent is None else [sent]
                refused += [each.feed for each in asked if not await self._on_answer(channel, each)]
            if probe_at is not None and loop.time() >= probe_at:
                probe_at = None
                for feed in list(self._lagging):
                    await self._probe(channel, feed)
            if refused:
                loop.call_later(refusals.next_pause_s(), self._ask_again, refused)
            else:
                refusals.reset()

    async def _woken(self, until_s: float | None) -> None:
        """Wait until there is something to ask, or it is time to ask a node that lags."""
        try:
            async with asyncio.timeout_at(until_s):
                await self._wakeup.wait()
        except TimeoutError:
            return
        self._wakeup.clear()

    def _ask_again(self, feeds: list[Feed]) -> None:
        for feed in feeds:
            if feed in self._feeds and not feed.is_current:
                self.ask(feed)

    # --- asking ----------------------------------------------------------------------------

    def _ask(self, channel: Channel, feed: Feed) -> _Asked | None:
        """Send what has to be asked for a feed; return its subscription, if it is wanted."""
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        if feed.subscription_id is not None:
            # Asked for again after a gap, or not wanted any more: the old one goes first.
            gone = native_pb2.UnsubscribeRequest(subscription_id=feed.subscription_id)
            feed.subscription_id = None
            channel.send_request(MessageType.UNSUBSCRIBE, encode(gone), deadline)
        if not feed.wanted:
            self._drop(feed)
            return None
        feed.restart()
        target = feed.watch.target
        request = native_pb2.SubscribeRequest()
        if isinstance(target, Pattern):
            request.pattern.CopyFrom(pattern_to_wire(target))
            request.shards = self._mask(feed)
        else:
            request.service.CopyFrom(key_to_wire(target))
        known, left_out = self._owner.known_of(feed)
        request.known.extend(known)
        answer = channel.send_request(MessageType.SUBSCRIBE, encode(request), deadline)
        return _Asked(feed, answer, left_out)

    def _mask(self, feed: Feed) -> bytes:
        return b"" if self._owner.is_single else mask_of(list(feed.shards))

    async def _on_answer(self, channel: Channel, asked: _Asked) -> bool:
        """Take the answer to a subscription; return False if it is to be asked for later."""
        feed = asked.feed
        try:
            response = decode(native_pb2.SubscribeResponse, await asked.answer)
            feed.subscription_id = response.subscription_id
            if not feed.wanted:
                # Dropped while it was asked for: it has no shards any more to be listed.
                self.ask(feed)
                return True
            for key in asked.left_out:
                await self._read(channel, key)
            if isinstance(feed.watch.target, Pattern):
                await self._await_listed(channel, feed, feed.watch.target)
        except SsGovernError as error:
            feed.stop()
            if error.code in MOVED and self._owner.is_single:
                # The only node of a cluster has only begun, and has nothing to tell yet.
                return False
            if error.code in MOVED:
                self._owner.on_moved(feed)
                return not feed.wanted
            if error.retry is Retry.SAME_NODE:
                return False
            if error.retry is Retry.AFTER_REFRESH:
                raise
            self._drop(feed)
            self._owner.on_refused(feed, error)
        return True

    async def _await_listed(self, channel: Channel, feed: Feed, pattern: Pattern) -> None:
        """Find out what the node has yet to tell.

        It tells services one by one and does not say when it is through; it does say which
        there are. Those it told meanwhile are not waited for. What was never told and is not
        listed has no instance, and will not be told either.
        """
        listed = await self._list(channel, pattern, self._mask(feed))
        if feed.told is None:
            # Asked for again meanwhile.
            return
        # What was spread over several nodes may be asked of the one that is left, without a mask.
        mine = (key for key in listed if shard_of(*key) in feed.shards)
        expected = (*mine, *self._owner.loaded_of(feed))
        feed.awaited = {key: None for key in expected if key not in feed.told}
        feed.told = None
        if feed.is_settled:
            self._owner.on_settled(feed)

    async def _list(self, channel: Channel, pattern: Pattern, mask: bytes) -> list[ServiceKey]:
        """Ask which services of a pattern have instances."""
        found: list[ServiceKey] = []
        request = native_pb2.ListServicesRequest(
            namespace=pattern.namespace, group=pattern.group, prefix=pattern.prefix, shards=mask
        )
        while True:
            body = await self._insist(channel, MessageType.LIST_SERVICES, encode(request))
            answer = decode(native_pb2.ListServicesResponse, body)
            found += [key_from_wire(line.service) for line in answer.services]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def _probe(self, channel: Channel, feed: Feed) -> None:
        """Ask a node that lags how far it is."""
        try:
            for _, key in list(feed.behind.values()):
                await self._read(channel, key)
        except SsGovernError as error:
            if error.code in MOVED:
                self._owner.on_moved(feed)
            elif error.retry is not Retry.SAME_NODE:
                raise
        if not feed.behind:
            self._lagging.pop(feed, None)

    async def _read(self, channel: Channel, key: ServiceKey) -> None:
        """Bring a view up to date that no push is going to."""
        request = native_pb2.GetRequest(service=key_to_wire(key), replica_too=True)
        body = await self._insist(channel, MessageType.GET, encode(request))
        self._owner.on_read(self, key, decode(native_pb2.GetResponse, body))

    async def _insist(self, channel: Channel, type_: int, body: bytes) -> bytes:
        """Send a request, again as long as the node says that it cannot take it now."""
        backoff = Backoff(self._runtime.rng, first_s=0.1, most_s=5.0)
        while True:
            deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
            try:
                return await channel.request(type_, body, deadline)
            except SsGovernError as error:
                if error.retry is not Retry.SAME_NODE:
                    raise
            await channel.wait_lost(backoff.next_pause_s())
