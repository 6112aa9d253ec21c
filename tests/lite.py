"""Several nodes in one loop, as clients see them: real sessions, states, pushes and connections.

Logs, disks and the controller are not there: what is proposed commits in the next turn of the
loop, and `Lites` is the shard map that a test writes by hand. With each move the holders of a
shard get a copy of its state: replication is somebody else's test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from builders import secret_of, session_of
from nodes import Raw, run_world
from rig import Rig

from ssgovern.api.native.relay import Relays
from ssgovern.api.native.server import ClusterCommand, ClusterStatus, NativeServer
from ssgovern.errors import ShardMovedError, ShardUnavailableError
from ssgovern.model import SHARDS, NodeId, Outcome, ServiceKey, SessionId, ShardId, shard_of
from ssgovern.node.push_driver import PushDriver
from ssgovern.registry.snapshot import capture, encode_chunks, restore
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.sim.runtime import SimRuntime
from ssgovern.wire.pb import log_pb2, native_pb2
from ssgovern.wire.records import Record

TICK_MS = 250.0


class Row:
    """One shard: who is primary, who holds it, and whether anybody may act."""

    def __init__(self) -> None:
        self.epoch = 1
        self.primary = 1
        self.holders = [1]
        self.is_idle = False
        self.changed = 1
        """Version of the map in which the row changed last."""


class LitePlacement:
    """What one node may do, by the map all share."""

    def __init__(self, lites: Lites, node_id: int) -> None:
        self._lites = lites
        self._me = node_id

    @property
    def map_version(self) -> int:
        return self._lites.version

    def check_write(self, shard: ShardId) -> None:
        row = self._lites.rows[shard]
        if row.primary != self._me:
            raise self._moved(shard)
        if row.is_idle:
            raise ShardUnavailableError(f"shard {shard} has no lease", shard=shard)

    def check_read(self, shard: ShardId, *, replica_too: bool) -> None:
        if replica_too and self.holds(shard):
            return
        self.check_write(shard)

    def holds(self, shard: ShardId) -> bool:
        return self._me in self._lites.rows[shard].holders

    def map_update(self, since: int) -> native_pb2.ShardMapUpdate:
        lites = self._lites
        update = native_pb2.ShardMapUpdate(since=since, version=lites.version)
        for node in lites.nodes.values():
            update.nodes.add(
                node_id=node.node_id, address=f"127.0.0.1:{node.port}", live=node.is_up
            )
        for shard, row in enumerate(lites.rows):
            if row.changed > since:
                update.rows.add(
                    shard=shard, epoch=row.epoch, primary=row.primary, holders=row.holders
                )
        return update

    def _moved(self, shard: ShardId) -> ShardMovedError:
        return ShardMovedError(f"shard {shard} moved", shard=shard, map_version=self.map_version)


class LiteRig(Rig):
    """Commits by itself what is proposed."""

    def __init__(self, on_committed: Callable[[], None]) -> None:
        self._on_committed = on_committed
        self._is_waiting = True
        self.is_stuck = False
        super().__init__()
        self._is_waiting = False

    def propose(self, shard: ShardId, record: Record, waiter: Waiter) -> Proposal:
        proposal = super().propose(shard, record, waiter)
        if not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().call_soon(self._commit_soon)
        return proposal

    def _commit_soon(self) -> None:
        self._is_waiting = False
        if not self.is_stuck:
            self.commit()
            self._on_committed()


class _Ends:
    """Hears of ends; none is ever refused."""

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        assert outcome.error is None


class Lite:
    """One node."""

    def __init__(
        self,
        lites: Lites,
        node_id: int,
        *,
        status: ClusterStatus | None = None,
        command: ClusterCommand | None = None,
    ) -> None:
        self._lites = lites
        self.node_id = node_id
        self.port = 0
        self.is_up = True
        self.rig = LiteRig(self._on_committed)
        self.rig.registry.placement = LitePlacement(lites, node_id)
        self._push_driver = PushDriver(self.rig.push)
        self.server = NativeServer(
            self.rig.registry,
            self.rig.push,
            hello=native_pb2.HelloResponse(
                node_id=node_id, session_ttl_ms=5000, wants_applied=True
            ),
            status=native_pb2.StatusResponse,
            end_refused=_Ends(),
            wake_push=self._push_driver.wake,
            cluster_status=status,
            cluster_command=command,
        )
        self.relays = Relays(self.server, NodeId(node_id), beat_ms=500)
        self.server.relay = self.relays

    async def run(self) -> None:
        """Serve until cancelled."""
        _, self.port = await self.server.listen("127.0.0.1", 0)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.server.run())
                tasks.create_task(self.relays.run())
                tasks.create_task(self._push_driver.run(self.server))
                tasks.create_task(self._tick())
        finally:
            self.crash()

    def crash(self) -> None:
        """Be gone from one moment to the next."""
        self.is_up = False
        self.server.stop_accepting()
        for connection in list(self.server._connections):
            connection.abort()

    def ids(self, key: ServiceKey) -> list[str]:
        return self.rig.ids(key)

    async def client(self, name: str, **hello: Any) -> Raw:
        """Return a connection of the session called `name`."""
        raw = await self._lites.connect(self.node_id, name)
        await raw.hello(**hello)
        return raw

    def has_session(self, name: str) -> bool:
        return self.rig.sessions.find(session_of(name)) is not None

    def stop_committing(self) -> None:
        """Let what is proposed from now on wait for ever."""
        self.rig.is_stuck = True

    def _on_committed(self) -> None:
        self.server.flush()
        self._push_driver.wake()

    async def _tick(self) -> None:
        registry, sessions = self.rig.registry, self.rig.sessions
        while self.is_up:
            await asyncio.sleep(TICK_MS / 1000.0)
            registry.retry_ends()
            for session in sessions.tick(asyncio.get_running_loop().time() * 1000.0):
                registry.end_session(session, log_pb2.SESSION_END_EXPIRED, _Ends())


class Lites:
    """All nodes, and the map."""

    def __init__(self) -> None:
        self.nodes: dict[int, Lite] = {}
        self.rows = [Row() for _ in range(SHARDS)]
        self.version = 1
        self.opened: list[Raw] = []

    async def connect(self, node_id: int, name: str) -> Raw:
        """Open a connection to a node that has not said hello."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.nodes[node_id].port)
        raw = Raw(reader, writer, name)
        self.opened.append(raw)
        return raw

    def place(self, key: ServiceKey, primary: int, *replicas: int) -> ShardId:
        """Let a node be primary of a service's shard, and others replicas, with all it holds."""
        shard = shard_of(*key)
        self.move(shard, primary, *replicas)
        return shard

    def move(self, shard: ShardId, primary: int, *replicas: int) -> None:
        """As `place`, for a shard."""
        row = self.rows[shard]
        state = self.nodes[row.primary].rig.states[shard]
        before = row.primary
        row.epoch += 1
        row.primary, row.holders = primary, [primary, *replicas]
        self.version += 1
        row.changed = self.version
        for node in self.nodes.values():
            registry = node.rig.registry
            if node.node_id not in row.holders:
                registry.drop_shard(shard)
            elif node.node_id != before:
                registry.adopt_shard(shard, _copy(state))
            if node.node_id == primary:
                node.rig.begin_epoch(shard)
                registry.claim_shards((shard,), asyncio.get_running_loop().time() * 1000.0)
            else:
                registry.unclaim_shards((shard,))
            node.server.push_map()


def _copy(state: ShardState) -> ShardState:
    copy = ShardState(state.shard)
    restore(copy, state.position, encode_chunks(capture(state)))
    return copy


@asynccontextmanager
async def lites_of(count: int, **first: Any) -> AsyncIterator[Lites]:
    """Run nodes 1 to `count` for as long as the context lasts; `first` is for node 1."""
    lites = Lites()
    tasks: list[asyncio.Task[None]] = []
    for node_id in range(1, count + 1):
        node = lites.nodes[node_id] = Lite(lites, node_id, **(first if node_id == 1 else {}))
        tasks.append(asyncio.get_running_loop().create_task(node.run()))
    while not all(node.port for node in lites.nodes.values()):
        await asyncio.sleep(0)
    try:
        yield lites
        assert not any(task.done() for task in tasks), "a node died"
        for node in lites.nodes.values():
            node.rig.validate()
    finally:
        for raw in lites.opened:
            raw.close()
        for task in tasks:
            task.cancel()
        for task in tasks:
            try:
                await task
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(0.01)


def simulate_lites(
    count: int, body: Callable[[Lites], Coroutine[Any, Any, None]], **first: Any
) -> None:
    """Run `body` with so many nodes, on the simulated loop."""

    async def life(runtime: SimRuntime) -> None:
        async with lites_of(count, **first) as lites:
            await body(lites)

    run_world(0, life)


def ids_of(name: str) -> tuple[SessionId, bytes]:
    """Return id and secret of the session called `name`."""
    return session_of(name), secret_of(name)
