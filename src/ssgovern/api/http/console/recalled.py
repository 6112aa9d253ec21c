"""What pages show of the past and of clients: events, sessions, subscribers, the audit, rights.

Asked of all nodes through the gateway, once a second however many pages show it. Knows no page.
Invariant: what a node refuses or cannot answer is an error that the page shows in its place, and
costs no other part of it; what is kept is bounded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ssgovern import limits
from ssgovern.api.http.gateway import Gateway
from ssgovern.client.observed import EventPage, SessionPage
from ssgovern.client.subscribers import ServiceSubscribers
from ssgovern.errors import SsGovernError
from ssgovern.model import ServiceKey
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

T = TypeVar("T")

_TIMEOUT_S = limits.CONSOLE_ASK_MS / 1000.0
_FRESH_S = limits.CONSOLE_PERIOD_MS / 1000.0 * 0.6


class Recalled:
    """Questions to all nodes, with their last answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept: OrderedDict[tuple[object, ...], tuple[float, object]] = OrderedDict()

    async def events(
        self, limit: int, key: ServiceKey | None = None, namespace: str = ""
    ) -> EventPage | SsGovernError:
        """Return the newest events: of a service, of a namespace, or of everything."""

        async def ask() -> EventPage:
            registry = await self._gateway.registry(key.namespace if key else namespace)
            if key is not None:
                return await registry.events(
                    key.service, group=key.group, limit=limit, timeout=_TIMEOUT_S
                )
            every = not namespace
            return await registry.events(
                all_namespaces=every, cluster=every, limit=limit, timeout=_TIMEOUT_S
            )

        return await self._recall(("events", limit, key, namespace), ask)

    async def sessions(self, id_prefix: str, client_name: str) -> SessionPage | SsGovernError:
        """Return the first sessions that match."""

        async def ask() -> SessionPage:
            registry = await self._gateway.registry()
            return await registry.sessions(
                id_prefix=id_prefix,
                client_name=client_name,
                limit=limits.CONSOLE_ROWS_MAX,
                timeout=_TIMEOUT_S,
            )

        return await self._recall(("sessions", id_prefix, client_name), ask)

    async def subscribers(self, key: ServiceKey) -> ServiceSubscribers | SsGovernError:
        """Return who follows a service."""

        async def ask() -> ServiceSubscribers:
            registry = await self._gateway.registry(key.namespace)
            return await registry.subscribers(key.service, group=key.group, timeout=_TIMEOUT_S)

        return await self._recall(("subscribers", key), ask)

    async def audit(self) -> list[native_pb2.AuditEntry] | SsGovernError:
        """Return what nodes wrote down of changes and refusals, the newest first."""

        async def ask() -> list[native_pb2.AuditEntry]:
            answers = await self._gateway.ask_all(
                MessageType.AUDIT,
                native_pb2.AuditRequest(limit=limits.CONSOLE_ROWS_MAX),
                native_pb2.AuditResponse,
                timeout_ms=limits.CONSOLE_ASK_MS,
            )
            entries: list[native_pb2.AuditEntry] = []
            failure: SsGovernError | None = None
            for answer in answers.values():
                if isinstance(answer, SsGovernError):
                    failure = answer
                else:
                    entries += answer.entries
            if failure is not None and not entries:
                raise failure
            entries.sort(key=lambda each: (each.time_ms, each.node_id, each.number), reverse=True)
            return entries[: limits.CONSOLE_ROWS_MAX]

        return await self._recall(("audit",), ask)

    async def access(self) -> native_pb2.AccessResponse | SsGovernError:
        """Return users, tokens and roles."""

        async def ask() -> native_pb2.AccessResponse:
            return await self._gateway.call(
                MessageType.ACCESS,
                native_pb2.AccessRequest(question=native_pb2.AccessQuestion()),
                native_pb2.AccessResponse,
                repeatable=True,
                timeout_ms=limits.CONSOLE_ASK_MS,
            )

        return await self._recall(("access",), ask)

    async def _recall(
        self, question: tuple[object, ...], ask: Callable[[], Awaitable[T]]
    ) -> T | SsGovernError:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(question)
        if kept is not None and loop.time() - kept[0] < _FRESH_S:
            return kept[1]  # type: ignore[return-value]
        answer: T | SsGovernError
        try:
            answer = await ask()
        except SsGovernError as error:
            answer = error
        self._kept[question] = (loop.time(), answer)
        self._kept.move_to_end(question)
        while len(self._kept) > limits.CONSOLE_ANSWERS_MAX:
            self._kept.popitem(last=False)
        return answer
