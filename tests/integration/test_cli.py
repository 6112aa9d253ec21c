"""The command against a real node: what people type, in real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest
from processes import free_port

from ssgovern.runtime.real import RealDisk

TIMEOUT_S = 30.0
PROGRAM = (sys.executable, "-m", "ssgovern.cli.main")


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SS_GOVERN_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}


class Running:
    """A command that runs. Its lines are read as they come."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._lines: Queue[str] = Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors.append)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, take: Callable[[str], None]) -> None:
        for line in stream:
            take(line)

    def line_with(self, text: str) -> str:
        """Wait for a line that holds a text, and return it."""
        seen = []
        while True:
            try:
                line = self._lines.get(timeout=TIMEOUT_S)
            except Empty:
                raise AssertionError(f"no {text!r} in {seen}, errors {self.errors}") from None
            seen.append(line)
            if text in line:
                return line

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if told to, and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_S)
        self.close()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Node(Running):
    """A server, ready."""

    def __init__(self, data_dir: Path, port: int, *options: str) -> None:
        super().__init__("server", "-d", str(data_dir), "-p", str(port), *options)
        self.address = f"127.0.0.1:{port}"
        self.line_with("Ctrl-C")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "-s", self.address)

    def json(self, *arguments: str) -> dict:
        done = self.run(*arguments, "--json")
        assert done.stderr == ""
        return json.loads(done.stdout)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def launch(*arguments: str) -> Running:
        running.append(Running(*arguments))
        return running[-1]

    yield launch
    for one in running:
        one.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    server = Node(tmp_path / "node", free_port())
    yield server
    server.close()


def registered(start: Callable[..., Running], node: Node, *arguments: str) -> Running:
    one = start("register", *arguments, "--host", "127.0.0.1", "-s", node.address)
    one.line_with("registered")
    return one


def test_an_instance_from_register_to_deregister(node: Node, start: Callable[..., Running]) -> None:
    """It is listed with all it said while the command runs, and gone after SIGTERM, exit 0."""
    one = registered(
        start,
        node,
        *("orders", "-p", "8080", "-m", "lane=gray", "--zone", "z", "--version", "2"),
        *("-n", "prod", "-g", "shop"),
    )
    (listed,) = node.json("services", "-n", "prod")["services"]
    assert (listed["service"], listed["group"], listed["available"]) == ("orders", "shop", 1)
    assert node.json("services")["services"] == []

    (instance,) = node.json("get", "orders", "-n", "prod", "-g", "shop")["instances"]
    assert instance["id"] == "127.0.0.1:8080"
    assert (instance["zone"], instance["version"]) == ("z", "2")
    assert instance["metadata"] == {"lane": "gray"}
    table = node.run("get", "orders", "-n", "prod", "-g", "shop").stdout
    assert "127.0.0.1:8080" in table
    assert "\x1b" not in table

    assert one.end(signal.SIGTERM) == 0
    assert node.run("get", "orders", "-n", "prod", "-g", "shop").returncode == 1


def test_a_refusal_is_told_in_one_sentence(node: Node) -> None:
    """Wrong values end with 2 and their own message: no traceback, nothing about connections."""
    for arguments, message in (
        (("register", "orders", "--port", "0"), "Error: port 0: allowed are 1 to 65535."),
        (("register", "orders", "-p", "1", "--weight", "nan"), "Error: weight nan"),
        (("deregister", "orders", "i1", "--if-revision", "-1"), "Error: revision -1"),
        (("update", "orders", "i1", "--meta", "a=\udcff"), "Error: metadata 'a'"),
    ):
        refused = node.run(*arguments)
        assert refused.returncode == 2
        assert refused.stderr.startswith(message)
        assert refused.stderr.count("\n") == 1


def test_watch_shows_the_list_and_every_change(node: Node, start: Callable[..., Running]) -> None:
    """Added, changed in words, removed; for a prefix of services; Ctrl-C ends with 130."""
    registered(start, node, "payments", "-p", "1")
    watcher = start("watch", "pay*", "-s", node.address)
    assert "payments 127.0.0.1:1  up" in watcher.line_with("127.0.0.1:1")
    second = registered(start, node, "payouts", "-p", "2", "-m", "a=1")
    assert "payouts 127.0.0.1:2  up  a=1" in watcher.line_with("+ ")
    update = ("update", "payouts", "127.0.0.1:2")
    assert node.run(*update, "--weight", "5", "-m", "a=2", "--disable").returncode == 0
    assert "state up -> disabled, weight 100 -> 5, a=1 -> 2" in watcher.line_with("~ ")
    assert second.end(signal.SIGINT) == 0
    assert "payouts 127.0.0.1:2" in watcher.line_with("- ")
    assert watcher.end(signal.SIGINT) == 130
    assert "connection lost" not in watcher.errors


def test_watch_speaks_json_lines_and_leaves_after_enough_changes(
    node: Node, start: Callable[..., Running]
) -> None:
    """Programs get the list and then objects with whole instances."""
    watcher = start("watch", "orders", "--json", "--changes", "1", "-s", node.address)
    first = json.loads(watcher.line_with("event"))
    assert (first["event"], first["instances"]) == ("list", [])
    registered(start, node, "orders", "-p", "8080")
    change = json.loads(watcher.line_with("event"))
    assert change["event"] == "change"
    assert [added["id"] for added in change["added"]] == ["127.0.0.1:8080"]
    assert watcher.end() == 0


def test_update_and_deregister_change_what_another_process_registered(
    node: Node, start: Callable[..., Running]
) -> None:
    """The operator's commands reach any instance; what is not there is exit code 1."""
    registered(start, node, "orders", "-p", "8080", "-m", "a=1")
    changed = node.json(
        *("update", "orders", "127.0.0.1:8080", "--disable", "--clear-meta", "-m", "b=2")
    )["instance"]
    assert (changed["enabled"], changed["available"]) == (False, False)
    assert changed["metadata"] == {"b": "2"}
    revision = changed["revision"]
    conflict = node.run("deregister", "orders", "127.0.0.1:8080", "--if-revision", "1")
    assert conflict.returncode == 1
    assert "look at it again with `ss-govern get`" in conflict.stderr
    gone = ("deregister", "orders", "127.0.0.1:8080", "--if-revision", str(revision))
    assert node.json(*gone)["removed"] is True
    assert node.run("deregister", "orders", "127.0.0.1:8080").returncode == 1
    missing = node.run("update", "orders", "127.0.0.1:8080", "--enable")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr


def test_status_tells_how_the_node_is(node: Node, start: Callable[..., Running]) -> None:
    """People and programs see what is registered and where the data is."""
    registered(start, node, "orders", "-p", "8080")
    status = node.json("status")
    assert (status["services"], status["instances"]) == (1, 1)
    assert status["writes_refused"] == ""
    text = node.run("status").stdout
    assert "1 service, 1 instance" in text
    assert "accepted" in text


def test_a_node_that_was_killed_has_everything_and_its_clients_come_back(
    node: Node, start: Callable[..., Running], tmp_path: Path
) -> None:
    """kill -9 and a new start: listed as before, and a watcher is told of no change by it."""
    one = registered(start, node, "orders", "-p", "8080")
    watcher = start("watch", "orders", "-s", node.address)
    watcher.line_with("127.0.0.1:8080")
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    again = Node(tmp_path / "node", int(node.address.rpartition(":")[2]))
    try:
        assert len(again.json("get", "orders")["instances"]) == 1
        # The next thing the watcher hears is the end of the process that resumed its session.
        assert one.end(signal.SIGTERM) == 0
        assert watcher.line_with("127.0.0.1:8080").startswith("- ")
        assert "connected again" in watcher.errors
        assert watcher.end(signal.SIGINT) == 130
    finally:
        again.close()


def test_sigterm_stops_cleanly_and_the_log_can_be_inspected(
    node: Node, start: Callable[..., Running], tmp_path: Path
) -> None:
    """Exit 0; the directory is readable while the node runs and after; nothing is damaged."""
    registered(start, node, "orders", "-p", "8080")
    live = run("wal", "inspect", str(tmp_path / "node"), "--records", "--service", "orders")
    assert live.returncode == 0
    assert "registered default/default/orders 127.0.0.1:8080" in live.stdout
    assert node.end(signal.SIGTERM) == 0
    stopped = run("wal", "inspect", str(tmp_path / "node"), "--json")
    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["end"]["verdict"] in ("clean", "torn")


def test_a_second_signal_stops_at_once_and_loses_nothing(
    node: Node, start: Callable[..., Running], tmp_path: Path
) -> None:
    """Two signals that arrive together: exit 130 without the clean stop; the data is there."""
    registered(start, node, "orders", "-p", "8080")
    # While it is stopped both wait for it, so that the second comes before the first is done.
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
        node.process.send_signal(number)
    assert node.end(signal.SIGCONT) == 130
    again = Node(tmp_path / "node", int(node.address.rpartition(":")[2]))
    try:
        assert len(again.json("get", "orders")["instances"]) == 1
    finally:
        again.close()


def test_damage_in_the_middle_of_the_log_is_named(
    node: Node, start: Callable[..., Running], tmp_path: Path
) -> None:
    """`wal inspect` says where, exit code 1, and a node on that directory refuses to start."""
    registered(start, node, "orders", "-p", "8080")
    registered(start, node, "orders", "-p", "8081")
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    (segment,) = (tmp_path / "node" / "wal").glob("*.log")
    content = bytearray(segment.read_bytes())
    content[500] ^= 1
    segment.write_bytes(content)
    seen = run("wal", "inspect", str(tmp_path / "node"))
    assert seen.returncode == 1
    assert "corrupt: " in seen.stdout
    assert segment.name in seen.stdout
    refused = run("server", "-d", str(tmp_path / "node"), "-p", "0")
    assert refused.returncode == 1
    assert segment.name in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_directory_or_port_in_use_is_told_in_one_sentence(node: Node, tmp_path: Path) -> None:
    """A second node says what is in its way, exit code 2."""
    same_directory = run("server", "-d", str(tmp_path / "node"), "-p", "0")
    assert same_directory.returncode == 2
    assert "is in use by another process" in same_directory.stderr
    port = node.address.rpartition(":")[2]
    same_port = run("server", "-d", str(tmp_path / "other"), "-p", port)
    assert same_port.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in same_port.stderr
    assert "Traceback" not in same_directory.stderr + same_port.stderr


def test_a_reader_that_has_seen_enough_is_no_failure(
    node: Node, start: Callable[..., Running]
) -> None:
    """When the pipe it writes to is closed, a command ends quietly with 0."""
    with subprocess.Popen(
        [*PROGRAM, "watch", "orders", "--json", "-s", node.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"list" in process.stdout.readline()
        process.stdout.close()
        registered(start, node, "orders", "-p", "8080")
        try:
            assert process.stderr.read() == b""
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()


def test_log_files_of_a_node(tmp_path: Path) -> None:
    """With style files the log is in its directory, not on the screen."""
    node = Node(
        *(tmp_path / "node", free_port(), "--log-style", "files"),
        *("--log-dir", str(tmp_path / "log")),
    )
    assert node.end(signal.SIGTERM) == 0
    text = (tmp_path / "log" / "ss-govern.log").read_text()
    assert "serving address=127.0.0.1" in text
    assert "stopped" in text
    assert (tmp_path / "log" / "ss-govern.error").read_text() == ""


def test_the_demonstration_runs_by_itself(tmp_path: Path) -> None:
    """Everything it claims is checked by itself; nothing is left running."""
    done = run("demo", "--exit", "-d", str(tmp_path / "demo"), "-p", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The watcher was told after" in done.stdout
    assert "Everything is still there: 4 instances" in done.stdout
    assert done.stderr == ""


def test_the_demonstration_stays_until_ctrl_c(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """It tells what to try, notices who is killed meanwhile, and leaves no process behind."""
    demo = start("demo", "-d", str(tmp_path / "demo"), "-p", "0")
    kill = demo.line_with("kill -9 ")
    while "that is orders" not in kill:
        kill = demo.line_with("kill -9 ")
    demo.line_with("Ctrl-C stops everything")
    victim = int(kill.split()[2])
    os.kill(victim, signal.SIGKILL)
    assert "has ended: signal 9" in demo.line_with(f"process {victim}")
    data_dir = str(tmp_path / "demo" / "node")
    with pytest.raises(BlockingIOError):
        RealDisk(data_dir)
    assert demo.end(signal.SIGINT) == 0
    asyncio.run(RealDisk(data_dir).close())


def test_the_demonstration_empties_only_what_it_made(tmp_path: Path) -> None:
    """A directory with other things in it is refused."""
    (tmp_path / "mine").write_text("x")
    done = run("demo", "--exit", "-d", str(tmp_path))
    assert done.returncode == 2
    assert "name another --data-dir" in done.stderr
    assert (tmp_path / "mine").read_text() == "x"
