"""The links by which this node tells and asks others: dialled, kept, dialled again.

Knows handshakes, pings and redials; no message's meaning and no cluster. A link is used in one
direction: here are the asking ends, `ssgovern.api.native.peer` has the others. Invariants: one
link per node at most; nothing passes a link before both ends have proved themselves; what waits
to be sent is limited, and pushes beyond the limit are dropped, not queued; a link whose far end
shows no sign of life while this loop ran is aborted, because TCP's patience outlives a
partition by far.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from ssgovern import limits
from ssgovern.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    OverloadedError,
    RemoteProtocolError,
    Retry,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import NodeId
from ssgovern.runtime import Runtime
from ssgovern.transport import handshake
from ssgovern.transport.channel import (
    Channel,
    ConnectionLostError,
    DialRefusedError,
    open_channel,
)
from ssgovern.transport.handshake import PeerIdentity, PeerSaid
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import Kind, MessageType, encode_frame, encode_message
from ssgovern.wire.pb import peer_pb2

log = logging.getLogger("ssgovern.links")

_PING_S = limits.PEER_PING_MS / 1000.0
_UNANSWERED_PINGS_MAX = limits.OUTBOUND_STALL_MS // limits.PEER_PING_MS


class _Link:
    """What is known of one node that is dialled."""

    __slots__ = (
        "address",
        "channel",
        "dropped",
        "failure",
        "is_refused",
        "is_unwanted",
        "node",
        "refusal",
        "said",
        "sent_bytes",
        "task",
    )

    def __init__(self, node: NodeId, address: str) -> None:
        self.node = node
        self.address = address
        self.channel: Channel | None = None
        """Past the handshake, if it is still there."""
        self.said: PeerSaid | None = None
        self.is_refused = False
        self.is_unwanted = False
        """Not to be dialled any more: its task is about to end."""
        self.refusal = ""
        self.failure = "not dialled yet"
        self.dropped = 0
        """Pushes in a row, beyond what may wait."""
        self.sent_bytes = 0
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "open" if self.channel is not None else self.failure
        return f"<Link {self.node} at {self.address} {state} dropped={self.dropped}>"

    @property
    def open_channel(self) -> Channel | None:
        channel = self.channel
        return channel if channel is not None and channel.is_open else None


class PeerLinks:
    """All links of a node. `run` owns them; the rest may be called at any time, from its loop."""

    def __init__(
        self,
        me: PeerIdentity,
        runtime: Runtime,
        *,
        on_link: Callable[[NodeId], None],
        on_lost: Callable[[NodeId], None],
        check: Callable[[PeerSaid], None] = lambda _: None,
        tls: TlsDialler | None = None,
    ) -> None:
        """`check` raises PeerRefusedError if who answers is not the node it says it is."""
        self._me = me
        self._check = check
        self._tls = tls
        self._runtime = runtime
        self._on_link = on_link
        self._on_lost = on_lost
        self._links: dict[NodeId, _Link] = {}
        self._changed = asyncio.Event()
        self.pushes_dropped = 0
        """Pushes that found no link, or a link on which too much waited."""

    def __repr__(self) -> str:
        return f"<PeerLinks of {self._me.node_id}: {list(self._links.values())}>"

    # --- which -----------------------------------------------------------------------------

    def set_peers(self, addresses: Mapping[NodeId, str]) -> None:
        """Dial exactly these nodes from now on; this node itself is left out.

        A link to a node whose address is another one now is closed and dialled there. `on_lost`
        of links that are closed by this comes later, from their own task.
        """
        wanted = {
            node: address for node, address in sorted(addresses.items()) if node != self._me.node_id
        }
        for node, link in list(self._links.items()):
            if wanted.get(node) != link.address:
                del self._links[node]
                link.is_unwanted = True
                if link.task is not None:
                    link.task.cancel()
        for node, address in wanted.items():
            if node not in self._links:
                self._links[node] = _Link(node, address)
                self._changed.set()

    async def run(self) -> None:
        """Keep all links until cancelled. `on_lost` is not called for what ends by that."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for link in self._links.values():
                    if link.task is None:
                        link.task = group.create_task(
                            self._keep(link), name=f"link to node {link.node}"
                        )
                await self._changed.wait()

    # --- state -----------------------------------------------------------------------------

    def is_open(self, node: NodeId) -> bool:
        """Tell whether the link to a node can be used now."""
        link = self._links.get(node)
        return link is not None and link.open_channel is not None

    def said(self, node: NodeId) -> PeerSaid | None:
        """Return what a node said when its link was made; None if there is no link now."""
        link = self._links.get(node)
        return link.said if link is not None and link.open_channel is not None else None

    def is_refused(self, node: NodeId) -> bool:
        """Tell whether no process listened there when it was last dialled: dead, not slow.

        Of a name that has several addresses this is not known; it counts as slow.
        """
        link = self._links.get(node)
        return link is not None and link.is_refused

    def refusal(self, node: NodeId) -> str:
        """Return why one of the two nodes does not want the other, "" if that is not so."""
        link = self._links.get(node)
        return "" if link is None else link.refusal

    def failure(self, node: NodeId) -> str:
        """Return why there is no link to a node, whatever the reason; "" if there is one."""
        link = self._links.get(node)
        if link is None:
            return "not one of the nodes that are dialled"
        return "" if link.open_channel is not None else link.failure

    # --- telling and asking ----------------------------------------------------------------

    def send(self, node: NodeId, type_: int, body: bytes) -> bool:
        """Push a message; False if it was dropped, as it is without a link.

        True promises nothing: what is on its way is lost with its link.
        """
        link = self._links.get(node)
        channel = None if link is None else link.open_channel
        if link is None or channel is None:
            self.pushes_dropped += 1
            return False
        if channel.outbound_bytes + len(body) > limits.PEER_OUTBOUND_BYTES_MAX:
            self.pushes_dropped += 1
            if not link.dropped:
                log.warning(
                    "node %d at %s: %d bytes wait to be read, messages to it are dropped",
                    node,
                    link.address,
                    channel.outbound_bytes,
                )
            link.dropped += 1
            return False
        link.dropped = 0
        _push(link, channel, type_, body)
        return True

    async def request(self, node: NodeId, type_: int, body: bytes, deadline: float) -> bytes:
        """Ask a node and return its answer. `deadline` is in `loop.time()`.

        Raises UnavailableError without a link, or if it is lost first; the far node's error;
        DeadlineExceededError, after which it is not known whether the request took effect;
        OverloadedError if too much waits on this link, and nothing was sent.
        """
        link = self._links.get(node)
        channel = None if link is None else link.open_channel
        if link is None or channel is None:
            raise UnavailableError(f"no link to node {node}: {self.failure(node)}")
        if (
            channel.in_flight >= limits.PEER_IN_FLIGHT_MAX
            or channel.outbound_bytes + len(body) > limits.PEER_OUTBOUND_BYTES_MAX
        ):
            raise OverloadedError(f"node {node}: too much waits for its answer already")
        link.sent_bytes += limits.FRAME_HEADER_BYTES + len(body)
        return await channel.send_request(type_, body, deadline)

    async def send_paced(self, node: NodeId, type_: int, bodies: Iterable[bytes]) -> bool:
        """Push a long row of messages, one by one; False if the link was lost before the end.

        Each is sent once the one before has arrived, so that on a slow link whatever else is
        sent waits for one of them at most. Several rows at once take turns.
        """
        link = self._links.get(node)
        channel = None if link is None else link.open_channel
        if link is None or channel is None:
            return False
        loop = asyncio.get_running_loop()
        for body in bodies:
            if not channel.is_open:
                return False
            _push(link, channel, type_, body)
            try:
                # What is told needs no answer; that of a ping behind it comes after it.
                await channel.send_request(
                    MessageType.PEER_PING, b"", loop.time() + limits.OUTBOUND_STALL_MS / 1000.0
                )
            except SsGovernError as error:
                channel.give_up(error)
                return False
        return True

    async def ask(
        self, address: str, type_: int, body: bytes, deadline: float
    ) -> tuple[PeerSaid, bytes]:
        """Ask whoever listens at an address, over a connection for this one question.

        Raises what `request` raises, and PeerRefusedError or UnsupportedVersionError.
        """
        channel = await self._dial(address, deadline)
        try:
            said = await self._shake_hands(channel, 0, deadline)
            return said, await channel.send_request(type_, body, deadline)
        finally:
            channel.abort()

    # --- one link --------------------------------------------------------------------------

    async def _keep(self, link: _Link) -> None:
        while not link.is_unwanted:
            pause_ms: float = limits.PEER_REDIAL_MS
            try:
                await self._live_with(link)
            except SsGovernError as error:
                self._note_failure(link, error)
                if error.retry is Retry.NEVER:
                    # It does not want this node, or they do not understand each other: asking
                    # again and again does not help, but somebody may correct its configuration.
                    pause_ms = limits.PEER_REFUSED_PAUSE_MS
            await asyncio.sleep(self._runtime.rng.uniform(pause_ms / 2, pause_ms) / 1000.0)

    async def _live_with(self, link: _Link) -> None:
        """Dial once and keep what comes of it alive. Raises why it ended."""
        loop = asyncio.get_running_loop()
        channel = await self._dial(link.address, loop.time() + limits.PEER_DIAL_TIMEOUT_MS / 1000.0)
        was_open = False
        cause: SsGovernError = UnavailableError("not wanted any more")
        try:
            deadline = loop.time() + limits.PEER_HELLO_TIMEOUT_MS / 1000.0
            link.said = await self._shake_hands(channel, link.node, deadline)
            link.channel = channel
            link.dropped = 0
            was_open = True
            self._note_open(link)
            self._on_link(link.node)
            await self._ping(link, channel)
        except SsGovernError as error:
            # Why the connection was lost says more than that it was.
            lost = isinstance(error, ConnectionLostError)
            cause = channel.cause if lost and channel.cause is not None else error
            raise cause from None
        finally:
            link.channel = link.said = None
            channel.give_up(cause)
            if was_open and (link.is_unwanted or not _is_cancelled()):
                self._on_lost(link.node)

    async def _dial(self, address: str, deadline: float) -> Channel:
        try:
            host, port = handshake.split_address(address)
        except InvalidArgumentError as error:
            raise UnavailableError(error.message) from None
        return await open_channel(host, port, _refuse_push, deadline=deadline, tls=self._tls)

    async def _shake_hands(self, channel: Channel, target: int, deadline: float) -> PeerSaid:
        nonce = self._runtime.random_bytes(handshake.NONCE_BYTES)
        request = handshake.hello_request(self._me, target, nonce)
        try:
            body = await channel.send_request(MessageType.PEER_HELLO, encode(request), deadline)
        except DeadlineExceededError:
            raise UnavailableError(f"{channel.peer} does not answer the hello") from None
        try:
            response = decode(peer_pb2.PeerHelloResponse, body)
        except InvalidArgumentError as error:
            raise RemoteProtocolError(f"{channel.peer}: {error.message}") from None
        said = handshake.check_response(self._me, request, response)
        self._check(said)
        proof = encode(handshake.dialler_proof(self._me, request, response))
        try:
            await channel.send_request(MessageType.PEER_PROOF, proof, deadline)
        except DeadlineExceededError:
            raise UnavailableError(f"{channel.peer} does not answer the proof") from None
        return said

    async def _ping(self, link: _Link, channel: Channel) -> None:
        """Ping until the link is lost or its far end is; raise why.

        Silence is counted in pings, not in seconds: if it was this process that stood still,
        the answers are waiting to be read. A far end that takes what waits to be sent shows a
        sign of life as well; but one that takes and takes and never answers reads nothing.
        """
        loop = asyncio.get_running_loop()
        silent = unanswered = 0
        while True:
            due = loop.time() + _PING_S
            received, waiting = channel.messages_received, channel.outbound_bytes
            sent_bytes = link.sent_bytes
            try:
                await channel.send_request(MessageType.PEER_PING, b"", due)
                silent = unanswered = 0
            except DeadlineExceededError:
                if channel.messages_received != received:
                    silent = unanswered = 0
                else:
                    # The system takes more of what waits only if the far one acknowledges.
                    given = waiting + link.sent_bytes - sent_bytes
                    is_taken = waiting > 0 and channel.outbound_bytes < given
                    unanswered += 1
                    silent = 0 if is_taken else silent + 1
            if silent >= limits.PEER_SILENT_PINGS_MAX or unanswered >= _UNANSWERED_PINGS_MAX:
                raise UnavailableError(f"{channel.peer} left {unanswered} pings unanswered")
            if await channel.wait_lost(max(0.0, due - loop.time())):
                raise channel.cause or UnavailableError(f"connection to {channel.peer} lost")

    # --- what people are told --------------------------------------------------------------

    def _note_open(self, link: _Link) -> None:
        link.is_refused = False
        link.refusal = link.failure = ""
        log.info("link to node %d at %s is open", link.node, link.address)

    def _note_failure(self, link: _Link, error: SsGovernError) -> None:
        link.is_refused = isinstance(error, DialRefusedError)
        refusal = error.message if error.retry is Retry.NEVER else ""
        if refusal and refusal != link.refusal:
            log.error("no link to node %d at %s: %s", link.node, link.address, refusal)
        elif not link.failure:
            log.warning("link to node %d at %s lost: %s", link.node, link.address, error)
        elif link.failure != error.message:
            log.info("no link to node %d at %s: %s", link.node, link.address, error)
        link.refusal = refusal
        link.failure = error.message


def _push(link: _Link, channel: Channel, type_: int, body: bytes) -> None:
    link.sent_bytes += limits.FRAME_HEADER_BYTES + len(body)
    if len(body) <= limits.FRAME_BODY_BYTES_MAX:
        channel.send(encode_frame(Kind.PUSH, type_, 0, body))
    else:
        channel.send_all(encode_message(Kind.PUSH, type_, 0, body))


def _refuse_push(type_: int, _request_id: int, _body: bytes) -> None:
    raise RemoteProtocolError(f"a push of type {type_} on a link that is for asking")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
