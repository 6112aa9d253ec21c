"""A true power cut: the file system under a loaded node is cut off from its disk at once.

ext4 on a loop device can be shut down without a last flush (EXT4_IOC_SHUTDOWN): what was not
synced is gone, as if the machine had lost power, and so are names that no directory sync made
durable. Needs the right to mount; skipped with the reason where that is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import LoopDisk
from processes import NodeProcess

import ssgovern
from ssgovern.errors import SsGovernError

ROUNDS = int(os.environ.get("POWER_CUTS", "3"))
WRITERS = 16


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    one = LoopDisk(tmp_path / "disk")
    try:
        if reason := one.format():
            pytest.skip(f"may not make a disk: {reason}")
        yield one
    finally:
        one.remove()


async def write(
    registry: ssgovern.Registry,
    name: str,
    disk: LoopDisk,
    present: dict[str, None],
    absent: dict[str, None],
) -> None:
    """Register and deregister until the power goes; note what was acknowledged.

    Not what was acknowledged after the cut: a node without power says nothing more. This one
    lives on, and a sync under way while ext4 is shut down may report success (the conversion
    of reserved extents is dropped without an error).
    """
    number = 0
    while disk.is_on:
        number += 1
        instance_id = f"{name}-{number}"
        one = await registry.register(
            "orders", host="h", port=1, instance_id=instance_id, ephemeral=False, timeout=1.0
        )
        if not disk.is_on:
            return
        if number % 3:
            present[instance_id] = None
        else:
            await one.deregister(timeout=1.0)
            if disk.is_on:
                absent[instance_id] = None


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_what_was_acknowledged_survives_a_power_cut(disk: LoopDisk) -> None:
    """Nothing acknowledged is lost, nothing deregistered comes back, the node starts by itself."""
    small = ("--storage-segment-bytes", str(1 << 20))
    small += ("--storage-wal-bytes-before-snapshot", str(1 << 20))
    rng = random.Random(5)
    present: dict[str, None] = {}
    absent: dict[str, None] = {}

    async def one_round(number: int, node: NodeProcess) -> None:
        async with ssgovern.connect(node.address, timeout=30.0) as registry:
            await registry.get("orders")
            until = len(present) + rng.randrange(50, 1500)
            writers = [
                asyncio.create_task(write(registry, f"r{number}w{w}", disk, present, absent))
                for w in range(WRITERS)
            ]
            async with asyncio.timeout(60):
                while len(present) < until:
                    await asyncio.sleep(0.001)
            disk.cut()
            for writer in writers:
                # Refused, or the connection is lost, or it saw itself that the power is gone.
                with contextlib.suppress(SsGovernError):
                    await writer
            node.kill()
            disk.power_on()
            node.start()
            there = {one.id for one in await registry.get("orders", timeout=60.0)}
        lost = [name for name in present if name not in there]
        back = [name for name in absent if name in there]
        assert not lost, f"{len(lost)} of {len(present)} lost: {lost[:5]}"
        assert not back, f"{len(back)} came back: {back[:5]}"

    node = NodeProcess(disk.mounted / "node", *small)
    node.start()
    try:
        for number in range(ROUNDS):
            asyncio.run(one_round(number, node))
    finally:
        node.kill()
    print(f"{ROUNDS} power cuts, {len(present) + len(absent)} acknowledged, all as promised")
