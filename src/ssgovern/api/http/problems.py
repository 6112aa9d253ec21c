"""Errors as HTTP tells them: a status, and RFC 9457 with our stable code in it.

The one table from codes to statuses. Refuses to know which request failed.
"""

from __future__ import annotations

from types import MappingProxyType

from ssgovern.api.http.bodies import Problem
from ssgovern.errors import ErrorCode, SsGovernError

PROBLEM_MEDIA_TYPE = "application/problem+json"

STATUSES: MappingProxyType[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.INVALID_ARGUMENT: 400,
        ErrorCode.LIMIT_EXCEEDED: 400,
        ErrorCode.NOT_FOUND: 404,
        ErrorCode.NOT_OWNER: 403,
        ErrorCode.REVISION_CONFLICT: 409,
        ErrorCode.SESSION_UNKNOWN: 404,
        ErrorCode.SESSION_FOREIGN: 403,
        ErrorCode.SESSION_SUPERSEDED: 409,
        ErrorCode.HELLO_REQUIRED: 400,
        ErrorCode.UNAUTHENTICATED: 401,
        ErrorCode.PERMISSION_DENIED: 403,
        ErrorCode.TOO_MANY_ATTEMPTS: 429,
        ErrorCode.OVERLOADED: 503,
        ErrorCode.DISK_FULL: 507,
        ErrorCode.SHUTTING_DOWN: 503,
        # Not a redirect: who asks may not be able to reach the other node, a browser even less.
        ErrorCode.SHARD_MOVED: 421,
        ErrorCode.FENCED: 503,
        ErrorCode.SHARD_UNAVAILABLE: 503,
        ErrorCode.NOT_CONTROLLER: 421,
        ErrorCode.OUTCOME_UNKNOWN: 504,
        ErrorCode.PEER_REFUSED: 403,
        ErrorCode.UNSUPPORTED_VERSION: 400,
        ErrorCode.UNSUPPORTED_TYPE: 400,
        ErrorCode.PROTOCOL: 400,
        ErrorCode.UNAVAILABLE: 503,
        ErrorCode.DEADLINE_EXCEEDED: 504,
        ErrorCode.CLOSED: 503,
        ErrorCode.CORRUPTION: 500,
        ErrorCode.STORAGE_FAILED: 500,
        ErrorCode.CONFIG: 500,
    }
)

_TRY_LATER = (503, 507)


class RefusedError(Exception):
    """An error for which HTTP has a better status than the table."""

    def __init__(self, error: SsGovernError, status: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status


def problem_of(error: SsGovernError, status: int = 0) -> Problem:
    """Return the document of an error; `status` where HTTP has a better one than the table."""
    return Problem(
        type=f"urn:ss-govern:error:{error.code.name.lower()}",
        title=error.code.name.replace("_", " ").lower(),
        status=status or STATUSES[error.code],
        detail=error.message,
        code=int(error.code),
        retry=error.retry.name.lower(),
        fields=dict(error.fields),
    )


def refusal(error: SsGovernError, status: int = 0) -> tuple[Problem, dict[str, str]]:
    """Return the document for a request that failed, and the headers that go with it."""
    problem = problem_of(error, status)
    headers = {"content-type": PROBLEM_MEDIA_TYPE, "cache-control": "no-store"}
    if problem.status in _TRY_LATER:
        headers["retry-after"] = "1"
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem, headers
