"""The open API over ASGI: documents, pages, tags, and errors that programs can read."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from urllib.parse import quote

import pytest
from builders import ORDERS
from web import Site

from ssgovern import limits
from ssgovern.api.http import bodies
from ssgovern.api.http.listing import glob_matches
from ssgovern.api.http.openapi import openapi_document
from ssgovern.api.http.operations import DOCUMENT_PATH, OPERATIONS
from ssgovern.api.http.problems import STATUSES
from ssgovern.errors import DeadlineExceededError, ErrorCode
from ssgovern.model import ServiceKey, shard_of
from ssgovern.wire.frames import MessageType

SERVICE = "/api/v1/namespaces/prod/services/default/orders"
SERVICES = "/api/v1/namespaces/prod/services"


@pytest.fixture
def site() -> Site:
    return Site()


def problem(response: object, status: int, code: ErrorCode) -> dict[str, object]:
    """Check that an answer is a problem of this kind; return it."""
    assert (response.status_code, response.headers["content-type"]) == (  # type: ignore[attr-defined]
        status,
        "application/problem+json",
    )
    found = bodies.Problem.model_validate_json(response.content)  # type: ignore[attr-defined]
    assert (found.status, found.code) == (status, int(code))
    return found.model_dump()


# --- instances ----------------------------------------------------------------------------


def test_a_service_is_told_with_all_its_instances(site: Site) -> None:
    """What was registered is what is read."""
    site.register("a", "b", metadata={"lane": "gray"}, zone="east")
    body = bodies.InstancePage.model_validate_json(site.ask(SERVICE).content)
    assert [each["id"] for each in body.instances] == ["a", "b"]
    assert body.total == 2
    assert body.next_page_token is None
    first = body.instances[0]
    assert (first["host"], first["port"], first["zone"], first["metadata"]) == (
        "10.0.0.1",
        8080,
        "east",
        {"lane": "gray"},
    )
    assert first["available"]
    assert first["ephemeral"]
    assert body.revision == site.rig.registry.state_of(ORDERS).services[ORDERS].revision


def test_a_service_nobody_registered_is_empty(site: Site) -> None:
    """It is not an error to ask for what is not there yet."""
    body = site.ask("/api/v1/namespaces/prod/services/default/nobody").json()
    assert (body["total"], body["instances"], body["revision"]) == (0, [], 0)


def test_a_tag_holds_until_the_service_changes(site: Site) -> None:
    """If-None-Match saves the answer, weak and in a list too, until there is news."""
    site.register("a")
    tag = site.ask(SERVICE).headers["etag"]
    for header in (tag, f'W/{tag}, "x"', f'"x",{tag}', "*"):
        again = site.ask(SERVICE, headers={"if-none-match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    site.register("b")
    news = site.ask(SERVICE, headers={"if-none-match": tag})
    assert news.status_code == 200
    assert news.headers["etag"] != tag


def test_pages_of_a_service_are_all_of_one_revision(site: Site) -> None:
    """Every instance once, or word that the service changed meanwhile."""
    site.register(*(f"i{number}" for number in range(7)))
    seen: list[str] = []
    token = ""
    tags = []
    while True:
        answer = site.ask(f"{SERVICE}?page_size=3&page_token={token}")
        seen += [each["id"] for each in answer.json()["instances"]]
        tags.append(answer.headers["etag"])
        if answer.json()["next_page_token"] is None:
            break
        token = answer.json()["next_page_token"]
    assert seen == [f"i{number}" for number in range(7)]
    assert len(set(tags)) == 3
    site.register("late")
    found = problem(site.ask(f"{SERVICE}?page_token={token}"), 409, ErrorCode.REVISION_CONFLICT)
    assert found["fields"] == {"field": "page_token"}


@pytest.mark.parametrize("token", ["x", "1", "1.2", "1.2.x", "1.2.-3", "1.2.３", "9" * 1025])
def test_a_token_that_was_not_given_out_is_refused(token: str, site: Site) -> None:
    """Nobody gets a page by guessing."""
    site.register("a")
    problem(site.ask(f"{SERVICE}?page_token={token}"), 400, ErrorCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("name", ["a/b", "..", "订单", "a%2Fb", "a+b", "x;y", "<script>"])
def test_a_name_is_one_part_of_the_path_whatever_is_in_it(name: str, site: Site) -> None:
    """Slashes, dots and letters of all scripts are encoded, decoded once, and mean nothing."""
    key = ServiceKey("prod", name, name)
    site.register("a", key=key)
    target = f"{SERVICES}/{quote(name, safe='')}/{quote(name, safe='')}".replace("..", "%2E%2E")
    body = site.ask(target).json()
    assert (body["group"], body["service"], body["total"]) == (name, name, 1)


@pytest.mark.parametrize("name", ["", "a b", "a*", "a@@b", "%FF", "a%00", "x" * 257])
def test_what_is_no_name_is_refused(name: str, site: Site) -> None:
    """By the rules of every other way in."""
    target = f"{SERVICES}/default/{name if '%' in name else quote(name, safe='')}"
    response = site.ask(target)
    assert response.status_code in (400, 404)
    assert response.headers["content-type"] == "application/problem+json"


# --- filters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("zone=east", ["a"]),
        ("available=true", ["a", "b"]),
        ("available=false", ["c"]),
        ("healthy=true&zone=west", ["b", "c"]),
        ("metadata=lane=gray", ["a", "c"]),
        ("metadata=lane=gray&metadata=v%3D1=", ["c"]),
        ("metadata=lane=", []),
        ("version=2", ["b"]),
        ("enabled=false", []),
    ],
)
def test_instances_are_filtered(query: str, ids: list[str], site: Site) -> None:
    """Each filter by itself and together: all have to hold."""
    site.register("a", zone="east", metadata={"lane": "gray"})
    site.register("b", zone="west", version="2")
    site.register("c", zone="west", weight=0.0, metadata={"lane": "gray", "v": "1="})
    if "v%3D1" in query:
        query = query.replace("v%3D1=", "v=1%3D")
    assert [each["id"] for each in page_ids(site, f"?{query}")] == ids


def test_a_filter_looks_at_so_many_instances_at_a_time(site: Site) -> None:
    """A page may be short; its token leads on until all were looked at."""
    site.register(*(f"i{number}" for number in range(1000)))
    site.register("late", zone="east")
    seen, token, pages = [], "", 0
    while token is not None:
        page = site.ask(f"{SERVICE}?zone=east&page_size=1&page_token={token}").json()
        seen += [each["id"] for each in page["instances"]]
        token, pages = page["next_page_token"], pages + 1
    assert (seen, pages) == (["late"], 1)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=*", ["orders", "pay", "payout"]),
        ("name=pay*", ["pay", "payout"]),
        ("name=*ou*t", ["payout"]),
        ("name=p?y", ["pay"]),
        ("name=pay", ["pay"]),
        ("name=*y*&prefix=payo", ["payout"]),
        ("name=o*&prefix=p", []),
        ("health=all", ["orders", "payout"]),
        ("health=some", ["pay"]),
        ("health=none", []),
    ],
)
def test_services_are_filtered(query: str, names: list[str], site: Site) -> None:
    """By pattern and by how many instances take traffic, on one page or on several."""
    for name in ("orders", "pay", "payout"):
        site.register("a", key=ServiceKey("prod", "default", name))
    site.register("b", key=ServiceKey("prod", "default", "pay"), weight=0.0)
    for size in (1, 100):
        seen: list[str] = []
        token: str | None = ""
        while token is not None:
            page = site.ask(f"{SERVICES}?{query}&page_size={size}&page_token={quote(token)}").json()
            seen += [each["service"] for each in page["services"]]
            token = page["next_page_token"]
        assert seen == names


def test_a_pattern_of_many_stars_is_no_trouble() -> None:
    """What would take a backtracking matcher for ever takes this one a moment."""
    assert not glob_matches("*a" * 100 + "b", "a" * 256)
    assert glob_matches("*a" * 100, "a" * 256)


def test_namespaces_are_listed_wherever_they_are(site: Site) -> None:
    """In order, each once, in pages."""
    for namespace in ("prod", "dev", "prod-2", "测试"):
        for name in ("a", "b"):
            site.register("a", key=ServiceKey(namespace, "default", name))
    for where in ("primary", "elsewhere"):
        site.rig.places.set(shard_of(*ORDERS), where)
        seen: list[str] = []
        token: str | None = ""
        while token is not None:
            page = site.ask(f"/api/v1/namespaces?page_size=2&page_token={quote(token)}").json()
            seen += [each["namespace"] for each in page["namespaces"]]
            token = page["next_page_token"]
        assert seen == ["dev", "prod", "prod-2", "测试"]
    assert len(site.ask("/api/v1/namespaces?prefix=prod").json()["namespaces"]) == 2


# --- services -----------------------------------------------------------------------------


def test_services_come_in_pages_in_the_order_of_their_names(site: Site) -> None:
    """Each once, filtered by group and prefix."""
    for group, name in (("g1", "pay"), ("g1", "payout"), ("g2", "pay"), ("g1", "orders")):
        site.register("a", key=ServiceKey("prod", group, name))
    site.register("a", key=ServiceKey("test", "g1", "pay"))
    seen = []
    token: str | None = ""
    while token is not None:
        page = site.ask(f"{SERVICES}?page_size=1&page_token={quote(token)}").json()
        seen += [(each["group"], each["service"]) for each in page["services"]]
        token = page["next_page_token"]
    assert seen == [("g1", "orders"), ("g1", "pay"), ("g1", "payout"), ("g2", "pay")]
    found = site.ask(f"{SERVICES}?group=g1&prefix=pay").json()
    assert [each["service"] for each in found["services"]] == ["pay", "payout"]
    assert found["complete"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        (f"page_size={limits.HTTP_PAGE_MAX + 1}", "page_size"),
        ("page_size=x", "page_size"),
        ("prefx=a", "prefx"),
        ("prefix=a&prefix=b", "query"),
        ("prefix=%FF", "query"),
        ("scope=all", "scope"),
        ("group=a b", "group"),
        (f"page_token={'x' * 1025}", "page_token"),
        ("&".join(f"a{n}=1" for n in range(40)), "query"),
    ],
)
def test_a_parameter_that_is_not_understood_is_refused(query: str, field: str, site: Site) -> None:
    """A misspelt filter must not answer with everything."""
    response = site.ask(f"{SERVICES}?{query}")
    assert response.status_code == 400
    assert response.json()["fields"]["field"] == field


# --- a node that does not hold everything -------------------------------------------------


def test_what_another_node_holds_is_asked_there(site: Site) -> None:
    """Whichever node is asked, the answer is the same, tag and pages included."""
    site.register("a", "b", "c")
    here = site.ask(SERVICE)
    assert site.gateway.asked == []
    site.rig.places.set(shard_of(*ORDERS), "elsewhere")
    there = site.ask(SERVICE)
    assert site.gateway.asked == [MessageType.GET]
    assert (there.json(), there.headers["etag"]) == (here.json(), here.headers["etag"])
    token = site.ask(f"{SERVICE}?page_size=2").json()["next_page_token"]
    assert [each["id"] for each in page_ids(site, f"?page_size=2&page_token={token}")] == ["c"]
    assert site.ask(f"{SERVICE}/instances/b").json()["instance"]["id"] == "b"


def page_ids(site: Site, query: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = site.ask(SERVICE + query).json()["instances"]
    return found


def test_a_replica_is_passed_over_if_nothing_may_be_missed(site: Site) -> None:
    """`fresh` is answered by the primary."""
    site.register("a")
    site.rig.places.set(shard_of(*ORDERS), "replica")
    assert site.ask(f"{SERVICE}?fresh=true").json()["total"] == 1
    assert site.ask(f"{SERVICE}/instances/a?fresh=true").status_code == 200
    assert site.gateway.asked == [MessageType.GET, MessageType.GET]


def test_services_of_all_nodes_come_in_one_order(site: Site) -> None:
    """Pages are put together from those of the primaries: each service once, none missing."""
    names = [f"s{number:02}" for number in range(25)]
    for name in names:
        site.register("a", key=ServiceKey("prod", "default", name))
    site.rig.places.set(shard_of(*ORDERS), "elsewhere")
    seen: list[str] = []
    token: str | None = ""
    while token is not None:
        page = site.ask(f"{SERVICES}?page_size=4&page_token={quote(token)}").json()
        assert page["complete"]
        seen += [each["service"] for each in page["services"]]
        token = page["next_page_token"]
    assert seen == names


def test_a_node_that_cannot_be_reached_fails_the_page(site: Site) -> None:
    """A list that silently lacks what one node has would be a false one."""
    site.rig.places.set(shard_of(*ORDERS), "elsewhere")
    site.gateway.fails = DeadlineExceededError("node 2 did not answer")
    problem(site.ask(SERVICES), 504, ErrorCode.DEADLINE_EXCEEDED)
    problem(site.ask(SERVICE), 504, ErrorCode.DEADLINE_EXCEEDED)


def test_a_node_tells_what_it_holds_if_that_is_asked(site: Site) -> None:
    """And says that it is not all."""
    other = ServiceKey("prod", "default", "other")
    site.register("a")
    site.register("a", key=other)
    site.rig.places.set(shard_of(*ORDERS), "elsewhere")
    page = site.ask(f"{SERVICES}?scope=node").json()
    assert [each["service"] for each in page["services"]] == ["other"]
    assert not page["complete"]


def test_a_replica_is_as_good_for_reading(site: Site) -> None:
    """Who is not primary answers from its copy."""
    site.register("a")
    site.rig.places.set(shard_of(*ORDERS), "replica")
    assert site.ask(SERVICE).json()["total"] == 1


# --- the rest -----------------------------------------------------------------------------


def test_the_cluster_is_told_in_three_parts(site: Site) -> None:
    """At a glance, by node, by shard."""
    assert site.ask("/api/v1/cluster").json()["nodes_live"] == 1
    assert site.ask("/api/v1/cluster/nodes").json()["nodes"][0]["name"] == "site"
    shards = site.ask("/api/v1/cluster/shards").json()["shards"]
    assert [each["shard"] for each in shards] == list(range(256))
    assert site.ask("/api/v1/status").json()["ready"]


def test_a_node_lives_before_it_is_ready(site: Site) -> None:
    """A supervisor must not kill a node that recovers, and nobody be sent to it."""
    site.is_starting, site.why_not = True, "still starting"
    assert site.ask("/healthz/live").status_code == 200
    ready = site.ask("/healthz/ready")
    assert (ready.status_code, ready.json()["detail"]) == (503, "still starting")
    refused = site.ask(SERVICE)
    problem(refused, 503, ErrorCode.UNAVAILABLE)
    assert refused.headers["retry-after"] == "1"
    site.is_starting, site.why_not = False, ""
    assert site.ask("/healthz/ready").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_what_a_path_is_not_for_is_refused(method: str, site: Site) -> None:
    """The answer says what it is for, and nothing invites other origins in."""
    response = site.ask(SERVICE, method, {"origin": "http://evil.example"})
    problem(response, 405, ErrorCode.UNSUPPORTED_TYPE)
    assert response.headers["allow"] == "GET, HEAD"
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "target", ["/none", "/api", "/api/v1/", "/API/v1/status", "/api/v1/status/", "//evil.example/"]
)
def test_what_is_not_there_is_a_problem_and_no_redirect(target: str, site: Site) -> None:
    """No page sends anybody elsewhere."""
    response = site.ask(f"http://127.0.0.1:7421{target}")
    problem(response, 404, ErrorCode.NOT_FOUND)
    assert "location" not in response.headers


def test_head_has_the_headers_and_no_body(site: Site) -> None:
    """As for a GET."""
    response = site.ask(SERVICE, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["etag"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7421", 200),
        ("[::1]:7421", 200),
        ("localhost", 200),
        ("site.example:80", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("[evil.example]", 400),
    ],
)
def test_on_loopback_a_foreign_name_is_refused(host: str, status: int, site: Site) -> None:
    """A page whose own name was pointed at this machine reads nothing (DNS rebinding)."""
    assert site.ask("/api/v1/status", headers={"host": host}).status_code == status


def test_a_fault_of_ours_is_a_500_that_tells_nothing_and_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The next request is answered as if nothing had been."""
    del site.rig.states[:]
    with caplog.at_level(logging.ERROR, "ssgovern.http"):
        response = site.ask(SERVICE)
    assert response.status_code == 500
    assert "IndexError" not in response.text
    assert "IndexError" in caplog.text
    assert site.ask("/healthz/live").status_code == 200
    assert site.front.answers[5] == 1


def test_every_code_has_a_status() -> None:
    """None of ours comes out as a bare 500 because somebody forgot the table."""
    assert list(STATUSES) == list(ErrorCode)


# --- the description ----------------------------------------------------------------------


def test_the_description_is_served_and_complete(site: Site) -> None:
    """Every operation is in it, every reference leads somewhere, every answer has a type."""
    served = site.ask(DOCUMENT_PATH).json()
    assert served == json.loads(json.dumps(openapi_document(OPERATIONS)))
    assert served["openapi"] == "3.1.0"
    described = [(path, method) for path, found in served["paths"].items() for method in found]
    assert sorted(described) == sorted((each.path, each.method.lower()) for each in OPERATIONS)
    text = json.dumps(served)
    for model in re.findall(r"#/components/schemas/(\w+)", text):
        assert model in served["components"]["schemas"]
    ids = [each["operationId"] for path in served["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_an_answer_is_what_its_description_says(operation, site: Site) -> None:  # type: ignore[no-untyped-def]
    """The document's type takes it, with nothing too much and nothing missing."""
    site.register("a", metadata={"k": "v"})
    if operation.method != "GET":
        pytest.skip("tested with what it changes")
    target = operation.path.format(namespace="prod", group="default", service="orders", id="a")
    operation.answer.model_validate_json(site.ask(target).content, strict=True)


def test_a_page_tells_people_the_same(site: Site) -> None:
    """Every operation is on it, and it needs nothing: no script, no image, no other host."""
    page = site.ask("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for operation in OPERATIONS:
        assert f"<article id={operation.id}>" in page.text
        assert operation.path in page.text
    assert not re.search(r"<script|<img|<link|https?://|style=|\son\w+=", page.text)
    style = re.search(r"<style>(.*?)</style>", page.text, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
