"""Metrics: what a node tells is true, can be read by Prometheus' own parser, and is bounded."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import Any, NoReturn

import pytest
from builders import ORDERS
from nodes import Stage, config_of, simulate
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample

from ssgovern.api.http.gateway import Gateway
from ssgovern.client.registry import Registry
from ssgovern.model import shard_of
from ssgovern.node.config import HttpConfig
from ssgovern.node.histogram import Histogram
from ssgovern.node.http import NodeBackend
from ssgovern.node.metrics import Metrics, NodeMetrics, ProcessMetrics
from ssgovern.node.metrics_shards import ShardMetrics
from ssgovern.runtime.real import RealRuntime

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


def metrics_of(stage: Stage) -> Metrics:
    return Metrics(NodeMetrics(stage.node), ProcessMetrics(1.0, lambda: 1 << 20))


def backend_of(stage: Stage) -> NodeBackend:
    def nobody() -> Registry:
        raise AssertionError("nothing is asked of other nodes here")

    return NodeBackend(stage.node, Gateway(nobody), RealRuntime())


def samples_of(metrics: Metrics) -> dict[str, float]:
    body, media_type = metrics.render("")
    assert media_type.startswith("text/plain")
    found: list[Sample] = [sample for family in parse(body.decode()) for sample in family.samples]
    return {sample.name: sample.value for sample in found if "le" not in sample.labels}


def test_what_happens_is_counted() -> None:
    """Registrations, heartbeats, pushes and their delay, commits and batches."""

    async def body(stage: Stage) -> None:
        before = samples_of(metrics_of(stage))
        watcher = await stage.client("watcher")
        await watcher.subscribe(ORDERS)
        app = await stage.client("app")
        await app.register("a")
        await app.heartbeat()
        stage.node.audit.lost += 3
        await asyncio.sleep(0.1)
        after = samples_of(metrics_of(stage))
        grown = {name: after[name] - before.get(name, 0.0) for name in after}
        assert grown["ssgovern_audit_lost_total"] == 3
        assert grown["ssgovern_registrations_total"] == 1
        assert grown["ssgovern_heartbeats_total"] == 1
        assert grown["ssgovern_entries_committed_total"] == 1
        assert grown["ssgovern_push_delay_seconds_count"] == 1
        assert grown["ssgovern_pushes_total"] == 2
        assert grown["ssgovern_events_total"] == after["ssgovern_events_kept"] == 1
        assert grown["ssgovern_wal_batch_entries_count"] >= 1
        assert after["ssgovern_instances"] == after["ssgovern_services"] == 1
        assert after["ssgovern_sessions"] == after["ssgovern_connections"] == 2
        assert after["ssgovern_subscriptions"] == 1
        assert after["ssgovern_uncommitted_entries"] == 0
        assert after["ssgovern_ready"] == 1
        assert (
            after["ssgovern_wal_write_seconds_count"] > before["ssgovern_wal_write_seconds_count"]
        )

    simulate(body)


def test_both_formats_can_be_read_and_say_the_same() -> None:
    """By the parsers of Prometheus' own client, strict about names, types and suffixes."""

    async def body(stage: Stage) -> None:
        metrics = metrics_of(stage)
        text, _ = metrics.render("")
        modern, media_type = metrics.render(OPENMETRICS)
        assert media_type.startswith("application/openmetrics-text; version=1.0.0")
        old = {sample.name for family in parse(text.decode()) for sample in family.samples}
        new = {s.name for family in parse_openmetrics(modern.decode()) for s in family.samples}
        assert old == new

    simulate(body)


def test_names_follow_the_conventions_and_labels_are_few() -> None:
    """A prefix, base units, `_total` for what only rises, and nothing named after a service."""

    async def body(stage: Stage) -> None:
        for family in metrics_of(stage).collect():
            assert re.fullmatch(r"(ssgovern|process)_[a-z_]+", family.name), family.name
            assert not re.search(r"_(ms|us|kb|mb|minutes)$", family.name), family.name
            assert family.documentation
            assert len(family.samples) <= 16
            for sample in family.samples:
                assert (family.type == "counter") == sample.name.endswith("_total")

    simulate(body)


def test_each_shard_that_is_led_has_a_sample_and_no_other_has() -> None:
    """256 of each kind at a node that stands alone, told by the number of the shard."""

    async def body(stage: Stage) -> None:
        await (await stage.client("app")).register("a", "b")
        shard = shard_of(*ORDERS)
        found = {family.name: family for family in ShardMetrics(stage.node)()}
        assert {len(family.samples) for family in found.values()} == {256}
        values = {
            name: {sample.labels["shard"]: sample.value for sample in family.samples}
            for name, family in found.items()
        }
        assert values["ssgovern_shard_instances"][str(shard)] == 2
        assert sum(values["ssgovern_shard_instances"].values()) == 2
        assert values["ssgovern_shard_entries"][str(shard)] == 3
        assert set(values["ssgovern_shard_replication_lag_entries"].values()) == {0}

    simulate(body)


def test_a_node_that_recovers_says_little_and_is_not_ready() -> None:
    """Before it listens there is nothing to read, and nothing fails."""

    async def body(stage: Stage) -> None:
        stage.node.listening = False
        assert samples_of(Metrics(NodeMetrics(stage.node))) == {"ssgovern_ready": 0.0}
        assert backend_of(stage).not_ready() == "starting"
        stage.node.listening = True
        assert backend_of(stage).not_ready() == ""

    simulate(body)


def test_a_node_alone_is_a_cluster_of_one() -> None:
    """What is asked of clusters has an answer everywhere."""

    async def body(stage: Stage) -> None:
        status = backend_of(stage).cluster_status(shards=True)
        assert (status.shards_total, len(status.shards), status.nodes[0].primaries) == (256,) * 3
        assert status.node_id == status.shards[0].primary

    simulate(body)


def test_a_node_without_http_does_not_even_load_it() -> None:
    """Nothing but a configured port brings it, so simulation stays as it was."""
    assert config_of().http == HttpConfig(host="127.0.0.1", port=0)
    libraries = ("starlette", "uvicorn", "httptools", "prometheus_client", "ssgovern.api.http")
    script = (
        "import sys, ssgovern.node.server, ssgovern.sim.harness, ssgovern.sim.cluster_harness\n"
        f"print([name for name in {libraries!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


class Untouchable(dict[Any, Any]):
    """A table that must not be walked."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("walked")

    items = values = keys = __iter__  # type: ignore[assignment]


def test_a_scrape_walks_no_services_instances_or_sessions() -> None:
    """It costs the same whatever a node holds: only sums are read."""

    async def body(stage: Stage) -> None:
        app = await stage.client("app")
        await app.register("a", "b")
        kept = [(state.services, state.owned) for state in stage.node.states]
        for state in stage.node.states:
            state.services, state.owned = Untouchable(state.services), Untouchable(state.owned)
        assert samples_of(metrics_of(stage))["ssgovern_instances"] == 2
        for state, (services, owned) in zip(stage.node.states, kept, strict=True):
            state.services, state.owned = services, owned

    simulate(body)


@pytest.mark.parametrize(("value", "first"), [(0.0, 0), (0.1, 0), (0.10001, 1), (1.0, 1), (1.5, 2)])
def test_a_histogram_counts_up_to_its_bounds(value: float, first: int) -> None:
    """A value at a bound is within it; what is beyond all is in the last."""
    histogram = Histogram((0.1, 1.0))
    histogram.observe(value, 3)
    counts = [count for _, count in histogram.buckets()]
    assert counts == [0.0] * first + [3.0] * (3 - first)
    assert histogram.count == 3
    assert histogram.sum == pytest.approx(3 * value)
    assert [name for name, _ in histogram.buckets()] == ["0.1", "1.0", "+Inf"]
