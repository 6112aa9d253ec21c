"""The production node, with an observer beside it that sees everything and changes nothing.

Only seams are used: the node is a subclass whose overrides call what they override, its disks
pass every call on, and a few methods of finished objects are wrapped at assembly. A process can
be made to die before and after every single operation of its disks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ssgovern.model import NodeId, SessionId
from ssgovern.node.config import ServerConfig
from ssgovern.node.node import Node, Ready
from ssgovern.node.recovery import Recovered
from ssgovern.registry.sessions import Connection, Session, SessionTable
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.runtime import Disk, Runtime
from ssgovern.wire.pb import log_pb2


class Observer(Protocol):
    """Who is told what the node does, at the moment it does it."""

    def on_recovered(self, node: ObservedNode) -> None:
        """All shards are rebuilt; nothing is served yet."""

    def on_ready(self, node: ObservedNode) -> None:
        """The node serves."""

    def on_proposed(self, proposal: Proposal) -> None:
        """An entry got its position."""

    def on_withdrawn(self, proposals: Sequence[Proposal]) -> None:
        """Entries that did not fit on the disk are to be as if they never were."""

    def on_committed(self, proposals: Sequence[Proposal]) -> None:
        """Entries are about to be applied and answered."""

    def on_heard(self, session: Session) -> None:
        """A session gave a sign of life, or began."""

    def on_detached(self, session: Session) -> None:
        """A session lost its connection."""

    def on_session_end(self, session: Session, *, expired: bool) -> None:
        """The node is about to end a session."""


class FailpointDisk:
    """A disk at which its process may die, before and after everything it does."""

    def __init__(self, disk: Disk, failpoint: Callable[[str], None]) -> None:
        self._disk = disk
        self._failpoint = failpoint

    def names(self) -> list[str]:
        return self._disk.names()

    def size(self, name: str) -> int:
        return self._disk.size(name)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        return self._disk.read(name, offset, length)

    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        self._failpoint("disk.before_append")
        await self._disk.append(name, chunks, sync=sync)
        self._failpoint("disk.after_append")

    async def sync(self, name: str) -> None:
        self._failpoint("disk.before_sync")
        await self._disk.sync(name)
        self._failpoint("disk.after_sync")

    async def reserve(self, name: str, size: int) -> None:
        self._failpoint("disk.before_reserve")
        await self._disk.reserve(name, size)

    async def truncate(self, name: str, size: int) -> None:
        self._failpoint("disk.before_truncate")
        await self._disk.truncate(name, size)
        self._failpoint("disk.after_truncate")

    async def remove(self, name: str) -> None:
        self._failpoint("disk.before_remove")
        await self._disk.remove(name)
        self._failpoint("disk.after_remove")

    async def rename(self, source: str, target: str) -> None:
        self._failpoint("disk.before_rename")
        await self._disk.rename(source, target)
        self._failpoint("disk.after_rename")

    async def sync_directory(self) -> None:
        self._failpoint("disk.before_sync_directory")
        await self._disk.sync_directory()
        self._failpoint("disk.after_sync_directory")

    async def close(self) -> None:
        await self._disk.close()


FAILPOINTS = (
    "log.before_write",
    "log.after_write",
    "disk.before_append",
    "disk.after_append",
    "disk.before_sync",
    "disk.after_sync",
    "disk.after_truncate",
    "disk.before_remove",
    "disk.after_remove",
    "disk.before_rename",
    "disk.after_rename",
    "disk.before_sync_directory",
    "disk.after_sync_directory",
)


class ObservedNode(Node):
    """A node that tells an observer."""

    def __init__(self, config: ServerConfig, runtime: Runtime, observer: Observer) -> None:
        super().__init__(config, runtime, on_ready=self._tell_ready)
        self.observer = observer
        self.failpoint = runtime.failpoint

    @property
    def node_id(self) -> NodeId:
        return self._identity.node_id

    @property
    def cluster_id(self) -> bytes:
        return self._identity.cluster_id

    @property
    def waiting_entries(self) -> int:
        """Entries proposed and not yet committed, over all shards."""
        return self._log_driver._uncommitted

    @property
    def writes_refused(self) -> str:
        return self._log_driver.writes_refused

    def _tell_ready(self, ready: Ready) -> None:
        self.observer.on_ready(self)

    def _open_disk(self, path: str) -> Disk:
        return FailpointDisk(super()._open_disk(path), self.failpoint)

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        self._watch_log()
        watch_sessions(self.registry.sessions, self.observer)
        self._watch_session_ends()
        self.observer.on_recovered(self)

    def _on_committed(self, committed: list[Proposal]) -> None:
        self.observer.on_committed(committed)
        super()._on_committed(committed)

    def _watch_log(self) -> None:
        driver, observer = self._log_driver, self.observer
        propose, refuse = driver.propose, driver._refuse

        def watched_propose(shard: int, record: log_pb2.Record, waiter: Waiter) -> Proposal:
            proposal = propose(shard, record, waiter)  # type: ignore[arg-type]
            observer.on_proposed(proposal)
            return proposal

        def watched_refuse(batch: list[Proposal], error: Exception) -> None:
            observer.on_withdrawn([*batch, *driver._queue])
            refuse(batch, error)  # type: ignore[arg-type]

        replace_method(driver, "propose", watched_propose)
        replace_method(driver, "_refuse", watched_refuse)

    def _watch_session_ends(self) -> None:
        registry, observer = self.registry, self.observer
        end = registry.end_session

        def watched_end(session: Session, reason: log_pb2.SessionEnd, waiter: Waiter) -> int:
            observer.on_session_end(session, expired=reason == log_pb2.SESSION_END_EXPIRED)
            return end(session, reason, waiter)

        replace_method(registry, "end_session", watched_end)


def watch_sessions(table: SessionTable, observer: Observer) -> None:
    """Tell the observer of every sign of life that reaches the table."""
    hear, detach, opened = table.hear, table.detach, table.open

    def watched_hear(session: Session, now_ms: float) -> None:
        hear(session, now_ms)
        observer.on_heard(session)

    def watched_detach(session: Session, connection: Connection, now_ms: float) -> None:
        speaks = session.connection is connection
        detach(session, connection, now_ms)
        if speaks:
            observer.on_detached(session)

    def watched_open(session_id: SessionId, now_ms: float, shards: int = 0) -> Session:
        session = opened(session_id, now_ms, shards)
        observer.on_heard(session)
        return session

    replace_method(table, "hear", watched_hear)
    replace_method(table, "detach", watched_detach)
    replace_method(table, "open", watched_open)


def replace_method(owner: object, name: str, substitute: object) -> None:
    """Let one object, not its class, do something else. For observers and mutants."""
    assert hasattr(owner, name), f"{owner!r} has no {name}: has it been renamed?"
    setattr(owner, name, substitute)
