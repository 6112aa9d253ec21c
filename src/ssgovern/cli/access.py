"""`access`: who may do what on a node or a cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ssgovern.cli.access_init import init, read_password
from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import print_facts, print_json, print_table
from ssgovern.client.access import AccessAdministration
from ssgovern.wire.pb import access_pb2

_EXAMPLES = """\b
Examples:
  ss-govern access init --data-dir D                      the first admin, before the first start
  ss-govern access users add ann --role operator          asks for a password
  ss-govern access tokens create --role registrar --note ci --expires 90d
  ss-govern access roles set shop --grant 'prod default/shop-* read,register'
\b
Roles there are: reader (read), registrar (read, register), operator (read, register, write) and
admin (all), each everywhere; others are made with `roles set`. What rights are for:
  read      get, list, watch, status       register  instances of one's own
  write     instances of others            admin     the cluster, access, audit
"""
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.group(epilog=_EXAMPLES)
def access() -> None:
    """Say who may do what: users, tokens, roles."""


access.add_command(init)


@access.command()
@client_command
async def whoami(target: Target) -> int:
    """Show who you are to the node, and whether access is controlled."""
    async with connected(target) as registry:
        found = await AccessAdministration(registry).show()
    facts = {
        "you are": found.principal or "anybody",
        "access is": "controlled" if found.enforced else "not controlled: all may do all",
    }
    if target.json:
        print_json({"principal": found.principal, "enforced": found.enforced})
    else:
        print_facts(facts)
    return EXIT_OK


# --- users -----------------------------------------------------------------------------------


@access.group()
def users() -> None:
    """People, who log in to the console with a password."""


@users.command("list")
@client_command
async def list_users(target: Target) -> int:
    """Show the users."""
    async with connected(target) as registry:
        state = (await AccessAdministration(registry).show()).state
    if target.json:
        print_json(
            [
                {"name": user.name, "roles": list(user.roles), "disabled": user.disabled}
                for user in state.users
            ]
        )
    else:
        rows = [
            (user.name, ", ".join(user.roles), "disabled" if user.disabled else "")
            for user in state.users
        ]
        print_table(("USER", "ROLES", ""), rows)
    return EXIT_OK


_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line."
)


@users.command("add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="Role to give; may be repeated.")
@_password_stdin
@client_command
async def add_user(target: Target, name: str, roles: Sequence[str], password_stdin: bool) -> int:
    """Make a user; asks for a password."""
    password = read_password(f"Password of {name}", from_stdin=password_stdin)
    async with connected(target) as registry:
        administration = AccessAdministration(registry)
        said = await administration.set_user(name, create=True, password=password, roles=roles)
    return _said(target, said)


@users.command("set")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="Roles to have instead; may be repeated.")
@click.option("--password", "new_password", is_flag=True, help="Ask for a new password.")
@click.option("--disable/--enable", "disabled", default=None, help="Let it log in, or not.")
@_password_stdin
@client_command
async def set_user(
    target: Target,
    name: str,
    roles: Sequence[str],
    new_password: bool,
    disabled: bool | None,
    password_stdin: bool,
) -> int:
    """Change roles, password or state of a user; what is not said stays."""
    password = None
    if new_password or password_stdin:
        password = read_password(f"New password of {name}", from_stdin=password_stdin)
    async with connected(target) as registry:
        said = await AccessAdministration(registry).set_user(
            name, password=password, roles=roles or None, disabled=disabled
        )
    return _said(target, said)


@users.command("remove")
@click.argument("name")
@client_command
async def remove_user(target: Target, name: str) -> int:
    """Remove a user and its tokens."""
    async with connected(target) as registry:
        return _said(target, await AccessAdministration(registry).remove_user(name))


# --- tokens ----------------------------------------------------------------------------------


@access.group()
def tokens() -> None:
    """What programs show to be known."""


@tokens.command("list")
@client_command
async def list_tokens(target: Target) -> int:
    """Show the tokens; not their text, which nobody keeps."""
    async with connected(target) as registry:
        state = (await AccessAdministration(registry).show()).state
    if target.json:
        print_json([_token_document(token) for token in state.tokens])
    else:
        rows = [
            (
                token.id,
                ", ".join(token.roles) or f"those of {token.owner}",
                token.owner,
                "revoked" if token.revoked else _when(token.expires_at_ms) or "never",
                token.note,
            )
            for token in state.tokens
        ]
        print_table(("TOKEN", "ROLES", "OWNER", "EXPIRES", "NOTE"), rows)
    return EXIT_OK


@tokens.command("create")
@click.option("--role", "roles", multiple=True, help="Role to give; may be repeated.")
@click.option("--owner", default="", help="User it speaks for: it ends with that user.")
@click.option("--note", default="", help="What it is for.")
@click.option("--expires", metavar="SPAN", help="After so long: 12h, 30d, 8w.  [default: never]")
@client_command
async def create_token(
    target: Target, roles: Sequence[str], owner: str, note: str, expires: str | None
) -> int:
    """Make a token; it is printed this once."""
    expires_at_ms = 0 if expires is None else int(time.time() * 1000) + _span_ms(expires)
    async with connected(target) as registry:
        answer = await AccessAdministration(registry).create_token(
            owner=owner, roles=roles, note=note, expires_at_ms=expires_at_ms
        )
    if target.json:
        print_json({"token": answer.token})
    else:
        click.echo(answer.token)
        click.echo("Keep it: it is shown this once.", err=True)
    return EXIT_OK


@tokens.command("revoke")
@click.argument("id_", metavar="ID")
@client_command
async def revoke_token(target: Target, id_: str) -> int:
    """Let a token be good for nothing, named by its id or by itself."""
    id_ = id_.split("_")[1] if id_.startswith("ssg_") else id_
    async with connected(target) as registry:
        return _said(target, await AccessAdministration(registry).revoke_token(id_))


# --- roles -----------------------------------------------------------------------------------


@access.group()
def roles() -> None:
    """Which actions are allowed for which services."""


@roles.command("list")
@client_command
async def list_roles(target: Target) -> int:
    """Show the roles that were made; built in are reader, registrar, operator and admin."""
    async with connected(target) as registry:
        state = (await AccessAdministration(registry).show()).state
    if target.json:
        print_json(
            [
                {
                    "name": role.name,
                    "grants": [
                        {
                            "namespace": grant.namespace,
                            "service": grant.service,
                            "actions": list(grant.actions),
                        }
                        for grant in role.grants
                    ],
                }
                for role in state.roles
            ]
        )
    else:
        rows = [
            (role.name, grant.namespace, grant.service, ", ".join(grant.actions))
            for role in state.roles
            for grant in role.grants
        ]
        print_table(("ROLE", "NAMESPACE", "SERVICE", "ACTIONS"), rows)
    return EXIT_OK


@roles.command("set")
@click.argument("name")
@click.option(
    "--grant",
    "grants",
    multiple=True,
    required=True,
    metavar="'NAMESPACE GROUP/NAME ACTION,ACTION'",
    help="What it allows; `*` stands for anything; may be repeated.",
)
@client_command
async def set_role(target: Target, name: str, grants: Sequence[str]) -> int:
    """Make a role, or put another in its place."""
    parsed = [_grant(text) for text in grants]
    async with connected(target) as registry:
        return _said(target, await AccessAdministration(registry).set_role(name, parsed))


@roles.command("remove")
@click.argument("name")
@client_command
async def remove_role(target: Target, name: str) -> int:
    """Remove a role that nobody has."""
    async with connected(target) as registry:
        return _said(target, await AccessAdministration(registry).remove_role(name))


# --- wording ---------------------------------------------------------------------------------


def _said(target: Target, sentence: str) -> int:
    if target.json:
        print_json({"done": sentence})
    else:
        click.echo(sentence)
    return EXIT_OK


def _grant(text: str) -> tuple[str, str, list[str]]:
    parts = text.split()
    if len(parts) != 3:
        raise click.UsageError(
            f"--grant {text!r}: say namespace, service and actions, as in"
            " 'prod default/shop-* read,register'"
        )
    return parts[0], parts[1], parts[2].split(",")


def _span_ms(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--expires {text!r}: say a number and s, m, h, d or w, as in 90d")
    return int(found[1]) * _SECONDS[found[2]] * 1000


def _when(time_ms: int) -> str:
    if not time_ms:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _token_document(token: access_pb2.AccessToken) -> dict[str, object]:
    return {
        "id": token.id,
        "roles": list(token.roles),
        "owner": token.owner,
        "note": token.note,
        "created_at_ms": token.created_at_ms,
        "expires_at_ms": token.expires_at_ms,
        "revoked": token.revoked,
    }
