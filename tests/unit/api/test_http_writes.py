"""Changing instances over HTTP: leases, conditions, patches, and who acts as whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
from builders import ORDERS
from web import Site

from ssgovern import limits
from ssgovern.api.http import bodies, leases
from ssgovern.errors import ErrorCode, OutcomeUnknownError
from ssgovern.model import session_id_of, shard_of
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2

SERVICE = "/api/v1/namespaces/prod/services/default/orders"
A = f"{SERVICE}/instances/a"
BODY = {"host": "10.0.0.1", "port": 8080}


@pytest.fixture
def site() -> Site:
    return Site()


def refused(response: Any, status: int, code: ErrorCode) -> dict[str, Any]:
    """Check that an answer is a problem of this kind; return its fields."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    found = bodies.Problem.model_validate_json(response.content)
    assert (response.status_code, found.status, found.code) == (status, status, int(code))
    return found.fields


def lease_in(response: Any) -> dict[str, str]:
    """Return the header that shows the lease an answer gave."""
    return {"lease": response.json()["lease"]["token"]}


# --- registering --------------------------------------------------------------------------


def test_what_is_put_is_what_is_read(site: Site) -> None:
    """With every field, a lease of the time asked for, and the tag by which it is changed."""
    body = {
        **BODY,
        "weight": 2.5,
        "status": "starting",
        "zone": "east",
        "version": "7",
        "metadata": {"lane": "gray"},
        "ttl_ms": 60_000,
    }
    made = site.ask(A, "PUT", json=body)
    assert made.status_code == 201
    registered = bodies.Registered.model_validate_json(made.content)
    assert registered.lease is not None
    assert registered.lease.ttl_ms == 60_000
    read = site.ask(A)
    found = read.json()["instance"]
    assert {name: found[name] for name in body.keys() - {"ttl_ms"}} == {
        name: body[name] for name in body.keys() - {"ttl_ms"}
    }
    assert (found["ephemeral"], found["lease_ms"]) == (True, 60_000)
    assert made.headers["etag"] == read.headers["etag"] == f'"{found["revision"]}"'
    lease = site.rig.sessions.find(session_id_of(leases.secret_of(registered.lease.token)))
    assert lease is not None
    assert lease.is_lease


def test_a_registration_that_is_repeated_changes_nothing_more(site: Site) -> None:
    """Who shows the lease keeps it; the instance is there once."""
    made = site.ask(A, "PUT", json=BODY)
    again = site.ask(A, "PUT", lease_in(made), json=BODY)
    assert (again.status_code, again.json()["lease"]["token"]) == (
        200,
        made.json()["lease"]["token"],
    )
    assert site.rig.ids(ORDERS) == ["a"]
    assert len(site.rig.sessions) == 2  # the site's own, and one lease


def test_an_instance_that_stays_has_no_lease(site: Site) -> None:
    """It is of nobody; a lease with it is a mistake."""
    made = site.ask(A, "PUT", json={**BODY, "ephemeral": False})
    assert made.json()["lease"] is None
    assert not site.ask(A).json()["instance"]["ephemeral"]
    lease = {"lease": leases.token_of(b"x" * 16)}
    again = site.ask(A, "PUT", lease, json={**BODY, "ephemeral": False})
    refused(again, 400, ErrorCode.INVALID_ARGUMENT)


def test_an_id_is_brought_or_made(site: Site) -> None:
    """A post without one is host and port."""
    assert site.ask(f"{SERVICE}/instances", "POST", json=BODY).json()["id"] == "10.0.0.1:8080"
    named = site.ask(f"{SERVICE}/instances", "POST", json={**BODY, "id": "x"})
    assert (named.status_code, named.json()["id"]) == (201, "x")
    assert site.rig.ids(ORDERS) == ["10.0.0.1:8080", "x"]


def test_conditions_of_a_registration(site: Site) -> None:
    """Only if there is none, only if it is still that; else nothing is changed."""
    nobody = {"if-match": "*"}
    refused(site.ask(A, "PUT", nobody, json=BODY), 412, ErrorCode.REVISION_CONFLICT)
    only_new = {"if-none-match": "*"}
    made = site.ask(A, "PUT", only_new, json=BODY)
    assert made.status_code == 201
    again = site.ask(A, "PUT", only_new, json={**BODY, "port": 9})
    fields = refused(again, 412, ErrorCode.REVISION_CONFLICT)
    assert fields["revision"] == made.headers["etag"].strip('"')
    assert site.ask(A).json()["instance"]["port"] == 8080
    assert site.ask(A, "PUT", {"if-match": made.headers["etag"]}, json=BODY).status_code == 200
    stale = site.ask(A, "PUT", {"if-match": made.headers["etag"]}, json=BODY)
    refused(stale, 412, ErrorCode.REVISION_CONFLICT)


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": "80"},
        {"port": 1.5},
        {"host": ""},
        {"host": "a b"},
        {"weight": -1},
        {"weight": "NaN"},
        {"status": "gone"},
        {"nonsense": 1},
        {"ttl_ms": limits.LEASE_TTL_MS_MIN - 1},
        {"ttl_ms": limits.LEASE_TTL_MS_MAX + 1},
        {"metadata": {str(n): "" for n in range(limits.METADATA_PAIRS_MAX + 1)}},
        {"metadata": {"k": "v" * (limits.METADATA_VALUE_BYTES_MAX + 1)}},
        {"metadata": {"": "v"}},
        {"metadata": {"k": 1}},
        {"zone": "z" * 200},
    ],
    ids=str,
)
def test_a_body_that_is_not_understood_is_refused(change: dict[str, Any], site: Site) -> None:
    """Nothing of it is registered, and the answer names the field."""
    response = site.ask(A, "PUT", json={**BODY, **change})
    assert response.status_code == 400
    assert response.json()["fields"]
    assert site.rig.ids(ORDERS) == []


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"host": "h", "port": NaN}', "application/json", 400),
        (b'{"host": "\xff", "port": 1}', "application/json", 400),
        (b"[" * 20_000, "application/json", 400),
        (json.dumps(BODY).encode(), "text/plain", 415),
        (json.dumps(BODY).encode(), "", 415),
    ],
)
def test_bytes_that_are_no_body_are_refused(
    content: bytes, media_type: str, status: int, site: Site
) -> None:
    """A browser may send text to anybody unasked: it is no JSON."""
    response = site.ask(A, "PUT", {"content-type": media_type}, content=content)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


# --- leases -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["primary", "elsewhere"])
def test_a_lease_lives_as_long_as_it_is_renewed(where: str, site: Site) -> None:
    """Renewed it has its full time again; not renewed the instance is gone."""
    made = site.ask(A, "PUT", json={**BODY, "ttl_ms": 4000})
    site.rig.places.set(shard_of(*ORDERS), where)
    session = {"lease": made.json()["lease"]["token"]}
    lease = site.rig.sessions.find(session_id_of(leases.secret_of(session["lease"])))
    assert lease is not None
    heard_ms = lease.last_heard_ms
    renewed = site.ask(f"{A}/lease", "PUT", session)
    assert (renewed.status_code, renewed.json()["ttl_ms"]) == (200, 4000)
    assert lease.last_heard_ms >= heard_ms
    assert (MessageType.RENEW in site.gateway.asked) == (where == "elsewhere")


def test_a_lease_that_ended_says_register_again(site: Site) -> None:
    """And who registers again, with the same lease, is there again."""
    made = site.ask(A, "PUT", json=BODY)
    assert site.ask(A, "DELETE", lease_in(made)).json()["removed"]
    fields = refused(site.ask(f"{A}/lease", "PUT", lease_in(made)), 404, ErrorCode.SESSION_UNKNOWN)
    assert fields["field"] == "lease"
    assert site.ask(A, "PUT", lease_in(made), json=BODY).status_code == 201
    assert site.ask(f"{A}/lease", "PUT", lease_in(made)).status_code == 200


def test_many_leases_are_renewed_at_once(site: Site) -> None:
    """In their order; one that is gone does not keep the others from it."""
    places = []
    for number in range(20):
        name = f"s{number}"
        target = f"/api/v1/namespaces/prod/services/default/{name}/instances/a"
        token = lease_in(site.ask(target, "PUT", json=BODY))["lease"]
        places.append({"namespace": "prod", "group": "default", "service": name, "lease": token})
    places[7]["lease"] = leases.token_of(b"?" * 16)
    site.rig.places.set(shard_of("prod", "default", "s3"), "elsewhere")
    answer = site.ask("/api/v1/leases/renew", "POST", json={"leases": places})
    results = answer.json()["results"]
    assert [number for number, each in enumerate(results) if not each["renewed"]] == [7]
    assert results[7]["problem"]["code"] == ErrorCode.SESSION_UNKNOWN
    too_many = {"leases": places * 26}
    assert site.ask("/api/v1/leases/renew", "POST", json=too_many).status_code in (400, 413)


@pytest.mark.parametrize("token", ["", "x", "ssl_", "ssl_" + "!" * 22, "ssl_" + "a" * 23, "é" * 9])
def test_what_is_no_lease_is_refused(token: str, site: Site) -> None:
    """By its form already; it reaches no node."""
    response = site.ask(f"{A}/lease", "PUT", {"lease": token.encode()})
    refused(response, 400, ErrorCode.INVALID_ARGUMENT)
    refused(site.ask(f"{A}/lease", "PUT"), 400, ErrorCode.INVALID_ARGUMENT)
    assert site.gateway.asked == []


def test_somebody_elses_lease_is_no_right(site: Site) -> None:
    """Who shows a lease acts as its owner, and an owner of something else changes nothing."""
    site.ask(A, "PUT", json=BODY)
    other = lease_in(site.ask(f"{SERVICE}/instances/b", "PUT", json=BODY))
    for method, body in (("DELETE", None), ("PATCH", {"weight": 1})):
        refused(site.ask(A, method, other, json=body), 403, ErrorCode.NOT_OWNER)
    assert site.rig.ids(ORDERS) == ["a", "b"]


# --- changing -----------------------------------------------------------------------------


def test_a_patch_changes_what_it_names(site: Site) -> None:
    """Pairs of metadata one by one, null removes; the rest stays (RFC 7396)."""
    site.ask(A, "PUT", json={**BODY, "metadata": {"a": "1", "b": "2"}, "zone": "east"})
    patched = site.ask(A, "PATCH", json={"weight": 7, "metadata": {"b": None, "c": "3"}})
    found = patched.json()["instance"]
    assert (found["weight"], found["metadata"], found["zone"]) == (7, {"a": "1", "c": "3"}, "east")
    assert patched.headers["etag"] == f'"{found["revision"]}"'
    found = site.ask(A, "PATCH", json={"metadata": None, "status": "stopping"}).json()["instance"]
    assert (found["metadata"], found["status"], found["weight"]) == ({}, "stopping", 7)
    found = site.ask(A, "PATCH", json={"enabled": False}).json()["instance"]
    assert (found["enabled"], found["available"]) == (False, False)


def test_a_patch_of_what_changed_meanwhile_is_refused(site: Site) -> None:
    """Two who edit the same instance: the second is told."""
    made = site.ask(A, "PUT", json=BODY)
    tag = {"if-match": made.headers["etag"]}
    assert site.ask(A, "PATCH", tag, json={"weight": 1}).status_code == 200
    refused(site.ask(A, "PATCH", tag, json={"weight": 2}), 412, ErrorCode.REVISION_CONFLICT)
    refused(site.ask(A, "DELETE", tag), 412, ErrorCode.REVISION_CONFLICT)
    assert site.ask(A).json()["instance"]["weight"] == 1


@pytest.mark.parametrize("tag", ["x", "1", '"x"', '"0"', '"1", "2"', 'W/"1"', f'"{1 << 64}"'])
def test_a_tag_of_no_instance_is_refused(tag: str, site: Site) -> None:
    """A condition that is not understood must not be taken for one that holds."""
    site.ask(A, "PUT", json=BODY)
    refused(site.ask(A, "PATCH", {"if-match": tag}, json={"weight": 1}), 400, ErrorCode(1))


@pytest.mark.parametrize(
    "body", [{}, {"weight": None}, {"weight": -1}, {"id": "b"}, {"status": "x"}, {"metadata": 1}]
)
def test_a_patch_that_is_not_understood_is_refused(body: dict[str, Any], site: Site) -> None:
    """Nothing is changed."""
    made = site.ask(A, "PUT", json=BODY)
    refused(site.ask(A, "PATCH", json=body), 400, ErrorCode.INVALID_ARGUMENT)
    assert site.ask(A).headers["etag"] == made.headers["etag"]


def test_what_is_not_there_is_not_changed(site: Site) -> None:
    """A patch is told; a removal has nothing to do, unless it said that there is one."""
    refused(site.ask(A, "PATCH", json={"weight": 1}), 404, ErrorCode.NOT_FOUND)
    refused(site.ask(A, "PATCH", {"if-match": "*"}, json={"weight": 1}), 412, ErrorCode.NOT_FOUND)
    assert site.ask(A, "DELETE").json()["removed"] is False
    refused(site.ask(A, "DELETE", {"if-match": "*"}), 412, ErrorCode.NOT_FOUND)
    refused(site.ask(A), 404, ErrorCode.NOT_FOUND)


def test_an_outcome_nobody_knows_is_told_as_such(site: Site) -> None:
    """Who asked may look, and ask again."""
    site.gateway.fails = OutcomeUnknownError("the primary lost its office")
    refused(site.ask(A, "PUT", json=BODY), 504, ErrorCode.OUTCOME_UNKNOWN)


# --- draining -----------------------------------------------------------------------------


def test_an_instance_leaves_when_everybody_knows(site: Site) -> None:
    """Out of service first; deregistered after the last subscriber has applied that."""
    site.ask(A, "PUT", json=BODY)
    drained = site.ask(f"{A}/drain", "POST", json={"deregister": True}).json()
    assert (drained["applied"], drained["removed"]) == (True, True)
    asked = site.gateway.asked
    assert asked.index(MessageType.UPDATE) < asked.index(MessageType.AWAIT_APPLIED)
    assert asked.index(MessageType.AWAIT_APPLIED) < asked.index(MessageType.DEREGISTER)
    assert site.rig.ids(ORDERS) == []


def test_an_instance_stays_while_somebody_does_not_know(site: Site) -> None:
    """Out of service, and the answer names who lacks it."""
    site.ask(A, "PUT", json=BODY)
    site.gateway.applied = applied_pb2.AwaitAppliedResponse(
        lacking=[applied_pb2.ServiceSubscriber(session_id=b"\x07", client_name="slow", says=True)],
        lacking_total=1,
        subscribers_total=3,
    )
    drained = site.ask(f"{A}/drain", "POST", json={"deregister": True}).json()
    assert (drained["applied"], drained["removed"], drained["subscribers"]) == (False, False, 3)
    assert drained["lacking"][0]["client_name"] == "slow"
    assert not site.ask(A).json()["instance"]["enabled"]


def test_subscribers_are_told_with_what_they_have(site: Site) -> None:
    """Of every node, with the node they are connected to."""
    site.gateway.subscribers = applied_pb2.SubscribersResponse(
        subscribers=[applied_pb2.ServiceSubscriber(session_id=b"\x07", says=True, revision=9)]
    )
    found = bodies.Subscribers.model_validate_json(site.ask(f"{SERVICE}/subscribers").content)
    assert [(each.session_id, each.node_id, each.revision) for each in found.subscribers] == [
        ("07", 2, 9)
    ]
    assert found.complete


# --- the cluster --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("leave", {"node": 2}),
        ("stay", {"node": 2}),
        ("transfer", {"shard": 255, "to": 2}),
        ("transfer-controller", {"node": 2}),
        ("settings", {"copies": 3}),
    ],
)
def test_commands_reach_the_controller(command: str, body: dict[str, int], site: Site) -> None:
    """The answer is what was decided; a body of something else is refused."""
    target = f"/api/v1/cluster/{command}"
    assert "decided" in site.ask(target, "POST", json=body).json()["sentence"]
    for bad in ({}, {"node": 0, "shard": 0}, {**body, "more": 1}):
        refused(site.ask(target, "POST", json=bad), 400, ErrorCode.INVALID_ARGUMENT)


# --- other origins ------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_pages_of_other_origins_change_nothing(origin: str, site: Site) -> None:
    """Not even with a request that browsers send without asking."""
    site.ask(A, "PUT", json=BODY)
    for method, target in (("POST", f"{A}/drain"), ("DELETE", A), ("PUT", f"{A}/lease")):
        refused(site.ask(target, method, {"origin": origin}), 403, ErrorCode.PERMISSION_DENIED)
    assert site.ask(A).json()["instance"]["enabled"]


def test_our_own_pages_may_change_things(site: Site) -> None:
    """The console is one of them."""
    origin = {"origin": "http://127.0.0.1:7421"}
    assert site.ask(A, "PUT", origin, json=BODY).status_code == 201
