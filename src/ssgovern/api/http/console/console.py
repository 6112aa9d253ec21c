"""The console's application: which address is which page, stream, file or action.

Knows requests and pages; what pages show is made by `views`, what actions do by `actions`. Names in
addresses are decoded once, so that a service may be called anything. Invariants: every answer has a
content-security-policy under which no text of anybody's becomes a script; nothing changes by GET;
what changes something comes from a page of this console (a header that other origins cannot send).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ssgovern import limits
from ssgovern.api.http import asked as reading
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.console import actions, assets, views
from ssgovern.api.http.console.live import Streams
from ssgovern.api.http.console.look import Look, View, points_json
from ssgovern.api.http.console.picture import Picture
from ssgovern.api.http.console.views import Asked
from ssgovern.api.http.console.words import LANGUAGES, Language, language_of
from ssgovern.api.http.problems import refusal
from ssgovern.api.http.routing import Routes
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    SsGovernError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.model import SHARDS, ServiceKey, valid_key
from ssgovern.version import __version__

log = logging.getLogger("ssgovern.http")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_LANGUAGE_COOKIE = "ssgovern-language"
_CONSOLE_HEADER = "x-ss-govern-console"
_NAV = (
    ("overview", "/"),
    ("services", "/services"),
    ("cluster", "/cluster"),
)
_HOME = "/overview"
"""What `/` shows."""
_READING = ("GET", "HEAD")
_FORM_BYTES_MAX = 8 << 10


class Call(NamedTuple):
    """A request, as far as pages want to know it."""

    method: str
    path: str
    names: dict[str, str]
    query: dict[str, str]
    headers: Mapping[str, str]
    look: Look
    receive: Receive


Handler = Callable[[Call], Awaitable[Response]]
Make = Callable[[Call], Awaitable[View]]


class Page(NamedTuple):
    """A page that is kept live: its template, what makes it, what else the template wants."""

    template: str
    make: Make
    also: Callable[[Call], dict[str, object]]


class Console:
    """The application. `wall_ms` dates what is collected."""

    def __init__(self, backend: Backend, wall_ms: Callable[[], int]) -> None:
        self._backend = backend
        self._wall_ms = wall_ms
        self._assets = assets.Assets()
        self._looks = {each: Look(each, self._assets) for each in LANGUAGES}
        self._picture = Picture(backend)
        self.streams = Streams()
        self._pages: Routes[Page] = Routes()
        self._handlers: Routes[Handler] = Routes()
        self._add_pages()
        self._handlers.add("GET", assets.PATH, self._asset)
        self._handlers.add("GET", "/favicon.ico", self._icon)
        self._handlers.add("GET", "/cluster/shard/{shard}", self._shard)
        self._handlers.add(
            "POST",
            "/do/services/{namespace}/{group}/{service}/{instance}/{action}",
            self._on_instance,
        )
        self._handlers.add("POST", "/do/nodes/{node}/{action}", self._on_node)
        self._handlers.add("POST", "/do/shards/{shard}/transfer/{node}", self._transfer)

    def _add_pages(self) -> None:
        def nothing(_call: Call) -> dict[str, object]:
            return {}

        add = self._pages.add
        add("GET", _HOME, Page("overview", self._overview, nothing))
        add("GET", "/services", Page("services", self._services, self._listing))
        add(
            "GET",
            "/services/{namespace}/{group}/{service}",
            Page("service", self._service, self._of_service),
        )
        add("GET", "/cluster", Page("cluster", self._cluster, self._of_cluster))

    # --- requests --------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises SsGovernError only for a stream that cannot begin."""
        raw_path = scope["raw_path"].decode("ascii")
        headers = reading.headers_of(scope["headers"])
        if raw_path == "/":
            raw_path = _HOME
        query = _query(scope["query_string"].decode("latin-1"))
        look = self._looks[_language(headers, query)]
        call = Call(scope["method"], raw_path, {}, query, headers, look, receive)
        is_live = raw_path.startswith("/live/")
        try:
            if is_live:
                await self._stream(call, send)
                return
            response = await self._answer(call)
        except SsGovernError as error:
            response = self._failed(call, error)
        if call.query.get("lang") in LANGUAGES and not is_live:
            response.set_cookie(
                _LANGUAGE_COOKIE, call.query["lang"], max_age=31_536_000, path="/", samesite="lax"
            )
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, call: Call) -> Response:
        page = self._pages.find(call.path)
        if page is not None:
            _check_method(call, page.by_method)
            return await self._page(page.by_method["GET"], _named(call, page.names))
        found = self._handlers.find(call.path)
        if found is None:
            raise NotFoundError(call.look.say("not_found_text"))
        _check_method(call, found.by_method)
        if call.method not in _READING:
            _check_ours(call)
        handler = found.by_method["GET" if call.method == "HEAD" else call.method]
        return await handler(_named(call, found.names))

    def _failed(self, call: Call, error: SsGovernError) -> Response:
        """A page for people, a problem for scripts."""
        problem, headers = refusal(error)
        wants_page = "text/html" in call.headers.get("accept", "")
        if not wants_page or call.headers.get("hx-request") or call.method not in _READING:
            return Response(problem.model_dump_json(), problem.status, headers=headers)
        is_missing = isinstance(error, NotFoundError)
        headline = call.look.say("not_found" if is_missing else "failed")
        html = call.look.page(
            "notice", headline=headline, text=error.message, live="", **self._frame(call, "")
        )
        return _html(html, problem.status)

    async def _page(self, page: Page, call: Call) -> Response:
        await self._picture.collect(self._wall_ms(), limits.CONSOLE_PATIENCE_MS / 1000.0)
        view = await page.make(call)
        query = dict(call.query)
        query.pop("lang", None)
        address = f"/live{call.path}?"
        token = self.streams.remember(view)
        html = call.look.page(
            page.template,
            view=view,
            points=points_json(view.points),
            live=address + urlencode({**query, "token": token}),
            **self._frame(call, page.template),
            **page.also(call),
        )
        return _html(html)

    def _frame(self, call: Call, page: str) -> dict[str, object]:
        other = "en" if call.look.language == "zh" else "zh"
        query = {name: value for name, value in call.query.items() if name != "lang"}
        status = self._backend.status() if not self._backend.not_ready() else None
        return {
            "page": page,
            "nav": _NAV,
            "who": "",
            "can_log_out": False,
            "csrf": "",
            "switch_query": urlencode({**query, "lang": other}),
            "node_name": status.node_name if status else "",
            "version": __version__,
        }

    async def _stream(self, call: Call, send: Send) -> None:
        path = call.path.removeprefix("/live")
        found = self._pages.find(path)
        if found is None or call.method != "GET":
            raise NotFoundError(call.look.say("not_found_text"))
        named = _named(call._replace(path=path), found.names)
        page = found.by_method["GET"]

        async def make() -> View:
            await self._picture.collect(self._wall_ms())
            return await page.make(named)

        await self.streams.run(make, call.query.get("token", ""), call.receive, send)

    # --- pages -----------------------------------------------------------------------------

    async def _overview(self, call: Call) -> View:
        return views.overview(call.look, self._picture)

    async def _services(self, call: Call) -> View:
        return views.services(call.look, self._picture, _asked(call))

    def _listing(self, call: Call) -> dict[str, object]:
        asked = _asked(call)
        names = list(self._picture.namespaces)
        if asked.ns and asked.ns not in names:
            names.append(asked.ns)
        return {"asked": asked, "namespaces": names}

    async def _service(self, call: Call) -> View:
        key = _key(call)
        asked = _asked(call)
        found = await views.read_service(self._backend, key, asked)
        return views.service(call.look, self._picture, key, found, asked)

    def _of_service(self, call: Call) -> dict[str, object]:
        return {"key": _key(call), "asked": _asked(call)}

    async def _cluster(self, call: Call) -> View:
        return views.cluster(call.look, self._picture)

    def _of_cluster(self, _call: Call) -> dict[str, object]:
        return {"shards_total": SHARDS}

    # --- pieces, files, actions ------------------------------------------------------------

    async def _shard(self, call: Call) -> Response:
        await self._picture.collect(self._wall_ms(), limits.CONSOLE_PATIENCE_MS / 1000.0)
        number = _number(call, "shard")
        if number >= SHARDS:
            raise NotFoundError(call.look.say("not_found_text"))
        return _html(views.shard(call.look, self._picture, number))

    async def _asset(self, call: Call) -> Response:
        encoding = call.headers.get("accept-encoding", "")
        return self._assets.answer(call.names["hash"], call.names["name"], encoding)

    async def _icon(self, _call: Call) -> Response:
        return Response(status_code=303, headers={"location": self._assets.address("icon.svg")})

    async def _on_instance(self, call: Call) -> Response:
        form = await _form(call)
        names = call.names
        told = await actions.on_instance(
            self._backend.gateway,
            call.look.language,
            _key(call),
            names["instance"],
            names["action"],
            form.get("weight", ""),
        )
        return _told(told)

    async def _on_node(self, call: Call) -> Response:
        node = _number(call, "node")
        return _told(await actions.on_node(self._backend.gateway, node, call.names["action"]))

    async def _transfer(self, call: Call) -> Response:
        shard, node = _number(call, "shard"), _number(call, "node")
        return _told(await actions.transfer(self._backend.gateway, shard, node))


# --- reading requests ---------------------------------------------------------------------


def _query(text: str) -> dict[str, str]:
    """Return what is asked; what is not understood is left out, as pages are for people."""
    try:
        return dict(parse_qsl(text, errors="strict", max_num_fields=limits.HTTP_QUERY_PAIRS_MAX))
    except (UnicodeDecodeError, ValueError):
        return {}


def _language(headers: Mapping[str, str], query: Mapping[str, str]) -> Language:
    chosen = query.get("lang", "")
    if chosen not in LANGUAGES:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_LANGUAGE_COOKIE)
        except CookieError:
            cookie = None
        chosen = cookie.value if cookie else ""
    return language_of(headers.get("accept-language", ""), chosen)


def _named(call: Call, encoded: Mapping[str, str]) -> Call:
    return call._replace(names=reading.names_of(encoded))


def _asked(call: Call) -> Asked:
    query = call.query
    first = query.get("first", "")
    sort = query.get("sort", "")
    return Asked(
        q=query.get("q", "")[: limits.NAME_BYTES_MAX],
        ns=query.get("ns", "")[: limits.NAME_BYTES_MAX],
        sort=sort if sort in ("instances", "missing") else "name",
        attention=query.get("attention") == "1",
        first=int(first) if first.isascii() and first.isdigit() and len(first) <= 9 else 0,
    )


def _key(call: Call) -> ServiceKey:
    names = call.names
    return valid_key(names["namespace"], names["group"], names["service"])


def _number(call: Call, name: str) -> int:
    text = call.names[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgumentError(f"{name} is no number", field=name)
    return int(text)


async def _form(call: Call) -> dict[str, str]:
    body = b""
    more = True
    while more:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise UnavailableError("the client went away")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _FORM_BYTES_MAX:
            raise LimitExceededError(
                f"the form exceeds {_FORM_BYTES_MAX} bytes", field="body", limit=_FORM_BYTES_MAX
            )
    return _query(body.decode("latin-1"))


def _check_method(call: Call, by_method: Mapping[str, object]) -> None:
    if ("GET" if call.method == "HEAD" else call.method) not in by_method:
        raise UnsupportedTypeError(f"{call.method[:20]} is not for this")


def _check_ours(call: Call) -> None:
    """Refuse what does not come from a page of this console.

    A page of another origin can make a browser post a form here, but not with this header,
    for which the browser would ask first and be told no.
    """
    origin = call.headers.get("origin")
    ours = origin is None or urlsplit(origin).netloc == call.headers.get("host", "")
    site = call.headers.get("sec-fetch-site", "same-origin")
    if not ours or site not in ("same-origin", "none") or _CONSOLE_HEADER not in call.headers:
        raise PermissionDeniedError("this is not a page of this console", field="origin")


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def _told(sentence: str) -> Response:
    return Response(json.dumps({"told": sentence}), media_type="application/json")
