"""Tells the nodes that are no candidates what was committed, as soon as it was replayed here.

Pushes may be lost with their link; nothing is kept about who got what. A node that misses
something sees it by the next push, or by its next heartbeat, and fetches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ssgovern.model import NodeId
from ssgovern.node.controller_seams import PushLinks
from ssgovern.node.metadata import Metadata, MetadataChange
from ssgovern.wire.frames import MessageType
from ssgovern.wire.pb import peer_pb2


class MetadataFeed:
    """Pushes while `begin` was called and `end` was not."""

    def __init__(
        self,
        metadata: Metadata,
        links: PushLinks,
        members: Callable[[], tuple[NodeId, ...]],
    ) -> None:
        """`members` of the agreed log get it from there."""
        self._metadata = metadata
        self._links = links
        self._members = members
        self._loop = asyncio.get_running_loop()
        self._active = False
        self._is_due = False
        self._pushed = 0
        metadata.listeners.append(self._on_change)

    def begin(self) -> None:
        """Push from now on; tell everybody at once where heartbeats are to be sent."""
        self._active = True
        self._pushed = self._metadata.index
        self._tell(self._metadata.message(self._pushed))

    def end(self) -> None:
        """Push no more: another node may."""
        self._active = False

    def _on_change(self, _change: MetadataChange) -> None:
        if self._active and not self._is_due:
            # After all that was committed with it.
            self._is_due = True
            self._loop.call_soon(self._push)

    def _push(self) -> None:
        self._is_due = False
        while self._active and self._pushed < self._metadata.index:
            body = self._metadata.message(self._pushed)
            self._tell(body)
            message = peer_pb2.Metadata.FromString(body)
            self._pushed = message.entries[-1].index if message.entries else message.after

    def _tell(self, body: bytes) -> None:
        members = self._members()
        for node in self._metadata.state.sorted_nodes():
            if node.live and node.id not in members:
                self._links.send(node.id, MessageType.METADATA, body)
