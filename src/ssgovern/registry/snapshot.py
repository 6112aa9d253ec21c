"""A shard's state as a sequence of chunks, and back.

Pure. `capture` is quick (it copies references, never instances) and gives a consistent picture;
`encode_chunks` may then be drawn out over many turns of the loop while the state moves on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ssgovern import limits
from ssgovern.model import LogPosition, ServiceKey, SessionId
from ssgovern.registry.state import Entry, Service, ShardState, is_available
from ssgovern.wire.codec import encode, key_to_wire
from ssgovern.wire.pb import log_pb2, model_pb2

_ENTRIES_PER_CHUNK = 512


class CapturedService(NamedTuple):
    """One service as it was."""

    key: ServiceKey
    revision: int
    entries: tuple[Entry, ...]
    out_of_service: tuple[str, ...]


class Captured(NamedTuple):
    """One shard as it was at `position`."""

    position: LogPosition
    epoch_starts: tuple[LogPosition, ...]
    services: tuple[CapturedService, ...]


def capture(state: ShardState) -> Captured:
    """Return the state as it is now."""
    return Captured(
        state.position,
        tuple(state.epoch_starts),
        tuple(
            CapturedService(
                service.key,
                service.revision,
                tuple(service.instances.values()),
                tuple(service.out_of_service),
            )
            for service in state.services.values()
            if service.instances or service.out_of_service
        ),
    )


def encode_chunks(captured: Captured) -> Iterator[bytes]:
    """Yield encoded chunks of about `limits.SNAPSHOT_CHUNK_BYTES`, at least one."""
    chunk = log_pb2.SnapshotChunk()
    for start in captured.epoch_starts:
        chunk.epoch_starts.add(epoch=start.epoch, revision=start.revision)
    filled_bytes = 0
    for key, revision, entries, out_of_service in captured.services:
        for first in range(0, max(len(entries), 1), _ENTRIES_PER_CHUNK):
            service = chunk.services.add(service=key_to_wire(key), revision=revision)
            if first == 0:
                service.out_of_service.extend(out_of_service)
            filled_bytes += 64
            for entry in entries[first : first + _ENTRIES_PER_CHUNK]:
                service.instances.add(
                    id=entry.id,
                    session_id=entry.session_id,
                    persistent=entry.persistent,
                    instance=entry.encoded,
                )
                filled_bytes += len(entry.encoded) + 64
            if filled_bytes >= limits.SNAPSHOT_CHUNK_BYTES:
                yield encode(chunk)
                chunk = log_pb2.SnapshotChunk()
                filled_bytes = 0
    yield encode(chunk)


def restore(state: ShardState, position: LogPosition, chunks: Iterable[bytes]) -> None:
    """Fill an empty state from the chunks of a snapshot taken at `position`."""
    assert state.position.revision == 0, f"{state!r} is not empty"
    for chunk in chunks:
        restore_chunk(state, log_pb2.SnapshotChunk.FromString(chunk))
    state.position = position
    state.history_floor = position.revision


def restore_chunk(state: ShardState, chunk: log_pb2.SnapshotChunk) -> None:
    """Add one chunk to a state that is being restored."""
    for start in chunk.epoch_starts:
        state.epoch_starts.append(LogPosition(start.epoch, start.revision))
    for saved in chunk.services:
        wire_key = saved.service
        key = ServiceKey(wire_key.namespace, wire_key.group, wire_key.service)
        service = state.services.get(key)
        if service is None:
            service = state.services[key] = Service(key)
            service.revision = saved.revision
        for instance_id in saved.out_of_service:
            service.out_of_service[instance_id] = None
        for item in saved.instances:
            session_id = SessionId(item.session_id)
            encoded = item.instance
            instance = model_pb2.Instance.FromString(encoded)
            entry = Entry(
                service,
                item.id,
                encoded,
                session_id,
                persistent=item.persistent,
                available=is_available(instance),
                lease_ms=instance.lease_ms,
            )
            service.instances[entry.id] = entry
            service.available += entry.available
            state.instances += 1
            if session_id:
                owned = state.owned.get(session_id)
                if owned is None:
                    owned = state.owned[session_id] = {}
                else:
                    # One id object per session, however many instances it has.
                    entry.session_id = next(iter(owned)).session_id
                owned[entry] = None


def digest_chunks(state: ShardState) -> list[bytes]:
    """Return bytes that are equal for two replicas with equal states, whatever their history.

    Encoded instances may differ in the order of their metadata; here they are put in order.
    """
    captured = capture(state)
    ordered = sorted(
        (
            service._replace(
                entries=tuple(_in_order(entry) for entry in sorted(service.entries, key=_entry_id)),
                out_of_service=tuple(sorted(service.out_of_service)),
            )
            for service in captured.services
        ),
        key=_service_key,
    )
    return list(encode_chunks(captured._replace(services=tuple(ordered))))


def _in_order(entry: Entry) -> Entry:
    return Entry(
        entry.service,
        entry.id,
        encode(model_pb2.Instance.FromString(entry.encoded)),
        entry.session_id,
        persistent=entry.persistent,
        available=entry.available,
        lease_ms=entry.lease_ms,
    )


def _entry_id(entry: Entry) -> str:
    return entry.id


def _service_key(service: CapturedService) -> ServiceKey:
    return service.key
