"""`cluster`: what is asked and said, secrets, and the configuration of a node that joins."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cluster_that_answers import FakeCluster

from ssgovern.cli.app import app
from ssgovern.cli.cluster_join import id_in, toml_of, write_new
from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.node.config import config_keys
from ssgovern.node.config_load import load_config
from ssgovern.wire.pb import native_pb2


def call(*arguments: str, text: str | None = None) -> Result:
    cleared = {key.variable: None for key in config_keys()}
    return CliRunner().invoke(app, ["cluster", *arguments], env=cleared, input=text)


def status(*ids: int, leaving: int = 0, holds: int = 0) -> native_pb2.ClusterStatusResponse:
    """Return what a cluster of these nodes says."""
    return native_pb2.ClusterStatusResponse(
        cluster_id=b"c" * 16,
        node_id=1,
        controller_id=1,
        controller_heard=True,
        map_version=4,
        candidates=[1],
        copies=2,
        min_in_sync=1,
        shards_total=256,
        nodes=[
            native_pb2.ClusterNodeStatus(
                node_id=number,
                name=f"n{number}",
                address=f"h{number}:7420",
                live=True,
                candidate=number == 1,
                leaving=number == leaving,
                holds=holds,
            )
            for number in ids
        ],
        shards=[
            native_pb2.ShardStatus(shard=7, epoch=1, version=1, holders=[1, 2], eligible=[2]),
        ],
    )


# --- looking ---------------------------------------------------------------------------------


def test_status_is_one_screen_or_one_document() -> None:
    """People and programs are told the same."""
    with FakeCluster(status(1, 2)) as fake:
        shown = call("status", "-s", fake.address)
        told = call("status", "--json", "-s", fake.address)
    assert shown.exit_code == 0, shown.output
    assert "GOOD: all 256 shards are served, in 2 copies" in shown.output
    assert "controller" in shown.output
    assert json.loads(told.output)["health"] == "good"


def test_nodes_shards_candidates_and_settings_are_shown() -> None:
    """Each as a table and as JSON."""
    with FakeCluster(status(1, 2)) as fake:
        for name, words in (
            ("nodes", "h2:7420"),
            ("shards", "UNAVAILABLE, waits for 2"),
            ("candidates", "h1:7420"),
            ("settings", "min_in_sync"),
        ):
            shown = call(name, "-s", fake.address)
            assert words in shown.output, (name, shown.output)
            json.loads(call(name, "--json", "-s", fake.address).output)
        assert "h2:7420" not in call("candidates", "-s", fake.address).output
    assert not fake.commands


def test_a_node_that_stands_alone_says_so() -> None:
    """The question is refused, not answered with an empty cluster."""
    with FakeCluster() as fake:
        refused = call("status", "-s", fake.address)
    assert refused.exit_code == 2
    assert "not part of a cluster" in refused.output


# --- changing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("leave", "2"), {"leave": 2}),
        (("leave", "n2"), {"leave": 2}),
        (("stay", "n2"), {"stay": 2}),
        (("transfer", "0", "n2"), {"transfer": {"to": 2}}),
        (("transfer", "7", "2"), {"transfer": {"shard": 7, "to": 2}}),
        (("transfer", "--controller", "n2"), {"transfer_controller": 2}),
        (("candidates", "add", "2"), {"candidates": {"add": 2}}),
        (("candidates", "remove", "n2"), {"candidates": {"remove": 2}}),
        (
            ("settings", "--copies", "3", "--min-in-sync", "2"),
            {"settings": {"copies": 3, "min_in_sync": 2}},
        ),
        (("unclean", "7", "1", "--yes"), {"unclean": {"shard": 7, "node_id": 1}}),
    ],
)
def test_a_command_arrives_as_it_was_said(
    arguments: tuple[str, ...], command: dict[str, object]
) -> None:
    """Nodes may be named by id or name; the controller's sentence is the answer."""
    with FakeCluster(status(1, 2)) as fake:
        done = call(*arguments, "-s", fake.address)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("it was decided\n")
    assert fake.commands == [native_pb2.ClusterCommandRequest(**command)]


def test_a_refusal_is_told_in_the_controllers_words() -> None:
    """The exit code says that nothing was done."""
    with FakeCluster(status(1, 2)) as fake:
        fake.refusal = InvalidArgumentError("node 1 votes: remove it from the candidates first")
        refused = call("leave", "1", "-s", fake.address)
    assert refused.exit_code == 2
    assert "node 1 votes" in refused.output


def test_a_name_that_no_node_has_is_not_guessed() -> None:
    """The nearest one is offered, nothing is sent."""
    with FakeCluster(status(1, 2)) as fake:
        refused = call("leave", "n22", "-s", fake.address)
        strange = call("leave", "xyz", "-s", fake.address)
    assert "did you mean 'n2'?" in refused.output
    assert "ss-govern cluster nodes" in strange.output
    assert (refused.exit_code, strange.exit_code, fake.commands) == (2, 2, [])


def test_leaving_is_watched_until_the_node_is_gone() -> None:
    """What is left is told whenever it changes, and the end as well."""
    going = [status(1, 2, leaving=2, holds=count) for count in (9, 9, 1)]
    with FakeCluster(*going, status(1)) as fake:
        done = call("leave", "2", "--wait", "-s", fake.address)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "it was decided",
        "9 shards left on node 2",
        "1 shard left on node 2",
        "node 2 has left; its process may be stopped",
    ]


def test_waiting_for_a_node_that_stays_after_all_ends() -> None:
    """Somebody else may take the command back."""
    with FakeCluster(status(1, 2, leaving=2), status(1, 2)) as fake:
        done = call("leave", "2", "--wait", "-s", fake.address)
    assert done.exit_code == 2
    assert "told to stay" in done.output


@pytest.mark.parametrize("text", ["n\n", "", "\n"])
def test_the_last_resort_asks_first(text: str) -> None:
    """Without a yes nothing is sent, and what may be lost is said before."""
    with FakeCluster(status(1, 2)) as fake:
        refused = call("unclean", "7", "1", "-s", fake.address, text=text)
    assert refused.exit_code != 0
    assert "All that was acknowledged is on: 2 (n2)." in refused.output
    assert not fake.commands


def test_the_last_resort_takes_a_yes() -> None:
    """With it the command is sent."""
    with FakeCluster(status(1, 2)) as fake:
        assert call("unclean", "7", "1", "-s", fake.address, text="y\n").exit_code == 0
    assert len(fake.commands) == 1


# --- joining ---------------------------------------------------------------------------------


def test_joining_takes_an_id_that_nobody_has(tmp_path: Path) -> None:
    """The cluster is asked which are taken, and which were."""
    for left, chosen in ((0, 8), (8, 9)):
        file = tmp_path / f"{chosen}.toml"
        said = status(1, 2, 7)
        said.node_id_next = left + 1
        with FakeCluster(said) as fake:
            done = call(
                *("join", "--to", fake.address, "-d", str(tmp_path / "n"), "--write", str(file))
            )
        assert done.exit_code == 0, done.output
        config = load_config(file, {}, {})
        assert config.node.id == chosen
        assert config.node.name.endswith(f"-{chosen}"), "several nodes of one machine differ"


@pytest.mark.parametrize(
    "arguments",
    [
        ("transfer",),
        ("transfer", "1"),
        ("transfer", "1", "2", "--controller", "3"),
        ("candidates", "add"),
    ],
)
def test_half_a_command_is_refused_before_anyone_is_asked(arguments: tuple[str, ...]) -> None:
    """Nothing is sent if it is not clear what is meant."""
    assert isinstance(call(*arguments).exception, InvalidArgumentError | SystemExit)
    assert call(*arguments).exit_code != 0


def test_every_secret_is_another_one_that_a_node_takes(tmp_path: Path) -> None:
    """What it prints is allowed as cluster.secret."""
    first, second = call("secret").output.strip(), call("secret").output.strip()
    assert first != second
    assert load_config(None, {}, {"cluster.secret": first}).cluster_secret == first.encode()


def test_a_secret_in_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Others cannot read it, and one that is there is not written over."""
    file = tmp_path / "secret"
    assert call("secret", "--file", str(file)).exit_code == 0
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = call("secret", "--file", str(file))
    assert again.exit_code == 2
    assert file.read_text() == text


def test_joining_writes_a_configuration_that_a_node_takes(tmp_path: Path) -> None:
    """With an id nobody has to be asked; the file says what the flags said."""
    secret, file = tmp_path / "secret", tmp_path / "n4.toml"
    secret.write_text("0123456789abcdef")
    result = call(
        *("join", "--to", "10.0.0.1,10.0.0.2:7421", "--id", "4", "--host", "0.0.0.0"),
        *("--insecure", "--advertise", "10.0.0.4:7420", "--zone", 'a "b"', "--port", "7450"),
        *("--secret-file", str(secret), "-d", str(tmp_path / "n4"), "--write", str(file)),
    )
    assert result.exit_code == 0, result.output
    config = load_config(file, {}, {})
    assert (config.node.id, config.node.zone, config.listen.port) == (4, 'a "b"', 7450)
    assert [str(seed) for seed in config.seeds] == ["10.0.0.1:7420", "10.0.0.2:7421"]
    assert config.advertised(7450) == "10.0.0.4:7420"
    assert "0123456789abcdef" not in file.read_text()


def test_joining_wrongly_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """The checks of a configuration hold here as well."""
    file = tmp_path / "n4.toml"
    result = call("join", "--to", "10.0.0.1", "--id", "4", "--write", str(file))
    assert result.exit_code == 2
    assert "ss-govern cluster secret" in result.output
    assert not file.exists()


def test_a_directory_keeps_its_id(tmp_path: Path) -> None:
    """A node that joins again is the same node; another id for it is refused."""
    assert id_in(tmp_path) is None
    (tmp_path / "node.json").write_text('{"node_id": 7}')
    assert id_in(tmp_path) == 7
    refused = call("join", "--to", "127.0.0.1", "--id", "8", "-d", str(tmp_path))
    assert refused.exit_code == 2
    assert "belongs to node 7" in refused.output
    (tmp_path / "node.json").write_text("{}")
    with pytest.raises(ConfigError):
        id_in(tmp_path)


def test_toml_is_grouped_by_section() -> None:
    """Every text survives being written."""
    flags: dict[str, str | bool | None] = {
        "node.id": "1",
        "data_dir": 'a "b" \\ ü',
        "node.name": None,
        "listen.insecure": True,
    }
    assert tomllib.loads(toml_of(flags)) == {
        "data_dir": 'a "b" \\ ü',
        "node": {"id": 1},
        "listen": {"insecure": True},
    }


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Neither is one made where there is no directory."""
    write_new(tmp_path / "a", "x", mode=0o644)
    with pytest.raises(ConfigError, match="there already"):
        write_new(tmp_path / "a", "y", mode=0o644)
    with pytest.raises(ConfigError, match="cannot write"):
        write_new(tmp_path / "b" / "c", "y", mode=0o644)
