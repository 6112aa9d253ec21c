"""The ASGI application of a node's HTTP port: routes, checks, errors, one line of log each.

Translates and decides nothing. Every failure leaves as problem+json; one that is a fault of ours
is answered with 500 and logged, and the node goes on: what can be read over HTTP changes nothing.
Invariant: names are taken from the path as it was sent, each part decoded once, so that a name
with a slash is one name, and `..` is a name like any other.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from ssgovern import limits
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.bodies import Health, Problem, Query
from ssgovern.api.http.openapi import openapi_document
from ssgovern.api.http.operations import DOCUMENT_PATH, OPERATIONS, Operation
from ssgovern.api.http.problems import PROBLEM_MEDIA_TYPE, refusal
from ssgovern.api.http.reads import Asked
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    SsGovernError,
    UnsupportedTypeError,
)

log = logging.getLogger("ssgovern.http")

_METHODS = ["GET"]
"""HEAD comes with it."""
_ON_EVERY_ANSWER = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_NOT_KEPT = {"cache-control": "no-store"}
_ASKED_AGAIN = {"cache-control": "no-cache"}

Endpoint = Callable[[Request], Awaitable[Response]]


class Front:
    """The application. `hosts` are the names it is asked by; None: whatever the Host header says.

    On loopback they matter: without access control, a page of anybody's that lets its own name
    point to this machine could else read everything through the user's browser.
    """

    def __init__(self, backend: Backend, hosts: tuple[str, ...] | None = None) -> None:
        self._backend = backend
        self._hosts = hosts
        self._document = json.dumps(openapi_document(OPERATIONS)).encode()
        self.answers = dict.fromkeys((2, 3, 4, 5), 0)
        """Answers so far, by the first digit of their status."""
        routes = [
            Route("/healthz/live", self._live, methods=_METHODS),
            Route("/healthz/ready", self._ready, methods=_METHODS),
            Route("/metrics", self._metrics, methods=_METHODS),
            Route(DOCUMENT_PATH, self._openapi, methods=_METHODS),
            *(Route(each.path, self._endpoint(each), methods=_METHODS) for each in OPERATIONS),
        ]
        self._router = Router(routes, redirect_slashes=False, default=_no_such_page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "no websockets and no lifespan are asked for"
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.answers[status // 100] += 1
                message = {**message, "headers": [*message["headers"], *_ON_EVERY_ANSWER]}
            await send(message)

        raw_path = scope["raw_path"].decode("ascii")
        inner: Scope = {**scope, "path": raw_path, "app": self}
        try:
            self._check_host(Request(inner))
            await self._router(inner, receive, sending)
        except SsGovernError as error:
            await refusal(error)(inner, receive, sending)
        except HTTPException as error:
            await _of_starlette(error)(inner, receive, sending)
        except Exception:
            # The outermost of a request: it costs one answer, not the node.
            log.exception("%s %.200s failed", scope["method"], raw_path)
            if status:
                raise
            await _our_fault()(inner, receive, sending)
        if log.isEnabledFor(logging.DEBUG):
            spent_ms = (loop.time() - began_s) * 1000.0
            client = scope["client"] or ("?", 0)
            log.debug(
                "%s %s %.200s %d in %.1f ms", client[0], scope["method"], raw_path, status, spent_ms
            )

    def _check_host(self, request: Request) -> None:
        named = request.headers.get("host")
        if self._hosts is None or named is None:
            return
        name = _without_port(named.lower())
        if name not in self._hosts and not _is_loopback(name):
            raise InvalidArgumentError(
                f"the request is for {named[:100]!r}; this node listens on loopback and answers "
                "to its own names only",
                field="host",
            )

    # --- health and metrics ----------------------------------------------------------------

    async def _live(self, request: Request) -> Response:
        """It answers, so it lives: also while it recovers, which may take long."""
        return _health(Health(status="ok", detail=""))

    async def _ready(self, request: Request) -> Response:
        why_not = self._backend.not_ready()
        return _health(Health(status="not ready" if why_not else "ok", detail=why_not))

    async def _metrics(self, request: Request) -> Response:
        body, media_type = self._backend.metrics(request.headers.get("accept", ""))
        return Response(body, headers={**_NOT_KEPT, "content-type": media_type})

    async def _openapi(self, request: Request) -> Response:
        return Response(self._document, headers=_ASKED_AGAIN, media_type="application/json")

    # --- the open API ----------------------------------------------------------------------

    def _endpoint(self, operation: Operation) -> Endpoint:
        async def answer(request: Request) -> Response:
            query = _query(operation.query, request.scope["query_string"].decode("latin-1"))
            asked = Asked(
                {name: _decoded(name, part) for name, part in request.path_params.items()}, query
            )
            found = operation.handle(self._backend, asked)
            if not found.tag:
                return _json(found.body.model_dump_json(), _NOT_KEPT)
            headers = {**_ASKED_AGAIN, "etag": f'"{found.tag}"'}
            if _names(request.headers.get("if-none-match", ""), headers["etag"]):
                return Response(status_code=304, headers=headers)
            return _json(found.body.model_dump_json(), headers)

        return answer


async def _no_such_page(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotFoundError(f"nothing is here; {DOCUMENT_PATH} says what there is")


def _of_starlette(error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    return refusal(
        UnsupportedTypeError(f"{error.detail}: this can only be read"), error.status_code, headers
    )


def _our_fault() -> Response:
    problem = Problem(
        type="urn:ss-govern:error:internal",
        title="internal",
        status=500,
        detail="the node failed to answer; its log says more",
        code=0,
        retry="never",
        fields={},
    )
    return Response(problem.model_dump_json(), 500, media_type=PROBLEM_MEDIA_TYPE)


def _json(body: str, headers: dict[str, str]) -> Response:
    return Response(body, headers=headers, media_type="application/json")


def _health(health: Health) -> Response:
    code = 200 if health.status == "ok" else 503
    return Response(
        health.model_dump_json(), code, headers=_NOT_KEPT, media_type="application/json"
    )


def _decoded(name: str, part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{name} is not UTF-8", field=name) from None


def _query(kind: type[Query], text: str) -> Query:
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
    said = dict(pairs)
    if len(said) != len(pairs):
        raise InvalidArgumentError("a parameter is given twice", field="query")
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])[:100]
        raise InvalidArgumentError(f"{name}: {fault['msg']}", field=name) from None


def _names(if_none_match: str, tag: str) -> bool:
    """Tell whether the header names a tag; weak ones are as good for reading (RFC 9110)."""
    named = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in named or "*" in named


def _without_port(named: str) -> str:
    if named.startswith("["):
        return named[1:].partition("]")[0]
    return named.partition(":")[0]


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
