"""Reading the configuration: file, environment and flags, and every fault in them at once.

Flags win over the environment, the environment over the file, the file over the defaults. A
variable that is set but empty counts as not set. Invariant: either all is valid, or every
fault is reported, each with its source, key, value and what is allowed.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from ssgovern.errors import ConfigError
from ssgovern.node.config import (
    ENV_PREFIX,
    HTTP_PORT,
    LISTEN_PORT,
    SECRET_ALLOWED,
    ConfigKey,
    ServerConfig,
    config_keys,
)
from ssgovern.node.config_check import ConfigFault, Said, contradictions, fault_of

DEFAULT_FILE = "ss-govern.toml"

_CLIENT_VARIABLES = frozenset(
    ENV_PREFIX + name
    for name in (
        *("CONFIG", "SERVER", "NAMESPACE", "GROUP", "TIMEOUT", "DEBUG", "CACHE_DIR"),
        *("FAILPOINTS", "TLS", "TOKEN", "TOKEN_FILE"),
    )
)
"""Variables of the command line and the SDK, which may share the environment with a node."""

_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""What Kubernetes puts into every container beside a Service named `ss-govern…`."""


class ConfigFaultsError(ConfigError):
    """All that is wrong in one configuration; `faults` for programs, the message for people."""

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        head = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"{head} in the configuration:{lines}", faults=len(faults))
        self.faults = faults


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
    said: dict[str, Said] = {}
    if file is not None:
        said.update(_from_file(file, keys, faults))
    said.update(_from_environment(environ, keys, faults))
    for name, value in flags.items():
        if value is not None:
            said[name] = Said(_parsed(value, keys[name].kind), f"flag {keys[name].flag}")

    _read_secret(said, faults)
    _open_http(said)
    config, wrong = _validated(said)
    faults.extend(fault_of(name, said[name], f"allowed: {keys[name].allowed}") for name in wrong)
    effective = {
        name: said.get(name, Said(key.default, "default"))
        for name, key in keys.items()
        if name not in wrong
    }
    faults.extend(contradictions(effective))
    if faults or config is None:
        raise ConfigFaultsError(tuple(faults))
    return config


def _from_file(
    file: Path, keys: Mapping[str, ConfigKey], faults: list[ConfigFault]
) -> dict[str, Said]:
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
    said: dict[str, Said] = {}
    for name, value in _leaves(tables, ""):
        source = f"{file}:{line}" if (line := _line(name, lines)) else str(file)
        if name in keys:
            said[name] = Said(value, source)
        elif name in sections:
            if value != {}:
                faults.append(ConfigFault(source, name, value, f"is a table: write [{name}]"))
        else:
            faults.append(ConfigFault(source, name, value, _unknown(name, list(keys))))
    return said


def _from_environment(
    environ: Mapping[str, str], keys: Mapping[str, ConfigKey], faults: list[ConfigFault]
) -> dict[str, Said]:
    variables = {key.variable: key for key in keys.values()}
    said: dict[str, Said] = {}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(ENV_PREFIX) or not text:
            continue
        key = variables.get(variable)
        if key is not None:
            said[key.name] = Said(_parsed(text, key.kind), f"environment {variable}")
        elif not (
            variable in _CLIENT_VARIABLES
            or _SERVICE_LINK.match(variable)
            or text.startswith(("tcp://", "udp://", "sctp://"))
        ):
            problem = _unknown(variable, list(variables))
            faults.append(ConfigFault("environment", variable, text, problem))
    return said


def _read_secret(said: dict[str, Said], faults: list[ConfigFault]) -> None:
    """Put what the secret's file holds where the secret would have been said."""
    item = said.get("cluster.secret_file")
    if item is None or not isinstance(item.value, str) or not item.value:
        return
    beside = said.get("cluster.secret")
    if beside is not None and beside.value:
        problem = f"cluster.secret is said as well ({beside.source}): keep one of the two"
        faults.append(fault_of("cluster.secret_file", item, problem))
        return
    try:
        secret = Path(item.value).read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        faults.append(fault_of("cluster.secret_file", item, f"cannot be read: {reason}"))
    except (UnicodeDecodeError, ValueError):
        faults.append(fault_of("cluster.secret_file", item, f"holds other than {SECRET_ALLOWED}"))
    else:
        # An empty file is a secret that is wrong, not one that is not there.
        said["cluster.secret"] = Said(secret or " ", f"{item.source}: {item.value}")


def _open_http(said: dict[str, Said]) -> None:
    """Give HTTP its usual port where the native one is the usual one.

    Whoever chose another may run several nodes on one machine: the port beside it may be the
    next node's.
    """
    native = said.get("listen.port")
    if "http.port" not in said and (native is None or native.value == LISTEN_PORT):
        said["http.port"] = Said(HTTP_PORT, "default")


def _validated(said: Mapping[str, Said]) -> tuple[ServerConfig | None, list[str]]:
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


def _unknown(name: str, known: list[str]) -> str:
    """Say that a key is unknown, and which one may have been meant."""
    leaf = name.rpartition(".")[2]
    meant = [key for key in known if key.rpartition(".")[2] == leaf]
    if len(meant) > 1:
        meant = difflib.get_close_matches(name, meant, n=1, cutoff=0.7) or meant
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
