"""`bench`: what a running node or cluster does under load, and that it loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import click

from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.load import Workload, drive, reads, registrations, workload
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import counted, is_terminal, print_json, print_table
from ssgovern.client.addresses import parse_addresses
from ssgovern.client.registry import Registry
from ssgovern.client.tls import dialler_of
from ssgovern.errors import NotFoundError
from ssgovern.wire.pb import model_pb2

_BENCH_HELP = """\b
Examples:
  ss-govern bench
  ss-govern bench --connections 128 --in-flight 8 --seconds 30
  ss-govern bench --json | jq '.[] | {what, per_second}'
\b
The load comes from one process: if that takes a whole core, the figures are its own. In a
cluster each request goes to the primary of its shard, and if that fails, to the one that takes
over: a node may be killed meanwhile. Registered instances are ephemeral, in the namespace `bench`
unless --namespace says otherwise; that all are there is checked, and they are gone at the end.
A comparison with etcd and ZooKeeper on equal terms is `make bench` in the sources.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One workload's result; times in milliseconds."""

    what: str
    connections: int
    in_flight: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    moves: int
    """How often a session had to go to another node because its primary changed."""


@click.command(epilog=_BENCH_HELP)
@click.option(
    "--connections", type=click.IntRange(1, 1000), default=64, show_default=True, help="Sessions."
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Requests of each that wait for an answer.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 300),
    default=5.0,
    show_default=True,
    help="How long each of the three workloads runs.",
)
@client_command
async def bench(target: Target, connections: int, in_flight: int, seconds: float) -> int:
    """Measure a node or a cluster: registrations, reads, and the latency of a lone request."""
    namespace = "bench" if target.namespace == "default" else target.namespace
    keys = [
        model_pb2.ServiceKey(
            namespace=namespace, group=target.group_name, service=f"bench-{number}"
        )
        for number in range(connections)
    ]
    everyone = [workload(key, registrations(key)) for key in keys]
    readers = [workload(key, reads(key)) for key in keys]
    results = []
    async with connected(replace(target, namespace=namespace)) as registry:
        check = partial(_all_there, registry, target.group_name)
        for what, workloads, depth, checked in (
            ("registrations", everyone, in_flight, check),
            ("reads of an empty service", readers, in_flight, None),
            ("one registration at a time", everyone[:1], 1, check),
        ):
            results.append(await _measure(target, what, workloads, depth, seconds, checked))
    if target.json:
        print_json([asdict(figures) for figures in results])
        return EXIT_OK
    columns = ("WORKLOAD", "CONNECTIONS", "IN FLIGHT", "PER SECOND", "P50", "P99", "MAX")
    rows = [
        (
            one.what,
            str(one.connections),
            str(one.in_flight),
            f"{one.per_second:,.0f}",
            f"{one.p50_ms:.2f} ms",
            f"{one.p99_ms:.2f} ms",
            f"{one.max_ms:.2f} ms",
        )
        for one in results
    ]
    print_table(columns, rows, right=columns[1:])
    if moved := sum(one.moves for one in results):
        click.echo(f"{counted(moved, 'session')} had to follow a shard to another primary.")
    click.echo("All that was acknowledged was there.")
    return EXIT_OK


async def _all_there(registry: Registry, group: str, registered: int) -> None:
    """Check that what was acknowledged is there, whatever became of nodes meanwhile."""
    found = sum(
        service.instances
        for service in await registry.services("bench-", group=group)
        if service.key.service.removeprefix("bench-").isdecimal()
    )
    if found < registered:
        raise NotFoundError(f"{registered} registrations were acknowledged, {found} are there")


async def _measure(
    target: Target,
    what: str,
    workloads: list[Workload],
    depth: int,
    seconds: float,
    check: Callable[[int], Awaitable[None]] | None,
) -> Figures:
    run, taken_s = await drive(
        parse_addresses(target.server),
        workloads,
        in_flight=depth,
        seconds=seconds,
        on_second=_progress(what),
        check=check,
        tls=dialler_of(target.tls),
    )
    latencies = sorted(run.latencies)
    return Figures(
        what=what,
        connections=len(workloads),
        in_flight=depth,
        per_second=run.answered / taken_s,
        p50_ms=_percentile(latencies, 0.50) * 1000.0,
        p99_ms=_percentile(latencies, 0.99) * 1000.0,
        max_ms=latencies[-1] * 1000.0 if latencies else 0.0,
        moves=run.moves,
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _progress(what: str) -> Callable[[int], None] | None:
    if not is_terminal(sys.stderr):
        return None
    return lambda count: click.echo(f"{what}: {count:,}/s", err=True)
