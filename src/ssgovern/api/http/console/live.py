"""Keeping an open page live: what of it changed, as server-sent events.

Knows views and sockets, no page. Invariants: a stream tells at most once in `CONSOLE_TICK_MS`, and
only what is different from what the page has; what a page has is known or everything is told; the
number of streams and what is remembered for them is bounded.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Send

from ssgovern import limits
from ssgovern.api.http.console.look import View
from ssgovern.errors import OverloadedError, SsGovernError

Make = Callable[[], Awaitable[View]]

_TICK_EVERY = 3
"""Turns without a change after which the page is told that the node is there."""


class Streams:
    """All open pages of a node."""

    def __init__(self) -> None:
        self._open = 0
        self._shown: OrderedDict[str, View] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._open

    def remember(self, view: View) -> str:
        """Note what a page shows; the name it is to bring along is good once."""
        self._count += 1
        token = str(self._count)
        self._shown[token] = view
        if len(self._shown) > limits.CONSOLE_STREAMS_MAX:
            self._shown.popitem(last=False)
        return token

    async def run(self, make: Make, token: str, receive: Receive, send: Send) -> None:
        """Tell a page what changes until its time is over or nobody listens.

        Raises OverloadedError before anything is sent.
        """
        if self._open >= limits.CONSOLE_STREAMS_MAX:
            raise OverloadedError("this node keeps as many pages live as it may")
        shown = self._shown.pop(token, None)
        view = await make()
        self._open += 1
        loop = asyncio.get_running_loop()
        leaving = loop.create_task(_left(receive), name="a console's page")
        try:
            await _start(send)
            await self._tell(make, shown, view, leaving, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._open -= 1
            leaving.cancel()

    async def _tell(
        self, make: Make, shown: View | None, view: View, leaving: asyncio.Task[None], send: Send
    ) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + limits.CONSOLE_STREAM_MS / 1000.0
        quiet = _TICK_EVERY
        while not leaving.done():
            message = difference(shown, view)
            shown = view
            quiet += 1
            if message:
                await _event(send, "set", message)
                quiet = 0
            elif quiet >= _TICK_EVERY:
                await _event(send, "tick", {})
                quiet = 0
            if loop.time() >= ends_s:
                await _event(send, "again", {"token": self.remember(shown)})
                return
            await asyncio.sleep(limits.CONSOLE_TICK_MS / 1000.0)
            try:
                view = await make()
            except SsGovernError:
                # The node stops, or what was shown cannot be had now: the page says that what
                # it shows is old, and asks again.
                return


def difference(shown: View | None, view: View) -> dict[str, object]:
    """Return what to tell a page that shows the one to make it show the other."""
    message: dict[str, object] = {}
    if shown is None:
        # It may show anything: all of it, and nothing of it is news.
        return {"all": True, "pieces": view.pieces, "lists": view.lists, "points": view.points}
    pieces = {id_: html for id_, html in view.pieces.items() if shown.pieces.get(id_) != html}
    lists = {id_: ids for id_, ids in view.lists.items() if shown.lists.get(id_) != ids}
    points = {}
    for name, values in view.points.items():
        before = shown.points.get(name)
        after_ms = before[-1][0] if before else 0
        fresh = [point for point in values if point[0] > after_ms]
        if fresh:
            points[name] = fresh
    if pieces:
        message["pieces"] = pieces
    if lists:
        message["lists"] = lists
    if points:
        message["points"] = points
    return message


async def _start(send: Send) -> None:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _event(send: Send, name: str, message: dict[str, object]) -> None:
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    body = f"event: {name}\ndata: {text}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
