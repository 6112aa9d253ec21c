"""What a candidate promised is on its disk: after every crash, and never taken for nothing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

import pytest

from ssgovern.errors import ConfigError, CorruptionError, DiskFullError, StorageFailedError
from ssgovern.model import NodeId
from ssgovern.node.raft_storage import RaftStorage, Recovered
from ssgovern.raft import Config, Entry, HardState, RaftLog, Ready, Snapshot
from ssgovern.sim.candidates_mutants import MUTANTS
from ssgovern.sim.disk import UNLIMITED, DiskImage, PowerCut, SimDisk

T = TypeVar("T")
IDENTITY = b"0123456789abcdef"
FIRST = Snapshot(config=Config((NodeId(1), NodeId(2), NodeId(3))))


class CrashError(Exception):
    """The process is gone."""


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Return what a coroutine returns that waits for nothing but disks without latency."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("the coroutine waits for something")


async def at_once(operation: str) -> None:
    """No latency."""


class Directories:
    """The two directories of a candidate, through all its lives."""

    def __init__(self, storage: type[RaftStorage] = RaftStorage, *, segment_bytes: int = 300):
        self.log = DiskImage()
        self.snapshots = DiskImage()
        self._storage = storage
        self._segment_bytes = segment_bytes

    def open(
        self,
        latency: Callable[[str], Awaitable[None]] = at_once,
        *,
        first: Snapshot | None = FIRST,
        identity: bytes = IDENTITY,
    ) -> tuple[RaftStorage, Recovered]:
        return run(
            self._storage.open(
                SimDisk(self.log, latency),
                SimDisk(self.snapshots, latency),
                identity,
                first=first,
                segment_bytes=self._segment_bytes,
            )
        )

    def cut_power(self, rng: random.Random, mode: PowerCut) -> None:
        self.log.cut_power(rng, mode)
        self.snapshots.cut_power(rng, mode)


def batch(
    *entries: Entry, hard: HardState | None = None, snapshot: Snapshot | None = None
) -> Ready:
    return Ready(snapshot, hard, entries, (), (0, 0), (), (), ())


def entry(index: int, term: int, payload: bytes | Config | None = b"x") -> Entry:
    return Entry(index, term, payload)


def test_all_kinds_of_entries_come_back() -> None:
    """Commands, members, and the nothing that a term begins with; also an empty-looking one."""
    members = Config((NodeId(1), NodeId(2)), (NodeId(1),), (NodeId(9),))
    entries = (entry(1, 1, None), entry(2, 1, b"\x00"), entry(3, 2, members), entry(4, 2))
    directories = Directories()
    storage, recovered = directories.open()
    assert recovered == Recovered(HardState(), FIRST, [])
    run(storage.write(batch(*entries, hard=HardState(2, NodeId(3)))))
    directories.cut_power(random.Random(0), PowerCut.ALL_LOST)
    _, recovered = directories.open(first=None)
    assert recovered == Recovered(HardState(2, NodeId(3)), FIRST, list(entries))


def test_an_entry_at_an_index_that_is_there_replaces_it_and_all_that_follows() -> None:
    """Also one of a lower term than what it replaces: positions are no order here."""
    directories = Directories()
    storage, _ = directories.open()
    run(storage.write(batch(entry(1, 1), entry(2, 3), entry(3, 3), hard=HardState(3))))
    run(storage.write(batch(entry(2, 2, b"y"), hard=HardState(4))))
    _, recovered = directories.open()
    assert recovered.entries == [entry(1, 1), entry(2, 2, b"y")]


def test_an_installed_snapshot_takes_the_place_of_the_log() -> None:
    """Entries of before are gone, and the log goes on behind the snapshot."""
    installed = Snapshot(50, 4, Config((NodeId(7),)), bytes(1000))
    directories = Directories()
    storage, _ = directories.open()
    run(storage.write(batch(entry(1, 1), entry(2, 1), hard=HardState(1))))
    run(storage.write(batch(entry(51, 4), hard=HardState(4), snapshot=installed)))
    run(storage.write(batch(entry(52, 4))))
    _, recovered = directories.open()
    assert recovered == Recovered(HardState(4), installed, [entry(51, 4), entry(52, 4)])


def test_a_crash_between_an_installed_snapshot_and_its_record_is_healed() -> None:
    """The stale log is dropped at recovery, and what follows the snapshot is no gap later."""
    installed = Snapshot(50, 4, FIRST.config, b"state")
    directories = Directories()
    storage, _ = directories.open()
    run(storage.write(batch(entry(1, 1), entry(2, 1), hard=HardState(4))))
    run(storage._write_snapshot(installed))
    storage, recovered = directories.open()
    assert recovered == Recovered(HardState(4), installed, [])
    run(storage.write(batch(entry(51, 4))))
    _, recovered = directories.open()
    assert recovered.entries == [entry(51, 4)]


def compacted(directories: Directories) -> RaftStorage:
    """A vote, many segments of entries after it, and a snapshot that makes most superfluous."""
    storage, _ = directories.open()
    run(storage.write(batch(hard=HardState(3, NodeId(2)))))
    for index in range(1, 31):
        run(storage.write(batch(entry(index, 3, bytes(50)))))
    assert run(storage.compact(Snapshot(28, 3, FIRST.config, b"state"))) > 0
    return storage


def test_a_promise_outlives_the_segment_it_stood_in() -> None:
    """Releasing the log must not release the vote: the node would give it once more."""
    directories = Directories()
    compacted(directories)
    directories.cut_power(random.Random(0), PowerCut.ALL_LOST)
    _, recovered = directories.open(first=None)
    assert recovered.hard_state == HardState(3, NodeId(2))
    log = RaftLog(recovered.snapshot, recovered.entries)
    assert (log.snapshot.index, log.last_index) == (28, 30)


def test_a_promise_lost_at_release_is_noticed() -> None:
    """The planted bug that does not repeat it is found by the next start."""
    directories = Directories(MUTANTS["promise-lost-at-release"].storage)
    compacted(directories)
    with pytest.raises(CorruptionError, match="term 3 was seen"):
        directories.open()


def test_a_directory_that_must_hold_something_is_not_begun_anew() -> None:
    """Who voted before and finds nothing refuses, instead of voting again."""
    with pytest.raises(CorruptionError, match="there is no snapshot"):
        Directories().open(first=None)


def remove(image: DiskImage) -> None:
    for name in image.names():
        image.remove(name)


def test_a_log_without_its_snapshot_is_damage() -> None:
    """A lost snapshot is never an empty state."""
    directories = Directories()
    compacted(directories)
    remove(directories.snapshots)
    with pytest.raises(CorruptionError, match="there is no snapshot"):
        directories.open()


def test_a_snapshot_without_its_log_is_damage() -> None:
    """A lost log is never a node that has promised nothing."""
    directories = Directories()
    compacted(directories)
    remove(directories.log)
    with pytest.raises(CorruptionError, match="and no log"):
        directories.open()


def test_an_older_snapshot_than_the_log_leans_on_is_damage() -> None:
    """A snapshot restored from a backup does not continue a log that begins behind it."""
    directories = Directories()
    directories.open()
    older = {name: directories.snapshots.read(name) for name in directories.snapshots.names()}
    remove(directories.log)
    remove(directories.snapshots)
    compacted(directories)
    remove(directories.snapshots)
    for name, content in older.items():
        directories.snapshots.append(name, [content])
    with pytest.raises(CorruptionError, match="the snapshot at 28 is gone"):
        directories.open()


def test_damage_to_what_was_durable_is_refused_and_changes_nothing() -> None:
    """Every proven byte counts: a flipped bit anywhere in it ends the start."""
    directories = Directories(segment_bytes=1 << 20)
    storage, _ = directories.open()
    run(storage.write(batch(entry(1, 1), hard=HardState(1, NodeId(1)))))
    run(storage.mark())
    name = directories.log.names()[0]
    before = directories.log.read(name)
    for offset in range(len(before) - 50):
        directories.log.flip_bit(name, offset, 0)
        with pytest.raises((CorruptionError, ConfigError)):
            directories.open()
        directories.log.flip_bit(name, offset, 0)
        assert directories.log.read(name, 0, len(before)) == before
    directories.open()


def test_the_directory_of_another_candidate_is_refused() -> None:
    """Two candidates with one log would vote twice."""
    directories = Directories()
    directories.open()
    with pytest.raises(ConfigError):
        directories.open(identity=b"another identity")


def test_a_full_disk_refuses_a_batch_which_can_be_written_again() -> None:
    """Nothing of it is there before, all of it after there is space."""
    directories = Directories()
    storage, _ = directories.open()
    wanted = batch(entry(1, 1, bytes(100)), hard=HardState(1, NodeId(2)))
    directories.log.capacity_bytes = directories.log.used_bytes + 60
    for _ in range(2):
        with pytest.raises(DiskFullError):
            run(storage.write(wanted))
    _, recovered = directories.open()
    assert recovered == Recovered(HardState(), FIRST, [])
    directories.log.capacity_bytes = UNLIMITED
    storage, _ = directories.open()
    run(storage.write(wanted))
    _, recovered = directories.open()
    assert recovered == Recovered(HardState(1, NodeId(2)), FIRST, list(wanted.entries))


def test_no_space_for_a_snapshot_keeps_the_log() -> None:
    """A snapshot that did not fit has changed nothing."""
    directories = Directories()
    storage, _ = directories.open()
    run(storage.write(batch(entry(1, 1), entry(2, 1), hard=HardState(1))))
    directories.snapshots.capacity_bytes = directories.snapshots.used_bytes
    with pytest.raises(DiskFullError):
        run(storage.compact(Snapshot(2, 1, FIRST.config, bytes(5000))))
    _, recovered = directories.open()
    assert recovered == Recovered(HardState(1), FIRST, [entry(1, 1), entry(2, 1)])


def test_a_failed_sync_ends_it() -> None:
    """A second try would prove nothing."""
    directories = Directories()
    storage, _ = directories.open()
    directories.log.fail_syncs = 1
    for _ in range(2):
        with pytest.raises(StorageFailedError):
            run(storage.write(batch(entry(1, 1), hard=HardState(1))))


def test_bytes_on_disk() -> None:
    """The layout of records is one that later programs have to read."""
    directories = Directories(segment_bytes=1 << 20)
    storage, _ = directories.open()
    entries = (entry(1, 2, None), entry(2, 2, b"cmd"), entry(3, 2, FIRST.config))
    run(storage.write(batch(*entries, hard=HardState(2, NodeId(3)))))
    bodies = [
        bytes(8 + 7) + b"\x02" + bytes(7) + b"\x03" + bytes(8),
        b"\x00",
        b"\x01cmd",
        b"\x02\x0a\x03\x01\x02\x03",
    ]
    content = directories.log.read(directories.log.names()[0])
    bodies[0] = (2).to_bytes(8, "big") + (3).to_bytes(8, "big") + bytes(8)
    for body in bodies:
        assert body in content


# --- a crash at every operation ---------------------------------------------------------------


class Model:
    """What the disk has to hold: the acknowledged state, and those it may have come to."""

    def __init__(self) -> None:
        self.hard = HardState()
        self.snapshot = FIRST
        self.entries: list[Entry] = []
        self.allowed: list[Recovered] = [self.state()]

    def state(self) -> Recovered:
        log = RaftLog(self.snapshot, self.entries)
        kept = list(log.entries(self.snapshot.index + 1, log.last_index))
        return Recovered(self.hard, self.snapshot, kept)

    def begin(self, batch: Ready) -> None:
        """The batch is on its way: a prefix of it may be what a crash leaves."""
        self.allowed = [self.state()]
        if batch.hard_state is not None:
            self.hard = batch.hard_state
            self.allowed.append(self.state())
        if batch.snapshot is not None:
            self.snapshot, self.entries = batch.snapshot, []
            self.allowed.append(self.state())
        for each in batch.entries:
            self.entries = [one for one in self.entries if one.index < each.index] + [each]
            self.allowed.append(self.state())

    def begin_compaction(self, snapshot: Snapshot) -> None:
        self.allowed = [self.state()]
        self.snapshot = snapshot
        self.allowed.append(self.state())

    def done(self) -> None:
        self.allowed = [self.state()]


def live(storage: RaftStorage, model: Model, rng: random.Random, steps: int) -> None:
    """Write what a core could want: new terms, votes, conflicts, snapshots."""
    for _ in range(steps):
        log = RaftLog(model.snapshot, model.entries)
        low = log.snapshot.index
        kind = rng.random()
        if kind < 0.15 and log.last_index > low:
            index = rng.randint(low + 1, log.last_index)
            term = log.term_at(index)
            assert term is not None
            snapshot = Snapshot(index, term, FIRST.config, bytes(rng.choice((0, 900))))
            model.begin_compaction(snapshot)
            run(storage.compact(snapshot))
            model.done()
            continue
        conflicts = 0.22 <= kind < 0.4
        term = model.hard.term + (1 if conflicts else rng.choice((0, 0, 1)))
        vote = model.hard.vote if term == model.hard.term else None
        hard = HardState(term, vote or rng.choice((None, NodeId(2))))
        snapshot = None
        if kind < 0.22:
            index = log.last_index + rng.randint(-1, 3)
            if index > low and not log.matches(index, term):
                snapshot = Snapshot(index, term, FIRST.config, b"installed")
        first = snapshot.index + 1 if snapshot is not None else log.last_index + 1
        if conflicts:
            first = rng.randint(low + 1, first)
        entries = tuple(
            entry(first + count, term, rng.randbytes(rng.choice((0, 40))))
            for count in range(rng.randrange(4))
        )
        changed = None if hard == model.hard else hard
        wanted = batch(*entries, hard=changed, snapshot=snapshot)
        if not wanted.must_sync:
            continue
        model.begin(wanted)
        run(storage.write(wanted))
        model.done()


def crashing_at(operation: int) -> Callable[[str], Awaitable[None]]:
    """Return the latency of a disk that takes its process with it."""
    count = 0

    async def latency(_: str) -> None:
        nonlocal count
        count += 1
        if count == operation:
            raise CrashError

    return latency


def crash_at(operation: int, seed: int, mode: PowerCut | None) -> bool:
    """Live until the disk was asked `operation` times, crash, and look. False: it came through."""
    rng = random.Random(seed)
    directories = Directories(segment_bytes=rng.choice((150, 400)))
    model = Model()
    try:
        storage, _ = directories.open(crashing_at(operation))
        live(storage, model, rng, 25)
    except CrashError:
        crashed = True
    else:
        crashed = False
    if mode is not None:
        directories.cut_power(random.Random(operation), mode)
    for _ in range(2):
        # The second time: what the first recovery did is recovered as well.
        storage, recovered = directories.open()
        log = RaftLog(recovered.snapshot, recovered.entries)
        log.validate()
        kept = list(log.entries(recovered.snapshot.index + 1, log.last_index))
        assert recovered._replace(entries=kept) in model.allowed
        if mode is not None:
            directories.cut_power(random.Random(operation), mode)
    return crashed


@pytest.mark.parametrize("mode", [None, *PowerCut])
@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_operation_leaves_the_state_before_or_after(
    seed: int, mode: PowerCut | None
) -> None:
    """Whatever the disk was doing: promises and entries are those of before, or a prefix on."""
    operation = 1
    while crash_at(operation, seed, mode):
        operation += 1
    assert operation > 60, "too short a life"


def test_a_crash_within_recovery_leaves_it_to_the_next() -> None:
    """Recoveries that are cut off, one after the other, lose nothing."""
    for operation in range(1, 40):
        rng = random.Random(operation)
        directories = Directories()
        model = Model()
        storage, _ = directories.open()
        live(storage, model, rng, 20)
        for attempt in range(3):
            with contextlib.suppress(CrashError):
                directories.open(crashing_at(operation))
            directories.cut_power(random.Random(attempt), PowerCut.PREFIX)
        _, recovered = directories.open()
        log = RaftLog(recovered.snapshot, recovered.entries)
        kept = list(log.entries(recovered.snapshot.index + 1, log.last_index))
        assert recovered._replace(entries=kept) == model.state()
