"""Random walks over the control path: nodes, their leases, and controllers that come and go.

One walk is one world: three candidates and some nodes that are none, whose processes are killed,
paused and cut off in every direction, whose clocks run at different rates, and whose controller is
replaced at any moment. What must hold: nobody holds a lease (by its own clock) under a session
that is fenced; the records keep the invariants of `controller_judge`; a calm cluster fences
nobody. Then faults stop: every node has a session and the newest metadata, and the shards are
spread as they should be.

`control_mutants` holds planted bugs.

    python -m ssgovern.sim.control_walk --walks 200 [--seed 0] [--mutant NAME]
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections import Counter
from typing import Final, Self

from ssgovern.controller.state import Node, NodesFenced, Record, Settings
from ssgovern.model import NodeId
from ssgovern.sim.agreement import Agreement
from ssgovern.sim.control_mutants import MUTANTS
from ssgovern.sim.control_nodes import ControlNode, Post
from ssgovern.sim.controller_judge import Judge, ViolationError, must
from ssgovern.sim.process import Process
from ssgovern.sim.runtime import SimRuntime
from ssgovern.sim.world import World

SHARDS: Final = 12
CANDIDATES: Final = 3
NODES: Final = 5
FAULTS_S: Final = 60.0
REST_S: Final = 60.0
FAULTS: Final = (
    *("kill", "start", "start", "pause", "resume", "resume", "cut", "cut one way", "isolate"),
    *("heal", "heal", "elect", "join", "nothing"),
)
CLOCK_RATES: Final = (0.98, 1.0, 1.02)


class ControlWorld:
    """A cluster's control path in one world. Use as a context manager."""

    def __init__(
        self,
        seed: int,
        *,
        settings: Settings | None = None,
        clock_rates: bool = False,
        node_type: type[ControlNode] = ControlNode,
    ) -> None:
        self.world = World(seed)
        self.rng = random.Random(f"control-walk-{seed}")
        self.settings = settings or Settings(
            copies=3, min_in_sync=2, nodes_initial=CANDIDATES, lost_after_ms=15_000
        )
        self.counts: Counter[str] = Counter()
        ids = [NodeId(number) for number in range(1, CANDIDATES + 1)]
        self.agreement = Agreement(self.world, ids, SHARDS)
        self.post = Post(self.world)
        self.seeds = {node: address_of(node) for node in ids}
        self.lives: dict[NodeId, ControlNode] = {}
        self.processes: dict[NodeId, Process] = {}
        self._judge = Judge(self.counts)
        self._clock_rates = clock_rates
        self._node_type = node_type
        state = self.agreement.reference.state
        self._rows, self._version, self._nodes = tuple(state.rows), 0, dict(state.nodes)
        self.agreement.reference.record_listeners.append(self._on_records)
        self.fenced: list[tuple[float, NodeId]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.world.close()

    def add(
        self,
        number: int,
        *,
        name: str = "",
        directory: bytes = b"",
        address: str = "",
        directory_cluster_id: bytes = b"",
    ) -> Process:
        """Start a node for the first time."""
        node = NodeId(number)
        name = name or f"n{number}"

        async def main(runtime: SimRuntime) -> None:
            life = self._node_type(
                self.post,
                self.agreement,
                process,
                runtime,
                node,
                address=address or address_of(node),
                directory=directory or b"directory%07d" % number,
                shards=SHARDS,
                settings=self.settings,
                seeds=self.seeds,
                directory_cluster_id=directory_cluster_id,
            )
            life.on_lease = self._on_lease
            self.lives[node] = life
            await life.run()

        rate = self.rng.choice(CLOCK_RATES) if self._clock_rates else 1.0
        process = self.world.process(name, main, clock_rate=rate)
        if not directory:
            self.processes[node] = process
        process.start()
        return process

    def run(self, seconds: float) -> None:
        """Let time pass; raise what any process did not handle."""
        self.world.run(self.world.now + seconds)
        for error in self.world.errors:
            raise ViolationError(str(error))
        for ended in self.world.exits:
            raise ViolationError(f"{ended.process} ended: {ended.cause!r}")

    # --- what must hold --------------------------------------------------------------------

    def _on_records(self, records: object) -> None:
        assert isinstance(records, list), "the records of one entry"
        state = self.agreement.reference.state
        for record in records:
            assert isinstance(record, Record), "an entry holds records"
            if isinstance(record.change, NodesFenced):
                self.counts["fenced"] += len(record.change.nodes)
                self.fenced.extend((self.world.now, node) for node in record.change.nodes)
        # Who has left holds nothing that a lease could be for.
        fenced = [
            node
            for node in self._nodes.values()
            if not state.is_live(node.id) and node.id not in state.retired
        ]
        replaced = [
            node
            for node in self._nodes.values()
            if node.id in state.nodes and state.nodes[node.id].session != node.session
        ]
        for node in (*fenced, *replaced):
            self._must_hold_no_lease(node)
        if len(records) == 1:
            self._judge.after(state, records[0], self._rows, self._version)
        else:
            state.validate()
        self._rows, self._version = tuple(state.rows), state.map_version
        self._nodes = dict(state.nodes)

    def _must_hold_no_lease(self, node: Node) -> None:
        life = self.lives.get(node.id)
        if life is None or not life.process.alive or life.member.session != node.session:
            return
        must(
            not life.has_lease(),
            f"at {self.world.now:.3f} node {node.id} has a lease under session {node.session}, "
            f"which is fenced: {life.member!r}",
        )

    def _on_lease(self, life: ControlNode) -> None:
        known = self.agreement.reference.state.nodes.get(life.node)
        session = life.member.session
        self.counts["lease"] += 1
        current = known is not None and known.live and known.session == session
        must(
            current or life.node in self.agreement.reference.state.retired or not life.has_lease(),
            f"at {self.world.now:.3f} node {life.node} was granted a lease for session {session}, "
            f"and is {known}",
        )

    def at_rest(self) -> None:
        """Check what must hold when there were no faults for a while."""
        state = self.agreement.reference.state
        for node, process in self.processes.items():
            if node in state.retired:
                continue
            life, known = self.lives[node], state.nodes.get(node)
            must(process.alive, f"node {node} is down")
            must(known is not None and known.live, f"node {node} is not live: {known}")
            assert known is not None, "checked above"
            must(life.member.session == known.session, f"node {node}: {life.member!r} {known}")
            must(life.has_lease(), f"node {node} has no lease: {life.member!r}")
            must(
                life.metadata.index == self.agreement.reference.index,
                f"node {node} has followed to {life.metadata!r} of {self.agreement.reference!r}",
            )
            must(
                life.metadata.snapshot() == self.agreement.reference.snapshot(),
                f"node {node} replayed something else",
            )
        must(not any(row.in_flight for row in state.rows), f"moves under way: {state.rows}")
        self._judge.at_rest(state, 0)


def address_of(node: NodeId) -> str:
    """Return where a node listens."""
    return f"n{node}:7420"


class Walk(ControlWorld):
    """Faults at random, then rest."""

    def __init__(self, seed: int, node_type: type[ControlNode] = ControlNode) -> None:
        super().__init__(seed, clock_rates=True, node_type=node_type)

    def walk(self) -> None:
        """Walk to the end. Raises ViolationError."""
        for number in range(1, NODES + 1):
            self.world.after(self.rng.uniform(0.0, 1.0), self.add, number)
        self.run(self.rng.uniform(1.0, 8.0))
        until = self.world.now + FAULTS_S
        while self.world.now < until:
            self._fault()
            self.run(self.rng.choice((0.05, 0.3, 1.0, 3.0)))
        self.world.network.heal()
        for process in self.processes.values():
            process.resume()
            if not process.alive:
                process.start()
        self.run(REST_S)
        self.at_rest()

    def _fault(self) -> None:
        node = self.rng.choice(sorted(self.processes))
        process = self.processes[node]
        if self.rng.random() < 0.3 and self.agreement.leader in self.processes:
            process = self.processes[self.agreement.leader]
        kind = self.rng.choice(FAULTS)
        self.counts[kind] += 1
        others = sorted(name for name in self.world.machines if name != process.machine.name)
        match kind:
            case "kill":
                process.kill()
            case "start" if not process.alive:
                process.start()
            case "pause":
                process.pause()
            case "resume":
                process.resume()
            case "cut" | "cut one way":
                other = self.rng.choice(others)
                self.world.network.cut(process.machine.name, other, both=kind == "cut")
            case "isolate":
                self.world.network.isolate(process.machine.name)
            case "heal":
                self.world.network.heal()
            case "elect":
                self.agreement.transfer(self.rng.choice(self.agreement.candidates))
            case "join" if len(self.processes) < NODES + 2:
                self.add(len(self.processes) + 1)
            case _:
                pass


def walk_many(
    walks: int,
    *,
    first_seed: int = 0,
    node_type: type[ControlNode] = ControlNode,
    counts: Counter[str] | None = None,
) -> tuple[int, str] | None:
    """Walk with many seeds; return the first that found a violation and what it is, or None."""
    for seed in range(first_seed, first_seed + walks):
        walk = Walk(seed, node_type)
        with walk:
            try:
                walk.walk()
            except (ViolationError, AssertionError) as error:
                return seed, str(error)
            if counts is not None:
                counts.update(walk.counts)
                counts["election"] += walk.agreement.elections
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run walks from the command line; 1 if one found a violation."""
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.control_walk")
    parser.add_argument("--walks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    total: Counter[str] = Counter()
    failed = walk_many(
        options.walks,
        first_seed=options.seed,
        node_type=MUTANTS.get(options.mutant, ControlNode),
        counts=total,
    )
    if failed is not None:
        print(f"seed {failed[0]}: {failed[1]}")
        return 1
    for event, count in sorted(total.items()):
        print(f"{count:9} {event}")
    print(f"no violation in {options.walks} walks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
