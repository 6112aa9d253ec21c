"""`backup` and `restore`: all that is registered in one file, and a node made from it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from ssgovern.cli.connection import connected
from ssgovern.cli.exits import EXIT_OK
from ssgovern.cli.options import Target, client_command
from ssgovern.cli.output import Cell, bytes_text, counted, print_facts, print_json
from ssgovern.cli.stopped import ProgressLine, Stopped
from ssgovern.client.registry import Registry
from ssgovern.client.values import ClusterStatus
from ssgovern.errors import ConfigError, ErrorCode, InvalidArgumentError, SsGovernError
from ssgovern.model import SHARDS, NodeId
from ssgovern.node.backup import finish, longest_of, read_directory, write_states
from ssgovern.node.recovery import Progress
from ssgovern.node.restore import restore_backup
from ssgovern.storage.backup import Backup, BackupWriter, Manifest

_SHARD_TIMEOUT_S = 60.0
"""So long a shard may be without a primary, or on its way, before a backup is given up."""
_RETRY_PAUSE_S = 0.2
_GIVEN_UP = (ErrorCode.INVALID_ARGUMENT, ErrorCode.UNSUPPORTED_TYPE, ErrorCode.CLOSED)

_BACKUP_HELP = """\b
Examples:
  ss-govern backup monday.ssgb                          of a running node or cluster
  ss-govern backup monday.ssgb --server 10.0.0.1:7420
  ss-govern backup monday.ssgb --data-dir ss-govern-data        of a node that does not run
  ss-govern backup all.ssgb --data-dir n1 --data-dir n2         of several nodes of a cluster
  ss-govern backup monday.ssgb --verify                 read it back, change nothing
Every shard is taken as it was at one committed revision; not all shards at the same moment.
A file that is there already is never replaced.
"""

_RESTORE_HELP = """\b
Examples:
  ss-govern restore monday.ssgb --data-dir new-data
  ss-govern server --data-dir new-data
The directory becomes that of a single node, which may then become the first of a cluster. It
gets a new cluster id and new epochs, so that clients take nothing that they know for current.
Instances whose processes do not come back expire after the usual time.
"""


@click.command(epilog=_BACKUP_HELP)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "-d",
    "--data-dir",
    "data_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Of a node that does not run; several for nodes of one cluster.",
)
@click.option("--verify", is_flag=True, help="Read the backup FILE, and say what is in it.")
@client_command
async def backup(target: Target, file: Path, data_dirs: tuple[Path, ...], verify: bool) -> int:
    """Write all that is registered into FILE."""
    with_progress = ProgressLine(sys.stderr)
    stopped = Stopped()
    began_s = time.monotonic()
    try:
        if verify:
            found = open_backup(stopped, file)
            found.verify()
            manifest, size_bytes = found.manifest, found.size_bytes
        else:
            manifest, size_bytes = await _write(target, file, data_dirs, stopped, with_progress)
    finally:
        with_progress.end()
        await stopped.close()
    if target.json:
        print_json({"file": str(file), "bytes": size_bytes, **manifest.document()})
    else:
        facts = facts_of(file, manifest, size_bytes)
        facts["verified" if verify else "took"] = f"{time.monotonic() - began_s:.1f} s"
        print_facts(facts)
    return EXIT_OK


def open_backup(stopped: Stopped, file: Path) -> Backup:
    """Open a backup. Raises ConfigError if there is none."""
    if not file.is_file():
        raise ConfigError(f"there is no backup {file}")
    return Backup(stopped.look_into(file.parent), file.name)


def facts_of(file: Path, manifest: Manifest, size_bytes: int) -> dict[str, str | Cell]:
    """Describe a backup for people."""
    taken = datetime.fromtimestamp(manifest.taken_at_ms / 1000, UTC)
    missing = SHARDS - len(manifest.shards)
    return {
        "backup": f"{file}, {bytes_text(size_bytes)}",
        "taken": f"{taken:%Y-%m-%d %H:%M:%S} UTC",
        "of": f"{manifest.source}, cluster {manifest.cluster_id.hex() or '(none)'}",
        "shards": Cell(f"{len(manifest.shards)} of {SHARDS}", "warn" if missing else ""),
        "instances": f"{manifest.instances:,}",
    }


async def _write(
    target: Target, file: Path, data_dirs: tuple[Path, ...], stopped: Stopped, line: ProgressLine
) -> tuple[Manifest, int]:
    if not file.parent.is_dir():
        raise ConfigError(f"there is no directory {file.parent}")
    if file.exists():
        raise ConfigError(f"{file} is there already: a backup replaces nothing")
    runtime = stopped.runtime
    writer = BackupWriter(stopped.open(file.parent), file.name, runtime.random_bytes(16))
    try:
        if data_dirs:
            manifest = await _of_directories(data_dirs, writer, stopped, line)
        else:
            async with connected(target) as registry:
                manifest = await back_up(registry, writer, runtime.wall_ms(), line.say)
    except (SsGovernError, asyncio.CancelledError):
        await writer.give_up()
        raise
    return manifest, writer.size_bytes


async def _of_directories(
    data_dirs: tuple[Path, ...], writer: BackupWriter, stopped: Stopped, line: ProgressLine
) -> Manifest:
    read = []
    for path in data_dirs:

        def on_progress(progress: Progress, path: Path = path) -> None:
            share = f" {100 * progress.done // progress.total} %" if progress.total else ""
            line.say(f"reading {progress.what} of {path}{share}")

        read.append(
            await read_directory(
                stopped.open_existing(path),
                stopped.look_into(path / "wal"),
                stopped.look_into(path / "snapshots"),
                on_progress,
            )
        )
    return await write_states(
        writer,
        longest_of(read),
        stopped.runtime.wall_ms(),
        lambda done, total: line.say(f"{done} of {total} shards written"),
    )


# --- of a running node or cluster ------------------------------------------------------------


async def back_up(
    registry: Registry, writer: BackupWriter, taken_at_ms: int, say: Callable[[str], None]
) -> Manifest:
    """Write a backup of whatever a client is connected to; return its manifest.

    Each shard is read from its primary; if that fails on the way, it is begun again.
    """
    await writer.begin()
    status = await registry.status()
    cluster = await _cluster(registry)
    instances = 0
    for shard in range(SHARDS):
        instances += await _read_shard(registry, writer, shard)
        size = bytes_text(writer.size_bytes)
        say(f"{shard + 1} of {SHARDS} shards, {counted(instances, 'instance')}, {size}")
    of = (
        "a single node"
        if cluster is None
        else f"a cluster of {counted(len(cluster.nodes), 'node')}"
    )
    return await finish(
        writer,
        cluster_id=status.cluster_id if cluster is None else cluster.cluster_id,
        source=f"{of}, while it ran",
        taken_at_ms=taken_at_ms,
        epoch_max=max((row.epoch for row in cluster.shards), default=0) if cluster else 0,
        cluster=None if cluster is None else _cluster_document(cluster),
    )


async def _cluster(registry: Registry) -> ClusterStatus | None:
    try:
        return await registry.cluster_status(shards=True)
    except InvalidArgumentError:
        # It stands alone.
        return None


async def _read_shard(registry: Registry, writer: BackupWriter, shard: int) -> int:
    deadline = time.monotonic() + _SHARD_TIMEOUT_S
    while True:
        instances = 0
        begun = False
        try:
            async for piece in registry.read_shard(shard):
                if not begun:
                    await writer.begin_shard(shard, piece.position)
                    begun, instances = True, piece.instances
                await writer.add(piece.chunk)
        except SsGovernError as error:
            await writer.drop_shard()
            if error.code in _GIVEN_UP or time.monotonic() >= deadline:
                raise
            await asyncio.sleep(_RETRY_PAUSE_S)
        else:
            writer.end_shard(instances)
            return instances


def _cluster_document(status: ClusterStatus) -> dict[str, object]:
    return {
        "copies": status.copies,
        "min_in_sync": status.min_in_sync,
        "candidates": list(status.candidates),
        "map_version": status.map_version,
        "nodes": [
            {"id": node.node_id, "name": node.name, "address": node.address, "zone": node.zone}
            for node in status.nodes
        ],
    }


# --- restore ---------------------------------------------------------------------------------


@click.command(epilog=_RESTORE_HELP)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "-d",
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="The directory to make; it must not have anything in it.",
)
@click.option("--node-id", type=click.IntRange(1, 2**31 - 1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.option("--debug", is_flag=True, help="Show where a failure came from.")
def restore(
    file: Path,
    data_dir: Path,
    node_id: int,
    as_json: bool,
    debug: bool,  # noqa: ARG001 - read where failures end
) -> int:
    """Make the data directory of a new node from the backup FILE."""
    line = ProgressLine(sys.stderr)
    with Stopped() as stopped:
        found = open_backup(stopped, file)
        try:
            restored = asyncio.run(
                restore_backup(
                    found,
                    stopped.open,
                    str(data_dir),
                    NodeId(node_id),
                    stopped.runtime,
                    lambda done, total: line.say(f"{done} of {total} shards"),
                )
            )
        finally:
            line.end()
    if as_json:
        print_json(
            {
                "data_dir": str(data_dir),
                "node_id": node_id,
                "cluster_id": restored.identity.cluster_id.hex(),
                "epoch": restored.epoch,
                "instances": restored.instances,
                "missing_shards": list(restored.missing),
            }
        )
        return EXIT_OK
    facts = facts_of(file, found.manifest, found.size_bytes)
    facts["restored"] = f"into {data_dir}, for node {node_id}"
    facts["cluster"] = f"{restored.identity.cluster_id.hex()} (new)"
    facts["epochs"] = f"go on from {restored.epoch}; no client takes what it knows for current"
    if restored.missing:
        lacking = f"{counted(len(restored.missing), 'shard')} not in the backup: they are empty"
        facts["missing"] = Cell(lacking, "warn")
    print_facts(facts)
    click.echo(f"Start it: ss-govern server --data-dir {data_dir} --node-id {node_id}")
    return EXIT_OK
