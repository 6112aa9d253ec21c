"""Encodings made by hand, of the few messages that every registration or every entry needs.

Bytes are those protobuf would make (a test compares each with it); what is saved is building
message objects field by field, which costs several times what the bytes cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ssgovern.model import ServiceKey
from ssgovern.wire.pb import model_pb2

# Field number << 3 | wire type (0 varint, 2 length and bytes).
_RECORD_TIME_MS = b"\x08"
_RECORD_REGISTERED = b"\x12"
_REGISTERED_SERVICE = b"\x0a"
_REGISTERED_INSTANCE = b"\x12"
_REGISTERED_SESSION_ID = b"\x1a"
_INSTANCE_SET_BY_NODE = (
    b"\x50\x00\x58\x00\x60",  # unhealthy = false, out_of_service = false, revision =
    b"\x50\x00\x58\x01\x60",  # the same with out_of_service = true
)
_INSTANCE_REGISTERED_AT_MS = b"\x68"
_RESPONSE_RESULTS = b"\x0a"
_RESULT_INSTANCE_ID = b"\x0a"
_RESULT_EPOCH = b"\x10"
_RESULT_REVISION = b"\x18"


_BATCH_NODE_EPOCH = b"\x08"
_BATCH_APPENDS = b"\x12"
_BATCH_APPENDED = b"\x1a"
_APPEND_PREV_EPOCH = b"\x18"
_APPEND_PREV_REVISION = b"\x20"
_APPEND_COMMITTED = b"\x28"
_APPEND_BODIES = b"\x32"
_APPEND_EPOCHS = b"\x3a"
_OF_SHARD_SHARD = b"\x08"
_OF_SHARD_EPOCH = b"\x10"
_APPENDED_HELD = b"\x18"
_APPENDED_VERSION = b"\x20"


def _digits(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SHORT = tuple(map(_digits, range(1 << 14)))
"""Every number of one or two bytes: nearly all lengths, looked up without a call."""
_SHORT_END = len(_SHORT)
_LOW = tuple(bytes((number & 127 | 128, number >> 7 | 128)) for number in range(1 << 14))
"""The same as the first two bytes of a longer number."""


def varint(number: int) -> bytes:
    """Return an unsigned number as protobuf writes it."""
    if number < _SHORT_END:
        return _SHORT[number]
    low, high = _LOW[number & 16383], number >> 14
    return low + (_SHORT[high] if high < _SHORT_END else _digits(high))


@lru_cache(maxsize=64)
def _time_ms(number: int) -> bytes:
    # Thousands of records share a millisecond.
    return varint(number)


@lru_cache(maxsize=16384)
def _service_field(key: ServiceKey) -> bytes:
    message = model_pb2.ServiceKey(namespace=key.namespace, group=key.group, service=key.service)
    encoded = message.SerializeToString()
    return _REGISTERED_SERVICE + varint(len(encoded)) + encoded


def registered_record(time_ms: int, key: ServiceKey, instance: bytes, session_id: bytes) -> bytes:
    """Return a `Record` with an `InstanceRegistered`; `instance` is an encoded Instance."""
    service = _service_field(key)
    instance_bytes = len(instance)
    instance_length = (
        _SHORT[instance_bytes] if instance_bytes < _SHORT_END else varint(instance_bytes)
    )
    session_length = _SHORT[len(session_id)]
    length = (
        len(service)
        + 2
        + len(instance_length)
        + instance_bytes
        + len(session_length)
        + len(session_id)
    )
    return b"".join(
        (
            _RECORD_TIME_MS,
            _time_ms(time_ms),
            _RECORD_REGISTERED,
            _SHORT[length] if length < _SHORT_END else varint(length),
            service,
            _REGISTERED_INSTANCE,
            instance_length,
            instance,
            _REGISTERED_SESSION_ID,
            session_length,
            session_id,
        )
    )


def registered_instance(
    instance: bytes, revision: int, registered_at_ms: int, *, out_of_service: bool
) -> bytes:
    """Return an encoded instance with the fields set that are the node's to set.

    They are written behind what the client sent: of a field that comes twice the last counts.
    """
    return b"".join(
        (
            instance,
            _INSTANCE_SET_BY_NODE[out_of_service],
            _SHORT[revision] if revision < _SHORT_END else varint(revision),
            _INSTANCE_REGISTERED_AT_MS,
            _time_ms(registered_at_ms),
        )
    )


def register_response(instance_id: str, epoch: int, revision: int) -> bytes:
    """Return a `RegisterResponse` with one result, of a registration that was committed."""
    name = instance_id.encode()
    result = b"".join(
        (
            _RESULT_INSTANCE_ID,
            _SHORT[len(name)],
            name,
            _RESULT_EPOCH,
            _SHORT[epoch] if epoch < _SHORT_END else varint(epoch),
            _RESULT_REVISION,
            _SHORT[revision] if revision < _SHORT_END else varint(revision),
        )
    )
    return _RESPONSE_RESULTS + _SHORT[len(result)] + result


def replication_batch(node_epoch: int) -> bytes:
    """Return the beginning of a `ReplicationBatch`; messages are put behind it in any order.

    (Protobuf writes them kind by kind; who reads them does not mind.)
    """
    return _BATCH_NODE_EPOCH + varint(node_epoch) if node_epoch else b""


def append_entries(
    shard: int,
    epoch: int,
    prev: tuple[int, int],
    committed: int,
    bodies: Sequence[bytes],
    epochs: Sequence[int],
) -> bytes:
    """Return an `AppendEntries` as part of a batch; `epochs` empty: all of `epoch`."""
    prev_epoch, prev_revision = prev
    parts = [
        _OF_SHARD_SHARD + _SHORT[shard] if shard else b"",
        _OF_SHARD_EPOCH + varint(epoch) if epoch else b"",
        _APPEND_PREV_EPOCH + varint(prev_epoch) if prev_epoch else b"",
        _APPEND_PREV_REVISION + varint(prev_revision) if prev_revision else b"",
        _APPEND_COMMITTED + varint(committed) if committed else b"",
    ]
    for body in bodies:
        length = len(body)
        parts += (
            _APPEND_BODIES,
            _SHORT[length] if length < _SHORT_END else varint(length),
            body,
        )
    if epochs:
        packed = b"".join(map(varint, epochs))
        parts += (_APPEND_EPOCHS, varint(len(packed)), packed)
    message = b"".join(parts)
    return b"".join((_BATCH_APPENDS, varint(len(message)), message))


def appended(shard: int, epoch: int, held: int, version: int) -> bytes:
    """Return an `Appended` as part of a batch."""
    message = b"".join(
        (
            _OF_SHARD_SHARD + _SHORT[shard] if shard else b"",
            _OF_SHARD_EPOCH + varint(epoch) if epoch else b"",
            _APPENDED_HELD + varint(held) if held else b"",
            _APPENDED_VERSION + varint(version) if version else b"",
        )
    )
    return _BATCH_APPENDED + _SHORT[len(message)] + message
