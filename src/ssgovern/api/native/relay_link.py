"""One connection to another node that speaks for a client of this one.

It says hello as the client's own session, and lives while the client does: heartbeats pass only
if the client was heard since the last one. Refuses to know what is asked over it. Invariants: at
most one connection per link; what it brings while the client reads too slowly stays unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol, TypeVar

from ssgovern import limits
from ssgovern.errors import ClosedError, SsGovernError, UnavailableError
from ssgovern.model import NodeId, SessionId
from ssgovern.transport.channel import Channel, open_channel
from ssgovern.transport.handshake import split_address
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import decode
from ssgovern.wire.frames import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, MessageType
from ssgovern.wire.pb import native_pb2

_UNANSWERED_MAX = 3
"""Heartbeats without any sign of life in return, then the connection is taken for dead."""

T = TypeVar("T")


class Spawn(Protocol):
    """Who owns the tasks of links."""

    def __call__(self, work: Coroutine[None, None, T], name: str) -> asyncio.Task[T]: ...


class LinkOwner(Protocol):
    """Whose link it is."""

    @property
    def session_id(self) -> SessionId: ...

    @property
    def secret(self) -> bytes: ...

    @property
    def token(self) -> str:
        """What the client showed: the other node is to know it by the same."""

    @property
    def client_name(self) -> str: ...

    @property
    def heard_ms(self) -> float:
        """When the client was heard last; only compared with itself."""

    def address_of(self, node: NodeId) -> str:
        """Where a node listens; empty if that is not known."""

    def on_link_open(self, link: RelayLink, *, resumed: bool) -> None:
        """The far node took the hello; `resumed` if it knew the session."""

    def on_link_lost(self, link: RelayLink, cause: SsGovernError | None) -> None:
        """The connection is gone."""

    def on_push(self, link: RelayLink, type_: int, body: bytes) -> None:
        """The far node tells something."""


class RelayLink:
    """See the module."""

    def __init__(
        self,
        node: NodeId,
        owner: LinkOwner,
        spawn: Spawn,
        beat_s: float,
        tls: TlsDialler | None = None,
    ) -> None:
        self.node = node
        self._tls = tls
        self._owner = owner
        self._spawn = spawn
        self._beat_s = beat_s
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._opening: asyncio.Task[Channel | SsGovernError] | None = None
        self._is_paused = False
        self._is_closed = False
        self.wants_applied = False
        """The node takes what the client says it has applied."""

    def __repr__(self) -> str:
        state = "open" if self.channel is not None else "down"
        return f"<RelayLink {self.node} {state}>"

    @property
    def channel(self) -> Channel | None:
        """The connection, if it is open."""
        channel = self._channel
        return channel if channel is not None and channel.is_open else None

    async def ready(self, deadline: float) -> Channel:
        """Return the connection, made if there is none. Raises what prevented it."""
        if (channel := self.channel) is not None:
            return channel
        if self._opening is None:
            self._opening = self._spawn(self._open(), f"relay to node {self.node}")
        try:
            async with asyncio.timeout_at(deadline):
                # Others wait for the same one.
                opened = await asyncio.shield(self._opening)
        except TimeoutError:
            raise UnavailableError(f"node {self.node} does not answer") from None
        if isinstance(opened, SsGovernError):
            raise opened
        return opened

    def pause(self) -> None:
        """Read nothing more: the client takes nothing."""
        channel = self.channel
        if channel is not None and channel.transport is not None and not self._is_paused:
            self._is_paused = True
            channel.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        channel = self.channel
        if self._is_paused and channel is not None and channel.transport is not None:
            channel.transport.resume_reading()
        self._is_paused = False

    def close(self) -> None:
        """Close without a goodbye; the far node waits a moment for the client to come itself."""
        self._is_closed = True
        if self._channel is not None:
            self._channel.give_up(ClosedError("the client is gone"))

    async def _open(self) -> Channel | SsGovernError:
        """Dial and say hello. Returns what went wrong, because several may wait for it."""
        channel = None
        try:
            deadline = self._loop.time() + limits.FORWARD_DIAL_MS / 1000.0
            address = self._owner.address_of(self.node)
            if not address:
                return UnavailableError(f"it is not known where node {self.node} listens")
            host, port = split_address(address)
            channel = await open_channel(
                host, port, self._on_push, deadline=deadline, tls=self._tls
            )
            answer = await channel.send_request(MessageType.HELLO, self._hello(), deadline)
            response = decode(native_pb2.HelloResponse, answer)
            if self._is_closed:
                return ClosedError("the client is gone")
        except SsGovernError as error:
            return error
        else:
            self._channel, kept = channel, channel
            channel = None
            self._is_paused = False
            self.wants_applied = response.wants_applied
            self._spawn(self._keep(kept), f"heartbeats to node {self.node}")
            self._owner.on_link_open(self, resumed=response.resumed)
            return kept
        finally:
            self._opening = None
            if channel is not None:
                channel.abort()

    def _hello(self) -> bytes:
        owner = self._owner
        return native_pb2.HelloRequest(
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION_MAX,
            role=native_pb2.ROLE_CLIENT,
            client_name=owner.client_name,
            session_id=owner.session_id,
            session_secret=owner.secret,
            token=owner.token,
        ).SerializeToString()

    async def _keep(self, channel: Channel) -> None:
        """Pass on that the client lives, until the connection is lost."""
        unanswered = 0
        received, heard_ms = channel.messages_received, self._owner.heard_ms
        try:
            while not await channel.wait_lost(self._beat_s):
                if channel.messages_received != received or self._is_paused:
                    received, unanswered = channel.messages_received, 0
                if unanswered >= _UNANSWERED_MAX:
                    channel.give_up(UnavailableError(f"node {self.node} does not answer"))
                elif self._owner.heard_ms != heard_ms and channel.is_open:
                    heard_ms = self._owner.heard_ms
                    deadline = self._loop.time() + limits.FORWARD_TIMEOUT_MS / 1000.0
                    channel.send_request(MessageType.HEARTBEAT, b"", deadline)
                    unanswered += 1
        finally:
            channel.abort()
            if self._channel is channel:
                self._channel = None
        if not self._is_closed:
            self._owner.on_link_lost(self, channel.cause)

    def _on_push(self, type_: int, request_id: int, body: bytes) -> None:
        self._owner.on_push(self, type_, body)
