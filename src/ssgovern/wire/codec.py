"""Between protobuf messages and the model's values.

What comes from outside is checked where it is used; here a wrong shape becomes the documented
error and nothing else (`decode`), and errors travel as messages.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ssgovern.errors import InvalidArgumentError, SsGovernError, error_from_wire
from ssgovern.model import Instance, Pattern, ServiceKey, Status
from ssgovern.wire.pb import model_pb2, native_pb2

M = TypeVar("M", bound=Message)


def decode(kind: type[M], body: bytes) -> M:
    """Parse a body. Raises InvalidArgumentError if it is truncated, mutated or not UTF-8."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise InvalidArgumentError(
            f"the body is not a valid {kind.DESCRIPTOR.name}", type=kind.DESCRIPTOR.name
        ) from None


def encode(message: Message) -> bytes:
    """Return the one encoding of a message: map entries in the order of their keys."""
    return message.SerializeToString(deterministic=True)


def key_to_wire(key: ServiceKey) -> model_pb2.ServiceKey:
    """Return a service key as a message."""
    return model_pb2.ServiceKey(namespace=key.namespace, group=key.group, service=key.service)


def key_from_wire(key: model_pb2.ServiceKey) -> ServiceKey:
    """Return a service key from a message, unchecked."""
    return ServiceKey(key.namespace, key.group, key.service)


def pattern_to_wire(pattern: Pattern) -> native_pb2.Pattern:
    """Return a pattern as a message."""
    return native_pb2.Pattern(
        namespace=pattern.namespace, group=pattern.group, prefix=pattern.prefix
    )


def pattern_from_wire(pattern: native_pb2.Pattern) -> Pattern:
    """Return a pattern from a message, unchecked."""
    return Pattern(pattern.namespace, pattern.group, pattern.prefix)


def instance_to_wire(instance: Instance) -> model_pb2.Instance:
    """Return an instance as a message."""
    return model_pb2.Instance(
        id=instance.id,
        host=instance.host,
        port=instance.port,
        weight=instance.weight,
        status=model_pb2.Status.Name(instance.status),
        zone=instance.zone,
        version=instance.version,
        metadata=instance.metadata,
        persistent=not instance.ephemeral,
        unhealthy=not instance.healthy,
        out_of_service=not instance.enabled,
        revision=instance.revision,
        registered_at_ms=instance.registered_at_ms,
        lease_ms=instance.lease_ms,
    )


def instance_from_wire(message: model_pb2.Instance) -> Instance:
    """Return an instance from a message. A status this version does not know reads as DOWN."""
    status = message.status
    return Instance(
        id=message.id,
        host=message.host,
        port=message.port,
        weight=message.weight,
        status=Status(status) if 0 <= status <= Status.DOWN else Status.DOWN,
        healthy=not message.unhealthy,
        enabled=not message.out_of_service,
        ephemeral=not message.persistent,
        zone=message.zone,
        version=message.version,
        metadata=MappingProxyType(dict(sorted(message.metadata.items()))),
        revision=message.revision,
        registered_at_ms=message.registered_at_ms,
        lease_ms=message.lease_ms,
    )


def error_to_wire(error: SsGovernError) -> native_pb2.Error:
    """Return an error as a message."""
    return native_pb2.Error(
        code=error.code, retry=error.retry, message=error.message, fields=error.fields
    )


def error_from_message(message: native_pb2.Error) -> SsGovernError:
    """Return the error that a message carries."""
    return error_from_wire(message.code, message.retry, message.message, dict(message.fields))
