"""The ASGI application of a node's HTTP port: routes, checks, errors, one line of log each.

Translates and decides nothing. Every failure leaves as problem+json; one that is a fault of ours
is answered with 500 and logged, and the node goes on: nothing here touches what a node keeps.
Invariants: names are taken from the path as it was sent, each part decoded once, so that a name
with a slash is one name, and `..` is a name like any other; no answer invites other origins,
and what they ask to change is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssgovern.api.http import asked as reading
from ssgovern.api.http.answers import Answer, Stream
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.auth import LOGIN_PATH, LOGOUT_PATH, Gate
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.bodies import Health, Problem
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.openapi import openapi_document
from ssgovern.api.http.operations import DOCUMENT_PATH, OPERATIONS, Operation
from ssgovern.api.http.problems import PROBLEM_MEDIA_TYPE, RefusedError, refusal
from ssgovern.api.http.reference import REFERENCE_PATH, reference_page, reference_policy
from ssgovern.api.http.routing import Routes
from ssgovern.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    SsGovernError,
    UnauthenticatedError,
    UnsupportedTypeError,
)
from ssgovern.service.access import Principal

log = logging.getLogger("ssgovern.http")

Headers: TypeAlias = "dict[str, str]"
Page: TypeAlias = "Callable[[Headers], Awaitable[tuple[int, Headers, bytes]]]"
"""Something that is only read, and not part of the open API."""

_ON_EVERY_ANSWER = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
}
"""Unless the answer has its own."""
_NOT_KEPT = {"cache-control": "no-store"}
_ASKED_AGAIN = {"cache-control": "no-cache"}
_JSON = {"content-type": reading.JSON_MEDIA_TYPE}
_READING = ("GET", "HEAD")


class _Right(NamedTuple):
    """What a stream was begun by, which may end while it goes on."""

    gate: Gate | None
    principal: Principal | None
    operation: Operation
    asked: Asked

    def is_gone(self) -> bool:
        """Whether who listens may do so no more."""
        if self.gate is None:
            return False
        try:
            self.gate.check(self.principal, self.operation, self.asked)
        except (PermissionDeniedError, UnauthenticatedError):
            return True
        return False


class Front:
    """The application. `hosts` are the names it is asked by; None: whatever the Host header says.

    On loopback they matter: without access control, a page of anybody's that lets its own name
    point to this machine could else read everything through the user's browser. `pages` answers
    what is neither the open API nor one of the pages here: the console.
    """

    def __init__(
        self,
        backend: Backend,
        hosts: tuple[str, ...] | None = None,
        pages: ASGIApp | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._backend = backend
        self._hosts = hosts
        self._pages = pages
        self._gate = gate
        self.desk = Desk(backend)
        self._document = json.dumps(openapi_document(OPERATIONS)).encode()
        self.answers = dict.fromkeys((2, 3, 4, 5), 0)
        """Answers so far, by the first digit of their status."""
        self._routes: Routes[Operation | Page] = Routes()
        self._routes.add("GET", "/healthz/live", self._live)
        self._routes.add("GET", "/healthz/ready", self._ready)
        self._routes.add("GET", "/metrics", self._metrics)
        self._routes.add("GET", DOCUMENT_PATH, self._openapi)
        self._routes.add("GET", REFERENCE_PATH, self._docs)
        for each in OPERATIONS:
            self._routes.add(each.method, each.path, each)

    def stop(self) -> None:
        """End what would else go on for ever: streams of changes."""
        self.desk.watches.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "no websockets and no lifespan are asked for"
        began_s = asyncio.get_running_loop().time()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.answers[status // 100] += 1
            await send(message)

        raw_path = scope["raw_path"].decode("ascii")
        failure: SsGovernError | None = None
        try:
            await self._answer(scope, raw_path, receive, sending)
        except RefusedError as refused:
            failure = refused.error
            await _refuse(refused.error, sending, refused.status)
        except SsGovernError as error:
            failure = error
            await _refuse(error, sending)
        except Exception:
            # The outermost of a request: it costs one answer, not the node.
            log.exception("%s %.200s failed", scope["method"], raw_path)
            if status:
                raise
            await _send(sending, 500, {"content-type": PROBLEM_MEDIA_TYPE}, _OUR_FAULT)
        if self._gate is not None:
            wanted = scope.get(reading.WANTED, ())
            self._gate.note(scope, raw_path, status, failure, wanted)
        if log.isEnabledFor(logging.DEBUG):
            spent_ms = (asyncio.get_running_loop().time() - began_s) * 1000.0
            client = scope["client"] or ("?", 0)
            log.debug(
                "%s %s %.200s %d in %.1f ms", client[0], scope["method"], raw_path, status, spent_ms
            )

    async def _answer(self, scope: Scope, raw_path: str, receive: Receive, send: Send) -> None:
        headers = reading.headers_of(scope["headers"])
        self._check_host(headers)
        gate = self._gate
        if gate is not None and raw_path in (LOGIN_PATH, LOGOUT_PATH):
            if scope["method"] not in _READING:
                _check_origin(headers)
            origin = str((scope["client"] or ("?", 0))[0])
            reply = await gate.serve(raw_path, scope["method"], headers, origin, receive)
            await _send(send, *reply)
            return
        found = self._routes.find(raw_path)
        if found is None:
            if self._pages is None or raw_path.startswith("/api/"):
                raise NotFoundError(f"nothing is here; {DOCUMENT_PATH} says what there is")
            if gate is not None and gate.sends_to_login(scope["method"], raw_path, headers):
                await _send(send, 303, {"location": LOGIN_PATH, **_NOT_KEPT}, b"")
                return
            await self._pages(scope, receive, send)
            return
        method = scope["method"]
        target = found.by_method.get("GET" if method == "HEAD" else method)
        if target is None:
            allowed = ", ".join(found.by_method)
            if "GET" in found.by_method:
                allowed += ", HEAD"
            error = UnsupportedTypeError(f"{method} is not for this: allowed are {allowed}")
            await _refuse(error, send, 405, {"allow": allowed})
            return
        if not isinstance(target, Operation):
            if gate is not None and target == self._metrics:
                gate.check_metrics(headers)
            status, said, body = await target(headers)
            await _send(send, status, said, body)
            return
        # Who is nobody is told so before anything else of the request is looked at.
        principal = None if gate is None else gate.who(headers)
        if method not in _READING:
            _check_origin(headers)
            if gate is not None:
                gate.check_csrf(headers)
        asked = Asked(
            path=reading.names_of(found.names),
            query=reading.query_of(target.query, scope["query_string"].decode("latin-1")),
            headers=headers,
            scope=scope,
        )
        if target.body is not None:
            asked.body = await reading.body_of(target.body, receive, headers)
            scope[reading.WANTED] = reading.wanted_of(asked.body)
        if gate is not None:
            gate.check(principal, target, asked)
        answer = await target.handle(self.desk, asked)
        if isinstance(answer, Stream):
            await self._stream(
                answer, method, receive, send, _Right(gate, principal, target, asked)
            )
        else:
            await _send_document(send, target, answer, headers)

    async def _stream(
        self, stream: Stream, method: str, receive: Receive, send: Send, right: _Right
    ) -> None:
        """Send events until they end or nobody listens."""
        said = {"content-type": reading.EVENTS_MEDIA_TYPE, **_NOT_KEPT, "x-accel-buffering": "no"}
        if method == "HEAD":
            await stream.events.aclose()
            await _send(send, 200, said, b"")
            return
        leaving = asyncio.get_running_loop().create_task(_left(receive))
        leaving.add_done_callback(lambda _: stream.wake())
        await send(_start(200, said))
        try:
            async for event in stream.events:
                if leaving.done() or right.is_gone():
                    break
                await send({"type": "http.response.body", "body": event, "more_body": True})
        finally:
            leaving.cancel()
            await stream.events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check_host(self, headers: Mapping[str, str]) -> None:
        named = headers.get("host")
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

    async def _live(self, _headers: Headers) -> tuple[int, Headers, bytes]:
        """It answers, so it lives: also while it recovers, which may take long."""
        return _health(Health(status="ok", detail=""))

    async def _ready(self, _headers: Headers) -> tuple[int, Headers, bytes]:
        why_not = self._backend.not_ready()
        return _health(Health(status="not ready" if why_not else "ok", detail=why_not))

    async def _metrics(self, headers: Headers) -> tuple[int, Headers, bytes]:
        body, media_type = self._backend.metrics(headers.get("accept", ""))
        return 200, {**_NOT_KEPT, "content-type": media_type}, body

    async def _openapi(self, _headers: Headers) -> tuple[int, Headers, bytes]:
        return 200, {**_ASKED_AGAIN, **_JSON}, self._document

    async def _docs(self, _headers: Headers) -> tuple[int, Headers, bytes]:
        said = {"content-type": "text/html; charset=utf-8"}
        return (
            200,
            {**_ASKED_AGAIN, **said, "content-security-policy": reference_policy()},
            reference_page(OPERATIONS),
        )


async def _left(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what a page of another origin asks to change.

    Browsers ask first whether they may send JSON elsewhere, and are told no; what has no body
    they would send without asking.
    """
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise PermissionDeniedError("pages of other origins change nothing here", field="origin")


# --- sending ------------------------------------------------------------------------------


def _start(status: int, headers: Mapping[str, str]) -> Message:
    together = {**_ON_EVERY_ANSWER, **headers}
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in together.items()],
    }


async def _send(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    sized = headers if status == 304 else {**headers, "content-length": str(len(body))}
    await send(_start(status, sized))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_document(
    send: Send, operation: Operation, answer: Answer, headers: Mapping[str, str]
) -> None:
    said = {**_JSON, **_NOT_KEPT}
    if answer.tag:
        tag = f'"{answer.tag}"'
        said = {**_JSON, **_ASKED_AGAIN, "etag": tag}
        unchanged = operation.method == "GET" and reading.names_tag(
            headers.get("if-none-match", ""), tag
        )
        if answer.status == 304 or unchanged:
            await _send(send, 304, {**_ASKED_AGAIN, "etag": tag}, b"")
            return
    body = answer.body if isinstance(answer.body, bytes) else answer.body.model_dump_json().encode()
    await _send(send, answer.status, said, body)


async def _refuse(
    error: SsGovernError, send: Send, status: int = 0, headers: Mapping[str, str] | None = None
) -> None:
    problem, said = refusal(error, status)
    body = problem.model_dump_json().encode()
    await _send(send, problem.status, {**said, **(headers or {})}, body)


_OUR_FAULT = (
    Problem(
        type="urn:ss-govern:error:internal",
        title="internal",
        status=500,
        detail="the node failed to answer; its log says more",
        code=0,
        retry="never",
        fields={},
    )
    .model_dump_json()
    .encode()
)


def _health(health: Health) -> tuple[int, Headers, bytes]:
    code = 200 if health.status == "ok" else 503
    return code, {**_NOT_KEPT, **_JSON}, health.model_dump_json().encode()


def _without_port(named: str) -> str:
    if named.startswith("["):
        return named[1:].partition("]")[0]
    return named.partition(":")[0]


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
