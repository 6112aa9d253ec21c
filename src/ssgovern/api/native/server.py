"""All native connections of a node: accepting, limits, and sweeping out the dead.

Owns the listening socket and the set of connections. Connections that never say hello, never
read, or come in too many are closed; each limit says so to the client where it can still hear.

What takes longer than a turn of the loop is done by tasks of `run`: telling those who follow the
shard map, each of them from what it was told last, and commands to the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ssgovern import limits
from ssgovern.api.native import access as rights
from ssgovern.api.native import applied, leases, namespaces, observing, questions
from ssgovern.api.native import audit as auditing
from ssgovern.api.native.connection import HANDLERS, Handler, NativeConnection, Relay
from ssgovern.api.native.map_followers import MapFollowers
from ssgovern.api.native.peer import PeerAcceptor
from ssgovern.api.native.replies import RetryEnd
from ssgovern.errors import (
    InvalidArgumentError,
    OverloadedError,
    PeerRefusedError,
    RemoteProtocolError,
    ShuttingDownError,
    SsGovernError,
    UnauthenticatedError,
)
from ssgovern.model import NodeId
from ssgovern.service.access import Access, Principal
from ssgovern.service.audit import Audit
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.service.shard_reads import ShardReads
from ssgovern.transport.tls import TlsListener
from ssgovern.wire.codec import error_to_wire
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2

log = logging.getLogger("ssgovern.native")


ClusterStatus = Callable[[native_pb2.ClusterStatusRequest], native_pb2.ClusterStatusResponse]
ClusterCommand = Callable[
    [native_pb2.ClusterCommandRequest], Awaitable[native_pb2.ClusterCommandResponse]
]


Administer = Callable[[NativeConnection, int, native_pb2.AccessRequest], None]
"""Changes who may do what, and answers later. Raises if it is not even tried."""


class NativeServer:
    """The native port of a node; the `Host` of its connections."""

    handlers: Mapping[int, Handler] = auditing.noting(
        {
            **HANDLERS,
            **questions.HANDLERS,
            **observing.HANDLERS,
            **leases.HANDLERS,
            **namespaces.HANDLERS,
            **rights.HANDLERS,
            **applied.HANDLERS,
            **auditing.HANDLERS,
        }
    )

    def __init__(
        self,
        registry: RegistryService,
        push: PushService,
        *,
        hello: native_pb2.HelloResponse,
        status: Callable[[], native_pb2.StatusResponse],
        end_refused: RetryEnd,
        wake_push: Callable[[], None],
        connections_max: int = limits.CONNECTIONS_MAX,
        connections_per_address_max: int = limits.CONNECTIONS_MAX,
        peers: PeerAcceptor | None = None,
        cluster_status: ClusterStatus | None = None,
        cluster_command: ClusterCommand | None = None,
        life: bytes = b"",
        access: Access | None = None,
        administer: Administer | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.registry = registry
        self.push = push
        self.relay: Relay | None = None
        self.stopping = False
        self._hello = hello
        self.observing = observing.Observing(registry, life, NodeId(hello.node_id))
        self.set_map_version(hello.map_version)
        self._cluster_status = cluster_status
        self._cluster_command = cluster_command
        self._commands: asyncio.TaskGroup | None = None
        self._commands_under_way = 0
        self._map_followers: MapFollowers[NativeConnection] = MapFollowers(registry.placement)
        self._shard_reads: ShardReads[NativeConnection] = ShardReads(registry)
        self._status = status
        self._end_refused = end_refused
        self._wake_push = wake_push
        self._connections_max = connections_max
        self._connections_per_address_max = connections_per_address_max
        self._peers = peers
        # However many clients there are, another node still gets far enough to say what it is.
        self._strangers_spare = 0 if peers is None else limits.PEER_CONNECTIONS_MAX
        self.access = access or Access(lambda: 0, bytes)
        self._administer = administer
        self.audit = Audit(lambda: 0) if audit is None else audit
        self._rights_changed: dict[Principal, None] = {}
        self._rights_due = False
        self.access.listeners.append(self._on_access)
        self._guard()
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._tls: TlsListener | None = None
        self.address = ("", 0)
        """Where it accepts, once it does."""
        self._connections: dict[NativeConnection, None] = {}
        self._per_address: dict[str, int] = {}
        self._strangers: dict[NativeConnection, float] = {}
        self._congested: dict[NativeConnection, tuple[float, int]] = {}
        self._with_output: list[NativeConnection] = []
        self.heartbeats = 0
        self.lacking: dict[NativeConnection, None] = {}
        """Connections that lack pushes they could take; emptied by the push driver."""

    def __len__(self) -> int:
        return len(self._connections)

    async def listen(self, host: str, port: int, tls: TlsListener | None = None) -> tuple[str, int]:
        """Start accepting; return the address bound to. Raises OSError."""
        self._tls = tls

        def accept() -> asyncio.Protocol:
            return NativeConnection(self)

        self._server = await self._loop.create_server(
            accept if tls is None else tls.accepting(accept, _NO_TLS), host, port, backlog=4096
        )
        address = self._server.sockets[0].getsockname()
        self.address = str(address[0]), int(address[1])
        return self.address

    async def run(self) -> None:
        """Tell followers of the shard map and carry out commands, for ever.

        Only a node of a cluster has either.
        """
        async with asyncio.TaskGroup() as tasks:
            self._commands = tasks
            try:
                await self._map_followers.run()
            finally:
                self._commands = None

    def push_map(self) -> None:
        """The placement has a newer shard map: say so in heartbeats and to all who follow it."""
        self.set_map_version(self.registry.placement.map_version)
        self._map_followers.wake()
        if self.relay is not None:
            self.relay.map_changed()

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """Let answers to hellos name the cluster this node belongs to, as soon as it does."""
        self._hello.cluster_id = cluster_id

    def set_map_version(self, version: int) -> None:
        """Let answers to hellos and heartbeats name this version of the shard map."""
        self._hello.map_version = version
        self.heartbeat_body = native_pb2.HeartbeatResponse(map_version=version).SerializeToString()

    def stop_accepting(self) -> None:
        """Take no new connection and no new request."""
        self.stopping = True
        if self._server is not None:
            self._server.close()

    def close_all(self) -> None:
        """Close every connection after what is queued has been sent."""
        for connection in list(self._connections):
            connection.flush()
            connection.close()

    def shed_subscribers(self, error: SsGovernError) -> int:
        """Send away who wants to be told of changes, of services or of the shard map; return how
        many those were."""
        followers = self._map_followers
        told = [each for each in self._connections if each.subscriptions or each in followers]
        for connection in told:
            connection.refuse(error)
        return len(told)

    def flush(self) -> None:
        """Send what a batch of the log answered."""
        waiting, self._with_output = self._with_output, []
        for connection in waiting:
            connection.flush()

    def sweep(self) -> None:
        """Close who said no hello and who takes nothing. To be called about once a second."""
        now_ms = self.now_ms()
        self.access.look()
        if self._rights_due:
            self._rights_due = False
            changed, self._rights_changed = list(self._rights_changed), {}
            rights.look_again(self.access, list(self._connections), changed)
        for connection, deadline_ms in list(self._strangers.items()):
            if now_ms < deadline_ms:
                break
            log.info("closing %s: no session for %d ms", connection, limits.HELLO_TIMEOUT_MS)
            connection.abort()
            del self._strangers[connection]
        for connection in list(self._congested):
            waiting = connection.outbound_bytes
            since_ms, before = self._congested[connection]
            if not connection.is_congested:
                del self._congested[connection]
            elif waiting < before:
                self._congested[connection] = (now_ms, waiting)
            elif now_ms - since_ms > limits.OUTBOUND_STALL_MS:
                log.warning("closing %s: it reads nothing, %d bytes wait", connection, waiting)
                connection.abort()

    def _guard(self) -> None:
        if self.access.enforced:
            self.handlers = rights.guarded(type(self).handlers)

    def _on_access(self, changed: Sequence[Principal]) -> None:
        """Requests are judged anew from now on; who is to go goes with the next sweep, so that
        whoever asked for the change hears of it first."""
        self._guard()
        self._rights_changed.update(dict.fromkeys(changed))
        self._rights_due = True

    # --- Host ------------------------------------------------------------------------------

    def now_ms(self) -> float:
        return self._loop.time() * 1000.0

    def opened(self, connection: NativeConnection) -> bool:
        address = connection.address
        used = self._per_address.get(address, 0)
        spare = self._strangers_spare
        if (
            len(self._connections) >= self._connections_max + spare
            or used >= self._connections_per_address_max + spare
            or self.stopping
        ):
            return False
        self._connections[connection] = None
        self._per_address[address] = used + 1
        self._strangers[connection] = self.now_ms() + limits.HELLO_TIMEOUT_MS
        return True

    def check_room(self, connection: NativeConnection) -> None:
        if (
            len(self._connections) > self._connections_max
            or self._per_address[connection.address] > self._connections_per_address_max
        ):
            raise OverloadedError("this node has as many connections as it may")

    def peer_hello(self, connection: NativeConnection, request_id: int, body: bytes) -> None:
        if self._peers is None:
            raise PeerRefusedError(
                "this node is not part of a cluster: set cluster.candidates or cluster.join"
            )
        if self.stopping:
            raise ShuttingDownError("this node is stopping")
        tls = self._tls
        if tls is not None and tls.peers_show_certificates and not connection.certificate:
            raise PeerRefusedError(
                "it wants to see a certificate of other nodes (tls.client_auth), and this one"
                " showed none: set tls.cert and tls.key here"
            )
        self._peers.take_over(connection, request_id, body)

    def closed(self, connection: NativeConnection) -> None:
        self._strangers.pop(connection, None)
        self._congested.pop(connection, None)
        self.lacking.pop(connection, None)
        self._map_followers.remove(connection)
        self._shard_reads.forget(connection)
        if self.relay is not None and connection.forward:
            self.relay.closed(connection)
        if connection not in self._connections:
            return
        del self._connections[connection]
        address = connection.address
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]

    def welcomed(self, connection: NativeConnection) -> None:
        self._strangers.pop(connection, None)

    def leaving(self, connection: NativeConnection) -> None:
        # To the end: deadlines rise in the order of the dict.
        self._strangers.pop(connection, None)
        self._strangers[connection] = self.now_ms() + limits.HELLO_TIMEOUT_MS

    def congested(self, connection: NativeConnection) -> None:
        self._congested[connection] = (self.now_ms(), connection.outbound_bytes)

    def describe(self) -> native_pb2.HelloResponse:
        response = native_pb2.HelloResponse()
        response.CopyFrom(self._hello)
        return response

    def status(self) -> native_pb2.StatusResponse:
        return self._status()

    def shard_map(
        self, connection: NativeConnection, request: native_pb2.ShardMapRequest
    ) -> native_pb2.ShardMapUpdate:
        update = self.registry.placement.map_update(request.known_version)
        if request.follow:
            self._map_followers.add(connection, update.version)
        return update

    def cluster_status(
        self, request: native_pb2.ClusterStatusRequest
    ) -> native_pb2.ClusterStatusResponse:
        if self._cluster_status is None:
            raise _no_cluster()
        return self._cluster_status(request)

    def read_shard(
        self, connection: NativeConnection, request: native_pb2.ReadShardRequest
    ) -> native_pb2.ReadShardResponse:
        return self._shard_reads.read(connection, request, self.now_ms())

    def cluster_command(
        self,
        connection: NativeConnection,
        request_id: int,
        request: native_pb2.ClusterCommandRequest,
    ) -> None:
        if self._cluster_command is None or self._commands is None:
            raise _no_cluster()
        if request.WhichOneof("command") is None:
            raise InvalidArgumentError(
                "a command of a kind this node does not know", field="command"
            )
        if self._commands_under_way >= limits.CLUSTER_COMMANDS_MAX:
            raise OverloadedError(
                f"{self._commands_under_way} commands are under way on this node already",
                limit=limits.CLUSTER_COMMANDS_MAX,
            )
        self._commands_under_way += 1
        self._commands.create_task(
            self._carry_out(self._cluster_command(request), connection, request_id, request),
            name="cluster command",
        )

    def authenticate(
        self, connection: NativeConnection, request: native_pb2.HelloRequest
    ) -> Principal | None:
        try:
            return self.access.authenticate(request.token, request.session_id)
        except UnauthenticatedError as error:
            auditing.note(connection, "hello", error=error)
            raise

    def administer(
        self, connection: NativeConnection, request_id: int, request: native_pb2.AccessRequest
    ) -> None:
        if self._administer is None:
            raise InvalidArgumentError("access cannot be changed on this node")
        self._administer(connection, request_id, request)

    async def _carry_out(
        self,
        answering: Awaitable[native_pb2.ClusterCommandResponse],
        connection: NativeConnection,
        request_id: int,
        request: native_pb2.ClusterCommandRequest,
    ) -> None:
        type_ = MessageType.CLUSTER_COMMAND
        action, detail = "cluster_command", str(request).replace("\n", " ").strip()
        try:
            response = await answering
        except SsGovernError as error:
            auditing.note(connection, action, error=error, detail=detail)
            connection.reply_error(type_, request_id, error_to_wire(error))
        else:
            auditing.note(connection, action, detail=detail)
            connection.reply(type_, request_id, response.SerializeToString())
        finally:
            self._commands_under_way -= 1
            connection.in_flight -= 1
        connection.flush()

    def writable(self, connection: NativeConnection) -> None:
        self._map_followers.wake_for(connection)
        if self.relay is not None and connection.forward:
            self.relay.writable(connection)

    def has_output(self, connection: NativeConnection) -> None:
        self._with_output.append(connection)

    def wants_catch_up(self, connection: NativeConnection) -> None:
        self.lacking[connection] = None
        self._wake_push()

    def session_end_refused(self) -> RetryEnd:
        return self._end_refused


_NO_TLS = encode_frame(
    Kind.ERROR,
    MessageType.HELLO,
    0,
    error_to_wire(
        RemoteProtocolError("this port speaks TLS: connect with it (tls=, --tls-ca)")
    ).SerializeToString(),
)
"""What a client without TLS can read."""


def _no_cluster() -> InvalidArgumentError:
    return InvalidArgumentError(
        "this node is not part of a cluster: set cluster.candidates or cluster.join"
    )
