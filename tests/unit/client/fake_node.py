"""A node without a log, that can be told to misbehave. For tests of the SDK alone.

Runs on any asyncio loop. Its state is this object, so it survives that its process is killed;
`restart_lossy` makes it a node that remembers nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from google.protobuf.message import Message

from ssgovern.errors import (
    RemoteProtocolError,
    SessionUnknownError,
    SsGovernError,
    UnsupportedTypeError,
)
from ssgovern.model import SHARDS, Instance, Pattern, ServiceKey
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import (
    encode,
    error_to_wire,
    instance_to_wire,
    key_from_wire,
    key_to_wire,
    pattern_from_wire,
)
from ssgovern.wire.frames import Frame, Kind, MessageType, encode_message
from ssgovern.wire.pb import applied_pb2, model_pb2, native_pb2

PORT = 7420

REQUESTS: dict[int, type[Message]] = {
    MessageType.HELLO: native_pb2.HelloRequest,
    MessageType.HEARTBEAT: native_pb2.HeartbeatRequest,
    MessageType.GOODBYE: native_pb2.GoodbyeRequest,
    MessageType.REGISTER: native_pb2.RegisterRequest,
    MessageType.DEREGISTER: native_pb2.DeregisterRequest,
    MessageType.UPDATE: native_pb2.UpdateRequest,
    MessageType.GET: native_pb2.GetRequest,
    MessageType.LIST_SERVICES: native_pb2.ListServicesRequest,
    MessageType.SUBSCRIBE: native_pb2.SubscribeRequest,
    MessageType.UNSUBSCRIBE: native_pb2.UnsubscribeRequest,
    MessageType.STATUS: native_pb2.StatusRequest,
    MessageType.SHARD_MAP: native_pb2.ShardMapRequest,
    MessageType.CLAIM: native_pb2.ClaimRequest,
    MessageType.CLUSTER_STATUS: native_pb2.ClusterStatusRequest,
    MessageType.CLUSTER_COMMAND: native_pb2.ClusterCommandRequest,
    MessageType.SUBSCRIBERS: applied_pb2.SubscribersRequest,
    MessageType.AWAIT_APPLIED: applied_pb2.AwaitAppliedRequest,
}


class FakeNode:
    """One node and the faults it has been told to have."""

    def __init__(self) -> None:
        self.cluster_id = b"c" * 16
        self.epoch = 1
        self.revision = 0
        self.services: dict[ServiceKey, dict[str, model_pb2.Instance]] = {}
        self.changed: dict[ServiceKey, list[tuple[int, str]]] = {}
        """Per service: at which revision which instance changed."""
        self.sessions: dict[bytes, dict[tuple[ServiceKey, str], None]] = {}
        self.connections: dict[FakeConnection, None] = {}
        self.hellos = 0
        self.requests: list[tuple[MessageType, Message]] = []
        self.address = "127.0.0.1"

        self.refusals: dict[int, list[SsGovernError]] = {}
        """By type: errors to answer with, one per request, before any is taken."""
        self.mute: Counter[int] = Counter()
        """By type: how many are carried out and never answered."""
        self.cut: Counter[int] = Counter()
        """By type: how many are carried out and answered by cutting the connection."""
        self.ignores_all = False
        """Reads and answers nothing, as behind a partition."""
        self.deltas_lost = 0
        """How many deltas are not sent from now on."""
        self.catch_up_late_s = 0.0
        """How long after its answer a new subscription is told what it lacks."""

    async def main(self, runtime: object) -> None:
        """Serve for ever."""
        loop = asyncio.get_running_loop()
        self.connections.clear()
        server = await loop.create_server(lambda: FakeConnection(self), "0.0.0.0", PORT)
        async with server:
            await server.serve_forever()

    def restart_lossy(self) -> None:
        """Forget everything, as a node with a new data directory would."""
        self.cluster_id = bytes(reversed(self.cluster_id[:-1])) + b"x"
        self.epoch, self.revision = 1, 0
        self.services.clear()
        self.changed.clear()
        self.sessions.clear()

    def count(self, type_: MessageType) -> int:
        """Return how many requests of a type came in."""
        return sum(seen is type_ for seen, _ in self.requests)

    def last(self, type_: MessageType) -> Message:
        """Return the last request of a type."""
        return next(message for seen, message in reversed(self.requests) if seen is type_)

    def put(self, key: ServiceKey, instance: Instance) -> None:
        """Register an instance that belongs to nobody, and tell."""
        self._put(key, instance_to_wire(instance))

    def take(self, key: ServiceKey, instance_id: str) -> None:
        """Remove an instance, and tell."""
        if self.services.get(key, {}).pop(instance_id, None) is not None:
            self._tell(key, instance_id)

    def _put(self, key: ServiceKey, message: model_pb2.Instance) -> None:
        self.services.setdefault(key, {})[message.id] = message
        self._tell(key, message.id)

    def _tell(self, key: ServiceKey, instance_id: str) -> None:
        history = self.changed.setdefault(key, [])
        since = history[-1][0] if history else 0
        self.revision += 1
        instance = self.services[key].get(instance_id)
        if instance is not None:
            instance.revision = self.revision
        history.append((self.revision, instance_id))
        if self.deltas_lost:
            self.deltas_lost -= 1
            return
        delta = self.delta(key, since)
        for connection in list(self.connections):
            if connection.follows(key):
                connection.push(MessageType.DELTA, delta)

    def epoch_of(self, key: ServiceKey) -> int:
        """Return the epoch of a service's shard."""
        return self.epoch

    def delta(self, key: ServiceKey, since: int) -> native_pb2.Delta:
        """Return what changed in a service since a revision."""
        instances = self.services.get(key, {})
        ids = dict.fromkeys(i for revision, i in self.changed.get(key, []) if revision > since)
        return native_pb2.Delta(
            service=key_to_wire(key),
            epoch=self.epoch_of(key),
            since=since,
            revision=self.revision,
            upserted=[instances[i] for i in ids if i in instances],
            removed=[i for i in ids if i not in instances],
        )

    def snapshot(self, key: ServiceKey) -> native_pb2.Snapshot:
        """Return the list of a service."""
        return native_pb2.Snapshot(
            service=key_to_wire(key),
            epoch=self.epoch_of(key),
            revision=self.revision,
            instances=self.services.get(key, {}).values(),
        )

    def end_session(self, session_id: bytes) -> None:
        """Remove all that a session registered."""
        for key, instance_id in self.sessions.pop(session_id, {}):
            self.take(key, instance_id)

    # --- what requests do ------------------------------------------------------------------

    def handle(self, connection: FakeConnection, type_: int, request: Message) -> Message:
        """Carry out a request and return the answer."""
        match request:
            case native_pb2.HelloRequest():
                self.hellos += 1
                resumed = request.session_id in self.sessions
                self.sessions.setdefault(request.session_id, {})
                connection.session_id = request.session_id
                return native_pb2.HelloResponse(
                    version=1,
                    cluster_id=self.cluster_id,
                    node_id=1,
                    node_name="fake",
                    resumed=resumed,
                    session_ttl_ms=5000,
                    heartbeat_interval_ms=1000,
                )
            case _ if connection.session_id not in self.sessions:
                raise SessionUnknownError("no such session")
            case native_pb2.HeartbeatRequest():
                return native_pb2.HeartbeatResponse()
            case native_pb2.GoodbyeRequest():
                self.end_session(connection.session_id)
                return native_pb2.GoodbyeResponse()
            case native_pb2.RegisterRequest():
                return self._register(connection, request)
            case native_pb2.DeregisterRequest():
                key = key_from_wire(request.service)
                there = request.instance_id in self.services.get(key, {})
                self.take(key, request.instance_id)
                self.sessions[connection.session_id].pop((key, request.instance_id), None)
                return native_pb2.DeregisterResponse(
                    epoch=self.epoch, revision=self.revision, removed=there
                )
            case native_pb2.UpdateRequest():
                key = key_from_wire(request.service)
                instance = self.services[key][request.instance_id]
                if request.change.HasField("weight"):
                    instance.weight = request.change.weight
                instance.metadata.update(request.change.metadata_set)
                self._put(key, instance)
                return native_pb2.UpdateResponse(
                    epoch=self.epoch, revision=self.revision, instance=instance
                )
            case native_pb2.GetRequest():
                told = self.snapshot(key_from_wire(request.service))
                return native_pb2.GetResponse(
                    epoch=told.epoch, revision=told.revision, instances=told.instances
                )
            case native_pb2.ListServicesRequest():
                return self._list(request)
            case native_pb2.SubscribeRequest():
                return connection.subscribe(request)
            case native_pb2.UnsubscribeRequest():
                del connection.targets[request.subscription_id]
                return native_pb2.UnsubscribeResponse()
            case native_pb2.ShardMapRequest():
                return self.shard_map()
            case native_pb2.ClusterStatusRequest():
                status = native_pb2.ClusterStatusResponse(
                    cluster_id=self.cluster_id, node_id=1, candidates=[1, 2, 3], copies=3
                )
                status.nodes.add(node_id=1, name="fake", live=True, candidate=True, primaries=256)
                if request.shards:
                    status.shards.add(shard=7, epoch=2, primary=1, holders=[1, 2], in_sync=[1])
                return status
            case native_pb2.ClusterCommandRequest():
                return native_pb2.ClusterCommandResponse(
                    sentence=f"decided: {request.WhichOneof('command')}"
                )
            case applied_pb2.SubscribersRequest() | applied_pb2.AwaitAppliedRequest():
                if self.mute[type_]:
                    return applied_pb2.AwaitAppliedResponse()
                raise UnsupportedTypeError("this node is older than that", type=type_)
            case native_pb2.StatusRequest():
                return native_pb2.StatusResponse(node_name="fake", shards=256)
            case _:
                raise AssertionError(f"type {type_} is not faked")

    def shard_map(self) -> native_pb2.ShardMapUpdate:
        """Return the map of a node that stands alone."""
        update = native_pb2.ShardMapUpdate(cluster_id=self.cluster_id, version=1)
        update.nodes.add(node_id=1, name="fake", live=True)
        for shard in range(SHARDS):
            update.rows.add(shard=shard, epoch=self.epoch, primary=1, holders=[1], in_sync=[1])
        return update

    def _register(
        self, connection: FakeConnection, request: native_pb2.RegisterRequest
    ) -> native_pb2.RegisterResponse:
        response = native_pb2.RegisterResponse()
        for item in request.registrations:
            key = key_from_wire(item.service)
            self._put(key, item.instance)
            self.sessions[connection.session_id][key, item.instance.id] = None
            response.results.add(
                instance_id=item.instance.id, epoch=self.epoch, revision=self.revision
            )
        return response

    def _list(self, request: native_pb2.ListServicesRequest) -> native_pb2.ListServicesResponse:
        keys = sorted(
            key
            for key, instances in self.services.items()
            if instances
            and key.namespace == request.namespace
            and request.group in ("", key.group)
            and key.service.startswith(request.prefix)
        )
        start = int(request.page_token or 0)
        page = keys[start : start + 2]
        return native_pb2.ListServicesResponse(
            services=[
                native_pb2.ServiceSummary(
                    service=key_to_wire(key), instances=len(self.services[key])
                )
                for key in page
            ],
            next_page_token=str(start + 2) if start + 2 < len(keys) else "",
        )


class FakeConnection(FrameConnection):
    """One client's connection."""

    def __init__(self, node: FakeNode) -> None:
        super().__init__()
        self.node = node
        self.session_id = b""
        self.targets: dict[int, ServiceKey | Pattern] = {}
        self._after_answer: list[tuple[MessageType, Message]] = []

    def on_open(self) -> None:
        self.node.connections[self] = None

    def on_closed(self, cause: Exception | None) -> None:
        self.node.connections.pop(self, None)

    def follows(self, key: ServiceKey) -> bool:
        return any(
            target.matches(key) if isinstance(target, Pattern) else target == key
            for target in self.targets.values()
        )

    def push(self, type_: MessageType, message: Message) -> None:
        for frame in encode_message(Kind.PUSH, type_, 0, encode(message)):
            self.send(frame)

    def subscribe(self, request: native_pb2.SubscribeRequest) -> native_pb2.SubscribeResponse:
        node = self.node
        known = {key_from_wire(k.service): (k.epoch, k.revision) for k in request.known}
        target: ServiceKey | Pattern
        if request.HasField("pattern"):
            target = pattern_from_wire(request.pattern)
            keys = dict.fromkeys([*filter(target.matches, sorted(node.services)), *known])
        else:
            target = key_from_wire(request.service)
            keys = {target: None}
        number = 1 + max(self.targets, default=0)
        self.targets[number] = target
        for key in keys:
            epoch, revision = known.get(key, (0, 0))
            present = node.epoch_of(key)
            if not revision or revision > node.revision or epoch > present:
                self._after_answer.append((MessageType.SNAPSHOT, node.snapshot(key)))
            elif node.changed.get(key, [(0, "")])[-1][0] <= revision:
                current = native_pb2.Current(
                    service=key_to_wire(key), epoch=present, revision=node.revision
                )
                self._after_answer.append((MessageType.CURRENT, current))
            else:
                self._after_answer.append((MessageType.DELTA, node.delta(key, revision)))
        return native_pb2.SubscribeResponse(subscription_id=number)

    def on_frame(self, frame: Frame) -> None:
        kind, _, type_, request_id, body = frame
        node = self.node
        if node.ignores_all:
            return
        if kind != Kind.REQUEST:
            raise RemoteProtocolError("not a request")
        request = REQUESTS[type_].FromString(body)
        node.requests.append((MessageType(type_), request))
        refusals = node.refusals.get(type_)
        if refusals:
            error = encode(error_to_wire(refusals.pop(0)))
            self.send_all(encode_message(Kind.ERROR, type_, request_id, error))
            return
        try:
            answer = node.handle(self, type_, request)
        except SsGovernError as fault:
            error = encode(error_to_wire(fault))
            self.send_all(encode_message(Kind.ERROR, type_, request_id, error))
            return
        if node.cut[type_] > 0:
            node.cut[type_] -= 1
            self.abort()
        elif node.mute[type_] > 0:
            node.mute[type_] -= 1
        else:
            self.send_all(encode_message(Kind.RESPONSE, type_, request_id, encode(answer)))
            for number, (push_type, message) in enumerate(self._after_answer):
                if node.catch_up_late_s:
                    delay_s = node.catch_up_late_s * (number + 1)
                    asyncio.get_running_loop().call_later(delay_s, self.push, push_type, message)
                else:
                    self.push(push_type, message)
        self._after_answer.clear()
