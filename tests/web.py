"""An HTTP port without a node behind it, and without a socket in front of it unless asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import httpx
from builders import ORDERS, instance
from google.protobuf.message import Message
from rig import Answer, Rig, Wire

from ssgovern.api.http.front import Front
from ssgovern.api.native.namespaces import page_of_namespaces
from ssgovern.client.auditing import AuditPage
from ssgovern.client.observed import EventPage, SessionPage
from ssgovern.errors import SsGovernError, UnavailableError
from ssgovern.model import NodeId, Outcome, ServiceKey, ShardId, check_name
from ssgovern.runtime.real import RealRuntime
from ssgovern.service.placement import Standalone
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.wire.codec import error_to_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, native_pb2

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class FarNodes:
    """The gateway of a site: asked, it answers as the nodes would that have every shard."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.asked: list[MessageType] = []
        self.fails: SsGovernError | None = None
        """What is raised instead of an answer."""
        self.subscribers = applied_pb2.SubscribersResponse()
        self.applied = applied_pb2.AwaitAppliedResponse(applied=True)
        self.sessions = SessionPage((), "", 0)
        self.events = EventPage(())
        self.audited = AuditPage(())
        self.audit_asked = ("", "", 0)

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
            case MessageType.REGISTER:
                found = self._register(request)
            case MessageType.UPDATE:
                outcome, position = self._change(registry.update, request)
                found = native_pb2.UpdateResponse(epoch=position[0], revision=position[1])
                found.instance.ParseFromString(outcome.encoded)
            case MessageType.DEREGISTER:
                outcome, position = self._change(registry.deregister, request)
                found = native_pb2.DeregisterResponse(
                    epoch=position[0], revision=position[1], removed=outcome.removed
                )
            case MessageType.RENEW:
                found = registry.leases.renew(request, self._rig.now_ms)
            case MessageType.CLUSTER_COMMAND:
                found = native_pb2.ClusterCommandResponse(
                    sentence=f"decided: {request.WhichOneof('command')}"
                )
            case MessageType.SUBSCRIBERS:
                found = self.subscribers
            case MessageType.AWAIT_APPLIED:
                found = self.applied
            case _:
                raise AssertionError(f"nobody said what {type_!r} is answered with")
        return found  # type: ignore[no-any-return]

    def _register(self, request: native_pb2.RegisterRequest) -> native_pb2.RegisterResponse:
        answer = Answer()
        self._rig.registry.leases.register(request, answer, Answer(), self._rig.now_ms)
        self._rig.commit()
        response = native_pb2.RegisterResponse()
        for (proposal, outcome), each in zip(answer.outcomes, request.registrations, strict=True):
            result = response.results.add(
                instance_id=each.instance.id, epoch=proposal.epoch, revision=proposal.revision
            )
            if outcome.error is not None:
                result.error.CopyFrom(error_to_wire(outcome.error))
        return response

    def _change(
        self, ask: Callable[..., None], request: Message
    ) -> tuple[Outcome, tuple[int, int]]:
        answer = Answer()
        session, _, _ = self._rig.hello("gateway", Wire("gateway"))
        ask(session, request, answer)
        self._rig.commit()
        [(proposal, outcome)] = answer.outcomes
        if outcome.error is not None:
            raise outcome.error
        return outcome, (proposal.epoch, proposal.revision)

    async def registry(self, namespace: str = "") -> FarClient:
        if namespace:
            check_name("namespace", namespace)
        return FarClient(self)

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

    async def audit(self, who: str, after: str, limit: int) -> AuditPage:
        self.audit_asked = who, after, limit
        return self.audited

    async def primaries_of(self, shards: Iterable[ShardId]) -> dict[NodeId, list[ShardId]]:
        found: dict[NodeId, list[ShardId]] = {}
        for shard in shards:
            found.setdefault(NodeId(2 + shard % 2), []).append(shard)
        return found

    async def live_nodes(self) -> list[NodeId]:
        return [NodeId(2), NodeId(3)]


class FarClient:
    """The client of a gateway, as far as it is asked for more than single requests."""

    def __init__(self, nodes: FarNodes) -> None:
        self._nodes = nodes

    async def sessions(self, **query: Any) -> SessionPage:
        return self._nodes.sessions

    async def events(self, service: str, **query: Any) -> EventPage:
        return self._nodes.events


class Site:
    """A backend whose registry is a rig's; `why_not` keeps it from being ready."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.is_starting = False
        self.why_not = ""
        self.gateway = FarNodes(self.rig)
        self.runtime = RealRuntime()
        self.front = Front(self, hosts=("site.example",))
        self._session, _, _ = self.rig.hello("app", Wire("app"))

    def register(self, *ids: str, key: ServiceKey = ORDERS, **fields: Any) -> None:
        """Let instances be there."""
        for name in ids:
            request = native_pb2.RegisterRequest()
            request.registrations.add(service=key_to_wire(key), instance=instance(name, **fields))
            self.rig.register(self._session, request, Answer())
        self.rig.commit()

    def remove(self, name: str, key: ServiceKey = ORDERS) -> None:
        """Let an instance be gone."""
        request = native_pb2.DeregisterRequest(service=key_to_wire(key), instance_id=name)
        self.rig.registry.deregister(self._session, request, Answer())
        self.rig.commit()

    # --- api.http.backend.Backend ----------------------------------------------------------

    @property
    def registry(self) -> RegistryService:
        if self.is_starting:
            raise UnavailableError("still starting")
        return self.rig.registry

    @property
    def push(self) -> PushService:
        return self.rig.push

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
        headers: Mapping[str, str | bytes] | None = None,
        base: str = "http://127.0.0.1:7421",
        json: Any = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Ask without a socket."""

        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.front)
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(
                    method, target, headers=headers, json=json, content=content
                )

        return asyncio.run(asking())


def in_loop(body: Callable[[], Awaitable[T]], seconds_max: float = 30.0) -> T:
    """Run a test's coroutine with a time limit."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds_max):
            return await body()

    return asyncio.run(bounded())
