"""Logging in to the console in a real browser, and what a browser is shown of rights."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_site import until
from playwright.sync_api import Browser, Page, expect
from processes import NodeProcess, free_port

import ssgovern.blocking
from ssgovern import Instance

ADMIN, READER = "a good long password", "another good password"
SERVICE = "/services/default/default/orders"

expect.set_options(timeout=20_000)


def command(*arguments: str, said: str) -> str:
    """Run `ss-govern access`; return what it prints."""
    called = [sys.executable, "-m", "ssgovern.cli.main", "access", *arguments]
    done = subprocess.run(called, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Guarded:
    """A node whose access is controlled: an admin, a reader, and a service with an instance."""

    def __init__(self, root: Path) -> None:
        data_dir = root / "node"
        said = command("init", "-d", str(data_dir), "--password-stdin", said=f"{ADMIN}\n")
        found = re.search(r"^token\s+(\S+)$", said, re.MULTILINE)
        assert found is not None, said
        self.token = found[1]
        self.http_port = free_port()
        self.node = NodeProcess(data_dir, "--http-port", str(self.http_port))
        self.registry = ssgovern.blocking.connect(self.node.address, token=self.token, timeout=60.0)

    def start(self) -> None:
        self.node.start()
        self.registry.open()
        self.registry.register_all(
            [("orders", Instance(id="orders-1", host="10.0.0.1", port=8080))]
        )
        shown = ("-s", self.node.address, "--token", self.token)
        add = ("users", "add", "rita", "--role", "reader", "--password-stdin")
        command(*add, *shown, said=f"{READER}\n")

    def stop(self) -> None:
        self.registry.close()
        self.node.kill()

    def is_enabled(self) -> bool:
        return self.registry.get("orders")[0].enabled


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    one = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def page(browser: Browser, guarded: Guarded) -> Iterator[Page]:
    """A browser that nobody has logged in with."""
    context = browser.new_context(base_url=f"http://127.0.0.1:{guarded.http_port}", locale="en-US")
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, user: str, password: str) -> None:
    page.locator("input[name=user]").fill(user)
    page.locator("input[name=password]").fill(password)
    page.get_by_role("button", name="Log in").click()


def is_at(page: Page, path: str) -> None:
    expect(page).to_have_url(re.compile(rf"^http://[^/]+{path}$"))


def disable(page: Page) -> None:
    page.get_by_role("button", name="Disable").click()
    page.locator("#ask").get_by_role("button", name="Disable").click()


def test_an_admin_logs_in_acts_and_logs_out(guarded: Guarded, page: Page) -> None:
    """Pages lead to the log-in, a wrong password is told, the right one opens pages and actions,
    and after logging out both are closed again."""
    page.goto(SERVICE)
    is_at(page, "/login")
    log_in(page, "admin", "not the password")
    expect(page.get_by_role("alert")).to_have_text("name or password is wrong")
    log_in(page, "admin", ADMIN)
    is_at(page, "/")
    expect(page.locator(".who")).to_have_text("admin")
    page.goto(SERVICE)
    disable(page)
    expect(page.locator("#instances")).to_contain_text("out of service")
    until(lambda: not guarded.is_enabled())
    guarded.registry.update("orders", "orders-1", enabled=True, any_owner=True)
    page.goto("/audit")
    expect(page.locator("#audit")).to_contain_text("orders-1")
    page.get_by_role("button", name="Log out").click()
    is_at(page, "/login")
    page.goto(SERVICE)
    is_at(page, "/login")


def test_a_reader_reads_and_is_told_what_is_missing(guarded: Guarded, page: Page) -> None:
    """Pages are shown, live; what takes another right is refused, in words, and not done."""
    page.goto("/")
    log_in(page, "rita", READER)
    is_at(page, "/")
    page.goto(SERVICE)
    expect(page.locator("#instances")).to_contain_text("orders-1")
    page.wait_for_selector(".live.live")
    disable(page)
    expect(page.locator("#toasts .bad")).to_contain_text("rita lacks the right 'write'")
    assert guarded.is_enabled()
    page.goto("/audit")
    expect(page.locator("main")).to_contain_text("rita lacks the right 'admin'")
