"""What the client wants to be told, and what it has been told.

A watch is one subscription at the node, shared by all readers in this process that want the
same; a view is what is known of one service, shared by all watches that cover it. Knows no
dialling and no session. Invariants: a view outlives every connection; a watch is asked for
again on each new connection from the positions its views have; nothing is waited for here
without a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple, Protocol, TypeAlias

from ssgovern.client.backoff import Backoff
from ssgovern.client.cache import Cache, CachedList
from ssgovern.client.values import Change
from ssgovern.client.view import GAP, Gap, ServiceView
from ssgovern.errors import ClosedError, RemoteProtocolError, Retry, SsGovernError
from ssgovern.model import ORIGIN, LogPosition, Pattern, ServiceKey
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel
from ssgovern.wire.codec import (
    decode,
    encode,
    instance_from_wire,
    key_from_wire,
    key_to_wire,
    pattern_to_wire,
)
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

_logger = logging.getLogger("ssgovern.client")

Target: TypeAlias = ServiceKey | Pattern

ANSWER_TIMEOUT_S = 10.0
PIPELINED_MAX = 64
"""Subscriptions asked for before the first is answered."""
KNOWN_BYTES_MAX = 512 << 10
"""What is told of known positions in one request; the rest is read one by one."""


class Reader(Protocol):
    """One who reads the changes of a watch."""

    def on_change(self, change: Change) -> None:
        """Take one change; called in their order."""

    def on_ended(self) -> None:
        """The watch failed or the client was closed."""


class Watch:
    """One subscription, shared by its readers."""

    __slots__ = (
        "_was_whole",
        "awaited",
        "error",
        "readers",
        "settled",
        "stale_since_ms",
        "subscription_id",
        "target",
        "views",
    )

    def __init__(self, target: Target, now_ms: int) -> None:
        self.target = target
        self.views: dict[ServiceKey, ServiceView] = {}
        self.awaited: dict[ServiceKey, None] = {}
        """Services of a pattern that the node has yet to tell before the whole is current."""
        self.readers: list[Reader] = []
        self.subscription_id: int | None = None
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
        """Whether the node keeps the views up to date at present."""
        return self.stale_since_ms is None

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

    __slots__ = ("cluster_id", "kept", "told_on", "view", "watches")

    def __init__(self, view: ServiceView, cluster_id: bytes) -> None:
        self.view = view
        self.cluster_id = cluster_id
        self.watches: list[Watch] = []
        self.kept = False
        """Whether the list, or an older one, is on disk or about to be."""
        self.told_on = 0
        """The connection on which the node last told something of it."""


class _Asked(NamedTuple):
    """A subscription that waits for its answer."""

    watch: Watch
    answer: asyncio.Future[bytes]
    left_out: list[ServiceKey]


class Watches:
    """All watches of a client."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.cache: Cache | None = None
        self._watches: dict[Target, Watch] = {}
        self._entries: dict[ServiceKey, _Entry] = {}
        self._dirty: dict[Watch, None] = {}
        """Those for which something is to be asked of the node."""
        self._wakeup = asyncio.Event()
        self._cluster_id = b""
        self._connections = 0
        self._closed: SsGovernError | None = None

    def __repr__(self) -> str:
        return f"<Watches {len(self._watches)} services={len(self._entries)}>"

    # --- readers ---------------------------------------------------------------------------

    def open(self, target: Target, reader: Reader) -> Watch:
        """Return the watch of a target, with one more reader."""
        if self._closed is not None:
            raise ClosedError(self._closed.message)
        watch = self._watches.get(target)
        if watch is None:
            watch = self._watches[target] = Watch(target, self._runtime.wall_ms())
            if isinstance(target, Pattern):
                for key, entry in self._entries.items():
                    if target.matches(key):
                        self._cover(entry, watch)
            else:
                self._cover(self._entry(target), watch)
            self._load(watch)
            self._mark(watch)
        watch.readers.append(reader)
        return watch

    def release(self, watch: Watch, reader: Reader) -> None:
        """Take a reader away; the last one ends the watch."""
        watch.readers.remove(reader)
        if watch.readers or self._closed is not None or watch.error is not None:
            return
        if watch.subscription_id is None and watch in self._dirty:
            # Nothing was asked of the node yet, or it is to be asked anew.
            self._drop(watch)
        else:
            self._mark(watch)

    def close(self, error: SsGovernError) -> None:
        """End all watches. Their lists stay readable."""
        self._closed = error
        self.on_disconnected()
        for watch in self._watches.values():
            watch.fail(error)

    def _entry(self, key: ServiceKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(ServiceView(key), self._cluster_id)
            for watch in self._watches.values():
                if isinstance(watch.target, Pattern) and watch.target.matches(key):
                    self._cover(entry, watch)
        return entry

    def _cover(self, entry: _Entry, watch: Watch) -> None:
        entry.watches.append(watch)
        watch.views[entry.view.key] = entry.view

    def _drop(self, watch: Watch) -> None:
        self._dirty.pop(watch, None)
        if self._watches.get(watch.target) is not watch:
            return
        del self._watches[watch.target]
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

    # --- the connection --------------------------------------------------------------------

    def on_connected(self, cluster_id: bytes) -> None:
        """A node answered: its pushes are about to come, and everything is to be asked for."""
        self._cluster_id = cluster_id
        self._connections += 1
        for entry in self._entries.values():
            if entry.cluster_id and entry.cluster_id != cluster_id:
                entry.view.forget_position()
            entry.cluster_id = cluster_id
        for watch in self._watches.values():
            self._mark(watch)

    def on_disconnected(self) -> None:
        """The connection is gone; the lists stay."""
        now_ms = self._runtime.wall_ms()
        self._dirty.clear()
        for watch in list(self._watches.values()):
            watch.subscription_id = None
            watch.awaited.clear()
            watch.became_stale(now_ms)
            if not watch.readers:
                self._drop(watch)
        self._dirty.update((watch, None) for watch in self._watches.values())

    async def run(self, channel: Channel) -> None:
        """Keep the node's subscriptions equal to what is wanted, on one connection.

        Ends only by cancellation or by raising the error that makes the connection useless.
        """
        backoff = Backoff(self._runtime.rng, first_s=0.1, most_s=5.0)
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            refused: list[Watch] = []
            while self._dirty:
                asked: list[_Asked] = []
                for watch in list(self._dirty)[:PIPELINED_MAX]:
                    del self._dirty[watch]
                    sent = self._ask(channel, watch)
                    asked += [] if sent is None else [sent]
                refused += [
                    each.watch for each in asked if not await self._on_answer(channel, each)
                ]
            if refused:
                await channel.wait_lost(backoff.next_pause_s())
                for watch in refused:
                    self._mark(watch)
            else:
                backoff.reset()

    def _mark(self, watch: Watch) -> None:
        self._dirty[watch] = None
        self._wakeup.set()

    def _ask(self, channel: Channel, watch: Watch) -> _Asked | None:
        """Send what has to be asked for a watch; return its subscription, if it is wanted."""
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        if watch.subscription_id is not None:
            # Asked for again after a gap, or not wanted any more: the old one goes first.
            gone = native_pb2.UnsubscribeRequest(subscription_id=watch.subscription_id)
            watch.subscription_id = None
            channel.send_request(MessageType.UNSUBSCRIBE, encode(gone), deadline)
        if not watch.readers:
            self._drop(watch)
            return None
        request = native_pb2.SubscribeRequest()
        if isinstance(watch.target, Pattern):
            request.pattern.CopyFrom(pattern_to_wire(watch.target))
        else:
            request.service.CopyFrom(key_to_wire(watch.target))
        known, left_out = _known_of(watch)
        request.known.extend(known)
        answer = channel.send_request(MessageType.SUBSCRIBE, encode(request), deadline)
        return _Asked(watch, answer, left_out)

    async def _on_answer(self, channel: Channel, asked: _Asked) -> bool:
        """Take the answer to a subscription; return False if it is to be asked for later."""
        watch = asked.watch
        try:
            response = decode(native_pb2.SubscribeResponse, await asked.answer)
        except SsGovernError as error:
            if error.retry is Retry.SAME_NODE:
                return False
            if error.retry is Retry.AFTER_REFRESH:
                raise
            _logger.warning("subscription to %s was refused: %s", watch.target, error)
            self._drop(watch)
            watch.fail(error)
            return True
        watch.subscription_id = response.subscription_id
        if not watch.readers:
            self._mark(watch)
        for key in asked.left_out:
            await self._read(channel, key)
        if isinstance(watch.target, Pattern):
            # The node tells services one by one and does not say when it is through; it does
            # say which there are. Those it told meanwhile are not waited for.
            listed = await self._list(channel, watch.target)
            # What was never told and is not listed has no instance, and will not be told either.
            known = [key for key, view in watch.views.items() if view.loaded]
            untold = [key for key in (*listed, *known) if not self._is_told(key)]
            watch.awaited = dict.fromkeys(untold)
            if not untold:
                watch.became_current()
        return True

    def _is_told(self, key: ServiceKey) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.told_on == self._connections

    async def _list(self, channel: Channel, pattern: Pattern) -> list[ServiceKey]:
        """Ask which services of a pattern have instances."""
        found: list[ServiceKey] = []
        request = native_pb2.ListServicesRequest(
            namespace=pattern.namespace, group=pattern.group, prefix=pattern.prefix
        )
        while True:
            body = await self._insist(channel, MessageType.LIST_SERVICES, encode(request))
            answer = decode(native_pb2.ListServicesResponse, body)
            found += [key_from_wire(line.service) for line in answer.services]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def _read(self, channel: Channel, key: ServiceKey) -> None:
        """Bring a view up to date that the subscription could not name as known."""
        request = native_pb2.GetRequest(service=key_to_wire(key))
        body = await self._insist(channel, MessageType.GET, encode(request))
        answer = decode(native_pb2.GetResponse, body)
        position = LogPosition(answer.epoch, answer.revision)
        entry = self._entries.get(key)
        if entry is not None:
            instances = map(instance_from_wire, answer.instances)
            self._tell(entry, entry.view.on_snapshot(position, instances))

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

    # --- pushes ----------------------------------------------------------------------------

    def on_push(self, type_: int, request_id: int, body: bytes) -> None:
        """Take what the node pushed. A type this version does not know is skipped."""
        del request_id  # A push names its service; it may serve several subscriptions.
        try:
            if type_ == MessageType.DELTA:
                self._on_delta(decode(native_pb2.Delta, body))
            elif type_ == MessageType.SNAPSHOT:
                self._on_snapshot(decode(native_pb2.Snapshot, body))
            elif type_ == MessageType.CURRENT:
                self._on_current(decode(native_pb2.Current, body))
        except SsGovernError as error:
            raise RemoteProtocolError(f"a push makes no sense: {error}") from None

    def _on_snapshot(self, push: native_pb2.Snapshot) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            position = LogPosition(push.epoch, push.revision)
            outcome = entry.view.on_snapshot(position, map(instance_from_wire, push.instances))
            self._tell(entry, outcome)

    def _on_delta(self, push: native_pb2.Delta) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            position = LogPosition(push.epoch, push.revision)
            upserted = map(instance_from_wire, push.upserted)
            self._tell(entry, entry.view.on_delta(push.since, position, upserted, push.removed))

    def _on_current(self, push: native_pb2.Current) -> None:
        entry = self._wanted(push.service)
        if entry is not None:
            self._tell(entry, entry.view.on_current(LogPosition(push.epoch, push.revision)))

    def _wanted(self, wire_key: model_pb2.ServiceKey) -> _Entry | None:
        key = key_from_wire(wire_key)
        entry = self._entries.get(key)
        if entry is None and any(
            isinstance(target, Pattern) and target.matches(key) for target in self._watches
        ):
            entry = self._entry(key)
        # None: told before the node learnt that we no longer listen.
        return entry

    def _tell(self, entry: _Entry, outcome: Change | Gap | None) -> None:
        view = entry.view
        if outcome is GAP:
            _logger.info("%s: a change is missing, asking for the whole list", view.key)
            entry.told_on = 0
            for watch in entry.watches:
                watch.became_stale(self._runtime.wall_ms())
                self._mark(watch)
        elif not view.has_gap:
            entry.told_on = self._connections
            for watch in entry.watches:
                if not isinstance(watch.target, Pattern):
                    watch.became_current()
                elif view.key in watch.awaited:
                    del watch.awaited[view.key]
                    if not watch.awaited:
                        watch.became_current()
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


def _known_of(watch: Watch) -> tuple[list[native_pb2.KnownService], list[ServiceKey]]:
    """Return the positions to name in a subscription, and the services that do not fit.

    For a pattern a service without a position is named too: the node then tells its list even
    if it is empty by now, which a pattern alone would not.
    """
    named: list[native_pb2.KnownService] = []
    left_out: list[ServiceKey] = []
    named_bytes = 0
    for key, view in watch.views.items():
        if not view.loaded or (view.known == ORIGIN and not isinstance(watch.target, Pattern)):
            continue
        known = native_pb2.KnownService(
            service=key_to_wire(key), epoch=view.known.epoch, revision=view.known.revision
        )
        named_bytes += known.ByteSize() + 4
        if named_bytes > KNOWN_BYTES_MAX:
            left_out.append(key)
        else:
            named.append(known)
    return named, left_out
