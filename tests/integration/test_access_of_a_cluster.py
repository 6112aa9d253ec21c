"""Access control of real clusters: at every port, on every node, and after a node is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import httpx
import pytest
from clusters import Cluster, is_whole, until_status
from processes import free_port

import ssgovern
from ssgovern.client.access import AccessAdministration

SECRET = "what-all-nodes-of-it-share"
SECONDS_MAX = 20.0
SERVICES = [f"orders-{number}" for number in range(8)]
"""Of them some are kept by each node."""


def init(*arguments: str) -> dict[str, str]:
    """Return what `ss-govern access init` prints."""
    command = [sys.executable, "-m", "ssgovern.cli.main", "access", "init", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def id_of(token: str) -> str:
    return token.split("_")[1]


class Guarded(Cluster):
    """A cluster whose nodes have HTTP ports and a secret."""

    def __init__(self, root: Path, candidates: int, others: int = 0, *arguments: str) -> None:
        super().__init__(root, candidates, others, "--cluster-secret", SECRET, *arguments)
        self.http = {number: free_port() for number in self.nodes}
        for number, node in self.nodes.items():
            node.arguments += ("--http-port", str(self.http[number]))

    def instance(self, number: int, service: str, namespace: str = "prod") -> str:
        """Where an instance of a service is, by way of a node."""
        path = f"/api/v1/namespaces/{namespace}/services/default/{service}/instances/a"
        return f"http://127.0.0.1:{self.http[number]}{path}"

    async def status(self, number: int, token: str, **where: str) -> int:
        """Register over HTTP, by way of a node; return the status of the answer."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        target = self.instance(number, where.pop("service", SERVICES[0]), **where)
        async with httpx.AsyncClient(timeout=SECONDS_MAX) as client:
            body = {"host": "10.0.0.1", "port": 1}
            return (await client.put(target, headers=headers, json=body)).status_code

    async def until_refused(self, number: int, token: str) -> None:
        """Wait until a token is good for nothing, at either port of a node."""
        async with asyncio.timeout(SECONDS_MAX):
            while await self.status(number, token) != 401:
                await asyncio.sleep(0.05)
        await self.is_refused(number, token)

    async def is_refused(self, number: int, token: str) -> None:
        address = self.nodes[number].address
        async with ssgovern.connect(address, token=token or None, timeout=10.0) as registry:
            with pytest.raises(ssgovern.UnauthenticatedError):
                await registry.get("orders")
        assert await self.status(number, token) == 401


def play(cluster: Cluster, program: Callable[[], Coroutine[object, object, None]]) -> None:
    try:
        asyncio.run(program())
    finally:
        cluster.kill()


@pytest.mark.timeout(120)
def test_rights_hold_on_every_node_and_without_one_of_them(tmp_path: Path) -> None:
    """Who shows nothing is refused, a role counts for its namespace, what is revoked through one
    node is revoked at all: with all nodes, and with one killed."""
    made = init("--cluster")
    cluster = Guarded(tmp_path, 3, 0, "--access-admin-token-hash", made["admin_token_hash"])
    cluster.start()

    async def program() -> None:
        async with cluster.connect(token=made["token"]) as admin:
            status = await until_status(admin, is_whole(3))
            administration = AccessAdministration(admin)
            await administration.set_user(
                "ann", create=True, password="a long password", roles=["admin"]
            )
            grants = [("prod", "default/*", ("read", "register"))]
            await administration.set_role("shop", grants)
            shop, late = [
                (await administration.create_token(roles=["shop"])).token for _ in range(2)
            ]
            for number in cluster.nodes:
                await cluster.is_refused(number, "")
                assert await cluster.status(number, shop, service=SERVICES[number]) in (200, 201)
                assert await cluster.status(number, shop, namespace="test") == 403
            async with cluster.connect(token=shop, namespace="prod") as registry:
                for service in SERVICES:
                    await registry.register(service, host="10.0.0.2", port=2)
            async with cluster.connect(token=shop, namespace="test") as registry:
                with pytest.raises(ssgovern.PermissionDeniedError):
                    await registry.register(SERVICES[0], host="10.0.0.2", port=2)
            only_first = ssgovern.connect(cluster.nodes[1].address, token=made["token"])
            async with only_first as first:
                await AccessAdministration(first).revoke_token(id_of(shop))
            await cluster.until_refused(2, shop)
            await cluster.until_refused(3, shop)

            killed = status.controller_id
            cluster.nodes[killed].kill(signal.SIGKILL)
            one, other = (number for number in cluster.nodes if number != killed)
            for number in (one, other):
                await cluster.is_refused(number, "")
                await cluster.is_refused(number, shop)
                assert await cluster.status(number, late, namespace="test") == 403
            left = ssgovern.connect(cluster.nodes[one].address, token=made["token"], timeout=60.0)
            async with left as remaining:
                await AccessAdministration(remaining).revoke_token(id_of(late))
            await cluster.until_refused(other, late)

    play(cluster, program)


@pytest.mark.timeout(120)
def test_who_was_set_up_on_a_single_node_comes_along(tmp_path: Path) -> None:
    """Tokens, users and roles of the node that founds a cluster count on all its nodes."""
    cluster = Guarded(tmp_path, 1, 1)
    first = cluster.nodes[1]
    made = init("--data-dir", str(first.data_dir))
    clustered, first.arguments = first.arguments, ("--node-id", "1", "--node-name", "n1")
    first.start()

    async def program() -> None:
        async with ssgovern.connect(first.address, token=made["token"], timeout=30.0) as admin:
            administration = AccessAdministration(admin)
            await administration.set_role("shop", [("prod", "*", ("read", "register"))])
            shop = (await administration.create_token(roles=["shop"])).token
            assert first.kill(signal.SIGTERM) == 0
            first.arguments = clustered
            cluster.start()
            await until_status(admin, lambda status: sum(each.live for each in status.nodes) == 2)
        async with cluster.connect(token=made["token"]) as admin:
            state = (await AccessAdministration(admin).show()).state
            assert [user.name for user in state.users] == ["admin"]
            assert [role.name for role in state.roles] == ["shop"]
        for number in cluster.nodes:
            await cluster.is_refused(number, "")
            assert await cluster.status(number, shop) in (200, 201)
            assert await cluster.status(number, shop, namespace="test") == 403

    play(cluster, program)
