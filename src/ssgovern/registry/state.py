"""The state of one shard: what its log, applied from the start, amounts to.

Pure and deterministic: `apply` reads no clock and no randomness, so that every replica that
applied the same entries holds the same bytes. What an entry does is decided when it is applied,
because only then is the state before it known; a refused entry changes nothing but takes its
revision like any other.

Instances are kept encoded, ready to be sent. Invariants (`validate`): an entry is in its
service and in its session's set, or in neither; a service without instances is kept only while
it has history or an operator's mark; revisions rise by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

from ssgovern import limits
from ssgovern.errors import (
    LimitExceededError,
    NotFoundError,
    NotOwnerError,
    RevisionConflictError,
    SsGovernError,
)
from ssgovern.model import DONE, LogPosition, Outcome, ServiceKey, SessionId, ShardId
from ssgovern.registry.events import DEREGISTERED, REGISTERED, UPDATED, RecentEvents
from ssgovern.registry.patch import patch_instance
from ssgovern.wire.codec import encode
from ssgovern.wire.handmade import registered_instance
from ssgovern.wire.pb import log_pb2, model_pb2
from ssgovern.wire.records import Record, Registered, registered_of

NO_SESSION = SessionId(b"")


class Entry:
    """One registered instance. Never changed once made, so that snapshots may share it."""

    __slots__ = (
        "available",
        "encoded",
        "id",
        "lease_ms",
        "persistent",
        "service",
        "session_id",
    )

    def __init__(
        self,
        service: Service,
        instance_id: str,
        encoded: bytes,
        session_id: SessionId,
        *,
        persistent: bool,
        available: bool,
        lease_ms: int = 0,
    ) -> None:
        self.service = service
        self.id = instance_id
        self.encoded = encoded
        self.session_id = session_id
        self.persistent = persistent
        self.available = available
        self.lease_ms = lease_ms
        """Its session is a lease with so long to live; 0: a client's, or there is none."""

    def __repr__(self) -> str:
        return f"<Entry {self.service.key} {self.id}>"


class Service:
    """A service that has instances, or had some recently."""

    __slots__ = ("available", "history", "instances", "key", "out_of_service", "revision")

    def __init__(self, key: ServiceKey) -> None:
        self.key = key
        self.instances: dict[str, Entry] = {}
        self.available = 0
        self.revision = 0
        self.out_of_service: dict[str, None] = {}
        """Ids an operator took out of service, registered or not."""
        self.history: list[HistoryItem] = []

    def __repr__(self) -> str:
        return f"<Service {self.key} instances={len(self.instances)} revision={self.revision}>"


HistoryItem = tuple[int, str, bytes | None]
"""One change of one instance: revision, id, and what it became (None: removed)."""


class Change:
    """What became of a service between two revisions, for those who follow it.

    `since` is the revision of the service's change before these. `whole` says that the service
    was empty before, so that `upserted` is all there is.
    """

    __slots__ = ("offered_s", "removed", "revision", "service", "since", "upserted", "whole")

    def __init__(self, service: Service, since: int, revision: int, *, whole: bool) -> None:
        self.service = service
        self.since = since
        self.revision = revision
        self.upserted: dict[str, bytes] = {}
        self.removed: dict[str, None] = {}
        self.whole = whole
        self.offered_s = 0.0
        """When its first part was ready to be told, by the clock of who tells it."""

    def note(self, revision: int, instance_id: str, encoded: bytes | None) -> None:
        """Take in one more change; the last of an instance counts."""
        self.revision = revision
        if encoded is None:
            self.upserted.pop(instance_id, None)
            self.removed[instance_id] = None
        else:
            self.removed.pop(instance_id, None)
            self.upserted[instance_id] = encoded

    def merge(self, later: Change) -> None:
        """Take in a change of the same service that follows this one."""
        for instance_id in later.removed:
            self.note(later.revision, instance_id, None)
        for instance_id, encoded in later.upserted.items():
            self.note(later.revision, instance_id, encoded)


class CatchUp(NamedTuple):
    """What a subscriber at some position lacks."""

    kind: Literal["current", "delta", "snapshot"]
    since: int
    revision: int
    upserted: list[bytes]
    removed: list[str]


class ShardState:
    """The registry's part of one shard."""

    def __init__(self, shard: ShardId) -> None:
        self.shard = shard
        self.position = LogPosition(0, 0)
        """The last entry applied."""
        self.services: dict[ServiceKey, Service] = {}
        self.owned: dict[SessionId, dict[Entry, None]] = {}
        self.emptied: dict[SessionId, None] = {}
        """Sessions that, since changes were last taken, owned nothing here for a moment at least,
        other than by their end."""
        self.epoch_starts: list[LogPosition] = []
        self.instances = 0
        self.history_floor = 0
        """Changes up to this revision are not in the history."""
        self.events: RecentEvents | None = None
        """Where changes are noted for people, if anywhere."""
        self._history: deque[Service] = deque()
        self._changed: dict[Service, Change] = {}

    def __repr__(self) -> str:
        return (
            f"<ShardState shard={self.shard} position={self.position!r} "
            f"services={len(self.services)} instances={self.instances}>"
        )

    # --- the log ---------------------------------------------------------------------------

    def apply(self, epoch: int, revision: int, record: Record) -> Outcome:
        """Apply the next committed entry."""
        assert revision == self.position.revision + 1, (
            f"{self!r} asked to apply {epoch}/{revision}: entries commit in order"
        )
        self.position = LogPosition(epoch, revision)
        if isinstance(record, Registered):
            return self._registered(revision, record)
        match record.WhichOneof("change"):
            case "registered":
                return self._registered(revision, registered_of(record))
            case "deregistered":
                return self._deregistered(revision, record.deregistered, record.time_ms)
            case "updated":
                return self._updated(revision, record.updated, record.time_ms)
            case "session_ended":
                return self._session_ended(revision, record.session_ended, record.time_ms)
            case "epoch_started":
                self.epoch_starts.append(self.position)
                del self.epoch_starts[: -limits.EPOCH_STARTS_KEPT]
                return DONE
            case _:
                # A newer version's record: its node must not have granted it to us.
                raise AssertionError(f"{self!r}: record {epoch}/{revision} of an unknown kind")

    def take_changes(self) -> list[Change]:
        """Return what changed since the last call, one item per service, oldest first."""
        changes = list(self._changed.values())
        self._changed.clear()
        self.emptied.clear()
        return changes

    def _registered(self, revision: int, registered: Registered) -> Outcome:
        instance_id = registered.instance_id
        session_id = registered.session_id
        service = self.services.get(registered.key)
        owned = self.owned.get(session_id)
        old = None
        if service is not None:
            old = service.instances.get(instance_id)
            if old is None and len(service.instances) >= limits.INSTANCES_PER_SERVICE_MAX:
                return _refused_by_limit("instances per service", limits.INSTANCES_PER_SERVICE_MAX)
        if (
            owned is not None
            and len(owned) >= limits.INSTANCES_PER_SESSION_MAX
            and (old is None or old.session_id != session_id)
        ):
            return _refused_by_limit("instances per session", limits.INSTANCES_PER_SESSION_MAX)
        if service is None:
            service = self.services[registered.key] = Service(registered.key)

        out_of_service = instance_id in service.out_of_service
        entry = Entry(
            service,
            instance_id,
            registered_instance(
                registered.instance, revision, registered.time_ms, out_of_service=out_of_service
            ),
            session_id,
            persistent=registered.persistent,
            available=registered.in_traffic and not out_of_service,
            lease_ms=registered.lease_ms,
        )
        self._put(entry, revision, old)
        if self.events is not None:
            time_ms, position = registered.time_ms, self.position
            self.events.note(time_ms, position, old, entry, session_id, REGISTERED)
        return DONE

    def _deregistered(
        self, revision: int, change: log_pb2.InstanceDeregistered, time_ms: int
    ) -> Outcome:
        entry = self._find(change.service, change.instance_id)
        if entry is None:
            return DONE
        refusal = _refusal(entry, change.session_id, change.any_owner, change.if_revision)
        if refusal is not None:
            return refusal
        self._remove(entry, revision)
        if self.events is not None:
            self.events.note(time_ms, self.position, entry, None, change.session_id, DEREGISTERED)
        return Outcome(removed=True)

    def _updated(self, revision: int, change: log_pb2.InstanceUpdated, time_ms: int) -> Outcome:
        entry = self._find(change.service, change.instance_id)
        if entry is None:
            return Outcome(
                error=NotFoundError(
                    f"no instance {change.instance_id!r} in service {change.service.service!r}",
                    instance_id=change.instance_id,
                )
            )
        refusal = _refusal(entry, change.session_id, change.any_owner, change.if_revision)
        if refusal is not None:
            return refusal
        service = entry.service
        instance = model_pb2.Instance.FromString(entry.encoded)
        error = patch_instance(instance, change.change)
        if error is None and change.change.HasField("out_of_service"):
            error = _set_admin_state(service, entry.id, change.change.out_of_service)
        if error is not None:
            return Outcome(error=error)
        instance.revision = revision
        changed = _entry_of(service, instance, entry.session_id)
        self._put(changed, revision, entry)
        if self.events is not None:
            self.events.note(time_ms, self.position, entry, changed, change.session_id, UPDATED)
        return Outcome(encoded=changed.encoded)

    def _session_ended(self, revision: int, change: log_pb2.SessionEnded, time_ms: int) -> Outcome:
        owned = self.owned.pop(SessionId(change.session_id), None)
        if owned is None:
            return DONE
        for entry in owned:
            after: Entry | None = None
            if entry.persistent:
                instance = model_pb2.Instance.FromString(entry.encoded)
                instance.unhealthy = True
                instance.lease_ms = 0
                instance.revision = revision
                after = _entry_of(entry.service, instance, NO_SESSION)
                self._put(after, revision, entry)
            else:
                self._remove(entry, revision)
            if self.events is not None:
                position, session_id = self.position, change.session_id
                self.events.note(time_ms, position, entry, after, session_id, change.reason)
        return Outcome(removed=True)

    # --- changing one instance -------------------------------------------------------------

    def _find(self, key: model_pb2.ServiceKey, instance_id: str) -> Entry | None:
        service = self.services.get(ServiceKey(key.namespace, key.group, key.service))
        return None if service is None else service.instances.get(instance_id)

    def _put(self, entry: Entry, revision: int, old: Entry | None) -> None:
        """Let an entry take its place, which is that of `old` if there is one."""
        service = entry.service
        session_id = entry.session_id
        if old is None:
            self.instances += 1
        else:
            service.available -= old.available
            self._disown(old)
        service.available += entry.available
        if session_id:
            owned = self.owned.get(session_id)
            if owned is None:
                owned = self.owned[session_id] = {}
            owned[entry] = None
        self._note(service, revision, entry.id, entry.encoded)
        service.instances[entry.id] = entry

    def _remove(self, entry: Entry, revision: int) -> None:
        service = entry.service
        self._note(service, revision, entry.id, None)
        del service.instances[entry.id]
        service.available -= entry.available
        self.instances -= 1
        self._disown(entry)

    def _disown(self, entry: Entry) -> None:
        owned = self.owned.get(entry.session_id)
        if owned is not None:
            del owned[entry]
            if not owned:
                del self.owned[entry.session_id]
                self.emptied[entry.session_id] = None

    def _note(
        self, service: Service, revision: int, instance_id: str, encoded: bytes | None
    ) -> None:
        """Remember a change for followers and for those who resume; before it is made."""
        change = self._changed.get(service)
        if change is None:
            change = Change(service, service.revision, revision, whole=not service.instances)
            self._changed[service] = change
        change.note(revision, instance_id, encoded)
        service.revision = revision
        service.history.append((revision, instance_id, encoded))
        self._history.append(service)
        if len(self._history) > limits.HISTORY_CHANGES_PER_SHARD:
            oldest = self._history.popleft()
            self.history_floor = oldest.history.pop(0)[0]
            self._maybe_forget(oldest)

    def _maybe_forget(self, service: Service) -> None:
        if not service.instances and not service.history and not service.out_of_service:
            self.services.pop(service.key, None)

    # --- questions -------------------------------------------------------------------------

    def lease_ms(self, session_id: SessionId) -> int:
        """Return the time to live of a session that owns something here; 0: not a lease."""
        owned = self.owned[session_id]
        # All that a lease owns says so: of a client's session one look is enough.
        if not next(iter(owned)).lease_ms:
            return 0
        return max(entry.lease_ms for entry in owned)

    def catch_up(self, key: ServiceKey, known: LogPosition) -> CatchUp:
        """Return what a subscriber that knows the service at `known` must be told.

        A position is trusted only if it lies on this log: an older epoch's position beyond
        where the next epoch started was never committed here (KIP-320).
        """
        service = self.services.get(key)
        now = self.position.revision
        if self._is_ours(known):
            # History items of an empty service may be gone, so it is told as a snapshot.
            if service is not None and service.revision <= known.revision and service.instances:
                return CatchUp("current", known.revision, now, [], [])
            if service is not None and known.revision >= self.history_floor:
                missed = Change(service, known.revision, now, whole=False)
                first = bisect_right(service.history, known.revision, key=_revision_of)
                for revision, instance_id, encoded in service.history[first:]:
                    missed.note(revision, instance_id, encoded)
                if len(missed.upserted) < len(service.instances):
                    return CatchUp(
                        "delta",
                        known.revision,
                        now,
                        list(missed.upserted.values()),
                        list(missed.removed),
                    )
        entries = () if service is None else service.instances.values()
        return CatchUp("snapshot", 0, now, [entry.encoded for entry in entries], [])

    def _is_ours(self, known: LogPosition) -> bool:
        if known.revision == 0 or known.revision > self.position.revision:
            return False
        for number, start in enumerate(self.epoch_starts):
            if start.epoch == known.epoch:
                following = self.epoch_starts[number + 1 : number + 2]
                return known.revision >= start.revision and all(
                    known.revision < later.revision for later in following
                )
        return False

    def entries(self) -> Iterator[Entry]:
        """Yield every registered instance."""
        for service in self.services.values():
            yield from service.instances.values()

    def validate(self) -> None:
        """Assert every invariant. For tests and the simulator; walks everything."""
        count = 0
        for key, service in self.services.items():
            assert service.key == key
            assert service.instances or service.history or service.out_of_service, service
            assert service.revision <= self.position.revision, service
            assert service.available == sum(e.available for e in service.instances.values())
            for instance_id, entry in service.instances.items():
                assert entry.id == instance_id
                assert entry.service is service
                if entry.session_id:
                    assert entry in self.owned[entry.session_id], entry
                else:
                    assert entry.persistent, f"{entry!r} is ephemeral and belongs to nobody"
            count += len(service.instances)
        assert count == self.instances, self
        for session_id, owned in self.owned.items():
            assert owned, f"session {session_id.hex()} owns nothing and is still here"
            for entry in owned:
                assert entry.service.instances[entry.id] is entry, entry
        assert len(self._history) == sum(len(s.history) for s in self.services.values())
        assert len(self._history) <= limits.HISTORY_CHANGES_PER_SHARD


def _entry_of(service: Service, instance: model_pb2.Instance, session_id: SessionId) -> Entry:
    return Entry(
        service,
        instance.id,
        encode(instance),
        session_id,
        persistent=instance.persistent,
        available=is_available(instance),
        lease_ms=instance.lease_ms,
    )


def is_available(instance: model_pb2.Instance) -> bool:
    """Whether callers should send traffic to it."""
    return (
        instance.status == model_pb2.STATUS_UP
        and not instance.unhealthy
        and not instance.out_of_service
        and instance.weight > 0.0
    )


def _revision_of(item: HistoryItem) -> int:
    return item[0]


def _refused_by_limit(what: str, most: int) -> Outcome:
    return Outcome(error=LimitExceededError(f"at most {most} {what} are allowed", limit=most))


def _refusal(entry: Entry, session_id: bytes, any_owner: bool, if_revision: int) -> Outcome | None:
    if not any_owner and entry.session_id and entry.session_id != session_id:
        return Outcome(
            error=NotOwnerError(
                f"instance {entry.id!r} was registered by another session; "
                "say any_owner to change it all the same",
                instance_id=entry.id,
            )
        )
    if if_revision:
        revision = model_pb2.Instance.FromString(entry.encoded).revision
        if revision != if_revision:
            return Outcome(
                error=RevisionConflictError(
                    f"instance {entry.id!r} is at revision {revision}, not {if_revision}",
                    revision=revision,
                )
            )
    return None


def _set_admin_state(service: Service, instance_id: str, out: bool) -> SsGovernError | None:
    if not out:
        service.out_of_service.pop(instance_id, None)
        return None
    if instance_id not in service.out_of_service and (
        len(service.out_of_service) >= limits.ADMIN_STATES_PER_SERVICE_MAX
    ):
        return LimitExceededError(
            f"at most {limits.ADMIN_STATES_PER_SERVICE_MAX} instances of a service "
            "may be out of service",
            limit=limits.ADMIN_STATES_PER_SERVICE_MAX,
        )
    service.out_of_service[instance_id] = None
    return None
