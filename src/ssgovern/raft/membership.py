"""Who votes, who only listens, and what a majority is while that changes.

Pure arithmetic on sets of node ids; knows no log and no messages. Voters change by joint
consensus (Raft, section 6): in between, a majority of the old *and* one of the new voters is
needed for everything, so that at no moment two disjoint groups can decide.

Invariants: all tuples are sorted and without repetition; a voter is not a learner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ssgovern.model import NodeId


class Config(NamedTuple):
    """The members of the group. With `outgoing` it is joint: both majorities are needed.

    No voters at all is what a node has that is about to join: it decides nothing.
    """

    voters: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    """The voters before this change, until the change is committed."""
    learners: tuple[NodeId, ...] = ()
    """Get the log and count for nothing. One that is also outgoing votes until it is out."""

    def __repr__(self) -> str:
        def text(ids: tuple[NodeId, ...]) -> str:
            return ",".join(map(str, ids))

        outgoing = f" outgoing={text(self.outgoing)}" if self.outgoing else ""
        learners = f" learners={text(self.learners)}" if self.learners else ""
        return f"<Config voters={text(self.voters)}{outgoing}{learners}>"

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def is_voter(self, node: NodeId) -> bool:
        return node in self.voters or node in self.outgoing

    def all_voters(self) -> list[NodeId]:
        return sorted({*self.voters, *self.outgoing})

    def members(self) -> list[NodeId]:
        return sorted({*self.voters, *self.outgoing, *self.learners})

    def agreed(self, value_of: Callable[[NodeId], int]) -> int:
        """Return the highest value that a majority (of each half) has reached."""
        assert self.voters, "a group without voters agrees on nothing"
        value = _majority_value(self.voters, value_of)
        if self.outgoing:
            value = min(value, _majority_value(self.outgoing, value_of))
        return value

    def has_majority(self, nodes: Iterable[NodeId]) -> bool:
        """Say whether `nodes` hold a majority (of each half)."""
        found = frozenset(nodes)
        return bool(self.voters) and self.agreed(lambda node: node in found) == 1

    def towards(self, voters: Iterable[NodeId], learners: Iterable[NodeId]) -> Config:
        """Return the next step from this config to the wanted one; joint if voters change."""
        assert not self.outgoing, "one change at a time"
        wanted = tuple(sorted(set(voters)))
        outgoing = self.voters if wanted != self.voters else ()
        return Config(wanted, outgoing, tuple(sorted(set(learners))))

    def settled(self) -> Config:
        """Return what a joint config becomes once it is committed."""
        return Config(self.voters, (), self.learners)

    def validate(self) -> None:
        for ids in self:
            assert list(ids) == sorted(set(ids)), f"not sorted, or repeated: {self!r}"
        assert not set(self.voters) & set(self.learners), f"voter and learner at once: {self!r}"
        assert self.voters or not self.outgoing, f"outgoing, but nobody incoming: {self!r}"


def _majority_value(nodes: tuple[NodeId, ...], value_of: Callable[[NodeId], int]) -> int:
    values = sorted(map(value_of, nodes))
    return values[(len(values) - 1) // 2]
