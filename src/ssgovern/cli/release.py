"""`subscribers` and `drain`, and `deregister --wait`: changes that are known to have arrived."""

from __future__ import annotations

import click

from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import Cell, counted, duration_text, print_json, print_table, visible
from ssgovern.client.registry import Registry
from ssgovern.client.subscribers import Delivery, Release, Subscriber

WAIT_S = 30.0
"""How long to wait for subscribers, unless told otherwise."""
_NAMED_MAX = 3

_SUBSCRIBERS_HELP = """\b
Examples:
  ss-govern subscribers orders
  ss-govern subscribers orders --json | jq '.subscribers[] | select(.behind_s > 5)'
What subscribers have applied they say with their heartbeats: it may be a second old. A dash:
the client is older than that, and does not say.
"""

_DRAIN_HELP = """\b
Examples:
  ss-govern drain orders 10.0.0.7:8080                  nobody calls it any more: restart it
  ss-govern drain orders 10.0.0.7:8080 --deregister --grace 10
The instance is put out of service, which stays so when it registers again: `ss-govern update
orders 10.0.0.7:8080 --enable` puts it back. Exit code 1 if some subscriber did not know in
time; it is then not deregistered.
"""


@click.command(epilog=_SUBSCRIBERS_HELP)
@click.argument("service")
@client_command
async def subscribers(target: Target, service: str) -> int:
    """Show who follows SERVICE, and which revision each has applied."""
    async with connected(target) as registry:
        found = await registry.subscribers(service, group=target.group_name)
    revision = 0 if found.position is None else found.position.revision
    if target.json:
        print_json(
            {
                "namespace": target.namespace,
                "group": target.group_name,
                "service": service,
                "revision": revision,
                "subscribers": [_document(each) for each in found.subscribers],
                "unanswered": list(found.unanswered),
            }
        )
        return EXIT_OK
    if found.subscribers:
        print_table(
            ("CLIENT", "ADDRESS", "NODE", "SESSION", "REVISION", "BEHIND"),
            [_row(each) for each in found.subscribers],
            right=("REVISION", "BEHIND"),
        )
    else:
        click.echo(f"Nobody follows {service}.", err=True)
    _say_unanswered(found.unanswered)
    return EXIT_OK


def _row(each: Subscriber) -> tuple[str | Cell, ...]:
    revision = "-" if each.position is None else str(each.position.revision)
    behind = Cell("", "dim")
    if each.behind_s:
        behind = Cell(duration_text(int(each.behind_s * 1000)), "bad" if each.behind_s > 2 else "")
    return (
        Cell(visible(each.client_name), "strong"),
        each.address,
        str(each.node_id),
        each.session_id[:8],
        revision,
        behind,
    )


def _document(each: Subscriber) -> dict[str, object]:
    return {
        "session": each.session_id,
        "client": each.client_name,
        "address": each.address,
        "node": each.node_id,
        "says": each.says,
        "epoch": None if each.position is None else each.position.epoch,
        "revision": None if each.position is None else each.position.revision,
        "behind_s": each.behind_s,
        "connected": each.connected,
    }


@click.command(epilog=_DRAIN_HELP)
@click.argument("service")
@click.argument("instance_id", metavar="INSTANCE")
@click.option("--deregister", is_flag=True, help="Then remove it, and wait for that, too.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0.0),
    default=0.0,
    metavar="SECONDS",
    help="Before it is removed: for what it is at.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0),
    default=WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for subscribers.",
)
@client_command
async def drain(
    target: Target, service: str, instance_id: str, deregister: bool, grace: float, wait_s: float
) -> int:
    """Take INSTANCE of SERVICE out of traffic; return when every subscriber knows."""
    async with connected(target) as registry:
        release = await registry.drain(
            service,
            instance_id,
            group=target.group_name,
            any_owner=True,
            deregister=deregister,
            grace=grace,
            timeout=wait_s,
            on_progress=None if target.json else _tell,
        )
    return report(target, release)


async def release_instance(
    target: Target, registry: Registry, service: str, instance_id: str, wait_s: float
) -> int:
    """Remove an instance, wait for subscribers, and say what became of it."""
    release = await registry.release(
        service,
        instance_id,
        group=target.group_name,
        any_owner=True,
        timeout=wait_s,
        on_progress=None if target.json else _tell,
    )
    return report(target, release)


def report(target: Target, release: Release) -> int:
    """Say what became of an instance and who does not know; return the exit code."""
    known = release.complete
    asked_to_remove = release.gone is not None
    if target.json:
        print_json(
            {
                "service": release.key.service,
                "instance": release.instance_id,
                "complete": known,
                "drained": _delivery_document(release.drained),
                "removed": release.removed,
                "gone": _delivery_document(release.gone),
            }
        )
        return EXIT_OK if known and (release.removed or not asked_to_remove) else EXIT_FAILED
    place = f"{release.key.service} {visible(release.instance_id)}"
    delivery = release.gone or release.drained
    assert delivery is not None, "one of the two was asked for"
    if asked_to_remove and not release.removed:
        click.echo(f"There is no instance {place}.", err=True)
        return EXIT_FAILED
    done = "deregistered" if asked_to_remove else "out of service:"
    if known:
        count = counted(delivery.subscribers, "subscriber")
        click.echo(f"{done} {place}; {count} know" + ("s" if delivery.subscribers == 1 else ""))
    else:
        click.echo(f"{done} {place}", err=True)
        click.echo(f"Not everybody knows: {_missing(delivery)}.", err=True)
    if delivery.silent_total:
        click.echo(
            f"{counted(delivery.silent_total, 'client')} of an older version cannot say whether"
            f" they know: {_names(delivery.silent, delivery.silent_total)}.",
            err=True,
        )
    return EXIT_OK if known else EXIT_FAILED


def _delivery_document(delivery: Delivery | None) -> dict[str, object] | None:
    if delivery is None:
        return None
    return {
        "complete": delivery.complete,
        "epoch": delivery.position.epoch,
        "revision": delivery.position.revision,
        "subscribers": delivery.subscribers,
        "lacking": [_document(each) for each in delivery.lacking],
        "lacking_total": delivery.lacking_total,
        "silent_total": delivery.silent_total,
        "unanswered": list(delivery.unanswered),
    }


def _tell(delivery: Delivery) -> None:
    if delivery.lacking_total or delivery.unanswered:
        click.echo(f"waiting: {_missing(delivery)}", err=True)


def _missing(delivery: Delivery) -> str:
    parts = []
    if delivery.lacking_total:
        who = _names(delivery.lacking, delivery.lacking_total)
        parts.append(f"{delivery.lacking_total} of {delivery.subscribers} lack it ({who})")
    if delivery.unanswered:
        nodes = ", ".join(map(str, delivery.unanswered))
        parts.append(f"no answer from node {nodes}")
    return "; ".join(parts) or "nodes came and went meanwhile"


def _names(rows: tuple[Subscriber, ...], total: int) -> str:
    named = [f"{visible(each.client_name)} at {each.address}" for each in rows[:_NAMED_MAX]]
    more = total - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _say_unanswered(nodes: tuple[int, ...]) -> None:
    if nodes:
        listed = ", ".join(map(str, nodes))
        click.echo(f"No answer from node {listed}: who is connected there is missing.", err=True)
