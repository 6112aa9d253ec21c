"""Configuration: what wins, and that every fault is told, with its place, at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ssgovern.errors import ConfigError
from ssgovern.node.config import ServerConfig, config_keys
from ssgovern.node.config_load import ConfigFaultsError, is_loopback, load_config

EXAMPLE = Path(__file__).parents[3] / "examples" / "ss-govern.example.toml"


def written(directory: Path, text: str) -> Path:
    file = directory / "ss-govern.toml"
    file.write_text(text, encoding="utf-8")
    return file


def faults_of(
    directory: Path,
    text: str = "",
    environ: dict[str, str] | None = None,
    flags: dict[str, str | bool | None] | None = None,
) -> list[str]:
    with pytest.raises(ConfigFaultsError) as caught:
        load_config(written(directory, text), environ or {}, flags or {})
    return [str(fault).replace(f"{directory}/", "") for fault in caught.value.faults]


def test_a_node_needs_no_configuration() -> None:
    """Without file, environment and flags: loopback, port 7420, synced writes."""
    config = load_config(None, {}, {})
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 7420)
    assert config.durability == "sync"
    assert config.durability_interval_ms == 0
    assert config.node.name


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each source is seen where no stronger one speaks."""
    file = written(tmp_path, "[session]\nttl_ms = 2001\nclose_grace_ms = 2\n[listen]\nport = 1\n")
    environ = {"SS_GOVERN_LISTEN_PORT": "2", "SS_GOVERN_SESSION_CLOSE_GRACE_MS": "3"}
    config = load_config(file, environ, {"listen.port": "3", "data_dir": None})
    assert config.listen.port == 3
    assert config.session.close_grace_ms == 3
    assert config.session.ttl_ms == 2001
    assert config.session.heartbeat_interval_ms == 1000


@pytest.mark.parametrize("key", config_keys(), ids=lambda key: key.name)
def test_every_key_is_read_from_each_of_its_three_spellings(key, tmp_path: Path) -> None:
    """A value said in the file, the environment or by a flag arrives under the key's name."""
    special = {
        "durability": "interval(250ms)",
        "log.style": "json",
        "log.level": "debug",
        "node.name": "a",
        "data_dir": "d",
        "log.dir": "d",
        "listen.host": "127.0.0.9",
        "listen.insecure": True,
        "protection.share": 0.25,
        "session.ttl_ms": 4000,
        "session.heartbeat_interval_ms": 500,
        "storage.segment_bytes": 1 << 20,
        "log.file_bytes": 1 << 20,
        "storage.wal_bytes_before_snapshot": 1 << 21,
    }
    value = special.get(key.name, 77)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    section, _, leaf = key.name.rpartition(".")
    toml_value = f'"{value}"' if isinstance(value, str) else text
    file = written(tmp_path, f"[{section}]\n{leaf} = {toml_value}\n".removeprefix("[]\n"))
    for config in (
        load_config(file, {}, {}),
        load_config(None, {key.variable: text}, {}),
        load_config(None, {}, {key.name: text}),
    ):
        found: object = config
        for part in key.name.split("."):
            found = getattr(found, part)
        assert found == value
        assert found != key.default


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "[listen]\nport = 65536",
            "2: listen.port = 65536: allowed: whole numbers from 0 to 65535",
        ),
        ('[listen]\nport = "80"', '2: listen.port = "80": allowed: whole numbers from 0 to 65535'),
        ("[listen]\nport = true", "2: listen.port = true: allowed: whole numbers from 0 to 65535"),
        ("listen.port = 1.5", "1: listen.port = 1.5: allowed: whole numbers from 0 to 65535"),
        ("listen = {port = -1}", "1: listen.port = -1: allowed: whole numbers from 0 to 65535"),
        ('[listen]\nhost = ""', '2: listen.host = "": allowed: an address or host name'),
        ("\n\n[listen]\nprot = 1", "4: listen.prot = 1: unknown key; did you mean listen.port?"),
        ("[lisen]\nhost = 1", "2: lisen.host = 1: unknown key; did you mean listen.host?"),
        ("ttl_ms = 5", "1: ttl_ms = 5: unknown key; did you mean session.ttl_ms?"),
        ("listen = 7420", "1: listen = 7420: is a table: write [listen]"),
        ("[data_dir]\nx = 1", "2: data_dir.x = 1: unknown key; did you mean data_dir?"),
        ("zebra = 1", "1: zebra = 1: unknown key; `ss-govern server --help` lists all"),
        ('data_dir = ""', '1: data_dir = "": allowed: the path of a directory'),
        ('data_dir = "a\\u0000"', '1: data_dir = "a\\u0000": allowed: the path of a directory'),
        ('durability = "always"', '1: durability = "always": allowed: "sync", or "interval('),
        ('durability = "interval(0ms)"', '1: durability = "interval(0ms)": allowed: "sync"'),
        ("[session]\nttl_ms = 999", "2: session.ttl_ms = 999: allowed: whole numbers from 1000"),
        ("[protection]\nshare = 0", "2: protection.share = 0: allowed: numbers above 0 and up"),
        ("[protection]\nshare = nan", "2: protection.share = NaN: allowed: numbers above 0 and"),
        ('[log]\nstyle = "xml"', '2: log.style = "xml": allowed: "console", "files" or "json"'),
        ("[node]\nid = 0", "2: node.id = 0: allowed: whole numbers from 1 to 2147483647"),
        (
            '[listen]\nhost = "0.0.0.0"',
            '2: listen.host = "0.0.0.0": other machines can reach this address',
        ),
        (
            "[session]\nheartbeat_interval_ms = 3000",
            "2: session.heartbeat_interval_ms = 3000: at least two heartbeats must fit",
        ),
        ("[session]\nttl_ms = 1000", "2: session.ttl_ms = 1000: at least two heartbeats must fit"),
        ("x = = 1", " is not valid TOML: "),
    ],
)
def test_a_fault_names_file_line_key_value_and_what_is_allowed(
    text: str, fault: str, tmp_path: Path
) -> None:
    """Each kind of fault is told once, where it is and what would be right."""
    (found,) = faults_of(tmp_path, text)
    assert found.startswith(f"ss-govern.toml:{fault}")


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        (
            {"SS_GOVERN_LISTEN_PORT": "abc"},
            'environment SS_GOVERN_LISTEN_PORT: listen.port = "abc": allowed: whole numbers',
        ),
        (
            {"SS_GOVERN_LISTEN_INSECURE": "maybe"},
            'environment SS_GOVERN_LISTEN_INSECURE: listen.insecure = "maybe": allowed: true or',
        ),
        (
            {"SS_GOVERN_DATADIR": "x"},
            'environment: SS_GOVERN_DATADIR = "x": unknown key; did you mean SS_GOVERN_DATA_DIR?',
        ),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(
    environ: dict[str, str], fault: str, tmp_path: Path
) -> None:
    """Variables are held to the same rules, misspelt ones are not passed over."""
    (found,) = faults_of(tmp_path, environ=environ)
    assert found.startswith(fault)


def test_variables_of_others_are_left_alone() -> None:
    """What the command line, the SDK or Kubernetes put there is no fault, nor is an empty one."""
    environ = {
        "SS_GOVERN_SERVER": "10.0.0.1:7420",
        "SS_GOVERN_SERVICE_HOST": "10.96.0.1",
        "SS_GOVERN_SERVICE_PORT": "7420",
        "SS_GOVERN_SERVICE_PORT_NATIVE": "7420",
        "SS_GOVERN_PORT": "tcp://10.96.0.1:7420",
        "SS_GOVERN_PORT_7420_TCP": "tcp://10.96.0.1:7420",
        "SS_GOVERN_PORT_7420_TCP_ADDR": "10.96.0.1",
        "SS_GOVERN_DATA_DIR": "",
        "PATH": "/bin",
    }
    assert load_config(None, environ, {}) == ServerConfig()


def test_every_fault_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    """One run shows all there is to mend."""
    text = 'port = 1\n[listen]\nprot = 2\nhost = "::"\n[session]\nttl_ms = 3\n[log]\nlevel = "x"\n'
    environ = {"SS_GOVERN_NODE_ID": "no", "SS_GOVERN_LOG_STILE": "json"}
    flags: dict[str, str | bool | None] = {"durability": "never", "listen.port": "99999"}
    found = faults_of(tmp_path, text, environ, flags)
    keys = [fault.split(": ")[1].split(" = ")[0] for fault in found]
    assert sorted(keys) == [
        "SS_GOVERN_LOG_STILE",
        "durability",
        "listen.host",
        "listen.port",
        "listen.prot",
        "log.level",
        "node.id",
        "port",
        "session.ttl_ms",
    ]


def test_broken_toml_does_not_hide_the_other_sources(tmp_path: Path) -> None:
    """A file that cannot be parsed is one fault among others."""
    found = faults_of(tmp_path, "[", {"SS_GOVERN_NODE_ID": "no"})
    assert len(found) == 2


def test_the_message_is_a_config_error_for_people(tmp_path: Path) -> None:
    """The message counts and lists the faults; it carries the stable code of the family."""
    with pytest.raises(ConfigError, match=r"(?s)^2 faults in the configuration:\n  .*\n  ") as e:
        load_config(written(tmp_path, "a = 1\nb = 2\n"), {}, {})
    assert e.value.fields == {"faults": "2"}


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_file_that_cannot_be_read_is_a_fault(content: bytes | None, tmp_path: Path) -> None:
    """Missing files and files of other bytes are told like any fault."""
    file = tmp_path / "other.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigFaultsError, match=r"other\.toml: (cannot be read|is not UTF-8)"):
        load_config(file, {}, {})


def test_listening_beyond_loopback_needs_an_acknowledgement() -> None:
    """`listen.insecure` is the only way to a reachable address."""
    config = load_config(None, {}, {"listen.host": "0.0.0.0", "listen.insecure": "true"})
    assert config.listen.host == "0.0.0.0"
    with pytest.raises(ConfigError, match=r"listen\.insecure = true"):
        load_config(None, {}, {"listen.host": "registry.example"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine can reach count."""
    assert is_loopback(host) is loopback


def test_durability_interval() -> None:
    """The interval is read in milliseconds and shown in one spelling."""
    config = load_config(None, {}, {"durability": "interval( 100 ms )"})
    assert (config.durability, config.durability_interval_ms) == ("interval(100ms)", 100)


def test_the_example_shows_every_key_with_its_default() -> None:
    """Taking away every `#` of the example gives the defaults, and no key is missing."""
    text = EXAMPLE.read_text(encoding="utf-8")
    tables = tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))
    shown = {
        f"{name}.{leaf}" if isinstance(value, dict) else name: said
        for name, value in tables.items()
        for leaf, said in (value.items() if isinstance(value, dict) else [("", value)])
    }
    shown["node.name"] = ServerConfig().node.name  # the name of the machine
    assert shown == {key.name: key.default for key in config_keys()}
