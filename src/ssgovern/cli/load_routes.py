"""Where a load has to go: the shard map, as whichever node answers has it.

Knows one connection and two messages: enough for a generator of load, which has no use for a
client's care. Invariant: the map never goes back within one cluster.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from ssgovern.client.addresses import Address
from ssgovern.client.shard_map import NOBODY, ClientMap
from ssgovern.errors import SsGovernError, UnavailableError
from ssgovern.model import ShardId, session_id_of
from ssgovern.transport.connection import FrameConnection
from ssgovern.transport.tls import TlsDialler, dial_tls
from ssgovern.wire.codec import decode, error_from_message
from ssgovern.wire.frames import (
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    Frame,
    Kind,
    MessageType,
    encode_frame,
)
from ssgovern.wire.pb import native_pb2

_ASK_S_MAX = 3.0
_FRESH_S = 0.15


def hello() -> bytes:
    """Return the frame that opens a new session."""
    secret = os.urandom(16)
    request = native_pb2.HelloRequest(
        version_min=PROTOCOL_VERSION_MIN,
        version_max=PROTOCOL_VERSION_MAX,
        client_name="ss-govern bench",
        session_id=session_id_of(secret),
        session_secret=secret,
    )
    return encode_frame(Kind.REQUEST, MessageType.HELLO, 0, request.SerializeToString())


class Routes:
    """The primaries of shards, by address. `refresh` asks anew."""

    def __init__(self, addresses: Sequence[Address], tls: TlsDialler | None = None) -> None:
        self._seeds = list(addresses)
        self._tls = tls
        self._map = ClientMap()
        self._asked_at = float("-inf")
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Routes {self._map!r}>"

    def address_of(self, shard: ShardId) -> Address:
        """Return where the primary of a shard listens. Raises UnavailableError."""
        if self._map.is_single:
            return self._seeds[0]
        primary = self._map.primary_of(shard)
        address = None if primary == NOBODY else self._map.address_of(primary)
        if address is None:
            raise UnavailableError(f"shard {shard} has no primary at present")
        return address

    async def dial(self, connection: FrameConnection, address: Address) -> None:
        """Let a connection be one to an address. Raises OSError."""
        if self._tls is not None:
            await dial_tls(lambda: connection, address.host, address.port, self._tls)
        else:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, address.host, address.port)

    async def refresh(self, now: float) -> None:
        """Ask the nodes until one answers, unless that was just done. Raises UnavailableError."""
        async with self._turn:
            if now < self._asked_at + _FRESH_S:
                return
            failure: SsGovernError = UnavailableError("no address to ask")
            for address in dict.fromkeys([*self._map.addresses(), *self._seeds]):
                try:
                    self._map.apply(await self._shard_map(address), address)
                except SsGovernError as error:
                    failure = error
                else:
                    self._asked_at = asyncio.get_running_loop().time()
                    return
            raise failure

    async def _shard_map(self, address: Address) -> native_pb2.ShardMapUpdate:
        asking = _Asking()
        try:
            async with asyncio.timeout(_ASK_S_MAX):
                await self.dial(asking, address)
                return await asking.answer
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"no node answers at {address}: {error}") from error
        finally:
            asking.abort()


class _Asking(FrameConnection):
    """Says hello, asks for the shard map, and is done."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[native_pb2.ShardMapUpdate] = (
            asyncio.get_running_loop().create_future()
        )

    def on_open(self) -> None:
        asked = native_pb2.ShardMapRequest().SerializeToString()
        self.send(hello() + encode_frame(Kind.REQUEST, MessageType.SHARD_MAP, 1, asked))

    def on_frame(self, frame: Frame) -> None:
        if self.answer.done():
            return
        kind, _, type_, _, body = frame
        if kind == Kind.ERROR:
            self.answer.set_exception(error_from_message(decode(native_pb2.Error, body)))
        elif type_ == MessageType.SHARD_MAP:
            self.answer.set_result(decode(native_pb2.ShardMapUpdate, body))

    def on_closed(self, cause: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(UnavailableError(f"{self.peer} closed the connection"))
