"""How large a cluster the controller's core can decide for: sizes, times and numbers of moves.

A tame cluster: nodes do at once what the map asks of them. Times are of this process's CPU, so
that they say the same on a busy machine.

    python -m ssgovern.sim.controller_scale [--nodes 100] [--zones 4]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable

from ssgovern.controller.codec import decode_snapshot, encode_record, encode_snapshot
from ssgovern.controller.controller import Controller, decide_founding
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest, Resigned
from ssgovern.controller.rows import NOBODY
from ssgovern.controller.rules import Decision
from ssgovern.controller.state import ClusterState, Settings
from ssgovern.model import SHARDS, NodeId, ShardId

CLUSTER = b"a tame cluster.."


class TameCluster:
    """A controller and nodes that obey at once."""

    def __init__(self, settings: Settings, shards: int = SHARDS) -> None:
        state = ClusterState(shards)
        for record in decide_founding(state, CLUSTER, settings).records:
            state.replay(record)
        self.now_ms = 0.0
        self.controller = Controller(state, 0.0)
        self.away: dict[NodeId, None] = {}
        self.stuck: dict[NodeId, None] = {}
        """These neither catch up nor hand over."""
        self.passes = 0
        self.records = 0
        self.log_bytes = 0
        self.moves = 0
        self.handovers = 0
        self.longest_s = 0.0
        self.spent_s = 0.0
        self.sentences: list[str] = []

    @property
    def state(self) -> ClusterState:
        return self.controller.state

    def commit(self, decision: Decision) -> None:
        """Replay what was decided."""
        if decision.sentence:
            self.sentences.append(decision.sentence)
        for record in decision.records:
            for shard, row in record.rows:
                old = self.state.rows[shard]
                self.moves += row.incoming not in (NOBODY, old.incoming)
                self.handovers += row.successor not in (NOBODY, old.successor)
            self.records += 1
            self.log_bytes += len(encode_record(record))
            self.controller.replay(record, self.now_ms)

    def join(self, number: int, zone: str = "", boot: bytes = b"1") -> None:
        """Start a node."""
        asked = Registration(
            NodeId(number),
            f"node-{number}",
            f"node-{number}.example.internal:7420",
            zone,
            b"%016d" % number,
            boot.rjust(16, b"0"),
        )
        self.away.pop(NodeId(number), None)
        self.commit(self.controller.decide_registration(asked, self.now_ms))

    def kill(self, numbers: Iterable[int]) -> None:
        """Nodes fall silent for long enough to be fenced."""
        self.away |= dict.fromkeys(NodeId(number) for number in numbers)
        self.wait(self.state.settings.fence_after_ms)

    def wait(self, ms: float) -> None:
        """Let time pass; all who are here are heard."""
        self.now_ms += ms
        for node in self.state.sorted_nodes():
            if node.live and node.id not in self.away:
                self.controller.hear(node.id, node.session, self.now_ms)

    def look(self) -> Decision:
        """One pass of the controller, timed."""
        began = time.process_time()
        decision = self.controller.decide_pass(self.now_ms)
        spent = time.process_time() - began
        self.longest_s = max(self.longest_s, spent)
        self.spent_s += spent
        self.passes += 1
        self.commit(decision)
        return decision

    def begin(self) -> None:
        """Count from here on."""
        self.passes = self.records = self.log_bytes = self.moves = self.handovers = 0
        self.longest_s = self.spent_s = 0.0
        self.sentences.clear()

    def settle(self, passes_max: int = 1000) -> None:
        """Let the controller look until there is nothing more to do."""
        for _ in range(passes_max):
            decided = bool(self.look().records)
            if not self._obey() and not decided:
                return
        raise AssertionError(f"no rest after {passes_max} passes: {self.sentences[-3:]}")

    def _obey(self) -> bool:
        busy = False
        for number in range(len(self.state.rows)):
            shard, row = ShardId(number), self.state.rows[number]
            if row.primary == NOBODY:
                continue
            session = self.state.nodes[row.primary].session
            wanted = tuple(
                node
                for node in row.holders
                if self.state.is_live(node) and (node in row.in_sync or node not in self.stuck)
            )
            if wanted != row.in_sync:
                busy = True
                members = tuple((node, self.state.nodes[node].session) for node in wanted)
                asked = InSyncRequest(shard, row.primary, session, row.epoch, row.version, members)
                self.commit(self.controller.decide_in_sync(asked))
                row = self.state.rows[number]
            if row.successor != NOBODY and row.primary not in self.stuck:
                busy = True
                resigned = Resigned(shard, row.primary, session, row.epoch, row.version)
                self.commit(self.controller.decide_resigned(resigned))
        return busy

    def loads(self) -> tuple[Counter[NodeId], Counter[NodeId]]:
        """Return how many copies and how many primaries each node has."""
        copies = Counter(node for row in self.state.rows for node in row.holders)
        return copies, Counter(row.primary for row in self.state.rows)


def measure(nodes: int, zones: int) -> list[tuple[str, str]]:
    """Return what was measured, as pairs of what and how much."""
    cluster = TameCluster(Settings(nodes_initial=nodes, min_in_sync=2))
    for number in range(1, nodes + 1):
        cluster.join(number, f"zone-{number % zones}")
    figures: list[tuple[str, str]] = []

    def note(what: str) -> None:
        copies, primaries = cluster.loads()
        figure = (
            f"first decision {first_s * 1000:.1f} ms, longest {cluster.longest_s * 1000:.1f} ms; "
            f"{cluster.passes} passes, {cluster.spent_s:.2f} s in all; {cluster.moves} moves, "
            f"{cluster.handovers} hand-overs, {cluster.records} records, "
            f"{cluster.log_bytes:,} bytes; copies {min(copies.values())} to "
            f"{max(copies.values())}, primaries {min(primaries.values())} to "
            f"{max(primaries.values())}"
        )
        figures.append((what, figure))

    def first() -> float:
        cluster.begin()
        cluster.look()
        return cluster.spent_s

    first_s = first()
    cluster.settle()
    note("first placement")

    snapshot = encode_snapshot(cluster.state, 1)
    bare = ClusterState(0)
    bare.rows = cluster.state.rows
    figures.append(("all metadata", f"{len(snapshot):,} bytes"))
    figures.append(("of it the shard map", f"{len(encode_snapshot(bare, 0)):,} bytes"))
    began = time.process_time()
    decode_snapshot(snapshot)
    figures.append(("decoding it", f"{(time.process_time() - began) * 1000:.1f} ms"))

    cluster.look()
    first_s = first()
    figures.append(("a pass with nothing to do", f"{first_s * 1000:.2f} ms"))

    lost_after_ms = cluster.state.settings.lost_after_ms
    cluster.kill([nodes])
    first_s = first()
    cluster.settle()
    note("one node silent: fenced, its shards promoted")
    cluster.wait(lost_after_ms)
    first_s = first()
    cluster.settle()
    note("the same node given up: copied elsewhere")
    cluster.join(nodes, f"zone-{nodes % zones}", b"2")
    first_s = first()
    cluster.settle()
    note("it comes back: takes its share")
    cluster.join(nodes + 1, "zone-1")
    first_s = first()
    cluster.settle()
    note("one node more")
    zone = [number for number in range(1, nodes + 1) if number % zones == 0]
    cluster.kill(zone)
    first_s = first()
    cluster.settle()
    note(f"a zone of {len(zone)} nodes silent: fenced, promoted")
    cluster.wait(lost_after_ms)
    first_s = first()
    cluster.settle()
    note("the same zone given up: copied elsewhere")
    for number in zone:
        cluster.join(number, "zone-0", b"3")
    first_s = first()
    cluster.settle()
    note("it comes back")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.controller_scale")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--zones", type=int, default=4)
    options = parser.parse_args()
    for what, figure in measure(options.nodes, options.zones):
        print(f"{what}: {figure}")


if __name__ == "__main__":
    main()
