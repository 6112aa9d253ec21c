"""A cluster of real nodes and a real browser, both shared by the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console_site import Site, browser_path
from playwright.sync_api import Browser, Page, sync_playwright

WAIT_MS = 20_000.0


@pytest.fixture(autouse=True)
def _no_thread_left() -> None:
    """Not asked of one test: they share a client, whose threads end with the module."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium here: name one with CHROMIUM, or install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Comes after the browser: where there is none, nothing is started."""
    site = Site(tmp_path_factory.mktemp("console"))
    site.cluster.start()
    try:
        for number in site.ports:
            site.wait(number)
        yield site
    finally:
        site.cluster.kill()


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Open a page of the console. What a browser complains of fails the test."""
    complaints: list[str] = []
    contexts = []

    def opening(path: str = "/", number: int = 1, **options: object) -> Page:
        options = {"locale": "en-US", "viewport": {"width": 1366, "height": 820}, **options}
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type == "error" and not said.text.startswith("Failed to load")
                else None
            ),
        )
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.goto(site.address(number) + path)
        page.wait_for_selector(".live.live")
        return page

    yield opening
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    """Take a picture for the documentation, if asked: SSGOVERN_SCREENSHOTS names the directory."""
    folder = os.environ.get("SSGOVERN_SCREENSHOTS")

    def taking(page: Page, name: str) -> None:
        if folder:
            page.wait_for_timeout(1500)
            page.screenshot(path=str(Path(folder) / f"{name}.png"))

    return taking
