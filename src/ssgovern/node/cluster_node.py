"""A node of a cluster: a node whose shards, sessions and clients are shared with others.

Puts the cluster's cores and drivers together: the metadata log and the controller if it is a
candidate, its membership, its links, and its shards in whatever role the map gives them. It
listens before anything else, because others are needed for everything; it serves as soon as it
has a session and the map says what is its part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from ssgovern.api.native.peer import PeerAcceptor
from ssgovern.api.native.relay import Relays
from ssgovern.controller.access import AccessState
from ssgovern.controller.nodes import Registration
from ssgovern.controller.standalone import decide_shard_map
from ssgovern.errors import (
    DiskFullError,
    FencedError,
    NotControllerError,
    PeerRefusedError,
    RemoteProtocolError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId, ShardId, ShardMap
from ssgovern.node import access_cluster
from ssgovern.node import identity as identities
from ssgovern.node.candidate import Candidate
from ssgovern.node.config import ServerConfig
from ssgovern.node.damages import Damages
from ssgovern.node.identity import Identity
from ssgovern.node.member_driver import MemberDriver
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.node.node import Node, Ready
from ssgovern.node.recovery import Progress, RecoveredShards, recover_replicated
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver
from ssgovern.node.shard_host import ShardHost
from ssgovern.node.shard_placement import ShardPlacement
from ssgovern.node.shedding import send_elsewhere
from ssgovern.node.snapshot_driver import SnapshotDriver
from ssgovern.replication.messages import ACKS_ALL
from ssgovern.replication.replicated import ReplicationSettings
from ssgovern.runtime import Disk, Runtime
from ssgovern.transport.handshake import PeerIdentity, PeerSaid
from ssgovern.transport.links import PeerLinks
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2, peer_pb2

log = logging.getLogger("ssgovern.node")

_STOP_TIMEOUT_S = 5.0
_CONTROLLER_TIMEOUT_S = 2.0
_LOOK_S = 0.5


class ClusterNode(Node):
    """One node of several. Made, run and stopped like a `Node`."""

    metadata: Metadata
    links: PeerLinks
    member: MemberDriver
    host: ShardHost
    candidate: Candidate | None

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
        super().__init__(
            config,
            runtime,
            on_progress=on_progress,
            on_ready=on_ready,
            resident_bytes=resident_bytes,
            clock=clock,
        )
        self._root: Disk
        self._brought: AccessState
        self._me: PeerIdentity
        self._acceptor: PeerAcceptor
        self._relays: Relays
        self._replicated: ReplicatedLogDriver
        self._group: asyncio.TaskGroup
        self._tasks: list[asyncio.Task[None]] = []
        self._identity_turn = asyncio.Lock()
        self._damages: Damages
        self._promises: Mapping[int, int] = {}
        self._joined = asyncio.Event()
        self._joining = False
        # Its Raft is open or about to be: there must never be two on one disk.
        self._voting = False
        self._handing_over: asyncio.Timeout | None = None
        self._address = ("", 0)

    async def _live(self) -> None:
        recovered = await self._recover_shards()
        await self._assemble_cluster(recovered)
        await self._serve_cluster(recovered)

    # --- recovery --------------------------------------------------------------------------

    async def _recover_shards(self) -> RecoveredShards:
        config, data_dir = self._config, self._config.data_dir
        self._root = self._open_disk(data_dir)
        self._identity = await identities.load_or_create(
            self._root, NodeId(config.node.id), self._runtime, clustered=True
        )
        self._brought = access_cluster.begin(config, self.access, self._root, self._identity)
        self._damages = Damages(self._root)
        self._snapshot_disk = self._open_disk(f"{data_dir}/snapshots")
        return await recover_replicated(
            self._open_disk(f"{data_dir}/wal"),
            self._snapshot_disk,
            self._identity.node_uuid,
            config.storage.segment_bytes,
            self._on_progress,
        )

    # --- assembly --------------------------------------------------------------------------

    async def _assemble_cluster(self, recovered: RecoveredShards) -> None:
        config, node_id = self._config, self._identity.node_id
        self.states = recovered.states
        self._promises = recovered.promises
        self.metadata = Metadata()
        self.metadata.listeners.append(self._on_metadata)
        self.metadata.entry_listeners.append(self.cluster_events.note)
        access_cluster.follow(self.access, self.metadata)
        self._me = PeerIdentity(
            node_id=node_id,
            name=config.node.name,
            address="",
            directory_id=self._identity.node_uuid,
            boot_id=self._runtime.random_bytes(16),
            candidates=tuple((c.node_id, str(c.address)) for c in config.candidates),
            secret=config.cluster_secret,
            cluster_id=self._identity.cluster_id if self._identity.clustered else b"",
            single_node_cluster_id=b"" if self._identity.clustered else self._identity.cluster_id,
        )
        self.links = PeerLinks(
            self._me,
            self._runtime,
            on_link=self._on_link,
            on_lost=self._on_link_lost,
            check=self.metadata.check_directory,
            tls=self.tls,
        )
        self._acceptor = PeerAcceptor(self._me, self._runtime, self)
        self.candidate = None
        # Who votes is a matter of configuration only until there is a cluster.
        founds = config.is_candidate and not self._me.cluster_id
        if (founds or self._identity.candidate) and not self._damages.votes:
            self._voting = True
            self.candidate = await self._open_candidate()
        self.member = MemberDriver(
            node_id,
            self.metadata,
            self.links,
            self._runtime,
            registration=self._registration,
            positions=lambda: self.host.positions(),
            on_session=self._on_session,
            on_lease=lambda until_ms: self.host.on_lease(until_ms),
            on_left=self._on_left,
            candidates=self._me.candidates,
            seeds=[str(address) for address in config.seeds],
            leader=self._leader,
            local=self._ask_here,
        )
        self.host = ShardHost(
            node_id,
            self.metadata,
            self.states,
            recovered.logs,
            recovered.promises,
            links=self.links,
            ask_controller=self.member.ask_controller,
            settings=self._replication_settings,
            owner=self,
            wall_ms=self._runtime.wall_ms,
        )
        self._replicated = ReplicatedLogDriver(
            recovered.wal,
            self.host.primaries,
            node_id,
            on_committed=self.host.on_committed,
            on_batch=self.host.on_batch,
            on_done=self.host.flush,
            on_deposed=self.host.on_deposed,
            failpoint=self._runtime.failpoint,
        )
        self._log_driver = self._replicated
        placement = ShardPlacement(node_id, self.metadata, self.host)
        self._assemble_services(
            self.host, placement, 0, self._acceptor, self.cluster_status, self.command
        )
        self._snapshot_driver = SnapshotDriver(
            self._snapshot_disk,
            self._identity.node_uuid,
            self.states,
            recovered.snapshotted,
            self._log_driver,
            wal_bytes=config.storage.wal_bytes_before_snapshot,
            is_gone=self.host.is_gone,
        )
        self.host.start(self._replicated, self.registry, self._snapshot_driver.keep)
        beat_ms = config.session.heartbeat_interval_ms
        self._relays = Relays(self.server, node_id, beat_ms=beat_ms, tls=self.tls)
        self.server.relay = self._relays

    async def _open_candidate(self) -> Candidate:
        candidate = await Candidate.open(
            self._config,
            self._me,
            self._runtime,
            self.metadata,
            self.links,
            open_disk=self._open_disk,
            began_before=self._identity.candidate,
            inherited=self._inherited,
            on_role=self._on_role,
        )
        await self._become(candidate=True)
        return candidate

    def _inherited(self) -> tuple[Registration, ShardMap] | None:
        """Return what this node brings if it served alone before the cluster was founded."""
        if not self._me.single_node_cluster_id:
            return None
        tails = [hosted.log.tail for hosted in self.host.hosted]
        return self._registration(), decide_shard_map(self._identity.node_id, tails, self._promises)

    def _registration(self) -> Registration:
        identity, config = self._identity, self._config
        return Registration(
            identity.node_id,
            config.node.name,
            self._me.address,
            config.node.zone,
            identity.node_uuid,
            self._me.boot_id,
            directory_cluster_id=identity.cluster_id,
            damaged=self._damages.shards,
            candidate=self.candidate is not None,
            access=self._brought,
        )

    def _replication_settings(self) -> ReplicationSettings:
        acks = self._config.cluster.acks
        named = {"all": ACKS_ALL, "primary": 1}
        return ReplicationSettings(
            acks=named[acks] if acks in named else int(acks),
            min_in_sync=self.metadata.state.settings.min_in_sync,
        )

    def _leader(self) -> NodeId | None:
        return None if self.candidate is None else self.candidate.leader

    async def _ask_here(self, type_: int, body: bytes) -> bytes:
        if self.candidate is None:
            raise UnavailableError("this node is no candidate")
        return await self.candidate.ask(type_, body)

    async def _become(self, **changes: object) -> None:
        async with self._identity_turn:
            changed = Identity(**{**self._identity._asdict(), **changes})
            self._identity = await identities.change(self._root, self._identity, changed)

    # --- serving ---------------------------------------------------------------------------

    async def _serve_cluster(self, recovered: RecoveredShards) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            now_ms = asyncio.get_running_loop().time() * 1000.0
            self.registry.sessions.start(now_ms)
            self._session_driver.has_lease = lambda: self.member.controller_heard
            group.create_task(self._replicated.run(), name="log")
            tasks = self._tasks = [
                group.create_task(self.host.run(), name="shards"),
                group.create_task(self.server.run(), name="clients"),
                group.create_task(self._relays.run(), name="relays"),
                group.create_task(self._acceptor.run(), name="acceptor"),
                group.create_task(self._push_driver.run(self.server), name="push"),
                group.create_task(self._session_driver.run(self.server), name="sessions"),
                group.create_task(self._snapshot_driver.run(), name="snapshots"),
                group.create_task(self.run_access(), name="access"),
            ]
            # Tasks that take messages are there before the first can come.
            await asyncio.sleep(0)
            self._address = await self._listen()
            self._me.address = self._config.advertised(self._address[1])
            self._dial()
            tasks.append(group.create_task(self.links.run(), name="links"))
            if self.candidate is not None:
                tasks += self.candidate.start(group)
            tasks.append(group.create_task(self.member.run(), name="member"))
            shedding = send_elsewhere(
                self.member, self.server.shed_subscribers, has_joined=self._joined.is_set
            )
            tasks.append(group.create_task(shedding, name="lease"))
            ready = group.create_task(self._say_when_ready(recovered.entries_found))
            await self._stop.wait()
            if self._failure is not None:
                raise self._failure
            ready.cancel()
            await self._stop_cluster(tasks)

    async def _say_when_ready(self, entries_found: int) -> None:
        """Report progress until this node has its part in the cluster, then that it is ready."""
        waited_for = ""
        while not (self._joined.is_set() and self.metadata.map_version):
            missing = self._missing()
            if missing != waited_for:
                waited_for = missing
                self._on_progress(Progress(f"waiting for {missing}", 0, 0))
            await asyncio.sleep(_LOOK_S)
        self._say_ready(*self._address, entries_found)

    def _missing(self) -> str:
        if self.member.refusal:
            return f"the cluster to take this node: {self.member.refusal}"
        silent = [
            f"{node} ({address}: {self.links.failure(node) or 'dialling'})"
            for node, address in self._me.candidates
            if node != self._me.node_id and not self.links.is_open(node)
        ]
        return f"candidates {', '.join(silent)}" if silent else "the controller"

    async def _stop_cluster(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        self.host.stopping = True
        if self._is_alone():
            log.info("stopping: no other node can be reached to take over")
        else:
            await self._try_to_hand_over()
        self.member.leave()
        self.server.stop_accepting()
        self.host.hears = False
        await self._replicated.drain()
        self.server.close_all()
        for task in tasks:
            if task.get_name() != "snapshots":
                task.cancel()
        try:
            await self._snapshot_driver.snapshot_all(empty_too=False)
        except DiskFullError as error:
            log.warning("no snapshots taken, the next start replays the log: %s", error)
        for task in tasks:
            task.cancel()
        log.info("stopped: all that was acknowledged is on disk")

    async def _try_to_hand_over(self) -> None:
        log.info("stopping: shards are handed to other nodes")
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S) as self._handing_over:
                await self._hand_over()
        except FencedError:
            log.info("the cluster has given this node's shards to others already")
        except (TimeoutError, SsGovernError):
            if self._is_alone():
                log.info("no other node can be reached any more to take over")
            else:
                log.warning("nobody took the shards over in time; others will notice")
        finally:
            self._handing_over = None

    def _is_alone(self) -> bool:
        others = [node for node in self.metadata.state.nodes if node != self._me.node_id]
        return not any(self.links.is_open(node) for node in others)

    async def _hand_over(self) -> None:
        """Finish what was taken, then tell the controller that this life of the node is over."""
        if not self.member.session:
            return
        loop = asyncio.get_running_loop()
        if self.candidate is not None:
            # Or all that follows waits until the others have noticed and held an election.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CONTROLLER_TIMEOUT_S):
                    await self.candidate.controller.hand_over()
        while self.host.uncommitted():
            await asyncio.sleep(0.01)
        # The controller does not wait for the lease of who says that it stops, nor must it be
        # talked into another session.
        self.host.give_up_lease()
        self.member.leave()
        request = peer_pb2.NodeStoppingRequest(
            node_id=self._me.node_id, session=self.member.session
        )
        await self.member.ask_controller(
            MessageType.NODE_STOPPING, encode(request), loop.time() + _STOP_TIMEOUT_S
        )
        while self.host.primaries:
            await asyncio.sleep(0.01)

    # --- what changes in the cluster -------------------------------------------------------

    def _on_metadata(self, change: MetadataChange) -> None:
        cluster_id = self.metadata.state.cluster_id
        if cluster_id and not self._joining:
            self._joining = True
            self._me.cluster_id = cluster_id
            self._group.create_task(self._join(cluster_id), name="join")
        if change.nodes_changed:
            self._dial()
        self.host.on_rows_changed(change.shards)
        self.server.push_map()
        mine = self.metadata.state.nodes.get(self._identity.node_id)
        self._look_whether_voted_out()
        if mine is not None and mine.candidate and not (self._voting or self._damages.votes):
            self._voting = True
            self._group.create_task(self._begin_candidate(), name="begin-candidate")

    async def _join(self, cluster_id: bytes) -> None:
        await self._become(cluster_id=cluster_id, clustered=True)
        self.server.set_cluster_id(cluster_id)
        self._joined.set()

    async def _begin_candidate(self) -> None:
        """The cluster made this node a candidate while it runs."""
        candidate = await self._open_candidate()
        self._dial()
        if not self._stop.is_set():
            self.candidate = candidate
            self._tasks += candidate.start(self._group)

    def _dial(self) -> None:
        """Dial every node there is; until the map says who, the candidates."""
        mine, named = self._identity, dict(self._me.candidates)
        nodes = self.metadata.state.sorted_nodes()
        self.links.set_peers({**named, **dict(mine.peers), **{n.id: n.address for n in nodes}})
        peers = identities.peers_of(nodes, mine.node_id, named)
        if mine.candidate and self.member.session and peers != mine.peers:
            self._group.create_task(self._become(peers=peers), name="peers")

    def _on_left(self) -> None:
        log.warning("this node has left the cluster for good: it stops")
        self.stop()

    def _on_session(self, session: int) -> None:
        self.host.on_session(session)
        if session and self._damages.shards:
            self._group.create_task(self._damages.told(), name="damage-told")
        self._look_whether_voted_out()

    def _look_whether_voted_out(self) -> None:
        mine = self.metadata.state.nodes.get(self._identity.node_id)
        # What is replayed may be of long ago, until it shows this very life of the node.
        is_news = mine is not None and 0 < self.member.session == mine.session
        if self._damages.votes and is_news and mine is not None and not mine.candidate:
            self._group.create_task(self._damages.not_voting(), name="damage-told")

    def _on_link(self, node: NodeId) -> None:
        self.host.on_link(node)

    def _on_link_lost(self, node: NodeId) -> None:
        self.host.on_lost(node)
        waits = self._handing_over
        if waits is not None and not waits.expired() and self._is_alone():
            # All nodes are stopping: there is nobody to wait for.
            waits.reschedule(asyncio.get_running_loop().time())

    def _on_role(self) -> None:
        self.member.wake()

    # --- node.hosted.Owner -----------------------------------------------------------------

    def on_applied(self, shards: Iterable[ShardId]) -> None:
        changes = self.registry.take_changes(shards)
        if changes:
            self._push_driver.offer(changes)

    def on_serving(self, began: Sequence[ShardId], ended: Sequence[ShardId]) -> None:
        log.info(
            "primary of %d shards now: %d more, %d no longer",
            len(self.host.primaries),
            len(began),
            len(ended),
        )
        if ended:
            self.registry.unclaim_shards(ended)
        if began:
            now_ms = asyncio.get_running_loop().time() * 1000.0
            self.registry.claim_shards(began, now_ms)

    def on_done(self) -> None:
        self.server.flush()

    # --- api.native.peer.PeerHandler -------------------------------------------------------

    def on_peer_push(self, source: NodeId, type_: int, body: bytes) -> None:
        if type_ == MessageType.REPLICATION:
            self.host.on_replication(source, body)
        elif type_ == MessageType.SHARD_SNAPSHOT:
            self.host.on_snapshot_piece(source, body)
        elif type_ == MessageType.METADATA:
            self.member.on_metadata(source, body)
        elif type_ == MessageType.RAFT and self.candidate is not None:
            self.candidate.receive(source, body)
        elif type_ != MessageType.RAFT:
            raise RemoteProtocolError(f"a node tells something of type {type_}")

    async def on_peer_request(self, source: NodeId, type_: int, body: bytes) -> bytes:
        if self.candidate is None:
            controller = self.metadata.controller_id
            known = self.metadata.state.nodes.get(controller)
            raise NotControllerError(
                "this node is no candidate",
                controller=controller,
                address="" if known is None else known.address,
            )
        return await self.candidate.on_request(source, type_, body)

    def on_peer_read(self) -> None:
        self.host.flush()

    def said_hello(self, said: PeerSaid, address: str) -> None:
        self.metadata.check_directory(said)
        dialled = self.links.said(said.node_id)
        if dialled is not None and dialled.boot_id != said.boot_id:
            # Of a process that ended, the link to it ends at once; of one without power, soon.
            raise PeerRefusedError(
                f"node {said.node_id} runs already, as another process that answers at its "
                "address: a copied data directory? Start the copy with another node.id and an "
                "empty data directory"
            )

    @property
    def me(self) -> NodeId:
        """This node."""
        return self._identity.node_id

    def not_ready(self) -> str:
        if why_not := super().not_ready():
            return why_not
        if not (self._joined.is_set() and self.metadata.map_version):
            return f"waiting for {self._missing()}"
        if not self.member.session:
            return f"no session in the cluster: {self.member.refusal or 'the controller is asked'}"
        return "" if self.member.controller_heard else "cut off from the controller"

    # --- questions -------------------------------------------------------------------------

    async def command(
        self, request: native_pb2.ClusterCommandRequest
    ) -> native_pb2.ClusterCommandResponse:
        """Pass an operator's command on to the controller; return what it decided."""
        return await access_cluster.command(self.member, self.metadata, request)

    async def decide_access(self, request: native_pb2.AccessRequest) -> str:
        return await access_cluster.decide(self.member, self.metadata, self._config, request)

    def cluster_status(
        self, request: native_pb2.ClusterStatusRequest
    ) -> native_pb2.ClusterStatusResponse:
        """Describe the cluster as this node knows it."""
        # Without a leader its consensus is out of date: it may have been dismissed.
        voting = self.candidate if self._leader() else None
        return self.metadata.cluster_status(
            self._identity.node_id,
            shards=request.shards,
            controller_heard=self.member.controller_heard,
            candidates=None if voting is None else voting.raft.candidates,
        )

    def validate(self) -> None:
        for state in self.states:
            state.validate()
        self.host.validate()
        self.registry.sessions.validate()
        self.push.subscriptions.validate()
