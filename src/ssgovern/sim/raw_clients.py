"""Clients that speak the native protocol themselves: strictly, rudely, or not at all.

The SDK repairs what it can; these do not, so what it would hide shows here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from ssgovern.errors import RemoteProtocolError, SsGovernError
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE, Instance, ServiceKey, session_id_of
from ssgovern.sim.followers import check_list
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.scenario import ClientPlan
from ssgovern.sim.workload import Stage, key_of
from ssgovern.transport.channel import Channel, open_channel
from ssgovern.wire.codec import decode, encode, instance_from_wire, key_from_wire, key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import model_pb2, native_pb2

_ANSWER_S = 3.0


class RawClient:
    """Dials, says hello, does its thing, and dials again when that ends."""

    def __init__(self, plan: ClientPlan, stage: Stage, runtime: SimRuntime) -> None:
        self.plan = plan
        self.stage = stage
        self.checker = stage.checker
        self.runtime = runtime
        self.rng = random.Random(
            f"{runtime.process.world.seed}/{plan.name}/{runtime.process.incarnation}/use"
        )
        self.secret = runtime.random_bytes(16)
        self.session_id = session_id_of(self.secret)

    async def run(self) -> None:
        while True:
            try:
                channel = await self.dial(self._address())
                try:
                    await self.live(channel)
                finally:
                    channel.abort()
            except SsGovernError:
                # Faults of the world, and what rudeness brings. Those of the node show elsewhere.
                pass
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))

    def _address(self) -> str:
        addresses = self.stage.addresses
        return addresses[0] if len(addresses) == 1 else self.rng.choice(addresses)

    async def dial(self, address: str) -> Channel:
        host, _, port = address.partition(":")
        return await open_channel(host, int(port), self.on_push, deadline=self.deadline())

    async def live(self, channel: Channel) -> None:
        """Use one connection."""
        raise NotImplementedError

    def on_push(self, type_: int, request_id: int, body: bytes) -> None:
        """Take a push."""

    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + _ANSWER_S

    async def hello(self, channel: Channel) -> native_pb2.HelloResponse:
        request = native_pb2.HelloRequest(
            version_min=1,
            version_max=1,
            client_name=self.plan.name,
            session_id=self.session_id,
            session_secret=self.secret,
        )
        body = await channel.request(MessageType.HELLO, encode(request), self.deadline())
        return decode(native_pb2.HelloResponse, body)

    async def beat(self, channel: Channel) -> None:
        await channel.request(MessageType.HEARTBEAT, b"", self.deadline())

    def instance(self, number: int) -> model_pb2.Instance:
        return model_pb2.Instance(id=f"{self.plan.name}-{number}", host="raw", port=1, weight=1.0)


class Pipeliner(RawClient):
    """Sends many writes to one instance without waiting: they take effect in their order."""

    async def live(self, channel: Channel) -> None:
        await self.hello(channel)
        while True:
            if self.stage.is_writing:
                await self._burst(channel)
                if self.rng.random() < 0.05:
                    await self._end_rudely(channel)
                    return
            await self.beat(channel)
            await asyncio.sleep(self.rng.expovariate(0.5 / self.plan.pace_s))

    async def _burst(self, channel: Channel) -> None:
        checker, rng = self.checker, self.rng
        key = key_of(rng.choice(self.stage.services))
        instance = self.instance(0)
        sent = []
        floor = checker.floor(key)
        for number in range(rng.randint(1, 20)):
            if rng.random() < 0.7:
                instance.metadata["n"] = str(number)
                request = native_pb2.RegisterRequest()
                request.registrations.add(service=key_to_wire(key), instance=instance)
                checker.may_register(key, instance.id, self.session_id)
                body, type_ = encode(request), MessageType.REGISTER
            else:
                gone = native_pb2.DeregisterRequest(
                    service=key_to_wire(key), instance_id=instance.id
                )
                body, type_ = encode(gone), MessageType.DEREGISTER
            sent.append((type_, channel.send_request(type_, body, self.deadline())))
        last = 0
        for type_, answer in sent:
            try:
                body = await answer
            except SsGovernError:
                continue
            revision = self._judge(key, instance.id, type_, body, floor)
            if revision:
                checker.expect(revision > last, f"R1: {self.plan.name}: {revision} after {last}")
                last = revision

    async def _end_rudely(self, channel: Channel) -> None:
        """Say goodbye and register in one breath: who has ended has nothing any more."""
        key = key_of(self.rng.choice(self.stage.services))
        request = native_pb2.RegisterRequest()
        request.registrations.add(service=key_to_wire(key), instance=self.instance(2))
        deadline = self.deadline()
        gone = channel.send_request(MessageType.GOODBYE, b"", deadline)
        late = channel.send_request(MessageType.REGISTER, encode(request), deadline)
        for answer in (gone, late):
            with contextlib.suppress(SsGovernError):
                await answer

    def _judge(
        self, key: ServiceKey, name: str, type_: int, body: bytes, floor: tuple[int, int]
    ) -> int:
        """Check one answer; return its revision, 0 if the write was refused."""
        if type_ == MessageType.REGISTER:
            [result] = decode(native_pb2.RegisterResponse, body).results
            if result.HasField("error"):
                return 0
            self.checker.is_committed(key, name, result.revision, floor, "registered")
            return result.revision
        response = decode(native_pb2.DeregisterResponse, body)
        self.checker.is_committed(key, name, response.revision, floor, "deregistered")
        return response.revision


class RawWatcher(RawClient):
    """W1 at its strictest: every push must fit what was pushed before, over reconnects too."""

    def __init__(self, plan: ClientPlan, stage: Stage, runtime: SimRuntime) -> None:
        super().__init__(plan, stage, runtime)
        self.lists: dict[ServiceKey, dict[str, Instance]] = {}
        self.positions: dict[ServiceKey, tuple[int, int]] = {}
        self.asked: dict[ServiceKey, None] = {}
        self.assembled = 0

    async def live(self, channel: Channel) -> None:
        await self.hello(channel)
        self.asked = dict.fromkeys(self.positions)
        request = native_pb2.SubscribeRequest()
        request.pattern.namespace = DEFAULT_NAMESPACE
        request.pattern.group = DEFAULT_GROUP
        for key, (epoch, revision) in self.positions.items():
            request.known.add(service=key_to_wire(key), epoch=epoch, revision=revision)
        await channel.request(MessageType.SUBSCRIBE, encode(request), self.deadline())
        until = asyncio.get_running_loop().time() + self.rng.choice([1.0, 5.0, 30.0])
        while asyncio.get_running_loop().time() < until or not self.stage.is_writing:
            await self.beat(channel)
            await self._get(channel)
            await asyncio.sleep(0.3)
            if self.stage.is_writing and self.rng.random() < 0.2:
                await self._read_nothing_for(self.rng.uniform(0.2, 2.0), channel)

    async def _read_nothing_for(self, seconds: float, channel: Channel) -> None:
        if channel.transport is not None and channel.is_open:
            channel.transport.pause_reading()
            await asyncio.sleep(seconds)
            if channel.is_open:
                channel.transport.resume_reading()

    async def _get(self, channel: Channel) -> None:
        key = key_of(self.rng.choice(self.stage.services))
        floor = self.checker.floor(key)
        request = native_pb2.GetRequest(service=key_to_wire(key))
        body = await channel.request(MessageType.GET, encode(request), self.deadline())
        response = decode(native_pb2.GetResponse, body)
        found = {item.id: instance_from_wire(item) for item in response.instances}
        check_list(self.checker, self.plan.name, key, response.revision, found)
        if floor[0] == self.checker.ledger.losses:
            self.checker.expect(
                response.revision >= floor[1],
                f"R2: {self.plan.name} read {key} at {response.revision}, not {floor[1]}",
            )

    def on_push(self, type_: int, request_id: int, body: bytes) -> None:
        if type_ == MessageType.SNAPSHOT:
            self._on_snapshot(decode(native_pb2.Snapshot, body))
        elif type_ == MessageType.DELTA:
            self._on_delta(decode(native_pb2.Delta, body))
        elif type_ == MessageType.CURRENT:
            push = decode(native_pb2.Current, body)
            self._move(key_from_wire(push.service), push.epoch, push.revision)
        else:
            raise RemoteProtocolError(f"a push of type {type_}")

    def _on_snapshot(self, push: native_pb2.Snapshot) -> None:
        key = key_from_wire(push.service)
        self.lists[key] = {item.id: instance_from_wire(item) for item in push.instances}
        self._move(key, push.epoch, push.revision)

    def _on_delta(self, push: native_pb2.Delta) -> None:
        key = key_from_wire(push.service)
        _, revision = self.positions.get(key, (0, 0))
        if not push.since <= revision < push.revision:
            self.checker.fail(
                f"W1: {self.plan.name} has {key} at {revision} and was told what changed from "
                f"{push.since} to {push.revision}"
            )
        held = self.lists.setdefault(key, {})
        for name in push.removed:
            held.pop(name, None)
        held.update((item.id, instance_from_wire(item)) for item in push.upserted)
        self._move(key, push.epoch, push.revision)

    def _move(self, key: ServiceKey, epoch: int, revision: int) -> None:
        before = self.positions.get(key, (0, 0))
        if (epoch, revision) < before:
            self.checker.fail(
                f"R1: {self.plan.name} was told {key} at {epoch}/{revision} after {before}"
            )
        self.positions[key] = (epoch, revision)
        check_list(self.checker, self.plan.name, key, revision, self.lists.get(key, {}))


class Garbage(RawClient):
    """Sends what is not the protocol, or almost is."""

    async def live(self, channel: Channel) -> None:
        rng = self.rng
        if rng.random() < 0.7:
            await self.hello(channel)
        for _ in range(rng.randint(1, 5)):
            if not channel.is_open:
                return
            channel.send(self._something())
            await asyncio.sleep(rng.uniform(0.0, 0.3))

    def _something(self) -> bytes:
        rng = self.rng
        known = [int(type_) for type_ in MessageType]
        match rng.randrange(5):
            case 0:
                return rng.randbytes(rng.randint(1, 2000))
            case 1:
                return encode_frame(Kind.REQUEST, rng.choice(known), 7, rng.randbytes(40))
            case 2:
                return encode_frame(rng.randint(1, 4), rng.randint(0, 99), 8, b"")
            case 3:
                return (0x7FFFFFFF).to_bytes(4, "big") + rng.randbytes(100)
            case _:
                # A frame that never ends.
                return encode_frame(Kind.REQUEST, MessageType.REGISTER, 9, bytes(5000))[:3000]


class HalfOpen(RawClient):
    """Registers and falls silent without closing, or never even says hello."""

    async def live(self, channel: Channel) -> None:
        if self.rng.random() < 0.7:
            await self.hello(channel)
            if self.stage.is_writing:
                key = key_of(self.rng.choice(self.stage.services))
                request = native_pb2.RegisterRequest()
                request.registrations.add(service=key_to_wire(key), instance=self.instance(1))
                self.checker.may_register(key, f"{self.plan.name}-1", self.session_id)
                floor = self.checker.floor(key)
                body = await channel.request(MessageType.REGISTER, encode(request), self.deadline())
                [result] = decode(native_pb2.RegisterResponse, body).results
                if not result.HasField("error"):
                    self.checker.is_committed(
                        key, result.instance_id, result.revision, floor, "registered"
                    )
        # The node must end this: nothing here will.
        await channel.wait_lost(self.rng.choice([2.0, 8.0, 60.0]))


class Deaf(RawClient):
    """Subscribes to everything, asks for more and more, and reads nothing of it."""

    async def live(self, channel: Channel) -> None:
        await self.hello(channel)
        assert channel.transport is not None, "a hello was answered on it"
        request = native_pb2.SubscribeRequest()
        request.pattern.namespace = DEFAULT_NAMESPACE
        request.pattern.group = DEFAULT_GROUP
        channel.transport.pause_reading()
        channel.send(encode_frame(Kind.REQUEST, MessageType.SUBSCRIBE, 1, encode(request)))
        deaf_s = self.rng.choice([3.0, 10.0, 40.0])
        until = asyncio.get_running_loop().time() + deaf_s
        number = 2
        while asyncio.get_running_loop().time() < until and channel.is_open:
            if not channel.is_congested:
                listing = native_pb2.ListServicesRequest(namespace=DEFAULT_NAMESPACE)
                for _ in range(20):
                    channel.send(
                        encode_frame(
                            Kind.REQUEST, MessageType.LIST_SERVICES, number, encode(listing)
                        )
                    )
                    number += 1
            channel.send(encode_frame(Kind.REQUEST, MessageType.HEARTBEAT, number, b""))
            number += 1
            await asyncio.sleep(0.3)
        if channel.is_open:
            channel.transport.resume_reading()
            await channel.wait_lost(1.0)


RAW_CLIENTS: dict[str, type[RawClient]] = {
    "pipeliner": Pipeliner,
    "raw_watcher": RawWatcher,
    "garbage": Garbage,
    "half_open": HalfOpen,
    "deaf": Deaf,
}
