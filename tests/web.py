"""An HTTP port without a node behind it, and without a socket in front of it unless asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import httpx
from builders import ORDERS, instance
from google.protobuf.message import Message
from rig import Answer, Rig, Wire

from ssgovern.api.http.front import Front
from ssgovern.api.native.namespaces import page_of_namespaces
from ssgovern.errors import SsGovernError, UnavailableError
from ssgovern.model import NodeId, ServiceKey, ShardId
from ssgovern.service.placement import Standalone
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class FarNodes:
    """The gateway of a site: asked, it answers as the nodes would that have every shard."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.asked: list[MessageType] = []
        self.fails: SsGovernError | None = None
        """What is raised instead of an answer."""

    async def call(
        self,
        type_: int,
        request: Message,
        answer: type[M],
        *,
        repeatable: bool,
        key: ServiceKey | None = None,
        timeout_ms: int = 0,
    ) -> M:
        self.asked.append(MessageType(type_))
        if self.fails is not None:
            raise self.fails
        registry = self._rig.registry
        here, registry.placement = registry.placement, Standalone()
        try:
            return self._answer(MessageType(type_), request, answer)
        finally:
            registry.placement = here

    def _answer(self, type_: MessageType, request: Any, answer: type[M]) -> M:
        registry = self._rig.registry
        found: Any
        match type_:
            case MessageType.GET:
                found = answer.FromString(registry.get(request))
            case MessageType.LIST_SERVICES:
                found = registry.list_services(request)
            case MessageType.NAMESPACES:
                found = page_of_namespaces(registry.directory, request)
            case _:
                raise AssertionError(f"nobody said what {type_!r} is answered with")
        return found  # type: ignore[no-any-return]

    async def ask(
        self, node: NodeId, type_: int, request: Message, answer: type[M], *, timeout_ms: int = 0
    ) -> M:
        return await self.call(type_, request, answer, repeatable=True)

    async def ask_all(
        self, type_: int, request: Message, answer: type[M], *, timeout_ms: int = 0
    ) -> dict[NodeId, M | SsGovernError]:
        try:
            return {NodeId(2): await self.ask(NodeId(2), type_, request, answer)}
        except SsGovernError as error:
            return {NodeId(2): error}

    async def primaries_of(self, shards: Iterable[ShardId]) -> dict[NodeId, list[ShardId]]:
        found: dict[NodeId, list[ShardId]] = {}
        for shard in shards:
            found.setdefault(NodeId(2 + shard % 2), []).append(shard)
        return found

    async def live_nodes(self) -> list[NodeId]:
        return [NodeId(2), NodeId(3)]


class Site:
    """A backend whose registry is a rig's; `why_not` keeps it from being ready."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.is_starting = False
        self.why_not = ""
        self.gateway = FarNodes(self.rig)
        self.front = Front(self, hosts=("site.example",))
        self._session, _, _ = self.rig.hello("app", Wire("app"))

    def register(self, *ids: str, key: ServiceKey = ORDERS, **fields: Any) -> None:
        """Let instances be there."""
        for name in ids:
            request = native_pb2.RegisterRequest()
            request.registrations.add(service=key_to_wire(key), instance=instance(name, **fields))
            self.rig.register(self._session, request, Answer())
        self.rig.commit()

    # --- api.http.backend.Backend ----------------------------------------------------------

    @property
    def registry(self) -> RegistryService:
        if self.is_starting:
            raise UnavailableError("still starting")
        return self.rig.registry

    def not_ready(self) -> str:
        return self.why_not

    def status(self) -> native_pb2.StatusResponse:
        services, instances = self.registry.totals()
        return native_pb2.StatusResponse(
            node_name="site", services=services, instances=instances, cluster_id=b"\x01\x02"
        )

    def cluster_status(self, *, shards: bool) -> native_pb2.ClusterStatusResponse:
        status = native_pb2.ClusterStatusResponse(
            cluster_id=b"\x01\x02", node_id=1, map_version=7, shards_total=256
        )
        status.nodes.add(node_id=1, name="site", live=True, primaries=256)
        if shards:
            for shard in range(256):
                status.shards.add(shard=shard, epoch=1, primary=1, holders=[1], in_sync=[1])
        return status

    def push_delays(self) -> list[tuple[float, float]]:
        return [(0.001, 5.0), (float("inf"), 5.0)]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain"

    # --- asking ----------------------------------------------------------------------------

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        base: str = "http://127.0.0.1:7421",
        json: Any = None,
    ) -> httpx.Response:
        """Ask without a socket."""

        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.front)
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, target, headers=headers, json=json)

        return asyncio.run(asking())


def in_loop(body: Callable[[], Awaitable[T]], seconds_max: float = 30.0) -> T:
    """Run a test's coroutine with a time limit."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds_max):
            return await body()

    return asyncio.run(bounded())
