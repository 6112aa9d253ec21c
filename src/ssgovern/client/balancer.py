"""Which instance the next call goes to.

Pure: lists, time and randomness are handed in. Who may take traffic is the same for every
strategy: instances that are available; if none is, those that only lack health (what is
measured may be wrong, what an instance says of itself or an operator decided is not). Of these
the ones whose last call failed a short while ago are passed over as long as there are others.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Container, Sequence
from enum import StrEnum
from itertools import accumulate

from ssgovern.model import Instance, Status
from ssgovern.runtime import Rng

AVOID_FIRST_S = 5.0
"""How long an instance is passed over after a failed call; doubles with each further one."""
AVOID_MOST_S = 60.0


class Strategy(StrEnum):
    """How `choose` picks."""

    WEIGHTED_RANDOM = "weighted_random"
    ROUND_ROBIN = "round_robin"
    LEAST_RECENTLY_FAILED = "least_recently_failed"
    ZONE_FIRST = "zone_first"


class _Failure:
    """The last failures of one instance in a row."""

    __slots__ = ("at_s", "avoid_until_s", "count")

    def __init__(self) -> None:
        self.at_s = 0.0
        self.avoid_until_s = 0.0
        self.count = 0


class Balancer:
    """The choices of one caller among the instances of one service."""

    __slots__ = ("_failures", "_far", "_near", "_rng", "_source", "_strategy", "_zone")

    def __init__(self, rng: Rng, strategy: Strategy, *, zone: str = "") -> None:
        self._rng = rng
        self._strategy = strategy
        self._zone = zone
        self._failures: dict[str, _Failure] = {}
        self._source: Sequence[Instance] | None = None
        self._far = _Pool((), rng)
        self._near: _Pool | None = None

    def __repr__(self) -> str:
        return f"<Balancer {self._strategy.value} failures={len(self._failures)}>"

    def choose(
        self, instances: Sequence[Instance], now_s: float, strategy: Strategy | None = None
    ) -> Instance | None:
        """Return the instance for the next call, or None if none may take traffic.

        `instances` must be the same object until it changes: what is worked out from it is kept.
        """
        if instances is not self._source:
            self._prepare(instances)
        strategy = strategy or self._strategy
        if strategy is Strategy.LEAST_RECENTLY_FAILED:
            return self._choose_least_recently_failed()
        if strategy is Strategy.ZONE_FIRST and self._near is not None:
            near = self._pick(self._near, Strategy.WEIGHTED_RANDOM, now_s)
            if near is not None:
                return near
        chosen = self._pick(self._far, strategy, now_s)
        # All of them failed lately: better the one that had longest to recover than none.
        return chosen or self._choose_least_recently_failed()

    def report_failure(self, instance_id: str, now_s: float) -> None:
        """Pass over an instance for a while; the longer, the more failed in a row."""
        failure = self._failures.setdefault(instance_id, _Failure())
        if now_s > failure.avoid_until_s + AVOID_MOST_S:
            failure.count = 0
        elif now_s < failure.avoid_until_s:
            # Calls that were already on their way fail together; they count as one.
            failure.at_s = now_s
            return
        avoid_s = min(AVOID_MOST_S, AVOID_FIRST_S * 2.0**failure.count)
        failure.count += 1
        failure.at_s = now_s
        failure.avoid_until_s = now_s + avoid_s

    def report_success(self, instance_id: str) -> None:
        """Forget the failures of an instance."""
        self._failures.pop(instance_id, None)

    def _prepare(self, instances: Sequence[Instance]) -> None:
        self._source = instances
        usable = [instance for instance in instances if instance.available]
        if not usable:
            usable = [instance for instance in instances if _lacks_only_health(instance)]
        self._far = _Pool(usable, self._rng, before=self._far)
        near = [i for i in usable if i.zone == self._zone] if self._zone else []
        self._near = _Pool(near, self._rng) if near else None
        if self._failures:
            ids = {instance.id for instance in instances}
            self._failures = {k: f for k, f in self._failures.items() if k in ids}

    def _pick(self, pool: _Pool, strategy: Strategy, now_s: float) -> Instance | None:
        """Return a choice that is not to be avoided, or None."""
        avoided = {
            instance_id for instance_id, f in self._failures.items() if now_s < f.avoid_until_s
        }
        if strategy is Strategy.ROUND_ROBIN:
            return pool.next_in_turn(avoided)
        return pool.weighted_random(avoided)

    def _choose_least_recently_failed(self) -> Instance | None:
        failures = self._failures
        chosen = self._far.weighted_random(failures.keys())
        if chosen is not None:
            return chosen
        return min(self._far.instances, key=lambda i: (failures[i.id].at_s, i.id), default=None)


class _Pool:
    """Instances among which is chosen, with what choosing fast needs."""

    __slots__ = ("_rng", "_sums", "_turns", "instances")

    def __init__(
        self, instances: Sequence[Instance], rng: Rng, *, before: _Pool | None = None
    ) -> None:
        self.instances = instances
        self._rng = rng
        self._sums = list(accumulate(instance.weight for instance in instances))
        self._turns: list[tuple[float, str, Instance]] | None = None
        if before is not None and before._turns is not None:
            self._turns = self._new_turns(before._turns)

    def weighted_random(self, avoided: Container[str]) -> Instance | None:
        if not self.instances:
            return None
        chosen = self._draw(self.instances, self._sums)
        if chosen.id not in avoided:
            return chosen
        others = [instance for instance in self.instances if instance.id not in avoided]
        if not others:
            return None
        return self._draw(others, list(accumulate(instance.weight for instance in others)))

    def _draw(self, instances: Sequence[Instance], sums: list[float]) -> Instance:
        index = bisect_right(sums, self._rng.random() * sums[-1])
        # Rounding may lead one past the end.
        return instances[min(index, len(instances) - 1)]

    def next_in_turn(self, avoided: set[str]) -> Instance | None:
        """Stride scheduling: who had the least for its weight is next.

        Equal weights take plain turns. Turns start at random, so that many callers that start
        together do not all call the same instance first.
        """
        if self._turns is None:
            self._turns = self._new_turns([])
        turns = self._turns
        passed_over = []
        chosen = None
        while turns:
            had, instance_id, instance = heapq.heappop(turns)
            if instance_id not in avoided:
                chosen = instance
                heapq.heappush(turns, (had + 1.0 / instance.weight, instance_id, instance))
                break
            passed_over.append((had, instance_id, instance))
        now = turns[0][0] if turns else 0.0
        for had, instance_id, instance in passed_over:
            # Without a claim to what it missed: it would get all traffic when it comes back.
            heapq.heappush(turns, (max(had, now), instance_id, instance))
        return chosen

    def _new_turns(
        self, before: list[tuple[float, str, Instance]]
    ) -> list[tuple[float, str, Instance]]:
        had = {instance_id: had for had, instance_id, _ in before}
        start = before[0][0] if before else 0.0
        turns = [
            (
                had[i.id] if i.id in had else start + self._rng.random() / i.weight,
                i.id,
                i,
            )
            for i in self.instances
        ]
        heapq.heapify(turns)
        return turns


def _lacks_only_health(instance: Instance) -> bool:
    return instance.status is Status.UP and instance.enabled and instance.weight > 0.0
