"""The directories of a node that does not run, on a machine that may crash at any step."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from builders import epoch_started, registered

from ssgovern.model import SHARDS, NodeId, ShardId
from ssgovern.node import identity as identities
from ssgovern.node.identity import Identity
from ssgovern.node.recovery import Recovered, recover
from ssgovern.registry.snapshot import capture, digest_chunks, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.sim.disk import DiskImage, PowerCut, SimDisk
from ssgovern.storage.format import LogEntry
from ssgovern.storage.snapshot import write_snapshot
from ssgovern.storage.wal import Wal
from ssgovern.wire.codec import encode

T = TypeVar("T")
DATA = "/data"
SHARD = ShardId(7)
OTHER = ShardId(9)


class CrashError(Exception):
    """The machine is gone."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that waits for nothing but turns of a loop."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class StoppedMachine:
    """Disks by path; and the runtime of a command that works on them."""

    def __init__(self) -> None:
        self.images: dict[str, DiskImage] = {}
        self.steps = 0
        self.crash_at = -1
        self._bytes = random.Random(7)

    async def _step(self, operation: str) -> None:
        self.steps += 1
        if self.steps == self.crash_at:
            raise CrashError(operation)

    # --- what is used of a Runtime ---------------------------------------------------------

    def open_disk(self, path: str) -> SimDisk:
        return SimDisk(self.image(path), self._step)

    def wall_ms(self) -> int:
        return 1_700_000_000_000

    def random_bytes(self, count: int) -> bytes:
        return self._bytes.randbytes(count)

    # --- for tests -------------------------------------------------------------------------

    def image(self, path: str) -> DiskImage:
        return self.images.setdefault(path, DiskImage())

    def cut_power(self, rng: random.Random, mode: PowerCut) -> None:
        for image in self.images.values():
            image.cut_power(rng, mode)

    def content(self) -> dict[str, dict[str, bytes]]:
        """Return all bytes of all directories, without zeros that were only reserved."""
        return {
            path: {name: image.read(name).rstrip(b"\0") for name in image.names()}
            for path, image in self.images.items()
        }


def crash_everywhere(
    prepared: Callable[[], StoppedMachine],
    work: Callable[[StoppedMachine], Coroutine[Any, Any, Any]],
    check: Callable[[StoppedMachine], None],
) -> int:
    """Crash `work` at each of its steps, the power is cut, and check what is left.

    Returns how many steps there are.
    """
    whole = prepared()
    before = whole.steps
    run(work(whole))
    steps = whole.steps - before
    check(whole)
    modes = list(PowerCut)
    for step in range(1, steps + 1):
        machine = prepared()
        machine.crash_at = machine.steps + step
        with contextlib.suppress(CrashError):
            run(work(machine))
        machine.crash_at = -1
        machine.cut_power(random.Random(step), modes[step % len(modes)])
        check(machine)
    return steps


def entries(shard: ShardId, names: list[str], *, epoch: int = 1, first: int = 2) -> list[LogEntry]:
    """Return entries that register instances of session "s", one each."""
    return [
        LogEntry(shard, epoch, first + number, encode(registered("s", name)))
        for number, name in enumerate(names)
    ]


def start_of(shard: ShardId, epoch: int = 1, revision: int = 1) -> LogEntry:
    """Return the first entry of an epoch."""
    return LogEntry(shard, epoch, revision, encode(epoch_started(1)))


async def make_node(
    machine: StoppedMachine,
    records: list[LogEntry],
    *,
    snapshots: list[ShardState] | None = None,
    clustered: bool = False,
    segment_bytes: int = 1 << 20,
    path: str = DATA,
    cluster_id: bytes = b"c" * 16,
    node_id: int = 1,
) -> Identity:
    """Make the directory of a node that wrote these records and snapshots."""
    root = machine.open_disk(path)
    uuid = bytes([node_id]) * 16
    identity = Identity(cluster_id, NodeId(node_id), uuid, clustered=clustered)
    await identities.create(root, identity)
    for state in snapshots or []:
        disk = machine.open_disk(f"{path}/snapshots")
        chunks = encode_chunks(capture(state))
        await write_snapshot(disk, identity.node_uuid, state.shard, state.position, chunks)
    wal = await Wal.recover(
        machine.open_disk(f"{path}/wal"),
        identity=identity.node_uuid,
        on_record=lambda record: None,
        segment_bytes=segment_bytes,
    )
    for record in records:
        # One by one: each proves that those before it were durable.
        await wal.append([record])
    await wal.mark()
    await wal.sync()
    return identity


async def recovered(machine: StoppedMachine, path: str = DATA) -> Recovered:
    """Return what a single node finds in the directory when it starts."""
    identity = identities.read(machine.open_disk(path))
    return await recover(
        machine.open_disk(f"{path}/wal"),
        machine.open_disk(f"{path}/snapshots"),
        identity.node_uuid,
        1 << 20,
        lambda progress: None,
    )


def instances_of(state: ShardState) -> list[str]:
    return [name for service in state.services.values() for name in service.instances]


def digests(states: list[ShardState]) -> dict[int, list[bytes]]:
    """Return what each shard holds, whatever its history."""
    return {
        state.shard: digest_chunks(without_history(state)) for state in states if state.instances
    }


def without_history(state: ShardState) -> ShardState:
    state.epoch_starts.clear()
    return state


assert SHARD < OTHER < SHARDS
