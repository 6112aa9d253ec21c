"""`sessions` and `events`, and the same without an event loop, against a real node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nodes import Stage, for_real

import ssgovern
import ssgovern.blocking
from ssgovern import EventKind
from ssgovern.cli.app import app
from ssgovern.cli.observing import _line
from ssgovern.client.observed import Event, FieldChange
from ssgovern.model import LogPosition, ServiceKey
from ssgovern.node.config import config_keys


def call(address: str, *arguments: str) -> Result:
    cleared = {key.variable: None for key in config_keys()}
    return CliRunner().invoke(app, [*arguments, "-s", address, "-n", "test"], env=cleared)


def test_what_is_typed_shows_who_is_there_and_what_happened(tmp_path: Path) -> None:
    """As a table and as a document, of all or of what is asked for."""

    async def body(stage: Stage) -> None:
        address = f"127.0.0.1:{stage.ready.port}"
        async with ssgovern.connect(address, namespace="test", client_name="shop") as shop:
            await shop.register("orders", port=1, host="10.0.0.1", weight=5)
            await shop.update("orders", "10.0.0.1:1", weight=7)

            def commands() -> None:
                shown = call(address, "sessions", "--client", "SHOP")
                assert (shown.exit_code, "shop" in shown.output) == (0, True)
                found = json.loads(call(address, "sessions", shop.session_id[:8], "--json").output)
                [session] = found["sessions"]
                assert (session["id"], session["instances"]) == (shop.session_id, 1)
                assert not found["more"]

                lines = call(address, "events").output.splitlines()
                assert "registered" in lines[0]
                assert "orders 10.0.0.1:1, weight 5 -> 7" in lines[1]
                told = json.loads(call(address, "events", "orders", "--json").output)["events"]
                assert [each["event"] for each in told] == ["registered", "updated"]
                assert told[1]["changes"] == [{"name": "weight", "before": "5", "after": "7"}]
                assert call(address, "events", "billing").exit_code == 0
                assert call(address, "events", "--events", "3").exit_code == 2

            await asyncio.to_thread(commands)

    for_real(body, tmp_path)


def test_without_an_event_loop_it_is_the_same(tmp_path: Path) -> None:
    """Pages of sessions, pages of events, and those that follow, until it is closed."""

    async def body(stage: Stage) -> None:
        def program() -> None:
            address = f"127.0.0.1:{stage.ready.port}"
            with ssgovern.blocking.connect(address, namespace="test", client_name="shop") as shop:
                shop.register("orders", port=1, host="10.0.0.1")
                [session] = shop.sessions(client_name="shop").sessions
                assert session.instances == 1
                [event] = shop.events("orders").events
                assert event.kind is EventKind.REGISTERED
                with shop.follow_events(limit=5) as feed:
                    assert feed.next_event(10.0) == event
                    with pytest.raises(TimeoutError):
                        feed.next_event(0.01)
                    shop.deregister("orders", "10.0.0.1:1")
                    gone = feed.next_event(10.0)
                    assert gone is not None
                    assert gone.kind is EventKind.DEREGISTERED
                assert feed.next_event() is None
                assert list(feed) == []

        await asyncio.to_thread(program)

    for_real(body, tmp_path)


def test_a_line_cannot_be_broken_by_what_others_name_things() -> None:
    """Control characters in ids and metadata are shown, not obeyed."""
    event = Event(
        EventKind.UPDATED,
        1_700_000_000_000,
        LogPosition(1, 1),
        key=ServiceKey("test", "shop", "orders"),
        instance_id="a\x1b[2J",
        address="h:1",
        changes=(FieldChange("metadata.x", "", "b\nc"),),
        session_id="ab" * 16,
    )
    line = _line(event)
    assert line.isprintable()
    assert "shop/orders" in line
    assert "metadata.x - -> b" in line
