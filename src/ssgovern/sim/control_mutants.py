"""Planted bugs of the drivers of the control path: each is one slip that looks harmless.

The walk finds the first soon; the others need what chance rarely brings together, and are found
by scenarios (`tests/sim/test_control_path.py`).
"""

from __future__ import annotations

from typing import Final

from ssgovern import limits
from ssgovern.model import NodeId
from ssgovern.node.controller_driver import ControllerDriver
from ssgovern.node.member_driver import MemberDriver
from ssgovern.sim.control_nodes import ControlNode


class _GrantsUnconfirmed(ControllerDriver):
    def _may_grant(self, node: NodeId, now_ms: float) -> bool:
        return node not in self._ending


class _GrantsWhileFencing(ControllerDriver):
    def _may_grant(self, node: NodeId, now_ms: float) -> bool:
        return now_ms - self._log.confirmed_at * 1000.0 <= limits.CONTROLLER_CONFIRMED_MS


class _StallIsSilence(ControllerDriver):
    def _note_running(self) -> float:
        return self._now_ms()


class _GapIgnored(MemberDriver):
    def _note_index(self, index: int, *, patience: bool) -> None:
        pass


class GrantsUnconfirmed(ControlNode):
    controller_type = _GrantsUnconfirmed


class GrantsWhileFencing(ControlNode):
    controller_type = _GrantsWhileFencing


class GapIgnored(ControlNode):
    member_type = _GapIgnored


class StallIsSilence(ControlNode):
    controller_type = _StallIsSilence


MUTANTS: Final[dict[str, type[ControlNode]]] = {
    "grants-unconfirmed": GrantsUnconfirmed,
    "grants-while-fencing": GrantsWhileFencing,
    "gap-ignored": GapIgnored,
    "stall-is-silence": StallIsSilence,
}
