"""The HTTP port of real nodes: alone and in a cluster, from the first moment to the last."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster
from processes import NodeProcess, free_port
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import ssgovern.blocking

SECONDS_MAX = 60.0


def get(port: int, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Ask once; raises OSError while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request("GET", target, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def document(port: int, target: str) -> Any:
    status, body = get(port, target)
    assert status == 200, body
    return json.loads(body)


def figures(port: int) -> dict[str, float]:
    """Return every sample, by name and labels as they are written."""
    status, body = get(port, "/metrics", {"accept": "application/openmetrics-text"})
    assert status == 200
    families = text_string_to_metric_families(body.decode())
    return {
        sample.name
        + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; a port that is not open yet is one more reason to."""
    ends = time.monotonic() + SECONDS_MAX
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.05)


@contextmanager
def node(tmp_path: Path) -> Iterator[tuple[NodeProcess, int]]:
    port = free_port()
    process = NodeProcess(tmp_path / "node", "--http-port", str(port))
    process.start()
    try:
        until(lambda: get(port, "/healthz/ready")[0] == 200)
        yield process, port
    finally:
        process.kill()


def test_a_node_is_read_measured_and_stopped(tmp_path: Path) -> None:
    """What the SDK registers is there for who speaks HTTP; a stop ends idle connections."""
    with node(tmp_path) as (process, port):
        with ssgovern.blocking.connect(process.address) as registry:
            registry.register("orders", host="10.1.1.1", port=8080)
            found = document(port, "/api/v1/namespaces/default/services/default/orders")
            assert [each["id"] for each in found["instances"]] == ["10.1.1.1:8080"]
            listed = document(port, "/api/v1/namespaces/default/services")
            assert [each["service"] for each in listed["services"]] == ["orders"]
            now = figures(port)
            assert now["ssgovern_registrations_total"] == 1
            assert now["ssgovern_instances"] == 1
            assert now["process_resident_memory_bytes"] > 1 << 20
            assert now["process_cpu_seconds_total"] > 0
        assert document(port, "/api/v1/status")["ready"]
        idle = socket.create_connection(("127.0.0.1", port))
        with closing(idle):
            assert process.kill(signal.SIGTERM) == 0
            assert idle.recv(1) == b""


def test_a_hostile_client_holds_nothing_up(tmp_path: Path) -> None:
    """An endless header is refused, one that trickles is cut off, and others do not notice."""
    with node(tmp_path) as (_, port):
        slow = socket.create_connection(("127.0.0.1", port), timeout=20)
        with closing(slow), closing(socket.create_connection(("127.0.0.1", port))) as huge:
            slow.sendall(b"GET /healthz/live HTTP/1.1\r\nx: ")
            huge.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * (1 << 20))
            assert huge.recv(1 << 16).startswith(b"HTTP/1.1 431 ")
            assert get(port, "/healthz/live")[0] == 200
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
        until(lambda: figures(port)["ssgovern_http_connections"] == 1)


def test_a_port_that_is_taken_is_told_at_the_start(tmp_path: Path) -> None:
    """Nothing is half up: the node does not start, and says which option to change."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        process = NodeProcess(tmp_path / "node", "--http-port", str(port))
        process.start()
        assert process.ended() != 0
        assert "--http-port" in process.said()


def any_node_answers_for_all(ports: dict[int, int]) -> None:
    """What is changed through one node is read through all, wherever the shard is."""
    services = "/api/v1/namespaces/prod/services"
    names = [f"s{number:02}" for number in range(12)]
    leases = {}
    for number, name in enumerate(names):
        target = f"{services}/default/{name}/instances/a"
        # One is not renewed.
        body = {"host": "h", "port": 1, "ttl_ms": 2_000 if number == 0 else 60_000}
        status, answer, _ = change(ports[1 + number % 3], "PUT", target, body)
        assert status in (200, 201), answer
        leases[name] = {"lease": answer["lease"]["token"]}
    for number, name in enumerate(names[1:]):
        instance = f"{services}/default/{name}/instances/a"
        found = document(ports[1 + (number + 1) % 3], f"{instance}?fresh=true")
        assert found["instance"]["lease_ms"] == 60_000
        status, answer, _ = change(
            ports[1 + number % 3], "PUT", f"{instance}/lease", None, leases[name]
        )
        assert (status, answer["ttl_ms"]) == (200, 60_000)
    for port in ports.values():
        until(
            lambda port=port: (
                [
                    each["service"]
                    for each in document(port, f"{services}?page_size=5&name=s*")["services"]
                ]
                == names[1:6]
            )
        )
        assert document(port, "/api/v1/namespaces")["namespaces"] == [{"namespace": "prod"}]
        assert not document(port, "/api/v1/sessions")["failed_nodes"]
        assert document(port, "/api/v1/events?namespace=prod&service=s05")["events"]
    instance = f"{services}/default/s05/instances/a"
    status, drained, _ = change(ports[2], "POST", f"{instance}/drain", {"deregister": True})
    assert (status, drained["applied"], drained["removed"]) == (200, True, True)
    for port in ports.values():
        assert get(port, f"{instance}?fresh=true")[0] == 404
    status, answer, _ = change(ports[3], "POST", "/api/v1/cluster/settings", {"moves_max": 7})
    assert status == 200, answer
    assert answer["sentence"]


def change(
    port: int,
    method: str,
    target: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, str]:
    """Ask for a change; return the status, the answer and its tag."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        said = {**(headers or {}), **({} if body is None else {"content-type": "application/json"})}
        connection.request(method, target, None if body is None else json.dumps(body), said)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers.get("etag", "")


@pytest.mark.slow
def test_a_cluster_is_seen_from_each_of_its_nodes(tmp_path: Path) -> None:
    """Ready with a session and a lease; cut off when the others are gone, and it says so."""
    ports = {number: free_port() for number in (1, 2, 3)}
    cluster = Cluster(tmp_path, candidates=3)
    for number, process in cluster.nodes.items():
        process.arguments = (*process.arguments, "--http-port", str(ports[number]))
    cluster.start()
    try:
        for port in ports.values():
            until(lambda port=port: get(port, "/healthz/ready")[0] == 200)
        until(lambda: document(ports[1], "/api/v1/cluster")["shards_below_copies"] == 0)
        for port in ports.values():
            until(lambda port=port: figures(port)["ssgovern_cluster_shards_below_copies"] == 0)
        seen = {number: figures(port) for number, port in ports.items()}
        assert sum(each["ssgovern_controller"] for each in seen.values()) == 1
        assert sum(each["ssgovern_shards role=primary"] for each in seen.values()) == 256
        assert sum(each["ssgovern_elections_won_total"] for each in seen.values()) >= 1
        assert all(
            each["ssgovern_peer_link_open peer=" + str(n % 3 + 1)] for n, each in seen.items()
        )
        assert all(0 < each["ssgovern_lease_left_seconds"] <= 3 for each in seen.values())
        assert len(document(ports[2], "/api/v1/cluster/nodes")["nodes"]) == 3
        assert len(document(ports[3], "/api/v1/cluster/shards")["shards"]) == 256
        any_node_answers_for_all(ports)
        for number in (2, 3):
            cluster.nodes[number].kill()
        until(lambda: get(ports[1], "/healthz/ready")[0] == 503)
        assert get(ports[1], "/healthz/live")[0] == 200
        assert figures(ports[1])["ssgovern_lease_left_seconds"] == 0
    finally:
        cluster.kill()
