"""Changing who votes, against a log whose learner catches up when the test says so."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ssgovern.controller.state import ClusterState, Node
from ssgovern.errors import InvalidArgumentError, OverloadedError, UnavailableError
from ssgovern.model import NodeId
from ssgovern.node.candidates import change_candidates
from ssgovern.node.commands import AddCandidate, RemoveCandidate
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

ME, NEW = NodeId(1), NodeId(4)


class FakeLog:
    """Takes a new voter only as a learner, and that one only after some refusals."""

    def __init__(self, refusals: int) -> None:
        self.candidates: tuple[NodeId, ...] = (ME, NodeId(2), NodeId(3))
        self.learners: tuple[NodeId, ...] = ()
        self.refusals = refusals

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int:
        voters = tuple(voters)
        if NEW in voters and NEW not in self.candidates:
            assert NEW in self.learners, "it has to learn first"
            if self.refusals:
                self.refusals -= 1
                raise OverloadedError("not caught up")
        self.candidates, self.learners = voters, tuple(learners)
        return 1


def change(log: FakeLog, wanted: AddCandidate | RemoveCandidate) -> tuple[str, list[list[int]]]:
    """Return the sentence, and what was told meanwhile. Raises what the change raised."""
    state = ClusterState(4)
    state.nodes[NEW] = Node(NEW, "n4", "d:1", "", b"d", b"boot", 1)
    told: list[list[int]] = []
    outcome: list[str | Exception] = []

    async def tell(members: tuple[NodeId, ...]) -> None:
        told.append(list(members))

    async def main(_: SimRuntime) -> None:
        try:
            outcome.append(await change_candidates(log, state, ME, wanted, tell))
        except (InvalidArgumentError, UnavailableError) as error:
            outcome.append(error)

    with World(1) as world:
        world.process("controller", main).start()
        world.run(60.0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0], told


def test_who_asks_waits_until_the_node_has_caught_up() -> None:
    """It is told to take part, listens, and votes as soon as it can."""
    log = FakeLog(refusals=5)
    sentence, told = change(log, AddCandidate(NEW))
    assert sentence == "Node 4 is a candidate now."
    assert told == [[1, 2, 3, 4]]
    assert log.candidates == (1, 2, 3, 4)
    assert log.learners == ()


def test_who_does_not_catch_up_in_time_is_no_candidate() -> None:
    """The members are what they were, and the error says so."""
    log = FakeLog(refusals=1_000_000)
    with pytest.raises(UnavailableError, match="did not catch up"):
        change(log, AddCandidate(NEW))
    assert log.candidates == (1, 2, 3)
    assert log.learners == ()


def test_a_command_that_was_cut_short_is_repeated() -> None:
    """The node is a learner already: that is not an error."""
    log = FakeLog(refusals=0)
    log.learners = (NEW,)
    change(log, AddCandidate(NEW))
    assert log.candidates == (1, 2, 3, 4)


def test_the_controller_does_not_vote_itself_out() -> None:
    """It says what to do first."""
    with pytest.raises(InvalidArgumentError, match="transfer --controller"):
        change(FakeLog(0), RemoveCandidate(ME))


def test_one_that_does_not_vote_is_not_removed_twice() -> None:
    """A typing error is told, not passed over."""
    with pytest.raises(InvalidArgumentError, match="no candidate"):
        change(FakeLog(0), RemoveCandidate(NEW))
