"""What this node lost, until the cluster knows (ADR 9, point "My log is not intact").

Owner of `damaged.json` while the node runs. Refuses to know how the cluster is told. Invariant: a
part of the mark goes only when what it keeps this node from is settled elsewhere: the controller
has answered a registration that named the shards; the others have agreed without this node's
vote.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ssgovern.model import ShardId
from ssgovern.node.marks import read_damaged, write_damaged
from ssgovern.runtime import Disk

log = logging.getLogger("ssgovern.node")


class Damages:
    """Read when the node starts. Raises CorruptionError if the mark makes no sense."""

    def __init__(self, root: Disk) -> None:
        self._root = root
        self._turn = asyncio.Lock()
        self._now = read_damaged(root)
        if self._now.shards:
            log.warning("%d shards were lost: they are fetched anew", len(self._now.shards))
        if self._now.votes:
            log.warning(
                "this node does not know its votes any more: it is no candidate until it was "
                "removed as one (`ss-govern cluster candidates remove`) and added again"
            )

    def __repr__(self) -> str:
        return f"<Damages {self._now!r}>"

    @property
    def shards(self) -> tuple[ShardId, ...]:
        """Shards of which this node must not be promoted for what it has."""
        return self._now.shards

    @property
    def votes(self) -> bool:
        """It must not vote."""
        return self._now.votes

    async def told(self) -> None:
        """The controller granted a session, and knows of the shards."""
        async with self._turn:
            if self._now.shards:
                await write_damaged(self._root, replace(self._now, shards=()))
                self._now = replace(self._now, shards=())

    async def not_voting(self) -> None:
        """The others have agreed on candidates without this node."""
        async with self._turn:
            if self._now.votes:
                await write_damaged(self._root, replace(self._now, votes=False))
                self._now = replace(self._now, votes=False)
                log.info("this node may become a candidate again")
