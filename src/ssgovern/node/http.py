"""The HTTP port of a node, put together: what it reads, what it counts, where it listens.

The only module of a node that needs the libraries of HTTP and metrics; it is imported when a
configuration names a port for them, and never under the simulator. Invariant: the port is open
before recovery begins and until everything else has ended, so that a supervisor always hears.
"""

from __future__ import annotations

from ssgovern.api.http.auth import Gate
from ssgovern.api.http.console.console import Console
from ssgovern.api.http.front import Front
from ssgovern.api.http.gateway import Gateway
from ssgovern.api.http.server import HttpServer
from ssgovern.client.registry import Registry, connect
from ssgovern.errors import ConfigError, ShuttingDownError, UnavailableError
from ssgovern.node.cluster_node import ClusterNode
from ssgovern.node.config import HttpConfig
from ssgovern.node.metrics import (
    Families,
    Metrics,
    NodeMetrics,
    Part,
    ProcessMetrics,
    counter,
    gauge,
)
from ssgovern.node.metrics_cluster import ClusterMetrics
from ssgovern.node.metrics_shards import ShardMetrics
from ssgovern.node.metrics_tls import TlsMetrics
from ssgovern.node.node import Node
from ssgovern.node.topology import Address, is_any, is_loopback
from ssgovern.runtime import Runtime
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import native_pb2


class HttpPort:
    """What serves HTTP for a node, and what it asks other nodes with. `stop` it once."""

    def __init__(self, front: Front, server: HttpServer, gateway: Gateway) -> None:
        self._front = front
        self._server = server
        self._gateway = gateway

    async def stop(self) -> None:
        """Let what is under way end, then close everything."""
        self._front.stop()
        await self._server.stop()
        await self._gateway.close()


async def open_http(node: Node, config: HttpConfig, runtime: Runtime) -> HttpPort:
    """Open the port. Raises ConfigError if the address cannot be had."""
    gateway = Gateway(lambda: _client_of(node, runtime))
    backend = NodeBackend(node, gateway, runtime)
    hosts = (config.host.lower(),) if is_loopback(config.host) else None
    gate = Gate(
        node.access,
        node.access_commands.passwords,
        runtime.wall_ms,
        runtime.random_bytes,
        secure=node.tls is not None,
        audit=node.audit,
    )
    front = Front(backend, hosts, Console(backend, runtime.wall_ms, gate), gate)
    server = HttpServer(front, runtime.wall_ms)
    tls = node.tls
    parts: list[Part] = [NodeMetrics(node), lambda: _of_http(front, server)]
    if isinstance(node, ClusterNode):
        parts.append(ClusterMetrics(node))
    if tls is not None:
        parts.append(TlsMetrics(tls))
    parts.append(ShardMetrics(node))
    parts.append(ProcessMetrics(runtime.wall_ms() / 1000.0, node.resident_bytes))
    backend.show(Metrics(*parts))
    try:
        await server.start(config.host, config.port, None if tls is None else tls.listener)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port} for HTTP: {error.strerror or error}; "
            "name another address with --http-host, --http-port, or --http-port 0 for none"
        ) from error
    return HttpPort(front, server, gateway)


def _client_of(node: Node, runtime: Runtime) -> Registry:
    """Return a client of the cluster that starts from this node. Raises UnavailableError."""
    if not node.listening:
        raise UnavailableError("this node is starting")
    host, port = node.server.address
    if is_any(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return connect(
        str(Address(host, port)),
        client_name="ss-govern http",
        runtime=runtime,
        tls=node.tls or False,
        token=node.access.internal_token,
    )


def _of_http(front: Front, server: HttpServer) -> Families:
    family = counter("http_requests", "Requests answered, by the class of their status", 0)
    family.samples.clear()
    for first, count in front.answers.items():
        family.add_sample("ssgovern_http_requests_total", {"status": f"{first}xx"}, count)
    yield family
    yield gauge("http_connections", "HTTP connections", len(server))
    yield counter("http_refused", "HTTP connections ended because of a limit", server.refused)


class NodeBackend:
    """A node, as HTTP sees it (`api.http.backend.Backend`)."""

    def __init__(self, node: Node, gateway: Gateway, runtime: Runtime) -> None:
        self._node = node
        self.gateway = gateway
        self.runtime = runtime
        self._metrics = Metrics()

    def show(self, metrics: Metrics) -> None:
        """Answer with these metrics."""
        self._metrics = metrics

    @property
    def registry(self) -> RegistryService:
        return self._serving().registry

    @property
    def push(self) -> PushService:
        return self._serving().push

    def _serving(self) -> Node:
        node = self._node
        if node.is_stopping:
            raise ShuttingDownError("this node is stopping")
        if not node.listening:
            raise UnavailableError("this node is starting")
        return node

    def not_ready(self) -> str:
        return self._node.not_ready()

    def status(self) -> native_pb2.StatusResponse:
        return self._serving().status()

    def cluster_status(self, *, shards: bool) -> native_pb2.ClusterStatusResponse:
        node = self._serving()
        if isinstance(node, ClusterNode):
            return node.cluster_status(native_pb2.ClusterStatusRequest(shards=shards))
        return _alone(node, shards=shards)

    def push_delays(self) -> list[tuple[float, float]]:
        delays = self._serving().drivers.push.delays
        return [(float(bound), count) for bound, count in delays.buckets()]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return self._metrics.render(accept)


def _alone(node: Node, *, shards: bool) -> native_pb2.ClusterStatusResponse:
    """Describe a node by itself as the cluster that it is."""
    update = node.registry.placement.map_update(0)
    rows = len(update.rows)
    status = native_pb2.ClusterStatusResponse(
        cluster_id=update.cluster_id,
        map_version=update.version,
        copies=1,
        min_in_sync=1,
        shards_total=rows,
    )
    for known in update.nodes:
        status.node_id = known.node_id
        status.node_id_next = known.node_id + 1
        status.nodes.add(
            node_id=known.node_id,
            name=known.name,
            live=True,
            primaries=rows,
            holds=rows,
            in_sync=rows,
        )
    for row in update.rows if shards else ():
        status.shards.add(
            shard=row.shard,
            epoch=row.epoch,
            primary=row.primary,
            holders=row.holders,
            in_sync=row.in_sync,
        )
    return status
