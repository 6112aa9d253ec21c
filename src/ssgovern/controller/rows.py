"""One row of the shard map, and every way in which it may change.

A row is a value; each function returns the row as it is afterwards and knows of no other row,
no node's liveness and no clock.

Invariants (`row_fault`): the primary is in sync; who is in sync or eligible holds the shard,
nobody is both; `eligible` is empty unless fewer than `min_in_sync` are in sync (only then has
nothing been committed without them); the version rises with every change, the epoch with every
new primary, and neither ever falls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from ssgovern.model import NodeId

NOBODY: Final = NodeId(0)


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Who holds a shard. Sets of nodes are tuples in rising order."""

    epoch: int = 0
    version: int = 0
    primary: NodeId = NOBODY
    holders: tuple[NodeId, ...] = ()
    in_sync: tuple[NodeId, ...] = ()
    eligible: tuple[NodeId, ...] = ()
    incoming: NodeId = NOBODY
    """Being brought up to date."""
    outgoing: NodeId = NOBODY
    """Dropped when `incoming` is in sync."""
    successor: NodeId = NOBODY
    """Follows the primary as soon as that says that it has stopped."""

    @property
    def in_flight(self) -> bool:
        """A move or a hand-over is under way."""
        return self.incoming != NOBODY or self.successor != NOBODY

    @property
    def planned(self) -> tuple[NodeId, ...]:
        """Who holds the shard when the move under way is done."""
        if self.outgoing == NOBODY:
            return self.holders
        return tuple(node for node in self.holders if node != self.outgoing)


def _sorted(nodes: Iterable[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(nodes))


def _without(nodes: tuple[NodeId, ...], gone: Collection[NodeId]) -> tuple[NodeId, ...]:
    return tuple(node for node in nodes if node not in gone)


def placed(row: ShardRow, holders: Iterable[NodeId], primary: NodeId) -> ShardRow:
    """Place a shard that never had an entry: all who hold it know all that there is."""
    assert row.epoch == 0, "only a shard that never had a primary is empty for sure"
    nodes = _sorted(holders)
    return ShardRow(1, row.version + 1, primary, nodes, nodes)


def promoted(row: ShardRow, node: NodeId, min_in_sync: int) -> ShardRow:
    """Make a node primary, at an epoch that was never granted."""
    in_sync = row.in_sync if node in row.in_sync else (node,)
    eligible = _without(row.eligible, in_sync) if len(in_sync) < min_in_sync else ()
    return replace(
        row,
        epoch=row.epoch + 1,
        version=row.version + 1,
        primary=node,
        in_sync=in_sync,
        eligible=eligible,
        successor=NOBODY,
    )


def promoted_unclean(row: ShardRow, node: NodeId) -> ShardRow:
    """Make a holder primary that may lack what was committed: others may no longer be it."""
    return replace(
        row,
        epoch=row.epoch + 1,
        version=row.version + 1,
        primary=node,
        in_sync=(node,),
        eligible=(),
        successor=NOBODY,
    )


def with_in_sync(row: ShardRow, in_sync: Iterable[NodeId], min_in_sync: int) -> ShardRow:
    """Change who is in sync. Who leaves stays eligible if nothing can be committed without it.

    Everything committed so far was acknowledged by all who leave; below the minimum nothing more
    is committed, so they go on to hold it all. A primary that is not in sync is none.
    """
    now = _sorted(in_sync)
    eligible: tuple[NodeId, ...] = ()
    if len(now) < min_in_sync:
        # From `row`, as it was: who left while writes still went on is behind, and stays out.
        eligible = _sorted(node for node in (*row.eligible, *row.in_sync) if node not in now)
    return replace(
        row,
        version=row.version + 1,
        primary=row.primary if row.primary in now else NOBODY,
        in_sync=now,
        eligible=eligible,
        successor=row.successor if row.successor in now and row.primary in now else NOBODY,
    )


def without_eligible(row: ShardRow, node: NodeId) -> ShardRow:
    """Its log of this shard proved damaged: it may no longer be promoted."""
    return replace(row, version=row.version + 1, eligible=_without(row.eligible, (node,)))


def move_begun(row: ShardRow, incoming: NodeId, outgoing: NodeId) -> ShardRow:
    """Add a node, which will take the place of `outgoing` (or of nobody)."""
    return replace(
        row,
        version=row.version + 1,
        holders=_sorted((*row.holders, incoming)),
        incoming=incoming,
        outgoing=outgoing,
    )


def dropped(row: ShardRow, node: NodeId) -> ShardRow:
    """Take a node out of a row for good; this ends the move under way, if there is one."""
    assert node != row.primary, "a primary hands over before it is dropped"
    return replace(
        row,
        version=row.version + 1,
        holders=_without(row.holders, (node,)),
        in_sync=_without(row.in_sync, (node,)),
        eligible=_without(row.eligible, (node,)),
        incoming=NOBODY,
        outgoing=NOBODY,
        successor=row.successor if row.successor != node else NOBODY,
    )


def move_ended(row: ShardRow) -> ShardRow:
    """Forget the move under way: all who hold the shard go on to."""
    return replace(row, version=row.version + 1, incoming=NOBODY, outgoing=NOBODY)


def handover_begun(row: ShardRow, successor: NodeId) -> ShardRow:
    """Ask the primary to stop in favour of another."""
    return replace(row, version=row.version + 1, successor=successor)


def handover_cancelled(row: ShardRow) -> ShardRow:
    """Let the primary go on. Its word that it stopped, if it comes later, has an old version."""
    return replace(row, version=row.version + 1, successor=NOBODY)


def row_fault(row: ShardRow, min_in_sync: int) -> str | None:
    """Return what is wrong with a row, or None."""
    held = set(row.holders)
    faults = {
        "sets of nodes are in rising order": any(
            list(nodes) != sorted(set(nodes)) for nodes in (row.holders, row.in_sync, row.eligible)
        ),
        "the primary is in sync": row.primary != NOBODY and row.primary not in row.in_sync,
        "who is in sync or eligible holds the shard": not held.issuperset(
            (*row.in_sync, *row.eligible)
        ),
        "nobody is in sync and eligible": bool(set(row.in_sync) & set(row.eligible)),
        "eligible only below the minimum": bool(row.eligible) and len(row.in_sync) >= min_in_sync,
        "who comes and who goes holds the shard": not (held | {NOBODY}).issuperset(
            (row.incoming, row.outgoing)
        ),
        "nobody goes unless another comes": row.outgoing != NOBODY and row.incoming == NOBODY,
        "a successor is in sync, and not the primary": row.successor != NOBODY
        and (row.successor not in row.in_sync or row.primary in (NOBODY, row.successor)),
        "a primary has an epoch": row.primary != NOBODY and row.epoch == 0,
    }
    broken = [rule for rule, is_broken in faults.items() if is_broken]
    return f"{'; '.join(broken)}: {row}" if broken else None
