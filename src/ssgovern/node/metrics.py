"""What a node tells Prometheus of itself.

Reads counters that are kept anyway, when it is asked: costs a millisecond or two however many
instances there are. Refuses to know HTTP. Invariants: names and units follow Prometheus'
conventions; the only labels are roles, states, classes of status, ids of nodes and numbers of
shards, so that the number of series is bounded by the size of the cluster.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics

from ssgovern.node.histogram import Histogram
from ssgovern.node.node import Node
from ssgovern.version import __version__

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Families = Iterator[Metric]
Part = Callable[[], Families]


class Metrics:
    """The metrics of one node, in parts. A part that raises fails the scrape, as it should."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Families:
        """Yield all there is now."""
        for part in self._parts:
            yield from part()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type: OpenMetrics for who asks for it."""
        if "application/openmetrics-text" in accept:
            body = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body, _OPENMETRICS
        return generate_latest(self._registry), _TEXT


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """What only rises; `_total` is added to its name."""
    return CounterMetricFamily(f"ssgovern_{name}", text, value)


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """What goes up and down."""
    return GaugeMetricFamily(f"ssgovern_{name}", text, value)


def labelled(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    """Several of a kind."""
    family = GaugeMetricFamily(f"ssgovern_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def histogram(name: str, text: str, values: Histogram) -> HistogramMetricFamily:
    """How values are spread."""
    return HistogramMetricFamily(f"ssgovern_{name}", text, values.buckets(), values.sum)


# --- any node -----------------------------------------------------------------------------


class NodeMetrics:
    """What every node tells, in a cluster or alone."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __call__(self) -> Families:
        """Yield what there is so far: a node that recovers has little to tell."""
        node = self._node
        yield gauge("ready", "1 if clients may be sent to this node", not node.not_ready())
        if not node.listening:
            return
        status = node.status()
        yield InfoMetricFamily(
            "ssgovern_node",
            "Who this is",
            {
                "version": __version__,
                "node_id": str(status.node_id),
                "node_name": status.node_name,
                "cluster_id": status.cluster_id.hex(),
            },
        )
        yield from self._registry()
        yield from self._events()
        yield from self._clients()
        yield from self._log()
        yield from self._loop()

    def _registry(self) -> Families:
        registry, sessions = self._node.registry, self._node.registry.sessions
        services, instances = registry.totals()
        yield gauge("services", "Services that have instances here", services)
        yield gauge("instances", "Instances in shards that are held here", instances)
        yield counter("registrations", "Registrations taken", registry.registrations)
        yield counter("deregistrations", "Deregistrations taken", registry.deregistrations)
        yield counter("updates", "Changes of instances taken", registry.updates)
        yield gauge("sessions", "Sessions known here", len(sessions))
        yield gauge("leases", "Of these, leases: kept by requests", len(registry.leases))
        yield counter("lease_renewals", "Leases renewed", registry.leases.renewals)
        yield counter("session_expirations", "Sessions that expired here", registry.expirations)
        yield gauge(
            "sessions_protected", "Sessions that protection keeps from expiring", sessions.held
        )
        yield gauge(
            "session_ends_suspended",
            "Ends of sessions that wait for a shard to take them",
            registry.ends_due,
        )

    def _events(self) -> Families:
        events, observing = self._node.registry.events, self._node.server.observing
        yield counter("events", "Changes of instances noted for people", events.last)
        yield gauge("events_kept", "Of these, still remembered", len(events))
        yield gauge("events_readers", "Requests that wait for an event", observing.waiting)

    def _clients(self) -> Families:
        node = self._node
        push = node.drivers.push
        yield counter(
            "audit_lost", "Entries of the audit that the disk did not take", node.audit.lost
        )
        yield gauge("connections", "Native connections", len(node.server))
        yield counter("heartbeats", "Heartbeats heard from clients", node.server.heartbeats)
        yield gauge("subscriptions", "Subscriptions", node.push.subscriptions.count)
        yield counter("pushes", "Snapshots and deltas sent to subscribers", node.push.pushes)
        yield histogram(
            "push_delay_seconds",
            "From the commit of a change to the sockets of those who were up to date",
            push.delays,
        )
        yield histogram(
            "push_applied_delay_seconds",
            "From the commit of a change until a subscriber had applied it, by what it says",
            push.applied_delays,
        )
        yield gauge(
            "push_applied_lag_max_seconds",
            "For how long some subscriber has lacked a change; heartbeats bring news of it",
            node.push.applied.longest_lag_s(asyncio.get_running_loop().time()),
        )
        yield gauge(
            "push_applied_waits",
            "Requests that wait until all subscribers have applied something",
            node.push.applied.waits,
        )
        yield gauge(
            "push_services_waiting",
            "Services with a change that nobody was told of yet",
            node.push.waiting,
        )
        yield gauge(
            "push_connections_behind",
            "Connections that lack something they could take now",
            len(node.server.lacking),
        )

    def _log(self) -> Families:
        log, snapshots = self._node.drivers.log, self._node.drivers.snapshots
        size_bytes, segments = log.wal_size
        entries, entry_bytes = log.uncommitted
        yield counter("entries_committed", "Entries committed by this node", log.entries)
        yield gauge("uncommitted_entries", "Entries that wait to be committed", entries)
        yield gauge("uncommitted_bytes", "Bytes of entries that wait to be committed", entry_bytes)
        yield counter("wal_batches", "Batches of entries written to the log", log.batches)
        yield histogram("wal_batch_entries", "Entries written together", log.batch_sizes)
        yield gauge("wal_bytes", "Bytes of the log on disk", size_bytes)
        yield gauge("wal_segments", "Files of the log", segments)
        yield histogram(
            "wal_write_seconds", "Writing a batch to the log, with its sync", log.write_times
        )
        yield gauge(
            "wal_last_write_seconds", "Writing the last batch, with its sync", log.last_write_s
        )
        yield gauge("writes_refused", "1 while the disk takes no writes", bool(log.writes_refused))
        yield counter("snapshots", "Snapshots of shards written", snapshots.taken)

    def _loop(self) -> Families:
        sessions = self._node.drivers.sessions
        yield gauge(
            "loop_stall_max_seconds",
            "Longest time by which the event loop came late, since the start",
            sessions.stall_ms_max / 1000.0,
        )
        yield counter(
            "loop_stalled_seconds",
            "Time by which the event loop came late, as sampled four times a second",
            sessions.stalled_s,
        )


# --- the process --------------------------------------------------------------------------


class ProcessMetrics:
    """What the system says of this process, under the names every client of Prometheus uses."""

    def __init__(self, started_wall_s: float, resident_bytes: Callable[[], int]) -> None:
        self._started_wall_s = started_wall_s
        self._resident_bytes = resident_bytes

    def __call__(self) -> Families:
        """Yield it. File descriptors are not listed: with 100,000 that would stop the loop."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used.ru_utime + used.ru_stime
        yield CounterMetricFamily("process_cpu_seconds", "CPU time, user and system", cpu_s)
        resident = self._resident_bytes()
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", resident)
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When it started, since 1970", self._started_wall_s
        )
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield GaugeMetricFamily("process_max_fds", "File descriptors it may have", most)
        if (count := _open_files()) > 0:
            yield GaugeMetricFamily("process_open_fds", "File descriptors it has", count)


def _open_files() -> int:
    """Return how many files are open, 0 where only a list would tell (Linux before 6.2)."""
    directory = Path("/proc/self/fd")
    return os.stat(directory).st_size if directory.exists() else 0
