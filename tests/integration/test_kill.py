"""What a node acknowledged survives that the node is killed, at any moment, again and again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import NodeProcess

import ssgovern
from ssgovern import Registration

ROUNDS = int(os.environ.get("KILL_ROUNDS", "6"))
WRITERS = 24
SERVICES = 8


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    # Small segments and early snapshots, so that kills fall into rolling and snapshotting too.
    small = ("--storage-segment-bytes", str(1 << 20))
    small += ("--storage-wal-bytes-before-snapshot", str(1 << 20))
    one = NodeProcess(tmp_path / "node", *small)
    one.start()
    yield one
    one.kill()


class Ledger:
    """What the writers were promised."""

    def __init__(self) -> None:
        self.present: dict[tuple[str, str], None] = {}
        self.absent: dict[tuple[str, str], None] = {}
        self.acknowledged = 0


async def write(
    registry: ssgovern.Registry, writer: int, ledger: Ledger, rng: random.Random
) -> None:
    """Register for ever, deregister some; note only what was acknowledged."""
    held: list[tuple[str, Registration]] = []
    number = 0
    while True:
        if held and rng.random() < 0.3:
            service, registration = held.pop(rng.randrange(len(held)))
            place = (service, registration.instance.id)
            del ledger.present[place]  # from now on unknown, until the answer
            await registration.deregister(timeout=60.0)
            ledger.absent[place] = None
        else:
            service = f"orders-{rng.randrange(SERVICES)}"
            number += 1
            registration = await registry.register(
                service,
                host="10.0.0.1",
                port=8080,
                instance_id=f"w{writer}-{number}",
                ephemeral=rng.random() < 0.5,
                metadata={"writer": str(writer), "number": str(number)},
                timeout=60.0,
            )
            held.append((service, registration))
            ledger.present[service, registration.instance.id] = None
        ledger.acknowledged += 1


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_what_was_acknowledged_survives_kills_under_load(node: NodeProcess) -> None:
    """No acknowledged registration is lost, no acknowledged deregistration comes back."""
    rng = random.Random(7)

    async def check(ledger: Ledger) -> None:
        async with ssgovern.connect(node.address, timeout=60.0) as reader:
            there: set[tuple[str, str]] = set()
            for number in range(SERVICES):
                service = f"orders-{number}"
                there |= {(service, one.id) for one in await reader.get(service)}
        lost = [place for place in ledger.present if place not in there]
        resurrected = [place for place in ledger.absent if place in there]
        assert not lost, f"{len(lost)} of {len(ledger.present)} lost: {lost[:5]}"
        assert not resurrected, f"{len(resurrected)} came back: {resurrected[:5]}"

    async def program() -> None:
        ledger = Ledger()
        async with ssgovern.connect(node.address, timeout=60.0) as registry:
            for number in range(ROUNDS):
                before = ledger.acknowledged
                writers = [
                    asyncio.create_task(write(registry, number * WRITERS + w, ledger, rng))
                    for w in range(WRITERS)
                ]
                # Not a fixed time: a slow machine must write something in each round too.
                until = before + rng.randrange(1, 2000)
                async with asyncio.timeout(60):
                    while ledger.acknowledged < until:
                        await asyncio.sleep(0.001)
                node.kill(signal.SIGKILL)
                node.start()
                # Some more answers, so that requests cut off by the kill are repeated and end.
                async with asyncio.timeout(60):
                    while ledger.acknowledged < until + WRITERS:
                        await asyncio.sleep(0.001)
                        for writer in writers:
                            if writer.done():
                                writer.result()
                for writer in writers:
                    writer.cancel()
                for writer in writers:
                    with pytest.raises(asyncio.CancelledError):
                        await writer
                await check(ledger)
        print(f"{ROUNDS} kills, {ledger.acknowledged} acknowledged writes, all as promised")

    asyncio.run(program())


def test_a_clean_stop_loses_nothing_and_leaves_a_short_log(node: NodeProcess) -> None:
    """SIGTERM ends with exit code 0, snapshots taken, and everything there at the next start."""

    async def program() -> None:
        async with ssgovern.connect(node.address, timeout=60.0) as registry:
            for port in range(1, 200):
                await registry.register("orders", host="h", port=port, ephemeral=False)
            assert node.kill(signal.SIGTERM) == 0
            log_bytes = sum(path.stat().st_size for path in (node.data_dir / "wal").iterdir())
            assert log_bytes < 1 << 20
            node.start()
            assert len(await registry.get("orders")) == 199

    asyncio.run(program())
