"""Real nodes with TLS on all their ports: who gets in, who is told what, and new certificates."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from certificates import HERE, Dialler, Papers, ca, node_certificate, now
from clusters import Cluster, Load, is_whole, until_status
from processes import NodeProcess, free_port

import ssgovern
from ssgovern.errors import PeerRefusedError
from ssgovern.model import session_id_of
from ssgovern.node.certificates import issue
from ssgovern.transport.channel import Channel, open_channel
from ssgovern.transport.tls_context import dialling_context
from ssgovern.wire.codec import decode, encode, key_to_wire
from ssgovern.wire.frames import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, MessageType
from ssgovern.wire.pb import native_pb2, peer_pb2

ANSWER_S_MAX = 30.0
SECRET = bytes(range(16))


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path / "tls")


def shown(papers: Papers) -> ssgovern.Tls:
    return ssgovern.Tls(papers.ca, papers.client_cert, papers.client_key)


# --- one node ------------------------------------------------------------------------------


@pytest.fixture
def node(papers: Papers, tmp_path: Path) -> Iterator[NodeProcess]:
    process = NodeProcess(
        tmp_path / "data",
        *papers.arguments("required"),
        *("--http-port", str(free_port())),
    )
    process.start()
    yield process
    process.kill()


async def why_not(node: NodeProcess, tls: object) -> str:
    async with ssgovern.connect(node.address, tls=tls, timeout=1.0) as registry:  # type: ignore[arg-type]
        with pytest.raises(ssgovern.UnavailableError) as caught:
            await registry.get("orders")
    return caught.value.message


@pytest.mark.timeout(120)
def test_a_node_talks_tls_to_whom_it_trusts_and_takes_up_a_new_certificate(
    node: NodeProcess, papers: Papers, tmp_path: Path
) -> None:
    """SDK, command and HTTP get through with a certificate; others read why not; a certificate
    that replaces the old one is shown to whom connects next, and those there were stay."""
    web = f"https://127.0.0.1:{node.arguments[-1]}"
    context = dialling_context(str(papers.ca), papers.client)

    def expires() -> float:
        # Each time on a connection of its own.
        lines = httpx.get(f"{web}/metrics", verify=context).text.splitlines()
        name = "ssgovern_tls_certificate_expiry_timestamp_seconds"
        return next(float(line.split()[1]) for line in lines if line.startswith(name))

    async def program() -> None:
        async with ssgovern.connect(
            node.address, tls=shown(papers), timeout=ANSWER_S_MAX
        ) as registry:
            await registry.register("orders", host="10.0.0.1", port=1)
            assert len(await registry.get("orders")) == 1
            since = registry.connection.since

            stranger = Papers(tmp_path / "stranger", "another CA")
            foreign = ssgovern.Tls(papers.ca, stranger.client_cert, stranger.client_key)
            async with asyncio.TaskGroup() as group:
                told = {
                    words: group.create_task(why_not(node, tls))
                    for words, tls in {
                        "this port speaks TLS": False,
                        "not signed by a CA that is trusted here": stranger.ca,
                        "it wants a certificate from this side": papers.ca,
                        "it does not trust the CA that signed this side's": foreign,
                    }.items()
                }
            for words, task in told.items():
                assert words in task.result()

            before = await asyncio.to_thread(expires)
            papers.replace(issue(ca(), "renewed", HERE, now(), server=True, days=30))
            async with asyncio.timeout(ANSWER_S_MAX):
                while await asyncio.to_thread(expires) == before:
                    await asyncio.sleep(0.2)
            assert len(await registry.get("orders")) == 1
            assert registry.connection.since == since

    asyncio.run(program())
    plain = httpx.get(web.replace("https", "http"))
    assert plain.status_code == 400
    assert "use https://" in plain.json()["detail"]
    command = [sys.executable, "-m", "ssgovern.cli.main", "status", "-s", node.address]
    paths = ("--tls-ca", str(papers.ca), "--tls-cert", str(papers.client_cert))
    answer = subprocess.run(
        [*command, *paths, "--tls-key", str(papers.client_key)],
        capture_output=True,
        text=True,
        timeout=ANSWER_S_MAX,
    )
    assert answer.returncode == 0, answer.stderr
    # What does not fit together is told when it is found, and kept out.
    papers.cert.write_bytes(node_certificate(expired=True).cert)
    node.kill(signal.SIGTERM)
    assert "no TLS connection with 127.0.0.1: it showed no certificate" in node.said()
    node.start()
    assert node.ended() == 2
    assert "tls.key: " in node.said()


# --- a cluster -----------------------------------------------------------------------------


async def dialled(address: str, dialler: Dialler) -> Channel:
    host, _, port = address.rpartition(":")
    deadline = asyncio.get_running_loop().time() + ANSWER_S_MAX
    return await open_channel(host, int(port), lambda *_: None, deadline=deadline, tls=dialler)


async def asked(channel: Channel, type_: int, body: bytes) -> bytes:
    return await channel.send_request(type_, body, asyncio.get_running_loop().time() + ANSWER_S_MAX)


@pytest.mark.timeout(180)
def test_a_cluster_links_with_certificates_and_survives_a_killed_node(
    papers: Papers, tmp_path: Path
) -> None:
    """Nodes show each other certificates and lose nothing when one dies; one node answers for all
    to a client that knows it alone; who shows no certificate is no node."""
    cluster = Cluster(tmp_path, 3, 0, *papers.arguments("optional"))
    cluster.start()

    async def program() -> None:
        load = Load()
        async with cluster.connect(tls=papers.ca) as registry:
            await until_status(registry, is_whole(3))
            async with load.on(registry):
                cluster.nodes[3].kill(signal.SIGKILL)
                await load.more(200)
                await passed_on(papers, cluster, list(load.present)[:20])
                await no_peer_without_certificate(papers, cluster)

    try:
        asyncio.run(program())
    finally:
        cluster.kill()
    for node in cluster.nodes.values():
        assert "no TLS connection" not in node.said()


async def passed_on(papers: Papers, cluster: Cluster, places: list[tuple[str, str]]) -> None:
    channel = await dialled(cluster.nodes[1].address, papers.dialler())
    hello = native_pb2.HelloRequest(
        version_min=PROTOCOL_VERSION_MIN,
        version_max=PROTOCOL_VERSION_MAX,
        role=native_pb2.ROLE_CLIENT,
        client_name="simple",
        session_id=session_id_of(SECRET),
        session_secret=SECRET,
        forward=True,
    )
    await asked(channel, MessageType.HELLO, encode(hello))
    for service, _ in places:
        key = ssgovern.ServiceKey("test", "default", service)
        request = native_pb2.GetRequest(service=key_to_wire(key))
        decode(native_pb2.GetResponse, await asked(channel, MessageType.GET, encode(request)))
    channel.abort()
    await channel.wait_lost()


async def no_peer_without_certificate(papers: Papers, cluster: Cluster) -> None:
    channel = await dialled(cluster.nodes[1].address, papers.dialler())
    hello = peer_pb2.PeerHelloRequest(node_id=9, nonce=bytes(32))
    with pytest.raises(PeerRefusedError, match="wants to see a certificate"):
        await asked(channel, MessageType.PEER_HELLO, encode(hello))
    channel.abort()
    await channel.wait_lost()
