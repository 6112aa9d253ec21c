"""A request, read: names, parameters, headers and body, each checked before anybody acts on it.

Knows the rules of HTTP and none of the registry. Refusals are `SsGovernError`s that name the
field. Invariant: what is not understood is refused, never passed over: a misspelt filter must
not answer with everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, get_origin
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from ssgovern import limits
from ssgovern.api.http.asks import Ask
from ssgovern.api.http.problems import RefusedError
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.service.audit import Changed

M = TypeVar("M", bound=BaseModel)

JSON_MEDIA_TYPE = "application/json"
PATCH_MEDIA_TYPE = "application/merge-patch+json"
EVENTS_MEDIA_TYPE = "text/event-stream"
TIME_EXTENSION = "ssgovern.time"
"""In the scope's extensions: by this an answer that takes long gets more time."""
WANTED = "ssgovern.wanted"
"""In the scope: what the request wants fields to be, for the audit."""


@dataclass(slots=True)
class Asked:
    """A request, as far as it says what is wanted."""

    path: Mapping[str, str]
    query: BaseModel
    body: BaseModel | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case; of several, all joined by commas."""
    scope: Scope = field(default_factory=dict)
    """The request as the server gave it, for who needs its address or its time."""

    def give_time(self, time_ms: int) -> None:
        """Let the server wait so much longer before it takes the answer for stuck."""
        extend = self.scope.get("extensions", {}).get(TIME_EXTENSION)
        if extend is not None:
            extend(time_ms)


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of a request by name."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def names_of(encoded: Mapping[str, str]) -> dict[str, str]:
    """Return the named parts of a path, each decoded once. Raises InvalidArgumentError."""
    return {name: _decoded(name, part) if "%" in part else part for name, part in encoded.items()}


def _decoded(name: str, part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{name} is not UTF-8", field=name) from None


def query_of(kind: type[M], text: str) -> M:
    """Return the parameters of a request. Raises InvalidArgumentError, LimitExceededError."""
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=limits.HTTP_QUERY_PAIRS_MAX,
        )
    except UnicodeDecodeError:
        raise InvalidArgumentError("the query is not UTF-8", field="query") from None
    except ValueError:
        raise LimitExceededError(
            f"more than {limits.HTTP_QUERY_PAIRS_MAX} parameters",
            field="query",
            limit=limits.HTTP_QUERY_PAIRS_MAX,
        ) from None
    said: dict[str, str | list[str]] = {}
    for name, value in pairs:
        known = kind.model_fields.get(name)
        if known is not None and get_origin(known.annotation) is list:
            several = said.setdefault(name, [])
            assert isinstance(several, list), "the name alone decides"
            several.append(value)
        elif name in said:
            raise InvalidArgumentError(f"{name[:100]} is given twice", field="query")
        else:
            said[name] = value
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise fault_of(error) from None


async def body_of(kind: type[M], receive: Receive, headers: Mapping[str, str]) -> M:
    """Return the body of a request; an empty one is an empty object.

    Raises InvalidArgumentError, or RefusedError for one that is too long or of another type.
    """
    raw = await _read(receive)
    if not raw:
        raw = b"{}"
    else:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (JSON_MEDIA_TYPE, PATCH_MEDIA_TYPE):
            error = UnsupportedTypeError(
                f"a body is {JSON_MEDIA_TYPE}, not {media_type[:100] or 'of no type'}",
                field="content-type",
            )
            raise RefusedError(error, 415)
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise fault_of(error) from None


async def _read(receive: Receive) -> bytes:
    parts = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise UnavailableError("the client went away")
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > limits.HTTP_BODY_BYTES_MAX:
            most = limits.HTTP_BODY_BYTES_MAX
            error = LimitExceededError(f"the body exceeds {most} bytes", field="body", limit=most)
            raise RefusedError(error, 413)
        if not message.get("more_body", False):
            return b"".join(parts)


def fault_of(error: ValidationError) -> InvalidArgumentError:
    """Return the first fault as an error of ours; what was sent is not repeated in it."""
    fault = error.errors(include_input=False, include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"])[:100] or "body"
    return InvalidArgumentError(f"{name}: {fault['msg']}", field=name)


# --- what is written down ------------------------------------------------------------------


def wanted_of(body: Ask) -> list[Changed]:
    """Return what a body wants fields to be, for the audit; nothing of one with a secret."""
    if not body.in_audit:
        return []
    found: list[Changed] = []
    for name in body.model_dump(exclude_unset=True):
        value: object = getattr(body, name)
        if isinstance(value, dict):
            found += [(f"{name}.{key}", "", _shown(each)) for key, each in value.items()]
        else:
            found.append((name, "", _shown(value)))
    return found


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- conditions ---------------------------------------------------------------------------


def names_tag(if_none_match: str, tag: str) -> bool:
    """Tell whether the header names a tag; weak ones are as good for reading (RFC 9110)."""
    named = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in named or "*" in named


def wanted_revision(headers: Mapping[str, str]) -> int:
    """Return the revision that If-Match names; 0: any. Raises InvalidArgumentError."""
    said = headers.get("if-match", "").strip()
    if said in ("", "*"):
        return 0
    digits = said[1:-1] if len(said) > 2 and said[0] == said[-1] == '"' else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19) or not int(digits):
        raise InvalidArgumentError(
            'If-Match names one ETag of this instance, as "17"', field="if-match"
        )
    if int(digits) > limits.REVISION_MAX:
        raise InvalidArgumentError("If-Match names no revision", field="if-match")
    return int(digits)


def wants_absent(headers: Mapping[str, str]) -> bool:
    """Tell whether If-None-Match asks that there be none. Raises InvalidArgumentError."""
    said = headers.get("if-none-match", "").strip()
    if said not in ("", "*"):
        raise InvalidArgumentError(
            "If-None-Match of a change is * (only if there is none) or left out",
            field="if-none-match",
        )
    return said == "*"
