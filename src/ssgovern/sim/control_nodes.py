"""Nodes of which only the control path is there: drivers of controller and membership.

In one simulated world, with mailboxes in place of links (`Post`) and the world's own agreement in
place of consensus. A node's shards are a few facts: it asks for what a primary would ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from ssgovern.controller.codec import in_sync_to_wire, resigned_to_wire
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import Settings
from ssgovern.errors import (
    DeadlineExceededError,
    SsGovernError,
    UnavailableError,
    UnsupportedTypeError,
)
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.node.controller_driver import ControllerDriver
from ssgovern.node.founding import Claim
from ssgovern.node.member_driver import MemberDriver
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.sim.agreement import Agreement, CandidateLog
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World
from ssgovern.transport.handshake import PeerSaid
from ssgovern.wire.codec import encode
from ssgovern.wire.frames import MessageType

_OBEY_S: Final = 0.1
_REFUSED_AFTER_S: Final = 0.2


class Post:
    """Carries messages between nodes, as links would; loses what a cut link loses."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, ControlNode] = {}
        """By address; the process that listens there now."""

    def carry(
        self, source: Process, target: Process, size: int, deliver: Callable[[], None]
    ) -> None:
        """Have something done at the target when a message arrives, if it does."""
        network = self.world.network
        if source.machine is target.machine:
            self.world.after(0.0001, deliver)
            return
        link = network.link(source.machine.name, target.machine.name)
        arrival = network.transit_or_lose(link, size)
        if arrival is not None:
            self.world.at(arrival, deliver)


class PostLinks:
    """A node's end of the post: what drivers use of `PeerLinks`."""

    def __init__(self, post: Post, me: ControlNode) -> None:
        self._post = post
        self._me = me
        self._loop = asyncio.get_running_loop()
        self.refused_since: dict[NodeId, float] = {}

    def _node(self, node: NodeId) -> ControlNode | None:
        known = self._me.metadata.state.nodes.get(node)
        address = self._me.addresses.get(node) if known is None else known.address
        return self._post.nodes.get(address) if address is not None else None

    def is_open(self, node: NodeId) -> bool:
        target = self._node(node)
        return target is not None and target.node == node and target.process.alive

    def is_refused(self, node: NodeId) -> bool:
        """A dialler finds out a little later, and only if it reaches the machine."""
        target = self._node(node)
        if target is None or target.node != node:
            return False
        link = self._post.world.network.link(
            self._me.process.machine.name, target.process.machine.name
        )
        if target.process.alive:
            self.refused_since.pop(node, None)
        elif not link.cut:
            self.refused_since.setdefault(node, self._loop.time())
        since = self.refused_since.get(node)
        return since is not None and self._loop.time() - since >= _REFUSED_AFTER_S

    def send(self, node: NodeId, type_: int, body: bytes) -> bool:
        target = self._node(node)
        if target is None or not target.process.alive:
            return False
        source, life = self._me, target.process.incarnation
        self._post.carry(
            source.process,
            target.process,
            len(body),
            lambda: target.enter(life, lambda: target.on_push(source.node, type_, body)),
        )
        return True

    async def request(self, node: NodeId, type_: int, body: bytes, deadline: float) -> bytes:
        target = self._node(node)
        if target is None:
            raise UnavailableError(f"no link to node {node}")
        return await self._ask(target, type_, body, deadline)

    async def ask(
        self, address: str, type_: int, body: bytes, deadline: float
    ) -> tuple[PeerSaid, bytes]:
        target = self._post.nodes.get(address)
        if target is None:
            raise UnavailableError(f"nobody listens at {address}")
        answer = await self._ask(target, type_, body, deadline)
        return PeerSaid(target.node, "", b"", b"", (), b"", b""), answer

    async def _ask(self, target: ControlNode, type_: int, body: bytes, deadline: float) -> bytes:
        source = self._me
        future: asyncio.Future[bytes] = self._loop.create_future()
        mine, theirs = source.process.incarnation, target.process.incarnation

        def answer(result: bytes | SsGovernError) -> None:
            def arrive() -> None:
                if future.done():
                    return
                if isinstance(result, bytes):
                    future.set_result(result)
                else:
                    future.set_exception(result)

            self._post.carry(
                target.process, source.process, 100, lambda: source.enter(mine, arrive)
            )

        def arrive_there() -> None:
            if not target.process.alive:
                answer(UnavailableError("connection refused"))
            else:
                target.enter(theirs, lambda: target.on_question(source.node, type_, body, answer))

        self._post.carry(source.process, target.process, len(body), arrive_there)
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError:
            raise DeadlineExceededError("no answer in time") from None


class ControlNode:
    """One life of a node. Made in its process; `run` is its main coroutine."""

    controller_type: type[ControllerDriver] = ControllerDriver
    member_type: type[MemberDriver] = MemberDriver

    def __init__(
        self,
        post: Post,
        agreement: Agreement,
        process: Process,
        runtime: SimRuntime,
        node: NodeId,
        *,
        address: str,
        directory: bytes,
        shards: int,
        settings: Settings,
        seeds: Mapping[NodeId, str],
        zone: str = "",
        directory_cluster_id: bytes = b"",
    ) -> None:
        self.node = node
        self.process = process
        self.addresses = dict(seeds)
        self.metadata = Metadata(shards)
        self.lease_until_ms = 0.0
        self.leased: list[float] = []
        """When leases were extended, for whoever looks at gaps."""
        self.on_lease: Callable[[ControlNode], None] = lambda _node: None
        self._loop = asyncio.get_running_loop()
        self._incarnation = process.incarnation
        self._tasks = asyncio.TaskGroup()
        self._asked: dict[ShardId, tuple[int, int]] = {}
        self._registration = Registration(
            node,
            f"n{node}",
            address,
            zone,
            directory,
            runtime.random_bytes(16),
            directory_cluster_id=directory_cluster_id,
        )
        self.links = PostLinks(post, self)
        post.nodes[address] = self
        is_candidate = node in agreement.candidates
        self.log: CandidateLog | None = None
        self.controller: ControllerDriver | None = None
        self._agreement = agreement
        self._runtime = runtime
        self._settings = settings
        if is_candidate:
            self._become_candidate()
        self.metadata.listeners.append(self._on_metadata)
        self.member = self.member_type(
            node,
            self.metadata,
            self.links,
            runtime,
            registration=lambda: self._registration,
            positions=self._positions,
            on_session=lambda _session: None,
            on_lease=self._on_lease,
            candidates=tuple(seeds.items()) if is_candidate else (),
            seeds=() if is_candidate else tuple(seeds.values()),
            leader=lambda: (self.log.leader_id or NOBODY) if self.log is not None else None,
            local=self._local,
        )

    def _become_candidate(self) -> ControllerDriver:
        agreement = self._agreement
        self.log = CandidateLog(agreement, self.node, self.process, self.metadata)
        self.log.on_role = self._on_role
        self.controller = self.controller_type(
            self.node,
            self.log,
            self.metadata,
            self.links,
            self._runtime,
            settings=self._settings,
            claims=lambda: {candidate: Claim() for candidate in agreement.candidates},
            addresses=self.addresses,
        )
        return self.controller

    def _on_metadata(self, _change: MetadataChange) -> None:
        known = self.metadata.state.nodes.get(self.node)
        if self.controller is None and known is not None and known.candidate:
            self._tasks.create_task(self._become_candidate().run())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self.member.run())
            self._tasks.create_task(self._obey())
            if self.controller is not None:
                self._tasks.create_task(self.controller.run())

    # --- the post --------------------------------------------------------------------------

    def enter(self, life: int, what: Callable[[], None]) -> None:
        """Do something in this process, if it is still the life that was meant."""
        if self.process.alive and self.process.incarnation == life == self._incarnation:
            self._loop.call_soon(what)

    def on_push(self, source: NodeId, type_: int, body: bytes) -> None:
        assert type_ == MessageType.METADATA, "nothing else is pushed here"
        self.member.on_metadata(source, body)

    def on_question(
        self,
        source: NodeId,
        type_: int,
        body: bytes,
        answer: Callable[[bytes | SsGovernError], None],
    ) -> None:
        self._tasks.create_task(self._answer(source, type_, body, answer))

    async def _answer(
        self,
        source: NodeId,
        type_: int,
        body: bytes,
        answer: Callable[[bytes | SsGovernError], None],
    ) -> None:
        try:
            if self.controller is None:
                raise UnsupportedTypeError("this node is no candidate")
            answer(await self.controller.on_request(source, type_, body))
        except SsGovernError as error:
            answer(error)

    async def _local(self, type_: int, body: bytes) -> bytes:
        if self.controller is None:
            raise UnavailableError("this node is no candidate")
        return await self.controller.on_request(self.node, type_, body)

    def _on_role(self) -> None:
        assert self.controller is not None, "only candidates have roles"
        self.controller.wake()
        self.member.wake()

    # --- what a node with shards would do --------------------------------------------------

    def _on_lease(self, until_ms: float) -> None:
        self.lease_until_ms = until_ms
        self.leased.append(self._loop.time())
        self.on_lease(self)

    def has_lease(self) -> bool:
        """Whether it believes to be allowed to act as primary, at this very moment."""
        return self.process.monotonic() * 1000.0 < self.lease_until_ms and self.member.session > 0

    def _positions(self) -> dict[ShardId, LogPosition]:
        return {
            ShardId(shard): LogPosition(row.epoch, row.version)
            for shard, row in enumerate(self.metadata.state.rows)
            if self.node in row.holders
        }

    async def _obey(self) -> None:
        while True:
            await asyncio.sleep(_OBEY_S)
            state, session = self.metadata.state, self.member.session
            mine = state.nodes.get(self.node)
            if session == 0 or mine is None or mine.session != session or not mine.live:
                continue
            for number, row in enumerate(state.rows):
                shard = ShardId(number)
                key = row.epoch, row.version
                if row.primary != self.node or self._asked.get(shard) == key:
                    continue
                wanted = tuple(node for node in row.holders if state.is_live(node))
                if row.successor != NOBODY:
                    resigned = Resigned(shard, self.node, session, *key)
                    body = encode(resigned_to_wire(resigned))
                    self._tell(shard, key, MessageType.SHARD_RESIGNED, body)
                elif wanted != row.in_sync:
                    members = tuple((node, state.nodes[node].session) for node in wanted)
                    asked = InSyncRequest(shard, self.node, session, *key, members)
                    body = encode(in_sync_to_wire(asked))
                    self._tell(shard, key, MessageType.IN_SYNC_CHANGE, body)

    def _tell(self, shard: ShardId, key: tuple[int, int], type_: MessageType, body: bytes) -> None:
        self._asked[shard] = key
        self._tasks.create_task(self._ask(shard, key, type_, body))

    async def _ask(
        self, shard: ShardId, key: tuple[int, int], type_: MessageType, body: bytes
    ) -> None:
        try:
            await self.member.ask_controller(type_, body, self._loop.time() + 5.0)
        except SsGovernError:
            # The row changed, or nobody answered: looked at anew.
            await asyncio.sleep(_OBEY_S)
            if self._asked.get(shard) == key:
                del self._asked[shard]
