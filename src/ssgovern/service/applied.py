"""What subscribers say they have applied, and who waits until they all have.

Knows subscribers as `PushService` does, and that some of them say up to where they have applied
a service (`applied`; None: they never will). Decides who lacks a position and who is asked to
say at once; tells nothing itself: its owner, the push driver, calls `look` and `ask_some` in
turns. Everything here is soft state of this node.

Invariants: a wait is answered with yes only if every subscriber here that says anything has
applied the position, also one whose connection was lost a moment ago, as long as its session
lives; a wait is answered once, at its deadline at the latest; what is kept is bounded, per
subscriber and in all, and what was dropped is told again before anybody relies on it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ssgovern import limits
from ssgovern.errors import OverloadedError
from ssgovern.model import ORIGIN, LogPosition, ServiceKey, SessionId, shard_of
from ssgovern.registry.state import ShardState
from ssgovern.registry.subscriptions import Target
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import applied_pb2

if TYPE_CHECKING:
    from ssgovern.service.push import PushService, Subscriber
    from ssgovern.service.registry import RegistryService

_TELL_AGAIN_S = 0.5
"""Who was asked and has said nothing of a service for so long is told it again."""
_ASK = encode_frame(Kind.PUSH, MessageType.APPLIED, 0, b"")

Answer = Callable[[applied_pb2.AwaitAppliedResponse], None]


class Relayed(Protocol):
    """Who follows services that this node passes on from others."""

    def followers(self, key: ServiceKey) -> Iterable[Subscriber]:
        """Return those who follow a service, in part or wholly by way of other nodes."""

    def follows(self, subscriber: Subscriber, key: ServiceKey) -> bool:
        """Whether this one does."""


class _Departed(NamedTuple):
    """What a subscriber had when its connection was lost."""

    session_id: SessionId
    client_name: str
    address: str
    targets: tuple[Target, ...]
    applied: dict[ServiceKey, LogPosition]
    until_s: float


class _Lack(NamedTuple):
    """Who lacks a position."""

    connected: dict[Subscriber, None]
    departed: list[_Departed]

    def __bool__(self) -> bool:
        return bool(self.connected or self.departed)


class Wait:
    """One who waits until everybody has applied a position."""

    __slots__ = (
        "answer",
        "asked",
        "deadline_s",
        "have_said",
        "is_over",
        "key",
        "lack",
        "position",
        "target",
    )

    def __init__(
        self, key: ServiceKey, position: LogPosition, deadline_s: float, answer: Answer
    ) -> None:
        self.key = key
        self.position = position
        self.deadline_s = deadline_s
        self.answer = answer
        self.target: LogPosition | None = None
        """What has to be applied; None while this node itself lacks the position."""
        self.lack: _Lack | None = None
        """Who lacked it when it was last looked; None: to be found out."""
        self.asked: dict[Subscriber, float] = {}
        """Who was asked to say it, and when; at infinity if told it again besides."""
        self.have_said: dict[Subscriber, None] = {}
        """Who has said it meanwhile, whether or not that is still kept."""
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Wait {self.key} {self.position!r} for {self.lack}>"


class AppliedPositions:
    """See the module."""

    def __init__(self, registry: RegistryService, push: PushService) -> None:
        self._registry = registry
        self._push = push
        self._waits: dict[ServiceKey, dict[Wait, None]] = {}
        self._wait_count = 0
        self._asking: dict[Subscriber, None] = {}
        self._departed: dict[Subscriber, _Departed] = {}
        self._recent: OrderedDict[ServiceKey, list[tuple[LogPosition, float]]] = OrderedDict()
        """Changes that were told lately, and when they were ready to be told."""
        self.relayed: Relayed | None = None
        self.wake: Callable[[], None] = _nothing
        """There is something to look at, or somebody to ask."""
        self.on_delay: Callable[[float], None] = _ignore
        """Hears how long it took from a commit until a subscriber had applied it, seconds."""

    def __repr__(self) -> str:
        return (
            f"<AppliedPositions waits={self._wait_count} departed={len(self._departed)} "
            f"recent={len(self._recent)}>"
        )

    # --- what is told and what is said -----------------------------------------------------

    def on_telling(self, key: ServiceKey, position: LogPosition, offered_s: float) -> None:
        """Note that a change is being told."""
        changes = self._recent.get(key)
        if changes is None:
            changes = self._recent[key] = []
            if len(self._recent) > limits.APPLIED_CHANGES_MAX:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(key)
        changes.append((position, offered_s))
        del changes[: -limits.APPLIED_CHANGES_PER_SERVICE_MAX]
        if self._wait_count and key in self._waits:
            self.wake()

    def on_said(self, subscriber: Subscriber, said: applied_pb2.Applied, now_s: float) -> None:
        """Take what a subscriber says. What it does not follow is passed over."""
        applied = subscriber.applied
        if applied is None:
            applied = subscriber.applied = {}
        for each in said.services:
            service = each.service
            key = ServiceKey(service.namespace, service.group, service.service)
            if not self._follows(subscriber, key):
                continue
            position = LogPosition(each.epoch, each.revision)
            told = self._recent.get(key)
            if told is not None and told[-1][0] == position:
                # One value for all who applied it.
                position, offered_s = told[-1]
                if position != applied.get(key):
                    self.on_delay(max(0.0, now_s - each.age_ms / 1000.0 - offered_s))
            # Last said, last dropped.
            applied.pop(key, None)
            applied[key] = position
            if self._wait_count and (waits := self._waits.get(key)):
                self._on_progress(waits, subscriber, position)
        while len(applied) > limits.APPLIED_SERVICES_MAX:
            del applied[next(iter(applied))]

    def _on_progress(
        self, waits: dict[Wait, None], subscriber: Subscriber, position: LogPosition
    ) -> None:
        for wait in waits:
            if wait.lack is None or wait.target is None or position < wait.target:
                continue
            wait.lack.connected.pop(subscriber, None)
            wait.have_said[subscriber] = None
            if not wait.lack:
                self.wake()

    def _follows(self, subscriber: Subscriber, key: ServiceKey) -> bool:
        return self._push.subscriptions.follows(subscriber, key) or (
            self.relayed is not None and self.relayed.follows(subscriber, key)
        )

    def unsubscribed(self, subscriber: Subscriber, target: Target) -> None:
        """A subscriber follows something no more, by that subscription."""
        applied = subscriber.applied
        if applied and isinstance(target, ServiceKey) and not self._follows(subscriber, target):
            applied.pop(target, None)
        self.wake_waits()

    def gone(self, subscriber: Subscriber, targets: Iterable[Target], now_s: float) -> None:
        """A subscriber's connection is lost: unless its session ends, it still has its lists."""
        self._asking.pop(subscriber, None)
        for departed in list(islice(self._departed, 64)):
            if self._departed[departed].until_s > now_s:
                break
            del self._departed[departed]
        followed = tuple(dict.fromkeys(targets))
        if subscriber.applied is not None and followed:
            who = subscriber.who
            self._departed[subscriber] = _Departed(
                who.session_id,
                who.client_name,
                who.address,
                followed,
                subscriber.applied,
                now_s + limits.APPLIED_DEPARTED_MS / 1000.0,
            )
            if len(self._departed) > limits.CONNECTIONS_MAX:
                del self._departed[next(iter(self._departed))]
        self.wake_waits()

    # --- waiting ---------------------------------------------------------------------------

    @property
    def waits(self) -> int:
        """How many wait."""
        return self._wait_count

    def wake_waits(self) -> None:
        """Something changed that may end a wait."""
        if self._wait_count:
            self.wake()

    def wait(
        self, key: ServiceKey, position: LogPosition, deadline_s: float, answer: Answer
    ) -> Wait:
        """Call `answer` when everybody has applied a position, or at the deadline."""
        if self._wait_count >= limits.AWAIT_APPLIED_MAX:
            raise OverloadedError(
                f"{self._wait_count} others wait for subscribers of this node already",
                limit=limits.AWAIT_APPLIED_MAX,
            )
        wait = Wait(key, position, deadline_s, answer)
        self._waits.setdefault(key, {})[wait] = None
        self._wait_count += 1
        self.wake()
        return wait

    def cancel(self, wait: Wait) -> None:
        """Nobody waits for the answer any more."""
        if not wait.is_over:
            self._end(wait)

    def look(self, now_s: float) -> None:
        """Answer those whose wait is over, and have those asked who lack what is waited for."""
        for waits in list(self._waits.values()):
            for wait in list(waits):
                if not wait.is_over and (self._is_applied(wait, now_s) or now_s >= wait.deadline_s):
                    self._end(wait)
                    wait.answer(self._answer(wait, now_s))

    def _end(self, wait: Wait) -> None:
        wait.is_over = True
        self._wait_count -= 1
        waits = self._waits[wait.key]
        del waits[wait]
        if not waits:
            del self._waits[wait.key]

    def _is_applied(self, wait: Wait, now_s: float) -> bool:
        """Whether a position is applied by all, and if not, have them asked."""
        if wait.target is None:
            wait.target = self._target(wait.key, wait.position)
            if wait.target is None:
                return False
        lack = wait.lack
        if lack is not None:
            self._forget_gone(wait.key, lack)
            lack.departed[:] = [
                each for each in lack.departed if self._counts(each, wait.key, now_s)
            ]
        if not lack:
            # Also when nobody is left: others may have come or gone meanwhile.
            lack = wait.lack = self._lacking(wait, now_s)
        if lack:
            self._see_to(wait, lack, now_s)
        return not lack

    def _target(self, key: ServiceKey, position: LogPosition) -> LogPosition | None:
        """Return what a subscriber must have applied to know all of a service at a position.

        The service may not have changed since an earlier one, and then nothing later was told.
        None: this node has yet to apply the position itself.
        """
        if not self._registry.placement.holds(shard_of(*key)):
            return position
        state = self._registry.state_of(key)
        if state.position < position:
            return None
        service = state.services.get(key)
        if service is None or service.revision > position.revision:
            return position
        return min(position, position_at(state, service.revision))

    def _lacking(self, wait: Wait, now_s: float) -> _Lack:
        key, target = wait.key, wait.target or wait.position
        connected = {
            each: None
            for each in self._audience(key)
            if each.applied is not None
            and each.applied.get(key, ORIGIN) < target
            and each not in wait.have_said
        }
        departed = [
            each
            for subscriber, each in self._departed.items()
            if each.applied.get(key, ORIGIN) < target
            and subscriber not in wait.have_said
            and any(_covers(followed, key) for followed in each.targets)
            and self._counts(each, key, now_s)
        ]
        return _Lack(connected, departed)

    def _counts(self, departed: _Departed, key: ServiceKey, now_s: float) -> bool:
        session = self._registry.sessions.find(departed.session_id)
        return (
            session is not None
            and not session.ended
            and now_s < departed.until_s
            and not self._is_back(departed, key)
        )

    def _is_back(self, departed: _Departed, key: ServiceKey) -> bool:
        """Whether it follows the service again, here: then it counts as any other."""
        return any(each.who.session_id == departed.session_id for each in self._audience(key))

    def _forget_gone(self, key: ServiceKey, lack: _Lack) -> None:
        for subscriber in [each for each in lack.connected if not self._follows(each, key)]:
            del lack.connected[subscriber]
            # It may have gone without its list: `_lacking` finds it among the departed.

    def _audience(self, key: ServiceKey) -> list[Subscriber]:
        here = self._push.subscriptions.audience(key)
        if self.relayed is None:
            return here
        return list(dict.fromkeys((*here, *self.relayed.followers(key))))

    def _see_to(self, wait: Wait, lack: _Lack, now_s: float) -> None:
        """Have those asked who were told; tell those again of whom nothing is known for sure."""
        push, key, asked = self._push, wait.key, wait.asked
        if push.is_untold(key):
            return
        exists = key in self._registry.state_of(key).services
        for subscriber in lack.connected:
            if push.lacks(subscriber, key):
                continue
            asked_s = asked.get(subscriber)
            if asked_s is None:
                asked[subscriber] = now_s
                self._asking[subscriber] = None
                continue
            known = (subscriber.applied or {}).get(key)
            if now_s - asked_s < _TELL_AGAIN_S or (exists and known is not None):
                continue
            # What it said was dropped, or what it can say is not enough to know. Told again, it
            # has something to say, of a position no older than what it was told before.
            asked[subscriber] = math.inf
            if push.subscriptions.follows(subscriber, key):
                push.tell_again(subscriber, key, known or ORIGIN)
                self._asking[subscriber] = None

    def ask_some(self) -> bool:
        """Ask some to say what they have applied; return whether there are more to ask now."""
        asked = 0
        for subscriber in list(self._asking):
            if subscriber.behind:
                # What it is told first has to be on its way first.
                continue
            del self._asking[subscriber]
            if subscriber.can_take:
                subscriber.take(_ASK)
            asked += 1
            if asked == limits.FAN_OUT_SLICE:
                return True
        return False

    # --- answers ---------------------------------------------------------------------------

    def _answer(self, wait: Wait, now_s: float) -> applied_pb2.AwaitAppliedResponse:
        key = wait.key
        audience = self._audience(key)
        silent = [each for each in audience if each.applied is None]
        lack = self._lacking(wait, now_s)
        named = limits.AWAIT_APPLIED_NAMED_MAX
        response = applied_pb2.AwaitAppliedResponse(
            applied=not lack and wait.target is not None,
            lacking_total=len(lack.connected) + len(lack.departed),
            silent_total=len(silent),
            subscribers_total=len(audience) + len(lack.departed),
            node_lacks=wait.target is None,
        )
        for each in islice(lack.connected, named):
            response.lacking.append(self._row(each, key, now_s))
        for gone in lack.departed[: max(0, named - len(response.lacking))]:
            response.lacking.append(_departed_row(gone, key))
        for each in silent[:named]:
            response.silent.append(self._row(each, key, now_s))
        return response

    def page(
        self, key: ServiceKey, after: bytes, size: int, now_s: float
    ) -> applied_pb2.SubscribersResponse:
        """Return some of those who follow a service, in the order of their session ids."""
        behind = (each for each in self._audience(key) if each.who.session_id > after)
        found = nsmallest(size + 1, behind, key=lambda each: each.who.session_id)
        response = applied_pb2.SubscribersResponse()
        for subscriber in found[:size]:
            response.subscribers.append(self._row(subscriber, key, now_s))
        if len(found) > size:
            response.next_after = found[size - 1].who.session_id
        response.epoch, response.revision = self._latest(key)
        return response

    def _latest(self, key: ServiceKey) -> LogPosition:
        """Return the position of a service's last change; the origin if that is not known."""
        if not self._registry.placement.holds(shard_of(*key)):
            return ORIGIN
        state = self._registry.state_of(key)
        service = state.services.get(key)
        return ORIGIN if service is None else position_at(state, service.revision)

    def _row(
        self, subscriber: Subscriber, key: ServiceKey, now_s: float
    ) -> applied_pb2.ServiceSubscriber:
        who, applied = subscriber.who, subscriber.applied
        row = applied_pb2.ServiceSubscriber(
            session_id=who.session_id,
            client_name=who.client_name,
            address=who.address,
            says=applied is not None,
        )
        if applied is not None:
            position = applied.get(key, ORIGIN)
            row.epoch, row.revision = position
            since_s = self._lacks_since(key, position)
            if since_s is not None:
                row.behind_ms = max(1, int((now_s - since_s) * 1000.0))
        return row

    def _lacks_since(self, key: ServiceKey, applied: LogPosition) -> float | None:
        for position, offered_s in self._recent.get(key, ()):
            if position > applied:
                return offered_s
        return None

    def longest_lag_s(self, now_s: float) -> float:
        """Return for how long some subscriber has lacked a change, of those told lately.

        Looks at a bounded number of subscribers, those of the oldest changes first; a service
        that all have applied is not looked at again until it changes.
        """
        longest_s, room = 0.0, limits.APPLIED_SCAN_MAX
        for key in list(self._recent):
            lacking = False
            for subscriber in self._audience(key):
                room -= 1
                if subscriber.applied is not None:
                    since_s = self._lacks_since(key, subscriber.applied.get(key, ORIGIN))
                    if since_s is not None:
                        lacking = True
                        longest_s = max(longest_s, now_s - since_s)
            if not lacking:
                del self._recent[key]
            if room <= 0:
                break
        return longest_s


def _departed_row(gone: _Departed, key: ServiceKey) -> applied_pb2.ServiceSubscriber:
    position = gone.applied.get(key, ORIGIN)
    return applied_pb2.ServiceSubscriber(
        session_id=gone.session_id,
        client_name=gone.client_name,
        address=gone.address,
        says=True,
        epoch=position.epoch,
        revision=position.revision,
        disconnected=True,
    )


def _covers(target: Target, key: ServiceKey) -> bool:
    return target == key if isinstance(target, ServiceKey) else target.matches(key)


def _nothing() -> None:
    """Nobody is there to be woken yet."""


def _ignore(_delay_s: float) -> None:
    """Nobody counts."""


def position_at(state: ShardState, revision: int) -> LogPosition:
    """Return the position of a revision, with the epoch in which it was written.

    The state may have entered a newer epoch since: a position that names that one would be taken
    for one that was never on this log.
    """
    for start in reversed(state.epoch_starts):
        if start.revision <= revision:
            return LogPosition(start.epoch, revision)
    return LogPosition(state.position.epoch, revision) if not state.epoch_starts else ORIGIN
