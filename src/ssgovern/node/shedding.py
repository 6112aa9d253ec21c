"""Sending clients elsewhere while this node knows less than others do.

Knows when, and nothing of how clients are told. Invariant: who finds no other node comes back
and is told what this one has, unless the cluster does not take this node at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from ssgovern import limits
from ssgovern.errors import SsGovernError, UnavailableError

log = logging.getLogger("ssgovern.node")

LOOK_S = 0.5


class Membership(Protocol):
    """What this node is in its cluster."""

    lease_until_ms: float
    refusal: str


async def send_elsewhere(
    member: Membership, shed: Callable[[SsGovernError], int], *, has_joined: Callable[[], bool]
) -> None:
    """Send subscribers elsewhere when this node is cut off, or is not taken; for ever.

    What it tells grows old in the first case, and is nothing in the second. `shed` closes their
    connections and returns how many those were.
    """
    loop = asyncio.get_running_loop()
    is_shed = False
    while True:
        await asyncio.sleep(LOOK_S)
        if member.refusal:
            shed(UnavailableError(f"the cluster does not take this node: {member.refusal}"))
            continue
        silence_ms = loop.time() * 1000.0 - member.lease_until_ms
        if silence_ms < limits.NODE_CUT_OFF_AFTER_MS:
            is_shed = False
        elif has_joined() and member.lease_until_ms and not is_shed:
            is_shed = True
            count = shed(
                UnavailableError(
                    "this node is cut off from its cluster and hears of no changes: ask another"
                )
            )
            log.warning("cut off from the controller: %d subscribers sent elsewhere", count)
