"""Whether sessions expire when they should: never early, not much too late, and no hold for ever.

Keeps its own clock: the node's monotonic time without the time in which the simulator had it
paused. Knows nothing of how the node computes deadlines.
"""

from __future__ import annotations

from collections.abc import Callable

from ssgovern.node.config import ServerConfig
from ssgovern.node.node import SESSION_TICK_MS
from ssgovern.registry.sessions import Session, SessionTable
from ssgovern.sim.process import Process

# A pause between two ticks is seen by the node as shorter by up to two of them.
_PAUSE_TOLERANCE_MS = 2 * SESSION_TICK_MS
_LATE_MS = 4 * SESSION_TICK_MS


class SessionsJudge:
    """S1 (never early), S2 (bounded lateness), S3 (protection ends)."""

    def __init__(self, process: Process, config: ServerConfig, fail: Callable[[str], None]) -> None:
        self._process = process
        self._session = config.session
        self._hold_ms = config.protection.hold_ms
        self._fail = fail
        self._paused_at: float | None = None
        self._paused_ms = 0.0
        self._pauses: list[tuple[float, float]] = []
        self._heard: dict[bytes, float] = {}
        self._closed: dict[bytes, float] = {}
        self._held: dict[bytes, float] = {}
        self.expired = 0

    def running_ms(self) -> float:
        """The node's time, without its pauses."""
        now = self._process.monotonic() * 1000.0 if self._paused_at is None else self._paused_at
        return now - self._paused_ms

    # --- what happens ----------------------------------------------------------------------

    def on_started(self) -> None:
        """A new life: its clock may have begun anew, and it knows nobody yet."""
        self._paused_at = None
        self._paused_ms = 0.0
        self._pauses.clear()
        self._heard.clear()
        self._closed.clear()
        self._held.clear()

    def on_paused(self) -> None:
        self._paused_at = self._process.monotonic() * 1000.0

    def on_resumed(self) -> None:
        if self._paused_at is not None:
            length_ms = self._process.monotonic() * 1000.0 - self._paused_at
            self._paused_ms += length_ms
            self._paused_at = None
            self._pauses.append((self.running_ms(), length_ms))

    def on_ready(self, table: SessionTable) -> None:
        """Sessions of an earlier life have their full time from now: nobody could speak before."""
        now = self.running_ms()
        for session_id in table._sessions:
            self._heard[session_id] = now

    def on_heard(self, session: Session) -> None:
        self._heard[session.id] = self.running_ms()
        self._closed.pop(session.id, None)

    def on_detached(self, session: Session) -> None:
        self._closed[session.id] = self.running_ms()

    def closed_at(self, session_id: bytes) -> float | None:
        """When its connection was lost, if it is; by `running_ms`. Ask before `on_end`."""
        return self._closed.get(session_id)

    def on_end(self, session: Session, *, expired: bool) -> None:
        heard = self._heard.pop(session.id, None)
        closed = self._closed.pop(session.id, None)
        self._held.pop(session.id, None)
        if not expired:
            return
        self.expired += 1
        if heard is None or session.ended:
            # It ends again, after a log that could not take its first end: not early.
            return
        now = self.running_ms()
        silent_ms, closed_ms = now - heard, 0.0 if closed is None else now - closed
        since = heard if closed is None else min(heard, closed)
        tolerance_ms = 1.0 + _PAUSE_TOLERANCE_MS * sum(when >= since for when, _ in self._pauses)
        is_silent = silent_ms >= self._ttl_ms(session) - tolerance_ms
        is_closed = closed is not None and (
            closed_ms >= self._session.close_grace_ms - tolerance_ms
        )
        if not (is_silent or is_closed):
            self._fail(
                f"S1: session {session.id.hex()[:8]} expired {silent_ms:.0f} ms after it was heard"
                + ("" if closed is None else f", {closed_ms:.0f} ms after its connection closed")
            )

    def _ttl_ms(self, session: Session) -> float:
        return session.ttl_ms if session.is_lease else self._session.ttl_ms

    # --- what does not happen --------------------------------------------------------------

    def look(self, table: SessionTable) -> None:
        """Look for sessions that should have ended. The node runs and its disk works."""
        now = self.running_ms()
        # What the node took for a stall it has added to every session's life, pauses included.
        slack_ms = _LATE_MS + 2 * max(table._stalled_ms, sum(length for _, length in self._pauses))
        held = {session.id: None for session in table._held}
        for session_id in [each for each in self._held if each not in held]:
            del self._held[session_id]
        for session in table._sessions.values():
            if session.id in held:
                since = self._held.setdefault(session.id, now)
                if now - since > self._hold_ms + slack_ms:
                    self._fail(
                        f"S3: session {session.id.hex()[:8]} is held for {now - since:.0f} ms"
                    )
                continue
            overdue_ms = now - self._heard.get(session.id, now) - self._ttl_ms(session)
            if session.id in self._closed:
                grace_ms = now - self._closed[session.id] - self._session.close_grace_ms
                overdue_ms = max(overdue_ms, grace_ms)
            if overdue_ms > slack_ms:
                self._fail(f"S2: session {session.id.hex()[:8]} is overdue by {overdue_ms:.0f} ms")
