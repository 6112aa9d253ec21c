"""What the client wants to be told, and what it has been told.

A watch is one standing question, shared by all readers in this process that ask the same; a
view is what is known of one service, shared by all watches that cover it; where a watch's
shards are subscribed to, its feeds, is decided here. Knows no dialling and no session.

Invariants: a view outlives every connection and never goes back (`ServiceView`); a shard's feed
is replaced only by one that is current, so a move is not seen; a node is left at once if it is
lost, no longer keeps the shard or is not in sync, and for the sake of balance only after a
pause drawn by lot; a watch is current while each of its shards has a current feed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from typing import Protocol, TypeAlias

from ssgovern.client.cache import Cache, CachedList
from ssgovern.client.feeds import Feed, Feeder
from ssgovern.client.shard_map import ClientMap
from ssgovern.client.spread import Spread
from ssgovern.client.values import Change
from ssgovern.client.view import GAP, Gap, ServiceView
from ssgovern.errors import ClosedError, RemoteProtocolError, SsGovernError
from ssgovern.model import (
    ORIGIN,
    SHARDS,
    LogPosition,
    NodeId,
    Pattern,
    ServiceKey,
    ShardId,
    shard_of,
)
from ssgovern.runtime import Runtime
from ssgovern.wire.codec import decode, instance_from_wire, key_from_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

_logger = logging.getLogger("ssgovern.client")

Target: TypeAlias = ServiceKey | Pattern

KNOWN_BYTES_MAX = 512 << 10
"""What is told of known positions in one request; the rest is read one by one."""
REBALANCE_FIRST_S = 5.0
REBALANCE_LAST_S = 30.0
"""When a client goes back to a node that returned: not when all others do."""


class Reader(Protocol):
    """One who reads the changes of a watch."""

    def on_change(self, change: Change) -> None:
        """Take one change; called in their order."""

    def on_ended(self) -> None:
        """The watch failed or the client was closed."""


class FeederHost(Protocol):
    """Who knows nodes."""

    @property
    def map(self) -> ClientMap:
        """The shard map."""

    @property
    def spread(self) -> Spread:
        """Which nodes to read from."""

    def feeder_of(self, node: NodeId) -> Feeder:
        """Return a node's feeder and see to it that there is a connection."""

    def want_map(self) -> None:
        """Have the shard map looked at soon."""


class Watch:
    """One standing question, shared by its readers."""

    __slots__ = (
        "_was_whole",
        "coming",
        "error",
        "readers",
        "serving",
        "settled",
        "shards",
        "stale_since_ms",
        "target",
        "views",
    )

    def __init__(self, target: Target, now_ms: int) -> None:
        self.target = target
        self.views: dict[ServiceKey, ServiceView] = {}
        self.shards = (
            [ShardId(number) for number in range(SHARDS)]
            if isinstance(target, Pattern)
            else [shard_of(*target)]
        )
        self.serving: dict[ShardId, Feed] = {}
        """The feed each shard relies on."""
        self.coming: dict[ShardId, Feed] = {}
        """The feed that is to take over when it is current."""
        self.readers: list[Reader] = []
        self.stale_since_ms: int | None = now_ms
        self.error: SsGovernError | None = None
        self._was_whole = False
        self.settled = asyncio.Event()
        """Set while the watch is current, and for good once it failed."""

    def __repr__(self) -> str:
        state = "current" if self.is_current else f"stale since {self.stale_since_ms}"
        return f"<Watch {self.target} {state} readers={len(self.readers)}>"

    @property
    def is_current(self) -> bool:
        """Whether nodes keep the views up to date at present."""
        return self.stale_since_ms is None

    @property
    def is_fed(self) -> bool:
        """Whether every shard has a current feed."""
        fed = dict.fromkeys(self.serving.values())
        return len(self.serving) == len(self.shards) and all(feed.is_current for feed in fed)

    def feeds(self) -> list[Feed]:
        """Return all feeds, each once."""
        return list(dict.fromkeys([*self.serving.values(), *self.coming.values()]))

    def feeds_of(self, shard: ShardId) -> list[Feed]:
        """Return the feeds of a shard: none, one or two."""
        found = (self.serving.get(shard), self.coming.get(shard))
        return [feed for feed in found if feed is not None]

    @property
    def is_loaded(self) -> bool:
        """Whether there is a list to show, current or not.

        Of a pattern: what other watches know of some of its services is not a list of all.
        """
        if isinstance(self.target, Pattern):
            return self._was_whole
        return any(view.loaded for view in self.views.values())

    def start_from_kept(self) -> None:
        """Take that lists kept on disk are as good as there is."""
        self._was_whole = True

    def became_current(self) -> None:
        self.stale_since_ms = None
        self._was_whole = True
        self.settled.set()

    def became_stale(self, now_ms: int) -> None:
        if self.stale_since_ms is None:
            self.stale_since_ms = now_ms
            self.settled.clear()

    def fail(self, error: SsGovernError) -> None:
        self.error = error
        self.settled.set()
        for reader in self.readers:
            reader.on_ended()


class _Entry:
    """A view with the watches that cover it and the cluster its position is of."""

    __slots__ = ("cluster_id", "kept", "shard", "view", "watches")

    def __init__(self, view: ServiceView, cluster_id: bytes) -> None:
        self.view = view
        self.shard = shard_of(*view.key)
        self.cluster_id = cluster_id
        self.watches: list[Watch] = []
        self.kept = False
        """Whether the list, or an older one, is on disk or about to be."""


class Watches:
    """All watches of a client."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.cache: Cache | None = None
        self._host: FeederHost | None = None
        self._watches: dict[Target, Watch] = {}
        self._patterns: dict[Pattern, Watch] = {}
        self._entries: dict[ServiceKey, _Entry] = {}
        self._rebalancing: asyncio.TimerHandle | None = None
        self._cluster_id = b""
        self._closed: SsGovernError | None = None

    def __repr__(self) -> str:
        return f"<Watches {len(self._watches)} services={len(self._entries)}>"

    def bind(self, host: FeederHost) -> None:
        """Name who knows nodes. Once, before anything is watched."""
        self._host = host

    # --- readers ---------------------------------------------------------------------------

    def open(self, target: Target, reader: Reader) -> Watch:
        """Return the watch of a target, with one more reader."""
        if self._closed is not None:
            raise ClosedError(self._closed.message)
        watch = self._watches.get(target)
        if watch is None:
            watch = self._watches[target] = Watch(target, self._runtime.wall_ms())
            if isinstance(target, Pattern):
                self._patterns[target] = watch
                for key, entry in self._entries.items():
                    if target.matches(key):
                        self._cover(entry, watch)
            else:
                self._cover(self._entry(target), watch)
            self._load(watch)
            self._place(watch)
        watch.readers.append(reader)
        return watch

    def release(self, watch: Watch, reader: Reader) -> None:
        """Take a reader away; the last one ends the watch."""
        watch.readers.remove(reader)
        if watch.readers or self._closed is not None or watch.error is not None:
            return
        self._drop(watch)

    def close(self, error: SsGovernError) -> None:
        """End all watches. Their lists stay readable."""
        self._closed = error
        if self._rebalancing is not None:
            self._rebalancing.cancel()
        now_ms = self._runtime.wall_ms()
        for watch in self._watches.values():
            watch.became_stale(now_ms)
            watch.fail(error)

    def _entry(self, key: ServiceKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(ServiceView(key), self._cluster_id)
            for pattern, watch in self._patterns.items():
                if pattern.matches(key):
                    self._cover(entry, watch)
        return entry

    def _cover(self, entry: _Entry, watch: Watch) -> None:
        entry.watches.append(watch)
        watch.views[entry.view.key] = entry.view

    def _drop(self, watch: Watch) -> None:
        for feed in watch.feeds():
            feed.feeder.remove(feed)
        if self._watches.get(watch.target) is not watch:
            return
        del self._watches[watch.target]
        if isinstance(watch.target, Pattern):
            del self._patterns[watch.target]
        for key in watch.views:
            entry = self._entries[key]
            entry.watches.remove(watch)
            if not entry.watches:
                del self._entries[key]

    def _load(self, watch: Watch) -> None:
        if self.cache is None:
            return
        if isinstance(watch.target, Pattern):
            for kept in self.cache.load_matching(watch.target):
                watch.start_from_kept()
                self._restore(kept, watch)
        elif not self._entries[watch.target].view.loaded:
            kept_one = self.cache.load(watch.target)
            if kept_one is not None:
                self._restore(kept_one, watch)

    def _restore(self, kept: CachedList, watch: Watch) -> None:
        entry = self._entry(kept.key)
        if not entry.view.loaded:
            same = not self._cluster_id or kept.cluster_id == self._cluster_id
            entry.view.restore(kept.position if same else ORIGIN, kept.instances)
            entry.cluster_id = kept.cluster_id
            entry.kept = True
            watch.stale_since_ms = min(kept.written_at_ms, watch.stale_since_ms or 0)

    # --- where it comes from ---------------------------------------------------------------

    def on_cluster(self, cluster_id: bytes) -> None:
        """A node answered and says whose it is: another cluster's positions mean nothing."""
        if cluster_id == self._cluster_id:
            return
        self._cluster_id = cluster_id
        for entry in self._entries.values():
            if entry.cluster_id and entry.cluster_id != cluster_id:
                entry.view.forget_position()
            entry.cluster_id = cluster_id

    def on_map(self, changed: Container[ShardId] | None) -> None:
        """The map changed, in these rows or in what nodes are there (None)."""
        for watch in self._watches.values():
            if changed is None or any(shard in changed for shard in watch.shards):
                self._place(watch)

    def on_node_lost(self, feeder: Feeder) -> None:
        """A node is not to be had: its lists are stale, and are to come from elsewhere."""
        feeder.on_disconnected()
        now_ms = self._runtime.wall_ms()
        for watch in dict.fromkeys(feed.watch for feed in feeder.feeds):
            self._refresh(watch, now_ms)
            self._place(watch)
        self.rebalance_later()

    def rebalance(self) -> None:
        """Go where every shard is best read from."""
        self._rebalancing = None
        if self._closed is None:
            for watch in self._watches.values():
                self._place(watch, at_will=True)
            self.rebalance_later()

    def rebalance_later(self) -> None:
        """Go back some time if a node is left out for now."""
        now_s = asyncio.get_running_loop().time()
        host = self._host
        if host is None or host.map.is_single or not self._watches:
            return
        if host.spread.avoids_any(now_s):
            self._schedule()

    def _place(self, watch: Watch, *, at_will: bool = False) -> None:
        """Subscribe to each shard where it should be; keep what serves until then."""
        host = self._host
        if host is None or not host.map or watch.error is not None:
            return
        now_s = asyncio.get_running_loop().time()
        spread = host.spread
        wanted: dict[NodeId, list[ShardId]] = {}
        for shard in watch.shards:
            node = spread.holder(shard, now_s)
            feed = watch.coming.get(shard) or watch.serving.get(shard)
            if not node or (feed is not None and feed.feeder.node_id == node):
                continue
            if feed is not None and not at_will:
                present = feed.feeder.node_id
                if feed.wanted and spread.is_good(shard, present, now_s):
                    self._schedule()
                    continue
            wanted.setdefault(node, []).append(shard)
        for node, shards in wanted.items():
            self._move(watch, host.feeder_of(node), shards)

    def _move(self, watch: Watch, feeder: Feeder, shards: list[ShardId]) -> None:
        moved: list[ShardId] = []
        for shard in shards:
            self._relieve(watch.coming.pop(shard, None), shard)
            serving = watch.serving.get(shard)
            if serving is None or serving.feeder is not feeder:
                moved.append(shard)
        if moved:
            feed = Feed(watch, feeder, moved)
            watch.coming.update(dict.fromkeys(moved, feed))
            feeder.add(feed)

    def _relieve(self, feed: Feed | None, shard: ShardId) -> None:
        """Rely on a feed for a shard no more; one that is relied on for none ends."""
        if feed is not None:
            feed.shards.pop(shard, None)
            if not feed.shards:
                feed.feeder.remove(feed)

    def _schedule(self) -> None:
        if self._rebalancing is None:
            pause_s = self._runtime.rng.uniform(REBALANCE_FIRST_S, REBALANCE_LAST_S)
            loop = asyncio.get_running_loop()
            self._rebalancing = loop.call_later(pause_s, self.rebalance)

    def _refresh(self, watch: Watch, now_ms: int) -> None:
        if watch.is_fed:
            watch.became_current()
        else:
            watch.became_stale(now_ms)

    # --- FeedOwner -------------------------------------------------------------------------

    @property
    def is_single(self) -> bool:
        """Whether there is one node, which needs no mask."""
        return self._host is None or self._host.map.is_single

    def on_settled(self, feed: Feed) -> None:
        """Rely on a feed: the node has told all of it."""
        feed.is_current = True
        watch = feed.watch
        for shard in feed.shards:
            if watch.coming.get(shard) is feed:
                del watch.coming[shard]
                self._relieve(watch.serving.get(shard), shard)
                watch.serving[shard] = feed
        self._refresh(watch, self._runtime.wall_ms())

    def on_moved(self, feed: Feed) -> None:
        """Look at the map: a node does not keep what we thought it does."""
        self._refresh(feed.watch, self._runtime.wall_ms())
        if self._host is not None:
            self._host.want_map()

    def on_refused(self, feed: Feed, error: SsGovernError) -> None:
        """End a watch that a node refuses for good."""
        watch = feed.watch
        _logger.warning("subscription to %s was refused: %s", watch.target, error)
        self._drop(watch)
        watch.fail(error)

    def on_read(self, feeder: Feeder, key: ServiceKey, answer: native_pb2.GetResponse) -> None:
        """Take a list that was asked for."""
        position = LogPosition(answer.epoch, answer.revision)
        entry = self._entries.get(key)
        if entry is not None:
            instances = map(instance_from_wire, answer.instances)
            self._tell(feeder, entry, entry.view.on_snapshot(position, instances), position)

    def loaded_of(self, feed: Feed) -> list[ServiceKey]:
        """Return the services of a feed of which there is a list."""
        views = feed.watch.views
        return [key for key, view in views.items() if view.loaded and shard_of(*key) in feed.shards]

    def known_of(self, feed: Feed) -> tuple[list[native_pb2.KnownService], list[ServiceKey]]:
        """Return the positions to name in a subscription, and the services that do not fit.

        For a pattern a service without a position is named too: the node then tells its list
        even if it is empty by now, which a pattern alone would not.
        """
        named: list[native_pb2.KnownService] = []
        left_out: list[ServiceKey] = []
        named_bytes = 0
        for key in self.loaded_of(feed):
            position = feed.watch.views[key].known
            if position == ORIGIN and not isinstance(feed.watch.target, Pattern):
                continue
            known = native_pb2.KnownService(
                service=key_to_wire(key), epoch=position.epoch, revision=position.revision
            )
            named_bytes += known.ByteSize() + 4
            if named_bytes > KNOWN_BYTES_MAX:
                left_out.append(key)
            else:
                named.append(known)
        return named, left_out

    # --- pushes ----------------------------------------------------------------------------

    def on_push(self, feeder: Feeder, type_: int, body: bytes) -> None:
        """Take what a node pushed. A type this version does not know is skipped."""
        try:
            if type_ == MessageType.DELTA:
                self._on_delta(feeder, decode(native_pb2.Delta, body))
            elif type_ == MessageType.SNAPSHOT:
                self._on_snapshot(feeder, decode(native_pb2.Snapshot, body))
            elif type_ == MessageType.CURRENT:
                self._on_current(feeder, decode(native_pb2.Current, body))
        except SsGovernError as error:
            raise RemoteProtocolError(f"a push makes no sense: {error}") from None

    def _on_snapshot(self, feeder: Feeder, push: native_pb2.Snapshot) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            position = LogPosition(push.epoch, push.revision)
            outcome = entry.view.on_snapshot(position, map(instance_from_wire, push.instances))
            self._tell(feeder, entry, outcome, position)

    def _on_delta(self, feeder: Feeder, push: native_pb2.Delta) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            position = LogPosition(push.epoch, push.revision)
            upserted = map(instance_from_wire, push.upserted)
            outcome = entry.view.on_delta(push.since, position, upserted, push.removed)
            self._tell(feeder, entry, outcome, position)

    def _on_current(self, feeder: Feeder, push: native_pb2.Current) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            position = LogPosition(push.epoch, push.revision)
            self._tell(feeder, entry, entry.view.on_current(position), position)

    def _wanted(self, wire_key: model_pb2.ServiceKey) -> _Entry | None:
        key = key_from_wire(wire_key)
        entry = self._entries.get(key)
        if entry is None and any(pattern.matches(key) for pattern in self._patterns):
            entry = self._entry(key)
        # None: told before the node learnt that we no longer listen.
        return entry

    def _tell(
        self, feeder: Feeder, entry: _Entry, outcome: Change | Gap | None, position: LogPosition
    ) -> None:
        view = entry.view
        if feeder.applied.is_wanted:
            feeder.applied.note(view, asyncio.get_running_loop().time())
        if outcome is GAP:
            self._repair(entry)
        elif not view.has_gap:
            for watch in entry.watches:
                for feed in watch.feeds_of(entry.shard):
                    if feed.feeder is feeder and not feed.is_current:
                        feed.on_told(view.key, entry.shard, position, view.position)
                        if feed.is_settled:
                            self.on_settled(feed)
        if isinstance(outcome, Change):
            for watch in entry.watches:
                for reader in watch.readers:
                    reader.on_change(outcome)
        if (
            self.cache is not None
            and view.loaded
            and (isinstance(outcome, Change) or not entry.kept)
        ):
            entry.kept = True
            self.cache.mark(view, self._cluster_id)

    def _repair(self, entry: _Entry) -> None:
        """Ask anew wherever a list comes from of which something is missing."""
        _logger.info("%s: a change is missing, asking for the whole list", entry.view.key)
        now_ms = self._runtime.wall_ms()
        for watch in entry.watches:
            for feed in watch.feeds_of(entry.shard):
                feed.is_current = False
                feed.feeder.ask(feed)
            watch.became_stale(now_ms)
