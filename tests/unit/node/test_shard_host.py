"""What a node makes of its rows: roles that follow each other, however they meet."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hosting import (
    LEASE_MS,
    ME,
    OTHER,
    PEER,
    SHARD,
    SHARDS,
    Hosting,
    body_of,
    member,
    row,
    settle,
    simulate,
    state_with,
)

from ssgovern.controller.state import NodeRegistered, NodesFenced, Settings, SettingsChanged
from ssgovern.errors import (
    DiskFullError,
    OutcomeUnknownError,
    ShardMovedError,
    ShardUnavailableError,
)
from ssgovern.model import ORIGIN, LogPosition, ShardId
from ssgovern.replication.messages import Appended, Entry, Fenced
from ssgovern.replication.shard_log import ShardLog
from ssgovern.storage.format import CUT, ENTRY, EPOCH
from ssgovern.wire.frames import MessageType


async def primary(node: Hosting) -> None:
    """Let this node be the primary of the first shard, with node 2 as its replica."""
    node.found()
    node.agree(s0=row(1, 2))
    await settle()
    node.held(1)
    await settle()


# --- epochs ----------------------------------------------------------------------------------


def test_an_epoch_older_than_what_is_promised_is_not_led() -> None:
    """A row that comes late names an epoch that others have left behind, as this node knows."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, 3, primary=3))
        await settle()
        # Epoch 2 was to be this node's, but it did not hear of it before epoch 3 began.
        node.append(3, ORIGIN, "", "a")
        await settle()
        node.agree(s0=row(1, 2, 3, primary=1, epoch=2, version=2))
        await settle()
        assert node[SHARD].primary is None
        assert node[SHARD].led == 0
        node.append(3, LogPosition(3, 2), "b")
        await settle()
        assert [said.held for said in node.said(Appended)] == [2, 3]

    simulate(body)


def test_an_epoch_is_led_once_in_a_life() -> None:
    """Who stepped down says so until the row names another epoch, and never leads it again."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.tell(Fenced(SHARD, PEER, 2))
        await settle()
        assert node[SHARD].primary is None
        await asyncio.sleep(1)
        assert node[SHARD].primary is None
        assert node.asked[-1][0] == MessageType.SHARD_RESIGNED
        node.agree(s0=row(1, 2, epoch=3, version=2))
        await settle()
        assert node[SHARD].primary is not None
        assert node.host.promotions == 2

    simulate(body)


def test_a_promise_outlives_the_shard() -> None:
    """A shard that left and comes back finds the node obeying what it obeyed before."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(5, ORIGIN, "", "a")
        await settle()
        node.agree(s0=row(2, 3, primary=2, version=2))
        await settle()
        assert node.host.is_gone(SHARD)
        node.agree(s0=row(1, 2, 3, primary=2, version=3, in_sync=(2, 3)))
        await settle()
        node.said(Appended)
        node.append(4, ORIGIN, "", "x")
        await settle()
        assert [said.epoch for said in node.said(Fenced)] == [5]

    simulate(body)


# --- who ends sessions -----------------------------------------------------------------------


def test_sessions_of_a_shard_are_left_to_others_even_if_it_never_served() -> None:
    """They may have registered since the promotion, and are not this node's to end."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2))
        await settle()
        asked = node.propose("a")
        node.tell(Fenced(SHARD, PEER, 2))
        await settle()
        assert isinstance(asked.error, OutcomeUnknownError)
        assert (node.began, node.ended) == ([], [SHARD])

    simulate(body)


# --- the end ---------------------------------------------------------------------------------


def test_who_gave_up_its_lease_answers_no_reads() -> None:
    """Others may be promoted at once, so not even a heartbeat's late answer lets it go on."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.placement.check_read(SHARD, replica_too=False)
        node.host.give_up_lease()
        node.lease()
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=False)
        node.placement.check_read(SHARD, replica_too=True)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)

    simulate(body)


def test_the_log_ends_although_peers_go_on() -> None:
    """Those who were not told yet send to the last moment; their entries are not waited for."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()

        async def load() -> None:
            revision = 0
            while True:
                node.append(1, LogPosition(1 if revision else 0, revision), f"i{revision}")
                revision += 1
                await asyncio.sleep(0.0003)

        loading = asyncio.get_running_loop().create_task(load())
        await settle()
        node.host.hears = False
        async with asyncio.timeout(1):
            await node.driver.drain()
        loading.cancel()

    simulate(body)


# --- a full disk -----------------------------------------------------------------------------


def test_an_epoch_that_found_no_space_begins_when_there_is_some() -> None:
    """Its first record comes before all that clients write, which wait for it."""

    async def body(node: Hosting) -> None:
        node.found(1)
        node.wal.full = True
        node.agree(s0=row(1))
        await settle()
        with pytest.raises(ShardUnavailableError):
            node.propose("too early")
        await asyncio.sleep(1)
        assert node.began == []
        node.wal.full = False
        await asyncio.sleep(1)
        assert node.began == [SHARD]
        assert node.states[SHARD].epoch_starts == [LogPosition(1, 1)]
        asked = node.propose("a")
        await settle()
        assert asked.error is None
        assert node.states[SHARD].position == LogPosition(1, 2)

    simulate(body)


def test_what_nobody_else_may_have_is_refused_and_nothing_more() -> None:
    """A primary alone with a full disk says so, stays primary, and takes the next write."""

    async def body(node: Hosting) -> None:
        node.found(1)
        node.agree(s0=row(1))
        await settle()
        node.wal.full = True
        asked = [node.propose("a"), node.propose("b")]
        await settle()
        assert all(isinstance(each.error, DiskFullError) for each in asked)
        node.wal.full = False
        again = node.propose("a")
        await settle()
        assert again.error is None
        assert node.states[SHARD].position == LogPosition(1, 2)
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0

    simulate(body)


def test_what_replicas_may_have_is_of_unknown_outcome() -> None:
    """A primary whose disk refuses what it has sent stops leading, and never says "not done"."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.wal.full = True
        asked = node.propose("a")
        await settle()
        assert isinstance(asked.error, OutcomeUnknownError)
        assert node[SHARD].primary is None
        assert node[SHARD].log.tail == LogPosition(1, 1)
        await asyncio.sleep(1)
        assert MessageType.SHARD_RESIGNED in [type_ for type_, _ in node.asked]
        # The next primary has it, and sends it back when there is space.
        node.wal.full = False
        node.agree(s0=row(1, 2, primary=2, epoch=2, version=2))
        node.append(2, LogPosition(1, 1), "", "b", committed=3)
        await settle()
        assert node.states[SHARD].position == LogPosition(2, 3)
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0

    simulate(body)


# --- roles that meet each other --------------------------------------------------------------


def test_a_deposed_primary_writes_what_it_took_before_it_obeys_another() -> None:
    """Nothing is fed to a core meanwhile; what came waits, and is taken by the new role."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.wal.takes_s = 0.02
        asked = node.propose("a")
        await asyncio.sleep(0.005)
        node.agree(s0=row(1, 2, primary=2, epoch=2, version=2))
        assert isinstance(asked.error, OutcomeUnknownError)
        node.append(2, LogPosition(1, 1), "", "x", committed=3)
        assert node[SHARD].switching
        assert len(node[SHARD].backlog) == 1
        await asyncio.sleep(0.2)
        # Its own entry reached the disk, and was cut there.
        assert node.wal.of(SHARD)[1:] == [
            (ENTRY, 1, 2),
            (EPOCH, 2, 0),
            (CUT, 1, 1),
            (ENTRY, 2, 2),
            (ENTRY, 2, 3),
        ]
        assert node.states[SHARD].position == LogPosition(2, 3)
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0

    simulate(body)


def test_a_promotion_that_is_taken_back_in_time_does_not_happen() -> None:
    """The row of the moment decides when the disk is done, not the one that began it."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.wal.takes_s = 0.02
        node.append(1, ORIGIN, "", "a")
        await asyncio.sleep(0.005)
        node.agree(s0=row(1, 2, epoch=2, version=2))
        assert node[SHARD].switching
        node.agree(s0=row(1, 2, primary=2, epoch=3, version=3))
        await asyncio.sleep(0.2)
        assert node[SHARD].primary is None
        assert node.host.promotions == 0
        node.append(3, LogPosition(1, 2), "", committed=3)
        await asyncio.sleep(0.2)
        assert node.states[SHARD].position == LogPosition(3, 3)

    simulate(body)


def test_a_promoted_replica_commits_what_it_inherits() -> None:
    """What an earlier primary left is counted, committed with the new epoch, and applied."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(1, ORIGIN, "", "a", "b", committed=1)
        await settle()
        node.agree(s0=row(1, 2, epoch=2, version=2))
        await settle()
        assert node.states[SHARD].position == LogPosition(1, 1)
        assert node.driver._uncommitted == 3
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=False)
        assert node.began == []
        node.held(4, epoch=2)
        await settle()
        assert node.states[SHARD].position == LogPosition(2, 4)
        assert node.began == [SHARD]
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0
        node.placement.check_read(SHARD, replica_too=False)

    simulate(body)


def test_inherited_entries_are_forgotten_when_deposed() -> None:
    """Counted once when taken over and once when given up, whoever commits them in the end."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(1, ORIGIN, "", "a", "b", committed=1)
        await settle()
        node.agree(s0=row(1, 2, epoch=2, version=2))
        await settle()
        node.agree(s0=row(1, 2, primary=2, epoch=3, version=3))
        await settle()
        assert node.driver._uncommitted == node.driver._uncommitted_bytes == 0
        node.append(3, LogPosition(1, 3), "", committed=4)
        await settle()
        assert node.states[SHARD].position == LogPosition(3, 4)

    simulate(body)


def test_a_shard_that_leaves_during_an_installation_is_dropped_behind_it() -> None:
    """And comes back from nothing: its log on disk begins anew before anything follows."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.snapshots_full = True
        node.snapshot(1, state_with(6))
        await settle()
        node.agree(s0=row(2, 3, primary=2, version=2))
        await asyncio.sleep(1)
        assert node.registry.story == []
        node.snapshots_full = False
        await asyncio.sleep(3)
        assert node.registry.story == ["adopt 0 at 6", "drop 0"]
        assert node.wal.of(SHARD)[-2:] == [(CUT, 1, 6), (CUT, 0, 0)]
        assert node.host.is_gone(SHARD)
        assert not node.placement.holds(SHARD)
        node.agree(s0=row(1, 2, 3, primary=2, version=3, in_sync=(2, 3)))
        node.append(1, ORIGIN, "", "a", committed=2)
        await settle()
        assert node.states[SHARD].position == LogPosition(1, 2)

    simulate(body)


def test_a_shard_that_cannot_be_dropped_yet_stays_in_the_way() -> None:
    """Without space to write that it begins anew, nothing of it is removed or taken."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(1, ORIGIN, "", "a", committed=2)
        await settle()
        node.wal.full = True
        node.agree(s0=row(2, 3, primary=2, version=2))
        await asyncio.sleep(3)
        assert not node.host.is_gone(SHARD)
        node.agree(s0=row(1, 2, 3, primary=2, version=3, in_sync=(2, 3)))
        node.append(1, ORIGIN, "", "a", committed=2)
        node.wal.full = False
        await asyncio.sleep(3)
        node.append(1, ORIGIN, "", "a", committed=2)
        await settle()
        assert node.wal.of(SHARD)[3:] == [(CUT, 0, 0), (ENTRY, 1, 1), (ENTRY, 1, 2)]
        assert node.states[SHARD].position == LogPosition(1, 2)

    simulate(body)


# --- sessions of the node --------------------------------------------------------------------


def test_a_new_session_without_a_restart_keeps_what_is_here() -> None:
    """The replica goes on under its new name; it is not the shard again before it is in sync."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2))
        await settle()
        node.append(1, ORIGIN, "", "a", committed=2)
        await settle()
        assert node.placement.holds(SHARD)
        node.agree(NodesFenced((ME,)), s0=row(1, 2, primary=2, version=2, in_sync=(2,)))
        node.host.on_session(0)
        node.agree(NodeRegistered(member(1, session=2)))
        node.host.on_session(2)
        assert not node.placement.holds(SHARD)
        node.said(Appended)
        node.append(1, LogPosition(1, 2), "b", committed=2)
        await settle()
        assert [said.node_epoch for said in node.said(Appended)] == [2]
        node.agree(s0=row(1, 2, primary=2, version=3))
        assert node.placement.holds(SHARD)
        assert node.registry.story[-1] == "resume 0"
        assert "drop 0" not in node.registry.story

    simulate(body)


def test_a_row_of_an_earlier_life_promotes_nobody() -> None:
    """Until the metadata knows of this session, what it says of this node is of the last one."""

    async def body(node: Hosting) -> None:
        node.found()
        node.host.on_session(2)
        node.agree(s0=row(1, 2))
        await settle()
        assert node[SHARD].primary is None
        node.agree(NodesFenced((ME,)), s0=row(1, 2, primary=2, epoch=2, version=2, in_sync=(2,)))
        node.agree(NodeRegistered(member(1, session=2)))
        await settle()
        assert node[SHARD].primary is None
        assert node.host.promotions == 0

    simulate(body)


def test_no_lease_no_reads_and_no_writes() -> None:
    """Counted in this node's own time; a heartbeat's answer gives them back."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.placement.check_read(SHARD, replica_too=False)
        await asyncio.sleep(LEASE_MS / 1000.0)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=False)
        node.lease()
        node.placement.check_write(SHARD)
        node.placement.check_read(SHARD, replica_too=False)

    simulate(body)


def test_the_end_of_the_session_ends_its_lease() -> None:
    """Who fenced this node need not wait any longer; a new session gets a lease of its own."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.host.on_session(0)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=False)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)
        node.lease()
        node.placement.check_write(SHARD)

    simulate(body)


def test_who_is_no_primary_says_who_is() -> None:
    """Clients are sent to whom the map names; to nobody if that is this node or no one."""

    async def body(node: Hosting) -> None:
        node.found()
        node.agree(s0=row(1, 2, primary=2), s1=row(1, 2, primary=0))
        await settle()
        with pytest.raises(ShardMovedError) as moved:
            node.placement.check_write(SHARD)
        assert moved.value.fields["node"] == "2"
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(OTHER)
        node.append(1, ORIGIN, "", committed=1)
        await settle()
        node.placement.check_read(SHARD, replica_too=True)

    simulate(body)


def test_a_primary_stops_for_its_successor_when_all_is_committed() -> None:
    """It takes no more writes once one is named, and says so when none is under way."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.propose("a")
        await settle()
        node.agree(s0=row(1, 2, version=2, successor=2))
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)
        await settle()
        assert not node.asked
        node.held(2)
        await settle()
        assert [type_ for type_, _ in node.asked] == [MessageType.SHARD_RESIGNED]

    simulate(body)


# --- settings of the cluster -----------------------------------------------------------------


def test_a_minimum_that_was_raised_holds_for_who_leads_already() -> None:
    """From then on the controller takes it that nothing is committed below it, and may promote
    who left: what a primary committed alone would be lost."""

    async def body(node: Hosting) -> None:
        await primary(node)
        node.agree(SettingsChanged(Settings(min_in_sync=2)))
        asked = node.propose("a")
        await settle()
        node.agree(s0=replace(row(1, 2, version=2, in_sync=(1,)), eligible=(PEER,)))
        await settle()
        assert asked.outcome is None
        assert node.states[SHARD].position.revision == 1
        with pytest.raises(ShardUnavailableError):
            node.placement.check_write(SHARD)
        node.agree(s0=row(1, 2, version=3))
        node.held(2)
        await settle()
        assert asked.error is None

    simulate(body)


def test_a_minimum_that_was_lowered_lets_go_what_waits() -> None:
    """Also where the row stays as it is, and nobody says anything more."""

    async def body(node: Hosting) -> None:
        node.found(min_in_sync=2)
        node.agree(s0=row(1, 2))
        await settle()
        node.held(1)
        asked = node.propose("a")
        await settle()
        node.agree(s0=row(1, 2, version=2, in_sync=(1,)))
        await settle()
        assert asked.outcome is None
        node.agree(SettingsChanged(Settings(min_in_sync=1)))
        await settle()
        assert asked.error is None

    simulate(body)


# --- what may be told to subscribers ---------------------------------------------------------


def recovered() -> list[ShardLog]:
    """The logs of a node that comes back without a snapshot: all is in them, nothing applied."""
    names = ("", "a", "b")
    entries = [Entry(1, number, body_of(name)) for number, name in enumerate(names, 1)]
    return [ShardLog(ShardId(n), ORIGIN, entries if n == SHARD else ()) for n in range(SHARDS)]


def test_a_primary_is_the_shard_when_it_has_applied_what_was_committed() -> None:
    """After a restart of all nodes its state is empty until its epoch has begun."""

    async def body(node: Hosting) -> None:
        node.found(min_in_sync=2)
        node.agree(s0=row(1, 2, epoch=2, in_sync=(1,)))
        await settle()
        assert node[SHARD].primary is not None
        assert not node.placement.holds(SHARD)
        with pytest.raises(ShardUnavailableError):
            node.placement.check_read(SHARD, replica_too=True)
        node.held(4, epoch=2)
        node.agree(s0=row(1, 2, epoch=2, version=2))
        await settle()
        assert node.states[SHARD].position == LogPosition(2, 4)
        assert node.placement.holds(SHARD)
        assert node.registry.story == ["resume 0"]

    simulate(body, logs=recovered, promises={SHARD: 1})


def test_a_replica_is_the_shard_when_it_has_applied_an_entry_of_its_epoch() -> None:
    """It may be in sync before it hears how far that is committed: its state is empty then."""

    async def body(node: Hosting) -> None:
        node.found(min_in_sync=2)
        node.agree(s0=row(1, 2, primary=2, epoch=2, in_sync=(2,)))
        await settle()
        node.append(2, LogPosition(1, 3), "", committed=1)
        await settle()
        node.agree(s0=row(1, 2, primary=2, epoch=2, version=2))
        await settle()
        assert node.states[SHARD].position == LogPosition(1, 1)
        assert not node.placement.holds(SHARD)
        node.append(2, LogPosition(2, 4), committed=4)
        await settle()
        assert node.placement.holds(SHARD)
        assert node.registry.story == ["resume 0"]

    simulate(body, logs=recovered, promises={SHARD: 1})
