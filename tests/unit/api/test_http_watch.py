"""Waiting for changes over HTTP: one answer when there is news, or a stream of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from builders import ORDERS
from web import Site, in_loop

from ssgovern import limits
from ssgovern.api.http.server import HttpServer
from ssgovern.model import shard_of

SERVICE = "/api/v1/namespaces/prod/services/default/orders"


class Port:
    """A port that serves a site, in a loop."""

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def ask(self, target: str, *headers: str) -> asyncio.StreamReader:
        """Ask; return the reader, behind the head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        lines = [f"GET {target} HTTP/1.1", "host: 127.0.0.1", "connection: close", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])
        return reader

    async def stream(self, *headers: str, target: str = SERVICE) -> Events:
        return Events(await self.ask(target, "accept: text/event-stream", *headers))

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    def change(self, *ids: str, **fields: Any) -> None:
        """Register instances and tell whoever follows."""
        self.site.register(*ids, **fields)
        self.site.rig.tell()


class Events:
    """The events of a stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._text = b""

    async def next(self) -> tuple[str, str, dict[str, Any]]:
        """Return the name, the id and what the next event tells; comments are passed over."""
        while True:
            while b"\n\n" not in self._text:
                size = int(await self._reader.readline(), 16)
                assert size, "the stream ended"
                self._text += await self._reader.readexactly(size)
                await self._reader.readline()
            event, _, self._text = self._text.partition(b"\n\n")
            if not event.startswith(b":"):
                break
        lines = dict(line.split(": ", 1) for line in event.decode().split("\n"))
        return lines["event"], lines.get("id", ""), json.loads(lines["data"])

    async def ended(self) -> bool:
        """Tell whether nothing more comes."""
        return int(await self._reader.readline(), 16) == 0


@asynccontextmanager
async def serving() -> AsyncIterator[Port]:
    site = Site()
    server = HttpServer(site.front, lambda: 1_700_000_000_000)
    _, number = await server.start("127.0.0.1", 0)
    port = Port(site, number)
    try:
        yield port
    finally:
        site.front.stop()
        port.hang_up()
        await server.stop()
        await asyncio.sleep(0.01)
        assert site.rig.push.subscriptions.count == 0, "whoever followed is forgotten"
        assert len(site.front.desk.watches) == 0


def on_port(body: Callable[[Port], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving() as port:
            await body(port)

    in_loop(run)


def ids(told: dict[str, Any], name: str = "instances") -> list[str]:
    return [each["id"] for each in told[name]]


# --- one answer ---------------------------------------------------------------------------


def test_who_waits_is_answered_when_the_service_changes() -> None:
    """At once with what is new, and not before."""

    async def body(port: Port) -> None:
        port.change("a")
        now = port.site.rig.registry.state_of(ORDERS)
        after = f"{now.position.epoch}.{now.position.revision}"
        waiting = asyncio.ensure_future(port.ask(f"{SERVICE}?after={after}&wait=30s"))
        while not len(port.site.front.desk.watches):
            await asyncio.sleep(0)
        port.change("b")
        told = json.loads(await (await waiting).read())
        assert ids(told) == ["a", "b"]
        assert port.status == 200

    on_port(body)


def test_who_names_something_old_is_answered_at_once() -> None:
    """There was news while nobody waited."""

    async def body(port: Port) -> None:
        port.change("a")
        told = json.loads(await (await port.ask(f"{SERVICE}?after=1.1&wait=30s")).read())
        assert ids(told) == ["a"]

    on_port(body)


def test_nothing_new_is_304_when_the_time_is_over() -> None:
    """Of a service that is there, of one that is not, and of one whose news were elsewhere."""

    async def body(port: Port) -> None:
        port.change("a")
        now = port.site.rig.registry.state_of(ORDERS).position
        for target in (SERVICE, SERVICE.replace("orders", "nobody")):
            await port.ask(f"{target}?after={now.epoch}.{now.revision}&wait=20ms")
            assert port.status == 304

    on_port(body)


def test_a_page_says_what_to_wait_after() -> None:
    """Its epoch and revision are news to nobody who has it."""

    async def body(port: Port) -> None:
        port.change("a")
        page = json.loads(await (await port.ask(SERVICE)).read())
        await port.ask(f"{SERVICE}?after={page['epoch']}.{page['revision']}&wait=20ms")
        assert port.status == 304

    on_port(body)


def test_a_wait_that_is_not_understood_is_refused() -> None:
    """Too long, or no time at all."""

    async def body(port: Port) -> None:
        for query in ("after=1.1&wait=61s", "after=1&wait=1s", "after=1.1&wait=1h", "wait=-1"):
            await port.ask(f"{SERVICE}?{query}")
            assert port.status == 400

    on_port(body)


# --- a stream -----------------------------------------------------------------------------


def test_a_stream_begins_with_the_list_and_goes_on_with_changes() -> None:
    """Each with the position it leads to; what was removed is named."""

    async def body(port: Port) -> None:
        port.change("a", "b")
        events = await port.stream()
        name, first_id, told = await events.next()
        assert (name, ids(told)) == ("snapshot", ["a", "b"])
        port.change("b", weight=7.0)
        name, second_id, told = await events.next()
        assert (name, ids(told, "upserted"), told["removed"]) == ("delta", ["b"], [])
        assert told["upserted"][0]["weight"] == 7.0
        assert f"{told['epoch']}.{told['revision']}" == second_id > first_id
        port.site.remove("a")
        port.site.rig.tell()
        name, _, told = await events.next()
        assert (name, told["removed"]) == ("delta", ["a"])
        port.site.remove("b")
        port.site.rig.tell()
        name, _, told = await events.next()
        assert (name, told["instances"]) == ("snapshot", [])

    on_port(body)


def test_changes_that_nobody_read_become_one() -> None:
    """However many there were: the reader is told what became of it, and nothing is kept."""

    async def body(port: Port) -> None:
        port.change("a", "z")
        events = await port.stream()
        await events.next()
        for number in range(50):
            port.change("a", weight=float(number))
        name, _, told = await events.next()
        assert (name, told["upserted"][0]["weight"]) == ("delta", 49.0)

    on_port(body)


def test_a_stream_goes_on_where_it_broke_off() -> None:
    """With what was missed; with word that nothing was; with the list if that is not known."""

    async def body(port: Port) -> None:
        port.change("a", "b")
        _, position, _ = await (await port.stream()).next()
        name, _, _ = await (await port.stream(f"last-event-id: {position}")).next()
        assert name == "current"
        port.change("c")
        name, _, told = await (await port.stream(f"last-event-id: {position}")).next()
        assert (name, ids(told, "upserted")) == ("delta", ["c"])
        for unknown in ("9.999999", "x", "1.2.3", "", "9" * 30 + ".1"):
            name, _, told = await (await port.stream(f"last-event-id: {unknown}")).next()
            assert (name, ids(told)) == ("snapshot", ["a", "b", "c"])

    on_port(body)


def test_a_long_list_comes_in_parts() -> None:
    """Only the last has the id from which to go on."""

    async def body(port: Port) -> None:
        many = [f"i{number:04}" for number in range(limits.HTTP_EVENT_INSTANCES_MAX + 1)]
        port.change(*many)
        events = await port.stream()
        _, first_id, first = await events.next()
        _, second_id, second = await events.next()
        assert ids(first) + ids(second) == many
        assert (first_id, bool(second_id), first["parts"], second["part"]) == ("", True, 2, 2)

    on_port(body)


def test_a_stream_of_a_shard_that_left_ends() -> None:
    """It is not silent: who reads comes again and is answered from elsewhere."""

    async def body(port: Port) -> None:
        port.change("a")
        events = await port.stream()
        await events.next()
        port.site.rig.places.set(shard_of(*ORDERS), "elsewhere")
        assert await events.ended()

    on_port(body)


def test_there_are_only_so_many_streams() -> None:
    """One more is refused before it begins; one that ends makes room."""

    async def body(port: Port) -> None:
        port.site.front.desk.watches._watches_max = 2
        for _ in range(2):
            await (await port.stream()).next()
        refused = await port.ask(SERVICE, "accept: text/event-stream")
        assert port.status == 503
        assert json.loads(await refused.read())["title"] == "overloaded"
        port.hang_up()
        async with asyncio.timeout(5):
            while len(port.site.front.desk.watches):
                await asyncio.sleep(0.01)
        await (await port.stream()).next()

    on_port(body)


def test_a_node_that_stops_says_so_to_its_streams() -> None:
    """They end at once."""

    async def body(port: Port) -> None:
        events = await port.stream()
        await events.next()
        port.site.front.stop()
        name, _, told = await events.next()
        assert (name, told["code"]) == ("error", 22)
        assert await events.ended()

    on_port(body)


def test_a_stream_has_no_filters() -> None:
    """Deltas of a part of a list would lead astray."""

    async def body(port: Port) -> None:
        await port.ask(f"{SERVICE}?zone=east", "accept: text/event-stream")
        assert port.status == 400

    on_port(body)
