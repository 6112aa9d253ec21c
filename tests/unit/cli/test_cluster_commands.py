"""`cluster`: what can be said wrongly, secrets, and the configuration of a node that joins."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ssgovern.cli.app import app
from ssgovern.cli.cluster_join import id_in, toml_of, write_new
from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.node.config import config_keys
from ssgovern.node.config_load import load_config


def call(*arguments: str) -> Result:
    cleared = {key.variable: None for key in config_keys()}
    return CliRunner().invoke(app, ["cluster", *arguments], env=cleared)


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
