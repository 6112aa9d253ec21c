"""Leases as HTTP has them: one opaque token, shown by whoever acts as the owner.

The token is the lease's secret; nodes know the lease by its hash, as they know sessions. Knows
no instances. Invariant: a token is in the answer to the registration that made it and nowhere
else, no log included.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence

from ssgovern.api.http import asks, bodies
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.problems import problem_of
from ssgovern.api.http.reads import is_here, key_of
from ssgovern.errors import (
    InvalidArgumentError,
    SessionUnknownError,
    SsGovernError,
    error_from_wire,
)
from ssgovern.model import ServiceKey, session_id_of, shard_of, valid_key
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

HEADER = "lease"
_TOKEN = re.compile(r"ssl_([A-Za-z0-9_-]{22})")
_SECRET_BYTES = 16


def new_secret(desk: Desk) -> bytes:
    """Return the secret of a new lease."""
    return desk.backend.runtime.random_bytes(_SECRET_BYTES)


def token_of(secret: bytes) -> str:
    """Return a lease as its owner is given it."""
    return f"ssl_{urlsafe_b64encode(secret).decode().rstrip('=')}"


def secret_of(token: str) -> bytes:
    """Return the secret in a token. Raises InvalidArgumentError."""
    found = _TOKEN.fullmatch(token)
    try:
        if found is not None:
            return urlsafe_b64decode(f"{found[1]}==")
    except binascii.Error:
        pass
    raise InvalidArgumentError("this is no lease that was given out", field=HEADER)


def shown(headers: Mapping[str, str]) -> bytes | None:
    """Return the secret of the lease that a request shows; None: it shows none."""
    token = headers.get(HEADER)
    return None if token is None else secret_of(token)


def lease_of(secret: bytes, ttl_ms: int = 0) -> native_pb2.Lease:
    """Return a lease as requests to nodes carry it."""
    return native_pb2.Lease(session_id=session_id_of(secret), session_secret=secret, ttl_ms=ttl_ms)


def lease_body(desk: Desk, secret: bytes, ttl_ms: int) -> bodies.Lease:
    """Return a lease as it is told to its owner."""
    return bodies.Lease(
        token=token_of(secret), ttl_ms=ttl_ms, expires_at_ms=_expires_at_ms(desk, ttl_ms)
    )


def _expires_at_ms(desk: Desk, ttl_ms: int) -> int:
    return desk.backend.runtime.wall_ms() + ttl_ms


# --- renewing -----------------------------------------------------------------------------


async def renew(desk: Desk, asked: Asked) -> Answer:
    """Renew the lease that is shown."""
    key = key_of(asked)
    secret = shown(asked.headers)
    if secret is None:
        raise InvalidArgumentError("the header Lease names the lease to renew", field=HEADER)
    [outcome] = await _renew_all(desk, [(key, secret)])
    if isinstance(outcome, SsGovernError):
        raise outcome
    return Answer(bodies.Renewed(ttl_ms=outcome, expires_at_ms=_expires_at_ms(desk, outcome)))


async def renew_many(desk: Desk, asked: Asked) -> Answer:
    """Renew leases of any services; what becomes of one is no matter for the others."""
    body = asked.body
    assert isinstance(body, asks.RenewalsAsk), "the operation says what is asked"
    wanted = [
        (valid_key(each.namespace, each.group, each.service), secret_of(each.lease))
        for each in body.leases
    ]
    outcomes = await _renew_all(desk, wanted)
    return Answer(bodies.Renewals(results=[_result(outcome) for outcome in outcomes]))


def _result(outcome: int | SsGovernError) -> bodies.RenewalResult:
    if isinstance(outcome, SsGovernError):
        return bodies.RenewalResult(renewed=False, ttl_ms=0, problem=problem_of(outcome))
    return bodies.RenewalResult(renewed=True, ttl_ms=outcome, problem=None)


async def _renew_all(
    desk: Desk, wanted: Sequence[tuple[ServiceKey, bytes]]
) -> list[int | SsGovernError]:
    """Renew leases where they are; return the time each has from now, or why not."""
    by_shard: dict[int, list[int]] = {}
    for number, (key, _) in enumerate(wanted):
        by_shard.setdefault(shard_of(*key), []).append(number)
    outcomes: list[int | SsGovernError] = [_unknown() for _ in wanted]
    async with asyncio.TaskGroup() as tasks:
        for numbers in by_shard.values():
            part = [wanted[number] for number in numbers]
            if is_here(desk, part[0][0], fresh=True):
                _fill(outcomes, numbers, _renew_here(desk, part))
            else:
                tasks.create_task(_renew_there(desk, part, outcomes, numbers))
    return outcomes


def _renew_here(desk: Desk, part: Sequence[tuple[ServiceKey, bytes]]) -> native_pb2.RenewResponse:
    now_ms = asyncio.get_running_loop().time() * 1000.0
    return desk.backend.registry.leases.renew(_request(part), now_ms)


async def _renew_there(
    desk: Desk,
    part: Sequence[tuple[ServiceKey, bytes]],
    outcomes: list[int | SsGovernError],
    numbers: Sequence[int],
) -> None:
    try:
        response = await desk.backend.gateway.call(
            MessageType.RENEW,
            _request(part),
            native_pb2.RenewResponse,
            repeatable=True,
            key=part[0][0],
        )
    except SsGovernError as error:
        for number in numbers:
            outcomes[number] = error
    else:
        _fill(outcomes, numbers, response)


def _request(part: Sequence[tuple[ServiceKey, bytes]]) -> native_pb2.RenewRequest:
    return native_pb2.RenewRequest(
        renewals=[
            native_pb2.Renewal(
                service=key_to_wire(key),
                session_id=session_id_of(secret),
                session_secret=secret,
            )
            for key, secret in part
        ]
    )


def _fill(
    outcomes: list[int | SsGovernError],
    numbers: Sequence[int],
    response: native_pb2.RenewResponse,
) -> None:
    for number, result in zip(numbers, response.results, strict=True):
        if result.HasField("error"):
            error = result.error
            outcomes[number] = error_from_wire(error.code, error.retry, error.message, error.fields)
        elif result.known:
            outcomes[number] = result.ttl_ms


def _unknown() -> SsGovernError:
    return SessionUnknownError("there is no such lease here any more: register again", field=HEADER)
