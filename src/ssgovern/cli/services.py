"""`services` and `get`: what is registered."""

from __future__ import annotations

import click

from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_FAILED, EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import Cell, print_json, print_table
from ssgovern.cli.shapes import instance_document, print_instances

_SERVICES_HELP = """\b
Examples:
  ss-govern services                      all of the namespace, in all groups
  ss-govern services pay                  those whose names start with pay
  ss-govern services -n prod -g shop
  ss-govern services --json | jq '.services[] | select(.available == 0)'
"""

_GET_HELP = """\b
Examples:
  ss-govern get orders
  ss-govern get orders --available --json | jq -r '.instances[].host'
Exit code 1 if the service has no instance to show.
"""


@click.command(epilog=_SERVICES_HELP)
@click.argument("prefix", default="")
@client_command
async def services(target: Target, prefix: str) -> int:
    """List services that have instances, or those whose names start with PREFIX."""
    async with connected(target) as registry:
        found = await registry.services(prefix, group=target.group)
    if target.json:
        rows = [
            {
                "namespace": summary.key.namespace,
                "group": summary.group,
                "service": summary.service,
                "instances": summary.instances,
                "available": summary.available,
                "revision": summary.revision,
            }
            for summary in found
        ]
        print_json({"services": rows})
        return EXIT_OK
    if not found:
        where = f" that start with {prefix!r}" if prefix else ""
        click.echo(
            f"No services{where} in namespace {target.namespace}. Register one:"
            " ss-govern register orders --port 8080",
            err=True,
        )
        return EXIT_OK
    print_table(
        ("SERVICE", "GROUP", "INSTANCES", "AVAILABLE", "REVISION"),
        [
            (
                Cell(summary.service, "strong"),
                summary.group,
                str(summary.instances),
                _available(summary.available, summary.instances),
                str(summary.revision),
            )
            for summary in found
        ],
        right=("INSTANCES", "AVAILABLE", "REVISION"),
    )
    return EXIT_OK


def _available(available: int, instances: int) -> Cell:
    tone = "good" if available == instances else "warn" if available else "bad"
    return Cell(str(available), tone)


@click.command(epilog=_GET_HELP)
@click.argument("service")
@click.option("--available", is_flag=True, help="Only those that take traffic.")
@client_command
async def get(target: Target, service: str, available: bool) -> int:
    """Show the instances of SERVICE."""
    async with connected(target) as registry:
        instances = await registry.get(service, group=target.group_name)
    if available:
        instances = tuple(instance for instance in instances if instance.available)
    code = EXIT_OK if instances else EXIT_FAILED
    if target.json:
        document = {
            "namespace": target.namespace,
            "group": target.group_name,
            "service": service,
            "instances": [instance_document(instance) for instance in instances],
        }
        print_json(document)
        return code
    if not instances:
        click.echo(
            f"No {'available ' if available else ''}instances of {service} in namespace"
            f" {target.namespace}, group {target.group_name}; `ss-govern services` lists what"
            " there is.",
            err=True,
        )
        return code
    print_instances(instances)
    return code
