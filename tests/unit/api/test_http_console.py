"""The console without a browser: headers, methods, languages, sizes, what is told of a change."""

from __future__ import annotations

import asyncio
import re
import string

import httpx
import pytest
from builders import ORDERS
from web import Site

from ssgovern import limits
from ssgovern.api.http.console.console import Console
from ssgovern.api.http.console.live import difference
from ssgovern.api.http.console.look import View, count, dom_id, size, span
from ssgovern.api.http.console.words import LANGUAGES, WORDS, language_of
from ssgovern.api.http.front import Front
from ssgovern.client.registry import Registry
from ssgovern.errors import UnavailableError
from ssgovern.model import ServiceKey
from ssgovern.service.access import Access, Principal

BASE = "http://127.0.0.1:7421"
HTML = {"accept": "text/html"}
OURS = {"x-ss-govern-console": "1", "host": "127.0.0.1:7421"}


class Unreachable:
    """A gateway by which nobody answers."""

    async def registry(self, namespace: str = "") -> Registry:
        raise UnavailableError("no node answers")


def console_of(site: Site) -> Console:
    site.gateway = Unreachable()  # type: ignore[assignment]
    return Console(site, lambda: 1_000)


def ask(
    site: Site,
    target: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    console: Console | None = None,
) -> httpx.Response:
    async def asking() -> httpx.Response:
        front = Front(site, ("site.example",), console or console_of(site))
        transport = httpx.ASGITransport(app=front)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(method, target, headers=headers)

    return asyncio.run(asking())


PAGES = ("/", "/services", "/services/prod/default/orders", "/cluster")


@pytest.mark.parametrize("page", PAGES)
def test_pages_run_nothing_that_is_not_ours(page: str) -> None:
    """Every page comes with a policy that runs only our own files, and has no script in it."""
    site = Site()
    site.register("a")
    answer = ask(site, page, headers=HTML)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"<script(?![^>]*\ssrc=)", answer.text) == []
    assert re.findall(r"\s(?:style|on\w+)=", answer.text) == []
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text) == []


def test_names_are_text() -> None:
    """Names of services and instances are escaped wherever they are shown."""
    site = Site()
    evil = ServiceKey("default", "default", "<script>x</script>&\"'")
    site.register("<img/src=x>", key=evil)
    for page in ("/", "/services", "/services/default/default/%3Cscript%3Ex%3C%2Fscript%3E&%22'"):
        text = ask(site, page, headers=HTML).text
        assert "<script>x" not in text
        assert "<img/src" not in text
    assert "&lt;script&gt;x" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://127.0.0.1:7421"}, 403),
        ({**OURS, "origin": "http://evil.example"}, 403),
        ({**OURS, "sec-fetch-site": "cross-site"}, 403),
        ({**OURS, "origin": "null"}, 403),
    ],
)
def test_other_pages_change_nothing(headers: dict[str, str], status: int) -> None:
    """What does not come from a page of the console is refused before it is looked at."""
    site = Site()
    site.register("a")
    target = "/do/services/default/default/orders/a/disable"
    assert ask(site, target, "POST", headers).status_code == status


def test_nothing_changes_by_reading() -> None:
    """An action is not a page."""
    answer = ask(Site(), "/do/services/default/default/orders/a/disable", headers=OURS)
    assert answer.status_code == 400


def test_files_are_kept_and_versions_do_not_mix() -> None:
    """A file's address holds its hash: it may be kept for ever, another version is not there."""
    site = Site()
    page = ask(site, "/", headers=HTML).text
    addresses = re.findall(r'(?:src|href)="(/static/[^"#]+)', page)
    assert len(addresses) >= 6
    for address in addresses:
        answer = ask(site, address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert ask(site, "/static/0000000000000000/console.css").status_code == 404
    assert ask(site, "/static/..%2F..%2Fconsole.py/x").status_code == 404


def test_a_page_that_is_not_there() -> None:
    """People get a page, programs a problem."""
    assert "<h1>Nothing is here</h1>" in ask(Site(), "/nothing", headers=HTML).text
    answer = ask(Site(), "/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_many_services_make_a_small_page() -> None:
    """Whatever there is, a page shows so much of it: 300 KB at most."""
    site = Site()
    for number in range(2_000):
        site.register("a", key=ServiceKey("default", "default", f"service-{number:05}"))
    for page in ("/", "/services", "/services?first=1950", "/services?q=service-0199"):
        answer = ask(site, page, headers=HTML)
        assert answer.status_code == 200
        assert len(answer.content) < 300_000
    assert "1–10 of 10" in answer.text


def test_language_follows_the_browser_and_the_choice() -> None:
    """The choice goes before the browser's wish, and is kept."""
    site = Site()
    chinese = {**HTML, "accept-language": "fr, zh-CN;q=0.9, en;q=0.8"}
    assert "总览" in ask(site, "/", headers=chinese).text
    answer = ask(site, "/?lang=en", headers=chinese)
    assert "Overview" in answer.text
    assert "ssgovern-language=en" in answer.headers["set-cookie"]
    kept = {**chinese, "cookie": "ssgovern-language=en"}
    assert "Overview" in ask(site, "/", headers=kept).text
    assert language_of("zh;q=x, en;q=0.1", "") == "en"


def test_words_are_there_in_both_languages() -> None:
    """Every text has the same gaps in both languages."""

    def gaps(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for name, texts in WORDS.items():
        assert len(texts) == len(LANGUAGES), name
        assert all(texts), name
        assert gaps(texts[0]) == gaps(texts[1]), name


def test_only_what_changed_is_told() -> None:
    """A page that is known is told what differs; one that is not, everything."""
    before = View({"a": "1", "b": "2"}, {"list": ["a"]}, {"rate": [(1, 1.0)]})
    after = View({"a": "1", "b": "3"}, {"list": ["a"]}, {"rate": [(1, 1.0), (2, 2.0)]})
    assert difference(before, before) == {}
    assert difference(before, after) == {"pieces": {"b": "3"}, "points": {"rate": [(2, 2.0)]}}
    assert difference(None, after)["all"] is True


def test_a_long_query_is_cut() -> None:
    """Nothing a query says makes a page fail."""
    site = Site()
    for query in ("first=x", "first=-1", "first=999999999", "q=" + "x" * 5000, "sort=evil", "%FF"):
        assert ask(site, f"/services?{query}", headers=HTML).status_code == 200


def test_numbers_are_written_for_people() -> None:
    """Counts, sizes and times are short."""
    assert count(1234567) == "1,234,567"
    sizes = [size(n) for n in (5, 2048, 5 << 20, 3 << 40)]
    assert sizes == ["5 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]
    assert [span(ms) for ms in (5, 61_000, 7_260_000, 90_000_000)] == [
        "5 ms",
        "1 min 1 s",
        "2 h 1 min",
        "1 d 1 h",
    ]
    assert dom_id("s", "a/b", "..") == dom_id("s", "a/b", "..")
    assert not re.search(r"[\s\"'<>&%/]", dom_id("i", "a b\"'<>&/%"))


def test_streams_are_few() -> None:
    """One page more than may be live is told so, and remembered pages are bounded."""
    console = console_of(Site())
    for _ in range(3 * limits.CONSOLE_STREAMS_MAX):
        console.streams.remember(View())
    assert len(console.streams._shown) == limits.CONSOLE_STREAMS_MAX
    assert ORDERS.service


class Watchman:
    """A gate that knows everybody, and nobody has a right."""

    def __init__(self) -> None:
        self.access = Access(lambda: 1_000, lambda: b"", required=True)

    def who(self, headers: object) -> Principal:
        return Principal("somebody", "user:somebody")

    def csrf(self, headers: object) -> str:
        return "shown-once"

    def check_csrf(self, headers: object) -> None:
        """Let it pass: rights are what is looked at."""


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/services/prod/default/orders"),
        ("GET", "/cluster"),
        ("GET", "/cluster/shard/1"),
        ("GET", "/sessions"),
        ("GET", "/events"),
        ("GET", "/audit"),
        ("GET", "/access"),
        ("GET", "/live/overview"),
        ("GET", "/live/services/prod/default/orders"),
        ("POST", "/do/services/prod/default/orders/a/disable"),
        ("POST", "/do/nodes/1/leave"),
        ("POST", "/do/shards/1/transfer/1"),
        ("POST", "/do/tokens/abc/revoke"),
    ],
)
def test_who_has_no_right_sees_and_does_nothing(method: str, target: str) -> None:
    """Every page, stream and action asks for a right."""
    site = Site()
    site.register("a")
    site.gateway = Unreachable()  # type: ignore[assignment]
    console = Console(site, lambda: 1_000, Watchman())
    for headers in (OURS, {**OURS, **HTML}):
        answer = ask(site, target, method, headers, console)
        assert answer.status_code == 403


def test_services_that_may_not_be_read_are_not_listed() -> None:
    """A list has only what whoever asks may read."""
    site = Site()
    site.register("a", key=ServiceKey("prod", "default", "secret-service"))
    site.gateway = Unreachable()  # type: ignore[assignment]
    answer = ask(site, "/services", headers=HTML, console=Console(site, lambda: 1_000, Watchman()))
    assert answer.status_code == 200
    assert "secret-service" not in answer.text
    assert "prod" not in answer.text
    assert "shown-once" in answer.text
