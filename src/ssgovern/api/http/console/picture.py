"""What all open pages look at: services, nodes and rates of the whole cluster, collected once.

Knows the node and its gateway, no page and no language. What this node holds is counted from its
own state, and only shards that changed are counted again; the rest is asked of the nodes that
have it. Invariants: nothing is collected while nobody looks; however many look, it is collected
once in `limits.CONSOLE_PERIOD_MS` at most; instances are never walked, services keep their counts.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ssgovern import limits
from ssgovern.api.http.backend import Backend
from ssgovern.errors import SsGovernError
from ssgovern.model import SHARDS, LogPosition, NodeId, ServiceKey, ShardId, shard_of
from ssgovern.service.placement import mask_of, mask_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


class Line(NamedTuple):
    """A service, counted."""

    key: ServiceKey
    instances: int
    available: int
    revision: int

    @property
    def missing(self) -> int:
        """Instances that take no traffic."""
        return self.instances - self.available


class Sample(NamedTuple):
    """What charts show of one moment."""

    time_ms: int
    changes_per_s: float | None
    push_ms_p50: float | None
    push_ms_p99: float | None


class Totals(NamedTuple):
    """Sums over the cluster."""

    services: int
    instances: int
    available: int
    sessions: int
    connections: int
    subscriptions: int
    protected: int


class Picture:
    """The cluster as this node can see it, as of the last collection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._collecting = asyncio.Lock()
        self._asked_s = self._counted_s = float("-inf")
        self._rest_s = 0.0
        """How long to leave the other nodes alone: as they are slow to answer."""
        self._shards: dict[ShardId, tuple[LogPosition, list[Line]]] = {}
        self._away: list[Line] = []
        self._lines: list[Line] | None = []
        self._names: list[str] = []
        self._counters: tuple[float, dict[NodeId, int], list[float]] | None = None
        self._rows: list[native_pb2.ShardStatus] = []
        self._rows_counted_s = float("-inf")
        self.statuses: dict[NodeId, native_pb2.StatusResponse] = {}
        """What nodes said of themselves; who did not answer is not in it."""
        self.unreachable: dict[NodeId, str] = {}
        """Why a node did not answer."""
        self.samples: deque[Sample] = deque(maxlen=limits.CONSOLE_SAMPLES_MAX)
        self.cluster = native_pb2.ClusterStatusResponse()
        self.collected_ms = 0

    def __repr__(self) -> str:
        return f"<Picture shards={len(self._shards)} statuses={len(self.statuses)}>"

    # --- collecting ------------------------------------------------------------------------

    async def collect(self, now_ms: int, patience_s: float | None = None) -> None:
        """Bring the picture up to date, at most so often. With `patience_s`: what other nodes
        do not say in that time is left as it was.

        Raises as `Backend.registry`.
        """
        loop = asyncio.get_running_loop()
        self._count(loop.time())
        if loop.time() - self._asked_s < self._rest_s:
            return
        try:
            async with asyncio.timeout(patience_s), self._collecting:
                if loop.time() - self._asked_s >= self._rest_s:
                    await self._ask(loop, now_ms)
        except TimeoutError:
            pass

    def _count(self, now_s: float) -> None:
        """Count what this node holds: only shards that changed."""
        period_s = limits.CONSOLE_PERIOD_MS / 1000.0
        if now_s - self._counted_s < period_s / 2:
            return
        self._counted_s = now_s
        self.cluster = self._backend.cluster_status(shards=False)
        registry = self._backend.registry
        placement = registry.placement
        for number in range(SHARDS):
            shard = ShardId(number)
            if not placement.holds(shard):
                if self._shards.pop(shard, None) is not None:
                    self._lines = None
                continue
            state = registry.state_at(shard)
            known = self._shards.get(shard)
            if known is not None and known[0] == state.position:
                continue
            lines = [
                Line(each.key, len(each.instances), each.available, each.revision)
                for each in state.services.values()
                if each.instances
            ]
            self._shards[shard] = (state.position, lines)
            if known is None or known[1] != lines:
                self._lines = None

    async def _ask(self, loop: asyncio.AbstractEventLoop, now_ms: int) -> None:
        began_s = loop.time()
        if len(self.cluster.nodes) <= 1:
            own = self._backend.status()
            self.statuses = {NodeId(own.node_id): own}
            self.unreachable = {}
            self._away = []
        else:
            await self._ask_statuses()
            await self._ask_services()
        self._sample(loop.time(), now_ms)
        self.collected_ms = now_ms
        self._asked_s = loop.time()
        spent_s = self._asked_s - began_s
        # Never more than a small share of anybody's time, however large the cluster is.
        period_s = limits.CONSOLE_PERIOD_MS / 1000.0
        self._rest_s = max(period_s * 0.8, min(limits.CONSOLE_REST_MS / 1000.0, 20.0 * spent_s))

    async def _ask_statuses(self) -> None:
        answers = await self._backend.gateway.ask_all(
            MessageType.STATUS,
            native_pb2.StatusRequest(),
            native_pb2.StatusResponse,
            timeout_ms=limits.CONSOLE_ASK_MS,
        )
        statuses: dict[NodeId, native_pb2.StatusResponse] = {}
        unreachable: dict[NodeId, str] = {}
        for node_id, answer in answers.items():
            if isinstance(answer, SsGovernError):
                unreachable[node_id] = answer.message
            else:
                statuses[node_id] = answer
        self.statuses, self.unreachable = statuses, unreachable

    async def _ask_services(self) -> None:
        """Ask for services of shards that are not here, of each shard's primary."""
        placement = self._backend.registry.placement
        primaries: dict[NodeId, list[ShardId]] = {}
        for row in self.rows():
            if row.primary and not placement.holds(ShardId(row.shard)):
                primaries.setdefault(NodeId(row.primary), []).append(ShardId(row.shard))
        if not primaries:
            if self._away:
                self._away, self._lines = [], None
            return
        found: list[Line] = []
        for namespace in self.namespaces:
            for node_id, shards in primaries.items():
                if node_id in self.statuses:
                    found += await self._list(node_id, namespace, shards)
        if found != self._away:
            self._away, self._lines = found, None

    async def _list(self, node_id: NodeId, namespace: str, shards: list[ShardId]) -> list[Line]:
        """Return what a node lists; what it refuses in this moment is asked again in the next."""
        found: list[Line] = []
        request = native_pb2.ListServicesRequest(
            namespace=namespace, shards=mask_to_wire(mask_of(shards))
        )
        while len(found) < limits.CONSOLE_SERVICES_MAX:
            try:
                page = await self._backend.gateway.ask(
                    node_id,
                    MessageType.LIST_SERVICES,
                    request,
                    native_pb2.ListServicesResponse,
                    timeout_ms=limits.CONSOLE_ASK_MS,
                )
            except SsGovernError:
                wanted = frozenset(shards)
                return [line for line in self._away if _shard(line) in wanted]
            for each in page.services:
                key = each.service
                found.append(
                    Line(
                        ServiceKey(key.namespace, key.group, key.service),
                        each.instances,
                        each.available,
                        each.revision,
                    )
                )
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found

    # --- the shard map ---------------------------------------------------------------------

    def rows(self) -> list[native_pb2.ShardStatus]:
        """Return who keeps which shard, in the order of shards."""
        if self._rows_counted_s != self._counted_s:
            self._rows_counted_s = self._counted_s
            self._rows = list(self._backend.cluster_status(shards=True).shards)
        return self._rows

    def row(self, shard: int) -> native_pb2.ShardStatus | None:
        """Return who keeps a shard."""
        return next((row for row in self.rows() if row.shard == shard), None)

    # --- rates -----------------------------------------------------------------------------

    def _sample(self, now_s: float, now_ms: int) -> None:
        counts = {node_id: each.entries_committed for node_id, each in self.statuses.items()}
        delays = self._backend.push_delays()
        before, self._counters = self._counters, (now_s, counts, [count for _, count in delays])
        if before is None:
            return
        then_s, counts_then, delays_then = before
        seconds = now_s - then_s
        if seconds <= 0.0:
            return
        if seconds > limits.CONSOLE_GAP_MS / 1000.0:
            # Nobody looked for a while: a mean over it would say little.
            self.samples.append(Sample(now_ms, None, None, None))
            return
        changes = sum(max(0, counts[each] - counts_then.get(each, counts[each])) for each in counts)
        bounds = [bound for bound, _ in delays]
        fresh = [
            count - then for (_, count), then in zip(delays, delays_then or [0.0], strict=False)
        ]
        self.samples.append(
            Sample(
                now_ms,
                changes / seconds,
                _quantile_ms(bounds, fresh, 0.5),
                _quantile_ms(bounds, fresh, 0.99),
            )
        )

    # --- reading ---------------------------------------------------------------------------

    @property
    def lines(self) -> list[Line]:
        """All services, in the order of their names."""
        if self._lines is None:
            lines = [line for _, each in self._shards.values() for line in each]
            lines += [line for line in self._away if _shard(line) not in self._shards]
            lines.sort()
            self._lines = lines
            self._names = []
        return self._lines

    @property
    def namespaces(self) -> list[str]:
        """Names of namespaces that have services."""
        lines = self.lines
        if not self._names:
            names: list[str] = []
            index = 0
            while index < len(lines):
                names.append(lines[index].key.namespace)
                # No name has a "\0" in it: this is the first line of the next namespace.
                after = Line(ServiceKey(names[-1] + "\0", "", ""), 0, 0, 0)
                index = bisect_left(lines, after, lo=index)
            self._names = names
        return self._names

    def of_namespace(self, namespace: str) -> list[Line]:
        """Return the services of one namespace; all of them if it is empty."""
        if not namespace:
            return self.lines
        lines = self.lines
        first = bisect_left(lines, Line(ServiceKey(namespace, "", ""), 0, 0, 0))
        last = bisect_left(lines, Line(ServiceKey(namespace + "\0", "", ""), 0, 0, 0), lo=first)
        return lines[first:last]

    def totals(self) -> Totals:
        """Return the sums."""
        statuses = list(self.statuses.values())
        lines = self.lines
        return Totals(
            services=len(lines),
            instances=sum(line.instances for line in lines),
            available=sum(line.available for line in lines),
            sessions=sum(each.sessions for each in statuses),
            connections=sum(each.connections for each in statuses),
            subscriptions=sum(each.subscriptions for each in statuses),
            protected=sum(each.sessions_protected for each in statuses),
        )


def _shard(line: Line) -> ShardId:
    return shard_of(*line.key)


def _quantile_ms(bounds: list[float], cumulative: Iterable[float], share: float) -> float | None:
    """Return the bound below which that share of the values lies; None if there were none."""
    counts = list(cumulative)
    if not counts or counts[-1] <= 0.0:
        return None
    wanted = share * counts[-1]
    below, below_count = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count >= wanted:
            if bound == float("inf"):
                return below * 1000.0
            part = (wanted - below_count) / (count - below_count) if count > below_count else 1.0
            return (below + (bound - below) * part) * 1000.0
        below, below_count = bound, count
    return below * 1000.0
