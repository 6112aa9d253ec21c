"""Which copies and which primaries go where, step by step. Pure.

A move is: add a node to the row (`incoming`), wait until its primary has it in sync, hand over
if the one that goes is primary, drop that one. Each step is a record, and what is under way is
in the row itself, so that a new controller goes on where the old one stopped. Steps are found
from the state alone, every time anew.

A copy in sync is dropped only when all others are in sync, and a node is never added where nobody
can bring it up to date. At most `moves_max` rows have something under way.
"""

from __future__ import annotations

from ssgovern.controller import rows
from ssgovern.controller.attempts import COPY_TIMEOUT_MS, Attempts
from ssgovern.controller.placement import Move, Placement, Primaries
from ssgovern.controller.rows import NOBODY, ShardRow
from ssgovern.controller.rules import Draft, Rules, counted, named
from ssgovern.controller.soft import SoftState
from ssgovern.controller.state import ClusterState
from ssgovern.model import NodeId, ShardId


def add_first_placement(draft: Draft) -> None:
    """Place the shards that never had an entry, as soon as enough nodes are there."""
    state = draft.state
    fresh = [
        ShardId(shard) for shard, row in enumerate(state.rows) if not row.holders and not row.epoch
    ]
    takers = sum(node.takes_shards for node in state.nodes.values())
    if not fresh or takers < max(1, state.settings.nodes_initial):
        return
    placement = Placement(state)
    for shard in fresh:
        placement.movable[shard] = True
        while len(placement.holders[shard]) < placement.copies:
            target = placement.best_target(shard)
            if target == NOBODY:
                break
            placement.add(shard, target)
    while (move := placement.next_move()) is not None:
        placement.remove(move.shard, move.source)
        placement.add(move.shard, move.target)

    tried = state.copy()
    count = dict.fromkeys(sorted(state.nodes), 0)
    for shard in fresh:
        holders = placement.holders[shard]
        primary = min(holders, key=lambda node: (count[node], node))
        count[primary] += 1
        tried.rows[shard] = rows.placed(state.rows[shard], holders, primary)
    primaries = Primaries(tried)
    while (move := primaries.next_move()) is not None:
        primaries.apply(move)
        holders = placement.holders[move.shard]
        tried.rows[move.shard] = rows.placed(state.rows[move.shard], holders, move.target)
    draft.change_rows(
        f"placed {counted(len(fresh), 'empty shard')} on {counted(takers, 'node')}, "
        f"{placement.copies} of each",
        [(shard, tried.rows[shard]) for shard in fresh],
    )


def add_progress(draft: Draft, soft: SoftState, rules: Rules, now_ms: float) -> None:
    """Take the next step of every move under way that can take one."""
    state = draft.state
    done: dict[str, list[tuple[ShardId, ShardRow]]] = {}
    for number, row in enumerate(state.rows):
        if row.in_flight and row.primary != NOBODY:
            shard = ShardId(number)
            why, changed = _next_step(state, soft, rules, shard, row, now_ms)
            if changed is not None:
                done.setdefault(why, []).append((shard, changed))
    for why, changed_rows in done.items():
        draft.change_rows(f"{why} {named((s for s, _ in changed_rows), 'shard')}", changed_rows)


def _next_step(
    state: ClusterState,
    soft: SoftState,
    rules: Rules,
    shard: ShardId,
    row: ShardRow,
    now_ms: float,
) -> tuple[str, ShardRow | None]:
    if row.successor != NOBODY:
        if not state.nodes[row.successor].takes_shards:
            return "took back the hand-over (its successor goes) of", rows.handover_cancelled(row)
        waited_ms = soft.attempts.handover_ms(shard, row.version, now_ms)
        if waited_ms >= state.settings.handover_timeout_ms:
            soft.attempts.handover_failed(shard, now_ms)
            return "took back the hand-over (no answer) of", rows.handover_cancelled(row)
        return "", None
    if not state.nodes[row.incoming].takes_shards:
        return "gave up the move (its target is gone) of", _without_incoming(row)
    if not rules.caught_up(row, row.incoming):
        if soft.attempts.copying_ms(shard, row.incoming, now_ms) < COPY_TIMEOUT_MS:
            return "", None
        soft.attempts.copy_failed(row.incoming, now_ms)
        return "gave up the move (its target does not catch up) of", _without_incoming(row)
    soft.attempts.copy_done(row.incoming)
    gone = [node for node in row.holders if state.nodes[node].lost and node not in row.in_sync]
    goes = gone[0] if gone else row.outgoing
    if goes == NOBODY:
        return "added a copy of", rows.move_ended(row)
    if goes == row.primary:
        if not soft.attempts.may_hand_over(shard):
            return "", None
        return "began to hand over", rows.handover_begun(row, row.incoming)
    if may_drop(row, goes):
        return "finished the move of", rows.dropped(row, goes)
    # The copy has to stay for now, and others need not wait for that: it is surplus, and goes
    # as soon as it may.
    return "added a copy of", rows.move_ended(row)


def _without_incoming(row: ShardRow) -> ShardRow:
    holds_it_all = row.incoming in (*row.in_sync, *row.eligible)
    return rows.move_ended(row) if holds_it_all else rows.dropped(row, row.incoming)


def may_drop(row: ShardRow, node: NodeId) -> bool:
    """Whether a row can do without a node: a copy in sync goes only when all others are."""
    if node == row.primary or node in row.eligible:
        return False
    return node not in row.in_sync or all(
        other in row.in_sync for other in row.holders if other != node
    )


def add_moves(draft: Draft, soft: SoftState, rules: Rules) -> None:
    """Begin what is needed, in the order of need, while there is room."""
    attempts = soft.attempts
    _empty_leaving_primaries(draft, attempts, rules)
    _restore_copies(draft, attempts, rules)
    _drop_surplus(draft, attempts, rules)
    if rules.balances(draft.state):
        _balance_copies(draft, attempts, rules)
        if not any(row.incoming != NOBODY for row in draft.state.rows):
            _balance_primaries(draft, attempts, rules)


def _successor(state: ClusterState, row: ShardRow, count: dict[NodeId, int]) -> NodeId:
    """Return who in sync and here to stay has the fewest primaries."""
    able = [node for node in row.in_sync if node != row.primary and state.nodes[node].takes_shards]
    return min(able, key=lambda node: (count.get(node, 0), node), default=NOBODY)


def _primaries(state: ClusterState) -> dict[NodeId, int]:
    count: dict[NodeId, int] = {}
    for row in state.rows:
        primary = row.successor if row.successor != NOBODY else row.primary
        count[primary] = count.get(primary, 0) + 1
    return count


def _empty_leaving_primaries(draft: Draft, attempts: Attempts, rules: Rules) -> None:
    """A node that leaves stops being primary first: then nobody waits for it any more."""
    state = draft.state
    if not any(node.leaving and node.live for node in state.nodes.values()):
        return
    room = rules.room(state)
    count = _primaries(state)
    begun: list[tuple[ShardId, ShardRow]] = []
    for number, row in enumerate(state.rows):
        if len(begun) >= room:
            break
        if row.primary == NOBODY or row.in_flight or not state.nodes[row.primary].leaving:
            continue
        if not attempts.may_hand_over(ShardId(number)):
            continue
        successor = _successor(state, row, count)
        if successor != NOBODY:
            count[successor] = count.get(successor, 0) + 1
            begun.append((ShardId(number), rows.handover_begun(row, successor)))
    draft.change_rows(
        f"began to hand over {counted(len(begun), 'shard')}, because their primary is leaving",
        begun,
    )


def _goes_first(state: ClusterState, row: ShardRow) -> NodeId:
    """Return a holder that does not stay, lost ones first."""
    going = [node for node in row.holders if not state.nodes[node].stays]
    return min(going, key=lambda node: (not state.nodes[node].lost, node), default=NOBODY)


def _restore_copies(draft: Draft, attempts: Attempts, rules: Rules) -> None:
    """Give shards with too few copies one more, in place of one that goes."""
    state = draft.state
    room = rules.room(state)
    placement = Placement(state, attempts.may_copy_to)
    begun: list[tuple[ShardId, ShardRow]] = []
    for number, row in enumerate(state.rows):
        shard = ShardId(number)
        if len(begun) >= room:
            break
        if not placement.movable[shard] or len(placement.staying(shard)) >= placement.copies:
            continue
        target = placement.best_target(shard)
        if target == NOBODY:
            continue
        begun.append((shard, rows.move_begun(row, target, _goes_first(state, row))))
        placement.add(shard, target)
    draft.change_rows(
        f"began to copy {named((shard for shard, _ in begun), 'shard') if begun else ''}, "
        "because copies are missing or leaving",
        begun,
    )


def _drop_surplus(draft: Draft, attempts: Attempts, rules: Rules) -> None:
    """Drop copies beyond the number wanted, those of nodes that go before all others."""
    state = draft.state
    room = rules.room(state)
    placement = Placement(state, attempts.may_copy_to)
    count = _primaries(state)
    changed = []
    for number, row in enumerate(state.rows):
        shard = ShardId(number)
        if not placement.movable[shard] or len(row.holders) <= placement.copies:
            continue
        staying = placement.staying(shard)
        if len(staying) < placement.copies:
            continue
        goes = _goes_first(state, row) or _least_wanted(placement, row, staying)
        if goes == row.primary:
            successor = _successor(state, row, count)
            if successor != NOBODY and room > 0 and attempts.may_hand_over(shard):
                room -= 1
                changed.append((shard, rows.handover_begun(row, successor)))
        elif may_drop(row, goes):
            placement.remove(shard, goes)
            changed.append((shard, rows.dropped(row, goes)))
    draft.change_rows(
        f"dropped copies of {named((s for s, _ in changed), 'shard') if changed else ''}, "
        "which had more than wanted",
        changed,
    )


def _least_wanted(placement: Placement, row: ShardRow, staying: list[NodeId]) -> NodeId:
    zones = [placement.zone_of[node] for node in staying]

    def unwanted(node: NodeId) -> tuple[bool, bool, bool, int, int]:
        doubled = zones.count(placement.zone_of[node]) > 1
        excess = placement.load(node) - placement.shares[node].most
        return doubled, node != row.primary, node not in row.in_sync, excess, node

    return max(staying, key=unwanted)


def _balance_copies(draft: Draft, attempts: Attempts, rules: Rules) -> None:
    state = draft.state
    room = rules.room(state)
    if room <= 0:
        return
    placement = Placement(state, attempts.may_copy_to)
    begun: list[tuple[ShardId, ShardRow]] = []
    while len(begun) < room and (move := placement.next_move()) is not None:
        placement.remove(move.shard, move.source)
        placement.add(move.shard, move.target)
        placement.movable[move.shard] = False
        row = state.rows[move.shard]
        begun.append((move.shard, rows.move_begun(row, move.target, move.source)))
    targets = sorted({row.incoming for _, row in begun})
    draft.change_rows(
        f"began to move {named((shard for shard, _ in begun), 'shard') if begun else ''} to "
        f"{named(targets, 'node') if targets else ''} for balance",
        begun,
    )


def _balance_primaries(draft: Draft, attempts: Attempts, rules: Rules) -> None:
    state = draft.state
    room = rules.room(state)
    if room <= 0:
        return
    primaries = Primaries(state, attempts.may_hand_over)
    begun: list[Move] = []
    while len(begun) < room and (move := primaries.next_move()) is not None:
        primaries.apply(move)
        # Its row is under way from now on, so that no second move takes the same shard.
        begun.append(move)
        state.rows[move.shard] = rows.handover_begun(state.rows[move.shard], move.target)
    draft.change_rows(
        f"began to hand over {named((move.shard for move in begun), 'shard') if begun else ''} "
        "for balance",
        [(move.shard, state.rows[move.shard]) for move in begun],
    )
