"""How the candidates change: one at a time, and nobody votes who has not caught up.

A node becomes a candidate in steps: it is written down as one, so that it begins to take part in
the consensus; it follows the log without a vote until it has caught up; then it votes. Each step
can be taken again, so an operator repeats the command if the controller was lost in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from ssgovern import limits
from ssgovern.controller.state import ClusterState
from ssgovern.errors import InvalidArgumentError, NotFoundError, OverloadedError, UnavailableError
from ssgovern.model import NodeId
from ssgovern.node.commands import AddCandidate, RemoveCandidate

_TRY_AGAIN_S = 0.2


class Members(Protocol):
    """What of the agreed log is used here."""

    @property
    def candidates(self) -> tuple[NodeId, ...]: ...

    @property
    def learners(self) -> tuple[NodeId, ...]: ...

    async def change_members(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()
    ) -> int: ...


async def change_candidates(
    members: Members,
    state: ClusterState,
    me: NodeId,
    wanted: AddCandidate | RemoveCandidate,
    tell: Callable[[tuple[NodeId, ...]], Awaitable[None]],
) -> str:
    """Add or remove one candidate; return a sentence about it.

    `tell` writes down who the candidates are. Raises InvalidArgumentError or NotFoundError if it
    cannot be, UnavailableError if it did not come about in time.
    """
    if isinstance(wanted, AddCandidate):
        return await _add(members, state, wanted.node, tell)
    return await _remove(members, me, wanted.node)


async def _add(
    members: Members,
    state: ClusterState,
    node: NodeId,
    tell: Callable[[tuple[NodeId, ...]], Awaitable[None]],
) -> str:
    known = state.nodes.get(node)
    if known is None:
        raise NotFoundError(f"there is no node {node} in this cluster", node=node)
    if node in members.candidates:
        return f"Node {node} is a candidate already."
    if not known.takes_shards:
        raise InvalidArgumentError(
            f"node {node} is {'leaving' if known.leaving else 'away'}: it cannot become a "
            "candidate",
            field="node_id",
        )
    await tell((*members.candidates, node))
    try:
        async with asyncio.timeout(limits.CANDIDATE_CATCH_UP_MS / 1000.0):
            await _agreed(members, members.candidates, (node,))
            await _agreed(members, (*members.candidates, node), ())
    except TimeoutError:
        await _agreed(members, [voter for voter in members.candidates if voter != node], ())
        raise UnavailableError(
            f"node {node} did not catch up with the metadata log in time: it is no candidate"
        ) from None
    return f"Node {node} is a candidate now."


async def _remove(members: Members, me: NodeId, node: NodeId) -> str:
    if node not in members.candidates:
        raise InvalidArgumentError(f"node {node} is no candidate", field="node_id")
    if node == me:
        raise InvalidArgumentError(
            f"node {node} is the controller: hand that over first "
            "(`ss-govern cluster transfer --controller NODE`)",
            field="node_id",
        )
    await _agreed(members, [voter for voter in members.candidates if voter != node], ())
    return f"Node {node} is no longer a candidate."


async def _agreed(members: Members, voters: Iterable[NodeId], learners: Iterable[NodeId]) -> None:
    """Change the members as soon as that is possible: the last change, or catching up, first."""
    voters, learners = tuple(sorted(voters)), tuple(sorted(learners))
    while (members.candidates, members.learners) != (voters, learners):
        try:
            await members.change_members(voters, learners)
        except OverloadedError:
            await asyncio.sleep(_TRY_AGAIN_S)
        else:
            return


def demote_leaving(state: ClusterState, candidates: tuple[NodeId, ...]) -> NodeId | None:
    """Return a candidate that leaves and holds nothing any more, if others remain."""
    if len(candidates) < 2:
        return None
    holding = frozenset(node for row in state.rows for node in row.holders)
    for node in candidates:
        known = state.nodes.get(node)
        if known is not None and known.leaving and node not in holding:
            return node
    return None
