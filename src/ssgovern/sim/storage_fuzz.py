"""Crash fuzz of the WAL and the snapshots alone: ALICE in miniature.

No event loop: a process is a few coroutines, driven by hand, and every await is a place where
it may die or the disk may fail. One run is one machine that lives, crashes and recovers several
times; a run is its seed, and repeats exactly.

Half of the runs live the life of a replica: entries are replaced (also by such of an older
epoch), the log is cut, and snapshots from elsewhere take its place.

What must hold after each recovery (`storage_truth`):
- per shard, what is recovered (snapshot and log together) is what was appended, replaced and cut,
  in order, up to a point not before the last durable acknowledgement (after a mere kill: not
  before the last append that returned);
- a batch that was refused for lack of space never comes back;
- the highest promised epoch is not forgotten;
- a bit that rots below an offset proven durable is reported, and nothing else ever is.

`storage_mutants` holds planted bugs, each of which this fuzz has to find.

    python -m ssgovern.sim.storage_fuzz --runs 1000 [--seed 0] [--mutant NAME]
"""

from __future__ import annotations

import argparse
import random
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ssgovern.errors import CorruptionError, DiskFullError, StorageFailedError
from ssgovern.model import ORIGIN, LogPosition
from ssgovern.runtime import Disk
from ssgovern.sim.disk import UNLIMITED, DiskImage, PowerCut, SimDisk
from ssgovern.sim.storage_mutants import HONEST, MUTANTS, Mutant
from ssgovern.sim.storage_truth import (
    Fact,
    ShardTruth,
    Truth,
    ViolationError,
    chunks_of,
    facts_of,
)
from ssgovern.storage import (
    EPOCH,
    LogEntry,
    RecoveryProgress,
    Wal,
    WalRecord,
    cut_record,
    epoch_promise,
    write_snapshot,
)
from ssgovern.storage.format import SEGMENT_HEADER_BYTES
from ssgovern.storage.reader import find_segments
from ssgovern.storage.recovery import Recovery

IDENTITY: Final = b"crash-fuzz-node!"
LIVES_PER_RUN: Final = 10
SHARDS: Final = 4


_DEADLY_MOMENTS: Final = (
    None,
    ("append", "sync"),
    ("truncate", "sync"),
    ("rename", "sync_directory"),
    ("sync_directory", "remove"),
    ("remove", "sync_directory"),
)
"""Between these two operations a process of a run is likely to die: most bugs are there."""


@dataclass(slots=True)
class RunReport:
    """`counts`: how often each kind of event of the story happened."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    violation: str | None = None
    story: list[str] = field(default_factory=list)


class _Pause:
    """What a disk operation awaits: control goes back to the machine."""

    __slots__ = ("operation",)

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def __await__(self) -> Generator[str, None, None]:
        yield self.operation


async def _pause(operation: str) -> None:
    await _Pause(operation)


class _Task:
    """A coroutine of a process, and the disk operation it stands before."""

    __slots__ = ("coroutine", "operation")

    def __init__(self, coroutine: Coroutine[str, None, None]) -> None:
        self.coroutine = coroutine
        self.operation = ""

    def step(self) -> tuple[str, str]:
        """Run to the next await; return the operation just done and the one to come."""
        done, self.operation = self.operation, self.coroutine.send(None)
        return done, self.operation


class _SmallChunkRecovery(Recovery):
    chunk_bytes = 200
    rewrite_bytes_max = 700


class _SmallChunkWal(Wal):
    """Reads back in so small chunks that records, proofs and tails cross their borders.

    And does not rewrite whole segments, so that they are continued in new ones.
    """

    recovery = _SmallChunkRecovery


class _Batch(NamedTuple):
    """`before`: per shard that changes, how many changes there were and what they made."""

    entries: list[LogEntry]
    before: dict[int, tuple[int, list[Fact]]]
    promises: dict[int, int]


class Machine:
    """One run: disks that outlive the processes on them, and a checker that outlives both."""

    def __init__(self, seed: int, mutant: Mutant = HONEST) -> None:
        self._rng = rng = random.Random(f"storage {seed}")
        self._mutant = mutant
        self._truth = Truth(SHARDS)
        self._branching = branching = random.Random(f"storage branches {seed}")
        self._branch_chance = branching.choice((0.0, 0.0, 0.1, 0.3))
        self._install_chance = branching.choice((0.02, 0.1)) if self._branch_chance else 0.0
        self._busy: dict[int, None] = {}
        """Shards of which a snapshot is being written."""
        self._log_image = DiskImage()
        self._snapshot_image = DiskImage()
        self._power_cut = rng.choice(list(PowerCut))
        self._crash_chance = rng.choice((0.1, 0.03, 0.01, 0.005))
        self._deadly = rng.choice(_DEADLY_MOMENTS)
        self._at_deadly_moment = False
        self._shaken = False
        self._kill_chance = rng.choice((0.2, 0.5))
        self._failing_sync_chance = rng.choice((0.0, 0.0, 0.01, 0.03))
        self._disk_full_chance = rng.choice((0.0, 0.0, 0.05, 0.4))
        self._bit_rot_chance = rng.choice((0.0, 0.0, 0.0, 0.3))
        self._unsynced_chance = rng.choice((0.0, 0.0, 0.4, 0.9))
        self._segment_bytes = rng.choice((300, 2_000, 20_000))
        self._shards_used = rng.choice((1, 2, SHARDS))
        self._padding = rng.randbytes(4096)
        self._bodies = 0
        self._wal_class = mutant.wal
        if mutant.wal is Wal and rng.random() < 0.5:
            self._wal_class = _SmallChunkWal
        self._wal: Wal | None = None
        self._log_disk: Disk = SimDisk(self._log_image, _pause)
        self._snapshot_disk: Disk = SimDisk(self._snapshot_image, _pause)
        self._snapshotted: dict[int, LogPosition] = {}
        self._proven_lsn = 0
        """What a later record or header, itself durable, proves to have been durable."""
        self._must_refuse = False
        # A killed process runs no cleanup: its tasks are kept until the run is over.
        self._dead: list[_Task] = []
        self._story: deque[str] = deque(maxlen=60)
        self.report = RunReport(seed)

    def run(self) -> RunReport:
        try:
            for _ in range(LIVES_PER_RUN):
                if not self._live():
                    break
        except ViolationError as violation:
            self.report.violation = str(violation)
        finally:
            for task in self._dead:
                task.coroutine.close()
        self.report.story = list(self._story)
        return self.report

    # --- life and death --------------------------------------------------------------------

    def _live(self) -> bool:
        """Run one process until it dies. Return whether the machine goes on."""
        rng = self._rng
        self._log_disk = self._mutant.disk(SimDisk(self._log_image, _pause))
        self._snapshot_disk = self._mutant.disk(SimDisk(self._snapshot_image, _pause))
        self._wal = None
        self._busy.clear()
        self._at_deadly_moment = False
        tasks = [_Task(self._boot())]
        self._dead += tasks
        chance = self._crash_chance
        while rng.random() >= chance:
            self._maybe_fail_a_sync()
            task = tasks[rng.randrange(len(tasks))]
            try:
                chance = self._chance_to_die(task.step())
            except StopIteration:
                tasks = [_Task(self._write()), _Task(self._snapshot())]
                self._dead += tasks
            except CorruptionError as error:
                self._tell("corruption reported", error)
                if not (self._must_refuse or self._truth.bit_rotted_anywhere):
                    raise ViolationError(f"false report of corruption: {error}") from error
                return False
            except DiskFullError:
                self._tell("disk full at recovery")
                self._give_space()
                break
            except StorageFailedError as error:
                self._tell("storage failed", error)
                break
        self._die()
        return True

    def _chance_to_die(self, moment: tuple[str, str]) -> float:
        self._at_deadly_moment = moment == self._deadly
        if self._wal is None:
            # Small, or no life would get beyond its recovery.
            return 0.1 if self._at_deadly_moment else self._crash_chance
        # A second accident soon after the first shows what the first recovery took for granted.
        usual = 0.3 if self._shaken else self._crash_chance
        return 0.5 if self._at_deadly_moment else usual

    def _die(self) -> None:
        rng, truth = self._rng, self._truth
        self._log_image.fail_syncs = self._snapshot_image.fail_syncs = 0
        kill_chance = 0.1 if self._shaken else self._kill_chance
        self._shaken = False
        if rng.random() < kill_chance:
            self._tell("kill")
            self._shaken = self._at_deadly_moment
            if rng.random() < 0.3:
                self._tell("eviction of clean pages")
                self._log_image.evict_clean_pages()
                self._snapshot_image.evict_clean_pages()
                truth.only_killed = False
            return
        self._tell("power cut", self._power_cut.value)
        self._log_image.cut_power(rng, self._power_cut)
        self._snapshot_image.cut_power(rng, self._power_cut)
        truth.only_killed = False
        # Only now: what is not durable may vanish, and the damage with it.
        rotten = self._must_refuse or truth.bit_rotted_anywhere
        if not rotten and rng.random() < self._bit_rot_chance:
            self._rot_a_bit()

    def _maybe_fail_a_sync(self) -> None:
        if self._rng.random() < self._failing_sync_chance:
            image = self._rng.choice((self._log_image, self._snapshot_image))
            image.fail_syncs = 1

    def _give_space(self) -> None:
        self._log_image.capacity_bytes = UNLIMITED
        self._snapshot_image.capacity_bytes = UNLIMITED

    def _rot_a_bit(self) -> None:
        """Flip a bit that recovery has to notice, or (last) one that it may mistake for a tear."""
        rng = self._rng
        what = rng.choice(("log", "log", "snapshot", "anything"))
        if what == "snapshot":
            newest = {name.split("-")[1]: name for name in self._snapshots()}
            if newest:
                self._flip(self._snapshot_image, rng.choice(sorted(newest.values())), 0, None)
                self._must_refuse = True
            return
        try:
            files = find_segments(self._log_disk)
        except CorruptionError:
            # Only with a planted bug; the next recovery will say it.
            return
        if not files:
            return
        file = rng.choice(files)
        base_lsn = file.header.base_lsn
        if what == "anything":
            self._truth.bit_rotted_anywhere = True
            self._flip(self._log_image, file.name, 0, None)
            return
        proven_lsn = self._proven_lsn if file.end_lsn is None else file.end_lsn
        self._must_refuse = True
        self._flip(
            self._log_image, file.name, 0, max(0, proven_lsn - base_lsn) + SEGMENT_HEADER_BYTES
        )

    def _flip(self, image: DiskImage, name: str, start: int, stop: int | None) -> None:
        end = image.size(name) if stop is None else min(stop, image.size(name))
        offset, bit = start + self._rng.randrange(end - start), self._rng.randrange(8)
        self._tell("bit rot", f"bit {bit} of {name} at {offset}")
        image.flip_bit(name, offset, bit)

    def _snapshots(self) -> list[str]:
        return [name for name in self._snapshot_image.names() if name.endswith(".snap")]

    def _tell(self, event: str, detail: object = "") -> None:
        self.report.counts[event] += 1
        self._story.append(f"{event} {detail}")

    # --- the process -----------------------------------------------------------------------

    async def _boot(self) -> None:
        found: dict[int, list[Fact]] = {shard: [] for shard in range(SHARDS)}
        promises = dict.fromkeys(range(SHARDS), 0)
        snapshotted: dict[int, LogPosition] = {}
        for snapshot in await self._mutant.load_snapshots(self._snapshot_disk, IDENTITY):
            found[snapshot.shard] = facts_of(snapshot)
            snapshotted[snapshot.shard] = snapshot.position
            promises[snapshot.shard] = snapshot.position.epoch
        replays = [
            self._mutant.replay(shard, snapshotted.get(shard, ORIGIN)) for shard in range(SHARDS)
        ]

        def on_record(record: WalRecord) -> None:
            if record.kind == EPOCH:
                promises[record.shard] = max(promises[record.shard], record.epoch)
            replays[record.shard].on_record(record)

        wal = await self._wal_class.recover(
            self._log_disk,
            identity=IDENTITY,
            on_record=on_record,
            on_progress=_on_progress,
            segment_bytes=self._segment_bytes,
        )
        for replay in replays:
            found[replay.shard] += [
                Fact(record.epoch, record.revision, zlib.crc32(record.body))
                for record in replay.entries()
            ]
        self._tell("recovery", f"{wal!r} {[len(facts) for facts in found.values()]}")
        if self._must_refuse:
            raise ViolationError("damage to what was proven durable was not reported")
        self._truth.check_and_adopt(found, promises, snapshotted)
        cuts = [cut for replay in replays if (cut := replay.missing_cut()) is not None]
        if cuts:
            self._tell("missing cut")
            await wal.append(cuts)
        self._truth.only_killed = True
        self._truth.bit_rotted_anywhere = False
        self._wal = wal
        self._snapshotted = snapshotted
        self._proven_lsn = wal.last_synced_lsn

    async def _write(self) -> None:
        wal, rng = self._wal, self._rng
        assert wal is not None, "the writer starts after recovery"
        while True:
            if rng.random() < self._disk_full_chance:
                used = self._log_image.used_bytes
                self._log_image.capacity_bytes = used + rng.randrange(3000)
                used = self._snapshot_image.used_bytes
                self._snapshot_image.capacity_bytes = used + rng.randrange(3000)
            elif rng.random() < 0.5:
                self._give_space()
            if self._branching.random() < self._install_chance:
                await self._install(wal)
            draw = rng.random()
            if draw < 0.1:
                await self._mark(wal)
            elif draw < 0.2:
                await self._sync(wal)
            else:
                await self._append(
                    wal, self._next_batch(), sync=rng.random() >= self._unsynced_chance
                )

    async def _append(self, wal: Wal, batch: _Batch, *, sync: bool) -> None:
        shards = self._truth.shards
        claimed_lsn = wal.last_synced_lsn
        self._tell("append", f"{len(batch.entries)} at {wal.end_lsn} sync={sync}")
        try:
            await wal.append(batch.entries, sync=sync)
        except DiskFullError:
            self._tell("batch refused")
            for shard, before in batch.before.items():
                shards[shard].take_back(*before)
            return
        for shard in batch.before:
            shards[shard].note_returned()
        if sync:
            self._note_durable()
            for shard, epoch in batch.promises.items():
                shards[shard].promised = epoch
            self._proven_lsn = max(self._proven_lsn, claimed_lsn)

    async def _sync(self, wal: Wal) -> None:
        await wal.sync()
        self._note_durable()

    async def _mark(self, wal: Wal) -> None:
        try:
            await wal.mark()
        except DiskFullError:
            self._tell("mark refused")

    def _note_durable(self) -> None:
        for truth in self._truth.shards.values():
            truth.note_durable()

    def _next_batch(self) -> _Batch:
        rng = self._rng
        entries: list[LogEntry] = []
        before: dict[int, tuple[int, list[Fact]]] = {}
        promises: dict[int, int] = {}
        for _ in range(rng.choice((1, 1, 2, 8))):
            shard = rng.randrange(self._shards_used)
            truth = self._truth.shards[shard]
            if rng.random() < 0.1:
                epoch = truth.epoch + 1 if not self._branch_chance else self._new_epoch(truth)
                truth.epoch = truth.epoch_max = promises[shard] = epoch
                entries.append(epoch_promise(shard, epoch, len(truth.facts)))
                continue
            if shard not in before:
                before[shard] = len(truth.changes), truth.facts.copy()
            if self._branching.random() < self._branch_chance:
                entries += self._branch(shard, truth)
            else:
                entries.append(self._entry(shard, truth, len(truth.facts), truth.epoch))
        return _Batch(entries, before, promises)

    def _new_epoch(self, truth: ShardTruth) -> int:
        return truth.begin_epoch(self._branching)

    def _entry(self, shard: int, truth: ShardTruth, keep: int, epoch: int) -> LogEntry:
        body = self._next_body()
        truth.change(keep, Fact(epoch, keep + 1, zlib.crc32(body)))
        return LogEntry(shard, epoch, keep + 1, body)

    def _branch(self, shard: int, truth: ShardTruth) -> list[LogEntry]:
        """Leave the log for another branch: by a cut, by an entry that replaces one, or both."""
        rng = self._branching
        keep = rng.randint(truth.committed, len(truth.facts))
        how = rng.choice(("cut", "replacement", "both"))
        self._tell(how, f"shard {shard} after {keep}")
        records: list[LogEntry] = []
        if how != "replacement":
            records.append(cut_record(shard, truth.epoch_of(keep), keep))
            truth.change(keep)
        if how == "cut":
            truth.begin_epoch(rng)
        else:
            records.append(self._entry(shard, truth, keep, truth.branch_epoch(keep, rng)))
        return records

    async def _install(self, wal: Wal) -> None:
        """Put a snapshot from elsewhere in the place of a shard's log: the snapshot, then the cut.

        Between the two nothing else of the shard is written and no segment goes for its sake.
        """
        rng = self._branching
        shard = rng.randrange(self._shards_used)
        if shard in self._busy:
            return
        truth = self._truth.shards[shard]
        before = len(truth.changes), truth.facts.copy()
        keep, epoch = truth.committed, truth.branch_epoch(truth.committed, rng)
        count = rng.choice((1, 2, 30))
        truth.change(
            keep, *(Fact(epoch, keep + 1 + number, rng.getrandbits(32)) for number in range(count))
        )
        position = LogPosition(epoch, keep + count)
        self._tell("install", f"shard {shard} at {position!r}")
        self._busy[shard] = None
        try:
            await write_snapshot(
                self._snapshot_disk, IDENTITY, shard, position, chunks_of(truth.facts)
            )
        except DiskFullError:
            self._tell("install refused")
            truth.take_back(*before)
            del self._busy[shard]
            return
        truth.note_returned()
        truth.note_durable()
        truth.committed = position.revision
        while True:
            try:
                await wal.append([cut_record(shard, *position)])
            except DiskFullError:
                self._give_space()
                continue
            break
        self._note_durable()
        self._snapshotted[shard] = position
        del self._busy[shard]

    def _next_body(self) -> bytes:
        """Return a body that no other has; now and then one that contains records."""
        rng = self._rng
        self._bodies += 1
        length = rng.choice((0, 1, 10, 90, 600, 2500))
        names = self._log_image.names()
        if names and rng.random() < 0.05:
            source = self._log_image.read(rng.choice(names))
        else:
            source = self._padding
        start = rng.randrange(max(1, len(source) - length))
        return self._bodies.to_bytes(4, "big") + source[start : start + length]

    async def _snapshot(self) -> None:
        wal, rng = self._wal, self._rng
        assert wal is not None, "snapshots are taken after recovery"
        while True:
            for _ in range(rng.choice((1, 5, 20))):
                await _pause("idle")
            shard = rng.randrange(self._shards_used)
            truth = self._truth.shards[shard]
            facts = truth.facts[: truth.settled()]
            if facts and shard not in self._busy:
                position = LogPosition(facts[-1].epoch, facts[-1].revision)
                self._tell("snapshot", f"shard {shard} at {position!r}")
                truth.committed = position.revision
                self._busy[shard] = None
                try:
                    await write_snapshot(
                        self._snapshot_disk, IDENTITY, shard, position, chunks_of(facts)
                    )
                except DiskFullError:
                    self._tell("snapshot refused")
                    continue
                finally:
                    self._busy.pop(shard, None)
                self._snapshotted[shard] = position
            if rng.random() < 0.3:
                continue
            if freed_bytes := await wal.release(self._snapshotted):
                self._tell("release", f"{freed_bytes} bytes")


async def _on_progress(progress: RecoveryProgress) -> None:
    await _pause(progress.segment)


def fuzz(
    runs: int,
    *,
    first_seed: int = 0,
    mutant: Mutant = HONEST,
    on_report: Callable[[RunReport], None] | None = None,
) -> RunReport | None:
    """Run seeds until one violates an invariant. Return its report, None if none does."""
    for seed in range(first_seed, first_seed + runs):
        report = Machine(seed, mutant).run()
        if on_report is not None:
            on_report(report)
        if report.violation is not None:
            return report
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ssgovern.sim.storage_fuzz")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this bug")
    options = parser.parse_args(arguments)
    mutant = MUTANTS[options.mutant] if options.mutant else HONEST
    total: Counter[str] = Counter()

    def add(report: RunReport) -> None:
        total.update(report.counts)
        total["run"] += 1

    failed = fuzz(options.runs, first_seed=options.seed, mutant=mutant, on_report=add)
    for event, count in sorted(total.items()):
        print(f"{count:9,} x {event}")
    if failed is None:
        return 0
    print("\n".join(failed.story))
    print(f"violation: {failed.violation}")
    again = f" --mutant {options.mutant}" if options.mutant else ""
    print(f"again: python -m ssgovern.sim.storage_fuzz --runs 1 --seed {failed.seed}{again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
