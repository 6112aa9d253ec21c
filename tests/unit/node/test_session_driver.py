"""Who lets sessions expire, and when it must not. In virtual time."""

from __future__ import annotations

import asyncio

from ssgovern.model import SessionId
from ssgovern.node.session_driver import SessionDriver
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import Session, SessionTable, SessionTiming
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

TICK_MS = 250.0
TTL_MS = 2_000.0
_NEVER = ProtectionPolicy(share=1.0, sessions_min=1_000, hold_ms=1_000, window_ms=1_000)


class FakeRegistry:
    """Sessions, and what of them has ended."""

    def __init__(self) -> None:
        timing = SessionTiming(ttl_ms=TTL_MS, close_grace_ms=300.0, tick_ms=TICK_MS)
        self.sessions = SessionTable(timing, Protection(_NEVER))
        self.ended: dict[SessionId, float] = {}

    def end_session(self, session: Session, *_: object) -> None:
        self.ended[session.id] = asyncio.get_running_loop().time()
        self.sessions.end(session)

    def retry_ends(self) -> int:
        return 0


class FakeServer:
    def sweep(self) -> None:
        pass


class FakeConnection:
    def refuse(self, error: object) -> None:
        pass


def _play(has_lease: tuple[tuple[float, float], ...], until_s: float) -> dict[SessionId, float]:
    """Return when sessions ended; `has_lease`: from when to when there is none."""
    registry = FakeRegistry()

    async def program(runtime: SimRuntime) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()

        def leased() -> bool:
            return not any(start + since <= loop.time() < start + to for since, to in has_lease)

        sessions = registry.sessions
        sessions.start(start * 1000.0)
        driver = SessionDriver(registry, TICK_MS)  # type: ignore[arg-type]
        driver.has_lease = leased
        connection = FakeConnection()
        silent, closed = SessionId(b"s" * 16), SessionId(b"c" * 16)
        sessions.open(silent, start * 1000.0)
        session = sessions.open(closed, start * 1000.0)
        sessions.attach(session, connection, start * 1000.0)
        loop.call_later(3.1, lambda: sessions.detach(session, connection, loop.time() * 1000.0))
        loop.call_later(1.9, lambda: sessions.hear(session, loop.time() * 1000.0))
        running = asyncio.create_task(driver.run(FakeServer()))  # type: ignore[arg-type]
        await asyncio.sleep(until_s)
        running.cancel()
        for name, when in registry.ended.items():
            registry.ended[name] = when - start
        sessions.validate()

    world = World(1)
    process = world.process("node", program)
    process.start()
    world.run(until_s + 1.0)
    assert not process.alive
    assert not world.errors, world.errors
    world.close()
    return registry.ended


def test_with_a_lease_sessions_end_by_silence_and_by_a_lost_connection() -> None:
    """Nothing is held back while the node may act."""
    ended = _play((), until_s=6.0)
    assert 2.0 <= ended[SessionId(b"s" * 16)] < 2.6
    assert 3.4 <= ended[SessionId(b"c" * 16)] < 4.0


def test_without_a_lease_nobody_expires_and_afterwards_all_have_their_full_time() -> None:
    """Clients that a node sent elsewhere are not dead, however they were lost (cluster 100158)."""
    assert not _play(((1.5, 60.0),), until_s=20.0)
    ended = _play(((1.5, 9.0),), until_s=14.0)
    assert sorted(ended) == [b"c" * 16, b"s" * 16]
    for when in ended.values():
        assert 11.0 <= when < 12.0
