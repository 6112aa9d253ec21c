"""Listing services: of one node its pages, of a cluster those of all primaries, merged.

Knows pages and shards. Invariant: every shard is listed by a node that was its primary, or the
listing fails; what one node could not list is asked of whoever has it then.
"""

from __future__ import annotations

import asyncio

from ssgovern.client.backoff import Backoff
from ssgovern.client.session import RETRY_FIRST_S, RETRY_MOST_S, Session
from ssgovern.client.shard_map import mask_of
from ssgovern.client.values import ServiceSummary
from ssgovern.errors import DeadlineExceededError, Retry, SsGovernError
from ssgovern.model import NodeId, ShardId
from ssgovern.wire.codec import key_from_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2


async def list_services(
    session: Session, namespace: str, group: str, prefix: str, timeout_s: float
) -> list[ServiceSummary]:
    """Return all services that have instances, in the order of their names."""
    listing = _Listing(session, namespace, group, prefix, timeout_s)
    loop = asyncio.get_running_loop()
    # The map is there as soon as there is a connection, and not before.
    await session.connected(loop.time() + timeout_s)
    if session.map.is_single:
        await listing.read(None, [])
        return listing.found
    deadline = loop.time() + timeout_s
    backoff = Backoff(session.runtime.rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
    left = list(session.map.rows)
    while left:
        listing.failed = []
        groups: dict[NodeId, list[ShardId]] = {}
        for shard in left:
            groups.setdefault(session.map.primary_of(shard), []).append(shard)
        async with asyncio.TaskGroup() as tasks:
            for node, shards in groups.items():
                tasks.create_task(listing.read(node, shards))
        if listing.refusal is not None:
            raise listing.refusal
        left = listing.failed
        if left:
            assert listing.error is not None, "something failed"
            if not await session.pause(backoff, deadline, listing.error):
                raise listing.error
    return sorted(listing.found, key=lambda line: line.key)


class _Listing:
    """What was found, and what is to be asked again."""

    def __init__(
        self, session: Session, namespace: str, group: str, prefix: str, timeout_s: float
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._group = group
        self._prefix = prefix
        self._timeout_s = timeout_s
        self.found: list[ServiceSummary] = []
        self.failed: list[ShardId] = []
        self.error: SsGovernError | None = None
        """Why the last of these failed."""
        self.refusal: SsGovernError | None = None
        """What no other node would say differently."""

    async def read(self, node: NodeId | None, shards: list[ShardId]) -> None:
        """Read all pages of some shards from their primary; None: all there is, from any node."""
        lines: list[ServiceSummary] = []
        token = ""
        loop = asyncio.get_running_loop()
        while True:
            request = native_pb2.ListServicesRequest(
                namespace=self._namespace,
                group=self._group,
                prefix=self._prefix,
                page_token=token,
                shards=mask_of(shards) if shards else b"",
            )
            kind, answer = MessageType.LIST_SERVICES, native_pb2.ListServicesResponse
            deadline = loop.time() + self._timeout_s
            if node is None:
                page = await self._session.call(kind, request, answer, deadline, repeatable=True)
            else:
                try:
                    page = await self._session.ask(node, kind, request, answer, deadline)
                except SsGovernError as error:
                    if error.retry is Retry.NEVER or isinstance(error, DeadlineExceededError):
                        self.refusal = error
                    self.failed += shards
                    self.error = error
                    return
            lines += [
                ServiceSummary(
                    key_from_wire(line.service), line.instances, line.available, line.revision
                )
                for line in page.services
            ]
            token = page.next_page_token
            if not token:
                self.found += lines
                return
