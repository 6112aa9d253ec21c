"""Raft's majorities and logs against what must hold for any input."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from ssgovern.model import NodeId
from ssgovern.raft import Config, Entry, HardState, Raft, Snapshot
from ssgovern.raft.messages import Append

CLUSTER = b"test"
ME, LEADER = NodeId(1), NodeId(2)
VOTERS = st.sets(st.integers(1, 6).map(NodeId), min_size=1, max_size=5)


def majorities(config: Config) -> list[frozenset[NodeId]]:
    everybody = config.all_voters()
    return [
        frozenset(some)
        for size in range(len(everybody) + 1)
        for some in combinations(everybody, size)
        if config.has_majority(some)
    ]


@given(VOTERS, VOTERS)
def test_no_two_majorities_along_a_change_are_apart(
    before: set[NodeId], after: set[NodeId]
) -> None:
    """Old and joint, joint and new, and each with itself always share a voter."""
    old = Config(tuple(sorted(before)))
    joint = old.towards(after, ())
    new = joint.settled()
    for one, other in ((old, old), (old, joint), (joint, joint), (joint, new), (new, new)):
        for some in majorities(one):
            assert all(some & others for others in majorities(other))


@st.composite
def logs_and_appends(
    draw: st.DrawFn,
) -> tuple[list[Entry], list[Entry], list[tuple[int, int, int]]]:
    """A leader's log, a follower's that shares a prefix with it, and pieces of the former."""
    terms = sorted(draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)))
    leaders = [Entry(at + 1, term, b"L") for at, term in enumerate(terms)]
    shared = draw(st.integers(0, len(leaders)))
    # Beyond what is shared the follower has terms that the leader's log does not: equal
    # (index, term) would mean equal entries.
    first = leaders[shared - 1].term if shared else 0
    own = sorted(draw(st.lists(st.integers(first * 10 + 1, 45), max_size=6)))
    others = [Entry(shared + at + 1, term, b"F") for at, term in enumerate(own) if term % 10]
    others = [Entry(shared + at + 1, e.term, b"F") for at, e in enumerate(others)]
    scaled = [e._replace(term=e.term * 10) for e in leaders]
    pieces = draw(
        st.lists(
            st.tuples(st.integers(0, len(scaled)), st.integers(0, 5), st.integers(0, len(scaled))),
            max_size=20,
        )
    )
    return scaled, scaled[:shared] + others, pieces


@given(logs_and_appends())
def test_any_order_of_appends_ends_in_the_leaders_log(
    drawn: tuple[list[Entry], list[Entry], list[tuple[int, int, int]]],
) -> None:
    """Lost, doubled and reordered appends never leave committed what is not the leader's, and
    one append of everything always makes the logs equal."""
    leaders, mine, pieces = drawn
    core = Raft(
        CLUSTER,
        ME,
        lambda stop: 0,
        hard_state=HardState(50),
        snapshot=Snapshot(config=Config((ME, LEADER))),
        entries=mine,
    )

    def step(prev: int, count: int, commit: int) -> None:
        prev_term = leaders[prev - 1].term if prev else 0
        entries = tuple(leaders[prev : prev + count])
        core.step(Append(CLUSTER, LEADER, ME, 50, prev, prev_term, entries, commit))
        core.validate()
        held = list(core.log.entries(1, core.log.commit))
        assert held == leaders[: core.log.commit]

    for prev, count, commit in pieces:
        step(prev, count, commit)
    step(0, len(leaders), 0)
    assert list(core.log.entries(1, len(leaders))) == leaders
