"""Which node should hold what: even, spread over zones, with few moves.

Pure arithmetic over a state: what is under way counts as done. Two rules, in this order: a
shard's copies are in as many zones as there are (up to its copies); each node holds its share,
within one. Zones of unequal size bound the shares: a zone holds each shard once if there are
enough zones, so a small zone's nodes hold more.

A move is one copy from one node to another. Where no single move helps, the shortest chain of
moves does (an augmenting path, as in maximum flow), and its last move is given first: every
prefix of it is sound, and the next search finds the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from ssgovern.controller.rows import NOBODY
from ssgovern.controller.state import ClusterState
from ssgovern.model import NodeId, ShardId


class Share(NamedTuple):
    """How many a node should hold, at least and at most."""

    least: int
    most: int


class Move(NamedTuple):
    """One copy, or the role of primary, goes from one node to another."""

    shard: ShardId
    source: NodeId
    target: NodeId


def shares(zones: Mapping[str, list[NodeId]], shards: int, copies: int) -> dict[NodeId, Share]:
    """Return each node's share: as even as the rule about zones allows."""
    spread = min(copies, len(zones))
    least = {zone: shards if len(zones) <= copies else 0 for zone in zones}
    most = {zone: shards * min(len(zones[zone]), copies - spread + 1) for zone in zones}
    load: dict[str, Fraction] = {}
    while len(load) < len(zones):
        open_zones = [zone for zone in zones if zone not in load]
        left = shards * copies - sum(load.values())
        even = Fraction(left) / sum(len(zones[zone]) for zone in open_zones)
        over = {z: even * len(zones[z]) - most[z] for z in open_zones}
        under = {z: least[z] - even * len(zones[z]) for z in open_zones}
        excess = sum(max(amount, Fraction(0)) for amount in over.values())
        lack = sum(max(amount, Fraction(0)) for amount in under.values())
        if excess == lack == 0:
            load |= {zone: even * len(zones[zone]) for zone in open_zones}
        elif excess >= lack:
            load |= {zone: Fraction(most[zone]) for zone in open_zones if over[zone] > 0}
        else:
            load |= {zone: Fraction(least[zone]) for zone in open_zones if under[zone] > 0}
    result = {}
    for zone, nodes in zones.items():
        each = load[zone] / len(nodes)
        for node in nodes:
            result[node] = Share(each.__floor__(), each.__ceil__())
    return result


class Placement:
    """Who holds what once everything under way is done, and what would be better."""

    def __init__(
        self, state: ClusterState, may_copy_to: Callable[[NodeId], bool] = lambda _node: True
    ) -> None:
        staying = [node for node in state.sorted_nodes() if node.stays]
        self.zone_of = {node.id: node.zone for node in state.sorted_nodes()}
        self.takers = [node.id for node in staying if node.live and may_copy_to(node.id)]
        self.zones: dict[str, list[NodeId]] = {}
        for node in staying:
            self.zones.setdefault(node.zone, []).append(node.id)
        self.copies = min(state.settings.copies, len(staying))
        self.spread = min(self.copies, len(self.zones))
        self.shares = shares(self.zones, len(state.rows), self.copies) if staying else {}
        self._primary = [row.primary for row in state.rows]
        self.movable: list[bool] = []
        self.holders: list[list[NodeId]] = []
        self.held: dict[NodeId, list[ShardId]] = {node.id: [] for node in state.sorted_nodes()}
        for number, row in enumerate(state.rows):
            self.movable.append(row.primary != NOBODY and not row.in_flight)
            self.holders.append(list(row.planned))
            for holder in row.planned:
                self.held[holder].append(ShardId(number))

    def load(self, node: NodeId) -> int:
        """Return how many shards a node holds."""
        return len(self.held[node])

    def zones_of(self, holders: Iterable[NodeId]) -> int:
        """Return in how many zones copies are, of those that stay."""
        return len({self.zone_of[node] for node in holders if node in self.shares})

    def staying(self, shard: ShardId) -> list[NodeId]:
        """Return the holders of a shard that are there to stay."""
        return [node for node in self.holders[shard] if node in self.shares]

    def add(self, shard: ShardId, node: NodeId) -> None:
        """Count a copy as there."""
        self.holders[shard].append(node)
        self.held[node].append(shard)

    def remove(self, shard: ShardId, node: NodeId) -> None:
        """Count a copy as gone."""
        self.holders[shard].remove(node)
        self.held[node].remove(shard)

    def best_target(self, shard: ShardId, without: NodeId = NOBODY) -> NodeId:
        """Return where one more copy belongs: a zone without one, then the most room."""
        staying = [node for node in self.staying(shard) if node != without]
        taken = {self.zone_of[node] for node in staying}
        best, best_key = NOBODY, (False, 0, 0)
        for node in self.takers:
            if node not in self.holders[shard]:
                room = self.shares[node].most - self.load(node)
                key = (self.zone_of[node] not in taken, room, _mixed(shard, node))
                if best == NOBODY or key > best_key:
                    best, best_key = node, key
        return best

    def allows(self, shard: ShardId, source: NodeId, target: NodeId) -> bool:
        """Whether a copy may go from one node to another without losing a zone."""
        holders = self.holders[shard]
        if target in holders:
            return False
        if self.zone_of[source] == self.zone_of[target]:
            return True
        before = self.zones_of(holders)
        after = self.zones_of([target, *(node for node in holders if node != source)])
        return after >= min(before, self.spread)

    def next_move(self) -> Move | None:
        """Return the move that is most needed, or None if all is well (or nothing can move)."""
        return self._zone_move() or self._balance_move()

    def _zone_move(self) -> Move | None:
        for number, holders in enumerate(self.holders):
            shard = ShardId(number)
            if not self.movable[shard] or self.zones_of(holders) >= self.spread:
                continue
            zones = [self.zone_of[node] for node in holders]
            doubled = [node for node in self.staying(shard) if zones.count(self.zone_of[node]) > 1]
            if not doubled:
                continue
            source = max(doubled, key=lambda node: (self.load(node), node))
            target = self.best_target(shard, source)
            if target != NOBODY and self.zone_of[target] not in zones:
                return Move(shard, source, target)
        return None

    def _balance_move(self) -> Move | None:
        nodes = [node for node in self.takers if node in self.shares]
        over = [node for node in nodes if self.load(node) > self.shares[node].most]
        roomy = [node for node in nodes if self.load(node) < self.shares[node].most]
        move = shortest_chain(over, roomy, nodes, self._edge) if over and roomy else None
        if move is None:
            under = [node for node in nodes if self.load(node) < self.shares[node].least]
            able = [node for node in nodes if self.load(node) > self.shares[node].least]
            move = shortest_chain(able, under, nodes, self._edge) if able and under else None
        return move

    def _edge(self, source: NodeId, target: NodeId) -> Move | None:
        found = None
        for shard in self.held[source]:
            if self.movable[shard] and self.allows(shard, source, target):
                if self._primary[shard] != source:
                    return Move(shard, source, target)
                # Costs a hand-over, and often a second one for balance: only if need be.
                found = found or Move(shard, source, target)
        return found


class Primaries:
    """Who is primary of what once everything under way is done, and what would be more even."""

    def __init__(
        self, state: ClusterState, may_hand_over: Callable[[ShardId], bool] = lambda _shard: True
    ) -> None:
        self._state = state
        self._may_hand_over = may_hand_over
        self._nodes = [node.id for node in state.sorted_nodes() if node.takes_shards]
        self._of: dict[NodeId, list[ShardId]] = {node: [] for node in self._nodes}
        for number, row in enumerate(state.rows):
            primary = row.primary if row.successor == NOBODY else row.successor
            if primary in self._of:
                self._of[primary].append(ShardId(number))
        total = sum(len(shards) for shards in self._of.values())
        count = max(1, len(self._nodes))
        self._share = Share(total // count, -(-total // count))

    def next_move(self) -> Move | None:
        """Return the hand-over that is most needed, or None."""
        least, most = self._share
        loads = {node: len(self._of[node]) for node in self._nodes}
        over = [node for node in self._nodes if loads[node] > most]
        roomy = [node for node in self._nodes if loads[node] < most]
        move = shortest_chain(over, roomy, self._nodes, self._edge) if over and roomy else None
        if move is None:
            under = [node for node in self._nodes if loads[node] < least]
            able = [node for node in self._nodes if loads[node] > least]
            move = shortest_chain(able, under, self._nodes, self._edge) if able and under else None
        return move

    def apply(self, move: Move) -> None:
        """Count a hand-over as done."""
        self._of[move.source].remove(move.shard)
        self._of[move.target].append(move.shard)

    def _edge(self, source: NodeId, target: NodeId) -> Move | None:
        for shard in self._of[source]:
            row = self._state.rows[shard]
            if row.primary != source or row.in_flight or target not in row.in_sync:
                continue
            if self._may_hand_over(shard):
                return Move(shard, source, target)
        return None


def _mixed(shard: ShardId, node: NodeId) -> int:
    """Break ties differently for each shard.

    Otherwise the same few nodes would hold the same shards together, and all that one loses
    would fall to one other.
    """
    number = (node * 0x9E3779B1 + shard * 0x85EBCA77) & 0xFFFFFFFF
    number = ((number ^ (number >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return number ^ (number >> 13)


def shortest_chain(
    sources: list[NodeId],
    targets: list[NodeId],
    nodes: list[NodeId],
    edge: Callable[[NodeId, NodeId], Move | None],
) -> Move | None:
    """Return the last move of the shortest chain from any source to any target.

    Deterministic: nodes are tried in the order given.
    """
    goal = frozenset(targets)
    ordered = [*targets, *(node for node in nodes if node not in goal)]
    seen = dict.fromkeys(sources)
    queue = deque(sources)
    while queue:
        node = queue.popleft()
        for other in ordered:
            if other in seen:
                continue
            move = edge(node, other)
            if move is None:
                continue
            if other in goal:
                return move
            seen[other] = None
            queue.append(other)
    return None
