"""One client's connection: handshake, requests in, answers and pushes out.

Translates between frames and use cases and decides nothing about the registry. What is wrong
with a request is answered as an error on the same connection; what is not the protocol closes
it. Everything a connection may pile up is limited: requests in flight, subscriptions, bytes
that wait to be read by the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from ssgovern import limits
from ssgovern.api.native import replies
from ssgovern.errors import (
    HelloRequiredError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    RemoteProtocolError,
    SessionForeignError,
    SessionSupersededError,
    SessionUnknownError,
    ShardMovedError,
    ShardUnavailableError,
    ShuttingDownError,
    SsGovernError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from ssgovern.model import (
    LogPosition,
    ServiceKey,
    SessionId,
    check_text,
    session_secret_matches,
)
from ssgovern.model.session import SESSION_ID_BYTES, SESSION_SECRET_BYTES
from ssgovern.registry.sessions import Session
from ssgovern.registry.subscriptions import Target
from ssgovern.service import checks
from ssgovern.service.access import Access, Principal
from ssgovern.service.audit import Audit
from ssgovern.service.push import PushService, Who
from ssgovern.service.registry import RegistryService
from ssgovern.transport.connection import FrameConnection
from ssgovern.wire.codec import decode, error_to_wire
from ssgovern.wire.frames import (
    FLAG_MORE,
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    Frame,
    Kind,
    MessageType,
    encode_frame,
    encode_message,
)
from ssgovern.wire.pb import applied_pb2, log_pb2, native_pb2

if TYPE_CHECKING:
    from ssgovern.api.native.observing import Observing

# Plain numbers for what is looked at with every frame: an attribute of an enumeration costs more.
_REQUEST = int(Kind.REQUEST)
_PUSH = int(Kind.PUSH)
_RESPONSE = int(Kind.RESPONSE)
_HEARTBEAT = int(MessageType.HEARTBEAT)


class Relay(Protocol):
    """Who asks other nodes for clients that know this one only."""

    def welcomed(self, connection: NativeConnection, session: Session, secret: bytes) -> bool:
        """Such a client said hello; return whether what it has elsewhere is looked after."""

    def take(self, connection: NativeConnection, type_: int, request_id: int, body: bytes) -> bool:
        """Answer a request that concerns other nodes; False: it cannot, answer it here.

        Raises nothing.
        """

    def unsubscribe(self, connection: NativeConnection, subscription_id: int) -> bool:
        """Drop what a subscription has on other nodes; return whether it has anything there."""

    def goodbye(self, connection: NativeConnection, session: Session, request_id: int) -> bool:
        """End a session on other nodes, then here; False: it is nowhere else."""

    def writable(self, connection: NativeConnection) -> None:
        """A connection takes pushes again."""

    def closed(self, connection: NativeConnection) -> None:
        """A connection is gone."""

    def map_changed(self) -> None:
        """The placement has a newer shard map."""

    def targets(self, connection: NativeConnection) -> list[Target]:
        """Return what a client follows on other nodes."""

    def applied(self, connection: NativeConnection, said: applied_pb2.Applied) -> None:
        """Pass on what a client says it has applied to where it is told from."""


class Host(Protocol):
    """What a connection needs of its node."""

    registry: RegistryService
    push: PushService
    relay: Relay | None
    """For clients that know one node only; None: they are told who is to be asked, as all are."""
    handlers: Mapping[int, Handler]
    """What answers a request, by its type."""
    access: Access
    """Who may do what; told by `handlers` where it is controlled."""
    audit: Audit
    observing: Observing
    """Answers people who look on."""
    stopping: bool
    heartbeat_body: bytes
    """An encoded HeartbeatResponse."""
    heartbeats: int
    """How many were heard."""

    def now_ms(self) -> float:
        """Monotonic time, milliseconds."""

    def opened(self, connection: NativeConnection) -> bool:
        """A connection came in; False refuses it."""

    def check_room(self, connection: NativeConnection) -> None:
        """Raise OverloadedError if there are more clients than there may be."""

    def peer_hello(self, connection: NativeConnection, request_id: int, body: bytes) -> None:
        """A connection is one of another node: hand it over, or raise why not."""

    def closed(self, connection: NativeConnection) -> None:
        """A connection is gone."""

    def welcomed(self, connection: NativeConnection) -> None:
        """A connection has a session now."""

    def leaving(self, connection: NativeConnection) -> None:
        """A connection has no session any more: its client is to close it, and soon."""

    def congested(self, connection: NativeConnection) -> None:
        """A connection has more waiting to be read by its client than it should."""

    def describe(self) -> native_pb2.HelloResponse:
        """What every hello is told of the node."""

    def status(self) -> native_pb2.StatusResponse:
        """The node's state, for people."""

    def shard_map(
        self, connection: NativeConnection, request: native_pb2.ShardMapRequest
    ) -> native_pb2.ShardMapUpdate:
        """What a client lacks of the shard map; it may follow what comes."""

    def cluster_status(
        self, request: native_pb2.ClusterStatusRequest
    ) -> native_pb2.ClusterStatusResponse:
        """The state of the cluster, as this node sees it. Raises if there is none."""

    def read_shard(
        self, connection: NativeConnection, request: native_pb2.ReadShardRequest
    ) -> native_pb2.ReadShardResponse:
        """A piece of a whole shard, for a backup."""

    def cluster_command(
        self,
        connection: NativeConnection,
        request_id: int,
        request: native_pb2.ClusterCommandRequest,
    ) -> None:
        """Carry out a command and answer it later. Raises if it is not even tried."""

    def authenticate(
        self, connection: NativeConnection, request: native_pb2.HelloRequest
    ) -> Principal | None:
        """Return who says hello; None while access is not controlled. Raises if nobody."""

    def administer(
        self, connection: NativeConnection, request_id: int, request: native_pb2.AccessRequest
    ) -> None:
        """Change who may do what and answer later. Raises if it is not even tried."""

    def writable(self, connection: NativeConnection) -> None:
        """A connection that was congested takes pushes again."""

    def has_output(self, connection: NativeConnection) -> None:
        """A connection has answers that leave with the batch."""

    def wants_catch_up(self, connection: NativeConnection) -> None:
        """A connection lacks something it could take now."""

    def session_end_refused(self) -> replies.RetryEnd:
        """Who repeats the end of a session."""


class NativeConnection(FrameConnection):
    """See the module."""

    __slots__ = (
        "_next_subscription",
        "_output",
        "_output_bytes",
        "_reading",
        "applied",
        "behind",
        "client_name",
        "forward",
        "host",
        "in_flight",
        "principal",
        "session",
        "subscriptions",
        "token",
    )

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._reading = False
        self._next_subscription = 1
        self.session: Session | None = None
        self.client_name = ""
        self.principal: Principal | None = None
        self.token = ""
        self.forward = False
        """The client knows this node only: what belongs to others is passed on for it."""
        self.in_flight = 0
        self.subscriptions: dict[int, Target] = {}
        self.behind: dict[ServiceKey, LogPosition] = {}
        self.applied: dict[ServiceKey, LogPosition] | None = None

    def __repr__(self) -> str:
        return f"<NativeConnection {self.peer} {self.client_name} in_flight={self.in_flight}>"

    # --- FrameConnection -------------------------------------------------------------------

    def on_open(self) -> None:
        if not self.host.opened(self):
            self.refuse(OverloadedError("this node has as many connections as it may"))

    def data_received(self, data: bytes) -> None:
        self._reading = True
        super().data_received(data)
        self._reading = False
        if self._output:
            self.flush()

    def on_frame(self, frame: Frame) -> None:
        kind, flags, type_, request_id, body = frame
        if flags & FLAG_MORE:
            raise RemoteProtocolError("what a client says must fit into one frame")
        if kind != _REQUEST:
            self._on_push(kind, type_, body)
            return
        if self.transport is None or self.transport.is_closing():
            return
        try:
            session = self.session
            if session is None or session.connection is not self:
                self._on_stranger(type_, request_id, body)
                return
            # Whatever it says, it lives.
            host = self.host
            host.registry.sessions.hear(session, host.now_ms())
            if type_ == _HEARTBEAT:
                host.heartbeats += 1
                self.reply(_HEARTBEAT, request_id, host.heartbeat_body)
            else:
                handler = host.handlers.get(type_)
                if handler is None:
                    raise UnsupportedTypeError(f"type {type_} is not known here", type=type_)
                if self._write_paused or host.stopping:
                    self._check_may_ask(type_)
                handler(self, session, request_id, body)
        except SsGovernError as error:
            if isinstance(error, RemoteProtocolError):
                raise
            if (
                self.forward
                and isinstance(error, (ShardMovedError, ShardUnavailableError))
                and self._pass_on(type_, request_id, body)
            ):
                return
            self.reply_error(type_, request_id, error_to_wire(error))

    def _on_push(self, kind: int, type_: int, body: bytes) -> None:
        """A client that tells something: what it has applied, and nothing else."""
        if kind != _PUSH or type_ != MessageType.APPLIED:
            raise RemoteProtocolError(
                f"a client sends requests, not frames of kind {kind} and type {type_}"
            )
        session, host = self.session, self.host
        if session is None or session.connection is not self or not self.is_open:
            # It was sent before its sender could know that its session has ended.
            return
        host.registry.sessions.hear(session, host.now_ms())
        try:
            said = decode(applied_pb2.Applied, body)
        except InvalidArgumentError as error:
            raise RemoteProtocolError(error.message) from None
        if len(said.services) > limits.APPLIED_PER_MESSAGE_MAX:
            raise RemoteProtocolError(
                f"{len(said.services)} services applied in one message: at most "
                f"{limits.APPLIED_PER_MESSAGE_MAX} are allowed"
            )
        host.push.applied.on_said(self, said, host.now_ms() / 1000.0)
        if self.forward and host.relay is not None:
            host.relay.applied(self, said)

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        self.refuse(error)

    def on_congested(self) -> None:
        self.host.congested(self)

    def on_writable(self) -> None:
        self.host.writable(self)
        if self.subscriptions:
            self.host.wants_catch_up(self)

    def on_closed(self, cause: Exception | None) -> None:
        host = self.host
        if self.applied is not None:
            targets = list(self.subscriptions.values())
            if self.forward and host.relay is not None:
                targets += host.relay.targets(self)
            host.push.applied.gone(self, targets, host.now_ms() / 1000.0)
        self.host.closed(self)
        self.host.push.forget(self, self.subscriptions.values())
        self.subscriptions.clear()
        if self.session is not None:
            self.host.registry.sessions.detach(self.session, self, self.host.now_ms())

    def refuse(self, error: SsGovernError) -> None:
        """Say why and close. The error belongs to no request, so its id is 0."""
        self.flush()
        body = error_to_wire(error).SerializeToString(deterministic=True)
        self.send(encode_frame(Kind.ERROR, 0, 0, body))
        self.close()
        self.host.leaving(self)

    # --- answers ---------------------------------------------------------------------------

    def reply(self, type_: int, request_id: int, body: bytes) -> None:
        """Answer a request; leaves at the end of this read or this batch of the log."""
        if not self._output and not self._reading:
            self.host.has_output(self)
        if len(body) <= limits.FRAME_CHUNK_BYTES:
            self._output.append(encode_frame(_RESPONSE, type_, request_id, body))
        else:
            self._output += encode_message(Kind.RESPONSE, type_, request_id, body)
        self._output_bytes += len(body)
        if self._output_bytes > limits.OUTBOUND_SOFT_BYTES:
            # One read can hold thousands of requests for long answers; sending shows whether
            # the client reads, and if it does not, the rest of them is refused.
            self.flush()

    def reply_error(self, type_: int, request_id: int, error: native_pb2.Error) -> None:
        """Refuse a request."""
        if not self._output and not self._reading:
            self.host.has_output(self)
        body = error.SerializeToString(deterministic=True)
        self._output.append(encode_frame(Kind.ERROR, type_, request_id, body))

    def flush(self) -> None:
        """Send the answers collected so far."""
        output = self._output
        if not output:
            return
        self.send(output[0] if len(output) == 1 else b"".join(output))
        output.clear()
        self._output_bytes = 0
        if self._write_paused and self.outbound_bytes > limits.OUTBOUND_HARD_BYTES:
            self.abort()

    # --- service.push.Subscriber -----------------------------------------------------------

    @property
    def can_take(self) -> bool:
        """Whether pushes may be sent now."""
        return not self._write_paused and self.is_open

    def take(self, frame: bytes) -> None:
        """Send one push frame."""
        self.send(frame)

    def lacks(self) -> None:
        """See to it that it catches up."""
        self.host.wants_catch_up(self)

    @property
    def who(self) -> Who:
        """Whose connection it is. It has had a session."""
        assert self.session is not None, "who follows something said hello before"
        return Who(self.session.id, self.client_name, self.peer)

    # --- requests --------------------------------------------------------------------------

    def _on_stranger(self, type_: int, request_id: int, body: bytes) -> None:
        """A request from someone who is no session (yet, or any more)."""
        if self.session is not None:
            raise SessionUnknownError(
                "the session has ended; say hello again on a new connection",
                session_id=self.session.id.hex(),
            )
        if type_ == MessageType.HELLO:
            self._on_hello(request_id, decode(native_pb2.HelloRequest, body))
            return
        if type_ == MessageType.PEER_HELLO:
            self.flush()
            self.host.peer_hello(self, request_id, body)
            return
        if type_ == MessageType.HEARTBEAT:
            raise SessionUnknownError("a heartbeat of no session; say hello first")
        raise HelloRequiredError("the first request on a connection must be a hello")

    def _on_hello(self, request_id: int, request: native_pb2.HelloRequest) -> None:
        version = min(request.version_max, PROTOCOL_VERSION_MAX)
        if version < max(request.version_min, PROTOCOL_VERSION_MIN):
            raise UnsupportedVersionError(
                f"the client speaks protocol versions {request.version_min} to "
                f"{request.version_max}, this node {PROTOCOL_VERSION_MIN} to "
                f"{PROTOCOL_VERSION_MAX}; upgrade the older side",
                version_min=PROTOCOL_VERSION_MIN,
                version_max=PROTOCOL_VERSION_MAX,
            )
        if request.role != native_pb2.ROLE_CLIENT:
            raise InvalidArgumentError("this node takes clients only", field="role")
        if (
            len(request.session_id) != SESSION_ID_BYTES
            or len(request.session_secret) != SESSION_SECRET_BYTES
        ):
            raise InvalidArgumentError(
                f"a session id has {SESSION_ID_BYTES} bytes, its secret {SESSION_SECRET_BYTES}",
                field="session_id",
            )
        check_text("client_name", request.client_name, limits.CLIENT_NAME_BYTES_MAX)
        self.host.check_room(self)
        if not session_secret_matches(request.session_id, request.session_secret):
            raise SessionForeignError("the session belongs to someone else: wrong secret")
        if self.host.stopping:
            raise ShuttingDownError("this node is stopping")
        self.principal = self.host.authenticate(self, request)
        # Kept, because it may be asked for later, and on other nodes.
        self.token = request.token[: limits.ACCESS_TOKEN_BYTES_MAX + 1]
        self.client_name = request.client_name
        session, before, resumed = self.host.registry.hello(
            SessionId(request.session_id),
            self,
            self.host.now_ms(),
            self.host.session_end_refused(),
        )
        self.session = session
        relay = self.host.relay
        if request.forward and relay is not None:
            self.forward = True
            # What it has on other nodes may be gone, though this one knows the session.
            resumed = relay.welcomed(self, session, request.session_secret) and resumed
        self.host.welcomed(self)
        if before is not None and before is not self:
            before.refuse(SessionSupersededError("the session said hello on a new connection"))
        response = self.host.describe()
        response.version = version
        response.resumed = resumed
        response.principal = "" if self.principal is None else self.principal.name
        self.reply(MessageType.HELLO, request_id, response.SerializeToString())

    def _check_may_ask(self, type_: int) -> None:
        if type_ in _ALWAYS_ANSWERED:
            return
        if self.host.stopping:
            raise ShuttingDownError("this node is stopping; ask another or wait for its return")
        raise OverloadedError("read what was sent to you before you ask for more")

    def _pass_on(self, type_: int, request_id: int, body: bytes) -> bool:
        relay = self.host.relay
        return relay is not None and relay.take(self, type_, request_id, body)

    def take_slot(self) -> None:
        """Raise OverloadedError if too many requests of this connection wait for answers."""
        if self.in_flight >= limits.IN_FLIGHT_PER_CONNECTION_MAX:
            raise OverloadedError(
                f"{self.in_flight} requests of this connection wait for the log already",
                limit=limits.IN_FLIGHT_PER_CONNECTION_MAX,
            )

    def _on_register(self, session: Session, request_id: int, body: bytes) -> None:
        # Also what can be done here: the relay has to know what the client has, and where.
        if self.forward and self._pass_on(MessageType.REGISTER, request_id, body):
            return
        self.take_slot()
        request = decode(native_pb2.RegisterRequest, body)
        waiter: replies.RegisterReply | replies.RegisterBatchReply
        if len(request.registrations) == 1:
            waiter = replies.RegisterReply(self, request_id)
        else:
            waiter = replies.RegisterBatchReply(self, request_id)
        host = self.host
        if request.HasField("lease"):
            ends = host.session_end_refused()
            proposals = host.registry.leases.register(request, waiter, ends, host.now_ms())
        else:
            proposals = host.registry.register(session, request, waiter)
        if isinstance(waiter, replies.RegisterBatchReply):
            waiter.expect(proposals)
        self.in_flight += 1

    def _on_deregister(self, session: Session, request_id: int, body: bytes) -> None:
        if self.forward and self._pass_on(MessageType.DEREGISTER, request_id, body):
            return
        self.take_slot()
        request = decode(native_pb2.DeregisterRequest, body)
        waiter = replies.DeregisterReply(self, request_id)
        self.host.registry.deregister(session, request, waiter)
        self.in_flight += 1

    def _on_update(self, session: Session, request_id: int, body: bytes) -> None:
        self.take_slot()
        request = decode(native_pb2.UpdateRequest, body)
        self.host.registry.update(session, request, replies.UpdateReply(self, request_id))
        self.in_flight += 1

    def _on_goodbye(self, session: Session, request_id: int, body: bytes) -> None:
        decode(native_pb2.GoodbyeRequest, body)
        relay = self.host.relay
        if self.forward and relay is not None and relay.goodbye(self, session, request_id):
            return
        self.end_session(session, request_id)

    def end_session(self, session: Session, request_id: int) -> None:
        """End the session here, as its client asked for."""
        self.in_flight += 1
        waiter = replies.GoodbyeReply(self, request_id, self.host.session_end_refused())
        waiter.expect(self.host.registry.end_session(session, log_pb2.SESSION_END_GOODBYE, waiter))
        self.host.leaving(self)

    def _on_get(self, session: Session, request_id: int, body: bytes) -> None:
        request = decode(native_pb2.GetRequest, body)
        self.reply(MessageType.GET, request_id, self.host.registry.get(request))

    def _on_list_services(self, session: Session, request_id: int, body: bytes) -> None:
        request = decode(native_pb2.ListServicesRequest, body)
        response = self.host.registry.list_services(request)
        self.reply(MessageType.LIST_SERVICES, request_id, response.SerializeToString())

    def _on_subscribe(self, session: Session, request_id: int, body: bytes) -> None:
        request = decode(native_pb2.SubscribeRequest, body)
        checks.subscriptions(len(self.subscriptions))
        target, known = checks.subscription(request)
        self.host.push.subscribe(self, target, known)
        subscription_id = self.new_subscription_id()
        self.subscriptions[subscription_id] = target
        response = native_pb2.SubscribeResponse(subscription_id=subscription_id)
        self.reply(MessageType.SUBSCRIBE, request_id, response.SerializeToString())
        self.host.wants_catch_up(self)

    def new_subscription_id(self) -> int:
        """Return a number that names no subscription of this connection yet."""
        self._next_subscription += 1
        return self._next_subscription - 1

    def _on_unsubscribe(self, session: Session, request_id: int, body: bytes) -> None:
        request = decode(native_pb2.UnsubscribeRequest, body)
        target = self.subscriptions.pop(request.subscription_id, None)
        relay = self.host.relay
        elsewhere = (
            self.forward and relay is not None and relay.unsubscribe(self, request.subscription_id)
        )
        if target is not None:
            self.host.push.unsubscribe(self, target)
        elif not elsewhere:
            raise NotFoundError(f"no subscription {request.subscription_id} on this connection")
        self.reply(MessageType.UNSUBSCRIBE, request_id, b"")


Handler = Callable[[NativeConnection, Session, int, bytes], None]
"""Answers a request, now or later, or raises why it cannot be answered."""

HANDLERS: dict[int, Handler] = {
    MessageType.GOODBYE: NativeConnection._on_goodbye,
    MessageType.REGISTER: NativeConnection._on_register,
    MessageType.DEREGISTER: NativeConnection._on_deregister,
    MessageType.UPDATE: NativeConnection._on_update,
    MessageType.GET: NativeConnection._on_get,
    MessageType.LIST_SERVICES: NativeConnection._on_list_services,
    MessageType.SUBSCRIBE: NativeConnection._on_subscribe,
    MessageType.UNSUBSCRIBE: NativeConnection._on_unsubscribe,
}

_ALWAYS_ANSWERED = frozenset({int(MessageType.GOODBYE), int(MessageType.UNSUBSCRIBE)})
"""What even a congested client may ask for: it makes less of it, not more."""
