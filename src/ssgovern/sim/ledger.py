"""What the log of a node amounts to, kept by an observer who forgets nothing.

A second, deliberately plain reading of the log: it shares no code with `ssgovern.registry` beyond
the messages, so that both would have to be wrong in the same way. It outlives every crash of the
node, and knows the state of every service at every revision that ever was.

Invariant: `entries[i]` is the entry of revision `i + 1`; a service's `versions` rise in revision.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from ssgovern.model import SHARDS, Instance, LogPosition, ServiceKey, Status, shard_of
from ssgovern.wire.codec import instance_from_wire, key_from_wire
from ssgovern.wire.pb import log_pb2, native_pb2

NO_INSTANCES: Mapping[str, Instance] = MappingProxyType({})


class LedgerEntry(NamedTuple):
    """A committed entry. `when` is world time."""

    epoch: int
    revision: int
    body: bytes
    when: float

    @property
    def record(self) -> log_pb2.Record:
        return log_pb2.Record.FromString(self.body)


class Owned(NamedTuple):
    instance: Instance
    session_id: bytes


@dataclass(slots=True)
class ServiceHistory:
    """One service: what it is, and what it was at each revision that changed it."""

    now: dict[str, Owned] = field(default_factory=dict)
    out_of_service: dict[str, None] = field(default_factory=dict)
    revisions: list[int] = field(default_factory=list)
    versions: list[Mapping[str, Instance]] = field(default_factory=list)

    def at(self, revision: int) -> Mapping[str, Instance]:
        index = bisect_right(self.revisions, revision)
        return self.versions[index - 1] if index else NO_INSTANCES

    def between(self, first: int, last: int) -> Iterator[Mapping[str, Instance]]:
        """Yield what it was at `first` and after each change up to `last`."""
        yield self.at(first)
        for index in range(bisect_right(self.revisions, first), bisect_right(self.revisions, last)):
            yield self.versions[index]


class ShardLedger:
    """One shard's committed entries and what they mean."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self.services: dict[ServiceKey, ServiceHistory] = {}

    @property
    def revision(self) -> int:
        return len(self.entries)

    @property
    def position(self) -> LogPosition:
        if not self.entries:
            return LogPosition(0, 0)
        return LogPosition(self.entries[-1].epoch, len(self.entries))

    def entry(self, revision: int) -> LedgerEntry | None:
        return self.entries[revision - 1] if 1 <= revision <= len(self.entries) else None

    def service(self, key: ServiceKey) -> ServiceHistory:
        history = self.services.get(key)
        if history is None:
            history = self.services[key] = ServiceHistory()
        return history

    def at(self, key: ServiceKey, revision: int) -> Mapping[str, Instance]:
        history = self.services.get(key)
        return NO_INSTANCES if history is None else history.at(revision)

    def up_to(self, revision: int) -> ShardLedger:
        """Return the ledger as it was at a revision."""
        shorter = ShardLedger()
        for entry in self.entries[:revision]:
            shorter.apply(entry)
        return shorter

    # --- meaning ---------------------------------------------------------------------------

    def apply(self, entry: LedgerEntry) -> log_pb2.Record:
        assert entry.revision == self.revision + 1, f"{entry} does not follow {self.position!r}"
        self.entries.append(entry)
        record = entry.record
        match record.WhichOneof("change"):
            case "registered":
                self._registered(entry.revision, record)
            case "deregistered":
                self._deregistered(entry.revision, record.deregistered)
            case "updated":
                self._updated(entry.revision, record.updated)
            case "session_ended":
                self._session_ended(entry.revision, record.session_ended.session_id)
            case _:
                assert record.HasField("epoch_started"), record
        return record

    def _registered(self, revision: int, record: log_pb2.Record) -> None:
        change = record.registered
        history = self.service(key_from_wire(change.service))
        instance = instance_from_wire(change.instance)
        self._put(
            history,
            revision,
            replace(
                instance,
                healthy=True,
                enabled=instance.id not in history.out_of_service,
                registered_at_ms=record.time_ms,
            ),
            change.session_id,
        )

    def _deregistered(self, revision: int, change: log_pb2.InstanceDeregistered) -> None:
        history = self.service(key_from_wire(change.service))
        owned = history.now.get(change.instance_id)
        if owned is not None and _may_change(owned, change):
            del history.now[change.instance_id]
            self._note(history, revision)

    def _updated(self, revision: int, change: log_pb2.InstanceUpdated) -> None:
        history = self.service(key_from_wire(change.service))
        owned = history.now.get(change.instance_id)
        if owned is None or not _may_change(owned, change):
            return
        wanted, instance = change.change, owned.instance
        if wanted.HasField("out_of_service"):
            if wanted.out_of_service:
                history.out_of_service[instance.id] = None
            else:
                history.out_of_service.pop(instance.id, None)
        self._put(history, revision, patched(instance, wanted), owned.session_id)

    def _session_ended(self, revision: int, session_id: bytes) -> None:
        for history in self.services.values():
            mine = [name for name, owned in history.now.items() if owned.session_id == session_id]
            for name in mine:
                instance = history.now[name].instance
                if instance.ephemeral:
                    del history.now[name]
                else:
                    lost = replace(instance, healthy=False, revision=revision, lease_ms=0)
                    history.now[name] = Owned(lost, b"")
            if mine:
                self._note(history, revision)

    def _put(
        self, history: ServiceHistory, revision: int, instance: Instance, session_id: bytes
    ) -> None:
        history.now[instance.id] = Owned(replace(instance, revision=revision), session_id)
        self._note(history, revision)

    def _note(self, history: ServiceHistory, revision: int) -> None:
        history.revisions.append(revision)
        history.versions.append({name: owned.instance for name, owned in history.now.items()})


class Ledger:
    """All shards, and what was proposed and not yet seen to commit."""

    def __init__(self) -> None:
        self.shards = [ShardLedger() for _ in range(SHARDS)]
        self.branches: list[list[ShardLedger]] = [[] for _ in range(SHARDS)]
        """Per shard, what it was before each loss that its durability allowed."""
        self.losses = 0
        self._proposed: dict[tuple[int, int, int], bytes] = {}

    def shard(self, key: ServiceKey) -> ShardLedger:
        return self.shards[shard_of(*key)]

    def revision(self, key: ServiceKey) -> int:
        return self.shard(key).revision

    def states_at(self, key: ServiceKey, revision: int) -> Iterator[Mapping[str, Instance]]:
        """Yield what a service was at a revision: more than one if the log was lost since."""
        shard = shard_of(*key)
        for branch in (self.shards[shard], *reversed(self.branches[shard])):
            if revision <= branch.revision:
                yield branch.at(key, revision)

    def entries_at(self, shard: int, revision: int) -> Iterator[LedgerEntry]:
        """Yield the entry of a revision, of this log and of those that were lost."""
        for branch in (self.shards[shard], *reversed(self.branches[shard])):
            entry = branch.entry(revision)
            if entry is not None:
                yield entry

    def propose(self, shard: int, epoch: int, revision: int, body: bytes) -> None:
        self._proposed[shard, epoch, revision] = body

    def proposed(self, shard: int, epoch: int, revision: int) -> bytes | None:
        return self._proposed.get((shard, epoch, revision))

    def withdraw(self, shard: int, epoch: int, revision: int) -> None:
        self._proposed.pop((shard, epoch, revision), None)

    def lose(self, shard: int, revision: int) -> list[LedgerEntry]:
        """Forget what follows a revision, as a power cut did; return it."""
        before = self.shards[shard]
        self.branches[shard].append(before)
        self.shards[shard] = before.up_to(revision)
        self.losses += 1
        return before.entries[revision:]

    @property
    def names(self) -> list[ServiceKey]:
        """All services there ever were."""
        return [key for shard in self.shards for key in shard.services]

    def services(self) -> Iterator[tuple[ServiceKey, ServiceHistory]]:
        for shard in self.shards:
            yield from shard.services.items()


def _may_change(
    owned: Owned, change: log_pb2.InstanceDeregistered | log_pb2.InstanceUpdated
) -> bool:
    foreign = bool(owned.session_id) and owned.session_id != change.session_id
    if foreign and not change.any_owner:
        return False
    return not change.if_revision or change.if_revision == owned.instance.revision


def patched(instance: Instance, wanted: native_pb2.InstanceChange) -> Instance:
    """Return an instance with the changes an update asks for."""
    metadata = {} if wanted.metadata_clear else dict(instance.metadata)
    for name in wanted.metadata_remove:
        metadata.pop(name, None)
    metadata.update(wanted.metadata_set)
    if wanted.HasField("weight"):
        instance = replace(instance, weight=wanted.weight)
    if wanted.HasField("status"):
        instance = replace(instance, status=Status(wanted.status))
    if wanted.HasField("out_of_service"):
        instance = replace(instance, enabled=not wanted.out_of_service)
    return replace(instance, metadata=metadata)
