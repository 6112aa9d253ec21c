"""Which instance the next call goes to."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from stage import instance

from ssgovern.client.backoff import Backoff
from ssgovern.client.balancer import AVOID_FIRST_S, AVOID_MOST_S, Balancer, Strategy
from ssgovern.model import Instance, Status


def balancer(strategy: Strategy = Strategy.WEIGHTED_RANDOM, zone: str = "") -> Balancer:
    return Balancer(random.Random(7), strategy, zone=zone)


def counts(chooser: Balancer, instances: list[Instance], calls: int, now_s: float = 0.0) -> Counter:
    found: Counter = Counter()
    for _ in range(calls):
        chosen = chooser.choose(instances, now_s)
        assert chosen is not None
        found[chosen.id] += 1
    return found


@pytest.mark.parametrize("strategy", list(Strategy))
def test_nothing_to_choose_from_is_none(strategy: Strategy) -> None:
    """An empty list, and one of which no instance takes traffic, give None."""
    chooser = balancer(strategy, zone="z")
    assert chooser.choose([], 0.0) is None
    unusable = [
        instance(1, weight=0.0),
        instance(2, enabled=False),
        instance(3, status=Status.STOPPING),
        instance(4, enabled=False, healthy=False),
    ]
    assert chooser.choose(unusable, 0.0) is None


@pytest.mark.parametrize("strategy", list(Strategy))
def test_unavailable_instances_are_never_chosen_beside_available_ones(strategy: Strategy) -> None:
    """Who is down, disabled, unhealthy or without weight gets no traffic."""
    mixed = [
        instance(1),
        instance(2, weight=0.0),
        instance(3, enabled=False),
        instance(4, healthy=False),
        instance(5, status=Status.DOWN),
    ]
    assert set(counts(balancer(strategy), mixed, 200)) == {"i1"}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_all_unhealthy_is_better_than_none(strategy: Strategy) -> None:
    """If health alone is missing everywhere, it is what was measured that is doubted."""
    sick = [instance(1, healthy=False), instance(2, healthy=False, enabled=False)]
    assert set(counts(balancer(strategy), sick, 20)) == {"i1"}


def test_weighted_random_keeps_to_the_weights() -> None:
    """An instance of three times the weight gets about three times the calls."""
    found = counts(balancer(), [instance(1, weight=30.0), instance(2, weight=10.0)], 4000)
    assert 2800 < found["i1"] < 3200


def test_round_robin_is_exact_and_spreads() -> None:
    """Equal weights take strict turns; unequal ones their share, without bursts."""
    equal = [instance(n) for n in range(5)]
    chooser = balancer(Strategy.ROUND_ROBIN)
    assert set(counts(chooser, equal, 50).values()) == {10}

    unequal = [instance(1, weight=30.0), instance(2, weight=10.0)]
    chooser = balancer(Strategy.ROUND_ROBIN)
    for _ in range(10):
        assert counts(chooser, unequal, 4)["i1"] == 3


def test_round_robin_goes_on_when_the_list_changes() -> None:
    """A newcomer neither waits a whole round nor is flooded to catch up."""
    two = [instance(1), instance(2)]
    chooser = balancer(Strategy.ROUND_ROBIN)
    counts(chooser, two, 1001)
    found = counts(chooser, [*two, instance(3)], 300)
    assert all(98 <= count <= 102 for count in found.values()), found


def test_round_robin_does_not_repay_what_was_avoided() -> None:
    """An instance that comes back from being avoided gets its turn, not all it missed."""
    both = [instance(1), instance(2)]
    chooser = balancer(Strategy.ROUND_ROBIN)
    counts(chooser, both, 10)
    chooser.report_failure("i1", 100.0)
    assert counts(chooser, both, 100, now_s=100.0) == {"i2": 100}
    found = counts(chooser, both, 10, now_s=100.0 + AVOID_FIRST_S)
    assert found["i1"] <= 6


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_failed_instance_is_passed_over_for_a_while(strategy: Strategy) -> None:
    """After a reported failure others are chosen, and later it is tried again."""
    both = [instance(1), instance(2)]
    chooser = balancer(strategy)
    chooser.report_failure("i1", 100.0)
    assert counts(chooser, both, 50, now_s=100.0 + AVOID_FIRST_S - 0.1) == {"i2": 50}
    if strategy is not Strategy.LEAST_RECENTLY_FAILED:
        assert set(counts(chooser, both, 50, now_s=100.0 + AVOID_FIRST_S)) == {"i1", "i2"}


def test_repeated_failures_are_avoided_for_longer_up_to_a_limit() -> None:
    """Each further failure doubles the pause; failures of one moment count as one."""
    both = [instance(1), instance(2)]
    chooser = balancer()
    now_s = 0.0
    for expected_s in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        chooser.report_failure("i1", now_s)
        chooser.report_failure("i1", now_s)
        expected_s = min(expected_s, AVOID_MOST_S)
        assert set(counts(chooser, both, 40, now_s=now_s + expected_s - 0.1)) == {"i2"}
        now_s += expected_s
        assert set(counts(chooser, both, 40, now_s=now_s)) == {"i1", "i2"}
    chooser.report_success("i1")
    chooser.report_failure("i1", now_s)
    assert "i1" in counts(chooser, both, 40, now_s=now_s + AVOID_FIRST_S)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_if_all_failed_the_one_longest_ago_is_chosen(strategy: Strategy) -> None:
    """Avoiding never leaves a caller without an instance."""
    both = [instance(1), instance(2)]
    chooser = balancer(strategy)
    chooser.report_failure("i2", 1.0)
    chooser.report_failure("i1", 2.0)
    assert counts(chooser, both, 10, now_s=3.0) == {"i2": 10}


def test_zone_first_leaves_the_zone_only_when_it_must() -> None:
    """Near instances take all traffic as long as one of them may."""
    chooser = balancer(Strategy.ZONE_FIRST, zone="a")
    both = [instance(1, zone="a"), instance(2, zone="b")]
    assert counts(chooser, both, 20) == {"i1": 20}
    chooser.report_failure("i1", 0.0)
    assert counts(chooser, both, 20) == {"i2": 20}
    away = [instance(1, zone="a", healthy=False), instance(2, zone="b")]
    assert counts(chooser, away, 20) == {"i2": 20}


def test_failures_of_the_gone_are_forgotten() -> None:
    """What is remembered is bounded by the list."""
    chooser = balancer()
    for number in range(100):
        chooser.report_failure(f"i{number}", 0.0)
    chooser.choose([instance(1)], 0.0)
    assert repr(chooser) == "<Balancer weighted_random failures=1>"


def test_pauses_grow_with_jitter_to_a_limit() -> None:
    """Each pause is in the upper half of its range, and a reset starts anew."""
    backoff = Backoff(random.Random(1), first_s=0.1, most_s=1.0)
    for most in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert most / 2 <= backoff.next_pause_s() <= most
    backoff.reset()
    assert backoff.next_pause_s() <= 0.1
