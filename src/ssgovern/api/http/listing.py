"""Lists over the whole cluster, page by page: services, namespaces.

A page of all shards is put together from a page of each primary; a node that holds everything
answers by itself. Knows no paths and no headers. Invariants: every shard is listed by a node
that was its primary, or the page fails; what a page costs is bounded by its size and the number
of nodes, however much there is.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ssgovern import limits
from ssgovern.api.http import asks, bodies
from ssgovern.api.http.answers import Answer
from ssgovern.api.http.asked import Asked
from ssgovern.api.http.desk import Desk
from ssgovern.api.native.namespaces import page_of_namespaces
from ssgovern.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    Retry,
    ShardUnavailableError,
    SsGovernError,
)
from ssgovern.model import SHARDS, NodeId, ShardId, check_prefix
from ssgovern.service.placement import ALL_SHARDS, Placement, mask_of, mask_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_PAUSE_S = 0.2
_ALL_JOINT = " "
"""As in the nodes' own page tokens: no name has a space in it."""


class Source(Protocol):
    """Where pages of services come from."""

    async def page(
        self, request: native_pb2.ListServicesRequest
    ) -> native_pb2.ListServicesResponse: ...


def held_shards(placement: Placement) -> int:
    """Return the mask of the shards that a node may tell of."""
    return mask_of(ShardId(shard) for shard in range(SHARDS) if placement.holds(ShardId(shard)))


# --- services -----------------------------------------------------------------------------


async def services(desk: Desk, asked: Asked) -> Answer:
    """Return a page of the services of a namespace. With a filter it may be short."""
    query = asked.query
    assert isinstance(query, asks.ServicesQuery), "the operation says what is asked"
    prefix = query.prefix or _head_of(query.name)
    # A pattern says more than the prefix it begins with: names that it cannot match are many.
    if query.prefix and _head_of(query.name).startswith(query.prefix):
        prefix = _head_of(query.name)
    held = held_shards(desk.backend.registry.placement)
    request = native_pb2.ListServicesRequest(
        namespace=asked.path["namespace"],
        group=query.group,
        prefix=prefix,
        page_size=query.page_size,
        page_token=query.page_token,
    )
    complete = held == ALL_SHARDS
    if complete or query.scope == "node":
        if not held:
            return Answer(_services_page(request, [], "", complete=False))
        request.shards = b"" if complete else mask_to_wire(held)

        found, token = await _filtered(_Here(desk), request, query)
    else:
        complete = True
        found, token = await _filtered(_Primaries(desk), request, query)
    return Answer(_services_page(request, found, token, complete=complete))


async def _filtered(
    source: Source, request: native_pb2.ListServicesRequest, query: asks.ServicesQuery
) -> tuple[list[native_pb2.ServiceSummary], str]:
    """Return up to a page of what is wanted, and where the next begins."""
    found: list[native_pb2.ServiceSummary] = []
    for _ in range(limits.HTTP_SCAN_PAGES_MAX):
        page = await source.page(request)
        for number, each in enumerate(page.services, start=1):
            if not _is_wanted(each, query):
                continue
            found.append(each)
            if len(found) == query.page_size:
                is_last = number == len(page.services)
                return found, page.next_page_token if is_last else _token_after(each)
        if not page.next_page_token:
            return found, ""
        request.page_token = page.next_page_token
    return found, request.page_token


def _is_wanted(each: native_pb2.ServiceSummary, query: asks.ServicesQuery) -> bool:
    name = each.service.service
    if not name.startswith(query.prefix) or (query.name and not glob_matches(query.name, name)):
        return False
    match query.health:
        case "all":
            return each.available == each.instances
        case "some":
            return 0 < each.available < each.instances
        case "none":
            return each.available == 0
        case _:
            return True


def _services_page(
    request: native_pb2.ListServicesRequest,
    found: list[native_pb2.ServiceSummary],
    token: str,
    *,
    complete: bool,
) -> bodies.ServicePage:
    return bodies.ServicePage(
        namespace=request.namespace,
        services=[
            bodies.ServiceSummary(
                group=each.service.group,
                service=each.service.service,
                instances=each.instances,
                available=each.available,
                revision=each.revision,
            )
            for each in found
        ],
        next_page_token=token or None,
        complete=complete,
    )


def _token_after(each: native_pb2.ServiceSummary) -> str:
    return f"{each.service.group}{_ALL_JOINT}{each.service.service}"


def _place_of(token: str) -> tuple[str, str]:
    group, _, service = token.partition(_ALL_JOINT)
    return group, service


class _Here:
    """Pages of what this node holds."""

    def __init__(self, desk: Desk) -> None:
        self._registry = desk.backend.registry

    async def page(
        self, request: native_pb2.ListServicesRequest
    ) -> native_pb2.ListServicesResponse:
        return self._registry.list_services(request)


class _Primaries:
    """A page of all shards, from the pages of those who are primary of them."""

    def __init__(self, desk: Desk) -> None:
        self._gateway = desk.backend.gateway
        self._deadline_s = asyncio.get_running_loop().time() + limits.HTTP_FORWARD_MS / 1000.0

    async def page(
        self, request: native_pb2.ListServicesRequest
    ) -> native_pb2.ListServicesResponse:
        left = [ShardId(shard) for shard in range(SHARDS)]
        pages: list[native_pb2.ListServicesResponse] = []
        while left:
            by_node = await self._gateway.primaries_of(left)
            outcomes = await self._ask(by_node, request)
            left = []
            last: SsGovernError | None = None
            for node, outcome in outcomes.items():
                if not isinstance(outcome, SsGovernError):
                    pages.append(outcome)
                elif outcome.retry is Retry.NEVER or isinstance(outcome, DeadlineExceededError):
                    raise outcome
                else:
                    last = outcome
                    left += by_node[node]
            if last is not None:
                if asyncio.get_running_loop().time() + _PAUSE_S >= self._deadline_s:
                    raise last
                await asyncio.sleep(_PAUSE_S)
        return _merged(pages, request.page_size)

    async def _ask(
        self, by_node: dict[NodeId, list[ShardId]], request: native_pb2.ListServicesRequest
    ) -> dict[NodeId, native_pb2.ListServicesResponse | SsGovernError]:
        async def ask_one(
            node: NodeId, shards: list[ShardId]
        ) -> native_pb2.ListServicesResponse | SsGovernError:
            if not node:
                return ShardUnavailableError(f"nobody serves shard {shards[0]} at present")
            wanted = native_pb2.ListServicesRequest()
            wanted.CopyFrom(request)
            wanted.shards = mask_to_wire(mask_of(shards))
            left_ms = (self._deadline_s - asyncio.get_running_loop().time()) * 1000.0
            try:
                return await self._gateway.ask(
                    node,
                    MessageType.LIST_SERVICES,
                    wanted,
                    native_pb2.ListServicesResponse,
                    timeout_ms=max(1, int(left_ms)),
                )
            except SsGovernError as error:
                return error

        async with asyncio.TaskGroup() as tasks:
            asked = {
                node: tasks.create_task(ask_one(node, shards)) for node, shards in by_node.items()
            }
        return {node: task.result() for node, task in asked.items()}


def _merged(
    pages: list[native_pb2.ListServicesResponse], size: int
) -> native_pb2.ListServicesResponse:
    """Return the first so many of all pages, no further than the shortest of them was looked."""
    ends = [_place_of(page.next_page_token) for page in pages if page.next_page_token]
    end = min(ends) if ends else None
    found = [
        each
        for page in pages
        for each in page.services
        if end is None or (each.service.group, each.service.service) <= end
    ]
    found.sort(key=lambda each: (each.service.group, each.service.service))
    merged = native_pb2.ListServicesResponse(services=found[:size])
    if len(found) > size:
        merged.next_page_token = _token_after(found[size - 1])
    elif end is not None:
        merged.next_page_token = _ALL_JOINT.join(end)
    return merged


# --- patterns -----------------------------------------------------------------------------


def glob_matches(pattern: str, name: str) -> bool:
    """Tell whether `*` (any signs) and `?` (any one) make a pattern a name.

    Goes back to the last star only, so that no pattern costs more than its length times the
    name's.
    """
    at = of = 0
    star = back = -1
    while at < len(name):
        if of < len(pattern) and pattern[of] == "*":
            star, back = of, at
            of += 1
        elif of < len(pattern) and pattern[of] in ("?", name[at]):
            of += 1
            at += 1
        elif star >= 0:
            back += 1
            of, at = star + 1, back
        else:
            return False
    return not pattern[of:].strip("*")


def _head_of(pattern: str) -> str:
    """Return what every name that matches begins with."""
    ends = [index for index in (pattern.find("*"), pattern.find("?")) if index >= 0]
    return pattern[: min(ends)] if ends else pattern


# --- namespaces ---------------------------------------------------------------------------


async def namespaces(desk: Desk, asked: Asked) -> Answer:
    """Return a page of the namespaces that have services anywhere in the cluster."""
    query = asked.query
    assert isinstance(query, asks.NamespacesQuery), "the operation says what is asked"
    check_prefix("prefix", query.prefix)
    if query.page_token:
        try:
            check_prefix("page_token", query.page_token)
        except InvalidArgumentError:
            raise InvalidArgumentError(
                "page_token is none that was given out", field="page_token"
            ) from None
    request = native_pb2.NamespacesRequest(
        prefix=query.prefix, after=query.page_token, page_size=query.page_size
    )
    registry = desk.backend.registry
    if held_shards(registry.placement) == ALL_SHARDS:
        found = page_of_namespaces(registry.directory, request)
        names, more = list(found.namespaces), found.more
    else:
        names, more = await _of_all_nodes(desk, request)
    page = bodies.NamespacePage(
        namespaces=[bodies.Namespace(namespace=name) for name in names],
        next_page_token=names[-1] if more else None,
    )
    return Answer(page)


async def _of_all_nodes(
    desk: Desk, request: native_pb2.NamespacesRequest
) -> tuple[list[str], bool]:
    """Return the namespaces of all nodes that answer: what one holds others hold, too."""
    outcomes = await desk.backend.gateway.ask_all(
        MessageType.NAMESPACES, request, native_pb2.NamespacesResponse
    )
    names: dict[str, None] = {}
    more = False
    failed: SsGovernError | None = None
    answered = False
    for outcome in outcomes.values():
        if isinstance(outcome, SsGovernError):
            failed = outcome
        else:
            answered = True
            more = more or outcome.more
            names.update(dict.fromkeys(outcome.namespaces))
    if failed is not None and not answered:
        raise failed
    found = sorted(names)
    size = request.page_size
    return found[:size], more or len(found) > size
