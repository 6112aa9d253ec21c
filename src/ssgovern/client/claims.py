"""What this client registered, and whether the nodes still have it.

Two ways to be sure. A node that opened the session anew knows nothing of it: what is held in
its shards is registered again before the node is asked anything else. A shard that changed
its primary is claimed there: the node names what is missing, and only that is registered.

Knows no dialling. Invariants: a shard stays due until its present primary answered for it;
what the caller asked to remove is never registered again; many clients of one failed node do
not claim in the same moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from ssgovern import limits
from ssgovern.client.backoff import Backoff
from ssgovern.client.holdings import Holdings, in_batches
from ssgovern.client.links import Link, decode_or_give_up
from ssgovern.client.shard_map import ClientMap
from ssgovern.errors import ErrorCode, Retry, SsGovernError
from ssgovern.model import ServiceKey, ShardId, shard_of
from ssgovern.runtime import Runtime
from ssgovern.transport.channel import Channel, ConnectionLostError
from ssgovern.wire.codec import encode, error_from_message, key_from_wire, key_to_wire
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import native_pb2

_logger = logging.getLogger("ssgovern.client")

Held: TypeAlias = tuple[ServiceKey, str]

ANSWER_TIMEOUT_S = 10.0
SPREAD_S = 1.0
"""Claims of a shard that failed over are made within so long: not all clients at once, and well
within a session's time to live."""
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
MOVED = (
    ErrorCode.SHARD_MOVED,
    ErrorCode.SHARD_UNAVAILABLE,
    ErrorCode.OUTCOME_UNKNOWN,
    ErrorCode.FENCED,
)
"""The node, or the shard, is not what we took it for: the map knows better, soon."""


class Claims:
    """The shards that are due, and what is done about it on a node's connection."""

    def __init__(
        self,
        holdings: Callable[[], Holdings],
        shard_map: ClientMap,
        runtime: Runtime,
        want_map: Callable[[], None],
    ) -> None:
        self._holdings_of = holdings
        self._map = shard_map
        self._runtime = runtime
        self._want_map = want_map
        self._due: dict[ShardId, None] = {}

    def __repr__(self) -> str:
        return f"<Claims due={list(self._due)}>"

    @property
    def _holdings(self) -> Holdings:
        return self._holdings_of()

    def on_led(self, shards: Iterable[ShardId]) -> bool:
        """Take that shards have another primary or epoch; return whether any is due."""
        found = [shard for shard in shards if self._holdings.has_shard(shard)]
        if not self._map.is_single:
            self._due.update(dict.fromkeys(found))
        return bool(self._due)

    def due_at(self, link: Link) -> list[ShardId]:
        """Return the shards that a node is to be asked for."""
        return [shard for shard in self._due if self._map.primary_of(shard) == link.node_id]

    def holds_at(self, link: Link) -> bool:
        """Tell whether anything is held in shards of which a node is primary."""
        shards = self._holdings.shards()
        if self._map.is_single:
            return bool(shards) and (link.node_id in self._map.nodes or not self._map.nodes)
        return any(self._map.primary_of(shard) == link.node_id for shard in shards)

    # --- on a connection -------------------------------------------------------------------

    async def restore(self, link: Link, channel: Channel, *, resumed: bool) -> None:
        """Make a node know the session's instances, before it is asked anything else."""
        shards = [
            shard
            for shard in self._holdings.shards()
            if self._map.is_single or self._map.primary_of(shard) == link.node_id
        ]
        if resumed and not self._map.is_single:
            # It has a session of ours, perhaps an empty one. It may be asked which.
            self._due.update(dict.fromkeys(shards))
            return
        held = self._holdings.ids_in(shards)
        if held:
            _logger.info("session is new to %s: registering %d again", link.name, len(held))
            for shard in shards:
                self._due.pop(shard, None)
            await self._register(channel, held)

    async def run(self, link: Link, channel: Channel) -> None:
        """Claim what is due at a node, as long as there is a connection."""
        rng = self._runtime.rng
        backoff = Backoff(rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        while True:
            if not self.due_at(link):
                link.claims_due.clear()
                await link.claims_due.wait()
                await channel.wait_lost(rng.uniform(0.0, SPREAD_S))
                backoff.reset()
            shards = self.due_at(link)
            if shards and not await self._claim(channel, shards):
                self._want_map()
                await channel.wait_lost(backoff.next_pause_s())

    async def _claim(self, channel: Channel, shards: list[ShardId]) -> bool:
        """Claim shards; one by one if the node does not take them together.

        Returns whether none of them is due any more.
        """
        rows = [self._map.rows.get(shard) for shard in shards]
        try:
            for claimed in _in_claims(self._holdings.ids_in(shards)):
                await self._claim_batch(channel, claimed)
        except ConnectionLostError:
            raise
        except SsGovernError as error:
            if error.code not in MOVED and error.retry is not Retry.SAME_NODE:
                raise
            if len(shards) == 1 or error.retry is Retry.SAME_NODE:
                return False
            settled = [await self._claim(channel, [shard]) for shard in shards]
            return all(settled)
        for shard, row in zip(shards, rows, strict=True):
            # Changed once more meanwhile: due again.
            if self._map.rows.get(shard) == row:
                self._due.pop(shard, None)
        return not any(shard in self._due for shard in shards)

    async def _claim_batch(self, channel: Channel, claimed: list[Held]) -> None:
        request = native_pb2.ClaimRequest()
        items: dict[ServiceKey, native_pb2.Claimed] = {}
        for key, instance_id in claimed:
            if key not in items:
                items[key] = request.claimed.add(service=key_to_wire(key))
            items[key].instance_ids.append(instance_id)
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        try:
            body = await channel.request(MessageType.CLAIM, encode(request), deadline)
        except SsGovernError as error:
            if error.code is not ErrorCode.UNSUPPORTED_TYPE:
                raise
            missing = claimed
        else:
            answer = decode_or_give_up(channel, native_pb2.ClaimResponse, body)
            missing = [
                (key_from_wire(item.service), instance_id)
                for item in answer.missing
                for instance_id in item.instance_ids
            ]
        if missing:
            _logger.info("%s misses %d of ours: registering them again", channel.peer, len(missing))
            await self._register(channel, missing)

    async def _register(self, channel: Channel, held: list[Held]) -> None:
        """Register again; what the node cannot take now because it is not its own is due."""
        registrations = self._holdings.registrations(held)
        backoff = Backoff(self._runtime.rng, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        while registrations:
            refused: list[native_pb2.Registration] = []
            for batch in in_batches(registrations):
                # What was asked to go since must not come back.
                wanted = [item for item in batch if self._is_held(item)]
                if wanted:
                    refused += await self._register_batch(channel, wanted)
            registrations = refused
            if refused:
                await channel.wait_lost(backoff.next_pause_s())

    async def _register_batch(
        self, channel: Channel, batch: list[native_pb2.Registration]
    ) -> list[native_pb2.Registration]:
        """Register some; return those to be tried again here."""
        request = native_pb2.RegisterRequest(registrations=batch)
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        try:
            body = await channel.request(MessageType.REGISTER, encode(request), deadline)
        except SsGovernError as error:
            if self._is_moved(error):
                self._postpone(batch)
                return []
            if error.retry is not Retry.SAME_NODE:
                raise
            return batch
        response = decode_or_give_up(channel, native_pb2.RegisterResponse, body)
        refused: list[native_pb2.Registration] = []
        for item, result in zip(batch, response.results, strict=False):
            if not result.HasField("error"):
                continue
            failure = error_from_message(result.error)
            if failure.retry is Retry.NEVER:
                _logger.error("cannot register %s again: %s", item.instance.id, failure)
            elif self._is_moved(failure):
                self._postpone([item])
            else:
                refused.append(item)
        return refused

    def _is_moved(self, error: SsGovernError) -> bool:
        return error.code in MOVED and not self._map.is_single

    def _postpone(self, batch: list[native_pb2.Registration]) -> None:
        for item in batch:
            self._due[shard_of(*key_from_wire(item.service))] = None
        self._want_map()

    def _is_held(self, item: native_pb2.Registration) -> bool:
        return self._holdings.held(key_from_wire(item.service), item.instance.id) is not None


def _in_claims(held: list[Held]) -> Iterator[list[Held]]:
    """Cut what is claimed into requests that keep to the limits."""
    for start in range(0, len(held), limits.REGISTER_BATCH_MAX):
        yield held[start : start + limits.REGISTER_BATCH_MAX]
