"""`status`: how a node is doing."""

from __future__ import annotations

import dataclasses

import click

from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import Cell, bytes_text, counted, duration_text, print_facts, print_json
from ssgovern.client.values import NodeStatus

_STATUS_HELP = """\b
Examples:
  ss-govern status
  ss-govern status -s 10.0.0.1:7420 --json | jq .writes_refused
"""


@click.command(epilog=_STATUS_HELP)
@client_command
async def status(target: Target) -> int:
    """Show how a node is doing."""
    async with connected(target) as registry:
        node = await registry.status()
    if target.json:
        document = dataclasses.asdict(node)
        document["cluster_id"] = node.cluster_id.hex()
        print_json(document)
    else:
        print_facts(facts_of(node))
    return EXIT_OK


def facts_of(node: NodeStatus) -> dict[str, str | Cell]:
    """Return what people want to know, the alarming things with a colour."""
    if node.writes_refused:
        writes = Cell(f"REFUSED: {node.writes_refused}", "bad")
    else:
        writes = Cell("accepted", "good")
    held = f", {node.sessions_protected} held back by protection" * bool(node.sessions_protected)
    return {
        "node": Cell(f"{node.node_name} (id {node.node_id})", "strong"),
        "version": f"{node.version}, up {duration_text(node.uptime_ms)}",
        "cluster": f"{node.cluster_id.hex()}, shard map {node.map_version}, {node.shards} shards",
        "writes": writes,
        "registry": f"{counted(node.services, 'service')}, {counted(node.instances, 'instance')}",
        "clients": Cell(
            f"{counted(node.sessions, 'session')}{held},"
            f" {counted(node.connections, 'connection')},"
            f" {counted(node.subscriptions, 'subscription')}",
            "warn" if held else "",
        ),
        "since start": (
            f"{node.entries_committed:,} entries committed, {node.pushes:,} pushes sent,"
            f" {node.expirations:,} sessions expired"
        ),
        "log": (
            f"{bytes_text(node.wal_bytes)} in {counted(node.wal_segments, 'segment')},"
            f" {counted(node.wal_batches, 'synced write')},"
            f" the last took {node.wal_sync_us / 1000:.1f} ms"
        ),
        "durability": node.durability,
        "data": node.data_dir,
        "memory": bytes_text(node.resident_bytes),
        "longest stall": duration_text(node.loop_stall_ms_max),
    }
