"""Who stops while it decides for the cluster lets another candidate decide first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hosting import member
from nodes import run_world

from ssgovern.controller.codec import encode_entry
from ssgovern.controller.state import Founded, NodeRegistered, NodesFenced, Record, Settings
from ssgovern.errors import NotControllerError, OverloadedError, SsGovernError
from ssgovern.model import NodeId
from ssgovern.node.controller_driver import ControllerDriver
from ssgovern.node.metadata import Metadata
from ssgovern.sim.runtime import SimRuntime

ME = NodeId(1)


class FakeLog:
    """Leads until somebody takes over."""

    term = 1
    confirmed_at = 0.0
    learners: tuple[NodeId, ...] = ()

    def __init__(self, *voters: int) -> None:
        self.candidates = tuple(NodeId(voter) for voter in voters)
        self.leader_id: NodeId | None = ME
        self.takes: dict[int, bool | SsGovernError] = {}
        self.asked: list[int] = []

    @property
    def is_leader(self) -> bool:
        return self.leader_id == ME

    async def append(self, body: bytes, *, after: int) -> int:
        raise NotControllerError("nothing is decided here")

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int:
        raise NotControllerError("nothing is decided here")

    async def transfer(self, target: NodeId) -> bool:
        self.asked.append(target)
        await asyncio.sleep(0.01)
        took = self.takes.get(target, True)
        if isinstance(took, SsGovernError):
            raise took
        if took:
            self.leader_id = target
        return took


class FakeLinks:
    def __init__(self, *refused: int) -> None:
        self._refused = refused

    def send(self, node: NodeId, type_: int, body: bytes) -> bool:
        return True

    def is_refused(self, node: NodeId) -> bool:
        return node in self._refused


def handed_over(
    log: FakeLog, *, refused: tuple[int, ...] = (), fenced: tuple[int, ...] = ()
) -> None:
    async def main(runtime: SimRuntime) -> None:
        metadata = Metadata(4)
        changes = [Founded(b"a cluster's id..", Settings())]
        changes += [NodeRegistered(member(number)) for number in (1, 2, 3)]
        changes += [NodesFenced((NodeId(number),)) for number in fenced]
        for index, change in enumerate(changes, 1):
            metadata.apply(index, encode_entry([Record("why", change)]))
        driver = ControllerDriver(
            ME, log, metadata, FakeLinks(*refused), runtime, settings=Settings(), claims=dict
        )
        await driver.hand_over()

    run_world(0, main)


def test_the_next_candidate_takes_over() -> None:
    """The first that is here is asked, and nobody after it took over."""
    log = FakeLog(1, 2, 3)
    handed_over(log)
    assert (log.asked, log.leader_id) == ([2], 2)


def test_who_is_not_here_is_not_asked() -> None:
    """One whose process is gone and one that is fenced would not take over in time."""
    log = FakeLog(1, 2, 3)
    handed_over(log, refused=(2,))
    assert log.asked == [3]
    log = FakeLog(1, 2, 3)
    handed_over(log, fenced=(2,))
    assert log.asked == [3]


def test_who_does_not_take_over_is_followed_by_another() -> None:
    """And if nobody does, this node stays the controller, which the caller cannot change."""
    log = FakeLog(1, 2, 3)
    log.takes = {2: OverloadedError("another transfer"), 3: False}
    handed_over(log)
    assert (log.asked, log.leader_id) == ([2, 3], ME)


def test_who_does_not_decide_has_nothing_to_hand_over() -> None:
    """A candidate among others just stops."""
    log = FakeLog(1, 2, 3)
    log.leader_id = NodeId(3)
    handed_over(log)
    assert log.asked == []
