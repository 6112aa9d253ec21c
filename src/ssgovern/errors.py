"""Every failure that callers, peers or disks can cause, each with a stable code.

A code is a wire number and is never reused. `retry` tells a program what helps; `fields` carry
what a program may want to read, so that nobody parses messages. Failures of our own are not
here: those are assertions, and stop the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class ErrorCode(IntEnum):
    """Wire number of an error."""

    INVALID_ARGUMENT = 1
    LIMIT_EXCEEDED = 2
    NOT_FOUND = 3
    NOT_OWNER = 4
    REVISION_CONFLICT = 5
    SESSION_UNKNOWN = 10
    SESSION_FOREIGN = 11
    SESSION_SUPERSEDED = 12
    HELLO_REQUIRED = 13
    UNAUTHENTICATED = 14
    PERMISSION_DENIED = 15
    TOO_MANY_ATTEMPTS = 16
    OVERLOADED = 20
    DISK_FULL = 21
    SHUTTING_DOWN = 22
    SHARD_MOVED = 30
    FENCED = 31
    SHARD_UNAVAILABLE = 32
    NOT_CONTROLLER = 33
    OUTCOME_UNKNOWN = 34
    PEER_REFUSED = 35
    UNSUPPORTED_VERSION = 40
    UNSUPPORTED_TYPE = 41
    PROTOCOL = 42
    UNAVAILABLE = 50
    DEADLINE_EXCEEDED = 51
    CLOSED = 52
    CORRUPTION = 60
    STORAGE_FAILED = 61
    CONFIG = 70


class Retry(IntEnum):
    """What a caller can do about an error."""

    NEVER = 0
    SAME_NODE = 1
    AFTER_REFRESH = 2


class SsGovernError(Exception):
    """Base of all errors with a code. `str(error)` is for people, the rest for programs."""

    code: ErrorCode
    retry: Retry = Retry.NEVER

    def __init__(self, message: str, **fields: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.fields: Mapping[str, str] = {name: str(value) for name, value in fields.items()}


class InvalidArgumentError(SsGovernError):
    """A value the caller gave is not allowed; `field` names it."""

    code = ErrorCode.INVALID_ARGUMENT


class LimitExceededError(SsGovernError):
    """More than `ssgovern.limits` allows; `limit` names it."""

    code = ErrorCode.LIMIT_EXCEEDED


class NotFoundError(SsGovernError):
    """No such service or instance."""

    code = ErrorCode.NOT_FOUND


class NotOwnerError(SsGovernError):
    """The instance belongs to another session."""

    code = ErrorCode.NOT_OWNER


class RevisionConflictError(SsGovernError):
    """The instance changed since the revision the caller named."""

    code = ErrorCode.REVISION_CONFLICT


class SessionUnknownError(SsGovernError):
    """The session expired or never was; say hello again and register again."""

    code = ErrorCode.SESSION_UNKNOWN
    retry = Retry.AFTER_REFRESH


class SessionForeignError(SsGovernError):
    """The session's secret does not match its id."""

    code = ErrorCode.SESSION_FOREIGN


class SessionSupersededError(SsGovernError):
    """The session said hello on a newer connection; this one no longer speaks for it."""

    code = ErrorCode.SESSION_SUPERSEDED


class HelloRequiredError(SsGovernError):
    """The first message on a connection must be a hello."""

    code = ErrorCode.HELLO_REQUIRED


class UnauthenticatedError(SsGovernError):
    """Nobody is known by what was shown: no token, or one that is wrong, expired or revoked."""

    code = ErrorCode.UNAUTHENTICATED


class PermissionDeniedError(SsGovernError):
    """Who asks has not the right; `action` names it, `namespace` and `service` what for."""

    code = ErrorCode.PERMISSION_DENIED


class TooManyAttemptsError(SsGovernError):
    """Too many log-ins failed; `retry_after_s` says how long to wait."""

    code = ErrorCode.TOO_MANY_ATTEMPTS


class OverloadedError(SsGovernError):
    """A bounded queue is full; nothing was done. Try again after a pause."""

    code = ErrorCode.OVERLOADED
    retry = Retry.SAME_NODE


class DiskFullError(SsGovernError):
    """No space left for the log; nothing was done. Writes work again when space returns."""

    code = ErrorCode.DISK_FULL
    retry = Retry.SAME_NODE


class ShuttingDownError(SsGovernError):
    """The node is stopping and takes no new requests."""

    code = ErrorCode.SHUTTING_DOWN
    retry = Retry.AFTER_REFRESH


class ShardMovedError(SsGovernError):
    """This node is not the primary of the shard; `shard` and `map_version` tell more."""

    code = ErrorCode.SHARD_MOVED
    retry = Retry.AFTER_REFRESH


class FencedError(SsGovernError):
    """An older epoch was refused."""

    code = ErrorCode.FENCED
    retry = Retry.AFTER_REFRESH


class ShardUnavailableError(SsGovernError):
    """The shard has no primary that may act now; nothing was done. A newer map may help."""

    code = ErrorCode.SHARD_UNAVAILABLE
    retry = Retry.AFTER_REFRESH


class NotControllerError(SsGovernError):
    """Another candidate is the controller; `controller` names it, 0 if nobody is known to be."""

    code = ErrorCode.NOT_CONTROLLER
    retry = Retry.AFTER_REFRESH


class OutcomeUnknownError(SsGovernError):
    """The primary lost its office while the write was on its way: it may or may not be done."""

    code = ErrorCode.OUTCOME_UNKNOWN
    retry = Retry.AFTER_REFRESH


class PeerRefusedError(SsGovernError):
    """A node does not take another for one of its cluster; the message says why."""

    code = ErrorCode.PEER_REFUSED


class UnsupportedVersionError(SsGovernError):
    """The two sides share no protocol version."""

    code = ErrorCode.UNSUPPORTED_VERSION


class UnsupportedTypeError(SsGovernError):
    """The node does not know this message type."""

    code = ErrorCode.UNSUPPORTED_TYPE


class RemoteProtocolError(SsGovernError):
    """The peer sent bytes that are not the protocol; its connection is closed."""

    code = ErrorCode.PROTOCOL


class UnavailableError(SsGovernError):
    """No node could be reached."""

    code = ErrorCode.UNAVAILABLE
    retry = Retry.AFTER_REFRESH


class DeadlineExceededError(SsGovernError):
    """The caller's time ran out; whether the request took effect is not known."""

    code = ErrorCode.DEADLINE_EXCEEDED
    retry = Retry.AFTER_REFRESH


class ClosedError(SsGovernError):
    """The client or the node was closed by its own process."""

    code = ErrorCode.CLOSED


class CorruptionError(SsGovernError):
    """Bytes on disk that were known durable are damaged. Nothing was changed."""

    code = ErrorCode.CORRUPTION

    def __init__(self, message: str, *, segment: str, offset: int, shard: int | None) -> None:
        where = "unknown (header unreadable)" if shard is None else str(shard)
        super().__init__(
            f"{message} (file {segment}, offset {offset}, shard {where})",
            segment=segment,
            offset=offset,
            shard=where,
        )
        self.segment = segment
        self.offset = offset
        self.shard = shard


class StorageFailedError(SsGovernError):
    """The disk failed in a way after which nothing may be trusted; the node stops."""

    code = ErrorCode.STORAGE_FAILED


class ConfigError(SsGovernError):
    """One or more faults in the configuration; the message lists them all."""

    code = ErrorCode.CONFIG


def _by_code(base: type[SsGovernError]) -> dict[int, type[SsGovernError]]:
    return {int(error.code): error for error in base.__subclasses__()}


_ERRORS = _by_code(SsGovernError)


def error_from_wire(
    code: int, retry: int, message: str, fields: Mapping[str, str]
) -> SsGovernError:
    """Return the error a peer sent. An unknown code keeps its number in `fields["code"]`."""
    kind = _ERRORS.get(code)
    if kind is None or kind is CorruptionError:
        error = SsGovernError(message, **{**fields, "code": str(code)})
        error.code = ErrorCode(code) if kind is not None else ErrorCode.PROTOCOL
    else:
        error = kind(message)
        error.fields = dict(fields)
    error.retry = Retry(retry) if retry in Retry._value2member_map_ else Retry.NEVER
    return error
