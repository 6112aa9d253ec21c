"""What subscribers and readers are told, held against what the log says was true.

`Follower` stands for the caller of the SDK: it keeps a list by the changes it is given and by
nothing else. `check_read` and `check_listing` judge single answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ssgovern.client.subscription import PrefixSubscription, Subscription
from ssgovern.client.values import Change
from ssgovern.model import Instance, LogPosition, ServiceKey
from ssgovern.sim.claims import Claims


class Follower:
    """One subscription, as its reader experiences it."""

    def __init__(self, checker: Claims, who: str) -> None:
        self._checker = checker
        self._who = who
        self._lists: dict[ServiceKey, dict[str, Instance]] = {}
        self._revisions: dict[ServiceKey, int] = {}
        self.changes = 0

    def begin(self, key: ServiceKey, position: LogPosition, instances: Iterable[Instance]) -> None:
        """The list at entry."""
        self._lists[key] = {instance.id: instance for instance in instances}
        check_list(self._checker, self._who, key, position.revision, self._lists[key])
        self._revisions[key] = position.revision

    def change(self, change: Change) -> None:
        """W1, R1: a change fits the list before it, and leads to what was true at its revision."""
        checker, key = self._checker, change.key
        self.changes += 1
        held = self._lists.setdefault(key, {})
        last = self._revisions.get(key, 0)
        # What was told before a loss that durability allows may be read after it.
        if change.revision <= last and not checker.ledger.losses:
            checker.fail(f"R1: {self._who} was told {key} at {change.revision} after {last}")
        self._revisions[key] = change.revision
        for instance in change.added:
            checker.expect(
                instance.id not in held, f"W1: {self._who}: {key} {instance.id} added twice"
            )
            held[instance.id] = instance
        for instance in change.changed:
            checker.expect(
                instance.id in held, f"W1: {self._who}: {key} {instance.id} changed, never added"
            )
            held[instance.id] = instance
        for instance in change.removed:
            checker.expect(
                held.pop(instance.id, None) is not None,
                f"W1: {self._who}: {key} {instance.id} removed, never added",
            )
        check_list(checker, self._who, key, change.revision, held)

    def told(self) -> Mapping[ServiceKey, Mapping[str, Instance]]:
        """All lists, as the changes made them."""
        return self._lists


def check_list(
    checker: Claims, who: str, key: ServiceKey, revision: int, told: Mapping[str, Instance]
) -> None:
    """W1: a list is what the service was at a committed revision; so an empty one was empty."""
    if checker.ledger.revision(key) < revision and not checker.ledger.losses:
        checker.fail(f"W1: {who} was told {key} at {revision}, which is not committed")
    elif not any(state == told for state in checker.ledger.states_at(key, revision)):
        states = [dict(state) for state in checker.ledger.states_at(key, revision)]
        checker.fail(f"W1: {who} was told {key} at {revision}: {dict(told)}, it was {states}")


def check_read(
    checker: Claims,
    who: str,
    key: ServiceKey,
    floor: tuple[int, int],
    found: Iterable[Instance],
) -> None:
    """R2: a read shows a state no older than what was committed before it began."""
    told = {instance.id: instance for instance in found}
    ledger = checker.ledger
    if floor[0] != ledger.losses:
        return
    shard = ledger.shard(key)
    history = shard.services.get(key)
    states = [{}] if history is None else history.between(floor[1], shard.revision)
    if not any(state == told for state in states):
        checker.fail(
            f"R2: {who} read {key} as {told}, which it never was from {floor[1]} "
            f"to {shard.revision}"
        )


def check_listing(
    checker: Claims,
    who: str,
    floors: Mapping[ServiceKey, tuple[int, int]],
    found: Iterable[ServiceKey],
) -> None:
    """R2: a list of services has those that had instances all the while, and no strangers.

    Where replicas may answer, the list is one that was true at some time.
    """
    told = dict.fromkeys(found)
    ledger = checker.ledger
    for key, (losses, revision) in floors.items():
        if checker.lists_may_be_old:
            history = ledger.shard(key).services.get(key)
            if key in told and (history is None or not any(history.versions)):
                checker.fail(f"R2: {who}: {key} is listed and never had an instance")
            continue
        if losses != ledger.losses:
            return
        shard = ledger.shard(key)
        history = shard.services.get(key)
        states = [] if history is None else list(history.between(revision, shard.revision))
        if key not in told and states and all(states):
            checker.fail(f"R2: {who}: {key} is missing in the list of services")
        if key in told and not any(states):
            checker.fail(f"R2: {who}: {key} is listed and had no instance")


def told_of(
    subscription: Subscription | PrefixSubscription,
) -> dict[ServiceKey, tuple[LogPosition, tuple[Instance, ...]]]:
    """Return what a subscription shows now, by service, with the position it stands for."""
    watch = subscription._watch
    assert watch is not None, "asked after it was opened"
    return {
        key: (view.position, view.instances) for key, view in watch.views.items() if view.loaded
    }
