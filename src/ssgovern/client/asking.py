"""Questions that every node answers for itself, asked of all of them at once.

Knows which nodes are live, and nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from google.protobuf.message import Message

from ssgovern.client.session import Session
from ssgovern.errors import SsGovernError, UnavailableError
from ssgovern.model import NodeId

M = TypeVar("M", bound=Message)


async def live_nodes(session: Session, deadline: float) -> list[NodeId]:
    """Return the nodes that the shard map calls live; of one that stands alone, that one."""
    await session.connected(deadline)
    alone = session.map.is_single
    return sorted(node.id for node in session.map.nodes.values() if node.live or alone)


async def ask_node(
    session: Session,
    node: NodeId,
    type_: int,
    request: Message,
    answer: type[M],
    deadline: float,
) -> M:
    """Ask one node, once; one that stands alone as often as it takes."""
    if session.map.is_single:
        return await session.call(type_, request, answer, deadline, repeatable=True)
    return await session.ask(node, type_, request, answer, deadline)


async def ask_all(
    session: Session, type_: int, request: Message, answer: type[M], deadline: float
) -> tuple[list[M], tuple[tuple[int, str], ...]]:
    """Ask every live node; return what they said, and of those that failed why.

    Raises the error of the last if all failed.
    """
    nodes = await live_nodes(session, deadline)
    said: dict[NodeId, M] = {}
    errors: dict[NodeId, SsGovernError] = {}

    async def ask(node: NodeId) -> None:
        try:
            said[node] = await ask_node(session, node, type_, request, answer, deadline)
        except SsGovernError as error:
            errors[node] = error

    async with asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(ask(node))
    if not said:
        raise errors[nodes[-1]] if nodes else UnavailableError("no node is known to be live")
    answers = [said[node] for node in nodes if node in said]
    return answers, tuple((node, errors[node].message) for node in nodes if node in errors)
