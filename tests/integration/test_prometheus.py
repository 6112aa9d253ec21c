"""A cluster of real processes, looked at: by its own sessions and events, and by Prometheus."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from clusters import Cluster, is_whole, until_status
from processes import free_port

from ssgovern import EventKind, Instance, Registry
from ssgovern.model import ServiceKey

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/ss-govern.rules.yml"
EXAMPLE = ROOT / "deploy/prometheus/prometheus.example.yml"
SECONDS_MAX = 60.0


KILLED = 3
"""The node that dies in the middle of it."""


class Watched(Cluster):
    """Three candidates, each with its HTTP port."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, 3)
        self.killed = False
        self.http = {number: free_port() for number in self.nodes}
        for number, node in self.nodes.items():
            node.arguments += ("--http-port", str(self.http[number]))

    def kill_one(self) -> None:
        """Kill a node, unless it was killed before."""
        if not self.killed:
            self.nodes[KILLED].kill(signal.SIGKILL)
            self.killed = True


# --- Prometheus ---------------------------------------------------------------------------


def prometheus_is_here() -> bool:
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


@contextmanager
def prometheus(root: Path, targets: list[str]) -> Iterator[Callable[[str], Any]]:
    """Run a Prometheus with what is shipped, only faster; give what asks its API."""
    rules = re.sub(r"for: \d+[smh]", "for: 1s", RULES.read_text("utf-8"))
    assert rules.count("for: 1s") > 10, "the rules are written otherwise than this knows"
    (root / RULES.name).write_text(rules)
    config = EXAMPLE.read_text("utf-8")
    listed = "".join(f"          - {target}\n" for target in targets)
    for before, after in (
        ("scrape_interval: 5s", "scrape_interval: 500ms\n    scrape_timeout: 500ms"),
        ("          - 127.0.0.1:7421\n", listed),
        ("scrape_configs:", "global:\n  evaluation_interval: 500ms\n\nscrape_configs:"),
    ):
        assert before in config, f"{EXAMPLE.name} is written otherwise than this knows: {before}"
        config = config.replace(before, after)
    (root / "prometheus.yml").write_text(config)
    check = ["promtool", "check", "config", str(root / "prometheus.yml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    with (root / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={root / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={root / 'tsdb'}", "--log.level=warn"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )

        def ask(path: str) -> Any:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", f"/api/v1/{path}")
                response = connection.getresponse()
                body = response.read()
            if response.status == 503:
                raise ConnectionError("it is starting")
            assert response.status == 200, body
            return json.loads(body)["data"]

        try:
            yield ask
        except AssertionError:
            print((root / "prometheus.log").read_text())
            raise
        finally:
            process.kill()
            process.wait(10)


def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for a condition; a port that is not open yet is one more reason to."""
    ends = time.monotonic() + SECONDS_MAX
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        if time.monotonic() > ends:
            raise AssertionError(f"it did not get there: {what()}")
        time.sleep(0.1)


# --- one cluster, watched by one Prometheus, through the death of a node --------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    one = Watched(tmp_path_factory.mktemp("watched"))
    one.start()
    yield one
    one.kill()


@pytest.fixture(scope="module")
def ask(
    cluster: Watched, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Any]]:
    if not prometheus_is_here():
        pytest.skip("Prometheus is not installed")
    targets = [target_of(cluster, number) for number in cluster.nodes]
    with prometheus(tmp_path_factory.mktemp("prometheus"), targets) as api:
        yield api


def target_of(cluster: Watched, number: int) -> str:
    return f"127.0.0.1:{cluster.http[number]}"


def states(ask: Callable[[str], Any]) -> dict[str, str]:
    found = ask("targets?state=active")["activeTargets"]
    return {each["labels"]["instance"]: each["health"] for each in found}


def firing(ask: Callable[[str], Any]) -> set[tuple[str, str]]:
    return {
        (each["labels"]["alertname"], each["labels"].get("instance", ""))
        for each in ask("alerts")["alerts"]
        if each["state"] == "firing"
    }


def value(ask: Callable[[str], Any], query: str) -> float:
    found = ask(f"query?query={quote(query)}")["result"]
    return float(found[0]["value"][1]) if found else -1.0


def test_prometheus_sees_every_node(cluster: Watched, ask: Callable[[str], Any]) -> None:
    """With what is shipped: all targets are up, all rules are evaluated, and none alerts."""
    until(lambda: value(ask, "sum(ssgovern_ready)") == 3, lambda: states(ask))
    assert set(states(ask).values()) == {"up"}
    until(lambda: value(ask, "count(ssgovern_shard_epoch)") == 256, lambda: states(ask))
    until(lambda: not firing(ask), lambda: firing(ask))
    expected = RULES.read_text("utf-8").count("- alert:")
    until(lambda: len(evaluated(ask)) == expected, lambda: evaluated(ask))


def evaluated(ask: Callable[[str], Any]) -> list[str]:
    """Return the rules that were evaluated; none of them may have failed."""
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    failed = [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"]
    assert not failed, failed
    return [rule["name"] for rule in rules if rule["health"] == "ok"]


def test_sessions_and_events_are_those_of_the_whole_cluster(cluster: Watched) -> None:
    """Each once, whichever nodes tell of it, also of what a node did that is killed then."""

    async def main() -> None:
        async with cluster.connect(client_name="watcher") as watcher:
            await until_status(watcher, is_whole(3))
            async with cluster.connect(client_name="shop") as shop:
                names = [f"orders-{number}" for number in range(20)]
                instance = Instance(id="", host="10.0.0.1", port=1)
                await shop.register_all([(name, instance) for name in names])
                [session] = (await watcher.sessions(client_name="shop")).sessions
                assert (session.session_id, session.instances) == (shop.session_id, 20)
                assert [each.node_id for each in session.nodes] == [1, 2, 3]

                found = await watcher.events(cluster=True, limit=500)
                registered = [e.key for e in found.events if e.kind is EventKind.REGISTERED]
                assert sorted(key.service for key in registered if key) == sorted(names)
                reasons = [each.reason for each in found.events if each.is_cluster]
                assert any(reason.startswith("founded cluster") for reason in reasons)
                assert all(each.time_ms for each in found.events)

                name = next(n for n in names if primary_of(watcher, n) == KILLED)
                async with watcher.follow_events(cluster=True) as feed:
                    await shop.update(name, "10.0.0.1:1", weight=8)
                    cluster.kill_one()
                    await shop.update(name, "10.0.0.1:1", weight=7)
                    told = []
                    async with asyncio.timeout(SECONDS_MAX):
                        while len([e for e in told if e.kind is EventKind.UPDATED]) < 2:
                            told.append(await anext(feed))
        weights = [c.after for e in told for c in e.changes]
        assert weights == ["8", "7"]
        assert any(each.reason.startswith(f"fenced node {KILLED} ") for each in told)

    asyncio.run(main())


def primary_of(registry: Registry, service: str) -> int:
    return registry._session.primary_of(ServiceKey("test", "default", service))


def test_a_killed_node_raises_its_alert(cluster: Watched, ask: Callable[[str], Any]) -> None:
    """And that copies are missing; what the node led is led, and told of, by the others."""
    cluster.kill_one()
    target = target_of(cluster, KILLED)
    until(lambda: ("SsGovernNodeDown", target) in firing(ask), lambda: firing(ask))
    assert states(ask)[target] == "down"
    until(lambda: ("SsGovernShardsBelowCopies", "") in firing(ask), lambda: firing(ask))
    until(lambda: value(ask, "count(ssgovern_shard_epoch)") == 256, lambda: states(ask))
