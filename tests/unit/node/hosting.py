"""All shards of one node over a log in memory, with peers and a controller that tests speak for.

Cores, drivers and metadata are the real ones; links and controller keep what they are told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from builders import epoch_started, registered
from nodes import run_world

from ssgovern.controller.codec import encode_entry
from ssgovern.controller.rows import ShardRow
from ssgovern.controller.state import (
    Change,
    Founded,
    Node,
    NodeRegistered,
    Record,
    RowsChanged,
    Settings,
)
from ssgovern.errors import DiskFullError, SsGovernError
from ssgovern.model import ORIGIN, LogPosition, NodeId, Outcome, ShardId
from ssgovern.node.hosted import HostedShard
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.node.replicated_log_driver import ReplicatedLogDriver
from ssgovern.node.shard_host import ShardHost
from ssgovern.node.shard_placement import ShardPlacement
from ssgovern.registry.snapshot import capture, encode_chunks
from ssgovern.registry.state import ShardState
from ssgovern.replication.codec import (
    SnapshotAssembler,
    decode_batch,
    encode_batch,
    encode_snapshot_pieces,
)
from ssgovern.replication.messages import Appended, AppendEntries, Entry, InstallSnapshot, Message
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replicated import ReplicationSettings
from ssgovern.replication.shard_log import ShardLog
from ssgovern.storage.format import LogEntry
from ssgovern.storage.wal import Wal
from ssgovern.wire.frames import MessageType
from ssgovern.wire.records import encode_record

ME = NodeId(1)
PEER = NodeId(2)
THIRD = NodeId(3)
SHARDS = 4
SHARD = ShardId(0)
OTHER = ShardId(1)
LEASE_MS = 3_000.0

M = TypeVar("M", bound=Message)


class FakeWal:
    """A log in memory that takes a while, and is full when told to be."""

    def __init__(self) -> None:
        self.written: list[LogEntry] = []
        self.full = False
        self.takes_s = 0.001
        self.refused = 0
        self.size_bytes = 0
        self.segments = (None,)

    async def append(self, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
        await asyncio.sleep(self.takes_s)
        if self.full:
            self.refused += 1
            raise DiskFullError("full")
        self.written += entries

    async def mark(self) -> None:
        """Nothing to prove."""

    def of(self, shard: ShardId) -> list[tuple[int, int, int]]:
        """Kind, epoch and revision of a shard's records."""
        return [(e.kind, e.epoch, e.revision) for e in self.written if e.shard == shard]


class FakeLinks:
    """Keeps what was sent; rows of messages go when the gate is open."""

    def __init__(self) -> None:
        self.sent: list[tuple[NodeId, int, bytes]] = []
        self.paced: list[tuple[NodeId, list[bytes]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.open = True

    def send(self, node: NodeId, type_: int, body: bytes) -> bool:
        if self.open:
            self.sent.append((node, type_, body))
        return self.open

    async def send_paced(self, node: NodeId, type_: int, bodies: Iterable[bytes]) -> bool:
        await self.gate.wait()
        self.paced.append((node, list(bodies)))
        return True


class FakeRegistry:
    """What the use cases are told of shards, in order."""

    def __init__(self, states: list[ShardState]) -> None:
        self._states = states
        self.story: list[str] = []

    def adopt_shard(self, shard: ShardId, state: ShardState) -> None:
        self._states[shard] = state
        self.story.append(f"adopt {shard} at {state.position.revision}")

    def resume_shard(self, shard: ShardId) -> None:
        self.story.append(f"resume {shard}")

    def drop_shard(self, shard: ShardId) -> None:
        self._states[shard] = ShardState(shard)
        self.story.append(f"drop {shard}")


class Asked:
    """A waiter that was answered at most once."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        assert self.outcome is None, f"{proposal!r} was answered twice"
        self.outcome = outcome

    @property
    def error(self) -> SsGovernError | None:
        assert self.outcome is not None, "nobody answered"
        return self.outcome.error


class Hosting:
    """A node's shards. `run` with the body of a test."""

    def __init__(self, logs: Sequence[ShardLog] | None, promises: dict[int, int]) -> None:
        self.metadata = Metadata(SHARDS)
        self.states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
        self.logs = list(logs or [ShardLog(ShardId(n), ORIGIN) for n in range(SHARDS)])
        self.wal = FakeWal()
        self.links = FakeLinks()
        self.registry = FakeRegistry(self.states)
        self.kept: list[tuple[ShardId, LogPosition]] = []
        self.snapshots_full = False
        self.asked: list[tuple[int, bytes]] = []
        self.answer: Callable[[int, bytes], Coroutine[Any, Any, bytes]] = self._granted
        self.began: list[ShardId] = []
        self.ended: list[ShardId] = []
        self.applied: list[ShardId] = []
        self._assembler = SnapshotAssembler(ME)
        self.host = ShardHost(
            ME,
            self.metadata,
            self.states,
            self.logs,
            promises,
            links=self.links,
            ask_controller=self._ask,
            settings=lambda: ReplicationSettings(
                min_in_sync=self.metadata.state.settings.min_in_sync
            ),
            owner=self,
            wall_ms=lambda: 1000,
        )
        self.driver = ReplicatedLogDriver(
            cast("Wal", self.wal),
            self.host.primaries,
            ME,
            on_committed=self.host.on_committed,
            on_batch=self.host.on_batch,
            on_done=self.host.flush,
            on_deposed=self.host.on_deposed,
            failpoint=lambda _name: None,
        )
        self.placement = ShardPlacement(ME, self.metadata, self.host)
        self.host.start(self.driver, self.registry, self._keep)
        self.metadata.listeners.append(self._on_metadata)

    def __getitem__(self, shard: ShardId) -> HostedShard:
        return self.host.hosted[shard]

    # --- seams -----------------------------------------------------------------------------

    async def _ask(self, type_: int, body: bytes, deadline: float) -> bytes:
        self.asked.append((type_, body))
        return await self.answer(type_, body)

    async def _granted(self, type_: int, body: bytes) -> bytes:
        return b""

    async def _keep(self, shard: ShardId, position: LogPosition, chunks: Sequence[bytes]) -> None:
        await asyncio.sleep(0.001)
        if self.snapshots_full:
            raise DiskFullError("full")
        self.kept.append((shard, position))

    def _on_metadata(self, change: MetadataChange) -> None:
        self.host.on_rows_changed(change.shards)

    def on_applied(self, shards: Iterable[ShardId]) -> None:
        self.applied += shards

    def on_serving(self, began: Sequence[ShardId], ended: Sequence[ShardId]) -> None:
        self.began += began
        self.ended += ended

    def on_done(self) -> None:
        """Nobody's answers wait here."""

    # --- what the controller does ----------------------------------------------------------

    def agree(self, change: Change | None = None, **rows: ShardRow) -> None:
        """Append a record to the metadata; `s3=row(...)` is a row of shard 3."""
        changed = tuple((ShardId(int(name[1:])), new) for name, new in rows.items())
        body = encode_entry([Record("why", change or RowsChanged(), changed)])
        assert self.metadata.apply(self.metadata.index + 1, body)

    def found(self, nodes: int = 3, *, min_in_sync: int = 1) -> None:
        """Found a cluster of nodes with session 1 each, this one with a lease."""
        self.agree(Founded(b"a cluster's id..", Settings(min_in_sync=min_in_sync)))
        for number in range(1, nodes + 1):
            self.agree(NodeRegistered(member(number)))
        self.host.on_session(1)
        self.lease()

    def lease(self) -> None:
        self.host.on_lease(asyncio.get_running_loop().time() * 1000.0 + LEASE_MS)

    # --- what peers do ---------------------------------------------------------------------

    def tell(self, *messages: Message) -> None:
        """Let a peer send messages, as one read of a socket."""
        source = cast("NodeId", getattr(messages[0], "source"))  # noqa: B009
        self.host.on_replication(source, encode_batch(1, messages))
        self.host.flush()

    def append(
        self, epoch: int, prev: LogPosition, *names: str, committed: int = 0, source: NodeId = PEER
    ) -> None:
        """Let a primary append registrations behind `prev`; "" is the start of its epoch."""
        entries = [
            Entry(epoch, prev.revision + number, body_of(name))
            for number, name in enumerate(names, 1)
        ]
        self.tell(AppendEntries(SHARD, source, epoch, prev, entries, committed))

    def snapshot(self, epoch: int, state: ShardState, source: NodeId = PEER) -> None:
        """Let a primary send the whole shard."""
        captured = capture(state)
        for piece in encode_snapshot_pieces(
            state.shard, epoch, captured.position, None, encode_chunks(captured), transfer=1
        ):
            self.host.on_snapshot_piece(source, piece)
        self.host.flush()

    def held(self, revision: int, *, epoch: int = 1, shard: ShardId = SHARD) -> None:
        """Let the peer say up to where it holds a shard's log."""
        self.tell(Appended(shard, PEER, 1, epoch, revision))

    def said(self, kind: type[M], target: NodeId = PEER) -> list[M]:
        """Return the messages of a kind that a node was sent, and forget all that it was sent."""
        found: list[M] = []
        for node, type_, body in self.links.sent:
            if node == target and type_ == MessageType.REPLICATION:
                found += [m for m in decode_batch(ME, body) if isinstance(m, kind)]
        self.links.sent = [sent for sent in self.links.sent if sent[0] != target]
        return found

    def propose(self, name: str, shard: ShardId = SHARD) -> Asked:
        asked = Asked()
        self.placement.check_write(shard)
        self.driver.propose(shard, registered("s", name), asked)
        return asked

    def received(self) -> list[InstallSnapshot]:
        """Put the snapshots together that were sent."""
        pieces = [piece for _, row in self.links.paced for piece in row]
        return [found for piece in pieces if (found := self._assembler.add(piece)) is not None]


def member(number: int, session: int = 1) -> Node:
    return Node(
        NodeId(number),
        f"n{number}",
        f"10.0.0.{number}:7420",
        "",
        b"directory",
        b"boot",
        session,
    )


def row(
    *holders: int,
    primary: int = 1,
    epoch: int = 1,
    version: int = 1,
    in_sync: Sequence[int] | None = None,
    successor: int = 0,
) -> ShardRow:
    """Return a row: all who hold the shard are in sync unless it is said who is."""
    ids = tuple(NodeId(number) for number in holders)
    synced = ids if in_sync is None else tuple(NodeId(number) for number in in_sync)
    return ShardRow(epoch, version, NodeId(primary), ids, synced, successor=NodeId(successor))


def body_of(name: str) -> bytes:
    """Return the body of a registration, of the start of an epoch if there is no name."""
    return encode_record(registered("s", name) if name else epoch_started(2))


def state_with(revision: int, *, epoch: int = 1, shard: ShardId = SHARD) -> ShardState:
    """Return a state with as many entries: the start of an epoch, then registrations."""
    state = ShardState(shard)
    state.apply(epoch, 1, epoch_started(2))
    for number in range(2, revision + 1):
        state.apply(epoch, number, registered("s", f"i{number}"))
    return state


async def settle() -> None:
    """Let all that needs no other node be done."""
    await asyncio.sleep(0.05)


@asynccontextmanager
async def hosting(
    logs: Sequence[ShardLog] | None = None, promises: dict[int, int] | None = None
) -> AsyncIterator[Hosting]:
    """Run the host and its log; what ends one of them fails the test."""
    node = Hosting(logs, promises or {})
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(node.driver.run()), loop.create_task(node.host.run())]
    await asyncio.sleep(0)
    try:
        yield node
        for task in tasks:
            if task.done():
                task.result()
        node.host.validate()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def simulate(
    body: Callable[[Hosting], Coroutine[Any, Any, None]],
    *,
    logs: Callable[[], Sequence[ShardLog]] | None = None,
    promises: dict[int, int] | None = None,
) -> None:
    """Run `body` with the shards of a node, in virtual time."""

    async def main(_runtime: object) -> None:
        async with hosting(None if logs is None else logs(), promises) as node:
            await body(node)

    run_world(0, main)
