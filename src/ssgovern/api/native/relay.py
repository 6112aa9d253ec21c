"""Passing on what clients ask that know this node only.

For each session that says hello with `forward` a `ClientRelay` is kept, as long as the session
lives here, also while its client is between two connections. Owns the tasks of all of them. The
client's own requests come by way of its `NativeConnection`. Invariants: a request is answered
once; what is passed on at once is limited, per connection and in all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TypeVar

from ssgovern import limits
from ssgovern.api.native.connection import NativeConnection
from ssgovern.api.native.relay_asking import ANSWERING, Asked, ask
from ssgovern.api.native.relay_client import ClientRelay, in_parallel
from ssgovern.api.native.relay_map import RelayMap
from ssgovern.api.native.server import NativeServer
from ssgovern.errors import (
    ClosedError,
    OverloadedError,
    SessionSupersededError,
    SessionUnknownError,
    SsGovernError,
)
from ssgovern.model import NodeId, ServiceKey, SessionId
from ssgovern.registry.sessions import Session
from ssgovern.registry.subscriptions import Target
from ssgovern.service.push import Subscriber
from ssgovern.transport.tls import TlsDialler
from ssgovern.wire.codec import error_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, log_pb2

log = logging.getLogger("ssgovern.relay")

T = TypeVar("T")

_LOOK_S = 0.25


class Relays:
    """The relays of a node; its server's `relay`."""

    def __init__(
        self,
        server: NativeServer,
        node_id: NodeId,
        *,
        beat_ms: int,
        tls: TlsDialler | None = None,
    ) -> None:
        self._server = server
        self.registry = server.registry
        self.push = server.push
        self.me = node_id
        self.beat_s = beat_ms / 1000.0
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._relays: dict[SessionId, ClientRelay] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._asked = 0
        self._map: RelayMap | None = None
        self.push.applied.relayed = self

    def __repr__(self) -> str:
        return f"<Relays {len(self._relays)} asked={self._asked}>"

    def __len__(self) -> int:
        return len(self._relays)

    async def run(self) -> None:
        """Own all tasks, and forget those whose session is no more, for ever."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await asyncio.sleep(_LOOK_S)
                    for relay in list(self._relays.values()):
                        if not self._is_ours(relay):
                            self.drop(relay)
            finally:
                self._tasks = None

    # --- relay_client.Hub ------------------------------------------------------------------

    def spawn(self, work: Coroutine[None, None, T], name: str) -> asyncio.Task[T]:
        """Run a task that raises nothing a caller or another node could cause."""
        tasks = self._tasks
        if tasks is None:
            work.close()
            raise ClosedError("this node passes nothing on any more")
        return tasks.create_task(work, name=name)

    def shard_map(self) -> RelayMap:
        placement = self.registry.placement
        if self._map is None or self._map.version != placement.map_version:
            self._map = RelayMap(placement.map_update(0))
        return self._map

    def lost(self, relay: ClientRelay) -> None:
        session = relay.session
        connection = session.connection
        self.drop(relay)
        if self.registry.sessions.find(session.id) is not session:
            return
        log.info("session %s lost something on another node: it begins anew", session.id.hex()[:8])
        reason = log_pb2.SESSION_END_EXPIRED
        self.registry.end_session(session, reason, self._server.session_end_refused())
        if connection is not None:
            connection.refuse(
                SessionUnknownError(
                    "something that was registered on another node is gone; say hello again",
                    session_id=session.id.hex(),
                )
            )

    def superseded(self, relay: ClientRelay) -> None:
        connection = relay.session.connection
        is_ours = connection is not None and relay.is_of(connection)
        self.drop(relay)
        if connection is not None and is_ours:
            connection.refuse(SessionSupersededError("the session said hello on another node"))

    def drop(self, relay: ClientRelay) -> None:
        """Forget a client that is gone, or for whom another node speaks now."""
        if self._relays.get(relay.session_id) is relay:
            del self._relays[relay.session_id]
        relay.close()

    def _is_ours(self, relay: ClientRelay) -> bool:
        session = relay.session
        return self.registry.sessions.find(session.id) is session and (
            session.connection is None or relay.is_of(session.connection)
        )

    # --- connection.Relay ------------------------------------------------------------------

    def welcomed(self, connection: NativeConnection, session: Session, secret: bytes) -> bool:
        if self._tasks is None:
            return True
        relay = self._relays.get(session.id)
        if relay is not None and relay.session is session:
            if relay.client is not None:
                relay.client_gone()
            relay.client = connection
            return True
        if relay is not None:
            self.drop(relay)
        self._relays[session.id] = ClientRelay(self, session, secret, connection)
        return False

    def take(self, connection: NativeConnection, type_: int, request_id: int, body: bytes) -> bool:
        relay = self._relay_of(connection)
        if relay is None or self._tasks is None or type_ not in ANSWERING:
            return False
        if (
            connection.in_flight >= limits.IN_FLIGHT_PER_CONNECTION_MAX
            or self._asked >= limits.FORWARDED_MAX
        ):
            error = OverloadedError("too many requests wait for other nodes already")
            connection.reply_error(type_, request_id, error_to_wire(error))
            return True
        deadline = self._loop.time() + limits.FORWARD_TIMEOUT_MS / 1000.0
        connection.in_flight += 1
        self._asked += 1
        asked = Asked(self, relay, connection, type_, body, deadline)
        self._tasks.create_task(self._answer(asked, connection, request_id), name="relay: ask")
        return True

    def unsubscribe(self, connection: NativeConnection, subscription_id: int) -> bool:
        relay = self._relay_of(connection)
        return relay is not None and relay.unsubscribe(subscription_id)

    def goodbye(self, connection: NativeConnection, session: Session, request_id: int) -> bool:
        relay = self._relay_of(connection)
        if relay is None or self._tasks is None or not relay.holders():
            return False
        connection.in_flight += 1
        self._tasks.create_task(
            self._say_goodbye(relay, connection, session, request_id), name="relay: goodbye"
        )
        return True

    def writable(self, connection: NativeConnection) -> None:
        relay = self._relay_of(connection)
        if relay is not None:
            for link in relay.links.values():
                link.resume()

    def closed(self, connection: NativeConnection) -> None:
        relay = self._relay_of(connection)
        if relay is not None:
            relay.client_gone()

    def targets(self, connection: NativeConnection) -> list[Target]:
        relay = self._relay_of(connection)
        return [] if relay is None else relay.targets

    def applied(self, connection: NativeConnection, said: applied_pb2.Applied) -> None:
        relay = self._relay_of(connection)
        if relay is not None:
            relay.say_applied(said)

    def map_changed(self) -> None:
        if self._tasks is not None:
            for relay in self._relays.values():
                relay.wake()

    def _relay_of(self, connection: NativeConnection) -> ClientRelay | None:
        session = connection.session
        relay = None if session is None else self._relays.get(session.id)
        return relay if relay is not None and relay.is_of(connection) else None

    # --- service.applied.Relayed -----------------------------------------------------------

    def followers(self, key: ServiceKey) -> list[Subscriber]:
        return [
            relay.client
            for relay in self._relays.values()
            if relay.client is not None and relay.follows(key)
        ]

    def follows(self, subscriber: Subscriber, key: ServiceKey) -> bool:
        session = subscriber.who.session_id
        relay = self._relays.get(session)
        return relay is not None and relay.is_of(subscriber) and relay.follows(key)

    # --- tasks -----------------------------------------------------------------------------

    async def _answer(self, asked: Asked, connection: NativeConnection, request_id: int) -> None:
        try:
            body = await ask(asked)
        except SsGovernError as error:
            connection.reply_error(asked.type, request_id, error_to_wire(error))
        else:
            connection.reply(asked.type, request_id, body)
        finally:
            self._asked -= 1
            connection.in_flight -= 1
        connection.flush()

    async def _say_goodbye(
        self, relay: ClientRelay, connection: NativeConnection, session: Session, request_id: int
    ) -> None:
        deadline = self._loop.time() + limits.FORWARD_DIAL_MS / 1000.0
        await in_parallel(_goodbye(relay, node, deadline) for node in relay.holders())
        self.drop(relay)
        connection.in_flight -= 1
        if self.registry.sessions.find(session.id) is session:
            connection.end_session(session, request_id)
        else:
            connection.reply(MessageType.GOODBYE, request_id, b"")
        connection.flush()


async def _goodbye(relay: ClientRelay, node: NodeId, deadline: float) -> None:
    try:
        channel = await relay.link(node).ready(deadline)
        await channel.request(MessageType.GOODBYE, b"", deadline)
    except SsGovernError as error:
        # What it has there goes a little later, when nothing is heard of it any more.
        log.info("no goodbye to node %d for a client: %s", node, error)
