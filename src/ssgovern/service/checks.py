"""What a request must obey before it may reach the log. Pure.

Everything that depends only on the request is refused here, so that a bad request costs no log
entry and a replayed log never meets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ssgovern import limits
from ssgovern.errors import InvalidArgumentError, LimitExceededError, SessionForeignError
from ssgovern.model import (
    LogPosition,
    Pattern,
    ServiceKey,
    SessionId,
    check_instance,
    check_metadata,
    check_name,
    check_prefix,
    check_weight,
    instance_id,
    session_secret_matches,
    valid_key,
)
from ssgovern.model.session import SESSION_ID_BYTES, SESSION_SECRET_BYTES
from ssgovern.registry.subscriptions import MaskedPattern, Target
from ssgovern.service.placement import ALL_SHARDS, mask_from_wire
from ssgovern.wire.codec import encode
from ssgovern.wire.pb import model_pb2, native_pb2
from ssgovern.wire.records import Registered


def service_key(message: model_pb2.ServiceKey) -> ServiceKey:
    """Return the key of a request, checked."""
    return valid_key(message.namespace, message.group, message.service)


def pattern(message: native_pb2.Pattern) -> Pattern:
    """Return the pattern of a request, checked."""
    check_name("namespace", message.namespace)
    check_name("group", message.group)
    check_prefix("prefix", message.prefix)
    return Pattern(message.namespace, message.group, message.prefix)


def registered(
    key: ServiceKey,
    message: model_pb2.Instance,
    session_id: SessionId,
    time_ms: int,
    lease_ms: int = 0,
) -> Registered:
    """Return the record of an instance that asks to be registered, checked.

    Its id is filled in if it brings none, and what keeps it alive, whatever it says of that.
    """
    host = message.host
    port = message.port
    weight = message.weight
    status = message.status
    name = message.id
    if not name:
        name = message.id = instance_id(host, port)
    check_instance(name, host, port, weight, message.zone, message.version)
    if not 0 <= status <= model_pb2.STATUS_DOWN:
        raise InvalidArgumentError(f"status {status} is not known", field="status")
    if message.lease_ms != lease_ms:
        message.lease_ms = lease_ms
    encoded = encode(message)
    size_bytes = len(encoded)
    check_metadata(message.metadata, size_bytes)
    # Unknown fields would not show in the checks above.
    if size_bytes > limits.INSTANCE_BYTES_MAX:
        raise LimitExceededError(
            f"the instance is longer than {limits.INSTANCE_BYTES_MAX} bytes",
            field="instance",
            limit=limits.INSTANCE_BYTES_MAX,
        )
    return Registered(
        key,
        name,
        encoded,
        session_id,
        time_ms,
        persistent=message.persistent,
        in_traffic=status == model_pb2.STATUS_UP and weight > 0.0,
        lease_ms=lease_ms,
    )


def named_instance(instance_id: str) -> None:
    """Check the id by which a request names an instance."""
    check_name("instance id", instance_id)


def change(message: native_pb2.InstanceChange) -> None:
    """Check what an update wants to set."""
    if message.HasField("weight"):
        check_weight(message.weight)
    if message.HasField("status") and not 0 <= message.status <= model_pb2.STATUS_DOWN:
        raise InvalidArgumentError(f"status {message.status} is not known", field="status")
    check_metadata(message.metadata_set, message.ByteSize())
    if len(message.metadata_remove) > limits.METADATA_PAIRS_MAX:
        raise LimitExceededError(
            f"at most {limits.METADATA_PAIRS_MAX} metadata keys may be removed at once",
            field="metadata_remove",
            limit=limits.METADATA_PAIRS_MAX,
        )
    # Keys to remove and unknown fields have no limit of their own, and all of it goes into one
    # log entry. No valid change needs more than an instance may have.
    size_bytes = message.ByteSize()
    if size_bytes > limits.INSTANCE_BYTES_MAX:
        raise LimitExceededError(
            f"a change of {size_bytes} bytes: at most {limits.INSTANCE_BYTES_MAX} are allowed",
            field="change",
            limit=limits.INSTANCE_BYTES_MAX,
        )


def listing(request: native_pb2.ListServicesRequest) -> None:
    """Check what a listing asks for."""
    check_name("namespace", request.namespace)
    if request.group:
        check_name("group", request.group)
    check_prefix("prefix", request.prefix)


def distinct(records: Sequence[Registered]) -> None:
    """Check that no instance is in a batch twice: which of the two was meant?"""
    seen: dict[tuple[ServiceKey, str], None] = {}
    for record in records:
        place = (record.key, record.instance_id)
        if place in seen:
            raise InvalidArgumentError(
                f"instance {record.instance_id!r} of {record.key} is in the batch twice",
                field="registrations",
            )
        seen[place] = None


def batch(count: int) -> None:
    """Check how many registrations come at once."""
    if not count:
        raise InvalidArgumentError("no registration in the request", field="registrations")
    if count > limits.REGISTER_BATCH_MAX:
        raise LimitExceededError(
            f"{count} registrations at once: at most {limits.REGISTER_BATCH_MAX} are allowed",
            field="registrations",
            limit=limits.REGISTER_BATCH_MAX,
        )


def lease_id(session_id: bytes, secret: bytes) -> SessionId:
    """Return the id of a lease, after it was shown that whoever asks has its secret."""
    if len(session_id) != SESSION_ID_BYTES or len(secret) != SESSION_SECRET_BYTES:
        raise InvalidArgumentError(
            f"the id of a lease has {SESSION_ID_BYTES} bytes, its secret {SESSION_SECRET_BYTES}",
            field="lease",
        )
    if not session_secret_matches(session_id, secret):
        raise SessionForeignError("the lease belongs to someone else: wrong secret")
    return SessionId(session_id)


def lease_ttl_ms(ttl_ms: int) -> int:
    """Return the time to live a lease is to have; 0 asks for the usual."""
    if not ttl_ms:
        return limits.LEASE_TTL_MS_DEFAULT
    if not limits.LEASE_TTL_MS_MIN <= ttl_ms <= limits.LEASE_TTL_MS_MAX:
        raise InvalidArgumentError(
            f"a time to live of {ttl_ms} ms: allowed are {limits.LEASE_TTL_MS_MIN} to "
            f"{limits.LEASE_TTL_MS_MAX}",
            field="ttl_ms",
        )
    return ttl_ms


def is_nobody(lease: native_pb2.Lease) -> bool:
    """Tell whether a request names nobody as the owner."""
    return not lease.session_id and not lease.session_secret and not lease.ttl_ms


def persistent(registrations: Iterable[native_pb2.Registration]) -> None:
    """Check that these instances stay without anyone who keeps them alive."""
    for each in registrations:
        if not each.instance.persistent:
            raise InvalidArgumentError(
                "an instance that is not persistent needs a lease to keep it", field="lease"
            )


def renewals(count: int) -> None:
    """Check how many leases are renewed at once."""
    if count > limits.RENEWALS_MAX:
        raise LimitExceededError(
            f"{count} renewals at once: at most {limits.RENEWALS_MAX} are allowed",
            field="renewals",
            limit=limits.RENEWALS_MAX,
        )


def claimed(request: native_pb2.ClaimRequest) -> None:
    """Check how much a client claims at once."""
    count = len(request.claimed) + sum(len(each.instance_ids) for each in request.claimed)
    most = 2 * limits.REGISTER_BATCH_MAX
    if count > most:
        raise LimitExceededError(
            f"{count} services and instances claimed at once: at most {most} are allowed",
            field="claimed",
            limit=most,
        )


def subscriptions(count: int) -> None:
    """Check how many subscriptions a session has, before one more."""
    if count >= limits.SUBSCRIPTIONS_PER_SESSION_MAX:
        raise LimitExceededError(
            f"at most {limits.SUBSCRIPTIONS_PER_SESSION_MAX} subscriptions are allowed",
            limit=limits.SUBSCRIPTIONS_PER_SESSION_MAX,
        )


def subscription(
    request: native_pb2.SubscribeRequest,
) -> tuple[Target, dict[ServiceKey, LogPosition]]:
    """Return what a subscription is for and what the subscriber has of it, checked."""
    target: Target
    known = {
        service_key(item.service): LogPosition(item.epoch, item.revision) for item in request.known
    }
    match request.WhichOneof("target"):
        case "service":
            target = service_key(request.service)
        case "pattern":
            target = pattern(request.pattern)
            shards = mask_from_wire(request.shards) or ALL_SHARDS
            if shards != ALL_SHARDS:
                target = MaskedPattern(target, shards)
        case _:
            raise InvalidArgumentError("neither service nor pattern", field="target")
    for key in known:
        covered = target == key if isinstance(target, ServiceKey) else target.matches(key)
        if not covered:
            raise InvalidArgumentError(f"known: {key} is not subscribed to here", field="known")
    return target, known
