"""A real node on a disk that fills up, and a real node that stands still."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import NodeProcess

import ssgovern
from ssgovern.errors import DiskFullError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3M", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def fill(registry: ssgovern.Registry, held: list[str]) -> None:
    """Register large instances for ever; note which were acknowledged."""
    while True:
        one = await registry.register(
            "orders",
            host="h",
            port=1 + len(held),
            metadata={"filling": "x" * 4000},
            timeout=3.0 if held else 30.0,
        )
        held.append(one.instance.id)


def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk: Path) -> None:
    """Writes are refused and reads answered while the disk is full; then both work again."""
    node = NodeProcess(small_disk / "node")
    node.start()

    async def program() -> None:
        async with ssgovern.connect(node.address, timeout=30.0) as registry:
            held: list[str] = []
            with pytest.raises(DiskFullError):
                await fill(registry, held)
            assert len(held) > 100
            assert "no space" in (await registry.status()).writes_refused
            assert sorted(held) == [one.id for one in await registry.get("orders")]

            subprocess.run(["mount", "-o", "remount,size=32M", str(small_disk)], check=True)
            one = await registry.register("orders", host="h", port=60_000, timeout=30.0)
            assert not (await registry.status()).writes_refused
            held.append(one.instance.id)

            node.kill(signal.SIGKILL)
            node.start()
            assert {*held} <= {one.id for one in await registry.get("orders", timeout=30.0)}

    try:
        asyncio.run(program())
    finally:
        node.kill()


def test_a_node_that_stood_still_expires_nobody(tmp_path: Path) -> None:
    """A pause longer than a session's time to live is the node's fault, not the session's."""
    node = NodeProcess(
        tmp_path / "node", "--session-ttl-ms", "1000", "--session-heartbeat-interval-ms", "250"
    )
    node.start()

    async def program() -> None:
        async with (
            ssgovern.connect(node.address, timeout=30.0) as registry,
            ssgovern.connect(node.address, timeout=30.0) as watcher,
        ):
            await registry.register("orders", host="h", port=1)
            async with watcher.subscribe("orders") as orders:
                assert len(orders.instances) == 1
                node.send(signal.SIGSTOP)
                # The pause itself: nothing can be observed while it lasts.
                await asyncio.sleep(2.5)
                node.send(signal.SIGCONT)
                assert len(await watcher.get("orders")) == 1
                assert (await watcher.status()).expirations == 0
                assert len(orders.instances) == 1

    try:
        asyncio.run(program())
    finally:
        node.kill()
