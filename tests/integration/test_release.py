"""Taking instances away without losing a request, over a cluster of real processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, is_whole, until_status

import ssgovern


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, candidates=3)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
def watcher(three: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A process that follows the service `orders`; it says `watching` when it does."""
    command = [sys.executable, "-m", "ssgovern.cli.main", "watch", "orders", "-n", "test"]
    process = subprocess.Popen(
        [*command, "--server", ",".join(three.addresses), "--timeout", "60"],
        stdout=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def until_follows(registry: ssgovern.Registry) -> ssgovern.Subscriber:
    """Wait until somebody follows the service and has said what he has applied."""
    async with asyncio.timeout(60.0):
        while True:
            for each in (await registry.subscribers("orders")).subscribers:
                if each.position is not None:
                    return each
            await asyncio.sleep(0.1)


@pytest.mark.timeout(120)
def test_a_subscriber_that_stands_still_is_named(
    three: Cluster, watcher: subprocess.Popen[bytes]
) -> None:
    """Draining names the one process that does not know, and is through when it does."""

    async def program() -> None:
        async with three.connect() as registry:
            await until_status(registry, is_whole(3))
            registration = await registry.register("orders", host="10.0.0.1", port=1)
            follower = await until_follows(registry)

            watcher.send_signal(signal.SIGSTOP)
            drained = await registry.drain("orders", "10.0.0.1:1", any_owner=True, timeout=3.0)
            assert drained.drained is not None
            assert not drained.complete
            assert [each.session_id for each in drained.drained.lacking] == [follower.session_id]
            assert drained.drained.lacking_total == 1

            loop = asyncio.get_running_loop()
            loop.call_later(0.5, watcher.send_signal, signal.SIGCONT)
            released = await registration.drain(timeout=60.0)
            assert released.complete
            assert released.removed
            assert registry.connection.connected

    asyncio.run(program())
