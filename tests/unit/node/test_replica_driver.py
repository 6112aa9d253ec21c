"""What a replica does rests on its disk, also when that is full and when a snapshot comes."""

from __future__ import annotations

import asyncio

from hosting import OTHER, PEER, SHARD, Hosting, body_of, row, settle, simulate, state_with

from ssgovern.model import ORIGIN, LogPosition
from ssgovern.replication.messages import Appended, AppendEntries, Entry
from ssgovern.storage.format import CUT, ENTRY, EPOCH


async def replica(node: Hosting) -> None:
    """Let this node be a replica of the first two shards, whose primary is node 2."""
    node.found()
    node.agree(s0=row(1, 2, primary=2), s1=row(1, 2, primary=2))
    await settle()


def test_what_is_acknowledged_is_on_disk() -> None:
    """A reply leaves after the promise and the entries it rests on were written, in that order."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.wal.takes_s = 0.02
        node.append(1, ORIGIN, "", "a")
        assert not node.said(Appended)
        await asyncio.sleep(0.01)
        assert not node.said(Appended), "the disk is not done"
        await settle()
        assert [said.held for said in node.said(Appended)] == [2]
        assert node.wal.of(SHARD) == [(EPOCH, 1, 0), (ENTRY, 1, 1), (ENTRY, 1, 2)]

    simulate(body)


def test_a_full_disk_leaves_no_gap() -> None:
    """Entries that the disk refused were never there: sent again, all is taken and applied."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.append(1, ORIGIN, "", "a", committed=1)
        await settle()
        node.wal.full = True
        node.append(1, LogPosition(1, 2), "b", committed=2)
        node.append(1, LogPosition(1, 3), "c", committed=3)
        await settle()
        assert node[SHARD].log.tail_revision == 2
        assert node.states[SHARD].position.revision == 1
        node.wal.full = False
        node.said(Appended)
        node.append(1, LogPosition(1, 2), "b", "c", committed=4)
        await settle()
        assert [said.held for said in node.said(Appended)] == [4]
        assert node.states[SHARD].position.revision == 4

    simulate(body)


def test_what_needs_no_disk_is_done_when_the_disk_refuses_others() -> None:
    """A commit position that waited in turn is not lost with another shard's entries."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.append(1, ORIGIN, "")
        await asyncio.sleep(0.0005)
        # The first entry is being written; that it is committed waits behind it.
        node.append(1, LogPosition(1, 1), committed=1)
        node.tell(AppendEntries(OTHER, PEER, 1, ORIGIN, [Entry(1, 1, body_of(""))], 0))
        await asyncio.sleep(0.001)
        node.wal.full = True
        await settle()
        assert node.wal.refused
        assert node[OTHER].log.tail == ORIGIN
        assert node.states[SHARD].position.revision == 1
        node.wal.full = False
        node.append(1, LogPosition(1, 1), "a", committed=2)
        await settle()
        assert node.states[SHARD].position.revision == 2

    simulate(body)


def test_a_snapshot_survives_a_disk_that_is_full_for_a_while() -> None:
    """Refused before it could begin, it is put in place as soon as there is space."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.append(1, ORIGIN, "", "a", committed=1)
        await settle()
        node.wal.full = True
        node.snapshot(3, state_with(6, epoch=3))
        await settle()
        # Nothing can be fed to it meanwhile: its log is that of the snapshot already.
        node.append(3, LogPosition(3, 6), "x", committed=7)
        await settle()
        assert node.states[SHARD].position.revision == 1
        node.wal.full = False
        await asyncio.sleep(3)
        assert node.states[SHARD].position == LogPosition(3, 6)
        assert node.wal.of(SHARD)[-2:] == [(EPOCH, 3, 0), (CUT, 3, 6)]
        assert [said.held for said in node.said(Appended)][-1] == 6
        node.append(3, LogPosition(3, 6), "x", committed=7)
        await settle()
        assert node.states[SHARD].position.revision == 7

    simulate(body)


def test_nothing_is_fed_to_a_core_whose_snapshot_is_on_its_way() -> None:
    """Entries behind a snapshot are taken when it is in place, not before: the cut would undo
    them on disk."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.append(1, ORIGIN, "")
        node.snapshot(1, state_with(6))
        node.append(1, LogPosition(1, 6), "x", committed=7)
        await asyncio.sleep(3)
        assert node.wal.of(SHARD)[-1] == (CUT, 1, 6)
        assert node.states[SHARD].position.revision == 6
        node.append(1, LogPosition(1, 6), "x", committed=7)
        await settle()
        assert node.wal.of(SHARD)[-1] == (ENTRY, 1, 7)
        assert node.states[SHARD].position.revision == 7

    simulate(body)


def test_no_space_for_a_snapshot_is_asked_for_again() -> None:
    """Until the snapshot is kept, state and log are those before it."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.snapshots_full = True
        node.snapshot(1, state_with(6))
        await asyncio.sleep(3)
        assert node.states[SHARD].position == ORIGIN
        assert not node.said(Appended)
        node.snapshots_full = False
        await asyncio.sleep(3)
        assert node.kept == [(SHARD, LogPosition(1, 6))]
        assert node.registry.story == ["adopt 0 at 6", "resume 0"]
        assert [said.held for said in node.said(Appended)] == [6]

    simulate(body)


def test_a_row_that_changes_during_an_installation_counts_when_it_is_done() -> None:
    """A promotion waits for the snapshot, and leads on top of it."""

    async def body(node: Hosting) -> None:
        await replica(node)
        node.snapshots_full = True
        node.snapshot(1, state_with(6))
        await settle()
        node.agree(s0=row(1, epoch=2, version=2))
        await asyncio.sleep(1)
        assert node[SHARD].primary is None
        node.snapshots_full = False
        await asyncio.sleep(3)
        primary = node[SHARD].primary
        assert primary is not None
        assert (primary.epoch_start, primary.committed) == (7, 7)
        assert node.began == [SHARD]

    simulate(body)
