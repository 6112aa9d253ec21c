"""A backup is whole or none, replaces nothing, and no byte of it can change unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from storage_drive import disk_on, run

from ssgovern import limits
from ssgovern.errors import ConfigError, CorruptionError, DiskFullError
from ssgovern.model import LogPosition
from ssgovern.sim.disk import DiskImage
from ssgovern.storage.backup import Backup, BackupWriter, Manifest
from ssgovern.storage.overlay import OverlayDisk

GOLDEN = Path(__file__).parent / "golden"
ID = b"0123456789abcdef"
NAME = "b.ssgb"
SHARDS = {
    3: (LogPosition(2, 40), [b"first", b"second"]),
    7: (LogPosition(1, 9), [b"", b"x" * 300]),
}


async def write(image: DiskImage) -> BackupWriter:
    writer = BackupWriter(disk_on(image), NAME, ID)
    await writer.begin()
    for shard, (position, chunks) in SHARDS.items():
        await writer.begin_shard(shard, position)
        for chunk in chunks:
            await writer.add(chunk)
        writer.end_shard(instances=shard)
    await writer.finish(manifest(writer))
    return writer


def manifest(writer: BackupWriter) -> Manifest:
    return Manifest(
        ID, 1_700_000_000_000, ID[::-1], "a test", "ss-govern 1", tuple(writer.saved), 5
    )


def written() -> DiskImage:
    image = DiskImage()
    run(write(image))
    return image


def read(image: DiskImage) -> dict[int, tuple[LogPosition, list[bytes]]]:
    backup = Backup(disk_on(image), NAME)
    return {saved.shard: (saved.position, list(chunks)) for saved, chunks in backup.shards()}


def test_what_is_written_is_read() -> None:
    """A backup gives back each shard's position and chunks, and what it says of itself."""
    image = written()
    assert read(image) == SHARDS
    found = Backup(disk_on(image), NAME)
    assert found.manifest.instances == 10
    assert found.manifest.cluster_id == ID[::-1]
    assert found.manifest.epoch_max == 5
    assert image.names() == [NAME]


def test_backup_golden() -> None:
    """The bytes of a backup, for ever: one that was taken once can be restored later."""
    golden = bytes.fromhex((GOLDEN / "backup_v1.hex").read_text())
    assert written().read(NAME) == golden


def test_every_flipped_bit_is_found() -> None:
    """No byte of a backup can change, go or be added without its reader saying so."""
    whole = written().read(NAME)
    for offset in range(len(whole)):
        image = written()
        image.flip_bit(NAME, offset, offset % 8)
        with pytest.raises((CorruptionError, ConfigError)):
            Backup(disk_on(image), NAME).verify()
    for length in range(len(whole)):
        image = DiskImage()
        image.append(NAME, [whole[:length]])
        with pytest.raises(CorruptionError):
            Backup(disk_on(image), NAME).verify()
    image = DiskImage()
    image.append(NAME, [whole, b"\0"])
    with pytest.raises(CorruptionError):
        Backup(disk_on(image), NAME).verify()


def test_a_shard_that_was_not_read_to_its_end_is_taken_back() -> None:
    """What comes after a shard that was dropped is as if that had never begun."""

    async def program() -> None:
        image = DiskImage()
        writer = BackupWriter(disk_on(image), NAME, ID)
        await writer.begin()
        await writer.begin_shard(3, LogPosition(2, 39))
        await writer.add(b"older")
        await writer.drop_shard()
        await writer.begin_shard(3, LogPosition(2, 40))
        await writer.add(b"newer")
        writer.end_shard(1)
        await writer.drop_shard()
        await writer.finish(manifest(writer))
        assert read(image) == {3: (LogPosition(2, 40), [b"newer"])}

    run(program())


def test_a_backup_replaces_nothing() -> None:
    """A name that is taken is refused, and what has it stays as it is."""
    image = DiskImage()
    image.append(NAME, [b"precious"])
    with pytest.raises(ConfigError, match="is there already"):
        run(write(image))
    assert (image.names(), image.read(NAME)) == ([NAME], b"precious")


def test_a_backup_that_is_not_finished_has_no_name() -> None:
    """What was cut short, or did not fit, is never taken for a backup, and the next one works."""
    image = DiskImage(capacity_bytes=400)
    with pytest.raises(DiskFullError):
        run(write(image))
    assert NAME not in image.names()
    image.capacity_bytes = 1 << 20
    run(write(image))
    assert read(image) == SHARDS


def test_a_piece_has_a_limit() -> None:
    """A chunk beyond the limit is refused when it is written, not when it is needed."""

    async def program() -> None:
        writer = BackupWriter(disk_on(DiskImage()), NAME, ID)
        await writer.begin()
        await writer.begin_shard(0, LogPosition(1, 1))
        with pytest.raises(ConfigError, match="does not fit"):
            await writer.add(bytes(limits.BACKUP_PIECE_BYTES_MAX + 1))

    run(program())


def test_an_overlay_changes_nothing_below() -> None:
    """Whatever is done on an overlay is seen on it, and never on the disk below."""

    async def program() -> None:
        image = DiskImage()
        image.append("a", [b"alpha"])
        image.append("b", [b"beta"])
        before = {name: image.read(name) for name in image.names()}
        disk = OverlayDisk(disk_on(image))
        await disk.append("a", [b"+"], sync=True)
        await disk.rename("b", "c")
        assert disk.names() == ["a", "c"]
        assert (disk.read("a"), disk.read("c", 1, 2), disk.size("c")) == (b"alpha+", b"et", 4)
        await disk.truncate("c", 2)
        await disk.append("b", [b"new"], sync=False)
        await disk.rename("a", "c")
        assert (disk.names(), disk.read("c"), disk.read("b")) == (["b", "c"], b"alpha+", b"new")
        await disk.remove("c")
        for gone in ("a", "c"):
            with pytest.raises(FileNotFoundError):
                disk.read(gone)
        assert {name: image.read(name) for name in image.names()} == before

    run(program())
