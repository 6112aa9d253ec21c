"""What is asked of the controller about one shard: who is in sync, who is to follow. Pure.

What primaries ask is compare-and-set on the row's (epoch, version): what was asked on behalf of
an older row is refused, and the asker reads on. An in-sync set names each node with its session,
so that a request made before a node restarted cannot put it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssgovern.controller import rows
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.rules import Decision, Draft, Rules, named
from ssgovern.controller.soft import SoftState
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
    row = _existing(state, asked.shard)
    if not rules.session_is_current(state.nodes.get(asked.node), asked.session):
        raise FencedError(
            f"session {asked.session} of node {asked.node} is fenced: register again",
            node=asked.node,
        )
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
    draft = Draft(state)
    if nodes == row.in_sync:
        # Asked for after a refusal: with the new version nothing that the primary asked before
        # can come into force any more, and until it has that it commits over those sets too.
        kept = f"kept the in-sync set of shard {asked.shard}, says its primary {asked.node}"
        draft.change_rows(kept, [(asked.shard, replace(row, version=row.version + 1))])
        return draft.decision()
    came = sorted(set(nodes) - set(row.in_sync))
    went = sorted(set(row.in_sync) - set(nodes))
    said = [f"{named(came, 'node')} caught up"] if came else []
    said += [f"{named(went, 'node')} fell behind"] if went else []
    draft.change_rows(
        f"{' and '.join(said)} in shard {asked.shard}, says its primary {asked.node}",
        [(asked.shard, rules.with_in_sync(row, nodes, state.settings.min_in_sync))],
    )
    return draft.decision()


def decide_resigned(
    state: ClusterState, soft: SoftState, rules: Rules, asked: Resigned
) -> Decision:
    """Let the successor follow the primary that has stopped.

    One that stopped unasked (its disk refused what others may have) is followed by another in
    sync, or by itself if there is none: an epoch is led once. That it stopped for a hand-over
    which was taken back has an old version.

    Raises FencedError if the row changed meanwhile.
    """
    row = _row_of(state, rules, asked)
    follows = row.successor
    if follows == NOBODY:
        others = [node for node in rules.candidates(state, row) if node != asked.node]
        follows = max(
            others or [asked.node], key=lambda node: (soft.position(node, asked.shard), node)
        )
    draft = Draft(state)
    draft.change_rows(
        f"handed shard {asked.shard} over from node {asked.node} to node {follows}",
        [(asked.shard, rules.promoted(row, follows, state.settings.min_in_sync))],
    )
    return draft.decision()


# --- what operators ask -------------------------------------------------------------------


def decide_transfer(state: ClusterState, shard: ShardId, to: NodeId) -> Decision:
    """Hand a shard over to a node of the operator's choice; balance may take it back.

    Raises InvalidArgumentError if that node cannot be its primary now.
    """
    row = _existing(state, shard)
    if row.primary == to:
        return Decision((), f"Node {to} is primary of shard {shard} already.")
    if row.successor == to:
        return Decision((), f"Shard {shard} is being handed to node {to} already.")
    if row.primary == NOBODY or to not in row.in_sync or row.in_flight:
        raise InvalidArgumentError(
            f"shard {shard} cannot be handed to node {to} now: in sync are {row.in_sync}"
            + (", and it is being moved" if row.in_flight else ""),
            field="node_id",
        )
    draft = Draft(state)
    said = f"began to hand shard {shard} to node {to}, as asked"
    draft.change_rows(said, [(shard, rows.handover_begun(row, to))])
    return draft.decision()


def decide_unclean(state: ClusterState, rules: Rules, shard: ShardId, node: NodeId) -> Decision:
    """Promote who is there, because an operator accepts that the rest is gone. Last resort.

    What was acknowledged and is not in this node's log is lost, also when those come back that
    have it. Raises InvalidArgumentError if nothing would have to be lost, or the node has no
    copy or is not here.
    """
    row = _existing(state, shard)
    if row.primary != NOBODY or rules.candidates(state, row):
        raise InvalidArgumentError(
            f"shard {shard} has a primary, or is about to: nothing of it has to be given up",
            field="shard",
        )
    if node not in row.holders or not state.is_live(node):
        here = [holder for holder in row.holders if state.is_live(holder)]
        raise InvalidArgumentError(
            f"node {node} cannot be primary of shard {shard}: nodes that have a copy and are "
            f"here are {here}",
            field="node_id",
        )
    waited_for = named(row.eligible, "node") if row.eligible else "nobody"
    draft = Draft(state)
    draft.change_rows(
        f"promoted node {node} to primary of shard {shard} as ordered, WITHOUT what "
        f"{waited_for} had in addition",
        [(shard, rows.promoted_unclean(row, node))],
    )
    return draft.decision()


def _existing(state: ClusterState, shard: ShardId) -> ShardRow:
    if not 0 <= shard < len(state.rows):
        raise InvalidArgumentError(f"there is no shard {shard}", field="shard")
    return state.rows[shard]
