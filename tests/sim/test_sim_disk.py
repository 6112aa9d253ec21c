"""The simulated disk loses what a real one may lose, and nothing else."""

from __future__ import annotations

import random

import pytest

from ssgovern.runtime import SyncError
from ssgovern.sim.disk import SECTOR_BYTES, DiskImage, PowerCut

MODES = list(PowerCut)
CUTS = 200


def written(synced: bytes, unsynced: bytes) -> DiskImage:
    image = DiskImage()
    image.append("file", [synced])
    image.start_sync("file")()
    image.start_sync_directory()()
    image.append("file", [unsynced])
    return image


@pytest.mark.parametrize("mode", MODES)
def test_what_was_synced_survives_every_power_cut(mode: PowerCut) -> None:
    """Synced bytes under a synced name are never lost or changed."""
    for seed in range(CUTS):
        image = written(b"s" * 700, b"u" * 1500)
        image.cut_power(random.Random(seed), mode)
        assert image.read("file", 0, 700) == b"s" * 700


def outcomes(mode: PowerCut) -> list[bytes]:
    found = []
    for seed in range(CUTS):
        image = written(b"s" * 700, b"u" * 1500)
        image.cut_power(random.Random(seed), mode)
        found.append(image.read("file", 700))
    return found


def test_all_lost_keeps_nothing_unsynced() -> None:
    """The unluckiest cut: as if nothing had been written since the sync."""
    assert set(outcomes(PowerCut.ALL_LOST)) == {b""}


def test_prefix_keeps_a_beginning_of_what_was_unsynced() -> None:
    """A write may be torn at any byte."""
    found = outcomes(PowerCut.PREFIX)
    assert all(tail == b"u" * len(tail) for tail in found)
    assert len(set(found)) > 10
    assert {b"", b"u" * 1500} <= set(found)


def test_sectors_may_leave_holes() -> None:
    """Sectors reach the platter in any order: later ones may be there without earlier ones."""
    found = outcomes(PowerCut.SECTORS)
    first_end = SECTOR_BYTES * 2 - 700
    assert any(tail[:first_end] == bytes(first_end) and b"u" in tail[first_end:] for tail in found)
    assert {b"", b"u" * 1500} <= set(found)


def test_unsynced_names_may_each_survive_or_not() -> None:
    """Creation, rename and removal are durable one without the other until a directory sync."""
    seen = set()
    for seed in range(CUTS):
        image = DiskImage()
        for name in ("a", "b"):
            image.append(name, [name.encode()])
            image.start_sync(name)()
        image.start_sync_directory()()
        image.rename("a", "c")
        image.remove("b")
        image.append("d", [b"d"])
        image.cut_power(random.Random(seed), PowerCut.PREFIX)
        seen.add(tuple(image.names()))
    assert {
        ("a", "b"),
        ("b", "c"),
        ("a",),
        ("c",),
        ("c", "d"),
        ("a", "b", "d"),
        ("a", "d"),
        ("b", "c", "d"),
    } == seen


def test_a_synced_directory_keeps_its_names() -> None:
    """After a directory sync the new names, and only they, survive."""
    image = DiskImage()
    image.append("a", [b"a"])
    image.start_sync("a")()
    image.rename("a", "b")
    image.start_sync_directory()()
    image.cut_power(random.Random(1), PowerCut.ALL_LOST)
    assert (image.names(), image.read("b")) == (["b"], b"a")


def test_a_sync_covers_what_was_written_before_it_began() -> None:
    """Bytes written while a sync is under way are not covered by it."""
    image = DiskImage()
    image.append("file", [b"before"])
    finish = image.start_sync("file")
    finish_names = image.start_sync_directory()
    image.append("file", [b"after"])
    image.append("late", [b""])
    finish()
    finish_names()
    image.cut_power(random.Random(1), PowerCut.ALL_LOST)
    assert (image.names(), image.read("file")) == (["file"], b"before")


def test_a_failed_sync_lies_ever_after() -> None:
    """Fsyncgate: the cache shows the bytes, the next sync succeeds, the platter has a hole."""
    image = written(b"synced", b"")
    image.append("file", [b"lost"])
    image.fail_syncs = 1
    with pytest.raises(SyncError):
        image.start_sync("file")()
    assert image.read("file") == b"syncedlost"
    image.append("file", [b"later"])
    image.start_sync("file")()
    image.evict_clean_pages()
    assert image.read("file") == b"synced\0\0\0\0later"
    image.cut_power(random.Random(1), PowerCut.ALL_LOST)
    assert image.read("file") == b"synced\0\0\0\0later"


def test_eviction_drops_no_dirty_page() -> None:
    """Unsynced bytes stay readable until a crash."""
    image = written(b"synced", b"dirty")
    image.evict_clean_pages()
    assert image.read("file") == b"synceddirty"


def test_a_full_disk_takes_a_part() -> None:
    """A write that does not fit leaves its beginning; cutting it gives the space back."""
    image = DiskImage(capacity_bytes=10)
    image.append("file", [b"12345"])
    with pytest.raises(OSError, match="no space left"):
        image.append("file", [b"6789", b"abcd"])
    assert image.read("file") == b"123456789a"
    image.truncate("file", 5)
    image.append("file", [b"6789a"])
    assert image.used_bytes == 10


def test_a_flipped_bit_is_on_the_platter() -> None:
    """Rot survives a restart."""
    image = written(b"\0\0", b"")
    image.flip_bit("file", 1, 3)
    assert image.read("file") == b"\0\x08"
    image.cut_power(random.Random(1), PowerCut.ALL_LOST)
    assert image.read("file") == b"\0\x08"
