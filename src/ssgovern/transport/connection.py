"""A connection that speaks frames.

Knows the protocol's framing and the limits of what may wait to be sent; knows no message. What
arrives is handed to `on_frame` synchronously, in order, within one turn of the loop. Protocol
garbage closes this connection and nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from ssgovern import limits
from ssgovern.errors import RemoteProtocolError
from ssgovern.wire.frames import Frame, FrameReader


class FrameConnection(asyncio.Protocol):
    """Base of both ends. Subclasses implement the `on_` methods."""

    __slots__ = ("_reader", "_write_paused", "address", "peer", "transport")

    def __init__(self, body_bytes_max: int = limits.FRAME_BODY_BYTES_MAX) -> None:
        self._reader = FrameReader(body_bytes_max)
        self._write_paused = False
        self.transport: asyncio.Transport | None = None
        self.address = ""
        """The peer's address without its port."""
        self.peer = ""

    # --- for subclasses --------------------------------------------------------------------

    def on_open(self) -> None:
        """The connection is usable."""

    def on_frame(self, frame: Frame) -> None:
        """A frame arrived. May raise RemoteProtocolError, which closes the connection."""
        raise NotImplementedError

    def on_protocol_error(self, error: RemoteProtocolError) -> None:
        """The peer sent garbage: nothing more can be read. Must close the connection."""
        self.abort()

    def on_congested(self) -> None:
        """More than the soft limit waits to be sent."""

    def on_writable(self) -> None:
        """What waited to be sent fell below the soft limit again."""

    def on_closed(self, cause: Exception | None) -> None:
        """The connection is gone; nothing more is delivered."""

    @property
    def certificate(self) -> bool:
        """Whether the other end showed a certificate, and it was found good."""
        return self.transport is not None and bool(self.transport.get_extra_info("peercert"))

    # --- sending ---------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def outbound_bytes(self) -> int:
        """Bytes handed over for sending that the system has not taken yet."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    @property
    def is_congested(self) -> bool:
        """Whether more than the soft limit waits to be sent."""
        return self._write_paused

    def send(self, data: bytes) -> None:
        """Queue encoded frames for sending; silently dropped if the connection is closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def send_all(self, chunks: Sequence[bytes]) -> None:
        """Queue several pieces that must stay together."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.writelines(chunks)

    def close(self) -> None:
        """Close after what is queued has been sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once, dropping what is queued."""
        if self.transport is not None:
            self.transport.abort()

    def hand_over(self, successor: FrameConnection) -> None:
        """Let another protocol have the connection; to this one it is lost.

        Raises RemoteProtocolError if the peer did not wait for what it will be answered: it
        cannot know yet who reads what it sends now.
        """
        transport = self.transport
        assert transport is not None, "who hands over has just been handed a frame"
        if self._reader.buffered_bytes or self._write_paused:
            raise RemoteProtocolError(f"{self.peer} sent more before it was answered")
        transport.set_protocol(successor)
        successor.connection_made(transport)
        self.connection_lost(None)

    # --- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio.Transport, hence the cast.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(
            high=limits.OUTBOUND_SOFT_BYTES, low=limits.OUTBOUND_SOFT_BYTES // 4
        )
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "?"
        self.peer = f"{self.address}:{peer[1]}" if peer else "?"
        self.on_open()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.receive_data(data)
        try:
            while (frame := reader.next_frame()) is not None:
                self.on_frame(frame)
        except RemoteProtocolError as error:
            self.on_protocol_error(error)

    def pause_writing(self) -> None:
        self._write_paused = True
        self.on_congested()

    def resume_writing(self) -> None:
        self._write_paused = False
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        # A transport that has reported its loss must not be touched again: asyncio's fails.
        self.transport = None
        self.on_closed(exc)
