"""What `wal inspect` tells of records that are no changes of a service."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from click.testing import CliRunner

from ssgovern.cli.app import app
from ssgovern.sim.disk import DiskImage, SimDisk
from ssgovern.storage import LogEntry, Wal, cut_record, epoch_promise


async def at_once(operation: str) -> None:
    """No latency."""


def log_in(directory: Path, records: list[LogEntry]) -> None:
    """Write a log of these records where the command finds it."""
    image = DiskImage()

    async def program() -> None:
        disk = SimDisk(image, at_once)
        wal = await Wal.recover(disk, identity=bytes(16), on_record=lambda record: None)
        await wal.append(records)

    with suppress(StopIteration):
        program().send(None)
    for name in image.names():
        (directory / name).write_bytes(image.read(name))


def test_cuts_and_promises_are_told(tmp_path: Path) -> None:
    """Each kind of record is counted by its name, and shown with what it means."""
    log_in(tmp_path, [LogEntry(7, 3, 41, b""), epoch_promise(7, 4), cut_record(7, 3, 40)])
    counted = CliRunner().invoke(app, ["wal", "inspect", str(tmp_path), "--json"])
    assert json.loads(counted.output)["records"] == {"cut": 1, "entry": 1, "epoch": 1}
    shown = CliRunner().invoke(app, ["wal", "inspect", str(tmp_path), "--records"])
    assert "cut    shard   7  3/40" in shown.output
    assert "the log of the shard ends here" in shown.output
    assert "promised to obey no older epoch" in shown.output
