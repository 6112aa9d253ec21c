"""An HTTP port without a node behind it, and without a socket in front of it unless asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
from builders import ORDERS, instance
from rig import Answer, Rig, Wire

from ssgovern.api.http.front import Front
from ssgovern.errors import UnavailableError
from ssgovern.model import ServiceKey
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.pb import native_pb2

T = TypeVar("T")


class Site:
    """A backend whose registry is a rig's; `why_not` keeps it from being ready."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.is_starting = False
        self.why_not = ""
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

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain"

    # --- asking ----------------------------------------------------------------------------

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        base: str = "http://127.0.0.1:7421",
    ) -> httpx.Response:
        """Ask without a socket."""

        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.front)
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, target, headers=headers)

        return asyncio.run(asking())


def in_loop(body: Callable[[], Awaitable[T]], seconds_max: float = 30.0) -> T:
    """Run a test's coroutine with a time limit."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds_max):
            return await body()

    return asyncio.run(bounded())
