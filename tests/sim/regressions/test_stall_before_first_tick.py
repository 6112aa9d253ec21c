"""Found by seed 122: a node that stood still right after its start expired who was alive."""

from __future__ import annotations

from ssgovern.model import SessionId
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming


def test_a_stall_before_the_first_tick_is_not_held_against_sessions() -> None:
    """Time in which the loop stood still does not count, from the table's first moment on."""
    table = SessionTable(SessionTiming(ttl_ms=5000, tick_ms=250), Protection(ProtectionPolicy()))
    table.start(1000.0)
    table.open(SessionId(bytes(16)), 1000.0)

    assert table.tick(1000.0 + 250.0 + 6000.0) == []
    assert [table.tick(7250.0 + 250.0 * number) for number in range(1, 19)] == [[]] * 18
    assert len(table.tick(7250.0 + 250.0 * 20)) == 1
