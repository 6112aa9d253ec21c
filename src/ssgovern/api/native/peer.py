"""The accepting ends of links: what other nodes tell this one, and what they ask.

A link begins as a connection like any client's, on the same port; its first request makes it
one of a node. Knows handshakes, limits and who said what; the meaning of messages is the
handler's. Invariants: nothing reaches the handler before the far end has proved itself; a newer
link of a node ends the one before, so that what is told comes in one order; whatever a node
sends, it ends its own link at most.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import (
    HelloRequiredError,
    OverloadedError,
    PeerRefusedError,
    RemoteProtocolError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.runtime import Runtime
from ssgovern.transport import handshake
from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.handshake import PeerIdentity, PeerSaid
from ssgovern.wire.codec import decode, encode, error_to_wire
from ssgovern.wire.frames import (
    Frame,
    Kind,
    MessageAssembler,
    MessageType,
    encode_frame,
    encode_message,
)
from ssgovern.wire.pb import peer_pb2

log = logging.getLogger("ssgovern.links")

_REQUEST = int(Kind.REQUEST)
_PUSH = int(Kind.PUSH)
_PING = int(MessageType.PEER_PING)
_TICK_MS = limits.PEER_PING_MS
_SILENT_TICKS_MAX = limits.PEER_SILENCE_MS // _TICK_MS
_STALLED_TICKS_MAX = limits.OUTBOUND_STALL_MS // _TICK_MS
_HELLO_TICKS_MAX = limits.HELLO_TIMEOUT_MS // _TICK_MS


class PeerHandler(Protocol):
    """What a node makes of what others say."""

    def on_peer_push(self, source: NodeId, type_: int, body: bytes) -> None:
        """A node tells something. An SsGovernError ends its link and nothing more."""

    async def on_peer_request(self, source: NodeId, type_: int, body: bytes) -> bytes:
        """A node asks; return the answer. An SsGovernError becomes its error.

        Runs as a task of its own, which the loss of the link does not cancel.
        """

    def on_peer_read(self) -> None:
        """All that one read of a socket brought was handed over: time to send what collected."""

    def said_hello(self, said: PeerSaid, address: str) -> None:
        """A node passed the handshake, for a link or a question; it is dialled at `address`.

        PeerRefusedError: it is not wanted all the same.
        """


class PeerConnection(FrameConnection):
    """One link of another node, or one question of it."""

    __slots__ = (
        "_acceptor",
        "_assembler",
        "_expected_proof",
        "_handed_over",
        "_written",
        "address_told",
        "in_flight",
        "is_heard",
        "is_link",
        "is_proven",
        "said",
        "silent_ticks",
        "stalled_ticks",
        "taken",
    )

    def __init__(
        self,
        acceptor: PeerAcceptor,
        said: PeerSaid,
        address_told: str,
        expected_proof: bytes,
        *,
        is_link: bool,
    ) -> None:
        super().__init__()
        self._acceptor = acceptor
        self._assembler = MessageAssembler(limits.PEER_MESSAGE_BYTES_MAX)
        self._expected_proof = expected_proof
        self._handed_over = False
        self._written = 0
        self.said = said
        """To be believed once it `is_proven`."""
        self.address_told = address_told
        self.is_link = is_link
        """Dialled for this node, not for whoever listens."""
        self.is_proven = False
        self.in_flight = 0
        self.is_heard = True
        self.silent_ticks = 0
        self.stalled_ticks = 0
        self.taken = 0

    def __repr__(self) -> str:
        state = "proven" if self.is_proven else "unproven"
        return f"<PeerConnection {self.peer} node={self.said.node_id} {state}>"

    # --- FrameConnection -------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.is_heard = True
        super().data_received(data)
        if self._handed_over:
            self._handed_over = False
            self._acceptor.handler.on_peer_read()

    def on_frame(self, frame: Frame) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if frame[1] and not self.is_proven:
            raise RemoteProtocolError("a stranger's message in several frames")
        message = self._assembler.add(frame)
        if message is None:
            return
        kind, _, type_, request_id, body = message
        if kind == _PUSH and self.is_proven:
            self._handed_over = True
            try:
                self._acceptor.handler.on_peer_push(self.said.node_id, type_, body)
            except SsGovernError as error:
                log.error("what node %d told is refused: %s", self.said.node_id, error)
                self.refuse(error)
        elif kind == _REQUEST:
            try:
                self._on_request(type_, request_id, body)
            except RemoteProtocolError:
                raise
            except SsGovernError as error:
                self.reply_error(type_, request_id, error)
        else:
            raise RemoteProtocolError(f"{self.peer} sent a frame of kind {kind} out of turn")

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        log.warning("closing %s: %s", self, error)
        self.refuse(error)

    def on_closed(self, cause: Exception | None) -> None:
        self._acceptor.closed(self)

    # --- requests and answers --------------------------------------------------------------

    def _on_request(self, type_: int, request_id: int, body: bytes) -> None:
        if not self.is_proven:
            self._on_proof(type_, request_id, body)
        elif type_ == _PING:
            self.reply(type_, request_id, b"")
        elif type_ in (MessageType.PEER_HELLO, MessageType.PEER_PROOF):
            raise RemoteProtocolError("a handshake on a link that is open")
        else:
            self._handed_over = True
            self._acceptor.on_request(self, type_, request_id, body)

    def _on_proof(self, type_: int, request_id: int, body: bytes) -> None:
        if type_ != MessageType.PEER_PROOF:
            raise HelloRequiredError("after its hello a node has to prove itself")
        proof = decode(peer_pb2.PeerProofRequest, body).proof
        try:
            handshake.check_dialler_proof(self._expected_proof, proof, self.said.node_id)
            self._acceptor.proven(self)
        except PeerRefusedError as error:
            log.warning("%s is refused: %s", self, error)
            self.reply_error(type_, request_id, error)
            self.close()
            return
        self.is_proven = True
        self.reply(type_, request_id, encode(peer_pb2.PeerProofResponse()))

    def reply(self, type_: int, request_id: int, body: bytes) -> None:
        """Answer a request."""
        if len(body) <= limits.FRAME_CHUNK_BYTES:
            self._write(encode_frame(Kind.RESPONSE, type_, request_id, body))
        else:
            self._write(b"".join(encode_message(Kind.RESPONSE, type_, request_id, body)))

    def reply_error(self, type_: int, request_id: int, error: SsGovernError) -> None:
        """Refuse a request."""
        self._write(encode_frame(Kind.ERROR, type_, request_id, encode(error_to_wire(error))))

    def refuse(self, error: SsGovernError) -> None:
        """Say why and close. The error belongs to no request, so its id is 0."""
        self.reply_error(0, 0, error)
        self.close()

    def _write(self, frame: bytes) -> None:
        self._written += len(frame)
        self.send(frame)
        if self.outbound_bytes > limits.PEER_OUTBOUND_BYTES_MAX:
            log.warning("closing %s: it reads nothing of its answers", self)
            self.abort()

    # --- silence ---------------------------------------------------------------------------

    def tick(self) -> str:
        """Return what is wrong with the far end, "" if nothing is.

        Counted in ticks, not in seconds: while this process stood still nobody could be heard.
        """
        if not self.is_proven:
            # Bytes are no proof: whoever sends some now and then is as silent as the others.
            self.silent_ticks += 1
            return "it proved nothing" if self.silent_ticks > _HELLO_TICKS_MAX else ""
        self.silent_ticks = 0 if self.is_heard else self.silent_ticks + 1
        self.is_heard = False
        if self.silent_ticks >= _SILENT_TICKS_MAX:
            return "it is silent"
        waiting = self.outbound_bytes
        taken = self._written - waiting
        self.stalled_ticks = self.stalled_ticks + 1 if waiting and taken == self.taken else 0
        self.taken = taken
        return "it reads nothing" if self.stalled_ticks >= _STALLED_TICKS_MAX else ""


class PeerAcceptor:
    """All that other nodes have opened to this one. `run` owns its tasks."""

    def __init__(
        self,
        me: PeerIdentity,
        runtime: Runtime,
        handler: PeerHandler,
        *,
        connections_max: int = limits.PEER_CONNECTIONS_MAX,
    ) -> None:
        self._me = me
        self._runtime = runtime
        self.handler = handler
        self._connections_max = connections_max
        self._connections: dict[PeerConnection, None] = {}
        self._links: dict[NodeId, PeerConnection] = {}
        self._in_flight = 0
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return f"<PeerAcceptor of {self._me.node_id} links={list(self._links)}>"

    def __len__(self) -> int:
        return len(self._connections)

    async def run(self) -> None:
        """Answer what is asked and close who is silent, until cancelled; then close all."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    while True:
                        await asyncio.sleep(_TICK_MS / 1000.0)
                        self._sweep()
                finally:
                    self._group = None
                    self.close_all()
        finally:
            self.close_all()

    def hears(self, node: NodeId) -> bool:
        """Tell whether a node has a link to this one."""
        return node in self._links

    def close_all(self) -> None:
        """Close all, and take no more."""
        self._stopping = True
        for connection in list(self._connections):
            connection.abort()

    # --- for connections -------------------------------------------------------------------

    def take_over(self, stranger: FrameConnection, request_id: int, body: bytes) -> None:
        """Make a connection that said a node's hello one of a node.

        Raises the refusal, which `stranger` is to be told; it has its connection still then.
        """
        if self._stopping:
            raise UnavailableError("this node is stopping")
        request = decode(peer_pb2.PeerHelloRequest, body)
        nonce = self._runtime.random_bytes(handshake.NONCE_BYTES)
        said, response = handshake.answer_hello(self._me, request, nonce)
        before = self._links.get(said.node_id)
        if before is not None and before.said.directory_id != said.directory_id:
            raise PeerRefusedError(
                f"node {said.node_id} is here already, from {before.address_told}, with another "
                "data directory: give one of the two another node.id"
            )
        self._make_room()
        connection = PeerConnection(
            self,
            said,
            request.address,
            handshake.expected_proof(self._me, request, response),
            is_link=request.target_id != 0,
        )
        stranger.hand_over(connection)
        self._connections[connection] = None
        connection.reply(MessageType.PEER_HELLO, request_id, encode(response))

    def proven(self, connection: PeerConnection) -> None:
        """A connection passed the handshake. Raises PeerRefusedError if it is refused all the same.

        It is asked for before the link that was there goes: a stranger must not end that.
        """
        said = connection.said
        self.handler.said_hello(said, connection.address_told)
        if connection.is_link:
            before = self._links.get(said.node_id)
            self._links[said.node_id] = connection
            if before is not None:
                # Its dialler has given it up; what still comes over it would come too late.
                before.abort()

    def closed(self, connection: PeerConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        if self._links.get(connection.said.node_id) is connection:
            del self._links[connection.said.node_id]

    def on_request(
        self, connection: PeerConnection, type_: int, request_id: int, body: bytes
    ) -> None:
        """Give a request to the handler, in a task of its own."""
        if self._group is None:
            raise UnavailableError("this node is not ready to answer")
        if (
            connection.in_flight >= limits.PEER_IN_FLIGHT_MAX
            or self._in_flight >= limits.PEER_REQUESTS_MAX
        ):
            raise OverloadedError(
                f"node {self._me.node_id} is at {self._in_flight} requests of other nodes already"
            )
        connection.in_flight += 1
        self._in_flight += 1
        self._group.create_task(
            self._answer(connection, type_, request_id, body),
            name=f"request {type_} of node {connection.said.node_id}",
        )

    async def _answer(
        self, connection: PeerConnection, type_: int, request_id: int, body: bytes
    ) -> None:
        try:
            answer = await self.handler.on_peer_request(connection.said.node_id, type_, body)
            connection.reply(type_, request_id, answer)
        except SsGovernError as error:
            connection.reply_error(type_, request_id, error)
        finally:
            connection.in_flight -= 1
            self._in_flight -= 1

    def _make_room(self) -> None:
        if len(self._connections) < self._connections_max:
            return
        for connection in self._connections:
            # A node proves itself at once. Whoever takes its time is none, or tries again.
            if not connection.is_proven:
                connection.abort()
                self.closed(connection)
                return
        raise OverloadedError("this node has as many connections of other nodes as it may")

    def _sweep(self) -> None:
        for connection in list(self._connections):
            fault = connection.tick()
            if fault:
                log.warning("closing %s: %s", connection, fault)
                connection.abort()
