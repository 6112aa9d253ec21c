"""Majorities, progress of a follower, and rounds of reads, each alone."""

from __future__ import annotations

import pytest

from ssgovern.model import NodeId
from ssgovern.raft import Config, Snapshot
from ssgovern.raft.progress import Mode, Progress
from ssgovern.raft.reads import Reads


def nodes(*ids: int) -> tuple[NodeId, ...]:
    return tuple(map(NodeId, ids))


@pytest.mark.parametrize(
    ("values", "agreed"),
    [((7,), 7), ((7, 9), 7), ((1, 5, 9), 5), ((0, 0, 9, 9), 0), ((1, 2, 3, 4, 5), 3)],
)
def test_a_majority_has_reached(values: tuple[int, ...], agreed: int) -> None:
    """More than half, not half."""
    config = Config(nodes(*range(1, len(values) + 1)))
    assert config.agreed(lambda node: values[node - 1]) == agreed


def test_joint_needs_both_majorities() -> None:
    """Neither the old nor the new voters decide alone."""
    config = Config(nodes(1, 2, 3), nodes(3, 4, 5))
    assert not config.has_majority(nodes(1, 2))
    assert not config.has_majority(nodes(3, 4, 5))
    assert config.has_majority(nodes(1, 3, 4))


def test_learners_and_nobody_decide_nothing() -> None:
    """A group without voters has no majority, and learners are none."""
    assert not Config((), (), nodes(1)).has_majority(nodes(1))
    assert not Config(nodes(1, 2, 3), (), nodes(4, 5)).has_majority(nodes(1, 4, 5))


def test_learners_change_in_one_step_voters_in_two() -> None:
    """Only another set of voters needs a joint config, which ends as what was wanted."""
    config = Config(nodes(1))
    with_learners = config.towards(nodes(1), nodes(3, 2))
    assert with_learners == Config(nodes(1), (), nodes(2, 3))
    joint = with_learners.towards(nodes(3, 1), nodes(2))
    assert joint == Config(nodes(1, 3), nodes(1), nodes(2))
    assert joint.settled() == Config(nodes(1, 3), (), nodes(2))
    assert repr(joint) == "<Config voters=1,3 outgoing=1 learners=2>"


def test_a_probe_waits_until_it_is_answered() -> None:
    """One append at a time until the logs meet, then many."""
    peer = Progress(10, 0)
    peer.on_sent(12)
    assert peer.waiting
    assert peer.next == 10
    assert peer.on_matched(12)
    assert (peer.mode, peer.match, peer.next, peer.waiting) == (Mode.REPLICATE, 12, 13, False)
    peer.on_sent(14)
    peer.on_sent(16)
    assert list(peer.in_flight) == [14, 16]
    assert peer.on_matched(14)
    assert list(peer.in_flight) == [16]
    assert not peer.on_matched(13)
    peer.validate()


def test_old_refusals_change_nothing() -> None:
    """A refusal that was overtaken must not send a follower back."""
    peer = Progress(10, 0)
    peer.on_sent(12)
    assert not peer.on_mismatch(4, 3)
    peer.on_matched(12)
    peer.on_sent(15)
    assert not peer.on_mismatch(9, 3)
    assert peer.mode is Mode.REPLICATE
    assert peer.on_mismatch(14, 3)
    assert (peer.mode, peer.next) == (Mode.PROBE, 13)
    peer.validate()


def test_a_snapshot_ends_when_it_is_on_the_disk_of_the_other() -> None:
    """Answers to appends that were on their way do not end it."""
    peer = Progress(3, 0)
    peer.send_snapshot(Snapshot(20, 2))
    peer.on_matched(2)
    assert peer.mode is Mode.SNAPSHOT
    peer.on_matched(20)
    assert (peer.mode, peer.next, peer.snapshot) == (Mode.PROBE, 21, None)
    peer.validate()


def test_a_round_confirms_only_what_was_asked_before_it() -> None:
    """Answers to older heartbeats say nothing about a later read."""
    reads = Reads()
    reads.ask(5, "a")
    first = reads.begin_round()
    reads.ask(6, "b")
    assert reads.take_confirmed(first) == [(5, "a")]
    assert reads.want_round
    second = reads.begin_round()
    assert reads.take_confirmed(first) == []
    assert reads.take_confirmed(second) == [(6, "b")]
    reads.ask(7, "c")
    reads.begin_round()
    reads.ask(8, "d")
    assert reads.take_all() == ["c", "d"]
    reads.validate()
