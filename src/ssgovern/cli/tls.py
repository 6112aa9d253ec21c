"""`tls`: certificates for trying things out, and what is in those one has."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.output import Cell, print_facts, print_json
from ssgovern.errors import ConfigError, InvalidArgumentError
from ssgovern.node.certificates import (
    CA_DAYS,
    LEAF_DAYS,
    Facts,
    Made,
    issue,
    make_ca,
    read_certificates,
    write_made,
)

_INIT_HELP = """\b
Examples:
  ss-govern tls init --out tls
  ss-govern tls init --out tls --hosts registry-1.example,10.0.0.1 --hosts registry-2.example
  ss-govern server --tls-cert tls/node-1.pem --tls-key tls/node-1.key --tls-ca tls/ca.pem
  ss-govern services --tls-ca tls/ca.pem
\b
Not for production: whoever reads DIR can be any node. There, have the certificates made by the
CA you have (docs/tls.md says what has to be in them). Run again with the same DIR, it makes
more certificates of the same CA.
"""


_SHOW_HELP = """\b
Examples:
  ss-govern tls show tls/node-1.pem
  ss-govern tls show --json /etc/ss-govern/*.pem
"""

_HELP = """\b
Examples:
  ss-govern tls init --out tls
  ss-govern tls show tls/node-1.pem
"""


@click.group(epilog=_HELP)
def tls() -> None:
    """Make certificates for trying TLS out, and look into certificates."""


@tls.command(epilog=_INIT_HELP)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("tls"), show_default=True, metavar="DIR"
)
@click.option(
    "--hosts",
    multiple=True,
    default=("localhost,127.0.0.1,::1",),
    metavar="HOST,...",
    help="Names and addresses of one node; once for each node.  [default: this machine's own]",
)
@click.option(
    "--days",
    type=click.IntRange(1, CA_DAYS),
    default=LEAF_DAYS,
    show_default=True,
    help="How long the certificates of nodes and of the client are valid.",
)
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def init(out: Path, hosts: tuple[str, ...], days: int, debug: bool) -> int:  # noqa: ARG001
    """Make a CA, a certificate for each node and one for a client. Not for production."""
    now = datetime.datetime.now(datetime.UTC)
    made: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _authority(out, now, made)
        number = 1
        for names in hosts:
            each = [host.strip() for host in names.split(",") if host.strip()]
            if not each:
                raise InvalidArgumentError(f"--hosts {names!r}: names no host", field="hosts")
            while (out / f"node-{number}.pem").exists() or (out / f"node-{number}.key").exists():
                number += 1
            node = issue(authority, f"node {number}", each, now, server=True, days=days)
            made.append(_write(out, f"node-{number}", node))
        if not (out / "client.pem").exists():
            client = issue(authority, "client", (), now, server=False, days=days)
            made.append(_write(out, "client", client))
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"cannot write {place}: {error.strerror or error}") from None
    for path in made:
        click.echo(f"{path}   and its key, {path.with_suffix('.key')}")
    click.echo("for trying things out: whoever reads this directory can be any node", err=True)
    return EXIT_OK


def _authority(out: Path, now: datetime.datetime, made: list[Path]) -> Made:
    cert, key = out / "ca.pem", out / "ca.key"
    if cert.exists() and key.exists():
        return Made(cert.read_bytes(), key.read_bytes())
    authority = make_ca("ss-govern test CA", now)
    made.append(_write(out, "ca", authority))
    return authority


def _write(out: Path, name: str, made: Made) -> Path:
    cert = out / f"{name}.pem"
    write_made(made, cert, out / f"{name}.key")
    return cert


@tls.command(epilog=_SHOW_HELP)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def show(files: tuple[str, ...], as_json: bool, debug: bool) -> int:  # noqa: ARG001
    """Show what certificates say: for whom, by whom, how long."""
    now = datetime.datetime.now(datetime.UTC)
    found = [(path, facts) for path in files for facts in read_certificates(path)]
    if as_json:
        print_json([_as_json(path, facts) for path, facts in found])
        return EXIT_OK
    for number, (path, facts) in enumerate(found):
        if number:
            click.echo()
        print_facts(_as_facts(path, facts, now))
    return EXIT_OK


def _as_json(path: str, facts: Facts) -> dict[str, object]:
    return {
        "file": path,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "hosts": list(facts.names),
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "ca": facts.is_ca,
        "usages": list(facts.usages),
        "sha256": facts.sha256,
    }


def _as_facts(path: str, facts: Facts, now: datetime.datetime) -> dict[str, str | Cell]:
    days = (facts.not_after - now).days
    left = f"{days} days left" if facts.not_after > now else "EXPIRED"
    if facts.not_before > now:
        left = "not valid yet"
    kind = "a CA" if facts.is_ca else " and ".join(facts.usages) or "anything"
    return {
        "file": path,
        "for": facts.subject,
        "hosts": ", ".join(facts.names) or "none",
        "use": kind,
        "by": "itself" if facts.subject == facts.issuer else facts.issuer,
        "valid": f"{facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d %H:%M} UTC ({left})",
        "sha256": facts.sha256,
    }
