"""The way from an HTTP port to the whole cluster: a client of the registry inside the node.

It talks to this node's own native port and, as every client, to the others where the shard map
says so: it follows failovers and repeats what may be repeated, within each request's time.
Knows no HTTP and no document. Invariants: it is opened by the first who needs it and not
before; everything it does has a deadline; what several nodes are asked is answered for each of
them, one that fails included.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from ssgovern import limits
from ssgovern.client.auditing import AuditPage, audit_page
from ssgovern.client.registry import Registry
from ssgovern.client.session import Session
from ssgovern.errors import ShuttingDownError, SsGovernError, UnavailableError
from ssgovern.model import NodeId, ServiceKey, ShardId, check_name

M = TypeVar("M", bound=Message)


class Gateway:
    """A node's client of its own cluster. Used from the node's loop only.

    `connect` makes the client, which is not opened yet; it raises UnavailableError as long as
    the node cannot be reached, because it does not listen yet.
    """

    def __init__(self, connect: Callable[[], Registry]) -> None:
        self._connect = connect
        self._registry: Registry | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Gateway {self._registry!r}>"

    # --- the client ------------------------------------------------------------------------

    async def registry(self, namespace: str = "") -> Registry:
        """Return the client, of a namespace if one is named. Neither opened nor closed by callers.

        Raises UnavailableError before the node listens, ShuttingDownError after it stopped,
        InvalidArgumentError for what is no namespace.
        """
        if namespace:
            check_name("namespace", namespace)
        registry = self._registry or await self._open()
        if not namespace or namespace == registry.namespace:
            return registry
        # Another view of the same client: its session, lists and connections are shared.
        view = copy.copy(registry)
        view.namespace = namespace
        return view

    async def session(self) -> Session:
        """Return the client's session, for requests worded by the caller."""
        # The command line and this are parts of the same program: no public face for it.
        return (await self.registry())._session

    async def _open(self) -> Registry:
        async with self._opening:
            if self._closed:
                raise ShuttingDownError("this node is stopping")
            if self._registry is None:
                registry = self._connect()
                await registry.open()
                self._registry = registry
            return self._registry

    async def close(self) -> None:
        """End the client. Harmless if it was never opened."""
        self._closed = True
        async with self._opening:
            if self._registry is not None:
                await self._registry.close()

    # --- requests --------------------------------------------------------------------------

    async def call(
        self,
        type_: int,
        request: Message,
        answer: type[M],
        *,
        repeatable: bool,
        key: ServiceKey | None = None,
        timeout_ms: int = limits.HTTP_FORWARD_MS,
    ) -> M:
        """Ask the primary of a service's shard, or without one any node.

        Raises the node's error, UnavailableError or DeadlineExceededError.
        """
        session = await self.session()
        deadline = _deadline(timeout_ms)
        return await session.call(type_, request, answer, deadline, repeatable=repeatable, key=key)

    async def ask(
        self,
        node: NodeId,
        type_: int,
        request: Message,
        answer: type[M],
        *,
        timeout_ms: int = limits.HTTP_FORWARD_MS,
    ) -> M:
        """Ask one node, once. Raises its error, or UnavailableError."""
        session = await self.session()
        deadline = _deadline(timeout_ms)
        await session.connected(deadline)
        if session.map.is_single:
            return await session.call(type_, request, answer, deadline, repeatable=True)
        return await session.ask(node, type_, request, answer, deadline)

    async def ask_all(
        self,
        type_: int,
        request: Message,
        answer: type[M],
        *,
        timeout_ms: int = limits.HTTP_FORWARD_MS,
    ) -> dict[NodeId, M | SsGovernError]:
        """Ask every live node; return what each said, or why it did not, by its id in order."""
        nodes = await self.live_nodes()
        found: dict[NodeId, M | SsGovernError] = dict.fromkeys(nodes, _NOT_ASKED)

        async def ask_one(node: NodeId) -> None:
            try:
                found[node] = await self.ask(node, type_, request, answer, timeout_ms=timeout_ms)
            except SsGovernError as error:
                found[node] = error

        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(ask_one(node))
        return found

    async def audit(self, who: str, after: str, limit: int) -> AuditPage:
        """Return a page of what all nodes wrote down, or of what somebody did."""
        session = await self.session()
        deadline = _deadline(limits.HTTP_FORWARD_MS)
        return await audit_page(session, who=who, after=after, limit=limit, deadline=deadline)

    async def primaries_of(self, shards: Iterable[ShardId]) -> dict[NodeId, list[ShardId]]:
        """Return which node is primary of which of these shards; 0: nobody at present."""
        session = await self.session()
        await session.connected(_deadline(limits.HTTP_FORWARD_MS))
        found: dict[NodeId, list[ShardId]] = {}
        for shard in shards:
            found.setdefault(session.primary_of_shard(shard), []).append(shard)
        return found

    async def live_nodes(self) -> list[NodeId]:
        """Return the ids of the nodes that the shard map calls live, ascending."""
        session = await self.session()
        await session.connected(_deadline(limits.HTTP_FORWARD_MS))
        known = session.map.nodes
        alone = session.map.is_single
        return sorted(node_id for node_id, node in known.items() if node.live or alone)


_NOT_ASKED = UnavailableError("this node was not asked")


def _deadline(timeout_ms: int) -> float:
    return asyncio.get_running_loop().time() + timeout_ms / 1000.0
