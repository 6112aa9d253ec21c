"""`sessions` and `events`: who is there, and what happened."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import click

from ssgovern.cli.connection import ConnectionReport, connected
from ssgovern.cli.exits import EXIT_INTERRUPTED, EXIT_OK
from ssgovern.cli.interrupt import stop_requested
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import (
    Cell,
    duration_text,
    print_json,
    print_table,
    toned,
    visible,
)
from ssgovern.client.event_feed import EventFeed
from ssgovern.client.observed import Event, EventKind, SessionPage, SessionStatus
from ssgovern.client.registry import Registry
from ssgovern.errors import ClosedError, InvalidArgumentError
from ssgovern.model import DEFAULT_GROUP

_SESSIONS_HELP = """\b
Examples:
  ss-govern sessions                      all that any node knows
  ss-govern sessions --client shop        of clients whose name has "shop" in it
  ss-govern sessions 6f3a                 of which the id starts so
  ss-govern sessions --json | jq '.sessions[] | select(.instances > 100)'
A lease keeps instances that were registered over HTTP; it has no connection.
"""

_EVENTS_HELP = """\b
Examples:
  ss-govern events                        the newest of the namespace
  ss-govern events orders -g shop         of one service
  ss-govern events --cluster --all        of all namespaces, of nodes and shards as well
  ss-govern events --follow --json        one JSON object a line, as it happens
Nodes remember the newest 10,000 changes or so, since their start. Ctrl-C ends --follow, with 130.
"""

_TONES = {
    EventKind.REGISTERED: "good",
    EventKind.IN_SERVICE: "good",
    EventKind.EXPIRED: "bad",
    EventKind.UNHEALTHY: "bad",
    EventKind.MISSED: "bad",
    EventKind.OUT_OF_SERVICE: "warn",
    EventKind.CLUSTER: "strong",
}


@click.command(epilog=_SESSIONS_HELP)
@click.argument("id_prefix", metavar="[ID]", default="")
@click.option("--client", "client_name", default="", help="Clients whose name has this in it.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="At most so many.",
)
@client_command
async def sessions(target: Target, id_prefix: str, client_name: str, limit: int) -> int:
    """List sessions of clients, and leases, whose id starts with ID."""
    found: list[SessionStatus] = []
    after = ""
    async with connected(target) as registry:
        while True:
            page = await registry.sessions(
                id_prefix=id_prefix,
                client_name=client_name,
                after=after,
                limit=min(1_000, limit - len(found)),
            )
            found += page.sessions
            after = page.next_after
            if not after or len(found) >= limit:
                break
    _tell_failed(page)
    if target.json:
        print_json({"sessions": [_session_document(each) for each in found], "more": bool(after)})
        return EXIT_OK
    if not found:
        click.echo("No such sessions." if id_prefix or client_name else "No sessions.", err=True)
        return EXIT_OK
    print_table(
        ("SESSION", "CLIENT", "ADDRESS", "STATE", "HEARD", "INSTANCES", "SUBSCRIPTIONS", "NODES"),
        [
            (
                Cell(each.session_id[:12], "strong"),
                each.client_name or "-",
                each.address or "-",
                _state(each),
                f"{duration_text(each.heard_ms)} ago",
                str(each.instances),
                str(each.subscriptions),
                ",".join(str(node.node_id) for node in each.nodes),
            )
            for each in found
        ],
        right=("INSTANCES", "SUBSCRIPTIONS"),
    )
    if after:
        click.echo(f"These are the first {len(found)}; --limit shows more.", err=True)
    return EXIT_OK


def _tell_failed(page: SessionPage) -> None:
    for node, why in page.failed:
        click.echo(f"Node {node} did not answer: {why}", err=True)


def _state(session: SessionStatus) -> Cell:
    if session.is_protected:
        return Cell("protected", "bad")
    if session.lease:
        return Cell(f"lease, {duration_text(session.ttl_ms)}", "good")
    if session.connected:
        return Cell(f"connected {duration_text(session.connected_ms)}", "good")
    closed_ms = max(each.closed_ms for each in session.nodes)
    return Cell("lost" if closed_ms else "elsewhere", "warn")


def _session_document(session: SessionStatus) -> dict[str, object]:
    return {
        "id": session.session_id,
        "client": session.client_name,
        "address": session.address,
        "connected": session.connected,
        "lease": session.lease,
        "ttl_ms": session.ttl_ms,
        "connected_ms": session.connected_ms,
        "heard_ms": session.heard_ms,
        "instances": session.instances,
        "subscriptions": session.subscriptions,
        "protected": session.is_protected,
        "nodes": [
            {
                "node": each.node_id,
                "connected": each.connected,
                "heard_ms": each.heard_ms,
                "closed_ms": each.closed_ms,
                "shards": each.shards,
                "instances": each.instances,
                "subscriptions": each.subscriptions,
            }
            for each in session.nodes
        ],
    }


# --- events -------------------------------------------------------------------------------


@click.command(epilog=_EVENTS_HELP)
@click.argument("service", default="")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens.")
@click.option("--cluster", is_flag=True, help="Also what was decided about nodes and shards.")
@click.option("--all", "all_namespaces", is_flag=True, help="Of all namespaces.")
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=50,
    show_default=True,
    help="Begin with so many, the newest.",
)
@click.option("--events", "count", type=click.IntRange(min=1), help="Leave after so many.")
@client_command
async def events(
    target: Target,
    service: str,
    follow: bool,
    cluster: bool,
    all_namespaces: bool,
    limit: int,
    count: int | None,
) -> int:
    """Show what happened lately to instances of SERVICE, or of all services."""
    if count and not follow:
        raise InvalidArgumentError("--events is for --follow", field="events")
    connection = ConnectionReport("events may be missing")
    async with connected(target, connection.tell if follow else None) as registry:
        if follow:
            with connection.while_needed():
                async with registry.follow_events(
                    service,
                    group=target.group or "",
                    all_namespaces=all_namespaces,
                    cluster=cluster,
                    limit=limit,
                ) as feed:
                    return await _follow(feed, target, count)
        return await _list(registry, target, service, all_namespaces, cluster, limit)


async def _list(
    registry: Registry,
    target: Target,
    service: str,
    all_namespaces: bool,
    cluster: bool,
    limit: int,
) -> int:
    page = await registry.events(
        service,
        group=target.group or "",
        all_namespaces=all_namespaces,
        cluster=cluster,
        limit=limit,
    )
    for node, why in page.failed:
        click.echo(f"Node {node} did not answer: {why}", err=True)
    if target.json:
        print_json({"events": [_event_document(event) for event in page.events]})
        return EXIT_OK
    for event in page.events:
        print(_line(event))
    if not page.events:
        click.echo("Nothing that any node remembers.", err=True)
    return EXIT_OK


async def _follow(feed: EventFeed, target: Target, count: int | None) -> int:
    """Show events until there were enough, or until asked to stop."""
    async with stop_requested() as stop:
        shown = asyncio.create_task(_show(feed, target, count))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({shown, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
    if shown.done():
        shown.result()
        return EXIT_OK
    shown.cancel()
    return EXIT_INTERRUPTED


async def _show(feed: EventFeed, target: Target, count: int | None) -> None:
    told = 0
    async for event in feed:
        if target.json:
            print_json(_event_document(event))
        else:
            print(_line(event))
            sys.stdout.flush()
        told += 1
        if told == count:
            return
    raise ClosedError("the events ended")


def _line(event: Event) -> str:
    when = f"{_local(event.time_ms):%Y-%m-%d %H:%M:%S}" if event.time_ms else "?" * 19
    kind = toned(
        f"{event.kind.value.replace('_', ' '):<14}", _TONES.get(event.kind, ""), sys.stdout
    )
    if event.kind is EventKind.MISSED:
        return f"{when}  {kind}  something happened that is not remembered any more"
    if event.is_cluster or event.key is None:
        return f"{when}  {kind}  {visible(event.reason)}"
    said = f"{event.key.service} {event.instance_id}"
    if event.key.group != DEFAULT_GROUP:
        said = f"{event.key.group}/{said}"
    if event.instance_id != event.address:
        said += f" at {event.address}"
    for each in event.changes:
        said += f", {each.name} {each.before or '-'} -> {each.after or '-'}"
    by = f"  by {event.session_id[:12]}" if event.session_id else ""
    return f"{when}  {kind}  {visible(said)}{toned(by, 'dim', sys.stdout)}"


def _local(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000.0, UTC).astimezone()


def _event_document(event: Event) -> dict[str, object]:
    document: dict[str, object] = {"event": event.kind.value, "time_ms": event.time_ms}
    if event.key is not None:
        document |= {
            "namespace": event.key.namespace,
            "group": event.key.group,
            "service": event.key.service,
            "instance_id": event.instance_id,
            "address": event.address,
            "shard": event.shard,
            "epoch": event.position.epoch,
            "session_id": event.session_id,
            "changes": [
                {"name": each.name, "before": each.before, "after": each.after}
                for each in event.changes
            ],
        }
    else:
        document["reason"] = event.reason
    document["revision"] = event.position.revision
    return document
