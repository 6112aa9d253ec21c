"""What log entries say, decoded.

Pure. Most entries are registrations, so these have a plain class of their own, made from the
request by the primary and from the log by everyone else; all others are protobuf messages.
"""

from __future__ import annotations

from functools import lru_cache

from ssgovern.model import ServiceKey, SessionId
from ssgovern.wire.codec import encode, key_from_wire
from ssgovern.wire.handmade import registered_record
from ssgovern.wire.pb import log_pb2, model_pb2, raw_pb2


class Registered:
    """An instance asked to be registered. `instance` is encoded, as the client sent it."""

    __slots__ = (
        "in_traffic",
        "instance",
        "instance_id",
        "key",
        "lease_ms",
        "persistent",
        "session_id",
        "time_ms",
    )

    def __init__(
        self,
        key: ServiceKey,
        instance_id: str,
        instance: bytes,
        session_id: SessionId,
        time_ms: int,
        *,
        persistent: bool,
        in_traffic: bool,
        lease_ms: int = 0,
    ) -> None:
        self.key = key
        self.instance_id = instance_id
        self.instance = instance
        self.session_id = session_id
        self.time_ms = time_ms
        self.persistent = persistent
        self.in_traffic = in_traffic
        """Up and with a weight: callers may send traffic, as far as the instance says."""
        self.lease_ms = lease_ms
        """The session is a lease with so long to live; 0: it is a client's."""

    def __repr__(self) -> str:
        return f"<Registered {self.key} {self.instance_id}>"


Record = Registered | log_pb2.Record


def encode_record(record: Record) -> bytes:
    """Return the body of the log entry that says this."""
    if isinstance(record, Registered):
        return registered_record(record.time_ms, record.key, record.instance, record.session_id)
    return encode(record)


def decode_record(body: bytes) -> Record:
    """Return what the body of a log entry says. Raises DecodeError on bytes that say nothing."""
    raw = raw_pb2.RawRecord.FromString(body)
    return _registered_of(raw) if raw.HasField("registered") else log_pb2.Record.FromString(body)


def registered_of(record: log_pb2.Record) -> Registered:
    """Return the plain form of a record that is a registration."""
    return _registered_of(raw_pb2.RawRecord.FromString(encode(record)))


def _registered_of(raw: raw_pb2.RawRecord) -> Registered:
    registered = raw.registered
    instance = registered.instance
    said = raw_pb2.RawInstance.FromString(instance)
    return Registered(
        _key_of(registered.service),
        said.id,
        instance,
        SessionId(registered.session_id),
        raw.time_ms,
        persistent=said.persistent,
        in_traffic=said.status == model_pb2.STATUS_UP and said.weight > 0.0,
        lease_ms=said.lease_ms,
    )


@lru_cache(maxsize=16384)
def _key_of(service: bytes) -> ServiceKey:
    # Also one key for all entries of a service, instead of as many equal ones.
    return key_from_wire(model_pb2.ServiceKey.FromString(service))
