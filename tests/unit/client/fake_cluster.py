"""Several fake nodes with one state between them, and a shard map that tests change at will.

What one node takes all others have at once, unless a node is told to lag. There is no
controller: a test says who is primary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from fake_node import FakeConnection, FakeNode
from google.protobuf.message import Message
from stage import Program, Stage

import ssgovern
from ssgovern.errors import OutcomeUnknownError, ShardMovedError, ShardUnavailableError
from ssgovern.model import SHARDS, Pattern, ServiceKey, shard_of
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.wire.codec import encode, key_from_wire, key_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_message
from ssgovern.wire.pb import native_pb2


class Row:
    """Who has a shard."""

    def __init__(self, primary: int, holders: Iterable[int]) -> None:
        self.epoch = 1
        self.primary = primary
        self.holders = list(holders)
        self.in_sync = list(self.holders)
        self.changed_at = 1


class ClusterNode(FakeNode):
    """One node; what it keeps is the cluster's."""

    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.past: tuple[Any, ...] | None = None
        """What it has while it lags."""
        self.unavailable: dict[int, None] = {}
        """Shards it is primary of and must not act for."""
        self.in_doubt = 0
        """How many writes are done and answered by 'outcome unknown'."""
        self.map_lags: native_pb2.ShardMapUpdate | None = None
        """The map it answers with instead of the present one."""
        super().__init__()

    # The state is the cluster's: what the base class sets when it is made is ignored.

    @property
    def services(self) -> Any:  # type: ignore[override]
        return self.past[0] if self.past else self.cluster.services

    @services.setter
    def services(self, value: Any) -> None:
        pass

    @property
    def changed(self) -> Any:  # type: ignore[override]
        return self.past[1] if self.past else self.cluster.changed

    @changed.setter
    def changed(self, value: Any) -> None:
        pass

    @property
    def revision(self) -> int:  # type: ignore[override]
        return self.past[2] if self.past else self.cluster.revision

    @revision.setter
    def revision(self, value: int) -> None:
        self.cluster.revision = value

    def lag(self) -> None:
        """Stay as it is, whatever the others take."""
        cluster = self.cluster
        self.past = copy.deepcopy((cluster.services, cluster.changed, cluster.revision))

    def catch_up(self) -> None:
        """Have what the others have, and tell."""
        assert self.past is not None
        since = self.past[2]
        self.past = None
        for key in self.cluster.changed:
            if self.cluster.changed[key][-1][0] > since:
                self.tell(key, since)

    def tell(self, key: ServiceKey, since: int) -> None:
        if self.past is None and self.number in self.cluster.row(key).holders:
            delta = self.delta(key, since)
            for connection in list(self.connections):
                if connection.follows(key):
                    connection.push(MessageType.DELTA, delta)

    def _tell(self, key: ServiceKey, instance_id: str) -> None:
        cluster = self.cluster
        history = cluster.changed.setdefault(key, [])
        since = history[-1][0] if history else 0
        cluster.revision += 1
        instance = cluster.services[key].get(instance_id)
        if instance is not None:
            instance.revision = cluster.revision
        history.append((cluster.revision, instance_id))
        for node in cluster.nodes.values():
            node.tell(key, since)

    def epoch_of(self, key: ServiceKey) -> int:
        return self.cluster.row(key).epoch

    # --- requests --------------------------------------------------------------------------

    def handle(self, connection: FakeConnection, type_: int, request: Message) -> Message:
        cluster = self.cluster
        match request:
            case native_pb2.ShardMapRequest():
                if request.follow:
                    cluster.followers[connection] = None
                return self.map_lags or cluster.update(request.known_version, self.number)
            case native_pb2.ClaimRequest():
                return self._claim(connection, request)
            case native_pb2.GetRequest():
                self._check([key_from_wire(request.service)], replica_too=request.replica_too)
            case native_pb2.RegisterRequest():
                keys = [key_from_wire(item.service) for item in request.registrations]
                self._check(keys)
                for item in request.registrations:
                    owned = key_from_wire(item.service), item.instance.id
                    cluster.owners[owned] = connection.session_id
            case native_pb2.DeregisterRequest() | native_pb2.UpdateRequest():
                self._check([key_from_wire(request.service)])
            case native_pb2.SubscribeRequest():
                self._check_holds(request)
        answer = super().handle(connection, type_, request)
        if isinstance(answer, native_pb2.HelloResponse):
            answer.node_id = self.number
            answer.node_name = f"n{self.number}"
            answer.map_version = cluster.version
        if isinstance(answer, native_pb2.HeartbeatResponse):
            answer.map_version = cluster.version
        if isinstance(answer, native_pb2.RegisterResponse) and keys:
            for key, result in zip(keys, answer.results, strict=True):
                result.epoch = cluster.row(key).epoch
        if self.in_doubt and isinstance(
            answer, native_pb2.RegisterResponse | native_pb2.DeregisterResponse
        ):
            self.in_doubt -= 1
            raise OutcomeUnknownError("stepped down meanwhile")
        return answer

    def _check(self, keys: list[ServiceKey], *, replica_too: bool = False) -> None:
        for key in keys:
            row = self.cluster.row(key)
            shard = shard_of(*key)
            if replica_too and self.number in row.holders:
                continue
            if row.primary != self.number:
                raise ShardMovedError("not mine", shard=shard)
            if shard in self.unavailable:
                raise ShardUnavailableError("no lease", shard=shard)

    def _check_holds(self, request: native_pb2.SubscribeRequest) -> None:
        if request.HasField("service"):
            shards = [shard_of(*key_from_wire(request.service))]
        else:
            shards = [number for number in range(SHARDS) if in_mask(request.shards, number)]
        for shard in shards:
            if self.number not in self.cluster.rows[shard].holders:
                raise ShardMovedError("not here", shard=shard)

    def _claim(
        self, connection: FakeConnection, request: native_pb2.ClaimRequest
    ) -> native_pb2.ClaimResponse:
        response = native_pb2.ClaimResponse()
        for item in request.claimed:
            key = key_from_wire(item.service)
            self._check([key])
            missing = [
                each
                for each in item.instance_ids
                if each not in self.services.get(key, {})
                or self.cluster.owners.get((key, each)) != connection.session_id
            ]
            if missing:
                response.missing.add(service=item.service, instance_ids=missing)
        return response

    def _list(self, request: native_pb2.ListServicesRequest) -> native_pb2.ListServicesResponse:
        keys = [
            key
            for key in sorted(self.services)
            if self.services[key]
            and key.namespace == request.namespace
            and request.group in ("", key.group)
            and key.service.startswith(request.prefix)
            and in_mask(request.shards, shard_of(*key))
        ]
        start = int(request.page_token or 0)
        return native_pb2.ListServicesResponse(
            services=[
                native_pb2.ServiceSummary(
                    service=key_to_wire(key), instances=len(self.services[key])
                )
                for key in keys[start : start + 2]
            ],
            next_page_token=str(start + 2) if start + 2 < len(keys) else "",
        )


class FakeCluster:
    """The nodes, what they keep, and the map."""

    def __init__(self, world: World, size: int = 3, *, copies: int = 3) -> None:
        self.cluster_id = b"c" * 16
        self.services: dict[ServiceKey, dict[str, Any]] = {}
        self.changed: dict[ServiceKey, list[tuple[int, str]]] = {}
        self.revision = 0
        self.owners: dict[tuple[ServiceKey, str], bytes] = {}
        self.version = 1
        self.followers: dict[FakeConnection, None] = {}
        self.live = dict.fromkeys(range(1, size + 1), True)
        self.rows = [
            Row(1 + shard % size, [1 + (shard + more) % size for more in range(copies)])
            for shard in range(SHARDS)
        ]
        self.nodes = {number: ClusterNode(self, number) for number in self.live}
        self.processes = {
            number: world.process(f"n{number}", node.main) for number, node in self.nodes.items()
        }
        for process in self.processes.values():
            process.start()

    def row(self, key: ServiceKey) -> Row:
        return self.rows[shard_of(*key)]

    def primary_of(self, key: ServiceKey) -> ClusterNode:
        return self.nodes[self.row(key).primary]

    def count(self, type_: MessageType) -> int:
        return sum(node.count(type_) for node in self.nodes.values())

    def followers_of(self, key: ServiceKey) -> list[int]:
        """Return the nodes at which a service is subscribed to, once for each subscription."""
        return [
            number
            for number, node in self.nodes.items()
            for connection in node.connections
            for target in connection.targets.values()
            if target == key or (isinstance(target, Pattern) and target.matches(key))
        ]

    # --- the map ---------------------------------------------------------------------------

    def update(self, since: int, by: int = 0) -> native_pb2.ShardMapUpdate:
        update = native_pb2.ShardMapUpdate(
            cluster_id=self.cluster_id, since=min(since, self.version), version=self.version
        )
        for number, live in self.live.items():
            address = "" if number == by else f"n{number}:7420"
            update.nodes.add(node_id=number, name=f"n{number}", address=address, live=live)
        for shard, row in enumerate(self.rows):
            if row.changed_at > since:
                update.rows.add(
                    shard=shard,
                    epoch=row.epoch,
                    primary=row.primary,
                    holders=row.holders,
                    in_sync=row.in_sync,
                )
        return update

    def change(self, deed: Callable[[int, Row], bool], *, tell: bool = True) -> None:
        """Change rows: all of which `deed` says that it changed them."""
        since = self.version
        self.version += 1
        for shard, row in enumerate(self.rows):
            if deed(shard, row):
                row.changed_at = self.version
        if tell:
            self.push(since)

    def push(self, since: int) -> None:
        body = encode(self.update(since))
        for connection in list(self.followers):
            if connection in connection.node.connections:
                for frame in encode_message(Kind.PUSH, MessageType.SHARD_MAP, 0, body):
                    connection.send(frame)

    def fail_over(self, dead: int, *, tell: bool = True) -> None:
        """Fence a node: its shards go to the next holder that lives."""
        self.live[dead] = False

        def promote(shard: int, row: Row) -> bool:
            if dead not in row.holders:
                return False
            row.in_sync = [number for number in row.in_sync if number != dead]
            if row.primary == dead:
                row.primary = next(n for n in row.in_sync if self.live[n])
                row.epoch += 1
            return True

        self.change(promote, tell=tell)

    def leave(self, number: int) -> None:
        """Have a node gone for good, and nowhere in the map."""
        del self.live[number]

        def drop(shard: int, row: Row) -> bool:
            if number not in row.holders:
                return False
            left = [holder for holder in row.holders if holder != number] or [next(iter(self.live))]
            row.holders = row.in_sync = left
            if row.primary == number:
                row.primary = row.holders[0]
                row.epoch += 1
            return True

        self.change(drop)

    def give_back(self, number: int) -> None:
        """Have a node that returned back in every in-sync set it was in."""
        self.live[number] = True

        def join(shard: int, row: Row) -> bool:
            if number not in row.holders or number in row.in_sync:
                return False
            row.in_sync.append(number)
            return True

        self.change(join)


class ClusterStage(Stage):
    """A simulated world with a cluster in it, and its one-node namesake asleep."""

    def __init__(self, seed: int = 1, size: int = 3, *, copies: int = 3) -> None:
        super().__init__(seed)
        self.process.kill()
        self.cluster = FakeCluster(self.world, size, copies=min(copies, size))

    def kill(self, number: int) -> None:
        """Kill a node's process."""
        self.cluster.processes[number].kill()
        self.cluster.nodes[number].connections.clear()

    def connect(self, runtime: SimRuntime, seeds: str = "n1:7420", **options: Any) -> Any:
        """Return a client."""
        return ssgovern.connect(seeds, namespace="test", runtime=runtime, **options)


def in_mask(mask: bytes, shard: int) -> bool:
    """Whether a mask names a shard; an empty one names all."""
    return not mask or bool(mask[shard // 8] >> (shard % 8) & 1)


__all__ = ["ClusterStage", "FakeCluster", "Program", "in_mask"]
