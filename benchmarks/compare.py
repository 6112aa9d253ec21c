"""The two rows that have peers: registrations under load, and the latency of a single one.

In each round every contender is started afresh on an empty directory, one after the other,
never two at once; the figure is the median over the rounds. A contender that fails is left
out with the reason, and the others go on.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import fsync
from benchmarks.bench import OURS, Bench, Case
from benchmarks.contender import Contender, Server, StartError
from benchmarks.cpu import Observer, Shares
from benchmarks.load import LoadError, Measurement, Shape, Timing, drive
from benchmarks.report import Figure, NotMeasured, Result, Unit, humane

LOADED = Shape(64, 16)
DEEPER = Shape(64, 32)
ALONE = Shape(1, 1)
FDATASYNC = "fdatasync"

_DEEPER_TIMING = Timing(1.0, 4.0)
_NEVER_IDLE = 0.95
_GAIN_MAX = 0.10
_LOAD_SHARE_MAX = 0.80
_STRANGERS_MAX = 0.10


@dataclass(slots=True)
class Rounds:
    """What one contender did in all rounds so far."""

    contender: Contender
    loaded: list[Measurement] = field(default_factory=list)
    deeper: list[Measurement] = field(default_factory=list)
    failed: NotMeasured | None = None


Turn = Callable[["Loader", Rounds], Awaitable[None]]


class Loader:
    """Loads one running server in several shapes, with keys that never repeat."""

    def __init__(self, bench: Bench, contender: Contender, server: Server) -> None:
        self._bench = bench
        self._server = server
        self._services = 0
        self.contender = contender
        self.first_timing = bench.warmed(contender)

    async def run(self, shape: Shape, timing: Timing) -> Measurement:
        """Load the server once, then have it prove that it holds what it acknowledged."""
        bench, server = self._bench, self._server
        place = bench.place(self.contender.name)
        services = range(self._services, self._services + shape.connections)
        self._services += shape.connections
        observer = Observer(
            server_pids=server.pids,
            server_cores=place.server_cores,
            load_cores=place.load_cores,
            directory=place.directory,
        )
        await server.prepare(services)
        addresses = server.addresses
        measurement = await drive(
            addresses,
            lambda index, tally: server.client(
                addresses[index % len(addresses)],
                services[index],
                tally,
                shape.in_flight,
                bench.value,
            ),
            shape,
            timing,
            observer,
        )
        await server.confirm(services, measurement.acked_total)
        bench.say(
            f"    {self.contender.name} {shape}: {humane(measurement.rate, '/s')},"
            f" p50 {humane(measurement.p50_s, 's')}, server {_percent(measurement.shares.server)}"
            f" and load {_percent(measurement.shares.load)} of a core"
        )
        return measurement


async def registrations(bench: Bench) -> list[Result]:
    """One durable write each, 64 connections with 16 in flight."""
    return [
        await registering(
            bench,
            "registrations",
            wanted="≥ 8 × etcd put, ≥ 6 × ZooKeeper create",
            factors={"etcd": 8.0, "ZooKeeper": 6.0},
        )
    ]


async def registering(
    bench: Bench, what: str, *, wanted: str, factors: Mapping[str, float]
) -> Result:
    """Load every contender with `LOADED`; `factors` is what ours has to be times the others."""

    async def turn(loader: Loader, rounds: Rounds) -> None:
        rounds.loaded.append(await loader.run(LOADED, loader.first_timing))
        rounds.deeper.append(await loader.run(DEEPER, _DEEPER_TIMING))

    every = await _take_turns(bench, turn)
    figures = {rounds.contender.name: _figure(rounds, "/s") for rounds in every}
    cores = len(bench.server_cores) if bench.is_shared else 0
    result = Result(
        f"{what}, {LOADED.connections} connections, {LOADED.in_flight} in flight each",
        {**figures, **_left_out(bench)},
        wanted=wanted,
        notes=[line for rounds in every if not rounds.failed for line in _evidence(rounds, cores)],
    )
    return _judged(result, factors, more=True)


async def latency(bench: Bench) -> list[Result]:
    """One connection, one in flight, beside the bare cost of a durable append."""
    costs: list[fsync.SyncCost] = []
    prepared: list[fsync.SyncCost] = []

    async def turn(loader: Loader, rounds: Rounds) -> None:
        costs.append(fsync.measure(bench.directory, seconds_max=1.0))
        prepared.append(fsync.measure(bench.directory, growing=False, seconds_max=1.0))
        rounds.loaded.append(await loader.run(ALONE, loader.first_timing))

    every = await _take_turns(bench, turn)
    if not costs:
        costs.append(fsync.measure(bench.directory))
        prepared.append(fsync.measure(bench.directory, growing=False))
    figures = {rounds.contender.name: _figure(rounds, "s") for rounds in every}
    baseline = _spread([cost.p50_s for cost in costs], "s")
    p99 = humane(statistics.median(cost.p99_s for cost in costs), "s")
    in_place = humane(statistics.median(cost.p50_s for cost in prepared), "s")
    append = f"{FDATASYNC} of a {fsync.APPEND_BYTES}-byte append"
    notes = [f"{append}: p99 {p99}; into space written before: p50 {in_place}"]
    notes += [
        f"{rounds.contender.name}: p99"
        f" {humane(statistics.median(m.p99_s for m in rounds.loaded), 's')},"
        f" {humane(statistics.median(m.rate for m in rounds.loaded), '/s')}"
        for rounds in every
        if rounds.loaded and not rounds.failed
    ]
    result = Result(
        "one connection, one in flight: p50",
        {**figures, **_left_out(bench), FDATASYNC: baseline},
        wanted="≤ 2.5 × fdatasync",
        notes=notes,
    )
    return [_judged(result, {FDATASYNC: 2.5}, more=False)]


CASES = (Case("registrations", registrations), Case("latency", latency))


async def _take_turns(bench: Bench, turn: Turn) -> list[Rounds]:
    every = [Rounds(contender) for contender in bench.contenders]
    for number in range(bench.rounds):
        for rounds in every:
            if rounds.failed:
                continue
            contender = rounds.contender
            bench.say(f"  round {number + 1} of {bench.rounds}: {contender.name}")
            try:
                async with contender.start(bench.place(contender.name)) as server:
                    await turn(Loader(bench, contender, server), rounds)
            except (LoadError, StartError, OSError) as fault:
                rounds.failed = NotMeasured(str(fault))
                bench.say(f"    {contender.name} failed: {fault}")
    return every


def _figure(rounds: Rounds, unit: Unit) -> Figure | NotMeasured:
    if rounds.failed:
        return rounds.failed
    if unit == "/s":
        return _spread([m.rate for m in rounds.loaded], "/s")
    return _spread([m.p50_s for m in rounds.loaded], "s")


def _spread(values: Sequence[float], unit: Unit) -> Figure:
    return Figure(statistics.median(values), unit, min(values), max(values))


def _left_out(bench: Bench) -> dict[str, NotMeasured]:
    return dict(bench.missing)


def _judged(result: Result, factors: Mapping[str, float], *, more: bool) -> Result:
    """Return the row with `met` set; it stays open while any of the figures is missing."""
    ratios = result.ratios()
    if not factors or any(name not in ratios for name in factors):
        return result
    met = all((ratios[n] >= f) if more else (ratios[n] <= f) for n, f in factors.items())
    return Result(result.what, result.figures, result.wanted, met, result.notes, result.ours)


def _evidence(rounds: Rounds, shared_cores: int) -> list[str]:
    """Say who was at the limit: the server, its disk, or (then it must be said) the load.

    `shared_cores`: how many cores servers and load had together, 0 if each had its own.
    """
    name = rounds.contender.name
    typical = sorted(rounds.loaded, key=lambda m: m.rate)[len(rounds.loaded) // 2]
    taken = typical.shares
    # Paired, because a round's two runs had the same server and much the same machine.
    gain = statistics.median(
        deeper.rate / loaded.rate - 1
        for loaded, deeper in zip(rounds.loaded, rounds.deeper, strict=True)
    )
    deeper = humane(statistics.median(m.rate for m in rounds.deeper), "/s")
    if shared_cores:
        total = shared_cores * taken.server_core
        strangers = total - taken.server - taken.load
        whose = {f"{shared_cores} cores": strangers}
        shares = (
            f"Servers {_percent(taken.server)} and load {_percent(taken.load)} of one core, of"
            f" {shared_cores} that were {_percent(taken.server_core)} busy and"
            f" {_percent(taken.server_core_waiting)} waiting for the disk; servers"
            f" {humane(taken.server / typical.rate, 's')} of processor time a write;"
            f" {_disk(typical)}"
        )
    else:
        whose = {
            "server's core": taken.server_core - taken.server,
            "load's core": taken.load_core - taken.load,
        }
        shares = (
            f"Server {_percent(taken.server)} of its core, which was"
            f" {_percent(taken.server_core)} busy and {_percent(taken.server_core_waiting)}"
            f" waiting for the disk; {_disk(typical)}; load {_percent(taken.load)} of its core"
        )
    lines = [
        (
            f"{name}, {rounds.contender.operation}: {_verdict(taken, gain)}. {shares};"
            f" twice the depth {deeper} ({gain:+.0%}); p50 {humane(typical.p50_s, 's')},"
            f" p99 {humane(typical.p99_s, 's')}"
        )
    ]
    lines += [
        f"{name}: others used {_percent(share)} of the {cores} meanwhile"
        for cores, share in whose.items()
        if share > _STRANGERS_MAX
    ]
    return lines


def _verdict(taken: Shares, gain: float) -> str:
    if taken.load > _LOAD_SHARE_MAX:
        return "NOT saturated, the load generator had little to spare"
    if gain > _GAIN_MAX:
        return "NOT saturated at this depth"
    if taken.server_core + taken.server_core_waiting >= _NEVER_IDLE:
        return "saturated, its cores were never idle"
    if taken.disk is not None and taken.disk >= _NEVER_IDLE:
        return "saturated, the disk was never idle"
    return "more load does not help, though neither cores nor disk are at their limit"


def _disk(measurement: Measurement) -> str:
    taken = measurement.shares
    if taken.disk is None or taken.flushes is None:
        return "disk unknown"
    batch = measurement.rate / taken.flushes if taken.flushes else 0.0
    return (
        f"disk {_percent(taken.disk)} busy, {taken.flushes:,.0f} flushes/s"
        f" ({batch:,.0f} writes each)"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


assert Result.__dataclass_fields__["ours"].default == OURS, "report and bench name us alike"
