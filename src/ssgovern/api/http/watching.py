"""Waiting for a service to change: until an answer is there, or as a stream of events.

What this node holds is followed here: who waits is woken by a change and takes what it lacks
from the state itself, so that nothing is kept for a reader that is slow, and many changes become
one for it. What other nodes hold is followed through the node's own client. Knows no sockets.

Invariants: a stream begins with the list, or with word that what the reader has is still it,
and each delta leads on from what came before; an event's id is the position to resume from, and
is there only when all before it was sent; a stream of a shard that left this node ends, and who
resumes it elsewhere misses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable

from ssgovern import limits
from ssgovern.api.http import asks, bodies, reads
from ssgovern.api.http.answers import Answer, Stream
from ssgovern.api.http.asked import EVENTS_MEDIA_TYPE, Asked
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.reads import instance_body, is_here, key_of, position_here
from ssgovern.errors import InvalidArgumentError, ShuttingDownError, SsGovernError
from ssgovern.model import ORIGIN, Instance, LogPosition, ServiceKey, SessionId
from ssgovern.service.push import Who
from ssgovern.wire.codec import instance_to_wire
from ssgovern.wire.pb import model_pb2

_LOOK_S = limits.HTTP_WATCH_LOOK_MS / 1000.0
_BEAT_S = limits.HTTP_STREAM_BEAT_MS / 1000.0
BEAT = b": still here\n\n"


async def service(desk: Desk, asked: Asked) -> Answer | Stream:
    """Return a page of a service: now, when it changes, or as a stream, as it is asked for."""
    query = asked.query
    assert isinstance(query, asks.InstancesQuery), "the operation says what is asked"
    if EVENTS_MEDIA_TYPE in asked.headers.get("accept", ""):
        return _stream(desk, asked, query)
    if not (query.after and query.wait):
        return await reads.instances(desk, asked)
    wait_s = _seconds(query.wait)
    asked.give_time(int(wait_s * 1000) + limits.HTTP_REQUEST_MS)
    return await _wait(desk, asked, query, wait_s)


def _seconds(wait: str) -> float:
    digits = wait.removesuffix("ms").removesuffix("s")
    ms = int(digits) * (1 if wait.endswith("ms") else 1000)
    if ms > limits.HTTP_WAIT_MS:
        raise InvalidArgumentError(
            f"wait {wait}: at most {limits.HTTP_WAIT_MS // 1000}s", field="wait"
        )
    return ms / 1000.0


def _position(text: str) -> LogPosition:
    epoch, _, revision = text.partition(".")
    return LogPosition(int(epoch), int(revision))


class _Waker:
    """Somebody who waits, as those who tell changes see it (`service.push.Subscriber`).

    It takes no list: it hears that there is something, and looks.
    """

    def __init__(self, desk: Desk, asked: Asked) -> None:
        client = asked.scope.get("client") or ("?", 0)
        # It has no session; an id of its own lets it be told from others in lists.
        name = SessionId(desk.backend.runtime.random_bytes(16))
        self.who = Who(name, "http", f"{client[0]}:{client[1]}")
        self.wakeup = asyncio.Event()
        self.behind: dict[ServiceKey, LogPosition] = {}
        self.applied: dict[ServiceKey, LogPosition] | None = None

    @property
    def can_take(self) -> bool:
        return True

    def take(self, frame: bytes) -> None:
        self.wakeup.set()

    def lacks(self) -> None:
        self.behind.clear()
        self.wakeup.set()

    async def woken(self, seconds: float) -> bool:
        """Wait to be woken; return whether that was before the time ran out."""
        try:
            async with asyncio.timeout(seconds):
                await self.wakeup.wait()
        except TimeoutError:
            return False
        self.wakeup.clear()
        return True


# --- one answer ---------------------------------------------------------------------------


async def _wait(desk: Desk, asked: Asked, query: asks.InstancesQuery, wait_s: float) -> Answer:
    """Return the page when it is newer than what the query names; 304 if it stays."""
    key = key_of(asked)
    known = _position(query.after)
    until_s = asyncio.get_running_loop().time() + wait_s
    waker = _Waker(desk, asked)
    with desk.watches.one_more(waker.wakeup):
        if is_here(desk, key, fresh=query.fresh):
            await _changed_here(desk, key, known, waker, until_s)
        else:
            await _changed_there(desk, key, known, until_s)
    answer = await reads.instances(desk, asked)
    if _is_newer(_position_in(answer), known):
        return answer
    return Answer(b"", answer.tag, status=304)


def _position_in(answer: Answer) -> LogPosition:
    return _position(".".join(answer.tag.split(".")[:2]))


def _is_newer(position: LogPosition, known: LogPosition) -> bool:
    """Tell whether a service changed since a position was told.

    Within an epoch by revision; what a node tells that lags by an epoch is not news.
    """
    return position > known


async def _changed_here(
    desk: Desk, key: ServiceKey, known: LogPosition, waker: _Waker, until_s: float
) -> None:
    """Wait until a service is newer than a position, its shard left, or the time ran out."""
    loop = asyncio.get_running_loop()
    push = desk.backend.push
    push.subscribe(waker, key, {key: known})
    waker.behind.clear()
    try:
        while not desk.watches.stopping and is_here(desk, key):
            left_s = until_s - loop.time()
            if left_s <= 0 or _is_newer(position_here(desk, key), known):
                return
            await waker.woken(min(left_s, _LOOK_S))
    finally:
        push.forget(waker, [key])


async def _changed_there(desk: Desk, key: ServiceKey, known: LogPosition, until_s: float) -> None:
    """The same, of a service that other nodes hold."""
    loop = asyncio.get_running_loop()
    registry = await desk.backend.gateway.registry(key.namespace)
    async with registry.subscribe(key.service, group=key.group) as subscription:
        # The list is a moment old at most; what it shows is of a position at or before this.
        if _is_newer(await reads.position_there(desk, key), known):
            return
        while not desk.watches.stopping and (left_s := until_s - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await subscription.next_change()
            except TimeoutError:
                continue
            return


# --- a stream -----------------------------------------------------------------------------


def _stream(desk: Desk, asked: Asked, query: asks.InstancesQuery) -> Stream:
    if query.model_fields_set - {"after"}:
        raise InvalidArgumentError("a stream has no filters and no pages", field="query")
    key = key_of(asked)
    known = _resume_from(asked, query)
    waker = _Waker(desk, asked)
    # Whether there is room for one more is said with a status, before the stream begins.
    desk.watches.check_room()
    events = _events(desk, asked, key, known, waker)
    return Stream(events, waker.wakeup.set)


def _resume_from(asked: Asked, query: asks.InstancesQuery) -> LogPosition:
    last = asked.headers.get("last-event-id", "") or query.after
    parts = last.split(".")
    if len(parts) == 2 and all(p.isascii() and p.isdigit() and len(p) <= 19 for p in parts):
        return LogPosition(int(parts[0]), int(parts[1]))
    return ORIGIN


async def _events(
    desk: Desk, asked: Asked, key: ServiceKey, known: LogPosition, waker: _Waker
) -> AsyncGenerator[bytes]:
    with desk.watches.one_more(waker.wakeup):
        source = _here if is_here(desk, key) else _there
        try:
            async for event in source(desk, key, known, waker):
                asked.give_time(limits.HTTP_REQUEST_MS)
                yield event
        except SsGovernError as error:
            # The status has gone out: who reads hears of it here, and comes again.
            yield failure(error)
    if desk.watches.stopping:
        yield failure(ShuttingDownError("this node is stopping: ask another"))


async def _here(
    desk: Desk, key: ServiceKey, known: LogPosition, waker: _Waker
) -> AsyncGenerator[bytes]:
    """Yield what changes in a service of which this node holds the shard."""
    push = desk.backend.push
    push.subscribe(waker, key, {key: known})
    waker.behind.clear()
    position = position_here(desk, key)
    if known == position and known.revision:
        # As a page told it: the revision of the service's change, with the epoch of the answer.
        known = desk.backend.registry.state_of(key).position
    first, woken, quiet_s = True, False, 0.0
    try:
        while not desk.watches.stopping and is_here(desk, key):
            state = desk.backend.registry.state_of(key)
            missing = state.catch_up(key, known)
            is_news = missing.kind == "delta" and bool(missing.upserted or missing.removed)
            if missing.kind == "snapshot" and not first:
                # An empty service is always told whole: it is news if it was not empty before.
                is_news = position_here(desk, key) > known or bool(missing.upserted)
            if first or is_news:
                quiet_s = 0.0
                now = state.position
                for event in _told(
                    missing.kind, key, known, now, missing.upserted, missing.removed
                ):
                    yield event
                known = now
            elif woken or quiet_s >= _BEAT_S:
                # Woken without news: nobody may listen any more.
                quiet_s = 0.0
                yield BEAT
            first = False
            woken = await waker.woken(_LOOK_S)
            quiet_s += _LOOK_S
    finally:
        push.forget(waker, [key])


async def _there(
    desk: Desk, key: ServiceKey, known: LogPosition, waker: _Waker
) -> AsyncGenerator[bytes]:
    """Yield what changes in a service that other nodes hold."""
    registry = await desk.backend.gateway.registry(key.namespace)
    async with registry.subscribe(key.service, group=key.group) as subscription:
        position = subscription.position
        kind = "current" if known == position and position != ORIGIN else "snapshot"
        for event in _told(kind, key, known, position, _encoded(subscription.instances), ()):
            yield event
        quiet_s = 0.0
        while not (desk.watches.stopping or waker.wakeup.is_set()):
            try:
                async with asyncio.timeout(_LOOK_S):
                    change = await subscription.next_change()
            except TimeoutError:
                quiet_s += _LOOK_S
                if quiet_s >= _BEAT_S:
                    quiet_s = 0.0
                    yield BEAT
                continue
            if change is None:
                return
            quiet_s = 0.0
            now = LogPosition(subscription.position.epoch, change.revision)
            upserted = _encoded([*change.added, *change.changed])
            removed = [gone.id for gone in change.removed]
            for event in _told("delta", key, position, now, upserted, removed):
                yield event
            position = now


def _encoded(instances: Iterable[Instance]) -> list[bytes]:
    return [instance_to_wire(each).SerializeToString() for each in instances]


def _told(
    kind: str,
    key: ServiceKey,
    since: LogPosition,
    now: LogPosition,
    upserted: list[bytes],
    removed: Iterable[str],
) -> Iterable[bytes]:
    """Return the events that tell of a service; of several the last alone has the id."""
    base: dict[str, object] = {
        "namespace": key.namespace,
        "group": key.group,
        "service": key.service,
        "epoch": now.epoch,
        "revision": now.revision,
    }
    position = f"{now.epoch}.{now.revision}"
    if kind == "current":
        yield event_bytes("current", base, position)
        return
    most = limits.HTTP_EVENT_INSTANCES_MAX
    parts = max(1, -(-len(upserted) // most))
    for part in range(parts):
        of_part = upserted[part * most : (part + 1) * most]
        found: list[bodies.Instance] = [
            instance_body(model_pb2.Instance.FromString(each)) for each in of_part
        ]
        is_last = part == parts - 1
        told = {**base, "part": part + 1, "parts": parts}
        if kind == "snapshot":
            told["instances"] = found
        else:
            told["since"] = since.revision
            told["upserted"] = found
            told["removed"] = list(removed) if is_last else []
        yield event_bytes(kind, told, position if is_last else "")


def failure(error: SsGovernError) -> bytes:
    """Return the event that tells why a stream ends."""
    return event_bytes("error", {"detail": error.message, "code": int(error.code)})


def event_bytes(name: str, told: dict[str, object], position: str = "") -> bytes:
    """Return an event as it is sent. JSON has no line breaks of its own."""
    head = f"event: {name}\n" + (f"id: {position}\n" if position else "")
    return f"{head}data: {json.dumps(told, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
