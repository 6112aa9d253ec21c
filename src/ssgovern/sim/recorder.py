"""A client that talks to primaries itself and has every request and answer recorded.

It knows the map as somebody told it, perhaps long ago, repeats nothing and repairs nothing: what
it was answered is what a node said, and histories judge it.
"""

from __future__ import annotations

import asyncio

from ssgovern.errors import ErrorCode, SsGovernError, error_from_wire
from ssgovern.model import ServiceKey, shard_of
from ssgovern.sim.followers import check_list
from ssgovern.sim.histories import Answer, Call, Histories, Request
from ssgovern.sim.raw_clients import RawClient
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan
from ssgovern.sim.workload import Stage, key_of
from ssgovern.transport.channel import Channel
from ssgovern.wire.codec import decode, encode, instance_from_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

RECORDED = ("recorded-0", "recorded-1", "recorded-2")
"""Services that only recorders touch."""

_IDS = ("x", "y", "z")
_BEAT_ANSWER_S = 0.7

# After these it is certain that nothing was done.
_NOTHING_DONE = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.LIMIT_EXCEEDED,
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.SESSION_FOREIGN,
        ErrorCode.SESSION_SUPERSEDED,
        ErrorCode.HELLO_REQUIRED,
        ErrorCode.OVERLOADED,
        ErrorCode.DISK_FULL,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.SHARD_MOVED,
        ErrorCode.SHARD_UNAVAILABLE,
    }
)


class Recorder(RawClient):
    """Writes and reads a few instances that other recorders write as well; a `reader` reads."""

    def __init__(
        self, plan: ClientPlan, stage: Stage, runtime: SimRuntime, histories: Histories
    ) -> None:
        super().__init__(plan, stage, runtime)
        self._histories = histories
        self._channels: dict[str, Channel] = {}
        self._map = native_pb2.ShardMapUpdate()
        self._number = 0
        self._seen: dict[tuple[str, int, ServiceKey], int] = {}
        """Revisions read, by node and life of it."""
        self.done_in_calm = 0
        self.last_write_at = 0.0
        self.longest_gap_s = 0.0
        """The longest time between two acknowledged writes."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(1.0 / self.plan.pace_s))
            try:
                await self._beat_all()
                if not self._map.version or self.rng.random() < 0.02:
                    await self._ask_map(self._address())
                elif self.rng.random() < 0.15:
                    await self._read_anywhere()
                else:
                    await self._do_something()
            except SsGovernError:
                # Faults of the world. What the map says may be why: ask somebody else.
                self._map.Clear()

    # --- connections -------------------------------------------------------------------------

    async def _channel(self, address: str) -> Channel:
        channel = self._channels.get(address)
        if channel is None or not channel.is_open:
            channel = await self.dial(address)
            try:
                await self.hello(channel)
            except SsGovernError:
                channel.abort()
                raise
            self._channels[address] = channel
        return channel

    async def _beat_all(self) -> None:
        """Keep every connection alive: a node closes those that fall silent."""
        for address, channel in list(self._channels.items()):
            if not channel.is_open:
                del self._channels[address]
                continue
            try:
                deadline = asyncio.get_running_loop().time() + _BEAT_ANSWER_S
                await channel.request(MessageType.HEARTBEAT, b"", deadline)
            except SsGovernError:
                channel.abort()
                del self._channels[address]

    async def _ask_map(self, address: str) -> None:
        channel = await self._channel(address)
        request = encode(native_pb2.ShardMapRequest())
        body = await channel.request(MessageType.SHARD_MAP, request, self.deadline())
        self._map = decode(native_pb2.ShardMapUpdate, body)
        for node in self._map.nodes:
            # Left empty by the node that answers: it is where it was asked.
            node.address = node.address or address

    def _node_address(self, node_id: int) -> str:
        for node in self._map.nodes:
            if node.node_id == node_id:
                return node.address
        return ""

    def _address_of_primary(self, key: ServiceKey) -> str:
        shard = shard_of(*key)
        for row in self._map.rows:
            if row.shard == shard:
                return self._node_address(row.primary)
        return ""

    def _address_of_some_holder(self, key: ServiceKey) -> str:
        shard = shard_of(*key)
        for row in self._map.rows:
            if row.shard == shard and row.holders:
                return self._node_address(self.rng.choice(list(row.holders)))
        return ""

    # --- recorded requests -------------------------------------------------------------------

    async def _do_something(self) -> None:
        key = key_of(self.rng.choice(RECORDED[: len(self.stage.services)]))
        address = self._address_of_primary(key)
        if not address:
            self._map.Clear()
            return
        channel = await self._channel(address)
        draw = self.rng.random()
        if draw < 0.4 or not self.stage.is_writing or self.plan.kind == "reader":
            await self._ask(channel, key, Request("get"))
            return
        name = self.rng.choice(_IDS)
        self._number += 1
        number = float(self._number * 100 + int(self.plan.name.removeprefix("c")))
        if draw < 0.7:
            self.checker.may_register(key, name, self.session_id)
            await self._ask(channel, key, Request("register", name, number))
        elif draw < 0.85:
            await self._ask(channel, key, Request("update", name, number))
        else:
            await self._ask(channel, key, Request("deregister", name))

    async def _ask(self, channel: Channel, key: ServiceKey, request: Request) -> None:
        call = self._histories.begin(self.plan.name, key, request)
        type_, body = _encoded(key, request)
        try:
            answer = _answer(request, await channel.request(type_, body, self.deadline()))
        except SsGovernError as error:
            self._note_error(call, error)
            raise
        self._histories.answered(call, answer=answer)
        if self.stage.is_calm:
            self.done_in_calm += 1
        if request.kind != "get":
            self._note_write()

    def _note_error(self, call: Call, error: SsGovernError) -> None:
        if error.code is ErrorCode.NOT_FOUND:
            self._histories.answered(call, answer=False)
        elif error.code in _NOTHING_DONE:
            call.refused()

    def _note_write(self) -> None:
        now = self.checker.world.now
        self.checker.acknowledged += 1
        if self.last_write_at:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_write_at)
        self.last_write_at = now

    async def _read_anywhere(self) -> None:
        """A replica may be behind, but it says so, was there once, and does not go back."""
        key = key_of(self.rng.choice([*RECORDED, *self.stage.services]))
        address = self._address_of_some_holder(key)
        if not address:
            return
        channel = await self._channel(address)
        watch_name = address.partition(":")[0]
        life = self.checker.world.processes[watch_name].incarnation
        request = native_pb2.GetRequest(service=key_to_wire(key), replica_too=True)
        body = await channel.request(MessageType.GET, encode(request), self.deadline())
        response = decode(native_pb2.GetResponse, body)
        found = {item.id: instance_from_wire(item) for item in response.instances}
        who = f"{self.plan.name} at {watch_name}"
        check_list(self.checker, who, key, response.revision, found)
        if life != self.checker.world.processes[watch_name].incarnation:
            return
        seen = self._seen.get((address, life, key), 0)
        self.checker.expect(
            response.revision >= seen, f"R1: {who} read {key} at {response.revision} after {seen}"
        )
        self._seen[address, life, key] = response.revision


def _encoded(key: ServiceKey, request: Request) -> tuple[MessageType, bytes]:
    service = key_to_wire(key)
    match request.kind:
        case "get":
            return MessageType.GET, encode(native_pb2.GetRequest(service=service))
        case "register":
            message = native_pb2.RegisterRequest()
            instance = model_pb2.Instance(
                id=request.instance_id,
                host="recorded",
                port=1,
                weight=request.number,
                persistent=True,
            )
            message.registrations.add(service=service, instance=instance)
            return MessageType.REGISTER, encode(message)
        case "deregister":
            gone = native_pb2.DeregisterRequest(
                service=service, instance_id=request.instance_id, any_owner=True
            )
            return MessageType.DEREGISTER, encode(gone)
        case _:
            changed = native_pb2.UpdateRequest(
                service=service, instance_id=request.instance_id, any_owner=True
            )
            changed.change.weight = request.number
            return MessageType.UPDATE, encode(changed)


def _answer(request: Request, body: bytes) -> Answer:
    """Return what a node answered. Raises what it refused one registration with."""
    match request.kind:
        case "get":
            found = decode(native_pb2.GetResponse, body).instances
            return tuple(sorted((item.id, item.weight) for item in found))
        case "register":
            [result] = decode(native_pb2.RegisterResponse, body).results
            if result.HasField("error"):
                wrong = result.error
                raise error_from_wire(wrong.code, wrong.retry, wrong.message, wrong.fields)
            return True
        case "deregister":
            return decode(native_pb2.DeregisterResponse, body).removed
        case _:
            return True
