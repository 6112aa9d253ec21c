"""What holds for the whole cluster, and what must hold between its times. Pure.

Why `fence_after_ms` has a least value. A controller grants leases of `NODE_LEASE_MS`, counted
from when a heartbeat was sent, and only if a majority obeyed it not longer than
`CONTROLLER_CONFIRMED_MS` before: no other candidate had been elected before that moment. The
next controller hears everybody anew and fences nobody before `fence_after_ms` have passed since
its election. So all leases of the old one are over, with a margin, when the new one fences for
the first time, whatever became of the old one: cut off, paused, or slow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ssgovern import limits
from ssgovern.controller.rules import Decision
from ssgovern.controller.state import (
    FORMAT_VERSION,
    ClusterState,
    Record,
    Settings,
    SettingsChanged,
)
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import ShardId

COPIES_MAX: Final = 7
FENCE_AFTER_MS_MIN: Final = (
    limits.CONTROLLER_CONFIRMED_MS + limits.NODE_LEASE_MS + limits.CONTROLLER_FENCING_MARGIN_MS
)


def check_settings(settings: Settings) -> None:
    """Raise InvalidArgumentError for settings that cannot work."""
    copies = settings.copies
    rules = {
        "copies": (1 <= copies <= COPIES_MAX, f"1 to {COPIES_MAX}"),
        "min_in_sync": (
            1 <= settings.min_in_sync <= copies,
            f"1 to {copies}, the number of copies",
        ),
        "moves_max": (settings.moves_max >= 1, "1 or more"),
        "nodes_initial": (settings.nodes_initial >= 1, "1 or more"),
        "fence_after_ms": (
            settings.fence_after_ms >= FENCE_AFTER_MS_MIN,
            f"{FENCE_AFTER_MS_MIN} or more: leases have to be over by then",
        ),
        "lost_after_ms": (settings.lost_after_ms >= 0, "0 or more"),
        "handover_timeout_ms": (settings.handover_timeout_ms >= 1, "1 or more"),
        "format_version": (settings.format_version == FORMAT_VERSION, f"{FORMAT_VERSION}"),
    }
    for field, (holds, allowed) in rules.items():
        if not holds:
            value = getattr(settings, field)
            raise InvalidArgumentError(
                f"{field} = {value} is not allowed: it has to be {allowed}", field=field
            )


def decide_settings(state: ClusterState, settings: Settings) -> Decision:
    """Change the settings. Raises InvalidArgumentError for values that cannot work."""
    check_settings(settings)
    if settings == state.settings:
        return Decision((), "The settings are what they were.")
    # Below the old minimum nothing was committed, above the new one it may be from now on:
    # who is not in sync then no longer holds it all.
    changed = tuple(
        (ShardId(shard), replace(row, version=row.version + 1, eligible=()))
        for shard, row in enumerate(state.rows)
        if row.eligible and len(row.in_sync) >= settings.min_in_sync
    )
    record = Record("changed the settings", SettingsChanged(settings), changed)
    return Decision((record,), "Changed the settings.")
