"""Access control over HTTP: who is let in by header or cookie, and what each operation takes."""

from __future__ import annotations

import re

import httpx
import pytest
from web import Site

from ssgovern import limits
from ssgovern.api.http.auth import Attempts, Gate
from ssgovern.api.http.front import Front
from ssgovern.api.http.operations import OPERATIONS, Operation
from ssgovern.client.auditing import AuditPage
from ssgovern.controller.access import AccessState, Grant, Role, Token, User
from ssgovern.errors import ErrorCode, TooManyAttemptsError
from ssgovern.service.access import Access, token_hash
from ssgovern.service.audit import Audit
from ssgovern.wire.pb import native_pb2

SECRET = bytes(range(32)).hex()
HASH = token_hash(SECRET)
ORDERS = "/api/v1/namespaces/prod/services/default/orders"
ROLES = {
    "reader": {"read"},
    "registrar": {"read", "register"},
    "operator": {"read", "register", "write"},
    "admin": {"read", "register", "write", "admin"},
}
BODY = {"content-type": "application/json"}


class PlainPasswords:
    """Hashes that are the passwords themselves; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def verify(self, hashed: str, password: str) -> bool:
        self.asked += 1
        return bool(hashed) and hashed == password


class Guarded(Site):
    """A site whose access is controlled: one token for each role, and a user ann."""

    def __init__(self, *, secure: bool = False) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.access = Access(lambda: self.now_ms, lambda: b"")
        self.set_up()
        self.passwords = PlainPasswords()
        self.audit = Audit(lambda: self.now_ms)
        self.gate = Gate(
            self.access,
            self.passwords,
            lambda: self.now_ms,
            self.runtime.random_bytes,
            secure=secure,
            audit=self.audit,
        )
        self.front = Front(self, hosts=("site.example",), gate=self.gate)

    def set_up(self, **changed: object) -> None:
        tokens = [Token(role, HASH, roles=(role,)) for role in (*ROLES, "shop")]
        shop = Role("shop", (Grant("prod", "default/shop-*", ("read", "register", "write")),))
        users = [User("ann", "correct horse", ("operator",)), User("bob", "", ("reader",))]
        state = AccessState(
            {user.name: user for user in users},
            {token.id: token for token in tokens},
            {"shop": shop},
        )
        self.access.replace(state)

    def log_in(self, user: str = "ann", password: str = "correct horse") -> httpx.Response:
        return self.ask(
            "/login",
            "POST",
            headers={"content-type": "application/x-www-form-urlencoded"},
            content=httpx.QueryParams(user=user, password=password).__str__().encode(),
        )

    def cookie(self) -> str:
        return self.log_in().headers["set-cookie"].partition(";")[0]


@pytest.fixture
def site() -> Guarded:
    return Guarded()


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer ssg_{role}_{SECRET}"}


def path_of(operation: Operation) -> str:
    names = {
        "namespace": "prod",
        "group": "default",
        "service": "orders",
        "shard": "1",
        "node": "1",
    }
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], "x"), operation.path)


# --- who is let in ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer ssg_reader_{SECRET[:-1]}0"},
        {"authorization": f"Bearer ssg_nosuch_{SECRET}"},
        {"authorization": f"Basic ssg_reader_{SECRET}"},
        {"authorization": "Bearer ssg_node_" + "0" * 64},
        {"authorization": "Bearer " + "x" * 5_000},
        {"cookie": "ssgovern-session=" + "0" * 64},
        {"cookie": "ssgovern-session="},
    ],
)
def test_who_shows_nothing_that_is_known_is_refused(headers: dict[str, str], site: Guarded) -> None:
    """Anonymous, tampered, made up: 401, and how to be known, for every operation."""
    for operation in OPERATIONS:
        answer = site.ask(path_of(operation), operation.method, headers=headers)
        assert answer.status_code == 401, operation.id
        assert answer.json()["code"] == ErrorCode.UNAUTHENTICATED
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_for_everybody_and_metrics_are_not(site: Guarded) -> None:
    """A supervisor needs no token; what counts things takes the right to read."""
    assert site.ask("/healthz/live").status_code == 200
    assert site.ask("/healthz/ready").status_code == 200
    assert site.ask("/metrics").status_code == 401
    assert site.ask("/metrics", headers=bearer("reader")).status_code == 200


@pytest.mark.parametrize("role", ROLES)
def test_each_operation_takes_its_right(role: str, site: Guarded) -> None:
    """For each operation and each role: 403 exactly if the role has not what the table says."""
    for operation in OPERATIONS:
        answer = site.ask(
            path_of(operation),
            operation.method,
            headers={**bearer(role), **BODY},
            content=b"{}" if operation.body is not None else None,
        )
        denied = answer.status_code == 403 and answer.json()["code"] == ErrorCode.PERMISSION_DENIED
        if answer.status_code != 400 or operation.body is None:
            assert denied is (operation.action not in ROLES[role]), operation.id


def test_every_operation_that_changes_takes_more_than_reading() -> None:
    """An operation that is added with a method that changes cannot be left open to readers."""
    for operation in OPERATIONS:
        if operation.method != "GET":
            assert operation.action != "read", operation.id


def test_a_right_is_for_its_services(site: Guarded) -> None:
    """Another service, group or namespace is refused, and the error says what is missing."""
    shop = "/api/v1/namespaces/prod/services/default/shop-cart"
    assert site.ask(shop, headers=bearer("shop")).status_code == 200
    for target in (ORDERS, shop.replace("prod", "test"), shop.replace("default", "other")):
        answer = site.ask(target, headers=bearer("shop"))
        assert answer.status_code == 403
        assert answer.json()["fields"]["action"] == "read"
    for tricky in ("/shop-%2e%2e%2forders", "/%2e%2e", "/shop-cart%2f..%2f..%2forders"):
        answer = site.ask(
            "/api/v1/namespaces/test/services/default" + tricky, headers=bearer("shop")
        )
        assert answer.status_code == 403
    assert site.ask("/api/v1/namespaces/prod/services", headers=bearer("shop")).status_code == 403
    assert (
        site.ask(
            "/api/v1/namespaces/prod/services?group=default&prefix=shop-", headers=bearer("shop")
        ).status_code
        == 200
    )


def test_rights_that_are_taken_are_gone_with_the_next_request(site: Guarded) -> None:
    """A token that is revoked ends at once, also what has been logged in."""
    cookie = {"cookie": site.cookie()}
    assert site.ask(ORDERS, headers=cookie).status_code == 200
    site.access.replace(AccessState({"zoe": User("zoe", "x", ("admin",))}))
    assert site.ask(ORDERS, headers=cookie).status_code == 401
    assert site.ask(ORDERS, headers=bearer("reader")).status_code == 401


# --- logging in ---------------------------------------------------------------------------


def test_who_logs_in_reads_by_the_cookie_alone(site: Guarded) -> None:
    """The cookie is out of reach of scripts and other sites, and is good for reading."""
    answer = site.log_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=Strict" in said
    assert "Secure" not in said
    cookie = said.partition(";")[0]
    assert site.ask(ORDERS, headers={"cookie": cookie}).status_code == 200
    assert site.ask(ORDERS, headers={"cookie": f"a=b; {cookie}; c=d"}).status_code == 200


def test_over_tls_the_cookie_stays_there() -> None:
    """A port with TLS gives a cookie that is never sent without, nor set by other hosts."""
    said = Guarded(secure=True).log_in().headers["set-cookie"]
    assert said.startswith("__Host-")
    assert "; Secure" in said


def test_a_cookie_changes_nothing_without_its_token(site: Guarded) -> None:
    """Another site's form has the cookie sent, and not what the page was given."""
    cookie = site.cookie()
    target = f"{ORDERS}/instances/a"
    change = {"cookie": cookie, **BODY}
    for csrf in ({}, {"x-csrf-token": "0" * 64}, {"x-csrf-token": ""}):
        answer = site.ask(target, "PATCH", headers={**change, **csrf}, json={"weight": 2})
        assert answer.status_code == 403
        assert answer.json()["fields"] == {"field": "x-csrf-token"}
    right = {"x-csrf-token": site.gate.csrf({"cookie": cookie})}
    answer = site.ask(target, "PATCH", headers={**change, **right}, json={"weight": 2})
    assert answer.status_code == 404
    other = site.ask(
        target, "PATCH", headers={**change, **right, "origin": "http://evil.example"}, json={}
    )
    assert other.status_code == 403


def test_who_logs_out_is_out(site: Guarded) -> None:
    """The cookie is good for nothing then, wherever it was copied to."""
    cookie = {"cookie": site.cookie()}
    assert site.ask("/logout", "POST", headers=cookie).status_code == 403
    csrf = {"x-csrf-token": site.gate.csrf(cookie)}
    answer = site.ask("/logout", "POST", headers={**cookie, **csrf})
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert site.ask(ORDERS, headers=cookie).status_code == 401


def test_a_login_ends_by_itself(site: Guarded) -> None:
    """After its time the cookie is nobody's."""
    cookie = {"cookie": site.cookie()}
    site.now_ms += limits.HTTP_LOGIN_MS
    assert site.ask(ORDERS, headers=cookie).status_code == 401


@pytest.mark.parametrize(
    ("user", "password"),
    [("ann", "wrong"), ("nobody", "correct horse"), ("bob", ""), ("", ""), ("ann", "")],
)
def test_wrong_names_and_passwords_are_told_alike(user: str, password: str, site: Guarded) -> None:
    """The answer is the same, and a password is compared in each case: it takes as long."""
    answer = site.log_in(user, password)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "name or password is wrong"
    assert "set-cookie" not in answer.headers
    assert site.passwords.asked == 1


def test_guessing_is_slowed_down(site: Guarded) -> None:
    """After a few failures nothing is even compared for a while, not the right password either."""
    for _ in range(limits.HTTP_LOGIN_FAILURES_MAX):
        assert site.log_in("ann", "wrong").status_code == 401
    asked = site.passwords.asked
    answer = site.log_in()
    assert answer.status_code == 429
    assert int(answer.json()["fields"]["retry_after_s"]) >= 1
    assert site.passwords.asked == asked
    site.now_ms += limits.HTTP_LOGIN_PAUSE_MS_MAX
    assert site.log_in().status_code == 303


def test_failures_are_counted_for_a_bounded_number() -> None:
    """However many names are tried, memory is not what they take; the pause has an end."""
    attempts = Attempts()
    for number in range(limits.HTTP_LOGIN_ATTEMPTS_MAX + 10):
        attempts.note(f"as {number}", 0)
    assert len(attempts) == limits.HTTP_LOGIN_ATTEMPTS_MAX
    for _ in range(1_000):
        attempts.note("as ann", 0)
    with pytest.raises(TooManyAttemptsError):
        attempts.check("as ann", limits.HTTP_LOGIN_PAUSE_MS_MAX - 1)
    attempts.check("as ann", limits.HTTP_LOGIN_PAUSE_MS_MAX)


def test_a_login_is_a_small_form(site: Guarded) -> None:
    """What is longer than a name and a password is refused before it is kept."""
    answer = site.log_in("ann", "x" * limits.HTTP_LOGIN_BYTES_MAX)
    assert answer.status_code == 400
    assert site.passwords.asked == 0


def test_the_page_of_the_login_runs_no_script(site: Guarded) -> None:
    """What somebody typed is shown as text, under a policy that allows no script at all."""
    page = site.ask("/login")
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for _ in range(2):
        answer = site.ask(
            "/login", "POST", headers={"accept": "text/html"}, content=b"user=<script>&password=x"
        )
        assert answer.status_code == 401
        assert "<script>" not in answer.text


def test_nothing_is_asked_where_access_is_not_controlled() -> None:
    """On loopback, with nobody set up, a gate lets everybody through."""
    site = Site()
    gate = Gate(
        Access(lambda: 0, bytes),
        PlainPasswords(),
        lambda: 0,
        site.runtime.random_bytes,
        secure=False,
    )
    site.front = Front(site, gate=gate)
    assert site.ask(ORDERS).status_code == 200
    assert site.ask("/metrics").status_code == 200


def test_changes_and_refusals_are_written_down(site: Guarded) -> None:
    """What is changed and who is refused is in the audit, with who it was and without secrets;
    what is read is not."""
    site.ask(ORDERS, headers=bearer("reader"))
    site.ask(f"{ORDERS}/instances/a", "PATCH", headers={**bearer("operator"), **BODY}, json={})
    site.ask(f"{ORDERS}/instances/a", "PATCH", headers={**bearer("reader"), **BODY}, json={})
    site.ask(ORDERS)
    site.log_in("ann", "not this one")
    page = site.audit.page(native_pb2.AuditRequest())
    seen = [(each.who, each.action, each.outcome) for each in reversed(page.entries)]
    assert seen == [
        ("token operator", "patch", "invalid_argument"),
        ("token reader", "patch", "permission_denied"),
        ("anybody", "get", "unauthenticated"),
        ("anybody", "post", "unauthenticated"),
    ]
    said = page.SerializeToString()
    assert SECRET.encode() not in said
    assert b"not this one" not in said


def test_what_was_wanted_is_written_down_without_secrets(site: Guarded) -> None:
    """Fields of a body, whatever came of it; of leases that are renewed, nothing."""
    target = f"{ORDERS}/instances/a"
    body = {"weight": 7, "enabled": False, "metadata": {"team": "x", "old": None}}
    for role in ("operator", "reader"):
        site.ask(target, "PATCH", headers={**bearer(role), **BODY}, json=body)
    renewal = {"namespace": "prod", "group": "default", "service": "orders", "lease": "hush"}
    site.ask("/api/v1/leases/renew", "POST", headers=bearer("reader"), json={"leases": [renewal]})
    site.ask(
        f"{target}/drain",
        "POST",
        headers={**bearer("reader"), "lease": "hush"},
        json={"deregister": True},
    )
    page = site.audit.page(native_pb2.AuditRequest())
    wanted = [
        (each.outcome, [(one.name, one.before, one.after) for one in each.changes])
        for each in reversed(page.entries)
    ]
    fields = [
        ("weight", "", "7"),
        ("enabled", "", "no"),
        ("metadata.team", "", "x"),
        ("metadata.old", "", ""),
    ]
    assert wanted == [
        ("not_found", fields),
        ("permission_denied", fields),
        ("permission_denied", []),
        ("permission_denied", [("deregister", "", "yes")]),
    ]
    assert b"hush" not in page.SerializeToString()


def test_an_admin_reads_the_audit_of_all_nodes(site: Guarded) -> None:
    """As documents in pages; nodes that did not answer are named, and others than admins get
    nothing of it."""
    entry = native_pb2.AuditEntry(node_id=2, number=7, who="ann", action="patch", outcome="ok")
    entry.changes.add(name="weight", before="1", after="2")
    site.gateway.audited = AuditPage((entry,), "2.7", ((3, "it is down"),))
    answer = site.ask("/api/v1/audit?who=ann&page_size=1&page_token=2.8", headers=bearer("admin"))
    found = answer.json()
    assert site.gateway.audit_asked == ("ann", "2.8", 1)
    assert (found["entries"][0]["who"], found["entries"][0]["number"]) == ("ann", 7)
    assert found["entries"][0]["changes"] == [{"name": "weight", "before": "1", "after": "2"}]
    assert found["next_page_token"] == "2.7"
    assert found["failed_nodes"] == [{"node_id": 3, "detail": "it is down"}]
    assert site.ask("/api/v1/audit", headers=bearer("operator")).status_code == 403


def test_a_token_for_metrics_reads_no_service(site: Guarded) -> None:
    """What the document says of Prometheus: a role for nothing that is there is enough."""
    role = Role("metrics", (Grant("nothing", "nothing/nothing", ("read",)),))
    state = AccessState(
        {"zoe": User("zoe", "x", ("admin",))},
        {"metrics": Token("metrics", HASH, roles=("metrics",))},
        {"metrics": role},
    )
    site.access.replace(state)
    assert site.ask("/metrics", headers=bearer("metrics")).status_code == 200
    for target in (ORDERS, "/api/v1/namespaces", "/api/v1/status", "/api/v1/audit"):
        assert site.ask(target, headers=bearer("metrics")).status_code == 403
