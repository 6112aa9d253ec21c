"""Callers of the SDK that write all the time, and what they saw of whatever was done meanwhile.

Each writer owns a service, so the times between its acknowledged writes are those of one shard.
It registers its few instances again and again, each time with a number that rises; what is read
back afterwards may not be older than what was acknowledged. An error is whatever the SDK raises.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.fsync import percentile
from benchmarks.nodes import GROUP, NAMESPACE, Names, Nodes
from ssgovern import connect
from ssgovern.client.registry import Registry
from ssgovern.errors import SsGovernError
from ssgovern.model import ShardId, shard_of

CLIENTS = 4
_IDS = 6
_PAUSE_S = 0.02
_ERRORS_KEPT = 5


class Writer:
    """One service, written one request at a time."""

    def __init__(self, registry: Registry, number: int) -> None:
        self._registry = registry
        self.service = f"orders-{number}"
        self.shard: ShardId = shard_of(NAMESPACE, GROUP, self.service)
        self._number = 0
        self.acked: dict[str, int] = {}
        self.errors: list[str] = []
        self.acks = 0
        self.latencies: list[float] = []
        self._last_ack = time.monotonic()
        self._gap = 0.0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._number += 1
            instance_id = f"i-{self._number % _IDS}"
            began = time.monotonic()
            try:
                await self._registry.register(
                    self.service,
                    port=8080,
                    host="10.1.2.3",
                    instance_id=instance_id,
                    group=GROUP,
                    metadata={"n": str(self._number)},
                )
            except SsGovernError as error:
                self.errors.append(f"{self.service}: {error.code.name}: {error}"[:200])
            else:
                self._note_ack(instance_id, began)
            await asyncio.sleep(_PAUSE_S)

    def _note_ack(self, instance_id: str, began: float) -> None:
        now = time.monotonic()
        self._gap = max(self._gap, now - self._last_ack)
        self._last_ack = now
        self.latencies.append(now - began)
        self.acked[instance_id] = self._number
        self.acks += 1

    def begin(self) -> None:
        """Forget what was seen so far, acknowledged writes excepted."""
        self._gap = 0.0
        self.errors.clear()
        self.latencies.clear()

    def acked_since(self, moment: float) -> bool:
        """Tell whether a write that was sent after `moment` may have been acknowledged."""
        return self._last_ack > moment

    @property
    def gap_s(self) -> float:
        """Longest time without an acknowledged write since `begin`, up to now."""
        return max(self._gap, time.monotonic() - self._last_ack)

    async def lost(self) -> list[str]:
        """Read back; return what is older than acknowledged, or gone."""
        found = {
            instance.id: int(instance.metadata.get("n", 0))
            for instance in await self._registry.get(self.service, group=GROUP, timeout=20.0)
        }
        return [
            f"{self.service}/{each}: {number} acknowledged, {found.get(each, 'nothing')} there"
            for each, number in dict(self.acked).items()
            # While it writes there may be something newer, never something older.
            if found.get(each, -1) < number
        ]


@dataclass(slots=True)
class Seen:
    """What some writers saw of a stretch of time."""

    gap_s: float = 0.0
    writes: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        """Of the writes that were acknowledged meanwhile."""
        return percentile(sorted(self.latencies), 0.99) if self.latencies else 0.0


class Writers:
    """All writers of a case."""

    def __init__(self, every: Sequence[Writer]) -> None:
        self.every = every

    def begin(self) -> None:
        """Begin a stretch of time."""
        for writer in self.every:
            writer.begin()

    def of_shards(self, shards: Iterable[int]) -> list[Writer]:
        """Return those who write to these shards."""
        wanted = dict.fromkeys(shards)
        return [writer for writer in self.every if writer.shard in wanted]

    def seen(self, some: Sequence[Writer] | None = None) -> Seen:
        """Return what was seen since `begin`, by some or by all."""
        seen = Seen()
        for writer in self.every if some is None else some:
            seen.gap_s = max(seen.gap_s, writer.gap_s)
            seen.writes += len(writer.latencies)
            seen.errors += writer.errors
            seen.latencies += writer.latencies
        return seen

    async def until_acked(self, some: Sequence[Writer], *, within_s: float) -> bool:
        """Wait until each of these was acknowledged a write from now on; False: too long."""
        moment = time.monotonic()
        while not all(writer.acked_since(moment) for writer in some):
            if time.monotonic() - moment > within_s:
                return False
            await asyncio.sleep(0.02)
        return True

    async def lost(self) -> list[str]:
        """Read back what all of them were acknowledged; return what is missing."""
        return [each for writer in self.every for each in await writer.lost()]


@contextlib.asynccontextmanager
async def writing(nodes: Nodes, *, per_node: int) -> AsyncIterator[Writers]:
    """Have `per_node` services of each node written, by several clients, for a while."""
    names = Names(await nodes.primaries())
    numbers = [n for node in nodes.all() for n in names.take(node.number, per_node)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                connect(nodes.seeds, namespace=NAMESPACE, client_name=f"writer-{n}")
            )
            for n in range(CLIENTS)
        ]
        every = [Writer(clients[i % CLIENTS], number) for i, number in enumerate(numbers)]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(writer.run()) for writer in every]
            writers = Writers(every)
            try:
                await writers.until_acked(every, within_s=20.0)
                writers.begin()
                yield writers
            finally:
                for task in running:
                    task.cancel()


def some_errors(errors: Sequence[str]) -> str:
    """Return how many errors there were and what the first of them say."""
    if not errors:
        return "0 errors"
    return f"{len(errors)} errors ({'; '.join(errors[:_ERRORS_KEPT])})"
