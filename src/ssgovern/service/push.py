"""Telling subscribers what changed.

A change is encoded once and the same bytes go to every subscriber that is up to date. One that
is not (new, back from a lost connection, or slow) has the services it lacks noted in `behind`,
with the position it has; it is told what is missing when it can take it, which for a slow one
means that many deltas have become one. Nobody waits for anybody.

Knows states and subscriptions; knows a subscriber only as something that takes frames. Owned by
one driver, which calls `next_change` and `catch_up` in turns.

A shard may leave the node and come back. While it is away (`Suspended`) its subscriptions stay
and are told nothing; with its return they are told what changed for them. Invariant: nobody is
told of a state that is not the shard's, above all not that services are empty.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from ssgovern import limits
from ssgovern.errors import LimitExceededError, OverloadedError
from ssgovern.model import (
    ORIGIN,
    LogPosition,
    Pattern,
    ServiceKey,
    SessionId,
    ShardId,
    shard_of,
)
from ssgovern.registry.state import CatchUp, Change, Service, ShardState
from ssgovern.registry.subscriptions import MaskedPattern, SubscriptionTable, Target
from ssgovern.service.applied import AppliedPositions, position_at
from ssgovern.service.placement import ALL_SHARDS, check_holds
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_message
from ssgovern.wire.pb import native_pb2, raw_pb2


class Who(NamedTuple):
    """A subscriber, for people."""

    session_id: SessionId
    client_name: str
    address: str


class Subscriber(Protocol):
    """The far end of subscriptions: in practice a connection."""

    behind: dict[ServiceKey, LogPosition]
    """Services it lacks something of, with the position it has."""
    applied: dict[ServiceKey, LogPosition] | None
    """What it says it has applied, as far as that is kept; None: it does not say."""

    @property
    def who(self) -> Who:
        """Whose it is."""

    @property
    def can_take(self) -> bool:
        """Whether it takes pushes now: open and not congested."""

    def take(self, frame: bytes) -> None:
        """Send one frame to it."""

    def lacks(self) -> None:
        """It lacks something from now: see to it that `catch_up` is called for it."""


class Suspended:
    """What subscribers know of a shard that is away."""

    __slots__ = ("known", "position")

    def __init__(self, position: LogPosition) -> None:
        self.position = position
        """Up to where everybody was told, except of what is in `known`."""
        self.known: dict[ServiceKey, LogPosition] = {}
        """Of services somebody follows: what the least informed subscriber has."""


class PushService:
    """Pending changes, and what subscribers lack."""

    def __init__(self, registry: RegistryService) -> None:
        self._registry = registry
        self._pending: OrderedDict[Service, Change] = OrderedDict()
        self._half_told: dict[Subscriber, list[bytes]] = {}
        self._snapshots = SnapshotCache()
        self._telling: Change | None = None
        """Its audience is being told, and may not all have been told yet."""
        self._suspended: dict[ShardId, Suspended] = {}
        registry.followers = self
        self.subscriptions: SubscriptionTable[Subscriber] = SubscriptionTable()
        self.applied = AppliedPositions(registry, self)
        self.pushes = 0

    # --- changes ---------------------------------------------------------------------------

    def offer(self, changes: Iterable[Change], now_s: float = 0.0) -> bool:
        """Take in committed changes; return whether anybody is to be told.

        `now_s` stays with a change, for who measures how long telling it takes.

        Changes of one service that wait here become one, so that what waits is bounded by the
        number of services, however fast they change.
        """
        for change in changes:
            key = change.service.key
            if not self.subscriptions.has_audience(key):
                continue
            if self._suspended and (away := self._suspended.get(shard_of(*key))) is not None:
                # Told on return, from what was known when it left.
                away.known.setdefault(key, away.position)
                continue
            waiting = self._pending.get(change.service)
            if waiting is None:
                change.offered_s = now_s
                self._pending[change.service] = change
            else:
                waiting.merge(change)
        return bool(self._pending)

    def next_change(self) -> tuple[Change, list[bytes], list[Subscriber]] | None:
        """Return the oldest change that waits, its frames, and whom to tell."""
        while self._pending:
            service, change = self._pending.popitem(last=False)
            audience = self.subscriptions.audience(service.key)
            if audience:
                self._telling = change
                position = position_at(self._registry.state_of(service.key), change.revision)
                self.applied.on_telling(service.key, position, change.offered_s)
                return change, self._encode_change(change), audience
        self._telling = None
        return None

    def tell(self, subscriber: Subscriber, change: Change, frames: list[bytes]) -> None:
        """Give a change to a subscriber that is up to date, or note that this one is not."""
        if subscriber.behind or subscriber in self._half_told or not subscriber.can_take:
            key = change.service.key
            if key not in subscriber.behind:
                state = self._registry.state_of(key)
                subscriber.behind[key] = position_at(state, change.since)
            return
        self.pushes += 1
        for frame in frames:
            subscriber.take(frame)

    def is_untold(self, key: ServiceKey) -> bool:
        """Whether a change of a service waits to be told, or is being told now."""
        telling = self._telling
        return (telling is not None and telling.service.key == key) or any(
            service.key == key for service in self._pending
        )

    def lacks(self, subscriber: Subscriber, key: ServiceKey) -> bool:
        """Whether a subscriber has yet to be told something of a service."""
        return key in subscriber.behind or subscriber in self._half_told

    def tell_again(self, subscriber: Subscriber, key: ServiceKey, known: LogPosition) -> None:
        """Tell a subscriber a service from a position on, all of it from the origin."""
        subscriber.behind.setdefault(key, known)
        subscriber.lacks()

    def _encode_change(self, change: Change) -> list[bytes]:
        key = change.service.key
        epoch, _ = position_at(self._registry.state_of(key), change.revision)
        if change.whole:
            return _snapshot_frames(key, epoch, change.revision, change.upserted.values())
        body = raw_pb2.RawDelta(
            service=key_to_wire(key),
            epoch=epoch,
            since=change.since,
            revision=change.revision,
            upserted=change.upserted.values(),
            removed=change.removed,
        ).SerializeToString()
        return encode_message(Kind.PUSH, MessageType.DELTA, 0, body)

    @property
    def waiting(self) -> int:
        """Services whose change nobody was told of yet."""
        return len(self._pending)

    # --- subscribers -----------------------------------------------------------------------

    def subscribe(
        self, subscriber: Subscriber, target: Target, known: dict[ServiceKey, LogPosition]
    ) -> None:
        """Add a subscription. Call `catch_up` for the subscriber afterwards.

        Raises ShardMovedError if this node does not hold all that it covers, LimitExceededError
        if the pattern covers too many services, OverloadedError if the subscriber has not taken
        enough of what it asked for before.
        """
        most = limits.SERVICES_PER_PATTERN_MAX
        if len(subscriber.behind) >= most:
            raise OverloadedError("take what you subscribed to before you ask for more")
        wanted: list[ServiceKey] = []
        if isinstance(target, ServiceKey):
            check_holds(self._registry.placement, 1 << shard_of(*target))
            wanted.append(target)
        else:
            wanted += islice(self._covered(target), most + 1)
            if len(wanted) > most:
                raise LimitExceededError(
                    f"{target} covers more than {most} services", field="pattern", limit=most
                )
            # What it knew and is gone by now is asked for too, so that it hears of the end.
            wanted += known
        self.subscriptions.add(subscriber, target)
        for key in wanted:
            subscriber.behind[key] = known.get(key, ORIGIN)

    def _covered(self, target: Pattern | MaskedPattern) -> Iterator[ServiceKey]:
        directory = self._registry.directory
        if isinstance(target, Pattern):
            check_holds(self._registry.placement, ALL_SHARDS)
            return directory.matching(target)
        check_holds(self._registry.placement, target.shards)
        return filter(target.matches, directory.matching(target.pattern))

    def unsubscribe(self, subscriber: Subscriber, target: Target) -> None:
        """Drop a subscription."""
        self.subscriptions.remove(subscriber, target)
        self.applied.unsubscribed(subscriber, target)

    def forget(self, subscriber: Subscriber, targets: Iterable[Target]) -> None:
        """Drop everything of a subscriber that is gone."""
        for target in targets:
            self.subscriptions.remove(subscriber, target)
        self._half_told.pop(subscriber, None)
        subscriber.behind.clear()

    def catch_up(self, subscriber: Subscriber) -> bool:
        """Tell a subscriber some of what it lacks; return whether it could take more now."""
        # Looked up once: the front of a dict that is emptied from the front gets slow to find.
        lacking = list(islice(subscriber.behind, limits.CATCH_UP_SLICE))
        lacking.reverse()
        for _ in range(limits.CATCH_UP_SLICE):
            if not subscriber.can_take:
                return False
            frames = self._half_told.get(subscriber)
            if frames:
                # A message of several frames: nothing else may come between them.
                subscriber.take(frames.pop())
                if not frames:
                    del self._half_told[subscriber]
            elif lacking:
                key = lacking.pop()
                known = subscriber.behind.pop(key)
                if self._suspended and (away := self._suspended.get(shard_of(*key))) is not None:
                    # It may have nothing yet, and others more: on return all get it whole.
                    away.known[key] = ORIGIN
                    continue
                frames = self._encode_catch_up(key, known)
                self.pushes += 1
                if len(frames) == 1:
                    subscriber.take(frames[0])
                else:
                    self._half_told[subscriber] = frames[::-1]
            else:
                return False
        return True

    # --- shards come and go ----------------------------------------------------------------

    def suspend(self, state: ShardState, untold: list[Change]) -> None:
        """Tell nothing of a shard from now on, but remember what its followers know."""
        shard = state.shard
        has_audience = self.subscriptions.has_audience
        followed = [key for key in state.services if has_audience(key)]
        away = self._suspended.get(shard)
        if away is not None:
            # Again, before anybody was told of this state: what they know is what they knew.
            for key in followed:
                away.known.setdefault(key, away.position)
            return
        away = self._suspended[shard] = Suspended(state.position)
        away.known.update(dict.fromkeys(followed, state.position))
        telling = [] if self._telling is None else [self._telling]
        waiting = [service for service in self._pending if shard_of(*service.key) == shard]
        oldest: dict[ServiceKey, LogPosition] = {}
        for change in (*telling, *map(self._pending.pop, waiting), *untold):
            key = change.service.key
            if shard_of(*key) == shard and key not in oldest and has_audience(key):
                oldest[key] = position_at(state, change.since)
        away.known.update(oldest)
        self._snapshots.drop(shard)

    def resume(self, state: ShardState) -> None:
        """Let everybody who follows something in a shard catch up with its state."""
        away = self._suspended.pop(state.shard, None)
        if away is None:
            return
        keys = dict.fromkeys(self.subscriptions.exact_in(state.shard))
        keys.update(dict.fromkeys(away.known))
        keys.update({key: None for key, found in state.services.items() if found.instances})
        lacking: dict[Subscriber, None] = {}
        for key in keys:
            known = away.known.get(key, away.position)
            for subscriber in self.subscriptions.audience(key):
                subscriber.behind.setdefault(key, known)
                lacking[subscriber] = None
        for subscriber in lacking:
            subscriber.lacks()

    def _encode_catch_up(self, key: ServiceKey, known: LogPosition) -> list[bytes]:
        state = self._registry.state_of(key)
        epoch = state.position.epoch
        service = state.services.get(key)
        missing: CatchUp = state.catch_up(key, known)
        if missing.kind == "current":
            current = native_pb2.Current(
                service=key_to_wire(key), epoch=epoch, revision=missing.revision
            )
            return encode_message(Kind.PUSH, MessageType.CURRENT, 0, encode(current))
        if missing.kind == "delta":
            body = raw_pb2.RawDelta(
                service=key_to_wire(key),
                epoch=epoch,
                since=missing.since,
                revision=missing.revision,
                upserted=missing.upserted,
                removed=missing.removed,
            ).SerializeToString()
            return encode_message(Kind.PUSH, MessageType.DELTA, 0, body)
        cached = None if service is None else self._snapshots.get(service)
        if cached is None:
            cached = _snapshot_frames(key, epoch, missing.revision, missing.upserted)
            if service is not None:
                self._snapshots.put(service, cached)
        return cached


class SnapshotCache:
    """Encoded snapshots of services that did not change since, so that a herd of returning
    subscribers costs one encoding. Bounded by bytes; the oldest goes first."""

    def __init__(self) -> None:
        self._kept: dict[Service, tuple[int, list[bytes]]] = {}
        self._bytes = 0

    def get(self, service: Service) -> list[bytes] | None:
        """Return the frames of a service's snapshot if it is still what the service is."""
        kept = self._kept.get(service)
        return kept[1] if kept is not None and kept[0] == service.revision else None

    def drop(self, shard: ShardId) -> None:
        """Forget the snapshots of a shard: its services here are not those it will have."""
        for service in [service for service in self._kept if shard_of(*service.key) == shard]:
            self._drop(service)

    def put(self, service: Service, frames: list[bytes]) -> None:
        """Keep a snapshot."""
        self._drop(service)
        self._kept[service] = (service.revision, frames)
        self._bytes += sum(map(len, frames))
        while self._bytes > limits.SNAPSHOT_CACHE_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, service: Service) -> None:
        kept = self._kept.pop(service, None)
        if kept is not None:
            self._bytes -= sum(map(len, kept[1]))


def _snapshot_frames(
    key: ServiceKey, epoch: int, revision: int, encoded: Iterable[bytes]
) -> list[bytes]:
    body = raw_pb2.RawSnapshot(
        service=key_to_wire(key), epoch=epoch, revision=revision, instances=encoded
    ).SerializeToString()
    return encode_message(Kind.PUSH, MessageType.SNAPSHOT, 0, body)
