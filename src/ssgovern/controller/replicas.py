"""What primaries ask of the controller: who is in sync, and to be followed. Pure.

Both are compare-and-set on the row's (epoch, version): what was asked on behalf of an older row
is refused, and the asker reads on. An in-sync set names each node with its session, so that a
request made before a node restarted cannot put it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.rules import Decision, Draft, Rules, named
from ssgovern.controller.state import ClusterState
from ssgovern.errors import FencedError, InvalidArgumentError
from ssgovern.model import NodeId, ShardId


@dataclass(frozen=True, slots=True)
class InSyncRequest:
    """The primary of a shard asks for another in-sync set."""

    shard: ShardId
    node: NodeId
    session: int
    epoch: int
    version: int
    in_sync: tuple[tuple[NodeId, int], ...]
    """Node and session of each."""


@dataclass(frozen=True, slots=True)
class Resigned:
    """The primary of a shard has stopped for its successor: all it wrote is committed."""

    shard: ShardId
    node: NodeId
    session: int
    epoch: int
    version: int


def _row_of(state: ClusterState, rules: Rules, asked: InSyncRequest | Resigned) -> ShardRow:
    if not 0 <= asked.shard < len(state.rows):
        raise InvalidArgumentError(f"there is no shard {asked.shard}", field="shard")
    if not rules.session_is_current(state.nodes.get(asked.node), asked.session):
        raise FencedError(
            f"session {asked.session} of node {asked.node} is fenced: register again",
            node=asked.node,
        )
    row = state.rows[asked.shard]
    if (row.primary, row.epoch, row.version) != (asked.node, asked.epoch, asked.version):
        raise FencedError(
            f"shard {asked.shard} is at epoch {row.epoch}, version {row.version} with primary "
            f"{row.primary}; node {asked.node} asked at epoch {asked.epoch}, version "
            f"{asked.version}: read on and ask again",
            shard=asked.shard,
        )
    return row


def decide_in_sync(state: ClusterState, rules: Rules, asked: InSyncRequest) -> Decision:
    """Change who is in sync with a primary.

    Raises FencedError if the asker or one whom it names is of an older life or the row changed
    meanwhile, InvalidArgumentError if the set can never be.
    """
    row = _row_of(state, rules, asked)
    nodes = tuple(sorted(node for node, _ in asked.in_sync))
    if asked.node not in nodes or len(set(nodes)) != len(nodes):
        raise InvalidArgumentError(
            f"an in-sync set has each node once and its primary: {nodes}", field="in_sync"
        )
    for node, session in asked.in_sync:
        if node not in row.holders:
            raise InvalidArgumentError(
                f"node {node} does not hold shard {asked.shard}", field="in_sync"
            )
        if not rules.session_is_current(state.nodes.get(node), session):
            raise FencedError(
                f"node {node} restarted since session {session}: it has to catch up first",
                node=node,
            )
    if nodes == row.in_sync:
        return Decision((), f"Shard {asked.shard} has this in-sync set already.")
    draft = Draft(state)
    came = sorted(set(nodes) - set(row.in_sync))
    went = sorted(set(row.in_sync) - set(nodes))
    said = [f"{named(came, 'node')} caught up"] if came else []
    said += [f"{named(went, 'node')} fell behind"] if went else []
    draft.change_rows(
        f"{' and '.join(said)} in shard {asked.shard}, says its primary {asked.node}",
        [(asked.shard, rules.with_in_sync(row, nodes, state.settings.min_in_sync))],
    )
    return draft.decision()


def decide_resigned(state: ClusterState, rules: Rules, asked: Resigned) -> Decision:
    """Let the successor follow the primary that has stopped.

    Raises FencedError if the hand-over was taken back or the row changed meanwhile.
    """
    row = _row_of(state, rules, asked)
    if row.successor == NOBODY:
        raise FencedError(
            f"no hand-over of shard {asked.shard} is under way: its primary goes on",
            shard=asked.shard,
        )
    draft = Draft(state)
    draft.change_rows(
        f"handed shard {asked.shard} over from node {asked.node} to node {row.successor}",
        [(asked.shard, rules.promoted(row, row.successor, state.settings.min_in_sync))],
    )
    return draft.decision()
