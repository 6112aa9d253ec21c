"""A node: puts cores and drivers together, and leads them from recovery to stop.

Everything of one node hangs on one `Node` object, nothing on the process, so that the simulator
runs many of them in one. Any failure that is not a caller's, a peer's or a full disk's ends the
node: what it held is on disk, and starting again is safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ssgovern.api.native import audit as auditing
from ssgovern.api.native.connection import NativeConnection
from ssgovern.api.native.peer import PeerAcceptor
from ssgovern.api.native.server import ClusterCommand, ClusterStatus, NativeServer
from ssgovern.controller.access_codec import command_from_wire
from ssgovern.controller.standalone import decide_shard_map
from ssgovern.errors import ConfigError, DiskFullError, SsGovernError
from ssgovern.model import (
    SHARDS,
    LogPosition,
    NodeId,
    Outcome,
    ShardId,
    ShardMap,
)
from ssgovern.node import access_store
from ssgovern.node.access_commands import AccessCommands, Asker
from ssgovern.node.access_setup import check_set_up, open_access
from ssgovern.node.audit_log import AuditLog
from ssgovern.node.config import ServerConfig
from ssgovern.node.identity import Identity, load_or_create
from ssgovern.node.log_driver import LogDriver
from ssgovern.node.push_driver import PushDriver
from ssgovern.node.recovery import Progress, Recovered, recover
from ssgovern.node.session_driver import SessionDriver
from ssgovern.node.snapshot_driver import SnapshotDriver
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import PrimaryLog, Proposal
from ssgovern.runtime import Disk, Runtime
from ssgovern.service.audit import Audit
from ssgovern.service.events import ClusterEvents
from ssgovern.service.placement import Placement, Standalone
from ssgovern.service.push import PushService
from ssgovern.service.registry import Proposer, RegistryService
from ssgovern.version import __version__
from ssgovern.wire.pb import log_pb2, native_pb2

if TYPE_CHECKING:
    from ssgovern.node.http import HttpPort
    from ssgovern.node.tls import NodeTls

log = logging.getLogger("ssgovern.node")

SESSION_TICK_MS = 250.0


class Ready(NamedTuple):
    """What a node says when it serves."""

    host: str
    port: int
    identity: Identity
    services: int
    instances: int
    sessions: int
    entries_replayed: int
    recovery_s: float


class Drivers(NamedTuple):
    """The owners of a node's cores, for those who look inside."""

    log: LogDriver
    sessions: SessionDriver
    push: PushDriver
    snapshots: SnapshotDriver


class Node:
    """One node. Make it, `run` it once, `stop` it from the same loop."""

    def __init__(
        self,
        config: ServerConfig,
        runtime: Runtime,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_ready: Callable[[Ready], None] | None = None,
        resident_bytes: Callable[[], int] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` measures what the loop's own, which may stand still within a turn, cannot."""
        self._clock = clock or asyncio.get_running_loop().time
        self._config = config
        self._runtime = runtime
        self._on_progress = on_progress or _ignore
        self._on_ready = on_ready or _ignore
        self.resident_bytes = resident_bytes or (lambda: 0)
        self.tls: NodeTls | None = None
        self.listening = False
        """Clients can connect: everything it is made of is there."""
        self.access = open_access(config, runtime)
        """Who may do what."""
        self.access_commands = AccessCommands(self.decide_access, runtime, self._on_access_asked)
        self.audit = Audit(runtime.wall_ms)
        self._audit_log = AuditLog(self.audit)
        self._access_store: access_store.AccessStore
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._disks: list[Disk] = []
        self.states: list[ShardState] = []
        self.cluster_events = ClusterEvents()
        self.logs: list[PrimaryLog] = []
        self.registry: RegistryService
        self.push: PushService
        self.server: NativeServer
        self._log_driver: LogDriver
        self._session_driver: SessionDriver
        self._push_driver: PushDriver
        self._snapshot_driver: SnapshotDriver
        self._map: ShardMap
        self._identity: Identity
        self._started_s = 0.0

    def __repr__(self) -> str:
        return f"<Node {self._config.node.name} id={self._config.node.id}>"

    def stop(self) -> None:
        """Ask the node to stop: finish what it took, take snapshots, close."""
        self._stop.set()

    async def run(self) -> None:
        """Recover, serve until `stop`, and stop. Raises what ended the node otherwise."""
        loop = asyncio.get_running_loop()
        self._started_s = loop.time()
        loop.set_exception_handler(self._on_loop_error)
        self._open_tls()
        http = await self._open_http()
        try:
            await self._live()
        finally:
            if http is not None:
                await http.stop()
            if self.tls is not None:
                self.tls.stop()
            self.access_commands.passwords.close()
            await self._audit_log.flush()
            for disk in self._disks:
                await disk.close()

    def _open_tls(self) -> None:
        if self._config.tls.cert:
            # With a library that nobody else needs, and that the simulator must not see.
            from ssgovern.node.tls import NodeTls

            self.tls = NodeTls(self._config.tls, self._runtime.wall_ms)
            self.tls.start()

    async def _open_http(self) -> HttpPort | None:
        if not self._config.http.port:
            return None
        # With libraries that nobody else needs, and that the simulator must not see.
        from ssgovern.node.http import open_http

        return await open_http(self, self._config.http, self._runtime)

    async def _live(self) -> None:
        recovered = await self._recover()
        self._assemble(recovered)
        await self._serve(recovered)

    # --- recovery --------------------------------------------------------------------------

    def _open_disk(self, path: str) -> Disk:
        try:
            disk = self._runtime.open_disk(path)
        except BlockingIOError as error:
            raise ConfigError(
                f"the data directory {path} is in use by another process: "
                "stop that node or name another directory with --data-dir"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"cannot use the data directory {path}: {error.strerror}; "
                "name another one with --data-dir"
            ) from error
        self._disks.append(disk)
        return disk

    async def _recover(self) -> Recovered:
        data_dir = self._config.data_dir
        root = self._open_disk(data_dir)
        self._identity = await load_or_create(root, NodeId(self._config.node.id), self._runtime)
        self._access_store = access_store.AccessStore(root, access_store.load(root))
        self.access.replace(self._access_store.state)
        check_set_up(self._config, self.access)
        self._snapshot_disk = self._open_disk(f"{data_dir}/snapshots")
        return await recover(
            self._open_disk(f"{data_dir}/wal"),
            self._snapshot_disk,
            self._identity.node_uuid,
            self._config.storage.segment_bytes,
            self._on_progress,
        )

    def _assemble(self, recovered: Recovered) -> None:
        config = self._config
        node_id = self._identity.node_id
        self.states = recovered.states
        tails = [state.position for state in self.states]
        self._map = decide_shard_map(node_id, tails, recovered.wal.promises)
        self.logs = [
            PrimaryLog(ShardId(shard), row.epoch, tails[shard], row.in_sync)
            for shard, row in enumerate(self._map.shards)
        ]
        interval_ms = config.durability_interval_ms
        self._log_driver = LogDriver(
            recovered.wal,
            self.logs,
            node_id,
            on_committed=self._on_committed,
            failpoint=self._runtime.failpoint,
            sync_interval_s=interval_ms / 1000.0 if interval_ms else None,
        )
        self._assemble_services(
            self._log_driver,
            Standalone(
                self._map,
                node_id=node_id,
                node_name=config.node.name,
                cluster_id=self._identity.cluster_id,
            ),
            self._map.version,
        )
        self._snapshot_driver = SnapshotDriver(
            self._snapshot_disk,
            self._identity.node_uuid,
            self.states,
            recovered.snapshotted,
            self._log_driver,
            wal_bytes=config.storage.wal_bytes_before_snapshot,
        )

    def _assemble_services(
        self,
        proposer: Proposer,
        placement: Placement,
        map_version: int,
        peers: PeerAcceptor | None = None,
        cluster_status: ClusterStatus | None = None,
        cluster_command: ClusterCommand | None = None,
    ) -> None:
        """Put together what serves clients, whoever the primaries are."""
        config = self._config
        self._audit_log.open(self._disks[0], self._identity.node_id)
        self.registry = RegistryService(
            self.states, self._session_table(), proposer, self._runtime.wall_ms, placement
        )
        self.push = PushService(self.registry)
        self._push_driver = PushDriver(self.push)
        self._push_driver.clock = self._log_driver.clock = self._clock
        self._session_driver = SessionDriver(self.registry, SESSION_TICK_MS)
        self.server = NativeServer(
            self.registry,
            self.push,
            hello=native_pb2.HelloResponse(
                cluster_id=self._identity.cluster_id,
                node_id=self._identity.node_id,
                node_name=config.node.name,
                session_ttl_ms=config.session.ttl_ms,
                heartbeat_interval_ms=config.session.heartbeat_interval_ms,
                map_version=map_version,
                wants_applied=True,
            ),
            status=self.status,
            end_refused=self._session_driver,
            wake_push=self._push_driver.wake,
            connections_max=config.limits.connections_max,
            connections_per_address_max=config.limits.connections_per_address_max,
            peers=peers,
            cluster_status=cluster_status,
            cluster_command=cluster_command,
            life=self._runtime.wall_ms().to_bytes(8),
            access=self.access,
            audit=self.audit,
            administer=self.access_commands.administer,
        )
        self.server.observing.events.cluster = self.cluster_events

    def _session_table(self) -> SessionTable:
        config = self._config
        return SessionTable(
            SessionTiming(
                ttl_ms=config.session.ttl_ms,
                close_grace_ms=config.session.close_grace_ms,
                tick_ms=SESSION_TICK_MS,
            ),
            Protection(
                ProtectionPolicy(
                    share=config.protection.share,
                    sessions_min=config.protection.sessions_min,
                    hold_ms=config.protection.hold_ms,
                    window_ms=config.session.ttl_ms,
                )
            ),
        )

    def _restore_sessions(self) -> None:
        """Give every session that owns something a full time to live on this node.

        Not before the node is about to listen: how long it took to get there, on a disk that
        may be slow, must not be held against those who could not speak.
        """
        now_ms = asyncio.get_running_loop().time() * 1000.0
        self.registry.sessions.start(now_ms)
        self.registry.claim_shards([state.shard for state in self.states], now_ms)

    # --- serving ---------------------------------------------------------------------------

    async def _serve(self, recovered: Recovered) -> None:
        async with asyncio.TaskGroup() as drivers:
            drivers.create_task(self._log_driver.run(), name="log")
            await self._start_epochs()
            self._restore_sessions()
            host, port = await self._listen()
            push = drivers.create_task(self._push_driver.run(self.server), name="push")
            sessions = drivers.create_task(self._session_driver.run(self.server), name="sessions")
            snapshots = drivers.create_task(self._snapshot_driver.run(), name="snapshots")
            access = drivers.create_task(self.run_access(), name="access")
            self._say_ready(host, port, recovered.entries_replayed)
            await self._stop.wait()
            if self._failure is not None:
                raise self._failure

            log.info("stopping: no new requests are taken")
            self.server.stop_accepting()
            await self._log_driver.drain()
            self.server.close_all()
            push.cancel()
            sessions.cancel()
            access.cancel()
            try:
                # Waits for what the task of the snapshots is at, which must not be cut short.
                await self._snapshot_driver.snapshot_all(empty_too=False)
            except DiskFullError as error:
                log.warning("no snapshots taken, the next start replays the log: %s", error)
            snapshots.cancel()
            log.info("stopped: all that was acknowledged is on disk")

    async def _listen(self) -> tuple[str, int]:
        where = self._config.listen
        try:
            listener = None if self.tls is None else self.tls.listener
            address = await self.server.listen(where.host, where.port, listener)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {where.host}:{where.port}: {error.strerror or error}; "
                "is another node running? name another address with --listen-host, --listen-port"
            ) from error
        if self.tls is not None:
            self.tls.set_here(*address)
        self.listening = True
        return address

    async def _start_epochs(self) -> None:
        """Write the first entry of this life's epoch into every shard."""
        started = EpochWaiter(SHARDS)
        for shard in range(SHARDS):
            record = log_pb2.Record(time_ms=self._runtime.wall_ms())
            record.epoch_started.node_id = self._identity.node_id
            self._log_driver.propose(ShardId(shard), record, started)
        await started.done
        # Positions of an epoch that a power cut could take back would be given out a second time.
        await self._log_driver.sync()

    def _say_ready(self, host: str, port: int, entries_replayed: int) -> None:
        services, instances = self.registry.totals()
        self._on_ready(
            Ready(
                host,
                port,
                self._identity,
                services,
                instances,
                len(self.registry.sessions),
                entries_replayed,
                asyncio.get_running_loop().time() - self._started_s,
            )
        )

    def _on_committed(self, committed: list[Proposal]) -> None:
        """Apply, answer, tell: in that order, so that who is answered can read what it wrote."""
        apply = self.registry.apply
        shards: dict[ShardId, None] = {}
        for proposal in committed:
            outcome = apply(proposal)
            proposal.waiter.on_outcome(proposal, outcome)
            shards[proposal.shard] = None
        changes = self.registry.take_changes(shards)
        if changes:
            self._push_driver.offer(changes)
        self.server.flush()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """A callback raised: a fault of ours, after which this node's memory is in doubt."""
        error = context.get("exception")
        log.critical(
            "%s", context.get("message"), exc_info=error if isinstance(error, Exception) else None
        )
        if isinstance(error, OSError):
            # A transport's own trouble with its socket; the connection is gone, nothing else.
            return
        self._failure = (
            error if isinstance(error, BaseException) else RuntimeError(str(context.get("message")))
        )
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, or has to."""
        return self._stop.is_set()

    @property
    def drivers(self) -> Drivers:
        """The drivers of a node that listens."""
        return Drivers(
            self._log_driver, self._session_driver, self._push_driver, self._snapshot_driver
        )

    def not_ready(self) -> str:
        """Return why clients are not to be sent to this node; empty if they are."""
        if self.is_stopping:
            return "stopping"
        return "" if self.listening else "starting"

    # --- questions -------------------------------------------------------------------------

    def status(self) -> native_pb2.StatusResponse:
        """Describe the node as it is now."""
        services, instances = self.registry.totals()
        wal_bytes, wal_segments = self._log_driver.wal_size
        now_s = asyncio.get_running_loop().time()
        return native_pb2.StatusResponse(
            node_name=self._config.node.name,
            node_id=self._identity.node_id,
            cluster_id=self._identity.cluster_id,
            version=__version__,
            uptime_ms=int((now_s - self._started_s) * 1000),
            shards=SHARDS,
            services=services,
            instances=instances,
            sessions=len(self.registry.sessions),
            connections=len(self.server),
            subscriptions=self.push.subscriptions.count,
            sessions_protected=self.registry.sessions.held,
            entries_committed=self._log_driver.entries,
            wal_bytes=wal_bytes,
            wal_segments=wal_segments,
            wal_batches=self._log_driver.batches,
            wal_sync_us=int(self._log_driver.last_write_s * 1_000_000),
            writes_refused=self._log_driver.writes_refused,
            map_version=self.registry.placement.map_version,
            loop_stall_ms_max=int(self._session_driver.stall_ms_max),
            pushes=self.push.pushes,
            expirations=self.registry.expirations,
            resident_bytes=self.resident_bytes(),
            durability=self._config.durability,
            data_dir=self._config.data_dir,
        )

    async def run_access(self) -> None:
        """See to changes of access, and write down who did what, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._audit_log.run(), name="audit")
            await self.access_commands.run()

    def _on_access_asked(
        self, asker: Asker, action: str, target: str, error: SsGovernError | None
    ) -> None:
        assert isinstance(asker, NativeConnection), "HTTP asks by itself and notes it itself"
        auditing.note(asker, action, target, error=error)

    async def decide_access(self, request: native_pb2.AccessRequest) -> str:
        """Change who may do what, and return a sentence when it holds."""
        sentence = await self._access_store.change(command_from_wire(request))
        self.access.replace(self._access_store.state)
        return sentence

    def validate(self) -> None:
        """Assert every invariant of every core. For the simulator and tests."""
        for state in self.states:
            state.validate()
        for primary in self.logs:
            primary.validate()
        self.registry.sessions.validate()
        self.push.subscriptions.validate()

    def positions(self) -> Iterable[LogPosition]:
        """Return up to where each shard is applied."""
        return [state.position for state in self.states]


def _ignore(what: object) -> None:
    """Nobody wants to know."""


class EpochWaiter:
    """Waits until every shard has begun its epoch."""

    def __init__(self, shards: int) -> None:
        self._open = shards
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        self._open -= 1
        if self.done.done():
            return
        if outcome.error is not None:
            self.done.set_exception(outcome.error)
        elif not self._open:
            self.done.set_result(None)
