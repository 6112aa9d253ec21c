"""Encodings made by hand, of the few messages that every registration needs.

Bytes are those protobuf would make (a test compares each with it); what is saved is building
message objects field by field, which costs several times what the bytes cost.
"""

from __future__ import annotations

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


def varint(number: int) -> bytes:
    """Return an unsigned number as protobuf writes it."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_SHORT = tuple(map(varint, range(1 << 14)))
"""Every number of one or two bytes: nearly all lengths, looked up without a call."""
_SHORT_END = len(_SHORT)


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
