"""Options that all client commands share."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

import click

from ssgovern.cli.exits import EXIT_OK
from ssgovern.client.credentials import VARIABLE, read_token
from ssgovern.client.tls import Tls, TlsOption
from ssgovern.model import DEFAULT_GROUP, DEFAULT_NAMESPACE

DEFAULT_SERVER = "127.0.0.1:7420"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Which server to talk to, about which names, and how to answer."""

    server: str
    namespace: str
    group: str | None
    timeout_s: float
    json: bool
    debug: bool
    tls: TlsOption = False
    token: str | None = field(default=None, repr=False)

    @property
    def group_name(self) -> str:
        """The group, where a command means exactly one."""
        return self.group or DEFAULT_GROUP


def tls_options(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options about TLS, which `tls_of` takes."""
    said = (
        ("--tls-ca", "SS_GOVERN_TLS_CA", "CA of the nodes' certificates; turns TLS on."),
        ("--tls-cert", "SS_GOVERN_TLS_CERT", "Certificate to show, where nodes ask for one."),
        ("--tls-key", "SS_GOVERN_TLS_KEY", "Its key, if it is not in the same file."),
    )
    for name, variable, text in reversed(said):
        described = f"{text}  [env: {variable}]"
        function = click.option(name, envvar=variable, metavar="PATH", help=described)(function)
    return click.option(
        "--tls",
        "use_tls",
        envvar="SS_GOVERN_TLS",
        is_flag=True,
        help="TLS, with CAs the system trusts.  [env: SS_GOVERN_TLS]",
    )(function)


def tls_of(options: dict[str, object]) -> TlsOption:
    """Take the options about TLS out of those of a command."""
    use_tls = bool(options.pop("use_tls"))
    ca, cert, key = (
        str(path) if path else None
        for path in (options.pop(name) for name in ("tls_ca", "tls_cert", "tls_key"))
    )
    return Tls(ca, cert, key) if use_tls or ca or cert or key else False


def _token(said: object, file: object) -> str | None:
    """Return the token that was said; None: the SDK looks into the environment."""
    if said:
        return str(said)
    return read_token(str(file)) if file and not os.environ.get(VARIABLE) else None


def client_command(
    function: Callable[Concatenate[Target, P], Coroutine[object, object, int | None]],
) -> Callable[P, int]:
    """Give a coroutine the shared options as its first argument, and run it."""

    @click.option(
        "-s",
        "--server",
        envvar="SS_GOVERN_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="HOST:PORT",
        help="Where to connect to; several with commas.  [env: SS_GOVERN_SERVER]",
    )
    @click.option(
        "-n",
        "--namespace",
        envvar="SS_GOVERN_NAMESPACE",
        default=DEFAULT_NAMESPACE,
        show_default=True,
        help="Environment, isolated from all others.",
    )
    @click.option(
        "-g", "--group", envvar="SS_GOVERN_GROUP", help=f"Group in it.  [default: {DEFAULT_GROUP}]"
    )
    @click.option(
        "--timeout",
        envvar="SS_GOVERN_TIMEOUT",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer.",
    )
    @click.option(
        "--token-file",
        envvar="SS_GOVERN_TOKEN_FILE",
        metavar="PATH",
        help="File with the token.  [env: SS_GOVERN_TOKEN_FILE]",
    )
    @click.option(
        "--token",
        metavar="TOKEN",
        help="Shows who asks; others on the machine can read it, better the variable or a file."
        "  [env: SS_GOVERN_TOKEN]",
    )
    @tls_options
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @click.option("--debug", is_flag=True, help="Show where a failure came from.")
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        options: dict[str, object] = dict(kwargs)
        target = Target(
            server=str(options.pop("server")),
            namespace=str(options.pop("namespace")),
            group=None if (group := options.pop("group")) is None else str(group),
            timeout_s=float(str(options.pop("timeout"))),
            tls=tls_of(options),
            token=_token(options.pop("token"), options.pop("token_file")),
            json=bool(options.pop("as_json")),
            debug=bool(options.pop("debug")),
        )
        code = asyncio.run(function(target, *args, **options))  # type: ignore[arg-type]
        return EXIT_OK if code is None else code

    return wrapped


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse repeated `key=value` options."""
    result: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not key=value", ctx, param)
        if key in result:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        result[key] = text
    return result
