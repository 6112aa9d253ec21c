"""The audit of a cluster: what its nodes wrote down, put together, in pages from the newest on.

Every node answers for itself, and numbers its own entries. Invariants: by the pages of one walk
each entry that was there at its beginning is told once, whatever the clocks of nodes say and
whatever is written down meanwhile; a node that does not answer is named, and what it has is told
by a later page if it does then.
"""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssgovern import limits
from ssgovern.client.asking import ask_node, live_nodes
from ssgovern.client.session import Session
from ssgovern.errors import InvalidArgumentError, SsGovernError, UnavailableError
from ssgovern.model import NodeId
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_PLACE = re.compile(r"([0-9]{1,10})\.([0-9]{1,19})")

Places = Mapping[int, int]
"""Of each node, the number below which its entries have not been told yet."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, the newest first; `next_after` empty: these were the last."""

    entries: tuple[native_pb2.AuditEntry, ...]
    next_after: str = ""
    failed: tuple[tuple[int, str], ...] = ()


async def audit_page(
    session: Session, *, who: str = "", after: str = "", limit: int, deadline: float
) -> AuditPage:
    """Return a page of what all nodes wrote down, or of what somebody did.

    `after`: the `next_after` of the page before. Raises the error of the last node if all failed,
    InvalidArgumentError for an `after` that no page had.
    """
    if not 1 <= limit <= limits.AUDIT_PAGE_MAX:
        raise InvalidArgumentError(
            f"limit {limit}: allowed are 1 to {limits.AUDIT_PAGE_MAX}", field="limit"
        )
    places = _places(after)
    nodes = await live_nodes(session, deadline)
    said: dict[int, Sequence[native_pb2.AuditEntry]] = {}
    errors: dict[int, SsGovernError] = {}

    async def ask(node: NodeId) -> None:
        request = native_pb2.AuditRequest(limit=limit, before=places.get(node, 0), who=who)
        try:
            answer = await ask_node(
                session, node, MessageType.AUDIT, request, native_pb2.AuditResponse, deadline
            )
            said[node] = answer.entries
        except SsGovernError as error:
            errors[node] = error

    async with asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(ask(node))
    if not said:
        raise errors[nodes[-1]] if nodes else UnavailableError("no node is known to be live")
    entries, places, is_more = merged(
        {node: said[node] for node in nodes if node in said}, places, limit
    )
    failed = tuple((node, errors[node].message) for node in nodes if node in errors)
    return AuditPage(tuple(entries), _text(places) if is_more else "", failed)


def merged(
    said: Mapping[int, Sequence[native_pb2.AuditEntry]], places: Places, limit: int
) -> tuple[list[native_pb2.AuditEntry], dict[int, int], bool]:
    """Return the newest of what nodes said, where each goes on, and whether any may.

    Each said at most `limit` entries, by falling number. Entries of one node stay in the order of
    their numbers, though its clock may have been set back.
    """
    in_time = heapq.merge(
        *([(each.time_ms, node, each) for each in entries] for node, entries in said.items()),
        key=lambda each: each[:2],
        reverse=True,
    )
    taken = [(node, entry) for _, node, entry in in_time][:limit]
    # A node of which nothing is told yet begins below what it writes down from now on.
    places = {
        **{node: entries[0].number + 1 if entries else 1 for node, entries in said.items()},
        **places,
        **{node: entry.number for node, entry in taken},
    }
    total = sum(len(entries) for entries in said.values())
    is_full = any(len(entries) == limit for entries in said.values())
    return [entry for _, entry in taken], places, total > limit or is_full


def _text(places: Places) -> str:
    return "-".join(f"{node}.{number}" for node, number in sorted(places.items()))


def _places(text: str) -> dict[int, int]:
    if not text:
        return {}
    found = [_PLACE.fullmatch(part) for part in text.split("-")]
    places = {int(each[1]): int(each[2]) for each in found if each is not None}
    if len(places) != len(found) or 0 in places.values():
        raise InvalidArgumentError(f"{text[:100]!r} is where no page ended", field="after")
    return places
