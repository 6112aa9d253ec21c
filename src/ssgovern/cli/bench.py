"""`bench`: what a running node does under load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click

from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.load import Requests, drive, reads, registrations
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import is_terminal, print_json, print_table
from ssgovern.client.addresses import parse_addresses
from ssgovern.wire.pb import model_pb2

_BENCH_HELP = """\b
Examples:
  ss-govern bench
  ss-govern bench --connections 128 --in-flight 8 --seconds 30
  ss-govern bench --json | jq '.[] | {what, per_second}'
\b
The load comes from one process: if that takes a whole core, the figures are its own. Registered
instances are ephemeral, in the namespace `bench` unless --namespace says otherwise, and gone
at the end. A comparison with etcd and ZooKeeper on equal terms is `make bench` in the sources.
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
    """Measure a node: registrations, reads, and the latency of a lone request."""
    address = parse_addresses(target.server)[0]
    namespace = "bench" if target.namespace == "default" else target.namespace
    keys = [
        model_pb2.ServiceKey(
            namespace=namespace, group=target.group_name, service=f"bench-{number}"
        )
        for number in range(connections)
    ]
    everyone = [registrations(key) for key in keys]
    results = []
    for what, workloads, depth in (
        ("registrations", everyone, in_flight),
        ("reads of an empty service", [reads(key) for key in keys], in_flight),
        ("one registration at a time", everyone[:1], 1),
    ):
        results.append(
            await _measure((address.host, address.port), what, workloads, depth, seconds)
        )
    if target.json:
        print_json([asdict(figures) for figures in results])
        return EXIT_OK
    columns = ("WORKLOAD", "CONNECTIONS", "IN FLIGHT", "PER SECOND", "P50", "P99")
    rows = [
        (
            one.what,
            str(one.connections),
            str(one.in_flight),
            f"{one.per_second:,.0f}",
            f"{one.p50_ms:.2f} ms",
            f"{one.p99_ms:.2f} ms",
        )
        for one in results
    ]
    print_table(columns, rows, right=columns[1:])
    return EXIT_OK


async def _measure(
    address: tuple[str, int], what: str, workloads: list[Requests], depth: int, seconds: float
) -> Figures:
    run, taken_s = await drive(
        address, workloads, in_flight=depth, seconds=seconds, on_second=_progress(what)
    )
    latencies = sorted(run.latencies)
    return Figures(
        what=what,
        connections=len(workloads),
        in_flight=depth,
        per_second=run.answered / taken_s,
        p50_ms=_percentile(latencies, 0.50) * 1000.0,
        p99_ms=_percentile(latencies, 0.99) * 1000.0,
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _progress(what: str) -> Callable[[int], None] | None:
    if not is_terminal(sys.stderr):
        return None
    return lambda count: click.echo(f"{what}: {count:,}/s", err=True)
