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
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ssgovern import limits
from ssgovern.api.http import asked as reading
from ssgovern.api.http.backend import Backend
from ssgovern.api.http.console import actions, assets, people, views
from ssgovern.api.http.console.live import Streams
from ssgovern.api.http.console.look import Look, View, looks, points_json
from ssgovern.api.http.console.picture import Picture
from ssgovern.api.http.console.recalled import Recalled
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
from ssgovern.service.access import Access, Action, Principal
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
    ("sessions", "/sessions"),
    ("events", "/events"),
    ("audit", "/audit"),
    ("access", "/access"),
)
_RECENT = 8
_TIMELINE = 8
_EVENTS = 100
_HOME = "/overview"
"""What `/` shows."""
_READING = ("GET", "HEAD")
_OPEN = ("/static/", "/favicon.ico")
"""For everybody: a page of a log-in needs them."""
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
    scope: Scope
    who: Principal | None = None
    """None: nobody has to be known here."""


Handler = Callable[[Call], Awaitable[Response]]
Make = Callable[[Call], Awaitable[View]]


class Page(NamedTuple):
    """A page that is kept live: its template, what makes it, what else the template wants."""

    template: str
    make: Make
    also: Callable[[Call], dict[str, object]]


class Gate(Protocol):
    """Who asks, and whether they may."""

    access: Access
    stylesheet: str

    def who(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who asks; None while access is not controlled. Raises UnauthenticatedError."""

    def csrf(self, headers: Mapping[str, str]) -> str:
        """Return what a page of who is logged in shows with each change; empty: nothing."""

    def check_csrf(self, headers: Mapping[str, str]) -> None:
        """Raise PermissionDeniedError if a change does not show what its page was given."""


class Console:
    """The application. `wall_ms` dates what is collected; without a gate everybody may everything,
    for tests."""

    def __init__(
        self, backend: Backend, wall_ms: Callable[[], int], gate: Gate | None = None
    ) -> None:
        self._backend = backend
        self._gate = gate
        self._recalled = Recalled(backend.gateway)
        self._wall_ms = wall_ms
        self._looks = looks()
        self._assets = self._looks["en"].assets
        if gate is not None:
            gate.stylesheet = self._assets.address("console.css")
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
        self._handlers.add("POST", "/do/tokens/{token}/revoke", self._revoke)

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
        add("GET", "/sessions", Page("sessions", self._sessions, self._listing))
        add("GET", "/events", Page("events", self._events, self._listing))
        add("GET", "/audit", Page("audit", self._audit, nothing))
        add("GET", "/access", Page("access", self._access, nothing))

    # --- requests --------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises SsGovernError for what is not asked for as a page."""
        raw_path = scope["raw_path"].decode("ascii")
        headers = reading.headers_of(scope["headers"])
        if raw_path == "/":
            raw_path = _HOME
        query = _query(scope["query_string"].decode("latin-1"))
        look = self._looks[_language(headers, query)]
        call = Call(scope["method"], raw_path, {}, query, headers, look, receive, scope)
        is_live = raw_path.startswith("/live/")
        try:
            if self._gate is not None and not raw_path.startswith(_OPEN):
                call = call._replace(who=self._gate.who(headers))
            if is_live:
                await self._stream(call, send)
                return
            response = await self._answer(call)
        except SsGovernError as error:
            if not _wants_page(call):
                # Not for people: said, and noted, as every refusal of the port is.
                raise
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
            if self._gate is not None:
                self._gate.check_csrf(call.headers)
        handler = found.by_method["GET" if call.method == "HEAD" else call.method]
        return await handler(_named(call, found.names))

    def _failed(self, call: Call, error: SsGovernError) -> Response:
        """Return a page that says why there is no other."""
        problem, _ = refusal(error)
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
            "who": call.look.say("open_access") if call.who is None else call.who.name,
            "can_log_out": call.who is not None,
            "csrf": "" if self._gate is None else self._gate.csrf(call.headers),
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
        self._check_everywhere(call, "read")
        look = call.look
        view = views.overview(look, self._picture)
        recent = await self._recalled.events(_RECENT)
        view.pieces["recent"] = people.timeline(
            look, "recent", recent, look.say("events_none_text")
        )
        return view

    async def _services(self, call: Call) -> View:
        return views.services(call.look, self._picture, _asked(call), self._may_read(call))

    async def _sessions(self, call: Call) -> View:
        self._check_everywhere(call, "read")
        asked = _asked(call)
        wanted = asked.q.strip()
        is_id = len(wanted) >= 6 and len(wanted) % 2 == 0 and _is_hex(wanted)
        found = await self._recalled.sessions(
            wanted if is_id else "", "" if is_id else wanted[: limits.CLIENT_NAME_BYTES_MAX // 4]
        )
        return people.sessions(call.look, found, views.node_names(self._picture))

    async def _events(self, call: Call) -> View:
        self._check_everywhere(call, "read")
        found = await self._recalled.events(_EVENTS, None, _asked(call).ns)
        return people.events(call.look, found)

    async def _audit(self, call: Call) -> View:
        self._check_everywhere(call, "admin")
        found = await self._recalled.audit()
        return people.audit(call.look, found, views.node_names(self._picture))

    async def _access(self, call: Call) -> View:
        self._check_everywhere(call, "admin")
        found = await self._recalled.access()
        return people.access(call.look, found, self._wall_ms())

    def _listing(self, call: Call) -> dict[str, object]:
        asked = _asked(call)
        names = list(self._picture.namespaces)
        may_read = self._may_read(call)
        if may_read is not None:
            names = sorted(
                {each.key.namespace for each in self._picture.lines if may_read(each.key)}
            )
        if asked.ns and asked.ns not in names:
            names.append(asked.ns)
        return {"asked": asked, "namespaces": names}

    async def _service(self, call: Call) -> View:
        key = _key(call)
        self._check(call, "read", key)
        asked, look = _asked(call), call.look
        found = await views.read_service(self._backend, key, asked)
        view = views.service(look, self._picture, key, found, asked)
        past = await self._recalled.events(_TIMELINE, key)
        view.pieces["timeline"] = people.timeline(look, "timeline", past, look.say("timeline_none"))
        followers = await self._recalled.subscribers(key)
        names = views.node_names(self._picture)
        view.pieces["subscribers"] = people.subscribers(look, followers, names)
        return view

    def _of_service(self, call: Call) -> dict[str, object]:
        return {"key": _key(call), "asked": _asked(call)}

    async def _cluster(self, call: Call) -> View:
        self._check_everywhere(call, "read")
        return views.cluster(call.look, self._picture)

    def _of_cluster(self, _call: Call) -> dict[str, object]:
        return {"shards_total": SHARDS}

    # --- pieces, files, actions ------------------------------------------------------------

    async def _shard(self, call: Call) -> Response:
        self._check_everywhere(call, "read")
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
        names = call.names
        self._check(call, "write", _key(call))
        form = await _form(call)
        if names["action"] == "weight":
            call.scope[reading.WANTED] = [("weight", "", form.get("weight", ""))]
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
        self._check_everywhere(call, "admin")
        node = _number(call, "node")
        return _told(await actions.on_node(self._backend.gateway, node, call.names["action"]))

    async def _transfer(self, call: Call) -> Response:
        self._check_everywhere(call, "admin")
        shard, node = _number(call, "shard"), _number(call, "node")
        return _told(await actions.transfer(self._backend.gateway, shard, node))

    async def _revoke(self, call: Call) -> Response:
        self._check_everywhere(call, "admin")
        return _told(await actions.revoke(self._backend.gateway, call.names["token"]))

    # --- rights ----------------------------------------------------------------------------

    def _check(self, call: Call, action: Action, key: ServiceKey) -> None:
        if self._gate is not None:
            self._gate.access.check(call.who, action, *key)

    def _check_everywhere(self, call: Call, action: Action) -> None:
        if self._gate is not None:
            self._gate.access.check_everywhere(call.who, action)

    def _may_read(self, call: Call) -> Callable[[ServiceKey], bool] | None:
        """Return what tells whether a service may be shown; None: all of them."""
        gate = self._gate
        if gate is None or call.who is None or "read" in call.who.everywhere:
            return None
        return lambda key: gate.access.allows(call.who, "read", *key)


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


def _is_hex(text: str) -> bool:
    return all(each in "0123456789abcdef" for each in text)


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


def _wants_page(call: Call) -> bool:
    wants = "text/html" in call.headers.get("accept", "")
    return wants and call.method in _READING and "hx-request" not in call.headers


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="text/html")


def _told(sentence: str) -> Response:
    return Response(json.dumps({"told": sentence}), media_type="application/json")
