"""What must be true of clients once faults have ended and everybody has had time.

One node or many: clients cannot tell, and neither can this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssgovern.model import ServiceKey
from ssgovern.sim.claims import Claims
from ssgovern.sim.followers import told_of
from ssgovern.sim.lease_keeper import LeaseKeeper, may_still_live
from ssgovern.sim.process import Process
from ssgovern.sim.raw_clients import RawClient, RawWatcher
from ssgovern.sim.workload import Life, Stage


def check_converged(
    checker: Claims,
    stage: Stage,
    raw: Mapping[str, RawClient],
    clients: Sequence[Process],
    hold_s: float,
) -> None:
    """Check every living client against the ledger; nothing is written any more.

    `hold_s`: for so long protection may have held anyone.
    """
    living = [client for client in clients if client.alive]
    for client in living:
        life = stage.lives.get(client.name)
        if client.name in raw:
            _check_raw(checker, raw[client.name])
        elif life is None or life.incarnation != client.incarnation:
            checker.fail(f"L1: {client.name} did not get to its program")
        else:
            _check_life(checker, stage, life)
    _check_owners(checker, stage, raw, living, hold_s)


def _check_life(checker: Claims, stage: Stage, life: Life) -> None:
    name = life.plan.name
    checker.expect(
        life.successes_in_calm > 0, f"L1: {name}: nothing succeeded after all was healed"
    )
    if not checker.ledger.losses and not life.plan.reuses_ids:
        _check_expected(checker, stage, life)
    for subscription, follower in life.subscriptions:
        checker.expect(subscription.is_current, f"W2: {name}: {subscription!r} is not current")
        for key, (_, instances) in told_of(subscription).items():
            _check_now(checker, name, key, {each.id: each for each in instances})
        for key, listed in follower.told().items():
            _check_now(checker, f"{name}'s reader", key, dict(listed))


def _check_expected(checker: Claims, stage: Stage, life: Life) -> None:
    """D1: what was acknowledged to a client that lives is there."""
    for (key, instance_id), wanted in life.expected.items():
        if wanted is None or (key, instance_id) in stage.touched:
            continue
        owned = checker.ledger.shard(key).service(key).now.get(instance_id)
        if (
            owned is None
            or owned.session_id != life.session_id
            or owned.instance.weight != wanted.weight
            or dict(owned.instance.metadata) != wanted.metadata
            or owned.instance.ephemeral != wanted.ephemeral
            or not owned.instance.healthy
        ):
            checker.fail(
                f"D1: {life.plan.name} was acknowledged {key} {instance_id} as {wanted!r}; "
                f"there is {owned!r}"
            )


def _check_raw(checker: Claims, client: RawClient) -> None:
    if isinstance(client, LeaseKeeper):
        client.check_converged()
    if isinstance(client, RawWatcher):
        for key, listed in client.lists.items():
            _check_now(checker, client.plan.name, key, dict(listed))


def _check_now(checker: Claims, who: str, key: ServiceKey, listed: dict[str, object]) -> None:
    """W2: everybody's list is what the log says now."""
    now = {
        name: owned.instance for name, owned in checker.ledger.shard(key).service(key).now.items()
    }
    if listed != now:
        checker.fail(f"W2: {who} has {key} as {listed}, it is {now}")


def _check_owners(
    checker: Claims,
    stage: Stage,
    raw: Mapping[str, RawClient],
    living: Sequence[Process],
    hold_s: float,
) -> None:
    """S2: whose session is gone, or whose lease nobody renews, has no ephemeral instance."""
    sessions: dict[bytes, str] = {}
    for client in living:
        if client.name in raw:
            keeper = raw[client.name]
            sessions[keeper.session_id] = client.name
            if isinstance(keeper, LeaseKeeper):
                sessions.update(dict.fromkeys(keeper.held, client.name))
        elif client.name in stage.lives:
            sessions[stage.lives[client.name].session_id] = client.name
    for key, history in checker.ledger.services():
        for name, owned in history.now.items():
            if (
                owned.session_id
                and owned.session_id not in sessions
                and not may_still_live(checker, key, owned.session_id, hold_s)
            ):
                checker.fail(
                    f"S2: {key} {name} belongs to session {owned.session_id.hex()[:8]}, "
                    "whose client died long ago"
                )
