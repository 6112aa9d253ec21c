"""The rules of one node among others, each by events and effects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raft_group import CLUSTER, Group

from ssgovern.model import NodeId
from ssgovern.raft import (
    Accepted,
    Config,
    Entry,
    HardState,
    Raft,
    Refusal,
    Role,
    SafetyViolationError,
    Snapshot,
)
from ssgovern.raft.messages import (
    Append,
    AppendAnswer,
    Heartbeat,
    InstallSnapshot,
    PreVote,
    SnapshotAnswer,
    TimeoutNow,
    Vote,
    VoteAnswer,
)
from ssgovern.raft.state import STORY_LINES_MAX

ONE, TWO, THREE, FOUR = NodeId(1), NodeId(2), NodeId(3), NodeId(4)


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    group.start([ONE, TWO, THREE], [FOUR])
    yield group
    group.validate()


def vote(source: NodeId, target: NodeId, term: int, *, last: int = 0, last_term: int = 0) -> Vote:
    return Vote(CLUSTER, source, target, term, last, last_term, transfer=False)


def append(
    term: int, prev: tuple[int, int], *entries: Entry, commit: int = 0, source: NodeId = THREE
) -> Append:
    return Append(CLUSTER, source, ONE, term, *prev, entries, commit)


def granted(group: Group, node: NodeId) -> list[bool]:
    """What this node answered to votes once it has synced."""
    group.sync(node)
    found = [m.granted for m in group.net if isinstance(m, VoteAnswer) and m.source == node]
    group.net.clear()
    return found


# --- votes ------------------------------------------------------------------------------------


def test_one_vote_per_term_also_after_a_crash(group: Group) -> None:
    """The same candidate may ask again; another is refused, even by a node that restarted."""
    group.cores[ONE].step(vote(TWO, ONE, 5))
    assert granted(group, ONE) == [True]
    group.crash(ONE)
    group.cores[ONE].step(vote(THREE, ONE, 5))
    group.cores[ONE].step(vote(TWO, ONE, 5))
    assert sorted(granted(group, ONE)) == [False, True]
    assert group.disks[ONE].hard == HardState(5, TWO)


def test_a_grant_leaves_after_the_sync_and_a_refusal_at_once(group: Group) -> None:
    """Nobody hears of a promise before it is on disk."""
    core = group.cores[ONE]
    core.step(vote(TWO, ONE, 5))
    assert core.urgent() == []
    core.step(vote(THREE, ONE, 5))
    assert [m.granted for m in core.urgent() if isinstance(m, VoteAnswer)] == [False]
    batch = core.ready()
    assert batch is not None
    assert batch.must_sync
    assert batch.hard_state == HardState(5, TWO)
    assert [m.granted for m in batch.messages if isinstance(m, VoteAnswer)] == [True]
    core.persisted(batch)


def test_an_older_log_gets_no_vote(group: Group) -> None:
    """A candidate must hold all that may be committed here."""
    group.elect(THREE)
    group.cores[ONE].tick()
    for _ in range(30):
        group.cores[ONE].tick()
    group.cores[ONE].step(vote(TWO, ONE, 9, last=5, last_term=0))
    assert granted(group, ONE) == [False]
    assert group.cores[ONE].term == 9


def test_a_loyal_node_ignores_candidates(group: Group) -> None:
    """Who hears its leader keeps its term, unless the leader itself wants the election."""
    group.elect(THREE)
    core = group.cores[ONE]
    request = vote(TWO, ONE, 9, last=9, last_term=1)
    core.step(request)
    core.step(PreVote(CLUSTER, TWO, ONE, 9, 9, 1))
    assert (core.term, core.urgent()) == (1, [])
    core.step(request._replace(transfer=True))
    assert granted(group, ONE) == [True]


def test_a_learner_votes_when_it_is_asked(group: Group) -> None:
    """It may be a voter already without having heard of it."""
    group.cores[FOUR].step(vote(TWO, FOUR, 1))
    assert granted(group, FOUR) == [True]


def test_who_is_no_voter_never_stands(group: Group) -> None:
    """Neither by time-out nor when told."""
    core = group.cores[FOUR]
    for _ in range(100):
        core.tick()
    core.campaign()
    core.step(TimeoutNow(CLUSTER, ONE, FOUR, 0))
    assert (core.role, core.term, core.urgent()) == (Role.FOLLOWER, 0, [])


def test_the_highest_id_wins_among_equals(group: Group) -> None:
    """Its time-out is the shortest."""
    group.tick(15)
    assert group.cores[THREE].role is Role.LEADER
    group.isolate(THREE)
    group.tick(40)
    assert group.cores[TWO].role is Role.LEADER
    assert group.cores[THREE].role is not Role.LEADER


def test_a_lonely_node_keeps_its_term(group: Group) -> None:
    """Asking in vain changes nothing."""
    group.elect(THREE)
    group.isolate(ONE)
    group.tick(200)
    assert group.cores[ONE].term == 1
    group.heal()
    group.tick(20)
    assert group.cores[THREE].role is Role.LEADER
    assert group.cores[ONE].leader_id == THREE


def test_a_candidate_that_cannot_win_puts_nobody_off(group: Group) -> None:
    """Refusing a vote adopts the term, and leaves the time-out as it is."""
    group.elect(THREE)
    core = group.cores[ONE]
    for _ in range(15):
        core.tick()
    core.step(vote(TWO, ONE, 9))
    assert granted(group, ONE) == [False]
    for _ in range(4):
        core.tick()
    assert core.role is Role.PRE_CANDIDATE


# --- identity ---------------------------------------------------------------------------------


def test_messages_for_others_are_dropped(group: Group) -> None:
    """Another cluster or another node: not even the term is looked at."""
    core = group.cores[ONE]
    core.step(vote(TWO, ONE, 9)._replace(cluster=b"other"))
    core.step(vote(TWO, THREE, 9))
    assert (core.dropped, core.term, core.ready()) == (2, 0, None)


def test_two_leaders_in_one_term_stop_the_node(group: Group) -> None:
    """The protocol rules it out: two processes share an identity."""
    core = group.cores[ONE]
    core.step(append(3, (0, 0)))
    with pytest.raises(SafetyViolationError, match="second leader"):
        core.step(append(3, (0, 0), source=TWO))


def test_a_disk_that_forgot_is_noticed(group: Group) -> None:
    """A leader's commit index that this node acknowledged and no longer holds stops it."""
    core = group.cores[ONE]
    with pytest.raises(SafetyViolationError, match="the disk lost it"):
        core.step(Heartbeat(CLUSTER, THREE, ONE, 3, commit=7, round=1, tick=1))


# --- the log ----------------------------------------------------------------------------------


def test_an_acknowledgement_leaves_after_the_sync(group: Group) -> None:
    """What a follower says it holds is on its disk."""
    core = group.cores[ONE]
    core.step(append(3, (0, 0), Entry(1, 3)))
    assert core.urgent() == []
    batch = core.ready()
    assert batch is not None
    assert batch.entries == (Entry(1, 3),)
    assert [m.index for m in batch.messages if isinstance(m, AppendAnswer)] == [1]
    core.persisted(batch)


def test_commit_goes_no_further_than_what_the_leader_just_matched(group: Group) -> None:
    """What a follower holds beyond may be of another leader."""
    core = group.cores[ONE]
    core.step(append(1, (0, 0), Entry(1, 1), Entry(2, 1), Entry(3, 1)))
    core.step(append(2, (1, 1), commit=3))
    assert (core.log.commit, core.log.last_index) == (1, 3)


def test_a_late_append_cuts_nothing(group: Group) -> None:
    """Only a conflict does."""
    core = group.cores[ONE]
    core.step(append(1, (0, 0), Entry(1, 1), Entry(2, 1), Entry(3, 1)))
    core.step(append(1, (0, 0), Entry(1, 1)))
    assert core.log.last_index == 3
    core.step(append(2, (1, 1), Entry(2, 2)))
    assert (core.log.last_index, core.log.last_term) == (2, 2)


def test_what_an_old_append_has_below_the_commit_index_is_skipped(group: Group) -> None:
    """Also when the log there was compacted away."""
    group.elect(THREE)
    for payload in (b"a", b"b", b"c"):
        group.cores[THREE].propose(payload)
    group.tick(2)
    group.compact(ONE)
    core = group.cores[ONE]
    core.step(append(1, (0, 0), Entry(1, 1), Entry(2, 1, b"a")))
    core.step(append(1, (2, 1), Entry(3, 1, b"b"), Entry(4, 1, b"c"), Entry(5, 1, b"d")))
    assert (core.log.commit, core.log.last_index) == (4, 5)


def test_a_stale_leader_is_told(group: Group) -> None:
    """It steps down although nobody stands against it."""
    group.elect(THREE)
    group.isolate(ONE)
    group.cores[ONE].step(vote(TWO, ONE, 7)._replace(transfer=True))
    group.heal()
    group.tick(1)
    assert group.cores[THREE].role is not Role.LEADER
    assert group.cores[THREE].term == 7


def test_a_lost_append_is_noticed_at_the_next_heartbeat(group: Group) -> None:
    """Nobody has to propose something else for it."""
    leader = group.elect(THREE)
    group.cut(THREE, ONE)
    leader.propose(b"x")
    group.settle()
    assert group.cores[ONE].log.last_index == 1
    group.heal()
    group.tick(2)
    assert group.cores[ONE].log.last_index == 2


def test_appends_in_flight_are_bounded() -> None:
    """A silent follower does not fill our memory."""
    group = Group()
    group.settings = group.settings._replace(appends_in_flight_max=2, append_entries_max=1)
    group.start([ONE, TWO])
    leader = group.elect(ONE)
    for _ in range(10):
        leader.propose(b"x")
    assert len([m for m in leader.urgent() if isinstance(m, Append)]) == 2
    group.tick(8)
    assert group.cores[TWO].log.last_index == 11


def test_uncommitted_bytes_are_bounded() -> None:
    """Refused when full, taken again when something was committed; one is always taken."""
    group = Group()
    group.settings = group.settings._replace(uncommitted_bytes_max=10)
    group.start([ONE, TWO])
    leader = group.elect(ONE)
    assert isinstance(leader.propose(b"x" * 100), Accepted)
    assert leader.propose(b"y") is Refusal.FULL
    group.settle()
    assert leader.propose(b"y") == Accepted(3, 1)


def test_heartbeats_do_not_wait_for_the_disk(group: Group) -> None:
    """While a sync runs, a leader goes on to be heard."""
    leader = group.elect(THREE)
    leader.propose(b"x")
    batch = leader.ready()
    assert batch is not None
    leader.urgent()
    leader.tick()
    assert [type(m) for m in leader.urgent()] == [Heartbeat, Heartbeat]
    leader.persisted(batch)


# --- leading ----------------------------------------------------------------------------------


def test_a_leader_that_hears_no_majority_steps_down(group: Group) -> None:
    """Within an election time of the last heartbeat that was answered."""
    leader = group.elect(THREE)
    group.tick(50)
    assert leader.leader is not None
    group.isolate(THREE)
    group.tick(9)
    assert leader.leader is not None
    group.tick(1)
    assert leader.leader is None


def test_reads_of_a_leader_that_falls_are_given_back(group: Group) -> None:
    """Their callers can ask the next one."""
    leader = group.elect(THREE)
    group.isolate(THREE)
    assert leader.read("a") is None
    group.tick(10)
    assert group.lost_reads[THREE] == ["a"]
    assert group.reads[THREE] == []


def test_a_new_leader_serves_no_read_before_it_committed_in_its_term(group: Group) -> None:
    """Its commit index may be of yesterday."""
    core = group.cores[THREE]
    core.campaign()
    while core.leader is None:
        group.sync(THREE)
        for node in (ONE, TWO):
            group.deliver(node)
            group.sync(node)
        group.deliver(THREE)
    core.read("a")
    assert core.log.commit == 0
    group.settle()
    assert group.reads[THREE] == ["a"]
    assert core.log.commit == 1


def test_handing_over_refuses_proposals_and_ends(group: Group) -> None:
    """For an election time at most; only voters take over."""
    leader = group.elect(THREE)
    assert leader.transfer(FOUR) is Refusal.NOT_A_VOTER
    assert leader.transfer(THREE) is Refusal.NOT_A_VOTER
    group.isolate(ONE)
    assert leader.transfer(ONE) is None
    assert leader.transfer(TWO) is Refusal.TRANSFERRING
    assert leader.propose(b"x") is Refusal.TRANSFERRING
    group.tick(10)
    assert isinstance(leader.propose(b"x"), Accepted)
    assert group.cores[ONE].propose(b"x") is Refusal.NOT_LEADER


# --- members ----------------------------------------------------------------------------------


def test_new_voters_are_learners_that_caught_up(group: Group) -> None:
    """Else the group could wait for a node that has nothing."""
    leader = group.elect(THREE)
    voters = [ONE, TWO, THREE, FOUR]
    assert leader.change_members(voters) is Refusal.NOT_CAUGHT_UP
    assert leader.change_members([]) is Refusal.NO_VOTERS
    assert leader.change_members([ONE, TWO, THREE]) is Refusal.NO_CHANGE
    assert isinstance(leader.change_members([ONE, TWO, THREE], [FOUR]), Accepted)
    assert leader.change_members(voters) is Refusal.CHANGE_IN_PROGRESS
    group.tick(3)
    assert isinstance(leader.change_members(voters), Accepted)
    group.tick(3)
    assert leader.log.config == Config((ONE, TWO, THREE, FOUR))
    assert group.cores[FOUR].log.config == leader.log.config


def test_a_node_is_replaced_in_one_change(group: Group) -> None:
    """One leaves and one comes by one joint config; the one that left disturbs nobody."""
    leader = group.elect(THREE)
    leader.change_members([ONE, TWO, THREE], [FOUR])
    group.tick(3)
    leader.change_members([TWO, THREE, FOUR])
    group.tick(60)
    assert leader.leader is not None
    assert leader.term == 1
    assert leader.log.config == Config((TWO, THREE, FOUR))


# --- snapshots --------------------------------------------------------------------------------


def piece(offset: int, chunk: bytes, *, done: bool, index: int = 9) -> InstallSnapshot:
    return InstallSnapshot(
        CLUSTER, THREE, ONE, 4, index, 3, Config((ONE, THREE)), offset, chunk, done
    )


def test_pieces_of_a_snapshot_in_any_order(group: Group) -> None:
    """A piece that does not fit is answered with the offset that does."""
    core = group.cores[ONE]
    for message in (
        piece(4, b"efgh", done=False),
        piece(0, b"abcd", done=False),
        piece(0, b"abcd", done=False),
        piece(4, b"efgh", done=False),
    ):
        core.step(message)
    answers = [m.offset for m in core.urgent() if isinstance(m, SnapshotAnswer)]
    assert answers == [0, 4, 4, 8]
    core.step(piece(8, b"i", done=True))
    batch = core.ready()
    assert batch is not None
    assert batch.snapshot == Snapshot(9, 3, Config((ONE, THREE)), b"abcdefghi")
    assert [m.index for m in batch.messages if isinstance(m, AppendAnswer)] == [9]
    core.persisted(batch)


def test_a_snapshot_that_the_log_contains_drops_nothing(group: Group) -> None:
    """Entries beyond it may have been acknowledged."""
    core = group.cores[ONE]
    core.step(append(4, (0, 0), Entry(1, 3), Entry(2, 3), Entry(3, 4)))
    core.step(piece(0, b"", done=True, index=2))
    assert (core.log.commit, core.log.last_index) == (2, 3)
    core.step(piece(0, b"", done=True, index=1))
    assert (core.log.commit, core.log.last_index) == (2, 3)


def test_what_a_node_tells_of_itself_is_bounded() -> None:
    """A node that lives long does not grow by its story."""
    core = Raft(CLUSTER, ONE, lambda stop: 0, snapshot=Snapshot(config=Config((ONE, TWO))))
    for term in range(2, 400):
        core.step(Vote(CLUSTER, TWO, ONE, term, 0, 0, transfer=True))
        core.step(TimeoutNow(CLUSTER, TWO, ONE, term))
    assert len(core.story()) == STORY_LINES_MAX
    assert repr(core).startswith("<Raft node=1 candidate term=399 vote=1 leader=-")


def test_a_leader_known_to_be_dead_is_not_waited_for(group: Group) -> None:
    """The highest id that is left follows it long before an election time is over."""
    group.start([ONE, TWO, THREE])
    group.tick(12)
    assert group.cores[THREE].role is Role.LEADER
    group.isolate(THREE)
    for survivor in (ONE, TWO):
        group.cores[survivor].leader_gone(THREE)
    for _ in range(5):
        for survivor in (ONE, TWO):
            group.cores[survivor].tick()
        group.settle()
    assert group.cores[TWO].role is Role.LEADER


def test_a_leader_wrongly_taken_for_dead_goes_on(group: Group) -> None:
    """Its next heartbeat is obeyed; a rumour costs nothing by itself."""
    group.start([ONE, TWO, THREE])
    group.tick(12)
    term = group.cores[THREE].term
    group.cores[ONE].leader_gone(THREE)
    assert group.cores[ONE].leader_id is None
    group.tick(20)
    assert group.cores[ONE].leader_id == THREE
    assert group.cores[THREE].term == term
