"""What is salvaged of a damaged log is true, and what is not certain is said to be so."""

from __future__ import annotations

import random

import pytest
from storage_drive import IDENTITY, disk_on, entry, recover, run

from ssgovern.model import LogPosition
from ssgovern.sim.disk import DiskImage
from ssgovern.storage.format import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES
from ssgovern.storage.salvage import Salvage, salvage
from ssgovern.storage.snapshot import write_snapshot

SHARDS = 4


class Machine:
    """A log of a few shards, snapshots of some, and what they truly hold."""

    def __init__(self, seed: int, *, records: int = 60, segment_bytes: int = 700) -> None:
        self.rng = random.Random(seed)
        self.wal, self.snapshots = DiskImage(), DiskImage()
        self.truth: dict[int, list[bytes]] = {shard: [] for shard in range(SHARDS)}
        wal, _ = recover(self.wal, segment_bytes=segment_bytes)
        for _ in range(records):
            shard = self.rng.randrange(SHARDS)
            body = self.rng.randbytes(self.rng.randrange(40))
            self.truth[shard].append(body)
            run(wal.append([entry(shard, len(self.truth[shard]), body)]))
            if self.rng.random() < 0.05:
                self.take_snapshot(shard)
        run(wal.mark())

    def take_snapshot(self, shard: int) -> None:
        position = LogPosition(1, len(self.truth[shard]))
        chunks = [b"%d" % position.revision]
        run(write_snapshot(disk_on(self.snapshots), IDENTITY, shard, position, chunks))

    def salvage(self) -> Salvage:
        return salvage(disk_on(self.wal), disk_on(self.snapshots), IDENTITY)

    def check(self) -> Salvage:
        """Whatever is left is a piece of the truth, and all of it where there is no doubt."""
        found = self.salvage()
        for left in found.shards[:SHARDS]:
            truth = self.truth[left.shard]
            base = 0 if left.snapshot is None else left.snapshot.position.revision
            kept = [record.body for record in left.entries]
            assert kept == truth[base : base + len(kept)], f"shard {left.shard}"
            if not left.doubt:
                assert base + len(kept) == len(truth), f"shard {left.shard} lost something"
        return found


def test_a_log_that_is_whole() -> None:
    """Nothing is in doubt, all is there."""
    for seed in range(20):
        found = Machine(seed).check()
        assert not found.is_damaged, seed


@pytest.mark.parametrize("seed", range(250))
def test_no_damage_is_taken_for_whole(seed: int) -> None:
    """Bits flip, bytes go, files go: no shard that lost an entry is said to have all.

    But for the very last record, the mark: damage that takes all proof behind it along cannot be
    told from a write that was never acknowledged.
    """
    machine = Machine(seed)
    rng = machine.rng
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        image = machine.snapshots if rng.random() < 0.2 else machine.wal
        names = image.names()
        if not names:
            continue
        name = rng.choice(names)
        size = image.size(name) - (RECORD_HEADER_BYTES if name == names[-1] else 0)
        match rng.randrange(4):
            case 0 | 1:
                image.flip_bit(name, rng.randrange(size), rng.randrange(8))
            case 2:
                first = rng.randrange(size)
                for offset in range(first, min(size, first + rng.randrange(200))):
                    image.flip_bit(name, offset, rng.randrange(8))
            case 3 if len(names) > 1 and name != names[-1]:
                image.remove(name)
    machine.check()


def test_a_flipped_body_costs_no_other_shard_its_later_entries() -> None:
    """Behind one damaged record the log is read on: who goes on without a gap is not in doubt."""
    image = DiskImage()
    wal, _ = recover(image)
    records = [entry(0, 1), entry(1, 1), entry(2, 1), entry(0, 2), entry(1, 2), entry(1, 3)]
    for record in records:
        run(wal.append([record]))
    run(wal.mark())
    second = SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + len(b"body")
    image.flip_bit(image.names()[0], second + RECORD_HEADER_BYTES + 1, 3)
    found = salvage(disk_on(image), disk_on(DiskImage()), IDENTITY)
    doubts = [shard.shard for shard in found.shards if shard.doubt]
    assert 0 not in doubts
    assert 2 not in doubts
    assert 1 in doubts
    assert "what is between is lost" in found.shards[1].doubt
    assert [record.revision for record in found.shards[0].entries] == [1, 2]
    assert not found.shards[1].entries
    assert len(found.holes) == 1


def test_a_snapshot_that_is_gone_is_no_loss_if_the_log_has_it_all() -> None:
    """A shard whose log reaches back to its beginning needs no snapshot."""
    machine = Machine(3, records=20, segment_bytes=1 << 20)
    machine.take_snapshot(0)
    machine.snapshots.flip_bit(machine.snapshots.names()[0], 60, 1)
    found = machine.check()
    assert found.bad_snapshots
    assert not found.in_doubt()
