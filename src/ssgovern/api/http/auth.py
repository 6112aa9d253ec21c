"""Who asks over HTTP: a token in a header, or the cookie of somebody who logged in.

Knows headers, cookies and forms; who may do what is `service.access`'s to say. A log-in is kept
in this node's memory: it ends with the node, and counts on this node only. Invariants: a cookie
never suffices for a change, which also shows what only a page of ours was given; of passwords and
cookies nothing is kept but hashes; whether it is the name or the password that is wrong cannot be
told, by words or by time; every table here is bounded.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from ssgovern import limits
from ssgovern.api.http.asked import Asked, headers_of
from ssgovern.api.http.operations import Operation
from ssgovern.errors import (
    InvalidArgumentError,
    LimitExceededError,
    PermissionDeniedError,
    SsGovernError,
    TooManyAttemptsError,
    UnauthenticatedError,
    UnavailableError,
)
from ssgovern.service.access import Access, Principal
from ssgovern.service.audit import Audit, Changed

LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
CSRF_HEADER = "x-csrf-token"
_COOKIE = "ssgovern-session"
_SECRET_BYTES = 32
_POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_WRONG = "name or password is wrong"


class Passwords(Protocol):
    """Compares passwords beside the loop."""

    async def verify(self, hashed: str, password: str) -> bool:
        """Tell whether a password is right; with no hash none is, and it takes as long."""


class Reply(NamedTuple):
    """What is answered to a log-in or its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _LoggedIn(NamedTuple):
    user: str
    csrf: str
    until_ms: int


class Gate:
    """The way in of one HTTP port."""

    def __init__(
        self,
        access: Access,
        passwords: Passwords,
        wall_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        *,
        secure: bool,
        audit: Audit | None = None,
    ) -> None:
        """`secure`: the port speaks TLS, so that the cookie may be kept to it."""
        self.access = access
        self._passwords = passwords
        self._wall_ms = wall_ms
        self._random_bytes = random_bytes
        self._secure = secure
        self._cookie = f"__Host-{_COOKIE}" if secure else _COOKIE
        self._logged_in: OrderedDict[bytes, _LoggedIn] = OrderedDict()
        self._attempts = Attempts()
        self._audit = audit
        self.stylesheet = ""
        """Path of what makes the page for logging in look like the others."""

    # --- who asks --------------------------------------------------------------------------

    def who(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who asks; None while access is not controlled. Raises UnauthenticatedError."""
        if not self.access.enforced:
            return None
        said = headers.get("authorization")
        if said is not None:
            scheme, _, token = said.partition(" ")
            if scheme.lower() != "bearer":
                raise UnauthenticatedError("the scheme of `Authorization` is Bearer")
            return self.access.authenticate(token.strip())
        found = self._session(headers)
        if found is None:
            return self.access.authenticate("")
        return self.access.user(found.user)

    def csrf(self, headers: Mapping[str, str]) -> str:
        """Return what a page of who is logged in shows with each change; empty: nothing."""
        found = self._session(headers)
        return "" if found is None else found.csrf

    def check_csrf(self, headers: Mapping[str, str]) -> None:
        """Raise PermissionDeniedError if a change does not show what its page was given.

        Who shows a token needs nothing more: no browser adds it by itself.
        """
        if not self.access.enforced or "authorization" in headers:
            return
        found = self._session(headers)
        shown = headers.get(CSRF_HEADER, "")
        if found is None or not hmac.compare_digest(found.csrf.encode(), shown.encode()):
            raise PermissionDeniedError(
                f"the change comes from no page of this console: {CSRF_HEADER} is missing or old,"
                " load the page again",
                field=CSRF_HEADER,
            )

    def check(self, principal: Principal | None, operation: Operation, asked: Asked) -> None:
        """Raise unless somebody may do an operation, for what it names."""
        action, path = operation.needs(asked), asked.path
        if not self.access.enforced:
            return
        if "service" in path:
            self.access.check(principal, action, path["namespace"], path["group"], path["service"])
        elif "namespace" in path:
            group = getattr(asked.query, "group", None) or ""
            prefix = getattr(asked.query, "prefix", None) or ""
            self.access.check_prefix(principal, action, path["namespace"], group, prefix)
        elif operation.action == "register":
            # The lease's own secret says for what.
            self.access.check_somewhere(principal, action)
        else:
            self.access.check_everywhere(principal, action)

    def check_metrics(self, headers: Mapping[str, str]) -> None:
        """Raise unless somebody may read the metrics."""
        self.access.check_somewhere(self.who(headers), "read")

    def _session(self, headers: Mapping[str, str]) -> _LoggedIn | None:
        key = self._key(headers)
        found = None if key is None else self._logged_in.get(key)
        if found is None or found.until_ms <= self._wall_ms():
            return None
        return found

    def _key(self, headers: Mapping[str, str]) -> bytes | None:
        text = headers.get("cookie", "")
        if self._cookie not in text:
            return None
        try:
            morsel = SimpleCookie(text).get(self._cookie)
        except CookieError:
            return None
        return None if morsel is None else _key_of(morsel.value)

    def note(
        self,
        scope: Scope,
        path: str,
        status: int,
        error: SsGovernError | None,
        wanted: Sequence[Changed] = (),
    ) -> None:
        """Write down what was changed, or refused. Renewing what one has is neither."""
        method = scope["method"]
        refused = isinstance(error, (UnauthenticatedError, PermissionDeniedError))
        reads = method in ("GET", "HEAD") or path.endswith(("/lease", "/leases/renew"))
        if self._audit is None or (reads and not refused):
            return
        principal = None
        if not isinstance(error, UnauthenticatedError):
            # Nobody: it is a log-in, or its end, as the path says.
            with suppress(UnauthenticatedError):
                principal = self.who(headers_of(scope["headers"]))
        origin = str((scope["client"] or ("?", 0))[0])
        way = "http" if path.startswith(("/api/", "/metrics")) else "console"
        self._audit.note(
            principal,
            origin,
            way,
            method.lower(),
            path,
            error=error,
            detail=f"{status}",
            changes=wanted,
        )

    def sends_to_login(self, method: str, path: str, headers: Mapping[str, str]) -> bool:
        """Tell whether a page is asked for by somebody who has to log in first."""
        if method != "GET" or path.startswith("/static/"):
            return False
        if "text/html" not in headers.get("accept", "") or "hx-request" in headers:
            return False
        try:
            self.who(headers)
        except UnauthenticatedError:
            return True
        return False

    # --- logging in ------------------------------------------------------------------------

    async def serve(
        self, path: str, method: str, headers: Mapping[str, str], origin: str, receive: Receive
    ) -> Reply:
        """Answer a request for one of the paths here. Raises what is wrong with it."""
        if path == LOGOUT_PATH and method == "POST":
            return self._log_out(headers)
        if path == LOGIN_PATH and method in ("GET", "HEAD"):
            return self._page(200, "")
        if path == LOGIN_PATH and method == "POST":
            return await self._log_in(headers, origin, receive)
        raise InvalidArgumentError(f"{method} is not for {path}", field="method")

    async def _log_in(self, headers: Mapping[str, str], origin: str, receive: Receive) -> Reply:
        form = await _form(receive)
        user, password = form.get("user", ""), form.get("password", "")
        try:
            await self._check_password(user, password, origin)
        except (UnauthenticatedError, TooManyAttemptsError) as error:
            if "text/html" not in headers.get("accept", ""):
                raise
            return self._page(
                401 if isinstance(error, UnauthenticatedError) else 429, error.message
            )
        secret = self._random_bytes(_SECRET_BYTES).hex()
        csrf = self._random_bytes(_SECRET_BYTES).hex()
        until_ms = self._wall_ms() + limits.HTTP_LOGIN_MS
        self._logged_in[_key_of(secret)] = _LoggedIn(user, csrf, until_ms)
        while len(self._logged_in) > limits.HTTP_LOGINS_MAX:
            self._logged_in.popitem(last=False)
        said = {"location": "/", "set-cookie": self._set_cookie(secret, limits.HTTP_LOGIN_MS)}
        return Reply(303, {**said, "cache-control": "no-store"}, b"")

    async def _check_password(self, user: str, password: str, origin: str) -> None:
        now_ms = self._wall_ms()
        keys = (f"from {origin}", f"as {user[: limits.ACCESS_NAME_BYTES_MAX]}")
        for key in keys:
            self._attempts.check(key, now_ms)
        # Counted before it is known: whoever tries many at once is not let through by that.
        for key in keys:
            self._attempts.note(key, now_ms)
        if not self.access.enforced:
            raise UnauthenticatedError("nobody is set up who could log in")
        if not await self._passwords.verify(self.access.password_hash(user), password):
            raise UnauthenticatedError(_WRONG)
        self.access.user(user)
        for key in keys:
            self._attempts.forget(key)

    def _page(self, status: int, fault: str) -> Reply:
        """Return the page for logging in: one for all languages, before it is known whose."""
        style = f'<link rel="stylesheet" href="{self.stylesheet}">' if self.stylesheet else ""
        said = f'<p class="fault" role="alert">{escape(fault)}</p>' if fault else ""
        html = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ss-govern</title>'
            f'<meta name="viewport" content="width=device-width">{style}</head>'
            '<body class="alone"><main class="panel login"><h1>ss-govern</h1>'
            f'{said}<form method="post" action="{LOGIN_PATH}"><label>User / 用户 '
            '<input type="text" name="user" autocomplete="username" required autofocus></label>'
            '<label>Password / 密码 <input name="password" type="password" '
            'autocomplete="current-password" required></label>'
            '<button class="primary">Log in / 登录</button></form></main></body></html>'
        )
        headers = {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": _POLICY,
            "cache-control": "no-store",
        }
        return Reply(status, headers, html.encode())

    def _log_out(self, headers: Mapping[str, str]) -> Reply:
        self.check_csrf(headers)
        key = self._key(headers)
        if key is not None:
            self._logged_in.pop(key, None)
        said = {"set-cookie": self._set_cookie("", 0), "cache-control": "no-store"}
        return Reply(204, said, b"")

    def _set_cookie(self, value: str, ms: int) -> str:
        secure = "; Secure" if self._secure else ""
        return (
            f"{self._cookie}={value}; Path=/; HttpOnly; SameSite=Strict; "
            f"Max-Age={ms // 1000}{secure}"
        )


class Attempts:
    """Log-ins that failed, by where they came from and by whom they named."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def check(self, key: str, now_ms: int) -> None:
        """Raise TooManyAttemptsError while too many have failed."""
        count, last_ms = self._seen.get(key, (0, 0))
        over = count - limits.HTTP_LOGIN_FAILURES_MAX
        if over < 0:
            return
        pause_ms = min(1_000 << min(over, 20), limits.HTTP_LOGIN_PAUSE_MS_MAX)
        left_ms = last_ms + pause_ms - now_ms
        if left_ms > 0:
            seconds = left_ms // 1000 + 1
            raise TooManyAttemptsError(
                f"too many log-ins failed: try again in {seconds} s", retry_after_s=seconds
            )

    def note(self, key: str, now_ms: int) -> None:
        """Take note of one that is tried."""
        count, last_ms = self._seen.pop(key, (0, 0))
        if now_ms - last_ms > limits.HTTP_LOGIN_FAILURES_MS:
            count = 0
        self._seen[key] = (count + 1, now_ms)
        while len(self._seen) > limits.HTTP_LOGIN_ATTEMPTS_MAX:
            self._seen.popitem(last=False)

    def forget(self, key: str) -> None:
        """Take note that one was right."""
        self._seen.pop(key, None)


def _key_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def _form(receive: Receive) -> dict[str, str]:
    raw = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise UnavailableError("the client went away")
        # One byte more than is allowed tells; the rest is thrown away, and the server bounds it.
        raw = (raw + message.get("body", b""))[: limits.HTTP_LOGIN_BYTES_MAX + 1]
        more = message.get("more_body", False)
    if len(raw) > limits.HTTP_LOGIN_BYTES_MAX:
        raise LimitExceededError("more than a name and a password", field="body")
    try:
        return dict(parse_qsl(raw.decode(), max_num_fields=4, keep_blank_values=True))
    except ValueError:
        raise InvalidArgumentError("a log-in is a form: user and password", field="body") from None
