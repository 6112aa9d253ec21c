"""The path of a replicated registration without sockets and disks, in three nodes at once.

Cores, drivers and codecs are the real ones; links hand bytes over in this process and logs encode
their batches and keep nothing. What clients cost is not in it: that is `benchmarks.micro`. Counted
is CPU time, so that runs on a busy machine can be compared:
`python -m benchmarks.micro_cluster`.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterable, Sequence
from typing import cast

from benchmarks.micro import NoDiskWal, reference_us
from ssgovern.controller.codec import encode_entry
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import Change, Founded, Node, NodeRegistered, RowsChanged, Settings
from ssgovern.controller.state import Record as Decision
from ssgovern.model import ORIGIN, SHARDS, NodeId, Outcome, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.node.metadata import Metadata
from ssgovern.node.push_driver import PushDriver
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver
from ssgovern.node.shard_host import ShardHost
from ssgovern.node.shard_placement import ShardPlacement
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replicated import ReplicationSettings
from ssgovern.replication.shard_log import ShardLog
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import model_pb2
from ssgovern.wire.records import Registered

NODES = tuple(NodeId(number) for number in (1, 2, 3))
SESSION = SessionId(b"a session's id..")
LEASE_MS = 1e12


class SlowWal(NoDiskWal):
    """A log that lets others have a turn while it writes, as a disk does."""

    async def append(self, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
        await super().append(entries, sync=sync)
        await asyncio.sleep(0)


class Counting:
    """Waits for the outcomes of all proposals."""

    def __init__(self) -> None:
        self.done = 0

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        assert outcome.error is None, outcome.error
        self.done += 1


class Member:
    """One node's shards: primary of a third of them, replica of all others."""

    def __init__(self, node: NodeId, members: "dict[NodeId, Member]") -> None:
        self.node = node
        self._members = members
        self.inbox: list[tuple[NodeId, bytes]] = []
        self.metadata = Metadata()
        states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
        self.host = ShardHost(
            node,
            self.metadata,
            states,
            [ShardLog(ShardId(shard), ORIGIN) for shard in range(SHARDS)],
            {},
            links=self,
            ask_controller=self._ask,
            settings=ReplicationSettings,
            owner=self,
            wall_ms=lambda: 0,
        )
        self.log = ReplicatedLogDriver(
            cast("Wal", SlowWal()),
            self.host.primaries,
            node,
            on_committed=self.host.on_committed,
            on_batch=self.host.on_batch,
            on_done=self.host.flush,
            on_deposed=self.host.on_deposed,
            failpoint=lambda _name: None,
        )
        table = SessionTable(SessionTiming(), Protection(ProtectionPolicy()))
        placement = ShardPlacement(node, self.metadata, self.host)
        self.registry = RegistryService(states, table, self.host, lambda: 0, placement)
        self._push_driver = PushDriver(PushService(self.registry))

        async def keep(_shard: ShardId, _position: object, _chunks: Sequence[bytes]) -> None:
            raise AssertionError("nobody needs a snapshot")

        self.host.start(self.log, self.registry, keep)
        self.metadata.listeners.append(lambda change: self.host.on_rows_changed(change.shards))

    async def _ask(self, _type: int, _body: bytes, _deadline: float) -> bytes:
        return b""

    # --- node.hosted.Owner -----------------------------------------------------------------

    def on_applied(self, shards: Iterable[ShardId]) -> None:
        changes = self.registry.take_changes(shards)
        if changes:
            self._push_driver.offer(changes)

    def on_serving(self, began: Sequence[ShardId], ended: Sequence[ShardId]) -> None: ...

    def on_done(self) -> None: ...

    # --- node.replication_sender.Links -----------------------------------------------------

    def send(self, node: NodeId, type_: int, body: bytes) -> bool:
        del type_
        self._members[node].inbox.append((self.node, body))
        return True

    async def send_paced(self, node: NodeId, type_: int, bodies: Iterable[bytes]) -> bool:
        raise AssertionError("nobody needs a snapshot")

    def take(self) -> None:
        """Take what others sent, as one read of a socket each."""
        inbox, self.inbox = self.inbox, []
        for source, body in inbox:
            self.host.on_replication(source, body)
            self.host.flush()


def agree(members: Iterable[Member], change: Change, rows: dict[ShardId, ShardRow]) -> None:
    """Let all nodes replay a decision of the controller."""
    body = encode_entry([Decision("benchmark", change, tuple(rows.items()))])
    for member in members:
        assert member.metadata.apply(member.metadata.index + 1, body)


def found(members: "dict[NodeId, Member]") -> None:
    """Give every node a session, a lease and a third of the shards."""
    nodes = members.values()
    agree(nodes, Founded(b"a cluster's id..", Settings()), {})
    for number in NODES:
        address = f"10.0.0.{number}:7420"
        node = Node(number, f"n{number}", address, "", b"directory", b"boot", 1)
        agree(nodes, NodeRegistered(node), {})
    for node_ in nodes:
        node_.host.on_session(1)
        node_.host.on_lease(LEASE_MS)
    rows = {
        ShardId(shard): ShardRow(1, 1, NODES[shard % len(NODES)], NODES, NODES)
        for shard in range(SHARDS)
    }
    agree(nodes, RowsChanged(), rows)


def registration(service: str, number: int) -> tuple[ShardId, Registered]:
    """Return a registration and the shard that it is for."""
    instance = model_pb2.Instance(
        id=f"i{number}",
        host="10.0.0.1",
        port=1000 + number,
        weight=100,
        metadata={"region": "eu", "lane": "gray"},
    )
    key = ServiceKey("default", "default", service)
    said = Registered(
        key,
        instance.id,
        instance.SerializeToString(),
        SESSION,
        1_700_000_000_000,
        persistent=False,
        in_traffic=True,
    )
    return shard_of(*key), said


async def settle(members: "dict[NodeId, Member]", waiting: Counting, until: int) -> None:
    """Hand messages over until so many proposals are answered, and nothing is on its way."""
    while True:
        for member in members.values():
            member.take()
        await asyncio.sleep(0)
        if waiting.done >= until and not any(member.inbox for member in members.values()):
            return


async def replicated_us(count: int, *, services: int, depth: int) -> float:
    """Return microseconds of CPU of one registration in all three nodes together.

    `services` of each node are registered with by turns; `depth` wait at each node at once.
    """
    members: dict[NodeId, Member] = {}
    for node in NODES:
        members[node] = Member(node, members)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(member.log.run()) for member in members.values()]
        tasks += [group.create_task(member.host.run()) for member in members.values()]
        await asyncio.sleep(0)
        found(members)
        while not all(
            len(member.host.primaries) >= SHARDS // len(NODES)
            and all(primary.serving for primary in member.host.primaries.values())
            for member in members.values()
        ):
            await settle(members, Counting(), 0)
        spent = await load(members, count, services, depth)
        for task in tasks:
            task.cancel()
    return spent / count * 1e6


async def load(members: "dict[NodeId, Member]", count: int, services: int, depth: int) -> float:
    """Propose `count` registrations and return the seconds of CPU that they took."""
    own: dict[NodeId, list[list[tuple[ShardId, Registered]]]] = {node: [] for node in NODES}
    number = 0
    while any(len(found) < services for found in own.values()):
        name, number = f"service-{number}", number + 1
        primary = NODES[shard_of("default", "default", name) % len(NODES)]
        if len(own[primary]) < services:
            own[primary].append([registration(name, each) for each in range(10)])
    waiting = Counting()
    proposed = 0
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000_000)
    began = time.process_time()
    while proposed < count:
        for node, member in members.items():
            for each in range(proposed // 3, proposed // 3 + depth):
                instances = own[node][each % services]
                shard, said = instances[each // services % len(instances)]
                member.log.propose(shard, said, waiting)
        proposed += depth * len(NODES)
        await settle(members, waiting, proposed)
    spent = time.process_time() - began
    gc.unfreeze()
    return spent


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for services, depth in ((1, 64), (200, 64), (200, 384)):
        costs = [
            asyncio.run(replicated_us(60_000, services=services, depth=depth)) for _ in range(runs)
        ]
        print(
            f"{services} services a node, {depth} waiting at each: best {min(costs):.1f} us of CPU "
            f"in three nodes ({' '.join(f'{cost:.1f}' for cost in costs)}); "
            f"yardstick {min(reference_us() for _ in range(5)):.2f} us"
        )


if __name__ == "__main__":
    main()
