"""A node's life in its cluster: its session, its heartbeats, its lease, and following the metadata.

Finds the controller wherever it is (told by this node's own consensus, by what the controller
pushes, by whoever was asked and is not it, by the seeds), asks it for a session until it grants
one, and shows it every half a second that this node lives.

A lease counts from the moment before its heartbeat was sent, so that no delay on the way, in this
node or in the controller makes it longer than the controller thinks. Heartbeats do not wait for
each other: one that hangs must not use up the lease.

Refuses to know what a session and a lease are good for, and how links are made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from ssgovern import limits
from ssgovern.controller.codec import registration_to_wire
from ssgovern.controller.nodes import Registration
from ssgovern.controller.rows import NOBODY
from ssgovern.errors import (
    DeadlineExceededError,
    FencedError,
    NotControllerError,
    PeerRefusedError,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import LogPosition, NodeId, ShardId
from ssgovern.node.metadata import Metadata
from ssgovern.runtime import Runtime
from ssgovern.transport.handshake import PeerSaid
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import peer_pb2

log = logging.getLogger("ssgovern.member")

_BEATS_AT_ONCE = 4
_ROUND_PAUSE_MS = 100.0


class Links(Protocol):
    """What of `PeerLinks` is used here."""

    def is_open(self, node: NodeId) -> bool: ...

    async def request(self, node: NodeId, type_: int, body: bytes, deadline: float) -> bytes: ...

    async def ask(
        self, address: str, type_: int, body: bytes, deadline: float
    ) -> tuple[PeerSaid, bytes]: ...


class _Target(NamedTuple):
    """Somebody who may be the controller, by id (0: not known) and by address."""

    node: NodeId
    address: str


Local = Callable[[int, bytes], Awaitable[bytes]]
"""Asks the controller's driver of this very node."""


class MemberDriver:
    """Owner of the node's session. Everything happens in tasks of `run`."""

    def __init__(
        self,
        me: NodeId,
        metadata: Metadata,
        links: Links,
        runtime: Runtime,
        *,
        registration: Callable[[], Registration],
        positions: Callable[[], Mapping[ShardId, LogPosition]],
        on_session: Callable[[int], None],
        on_lease: Callable[[float], None],
        on_left: Callable[[], None] = lambda: None,
        candidates: Sequence[tuple[NodeId, str]] = (),
        seeds: Sequence[str] = (),
        leader: Callable[[], NodeId | None] = lambda: None,
        local: Local | None = None,
    ) -> None:
        """`registration` is asked each time a session is needed, `positions` for each heartbeat.

        `positions` may give all ends of logs or only those that changed since it was called.
        `leader` is what this node's own consensus says: 0 if it knows of none, None if this node
        has no consensus. Without a leader that tells it everything, it follows the metadata by
        what it is told, and has to fetch what is missing.
        """
        self.session = 0
        """The one that heartbeats are sent for; 0: none now."""
        self.lease_until_ms = 0.0
        self.refusal = ""
        """Why the controller does not grant a session; empty if it does, or did not answer."""
        self._me = me
        self._my_address = ""
        self._metadata = metadata
        self._links = links
        self._runtime = runtime
        self._registration = registration
        self._positions = positions
        self._on_session = on_session
        self._on_lease = on_lease
        self._on_left = on_left
        self._had_session = False
        self._candidates = tuple(candidates)
        self._seeds = tuple(seeds)
        self._leader = leader
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._beats = 0
        self._last_good = _Target(NOBODY, "")
        self._rotation = 0
        # Who let a question hang, and until when others are asked first.
        self._silent: dict[_Target, float] = {}
        self._leaving = False
        self._woken = asyncio.Event()
        self._behind = asyncio.Event()
        # Up to where the metadata log is committed, by what was last heard.
        self._known_index = 0
        self._known: dict[ShardId, LogPosition] = {}
        self._told: dict[ShardId, LogPosition] = {}

    def __repr__(self) -> str:
        return f"<MemberDriver node={self._me} session={self.session} asks={self._last_good.node}>"

    @property
    def controller_heard(self) -> bool:
        """Whether this node has a lease now."""
        return self._now_ms() < self.lease_until_ms

    async def run(self) -> None:
        """Register and send heartbeats, for ever."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._follow(), name="metadata-follow")
            while not self._leaving:
                if self.session == 0:
                    await self._register()
                self._begin_beat()
                await self._pause(limits.NODE_HEARTBEAT_MS)

    def leave(self) -> None:
        """Send no more heartbeats and ask for no other session: this life of the node is over.

        What the cluster agrees upon is followed on.
        """
        self._leaving = True

    def wake(self) -> None:
        """Say that there may be a new controller: it is sent a heartbeat at once."""
        self._woken.set()

    async def _pause(self, ms: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ms / 1000.0):
                await self._woken.wait()
        self._woken.clear()

    def _now_ms(self) -> float:
        return self._loop.time() * 1000.0

    # --- the session -----------------------------------------------------------------------

    async def _register(self) -> None:
        while self.session == 0 and not self._leaving:
            asked = self._registration()
            self._my_address = asked.address
            body = encode(registration_to_wire(asked))
            deadline = self._loop.time() + limits.NODE_REFUSED_PAUSE_MS / 1000.0
            try:
                answer = await self.ask_controller(MessageType.NODE_REGISTER, body, deadline)
                granted = decode(peer_pb2.NodeRegisterResponse, answer)
            except (UnavailableError, DeadlineExceededError) as error:
                log.debug("no session yet: %s", error)
            except SsGovernError as error:
                self._note_refusal(str(error))
                self._maybe_left(error)
                await asyncio.sleep(limits.NODE_REFUSED_PAUSE_MS / 1000.0)
            else:
                self._begin_session(granted)

    def _note_refusal(self, why: str) -> None:
        if why and why != self.refusal:
            log.error("the cluster does not take this node: %s", why)
        self.refusal = why

    def _maybe_left(self, error: SsGovernError) -> None:
        """A node that was a member in this life, and is none for good, has nothing left to do.

        One that starts with the id of such a node is refused like any stranger.
        """
        if self._had_session and "left" in error.fields and not self._leaving:
            self._had_session = False
            self._on_left()

    def _begin_session(self, granted: peer_pb2.NodeRegisterResponse) -> None:
        self._note_refusal("")
        self._told.clear()
        self.session = granted.session
        self._had_session = True
        log.info("session %d in cluster %s", self.session, granted.cluster_id.hex())
        self._note_index(granted.index, patience=False)
        self._on_session(self.session)

    def _lose_session(self, session: int, why: str) -> None:
        if session == self.session and not self._leaving:
            log.warning("session %d has ended: %s", session, why)
            self.session = 0
            self.lease_until_ms = 0.0
            self._on_session(0)
            self._woken.set()

    # --- heartbeats ------------------------------------------------------------------------

    def _begin_beat(self) -> None:
        if self._beats < _BEATS_AT_ONCE and not self._leaving:
            self._beats += 1
            self._tasks.create_task(self._beat(), name="node-heartbeat")

    async def _beat(self) -> None:
        session = self.session
        told = self._untold()
        sent_ms = self._now_ms()
        deadline = (sent_ms + limits.NODE_HEARTBEAT_TIMEOUT_MS) / 1000.0
        try:
            answer = await self._ask_around(
                MessageType.NODE_HEARTBEAT, self._heartbeat(session, told), deadline
            )
            self._on_beat(session, sent_ms, told, decode(peer_pb2.NodeHeartbeatResponse, answer))
        except FencedError as error:
            self._lose_session(session, str(error))
            self._maybe_left(error)
        except SsGovernError as error:
            # The next one will tell; what counts is how long none was answered.
            log.debug("a heartbeat was not answered: %s", error)
        finally:
            self._beats -= 1

    def _heartbeat(self, session: int, told: Mapping[ShardId, LogPosition]) -> bytes:
        request = peer_pb2.NodeHeartbeatRequest(
            node_id=self._me, session=session, index=self._metadata.index
        )
        for shard, position in told.items():
            request.positions.add(shard=shard, epoch=position.epoch, revision=position.revision)
        return encode(request)

    def _untold(self) -> dict[ShardId, LogPosition]:
        """Return ends of logs that the controller did not confirm to know, as many as fit."""
        self._known.update(self._positions())
        untold: dict[ShardId, LogPosition] = {}
        for shard, position in self._known.items():
            if self._told.get(shard) != position:
                untold[shard] = position
                if len(untold) >= limits.NODE_POSITIONS_MAX:
                    break
        return untold

    def _on_beat(
        self,
        session: int,
        sent_ms: float,
        told: Mapping[ShardId, LogPosition],
        answer: peer_pb2.NodeHeartbeatResponse,
    ) -> None:
        if session != self.session:
            return
        self._told.update(told)
        self._note_index(answer.index, patience=True)
        if answer.lease_ms == 0:
            # It is not sure to be the controller any more: somebody else may be.
            self._last_good = _Target(NOBODY, "")
        elif (until_ms := self._lease_end(sent_ms, answer.lease_ms)) > self.lease_until_ms:
            self.lease_until_ms = until_ms
            self._on_lease(until_ms)

    def _lease_end(self, sent_ms: float, lease_ms: int) -> float:
        return sent_ms + min(lease_ms, limits.NODE_LEASE_MS)

    # --- the metadata ----------------------------------------------------------------------

    def on_metadata(self, source: NodeId, body: bytes) -> None:
        """Take a push of the controller; fetch if it does not follow what is here.

        Raises InvalidArgumentError or UnsupportedVersionError if it cannot be read.
        """
        before = self._metadata.controller_id, self._metadata.term
        in_order = self._metadata.take(body)
        if (self._metadata.controller_id, self._metadata.term) != before:
            self.wake()
        if not in_order:
            self._behind.set()

    def _note_index(self, index: int, *, patience: bool) -> None:
        """Take note of how far the log is; with `patience`, what is missing may be on its way."""
        missed = max(self._known_index, 0 if patience else index)
        self._known_index = max(self._known_index, index)
        if self._metadata.index < missed:
            self._behind.set()

    async def _follow(self) -> None:
        """Fetch what is missing of the metadata log, whenever something is."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            if self._leader():
                # It brings what is missing. Nobody does to a candidate that was dismissed.
                continue
            after = self._metadata.index
            body = encode(peer_pb2.MetadataFetchRequest(after=after))
            deadline = (self._now_ms() + limits.NODE_HEARTBEAT_TIMEOUT_MS) / 1000.0
            try:
                self._metadata.take(
                    await self._ask_around(MessageType.METADATA_FETCH, body, deadline)
                )
            except SsGovernError as error:
                log.warning("cannot fetch the cluster's metadata behind %d: %s", after, error)
                await asyncio.sleep(_ROUND_PAUSE_MS / 1000.0)
                self._behind.set()
            else:
                if after < self._metadata.index < self._known_index:
                    self._behind.set()

    # --- finding the controller ------------------------------------------------------------

    async def ask_controller(
        self, type_: int, body: bytes, deadline: float, *, patient: bool = False
    ) -> bytes:
        """Ask the controller, whoever that is by then.

        What is asked may be done twice, if the first answer was lost; who hangs is given up for
        another, unless one is to be `patient` (commands take their time). Raises the controller's
        error; UnavailableError if none was found until the deadline (in loop time, seconds).
        """
        while True:
            try_until = deadline
            if not patient:
                a_while = limits.NODE_REQUEST_TIMEOUT_MS / 1000.0
                try_until = min(deadline, self._loop.time() + a_while)
            try:
                return await self._ask_around(type_, body, try_until)
            except (NotControllerError, UnavailableError, DeadlineExceededError) as error:
                pause_s = _ROUND_PAUSE_MS * (0.5 + self._runtime.rng.random()) / 1000.0
                if self._loop.time() + pause_s >= deadline:
                    raise UnavailableError(f"no controller was found: {error}") from error
                await asyncio.sleep(pause_s)

    async def _ask_around(self, type_: int, body: bytes, deadline: float) -> bytes:
        """Ask who is most likely the controller, then the others, each once."""
        found: SsGovernError = UnavailableError("no candidate is known")
        tried: dict[_Target, None] = {}
        hint: _Target | None = None
        while (target := self._next_target(tried, hint)) is not None:
            tried[target] = None
            hint = None
            try:
                answer = await self._ask(target, type_, body, deadline)
            except NotControllerError as error:
                found = error
                hint = _hinted(error)
            except (UnavailableError, PeerRefusedError) as error:
                if isinstance(found, UnavailableError):
                    found = error
                if self._loop.time() >= deadline:
                    # Nobody is left the time to answer, so that it is not held against others.
                    self._let_wait(target)
                    raise found from None
            except DeadlineExceededError:
                self._let_wait(target)
                raise
            else:
                self._last_good = target
                return answer
        self._last_good = _Target(NOBODY, "")
        self._rotation += 1
        raise found

    def _let_wait(self, target: _Target) -> None:
        """Ask others first for a while: this one used up all the time there was."""
        self._silent[target] = self._loop.time() + limits.NODE_LEASE_MS / 1000.0
        self._last_good = _Target(NOBODY, "")

    def _next_target(self, tried: Mapping[_Target, None], hint: _Target | None) -> _Target | None:
        asked_nodes = {target.node for target in tried if target.node != NOBODY}
        asked_addresses = {target.address for target in tried if target.address}
        for target in (hint, *self._targets()):
            if target is None or not (target.node or target.address):
                continue
            if target.node in asked_nodes or target.address in asked_addresses:
                continue
            return target
        return None

    def _targets(self) -> list[_Target]:
        """Return who may be the controller, the likeliest first."""
        likely = [self._leader() or NOBODY, self._metadata.controller_id, self._last_good.node]
        nodes = self._metadata.state.nodes
        known = {node.id: node.address for node in nodes.values() if node.candidate}
        others = [_Target(node, known.get(node, address)) for node, address in self._candidates]
        others += [
            _Target(node, known[node])
            for node in sorted(known)
            if node not in dict(self._candidates)
        ]
        others += [_Target(NOBODY, seed) for seed in self._seeds if seed != self._my_address]
        turn = self._rotation % len(others) if others else 0
        addresses = dict(self._candidates) | {node.id: node.address for node in nodes.values()}
        now = self._loop.time()
        self._silent = {target: until for target, until in self._silent.items() if until > now}
        targets = [
            *(_Target(node, addresses.get(node, "")) for node in likely if node != NOBODY),
            *([self._last_good] if self._last_good.address else []),
            *others[turn:],
            *others[:turn],
        ]
        return sorted(targets, key=lambda target: target in self._silent)

    async def _ask(self, target: _Target, type_: int, body: bytes, deadline: float) -> bytes:
        if target.node == self._me:
            if self._local is None:
                raise UnavailableError("this node is no candidate")
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._local(type_, body)
            except TimeoutError:
                raise DeadlineExceededError("the controller did not answer in time") from None
        if target.node != NOBODY and self._links.is_open(target.node):
            return await self._links.request(target.node, type_, body, deadline)
        if not target.address:
            raise UnavailableError(f"no link to node {target.node}, and no address of it")
        _, answer = await self._links.ask(target.address, type_, body, deadline)
        return answer


def _hinted(error: NotControllerError) -> _Target | None:
    controller, address = error.fields.get("controller", ""), error.fields.get("address", "")
    if not controller.isdecimal() or controller == "0":
        return None
    return _Target(NodeId(int(controller)), address)
