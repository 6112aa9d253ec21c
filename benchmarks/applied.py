"""What it costs that subscribers say what they have applied: fan-out with and without it.

`python -m benchmarks.applied [subscribers] [changes]`: one node, one change after the other to
everybody who follows a service, one a second, while everybody sends a heartbeat a second. With
every other change those heartbeats say, too, what was applied. The ratio is of one run, in turns.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contender import free_port
from benchmarks.cpu import process_cpu_s
from benchmarks.ours import service_key
from benchmarks.sessions import (
    HEARTBEAT,
    Listener,
    close_all,
    no_push,
    open_many,
    open_one,
    registration,
    subscription,
)
from ssgovern.wire.frames import Kind, MessageType, encode_frame
from ssgovern.wire.pb import applied_pb2

_ANNOUNCED = encode_frame(Kind.PUSH, MessageType.APPLIED, 0, b"")


def _said(revision: int) -> bytes:
    said = applied_pb2.Applied()
    said.services.add(service=service_key(1), epoch=1, revision=revision, age_ms=300)
    return encode_frame(Kind.PUSH, MessageType.APPLIED, 0, said.SerializeToString())


_BEAT = [HEARTBEAT]
"""What a subscriber sends once a second, at present."""


async def _beat(listeners: list[Listener]) -> None:
    """Let each send once a second, evenly, for ever."""
    began, sent = time.perf_counter(), 0
    while True:
        due = int((time.perf_counter() - began) * len(listeners))
        for number in range(sent, due):
            listeners[number % len(listeners)].send(_BEAT[0])
        sent = due
        await asyncio.sleep(0.002)


async def measure(pid: int, port: int, count: int, changes: int) -> None:
    """Print seconds until the last was told, and the node's CPU time, of both kinds."""
    arrived: list[float] = []
    writer = Listener([], no_push)
    await open_one(("127.0.0.1", port), writer)
    listeners = await open_many(
        ("127.0.0.1", port),
        count,
        lambda _: Listener([subscription(1)], lambda _: arrived.append(time.perf_counter())),
    )
    for listener in listeners:
        listener.send(_ANNOUNCED)
    while len(arrived) < count:
        await asyncio.sleep(0.001)
    told: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    beating = asyncio.get_running_loop().create_task(_beat(listeners))
    for number in range(changes):
        saying = number % 2 == 1
        arrived.clear()
        _BEAT[0] = (_said(number + 2) if saying else b"") + HEARTBEAT
        before_s, began = process_cpu_s(pid), time.perf_counter()
        writer.send(registration(1, f"10.0.0.1-{number % 10}"))
        while len(arrived) < count:
            await asyncio.sleep(0.001)
        told[saying].append(arrived[-1] - began)
        # Everybody beats once.
        await asyncio.sleep(max(0.0, began + 1.0 - time.perf_counter()))
        cpu[saying].append(process_cpu_s(pid) - before_s)
        writer.send(HEARTBEAT)
    beating.cancel()
    close_all([*listeners, writer])
    for name, values in (("last one told, median s", told), ("CPU a change, median s", cpu)):
        silent, saying_s = (statistics.median(values[each]) for each in (False, True))
        print(f"{name}: {silent:.4f} without, {saying_s:.4f} with; ratio {saying_s / silent:.3f}")


def _await_port(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the node did not start")


def main() -> None:
    """Start a node, measure, stop it."""
    count, changes = (int(each) for each in (*sys.argv[1:], "5000", "60")[:2])
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "ssgovern.cli.main", "server", "--http-port", "0"]
        command += ["--data-dir", str(Path(place) / "data"), "--listen-port", str(port)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as node:
            try:
                _await_port(port)
                asyncio.run(measure(node.pid, port, count, changes))
            finally:
                node.terminate()
    os.sync()


if __name__ == "__main__":
    main()
