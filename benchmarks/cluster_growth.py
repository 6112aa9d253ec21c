"""What a cluster of ours promises when it grows, and when a node slept through its own end."""

import asyncio
import signal
import time
from collections import Counter
from typing import NamedTuple

from benchmarks.bench import OURS, Bench, Case
from benchmarks.load import LoadError
from benchmarks.nodes import GROUP, NAMESPACE, NODES, Names, Nodes, cluster, is_balanced, is_whole
from benchmarks.ours import status as status_of
from benchmarks.report import Figure, Result, humane
from benchmarks.sessions import HEARTBEAT, Listener, no_push, open_one
from benchmarks.writers import some_errors, writing
from ssgovern.cli.load import sample_instance
from ssgovern.errors import ErrorCode
from ssgovern.model import shard_of
from ssgovern.wire.frames import FrameReader, Kind, MessageType, encode_frame
from ssgovern.wire.pb import native_pb2
from ssgovern.wire.pb.model_pb2 import ServiceKey

_INSTANCES = 200_000
_PER_SERVICE = 100
_PER_SESSION = 10_000
_BATCH = 1000
_PER_NODE = 12
_BEFORE_S = 10.0
_SLEEP_S = 20.0
_PROBES = 8
_PROBE_EVERY_S = 0.25
_GROW_S_MAX = 300.0
_BACK_S_MAX = 120.0
_FILL, _PROBE = "fill", "probe"
_OUR_OWN_SESSIONS = 6


async def grow(bench: Bench) -> list[Result]:
    """A fourth node is started under load and takes its share."""
    count = 20_000 if bench.quick else _INSTANCES
    async with cluster(bench.place(OURS)) as nodes:
        names = Names(await nodes.primaries(), _FILL)
        began = time.monotonic()
        await _fill(nodes, names, count)
        bench.say(f"    {count:,} instances registered in {time.monotonic() - began:.1f} s")
        await _until_quiet(nodes)
        filled = await _held(nodes)
        if filled != count:
            raise LoadError(f"{count} instances were registered and {filled} are there")
        async with writing(nodes, per_node=_PER_NODE) as writers:
            await asyncio.sleep(2.0 if bench.quick else _BEFORE_S)
            before = writers.seen()
            writers.begin()
            nodes.join()
            took_s = await nodes.until(
                lambda status: len(status.nodes) > NODES and is_balanced(status),
                "balanced",
                within_s=_GROW_S_MAX,
            )
            during = writers.seen()
            lost = await writers.lost()
        held = await _held(nodes)
        status = await nodes.status()
    ratio = during.p99_s / before.p99_s
    spread = ", ".join(f"{n.node_id}: {n.primaries} of {n.holds}" for n in status.nodes)
    missing = filled - held
    return [
        Result(
            f"3 → 4 nodes with {count:,} instances under load: balanced after",
            {OURS: Figure(took_s, "s")},
            wanted="≤ 60 s, 0 errors, 0 lost, p99 of writes ≤ 5 × before",
            met=took_s <= 60 and not during.errors and not lost and missing <= 0 and ratio <= 5,
            notes=[
                (
                    f"writes: p99 {humane(before.p99_s, 's')} before, {humane(during.p99_s, 's')}"
                    f" during ({ratio:.1f} ×), {during.writes:,} writes, longest gap"
                    f" {during.gap_s:.3f} s; {some_errors(during.errors)};"
                    f" {len(lost)} acknowledged writes and {max(missing, 0)} instances lost"
                ),
                f"primaries of shards held: {spread}",
                *(f"lost: {each}" for each in lost[:5]),
            ],
        )
    ]


async def _fill(nodes: Nodes, names: Names, count: int) -> None:
    """Register persistent instances at the primaries of their services."""
    done = 0
    while done < count:
        for node in nodes.all():
            services = names.take(node.number, _PER_SESSION // _PER_SERVICE)
            share = min(len(services), (count - done) // _PER_SERVICE)
            await _fill_from(node.address, services[:share])
            done += share * _PER_SERVICE


async def _fill_from(address: tuple[str, int], services: list[int]) -> None:
    answered = asyncio.Event()

    class Filling(Listener):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            answered.set()

    filling = Filling([], no_push)
    await open_one(address, filling)
    per_batch = _BATCH // _PER_SERVICE
    for first in range(0, len(services), per_batch):
        request = native_pb2.RegisterRequest()
        for service in services[first : first + per_batch]:
            key = ServiceKey(namespace=NAMESPACE, group=GROUP, service=f"{_FILL}-{service}")
            for number in range(_PER_SERVICE):
                added = request.registrations.add()
                added.service.CopyFrom(key)
                added.instance.CopyFrom(sample_instance(f"i-{number}", persistent=True))
        answered.clear()
        body = request.SerializeToString()
        filling.send(encode_frame(Kind.REQUEST, MessageType.REGISTER, 4, body))
        async with asyncio.timeout(30.0):
            await answered.wait()
    if filling.transport is not None:
        filling.transport.close()


async def _until_quiet(nodes: Nodes) -> None:
    """Wait until what the end of the filling sessions changes is written."""
    for node in nodes.all():
        while (await status_of(node.address)).sessions > _OUR_OWN_SESSIONS:
            await asyncio.sleep(0.5)


async def _held(nodes: Nodes) -> int:
    """Count the instances that were filled in, as the cluster answers."""
    services = await nodes.registry.services(f"{_FILL}-", group=GROUP, timeout=30.0)
    return sum(service.instances for service in services)


# --- paused ---------------------------------------------------------------------------------


class Stale(Listener):
    """Writes to one node without following the map, and keeps what it was acknowledged."""

    def __init__(self, services: list[str]) -> None:
        super().__init__([], no_push)
        self._services = services
        self._reader = FrameReader()
        self._asked: dict[int, tuple[str, str]] = {}
        self._number = 10
        self.acked: list[Ack] = []
        self.refused: Counter[str] = Counter()

    def write_all(self) -> None:
        """Ask for one registration in each service; nobody waits for the answers."""
        for service in self._services:
            self._number += 1
            instance_id = f"i-{self._number}"
            self._asked[self._number] = (service, instance_id)
            request = native_pb2.RegisterRequest()
            added = request.registrations.add()
            added.service.CopyFrom(ServiceKey(namespace=NAMESPACE, group=GROUP, service=service))
            added.instance.CopyFrom(sample_instance(instance_id, persistent=True))
            body = request.SerializeToString()
            self.send(encode_frame(Kind.REQUEST, MessageType.REGISTER, self._number, body))

    def data_received(self, data: bytes) -> None:
        self._reader.receive_data(data)
        while (frame := self._reader.next_frame()) is not None:
            kind, _, type_, request_id, body = frame
            if type_ == MessageType.HELLO and not self.ready.done():
                self.ready.set_result(None)
            asked = self._asked.pop(request_id, None)
            if asked is None:
                continue
            if kind == Kind.ERROR:
                self.refused[_code(native_pb2.Error.FromString(body))] += 1
                continue
            [result] = native_pb2.RegisterResponse.FromString(body).results
            if result.HasField("error"):
                self.refused[_code(result.error)] += 1
            else:
                self.acked.append(Ack(*asked, result.epoch))


class Ack(NamedTuple):
    service: str
    instance_id: str
    epoch: int


def _code(error: native_pb2.Error) -> str:
    return ErrorCode(error.code).name


async def paused(bench: Bench) -> list[Result]:
    """A node is stopped for 20 s while clients that do not follow the map write to it."""
    async with (
        cluster(bench.place(OURS)) as nodes,
        writing(nodes, per_node=_PER_NODE) as writers,
    ):
        victim = nodes[NODES - 1]
        names = Names(await nodes.primaries(), _PROBE)
        stale = Stale([f"{_PROBE}-{n}" for n in names.take(victim.number, _PROBES)])
        await open_one(victim.address, stale)
        stale.write_all()
        await asyncio.sleep(1.0)
        before = len(stale.acked)

        writers.begin()
        victim.send(signal.SIGSTOP)
        until = time.monotonic() + _SLEEP_S
        while time.monotonic() < until:
            stale.write_all()
            stale.send(HEARTBEAT)
            await asyncio.sleep(_PROBE_EVERY_S)
        victim.send(signal.SIGCONT)
        back_s = await nodes.until(is_whole, "in sync again", within_s=_BACK_S_MAX)
        balanced_s = back_s + await nodes.until(is_balanced, "balanced", within_s=_BACK_S_MAX)
        seen = writers.seen()
        acked = stale.acked[before:]
        old = await _of_old_epochs(nodes, acked)
        gone = await _gone(nodes, acked)
        lost = await writers.lost()
    refused = ", ".join(f"{n} {code}" for code, n in sorted(stale.refused.items()))
    return [
        Result(
            f"paused for {_SLEEP_S:.0f} s: stale writes it acknowledged in an old epoch",
            {OURS: Figure(len(old), "")},
            wanted="0, and back in sync by itself",
            met=before == _PROBES and not old and not gone and not lost,
            notes=[
                (
                    f"in sync again {back_s:.1f} s after it went on, balanced after"
                    f" {balanced_s:.1f} s; asked while it was stopped: {len(acked)} acknowledged,"
                    f" of these {len(gone)} gone; refused: {refused or 'none'}"
                ),
                (
                    f"callers of the SDK meanwhile: longest gap {seen.gap_s:.2f} s,"
                    f" {some_errors(seen.errors)}, {len(lost)} acknowledged writes lost"
                ),
            ],
        )
    ]


async def _of_old_epochs(nodes: Nodes, acked: list[Ack]) -> list[Ack]:
    rows = (await nodes.status(shards=True)).shards
    epochs = {row.shard: row.epoch for row in rows}
    return [ack for ack in acked if ack.epoch < epochs[shard_of(NAMESPACE, GROUP, ack.service)]]


async def _gone(nodes: Nodes, acked: list[Ack]) -> list[Ack]:
    there: dict[str, set[str]] = {}
    for service in dict.fromkeys(ack.service for ack in acked):
        found = await nodes.registry.get(service, group=GROUP, timeout=20.0)
        there[service] = {instance.id for instance in found}
    return [ack for ack in acked if ack.instance_id not in there[ack.service]]


CASES = [Case("grow", grow), Case("paused", paused)]
