"""`watch`: changes as they happen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import datetime

import click

from ssgovern.cli.connection import ConnectionReport, connected
from ssgovern.cli.exits import EXIT_INTERRUPTED, EXIT_OK
from ssgovern.cli.interrupt import stop_requested
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import print_json, toned, visible
from ssgovern.cli.shapes import difference, instance_document, metadata_text, state
from ssgovern.client.subscription import PrefixSubscription, Subscription
from ssgovern.client.values import Change
from ssgovern.errors import InvalidArgumentError
from ssgovern.model import Instance

_WATCH_HELP = """\b
Examples:
  ss-govern watch orders
  ss-govern watch 'pay*'              all services whose names start with pay
  ss-govern watch '*' -n prod --json | jq .
  ss-govern watch orders --changes 1  leave after the first change
Shows the present list, then: + added, ~ changed, - removed. With --json one object per line:
first {"event": "list"} for each service, then {"event": "change"}. It lives through restarts
of the server. Ctrl-C ends it, with 130; so does closing the pipe it writes to, with 0.
"""

_SIGNS = {"added": ("+", "good"), "changed": ("~", "warn"), "removed": ("-", "bad")}


@click.command(epilog=_WATCH_HELP)
@click.argument("pattern", metavar="SERVICE|PREFIX*")
@click.option("--changes", type=click.IntRange(min=1), help="Leave after so many changes.")
@client_command
async def watch(target: Target, pattern: str, changes: int | None) -> int:
    """Show the instances of SERVICE, or of all that start with PREFIX, and every change."""
    name, star, rest = pattern.partition("*")
    if rest:
        raise InvalidArgumentError(f"{pattern!r}: a '*' may only be at the end", field="pattern")
    connection = ConnectionReport("the list may be out of date")
    async with connected(target, connection.tell) as registry:
        with connection.while_needed():
            if star:
                async with registry.subscribe_prefix(name, group=target.group_name) as many:
                    follower = _Follower(target, many.services)
                    for service in many.services:
                        follower.show_list(service, many.instances(service))
                    return await follower.follow(many, changes)
            async with registry.subscribe(name, group=target.group_name) as one:
                follower = _Follower(target, (name,))
                follower.show_list(name, one.instances)
                return await follower.follow(one, changes)


class _Follower:
    """Shows what changed, by what was there before."""

    def __init__(self, target: Target, services: tuple[str, ...]) -> None:
        self._json = target.json
        self._target = target
        self._before: dict[tuple[str, str], Instance] = {}
        if not self._json:
            names = ", ".join(services) or "nothing yet"
            click.echo(f"watching {visible(names)}; Ctrl-C ends it", err=True)

    def show_list(self, service: str, instances: tuple[Instance, ...]) -> None:
        """Show the list at the beginning."""
        self._before |= {(service, instance.id): instance for instance in instances}
        if self._json:
            listed = [instance_document(instance) for instance in instances]
            print_json({"event": "list", **self._key(service), "instances": listed})
            return
        for instance in instances:
            print(f"  {_line(service, instance)}")
        if not instances:
            print(f"  {visible(service)}: no instances")
        sys.stdout.flush()

    async def follow(
        self, subscription: Subscription | PrefixSubscription, changes: int | None
    ) -> int:
        """Show changes until there were enough, or until asked to stop."""
        async with stop_requested() as stop:
            shown = asyncio.create_task(self._show_changes(subscription, changes))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({shown, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        if shown.done():
            shown.result()
            return EXIT_OK
        shown.cancel()
        return EXIT_INTERRUPTED

    async def _show_changes(
        self, subscription: Subscription | PrefixSubscription, changes: int | None
    ) -> None:
        count = 0
        async for change in subscription:
            self._show(change)
            count += 1
            if count == changes:
                return

    def _show(self, change: Change) -> None:
        if self._json:
            print_json(
                {
                    "event": "change",
                    **self._key(change.service),
                    "revision": change.revision,
                    "added": [instance_document(instance) for instance in change.added],
                    "changed": [instance_document(instance) for instance in change.changed],
                    "removed": [instance_document(instance) for instance in change.removed],
                }
            )
        else:
            when = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
            for kind, text in self._lines(change):
                sign, tone = _SIGNS[kind]
                clock = toned(when, "dim", sys.stdout)
                print(f"{toned(sign, tone, sys.stdout)} {clock}  {text}  @{change.revision}")
            sys.stdout.flush()
        self._remember(change)

    def _lines(self, change: Change) -> Iterator[tuple[str, str]]:
        for instance in change.added:
            yield "added", _line(change.service, instance)
        for instance in change.changed:
            old = self._before.get((change.service, instance.id))
            what = difference(old, instance) if old is not None else state(instance).text
            yield "changed", f"{visible(change.service)} {visible(instance.id)}  {visible(what)}"
        for instance in change.removed:
            yield "removed", f"{visible(change.service)} {visible(instance.id)}"

    def _remember(self, change: Change) -> None:
        for instance in (*change.added, *change.changed):
            self._before[change.service, instance.id] = instance
        for instance in change.removed:
            self._before.pop((change.service, instance.id), None)

    def _key(self, service: str) -> dict[str, str]:
        target = self._target
        return {"namespace": target.namespace, "group": target.group_name, "service": service}


def _line(service: str, instance: Instance) -> str:
    """Return an instance on one line, without what is as usual."""
    shown = state(instance)
    parts = [
        f"{visible(service)} {toned(instance.id, 'strong', sys.stdout)}",
        instance.address if instance.address != instance.id else "",
        toned(shown.text, shown.tone, sys.stdout),
        f"weight {instance.weight:g}" if instance.weight != 100 else "",
        visible(instance.zone),
        visible(instance.version),
        visible(metadata_text(instance.metadata)),
    ]
    return "  ".join(part for part in parts if part)
