"""How a cluster looks: its health in a sentence, its nodes and shards, and what to do.

Pure: a status goes in, cells and sentences come out. Everything is judged from what one node
answered, so the view says which node that was and whether it hears a controller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssgovern.cli.output import Cell, counted
from ssgovern.client.values import ClusterNode, ClusterStatus, ShardRow

NODE_COLUMNS = ("ID", "NAME", "ADDRESS", "ZONE", "ROLE", "STATE", "PRIMARIES", "REPLICAS")
NODE_NUMBERS = ("ID", "PRIMARIES", "REPLICAS")
SHARD_COLUMNS = ("COUNT", "STATE", "PRIMARY", "REPLICAS", "IN SYNC", "SHARDS")


class Health(NamedTuple):
    """One word for programs, one sentence for people, and what to do about it."""

    word: str
    sentence: str
    advice: tuple[str, ...] = ()

    @property
    def cell(self) -> Cell:
        """The sentence, coloured."""
        tones = {"good": "good", "degraded": "warn", "bad": "bad"}
        return Cell(f"{self.word.upper()}: {self.sentence}", tones[self.word])


def health_of(status: ClusterStatus) -> Health:
    """Judge: bad if something is refused, degraded if the next failure could do that."""
    away = [node for node in status.nodes if not node.live]
    bad, degraded, advice = [], [], []
    if not status.controller_heard:
        bad.append(f"node {status.node_id} hears no controller")
        advice.append(_advice_without_controller(status))
    if not status.map_version:
        bad.append("no shard has been placed yet")
        advice.append(
            "that takes a moment after the founding, and all candidates have to be there."
        )
    if status.shards_unavailable:
        bad.append(f"{_shards(status.shards_unavailable)} served by nobody")
        advice.append(_advice_unavailable(away))
    if away:
        degraded.append(f"{counted(len(away), 'node')} away")
        advice.extend(_advice_away(node) for node in away)
    if status.shards_below_copies:
        degraded.append(f"{_shards(status.shards_below_copies)} below {status.copies} copies")
        advice.append(_advice_below(status))
    staying = _staying(status)
    if staying < status.copies and not status.shards_below_copies:
        degraded.append(f"{_copies(status)} are wanted, {counted(staying, 'node')} can take them")
        advice.append(_advice_below(status))
    if few := _too_few_candidates(status):
        degraded.append(f"{counted(len(status.candidates), 'candidate')}")
        advice.append(few)
    if bad:
        return Health("bad", ", ".join([*bad, *degraded]), tuple(advice))
    if degraded:
        return Health("degraded", ", ".join(degraded), tuple(advice))
    return Health("good", f"all {status.shards_total} shards are served, in {_copies(status)}")


def _too_few_candidates(status: ClusterStatus) -> str:
    """Return what to do if one failure less is survived than these nodes could; empty: nothing.

    Of two nodes one alone votes: that is as good as it gets, and two would be worse.
    """
    count = len(status.candidates)
    able = [n.node_id for n in status.nodes if n.live and not n.leaving and not n.candidate]
    add = f"`ss-govern cluster candidates add {able[0] if able else 'NODE'}`"
    if count and count % 2 == 0:
        return f"an even number of candidates survives no more than one less: {add}, or remove one."
    if count == 1 and _staying(status) > 2:
        alone = status.candidates[0]
        return (
            f"node {alone} decides alone, and without it nobody does: {add}, and one more:"
            " three candidates survive the loss of one."
        )
    return ""


def _shards(count: int) -> str:
    return f"{count} shard is" if count == 1 else f"{count} shards are"


def _copies(status: ClusterStatus) -> str:
    return "1 copy" if status.copies == 1 else f"{status.copies} copies"


def _staying(status: ClusterStatus) -> int:
    return sum(node.live and not node.leaving for node in status.nodes)


def _advice_without_controller(status: ClusterStatus) -> str:
    needed = len(status.candidates) // 2 + 1
    names = ", ".join(f"{node.node_id} ({node.address})" for node in status.nodes if node.candidate)
    return (
        f"{needed} of the {counted(len(status.candidates), 'candidate')} must run and reach each"
        f" other: {names or 'see cluster.candidates'}. Until then reads go on, and nothing moves."
        f" If they do, only node {status.node_id} is cut off: ask another one with --server."
    )


def _advice_unavailable(away: Sequence[ClusterNode]) -> str:
    if not away:
        return "a shard without a primary gets one within seconds; `cluster shards` shows which"
    return (
        f"start {_named(away)} again: only there is what was acknowledged last. If it is gone for"
        " good, `ss-govern cluster unclean` promotes who is left, and says what may be lost."
    )


def _advice_away(node: ClusterNode) -> str:
    name = f"node {node.node_id} ({node.name}, {node.address})"
    lost = " Its shards are being copied to others." if node.lost else ""
    if not node.candidate:
        return (
            f"{name} may come back: it then takes up what it had.{lost} If it never does:"
            f" `ss-govern cluster leave {node.node_id}`."
        )
    return (
        f"{name} votes, so as long as it is away one vote less may be lost.{lost} If it never comes"
        " back: give its vote to another one, `ss-govern cluster candidates add NODE` and"
        f" `remove {node.node_id}`, then `ss-govern cluster leave {node.node_id}`."
    )


def _advice_below(status: ClusterStatus) -> str:
    staying = _staying(status)
    if staying < status.copies:
        return (
            f"{_copies(status)} need as many nodes, {staying} can take them: start another one"
            f" (`ss-govern cluster join`), or `ss-govern cluster settings --copies {staying}`."
        )
    return "copies are being made; `ss-govern cluster status` again in a moment."


def _named(nodes: Sequence[ClusterNode]) -> str:
    return " or ".join(f"node {node.node_id} ({node.name})" for node in nodes)


# --- one screen ------------------------------------------------------------------------------


def facts_of(status: ClusterStatus) -> dict[str, str | Cell]:
    """Return what stands above the table of nodes."""
    controller = next((n for n in status.nodes if n.node_id == status.controller_id), None)
    if not status.controller_heard:
        who = Cell("not heard", "bad")
    elif controller is None:
        who = Cell(f"node {status.controller_id}, term {status.term}")
    else:
        who = Cell(f"node {controller.node_id} ({controller.name}), term {status.term}")
    votes = ", ".join(map(str, status.candidates)) or "-"
    return {
        "cluster": status.cluster_id.hex(),
        "health": health_of(status).cell,
        "controller": who,
        "candidates": votes,
        "shards": (
            f"{status.shards_total}, each in {_copies(status)};"
            f" writes need {status.min_in_sync} of them"
        ),
        "under way": _moves(status),
        "seen by": f"node {status.node_id}, shard map {status.map_version}",
    }


def _moves(status: ClusterStatus) -> str | Cell:
    leaving = [node for node in status.nodes if node.leaving]
    parts = [counted(status.moves, "move")] if status.moves else []
    parts += [f"node {n.node_id} is leaving, {n.holds} shards to go" for n in leaving]
    return Cell(", ".join(parts), "warn") if parts else "nothing"


def node_rows(status: ClusterStatus) -> list[list[str | Cell]]:
    """Return the table of nodes."""
    return _node_rows(status, status.nodes)


def candidate_rows(status: ClusterStatus) -> list[list[str | Cell]]:
    """Return the same table of those that vote."""
    return _node_rows(status, [n for n in status.nodes if n.node_id in status.candidates])


def _node_rows(status: ClusterStatus, nodes: Sequence[ClusterNode]) -> list[list[str | Cell]]:
    return [
        [
            str(node.node_id),
            Cell(node.name, "strong"),
            node.address,
            node.zone or "-",
            _role(node, status),
            node_state(node),
            str(node.primaries),
            str(max(0, node.holds - node.primaries)),
        ]
        for node in sorted(nodes, key=lambda found: found.node_id)
    ]


def _role(node: ClusterNode, status: ClusterStatus) -> Cell:
    if node.node_id == status.controller_id and status.controller_heard:
        return Cell("controller", "strong")
    return Cell("candidate" if node.candidate else "node")


def node_state(node: ClusterNode) -> Cell:
    """Return how a node is, in a word or two."""
    if node.lost:
        state = Cell("lost", "bad")
    elif not node.live:
        state = Cell("away", "bad")
    elif node.leaving:
        state = Cell("live", "warn")
    else:
        state = Cell("live", "good")
    return Cell(f"{state.text}, leaving", state.tone) if node.leaving else state


# --- shards ----------------------------------------------------------------------------------


def shard_rows(status: ClusterStatus) -> list[list[str | Cell]]:
    """Return the shards in groups of the same fate: what needs attention comes first."""
    groups: dict[_Fate, list[ShardRow]] = {}
    for shard in status.shards:
        groups.setdefault(_fate(shard, status.copies), []).append(shard)
    ordered = sorted(groups.items(), key=lambda item: (item[0].urgency, item[1][0].shard))
    return [_shard_row(shards, status.copies) for _, shards in ordered]


class _Fate(NamedTuple):
    """What shards in one line of the table have in common."""

    urgency: int
    state: str
    primary: int
    holders: tuple[int, ...]
    in_sync: tuple[int, ...]


def _fate(shard: ShardRow, copies: int) -> _Fate:
    urgency, text, _ = _shard_state(shard, copies)
    holders, in_sync = tuple(sorted(shard.holders)), tuple(sorted(shard.in_sync))
    return _Fate(urgency, text, shard.primary, holders, in_sync)


def _shard_state(shard: ShardRow, copies: int) -> tuple[int, str, str]:
    """Return how urgent it is (0: most), what it is, and its tone."""
    motion = []
    if shard.incoming or shard.outgoing:
        motion.append(f"moving {shard.outgoing or '+'} -> {shard.incoming or '-'}")
    if shard.successor:
        motion.append(f"handing over to {shard.successor}")
    if not shard.primary:
        who = ", ".join(map(str, sorted(shard.eligible))) or "nobody"
        return 0, "; ".join([f"UNAVAILABLE, waits for {who}", *motion]), "bad"
    if len(shard.in_sync) < copies:
        below = f"{len(shard.in_sync)} of {copies} in sync"
        return 1, "; ".join([below, *motion]), "warn"
    return (2, "; ".join(motion), "warn") if motion else (3, "in sync", "good")


def _shard_row(shards: Sequence[ShardRow], copies: int) -> list[str | Cell]:
    first = shards[0]
    _, text, tone = _shard_state(first, copies)
    replicas = sorted(node for node in first.holders if node != first.primary)
    return [
        str(len(shards)),
        Cell(text, tone),
        Cell(str(first.primary) if first.primary else "-", "strong"),
        ", ".join(map(str, replicas)) or "-",
        ", ".join(map(str, sorted(first.in_sync))) or "-",
        ranges(shard.shard for shard in shards),
    ]


def ranges(numbers: Iterable[int]) -> str:
    """Return `0-3 7 9-12`."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return " ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)


# --- for programs ----------------------------------------------------------------------------


def status_document(status: ClusterStatus) -> dict[str, object]:
    """Return a status as JSON shows it. Keys are stable."""
    health = health_of(status)
    document: dict[str, object] = dataclasses.asdict(status)
    document["cluster_id"] = status.cluster_id.hex()
    document["health"] = health.word
    document["sentence"] = health.sentence
    document["advice"] = list(health.advice)
    return document


def nodes_document(status: ClusterStatus) -> list[dict[str, object]]:
    """Return the nodes as JSON shows them."""
    return [
        {**dataclasses.asdict(node), "controller": node.node_id == status.controller_id}
        for node in status.nodes
    ]
