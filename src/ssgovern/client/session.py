"""The client's connection and its upkeep: dial, hello, heartbeats, and again after a loss.

Knows sessions, retries and deadlines; knows neither services nor lists beyond handing both to
`Holdings` and `Watches`. Invariants: one connection at a time; after a hello that did not
resume the session, what is held is registered again before anything else is sent; no request
outlives its deadline, and none is repeated that might then have a second effect; between two
rounds of dialling there is always a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import Message

from ssgovern import limits
from ssgovern.client.addresses import Address
from ssgovern.client.backoff import Backoff
from ssgovern.client.holdings import Holdings, in_batches
from ssgovern.client.values import ConnectionState
from ssgovern.client.watches import Watches
from ssgovern.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorCode,
    InvalidArgumentError,
    RemoteProtocolError,
    Retry,
    SsGovernError,
    UnavailableError,
)
from ssgovern.model import session_id_of
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel, ConnectionLostError, open_channel
from ssgovern.wire.codec import decode, encode, error_from_message, key_from_wire
from ssgovern.wire.frames import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, MessageType
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

M = TypeVar("M", bound=Message)

DIAL_TIMEOUT_S = 3.0
HELLO_TIMEOUT_S = 5.0
REGISTER_AGAIN_TIMEOUT_S = 10.0
GOODBYE_TIMEOUT_S = 1.0
STABLE_AFTER_S = 10.0
"""A connection that lasted so long was a good one: the next loss starts with short pauses."""
SILENT_BEATS_MAX = 2
"""Heartbeats in a row without any sign of the node before the connection is given up."""
REDIAL_FIRST_S = 0.1
REDIAL_MOST_S = 3.0
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 2.0


class Session:
    """One session with the cluster. `run` is its only task; `call` may be used by many."""

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        runtime: Runtime,
        client_name: str,
        holdings: Holdings,
        watches: Watches,
        on_state: Callable[[ConnectionState], None],
    ) -> None:
        assert addresses, "checked where addresses are parsed"
        self._addresses = tuple(addresses)
        self._runtime = runtime
        self._client_name = client_name
        self._holdings = holdings
        self._watches = watches
        self._on_state = on_state
        self._secret = runtime.random_bytes(16)
        self._session_id = session_id_of(self._secret)
        self._open: Channel | None = None
        """Past its hello, if it is still there."""
        self._ready: Channel | None = None
        """Past what has to be registered again: open for requests."""
        self._changed = asyncio.Event()
        """Set while there is something to see for those who wait for a connection."""
        self._must_register_again = False
        """A hello opened a new session, or may have, and not all of it was done."""
        self._in_flight = asyncio.Semaphore(limits.CLIENT_IN_FLIGHT_MAX)
        self._started = False
        self._closed: SsGovernError | None = None
        self._closing = asyncio.Event()
        self.state = ConnectionState(connected=False, since=self._now())

    def __repr__(self) -> str:
        state = f"connected to {self.state.address}" if self._ready else "disconnected"
        return f"<Session {self._session_id.hex()} {state} held={len(self._holdings)}>"

    @property
    def id(self) -> bytes:
        """What the node knows this client by. May be shown to anyone."""
        return self._session_id

    # --- requests --------------------------------------------------------------------------

    async def call(
        self, type_: int, request: Message, answer: type[M], deadline: float, *, repeatable: bool
    ) -> M:
        """Send a request and return the answer, over as many connections as it takes.

        A request that is not `repeatable` is sent again only if it surely had no effect.
        Raises the node's error; UnavailableError if no node could be reached in time;
        DeadlineExceededError if one was and did not answer.
        """
        body = encode(request)
        backoff = Backoff(self._runtime.rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        if self._in_flight.locked():
            await self._until(self._in_flight.acquire(), deadline, "too many requests in flight")
        else:
            await self._in_flight.acquire()
        try:
            while True:
                channel = await self.connected(deadline)
                try:
                    reply = await channel.request(type_, body, deadline)
                    return self._decode(channel, answer, reply)
                except ConnectionLostError as error:
                    if error.sent and not repeatable:
                        raise UnavailableError(
                            f"{error.message}; whether the request took effect is not known",
                            sent="yes",
                        ) from None
                    last: SsGovernError = error
                except DeadlineExceededError:
                    # Ours, or the node's own: in both the time is used up.
                    raise
                except SsGovernError as error:
                    if error.retry is Retry.NEVER or (
                        error.code is ErrorCode.UNAVAILABLE and not repeatable
                    ):
                        raise
                    if error.retry is Retry.AFTER_REFRESH:
                        self._give_up(channel, error)
                    last = error
                await self._pause(backoff, deadline, last)
        finally:
            self._in_flight.release()

    async def connected(self, deadline: float) -> Channel:
        """Return the connection, waiting for one until the deadline."""
        while True:
            self.check_started()
            if self._closed is not None:
                # A new one each time: one that is raised again and again collects tracebacks.
                raise ClosedError(self._closed.message)
            if self._ready is not None and self._ready.is_open:
                return self._ready
            self._changed.clear()
            addresses = ", ".join(map(str, self._addresses))
            reason = self.state.reason or "no connection yet"
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                raise UnavailableError(f"no node at {addresses}: {reason}") from None

    def start(self) -> None:
        """Let requests wait for the connection that `run` is about to make."""
        self._started = True

    def check_started(self) -> None:
        """Raise ClosedError if nobody is going to make a connection."""
        if not self._started:
            raise ClosedError("the client is not open; use it with `async with`")

    def refresh_after(self, outcomes: Iterable[object]) -> None:
        """Redial if one of these asks for it, as parts of an answer may."""
        for outcome in outcomes:
            if isinstance(outcome, SsGovernError) and outcome.retry is Retry.AFTER_REFRESH:
                if self._ready is not None:
                    self._give_up(self._ready, outcome)
                return

    async def _until(self, waiting: Awaitable[object], deadline: float, what: str) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await waiting
        except TimeoutError:
            raise DeadlineExceededError(f"{what}: the time ran out", sent="no") from None

    async def _pause(self, backoff: Backoff, deadline: float, last: SsGovernError) -> None:
        """Wait before a request is repeated; raise its error if there is no time for that."""
        pause_s = backoff.next_pause_s()
        if asyncio.get_running_loop().time() + pause_s >= deadline:
            raise last
        await asyncio.sleep(pause_s)

    def _decode(self, channel: Channel, kind: type[M], body: bytes) -> M:
        try:
            return decode(kind, body)
        except InvalidArgumentError as error:
            fault = RemoteProtocolError(f"{channel.peer}: {error.message}")
            self._give_up(channel, fault)
            raise fault from None

    def _give_up(self, channel: Channel, cause: SsGovernError) -> None:
        """End a connection that is of no more use, if it is still the present one."""
        if self._open is channel:
            channel.give_up(cause)

    # --- upkeep ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection until `close`."""
        loop = asyncio.get_running_loop()
        rng = self._runtime.rng
        backoff = Backoff(rng, first_s=REDIAL_FIRST_S, most_s=REDIAL_MOST_S)
        # Many clients are given the same list; not all of them should load its first node.
        number = rng.randrange(len(self._addresses))
        tried = 0
        while not self._closing.is_set():
            started_s = loop.time()
            await self._serve(self._addresses[number])
            if loop.time() - started_s >= STABLE_AFTER_S:
                backoff.reset()
                tried = 0
            else:
                number = (number + 1) % len(self._addresses)
                tried += 1
            if tried % len(self._addresses) == 0:
                await self._sleep(backoff.next_pause_s())

    async def _serve(self, address: Address) -> None:
        """Dial one node and live with it until the connection is lost."""
        loop = asyncio.get_running_loop()
        try:
            channel = await open_channel(
                address.host,
                address.port,
                self._watches.on_push,
                deadline=loop.time() + DIAL_TIMEOUT_S,
            )
        except UnavailableError as error:
            self._note_disconnected(address, error)
            return
        cause: SsGovernError | None = None
        try:
            hello = await self._hello(channel)
            self._open = channel
            interval_s = max(hello.heartbeat_interval_ms, 10) / 1000.0
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_alive(channel, interval_s))
                group.create_task(self._work(channel, address, hello))
        except* SsGovernError as errors:
            cause = _first_of(errors)
        finally:
            self._open = self._ready = None
            channel.give_up(cause or ClosedError("the client was closed"))
            self._watches.on_disconnected()
            self._note_disconnected(address, channel.cause or cause)

    async def _hello(self, channel: Channel) -> native_pb2.HelloResponse:
        request = native_pb2.HelloRequest(
            version_min=PROTOCOL_VERSION_MIN,
            version_max=PROTOCOL_VERSION_MAX,
            role=native_pb2.ROLE_CLIENT,
            client_name=self._client_name,
            session_id=self._session_id,
            session_secret=self._secret,
        )
        registered = not self._must_register_again
        # A hello whose answer is lost may have opened the session: the next one would resume
        # it, empty. Only an answer can tell.
        self._must_register_again = True
        deadline = asyncio.get_running_loop().time() + HELLO_TIMEOUT_S
        body = await channel.send_request(MessageType.HELLO, encode(request), deadline)
        hello = self._decode(channel, native_pb2.HelloResponse, body)
        self._must_register_again = not (hello.resumed and registered)
        return hello

    async def _work(
        self, channel: Channel, address: Address, hello: native_pb2.HelloResponse
    ) -> None:
        if self._must_register_again:
            await self._register_again(channel)
            self._must_register_again = False
        self._ready = channel
        self.state = ConnectionState(
            connected=True, since=self._now(), node_name=hello.node_name, address=str(address)
        )
        _logger.info(
            "connected to %s at %s, session %s %s",
            hello.node_name or hello.node_id,
            address,
            self._session_id.hex(),
            "resumed" if hello.resumed else "opened",
        )
        self._announce()
        self._watches.on_connected(hello.cluster_id)
        await self._watches.run(channel)

    async def _keep_alive(self, channel: Channel, interval_s: float) -> None:
        """Beat until the connection is lost; raise why.

        Silence is counted in beats, not in seconds: if it was this process that stood still,
        the answers are waiting to be read, and one more beat lets them in.
        """
        loop = asyncio.get_running_loop()
        silent = 0
        body = encode(native_pb2.HeartbeatRequest())
        while True:
            due = loop.time() + interval_s
            received = channel.messages_received
            try:
                await channel.send_request(MessageType.HEARTBEAT, body, due)
                silent = 0
            except DeadlineExceededError:
                silent = 0 if channel.messages_received != received else silent + 1
                if silent >= SILENT_BEATS_MAX:
                    raise UnavailableError(
                        f"{channel.peer} has been silent for {silent} heartbeats"
                    ) from None
            if await channel.wait_lost(max(0.0, due - loop.time())):
                raise channel.cause or UnavailableError(f"connection to {channel.peer} lost")

    async def _register_again(self, channel: Channel) -> None:
        """Register everything that is held, in a session that knows nothing of it."""
        registrations = self._holdings.registrations()
        if registrations:
            _logger.info("session is new to the node: registering %d again", len(registrations))
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._runtime.rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        while registrations:
            refused: list[native_pb2.Registration] = []
            for batch in in_batches(registrations):
                # What was asked to go since must not come back.
                batch = [item for item in batch if self._is_held(item)]
                if not batch:
                    continue
                request = native_pb2.RegisterRequest(registrations=batch)
                deadline = loop.time() + REGISTER_AGAIN_TIMEOUT_S
                try:
                    body = await channel.request(MessageType.REGISTER, encode(request), deadline)
                except SsGovernError as error:
                    if error.retry is not Retry.SAME_NODE:
                        raise
                    refused += batch
                    continue
                response = self._decode(channel, native_pb2.RegisterResponse, body)
                for item, result in zip(batch, response.results, strict=False):
                    if result.HasField("error"):
                        failure = error_from_message(result.error)
                        if failure.retry is Retry.NEVER:
                            _logger.error("cannot register %s again: %s", item.instance.id, failure)
                        else:
                            refused.append(item)
            registrations = refused
            if refused:
                await asyncio.sleep(backoff.next_pause_s())

    def _is_held(self, item: native_pb2.Registration) -> bool:
        return self._holdings.held(key_from_wire(item.service), item.instance.id) is not None

    # --- state -----------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._runtime.wall_ms() / 1000.0, UTC)

    def _note_disconnected(self, address: Address, cause: SsGovernError | None) -> None:
        reason = str(cause) if cause is not None else "closed"
        state = self.state
        if state.connected and self._closed is None:
            _logger.warning("connection to %s lost: %s", address, reason)
        elif state.reason != reason:
            _logger.info("no connection to %s: %s", address, reason)
        since = self._now() if state.connected else state.since
        fresh = ConnectionState(
            connected=False,
            since=since,
            node_name=state.node_name,
            address=str(address),
            reason=reason,
        )
        if fresh != state:
            self.state = fresh
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._on_state(self.state)

    async def _sleep(self, pause_s: float) -> None:
        """Pause, unless the client is closed meanwhile."""
        try:
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
        except TimeoutError:
            return

    # --- the end ---------------------------------------------------------------------------

    async def say_goodbye(self) -> None:
        """End the session at the node, so that what it registered goes at once. Never raises."""
        channel = self._open
        if channel is None or not channel.is_open:
            return
        deadline = asyncio.get_running_loop().time() + GOODBYE_TIMEOUT_S
        try:
            await channel.send_request(
                MessageType.GOODBYE, encode(native_pb2.GoodbyeRequest()), deadline
            )
        except SsGovernError as error:
            _logger.info("no goodbye, the session will expire: %s", error)

    def close(self, error: SsGovernError) -> None:
        """Refuse what waits and what comes; `run` ends by itself or may be cancelled."""
        if self._closed is None:
            self._closed = error
        self._closing.set()
        self._changed.set()
        if self._open is not None:
            self._open.give_up(error)


def _first_of(errors: ExceptionGroup[SsGovernError]) -> SsGovernError:
    """Return the error that ended a connection; what followed from it comes later."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, SsGovernError), "split by this very type"
    return found
