"""Who follows the shard map, and telling them what changed.

Each follower is told from the version it was told last, so that one that could take nothing for
a while gets one update for many; updates from the same version are encoded once a round.
Refuses to know what is in a map. Bounded by the connections there are: per follower one number
is kept.
"""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

from ssgovern import limits
from ssgovern.service.placement import Placement
from ssgovern.wire.frames import Kind, MessageType, encode_message


class Follower(Protocol):
    """The far end of a connection."""

    @property
    def can_take(self) -> bool:
        """Whether it takes pushes now."""

    def take(self, frame: bytes) -> None:
        """Send one frame to it."""


F = TypeVar("F", bound=Follower)


class MapFollowers(Generic[F]):
    """All followers of a node, and the version each was told last."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._told: dict[F, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, follower: F) -> bool:
        return follower in self._told

    def add(self, follower: F, version: int) -> None:
        """Tell a follower all that comes after a version, which it has."""
        self._told[follower] = version

    def remove(self, follower: F) -> None:
        """Tell it nothing more."""
        self._told.pop(follower, None)

    def wake(self) -> None:
        """The map has changed."""
        self._wake.set()

    def wake_for(self, follower: F) -> None:
        """A follower takes pushes again."""
        if follower in self._told:
            self._wake.set()

    async def run(self) -> None:
        """Tell, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._tell_all()

    async def _tell_all(self) -> None:
        updates: dict[int, tuple[int, list[bytes]]] = {}
        for number, follower in enumerate(list(self._told)):
            if number and number % limits.FAN_OUT_SLICE == 0:
                await asyncio.sleep(0)
            since = self._told.get(follower)
            if since is None or since >= self._placement.map_version or not follower.can_take:
                continue
            update = updates.get(since)
            if update is None:
                update = updates[since] = self._encode(since)
            self._told[follower], frames = update
            for frame in frames:
                follower.take(frame)

    def _encode(self, since: int) -> tuple[int, list[bytes]]:
        update = self._placement.map_update(since)
        body = update.SerializeToString()
        return update.version, encode_message(Kind.PUSH, MessageType.SHARD_MAP, 0, body)
