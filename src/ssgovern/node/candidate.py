"""A node's part as a candidate: its Raft, its disk, and the controller's duty when it leads.

Puts together what only candidates have. Refuses to know shards and clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from ssgovern import limits
from ssgovern.controller.nodes import Registration
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import Settings
from ssgovern.errors import RemoteProtocolError
from ssgovern.model import NodeId, ShardMap
from ssgovern.node.config import ServerConfig
from ssgovern.node.controller_driver import ControllerDriver
from ssgovern.node.founding import Claim
from ssgovern.node.metadata import Metadata
from ssgovern.node.raft_driver import SETTINGS, RaftDriver
from ssgovern.node.raft_storage import RaftStorage
from ssgovern.raft import Config, Raft, Snapshot
from ssgovern.runtime import Disk, Runtime
from ssgovern.transport.handshake import PeerIdentity
from ssgovern.transport.links import PeerLinks
from ssgovern.wire.frames import MessageType

GROUP = b"metadata"
"""Links keep clusters apart, so what travels on them needs no name of its own."""


class Candidate:
    """The drivers that only a candidate has. Made by `open`."""

    def __init__(
        self,
        me: PeerIdentity,
        raft: Raft,
        storage: RaftStorage,
        runtime: Runtime,
        metadata: Metadata,
        links: PeerLinks,
        settings: Settings,
        inherited: Callable[[], tuple[Registration, ShardMap] | None],
        on_role: Callable[[], None],
    ) -> None:
        self._me = me
        self._links = links
        self._on_role = on_role
        self._led_term = 0
        self.elections_won = 0
        self.raft = RaftDriver(
            raft,
            storage,
            runtime,
            send=self._send,
            on_applied=metadata.on_applied,
            on_restored=metadata.on_restored,
            on_role=self._role_changed,
            snapshot=metadata.snapshot,
        )
        self.controller = ControllerDriver(
            me.node_id,
            self.raft,
            metadata,
            links,
            runtime,
            settings=settings,
            claims=self._claims,
            inherited=inherited,
            addresses=dict(me.candidates),
        )

    @classmethod
    async def open(
        cls,
        config: ServerConfig,
        me: PeerIdentity,
        runtime: Runtime,
        metadata: Metadata,
        links: PeerLinks,
        *,
        open_disk: Callable[[str], Disk],
        began_before: bool,
        inherited: Callable[[], tuple[Registration, ShardMap] | None],
        on_role: Callable[[], None],
    ) -> Candidate:
        """Recover what this candidate promised and what is agreed, or begin.

        `began_before`: it has voted in an earlier life, so that there must be something; a
        candidate that lost its promises does not begin again. Raises as `RaftStorage.open`.
        """
        voters = tuple(sorted(node for node, _ in me.candidates))
        if began_before:
            first = None
        elif config.cluster.join or me.cluster_id or me.node_id not in voters:
            # There is a cluster already: it says who votes.
            first = Snapshot()
        else:
            first = Snapshot(config=Config(voters=voters))
        storage, found = await RaftStorage.open(
            open_disk(f"{config.data_dir}/metadata"),
            open_disk(f"{config.data_dir}/metadata-snapshots"),
            me.directory_id,
            first=first,
        )
        raft = Raft(
            GROUP,
            me.node_id,
            runtime.rng.randrange,
            hard_state=found.hard_state,
            snapshot=found.snapshot,
            entries=found.entries,
            settings=SETTINGS,
        )
        settings = Settings(
            copies=config.copies_at_founding,
            min_in_sync=config.min_in_sync_at_founding,
            nodes_initial=max(1, len(voters)),
        )
        return cls(me, raft, storage, runtime, metadata, links, settings, inherited, on_role)

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start its tasks, which end by cancellation."""
        return [
            group.create_task(self.raft.run(), name="raft"),
            group.create_task(self.controller.run(), name="controller"),
            group.create_task(self._watch_leader(), name="watch-leader"),
        ]

    async def _watch_leader(self) -> None:
        """Look whether the leader's process is there, which its silence shows much later."""
        while True:
            await asyncio.sleep(limits.RAFT_TICK_MS / 1000.0)
            leader = self.leader
            if leader not in (NOBODY, self._me.node_id) and self._links.is_refused(leader):
                self.raft.leader_gone(leader)

    # --- for the node ----------------------------------------------------------------------

    @property
    def leader(self) -> NodeId:
        """Who leads, as far as is known here; 0: nobody."""
        return self.raft.leader_id or NOBODY

    def receive(self, source: NodeId, body: bytes) -> None:
        """Take what another candidate says. Raises RemoteProtocolError."""
        self.raft.receive(source, body)

    def on_request(self, source: NodeId, type_: int, body: bytes) -> Awaitable[bytes]:
        """Answer what a node, this one too, asks of the controller."""
        if not MessageType.NODE_REGISTER <= type_ < MessageType.RAFT:
            raise RemoteProtocolError(f"node {source} asks something of type {type_}")
        return self.controller.on_request(source, type_, body)

    async def ask(self, type_: int, body: bytes) -> bytes:
        """Ask the controller's driver of this very node."""
        return await self.on_request(self._me.node_id, type_, body)

    # --- inside ----------------------------------------------------------------------------

    def _send(self, node: NodeId, body: bytes) -> bool:
        return self._links.send(node, MessageType.RAFT, body)

    def _role_changed(self) -> None:
        if self.leader == self._me.node_id and self.raft.term > self._led_term:
            self._led_term = self.raft.term
            self.elections_won += 1
        self.controller.wake()
        self._on_role()

    def _claims(self) -> Mapping[NodeId, Claim]:
        me = self._me
        claims = {me.node_id: Claim(me.cluster_id, me.single_node_cluster_id)}
        for node, _ in me.candidates:
            said = self._links.said(node)
            if said is not None:
                claims[node] = Claim(said.cluster_id, said.single_node_cluster_id)
        return claims
