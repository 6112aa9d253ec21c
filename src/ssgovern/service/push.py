"""Telling subscribers what changed.

A change is encoded once and the same bytes go to every subscriber that is up to date. One that
is not (new, back from a lost connection, or slow) has the services it lacks noted in `behind`,
with the position it has; it is told what is missing when it can take it, which for a slow one
means that many deltas have become one. Nobody waits for anybody.

Knows states and subscriptions; knows a subscriber only as something that takes frames. Owned by
one driver, which calls `next_change` and `catch_up` in turns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import LimitExceededError, OverloadedError
from ssgovern.model import LogPosition, Pattern, ServiceKey
from ssgovern.registry.state import CatchUp, Change, Service
from ssgovern.registry.subscriptions import SubscriptionTable, Target
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_message
from ssgovern.wire.pb import native_pb2, raw_pb2


class Subscriber(Protocol):
    """The far end of subscriptions: in practice a connection."""

    behind: dict[ServiceKey, LogPosition]
    """Services it lacks something of, with the position it has."""

    @property
    def can_take(self) -> bool:
        """Whether it takes pushes now: open and not congested."""

    def take(self, frame: bytes) -> None:
        """Send one frame to it."""


class PushService:
    """Pending changes, and what subscribers lack."""

    def __init__(self, registry: RegistryService) -> None:
        self._registry = registry
        self._pending: OrderedDict[Service, Change] = OrderedDict()
        self._half_told: dict[Subscriber, list[bytes]] = {}
        self._snapshots = SnapshotCache()
        self.subscriptions: SubscriptionTable[Subscriber] = SubscriptionTable()
        self.pushes = 0

    # --- changes ---------------------------------------------------------------------------

    def offer(self, changes: Iterable[Change]) -> bool:
        """Take in committed changes; return whether anybody is to be told.

        Changes of one service that wait here become one, so that what waits is bounded by the
        number of services, however fast they change.
        """
        for change in changes:
            if not self.subscriptions.has_audience(change.service.key):
                continue
            waiting = self._pending.get(change.service)
            if waiting is None:
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
                return change, self._encode_change(change), audience
        return None

    def tell(self, subscriber: Subscriber, change: Change, frames: list[bytes]) -> None:
        """Give a change to a subscriber that is up to date, or note that this one is not."""
        if subscriber.behind or subscriber in self._half_told or not subscriber.can_take:
            key = change.service.key
            if key not in subscriber.behind:
                epoch = self._registry.state_of(key).position.epoch
                subscriber.behind[key] = LogPosition(epoch, change.since)
            return
        self.pushes += 1
        for frame in frames:
            subscriber.take(frame)

    def _encode_change(self, change: Change) -> list[bytes]:
        key = change.service.key
        epoch = self._registry.state_of(key).position.epoch
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

    # --- subscribers -----------------------------------------------------------------------

    def subscribe(
        self, subscriber: Subscriber, target: Target, known: dict[ServiceKey, LogPosition]
    ) -> None:
        """Add a subscription. Call `catch_up` for the subscriber afterwards.

        Raises LimitExceededError if the pattern covers too many services, OverloadedError if
        the subscriber has not taken enough of what it asked for before.
        """
        most = limits.SERVICES_PER_PATTERN_MAX
        if len(subscriber.behind) >= most:
            raise OverloadedError("take what you subscribed to before you ask for more")
        wanted: list[ServiceKey] = []
        if isinstance(target, Pattern):
            wanted += islice(self._registry.directory.matching(target), most + 1)
            if len(wanted) > most:
                raise LimitExceededError(
                    f"{target} covers more than {most} services", field="pattern", limit=most
                )
            # What it knew and is gone by now is asked for too, so that it hears of the end.
            wanted += known
        else:
            wanted.append(target)
        self.subscriptions.add(subscriber, target)
        origin = LogPosition(0, 0)
        for key in wanted:
            subscriber.behind[key] = known.get(key, origin)

    def unsubscribe(self, subscriber: Subscriber, target: Target) -> None:
        """Drop a subscription."""
        self.subscriptions.remove(subscriber, target)

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
                frames = self._encode_catch_up(key, subscriber.behind.pop(key))
                self.pushes += 1
                if len(frames) == 1:
                    subscriber.take(frames[0])
                else:
                    self._half_told[subscriber] = frames[::-1]
            else:
                return False
        return True

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
