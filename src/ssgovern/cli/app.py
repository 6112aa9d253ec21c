"""The tree of commands, and what becomes of a failure.

A command's module is imported when the command runs, so that `--help` and completion stay
fast. Every failure that callers or servers can cause ends as one sentence that says what to
do next and a documented exit code; a traceback is shown for `--debug` and for faults of our
own.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ssgovern.cli.exits import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
)
from ssgovern.errors import ErrorCode, SsGovernError
from ssgovern.version import __version__

_COMMANDS = {
    "server": ("server:server", "Run a node."),
    "demo": ("demo:demo", "Show in a minute what a node does."),
    "register": ("instances:register", "Register an instance and keep it alive until Ctrl-C."),
    "deregister": ("instances:deregister", "Remove an instance."),
    "update": ("instances:update", "Change weight, metadata or state of an instance."),
    "drain": ("release:drain", "Take an instance out of traffic; return when everybody knows."),
    "services": ("services:services", "List services."),
    "get": ("services:get", "Show the instances of a service."),
    "subscribers": ("release:subscribers", "Show who follows a service, and what each has."),
    "watch": ("watch:watch", "Show changes of a service, or of many, as they happen."),
    "sessions": ("observing:sessions", "List sessions of clients, and leases."),
    "events": ("observing:events", "Show what happened lately, and as it happens."),
    "audit": ("audit:audit", "Show who changed what, and who was refused."),
    "status": ("status:status", "Show how a node is doing."),
    "access": ("access:access", "Say who may do what: users, tokens, roles."),
    "cluster": ("cluster:cluster", "Look at a cluster, add and remove nodes."),
    "backup": ("backup:backup", "Write all that is registered into one file."),
    "restore": ("backup:restore", "Make a node's data directory from a backup."),
    "fsck": ("fsck:fsck", "Check and repair the data directory of a stopped node."),
    "tls": ("tls:tls", "Make certificates for trying TLS out, look into certificates."),
    "wal": ("wal:wal", "Look into the data directory of a stopped node."),
    "bench": ("bench:bench", "Measure a node."),
}
"""Name: (module:attribute under ssgovern.cli, short help)."""

_EXITS_HELP = """\b
Exit codes:
  0    done
  1    not found, or refused
  2    wrong usage or configuration
  3    no server could be reached, or none answered in time
  130  interrupted
"""

_EXAMPLES = """\b
Try:
  ss-govern server                          a node on 127.0.0.1:7420
  ss-govern register orders --port 8080     in a second terminal
  ss-govern watch orders                    in a third
"""

_NEXT = {
    ErrorCode.UNAVAILABLE: (
        "start a node with `ss-govern server`, or name one with --server or SS_GOVERN_SERVER"
    ),
    ErrorCode.DEADLINE_EXCEEDED: "try again, with a longer --timeout if the node is far or busy",
    ErrorCode.NOT_FOUND: "`ss-govern services`, `get` and `cluster nodes` show what there is",
    ErrorCode.OVERLOADED: "the node is busy; try again in a moment",
    ErrorCode.DISK_FULL: "free space in the node's data directory; writes then work again",
    ErrorCode.SHUTTING_DOWN: "the node is stopping; try again once it runs",
    ErrorCode.REVISION_CONFLICT: "look at it again with `ss-govern get`, then decide",
    ErrorCode.UNSUPPORTED_VERSION: "use a client and a server of nearby versions",
    ErrorCode.UNSUPPORTED_TYPE: "the server is older than this command; upgrade it",
    ErrorCode.PROTOCOL: "is there an ss-govern server at this address?",
    ErrorCode.SHARD_UNAVAILABLE: "`ss-govern cluster status` says what is missing",
    ErrorCode.NOT_CONTROLLER: "the cluster has no controller now; `ss-govern cluster status`",
    ErrorCode.OUTCOME_UNKNOWN: "look whether it is done, then decide",
    ErrorCode.UNAUTHENTICATED: (
        "`ss-govern access tokens create` makes a token, for who is an admin"
    ),
    ErrorCode.CORRUPTION: "`ss-govern fsck` says what it means and what to do; nothing was changed",
}
_EXIT_OF = {
    ErrorCode.UNAVAILABLE: EXIT_UNREACHABLE,
    ErrorCode.DEADLINE_EXCEEDED: EXIT_UNREACHABLE,
    ErrorCode.INVALID_ARGUMENT: EXIT_USAGE,
    ErrorCode.LIMIT_EXCEEDED: EXIT_USAGE,
    ErrorCode.CONFIG: EXIT_USAGE,
}


class _ReaderGoneError(Exception):
    """Whoever read our output has seen enough."""


class Program(click.Group):
    """The group of all commands, imported one by one when they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module_name, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        try:
            module = importlib.import_module(f"ssgovern.cli.{module_name}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "ssgovern":
                raise
            raise click.ClickException(
                f"`ss-govern {cmd_name}` needs the package {error.name}:"
                " pip install 'ss-govern[server]'"
            ) from error
        command = getattr(module, attribute)
        assert isinstance(command, click.Command), f"{cmd_name} is not a command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else "; see --help for all"
            raise click.UsageError(f"there is no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would make a failure of it.
            raise _ReaderGoneError from error

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run and exit; failures become a sentence and a code."""
        given = list(sys.argv[1:] if args is None else args)
        # Read by hand: a failure may come before or while the options are parsed.
        debug = "--debug" in given or bool(os.environ.get("SS_GOVERN_DEBUG"))
        extra["standalone_mode"] = False
        try:
            result = super().main(given, *rest, **extra)
            sys.stdout.flush()
        except (_ReaderGoneError, BrokenPipeError):
            # Nothing may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(EXIT_OK)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(EXIT_INTERRUPTED)
        except click.UsageError as error:
            error.show()
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(EXIT_FAILED)
        except SsGovernError as error:
            if debug:
                traceback.print_exc()
            tell(error, as_json="--json" in given)
            sys.exit(_EXIT_OF.get(error.code, EXIT_FAILED))
        sys.exit(result if isinstance(result, int) else EXIT_OK)


def tell(error: SsGovernError, *, as_json: bool) -> None:
    """Write a failure to standard error, for people or for programs."""
    next_step = _NEXT.get(error.code, "")
    if as_json:
        body = {
            "code": error.code.name,
            "message": error.message,
            "next": next_step,
            "fields": dict(error.fields),
        }
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
        return
    message = error.message.rstrip(".")
    end = "" if "\n" in message else "."
    click.echo(f"Error: {message}{'; ' if next_step else ''}{next_step}{end}", err=True)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"{_EXAMPLES}\n\n{_EXITS_HELP}",
)
@click.version_option(__version__, "-V", "--version", message="ss-govern %(version)s")
def app() -> None:
    """A service registry: register, stay alive, discover, be told."""
