"""The one task that lets sessions expire, and measures how long the loop stood still.

Invariant: a node without a lease lets nobody expire. It sends clients elsewhere, so their silence
says nothing; once it is heard again, everybody has a full time to live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ssgovern.api.native.server import NativeServer
from ssgovern.errors import SessionUnknownError
from ssgovern.model import Outcome, SessionId
from ssgovern.registry.sessions import Session
from ssgovern.replication.primary import Proposal
from ssgovern.service.registry import RegistryService
from ssgovern.wire.pb import log_pb2

log = logging.getLogger("ssgovern.sessions")

_USUAL_LATENESS_S = 0.002


class SessionDriver:
    """Ticks the session table; waiter of the ends it proposes."""

    def __init__(self, registry: RegistryService, tick_ms: float) -> None:
        self._registry = registry
        self._tick_s = tick_ms / 1000.0
        self._loop = asyncio.get_running_loop()
        self._protecting = False
        self.has_lease: Callable[[], bool] = lambda: True
        """Whether this node may act for its shards, as far as leases tell."""
        self.stall_ms_max = 0.0
        """Longest time by which a tick came late."""
        self.stalled_s = 0.0
        """All of it together, short of what any timer is late by."""

    async def run(self, server: NativeServer) -> None:
        """Tick, for ever."""
        ticks = 0
        frozen = False
        while True:
            due = self._loop.time() + self._tick_s
            await asyncio.sleep(self._tick_s)
            now = self._loop.time()
            self.stall_ms_max = max(self.stall_ms_max, (now - due) * 1000.0)
            self.stalled_s += max(0.0, now - due - _USUAL_LATENESS_S)
            if self.has_lease():
                if frozen:
                    self._registry.sessions.renew_all(now * 1000.0)
                frozen = False
                self._expire(now * 1000.0)
                self._registry.retry_ends()
            else:
                frozen = True
            ticks += 1
            if ticks % 4 == 0:
                server.sweep()

    def _expire(self, now_ms: float) -> None:
        sessions = self._registry.sessions
        ending = sessions.tick(now_ms)
        for session in ending:
            self._end(session)
        if ending:
            log.info("%d sessions expired, %d are left", len(ending), len(sessions))
        if bool(sessions.held) != self._protecting:
            self._protecting = bool(sessions.held)
            if self._protecting:
                log.warning(
                    "protection: %d sessions of a shard would expire at once, "
                    "more than is likely; they are held back for a while",
                    sessions.held,
                )
            else:
                log.warning("protection has ended")

    def _end(self, session: Session) -> None:
        connection = session.connection
        self._registry.end_session(session, log_pb2.SESSION_END_EXPIRED, self)
        if connection is not None:
            connection.refuse(
                SessionUnknownError(
                    "the session expired: no heartbeat came in time; say hello again",
                    session_id=session.id.hex(),
                )
            )

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        """The log took the end of a session, or could not: then it expires again later."""
        if outcome.error is not None:
            record = proposal.record
            assert isinstance(record, log_pb2.Record), f"{proposal!r} ends a session"
            ended = SessionId(record.session_ended.session_id)
            self._registry.retry_end(ended, proposal.shard, self._loop.time() * 1000.0)
