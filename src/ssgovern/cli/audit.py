"""`audit`: who changed what, and who was refused."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import click

from ssgovern import limits
from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import print_json, toned, visible
from ssgovern.client.auditing import AuditPage, audit_page
from ssgovern.client.registry import Registry
from ssgovern.wire.pb import native_pb2

_HELP = """\b
Examples:
  ss-govern audit                         the newest 50 entries, of all nodes
  ss-govern audit --who ann --limit 500   what a user did; a token is called "token 4b1f…"
  ss-govern audit --json | jq '.entries[] | select(.outcome != "ok")'
Takes the right to administer. Nodes answer with their newest 2,000 entries; older ones are in the
files audit*.jsonl of their data directories.
"""


@click.command(epilog=_HELP)
@click.option("--who", default="", help="Only of this user or token, by its whole name there.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="At most so many, the newest.",
)
@client_command
async def audit(target: Target, who: str, limit: int) -> int:
    """Show changes of operators, changes over HTTP, and what was refused."""
    found: list[native_pb2.AuditEntry] = []
    failed: dict[int, str] = {}
    after = ""
    async with connected(target) as registry:
        while True:
            page = await _page(registry, target, who, after, limit - len(found))
            found += page.entries
            failed |= page.failed
            after = page.next_after
            if not after or len(found) >= limit:
                break
    for node, why in failed.items():
        click.echo(f"Node {node} did not answer: {why}", err=True)
    if target.json:
        print_json({"entries": [_document(each) for each in found], "more": bool(after)})
        return EXIT_OK
    for each in reversed(found):
        print(line_of(each))
    if not found:
        click.echo("Nothing that any node remembers.", err=True)
    return EXIT_OK


async def _page(registry: Registry, target: Target, who: str, after: str, wanted: int) -> AuditPage:
    return await audit_page(
        registry._session,
        who=who,
        after=after,
        limit=min(wanted, limits.AUDIT_PAGE_MAX),
        deadline=asyncio.get_running_loop().time() + target.timeout_s,
    )


def line_of(each: native_pb2.AuditEntry) -> str:
    """Return an entry as one line of text, whatever its texts are."""
    when = datetime.fromtimestamp(each.time_ms / 1000.0, UTC).astimezone()
    outcome = toned(each.outcome, "good" if each.outcome == "ok" else "bad", sys.stdout)
    said = f"{each.who} from {each.origin or '?'} ({each.way}): {each.action} {each.target}"
    changes = [f"{one.name} {one.before or '-'} -> {one.after or '-'}" for one in each.changes]
    rest = ", ".join([each.detail, *changes] if each.detail else changes)
    line = f"{when:%Y-%m-%d %H:%M:%S}  {outcome}  {visible(said.rstrip())}"
    at = toned(f"  at node {each.node_id}", "dim", sys.stdout)
    return f"{line}{visible(f', {rest}') if rest else ''}{at}"


def _document(each: native_pb2.AuditEntry) -> dict[str, object]:
    return {
        "node_id": each.node_id,
        "number": each.number,
        "time_ms": each.time_ms,
        "who": each.who,
        "origin": each.origin,
        "way": each.way,
        "action": each.action,
        "target": each.target,
        "outcome": each.outcome,
        "detail": each.detail,
        "changes": [
            {"name": one.name, "before": one.before, "after": one.after} for one in each.changes
        ],
    }
