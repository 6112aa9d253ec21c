"""Planted bugs: what the simulator has to find, so that we know it finds what we did not plant.

Production code has no switches for them. A mutant is a subclass of the observed node, a disk that
does something else than it was told, or a method replaced on a finished object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssgovern.client.holdings import Holdings
from ssgovern.client.registry import Registry
from ssgovern.errors import DiskFullError
from ssgovern.model import LogPosition, Outcome, ServiceKey, shard_of
from ssgovern.node.recovery import Recovered
from ssgovern.registry.protection import Protection
from ssgovern.registry.sessions import Connection, Session, SessionTable
from ssgovern.registry.state import CatchUp, Service, ShardState
from ssgovern.replication.primary import Proposal, Waiter
from ssgovern.runtime import Disk, SyncError
from ssgovern.service import checks
from ssgovern.sim.observed import FailpointDisk, ObservedNode, replace_method
from ssgovern.wire.frames import Kind, MessageType, encode_message
from ssgovern.wire.pb import log_pb2, native_pb2, raw_pb2


def _leave(registry: Registry) -> None:
    """Change nothing."""


class Mutant(NamedTuple):
    """A planted bug, and within how many seeds it must be found."""

    node: type[ObservedNode] = ObservedNode
    change_client: Callable[[Registry], None] = _leave
    seeds: int = 100


HONEST = Mutant()


# --- durability ----------------------------------------------------------------------------


class _AckBeforeSyncDisk(FailpointDisk):
    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        await super().append(name, chunks, sync=False)


class AckBeforeSync(ObservedNode):
    """Says "durable" when a batch is in the page cache."""

    def _open_disk(self, path: str) -> Disk:
        disk = super()._open_disk(path)
        return _AckBeforeSyncDisk(disk, lambda _: None) if path.endswith("wal") else disk


class _RetrySyncDisk(FailpointDisk):
    async def append(self, name: str, chunks: Sequence[bytes], *, sync: bool) -> None:
        await super().append(name, chunks, sync=False)
        if sync:
            await self.sync(name)

    async def sync(self, name: str) -> None:
        try:
            await super().sync(name)
        except SyncError:
            await super().sync(name)


class RetryFailedSync(ObservedNode):
    """Takes the second sync's word for it (fsyncgate)."""

    def _open_disk(self, path: str) -> Disk:
        return _RetrySyncDisk(super()._open_disk(path), lambda _: None)


class SnapshotMissesNewest(ObservedNode):
    """A snapshot says it is at a position whose last change it does not hold."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        replace_method(self._snapshot_driver, "_states", [_Lagging(s) for s in self.states])


class _Lagging:
    """A state as a snapshot sees it: without the instance that changed last."""

    def __init__(self, state: ShardState) -> None:
        self._state = state
        self.shard = state.shard

    @property
    def position(self) -> LogPosition:
        return self._state.position

    @property
    def epoch_starts(self) -> list[LogPosition]:
        return self._state.epoch_starts

    @property
    def services(self) -> dict[ServiceKey, Service]:
        services = {}
        for key, service in self._state.services.items():
            lagging = services[key] = Service(key)
            lagging.revision = service.revision
            lagging.out_of_service = service.out_of_service
            lagging.instances = dict(service.instances)
            if lagging.instances and service.history:
                lagging.instances.pop(service.history[-1][1], None)
        return services


class DiskFullKeepsProposals(ObservedNode):
    """Refuses writes for want of space, but leaves them in the primary's memory."""

    def _watch_log(self) -> None:
        driver = self._log_driver

        def refuse(batch: list[Proposal], error: DiskFullError) -> None:
            queued = [*batch, *driver._queue]
            driver._queue.clear()
            driver._uncommitted -= len(queued)
            driver._uncommitted_bytes -= sum(len(proposal.body) for proposal in queued)
            for proposal in queued:
                proposal.waiter.on_outcome(proposal, Outcome(error=error))
            driver._on_committed([])

        replace_method(driver, "_refuse", refuse)
        super()._watch_log()


class RefusedBatchStays(ObservedNode):
    """Says that a batch did not fit, and leaves what fitted in the log."""

    def _assemble(self, recovered: Recovered) -> None:
        async def leave(segment: object, cause: OSError) -> None:
            pass

        replace_method(recovered.wal, "_take_back", leave)
        super()._assemble(recovered)


class DeregisterAckedEarly(ObservedNode):
    """Answers a removal when it is proposed."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        registry = self.registry

        def deregister(
            session: Session, request: native_pb2.DeregisterRequest, waiter: Waiter
        ) -> None:
            key = checks.service_key(request.service)
            record = log_pb2.Record()
            record.deregistered.service.CopyFrom(request.service)
            record.deregistered.instance_id = request.instance_id
            record.deregistered.session_id = session.id
            proposal = registry._proposer.propose(shard_of(*key), record, _Nobody())
            waiter.on_outcome(proposal, Outcome(removed=True))

        replace_method(registry, "deregister", deregister)


class _Nobody:
    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        pass


# --- sessions ------------------------------------------------------------------------------


class ExpiryIgnoresStall(ObservedNode):
    """Holds the time in which the node itself stood still against its clients."""

    def _session_table(self) -> SessionTable:
        table = super()._session_table()
        tick = table.tick

        def tick_without_memory(now_ms: float) -> list[Session]:
            table._last_tick_ms = None
            return tick(now_ms)

        replace_method(table, "tick", tick_without_memory)
        return table


class NoFullTtlAfterRestart(ObservedNode):
    """Lets sessions of the earlier life go on from when they were last heard, long ago."""

    def _restore_sessions(self) -> None:
        super()._restore_sessions()
        table = self.registry.sessions
        for session in list(table._sessions.values()):
            table._unschedule(session)
            session.last_heard_ms -= table.ttl_ms * 0.8
            table._schedule(session)


class SessionsRestoredEarly(ObservedNode):
    """Counts the time it takes to start against the sessions of the earlier life."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        super()._restore_sessions()
        self.registry.sessions._last_tick_ms = None

    def _restore_sessions(self) -> None:
        pass


class LeasesRestoredAsSessions(ObservedNode):
    """Gives leases of the earlier life the time to live of a client's session."""

    def _restore_sessions(self) -> None:
        super()._restore_sessions()
        table = self.registry.sessions
        for session in list(table._sessions.values()):
            if session.is_lease:
                table._set_ttl(session, table.ttl_ms)


class NoGraceAfterClose(ObservedNode):
    """Ends a session the moment its connection closes."""

    def _session_table(self) -> SessionTable:
        table = super()._session_table()
        detach = table.detach

        def detach_for_good(session: Session, connection: Connection, now_ms: float) -> None:
            detach(session, connection, now_ms - 10_000.0)

        replace_method(table, "detach", detach_for_good)
        return table


class ProtectionNeverEnds(ObservedNode):
    """Eureka's way: once held back, for ever held back."""

    def _session_table(self) -> SessionTable:
        table = super()._session_table()
        table._protection = _EndlessProtection(table._protection._policy)
        return table


class _EndlessProtection(Protection):
    def judge(
        self,
        due: Sequence[Session],
        per_shard: Sequence[int],
        leases_per_shard: Sequence[int],
        now_ms: float,
    ) -> tuple[list[Session], list[Session]]:
        ending, holding = super().judge(due, per_shard, leases_per_shard, now_ms)
        held = [session for session in ending if session.held_since_ms is not None]
        return [session for session in ending if session not in held], holding + held


class EndedSessionStillWrites(ObservedNode):
    """Lets a connection go on writing for a session that has ended."""

    def _watch_session_ends(self) -> None:
        registry = self.registry
        end = registry.end_session

        def end_and_forget(session: Session, reason: log_pb2.SessionEnd, waiter: Waiter) -> int:
            connection = session.connection
            count = end(session, reason, waiter)
            session.connection = connection
            return count

        replace_method(registry, "end_session", end_and_forget)
        super()._watch_session_ends()


# --- subscribers ---------------------------------------------------------------------------


class ResumeSkipsChange(ObservedNode):
    """Forgets the oldest change in what a returning subscriber is told."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        for state in self.states:
            _skip_one(state)


def _skip_one(state: ShardState) -> None:
    catch_up = state.catch_up

    def skipping(key: ServiceKey, known: LogPosition) -> CatchUp:
        found = catch_up(key, known)
        return found._replace(upserted=found.upserted[1:]) if found.kind == "delta" else found

    replace_method(state, "catch_up", skipping)


class TrustsTrimmedHistory(ObservedNode):
    """Resumes subscribers from before what it still remembers."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        for state in self.states:
            _forget_floor(state)


def _forget_floor(state: ShardState) -> None:
    catch_up = state.catch_up

    def trusting(key: ServiceKey, known: LogPosition) -> CatchUp:
        floor, state.history_floor = state.history_floor, 0
        found = catch_up(key, known)
        state.history_floor = floor
        return found

    replace_method(state, "catch_up", trusting)


class EmptyListAtStart(ObservedNode):
    """Tells the first subscribers after a start that there is nothing."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        push, registry = self.push, self.registry
        encode_catch_up = push._encode_catch_up
        told = 0

        def encode_nothing_first(key: ServiceKey, known: LogPosition) -> list[bytes]:
            nonlocal told
            told += 1
            if told > 3:
                return encode_catch_up(key, known)
            position = registry.state_of(key).position
            empty = raw_pb2.RawSnapshot(epoch=position.epoch, revision=position.revision)
            empty.service.namespace, empty.service.group, empty.service.service = key
            body = empty.SerializeToString()
            return encode_message(Kind.PUSH, MessageType.SNAPSHOT, 0, body)

        replace_method(push, "_encode_catch_up", encode_nothing_first)


class SlowSubscriberSkips(ObservedNode):
    """Drops a change for a subscriber that cannot take it, instead of noting what it lacks."""

    def _assemble(self, recovered: Recovered) -> None:
        super()._assemble(recovered)
        push = self.push
        tell = push.tell

        def tell_or_drop(subscriber: object, change: object, frames: list[bytes]) -> None:
            if subscriber.can_take:  # type: ignore[attr-defined]
                tell(subscriber, change, frames)  # type: ignore[arg-type]

        replace_method(push, "tell", tell_or_drop)


# --- the client ----------------------------------------------------------------------------


class _HoldingForEver(Holdings):
    """Registers again what its caller had removed."""

    __slots__ = ()

    def drop(self, key: ServiceKey, instance_id: str) -> None:
        pass


def _hold_for_ever(registry: Registry) -> None:
    registry._holdings = registry._session._holdings = _HoldingForEver()


MUTANTS: dict[str, Mutant] = {
    "ack_before_sync": Mutant(AckBeforeSync),
    "retry_failed_sync": Mutant(RetryFailedSync, seeds=300),
    "snapshot_misses_newest": Mutant(SnapshotMissesNewest),
    "disk_full_keeps_proposals": Mutant(DiskFullKeepsProposals),
    "refused_batch_stays": Mutant(RefusedBatchStays),
    "deregister_acked_early": Mutant(DeregisterAckedEarly),
    "expiry_ignores_stall": Mutant(ExpiryIgnoresStall),
    "no_full_ttl_after_restart": Mutant(NoFullTtlAfterRestart),
    "sessions_restored_early": Mutant(SessionsRestoredEarly),
    "leases_restored_as_sessions": Mutant(LeasesRestoredAsSessions),
    "no_grace_after_close": Mutant(NoGraceAfterClose),
    "protection_never_ends": Mutant(ProtectionNeverEnds),
    "ended_session_still_writes": Mutant(EndedSessionStillWrites),
    "resume_skips_change": Mutant(ResumeSkipsChange),
    "trusts_trimmed_history": Mutant(TrustsTrimmedHistory),
    "empty_list_at_start": Mutant(EmptyListAtStart),
    "slow_subscriber_skips": Mutant(SlowSubscriberSkips),
    "client_holds_for_ever": Mutant(change_client=_hold_for_ever),
}
