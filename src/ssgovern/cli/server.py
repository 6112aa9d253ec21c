"""`server`: run a node."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ssgovern.cli.banner import banner
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.output import Cell, is_terminal, print_facts, print_json, visible
from ssgovern.model import instance_id
from ssgovern.node.config import ConfigKey, ServerConfig, config_keys
from ssgovern.node.config_load import DEFAULT_FILE, load_config

if TYPE_CHECKING:
    from ssgovern.node.node import Ready
    from ssgovern.node.recovery import Progress

_SHORT = {
    "listen.host": ("--host",),
    "listen.port": ("-p", "--port"),
    "listen.insecure": ("--insecure",),
    "data_dir": ("-d",),
    "node.name": ("--name",),
}

_WAITING = "waiting for "

_HELP = """\b
Examples:
  ss-govern server
  ss-govern server --data-dir /var/lib/ss-govern --log-style files --log-dir /var/log/ss-govern
  ss-govern server --config ss-govern.toml --check      say all that is wrong with it
  SS_GOVERN_LISTEN_PORT=7500 ss-govern server --durability 'interval(100ms)'
\b
Every option is also a key of the file and a variable: --session-ttl-ms is ttl_ms under
[session] and SS_GOVERN_SESSION_TTL_MS. Options win over variables, variables over the file.
SIGTERM or Ctrl-C stops cleanly: what was acknowledged is on disk, clients are told. A second
signal stops at once, which loses nothing either, but makes the next start slower.
"""


def _with_key_options(command: Callable[..., int]) -> Callable[..., int]:
    for key in reversed(config_keys()):
        command = _key_option(key)(command)
    return command


def _key_option(key: ConfigKey) -> Callable[[Callable[..., int]], Callable[..., int]]:
    names = (_variable(key), *_SHORT.get(key.name, ()), key.flag)
    default = str(key.default).lower() if key.kind is bool else str(key.default)
    text = f"{key.description[0].upper()}{key.description[1:]}.  [default: {default}]"
    if key.kind is bool:
        return click.option(*names, is_flag=True, default=None, help=text)
    return click.option(*names, metavar=_metavar(key), help=text)


def _variable(key: ConfigKey) -> str:
    return "key_" + key.name.replace(".", "__")


def _metavar(key: ConfigKey) -> str:
    if key.name.endswith("dir"):
        return "PATH"
    if key.allowed.startswith('"'):
        return "|".join(re.findall(r'"([^"]+)"', key.allowed))
    return {int: "N", float: "SHARE"}.get(key.kind, "TEXT")


@click.command(epilog=_HELP)
@click.option(
    "-c",
    "--config",
    "config_file",
    envvar="SS_GOVERN_CONFIG",
    type=click.Path(path_type=Path),
    help=f"TOML file.  [./{DEFAULT_FILE} if there is one]",
)
@click.option("--check", is_flag=True, help="Only check the configuration, and show it.")
@click.option("--json", "as_json", is_flag=True, help="With --check: in JSON.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
@click.option("--failpoints", envvar="SS_GOVERN_FAILPOINTS", default="", hidden=True)
@_with_key_options
def server(
    config_file: Path | None,
    check: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read where failures end
    failpoints: str,
    **given: Any,
) -> int:
    """Run a node until SIGTERM or Ctrl-C."""
    if config_file is None and Path(DEFAULT_FILE).exists():
        config_file = Path(DEFAULT_FILE)
    flags = {key.name: given[_variable(key)] for key in config_keys()}
    config = load_config(config_file, os.environ, flags)
    source = "" if config_file is None else str(config_file)
    if check:
        _check_tls(config)
        _show(config, as_json=as_json)
        return EXIT_OK
    return run_server(config, source, failpoints)


def _check_tls(config: ServerConfig) -> None:
    """Read the files as a start would. Raises ConfigError."""
    if config.tls.cert:
        from ssgovern.node.tls import NodeTls
        from ssgovern.runtime.real import RealRuntime

        NodeTls(config.tls, RealRuntime().wall_ms)


def _show(config: ServerConfig, *, as_json: bool) -> None:
    if as_json:
        print_json(config.model_dump())
        return
    tables = config.model_dump()
    facts: dict[str, str | Cell] = {}
    for key in config_keys():
        if key.is_secret:
            facts[key.name] = "(set, not shown)" if config.cluster_secret else ""
            continue
        value: Any = tables
        for part in key.name.split("."):
            value = value[part]
        facts[key.name] = str(value).lower() if isinstance(value, bool) else str(value)
    print_facts(facts)


def run_server(config: ServerConfig, source: str, failpoints: str) -> int:
    """Run a node in this process until it is told to stop."""
    from ssgovern.node.logs import set_up_logs
    from ssgovern.node.server import run

    setup = set_up_logs(config.log)
    progress = StartProgressLine(sys.stderr, time.monotonic)

    def on_ready(ready: Ready) -> None:
        progress.end()
        if config.log.style != "json":
            print(banner(config, ready, source), flush=True)
        if config.log.style != "console":
            # The banner, for who reads the log.
            facts = {
                "address": instance_id(ready.host, ready.port),
                "data_dir": config.data_dir,
                "durability": config.durability,
                "instances": ready.instances,
            }
            logging.getLogger("ssgovern.node").info("serving", extra=facts)

    try:
        run(config, failpoints=failpoints, on_progress=progress.on_progress, on_ready=on_ready)
    finally:
        progress.end()
        setup.close()
    return EXIT_OK


class StartProgressLine:
    """Says what a slow start is waiting for: in place, or a line when there is news.

    Recovery that takes less than a second says nothing; what others are waited for is said at
    once, because it may take for ever.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._next_s = clock() + 1.0
        self._waiting = ""
        self._open = False

    def on_progress(self, progress: Progress) -> None:
        """Take how far recovery is, or who is waited for: nothing can be counted then."""
        in_place = is_terminal(self._out)
        if progress.what.startswith(_WAITING):
            if progress.what != self._waiting:
                self._waiting = progress.what
                self._say(progress.what, in_place=in_place)
            return
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + (0.1 if in_place else 5.0)
            share = f"{100 * progress.done // progress.total:3d} %" if progress.total else ""
            self._say(f"recovering from {progress.what} {share}".rstrip(), in_place=in_place)

    def _say(self, text: str, *, in_place: bool) -> None:
        # It has words of other nodes in it.
        shown = visible(text)
        self._out.write(f"\r\x1b[K{shown}" if in_place else f"{shown}\n")
        self._out.flush()
        self._open = in_place

    def end(self) -> None:
        """Take the line away."""
        if self._open:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._open = False
