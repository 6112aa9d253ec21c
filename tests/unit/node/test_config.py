"""Configuration: what wins, and that every fault is told, with its place, at once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ssgovern.errors import ConfigError
from ssgovern.node.config import ServerConfig, config_keys
from ssgovern.node.config_load import ConfigFaultsError, load_config
from ssgovern.node.topology import is_loopback

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
        "http.host": "127.0.0.9",
        "listen.insecure": True,
        "protection.share": 0.25,
        "session.ttl_ms": 4000,
        "session.heartbeat_interval_ms": 500,
        "storage.segment_bytes": 1 << 20,
        "log.file_bytes": 1 << 20,
        "storage.wal_bytes_before_snapshot": 1 << 21,
        "node.zone": "z",
        "listen.advertise": "10.0.0.1:7420",
        "cluster.candidates": "77@127.0.0.1:7420",
        "cluster.join": "127.0.0.1:7421",
        "cluster.secret": "0123456789abcdef",
        "cluster.secret_file": str(tmp_path / "secret"),
        "cluster.copies": 5,
        "cluster.min_in_sync": 2,
        "cluster.acks": "primary",
        "tls.cert": "c",
        "tls.key": "k",
        "tls.ca": "a",
        "tls.client_auth": "optional",
        "access.admin_token_hash": "a1:" + "0f" * 32,
    }
    (tmp_path / "secret").write_text("0123456789abcdef\n", encoding="utf-8")
    clustered: dict[str, str | bool | None] = {"node.id": "9"} if "cluster." in key.name else {}
    if key.name.startswith("tls."):
        others = ("tls.cert", "tls.key", "tls.ca")
        clustered = {name: str(special[name]) for name in others if name != key.name}
    value = special.get(key.name, 77)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    section, _, leaf = key.name.rpartition(".")
    toml_value = f'"{value}"' if isinstance(value, str) else text
    file = written(tmp_path, f"[{section}]\n{leaf} = {toml_value}\n".removeprefix("[]\n"))
    for config in (
        load_config(file, {}, clustered),
        load_config(None, {key.variable: text}, clustered),
        load_config(None, {}, {**clustered, key.name: text}),
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
            '[access]\nadmin_token_hash = "ssg_1_2"',
            '2: access.admin_token_hash = "ssg_1_2": allowed: what `ss-govern access init',
        ),
        (
            "[session]\nheartbeat_interval_ms = 3000",
            "2: session.heartbeat_interval_ms = 3000: at least two heartbeats must fit",
        ),
        ('[tls]\ncert = "c"', '2: tls.cert = "c": tls.key has to name the certificate'),
        ('[tls]\nkey = "k"', '2: tls.key = "k": tls.cert has to name the certificate it'),
        ('[tls]\nca = "a"', '2: tls.ca = "a": without tls.cert and tls.key there is no TLS'),
        (
            '[tls]\ncert = "c"\nkey = "k"\nclient_auth = "required"',
            '4: tls.client_auth = "required": needs tls.cert, tls.key, and tls.ca',
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
        "SS_GOVERN_TOKEN": "ssg_1_2",
        "SS_GOVERN_TOKEN_FILE": "token",
        "SS_GOVERN_SERVICE_HOST": "10.96.0.1",
        "SS_GOVERN_SERVICE_PORT": "7420",
        "SS_GOVERN_SERVICE_PORT_NATIVE": "7420",
        "SS_GOVERN_PORT": "tcp://10.96.0.1:7420",
        "SS_GOVERN_PORT_7420_TCP": "tcp://10.96.0.1:7420",
        "SS_GOVERN_PORT_7420_TCP_ADDR": "10.96.0.1",
        "SS_GOVERN_DATA_DIR": "",
        "PATH": "/bin",
    }
    assert load_config(None, environ, {}) == load_config(None, {}, {})


def test_every_fault_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    """One run shows all there is to mend."""
    text = 'port = 1\n[listen]\nprot = 2\n[session]\nttl_ms = 3\n[log]\nlevel = "x"\n'
    environ = {"SS_GOVERN_NODE_ID": "no", "SS_GOVERN_LOG_STILE": "json"}
    flags: dict[str, str | bool | None] = {"durability": "never", "listen.port": "99999"}
    found = faults_of(tmp_path, text, environ, flags)
    keys = [fault.split(": ")[1].split(" = ")[0] for fault in found]
    assert sorted(keys) == [
        "SS_GOVERN_LOG_STILE",
        "durability",
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


def test_http_keeps_to_a_port_of_its_own() -> None:
    """One port cannot be both."""
    with pytest.raises(ConfigError, match=r"http\.port = 7420: listen\.port is 7420 as well"):
        load_config(None, {}, {"http.port": "7420"})


def test_http_is_on_where_its_usual_port_is_nobody_elses() -> None:
    """Beside the usual native port; another native port may have a node on the next one."""
    assert load_config(None, {}, {}).http.port == 7421
    assert load_config(None, {}, {"listen.port": "7420"}).http.port == 7421
    assert load_config(None, {}, {"listen.port": "7430"}).http.port == 0
    both: dict[str, str | bool | None] = {"listen.port": "7430", "http.port": "7431"}
    assert load_config(None, {}, both).http.port == 7431


def test_an_admin_is_known_by_a_hash() -> None:
    """Ids and hashes are read, several with commas."""
    text = f"a1:{'00' * 32},b2:{'ff' * 32}"
    config = load_config(None, {}, {"access.admin_token_hash": text})
    assert config.admin_tokens == {"a1": bytes(32), "b2": b"\xff" * 32}


def test_http_that_is_off_is_wrong_nowhere() -> None:
    """Without a port there is no address to be reached at."""
    off: dict[str, str | bool | None] = {"http.host": "0.0.0.0", "http.port": "0"}
    assert load_config(None, {}, off).http.port == 0


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
    defaults = {key.name: key.default for key in config_keys()}
    assert shown == {**defaults, "http.port": 7421}


# --- clusters --------------------------------------------------------------------------------

THREE = "1@127.0.0.1:7420,2@127.0.0.1:7430,3@127.0.0.1:7440"
FAR = "1@a.example,2@b.example:7420,3@[fe80::1]:7430"
SECRET = "a-secret-that-nobody-may-see"


def clustered(**said: str) -> dict[str, str | bool | None]:
    return {"node.id": "1", **{name.replace("__", "."): value for name, value in said.items()}}


def test_a_node_stands_alone_unless_told_otherwise() -> None:
    """Nothing of a cluster is on by default."""
    config = load_config(None, {}, {})
    assert not config.is_clustered
    assert not config.is_candidate
    assert (config.candidates, config.seeds, config.cluster_secret) == ((), (), b"")


def test_a_candidate_knows_itself_and_the_others() -> None:
    """Its own entry is where others reach it; the other entries are where it looks for them."""
    config = load_config(None, {}, clustered(cluster__candidates=THREE, node__id="2"))
    assert config.is_clustered
    assert config.is_candidate
    assert [(node, str(address)) for node, address in config.candidates] == [
        (1, "127.0.0.1:7420"),
        (2, "127.0.0.1:7430"),
        (3, "127.0.0.1:7440"),
    ]
    assert [str(seed) for seed in config.seeds] == ["127.0.0.1:7420", "127.0.0.1:7440"]
    assert config.advertised(1) == "127.0.0.1:7430"


def test_a_node_that_joins_is_reached_where_it_listens_or_says() -> None:
    """`listen.advertise` wins over the address it listens on."""
    joins = clustered(cluster__join="127.0.0.1:7420, 127.0.0.1:7430", node__id="4")
    config = load_config(None, {}, joins)
    assert config.is_clustered
    assert not config.is_candidate
    assert [str(seed) for seed in config.seeds] == ["127.0.0.1:7420", "127.0.0.1:7430"]
    assert config.advertised(7470) == "127.0.0.1:7470"
    told = load_config(None, {}, {**joins, "listen.advertise": "n4.example"})
    assert told.advertised(7470) == "n4.example:7420"


def test_a_node_that_is_not_in_the_list_looks_for_its_cluster_there() -> None:
    """The same list may be given to every node; those that are not in it do not vote."""
    config = load_config(None, {}, clustered(cluster__candidates=THREE, node__id="4"))
    assert not config.is_candidate
    assert len(config.seeds) == 3


@pytest.mark.parametrize(
    ("said", "copies", "least"),
    [
        ({"cluster__candidates": "1@127.0.0.1"}, 2, 1),
        ({"cluster__candidates": THREE}, 3, 2),
        ({"cluster__candidates": THREE, "cluster__copies": "2"}, 2, 1),
        ({"cluster__candidates": THREE, "cluster__min_in_sync": "1"}, 3, 1),
    ],
)
def test_copies_follow_the_candidates(said: dict[str, str], copies: int, least: int) -> None:
    """Three copies, two of them needed, as soon as three candidates are there."""
    config = load_config(None, {}, clustered(**said))
    assert (config.copies_at_founding, config.min_in_sync_at_founding) == (copies, least)


@pytest.mark.parametrize(("word", "acks"), [("all", 0), ("primary", 1), ("2", 2)])
def test_acks(word: str, acks: int) -> None:
    """Words for people, a number for the log."""
    assert load_config(None, {}, clustered(cluster__acks=word)).acks == acks


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    """Neither a dump nor a repr nor a fault has it, not even under a misspelt key."""
    config = load_config(None, {}, {"cluster.secret": SECRET})
    assert config.cluster_secret == SECRET.encode()
    assert SECRET not in f"{config!r} {config.model_dump()} {config.model_dump_json()}"
    short = "15-characters-x"
    environ = {"SS_GOVERN_CLUSTER_SECRE": short}
    found = faults_of(tmp_path, f'[cluster]\nsecret = "{short}"\nsecrets = "{short}"\n', environ)
    assert len(found) == 3
    assert not [fault for fault in found if short in fault]


def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """White space around it does not count."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    assert load_config(None, {}, {"cluster.secret_file": str(file)}).cluster_secret == (
        SECRET.encode()
    )


@pytest.mark.parametrize("content", [None, b"", b"short", b"\xff" * 20, b"two words of a secret"])
def test_a_file_without_a_secret_is_a_fault(content: bytes | None, tmp_path: Path) -> None:
    """A file that is missing, empty or holds other things does not mean: no secret."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    (fault,) = faults_of(tmp_path, flags=clustered(cluster__secret_file=str(file)))
    assert "secret" in fault


def test_two_secrets_are_one_too_many(tmp_path: Path) -> None:
    """Which of them counts is not guessed."""
    (fault,) = faults_of(
        tmp_path, '[cluster]\nsecret_file = "f"\n', {"SS_GOVERN_CLUSTER_SECRET": SECRET}
    )
    assert "keep one of the two" in fault
    assert SECRET not in fault


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"cluster__candidates": "1@127.0.0.1,2@127.0.0.2"}, "2 candidates: name 1, 3 or 5;"),
        ({"cluster__candidates": f"{THREE},4@127.0.0.1:9"}, "4 candidates: name 1, 3 or 5;"),
        ({"cluster__candidates": THREE.replace("2@", "1@")}, "id 1 is named twice"),
        (
            {"cluster__candidates": THREE.replace("7430", "7440")},
            "address 127.0.0.1:7440 is named twice",
        ),
        ({"cluster__candidates": "0@127.0.0.1"}, "allowed: id@host:port of each"),
        ({"cluster__candidates": "127.0.0.1:7420"}, "allowed: id@host:port of each"),
        ({"cluster__candidates": "1@127.0.0.1:x"}, "allowed: id@host:port of each"),
        ({"cluster__candidates": "1@a@b"}, "allowed: id@host:port of each"),
        ({"cluster__join": "127.0.0.1:0"}, "allowed: host:port of nodes"),
        ({"cluster__join": "::1:7420"}, "allowed: host:port of nodes"),
        ({"cluster__secret": "short"}, "allowed: 16 to 256 letters"),
        ({"cluster__acks": "0"}, 'allowed: "all", "primary" or a number'),
        ({"cluster__copies": "8"}, "allowed: whole numbers from 0 to 7"),
        ({"cluster__copies": "2", "cluster__min_in_sync": "3"}, "no write would ever be taken"),
        ({"cluster__copies": "2", "cluster__acks": "3"}, "at most cluster.copies = 2"),
        (
            {"cluster__candidates": THREE, "cluster__join": "127.0.0.1:7420"},
            "this node is one of cluster.candidates",
        ),
        (
            {"cluster__candidates": THREE, "listen__advertise": "127.0.0.1:7421"},
            "cluster.candidates has this node at 127.0.0.1:7420",
        ),
        ({"cluster__candidates": THREE, "listen__port": "0"}, "it needs a port of its own"),
        ({"cluster__candidates": THREE, "durability": "interval(1ms)"}, '"sync" is what it must'),
        (
            {"cluster__candidates": "1@0.0.0.0", "cluster__secret": SECRET},
            "nobody can dial 0.0.0.0:7420",
        ),
        ({"cluster__candidates": FAR}, "needed, because other machines are reached (a.example)"),
        ({"cluster__join": "10.0.0.1"}, "needed, because other machines are reached (10.0.0.1)"),
        (
            {
                "cluster__join": "127.0.0.1:7421",
                "cluster__secret": SECRET,
                "listen__host": "::",
                "listen__insecure": "true",
            },
            "set listen.advertise",
        ),
    ],
)
def test_a_fault_of_a_cluster_says_what_to_do(
    said: dict[str, str], fault: str, tmp_path: Path
) -> None:
    """Each is told once, before anything is started."""
    (found,) = faults_of(tmp_path, flags=clustered(**said))
    assert fault in found


def test_a_node_of_a_cluster_says_its_id(tmp_path: Path) -> None:
    """The default would be the id of every node that forgot to say one."""
    (fault,) = faults_of(tmp_path, flags={"cluster.join": "127.0.0.1:7421"})
    assert fault.startswith("default: node.id = 1: every node of a cluster has an id of its own")
