"""Scenarios in text: how the log of one shard is replicated. Above the line what befalls the
nodes, below it what they say to each other.

The cores are the real ones, disks and controller a model, messages arrive in order unless held.
`pytest tests/scenarios/replication --rewrite` writes what happens now; read the diff.

The first line makes the shard: `nodes 3 primary=1 epoch=4 entries=17 [min_in_sync=2] [acks=1]`.
Then: `put via=1 key=a [times=3]`, `tick 1`, `pause 1` and `resume 1`, `promote 2` (and fence the
primary there was), `fence 3`, `reprieve 3`, `transfer 2`, `crash 2 [lost=1]`, `cut 1 C` (both
ways), `heal`, `disk 1 hold|go|full`, `snapshot 1`, `replay ProposeInSync` (the last of its kind,
again), `show`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ssgovern.model import NodeId
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Assigned,
    Fenced,
    InstallSnapshot,
    InSyncRefused,
    LogItem,
    Mismatch,
    ProposeInSync,
)
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.sim.replication_controller import CONTROLLER, ModelController, Parcel
from ssgovern.sim.replication_model import Cluster, Cores, Truth

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.txt"))
LINE = "----"
PARCELS_MAX = 5_000


def describe(parcel: Parcel) -> str:
    """Return what a message says, without what is the same in all of them."""
    match parcel:
        case AppendEntries():
            text = f"epoch={parcel.epoch} prev={parcel.prev}"
            if parcel.entries:
                keys = ",".join(entry.body.decode() or "(start)" for entry in parcel.entries)
                text += f" entries={keys}"
            text += f" committed={parcel.committed}"
        case InstallSnapshot():
            text = f"epoch={parcel.epoch} position={parcel.position}"
        case Appended():
            text = f"epoch={parcel.epoch} held={parcel.held}"
        case Mismatch():
            text = f"epoch={parcel.epoch} prev={parcel.prev} hint={parcel.hint}"
            text += f" floor={parcel.floor}"
        case Fenced():
            text = f"epoch={parcel.epoch}"
        case Assigned():
            members = ",".join(f"{m.node}/{m.node_epoch}" for m in parcel.in_sync)
            text = f"epoch={parcel.epoch} version={parcel.version} primary={parcel.primary}"
            text += f" in_sync={members}"
        case ProposeInSync():
            members = ",".join(f"{m.node}/{m.node_epoch}" for m in parcel.in_sync)
            text = f"epoch={parcel.epoch} version={parcel.version} in_sync={members}"
        case InSyncRefused():
            text = f"epoch={parcel.epoch} version={parcel.version}"
        case _:
            text = ""
    return f"{type(parcel).__name__} {text}".rstrip()


def name_of(node: NodeId) -> str:
    return "C" if node == CONTROLLER else str(node)


class TellingTruth(Truth):
    def __init__(self, tell: Callable[[str], None], *, lossy: bool) -> None:
        super().__init__(lossy)
        self.tell = tell
        self.highest = 0

    def on_commit(self, entry: LogItem) -> None:
        super().on_commit(entry)
        if entry.revision > self.highest:
            self.highest = entry.revision
            what = entry.body.decode() or "(start)"
            self.tell(f"committed {what} at {entry.epoch}/{entry.revision}")


class TellingCluster(Cluster):
    """Says what is sent; lines that differ in the receiver only become one."""

    said: list[tuple[str, list[str], str]]

    def send(self, source: NodeId, target: NodeId, parcel: Parcel) -> None:
        text = describe(parcel)
        lost = " (lost)" if (source, target) in self.cut else ""
        last = self.said[-1] if self.said else None
        if last is not None and (last[0], last[2]) == (name_of(source), text + lost):
            last[1].append(name_of(target))
        else:
            self.said.append((name_of(source), [name_of(target)], text + lost))
        super().send(source, target, parcel)


class Stage:
    """Runs the verbs of one scenario."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.paused: list[NodeId] = []
        self.held_disks: list[NodeId] = []
        self.preferred = NodeId(1)
        self.delivered: dict[str, tuple[NodeId, NodeId, Parcel]] = {}

    def say(self, line: str) -> None:
        self.cluster.said.append(("", [], line))

    def run(self, line: str) -> None:
        verb, *rest = line.split()
        words = [word for word in rest if "=" not in word]
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        handler: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        assert handler is not None, f"no verb {verb!r}: {line}"
        self.lines.append(f"> {line}")
        handler(*words, **named)
        if verb != "resume":
            self.settle()
        if verb == "nodes":
            self.cluster.said.clear()
            self.do_show()
        self.flush()

    def flush(self) -> None:
        for source, targets, text in self.cluster.said:
            arrow = f"{source}->{','.join(targets)}"
            self.lines.append(f"{arrow:<7} {text}" if source else text)
        self.cluster.said.clear()

    def settle(self) -> None:
        cluster = self.cluster
        for _ in range(PARCELS_MAX):
            for node in cluster.nodes.values():
                if node.node not in self.held_disks and node.node not in self.paused:
                    node.run_queue(len(node.queue))
            index = next(
                (i for i, p in enumerate(cluster.parcels) if p[1] not in self.paused), None
            )
            if index is None:
                cluster.check()
                return
            parcel = cluster.parcels.pop(index)
            self.delivered[type(parcel[2]).__name__] = parcel
            cluster.deliver(*parcel)
        raise AssertionError("the nodes never stop talking")

    # --- verbs -----------------------------------------------------------------------------

    def do_nodes(
        self,
        count: str,
        primary: str,
        epoch: str,
        entries: str,
        min_in_sync: str = "1",
        acks: str = "0",
    ) -> None:
        self.preferred = NodeId(int(primary))
        settings = ReplicationSettings(
            acks=int(acks), min_in_sync=int(min_in_sync), append_entries_max=4, lag_ms_max=50
        )
        TellingCluster.said = []
        self.cluster = cluster = TellingCluster(
            int(count),
            settings,
            cores=Cores(),
            controller=ModelController,
            choose=self.choose,
            tell=lambda line: self.say(line),
        )
        cluster.truth = TellingTruth(self.say, lossy=settings.acks != 0)
        cluster.controller.epoch = int(epoch) - 1
        self.settle()
        for number in range(1, int(entries)):
            cluster.nodes[self.preferred].propose(b"%d" % number)
            self.settle()

    def choose(self, candidates: Sequence[NodeId]) -> NodeId:
        return self.preferred if self.preferred in candidates else max(candidates)

    def do_put(self, via: str, key: str, times: str = "1") -> None:
        node = self.cluster.nodes[NodeId(int(via))]
        for number in range(int(times)):
            core = node.core
            if not isinstance(core, ReplicatedPrimary):
                self.say("client  ShardMovedError")
                return
            refusal = core.refusal(self.cluster.now_ms)
            if refusal is not None:
                self.say(f"client  {type(refusal).__name__}: {refusal}")
                return
            node.propose((key if times == "1" else f"{key}{number + 1}").encode())

    def do_tick(self, node: str, ms: str = "1") -> None:
        self.cluster.now_ms += int(ms)
        self.cluster.nodes[NodeId(int(node))].tick()

    def do_pause(self, node: str) -> None:
        self.paused.append(NodeId(int(node)))

    def do_resume(self, node: str) -> None:
        self.paused.remove(NodeId(int(node)))

    def do_promote(self, node: str) -> None:
        self.preferred = NodeId(int(node))
        primary = self.cluster.controller.primary
        assert primary is not None
        self.cluster.controller.fence(primary)

    def do_transfer(self, node: str) -> None:
        self.cluster.controller.transfer(NodeId(int(node)))

    def do_fence(self, node: str) -> None:
        self.cluster.controller.fence(NodeId(int(node)))

    def do_reprieve(self, node: str) -> None:
        self.cluster.controller.unfence(NodeId(int(node)))

    def do_crash(self, node: str, lost: str = "0") -> None:
        self.cluster.nodes[NodeId(int(node))].crash(0, int(lost))
        for other in self.cluster.nodes.values():
            other.on_link(NodeId(int(node)))

    def do_cut(self, one: str, other: str) -> None:
        ends = [CONTROLLER if end == "C" else NodeId(int(end)) for end in (one, other)]
        self.cluster.cut += [(ends[0], ends[1]), (ends[1], ends[0])]

    def do_heal(self) -> None:
        self.cluster.cut.clear()
        for node in self.cluster.nodes.values():
            for other in self.cluster.nodes:
                node.on_link(other)
            row = self.cluster.controller.row()
            if row.version > node.version:
                self.cluster.send(CONTROLLER, node.node, row)

    def do_disk(self, node: str, what: str) -> None:
        number = NodeId(int(node))
        if what == "hold":
            self.held_disks.append(number)
        elif number in self.held_disks:
            self.held_disks.remove(number)
        if what == "full":
            self.cluster.nodes[number].fill_disk()

    def do_snapshot(self, node: str) -> None:
        self.cluster.nodes[NodeId(int(node))].snapshot(0)

    def do_replay(self, kind: str) -> None:
        self.cluster.parcels.append(self.delivered[kind])

    def do_show(self) -> None:
        for node in self.cluster.nodes.values():
            self.say(f"{node.node}       {node.core!r}")


def run(text: str) -> str:
    stage = Stage()
    script, _, _ = text.partition(f"{LINE}\n")
    for line in script.splitlines():
        if line and not line.startswith("#"):
            stage.run(line)
    return f"{script}{LINE}\n" + "\n".join(stage.lines) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """What happens is what the scenario says."""
    before = path.read_text()
    now = run(before)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == before
