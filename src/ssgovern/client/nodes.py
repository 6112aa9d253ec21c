"""The nodes of the cluster as this session has them: the shard map, and connections.

Decides which nodes are needed, which of them is home (where the map comes from, and what is the
same everywhere is asked) and what follows when the map changes or a node is lost. Invariants:
as long as any node answers, the session is connected; the map is asked for a few times a second
at most, however many find it wanting; a node of another cluster is not talked to, unless it
answers where the caller said that one is and no other node does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ssgovern.client.addresses import Address
from ssgovern.client.claims import SPREAD_S, Claims
from ssgovern.client.feeds import Feeder
from ssgovern.client.holdings import Holdings
from ssgovern.client.links import Link, Links, decode_or_give_up
from ssgovern.client.shard_map import MAP_GAP, ClientMap, MapChange, MapGap
from ssgovern.client.spread import Spread
from ssgovern.client.values import ConnectionState
from ssgovern.client.watches import REBALANCE_FIRST_S, REBALANCE_LAST_S, Watches
from ssgovern.errors import (
    SsGovernError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.model import NodeId, ServiceKey, shard_of
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

GOODBYE_TIMEOUT_S = 1.0
MAP_TIMEOUT_S = 1.0
MAP_PAUSE_S = 0.2


class Nodes:
    """Owner of the links, host of the watches."""

    def __init__(
        self,
        addresses: Sequence[Address],
        hello: native_pb2.HelloRequest,
        *,
        runtime: Runtime,
        holdings: Callable[[], Holdings],
        watches: Watches,
        on_state: Callable[[ConnectionState], None],
        tls: TlsDialler | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._runtime = runtime
        self._holdings_of = holdings
        self._watches = watches
        self._on_state = on_state
        self.map = ClientMap()
        self.spread = Spread(hello.session_id, self.map)
        self.links = Links(hello, runtime, self, tls)
        self._claims = Claims(holdings, self.map, runtime, self.want_map)
        self.home: Link | None = None
        self.refused = ""
        """Why the last node that was dialled knows nobody by the token."""
        """Where the map comes from, and what is the same at all nodes is asked."""
        self.changed = asyncio.Event()
        """Set while there is something to see for those who wait for a connection."""
        self.news = asyncio.Event()
        """Set, and replaced, when the map changes."""
        self._map_wanted = asyncio.Event()
        self._closed = False
        self.state = ConnectionState(connected=False, since=self._now())
        watches.bind(self)

    def __repr__(self) -> str:
        return f"<Nodes {self.map!r} home={self.home!r}>"

    # --- the map ---------------------------------------------------------------------------

    def want_map(self) -> None:
        """Have the map looked at soon."""
        self._map_wanted.set()

    async def _keep_map(self) -> None:
        """Ask for the map when somebody misses something in it.

        Whoever says that it has a newer one is asked first, then home; after an answer that
        was of no use the next node, because home may be cut off from what happens.
        """
        turn = 0
        while not self._closed:
            await self._map_wanted.wait()
            self._map_wanted.clear()
            ready = self.links.ready()
            version = self.map.version
            if ready and (not self.map.is_single or not version):
                ready.sort(key=self._map_order)
                link = ready[0 if ready[0].map_version > version else turn % len(ready)]
                channel = link.channel
                assert channel is not None, "just found ready"
                try:
                    await self._fetch_map(link, channel, follow=link is self.home)
                except SsGovernError as error:
                    _logger.info("no shard map from %s: %s", link.name, error)
                    link.map_version = 0
                turn = 0 if self.map.version > version else turn + 1
            await asyncio.sleep(MAP_PAUSE_S)

    def _map_order(self, link: Link) -> tuple[int, bool]:
        newer = max(0, link.map_version - self.map.version)
        return -newer, link is not self.home

    async def _fetch_map(self, link: Link, channel: Channel, *, follow: bool) -> None:
        """Ask a node for what changed in the map, or for all of it."""
        known = self.map.version
        while True:
            request = native_pb2.ShardMapRequest(known_version=known, follow=follow)
            deadline = asyncio.get_running_loop().time() + MAP_TIMEOUT_S
            try:
                body = await channel.request(MessageType.SHARD_MAP, encode(request), deadline)
            except UnsupportedTypeError:
                self._assume_single(link)
                return
            link.follows = link.follows or follow
            update = decode_or_give_up(channel, native_pb2.ShardMapUpdate, body)
            if not update.rows and not known and not self.map.version:
                # A node that stands alone, or one of a cluster that has yet to be founded: it
                # will say so itself.
                self._assume_single(link)
                return
            outcome = self._take_update(link, update)
            if outcome is not MAP_GAP or not known:
                return
            known = 0

    def _assume_single(self, link: Link) -> None:
        assert link.address is not None, "it has just answered there"
        self._on_map_change(self.map.assume_single(link.node_id, link.name, link.address))

    def _take_update(self, link: Link, update: native_pb2.ShardMapUpdate) -> MapChange | MapGap:
        assert link.address is not None, "it has just answered there"
        link.map_version = update.version
        outcome = self.map.apply(update, link.address)
        self._watches.on_cluster(self.map.cluster_id)
        if outcome is not MAP_GAP:
            self._on_map_change(outcome)
        return outcome

    def _on_map_change(self, change: MapChange) -> None:
        if not change:
            return
        if self._claims.on_led(change.led):
            self._see_to_claims()
        self._watches.on_map(None if change.nodes else dict.fromkeys(change.rows))
        self.news.set()
        self.news = asyncio.Event()
        self.changed.set()

    def _see_to_claims(self) -> None:
        """Have connections to all nodes where something is due, though not all at once."""
        for node in dict.fromkeys(map(self.map.primary_of, self._holdings_of().shards())):
            if node:
                link = self.links.of(node)
                self.links.ensure(link, within_s=SPREAD_S)
                if self._claims.due_at(link):
                    link.leads.set()
                    link.claims_due.set()

    def on_registered(self, key: ServiceKey, epoch: int) -> None:
        """Take that something was committed in an epoch; if it has ended since, claim it."""
        if not self.map.is_single:
            shard = shard_of(*key)
            row = self.map.rows.get(shard)
            if row is not None and epoch < row.epoch and self._claims.on_led([shard]):
                self._see_to_claims()

    # --- LinkOwner and FeederHost ----------------------------------------------------------

    def is_needed(self, link: Link) -> bool:
        """Tell whether a connection to a node is to be had at present."""
        return (
            link.waiting > 0
            or link.feeder.is_wanted
            or self._claims.holds_at(link)
            # An idle connection is not let go while the node may know more than we do.
            or (link.channel is not None and link.map_version > self.map.version)
        )

    def addresses_of(self, link: Link) -> list[Address]:
        """Return where a node may be reached: where it says, and where it last answered."""
        told = self.map.address_of(link.node_id)
        found = [address for address in (told, link.address) if address is not None]
        return list(dict.fromkeys(found)) or list(self._addresses)

    def known_addresses(self) -> list[Address]:
        """Return all addresses at which a node of the cluster may be."""
        return list(dict.fromkeys([*self._addresses, *self.map.addresses()]))

    def feeder_for(self, node_id: NodeId) -> Feeder:
        """Return the feeder of a node that was not known before."""
        return Feeder(node_id, self._watches, self._runtime)

    def feeder_of(self, node: NodeId) -> Feeder:
        """Return a node's feeder, to which a feed is added in this turn of the loop."""
        link = self.links.of(node)
        # The task looks in its first turn whether it is needed: it will be.
        self.links.ensure(link)
        return link.feeder

    def on_hello(self, link: Link, address: Address, hello: native_pb2.HelloResponse) -> None:
        """See whether a node is of our cluster. Raises UnavailableError if it is not."""
        self.refused = ""
        ours = self.map.cluster_id
        if not hello.cluster_id:
            # Of a cluster that has yet to be founded, or that it has yet to hear of.
            return
        if ours and hello.cluster_id != ours:
            alone = not self.links.open_channels()
            if not alone or address not in self._addresses:
                raise UnavailableError(
                    f"{address} is of another cluster, {hello.cluster_id.hex()}, than the nodes "
                    f"this client talked to, {ours.hex()}"
                )
            _logger.warning("%s is of another cluster now: starting over", address)
            self.map.start_over(hello.cluster_id)
            # A node made from a backup knows sessions, but not all that they registered since.
            for each in self.links.by_node.values():
                each.unsure = True
        self.map.cluster_id = hello.cluster_id
        self._watches.on_cluster(hello.cluster_id)

    async def prepare(self, link: Link, channel: Channel, hello: native_pb2.HelloResponse) -> None:
        """Know the map, and have the node know what is held, before requests are sent."""
        home = self.home
        if home is None or not self.map or hello.map_version > self.map.version:
            await self._fetch_map(link, channel, follow=home is None)
        # One of several may have ended the session in a shard and know it again by another.
        if link.unsure or not self.map.is_single:
            await self._claims.restore(link, channel, resumed=hello.resumed)

    def on_ready(self, link: Link) -> None:
        """Take up what waits for a node."""
        if self.home is None:
            self._make_home(link)
        link.reason = ""
        link.feeder.on_connected()
        if self._claims.due_at(link):
            link.claims_due.set()
        self.changed.set()

    async def attend(self, link: Link, channel: Channel) -> None:
        """Follow lists and claim shards as long as there is a connection."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claims.run(link, channel))
            await link.feeder.run(channel)

    def on_lost(self, link: Link, address: Address, cause: SsGovernError | None) -> None:
        """Go on without a node."""
        link.reason = "not needed" if cause is None else str(cause)
        if self.home is link:
            self.home = None
            if ready := self.links.ready():
                self._make_home(self.spread_best(ready))
        if cause is not None:
            self._leave_out(link)
        else:
            self._watches.on_node_lost(link.feeder)
        self._note_disconnected(address, cause)
        if self.is_needed(link):
            self.links.ensure(link)
        self.changed.set()

    def on_unreachable(self, link: Link | None, address: Address, cause: SsGovernError) -> None:
        """Try elsewhere."""
        if isinstance(cause, UnauthenticatedError):
            self.refused = cause.message
            self.changed.set()
        if link is not None:
            known = link.reason == str(cause)
            link.reason = str(cause)
            self._leave_out(link)
            if known and self.home is not None:
                return
        self._note_disconnected(address, cause)

    def on_push(self, link: Link, type_: int, body: bytes) -> None:
        """Take what a node pushed."""
        if type_ == MessageType.SHARD_MAP:
            outcome = self._take_update(link, decode(native_pb2.ShardMapUpdate, body))
            if outcome is MAP_GAP:
                self.want_map()
        elif type_ == MessageType.APPLIED:
            # The node asks: somebody waits for it.
            now_s = asyncio.get_running_loop().time()
            if link.open is not None and (frames := link.feeder.applied.take_all(now_s)):
                link.open.send(frames)
        else:
            self._watches.on_push(link.feeder, type_, body)

    def on_map_version(self, link: Link, version: int) -> None:
        """Have a newer map fetched."""
        if version > self.map.version and not self.map.is_single:
            self.want_map()

    def spread_best(self, links: list[Link]) -> Link:
        """Return the link this client likes best: the one its lists come from, probably."""
        best = self.spread.best([link.node_id for link in links])
        return next(link for link in links if link.node_id == best)

    def _leave_out(self, link: Link) -> None:
        rng = self._runtime.rng
        now_s = asyncio.get_running_loop().time()
        self.spread.avoid(
            link.node_id, now_s, now_s + rng.uniform(REBALANCE_FIRST_S, REBALANCE_LAST_S)
        )
        if not self._closed:
            self._watches.on_node_lost(link.feeder)
            self.want_map()

    # --- state and upkeep ------------------------------------------------------------------

    async def run(self) -> None:
        """Keep connections until `close`."""
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep_map(), name="ssgovern shard map")
            await self.links.run(group)
            keeping.cancel()

    def _make_home(self, link: Link) -> None:
        self.home = link
        was = self.state
        self.state = ConnectionState(
            connected=True,
            since=was.since if was.connected else self._now(),
            node_name=link.name,
            address=str(link.address),
        )
        if not link.follows:
            self.want_map()
        self._announce(was)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._runtime.wall_ms() / 1000.0, UTC)

    def _note_disconnected(self, address: Address, cause: SsGovernError | None) -> None:
        reason = str(cause) if cause is not None else "closed"
        was = self.state
        if self.home is not None:
            if cause is not None and not self._closed:
                _logger.info("no connection to %s: %s", address, reason)
            return
        if was.connected and not self._closed:
            _logger.warning("connection to %s lost: %s", address, reason)
        elif was.reason != reason:
            _logger.info("no connection to %s: %s", address, reason)
        self.state = ConnectionState(
            connected=False,
            since=self._now() if was.connected else was.since,
            node_name=was.node_name,
            address=str(address),
            reason=reason,
        )
        self._announce(was)

    def _announce(self, was: ConnectionState) -> None:
        if self.state != was:
            self.changed.set()
            self._on_state(self.state)

    # --- the end ---------------------------------------------------------------------------

    async def say_goodbye(self) -> None:
        """End the session at all nodes, so that what it registered goes at once. Never raises."""
        deadline = asyncio.get_running_loop().time() + GOODBYE_TIMEOUT_S
        body = encode(native_pb2.GoodbyeRequest())
        answers = [
            channel.send_request(MessageType.GOODBYE, body, deadline)
            for channel in self.links.open_channels()
        ]
        for answer in answers:
            try:
                await answer
            except SsGovernError as error:
                _logger.info("no goodbye, the session will expire: %s", error)

    def close(self, error: SsGovernError) -> None:
        """Refuse what waits and what comes; `run` ends by itself or may be cancelled."""
        self._closed = True
        self.links.close(error)
        self._map_wanted.set()
        self.news.set()
        self.changed.set()
