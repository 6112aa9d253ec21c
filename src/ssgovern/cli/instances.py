"""`register`, `deregister` and `update`: one instance."""

from __future__ import annotations

import sys

import click

from ssgovern.cli.connection import ConnectionReport, connected
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.interrupt import stop_requested
from ssgovern.cli.options import Target, client_command, pairs
from ssgovern.cli.output import print_json, toned, visible
from ssgovern.cli.release import WAIT_S, release_instance
from ssgovern.cli.shapes import instance_document, print_instances
from ssgovern.model import Status

_STATUSES = [status.name.lower() for status in Status]

_REGISTER_HELP = """\b
Examples:
  ss-govern register orders --port 8080 --meta lane=gray
  ss-govern register orders -p 8080 --host 10.0.0.7 --weight 50 --zone eu-1
  ss-govern register users -p 9000 --persistent
The command stays, sends heartbeats, and survives restarts of the server. Ctrl-C or SIGTERM
deregisters and exits with 0. If it is killed, the server finds out by itself.
"""

_DEREGISTER_HELP = """\b
Examples:
  ss-govern deregister orders 10.0.0.7:8080
  ss-govern deregister orders 10.0.0.7:8080 --wait 30   until every subscriber knows
`ss-govern get SERVICE` shows the ids. An instance whose process is alive and registered with
the SDK stays away until that process registers again. Exit code 1 if there was none.
"""

_UPDATE_HELP = """\b
Examples:
  ss-govern update orders 10.0.0.7:8080 --weight 10
  ss-govern update orders 10.0.0.7:8080 --meta lane=blue --unset beta
  ss-govern update orders 10.0.0.7:8080 --disable      take it out of traffic
  ss-govern update orders 10.0.0.7:8080 --enable
--disable is the operator's switch: it survives that the instance registers again.
"""


@click.command(epilog=_REGISTER_HELP)
@click.argument("service")
@click.option("-p", "--port", type=int, required=True, help="Port callers connect to.")
@click.option("--host", help="Address callers connect to.  [default: this machine's]")
@click.option("--id", "instance_id", help="Unique in the service.  [default: host:port]")
@click.option("--weight", type=float, default=100.0, show_default=True, help="Share of traffic.")
@click.option("--zone", default="", help="For callers that prefer near instances.")
@click.option("--version", default="", help="Version of the software.")
@click.option(
    "-m", "--meta", multiple=True, callback=pairs, metavar="KEY=VALUE", help="May be repeated."
)
@click.option("--persistent", is_flag=True, help="Stays, unhealthy, after this command ended.")
@client_command
async def register(
    target: Target,
    service: str,
    port: int,
    host: str | None,
    instance_id: str | None,
    weight: float,
    zone: str,
    version: str,
    meta: dict[str, str],
    persistent: bool,
) -> int:
    """Register an instance of SERVICE and keep it alive until Ctrl-C."""
    connection = ConnectionReport("it is registered again when the server is back")
    async with connected(target, connection.tell) as registry:
        with connection.while_needed():
            registration = await registry.register(
                service,
                port=port,
                host=host,
                instance_id=instance_id,
                group=target.group_name,
                ephemeral=not persistent,
                weight=weight,
                zone=zone,
                version=version,
                metadata=meta,
            )
            name = registration.instance.id
            async with stop_requested() as stop:
                _say(target, "registered", service, name, "stays until Ctrl-C")
                await stop.wait()
                if not persistent:
                    await registration.deregister()
    _say(target, "left" if persistent else "deregistered", service, name, "")
    return EXIT_OK


def _say(target: Target, event: str, service: str, instance_id: str, hint: str) -> None:
    if target.json:
        print_json({"event": event, "service": service, "instance": instance_id})
        return
    tail = f"  ({hint})" if hint else ""
    tone = "good" if event == "registered" else "dim"
    click.echo(f"{toned(event, tone, sys.stdout)} {service} {visible(instance_id)}{tail}")
    sys.stdout.flush()


@click.command(epilog=_DEREGISTER_HELP)
@click.argument("service")
@click.argument("instance_id", metavar="INSTANCE")
@click.option("--if-revision", type=int, default=0, help="Only if last changed at this revision.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0.0),
    is_flag=False,
    flag_value=WAIT_S,
    default=None,
    metavar="[SECONDS]",
    help=f"Return when every subscriber knows, or after so long.  [with no number: {WAIT_S:g}]",
)
@client_command
async def deregister(
    target: Target, service: str, instance_id: str, if_revision: int, wait_s: float | None
) -> int:
    """Remove INSTANCE of SERVICE, whoever registered it."""
    if wait_s is not None and if_revision:
        raise click.UsageError("--wait and --if-revision do not go together")
    async with connected(target) as registry:
        if wait_s is not None:
            return await release_instance(target, registry, service, instance_id, wait_s)
        removed = await registry.deregister(
            service,
            instance_id,
            group=target.group_name,
            any_owner=True,
            if_revision=if_revision,
        )
    if target.json:
        print_json({"service": service, "instance": instance_id, "removed": removed})
    elif removed:
        click.echo(f"deregistered {service} {visible(instance_id)}")
    else:
        click.echo(
            f"There is no instance {visible(instance_id)} of {service};"
            f" `ss-govern get {service}` shows what there is.",
            err=True,
        )
    return EXIT_OK if removed else EXIT_FAILED


@click.command(epilog=_UPDATE_HELP)
@click.argument("service")
@click.argument("instance_id", metavar="INSTANCE")
@click.option("--weight", type=float, help="Share of traffic; 0 takes none.")
@click.option("--status", type=click.Choice(_STATUSES), help="What the instance says of itself.")
@click.option("--enable/--disable", "enabled", default=None, help="The operator's switch.")
@click.option(
    "-m", "--meta", multiple=True, callback=pairs, metavar="KEY=VALUE", help="Set a pair."
)
@click.option("--unset", multiple=True, metavar="KEY", help="Remove a pair.")
@click.option("--clear-meta", is_flag=True, help="Remove all pairs first.")
@click.option("--if-revision", type=int, default=0, help="Only if last changed at this revision.")
@client_command
async def update(
    target: Target,
    service: str,
    instance_id: str,
    weight: float | None,
    status: str | None,
    enabled: bool | None,
    meta: dict[str, str],
    unset: tuple[str, ...],
    clear_meta: bool,
    if_revision: int,
) -> int:
    """Change fields of INSTANCE of SERVICE; what is not named stays."""
    if weight is None and status is None and enabled is None and not (meta or unset or clear_meta):
        raise click.UsageError("nothing to change: name at least one of the options")
    async with connected(target) as registry:
        instance = await registry.update(
            service,
            instance_id,
            group=target.group_name,
            weight=weight,
            status=None if status is None else Status[status.upper()],
            enabled=enabled,
            metadata={} if clear_meta else None,
            metadata_set=meta,
            metadata_remove=unset,
            any_owner=True,
            if_revision=if_revision,
        )
    if target.json:
        print_json({"service": service, "instance": instance_document(instance)})
    else:
        print_instances([instance])
    return EXIT_OK
