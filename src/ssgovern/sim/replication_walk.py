"""Random walks over the replication cores: one shard, every fault, no clock.

A walk is its seed, and repeats exactly. Messages are lost, doubled and reordered; nodes stand
still, crash with what the disk had not synced, sometimes lose what it had; the controller
suspects anybody at any time, twice in a row if it likes; its mail arrives late or again. Then
everything heals, and the shard has to come back: all replicas equal, in sync, taking writes.

`replication_model` holds the checks; `replication_mutants` planted bugs, each of which these
walks have to find.

    python -m ssgovern.sim.replication_walk --walks 1000 [--seed 0] [--mutant NAME]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ssgovern.model import NodeId
from ssgovern.replication.messages import ACKS_ALL
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.sim.replication_controller import CONTROLLER
from ssgovern.sim.replication_model import Cluster, ModelNode, ViolationError
from ssgovern.sim.replication_mutants import HONEST, MUTANTS, Mutant

STEPS_PER_WALK: Final = 1_000
HEAL_ROUNDS_MAX: Final = 2_000
PARCELS_MAX: Final = 120
CALM_PARCELS_MAX: Final = 100
STORY_LINES: Final = 60


@dataclass(slots=True)
class WalkReport:
    """`counts`: how often each kind of event happened."""

    seed: int
    steps: int = 0
    committed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violation: str | None = None
    story: list[str] = field(default_factory=list)


class Walk:
    """One walk; all its choices come from its seed."""

    def __init__(self, seed: int, mutant: Mutant = HONEST) -> None:
        self._rng = rng = random.Random(seed)
        self.report = WalkReport(seed)
        self._story: deque[str] = deque(maxlen=STORY_LINES)
        self._count = rng.choice((2, 3, 3, 4))
        minimum = rng.choice((1, 2, 2)) if self._count > 2 else rng.choice((1, 2))
        lossy = mutant is HONEST and rng.random() < 0.15
        settings = ReplicationSettings(
            acks=rng.choice((1, 2)) if lossy else ACKS_ALL,
            min_in_sync=minimum,
            in_flight_max=rng.choice((1, 2, 4)),
            append_entries_max=rng.choice((1, 3, 8)),
            append_bytes_max=rng.choice((4, 64)),
            lag_ms_max=rng.choice((5, 40)),
            snapshot_ticks_max=2,
        )
        self._disk_speed = rng.choice((0.3, 0.7, 1.0))
        self._trouble_from = rng.choice((0.93, 0.98, 0.995))
        self._loses_disk = rng.random() < 0.3
        self._snapshots = rng.random() < 0.6
        self._written = 0
        self.cluster = Cluster(
            self._count,
            settings,
            cores=mutant.cores,
            controller=mutant.controller,
            choose=rng.choice,
            tell=self._story.append,
        )
        self._ids = list(self.cluster.nodes)
        self._paused: list[NodeId] = []

    def run(self) -> WalkReport:
        report = self.report
        try:
            for _ in range(STEPS_PER_WALK):
                self._step()
                report.steps += 1
            self._heal()
        except AssertionError as error:
            # Also what the cores assert of themselves.
            report.violation = str(error) or repr(error)
        for node in self.cluster.nodes.values():
            if node.core is not None:
                for line in node.core.story():
                    report.counts[_kind_of(line)] += 1
        report.committed = self.cluster.truth.committed.revision
        report.story = list(self._story)
        return report

    # --- one step --------------------------------------------------------------------------

    def _step(self) -> None:
        rng, cluster = self._rng, self.cluster
        chance = rng.random()
        if chance < 0.55 and cluster.parcels:
            self._deliver_one()
            cluster.check_reads()
            return
        node = cluster.nodes[rng.choice(self._ids)]
        if node.node in self._paused:
            return
        if chance < 0.66:
            self._maybe_write(node)
        elif chance < 0.84:
            node.run_queue(rng.choice((1, 2, 8)) if rng.random() < self._disk_speed else 0)
        elif chance < self._trouble_from:
            cluster.now_ms += rng.choice((0, 1, 5))
            node.tick()
        else:
            self._trouble(node)

    def _deliver_one(self) -> None:
        rng, parcels = self._rng, self.cluster.parcels
        if len(parcels) > PARCELS_MAX:
            del parcels[: PARCELS_MAX // 2]
        index = rng.randrange(len(parcels)) if rng.random() < 0.3 else 0
        chance = rng.random()
        parcel = parcels[index] if chance < 0.03 else parcels.pop(index)
        source, target, message = parcel
        if chance > 0.97:
            self._tell("loss", parcel)
            return
        if target in self._paused:
            parcels.append(parcel)
            return
        self._tell("delivery", parcel)
        self.cluster.deliver(source, target, message)

    def _maybe_write(self, node: ModelNode) -> None:
        core = node.core
        if isinstance(core, ReplicatedPrimary) and core.refusal(self.cluster.now_ms) is None:
            self._written += 1
            self._tell("write", node.node)
            node.propose(b"%d" % self._written)

    def _trouble(self, node: ModelNode) -> None:
        rng, controller = self._rng, self.cluster.controller
        what = rng.choices(_TROUBLES, _WEIGHTS)[0]
        self._tell(what, node.node)
        if what == "suspicion":
            controller.fence(node.node)
        elif what == "double failover":
            for _ in range(2):
                if controller.primary is not None:
                    controller.fence(controller.primary)
        elif what == "reprieve":
            controller.unfence(node.node)
        elif what == "transfer":
            controller.transfer(node.node)
        elif what == "crash":
            self._crash(node)
        elif what == "full disk":
            node.fill_disk()
        elif what == "snapshot":
            if self._snapshots:
                node.snapshot(rng.choice((0, 2, 10)))
        elif what == "pause":
            self._paused = [] if self._paused else [node.node]
        elif what == "repeat":
            controller.repeat()
            for each in self.cluster.nodes.values():
                each.register()
                each.on_link(node.node)
        else:
            self._cut()

    def _crash(self, node: ModelNode) -> None:
        rng = self._rng
        lost = rng.randint(1, 5) if self._loses_disk and rng.random() < 0.3 else 0
        if lost:
            self._tell("lost entries", node.node)
        node.crash(rng.randint(0, 3), lost)

    def _cut(self) -> None:
        rng = self._rng
        ends = [CONTROLLER, *self._ids]
        self.cluster.cut = []
        if rng.random() < 0.5:
            for _ in range(3):
                source, target = rng.sample(ends, 2)
                self.cluster.cut.append((source, target))

    def _tell(self, event: str, detail: object) -> None:
        self.report.counts[event] += 1
        self._story.append(f"{event} {detail}")

    # --- the end ---------------------------------------------------------------------------

    def _heal(self) -> None:
        """With nothing in the way, all nodes end in sync and equal, and a write commits."""
        cluster = self.cluster
        cluster.cut = []
        self._paused = []
        for node in cluster.nodes.values():
            for other in self._ids:
                node.on_link(other)
        for round_number in range(HEAL_ROUNDS_MAX):
            self._calm_round()
            if cluster.controller.primary is None and round_number > 5:
                self._check_hopeless()
                return
            if round_number > 20 and len(cluster.parcels) > CALM_PARCELS_MAX:
                raise ViolationError(f"{len(cluster.parcels)} messages where nothing happens")
            if self._converged():
                self._tell("convergence", "")
                return
        raise ViolationError(
            f"no convergence after all healed: {cluster.controller.row()} "
            f"{[(node, node.core.story() if node.core else '') for node in cluster.nodes.values()]}"
        )

    def _calm_round(self) -> None:
        cluster = self.cluster
        cluster.now_ms += 1
        cluster.controller.repeat()
        for node in cluster.nodes.values():
            node.register()
            cluster.controller.unfence(node.node)
            node.tick()
        primary = cluster.controller.primary
        if primary is not None and self._rng.random() < 0.1:
            self._maybe_write(cluster.nodes[primary])
        parcels, cluster.parcels = cluster.parcels, []
        for parcel in parcels:
            cluster.deliver(*parcel)
        for node in cluster.nodes.values():
            node.run_queue(len(node.queue))
        cluster.check()

    def _converged(self) -> bool:
        cluster = self.cluster
        controller = cluster.controller
        if len(controller.in_sync) < self._count:
            return False
        nodes = [*cluster.nodes.values()]
        first = nodes[0]
        primary = nodes[self._ids.index(controller.primary)].core if controller.primary else None
        if not isinstance(primary, ReplicatedPrimary) or not primary.serving:
            return False
        if any(node.applied.revision != primary.tail for node in nodes):
            return False
        if any(node.digest != first.digest for node in nodes):
            raise ViolationError(f"different states at {first.applied}: {nodes}")
        return True

    def _check_hopeless(self) -> None:
        """No primary is right only where every node that held it all has lost something."""
        self._tell("nobody left", "")
        if not self._loses_disk:
            raise ViolationError("no primary, though no disk lost anything")


def _kind_of(line: str) -> str:
    """Return the kind of a line of a core's story: its first words without names and numbers."""
    return " ".join(word for word in line.split()[:3] if word.isalpha())


_TROUBLE_WEIGHTS: Final = {
    "suspicion": 5,
    "double failover": 2,
    "reprieve": 6,
    "transfer": 2,
    "crash": 5,
    "full disk": 2,
    "snapshot": 3,
    "pause": 2,
    "repeat": 4,
    "cut": 3,
}
_TROUBLES: Final = tuple(_TROUBLE_WEIGHTS)
_WEIGHTS: Final = tuple(_TROUBLE_WEIGHTS.values())


def walk(
    walks: int,
    first_seed: int = 0,
    mutant: Mutant = HONEST,
    on_report: Callable[[WalkReport], None] | None = None,
) -> WalkReport | None:
    """Walk; return the report of the first walk with a violation, or None."""
    for seed in range(first_seed, first_seed + walks):
        report = Walk(seed, mutant).run()
        if on_report is not None:
            on_report(report)
        if report.violation is not None:
            return report
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first walk")
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    options = parser.parse_args(arguments)
    total: Counter[str] = Counter()

    def add(report: WalkReport) -> None:
        total.update(report.counts)
        total.update({"walk": 1, "step": report.steps, "entry committed": report.committed})

    mutant = MUTANTS[options.mutant] if options.mutant else HONEST
    failed = walk(options.walks, options.seed, mutant, add)
    for event, count in sorted(total.items()):
        print(f"{count:>12} x {event}")
    if failed is None:
        return 0
    print("\n".join(failed.story))
    print(f"seed {failed.seed}, step {failed.steps}: {failed.violation}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
