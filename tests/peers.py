"""Nodes that have links and nothing else: what one tells another is kept, what it asks answered.

They listen on a real native port, so that links begin as they do in a node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rig import Rig

from ssgovern.api.native.peer import PeerAcceptor
from ssgovern.api.native.server import NativeServer
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId
from ssgovern.runtime import Runtime
from ssgovern.transport.handshake import Candidates, PeerIdentity, PeerSaid
from ssgovern.transport.links import PeerLinks
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

TELL = int(MessageType.RAFT)
ASK = int(MessageType.NODE_HEARTBEAT)
SECRET = b"a secret of 32 bytes or so, fixed"

Answer = Callable[[NodeId, int, bytes], Awaitable[bytes]]


def identity_of(
    number: int,
    *,
    address: str = "",
    secret: bytes = SECRET,
    cluster_id: bytes = b"",
    directory_id: bytes | None = None,
    boot_id: bytes = b"boot",
    candidates: Candidates = (),
) -> PeerIdentity:
    """Return what node `number` says of itself."""
    return PeerIdentity(
        NodeId(number),
        f"node-{number}",
        address or f"n{number}:7420",
        b"directory-%d" % number if directory_id is None else directory_id,
        boot_id,
        candidates,
        secret,
        cluster_id,
    )


async def echo(source: NodeId, type_: int, body: bytes) -> bytes:
    """Answer a question with itself."""
    return body


class Post:
    """One node's ends of all links, and what came over them."""

    def __init__(
        self,
        me: PeerIdentity,
        runtime: Runtime,
        *,
        answer: Answer = echo,
        check: Callable[[PeerSaid], None] = lambda _: None,
        connections_max: int = 100,
        peers_max: int = 100,
    ) -> None:
        self.me = me
        self.answer = answer
        self.told: list[tuple[NodeId, int, bytes]] = []
        self.asked = 0
        self.reads = 0
        self.hellos: list[tuple[PeerSaid, str]] = []
        self.refuses: SsGovernError | None = None
        """What it says to whatever it is told."""
        self.story: list[str] = []
        self.links = PeerLinks(
            me, runtime, on_link=self._on_link, on_lost=self._on_lost, check=check
        )
        self.acceptor = PeerAcceptor(me, runtime, self, connections_max=peers_max)
        rig = Rig()
        self.server = NativeServer(
            rig.registry,
            rig.push,
            hello=native_pb2.HelloResponse(),
            status=native_pb2.StatusResponse,
            end_refused=_Nobody(),
            wake_push=lambda: None,
            connections_max=connections_max,
            peers=self.acceptor,
        )

    async def run(self, host: str, port: int) -> None:
        """Listen, dial whom `links` was told, until cancelled."""
        await self.server.listen(host, port)
        await self.keep()

    async def keep(self) -> None:
        """Do all but listening."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.links.run())
            group.create_task(self.acceptor.run())
            while True:
                await asyncio.sleep(1.0)
                self.server.sweep()

    def _on_link(self, node: NodeId) -> None:
        assert self.links.is_open(node), "who hears of a link can use it"
        self.story.append(f"link {node}")

    def _on_lost(self, node: NodeId) -> None:
        self.story.append(f"lost {node}")

    # --- PeerHandler -----------------------------------------------------------------------

    def on_peer_push(self, source: NodeId, type_: int, body: bytes) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.told.append((source, type_, body))

    async def on_peer_request(self, source: NodeId, type_: int, body: bytes) -> bytes:
        self.asked += 1
        return await self.answer(source, type_, body)

    def on_peer_read(self) -> None:
        self.reads += 1

    def said_hello(self, said: PeerSaid, address: str) -> None:
        self.hellos.append((said, address))


class _Nobody:
    """No session ends here."""

    def on_outcome(self, proposal: object, outcome: object) -> None:
        raise AssertionError("there are no sessions")
