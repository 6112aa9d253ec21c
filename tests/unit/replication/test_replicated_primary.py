"""A primary with replicas: what commits, what is refused, what is asked of the controller."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from builders import epoch_started

from ssgovern.errors import OverloadedError, ShardMovedError, ShardUnavailableError
from ssgovern.model import LogPosition, NodeId, Outcome, ShardId
from ssgovern.replication.messages import (
    Appended,
    AppendEntries,
    Assigned,
    Commit,
    Effect,
    Entry,
    Fenced,
    InSyncRefused,
    Member,
    Mismatch,
    ProposeInSync,
    Send,
    SendSnapshot,
    StepDown,
)
from ssgovern.replication.primary import Proposal
from ssgovern.replication.replicated import ReplicatedPrimary, ReplicationSettings
from ssgovern.replication.shard_log import ShardLog

SHARD = ShardId(7)
ME, B, C = NodeId(1), NodeId(2), NodeId(3)
ALIVE = 1000


class Nobody:
    def on_outcome(self, proposal: Proposal, outcome: Outcome) -> None:
        raise AssertionError("the log itself answers nobody")


def row(*in_sync: NodeId, version: int = 1, epoch: int = 5, primary: NodeId = ME) -> Assigned:
    members = tuple(Member(node, 1) for node in in_sync)
    replicas = tuple(node for node in (ME, B, C) if node != primary)
    return Assigned(SHARD, epoch, version, primary, members, replicas)


Make = Callable[..., ReplicatedPrimary]


@pytest.fixture
def make() -> Iterator[Make]:
    """Build a primary at epoch 5 whose log is 3/10 with nothing before, its epoch started."""
    made: list[ReplicatedPrimary] = []

    def build(*in_sync: NodeId, start: bool = True, **settings: int) -> ReplicatedPrimary:
        log = ShardLog(SHARD, LogPosition(3, 10))
        primary = ReplicatedPrimary(
            Member(ME, 1), row(*in_sync), log, 10, (), ReplicationSettings(**settings), 0
        )
        primary.on_lease(ALIVE)
        made.append(primary)
        if start:
            put(primary)
        return primary

    yield build
    for primary in made:
        primary.validate()


def put(primary: ReplicatedPrimary, count: int = 1) -> None:
    for _ in range(count):
        primary.propose(b"x", epoch_started(), Nobody())


def held(primary: ReplicatedPrimary, node: NodeId, revision: int, life: int = 1) -> list[int]:
    """Let a replica acknowledge; return the revisions committed by it."""
    effects = primary.on_appended(Appended(SHARD, node, life, primary.epoch, revision))
    return [p.revision for e in effects if isinstance(e, Commit) for p in e.proposals]


def own(primary: ReplicatedPrimary, revision: int) -> list[int]:
    return [proposal.revision for proposal in primary.on_persisted(ME, revision)]


def appends(effects: list[Effect], node: NodeId) -> list[AppendEntries]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send)
        and effect.target == node
        and isinstance(effect.message, AppendEntries)
    ]


def asked(effects: list[Effect]) -> list[tuple[int, ...]]:
    return [
        tuple(member.node for member in effect.in_sync)
        for effect in effects
        if isinstance(effect, ProposeInSync)
    ]


def test_every_member_of_the_in_sync_set_counts(make: Make) -> None:
    """The own disk is one of them; who is not in the set is not waited for."""
    primary = make(ME, B)
    put(primary, 2)
    assert held(primary, B, 13) == []
    assert own(primary, 11) == [11]
    assert own(primary, 13) == [12, 13]


def test_a_set_asked_for_counts_from_the_question_on(make: Make) -> None:
    """The controller may have granted it already; only a newer version settles it."""
    primary = make(ME, B)
    own(primary, 11)
    held(primary, B, 11)
    held(primary, C, 11)
    assert asked(primary.on_tick(1)) == [(1, 2, 3)]
    put(primary)
    own(primary, 12)
    assert held(primary, B, 12) == []
    primary.on_in_sync_refused(InSyncRefused(SHARD, 5, 1))
    assert primary.on_persisted(ME, 12) == []
    effects = primary.on_assigned(row(ME, B, version=2), 2)
    assert [type(effect) for effect in effects[:1]] == [Commit]
    assert primary.committed == 12


def test_a_doubt_is_settled_by_asking_for_the_set_as_it_is(make: Make) -> None:
    """After a refusal the version has to rise, or a dead candidate would block commits."""
    primary = make(ME, B)
    own(primary, 11)
    held(primary, B, 11)
    held(primary, C, 11)
    assert asked(primary.on_tick(1)) == [(1, 2, 3)]
    assert asked(primary.on_tick(2)) == [(1, 2, 3)], "asked again until answered"
    primary.on_in_sync_refused(InSyncRefused(SHARD, 5, 1))
    assert asked(primary.on_tick(3)) == [(1, 2)]


def test_below_the_minimum_nothing_is_taken_and_nothing_commits(make: Make) -> None:
    """`min_in_sync` refuses writes rather than weaken them."""
    primary = make(ME, B, min_in_sync=2)
    assert primary.refusal(0) is None
    primary.on_assigned(row(ME, version=2), 0)
    assert own(primary, 11) == []
    assert isinstance(primary.refusal(0), ShardUnavailableError)
    primary.on_assigned(row(ME, B, version=3), 0)
    assert primary.refusal(0) is None


@pytest.mark.parametrize(("acks", "committed"), [(0, 10), (1, 12), (2, 11), (3, 10)])
def test_fewer_acknowledgements(make: Make, acks: int, committed: int) -> None:
    """As many as asked for, this node among them; never more than there are members."""
    primary = make(ME, B, C, acks=acks)
    put(primary)
    own(primary, 12)
    held(primary, B, 11)
    assert primary.committed == committed


def test_reads_wait_for_the_epoch_start(make: Make) -> None:
    """An earlier primary may have committed more than this one was told."""
    primary = make(ME, B)
    assert not primary.serving
    own(primary, 11)
    held(primary, B, 11)
    assert primary.serving
    assert primary.may_read(ALIVE - 1)
    assert not primary.may_read(ALIVE)


def test_without_its_lease_a_primary_takes_nothing(make: Make) -> None:
    """It stops before the controller may promote another; an older lease shortens nothing."""
    primary = make(ME)
    assert primary.refusal(ALIVE - 1) is None
    assert isinstance(primary.refusal(ALIVE), ShardUnavailableError)
    primary.on_lease(ALIVE + 5)
    primary.on_lease(ALIVE)
    assert primary.refusal(ALIVE) is None


def test_what_waits_is_bounded(make: Make) -> None:
    """Replicas that do not follow end in refusals, not in memory."""
    primary = make(ME, B, uncommitted_max=3)
    put(primary, 2)
    assert isinstance(primary.refusal(0), OverloadedError)


def test_inherited_entries_commit_with_the_first_of_the_epoch() -> None:
    """What an earlier primary left without a known end is finished, in order."""
    inherited = [Proposal(SHARD, 3, 11, b"y", epoch_started(), Nobody())]
    log = ShardLog(SHARD, LogPosition(3, 10), [Entry(3, 11, b"y")])
    primary = ReplicatedPrimary(
        Member(ME, 1), row(ME, B), log, 10, inherited, ReplicationSettings(), 0
    )
    put(primary)
    assert primary.epoch_start == 12
    own(primary, 12)
    assert held(primary, B, 12) == [11, 12]


def test_appends_on_their_way_are_bounded(make: Make) -> None:
    """One while looking for agreement, then as many as allowed, then none until answered."""
    primary = make(ME, B, in_flight_max=2, append_entries_max=1)
    put(primary, 9)
    assert len(appends(primary.replicate(), B)) == 1
    assert appends(primary.replicate(), B) == []
    answer = Appended(SHARD, B, 1, 5, 11)
    assert [a.prev.revision for a in appends(primary.on_appended(answer), B)] == [11, 12]
    assert appends(primary.replicate(), B) == []


def test_what_is_not_answered_is_sent_again(make: Make) -> None:
    """From where the replica is known to be."""
    primary = make(ME, B)
    primary.replicate()
    assert appends(primary.on_tick(1), B)[0].prev == LogPosition(3, 10)
    held(primary, B, 11)
    put(primary, 2)
    primary.replicate()
    primary.on_tick(2)
    assert appends(primary.on_tick(3), B)[0].prev == LogPosition(5, 11)
    assert appends(primary.on_link(B), B)[0].prev == LogPosition(5, 11)


def test_an_idle_shard_is_silent(make: Make) -> None:
    """When all have all and know it, ticks send nothing."""
    primary = make(ME, B, C)
    own(primary, 11)
    primary.replicate()
    for _ in range(2):
        held(primary, B, 11)
        held(primary, C, 11)
        primary.replicate()
    assert primary.on_tick(1) == []
    assert primary.on_tick(2) == []


def _mismatch(hint: tuple[int, int], floor: tuple[int, int], prev: tuple[int, int]) -> Mismatch:
    return Mismatch(SHARD, B, 1, 5, LogPosition(*prev), LogPosition(*hint), LogPosition(*floor))


def test_a_hint_leads_to_where_the_logs_agree(make: Make) -> None:
    """The next append begins there."""
    primary = make(ME, B)
    put(primary, 3)
    primary.replicate()
    primary.on_appended(Appended(SHARD, B, 1, 5, 11))
    effects = primary.on_mismatch(_mismatch((5, 12), (3, 10), (5, 14)))
    assert appends(effects, B)[0].prev == LogPosition(5, 12)


def test_what_was_said_of_a_copy_that_was_taken_away_counts_no_more(make: Make) -> None:
    """Of a replica that was taken from the shard and given back, only what it says since then."""
    primary = make(ME, B)
    own(primary, 11)
    alone = Assigned(SHARD, 5, 2, ME, (Member(ME, 1),), ())
    again = Assigned(SHARD, 5, 3, ME, (Member(ME, 1),), (B,))
    primary.on_assigned(alone, 0)
    primary.on_assigned(again, 0)
    late = primary.on_appended(Appended(SHARD, B, 1, 5, 11, version=1))
    assert asked(late) == []
    assert asked(primary.on_appended(Appended(SHARD, B, 1, 5, 11, version=3))) == [(ME, B)]


def test_who_gave_up_what_it_held_is_told_it_again(make: Make) -> None:
    """And is taken to hold nothing until it says so again."""
    primary = make(ME, B)
    put(primary, 3)
    held(primary, B, 14)
    assert appends(primary.on_link(B), B)[0].prev == LogPosition(5, 14)
    primary.on_mismatch(_mismatch((0, 0), (0, 0), (5, 14)))
    assert dict(primary.lags())[B] == 14


def test_who_needs_what_is_gone_gets_a_snapshot(make: Make) -> None:
    """Nothing else is sent to it until it answered, or for too long did not."""
    primary = make(ME, B, snapshot_ticks_max=1)
    primary.replicate()
    effects = primary.on_mismatch(_mismatch((1, 4), (1, 4), (3, 10)))
    assert effects == [SendSnapshot(B, SHARD, 5, None)]
    assert appends(primary.on_tick(1), B) == []
    assert len(appends(primary.on_tick(2), B)) == 1


def test_who_committed_what_we_never_had_is_replaced(make: Make) -> None:
    """Possible only with fewer acknowledgements than all; the snapshot says what it replaces."""
    primary = make(ME, B)
    primary.replicate()
    effects = primary.on_mismatch(_mismatch((4, 12), (4, 12), (3, 10)))
    assert effects == [SendSnapshot(B, SHARD, 5, LogPosition(4, 12))]


def test_an_earlier_life_counts_for_nothing(make: Make) -> None:
    """A restarted replica begins at nothing, and late words of its old life are not heard."""
    primary = make(ME, B)
    own(primary, 11)
    held(primary, B, 11)
    put(primary)
    own(primary, 12)
    held(primary, B, 11, life=2)
    assert held(primary, B, 12, life=1) == []
    assert held(primary, B, 12, life=2) == [12]


def test_who_lags_is_to_leave_and_who_caught_up_to_join(make: Make) -> None:
    """By time behind, not by entries; a candidate has all that any primary can have committed."""
    primary = make(ME, B, lag_ms_max=100)
    own(primary, 11)
    held(primary, C, 10)
    assert asked(primary.on_tick(50)) == [], "C has not passed the epoch start"
    assert asked(primary.on_tick(101)) == [(1,)]
    primary.on_assigned(row(ME, version=2), 101)
    assert primary.committed == 11
    held(primary, C, 11)
    assert asked(primary.on_tick(102)) == [(1, 3)]


def test_a_question_carries_epoch_version_and_lives(make: Make) -> None:
    """The controller's compare-and-set needs all three."""
    primary = make(ME)
    own(primary, 11)
    held(primary, B, 11, life=4)
    (question,) = [e for e in primary.on_tick(1) if isinstance(e, ProposeInSync)]
    assert question == ProposeInSync(SHARD, ME, 5, 1, (Member(ME, 1), Member(B, 4)))


def test_a_newer_epoch_ends_it(make: Make) -> None:
    """What waits is handed back: nobody can tell what becomes of it."""
    primary = make(ME, B)
    put(primary)
    (step_down,) = primary.on_fenced(Fenced(SHARD, B, 6))
    assert isinstance(step_down, StepDown)
    assert [proposal.revision for proposal in step_down.unknown] == [11, 12]
    assert isinstance(primary.refusal(0), ShardMovedError)
    assert own(primary, 12) == []
    assert primary.replicate() == []
    assert primary.on_fenced(Fenced(SHARD, B, 7)) == []


@pytest.mark.parametrize(
    "assigned",
    [
        row(ME, B, version=2, primary=B, epoch=6),
        row(B, version=2),
        Assigned(SHARD, 5, 2, ME, (Member(ME, 2),), ()),
    ],
)
def test_a_row_that_does_not_name_this_life_ends_it(make: Make, assigned: Assigned) -> None:
    """Another primary, no place in the set, or one for a later life of this node."""
    primary = make(ME, B)
    (effect,) = primary.on_assigned(assigned, 0)
    assert isinstance(effect, StepDown)


def test_what_was_not_sent_can_be_withdrawn(make: Make) -> None:
    """A full disk refuses a batch that no one has seen; its revisions are given again."""
    primary = make(ME, B)
    own(primary, 11)
    put(primary, 2)
    assert [p.revision for p in primary.on_append_failed(ME)] == [12, 13]
    assert primary.deposed == ""
    put(primary)
    assert primary.tail == 12


def test_what_was_sent_cannot_be_withdrawn(make: Make) -> None:
    """Its positions are taken; the primary ends instead, and all that waits is unknown."""
    primary = make(ME, B)
    own(primary, 11)
    put(primary)
    primary.replicate()
    assert [p.revision for p in primary.on_append_failed(ME)] == [11, 12]
    assert primary.deposed == "its disk refused entries that replicas may have"


def test_a_claim_of_more_than_was_sent_is_not_heard(make: Make) -> None:
    """A peer's fault is written down and changes nothing."""
    primary = make(ME, B)
    own(primary, 11)
    assert held(primary, B, 99) == []
    assert primary.committed == 10
    assert primary.story() == ["node 2 claims 99, tail is 11"]


def test_repr_shows_the_state(make: Make) -> None:
    """What people read in logs says where the shard is."""
    assert repr(make(ME, B)) == (
        "<ReplicatedPrimary shard=7 epoch=5 tail=11 committed=10 in_sync=1,2/v1>"
    )


def test_replicas_in_step_are_sent_the_same_and_others_their_own(make: Make) -> None:
    """One append serves all who go on from the same place, never one who is elsewhere."""
    primary = make(ME, B, C)
    primary.replicate()
    own(primary, 11)
    held(primary, B, 11)
    held(primary, C, 11)
    put(primary, 2)
    effects = primary.replicate()
    assert appends(effects, B)[0] is appends(effects, C)[0]
    held(primary, B, 13)
    put(primary)
    primary.on_link(C)
    held(primary, C, 12)
    put(primary)
    effects = primary.replicate()
    (to_b,), (to_c,) = appends(effects, B), appends(effects, C)
    assert [entry.revision for entry in to_b.entries] == [14, 15]
    assert [entry.revision for entry in to_c.entries] == [15]
    assert (to_b.prev, to_c.prev) == ((5, 13), (5, 14))
