"""Who belongs to the cluster: registration, fencing, leaving, giving up. Pure.

A node's life has a session, granted here and fenced here. An older session is fenced before a
newer one is granted: the node leaves every in-sync set in between, so that nothing said on
behalf of its earlier life can put it back (KIP-966; no ABA on a quick restart).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ssgovern.controller import rows
from ssgovern.controller.access import NOBODY_YET, AccessState
from ssgovern.controller.rules import Decision, Draft, Rules, add_promotions, counted, named
from ssgovern.controller.soft import SoftState
from ssgovern.controller.state import (
    ClusterState,
    Node,
    NodeMarked,
    NodeRegistered,
    NodeRemoved,
    NodesFenced,
    Record,
)
from ssgovern.errors import (
    FencedError,
    InvalidArgumentError,
    NotFoundError,
    Retry,
    UnsupportedVersionError,
)
from ssgovern.model import NodeId, ShardId


@dataclass(frozen=True, slots=True)
class Registration:
    """What a node says of itself when it asks for a session."""

    node: NodeId
    name: str
    address: str
    zone: str
    directory_id: bytes
    boot_id: bytes
    cluster_id: bytes = b""
    """The cluster it is configured to join; empty: whichever answers."""
    directory_cluster_id: bytes = b""
    """The cluster its data directory belongs to; empty: none yet."""
    formats: tuple[int, int] = (1, 1)
    """Oldest and newest format of cluster metadata that it understands."""
    damaged: tuple[ShardId, ...] = ()
    """Shards whose log it found damaged or lost: of those it is not eligible."""
    candidate: bool = False
    access: AccessState = NOBODY_YET
    """Who may do what there, if it founds the cluster; told to nobody else."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """A node stops in good order: all that it took is committed."""

    node: NodeId
    session: int


def decide_registration(
    state: ClusterState, soft: SoftState, rules: Rules, asked: Registration, now_ms: float
) -> Decision:
    """Grant a node a session, its old one fenced first. No records: it has this one already.

    Raises InvalidArgumentError or UnsupportedVersionError with the reason to refuse.
    """
    _check_cluster(state, asked)
    _check_identity(state, soft, asked, now_ms)
    known = state.nodes.get(asked.node)
    if known is not None and known.live and known.boot_id == asked.boot_id:
        return Decision((), f"Node {asked.node} has session {known.session} already.")

    draft = Draft(state)
    if known is not None and known.live:
        add_fencing(draft, rules, [asked.node], "started again")
        add_promotions(draft, soft, rules)
    session = known.session + 1 if known is not None else 1
    leaving = known is not None and known.leaving
    node = replace(node_of(asked, session), leaving=leaving)
    changed = [
        (ShardId(shard), rows.without_eligible(row, asked.node))
        for shard, row in enumerate(draft.state.rows)
        if shard in asked.damaged and asked.node in row.eligible
    ]
    said = f"granted session {session} to node {asked.node} ({asked.name}, {asked.address})"
    if changed:
        damaged = named((shard for shard, _ in changed), "shard")
        said += f", which has lost the last word on {damaged}"
    draft.add(Record(said, NodeRegistered(node), tuple(changed)))
    add_promotions(draft, soft, rules)
    return draft.decision()


def node_of(asked: Registration, session: int) -> Node:
    """Return the node as the state keeps it."""
    return Node(
        asked.node,
        asked.name,
        asked.address,
        asked.zone,
        asked.directory_id,
        asked.boot_id,
        session,
        candidate=asked.candidate,
    )


def _check_cluster(state: ClusterState, asked: Registration) -> None:
    ours = state.cluster_id.hex()
    if asked.cluster_id and asked.cluster_id != state.cluster_id:
        raise InvalidArgumentError(
            f"node {asked.node} is configured for cluster {asked.cluster_id.hex()}, "
            f"this is cluster {ours}: check its seed addresses and its cluster id",
            field="cluster_id",
        )
    if asked.directory_cluster_id and asked.directory_cluster_id != state.cluster_id:
        raise InvalidArgumentError(
            f"the data directory of node {asked.node} belongs to cluster "
            f"{asked.directory_cluster_id.hex()}, this is cluster {ours}: "
            "give it an empty data directory, or join the cluster it came from",
            field="data_directory",
        )
    oldest, newest = asked.formats
    if not oldest <= state.settings.format_version <= newest:
        older = newest < state.settings.format_version
        raise UnsupportedVersionError(
            f"node {asked.node} understands cluster format {oldest} to {newest}, the cluster "
            f"uses {state.settings.format_version}: the node is too {'old' if older else 'new'}",
            format=state.settings.format_version,
        )


def _check_identity(
    state: ClusterState, soft: SoftState, asked: Registration, now_ms: float
) -> None:
    if asked.node < 1:
        raise InvalidArgumentError("a node id is a number from 1", field="node_id")
    if asked.node in state.retired:
        raise InvalidArgumentError(
            f"node id {asked.node} left the cluster for good: choose an id that was never used",
            field="node_id",
            left=1,
        )
    known = state.nodes.get(asked.node)
    if known is not None and known.directory_id != asked.directory_id:
        where = f"alive at {known.address}" if known.live else f"away, last at {known.address}"
        raise InvalidArgumentError(
            f"node id {asked.node} belongs to another data directory ({known.name}, {where}): "
            "two nodes with one id? A node that lost its directory needs a new id, and the old "
            "one leaves the cluster",
            field="node_id",
        )
    if (
        known is not None
        and known.live
        and known.boot_id != asked.boot_id
        and known.address != asked.address
        and soft.silence_ms(asked.node, now_ms) < state.settings.fence_after_ms
    ):
        # Only one process can listen on an address, so the same address is a restart. Another
        # address with the other process still heard is a copied directory.
        error = InvalidArgumentError(
            f"node {asked.node} is alive at {known.address}, and {asked.address} says it is the "
            "same: a copied data directory? If it moved, this works once the old one is silent",
            field="node_id",
        )
        error.retry = Retry.SAME_NODE
        raise error
    for other in state.sorted_nodes():
        if other.id != asked.node and other.name == asked.name:
            raise InvalidArgumentError(
                f"the name {asked.name} is taken by node {other.id} at {other.address}",
                field="name",
            )
        if other.id != asked.node and other.live and other.address == asked.address:
            raise InvalidArgumentError(
                f"the address {asked.address} is taken by node {other.id} ({other.name})",
                field="address",
            )


def add_fencing(draft: Draft, rules: Rules, fenced: Sequence[NodeId], why: str) -> None:
    """End the sessions of nodes, all at once: what they left together, none left behind."""
    gone: Collection[NodeId] = frozenset(fenced)
    minimum = draft.state.settings.min_in_sync
    changed = [
        (
            ShardId(shard),
            rules.with_in_sync(row, [node for node in row.in_sync if node not in gone], minimum),
        )
        for shard, row in enumerate(draft.state.rows)
        if any(node in gone for node in row.in_sync)
    ]
    lost = sum(draft.state.rows[shard].primary in gone for shard, _ in changed)
    said = f"fenced {named(fenced, 'node')} ({why}), primary of {counted(lost, 'shard')}"
    draft.add(Record(said, NodesFenced(tuple(fenced)), tuple(changed)))


def decide_stopping(
    state: ClusterState, soft: SoftState, rules: Rules, asked: Stopping
) -> Decision:
    """End the session of a node that stops, and let others follow it at once.

    It takes no writes any more, so nobody has to wait for its lease. Raises FencedError if the
    session has ended already.
    """
    if not rules.session_is_current(state.nodes.get(asked.node), asked.session):
        raise FencedError(
            f"session {asked.session} of node {asked.node} has ended", node=asked.node
        )
    draft = Draft(state)
    add_fencing(draft, rules, [asked.node], "it stops")
    add_promotions(draft, soft, rules)
    return draft.decision()


def add_silent_fenced(draft: Draft, soft: SoftState, rules: Rules, now_ms: float) -> None:
    """Fence the nodes that have been silent for too long, sooner if their process is gone."""
    settings = draft.state.settings
    silent: list[NodeId] = []
    gone: list[NodeId] = []
    for node in draft.state.sorted_nodes():
        if node.live:
            silence_ms = soft.silence_ms(node.id, now_ms)
            if rules.must_fence(silence_ms, settings):
                silent.append(node.id)
            elif soft.is_gone(node.id) and rules.must_fence_gone(silence_ms):
                gone.append(node.id)
    if silent or gone:
        why = [f"silent for {settings.fence_after_ms / 1000:g} s"] if silent else []
        why += ["its process is gone"] if gone else []
        add_fencing(draft, rules, sorted([*silent, *gone]), " or ".join(why))


def add_gone_left(draft: Draft, soft: SoftState, rules: Rules) -> None:
    """Take nodes whose process is gone out of the in-sync sets of shards that others lead.

    Nothing commits without them until then, and what they held as replicas gives them no right
    that has to run out first. What they lead waits for the end of their lease.
    """
    minimum = draft.state.settings.min_in_sync
    gone = {
        node.id: None for node in draft.state.sorted_nodes() if node.live and soft.is_gone(node.id)
    }
    changed = []
    for shard, row in enumerate(draft.state.rows if gone else ()):
        remaining = [node for node in row.in_sync if node not in gone]
        if row.primary in remaining and minimum <= len(remaining) < len(row.in_sync):
            changed.append((ShardId(shard), rules.with_in_sync(row, remaining, minimum)))
    if changed:
        said = f"took {named(gone, 'node')} (its process is gone) out of the in-sync sets of "
        draft.change_rows(f"{said}{counted(len(changed), 'shard')} that others lead", changed)


def add_given_up(draft: Draft, soft: SoftState, now_ms: float) -> None:
    """Give up nodes that are away for too long, so that their shards are copied elsewhere."""
    settings = draft.state.settings
    given_up = [
        node
        for node in draft.state.sorted_nodes()
        if not node.live
        and not node.lost
        and soft.away_ms(node.id, now_ms) >= settings.lost_after_ms
    ]
    why = f"(away for {settings.lost_after_ms / 1000:g} s)"
    clause = f"gave up {named((node.id for node in given_up), 'node')} {why}" if given_up else ""
    for node in given_up:
        marked = NodeMarked(node.id, node.leaving, lost=True)
        draft.add(Record(f"gave up node {node.id} {why}", marked), clause)
        clause = ""


def add_removed(draft: Draft) -> None:
    """Remove nodes that were to leave and hold nothing any more."""
    holding = {node for row in draft.state.rows for node in row.holders}
    for node in draft.state.sorted_nodes():
        # A candidate votes until the others have agreed without it.
        if node.leaving and node.id not in holding and not node.candidate:
            said = f"node {node.id} ({node.name}) has left: it holds nothing any more"
            draft.add(Record(said, NodeRemoved(node.id)))


def decide_leave(state: ClusterState, node_id: NodeId) -> Decision:
    """Let a node leave: its shards are moved away, then it is removed for good.

    A candidate votes until then. The sentence says so if an even number is left, or fewer nodes
    than copies are wanted.
    Raises InvalidArgumentError if too few would remain, NotFoundError if there is no such node.
    """
    node = _known(state, node_id)
    if node.leaving:
        return Decision((), f"Node {node_id} is leaving already.")
    remaining = sum(other.stays for other in state.nodes.values() if other.id != node_id)
    if remaining < max(1, state.settings.min_in_sync):
        raise InvalidArgumentError(
            f"without node {node_id} there would be {counted(remaining, 'node')}, and "
            f"min_in_sync is {state.settings.min_in_sync}: add a node first, or lower min_in_sync",
            field="node_id",
        )
    if node.candidate and not any(
        other.candidate for other in state.nodes.values() if other.id != node_id
    ):
        raise InvalidArgumentError(
            f"node {node_id} is the only candidate: without it nobody could decide anything; "
            "add another candidate first",
            field="node_id",
        )
    draft = Draft(state)
    said = f"node {node_id} ({node.name}) was asked to leave"
    draft.add(
        Record(said, NodeMarked(node_id, leaving=True, lost=node.lost)),
        said + _votes_left(state, node) + _copies_left(state, remaining),
    )
    return draft.decision()


def _votes_left(state: ClusterState, going: Node) -> str:
    """Return what to do if an even number votes without a node; empty if nothing is."""
    left = sum(node.candidate and not node.leaving for node in state.nodes.values()) - 1
    if not going.candidate or left % 2:
        return ""
    able = [node.id for node in state.sorted_nodes() if node.takes_shards and not node.candidate]
    add = f"`ss-govern cluster candidates add {able[0] if able else 'NODE'}`"
    first = "" if able else ", once another node has joined"
    then = f"{left} candidates are left, which survive no more than {left - 1} would"
    return f"; {then if left else 'no candidate is left, so it stays'}: {add}{first}"


def _copies_left(state: ClusterState, remaining: int) -> str:
    copies = state.settings.copies
    return f"; {counted(remaining, 'node')} left for {copies} copies" if remaining < copies else ""


def decide_candidates(state: ClusterState, voters: Collection[NodeId]) -> Decision:
    """Write down who is a candidate, so that all nodes know. No records: they do already."""
    draft = Draft(state)
    for node in state.sorted_nodes():
        if node.candidate != (node.id in voters):
            said = f"node {node.id} is {'no longer' if node.candidate else 'now'} a candidate"
            changed = replace(node, candidate=not node.candidate)
            draft.add(Record(said, NodeRegistered(changed)))
    return draft.decision()


def decide_stay(state: ClusterState, node_id: NodeId) -> Decision:
    """Take back that a node shall leave. Raises NotFoundError if it has left."""
    node = _known(state, node_id)
    if not node.leaving:
        return Decision((), f"Node {node_id} is not leaving.")
    draft = Draft(state)
    said = f"node {node_id} ({node.name}) stays after all"
    draft.add(Record(said, NodeMarked(node_id, leaving=False, lost=node.lost)))
    return draft.decision()


def _known(state: ClusterState, node_id: NodeId) -> Node:
    node = state.nodes.get(node_id)
    if node is None:
        raise NotFoundError(f"there is no node {node_id} in this cluster", node=node_id)
    return node
