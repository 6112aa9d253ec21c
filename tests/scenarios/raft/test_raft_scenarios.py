"""Scenarios in text about bare Raft cores: what is done above the line, what follows below it.

`pytest tests/scenarios/raft --rewrite` writes what happens now; read the diff. Messages and
syncs wait until the scenario lets them go, so that every order can be told.

Verbs: `group 1 2 3 [outside 4 5]`, `set <setting> <number>`, `campaign 1`, `tick 1 [n]`,
`propose 1 x [y ...]`, `read 1 name`, `change 1 voters 1,2 [learners 3]`, `transfer 1 2`,
`sync 1 [...]` (write what waits, send what it promised), `deliver 2 [n]` (all or the next n
messages for node 2), `lose 2` (those for node 2), `settle [quiet]` (sync and deliver until
nothing happens), `cut 1 2`, `heal`, `crash 1` (forget what was not synced, start again),
`compact 1 [keep]`, `status [1 ...]`, `log 1`, `story 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from raft_group import Group

from ssgovern.model import NodeId
from ssgovern.raft import Raft, Refusal, describe
from ssgovern.raft.messages import Message, describe_entry

HERE = Path(__file__).parent
SCENARIOS = sorted(HERE.glob("*.txt"))
LINE = "----"


def ids(text: str) -> list[NodeId]:
    return [NodeId(int(part)) for part in text.split(",") if part]


class Stage:
    """Runs the verbs of one scenario."""

    def __init__(self) -> None:
        self.group = Group(self.say)
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def run(self, line: str) -> None:
        verb, *arguments = line.split()
        handler: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        assert handler is not None, f"no verb {verb!r}: {line}"
        self.say(f"> {line}")
        handler(*arguments)
        self.group.validate()

    def _core(self, node: str) -> Raft:
        return self.group.cores[NodeId(int(node))]

    def _answer(self, answer: object) -> None:
        if isinstance(answer, Refusal):
            self.say(f"refused: {answer.value}")

    def do_set(self, setting: str, number: str) -> None:
        self.group.settings = self.group.settings._replace(**{setting: int(number)})

    def do_group(self, *words: str) -> None:
        voters, _, outside = " ".join(words).partition(" outside ")
        self.group.start(ids(voters.replace(" ", ",")), ids(outside.replace(" ", ",")))

    def do_campaign(self, node: str) -> None:
        self._core(node).campaign()

    def do_tick(self, node: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self._core(node).tick()

    def do_propose(self, node: str, *payloads: str) -> None:
        for payload in payloads:
            self._answer(self._core(node).propose(payload.encode()))

    def do_read(self, node: str, name: str) -> None:
        self._answer(self._core(node).read(name))

    def do_change(self, node: str, _: str, voters: str, __: str = "", learners: str = "") -> None:
        self._answer(self._core(node).change_members(ids(voters), ids(learners)))

    def do_transfer(self, node: str, target: str) -> None:
        self._answer(self._core(node).transfer(NodeId(int(target))))

    def do_sync(self, *nodes: str) -> None:
        for node in nodes:
            self.group.sync(NodeId(int(node)))

    def do_deliver(self, node: str, count: str = "1000") -> None:
        self.group.deliver(NodeId(int(node)), int(count))

    def do_lose(self, node: str) -> None:
        self.group.lose(NodeId(int(node)))

    def do_settle(self, quiet: str = "") -> None:
        said = list(self.said)
        self.group.settle()
        if quiet:
            self.said[:] = said

    def do_cut(self, one: str, other: str) -> None:
        self.group.cut(NodeId(int(one)), NodeId(int(other)))

    def do_heal(self) -> None:
        self.group.heal()

    def do_crash(self, node: str) -> None:
        self.group.crash(NodeId(int(node)))

    def do_compact(self, node: str, keep: str = "0") -> None:
        self.group.compact(NodeId(int(node)), int(keep))

    def do_status(self, *nodes: str) -> None:
        for node in nodes or self.group.cores:
            core = self._core(str(node))
            self.say(f"{core!r} {core.log.config!r}")

    def do_log(self, node: str) -> None:
        log = self._core(node).log
        for entry in log.entries(log.base_index + 1, log.last_index):
            mark = "" if entry.index <= log.commit else " (not committed)"
            self.say(f"{node}: {describe_entry(entry)}{mark}")

    def do_story(self, node: str) -> None:
        for line in self._core(node).story():
            self.say(f"{node}: {line}")


def play(text: str) -> str:
    """Return the scenario with what happens now below the line."""
    script = text.split(f"\n{LINE}\n")[0].rstrip("\n").removesuffix(f"\n{LINE}")
    stage = Stage()
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            stage.run(line.strip())
    return "\n".join([script, LINE, *stage.said]) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_raft_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    """What happens is what the scenario says."""
    text = path.read_text(encoding="utf-8")
    played = play(text)
    if pytestconfig.getoption("--rewrite"):
        path.write_text(played, encoding="utf-8")
        return
    assert played == text, f"{path.name}: --rewrite writes what happens now"


def test_there_are_raft_scenarios() -> None:
    """The folder is not empty, and no scenario is without its expected part."""
    assert len(SCENARIOS) >= 8
    assert all(f"\n{LINE}\n" in path.read_text(encoding="utf-8") for path in SCENARIOS)


def test_a_raft_verb_that_does_not_exist() -> None:
    """A slip in a scenario fails instead of doing nothing."""
    with pytest.raises(AssertionError, match="no verb"):
        play("grup 1 2\n")


def test_every_message_reads_as_one_line() -> None:
    """What the group said before it was started is nothing, and lines name both ends."""
    lines: list[str] = []
    group = Group(lines.append)
    group.start([NodeId(1), NodeId(2)], [])
    group.cores[NodeId(1)].campaign()
    messages: list[Message] = group.cores[NodeId(1)].urgent()
    assert [describe(message) for message in messages] == ["1->2 PreVote term=1 last=0/0"]
