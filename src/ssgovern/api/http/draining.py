"""Who follows a service, and taking an instance out of traffic without anybody calling it after.

Every node answers for the subscribers that are connected to it; what they say is put together
here. Knows no sockets. Invariants: an instance is deregistered by a drain only after every
subscriber that says what it has applied has applied that it is out of service, on every live
node; nothing waits beyond the time that was asked for.
"""

from __future__ import annotations

from itertools import islice

from ssgovern import limits
from ssgovern.api.http import asks, bodies, leases, writes
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.api.http.reads import key_of
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId, ServiceKey
from ssgovern.wire.codec import key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import applied_pb2, native_pb2

_MARGIN_MS = 2_000
"""For the answers of nodes that waited for as long as they were asked to."""


async def subscribers(desk: Desk, asked: Asked) -> Answer:
    """Return who follows a service on all live nodes, and up to where each has applied it."""
    query = asked.query
    assert isinstance(query, asks.SubscribersQuery), "the operation says what is asked"
    key = key_of(asked)
    outcomes = await desk.backend.gateway.ask_all(
        MessageType.SUBSCRIBERS,
        applied_pb2.SubscribersRequest(service=key_to_wire(key), page_size=query.limit),
        applied_pb2.SubscribersResponse,
    )
    found: list[bodies.Subscriber] = []
    complete = True
    for node, outcome in outcomes.items():
        if isinstance(outcome, SsGovernError):
            complete = False
            continue
        found += [_subscriber(node, each) for each in outcome.subscribers]
        complete = complete and not outcome.next_after
    return Answer(
        bodies.Subscribers(
            namespace=key.namespace,
            group=key.group,
            service=key.service,
            subscribers=found[: query.limit],
            complete=complete and len(found) <= query.limit,
        )
    )


def _subscriber(node: NodeId, each: applied_pb2.ServiceSubscriber) -> bodies.Subscriber:
    return bodies.Subscriber(
        session_id=each.session_id.hex(),
        client_name=each.client_name,
        address=each.address,
        node_id=node,
        says=each.says,
        epoch=each.epoch,
        revision=each.revision,
        behind_ms=each.behind_ms,
        disconnected=each.disconnected,
    )


async def drain(desk: Desk, asked: Asked) -> Answer:
    """Take an instance out of service, wait until all who follow the service know, say who not."""
    body = asked.body
    assert isinstance(body, asks.DrainAsk), "the operation says what is asked"
    asked.give_time(body.timeout_ms + 4 * limits.HTTP_FORWARD_MS)
    key = key_of(asked)
    changed = await writes.change(desk, asked, native_pb2.InstanceChange(out_of_service=True))
    waited = await _await_applied(desk, key, changed, body.timeout_ms)
    if waited.applied and body.deregister:
        removed = await writes.remove(desk, key, asked.path["id"], leases.shown(asked.headers))
        waited = waited.model_copy(update={"removed": removed.removed})
    return Answer(waited)


async def _await_applied(
    desk: Desk, key: ServiceKey, changed: native_pb2.UpdateResponse, timeout_ms: int
) -> bodies.Drained:
    outcomes = await desk.backend.gateway.ask_all(
        MessageType.AWAIT_APPLIED,
        applied_pb2.AwaitAppliedRequest(
            service=key_to_wire(key),
            epoch=changed.epoch,
            revision=changed.revision,
            timeout_ms=timeout_ms,
        ),
        applied_pb2.AwaitAppliedResponse,
        timeout_ms=timeout_ms + _MARGIN_MS,
    )
    answers: dict[NodeId, applied_pb2.AwaitAppliedResponse] = {}
    unreachable: list[int] = []
    for node, outcome in outcomes.items():
        if isinstance(outcome, SsGovernError):
            unreachable.append(node)
        else:
            answers[node] = outcome
    lacking = (
        _subscriber(node, each) for node, answer in answers.items() for each in answer.lacking
    )
    return bodies.Drained(
        applied=not unreachable and all(answer.applied for answer in answers.values()),
        removed=False,
        epoch=changed.epoch,
        revision=changed.revision,
        subscribers=sum(answer.subscribers_total for answer in answers.values()),
        lacking=list(islice(lacking, limits.HTTP_PAGE_DEFAULT)),
        lacking_total=sum(answer.lacking_total for answer in answers.values()),
        silent_total=sum(answer.silent_total for answer in answers.values()),
        unreachable_nodes=unreachable,
    )
