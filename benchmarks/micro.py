"""The path of a registration without sockets and disk: decode, check, propose, commit, answer.

A figure for profiling, and for telling our own cost from that of the kernel and the disk:
`python -m benchmarks.micro`. Beside it runs a fixed piece of pure Python, so that two runs on a
noisy machine can be compared.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.load import Tally
from benchmarks.ours import Registering
from ssgovern.api.native.connection import NativeConnection
from ssgovern.api.native.server import NativeServer
from ssgovern.cli.load import hello
from ssgovern.model import SHARDS, LogPosition, NodeId, ShardId
from ssgovern.node.log_driver import LogDriver
from ssgovern.node.push_driver import PushDriver
from ssgovern.node.session_driver import SessionDriver
from ssgovern.registry.protection import Protection, ProtectionPolicy
from ssgovern.registry.sessions import SessionTable, SessionTiming
from ssgovern.registry.state import ShardState
from ssgovern.replication.primary import PrimaryLog, Proposal
from ssgovern.service.push import PushService
from ssgovern.service.registry import RegistryService
from ssgovern.storage.format import LogEntry, encode_records
from ssgovern.storage.wal import Wal
from ssgovern.wire.pb import native_pb2


class NoDiskWal:
    """A log that encodes its batches and keeps nothing."""

    size_bytes = 0
    segments = ()

    async def append(self, entries: Sequence[LogEntry], *, sync: bool = True) -> None:
        del sync
        encode_records(entries, 0, 0, 0)

    async def mark(self) -> None: ...


class Sink(asyncio.Transport):
    """A transport that counts what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written = bytes(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def close(self) -> None: ...


def _pass(name: str) -> None:
    """No failpoint is set."""


class Path:
    """A node's cores and drivers around one connection."""

    def __init__(self) -> None:
        states = [ShardState(ShardId(shard)) for shard in range(SHARDS)]
        node = NodeId(1)
        logs = [PrimaryLog(ShardId(s), 1, LogPosition(0, 0), (node,)) for s in range(SHARDS)]
        self.log = LogDriver(
            cast("Wal", NoDiskWal()),
            logs,
            node,
            on_committed=self._on_committed,
            failpoint=_pass,
        )
        table = SessionTable(SessionTiming(), Protection(ProtectionPolicy()))
        self.registry = RegistryService(states, table, self.log, lambda: 0)
        self.push = PushService(self.registry)
        driver = PushDriver(self.push)
        self.server = NativeServer(
            self.registry,
            self.push,
            hello=native_pb2.HelloResponse(),
            status=native_pb2.StatusResponse,
            end_refused=SessionDriver(self.registry, 250.0),
            wake_push=driver.wake,
        )
        self.connection = NativeConnection(self.server)
        self.connection.connection_made(Sink())
        self.connection.data_received(hello())

    def _on_committed(self, committed: list[Proposal]) -> None:
        shards: dict[ShardId, None] = {}
        for proposal in committed:
            outcome = self.registry.apply(proposal)
            proposal.waiter.on_outcome(proposal, outcome)
            shards[proposal.shard] = None
        self.registry.take_changes(shards)
        self.server.flush()


async def registrations_us(count: int, depth: int = 16) -> float:
    """Return microseconds of one registration, over `count` of them."""
    path = Path()
    task = asyncio.create_task(path.log.run())
    sink = Sink()
    load = Registering([1], Tally(), depth)
    load.transport = sink
    requests = []
    for _ in range(count // depth):
        load.issue(depth)
        requests.append(sink.written)
    spent = 0.0
    for request in requests:
        before = time.perf_counter()
        path.connection.data_received(request)
        await asyncio.sleep(0)
        while path.connection.in_flight:
            await asyncio.sleep(0)
        spent += time.perf_counter() - before
    task.cancel()
    return spent / len(requests) / depth * 1e6


def reference_us() -> float:
    """Return microseconds of a fixed piece of Python: a yardstick of this machine, now."""
    before = time.perf_counter()
    table: dict[str, tuple[int, str]] = {}
    for number in range(20_000):
        name = f"instance-{number}"
        table[name] = (number, name.upper())
    return (time.perf_counter() - before) / 20_000 * 1e6


def main() -> None:
    for _ in range(3):
        yardstick = reference_us()
        cost = asyncio.run(registrations_us(64_000))
        print(
            f"registration {cost:.1f} us; yardstick {yardstick:.2f} us;"
            f" ratio {cost / yardstick:.1f}"
        )


if __name__ == "__main__":
    main()
