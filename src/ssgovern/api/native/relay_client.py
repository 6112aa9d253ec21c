"""One client that knows this node only, and what it has on others.

Keeps what the client registered and follows, anywhere: when a shard gets another primary, what is
held there is claimed from it; when a link or a holder is lost, subscriptions are made again
elsewhere. If something that was registered is gone, the session ends here too, so that the client
says hello and registers again: it is never told that all is there when it is not.

Invariants: a link lives only while the client does; what is kept is bounded by what one session
may register and follow; `mend` runs at most once at a time, and only while something is amiss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import NamedTuple, Protocol, TypeVar

from ssgovern import limits
from ssgovern.api.native.relay_link import RelayLink, Spawn
from ssgovern.api.native.relay_map import NOBODY, Office, RelayMap
from ssgovern.errors import (
    LimitExceededError,
    SessionSupersededError,
    ShardUnavailableError,
    SsGovernError,
)
from ssgovern.model import LogPosition, NodeId, Pattern, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.registry.sessions import Session, shards_of
from ssgovern.registry.subscriptions import MaskedPattern, Target
from ssgovern.service.placement import ALL_SHARDS, mask_to_wire
from ssgovern.service.push import PushService, Who
from ssgovern.service.registry import RegistryService
from ssgovern.transport.channel import Channel
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode, key_from_wire, key_to_wire, pattern_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame, encode_message
from ssgovern.wire.pb import applied_pb2, native_pb2

T = TypeVar("T")
Known = dict[ServiceKey, LogPosition]

_RELAYED_STREAM = 1
"""Request id of pushes that come from other nodes: frames of theirs and of ours may interleave."""
_PUSHES = frozenset(
    map(
        int,
        (MessageType.SNAPSHOT, MessageType.DELTA, MessageType.CURRENT, MessageType.APPLIED),
    )
)
_REPEAT_MIN_S = 0.05
_REPEAT_MAX_S = 0.5


class Client(Protocol):
    """The client's connection to this node."""

    subscriptions: dict[int, Target]
    client_name: str
    token: str

    @property
    def can_take(self) -> bool: ...

    behind: dict[ServiceKey, LogPosition]
    applied: dict[ServiceKey, LogPosition] | None

    @property
    def who(self) -> Who: ...

    def take(self, frame: bytes) -> None: ...

    def lacks(self) -> None: ...

    @property
    def is_open(self) -> bool: ...

    def new_subscription_id(self) -> int: ...


class Hub(Protocol):
    """What all relays of a node share."""

    registry: RegistryService
    push: PushService
    me: NodeId
    beat_s: float
    tls: TlsDialler | None

    @property
    def spawn(self) -> Spawn: ...

    def shard_map(self) -> RelayMap:
        """The map as it is now."""

    def lost(self, relay: ClientRelay) -> None:
        """Something a client registered is gone: its session has to begin anew."""

    def superseded(self, relay: ClientRelay) -> None:
        """The client speaks elsewhere by now, for another node took its session."""


class Part(NamedTuple):
    """What one node tells of a subscription."""

    link: RelayLink
    channel: Channel
    subscription_id: int
    shards: int

    @property
    def is_alive(self) -> bool:
        return self.link.channel is self.channel


class ClientRelay:
    """See the module."""

    def __init__(self, hub: Hub, session: Session, secret: bytes, client: Client) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self.session = session
        self.secret = secret
        self.client: Client | None = client
        self._name = client.client_name
        self._token = client.token
        self.links: dict[NodeId, RelayLink] = {}
        self._held: dict[ShardId, dict[ServiceKey, dict[str, None]]] = {}
        self._held_count = 0
        self._claimed_at: dict[ShardId, Office] = {}
        """Who was primary when what is held there was registered or claimed last."""
        self._wanted: dict[int, Target] = {}
        """All subscriptions that need or needed another node."""
        self._beginning: dict[int, None] = {}
        """Those of which the client has no answer yet."""
        self._parts: dict[int, list[Part]] = {}
        self._wake = asyncio.Event()
        self._is_mending = False
        self.is_closed = False

    def __repr__(self) -> str:
        return (
            f"<ClientRelay {self.session.id.hex()[:8]} holds={self._held_count} "
            f"links={list(self.links.values())} subscriptions={len(self._parts)}>"
        )

    def is_of(self, connection: object) -> bool:
        """Whether the client speaks on this connection now."""
        return self.client is connection

    # --- links -----------------------------------------------------------------------------

    @property
    def session_id(self) -> SessionId:
        return self.session.id

    @property
    def client_name(self) -> str:
        return self._name

    @property
    def token(self) -> str:
        return self._token if self.client is None else self.client.token

    @property
    def heard_ms(self) -> float:
        return self.session.last_heard_ms

    def address_of(self, node: NodeId) -> str:
        return self._hub.shard_map().address(node)

    def link(self, node: NodeId) -> RelayLink:
        """Return the link to a node, open or not."""
        link = self.links.get(node)
        if link is None:
            hub = self._hub
            link = self.links[node] = RelayLink(node, self, hub.spawn, hub.beat_s, hub.tls)
        return link

    def on_link_open(self, link: RelayLink, *, resumed: bool) -> None:
        if link.wants_applied and self.client is not None and self.client.applied is not None:
            assert link.channel is not None, "it has just been opened"
            link.channel.send(_applied_frame(applied_pb2.Applied()))
        if not resumed:
            # It may not have heard yet that it is primary; a claim finds out.
            for shard in self._held_at(link.node):
                self._claimed_at.pop(shard, None)
            self.wake()

    def on_link_lost(self, link: RelayLink, cause: SsGovernError | None) -> None:
        if isinstance(cause, SessionSupersededError):
            self._hub.superseded(self)
        else:
            self.wake()

    def on_push(self, link: RelayLink, type_: int, body: bytes) -> None:
        client = self.client
        if client is None or type_ not in _PUSHES:
            return
        for frame in encode_message(Kind.PUSH, type_, _RELAYED_STREAM, body):
            client.take(frame)
        if not client.can_take:
            link.pause()

    def close(self) -> None:
        """Leave the other nodes to find out that the client is gone."""
        self.is_closed = True
        self.client = None
        self._parts.clear()
        self._wanted.clear()
        for link in self.links.values():
            link.close()
        self._wake.set()

    # --- holdings --------------------------------------------------------------------------

    def hold(self, key: ServiceKey, instance_id: str, office: Office) -> None:
        """Note that an instance is registered, with whom."""
        shard = shard_of(*key)
        held = self._held.setdefault(shard, {}).setdefault(key, {})
        if instance_id not in held:
            held[instance_id] = None
            self._held_count += 1
        self._claimed_at.setdefault(shard, office)

    def release(self, key: ServiceKey, instance_id: str) -> None:
        """Note that an instance is registered no more."""
        shard = shard_of(*key)
        services = self._held.get(shard, {})
        held = services.get(key)
        if held is None or instance_id not in held:
            return
        del held[instance_id]
        self._held_count -= 1
        if not held:
            del services[key]
            if not services:
                del self._held[shard]
                self._claimed_at.pop(shard, None)

    def check_room(self, more: int) -> None:
        """Raise LimitExceededError if so many more instances are more than one session may have."""
        most = limits.INSTANCES_PER_SESSION_MAX
        if self._held_count + more > most:
            raise LimitExceededError(
                f"at most {most} instances per session are allowed", limit=most
            )

    def holders(self) -> list[NodeId]:
        """Return every other node that has something of the client, linked or not."""
        nodes = dict.fromkeys(self.links)
        for shard in self._held:
            nodes[self._hub.shard_map().primary(shard)] = None
        return [node for node in nodes if node not in (NOBODY, self._hub.me)]

    def _held_at(self, node: NodeId) -> list[ShardId]:
        shard_map = self._hub.shard_map()
        return [shard for shard in self._held if shard_map.primary(shard) == node]

    # --- subscriptions ---------------------------------------------------------------------

    @property
    def subscription_count(self) -> int:
        """Subscriptions of the client, wherever they are."""
        here = {} if self.client is None else self.client.subscriptions
        return len(here) + sum(1 for number in self._wanted if number not in here)

    async def subscribe(
        self, client: Client, number: int, target: Target, known: Known, deadline: float
    ) -> None:
        """Follow a target on all nodes that it takes. Nothing is left of it if that fails."""
        self._wanted[number] = target
        self._beginning[number] = None
        try:
            await self._cover(client, number, target, known, deadline)
        except SsGovernError:
            self.unsubscribe(number)
            here = client.subscriptions.pop(number, None)
            if here is not None:
                self._hub.push.unsubscribe(client, here)
            raise
        finally:
            del self._beginning[number]
        # The map may have changed meanwhile, and mending has left this one out.
        self.wake()

    def unsubscribe(self, number: int) -> bool:
        """Drop what a subscription has on other nodes; return whether it was known here."""
        was_wanted = self._wanted.pop(number, None) is not None
        for part in self._parts.pop(number, ()):
            self._end_part(part)
        return was_wanted

    def client_gone(self) -> None:
        """The connection is closed: drop its subscriptions, wait whether the client comes back."""
        self.client = None
        for number in list(self._parts):
            self.unsubscribe(number)
        self._wanted.clear()

    def _end_part(self, part: Part) -> None:
        if part.is_alive:
            request = native_pb2.UnsubscribeRequest(subscription_id=part.subscription_id)
            part.channel.send_request(
                MessageType.UNSUBSCRIBE, request.SerializeToString(), self._soon()
            )

    async def _cover(
        self, client: Client, number: int, target: Target, known: Known, deadline: float
    ) -> None:
        """Let some node tell of every shard of a target of which none does."""
        missing = _mask_of(target) & ~self._covered(client, number)
        if not missing:
            return
        shard_map, here, groups = self._hub.shard_map(), 0, dict[NodeId, int]()
        for shard in shards_of(missing):
            if self._hub.registry.placement.holds(shard):
                here |= 1 << shard
                continue
            node = shard_map.reader(shard)
            if node in (NOBODY, self._hub.me):
                raise ShardUnavailableError(f"no node can tell of shard {shard} now", shard=shard)
            groups[node] = groups.get(node, 0) | 1 << shard
        failures = await in_parallel(
            self._cover_there(number, node, _narrow(target, shards), known, deadline)
            for node, shards in groups.items()
        )
        if self.client is not client or number not in self._wanted:
            # Nobody wants it any more.
            self.unsubscribe(number)
            return
        for failure in failures:
            if failure is not None:
                raise failure
        if here:
            self._cover_here(client, number, target, here, known)

    async def _cover_there(
        self, number: int, node: NodeId, target: Target, known: Known, deadline: float
    ) -> SsGovernError | None:
        request = native_pb2.SubscribeRequest()
        if isinstance(target, ServiceKey):
            request.service.CopyFrom(key_to_wire(target))
        elif isinstance(target, MaskedPattern):
            request.pattern.CopyFrom(pattern_to_wire(target.pattern))
            request.shards = mask_to_wire(target.shards)
        else:
            request.pattern.CopyFrom(pattern_to_wire(target))
        for key, position in known.items():
            if target == key or (not isinstance(target, ServiceKey) and target.matches(key)):
                request.known.add(
                    service=key_to_wire(key), epoch=position.epoch, revision=position.revision
                )
        link = self.link(node)
        try:
            channel = await link.ready(deadline)
            body = request.SerializeToString()
            answer = await channel.request(MessageType.SUBSCRIBE, body, deadline)
        except SsGovernError as error:
            return error
        response = decode(native_pb2.SubscribeResponse, answer)
        part = Part(link, channel, response.subscription_id, _mask_of(target))
        self._parts.setdefault(number, []).append(part)
        return None

    def _cover_here(
        self, client: Client, number: int, target: Target, shards: int, known: Known
    ) -> None:
        before = client.subscriptions.get(number)
        if before is not None:
            shards |= _mask_of(before)
        here = _narrow(target, shards)
        covered = {key: at for key, at in known.items() if _mask_of(key) & shards}
        self._hub.push.subscribe(client, here, covered)
        client.subscriptions[number] = here
        if before is not None:
            self._hub.push.unsubscribe(client, before)
        client.lacks()

    def _covered(self, client: Client, number: int) -> int:
        """Return the shards of a subscription that are told of, and drop what tells of none."""
        holds = self._hub.registry.placement.holds
        shard_map = self._hub.shard_map()
        covered = 0
        target = client.subscriptions.get(number)
        if target is not None:
            covered = sum(1 << shard for shard in shards_of(_mask_of(target)) if holds(shard))
        kept = []
        for part in self._parts.pop(number, ()):
            tells = 0
            if part.is_alive:
                for shard in shards_of(part.shards & ~covered):
                    tells |= shard_map.holds(part.link.node, shard) << shard
            if tells:
                kept.append(part)
            else:
                self._end_part(part)
            covered |= tells
        if kept:
            self._parts[number] = kept
        return covered

    @property
    def targets(self) -> list[Target]:
        """What the client follows on other nodes, wholly or in part."""
        return list(self._wanted.values())

    def follows(self, key: ServiceKey) -> bool:
        """Whether the client follows a service by way of this."""
        return any(
            target == key if isinstance(target, ServiceKey) else target.matches(key)
            for target in self._wanted.values()
        )

    def say_applied(self, said: applied_pb2.Applied) -> None:
        """Tell those who tell the client what it has applied: there it counts, too."""
        by_channel: dict[Channel, applied_pb2.Applied] = {}
        for each in said.services:
            shard = shard_of(*key_from_wire(each.service))
            for parts in self._parts.values():
                for part in parts:
                    if part.shards >> shard & 1 and part.is_alive and part.link.wants_applied:
                        passed_on = by_channel.setdefault(part.channel, applied_pb2.Applied())
                        passed_on.services.append(each)
        for channel, passed_on in by_channel.items():
            channel.send(_applied_frame(passed_on))

    # --- mending ---------------------------------------------------------------------------

    def wake(self) -> None:
        """The map or a link has changed: see that everything is where it should be."""
        self._wake.set()
        if not self._is_mending and not self.is_closed:
            self._is_mending = True
            self._hub.spawn(self._mend(), "relay: mend")

    def _soon(self) -> float:
        return self._loop.time() + limits.FORWARD_DIAL_MS / 1000.0

    async def _mend(self) -> None:
        pause_s = _REPEAT_MIN_S
        try:
            while self._wake.is_set() and not self.is_closed:
                self._wake.clear()
                if not await self._mend_once():
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _REPEAT_MAX_S)
                    self._wake.set()
        finally:
            self._is_mending = False

    async def _mend_once(self) -> bool:
        """Claim what has another primary, follow what nobody tells of; return if all is well."""
        shard_map = self._hub.shard_map()
        by_node: dict[NodeId, list[ShardId]] = {}
        for shard in self._held:
            by_node.setdefault(shard_map.primary(shard), []).append(shard)
        results = await in_parallel(
            self._keep_held(node, shards, shard_map) for node, shards in by_node.items()
        )
        client = self.client
        if client is not None:
            for number, target in client.subscriptions.items():
                self._wanted.setdefault(number, target)
            for number, target in list(self._wanted.items()):
                if number in self._beginning or number not in self._wanted:
                    continue
                try:
                    await self._cover(client, number, target, {}, self._soon())
                except SsGovernError:
                    results.append(False)
        return all(results)

    async def _keep_held(self, node: NodeId, shards: list[ShardId], shard_map: RelayMap) -> bool:
        """See that a node keeps what is held in its shards; return whether it does."""
        if node == NOBODY:
            return False
        moved = [s for s in shards if self._claimed_at.get(s) != shard_map.office(s)]
        try:
            channel = None if node == self._hub.me else await self.link(node).ready(self._soon())
            for request in self._claims(moved):
                if channel is None:
                    response = self._hub.registry.claim(self.session, request)
                else:
                    body = request.SerializeToString()
                    answer = await channel.request(MessageType.CLAIM, body, self._soon())
                    response = decode(native_pb2.ClaimResponse, answer)
                if response.missing:
                    self._hub.lost(self)
                    return True
        except SsGovernError:
            return False
        for shard in moved:
            if shard in self._held:
                self._claimed_at[shard] = shard_map.office(shard)
        return True

    def _claims(self, shards: list[ShardId]) -> list[native_pb2.ClaimRequest]:
        """Return requests that claim what is held in some shards."""
        requests = []
        request, count = native_pb2.ClaimRequest(), 0
        for shard in shards:
            for key, ids in self._held.get(shard, {}).items():
                waiting = list(ids)
                while waiting:
                    taken = waiting[: limits.REGISTER_BATCH_MAX - count]
                    del waiting[: len(taken)]
                    request.claimed.add(service=key_to_wire(key), instance_ids=taken)
                    count += len(taken)
                    if count == limits.REGISTER_BATCH_MAX:
                        requests.append(request)
                        request, count = native_pb2.ClaimRequest(), 0
        if count:
            requests.append(request)
        return requests


async def in_parallel(works: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Run works that raise nothing side by side; return what they return, in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]


def _applied_frame(said: applied_pb2.Applied) -> bytes:
    return encode_frame(Kind.PUSH, MessageType.APPLIED, 0, said.SerializeToString())


def _mask_of(target: Target) -> int:
    if isinstance(target, ServiceKey):
        return 1 << shard_of(*target)
    return target.shards if isinstance(target, MaskedPattern) else ALL_SHARDS


def _narrow(target: Target, shards: int) -> Target:
    """Return the part of a target that is in some shards."""
    if isinstance(target, ServiceKey) or shards == ALL_SHARDS:
        return target
    pattern = target if isinstance(target, Pattern) else target.pattern
    return MaskedPattern(pattern, shards)
