"""What is said to have arrived everywhere, held against what every subscriber can see.

Judges the moment in which one who waited hears that all live subscribers have applied a
position. A subscriber counts if a node that was asked has it among its own, on a connection that
is open at both ends, and if it takes its list for current: whoever knows that its list is old,
or is not heard any more, was promised nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ssgovern.client.registry import Registry
from ssgovern.client.subscribers import Delivery
from ssgovern.node.node import Node
from ssgovern.sim.claims import Claims

if TYPE_CHECKING:
    from ssgovern.sim.workload import Life


def check_delivered(
    checker: Claims,
    registry: Registry,
    delivery: Delivery,
    nodes: Iterable[Node],
    lives: dict[str, Life],
) -> None:
    """P1: of what is called complete every live subscriber has seen every change before it."""
    if not delivery.complete or checker.ledger.losses:
        return
    asked = registry._live_nodes()
    by_session = {life.session_id: life for life in lives.values()}
    for node in nodes:
        if not node.listening or node._identity.node_id not in asked:
            continue
        for subscriber in node.push.subscriptions.audience(delivery.key):
            life = by_session.get(subscriber.who.session_id)
            if life is None or not life.runtime.process.alive:
                continue
            for subscription, _ in life.subscriptions:
                watch = subscription._watch
                view = None if watch is None else watch.views.get(delivery.key)
                if watch is None or view is None or not watch.is_current:
                    continue
                history = checker.ledger.shard(delivery.key).services.get(delivery.key)
                revision = view.position.revision
                missed = (
                    []
                    if history is None or view.position >= delivery.position
                    else list(history.between(revision, delivery.position.revision))[1:]
                )
                checker.expect(
                    not missed,
                    f"P1: all were said to have {delivery.key} at {delivery.position!r}, "
                    f"{life.plan.name} has {view!r} from {node!r}",
                )
