"""`server` without running one: its configuration, its banner, its progress."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ssgovern.cli.app import app
from ssgovern.cli.banner import banner
from ssgovern.cli.server import StartProgressLine
from ssgovern.model import NodeId
from ssgovern.node.config import ClusterConfig, ListenConfig, NodeConfig, ServerConfig, config_keys
from ssgovern.node.identity import Identity
from ssgovern.node.node import Ready
from ssgovern.node.recovery import Progress


def check(*arguments: str, **environ: str) -> Result:
    cleared = {key.variable: None for key in config_keys()}
    return CliRunner().invoke(app, ["server", "--check", *arguments], env={**cleared, **environ})


def ready(**fields: int) -> Ready:
    state = {"services": 0, "instances": 0, "sessions": 0, "entries_replayed": 0, **fields}
    identity = Identity(b"c" * 16, NodeId(1), b"u" * 16)
    return Ready("127.0.0.1", 7420, identity, **state, recovery_s=1.25)


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """The effective configuration can be looked at without starting anything."""
    file = tmp_path / "c.toml"
    file.write_text("data_dir = 'a'\ndurability = 'interval(9ms)'\n[session]\nttl_ms = 4000\n")
    result = check(
        *("--config", str(file), "--json", "--data-dir", "c"),
        SS_GOVERN_DATA_DIR="b",
        SS_GOVERN_SESSION_TTL_MS="6000",
    )
    shown = json.loads(result.output)
    assert (shown["data_dir"], shown["session"]["ttl_ms"]) == ("c", 6000)
    assert shown["durability"] == "interval(9ms)"


def test_a_secret_is_not_shown() -> None:
    """Whether there is one can be seen, which one it is cannot."""
    secret = "a-secret-that-nobody-may-see"
    plain, dumped = (
        check(SS_GOVERN_CLUSTER_SECRET=secret),
        check("--cluster-secret", secret, "--json"),
    )
    assert secret not in plain.output + dumped.output
    assert "(set, not shown)" in plain.output
    assert "(set, not shown)" not in check().output


def test_every_key_is_a_flag_that_help_explains() -> None:
    """--help names each flag and its default."""
    text = CliRunner().invoke(app, ["server", "--help"]).output
    assert all(key.flag in text for key in config_keys())
    assert "[default: 7420]" in text


def test_all_faults_are_told_at_once_and_nothing_is_started(tmp_path: Path) -> None:
    """File, environment and flags in one message, exit code 2."""
    file = tmp_path / "c.toml"
    file.write_text("[listen]\nprot = 1\n")
    result = check(
        *("-c", str(file), "--port", "70000", "--durability", "maybe"),
        SS_GOVERN_NODE_ID="x",
    )
    assert result.exit_code == 2
    assert "4 faults in the configuration:" in result.output
    assert "c.toml:2: listen.prot = 1: unknown key; did you mean listen.port?" in result.output
    assert "flag --listen-port: listen.port = 70000: allowed: whole numbers" in result.output


def test_a_named_file_that_is_missing_is_an_error() -> None:
    """Only the default file may be absent."""
    result = check("--config", "nowhere.toml")
    assert result.exit_code == 2
    assert "nowhere.toml: cannot be read: No such file or directory" in result.output


def test_the_default_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./ss-govern.toml is read without being named."""
    monkeypatch.chdir(tmp_path)
    Path("ss-govern.toml").write_text("[node]\nname = 'found'\n")
    assert json.loads(check("--json").output)["node"]["name"] == "found"


def test_the_banner_says_who_where_what_and_how_to_stop() -> None:
    """All that one asks after a start is there."""
    config = ServerConfig(node=NodeConfig(name="n7", id=7), data_dir="/d")
    text = banner(config, ready(), "")
    for words in ("n7 (id 7)", "127.0.0.1:7420", "/d", "sync", "a fresh start", "Ctrl-C"):
        assert words in text
    assert " -s " not in text
    text = banner(config, ready(services=1, instances=2, sessions=3), "x.toml")
    assert "1 service, 2 instances, 3 sessions, in 1.2 s" in text


def test_the_banner_warns_of_an_open_door() -> None:
    """An address that others reach is shown as such, and hints use it."""
    config = ServerConfig(listen=ListenConfig(host="0.0.0.0", insecure=True))
    text = banner(config, ready()._replace(host="0.0.0.0", port=7500), "")
    assert "without access control" in text
    assert "ss-govern services -s 0.0.0.0:7500" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "shown"),
    [(io.StringIO(), "recovering from log  50 %\n"), (Terminal(), "recovering from log  50 %")],
    ids=["pipe", "terminal"],
)
def test_recovery_shows_progress_only_if_it_takes_longer_than_a_second(
    out: io.StringIO, shown: str
) -> None:
    """A quick start says nothing, a slow one how far it is; on a terminal the line goes away."""
    times = iter([0.0, 0.9, 1.5, 1.55])
    line = StartProgressLine(out, lambda: next(times))
    line.on_progress(Progress("snapshots", 1, 2))
    assert out.getvalue() == ""
    line.on_progress(Progress("log", 1, 2))
    line.on_progress(Progress("log", 2, 2))
    assert out.getvalue().endswith(shown)
    line.end()
    assert out.getvalue().endswith("\r\x1b[K" if out.isatty() else shown)


def test_waiting_for_others_is_said_once_for_each_thing_missing() -> None:
    """Nobody has to guess why a node of a cluster is not ready; a log is not filled with it."""
    out = io.StringIO()
    line = StartProgressLine(out, lambda: 0.0)
    missing = "waiting for candidates 2 (10.0.0.2:7420: refused\x1b)"
    for what in (missing, missing, "waiting for the controller"):
        line.on_progress(Progress(what, 0, 0))
    assert out.getvalue() == (
        "waiting for candidates 2 (10.0.0.2:7420: refused\\x1b)\nwaiting for the controller\n"
    )


@pytest.mark.parametrize(
    ("cluster", "node_id", "words"),
    [
        ({"candidates": "1@h:1,2@h:2,3@h:3"}, 2, "one of the candidates 1, 2, 3; reached at h:2"),
        ({"join": "h:1,h:2"}, 4, "joins through h:1, h:2; reached at 127.0.0.1:7420"),
    ],
)
def test_the_banner_says_which_part_a_node_has_in_its_cluster(
    cluster: dict[str, str], node_id: int, words: str
) -> None:
    """Whether it votes, and where others reach it."""
    config = ServerConfig(node=NodeConfig(id=node_id), cluster=ClusterConfig(**cluster))
    assert words in banner(config, ready(), "")
    assert "cluster" not in banner(ServerConfig(), ready(), "")
