"""What can be changed of instances over HTTP.

Each function words one request to the shard's primary and tells what it answered; whether it
may be is decided there. Knows no sockets. Invariants: who shows a lease acts as its owner and
as nobody else; repeating a request that was answered changes nothing more.
"""

from __future__ import annotations

from ssgovern.api.http import asks, bodies, leases
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked, wanted_revision, wants_absent
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.problems import RefusedError
from ssgovern.api.http.reads import (
    STATUS_NAMES,
    find_instance,
    instance_body,
    is_here,
    key_of,
    no_such_instance,
)
from ssgovern.errors import (
    InvalidArgumentError,
    NotFoundError,
    RevisionConflictError,
    error_from_wire,
)
from ssgovern.model import ServiceKey, check_name, instance_id
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import model_pb2, native_pb2

# --- registering --------------------------------------------------------------------------


async def register(desk: Desk, asked: Asked) -> Answer:
    """Register an instance under the id in the path, or put it in place of the one there."""
    body = asked.body
    assert isinstance(body, asks.InstanceAsk), "the operation says what is asked"
    return await _register(desk, asked, body, asked.path["id"])


async def register_new(desk: Desk, asked: Asked) -> Answer:
    """Register an instance under the id in the body."""
    body = asked.body
    assert isinstance(body, asks.NewInstanceAsk), "the operation says what is asked"
    return await _register(desk, asked, body, body.id or instance_id(body.host, body.port))


async def _register(desk: Desk, asked: Asked, body: asks.InstanceAsk, name: str) -> Answer:
    key = key_of(asked)
    check_name("instance id", name)
    is_new = await _check_before(desk, asked, key, name)
    secret = leases.shown(asked.headers) or leases.new_secret(desk)
    if not body.ephemeral and leases.HEADER in asked.headers:
        raise InvalidArgumentError(
            "an instance that is not ephemeral has no lease", field=leases.HEADER
        )
    request = native_pb2.RegisterRequest()
    request.lease.CopyFrom(
        leases.lease_of(secret, body.ttl_ms) if body.ephemeral else native_pb2.Lease()
    )
    request.registrations.add(
        service=key_to_wire(key),
        instance=model_pb2.Instance(
            id=name,
            host=body.host,
            port=body.port,
            weight=body.weight,
            status=model_pb2.Status.Name(STATUS_NAMES.index(body.status)),
            zone=body.zone,
            version=body.version,
            metadata=body.metadata,
            persistent=not body.ephemeral,
        ),
    )
    response = await desk.backend.gateway.call(
        MessageType.REGISTER, request, native_pb2.RegisterResponse, repeatable=True, key=key
    )
    [result] = response.results
    if result.HasField("error"):
        error = result.error
        raise error_from_wire(error.code, error.retry, error.message, error.fields)
    registered = bodies.Registered(
        id=name,
        epoch=result.epoch,
        revision=result.revision,
        lease=leases.lease_body(desk, secret, body.ttl_ms) if body.ephemeral else None,
    )
    return Answer(registered, str(result.revision), status=201 if is_new else 200)


async def _check_before(desk: Desk, asked: Asked, key: ServiceKey, name: str) -> bool:
    """Check the conditions of a registration; return whether it surely makes something new.

    They hold when they are looked at. Who registers the same id at the same moment may come
    between: who must not be replaced has a lease, and ids of its own.
    """
    revision = wanted_revision(asked.headers)
    absent = wants_absent(asked.headers)
    must_be = "if-match" in asked.headers
    conditional = absent or must_be
    if not conditional and not is_here(desk, key):
        return False
    found = await find_instance(desk, key, name, fresh=conditional)
    if absent and found is not None:
        raise _failed(f"there is an instance {name!r}", found.revision)
    if must_be and (found is None or (revision and found.revision != revision)):
        raise _failed(f"instance {name!r} is not as named", 0 if found is None else found.revision)
    return found is None


def _failed(what: str, revision: int) -> RefusedError:
    """Return the refusal of a request whose condition does not hold."""
    return RefusedError(
        RevisionConflictError(f"{what}: nothing was changed", revision=revision), 412
    )


# --- changing -----------------------------------------------------------------------------


async def update(desk: Desk, asked: Asked) -> Answer:
    """Change fields of an instance."""
    body = asked.body
    assert isinstance(body, asks.PatchAsk), "the operation says what is asked"
    if not body.model_fields_set:
        raise InvalidArgumentError("nothing to change is named", field="body")
    changed = await change(desk, asked, _change_of(body))
    return Answer(
        bodies.InstanceAnswer(instance=instance_body(changed.instance)), str(changed.revision)
    )


def _change_of(body: asks.PatchAsk) -> native_pb2.InstanceChange:
    said = body.model_fields_set
    wanted = native_pb2.InstanceChange()
    if "weight" in said:
        wanted.weight = body.weight
    if "status" in said:
        wanted.status = model_pb2.Status.Name(STATUS_NAMES.index(body.status))  # type: ignore[assignment]
    if "enabled" in said:
        wanted.out_of_service = not body.enabled
    if "metadata" in said:
        wanted.metadata_clear = body.metadata is None
        for name, value in (body.metadata or {}).items():
            if value is None:
                wanted.metadata_remove.append(name)
            else:
                wanted.metadata_set[name] = value
    return wanted


async def change(
    desk: Desk, asked: Asked, wanted: native_pb2.InstanceChange
) -> native_pb2.UpdateResponse:
    """Have an instance changed, as its owner or as an operator."""
    key, name = key_of(asked), asked.path["id"]
    check_name("instance id", name)
    revision = wanted_revision(asked.headers)
    secret = leases.shown(asked.headers)
    request = native_pb2.UpdateRequest(
        service=key_to_wire(key),
        instance_id=name,
        any_owner=secret is None,
        if_revision=revision,
        change=wanted,
        lease=None if secret is None else leases.lease_of(secret),
    )
    try:
        return await desk.backend.gateway.call(
            MessageType.UPDATE,
            request,
            native_pb2.UpdateResponse,
            repeatable=not revision,
            key=key,
        )
    except RevisionConflictError as error:
        raise RefusedError(error, 412) from None
    except NotFoundError as error:
        if "if-match" in asked.headers:
            raise RefusedError(error, 412) from None
        raise


# --- deregistering ------------------------------------------------------------------------


async def deregister(desk: Desk, asked: Asked) -> Answer:
    """Remove an instance. None there is not an error, unless If-Match says there is one."""
    key, name = key_of(asked), asked.path["id"]
    check_name("instance id", name)
    revision = wanted_revision(asked.headers)
    if "if-match" in asked.headers and await find_instance(desk, key, name, fresh=True) is None:
        raise RefusedError(no_such_instance(key, name), 412)
    answer = await remove(desk, key, name, leases.shown(asked.headers), revision)
    return Answer(
        bodies.Deregistered(removed=answer.removed, epoch=answer.epoch, revision=answer.revision)
    )


async def remove(
    desk: Desk, key: ServiceKey, name: str, secret: bytes | None, revision: int = 0
) -> native_pb2.DeregisterResponse:
    """Have an instance removed, as its owner or as an operator."""
    request = native_pb2.DeregisterRequest(
        service=key_to_wire(key),
        instance_id=name,
        any_owner=secret is None,
        if_revision=revision,
        lease=None if secret is None else leases.lease_of(secret),
    )
    try:
        return await desk.backend.gateway.call(
            MessageType.DEREGISTER,
            request,
            native_pb2.DeregisterResponse,
            repeatable=not revision,
            key=key,
        )
    except RevisionConflictError as error:
        raise RefusedError(error, 412) from None
