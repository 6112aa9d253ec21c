"""`cluster join` and `cluster secret`: what it takes to add a node.

A node joins by being started with `cluster.join`; there is nothing to announce before. What is
here finds out what that start needs: an id that nobody has, and what has to be said.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import click

from ssgovern import limits
from ssgovern.cli.connection import log_for
from ssgovern.cli.exits import EXIT_OK
from ssgovern.client.addresses import parse_addresses
from ssgovern.client.registry import connect
from ssgovern.client.tls import Tls, TlsOption
from ssgovern.errors import ConfigError
from ssgovern.version import __version__

_SECRET_BYTES = 32
_IDENTITY_FILE = "node.json"

_JOIN_HELP = """\b
Examples:
  ss-govern cluster join --to 127.0.0.1:7420 --port 7450 --data-dir n4
  ss-govern cluster join --to 10.0.0.1 --host 0.0.0.0 --advertise 10.0.0.4:7420 \\
      --secret-file secret --data-dir /var/lib/ss-govern --write n4.toml
\b
It asks the cluster which ids are taken, takes the next one and starts a node with it; with
--write it writes that node's configuration instead, for a service manager. A data directory
that has an id keeps it, so the same command starts the node again. Shards then move to it by
themselves; `ss-govern cluster status` shows how far that is. Where access is controlled, the
cluster is asked with the token in SS_GOVERN_TOKEN or the file SS_GOVERN_TOKEN_FILE.
"""

_NAME_VARIABLE = "SS_GOVERN_NODE_NAME"
_KEYS = {
    "name": "node.name",
    "zone": "node.zone",
    "host": "listen.host",
    "port": "listen.port",
    "advertise": "listen.advertise",
    "insecure": "listen.insecure",
    "secret_file": "cluster.secret_file",
    "tls_cert": "tls.cert",
    "tls_key": "tls.key",
    "tls_ca": "tls.ca",
}


@click.command(epilog=_JOIN_HELP)
@click.option(
    "--to", required=True, metavar="HOST:PORT", help="Nodes of the cluster; several with commas."
)
@click.option(
    *("-d", "--data-dir"),
    default="ss-govern-data",
    show_default=True,
    metavar="PATH",
    help="Where the node keeps its data.",
)
@click.option("--id", "node_id", type=click.IntRange(1, 2**31 - 1), help="[default: the next one]")
@click.option("--name", help="Name for people.  [default: the machine's, and the id]")
@click.option("--zone", help="What fails together with it: a rack, a room.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("-p", "--port", help="Port to listen on.  [default: 7420]")
@click.option("--advertise", metavar="HOST:PORT", help="Where others reach it, if not there.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Let everybody use it, if nobody is set up."
)
@click.option("--secret-file", metavar="PATH", help="File with the cluster's secret.")
@click.option("--tls-cert", metavar="PATH", help="Certificate of the new node; turns TLS on.")
@click.option("--tls-key", metavar="PATH", help="Its key.")
@click.option("--tls-ca", metavar="PATH", help="CA of the nodes' certificates.")
@click.option("--write", type=click.Path(path_type=Path), help="Write a configuration instead.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="How long to wait for the cluster's answer, in seconds.",
)
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def join(
    to: str,
    data_dir: str,
    node_id: int | None,
    write: Path | None,
    timeout: float,
    debug: bool,
    **said: str | bool | None,
) -> int:
    """Start a node that joins a running cluster."""
    from ssgovern.node.config_load import load_config

    log_for(debug=debug)
    seeds = ",".join(str(address) for address in parse_addresses(to))
    known = id_in(Path(data_dir))
    if known is not None and node_id not in (None, known):
        raise ConfigError(f"{data_dir} belongs to node {known}, not to {node_id}: leave --id away")
    chosen = node_id or known or asyncio.run(_next_id(seeds, timeout, _tls(said)))
    flags: dict[str, str | bool | None] = {
        "node.id": str(chosen),
        "data_dir": data_dir,
        "cluster.join": seeds,
        **{_KEYS[name]: value for name, value in said.items()},
    }
    config = load_config(None, os.environ, flags)
    if not (said["name"] or os.environ.get(_NAME_VARIABLE)):
        # Several nodes of one machine would have the same name. It has to be the same next time.
        suffix = f"-{chosen}"
        room = limits.CLIENT_NAME_BYTES_MAX - len(suffix)
        flags["node.name"] = config.node.name[:room] + suffix
        config = load_config(None, os.environ, flags)
    if write is not None:
        write_new(write, toml_of(flags), mode=0o644)
        click.echo(f"{write} is for node {chosen}: ss-govern server --config {write}")
        return EXIT_OK
    from ssgovern.cli.server import run_server

    click.echo(f"joining as node {chosen}", err=True)
    return run_server(config, "", "")


@click.command()
@click.option("--file", type=click.Path(path_type=Path), help="Write it there, for the owner only.")
def secret(file: Path | None) -> int:
    """Make a secret that the nodes of a cluster prove to each other."""
    text = secrets.token_urlsafe(_SECRET_BYTES)
    if file is None:
        click.echo(text)
        return EXIT_OK
    write_new(file, text + "\n", mode=0o600)
    click.echo(f"{file}: give it to every node, and name it as cluster.secret_file")
    return EXIT_OK


def _tls(said: Mapping[str, str | bool | None]) -> TlsOption:
    """Return what the node to be will use, as a client: with its own certificate."""
    paths = {
        name: str(said[f"tls_{name}"] or os.environ.get(f"SS_GOVERN_TLS_{name.upper()}") or "")
        for name in ("ca", "cert", "key")
    }
    if not any(paths.values()):
        return False
    return Tls(**{name: path or None for name, path in paths.items()})


async def _next_id(seeds: str, timeout_s: float, tls: TlsOption) -> int:
    name = f"ss-govern/{__version__}"
    async with connect(seeds, client_name=name, timeout=timeout_s, tls=tls) as registry:
        found = await registry.cluster_status()
    # Ids of nodes that left are never taken again.
    return max([found.node_id_next, *(1 + node.node_id for node in found.nodes)])


def id_in(data_dir: Path) -> int | None:
    """Return the id that a data directory has, None if it has none yet."""
    try:
        text = (data_dir / _IDENTITY_FILE).read_text(encoding="utf-8")
        return int(json.loads(text)["node_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read {data_dir / _IDENTITY_FILE}: {error}") from error


def toml_of(flags: Mapping[str, str | bool | None]) -> str:
    """Return what was said as a configuration file."""
    tables: dict[str, list[str]] = {"": []}
    for key, value in flags.items():
        if value is None:
            continue
        section, _, leaf = key.rpartition(".")
        number = isinstance(value, str) and value.isdigit() and key in ("node.id", "listen.port")
        # JSON's strings are TOML's.
        text = value if number else json.dumps(value)
        tables.setdefault(section, []).append(f"{leaf} = {text}")
    lines = [*tables.pop("")]
    for section, said in tables.items():
        lines += ["", f"[{section}]", *said]
    return "\n".join(lines) + "\n"


def write_new(file: Path, text: str, *, mode: int) -> None:
    """Write a file that must not be there yet."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{file} is there already; name another file") from None
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
    with os.fdopen(number, "w", encoding="utf-8") as out:
        out.write(text)
