"""What a node can be told, and where it was told so.

One table of keys, `ServerConfig`; the file, the environment and the flags are three spellings
of it. Flags win over the environment, the environment over the file, the file over the
defaults. The key `session.ttl_ms` is `ttl_ms` under `[session]` in the file, the variable
`SS_GOVERN_SESSION_TTL_MS` and the flag `--session-ttl-ms`; a variable that is set but empty
counts as not set. Relative paths are relative to the working directory of the process.

Refuses to know: how a key is used. Invariant: either all is valid, or every fault is reported
at once, each with its source, key, value and what is allowed.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ssgovern import limits
from ssgovern.errors import ConfigError

ENV_PREFIX = "SS_GOVERN_"
DEFAULT_FILE = "ss-govern.toml"

_CLIENT_VARIABLES = frozenset(
    ENV_PREFIX + name
    for name in ("CONFIG", "SERVER", "NAMESPACE", "GROUP", "TIMEOUT", "DEBUG", "CACHE_DIR")
)
"""Variables of the command line and the SDK, which may share the environment with a node."""

_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""What Kubernetes puts into every container beside a Service named `ss-govern…`."""

_DURABILITY = re.compile(r"interval\(\s*([0-9]{1,6})\s*ms\s*\)")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Words for what a key allows, where its type does not say it."""

    text: str


def _printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError
    return text


def _host(text: str) -> str:
    if not text or not text.isprintable() or any(c in " /@" for c in text):
        raise ValueError
    return text


def _durability(text: str) -> str:
    if text == "sync":
        return text
    found = _DURABILITY.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 60_000:
        raise ValueError
    return f"interval({int(found[1])}ms)"


def _host_name() -> str:
    return socket.gethostname()[: limits.CLIENT_NAME_BYTES_MAX] or "node"


DirectoryPath = Annotated[str, AfterValidator(_printable), Allowed("the path of a directory")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class NodeConfig(_Section):
    """`[node]`: who this node is."""

    name: Annotated[
        str,
        AfterValidator(_printable),
        Allowed(f"1 to {limits.CLIENT_NAME_BYTES_MAX} printable characters"),
        Field(max_length=limits.CLIENT_NAME_BYTES_MAX, description="name for people"),
    ] = Field(default_factory=_host_name)
    id: Annotated[int, Field(ge=1, le=2**31 - 1, description="number, unique in the cluster")] = 1


class ListenConfig(_Section):
    """`[listen]`: where clients and peers connect to."""

    host: Annotated[
        str,
        AfterValidator(_host),
        Allowed("an address or host name of this machine"),
        Field(description="address to listen on"),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port; 0 takes any free one")] = 7420
    insecure: Annotated[
        bool,
        Field(description="allow an address that other machines reach, without access control"),
    ] = False


class SessionConfig(_Section):
    """`[session]`: when a silent client is given up."""

    ttl_ms: Annotated[
        int, Field(ge=1000, le=3_600_000, description="a session silent for so long expires")
    ] = 5000
    heartbeat_interval_ms: Annotated[
        int, Field(ge=100, le=1_800_000, description="how often clients are to send a heartbeat")
    ] = 1000
    close_grace_ms: Annotated[
        int,
        Field(ge=0, le=3_600_000, description="time to come back after a connection was lost"),
    ] = 1000


class ProtectionConfig(_Section):
    """`[protection]`: when too many sessions would expire at once."""

    share: Annotated[
        float, Field(gt=0.0, le=1.0, description="hold back if more than this share would expire")
    ] = 0.5
    sessions_min: Annotated[
        int, Field(ge=1, le=1_000_000, description="never hold back with fewer sessions than this")
    ] = 32
    hold_ms: Annotated[
        int, Field(ge=0, le=3_600_000, description="hold back for at most so long")
    ] = 30_000


class StorageConfig(_Section):
    """`[storage]`: sizes of the write-ahead log."""

    segment_bytes: Annotated[
        int, Field(ge=1 << 20, le=1 << 30, description="size at which a new segment is begun")
    ] = limits.WAL_SEGMENT_BYTES
    wal_bytes_before_snapshot: Annotated[
        int, Field(ge=1 << 20, le=1 << 40, description="size of the log that starts snapshots")
    ] = 4 * limits.WAL_SEGMENT_BYTES


class LimitsConfig(_Section):
    """`[limits]`: what may connect."""

    connections_max: Annotated[int, Field(ge=1, le=1_000_000, description="connections in all")] = (
        limits.CONNECTIONS_MAX
    )
    connections_per_address_max: Annotated[
        int, Field(ge=1, le=1_000_000, description="connections from one address")
    ] = 20_000


class LogConfig(_Section):
    """`[log]`: what the node tells operators."""

    style: Annotated[
        Literal["console", "files", "json"],
        Field(description="for people, rolling files, or JSON lines on standard error"),
    ] = "console"
    dir: Annotated[DirectoryPath, Field(description="where style files writes")] = "ss-govern-log"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="least level to log")
    ] = "info"
    file_bytes: Annotated[
        int, Field(ge=64 << 10, le=1 << 34, description="size at which a log file is rolled")
    ] = 64 << 20
    files_kept: Annotated[
        int, Field(ge=1, le=1000, description="rolled files kept beside the one being written")
    ] = 10


class ServerConfig(_Section):
    """Everything a node can be told. Frozen; built by `load_config` or, in tests, by hand."""

    node: NodeConfig = Field(default_factory=NodeConfig)
    listen: ListenConfig = Field(default_factory=ListenConfig)
    data_dir: Annotated[DirectoryPath, Field(description="where the node keeps its data")] = (
        "ss-govern-data"
    )
    durability: Annotated[
        str,
        AfterValidator(_durability),
        Allowed('"sync", or "interval(<n>ms)" with n from 1 to 60000'),
        Field(description="sync before an answer, or at intervals (a crash loses the last one)"),
    ] = "sync"
    session: SessionConfig = Field(default_factory=SessionConfig)
    protection: ProtectionConfig = Field(default_factory=ProtectionConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def durability_interval_ms(self) -> int:
        """Milliseconds between syncs; 0: every answer waits for its sync."""
        found = _DURABILITY.fullmatch(self.durability)
        return int(found[1]) if found else 0


# --- the keys ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key in its three spellings."""

    name: str
    kind: type
    allowed: str
    description: str
    default: object

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return ENV_PREFIX + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """The option of `ss-govern server`."""
        return "--" + self.name.replace(".", "-").replace("_", "-")


def config_keys() -> tuple[ConfigKey, ...]:
    """Return all keys, in the order of the example file."""
    return tuple(_keys_of(ServerConfig, ""))


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[ConfigKey]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys_of(kind, f"{prefix}{name}.")
        else:
            yield ConfigKey(
                prefix + name,
                kind if isinstance(kind, type) else str,
                _allowed(field),
                field.description or "",
                field.get_default(call_default_factory=True, validated_data={}),
            )


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        *most, last = (f'"{choice}"' for choice in get_args(field.annotation))
        return f"{', '.join(most)} or {last}"
    if field.annotation is bool:
        return "true or false"
    for item in field.metadata:
        if isinstance(item, Allowed):
            return item.text
    low = next((i.ge for i in field.metadata if isinstance(i, Ge)), None)
    above = next((i.gt for i in field.metadata if isinstance(i, Gt)), None)
    high = next(i.le for i in field.metadata if isinstance(i, Le))
    if low is None:
        return f"numbers above {above:g} and up to {high:g}"
    return f"whole numbers from {low} to {high}"


# --- loading -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong: where it was said, what was said, and what would be right."""

    source: str
    key: str
    value: object
    problem: str

    def __str__(self) -> str:
        said = f"{self.key} = {_toml(self.value)}: " if self.key else ""
        return f"{self.source}: {said}{self.problem}"


class ConfigFaultsError(ConfigError):
    """All that is wrong in one configuration; `faults` for programs, the message for people."""

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        head = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"{head} in the configuration:{lines}", faults=len(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class _Said:
    """A value and who said it."""

    value: object
    source: str


def load_config(
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str | bool | None],
) -> ServerConfig:
    """Return the configuration of a node, or raise ConfigError with every fault found.

    `flags` maps keys (`session.ttl_ms`) to what was given, None for what was not.
    """
    keys = {key.name: key for key in config_keys()}
    faults: list[ConfigFault] = []
    said: dict[str, _Said] = {}
    if file is not None:
        said.update(_from_file(file, keys, faults))
    said.update(_from_environment(environ, keys, faults))
    for name, value in flags.items():
        if value is not None:
            said[name] = _Said(_parsed(value, keys[name].kind), f"flag {keys[name].flag}")

    config, wrong = _validated(said)
    faults.extend(_fault(name, said[name], f"allowed: {keys[name].allowed}") for name in wrong)
    effective = {
        name: said.get(name, _Said(key.default, "default"))
        for name, key in keys.items()
        if name not in wrong
    }
    faults.extend(_contradictions(effective))
    if faults or config is None:
        raise ConfigFaultsError(tuple(faults))
    return config


def _from_file(
    file: Path, keys: Mapping[str, ConfigKey], faults: list[ConfigFault]
) -> dict[str, _Said]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        faults.append(ConfigFault(str(file), "", None, f"cannot be read: {reason}"))
        return {}
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        faults.append(ConfigFault(str(file), "", None, problem))
        return {}
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        faults.append(ConfigFault(str(file), "", None, f"is not valid TOML: {error}"))
        return {}

    lines = _lines_of(text)
    sections = {name.partition(".")[0] for name in keys if "." in name}
    said: dict[str, _Said] = {}
    for name, value in _leaves(tables, ""):
        source = f"{file}:{line}" if (line := _line(name, lines)) else str(file)
        if name in keys:
            said[name] = _Said(value, source)
        elif name in sections:
            if value != {}:
                faults.append(ConfigFault(source, name, value, f"is a table: write [{name}]"))
        else:
            faults.append(ConfigFault(source, name, value, _unknown(name, list(keys))))
    return said


def _from_environment(
    environ: Mapping[str, str], keys: Mapping[str, ConfigKey], faults: list[ConfigFault]
) -> dict[str, _Said]:
    variables = {key.variable: key for key in keys.values()}
    said: dict[str, _Said] = {}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(ENV_PREFIX) or not text:
            continue
        key = variables.get(variable)
        if key is not None:
            said[key.name] = _Said(_parsed(text, key.kind), f"environment {variable}")
        elif not (
            variable in _CLIENT_VARIABLES
            or _SERVICE_LINK.match(variable)
            or text.startswith(("tcp://", "udp://", "sctp://"))
        ):
            problem = _unknown(variable, list(variables))
            faults.append(ConfigFault("environment", variable, text, problem))
    return said


def _validated(said: Mapping[str, _Said]) -> tuple[ServerConfig | None, list[str]]:
    """Return the configuration, or the names of the keys that are wrong."""
    nested: dict[str, object] = {}
    for name, item in said.items():
        section, dot, leaf = name.rpartition(".")
        if dot:
            table = nested.setdefault(section, {})
            assert isinstance(table, dict), "sections and keys have different names"
            table[leaf] = item.value
        else:
            nested[name] = item.value
    try:
        return ServerConfig.model_validate(nested), []
    except ValidationError as error:
        wrong = [".".join(str(part) for part in fault["loc"]) for fault in error.errors()]
        return None, [name for name in said if name in wrong]


def _contradictions(effective: Mapping[str, _Said]) -> Iterator[ConfigFault]:
    """Yield the faults that lie in two keys; keys that are wrong by themselves are absent."""
    host, insecure = effective.get("listen.host"), effective.get("listen.insecure")
    if host and insecure and not insecure.value and not is_loopback(str(host.value)):
        yield _fault(
            "listen.host",
            host,
            "other machines can reach this address, and this version has no access control:"
            " listen on 127.0.0.1, or set listen.insecure = true if the network is trusted",
        )
    ttl, beat = effective.get("session.ttl_ms"), effective.get("session.heartbeat_interval_ms")
    if ttl and beat and isinstance(ttl.value, int) and isinstance(beat.value, int):
        high = ttl.value // 2
        if beat.value > high:
            name, blamed = (
                ("session.ttl_ms", ttl)
                if beat.source == "default"
                else ("session.heartbeat_interval_ms", beat)
            )
            problem = (
                f"at least two heartbeats must fit into session.ttl_ms = {ttl.value}:"
                f" session.heartbeat_interval_ms may be at most {high}"
            )
            yield _fault(name, blamed, problem)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fault(name: str, said: _Said, problem: str) -> ConfigFault:
    return ConfigFault(said.source, name, said.value, problem)


def _unknown(name: str, known: list[str]) -> str:
    """Say that a key is unknown, and which one may have been meant."""
    leaf = name.rpartition(".")[2]
    meant = [key for key in known if key.rpartition(".")[2] == leaf]
    if not meant:
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not meant:
        leaves = {key.rpartition(".")[2]: key for key in known}
        close = difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.7)
        meant = [leaves[found] for found in close]
    if not meant:
        return "unknown key; `ss-govern server --help` lists all"
    return f"unknown key; did you mean {' or '.join(meant)}?"


def _parsed(text: str | bool, kind: type) -> object:
    """Return what a variable or flag says, as the file would have said it."""
    if isinstance(text, bool) or kind is str:
        return text
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text


def _leaves(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


_TABLE_LINE = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY_LINE = re.compile(r"\s*([\w\s.\"'-]+?)\s*=")


def _lines_of(text: str) -> dict[str, int]:
    """Return the line of each key. Good for messages only: it does not know all of TOML."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _TABLE_LINE.fullmatch(line):
            table = _bare(found[1]) + "."
            lines.setdefault(table[:-1], number)
        elif found := _KEY_LINE.match(line):
            lines.setdefault(table + _bare(found[1]), number)
    return lines


def _bare(dotted: str) -> str:
    return re.sub(r"[\s\"']", "", dotted)


def _line(name: str, lines: Mapping[str, int]) -> int | None:
    while name not in lines and "." in name:
        name = name.rpartition(".")[0]
    return lines.get(name)


def _toml(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
