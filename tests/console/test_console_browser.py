"""The console in a real browser, on real nodes. In this order: the last tests kill nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from console_site import Site, until
from playwright.sync_api import Page, expect

import ssgovern.blocking
from ssgovern import Instance

SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"
Open = Callable[..., Page]
Shot = Callable[[Page, str], None]

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def registry(site: Site) -> Iterator[ssgovern.blocking.Registry]:
    with ssgovern.blocking.connect(site.cluster.addresses, timeout=60.0) as registry:
        names = ("catalog", "checkout", "mail", "orders", "payments", "search", "stock", "users")
        wanted = [
            (
                name,
                Instance(
                    id=f"{name}-{number}",
                    host=f"10.0.{at}.{number + 1}",
                    port=8080,
                    zone=f"zone-{'abc'[number % 3]}",
                    version="1.4.2",
                    metadata={"team": "shop", "note": SCRIPT} if number == 1 else {"team": "shop"},
                ),
            )
            for at, name in enumerate(names)
            for number in range(4)
        ]
        wanted += [
            (f"worker-{number:03}", Instance(id="w", host="10.1.0.1", port=1000 + number))
            for number in range(60)
        ]
        registry.register_all(wanted)
        yield registry


def test_overview_is_live(
    registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """The overview says how the cluster is, and what changes is there without a reload."""
    page = open_page("/")
    expect(page.locator("#health")).to_contain_text("All is well")
    expect(page.locator("#nodes tr")).to_have_count(3)
    expect(page.locator("#nodes")).to_contain_text("controller")
    page.evaluate("window.notReloaded = true")
    registration = registry.register("arrives-later", port=9000)
    expect(page.locator("#recent")).to_contain_text("arrives-later")
    registration.deregister()
    registry.update("payments", "payments-0", enabled=False, any_owner=True)
    expect(page.locator("#attention")).to_contain_text("payments")
    registry.update("payments", "payments-0", enabled=True, any_owner=True)
    expect(page.locator("#attention")).not_to_contain_text("payments")
    assert page.evaluate("window.notReloaded")
    expect(page.locator("#chart-changes path.line")).to_have_count(1)
    shot(page, "overview")


def test_services_are_found_and_paged(
    registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """A list of services is searched as one types, by keyboard too, and read page by page."""
    page = open_page("/services")
    expect(page.locator("#services tr")).to_have_count(50)
    expect(page.locator("#pager")).to_contain_text("1–50 of 68")
    shot(page, "services")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("#services tr")).to_have_count(18)
    assert "first=50" in page.url
    page.keyboard.press("/")
    page.keyboard.type("order")
    expect(page.locator("#services tr")).to_have_count(1)
    expect(page.locator("#services")).to_contain_text("orders")
    expect(page.locator("#q")).to_be_focused()
    # What is found stays live: the stream follows the search.
    registry.update("orders", "orders-0", weight=0.0, any_owner=True)
    expect(page.locator("#services")).to_contain_text("3 / 4")
    registry.update("orders", "orders-0", weight=100.0, any_owner=True)
    expect(page.locator("#services")).to_contain_text("4 / 4")
    page.locator("#q").fill("nothing like this")
    expect(page.locator("#empty")).to_contain_text("No service matches")


def test_instance_is_changed(
    registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """Weight, out of service and back: done with two clicks, told at once, asked before."""

    def orders_1() -> Instance:
        return next(each for each in registry.get("orders") if each.id == "orders-1")

    with registry.subscribe("orders"):
        page = open_page("/services/default/default/orders")
        row = page.locator("#instances > tr").filter(has_text="orders-1")
        expect(page.locator("#subscribers")).to_contain_text("ssgovern")
        slider = row.locator("input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowRight")
        until(lambda: orders_1().weight == 101.0)
        expect(page.locator("#toasts")).to_contain_text("has weight 101")
        expect(page.locator("#timeline")).to_contain_text("weight: 100 → 101")

        row.get_by_role("button", name="Disable").click()
        page.locator("#ask").get_by_role("button", name="Cancel").click()
        row.get_by_role("button", name="Disable").click()
        expect(page.locator("#ask")).to_contain_text("Take orders-1 out of service?")
        page.locator("#ask").get_by_role("button", name="Disable").click()
        expect(row).to_contain_text("out of service")
        assert not orders_1().enabled
        shot(page, "service")
        row.get_by_role("button", name="Enable").click()
        page.locator("#ask").get_by_role("button", name="Enable").click()
        expect(row).to_contain_text("in traffic")
        assert orders_1().enabled


def test_instance_is_drained(registry: ssgovern.blocking.Registry, open_page: Open) -> None:
    """A drained instance is gone when those who follow the service know."""
    with registry.subscribe("stock") as stock:
        page = open_page("/services/default/default/stock")
        row = page.locator("#instances > tr").filter(has_text="stock-3")
        row.get_by_role("button", name="Drain").click()
        page.locator("#ask").get_by_role("button", name="Drain").click()
        expect(page.locator("#toasts")).to_contain_text("stock-3 is drained")
        expect(row).to_have_count(0)
        until(lambda: len(stock.instances) == 3)


def test_scripts_are_text(registry: ssgovern.blocking.Registry, open_page: Open) -> None:
    """Whatever an instance says of itself is shown as text and never run."""
    page = open_page("/services/default/default/orders?q=" + "onerror")
    expect(page.locator("#instances > tr")).to_have_count(1)
    page.locator("#instances summary").first.click()
    expect(page.locator("#instances")).to_contain_text(SCRIPT)
    assert page.locator("#instances img, #instances script").count() == 0


def test_cluster_shows_who_keeps_what(
    registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """Each node has its squares; one of them tells of its shard, and may be handed over."""
    page = open_page("/cluster")
    expect(page.locator("svg.lane")).to_have_count(3)
    expect(page.locator(".node-card")).to_have_count(3)
    expect(page.locator(".node-card").first).to_contain_text("Log (WAL)")
    page.locator("svg.lane").first.click(position={"x": 4, "y": 4})
    expect(page.locator("#shard h2")).to_have_text("Shard 0")
    shot(page, "cluster")
    button = page.locator("#shard button").first
    to = (button.text_content() or "").rpartition(" ")[2]
    button.click()
    page.locator("#ask").get_by_role("button", name="Make primary").click()
    expect(page.locator("#toasts .good")).to_have_count(1)

    def is_handed_over() -> bool:
        page.locator("svg.lane").first.click(position={"x": 4, "y": 4})
        page.wait_for_timeout(200)
        return (page.locator("#shard dd").first.text_content() or "") == to

    until(is_handed_over)


def test_people_pages(registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot) -> None:
    """Sessions, events, the audit and rights each show what there is."""
    page = open_page("/sessions")
    expect(page.locator("#sessions")).to_contain_text("ssgovern-python")
    shot(page, "sessions")
    page = open_page("/events")
    expect(page.locator("#events")).to_contain_text("orders")
    shot(page, "events")
    page = open_page("/audit")
    expect(page.locator("h1")).to_have_text("Audit")
    shot(page, "audit")
    page = open_page("/access")
    expect(page.locator("#rights")).to_contain_text("Access control is off")
    shot(page, "access")


def test_language_and_theme(
    registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """The console speaks the browser's language and wears its theme, and both can be switched."""
    page = open_page("/", locale="zh-CN", color_scheme="dark")
    expect(page.locator("h1")).to_have_text("总览")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    shot(page, "overview-zh-dark")
    page.get_by_role("link", name="Show in English").click()
    expect(page.locator("h1")).to_have_text("Overview")
    page.get_by_role("link", name="Services").first.click()
    expect(page.locator("h1")).to_have_text("Services")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_a_killed_node_is_seen(
    site: Site, registry: ssgovern.blocking.Registry, open_page: Open
) -> None:
    """A node that dies is told of on open pages without a reload."""
    page = open_page("/")
    site.cluster.nodes[3].kill()
    expect(page.locator("#health")).to_contain_text(re.compile("n3"))
    expect(page.locator("#nodes")).to_contain_text("not alive")


def test_lost_connection_is_seen(
    site: Site, registry: ssgovern.blocking.Registry, open_page: Open, shot: Shot
) -> None:
    """A page whose node is gone says that it is old, and is live again when the node is."""
    page = open_page("/")
    expect(page.locator("#banner")).to_be_hidden()
    site.cluster.nodes[1].kill()
    expect(page.locator("#banner")).to_be_visible()
    expect(page.locator("#banner")).to_contain_text("Connection lost")
    expect(page.locator("html")).to_have_class(re.compile("is-old"))
    shot(page, "lost")
    site.cluster.nodes[1].start()
    site.wait(1)
    page.locator("#banner button").click()
    expect(page.locator("#banner")).to_be_hidden(timeout=40_000)
    expect(page.locator("html")).not_to_have_class(re.compile("is-old"))
