"""The controller in text: what happens to nodes above the line, what is decided below it.

`pytest tests/scenarios/controller --rewrite` writes what happens now; read the diff.

Verbs: `cluster shards=2 copies=3 min=2 moves=8 initial=3`, `join 1 [zone=a]`, `start 1
[damaged=0,1]` (its process, anew), `silent 1 2`, `time 5000` (all others are heard at its end),
`pass`, `obey` (nodes do what the map asks: catch up, hand over), `settle` (both until nothing is
left to do), `take_over` (another candidate replays the log and is controller), `in_sync 0 1,2
[sessions=1,1] [version=3]` (the primary of shard 0 asks), `leave 1`, `stay 1`, `transfer 0 2`,
`unclean 0 2`, `gone 1` (silent, and its process is known to be gone), `stuck 1` and `well 1` (it
neither catches up nor hands over; it does again), `shards`, `nodes`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ssgovern.controller.codec import decode_record, encode_record
from ssgovern.controller.controller import Controller
from ssgovern.controller.nodes import Registration
from ssgovern.controller.replicas import InSyncRequest
from ssgovern.controller.requests import Unclean, decide_requests
from ssgovern.controller.rules import Decision
from ssgovern.controller.state import ClusterState, Settings
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId, ShardId
from ssgovern.sim.controller_scale import TameCluster

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.txt"))
LINE = "----"


class LoggedCluster(TameCluster):
    """A tame cluster that keeps its log, so that another controller can replay it."""

    def __init__(self, settings: Settings, shards: int) -> None:
        super().__init__(settings, shards)
        self.founded = self.controller.state.copy()
        self.log: list[bytes] = []
        self.told = 0

    def commit(self, decision: Decision) -> None:
        self.log += [encode_record(record) for record in decision.records]
        super().commit(decision)

    def take_over(self) -> None:
        state: ClusterState = self.founded.copy()
        for body in self.log:
            state.replay(decode_record(body))
        self.controller = Controller(state, self.now_ms)


def ids(text: str) -> list[NodeId]:
    return [NodeId(int(number)) for number in text.split(",") if number]


def joined(nodes: tuple[NodeId, ...]) -> str:
    return ",".join(str(node) for node in nodes) or "-"


class Stage:
    """Runs the verbs of one scenario."""

    def __init__(self) -> None:
        self.cluster = LoggedCluster(Settings(), 2)
        self.said: list[str] = []

    def run(self, line: str) -> None:
        words = line.split()
        verb = words[0]
        options = dict(word.split("=") for word in words[1:] if "=" in word)
        handler: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        assert handler is not None, f"no verb {verb!r}: {line}"
        self.said.append(f"> {line}")
        try:
            handler(*[word for word in words[1:] if "=" not in word], **options)
        except SsGovernError as error:
            self.said.append(f"{type(error).__name__}: {error}")
        self.said += self.cluster.sentences
        self.cluster.sentences.clear()
        self.cluster.state.validate()

    def do_cluster(self, **options: str) -> None:
        settings = Settings(
            copies=int(options.get("copies", 3)),
            min_in_sync=int(options.get("min", 1)),
            moves_max=int(options.get("moves", 8)),
            nodes_initial=int(options.get("initial", 1)),
        )
        self.cluster = LoggedCluster(settings, int(options.get("shards", 2)))

    def do_join(self, number: str, zone: str = "") -> None:
        self.cluster.join(int(number), zone)

    def do_start(self, number: str, damaged: str = "", address: str = "") -> None:
        node = self.cluster.state.nodes[NodeId(int(number))]
        asked = Registration(
            node.id,
            node.name,
            address or node.address,
            node.zone,
            node.directory_id,
            b"boot after %d" % node.session,
            damaged=tuple(ShardId(shard) for shard in ids(damaged)),
        )
        decision = self.cluster.controller.decide_registration(asked, self.cluster.now_ms)
        self.cluster.away.pop(node.id, None)
        self.cluster.commit(decision)

    def do_silent(self, *numbers: str) -> None:
        self.cluster.away |= dict.fromkeys(NodeId(int(number)) for number in numbers)

    def do_gone(self, number: str) -> None:
        self.do_silent(number)
        self.cluster.controller.note_gone(NodeId(int(number)), gone=True)

    def do_stuck(self, number: str) -> None:
        self.cluster.stuck[NodeId(int(number))] = None

    def do_well(self, number: str) -> None:
        del self.cluster.stuck[NodeId(int(number))]

    def do_unclean(self, shard: str, number: str) -> None:
        cluster = self.cluster
        request = Unclean(ShardId(int(shard)), NodeId(int(number)))
        controller = cluster.controller
        decided = decide_requests(
            controller.state, controller.soft, controller.rules, [request], cluster.now_ms
        )
        (outcome,) = decided.outcomes
        if isinstance(outcome, SsGovernError):
            raise outcome
        cluster.commit(outcome)

    def do_time(self, ms: str) -> None:
        self.cluster.wait(float(ms))

    def do_pass(self) -> None:
        if not self.cluster.look().records and not self.cluster.sentences:
            self.said.append("nothing to do")

    def do_obey(self) -> None:
        self.cluster._obey()

    def do_settle(self) -> None:
        self.cluster.settle()

    def do_take_over(self) -> None:
        self.cluster.take_over()

    def do_in_sync(self, shard: str, nodes: str, sessions: str = "", version: str = "") -> None:
        state = self.cluster.state
        row = state.rows[int(shard)]
        members = ids(nodes)
        named = ids(sessions) or [NodeId(state.nodes[node].session) for node in members]
        asked = InSyncRequest(
            ShardId(int(shard)),
            row.primary,
            state.nodes[row.primary].session,
            row.epoch,
            int(version or row.version),
            tuple(zip(members, named, strict=True)),
        )
        self.cluster.commit(self.cluster.controller.decide_in_sync(asked))

    def do_leave(self, number: str) -> None:
        self.cluster.commit(self.cluster.controller.decide_leave(NodeId(int(number))))

    def do_stay(self, number: str) -> None:
        self.cluster.commit(self.cluster.controller.decide_stay(NodeId(int(number))))

    def do_transfer(self, shard: str, to: str) -> None:
        decision = self.cluster.controller.decide_transfer(ShardId(int(shard)), NodeId(int(to)))
        self.cluster.commit(decision)

    def do_shards(self) -> None:
        self.said.append(f"map version {self.cluster.state.map_version}")
        for shard, row in enumerate(self.cluster.state.rows):
            parts = [
                f"shard {shard} epoch {row.epoch} version {row.version}",
                f"primary {row.primary or '-'}",
                f"holders {joined(row.holders)}",
                f"in sync {joined(row.in_sync)}",
            ]
            parts += [f"eligible {joined(row.eligible)}"] if row.eligible else []
            parts += [f"{row.incoming} comes"] if row.incoming else []
            parts += [f"{row.outgoing} goes"] if row.outgoing else []
            parts += [f"{row.successor} follows"] if row.successor else []
            self.said.append("; ".join(parts))

    def do_nodes(self) -> None:
        for node in self.cluster.state.sorted_nodes():
            marks = ["live" if node.live else "fenced"]
            marks += ["leaving"] if node.leaving else []
            marks += ["given up"] if node.lost else []
            self.said.append(f"node {node.id} session {node.session} {', '.join(marks)}")


def play(text: str) -> str:
    """Return the scenario with what happens now below the line."""
    script = text.split(f"\n{LINE}\n")[0].rstrip("\n").removesuffix(f"\n{LINE}")
    stage = Stage()
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            stage.run(line.strip())
    return "\n".join([script, LINE, *stage.said]) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_controller_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    """What is decided is what the scenario says."""
    text = path.read_text(encoding="utf-8")
    played = play(text)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(played, encoding="utf-8")
        return
    assert played == text, f"{path.name}: --rewrite writes what happens now"


def test_there_are_controller_scenarios() -> None:
    """The folder is not empty, and no scenario is without its expected part."""
    assert len(SCENARIOS) >= 8
    assert all(f"\n{LINE}\n" in path.read_text(encoding="utf-8") for path in SCENARIOS)
