"""`access init`: the first who may do anything, before there is a node to ask.

For a node by itself it writes the file `access` in its data directory, as the node would; for a
cluster it prints what its configuration is to say, because no node is there yet to tell others.
"""

from __future__ import annotations

import asyncio
import getpass
import secrets
import sys
from pathlib import Path

import click

from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.output import print_json
from ssgovern.errors import ConfigError

_HELP = """\b
Examples:
  ss-govern access init --data-dir /var/lib/ss-govern
  ss-govern access init --cluster        for a cluster: prints a token, and a line for every node
\b
The token, and a password that was not asked for, are printed once and kept nowhere: only their
hashes are. Programs show the token (SS_GOVERN_TOKEN, --token, Authorization: Bearer); people log
in to the console with the name and the password. On a node that was set up before, --recover
adds another admin, for who lost all others; the node has to be stopped.
"""


@click.command(epilog=_HELP)
@click.option(
    "-d", "--data-dir", type=click.Path(path_type=Path), help="Of a node that is stopped."
)
@click.option("--cluster", is_flag=True, help="Print what to configure on every node instead.")
@click.option("--user", default="admin", show_default=True, help="Name of the first user.")
@click.option(
    "--password-stdin", is_flag=True, help="Read its password from standard input, one line."
)
@click.option("--recover", is_flag=True, help="Add an admin though somebody is set up.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def init(
    data_dir: Path | None,
    cluster: bool,
    user: str,
    password_stdin: bool,
    recover: bool,
    as_json: bool,
) -> int:
    """Set up the first admin: a token, and a user with a password."""
    if cluster == (data_dir is not None):
        raise click.UsageError(
            "say --data-dir for a node by itself, or --cluster for one of several"
        )
    if data_dir is None:
        return _for_cluster(as_json=as_json)
    password, generated = _password(user, from_stdin=password_stdin)
    token = asyncio.run(_write(data_dir, user, password, recover=recover))
    if as_json:
        made = {"user": user, "password": password if generated else None, "token": token}
        print_json(made)
        return EXIT_OK
    click.echo(f"user      {user}")
    if generated:
        click.echo(f"password  {password}")
    click.echo(f"token     {token}")
    click.echo("Keep them: they are shown this once.", err=True)
    return EXIT_OK


def read_password(prompt: str, *, from_stdin: bool) -> str:
    """Return a password from standard input or, twice, from the terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass(f"{prompt}: ")
    if getpass.getpass(f"{prompt}, again: ") != first:
        raise click.UsageError("the two are not the same")
    return first


def _password(user: str, *, from_stdin: bool) -> tuple[str, bool]:
    if not from_stdin and sys.stdin.isatty():
        said = getpass.getpass(f"Password of {user} (nothing: one is made): ")
        if said:
            if getpass.getpass("Again: ") != said:
                raise click.UsageError("the two are not the same")
            return said, False
    elif from_stdin:
        return read_password("", from_stdin=True), False
    return secrets.token_urlsafe(15), True


def _for_cluster(*, as_json: bool) -> int:
    from ssgovern.service.access import new_token

    token = new_token(secrets.token_bytes)
    line = f"{token.id}:{token.hash.hex()}"
    if as_json:
        print_json({"token": token.text, "admin_token_hash": line})
        return EXIT_OK
    click.echo(f"token  {token.text}")
    click.echo()
    click.echo("# in the configuration of every node (it is no secret; the token is)")
    click.echo("[access]")
    click.echo(f'admin_token_hash = "{line}"')
    click.echo(
        "Keep the token: it is shown this once. With it, make users and roles"
        " (`ss-govern access users add`); then it may be taken out of the configuration again.",
        err=True,
    )
    return EXIT_OK


async def _write(data_dir: Path, user: str, password: str, *, recover: bool) -> str:
    from ssgovern.controller.access import (
        AccessChange,
        AddToken,
        SetUser,
        Token,
        decide_access,
    )
    from ssgovern.node.access_passwords import hash_now
    from ssgovern.node.access_store import load, save
    from ssgovern.node.identity import FILE, read
    from ssgovern.runtime.real import RealRuntime
    from ssgovern.service.access import new_token

    runtime = RealRuntime()
    try:
        disk = runtime.open_disk(str(data_dir))
    except BlockingIOError as error:
        raise ConfigError(
            f"a node runs on {data_dir}: ask it instead (`ss-govern access users add`), or stop it"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot use {data_dir}: {error.strerror}") from error
    try:
        if FILE in disk.names() and read(disk).clustered:
            raise ConfigError(
                f"{data_dir} is that of a node of a cluster, which keeps who may do what in its "
                "log: use `ss-govern access init --cluster`"
            )
        state = load(disk)
        if state and not recover:
            raise ConfigError(
                f"somebody is set up in {data_dir} already; --recover adds another admin"
            )
        now_ms = runtime.wall_ms()
        made = new_token(runtime.random_bytes)
        hashed = hash_now(password)
        commands = (
            AddToken(Token(made.id, made.hash, "", ("admin",), "access init", now_ms)),
            SetUser(user, user not in state.users, hashed, ("admin",), disabled=False),
        )
        for command in commands:
            change = decide_access(state, command, now_ms).change
            state = state.changed(change or AccessChange())
        await save(disk, state)
    finally:
        await disk.close()
    return made.text
