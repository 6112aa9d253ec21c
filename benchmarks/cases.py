"""Rows without peers: what our own node promises beyond throughput."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable

from benchmarks import micro
from benchmarks.bench import OURS, Bench, Case
from benchmarks.contender import free_port, running
from benchmarks.cpu import process_cpu_s, resident_bytes
from benchmarks.fsync import percentile
from benchmarks.ours import OurNode, OurServer, service_key
from benchmarks.report import Figure, Result
from benchmarks.sessions import (
    HEARTBEAT,
    Listener,
    beat,
    close_all,
    no_push,
    open_many,
    open_one,
    registration,
    subscription,
)
from ssgovern.cli.load import hello, sample_instance
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import model_pb2, native_pb2

_IDLE_CONNECTIONS = 15_000
_SUBSCRIBERS = 10_000
_INSTANCES = 1_000_000
_PER_SESSION = 10_000
_PER_SERVICE = 100
_BATCH = 1000


async def idle(bench: Bench) -> list[Result]:
    """15,000 sessions with an instance each, one heartbeat a second."""
    count = 1_000 if bench.quick else _IDLE_CONNECTIONS
    seconds = 3.0 if bench.quick else 15.0
    async with OurNode().start(bench.place(OURS)) as server:
        listeners = await open_many(
            server.address,
            count,
            lambda number: Listener([registration(number, f"10.0.0.1-{number}")], no_push),
        )
        await beat(listeners, 3.0)
        before, at = process_cpu_s(server.pid), time.perf_counter()
        rate = await beat(listeners, seconds)
        share = (process_cpu_s(server.pid) - before) / (time.perf_counter() - at)
        lost = count - (await server.status()).instances
        close_all(listeners)
    return [
        Result(
            f"{count:,} connections, one heartbeat a second each",
            {OURS: Figure(share, "share")},
            wanted="≤ 45 % of one core",
            met=share <= 0.45 and not lost,
            notes=[f"{rate:,.0f} heartbeats/s were sent and answered; {lost} instances were lost"],
        )
    ]


async def fan_out(bench: Bench) -> list[Result]:
    """One change of one service to everybody who follows it."""
    count = 500 if bench.quick else _SUBSCRIBERS
    changes = 5 if bench.quick else 40
    arrived: list[float] = []

    def on_push(_: Listener) -> None:
        arrived.append(time.perf_counter())

    last_told: list[float] = []
    async with OurNode().start(bench.place(OURS)) as server:
        writer = Listener([], no_push)
        await open_one(server.address, writer)
        listeners = await open_many(
            server.address, count, lambda _: Listener([subscription(1)], on_push)
        )

        def all_told() -> bool:
            return len(arrived) >= count

        for number in range(changes):
            await _until(all_told, listeners)
            arrived.clear()
            began = time.perf_counter()
            writer.send(registration(1, f"10.0.0.1-{number % 10}"))
            await _until(all_told, None)
            last_told.append(arrived[-1] - began)
            for listener in [*listeners, writer]:
                listener.send(HEARTBEAT)
        close_all([*listeners, writer])
    last_told.sort()
    p99 = percentile(last_told, 0.99)
    return [
        Result(
            f"one change to {count:,} subscribers on as many connections, last one told: p99",
            {OURS: Figure(p99, "s", last_told[0], last_told[-1])},
            wanted="≤ 300 ms",
            met=p99 <= 0.3,
            notes=[
                (
                    f"{changes} changes, p50 {statistics.median(last_told) * 1e3:.0f} ms, from"
                    " sending the registration to the last push read; includes the fdatasync"
                )
            ],
        )
    ]


async def _until(reached: Callable[[], bool], keep: list[Listener] | None) -> None:
    async with asyncio.timeout(30):
        beats = 0.0
        while not reached():
            await asyncio.sleep(0.001)
            beats += 0.001
            if keep is not None and beats >= 1.0:
                beats = 0.0
                for listener in keep:
                    listener.send(HEARTBEAT)


async def memory(bench: Bench) -> list[Result]:
    """A million instances: memory, restart after kill -9, and what snapshots do to the loop."""
    count = 20_000 if bench.quick else _INSTANCES
    place = bench.place(OURS)
    async with _node(bench, []) as server:
        began = time.perf_counter()
        await _fill(server, count)
        filled_s = time.perf_counter() - began
        await asyncio.sleep(5.0)
        held = resident_bytes(server.pid)
        loaded = await server.status()
        data = place.directory / "data"
        os.kill(server.pid, signal.SIGKILL)
        keep = place.directory.parent / "kept"
        data.rename(keep)
    began = time.perf_counter()
    arguments = ["--storage-wal-bytes-before-snapshot", str(1 << 20)]
    async with _node(bench, arguments, data=str(keep)) as server:
        restart_s = time.perf_counter() - began
        at_start = await server.status()
        await asyncio.sleep(2.0 if bench.quick else 30.0)
        after = await server.status()
        reheld = resident_bytes(server.pid)
    subprocess.run(["rm", "-rf", str(keep)], check=True)
    complete = at_start.instances == loaded.instances == count
    stall_ms = after.loop_stall_ms_max
    snapshot_note = (
        f"all 256 shards were snapshotted meanwhile; the log shrank from {at_start.wal_bytes:,} "
        f"to {after.wal_bytes:,} bytes"
    )
    return [
        Result(
            f"{count:,} instances (8 fields, 2 metadata pairs): resident",
            {OURS: Figure(held, "bytes")},
            wanted="≤ 700 MB",
            met=held <= 700e6,
            notes=[
                (
                    f"registered in batches of {_BATCH} in {filled_s:.0f} s, the loop stalled for"
                    f" {loaded.loop_stall_ms_max} ms at most;"
                    f" after kill -9 and restart {reheld / 1e6:,.0f} MB"
                )
            ],
        ),
        Result(
            "restart to serving after kill -9",
            {OURS: Figure(restart_s, "s")},
            wanted="≤ 45 s",
            met=restart_s <= 45 and complete,
            notes=[f"{at_start.instances:,} of {count:,} instances are there"],
        ),
        Result(
            "longest stall of the loop while snapshots are taken",
            {OURS: Figure(stall_ms / 1e3, "s")},
            wanted="≤ 50 ms",
            met=stall_ms <= 50,
            notes=[snapshot_note],
        ),
    ]


@contextlib.asynccontextmanager
async def _node(
    bench: Bench, arguments: list[str], data: str | None = None
) -> AsyncIterator[OurServer]:
    place = bench.place(OURS)
    port = free_port()
    argv = [sys.executable, "-m", "ssgovern.cli.main", "server", "--listen-port", str(port)]
    argv += ["--data-dir", data or str(place.directory / "data"), *arguments]
    async with running(argv, place) as process:
        server = OurServer(process, port)
        await process.until_serving(server.open, within_s=300.0)
        yield server


async def _fill(server: OurServer, count: int) -> None:
    """Register persistent instances, `_PER_SERVICE` a service, from a hundred sessions."""
    answered = asyncio.Event()
    sessions = max(count // _PER_SESSION, 1)

    class Filling(Listener):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            answered.set()

    for session in range(sessions):
        filling = Filling([], no_push)
        await open_one(server.address, filling)
        for first in range(0, count // sessions, _BATCH):
            request = native_pb2.RegisterRequest()
            for number in range(first, min(first + _BATCH, count // sessions)):
                number += session * (count // sessions)
                instance = sample_instance(f"10.1.2.3-{number:08d}", persistent=True)
                del instance.metadata["protocol"], instance.metadata["build"]
                added = request.registrations.add()
                added.service.CopyFrom(service_key(number // _PER_SERVICE))
                added.instance.CopyFrom(instance)
            answered.clear()
            body = request.SerializeToString()
            filling.send(encode_frame(Kind.REQUEST, MessageType.REGISTER, 4, body))
            await answered.wait()
        assert filling.transport is not None
        filling.transport.close()


_VICTIM = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(bytes.fromhex(sys.argv[3]))
    connection.recv(65536)
    time.sleep(30)
"""


async def crash(bench: Bench) -> list[Result]:
    """A process is killed; how long until who follows its service is told."""
    rounds = 2 if bench.quick else 10
    delays: list[float] = []
    told = asyncio.Event()

    def on_push(_: Listener) -> None:
        told.set()

    async with OurNode().start(bench.place(OURS)) as server:
        watcher = Listener([subscription(1)], on_push)
        await open_one(server.address, watcher)
        for number in range(rounds):
            requests = hello() + registration(1, f"victim-{number}")
            victim = subprocess.Popen(
                [sys.executable, "-c", _VICTIM, *map(str, server.address), requests.hex()]
            )
            while (await server.status()).instances != 1:
                watcher.send(HEARTBEAT)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            told.clear()
            victim.kill()
            began = time.perf_counter()
            async with asyncio.timeout(10):
                await told.wait()
            delays.append(time.perf_counter() - began)
            victim.wait()
            watcher.send(HEARTBEAT)
    delays.sort()
    return [
        Result(
            "process killed, its watcher told: worst",
            {OURS: Figure(delays[-1], "s", delays[0], delays[-1])},
            wanted="≤ 2 s",
            met=delays[-1] <= 2.0,
            notes=[f"{rounds} kills; the session's close_grace of 1 s is part of it"],
        )
    ]


async def delta(bench: Bench) -> list[Result]:
    """What one change of a large service costs each subscriber in bytes."""
    async with OurNode().start(bench.place(OURS)) as server:
        batch = native_pb2.RegisterRequest()
        for number in range(_BATCH):
            added = batch.registrations.add()
            added.service.CopyFrom(service_key(1))
            added.instance.CopyFrom(sample_instance(f"10.1.2.3-{number:08d}"))
        fill = encode_frame(Kind.REQUEST, MessageType.REGISTER, 4, batch.SerializeToString())
        listener = Listener([fill], no_push)
        await open_one(server.address, listener)
        while (await server.status()).instances != _BATCH:
            await asyncio.sleep(0.02)
        listener.send(subscription(1))
        await _until(lambda: listener.pushes == 1, None)
        whole = listener.bytes_pushed
        change = native_pb2.UpdateRequest(
            service=service_key(1),
            instance_id="10.1.2.3-00000001",
            change=native_pb2.InstanceChange(weight=1.0, status=model_pb2.STATUS_UP),
        )
        body = change.SerializeToString()
        listener.send(encode_frame(Kind.REQUEST, MessageType.UPDATE, 5, body))
        await _until(lambda: listener.pushes == 2, None)
        pushed = listener.bytes_pushed - whole
        close_all([listener])
    return [
        Result(
            f"bytes pushed per change in a {_BATCH:,}-instance service, per subscriber",
            {OURS: Figure(pushed, "bytes")},
            wanted="< 1 KB",
            met=pushed < 1000,
            notes=[f"the whole list is {whole:,} bytes"],
        )
    ]


async def path(bench: Bench) -> list[Result]:
    """Our own share of a registration: decode, check, propose, commit, answer."""
    count = 4_000 if bench.quick else 64_000
    costs = [await micro.registrations_us(count) for _ in range(bench.rounds)]
    seconds = [cost * 1e-6 for cost in costs]
    yardstick = micro.reference_us()
    return [
        Result(
            "a registration without sockets and disk (decode → commit → answer)",
            {OURS: Figure(statistics.median(seconds), "s", min(seconds), max(seconds))},
            notes=[f"a fixed piece of Python took {yardstick:.2f} µs in the same process"],
        )
    ]


CASES = [
    Case("path", path),
    Case("idle", idle),
    Case("fan-out", fan_out),
    Case("memory", memory),
    Case("crash", crash),
    Case("delta", delta),
]
