"""Snapshot files: whole or not there, and damage is never an empty state."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from storage_drive import IDENTITY, disk_on, run

from ssgovern.errors import ConfigError, CorruptionError, DiskFullError, StorageFailedError
from ssgovern.model import LogPosition
from ssgovern.sim.disk import DiskImage, PowerCut
from ssgovern.storage import SnapshotFile, load_snapshots, write_snapshot
from ssgovern.storage.snapshot import encode_snapshot, snapshot_name

GOLDEN = Path(__file__).parent / "golden" / "snapshot_v1.hex"
AT = LogPosition(3, 41)


def write(image: DiskImage, shard: int, position: LogPosition, chunks: Iterable[bytes]) -> int:
    return run(write_snapshot(disk_on(image), IDENTITY, shard, position, chunks))


def load(image: DiskImage) -> list[SnapshotFile]:
    return run(load_snapshots(disk_on(image), IDENTITY))


def test_snapshot_golden() -> None:
    """The bytes of a snapshot never change within a format version."""
    encoded = b"".join(encode_snapshot(IDENTITY, 7, AT, [b"one", b"", b"three"]))
    assert encoded == bytes.fromhex(GOLDEN.read_text())
    image = DiskImage()
    image.append(snapshot_name(7, AT), [encoded])
    (snapshot,) = load(image)
    assert (snapshot.shard, snapshot.position) == (7, AT)
    assert list(snapshot.chunks()) == [b"one", b"", b"three"]


def test_a_snapshot_survives_a_power_cut_and_replaces_the_older() -> None:
    """When writing returned, the snapshot is durable and the only one of its shard."""
    image = DiskImage()
    write(image, 7, LogPosition(3, 9), [b"old"])
    write(image, 8, LogPosition(1, 1), [])
    size = write(image, 7, AT, [bytes([i]) * 100_000 for i in range(9)])
    image.cut_power(random.Random(0), PowerCut.ALL_LOST)
    seventh, eighth = load(image)
    assert (seventh.position, seventh.size_bytes) == (AT, size)
    assert list(seventh.chunks()) == [bytes([i]) * 100_000 for i in range(9)]
    assert list(eighth.chunks()) == []
    assert len(image.names()) == 2


def test_every_flipped_bit_is_noticed() -> None:
    """Damage anywhere in a snapshot is reported, at the latest after its last chunk."""
    image = DiskImage()
    size = write(image, 7, AT, [b"one", b"three"])
    name = snapshot_name(7, AT)
    for bit in range(size * 8):
        image.flip_bit(name, bit // 8, bit % 8)
        with pytest.raises(CorruptionError) as caught:
            load(image)[0].verify()
        assert (caught.value.segment, caught.value.shard) == (name, 7)
        image.flip_bit(name, bit // 8, bit % 8)
    load(image)[0].verify()


def test_every_cut_or_grown_snapshot_is_noticed() -> None:
    """A snapshot that lost its end, at any length, or has bytes behind it, is damaged."""
    image = DiskImage()
    size = write(image, 7, AT, [b"one", b"three"])
    encoded = image.read(snapshot_name(7, AT))
    for changed in [encoded[:length] for length in range(size)] + [encoded + b"x"]:
        other = DiskImage()
        other.append(snapshot_name(7, AT), [changed])
        with pytest.raises(CorruptionError):
            load(other)[0].verify()


def test_a_snapshot_under_another_name_is_refused() -> None:
    """A renamed file does not become the state of another shard or position."""
    image = DiskImage()
    write(image, 7, AT, [b"one"])
    image.rename(snapshot_name(7, AT), snapshot_name(8, AT))
    with pytest.raises(CorruptionError):
        load(image)


def test_snapshots_of_another_node_are_refused() -> None:
    """A data directory that was mixed up is not taken over."""
    image = DiskImage()
    write(image, 7, AT, [])
    with pytest.raises(ConfigError, match="belongs to another node"):
        run(load_snapshots(disk_on(image), b"fedcba9876543210"))


def test_leftovers_are_removed_and_a_good_older_copy_is_kept_beside_a_damaged_newer() -> None:
    """A second copy of the truth goes only when the first is known to be good."""
    image = DiskImage()
    write(image, 7, AT, [b"new"])
    newer = image.read(snapshot_name(7, AT))
    older = b"".join(encode_snapshot(IDENTITY, 7, LogPosition(2, 50), [b"old"]))
    image.append(snapshot_name(7, LogPosition(2, 50)), [older])
    image.append(snapshot_name(9, AT) + ".tmp", [b"half"])
    image.flip_bit(snapshot_name(7, AT), len(newer) - 1, 0)
    with pytest.raises(CorruptionError):
        load(image)
    assert image.names() == [snapshot_name(7, LogPosition(2, 50)), snapshot_name(7, AT)]
    image.flip_bit(snapshot_name(7, AT), len(newer) - 1, 0)
    assert [snapshot.position for snapshot in load(image)] == [AT]
    assert image.names() == [snapshot_name(7, AT)]


def test_a_full_disk_leaves_the_older_snapshot() -> None:
    """A snapshot that does not fit leaves all as it was."""
    image = DiskImage()
    write(image, 7, LogPosition(3, 9), [b"old"])
    image.capacity_bytes = image.used_bytes + 50
    with pytest.raises(DiskFullError):
        write(image, 7, AT, [bytes(1000)])
    assert image.names() == [snapshot_name(7, LogPosition(3, 9))]
    image.capacity_bytes *= 100
    write(image, 7, AT, [bytes(1000)])


def test_a_failed_sync_is_not_a_snapshot() -> None:
    """Nothing gets its final name without a successful sync."""
    image = DiskImage()
    image.fail_syncs = 1
    with pytest.raises(StorageFailedError):
        write(image, 7, AT, [b"one"])
    assert load(image) == []
