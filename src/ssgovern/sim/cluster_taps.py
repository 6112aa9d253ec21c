"""Tells the observer of a cluster what the cores of its nodes are asked and do.

The only place that knows which methods those are.
"""

from __future__ import annotations

from collections.abc import Callable

from ssgovern.client.shard_map import ClientMap
from ssgovern.model import LogPosition, NodeId, SessionId, ShardId
from ssgovern.node.metadata import Metadata
from ssgovern.raft.core import Raft, Ready
from ssgovern.registry.sessions import Connection, Session, SessionTable
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import PrimaryLog
from ssgovern.replication.replica import ReplicaLog
from ssgovern.replication.replicated import ReplicatedPrimary
from ssgovern.service.registry import RegistryService
from ssgovern.sim.cluster_checkers import ClusterChecker, NodeWatch
from ssgovern.sim.process import Process
from ssgovern.sim.taps import Taps
from ssgovern.wire.pb import log_pb2
from ssgovern.wire.records import Record


class ClusterTaps:
    """Ears at every core; each call is told to the checker with the node it happened on."""

    def __init__(self, checker: ClusterChecker) -> None:
        self._checker = checker

    def listen(self, taps: Taps) -> None:
        taps.after(ShardState, "apply", self._applied)
        taps.after(PrimaryLog, "__init__", self._primary)
        taps.after(Raft, "__init__", self._raft_started)
        taps.after(Raft, "persisted", self._raft_persisted)
        taps.after(Raft, "_become_leader", self._elected)
        taps.after(Metadata, "apply", self._metadata)
        taps.after(Metadata, "restore", self._metadata_restored)
        taps.after(SessionTable, "open", self._session_opened)
        taps.after(SessionTable, "hear", self._session_heard)
        taps.before(SessionTable, "detach", self._session_detached)
        taps.before(RegistryService, "end_session", self._session_ends)
        taps.after(ClientMap, "apply", self._client_map)
        self._count(taps)

    def _count(self, taps: Taps) -> None:
        counts = self._checker.counts

        def count(name: str) -> Callable[..., None]:
            def note(*_: object, **__: object) -> None:
                counts[name] += 1

            return note

        for owner, method, name in (
            (ReplicatedPrimary, "_step_down", "primary stepped down"),
            (ReplicatedPrimary, "_send_snapshot", "shard snapshot needed"),
            (ReplicaLog, "_refuse", "old epoch refused"),
            (ReplicaLog, "on_snapshot", "shard snapshot received"),
            (Raft, "compact", "metadata compacted"),
        ):
            taps.after(owner, method, count(name))

    def _watch(self, process: Process) -> NodeWatch | None:
        """Return the node whose code is running; None if it is a client's."""
        return self._checker.watches.get(process.name)

    # --- shards ------------------------------------------------------------------------------

    def _applied(
        self, process: Process, state: ShardState, epoch: int, revision: int, record: Record
    ) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.on_applied(watch, state.shard, epoch, revision, record)

    def _primary(
        self,
        process: Process,
        primary: PrimaryLog,
        shard: ShardId,
        epoch: int,
        tail: LogPosition,
        in_sync: tuple[NodeId, ...],
    ) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.on_primary(watch, shard, epoch)

    # --- consensus ---------------------------------------------------------------------------

    def _raft_started(
        self, process: Process, raft: Raft, *arguments: object, **named: object
    ) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.on_raft_started(watch, raft.term)

    def _raft_persisted(self, process: Process, raft: Raft, batch: Ready) -> None:
        watch = self._watch(process)
        if watch is not None and batch.hard_state is not None:
            self._checker.on_raft_persisted(watch, batch.hard_state.term)

    def _elected(self, process: Process, raft: Raft) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.on_elected(watch, raft.term)

    def _metadata(self, process: Process, metadata: Metadata, index: int, body: bytes) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.on_metadata(watch, index, body)
            self._checker.on_map(watch, metadata)

    def _metadata_restored(self, process: Process, metadata: Metadata, snapshot: bytes) -> None:
        watch = self._watch(process)
        if watch is not None:
            self._checker.counts["metadata restored"] += 1
            self._checker.on_map(watch, metadata)

    def _client_map(self, process: Process, client_map: ClientMap, *_: object) -> None:
        self._checker.on_client_map(process, client_map.version)

    # --- sessions ----------------------------------------------------------------------------

    def _session_opened(
        self,
        process: Process,
        table: SessionTable,
        session_id: SessionId,
        now_ms: float,
        shards: int = 0,
    ) -> None:
        watch, session = self._watch(process), table.find(session_id)
        if watch is not None and session is not None:
            watch.judge.on_heard(session)

    def _session_heard(
        self, process: Process, table: SessionTable, session: Session, now_ms: float
    ) -> None:
        watch = self._watch(process)
        if watch is not None:
            watch.judge.on_heard(session)

    def _session_detached(
        self,
        process: Process,
        table: SessionTable,
        session: Session,
        connection: Connection,
        now_ms: float,
    ) -> None:
        watch = self._watch(process)
        if watch is not None and session.connection is connection:
            watch.judge.on_detached(session)

    def _session_ends(
        self,
        process: Process,
        registry: RegistryService,
        session: Session,
        reason: log_pb2.SessionEnd,
        *arguments: object,
    ) -> None:
        watch = self._watch(process)
        if watch is not None:
            expired = reason == log_pb2.SESSION_END_EXPIRED
            self._checker.on_session_end(watch, session, expired=expired)
